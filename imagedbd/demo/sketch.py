"""A drawing as a list of painted parts, independent of where and how large it ends up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagedbd.demo.palette import RGB, Palette, Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw

    from imagedbd.demo.outlines import Outline, Point

_INK_WIDTH = 0.035
_HALO_WIDTH = 0.075
_SHARP_TURN = math.radians(3)


@dataclass(frozen=True)
class Placement:
    """Where a sketch's unit box goes: its centre and half side in pixels, its turn in degrees."""

    x: float
    y: float
    half_side: float
    turn: float = 0.0
    mirrored: bool = False

    def map(self, outline: Sequence[Point]) -> Outline:
        """Return ``outline`` (unit box) in pixels."""
        sine = math.sin(math.radians(self.turn)) * self.half_side
        cosine = math.cos(math.radians(self.turn)) * self.half_side
        flip = -1 if self.mirrored else 1
        return [
            (
                self.x + flip * x * cosine - y * sine,
                self.y + flip * x * sine + y * cosine,
            )
            for x, y in outline
        ]


@dataclass(frozen=True)
class Part:
    """Areas and lines that share one paint and, where outlined, one common outer contour."""

    areas: tuple[Outline, ...]
    lines: tuple[Outline, ...]
    width: float
    tone: Tone
    outlined: bool


@dataclass
class Sketch:
    """Parts in painting order, the last on top; all widths are in unit-box lengths."""

    parts: list[Part] = field(default_factory=list)

    def fill(self, *areas: Outline, tone: Tone = Tone.BODY) -> None:
        """Add areas whose union gets one outer contour."""
        self.parts.append(Part(areas, (), 0.0, tone, outlined=True))

    def mark(self, *areas: Outline, tone: Tone = Tone.DETAIL) -> None:
        """Add areas without a contour, for details inside the subject."""
        self.parts.append(Part(areas, (), 0.0, tone, outlined=False))

    def bar(self, width: float, *lines: Outline, tone: Tone = Tone.BODY) -> None:
        """Add thick round-ended lines whose union gets one outer contour."""
        self.parts.append(Part((), lines, width, tone, outlined=True))

    def pen(self, width: float, *lines: Outline, tone: Tone = Tone.DETAIL) -> None:
        """Add lines without a contour, for details inside the subject."""
        self.parts.append(Part((), lines, width, tone, outlined=False))

    def paint(self, draw: ImageDraw.ImageDraw, palette: Palette, placement: Placement) -> None:
        """Paint the sketch: first a halo around all of it, then part by part."""
        for part in self.parts:
            if part.outlined:
                _spread(draw, part, placement, _HALO_WIDTH, palette.halo)
        for part in self.parts:
            if part.outlined:
                _spread(draw, part, placement, _INK_WIDTH, palette.ink)
            _spread(draw, part, placement, 0.0, palette.paint(part.tone))


def _spread(
    draw: ImageDraw.ImageDraw,
    part: Part,
    placement: Placement,
    margin: float,
    colour: RGB,
) -> None:
    """Paint ``part`` grown by ``margin`` (unit-box length) on every side."""
    unit = placement.half_side
    for area in part.areas:
        outline = placement.map(area)
        draw.polygon(outline, fill=colour)
        if margin:
            _stroke(draw, [*outline, outline[0], outline[1]], 2 * margin * unit, colour)
    for line in part.lines:
        _stroke(draw, placement.map(line), (part.width + 2 * margin) * unit, colour)


def _stroke(draw: ImageDraw.ImageDraw, points: Outline, width: float, colour: RGB) -> None:
    """Draw a polyline of ``width`` pixels with round ends and round sharp corners."""
    draw.line(points, fill=colour, width=max(1, round(width)))
    # Pillow's ellipses include their far edge, which makes them one pixel wider than lines.
    radius = (max(1, round(width)) - 1) / 2
    if radius < 1:
        return
    for index, (x, y) in enumerate(points):
        if _needs_disc(points, index):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _needs_disc(points: Outline, index: int) -> bool:
    """Tell whether a plain wide line would leave a notch at the point ``index``."""
    if index in (0, len(points) - 1):
        return True
    (ax, ay), (bx, by), (cx, cy) = points[index - 1 : index + 2]
    turn = math.atan2(cy - by, cx - bx) - math.atan2(by - ay, bx - ax)
    return abs(math.remainder(turn, 2 * math.pi)) > _SHARP_TURN
