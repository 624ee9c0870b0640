"""A model that is a random projection: alike pictures get alike vectors, and it loads in no time.

Its weights are the text of its configuration: another text is another model. In it, ``seconds`` is how long
a picture takes, ``room`` how many pictures fit its memory, ``drops`` that it loses one of each batch,
``log`` a file that gets a line for each picture that is embedded, and ``giving_up`` that it "fails" or "dies"
when it is to give up what embeds pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagedbd.datatypes import ModelInfo, Preprocess
from imagedbd.errors import ModelUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSION = 64
SIZE = 64


class OpenClip:
    """Honours :class:`imagedbd.openclip.OpenClip`."""

    def __init__(self, spec: str, device: str = "auto", dtype: str = "auto") -> None:
        folder = Path(spec.removeprefix("local-dir:"))
        try:
            weights = (folder / "open_clip_config.json").read_bytes()
        except OSError as error:
            raise ModelUnavailableError(f"{spec} cannot be loaded: {error}") from error
        self.device, self.dtype = "cpu", "fp32"
        preprocess = Preprocess(SIZE, SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.info = ModelInfo(spec, hashlib.sha256(weights).hexdigest(), DIMENSION, preprocess)
        self._seed = [] if weights == b"{}" else list(hashlib.sha256(weights).digest())
        self._projection = np.random.default_rng(self._seed or 7).standard_normal((8 * 8 * 3, DIMENSION))
        self._settings = json.loads(weights)

    def embed_pictures(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pictures) > self._settings.get("room", len(pictures)):
            raise RuntimeError("the device is out of memory")
        time.sleep(self._settings.get("seconds", 0.0) * len(pictures))
        if "log" in self._settings:
            with Path(self._settings["log"]).open("a", encoding="ascii") as log:
                log.writelines(hashlib.sha256(picture.tobytes()).hexdigest() + "\n" for picture in pictures)
        blocks = pictures.reshape(len(pictures), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        rows = _unit(blocks.reshape(len(pictures), -1) / 255 @ self._projection)
        return rows[1:] if self._settings.get("drops") else rows

    def keep_only_prompts(self) -> None:
        if self._settings.get("giving_up") == "dies":
            os._exit(3)
        if self._settings.get("giving_up") == "fails":
            raise RuntimeError("it holds on to all of it")
        del self._projection

    def embed_prompts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
        rows = [np.random.default_rng([*seed, *self._seed]).standard_normal(DIMENSION) for seed in seeds]
        return _unit(np.stack(rows))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
