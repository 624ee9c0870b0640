"""What other threads have the writer do while it has nothing in hand, such as exchanging the store."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Errands:
    """They are done one after the other, in one thread. Any thread may hand them in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Errand] = deque()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hand_in(self, action: Callable[[], None]) -> Future[None]:
        """The future has the action's end, well or not; cancelling it withdraws one that has not begun."""
        errand = _Errand(action)
        with self._lock:
            if self._closed:
                errand.future.cancel()
            else:
                self._waiting.append(errand)
        return errand.future

    def do_next(self) -> None:
        with self._lock:
            errand = self._waiting.popleft()
        errand.run()

    def close(self) -> None:
        """Nobody will do them any more: those that are left, and those that come, are cancelled."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().future.cancel()


@dataclass(frozen=True, slots=True, eq=False)
class _Errand:
    action: Callable[[], None]
    future: Future[None] = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.action()
        # Whatever it is, it is for the one who asked.
        except Exception as error:  # noqa: BLE001 - see above
            self.future.set_exception(error)
        else:
            self.future.set_result(None)
