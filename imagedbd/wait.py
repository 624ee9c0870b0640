"""Waiting until every change that was made before is searchable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from imagedbd.errors import WaitTimeoutError
from imagedbd.health import waiting_in_words
from imagedbd.text import count

if TYPE_CHECKING:
    from imagedbd.change_queue import ChangeQueue
    from imagedbd.health import Health
    from imagedbd.indexer import Indexer
    from imagedbd.scanner import Scanner


class Wait:
    """One wait for everything that had changed when it began. It blocks nobody: it is asked now and then.

    :param timeout: seconds; ``None`` waits as long as it takes.
    """

    def __init__(
        self,
        health: Health,
        scanner: Scanner,
        queue: ChangeQueue,
        indexer: Indexer,
        timeout: float | None,
    ) -> None:
        self._health = health
        self._scanner = scanner
        self._queue = queue
        self._indexer = indexer
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._scan = scanner.request()
        # What failed before may have passed, and nobody is to be told of it then.
        scanner.try_again()
        indexer.try_again()
        self._ticket: int | None = None
        self._took_up_waiting = False

    def poll(self) -> dict[str, Any] | None:
        """What the index is now, or ``None`` while it is too early.

        :raises WaitTimeoutError: the time is over.
        :raises ModelUnavailableError: pictures wait for a model that cannot be had.
        :raises ImagedbError: nothing is being indexed at the moment.
        """
        if self._is_over():
            return self._health.counts()
        self._health.check_work()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise WaitTimeoutError(self._what_is_left())
        return None

    def _what_is_left(self) -> str:
        pending = self._queue.pending
        if self._ticket is None:
            return f"The folders are still being scanned; {count(pending, 'change')} to look at so far."
        if not pending:
            return f"{waiting_in_words(self._health.waiting())} for the model."
        return f"{count(pending, 'change is', 'changes are')} still to be indexed."

    def _is_over(self) -> bool:
        if self._ticket is None:
            if not self._scanner.wait_scanned(self._scan, 0):
                return False
            self._ticket = self._queue.ticket()
        if not self._queue.wait_done(self._ticket, 0):
            return False
        waiting = self._health.waiting()
        if waiting and self._health.brings_model:
            return False
        if waiting and not self._took_up_waiting:
            # The model came while they were on their way; what is left then is on a root that is offline.
            self._took_up_waiting = True
            self._indexer.take_up_waiting()
            self._ticket = self._queue.ticket()
            return self._queue.wait_done(self._ticket, 0)
        return True
