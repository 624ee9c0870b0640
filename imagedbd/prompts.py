"""The vectors of prompts, remembered: people ask the same again, for the next page or with another filter."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from imagedbd.datatypes import Embedder, Vector

KEPT: Final = 1_000


class PromptVectors:
    """Any thread may call any method.

    :param check: raises an error if what the embedder gives is not to be used.
    """

    def __init__(self, embedder: Embedder, check: Callable[[], None]) -> None:
        self._embedder = embedder
        self._check = check
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Vector] = OrderedDict()

    def begin(self, prompts: Iterable[str]) -> Mapping[str, Callable[[], Vector]]:
        """Ask for the vectors of these prompts, without waiting.

        :returns: by prompt, what waits for its vector, of length one; it raises what the embedder raises.
        """
        return {prompt: self._begun(prompt) for prompt in prompts}

    def _begun(self, prompt: str) -> Callable[[], Vector]:
        with self._lock:
            if (known := self._known.get(prompt)) is not None:
                self._known.move_to_end(prompt)
                return lambda: known
        return partial(self._wait, prompt, self._embedder.embed_prompts([prompt]))

    def _wait(self, prompt: str, asked: Future[NDArray[np.float32]]) -> Vector:
        vector: Vector = asked.result()[0]
        self._check()
        with self._lock:
            self._known[prompt] = vector
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return vector
