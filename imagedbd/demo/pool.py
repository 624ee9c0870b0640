"""Training pictures, drawn once on all cores at the size that the model sees."""

from __future__ import annotations

import io
import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagedbd.demo.captions import FACETS
from imagedbd.demo.scenes import Scene, draw, random_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Example = tuple[Scene, NDArray[np.uint8]]

Preprocess = Callable[[Image.Image], Tensor]

# Width to height of the cameras, phones and crops that a library holds.
_ASPECTS = (4 / 3, 4 / 3, 3 / 2, 16 / 9, 1.0, 3 / 4, 2 / 3)
_SHORT_SIDES = (96, 288)
_JPEG_SHARE = 0.6
_JPEG_QUALITIES = (60, 95)
_CHUNK = 64


@dataclass(frozen=True)
class Pool:
    """Pictures with their scenes, in the same order.

    ``pictures`` is ``(n, 3, size, size)`` of uint8, ``facets`` ``(n, len(FACETS))`` of int64:
    two scenes agree on a facet where the numbers are equal.
    """

    pictures: Tensor
    scenes: list[Scene]
    facets: Tensor

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.scenes)


def drawn_pool(count: int, seed: int, preprocess: Preprocess) -> Pool:
    """Draw ``count`` random scenes, on all cores if they are many.

    ``preprocess`` is the model's own transform without its normalisation: it returns
    ``(3, size, size)`` between 0 and 1.
    """
    seeds = [f"pool {seed} {index}" for index in range(count)]
    example = partial(_example, preprocess)
    drawn = _on_all_cores(example, seeds) if count > _CHUNK else [example(seed) for seed in seeds]
    scenes = [scene for scene, _ in drawn]
    return Pool(
        pictures=torch.from_numpy(np.stack([pixels for _, pixels in drawn])),
        scenes=scenes,
        facets=facet_numbers(scenes),
    )


def _on_all_cores(example: Callable[[str], _Example], seeds: Sequence[str]) -> list[_Example]:
    # Forking a process in which PyTorch has already started its threads can hang.
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=torch.set_num_threads, initargs=(1,)) as workers:
        return workers.map(example, seeds, chunksize=_CHUNK)


def facet_numbers(scenes: Sequence[Scene]) -> Tensor:
    """Return ``(n, len(FACETS))`` numbers that are equal where two scenes agree."""
    columns = []
    for facet in FACETS:
        values = [getattr(scene, facet) for scene in scenes]
        number_of = {value: number for number, value in enumerate(sorted(set(values)))}
        columns.append([number_of[value] for value in values])
    return torch.tensor(columns).T.contiguous()


def _example(preprocess: Preprocess, seed: str) -> _Example:
    """Draw one random scene at a random size and reduce it to the model's input."""
    rng = random.Random(seed)
    scene = random_scene(rng)
    picture = draw(scene, _source_size(rng))
    if rng.random() < _JPEG_SHARE:
        picture = _through_jpeg(picture, rng.randint(*_JPEG_QUALITIES))
    levels: NDArray[np.uint8] = (preprocess(picture) * 255).round().byte().numpy()
    return scene, levels


def _source_size(rng: random.Random) -> tuple[int, int]:
    """Return a random width and height in pixels."""
    aspect, short = rng.choice(_ASPECTS), rng.randint(*_SHORT_SIDES)
    if aspect < 1:
        return short, round(short / aspect)
    return round(short * aspect), short


def _through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Return ``picture`` with the losses of JPEG compression at ``quality``."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
