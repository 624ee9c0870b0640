"""Skies for each time of day, and the landscapes that a subject can stand in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from imagedbd.demo.palette import RGB, jitter, mix

if TYPE_CHECKING:
    import random

Land = Callable[["Canvas"], None]

# Top and bottom of the sky.
SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((132, 190, 236), (222, 238, 248)),
    "night": ((10, 14, 40), (44, 52, 98)),
    "sunset": ((122, 92, 150), (252, 176, 112)),
}

# What falls on the land at that time of day: a colour, and how much of it.
_LIGHTS: dict[str, tuple[RGB, float]] = {
    "day": ((255, 255, 255), 0.0),
    "night": ((12, 16, 48), 0.62),
    "sunset": ((228, 120, 76), 0.32),
}

_STARS_PER_PICTURE = 60


class Canvas:
    """A picture being painted, with the light of its time of day."""

    def __init__(self, size: tuple[int, int], time: str, rng: random.Random) -> None:
        """Start with an empty sky; ``size`` is the width and height in pixels."""
        self.width, self.height = size
        self.time = time
        self.rng = rng
        self.image = _sky(size, time, rng)
        self.draw = ImageDraw.Draw(self.image)

    def lit(self, colour: RGB) -> RGB:
        """Return ``colour`` as the time of day makes it look, slightly varied."""
        light, share = _LIGHTS[self.time]
        return jitter(mix(colour, light, share), 6, self.rng)

    def ground(self, top: float, colour: RGB) -> None:
        """Cover everything below ``top`` (a share of the height)."""
        self.draw.rectangle(
            (0, round(top * self.height), self.width, self.height),
            fill=self.lit(colour),
        )

    def hills(self, top: float, swing: float, colour: RGB) -> None:
        """Cover everything below a wavy line around ``top`` (shares of the height)."""
        waves, shift = self.rng.uniform(0.7, 1.6), self.rng.uniform(0, 2 * math.pi)
        crest = [
            (
                self.width * index / 32,
                self.height * (top + swing * math.sin(shift + waves * 2 * math.pi * index / 32)),
            )
            for index in range(33)
        ]
        self.draw.polygon(
            [*crest, (self.width, self.height), (0, self.height)],
            fill=self.lit(colour),
        )

    def specks(self, count: int, top: float, radius: float, colour: RGB) -> None:
        """Scatter small dots below ``top``; the radius is a share of the height."""
        fill = self.lit(colour)
        for _ in range(count):
            x = self.rng.uniform(0, self.width)
            y = self.rng.uniform(top, 1) * self.height
            r = max(0.5, radius * self.height * self.rng.uniform(0.6, 1.2))
            self.draw.ellipse((x - r, y - r / 2, x + r, y + r / 2), fill=fill)


def _sky(size: tuple[int, int], time: str, rng: random.Random) -> Image.Image:
    """Return a vertical gradient, with stars at night."""
    top, bottom = (jitter(colour, 10, rng) for colour in SKIES[time])
    column = Image.new("RGB", (1, 64))
    column.putdata([mix(top, bottom, (row / 63) ** 1.4) for row in range(64)])
    sky = column.resize(size, Image.Resampling.BILINEAR)
    if time == "night":
        draw = ImageDraw.Draw(sky)
        for _ in range(_STARS_PER_PICTURE):
            x, y = rng.uniform(0, size[0]), rng.uniform(0, 0.7) * size[1]
            r = size[1] * rng.uniform(0.0008, 0.0028)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(232, 234, 250))
    return sky


def _meadow(canvas: Canvas) -> None:
    canvas.hills(0.56, 0.04, (150, 188, 128))
    canvas.hills(0.68, 0.04, (122, 170, 96))
    canvas.specks(40, 0.76, 0.006, (236, 236, 214))


def _beach(canvas: Canvas) -> None:
    canvas.ground(0.52, (86, 158, 192))
    canvas.hills(0.7, 0.015, (236, 240, 240))
    canvas.hills(0.72, 0.015, (230, 208, 164))
    canvas.specks(50, 0.78, 0.004, (206, 182, 138))


def _snow(canvas: Canvas) -> None:
    canvas.hills(0.6, 0.05, (214, 226, 240))
    canvas.hills(0.7, 0.04, (234, 241, 249))


def _city(canvas: Canvas) -> None:
    left = -0.02 * canvas.width
    while left < canvas.width:
        width = canvas.rng.uniform(0.08, 0.16) * canvas.width
        top = canvas.rng.uniform(0.3, 0.56) * canvas.height
        _tower(canvas, left, top, width)
        left += width
    canvas.ground(0.76, (146, 146, 152))
    canvas.ground(0.84, (112, 112, 120))


def _tower(canvas: Canvas, left: float, top: float, width: float) -> None:
    """Paint one block of flats down to the street, its windows lit at night."""
    grey = canvas.rng.choice([(152, 156, 168), (172, 168, 166), (134, 142, 158)])
    canvas.draw.rectangle((left, top, left + width, canvas.height), fill=canvas.lit(grey))
    pane = (236, 214, 140) if canvas.time == "night" else canvas.lit((204, 212, 224))
    step = canvas.height * 0.045
    for row in range(int((0.76 * canvas.height - top) / step)):
        for column in range(3):
            if canvas.rng.random() < 0.6:
                x = left + width * (0.16 + 0.26 * column)
                y = top + step * (row + 0.35)
                canvas.draw.rectangle((x, y, x + width * 0.14, y + step * 0.5), fill=pane)


def _forest(canvas: Canvas) -> None:
    for top, colour in ((0.4, (128, 152, 136)), (0.5, (96, 128, 106))):
        x = canvas.rng.uniform(-0.06, 0) * canvas.width
        while x < canvas.width * 1.05:
            peak = (top + canvas.rng.uniform(-0.08, 0.06)) * canvas.height
            half = canvas.rng.uniform(0.035, 0.06) * canvas.width
            foot = 0.82 * canvas.height
            canvas.draw.polygon(
                [(x, peak), (x + half, foot), (x - half, foot)],
                fill=canvas.lit(colour),
            )
            x += half * 1.3
    canvas.hills(0.76, 0.02, (128, 140, 102))


def _desert(canvas: Canvas) -> None:
    canvas.hills(0.58, 0.05, (222, 186, 136))
    canvas.hills(0.7, 0.06, (206, 164, 112))
    canvas.specks(24, 0.78, 0.005, (176, 136, 92))


def _sea(canvas: Canvas) -> None:
    canvas.ground(0.54, (98, 156, 192))
    canvas.hills(0.68, 0.012, (78, 138, 180))
    canvas.hills(0.82, 0.014, (62, 120, 166))
    canvas.specks(30, 0.58, 0.006, (206, 226, 238))


def _mountains(canvas: Canvas) -> None:
    x = canvas.rng.uniform(-0.1, 0.05) * canvas.width
    while x < canvas.width * 1.1:
        peak = canvas.rng.uniform(0.3, 0.46) * canvas.height
        half = canvas.rng.uniform(0.16, 0.26) * canvas.width
        foot = 0.74 * canvas.height
        canvas.draw.polygon(
            [(x, peak), (x + half, foot), (x - half, foot)],
            fill=canvas.lit((138, 150, 174)),
        )
        x += half * 1.2
    canvas.hills(0.68, 0.03, (148, 166, 138))


def _plain(canvas: Canvas) -> None:
    """Leave nothing but the sky, flattened: a picture with no landscape."""
    canvas.ground(0.0, canvas.rng.choice([(222, 220, 214), (206, 214, 222)]))


LANDS: dict[str, Land] = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "city": _city,
    "forest": _forest,
    "desert": _desert,
    "sea": _sea,
    "mountains": _mountains,
    "plain": _plain,
}


def backdrop(size: tuple[int, int], time: str, land: str, rng: random.Random) -> Image.Image:
    """Return an RGB picture of the landscape at that time of day, without a subject."""
    canvas = Canvas(size, time, rng)
    LANDS[land](canvas)
    return canvas.image
