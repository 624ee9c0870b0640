"""Captioned scenes: one coloured subject, somewhere, at some time of day."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from imagedbd.demo.backdrops import LANDS, SKIES, backdrop
from imagedbd.demo.palette import COLOURS, palette_for
from imagedbd.demo.sketch import Placement
from imagedbd.demo.subjects import SUBJECTS, sketch_of

# Where the subject's centre leans, in shares of the room that is left around it.
POSITIONS: dict[str, tuple[float, float]] = {
    "centre": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "top": (0.0, -1.0),
    "bottom": (0.0, 1.0),
}

# Pillow's own anti-aliasing stops at filled areas, so pictures are drawn larger and reduced.
_SUPERSAMPLING = 2
# The half side of a subject's unit box as a share of the picture's shorter side: even a large subject
# that leans to one side and is turned stays in the central square that OpenCLIP crops to.
_HALF_SIDES = (0.24, 0.37)
_EDGE = 0.46
_MAX_TURN = 12.0


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows; ``seed`` fixes what the words leave open."""

    subject: str
    colour: str
    time: str
    position: str
    background: str
    seed: int


def random_scene(rng: random.Random) -> Scene:
    """Return a scene with every attribute drawn independently and evenly."""
    return Scene(
        subject=rng.choice(list(SUBJECTS)),
        colour=rng.choice(list(COLOURS)),
        time=rng.choice(list(SKIES)),
        position=rng.choice(list(POSITIONS)),
        background=rng.choice(list(LANDS)),
        seed=rng.getrandbits(32),
    )


def draw(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Return the RGB picture of ``scene``, ``size`` being its width and height in pixels."""
    rng = random.Random(scene.seed)
    large = (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    picture = backdrop(large, scene.time, scene.background, rng)
    sketch_of(scene.subject).paint(
        ImageDraw.Draw(picture),
        palette_for(scene.colour, rng),
        _placement(scene.position, large, rng),
    )
    return picture.reduce(_SUPERSAMPLING)


def _placement(position: str, size: tuple[int, int], rng: random.Random) -> Placement:
    """Return a random place for the subject within the central square of the picture."""
    side = min(size)
    half_side = rng.uniform(*_HALF_SIDES)
    room = max(0.0, _EDGE - half_side)
    lean_x, lean_y = POSITIONS[position]
    x = 0.5 + room * (lean_x * rng.uniform(0.75, 1.0) + rng.uniform(-0.15, 0.15))
    y = 0.5 + room * (lean_y * rng.uniform(0.75, 1.0) + rng.uniform(-0.15, 0.15))
    return Placement(
        x=size[0] / 2 + (x - 0.5) * side,
        y=size[1] / 2 + (y - 0.5) * side,
        half_side=half_side * side,
        turn=rng.uniform(-_MAX_TURN, _MAX_TURN),
        mirrored=rng.random() < 0.5,
    )
