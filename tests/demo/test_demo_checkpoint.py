"""The shipped checkpoint knows the drawings, and is as small as the wheel needs it to be."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from imagedbd.demo import checkpoint_dir
from imagedbd.demo.captions import all_prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    import open_clip
    from PIL import Image
    from torch import Tensor

    from imagedbd.demo.bars import Bars

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""What OpenCLIP looks for in a checkpoint's folder."""
BAR = 0.95
PICTURES = 500
GALLERY_SIZE = (640, 480)
# Training measures itself on the pictures of its own seed; these are nobody's.
SEED = 20261123

MEGABYTE = 1_000_000


class Loaded(NamedTuple):
    model: open_clip.CLIP
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]

    def encode_image(self, pictures: Tensor) -> Tensor:
        return self.model.encode_image(pictures, normalize=True)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=True)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The checkpoint as OpenCLIP loads any other."""
    import open_clip  # takes seconds, and not everybody who collects these tests runs them

    name = f"local-dir:{checkpoint_dir()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        model, _, preprocess = open_clip.create_model_and_transforms(name)
        tokenizer = open_clip.get_tokenizer(name)
    return Loaded(model.eval(), preprocess, tokenizer)


@pytest.fixture(scope="module")
def bars(loaded: Loaded) -> Bars:
    from imagedbd.demo.bars import measure, preprocessed, unseen_scenes

    scenes = unseen_scenes(PICTURES, SEED)
    return measure(
        scenes,
        preprocessed(scenes, GALLERY_SIZE, loaded.preprocess),
        loaded.encode_image,
        loaded.encode_text,
        loaded.tokenizer,
    )


def test_a_pictures_own_prompt_comes_first_among_all_prompts(bars: Bars) -> None:
    assert bars.pictures == PICTURES
    assert bars.competing_prompts == len(set(all_prompts())) >= 400
    assert bars.own_prompt_first >= BAR, str(bars)


def test_the_first_picture_found_for_a_prompt_is_a_right_one(bars: Bars) -> None:
    assert bars.searched_prompts >= 80
    assert bars.right_picture_first >= BAR, str(bars)


def test_words_that_training_never_saw_do_not_break_the_text_tower(loaded: Loaded) -> None:
    import torch

    with torch.inference_mode():
        rows = loaded.encode_text(
            loaded.tokenizer(["an ornithopter beside Worcestershire sauce", "", "!" * 99])
        )
    assert torch.isfinite(rows).all()
    assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-5)


def test_the_checkpoint_is_small() -> None:
    weights = (checkpoint_dir() / WEIGHTS).read_bytes()
    assert len(weights) <= 10 * MEGABYTE
    # A wheel is a zip file, deflated at this level.
    assert len(zlib.compress(weights, 6)) < 4 * MEGABYTE


def test_the_checkpoint_comes_with_its_config_and_its_story() -> None:
    assert (checkpoint_dir() / CONFIG).is_file()
    assert "--seed" in (checkpoint_dir() / "README.md").read_text(encoding="utf-8")
