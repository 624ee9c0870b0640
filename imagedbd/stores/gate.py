"""A lock that many readers share, or one writer has to itself."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """Readers come in together; a writer waits for those inside, and newcomers wait for the writer.

    Neither side may enter again while it is inside.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writer = False
        """Whether a writer is inside or waits."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            while self._writer:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            while self._writer:
                self._changed.wait()
            self._writer = True
            while self._readers:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._writer = False
                self._changed.notify_all()
