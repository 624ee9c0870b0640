"""Looks at places that may never answer, as a dead share or a program that hangs behind FUSE.

A system call into such a place does not come back, and nothing can end it. So each look has a thread of its
own, of which there is one at most for a place: whoever asks waits for a while, and is then told since when
there is no answer.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

NAME: Final = "lookout"
"""With this the names of its threads begin."""
SILENT_S: Final = 10.0
"""After that, a place counts as one that does not answer; a disk that slept may take as long to wake up."""


class Lookout:
    """Any thread may ask.

    :param look: what is wrong with a place, as the end of a sentence that begins with "it", or ``None``.
        What it raises is raised to those who asked.
    :param touch: what tells whether a place answers at all, and wakes up no disk that sleeps.
    """

    def __init__(self, look: Callable[[str], str | None], touch: Callable[[str], object] = os.lstat) -> None:
        self._look = look
        self._touch = touch
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._stopped = False

    def stop(self) -> None:
        """Have nobody wait any more; threads that hang are left behind."""
        with self._lock:
            self._stopped = True
            looks = list(self._looks.values())
        for look in looks:
            look.over.set()

    def ask(self, place: str, patience_s: float = SILENT_S) -> str | None:
        """What a look says that began after this call.

        :param patience_s: from the beginning of a look; where one hangs already, nobody waits again.
        :returns: also where a place does not answer, that it does not, and since when.
        """
        asked = time.monotonic()
        while True:
            try:
                look = self._under_way(place)
            except RuntimeError as error:  # this user may have no more threads
                return f"could not be looked at: {error}"
            if not look.over.wait(look.patience_left(patience_s)):
                return look.silence()
            if self._stopped:
                return "was not looked at, as the daemon stops"
            if look.began >= asked and not look.is_touch:
                return look.result()

    def answers(self, place: str, patience_s: float = SILENT_S) -> bool:
        """Whether a place does within this time, whatever it says; it is no more than touched."""
        try:
            look = self._under_way(place, is_touch=True)
        except RuntimeError:
            return True
        return look.over.wait(look.patience_left(patience_s)) and not self._stopped

    def silence(self, place: str) -> str | None:
        """Whether a place does not answer, in words; never waits. It is looked at if it is not already."""
        try:
            look = self._under_way(place)
        except RuntimeError:
            return None
        return look.silence() if look.is_silent() else None

    def silent(self) -> Mapping[str, str]:
        """The places that were looked at and do not answer → since when, in words; never waits."""
        if not self._looks:
            return {}
        with self._lock:
            looks = list(self._looks.items())
        return {place: look.silence() for place, look in looks if look.is_silent()}

    def _under_way(self, place: str, *, is_touch: bool = False) -> _Look:
        """The look that goes on there, of whatever kind, or else a new one.

        :raises RuntimeError: no thread can be started.
        """
        with self._lock:
            look = self._looks.get(place)
            if look is None:
                look = _Look(is_touch)
                thread = threading.Thread(
                    target=self._run, args=(place, look), name=f"{NAME} {place!r}", daemon=True
                )
                thread.start()
                self._looks[place] = look
        return look

    def _run(self, place: str, look: _Look) -> None:
        try:
            if look.is_touch:
                self._touch(place)
            else:
                look.finding = self._look(place)
        # It is for those who asked.
        except Exception as error:  # noqa: BLE001 - see above
            look.error = error
        look.has_answered = True
        with self._lock:
            del self._looks[place]
        look.over.set()


def within(patience_s: float, action: Callable[[], T]) -> T:
    """What an action returns or raises, which may hang as a look may.

    :raises TimeoutError: it hangs, and its thread is left behind.
    """
    returned: list[T] = []
    raised: list[Exception] = []

    def act() -> None:
        try:
            returned.append(action())
        # It is for who asked.
        except Exception as error:  # noqa: BLE001 - see above
            raised.append(error)

    acting = threading.Thread(target=act, name=f"{NAME} of an action", daemon=True)
    acting.start()
    acting.join(patience_s)
    for error in raised:
        raise error
    if not returned:
        raise TimeoutError
    return returned[0]


@dataclass(slots=True, eq=False)
class _Look:
    """:param began: of the monotonic clock; ``began_at`` is the same moment on the wall.
    :param over: there is nothing more to wait for.
    """

    is_touch: bool
    began: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)
    over: threading.Event = field(default_factory=threading.Event)
    has_answered: bool = False
    finding: str | None = None
    error: Exception | None = None

    def is_silent(self) -> bool:
        return not self.has_answered and time.monotonic() - self.began >= SILENT_S

    def patience_left(self, patience_s: float) -> float:
        return max(0.0, self.began + patience_s - time.monotonic())

    def silence(self) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began_at))
        return f"has not answered since {clock}"

    def result(self) -> str | None:
        if self.error is not None:
            raise self.error
        return self.finding
