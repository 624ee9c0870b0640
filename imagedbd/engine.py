"""What answers: a store, the embedder of its model, and the searcher over both, exchanged as one.

A search that has begun goes on with the engine it began with: it never sees vectors of two models.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagedbd.errors import StoreError

if TYPE_CHECKING:
    from imagedbd.datatypes import Store
    from imagedbd.embedder import EmbedderProcess
    from imagedbd.search import Searcher

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Engine:
    store: Store
    embedder: EmbedderProcess
    searcher: Searcher
    readers: int = field(default=0, init=False)


class EngineRoom:
    """Holds the engine that answers now, and closes one that was exchanged when its last reader leaves.

    Any thread may call any method.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._embedded_before = 0

    @property
    def current(self) -> Engine:
        """For what may fail if the engine is exchanged meanwhile; what may not uses :meth:`reading`."""
        return self._engine

    @property
    def embeds_total(self) -> int:
        """Pictures put through the models of all engines so far."""
        return self._embedded_before + self._engine.embedder.embeds_total

    @contextmanager
    def reading(self) -> Iterator[Engine]:
        """The current engine, which stays open as long as it is read."""
        with self._changed:
            engine = self._engine
            engine.readers += 1
        try:
            yield engine
        finally:
            with self._changed:
                engine.readers -= 1
                self._changed.notify_all()

    def exchange(self, engine: Engine) -> Engine:
        """Have this engine answer from now on; the former one is returned, still open."""
        with self._changed:
            former, self._engine = self._engine, engine
            if former.embedder is not engine.embedder:
                self._embedded_before += former.embedder.embeds_total
            return former

    def retire(self, former: Engine) -> None:
        """Wait until nobody reads a former engine any more, and close what the current one does not use."""
        with self._changed:
            self._changed.wait_for(lambda: not former.readers)
        self._close_store(former)
        if former.embedder is not self._engine.embedder:
            former.embedder.close()

    def close(self) -> None:
        self._engine.embedder.close()
        self._close_store(self._engine)

    def _close_store(self, engine: Engine) -> None:
        try:
            engine.store.close()
        except StoreError as error:
            log.warning("a store could not be closed: %s", error.message)
