"""Plain geometry for drawings: every outline is a list of points in the unit box.

The unit box runs from -1 to 1 on both axes, x to the right and y downwards, as in a picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, float]
Outline = list[Point]


def arc(
    centre: Point, radius_x: float, radius_y: float, start: float, end: float, *, points: int = 24
) -> Outline:
    """Return an open elliptical arc; angles in degrees, clockwise from 3 o'clock."""
    angles = [math.radians(start + (end - start) * index / (points - 1)) for index in range(points)]
    return [
        (centre[0] + radius_x * math.cos(angle), centre[1] + radius_y * math.sin(angle)) for angle in angles
    ]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, tilt: float = 0.0) -> Outline:
    """Return a closed ellipse around ``(x, y)``, turned clockwise by ``tilt`` degrees."""
    flat = arc((0.0, 0.0), radius_x, radius_y, 0, 360, points=41)[:-1]
    return moved(turned(flat, tilt), x, y)


def circle(x: float, y: float, radius: float) -> Outline:
    """Return a closed circle around ``(x, y)``."""
    return ellipse(x, y, radius, radius)


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """Return an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def rounded_box(left: float, top: float, right: float, bottom: float, radius: float) -> Outline:
    """Return an upright rectangle with round corners."""
    corners = [
        ((right - radius, top + radius), -90),
        ((right - radius, bottom - radius), 0),
        ((left + radius, bottom - radius), 90),
        ((left + radius, top + radius), 180),
    ]
    return [
        point
        for centre, start in corners
        for point in arc(centre, radius, radius, start, start + 90, points=6)
    ]


def star(points: int, outer: float, inner: float) -> Outline:
    """Return a star around the origin with one point straight up."""
    outline = []
    for index in range(points * 2):
        angle = math.pi * index / points - math.pi / 2
        radius = inner if index % 2 else outer
        outline.append((radius * math.cos(angle), radius * math.sin(angle)))
    return outline


def heart() -> Outline:
    """Return a heart that fills the unit box."""
    outline = []
    for index in range(48):
        angle = 2 * math.pi * index / 48
        x = 16 * math.sin(angle) ** 3
        y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
        outline.append((x / 17, -(y + 2.5) / 16.5))
    return outline


def moved(outline: Sequence[Point], x: float, y: float) -> Outline:
    """Return ``outline`` moved by ``(x, y)``."""
    return [(px + x, py + y) for px, py in outline]


def turned(outline: Sequence[Point], degrees: float) -> Outline:
    """Return ``outline`` turned clockwise around the origin."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in outline]


def mirrored(outline: Sequence[Point]) -> Outline:
    """Return ``outline`` with left and right swapped."""
    return [(-x, y) for x, y in outline]
