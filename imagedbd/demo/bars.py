"""How well a checkpoint knows the drawings: two figures on pictures it has never seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imagedbd.demo.captions import all_prompts, prompt
from imagedbd.demo.scenes import Scene, draw, random_scene

if TYPE_CHECKING:
    from PIL import Image

Encode = Callable[[Tensor], Tensor]

_BATCH = 64


@dataclass(frozen=True)
class Bars:
    """Shares (0 to 1) over the pictures measured, and how many prompts competed."""

    own_prompt_first: float
    right_picture_first: float
    pictures: int
    competing_prompts: int
    searched_prompts: int

    def __str__(self) -> str:
        """Return both shares in per cent with the numbers that they stand on."""
        return (
            f"own prompt first {self.own_prompt_first:.2%} "
            f"({self.pictures} pictures, {self.competing_prompts} prompts), "
            f"right picture first {self.right_picture_first:.2%} "
            f"({self.searched_prompts} prompts)"
        )


def unseen_scenes(count: int, seed: int) -> list[Scene]:
    """Return scenes that training, which derives its seeds otherwise, never draws."""
    rng = random.Random(f"unseen {seed}")
    return [random_scene(rng) for _ in range(count)]


def preprocessed(
    scenes: Sequence[Scene],
    size: tuple[int, int],
    preprocess: Callable[[Image.Image], Tensor],
) -> Tensor:
    """Draw every scene at ``size`` pixels and return one ``(n, 3, h, w)`` batch."""
    return torch.stack([preprocess(draw(scene, size)) for scene in scenes])


def measure(
    scenes: Sequence[Scene],
    pictures: Tensor,
    encode_image: Encode,
    encode_text: Encode,
    tokenizer: Callable[[list[str]], Tensor],
) -> Bars:
    """Rank all prompts for every picture, and all pictures for every prompt that occurs.

    ``pictures`` is the ``(n, 3, h, w)`` batch of the ``n`` scenes; both encoders return
    unit-length rows.
    """
    prompts = all_prompts()
    row_of = {text: row for row, text in enumerate(prompts)}
    own = torch.tensor([row_of[prompt(scene)] for scene in scenes])
    with torch.inference_mode():
        images = torch.cat([encode_image(batch) for batch in torch.split(pictures, _BATCH)])
        likeness = images @ encode_text(tokenizer(prompts)).T
    searched: Tensor = torch.unique(own)
    found = own[likeness[:, searched].argmax(dim=0)]
    return Bars(
        own_prompt_first=(likeness.argmax(dim=1) == own).float().mean().item(),
        right_picture_first=(found == searched).float().mean().item(),
        pictures=len(scenes),
        competing_prompts=len(prompts),
        searched_prompts=len(searched),
    )
