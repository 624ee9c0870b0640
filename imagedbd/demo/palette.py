"""The named colours that a subject can have, and the paints derived from each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 36, 38),
    "orange": (246, 132, 22),
    "yellow": (250, 216, 44),
    "green": (44, 152, 62),
    "blue": (34, 92, 208),
    "purple": (126, 52, 168),
    "pink": (249, 142, 190),
    "brown": (122, 74, 38),
    "black": (30, 30, 34),
    "white": (247, 247, 247),
}

_BLACK: RGB = (0, 0, 0)
_WHITE: RGB = (255, 255, 255)
_NIGHT_INK: RGB = (28, 28, 34)


class Tone(Enum):
    """The role that a paint plays in a drawing, whatever the drawing's colour."""

    BODY = "body"
    SHADE = "shade"
    TINT = "tint"
    DETAIL = "detail"
    PANE = "pane"
    INK = "ink"


@dataclass(frozen=True)
class Palette:
    """The paints of one drawing: its named colour and what has to be told apart from it."""

    body: RGB
    shade: RGB
    tint: RGB
    detail: RGB
    pane: RGB
    ink: RGB
    halo: RGB

    def paint(self, tone: Tone) -> RGB:
        """Return the paint that plays the role ``tone``."""
        paint: RGB = getattr(self, tone.value)
        return paint


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Return ``first`` moved towards ``second`` by ``share`` (0 to 1)."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def jitter(colour: RGB, spread: int, rng: random.Random) -> RGB:
    """Return ``colour`` with each channel moved by at most ``spread`` levels."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in colour)
    return red, green, blue


def palette_for(colour: str, rng: random.Random) -> Palette:
    """Return the paints for a subject of the named ``colour``, slightly varied by ``rng``."""
    body = jitter(COLOURS[colour], 8, rng)
    if colour == "black":
        return Palette(
            body=body,
            shade=mix(body, _WHITE, 0.16),
            tint=mix(body, _WHITE, 0.24),
            detail=(222, 222, 226),
            pane=(176, 184, 196),
            ink=_NIGHT_INK,
            halo=_WHITE,
        )
    if colour == "white":
        return Palette(
            body=body,
            shade=mix(body, _BLACK, 0.12),
            tint=mix(body, _BLACK, 0.06),
            detail=_NIGHT_INK,
            pane=(150, 160, 176),
            ink=_NIGHT_INK,
            # A white rim would make a white subject look larger than it is, and blurred.
            halo=(96, 102, 118),
        )
    return Palette(
        body=body,
        shade=mix(body, _BLACK, 0.22),
        tint=mix(body, _WHITE, 0.28),
        detail=_NIGHT_INK,
        pane=(236, 242, 248),
        ink=_NIGHT_INK,
        halo=_WHITE,
    )
