"""Hears of changes in all roots, and notices when it no longer does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import stat as stat_module
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagedbd.datatypes import RootState
from imagedbd.pulse import Pulse
from imagedbd.rules import is_within
from imagedbd.tree_watch import TreeWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.rules import Rules

_log = logging.getLogger(__name__)

_REST_S = 1.0
"""Between two rounds of checks that found something: a storm of events must not become one of walks."""

_LATE_S = 60.0
"""How much later than it said a machine under load may have the thread run."""
_ROUND_S = 3600.0
"""Checks with new watches for every root: a walk through all folders, on a slow disk that has cached none."""

_MAX_WATCHES = "fs.inotify.max_user_watches"
_MAX_INSTANCES = "fs.inotify.max_user_instances"


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How well one root is watched.

    :param state: online; degraded (some folders only scanned now and then); offline (not there).
    :param folders: how many are watched.
    :param unwatched: how many should be and cannot.
    :param reason: a sentence, with what helps.
    """

    root: str
    state: RootState
    folders: int
    unwatched: int
    reason: str | None = None


class Watcher:
    """Turns file system events into hints in the queue, and everything uncertain into doubts.

    A thread of its own looks after the watches, for watchdog would not tell: every few seconds, at once
    when one is lost, and whenever something is mounted. A watch that may have missed something is
    replaced, the new one armed first, and then its root is doubted: a scan after that misses nothing.

    :param on_doubt: called with a folder in which anything may have happened, and with what was heard;
        in a thread of the watcher's, so it must be quick.
    :param check_s: seconds between two looks at the watches.
    """

    def __init__(
        self,
        rules: Rules,
        queue: ChangeQueue,
        on_doubt: Callable[[str, str], None],
        *,
        check_s: float = 10.0,
    ) -> None:
        self._rules = rules
        self._queue = queue
        self._on_doubt = on_doubt
        self._check_s = check_s
        self.pulse = Pulse("watcher")
        self._roots: tuple[_RootWatch, ...] = ()
        self._restarts = 0
        # Held while watches are made and replaced, which takes a walk through the tree.
        self._lock = threading.Lock()
        self._alarm = _Alarm()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="watcher", daemon=True)

    @property
    def restarts(self) -> int:
        """How many times a watch had to be replaced."""
        return self._restarts

    def start(self) -> None:
        """Watch all roots on return, as far as possible: what a scan that starts now misses is heard of."""
        with self._lock:
            self._watch_roots()
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and wait for all threads."""
        self._stopping.set()
        self._alarm.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for root in self._roots:
                root.stop()
            self._roots = ()
        self._alarm.close()

    def set_rules(self, rules: Rules) -> None:
        """Watch by other rules, and doubt all roots. On return the new watches are armed."""
        with self._lock:
            former = self._roots
            self._rules = rules
            self._watch_roots()
            for root in former:
                root.stop()
        for path in rules.roots:
            self._on_doubt(path, "the configuration has changed")

    def status(self) -> list[WatchStatus]:
        """Each root as its watch stands; never waits."""
        return [root.status() for root in self._roots]

    def _watch_roots(self) -> None:
        roots = tuple(self._new_watch(path) for path in self._rules.roots)
        for root in roots:
            root.arm()
        self._roots = roots

    def _new_watch(self, path: str) -> _RootWatch:
        return _RootWatch(path, self._rules, self._on_hint, self._on_doubt, self._alarm.set)

    def _on_hint(self, path: str, closed: bool) -> None:  # noqa: FBT001 - a callback
        self._queue.put(path, closed=closed)

    def _look_after(self) -> None:
        while not self._stopping.is_set():
            self.pulse.promise(self._check_s + _LATE_S)
            self._alarm.wait(self._check_s)
            self.pulse.promise(_ROUND_S)
            if not self._stopping.is_set() and self._check_all():
                self._stopping.wait(_REST_S)
        self.pulse.end()

    def _check_all(self) -> bool:
        """Replace the watches that need it; True if there were any."""
        with self._lock:
            doubts = [(root.path, why) for root in self._roots if (why := root.replace_if_needed())]
            self._restarts += len(doubts)
        for path, why in doubts:
            _log.warning("%s is watched anew: %s", path, why, extra={"root": path})
            self._on_doubt(path, why)
        return bool(doubts)


class _RootWatch:
    """The watch over one root, through all its replacements.

    ``_tree`` is ``None`` while the root is not there or cannot be watched at all; then ``_error`` says why.
    """

    def __init__(
        self,
        path: str,
        rules: Rules,
        on_hint: Callable[[str, bool], None],
        on_doubt: Callable[[str, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.path = path
        self._rules = rules
        self._on_hint = on_hint
        self._on_doubt = on_doubt
        self._on_lost = on_lost
        self._tree: TreeWatch | None = None
        self._error: OSError | None = None
        self._folder: tuple[int, int] | None = None
        self._mounts: frozenset[str] = frozenset()
        self._limit = 0

    def arm(self) -> bool:
        """Make a new watch, and only then end the former one; False if there can be none."""
        former = self._tree
        # Noted before the walk: what changes during it differs at the next check.
        self._folder = _identity(self.path)
        self._mounts = _mounts_below(self.path)
        self._limit = _limit(_MAX_WATCHES)
        try:
            self._tree, self._error = self._new_tree(), None
        except OSError as error:
            self._tree, self._error = None, error
        if former is not None:
            former.stop()
        return self._tree is not None

    def _new_tree(self) -> TreeWatch:
        """:raises OSError: the root is not there, is no longer itself, or cannot be watched."""
        if not stat_module.S_ISDIR(os.lstat(self.path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if os.path.realpath(self.path) != self.path:
            raise OSError(errno.ELOOP, "a folder above it has become a symbolic link")
        return TreeWatch(
            self.path,
            self._rules,
            on_hint=self._on_hint,
            on_doubt=self._on_doubt,
            on_lost=self._on_lost,
        )

    def stop(self) -> None:
        if self._tree is not None:
            self._tree.stop()
            self._tree = None

    def replace_if_needed(self) -> str | None:
        """Look at the watch and make a new one if it may have missed something.

        :returns: why the root is in doubt now; ``None`` if it is not.
        """
        if self._tree is None:
            return "it can be watched again" if self.arm() else None
        reason = self._why_replace(self._tree)
        if reason is not None:
            self.arm()
        return reason

    def _why_replace(self, tree: TreeWatch) -> str | None:
        if tree.why_lost is not None:
            return tree.why_lost
        if _identity(self.path) != self._folder:
            return "it is not the folder that it was"
        if _mounts_below(self.path) != self._mounts:
            return "file systems were mounted or unmounted"
        if tree.unwatched(errno.ENOSPC) and _limit(_MAX_WATCHES) > self._limit:
            return "more watches are allowed now"
        return None

    def status(self) -> WatchStatus:
        tree, error = self._tree, self._error
        if tree is None:
            limit_reached = error is not None and error.errno in (errno.ENOSPC, errno.EMFILE)
            state = RootState.DEGRADED if limit_reached else RootState.OFFLINE
            return WatchStatus(self.path, state, 0, 0, _explain_error(error))
        unwatched = tree.unwatched()
        if not unwatched:
            return WatchStatus(self.path, RootState.ONLINE, tree.folders, 0)
        reason = _explain_unwatched(unwatched, len(tree.unwatched(errno.ENOSPC)))
        return WatchStatus(self.path, RootState.DEGRADED, tree.folders, len(unwatched), reason)


class _Alarm:
    """Something to wait on that also wakes when anything is mounted or unmounted."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._event, select.POLLIN)
        self._mounts: int | None = None
        with contextlib.suppress(OSError):
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._mounts, select.POLLPRI)
        self._lock = threading.Lock()
        self._closed = False

    def set(self) -> None:
        """Wake who waits, or the next who does. After :meth:`close` nothing happens."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._event, 1)

    def wait(self, timeout_s: float) -> None:
        self._poll.poll(timeout_s * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._event)
            if self._mounts is not None:
                os.close(self._mounts)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        stat = os.lstat(folder)
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino) if stat_module.S_ISDIR(stat.st_mode) else None


def _mounts_below(folder: str) -> frozenset[str]:
    """The lines of the mounts at this folder and below, whole: they differ if anything about them does."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = os.fsdecode(file.read()).split("\n")
    except OSError:
        return frozenset()
    return frozenset(line for line in lines if line and is_within(_mount_point(line), folder))


def _mount_point(line: str) -> str:
    """The fifth field of a line of ``mountinfo``; blanks and backslashes are octal escapes there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4])


def _limit(name: str) -> int:
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _explain_error(error: OSError | None) -> str:
    if error is None:
        return "It is not watched."
    if error.errno == errno.ENOSPC:
        return _explain_limit("inotify watches", _MAX_WATCHES, 1)
    if error.errno == errno.EMFILE:
        return _explain_limit("inotify instances", _MAX_INSTANCES, 1)
    return f"It cannot be watched: {error.strerror}."


def _explain_unwatched(unwatched: list[str], over_limit: int) -> str:
    if over_limit:
        return _explain_limit("inotify watches", _MAX_WATCHES, over_limit)
    return (
        f"{len(unwatched)} folders cannot be watched, e.g. {unwatched[0]!r};"
        " they are scanned now and then, if they can be read at all."
    )


def _explain_limit(what: str, name: str, folders: int) -> str:
    limit = _limit(name)
    enough = max(2 * limit, 1 << (limit + 2 * folders).bit_length())
    return (
        f"All {limit} {what} that a user may have are taken: {folders} folders are scanned now and then"
        f" instead of watched. To allow more: sudo sysctl {name}={enough}"
    )
