"""A sample photo library: drawn pictures in dated folders, with what cameras would say about them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from PIL import Image

from imagedbd.demo.cameras import CAMERAS
from imagedbd.demo.captions import sentence
from imagedbd.demo.palette import COLOURS
from imagedbd.demo.scenes import Scene, draw, random_scene
from imagedbd.demo.shots import Exposure, Place, Shot
from imagedbd.demo.subjects import SUBJECTS
from imagedbd.demo.tags import exif, png_text, xmp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagedbd.demo.cameras import Lens

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
        ("city", "beach", "sea"), ("iphone", "sony"),
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
# Seconds between two shots, at least; leaves room for another one right after the first.
_PAUSE = 37
_PLACE_SHARE = 0.85
_CAPTION_SHARE = 0.4
_KEYWORDS_SHARE = 0.35
# Most pictures are as the camera left them; some went through an editor or a web site.
_ENDINGS = (".jpg",) * 17 + ("-edited.png",) * 2 + (".webp",)
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
    paths = []
    for name, shot in planned(count, seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(shot, path)
        os.utime(path, (shot.taken.timestamp(),) * 2)
        paths.append(path)
    return paths


def planned(count: int, seed: int) -> list[tuple[str, Shot]]:
    """The shots of a library, each with its path below the library's folder."""
    rng = random.Random(f"gallery {seed}")
    last_number = {camera.model: rng.randrange(20, 900) for camera in CAMERAS.values()}
    motifs = _motifs(rng)
    plan = []
    for index, trip in enumerate(TRIPS):
        share = count * (index + 1) // len(TRIPS) - count * index // len(TRIPS)
        for shot in _shots(trip, list(islice(motifs, share)), rng):
            # Gaps are the pictures that somebody has deleted since.
            last_number[shot.camera.model] += rng.choice((1, 1, 1, 2, 5))
            stem = shot.camera.file_stem(shot.taken, last_number[shot.camera.model])
            plan.append((f"{trip.folder}/{stem}{rng.choice(_ENDINGS)}", shot))
    return plan


def _motifs(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Subjects with colours: the favourites first, then all others, over and over again."""
    others = [
        (subject, colour)
        for subject in SUBJECTS
        for colour in COLOURS
        if (subject, colour) not in _FAVOURITES
    ]
    rng.shuffle(others)
    return cycle(_interleaved(list(_FAVOURITES), others))


def _interleaved(few: list[tuple[str, str]], many: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """All of ``few`` and ``many``, the former spread evenly over the first half of a library."""
    mixed = list(many)
    for index, motif in enumerate(few):
        mixed.insert(index * 10, motif)
    return mixed


def _shots(trip: Trip, motifs: list[tuple[str, str]], rng: random.Random) -> list[Shot]:
    """The pictures of one trip in order of time, a few of them taken twice in a row."""
    moments = _moments(trip, len(motifs), rng)
    shots: list[Shot] = []
    for motif, (taken, time) in zip(motifs, moments, strict=True):
        if shots and rng.random() < _SECOND_SHOT_SHARE:
            shots.append(_second_shot(shots[-1], rng))
        else:
            shots.append(_shot(trip, motif, taken, time, rng))
    return shots


def _moments(trip: Trip, count: int, rng: random.Random) -> list[tuple[datetime, str]]:
    """Distinct moments of the trip in order, each with the time of day that it falls in."""
    zone = timezone(timedelta(hours=trip.utc_offset))
    start = datetime(*trip.first_day, tzinfo=zone)
    moments: dict[datetime, str] = {}
    while len(moments) < count:
        time = rng.choice(("day", "day", "sunset", "night"))
        first, last = _HOURS[time]
        second = rng.randrange(first * 3600, (last + 1) * 3600)
        moments[start + timedelta(days=rng.randrange(trip.days), seconds=second - second % _PAUSE)] = time
    return sorted(moments.items())


def _second_shot(first: Shot, rng: random.Random) -> Shot:
    """The same view a few seconds later, from where one has stepped meanwhile."""
    return replace(
        first,
        scene=replace(first.scene, seed=rng.getrandbits(32)),
        taken=first.taken + timedelta(seconds=rng.randint(2, 9)),
        rating=None,
    )


def _shot(trip: Trip, motif: tuple[str, str], taken: datetime, time: str, rng: random.Random) -> Shot:
    """One picture of the trip with everything about it that chance decides."""
    subject, colour = motif
    scene = replace(
        random_scene(rng), subject=subject, colour=colour, time=time, background=rng.choice(trip.backgrounds)
    )
    camera = CAMERAS[rng.choice(trip.cameras)]
    lens = rng.choice(camera.lenses)
    size, orientation = _format(rng)
    keywords = _keywords(trip, scene) if rng.random() < _KEYWORDS_SHARE else ()
    return Shot(
        scene=scene,
        size=size,
        taken=taken,
        camera=camera,
        lens=lens,
        exposure=_exposure(lens, time, rng),
        place=_nearby(trip.place, rng) if camera.knows_place and rng.random() < _PLACE_SHARE else None,
        orientation=orientation,
        caption=sentence(scene, rng) if rng.random() < _CAPTION_SHARE else None,
        keywords=keywords,
        rating=rng.randint(1, 5) if keywords else None,
    )


def _format(rng: random.Random) -> tuple[tuple[int, int], int]:
    """The upright size in pixels, and the EXIF orientation in which the pixels are stored."""
    if rng.random() < _PORTRAIT_SHARE:
        orientation = rng.choice((6, 6, 8)) if rng.random() < _TURNED_SHARE else 1
        return rng.choice(_PORTRAITS), orientation
    return rng.choice(_LANDSCAPES), 3 if rng.random() < _UPSIDE_DOWN_SHARE else 1


def _exposure(lens: Lens, time: str, rng: random.Random) -> Exposure:
    """Settings that suit the time of day."""
    return Exposure(
        iso=rng.choice(_ISOS[time]),
        f_number=rng.choice(lens.f_numbers),
        time=Fraction(1, rng.choice(_EXPOSURE_FRACTIONS[time])),
        focal_length=rng.choice(lens.focal_lengths),
    )


def _nearby(place: Place, rng: random.Random) -> Place:
    """A point within a stroll of ``place``."""
    return Place(
        latitude=place.latitude + rng.uniform(-_STROLL, _STROLL),
        longitude=place.longitude + rng.uniform(-_STROLL, _STROLL),
    )


def _keywords(trip: Trip, scene: Scene) -> tuple[str, ...]:
    """The words that somebody tidy would file the picture under."""
    return scene.subject, scene.colour, scene.background, trip.folder.split(" ", 1)[1]


def _write(shot: Shot, path: Path) -> None:
    """Write the picture with its tags, in the format that the path's suffix names."""
    picture = draw(shot.scene, shot.size)
    if path.suffix == ".png":
        # The editor that it was exported from turned the pixels and dropped the camera's tags.
        picture.save(path, pnginfo=png_text(shot), optimize=True)
        return
    if shot.orientation in _STORED:
        picture = picture.transpose(_STORED[shot.orientation])
    options: dict[str, Any] = {
        "exif": exif(shot),
        "quality": _JPEG_QUALITY if path.suffix == ".jpg" else _WEBP_QUALITY,
    }
    if shot.keywords:
        options["xmp"] = xmp(shot)
    picture.save(path, **options)
