"""One picture of the sample library, before it is written: what it shows and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from fractions import Fraction

    from imagedbd.demo.cameras import Camera, Lens
    from imagedbd.demo.scenes import Scene


@dataclass(frozen=True)
class Exposure:
    """The camera's settings; the time in seconds, the focal length in millimetres."""

    iso: int
    f_number: float
    time: Fraction
    focal_length: float


@dataclass(frozen=True)
class Place:
    """A point on the earth in degrees; north and east are positive."""

    latitude: float
    longitude: float


@dataclass(frozen=True)
class Shot:
    """A picture to be written.

    ``size`` is the width and height in pixels of the upright picture, ``orientation`` the EXIF tag that
    says how its pixels are stored. What the file does not mention is ``None`` or empty.
    """

    scene: Scene
    size: tuple[int, int]
    taken: datetime
    camera: Camera
    lens: Lens
    exposure: Exposure
    place: Place | None
    orientation: int
    caption: str | None
    keywords: tuple[str, ...]
    rating: int | None
