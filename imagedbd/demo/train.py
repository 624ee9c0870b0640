"""Train the demo checkpoint from scratch: ``python -m imagedbd.demo.train --out DIR --seed N``.

The result is an ordinary OpenCLIP checkpoint of a very small model that has only ever seen this package's
own drawings. Training takes about fifteen minutes on two idle cores and needs no graphics card. The same
seed, package versions and kind of processor give the same checkpoint; ``checkpoint/README.md`` names the
seed of the shipped one.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save as serialised
from torch import Tensor, nn
from torch.nn import functional

from imagedbd.demo.bars import Bars, measure, preprocessed, unseen_scenes
from imagedbd.demo.captions import FACETS, Caption, describe
from imagedbd.demo.pool import Preprocess, drawn_pool

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 2, 2, 1],
        "width": 16,
        "head_width": 64,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 64,
        "heads": 4,
        "layers": 2,
    },
}
PREPROCESS_CFG: dict[str, Any] = {
    "size": 64,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}

_THREADS = 2
_LARGEST_LOGIT_SCALE = math.log(100)
_UNSEEN_SIZE = (640, 480)


@dataclass(frozen=True)
class Recipe:
    """Everything besides the seed that shapes the checkpoint."""

    steps: int = 1_500
    batch: int = 256
    pool: int = 40_000
    learning_rate: float = 2e-3
    warm_up_steps: int = 200
    weight_decay: float = 0.05
    report_every: int = 250
    unseen: int = 500


class Trainer:
    """One training run: the model, what it learns from, and how far it has come."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        """Draw the pictures and set the model up with random weights."""
        torch.manual_seed(seed)
        self.recipe = recipe
        self.rng = random.Random(f"batches {seed}")
        self.model = open_clip.CLIP(**MODEL_CFG).to(memory_format=torch.channels_last)
        self.tokenizer = open_clip.SimpleTokenizer(context_length=MODEL_CFG["text_cfg"]["context_length"])
        self.tokens_of: dict[str, Tensor] = {}
        self.normalise = _Normalisation()
        self.pool = drawn_pool(recipe.pool, seed, _plain_transform())
        self.unseen = unseen_scenes(recipe.unseen, seed)
        self.unseen_pictures = preprocessed(self.unseen, _UNSEEN_SIZE, _transform(PREPROCESS_CFG))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, recipe.weight_decay), lr=recipe.learning_rate
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate_share(step, recipe)
        )

    def run(self, out: Path) -> None:
        """Take all steps; write a usable checkpoint and a log line at every report."""
        started, losses = time.monotonic(), []
        for step in range(1, self.recipe.steps + 1):
            losses.append(self.step())
            if step % self.recipe.report_every == 0 or step == self.recipe.steps:
                _log.info(
                    "step %d/%d, %.1f min, loss %.4f: %s",
                    step,
                    self.recipe.steps,
                    (time.monotonic() - started) / 60,
                    sum(losses) / len(losses),
                    self.bars(),
                )
                losses.clear()
                save(self.model, self.used_tokens(), out)

    def step(self) -> float:
        """Take one optimiser step on a random batch and return its loss."""
        self.model.train()
        rows = self.rng.sample(range(len(self.pool)), self.recipe.batch)
        captions = [describe(self.pool.scenes[row], self.rng) for row in rows]
        loss = contrastive_loss(
            self.encode_image(self.normalise(self.pool.pictures[rows])),
            self.encode_text(self.tokens([caption.text for caption in captions])),
            self.model.logit_scale.exp(),
            truths(captions, self.pool.facets[rows]),
        )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, _LARGEST_LOGIT_SCALE)
        return loss.item()

    def bars(self) -> Bars:
        """Measure the model as it stands on pictures outside the pool."""
        self.model.eval()
        return measure(
            self.unseen,
            self.unseen_pictures,
            self.encode_image,
            self.encode_text,
            self.tokenizer,
        )

    def encode_image(self, pictures: Tensor) -> Tensor:
        """Return unit-length rows for normalised ``(n, 3, size, size)`` pictures."""
        rows: Tensor = self.model.encode_image(
            pictures.contiguous(memory_format=torch.channels_last), normalize=True
        )
        return rows

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return unit-length rows for ``(n, context_length)`` tokens."""
        rows: Tensor = self.model.encode_text(tokens, normalize=True)
        return rows

    def tokens(self, texts: list[str]) -> Tensor:
        """Return ``(n, context_length)`` tokens, remembering what was tokenised before."""
        for text in texts:
            if text not in self.tokens_of:
                self.tokens_of[text] = self.tokenizer([text])[0]
        return torch.stack([self.tokens_of[text] for text in texts])

    def used_tokens(self) -> Tensor:
        """Return the numbers of the tokens that training has seen."""
        used: Tensor = torch.unique(torch.stack(list(self.tokens_of.values())))
        return used


