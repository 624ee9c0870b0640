"""A sample photo library: drawn pictures in dated folders, with what cameras would say about them."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING

from PIL import Image

from imagedbd.demo.cameras import CAMERAS
from imagedbd.demo.captions import caption
from imagedbd.demo.palette import COLOURS
from imagedbd.demo.scenes import Scene, draw, random_scene
from imagedbd.demo.shots import Exposure, Place, Shot
from imagedbd.demo.subjects import SUBJECTS
from imagedbd.demo.tags import exif, png_text, xmp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagedbd.demo.cameras import Camera, Lens

DEFAULT_SEED = 20240612


@dataclass(frozen=True)
class Trip:
    """A folder of the library: where and when its pictures were taken, and with what."""

    folder: str
    first_day: tuple[int, int, int]
    days: int
    utc_offset: int
    place: Place
    backgrounds: tuple[str, ...]
    cameras: tuple[str, ...]


TRIPS: tuple[Trip, ...] = (
    Trip(
        "2023-08 Lisbon", (2023, 8, 4), 6, 1, Place(38.7139, -9.1394),
        ("city", "beach", "sea"), ("iphone", "canon"),
    ),
    Trip(
        "2024-06 Lake", (2024, 6, 8), 5, 2, Place(45.6495, 10.7214),
        ("sea", "meadow", "mountains"), ("nikon", "iphone"),
    ),
    Trip(
        "2024-10 Black Forest", (2024, 10, 12), 4, 2, Place(47.9959, 7.8522),
        ("forest", "meadow"), ("fuji", "pixel"),
    ),
    Trip(
        "2025-01 Alps", (2025, 1, 18), 7, 1, Place(47.2692, 11.4041),
        ("snow", "mountains", "forest"), ("canon", "pixel"),
    ),
    Trip(
        "2025-07 Sydney", (2025, 7, 5), 9, 10, Place(-33.8688, 151.2093),
        ("beach", "city", "sea"), ("sony", "pixel"),
    ),
    Trip(
        "2025-11 Marrakesh", (2025, 11, 15), 5, 1, Place(31.6295, -7.9811),
        ("desert", "city"), ("fuji", "iphone"),
    ),
    Trip(
        "2026-04 New York", (2026, 4, 3), 6, -4, Place(40.7128, -74.0060),
        ("city", "sea", "plain"), ("sony", "nikon"),
    ),
)  # fmt: skip

# What people try first is in the library however few pictures it has.
_FAVOURITES = (
    ("car", "red"),
    ("cat", "black"),
    ("boat", "white"),
    ("umbrella", "yellow"),
    ("bicycle", "green"),
    ("balloon", "red"),
    ("fish", "orange"),
    ("house", "blue"),
    ("flower", "pink"),
    ("dog", "brown"),
    ("butterfly", "purple"),
    ("tree", "green"),
)

_LANDSCAPES = ((640, 480), (640, 480), (720, 480), (640, 360))
_PORTRAITS = ((480, 640), (480, 720))
_PORTRAIT_SHARE = 0.25
_TURNED_SHARE = 0.5
_UPSIDE_DOWN_SHARE = 0.03
_SECOND_SHOT_SHARE = 0.08
_PLACE_SHARE = 0.85
_CAPTION_SHARE = 0.4
_KEYWORDS_SHARE = 0.35
_SUFFIXES = (".jpg",) * 17 + (".png",) * 2 + (".webp",)
_JPEG_QUALITY = 88
_WEBP_QUALITY = 85
# About as far as one walks in a day, in degrees.
_STROLL = 0.04

_HOURS = {"day": (9, 17), "sunset": (19, 20), "night": (21, 23)}
_ISOS = {"day": (100, 125, 200, 400), "sunset": (200, 400, 800), "night": (1600, 3200, 6400)}
_EXPOSURE_FRACTIONS = {"day": (250, 500, 1000), "sunset": (60, 100, 160), "night": (8, 15, 30)}

# How the pixels of an upright picture are stored under each value of the EXIF tag.
_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def write_gallery(folder: Path, count: int = 240, seed: int = DEFAULT_SEED) -> list[Path]:
    """Write ``count`` pictures to subfolders of ``folder`` and return their paths in order of date.

    The same seed and the same version of Pillow give the same files, byte for byte. Each file's
    modification time is the moment at which it was supposedly taken.
    """
    rng = random.Random(f"gallery {seed}")
    paths = []
    numbers: Counter[str] = Counter({name: rng.randrange(20, 900) for name in CAMERAS})
    shares = [count * (index + 1) // len(TRIPS) - count * index // len(TRIPS) for index in range(len(TRIPS))]
    subjects = _subjects(count, rng)
    for trip, share in zip(TRIPS, shares, strict=True):
        shots = _shots(trip, [next(subjects) for _ in range(share)], rng)
        for shot in shots:
            name = _camera_name(shot.camera)
            numbers[name] += rng.choice((1, 1, 1, 2, 5))
            suffix = rng.choice(_SUFFIXES)
            path = folder / trip.folder / (shot.camera.file_stem(shot.taken, numbers[name]) + suffix)
            _write(shot, path)
            paths.append(path)
    return paths
