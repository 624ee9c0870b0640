"""Training, in miniature: a few steps give a checkpoint that OpenCLIP loads.

torch takes seconds to load: only who runs these tests does, not everybody who collects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagedbd.demo.captions import FACETS, Caption
from imagedbd.demo.scenes import Scene

if TYPE_CHECKING:
    from pathlib import Path

POOL = 16
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""What OpenCLIP looks for in a checkpoint's folder."""


def train(out: Path) -> None:
    from imagedbd.demo.train import Recipe, Trainer

    miniature = Recipe(steps=3, batch=8, pool=POOL, unseen=4, warm_up_steps=1)
    Trainer(miniature, seed=1).run(out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(out)
    return out


def test_the_result_loads_like_any_other_checkpoint(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip
    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = f"local-dir:{trained}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["a red car", "a blue cat"])
    assert tokens.shape == (2, 24)
    assert model.encode_text(tokens).shape == (2, 64)
    assert preprocess.transforms[-1].mean == [0.5, 0.5, 0.5]
    for name, tensor in load_file(trained / WEIGHTS).items():
        assert torch.equal(model.state_dict()[name], tensor.to(model.state_dict()[name].dtype)), name


def test_rows_of_words_never_seen_are_zero(trained: Path) -> None:
    import torch
    from safetensors.torch import load_file

    rows = load_file(trained / WEIGHTS)["token_embedding.weight"]
    assert rows.dtype == torch.float16
    assert 2 < int(rows.any(dim=1).sum()) < 200


@pytest.mark.parametrize("chunk", [POOL, pytest.param(POOL // 2, marks=pytest.mark.slow, id="on all cores")])
def test_the_same_seed_gives_the_same_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("imagedbd.demo.pool._CHUNK", chunk)
    train(tmp_path)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_a_caption_is_true_of_every_picture_that_shows_what_it_mentions() -> None:
    from imagedbd.demo.pool import facet_numbers
    from imagedbd.demo.train import truths

    scenes = [
        Scene("car", "red", "day", "left", "city", 1),
        Scene("car", "red", "night", "right", "snow", 2),
        Scene("car", "blue", "night", "right", "snow", 3),
    ]
    captions = [
        Caption("a red car", frozenset({"subject", "colour"})),
        Caption("a red car at night", frozenset({"subject", "colour", "time"})),
        Caption("cars", frozenset({"subject"})),
    ]
    facets = facet_numbers(scenes)
    assert facets.shape == (3, len(FACETS))
    assert truths(captions, facets).tolist() == [
        [True, True, False],
        [False, True, False],
        [True, True, True],
    ]


def test_the_loss_is_lowest_where_texts_point_at_their_pictures() -> None:
    import torch

    from imagedbd.demo.train import contrastive_loss

    rows = torch.eye(4)
    true = torch.eye(4, dtype=torch.bool)
    scale = torch.tensor(20.0)
    right = contrastive_loss(rows, rows, scale, true)
    wrong = contrastive_loss(rows, rows.roll(1, dims=0), scale, true)
    assert right < 1e-6 < wrong
