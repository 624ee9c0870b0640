"""An embedder without a model: it honours the protocol, and fails when it is told to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from imagedbd.datatypes import ModelInfo, ModelState, ModelStatus, Preprocess, Priority
from imagedbd.errors import EmbedderError, ImagedbError, ModelUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagedbd.datatypes import Pixels

INFO = ModelInfo("fake", "0" * 64, 16, Preprocess(32, 32, mean=(0.5,) * 3, std=(0.5,) * 3))


def vector_of(content: bytes) -> NDArray[np.float32]:
    """A unit vector that depends on every bit."""
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    vector = np.random.default_rng(seed).standard_normal(INFO.dimension).astype(np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


@dataclass
class FakeEmbedder:
    """:param poison: pictures whose first pixel has this red value make their batch fail.
    :param broken: every batch fails.
    :param blank: those with this red value get a vector that is not finite.
    :param zero: or one of zeros.
    :param short: or one with a number too few.
    """

    info: ModelInfo | None = INFO
    batch_size: int = 4
    poison: int | None = None
    blank: int | None = None
    zero: int | None = None
    short: int | None = None
    broken: bool = False
    embedded: list[int] = field(default_factory=list)
    """How many pictures each batch had."""
    prompts: list[str] = field(default_factory=list)

    def status(self) -> ModelStatus:
        if self.info is None:
            return ModelStatus("fake", ModelState.UNAVAILABLE, "There is none.", ("get one",))
        return ModelStatus("fake", ModelState.READY, device="cpu", dtype="fp32")

    def embed_prompts(self, prompts: Sequence[str]) -> Future[NDArray[np.float32]]:
        if self.info is None:
            return _failed(ModelUnavailableError("There is none."))
        self.prompts += prompts
        return _done(np.stack([vector_of(prompt.encode()) for prompt in prompts]))

    def embed_pictures(
        self, pictures: Sequence[Pixels], priority: Priority = Priority.INDEX
    ) -> Future[NDArray[np.float32]]:
        if self.info is None:
            return _failed(ModelUnavailableError("There is none."))
        self.embedded.append(len(pictures))
        reds = [int(picture[0, 0, 0]) for picture in pictures]
        if self.broken or self.poison in reds:
            return _failed(EmbedderError("It choked."))
        rows = np.stack([vector_of(picture.tobytes()) for picture in pictures])
        rows[[red == self.blank for red in reds]] = np.nan
        rows[[red == self.zero for red in reds]] = 0
        if self.short in reds:
            ragged = [row[: -1 if red == self.short else None] for row, red in zip(rows, reds, strict=True)]
            return _done(ragged)  # type: ignore[arg-type]  # that is the fault
        return _done(rows)

    def close(self) -> None:
        """There is nothing to close."""


def _done(rows: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
    future: Future[NDArray[np.float32]] = Future()
    future.set_result(rows)
    return future


def _failed(error: ImagedbError) -> Future[NDArray[np.float32]]:
    future: Future[NDArray[np.float32]] = Future()
    future.set_exception(error)
    return future