def truths(captions: Sequence[Caption], facets: Tensor) -> Tensor:
    """Return ``(n, n)`` booleans: is caption ``i``, written for picture ``i``, true of ``j``?

    ``facets`` holds the ``(n, len(FACETS))`` facet numbers of the pictures.
    """
    mentioned = torch.tensor([[facet in caption.facets for facet in FACETS] for caption in captions])
    agree = facets[:, None, :] == facets[None, :, :]
    return (agree | ~mentioned[:, None, :]).all(dim=2)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, true: Tensor) -> Tensor:
    """Return CLIP's symmetric loss with the truth shared among all pairs that match.

    ``images`` and ``texts`` are ``(n, d)`` unit-length rows; ``true[i, j]`` says that text ``i``
    holds for image ``j``.
    """
    by_text = scale * texts @ images.T
    share = true.float()
    to_images = functional.cross_entropy(by_text, share / share.sum(1, keepdim=True))
    share = share.T
    to_texts = functional.cross_entropy(by_text.T, share / share.sum(1, keepdim=True))
    return (to_images + to_texts) / 2


def save(model: nn.Module, used_tokens: Tensor, out: Path) -> None:
    """Write the model to ``out`` in OpenCLIP's ``local-dir:`` layout, in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: _halved(tensor) for name, tensor in model.state_dict().items()}
    # Zeros compress to nothing, and words never seen are better silent than random.
    unused = torch.ones(MODEL_CFG["text_cfg"]["vocab_size"], dtype=torch.bool)
    unused[used_tokens] = False
    weights["token_embedding.weight"][unused] = 0
    # The library's own way to write a file leaves it readable to nobody else.
    (out / WEIGHTS_NAME).write_bytes(serialised(weights, metadata={"format": "pt"}))
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (out / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _halved(tensor: Tensor) -> Tensor:
    """Return a contiguous copy, in half precision if it holds fractions."""
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    return copy.half() if copy.is_floating_point() else copy


class _Normalisation:
    """Brings uint8 pictures to the scale of the preprocessing that the checkpoint names."""

    def __init__(self) -> None:
        self.mean = torch.tensor(PREPROCESS_CFG["mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(PREPROCESS_CFG["std"]).view(1, 3, 1, 1)

    def __call__(self, pictures: Tensor) -> Tensor:
        return (pictures.float() / 255 - self.mean) / self.std


def _transform(preprocess_cfg: dict[str, Any]) -> Preprocess:
    """Return OpenCLIP's own evaluation transform for a preprocessing configuration."""
    transform: Preprocess = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    return transform


def _plain_transform() -> Preprocess:
    """Return the evaluation transform without its normalisation."""
    return _transform({**PREPROCESS_CFG, "mean": [0.0] * 3, "std": [1.0] * 3})


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: only matrices and kernels decay."""
    decaying = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _rate_share(step: int, recipe: Recipe) -> float:
    """Return the share of the full learning rate: linear warm-up, then a cosine to zero."""
    if step < recipe.warm_up_steps:
        return (step + 1) / recipe.warm_up_steps
    progress = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--pool", type=int, default=Recipe.pool)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = Recipe(steps=arguments.steps, batch=arguments.batch, pool=arguments.pool)
    # The order of floating-point sums, and with it the checkpoint, depends on the threads.
    torch.set_num_threads(_THREADS)
    Trainer(recipe, arguments.seed).run(arguments.out)


if __name__ == "__main__":
    main()
