"""Pictures made on the spot: each number gives another one, and the same one every time."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """An asymmetric picture of random rectangles."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        box = (x, y, x + rng.randrange(1, size[0]), y + rng.randrange(1, size[1]))
        draw.rectangle(box, fill=_colour(rng))
    return image


def save(path: Path, seed: int, size: tuple[int, int] = (320, 240), **options: Any) -> Path:
    """Write a picture in the format of its suffix; options are Pillow's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path, **options)
    return path


def encoded(seed: int, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, kind, **options)
    return stream.getvalue()


def exif(**tags: Any) -> Image.Exif:
    """EXIF from names: ``make``, ``model``, ``taken`` (with offset), ``iso``, ``gps`` (degrees)."""
    made = Image.Exif()
    if "make" in tags:
        made[0x010F] = tags["make"]
    if "model" in tags:
        made[0x0110] = tags["model"]
    if "description" in tags:
        made[0x010E] = tags["description"]
    shot = made.get_ifd(0x8769)
    if "taken" in tags:
        shot[0x9003] = tags["taken"]
    if "iso" in tags:
        shot[0x8827] = tags["iso"]
    if "gps" in tags:
        _set_gps(made, *tags["gps"])
    return made


def _set_gps(made: Image.Exif, lat: float, lon: float) -> None:
    place = made.get_ifd(0x8825)
    place[1], place[2] = "N" if lat >= 0 else "S", _degrees(abs(lat))
    place[3], place[4] = "E" if lon >= 0 else "W", _degrees(abs(lon))


def _degrees(value: float) -> tuple[float, float, float]:
    minutes = (value - int(value)) * 60
    return float(int(value)), float(int(minutes)), round((minutes - int(minutes)) * 60, 4)


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
