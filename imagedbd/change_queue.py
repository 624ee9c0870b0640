"""Paths that may have changed, each once, handed out when they have come to rest."""

from __future__ import annotations

import heapq
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagedbd.datatypes import FileChange

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOSED_SETTLE_S = 0.2
"""How long a file rests after a writer closed it: often it is complete, and when not it comes again."""

_HOLD_LOOK_S = 30.0
"""While changes are held back, how often it is asked whether that is over: its clock is not the queue's."""


def _no_hold() -> float:
    return 0.0


@dataclass(slots=True)
class _Unsettled:
    """A path that something still happens to. Times are those of the queue's clock.

    :param last_due: it goes then, whatever happens.
    :param due: it goes then, if nothing more happens.
    :param alarm: it is looked at then, which is at its due time or sooner.
    """

    sequence: int
    last_due: float
    due: float = math.inf
    alarm: float = math.inf


class ChangeQueue:
    """Coalesces changes by path, waits until each path has settled, and hands out each to one taker.

    A path is in one place at a time, and in a second while it is worked on::

        put ─► unsettled ─(due)─► ready ─(take)─► in flight ─(done)─►
                   ▲                                  ┊
                   ├───────────────(done)──── held ◄──┤ put again meanwhile
                   └──────────────────────────────────┘ again

    Sequence numbers have no gaps. A change keeps that of its first ``put``: then a waiter that remembers
    the newest number waits for everything that was put before it came, and for nothing put later to other
    paths. Any thread may call any method; none but :meth:`take` and :meth:`wait_done` ever waits.

    :param settle_s: seconds without another ``put`` after which a path is ready.
    :param settle_max_s: seconds after the first ``put`` when it is ready in any case.
    :param clock: seconds, never going back.
    :param brake: seconds for which nothing is handed out now, whatever :meth:`hold` says; asked as its
        ``left`` is.
    """

    def __init__(
        self,
        settle_s: float = 1.0,
        settle_max_s: float = 6.0,
        clock: Callable[[], float] = time.monotonic,
        brake: Callable[[], float] = _no_hold,
    ) -> None:
        self._settle_s = settle_s
        self._settle_max_s = settle_max_s
        self._clock = clock
        self._brake = brake
        lock = threading.Lock()
        self._takers = threading.Condition(lock)
        self._waiters = threading.Condition(lock)
        self._lock = lock
        self._unsettled: dict[str, _Unsettled] = {}
        self._held: dict[str, _Unsettled] = {}
        # One alarm for each unsettled path. Putting a path off leaves its alarm where it is, so that a file
        # written for minutes costs no more than any other; superseded alarms are told by their time.
        self._alarms: list[tuple[float, str]] = []
        # In order of settling. Just a number each: a first scan puts hundreds of thousands here.
        self._ready: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._newest = 0
        # All changes up to this one are done, and so are those in the set.
        self._done_up_to = 0
        self._done_beyond: set[int] = set()
        self._closed = False
        self._nudged = False
        self._hold_left: Callable[[], float] = _no_hold

    def put(self, path: str, *, settled: bool = False, closed: bool = False) -> int:
        """Say that something may have happened at this path.

        :param settled: it is known to be at rest and may go at once.
        :param closed: a writer has closed it, which shortens the wait.
        :returns: the sequence number of the change that covers this; the newest, once the queue is closed.
        """
        with self._lock:
            if self._closed:
                return self._newest
            if path in self._ready:
                return self._ready[path]
            if path in self._in_flight:
                change = self._held.get(path) or self._held.setdefault(path, self._new_change())
                self._put_off(change, settled=settled, closed=closed)
                return change.sequence
            if settled:
                return self._skip_the_wait(path)
            change = self._unsettled.get(path) or self._unsettled.setdefault(path, self._new_change())
            self._put_off(change, settled=settled, closed=closed)
            if change.due < change.alarm:
                self._set_alarm(path, change)
            return change.sequence

    def take(self, limit: int, timeout: float | None = None) -> list[FileChange]:
        """The longest settled paths, as soon as there is one; they are in flight until :meth:`done`.

        :param timeout: seconds to wait for a first one; ``None`` waits until there is one.
        :returns: at most ``limit`` changes; none on a time-out, on a nudge and when the queue was closed.
        """
        with self._lock:
            now = self._clock()
            deadline = None if timeout is None else now + timeout
            while not self._closed:
                self._settle(now)
                if self._ready and self._held_for() <= 0:
                    return self._hand_out(limit)
                if self._nudged or (deadline is not None and now >= deadline):
                    self._nudged = False
                    return []
                self._takers.wait(self._next_wake(now, deadline))
                now = self._clock()
            return []

    def done(self, change: FileChange) -> None:
        """The change was dealt with. What was put for its path meanwhile becomes a change of its own.

        :raises KeyError: the change is not in flight.
        """
        with self._lock:
            del self._in_flight[change.path]
            held = self._held.pop(change.path, None)
            if held is not None:
                self._unsettled[change.path] = held
                self._set_alarm(change.path, held)
            self._close_sequence(change.sequence)

    def again(self, change: FileChange, *, settled: bool = False) -> None:
        """The change could not be dealt with yet: it is queued once more, under its old number.

        :param settled: it may go at once; otherwise it rests as after a ``put``.
        :raises KeyError: the change is not in flight.
        """
        with self._lock:
            del self._in_flight[change.path]
            if settled:
                self._make_ready(change.path, change.sequence)
                return
            waiting = _Unsettled(change.sequence, self._clock() + self._settle_max_s)
            self._unsettled[change.path] = waiting
            self._put_off(waiting, settled=False, closed=False)
            self._set_alarm(change.path, waiting)

    def __contains__(self, path: object) -> bool:
        """Whether this path is queued or in flight."""
        with self._lock:
            return path in self._unsettled or path in self._ready or path in self._in_flight

    def in_flight(self) -> list[str]:
        """The paths that were taken and are not done."""
        with self._lock:
            return list(self._in_flight)

    @property
    def pending(self) -> int:
        """How many changes are queued or in flight."""
        with self._lock:
            return self._newest - self._done_up_to - len(self._done_beyond)

    def ticket(self) -> int:
        """The newest sequence number, for :meth:`wait_done`."""
        with self._lock:
            return self._newest

    def oldest_open(self) -> int | None:
        """The smallest sequence number that is not done."""
        with self._lock:
            return self._done_up_to + 1 if self._done_up_to < self._newest else None

    def wait_done(self, ticket: int, timeout: float | None = None) -> bool:
        """Wait until every change up to this sequence number is done.

        :param timeout: in seconds; ``None`` waits as long as it takes.
        :returns: False on a time-out, and when the queue is closed first.
        """
        with self._lock:
            self._waiters.wait_for(lambda: self._closed or self._done_up_to >= ticket, timeout)
            return self._done_up_to >= ticket

    def hold(self, left: Callable[[], float]) -> None:
        """Accept changes and hand out none for a while.

        :param left: seconds for which that goes on, infinity until :meth:`release`; asked again and again,
            so that its clock may be set, or run on while the machine sleeps. It must not wait.
        """
        with self._lock:
            self._hold_left = left
            self._takers.notify_all()

    def release(self) -> None:
        """Hand out changes again; no error if that was so already."""
        with self._lock:
            self._hold_left = _no_hold
            self._takers.notify_all()

    def nudge(self) -> None:
        """Have the next :meth:`take`, or the one that waits now, return even if there is nothing."""
        with self._lock:
            self._nudged = True
            self._takers.notify_all()

    def close(self) -> None:
        """Wake everyone who waits. Nothing is handed out or accepted any more; ``done`` still works."""
        with self._lock:
            self._closed = True
            self._takers.notify_all()
            self._waiters.notify_all()

    # All below: the lock is held.

    def _new_change(self) -> _Unsettled:
        self._newest += 1
        return _Unsettled(self._newest, self._clock() + self._settle_max_s)

    def _skip_the_wait(self, path: str) -> int:
        change = self._unsettled.pop(path, None)
        if change is None:
            self._newest += 1
        sequence = self._newest if change is None else change.sequence
        self._make_ready(path, sequence)
        return sequence

    def _put_off(self, change: _Unsettled, *, settled: bool, closed: bool) -> None:
        """Set when the change is due now that its path was put once more."""
        wait = 0.0 if settled else min(_CLOSED_SETTLE_S, self._settle_s) if closed else self._settle_s
        change.due = min(self._clock() + wait, change.last_due)

    def _set_alarm(self, path: str, change: _Unsettled) -> None:
        change.alarm = change.due
        heapq.heappush(self._alarms, (change.alarm, path))
        if self._alarms[0][0] == change.alarm:
            self._takers.notify_all()

    def _make_ready(self, path: str, sequence: int) -> None:
        self._ready[path] = sequence
        self._takers.notify_all()

    def _settle(self, now: float) -> None:
        """Make ready what is due. A path whose time was put off gets its next alarm only here."""
        while self._alarms and self._alarms[0][0] <= now:
            alarm, path = heapq.heappop(self._alarms)
            change = self._unsettled.get(path)
            if change is None or change.alarm != alarm:
                continue
            if change.due <= now:
                del self._unsettled[path]
                self._make_ready(path, change.sequence)
            else:
                self._set_alarm(path, change)

    def _held_for(self) -> float:
        return max(self._hold_left(), self._brake())

    def _hand_out(self, limit: int) -> list[FileChange]:
        paths = [path for path, _ in zip(self._ready, range(limit), strict=False)]
        changes = [FileChange(path, self._ready.pop(path)) for path in paths]
        self._in_flight.update((change.path, change.sequence) for change in changes)
        return changes

    def _next_wake(self, now: float, deadline: float | None) -> float | None:
        alarm = self._alarms[0][0] if self._alarms else None
        left = self._held_for() if self._ready else 0.0
        look = now + min(left, _HOLD_LOOK_S) if 0 < left < math.inf else None
        times = [t for t in (deadline, alarm, look) if t is not None]
        return max(0.0, min(times) - now) if times else None

    def _close_sequence(self, sequence: int) -> None:
        self._done_beyond.add(sequence)
        while self._done_up_to + 1 in self._done_beyond:
            self._done_up_to += 1
            self._done_beyond.remove(self._done_up_to)
        self._waiters.notify_all()
