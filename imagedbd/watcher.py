"""Hears of changes in all roots, and notices when it no longer does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat as stat_module
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagedbd.datatypes import RootState
from imagedbd.mounts import MOUNTINFO, mount_of, read_mounts
from imagedbd.pulse import Pulse
from imagedbd.rules import is_within
from imagedbd.tree_watch import TreeWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.mounts import Mount
    from imagedbd.rules import Rules

_log = logging.getLogger(__name__)

_REST_S = 1.0
"""Between two rounds of checks that found something: a storm of events must not become one of walks."""

_MANY_FOLDERS = 100
"""A root with more folders than so that are not watched is scanned whole."""

_LATE_S = 60.0
"""How much later than it said a machine under load may have the thread run."""
_ROUND_S = 3600.0
"""Checks with new watches for every root: a walk through all folders, on a slow disk that has cached none."""

_MAX_WATCHES = "fs.inotify.max_user_watches"
_MAX_INSTANCES = "fs.inotify.max_user_instances"


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How well one root is watched.

    :param state: online; degraded (something is only scanned every few minutes); offline (not there).
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
    What events cannot cover is doubted on a timer: folders beyond the watch limit, folders that may not be
    read, and file systems that other machines or programs write to as well.

    :param on_doubt: called with a folder in which anything may have happened, and with what was heard;
        in a thread of the watcher's, so it must be quick.
    :param check_s: seconds between two looks at the watches.
    :param poll_s: seconds from one doubt of what events cannot cover to the next.
    """

    def __init__(
        self,
        rules: Rules,
        queue: ChangeQueue,
        on_doubt: Callable[[str, str], None],
        *,
        check_s: float = 10.0,
        poll_s: float = 300.0,
    ) -> None:
        self._rules = rules
        self._queue = queue
        self._on_doubt = on_doubt
        self._check_s = check_s
        self._poll_s = poll_s
        self._next_poll = time.monotonic() + poll_s
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
            self._alarm.wait(min(self._check_s, self._poll_s))
            self.pulse.promise(_ROUND_S)
            if self._stopping.is_set():
                break
            replaced = self._check_all()
            self._poll_if_due()
            if replaced:
                self._stopping.wait(_REST_S)
        self.pulse.end()

    def _poll_if_due(self) -> None:
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + self._poll_s
        for root in self._roots:
            for folder in root.uncovered():
                self._on_doubt(folder, "events do not tell of every change there")

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
        self._shared: tuple[Mount, ...] = ()
        self._limit = 0

    def arm(self) -> bool:
        """Make a new watch, and only then end the former one; False if there can be none."""
        former = self._tree
        # Noted before the walk: what changes during it differs at the next check.
        self._folder = _identity(self.path)
        mounts = read_mounts()
        self._mounts = _lines_below(self.path, mounts)
        self._shared = self._shared_among(mounts)
        self._limit = _limit(_MAX_WATCHES)
        try:
            self._tree, self._error = self._new_tree(), None
        except OSError as error:
            self._tree, self._error = None, error
        if former is not None:
            former.stop()
        return self._tree is not None

    def _shared_among(self, mounts: list[Mount]) -> tuple[Mount, ...]:
        """The file systems that hold this root or parts of it, and that others write to as well."""
        below = [m for m in mounts if is_within(m.place, self.path) and m.place != self.path]
        ours = [
            m for m in below if (rules := self._rules.folder(m.place)).root == self.path and rules.verdict.ok
        ]
        holding = mount_of(self.path, mounts)
        return tuple(mount for mount in (*([holding] if holding else []), *ours) if mount.is_shared)

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
        if _lines_below(self.path, read_mounts()) != self._mounts:
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
        reasons = [_explain_shared(self.path, self._shared)] if self._shared else []
        reasons += [_explain_unwatched(unwatched, len(tree.unwatched(errno.ENOSPC)))] if unwatched else []
        state = RootState.DEGRADED if reasons else RootState.ONLINE
        return WatchStatus(self.path, state, tree.folders, len(unwatched), " ".join(reasons) or None)

    def uncovered(self) -> list[str]:
        """The folders, each with all below, of whose changes events do not tell."""
        tree = self._tree
        if tree is None:
            return [self.path] if self.status().state is RootState.DEGRADED else []
        shared = [mount.place if is_within(mount.place, self.path) else self.path for mount in self._shared]
        folders = [*shared, *tree.unwatched()]
        return folders if len(folders) <= _MANY_FOLDERS else [self.path]


class _Alarm:
    """Something to wait on that also wakes when anything is mounted or unmounted."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._event, select.POLLIN)
        self._mounts: int | None = None
        with contextlib.suppress(OSError):
            self._mounts = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
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


def _lines_below(folder: str, mounts: list[Mount]) -> frozenset[str]:
    return frozenset(mount.line for mount in mounts if is_within(mount.place, folder))


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


def _explain_shared(root: str, mounts: tuple[Mount, ...]) -> str:
    first = mounts[0]
    where = f"{first.place} is" if is_within(first.place, root) and first.place != root else "It lies on"
    others = f", and so are {len(mounts) - 1} more places in it" if len(mounts) > 1 else ""
    return (
        f"{where} a file system of type {first.kind}{others}: what others change there is not heard of,"
        " and found by a scan every few minutes."
    )


def _explain_unwatched(unwatched: list[str], over_limit: int) -> str:
    if over_limit:
        return _explain_limit("inotify watches", _MAX_WATCHES, over_limit)
    return (
        f"{len(unwatched)} folders cannot be watched, e.g. {unwatched[0]!r};"
        " they are scanned every few minutes, if they can be read at all."
    )


def _explain_limit(what: str, name: str, folders: int) -> str:
    limit = _limit(name)
    enough = max(2 * limit, 1 << (limit + 2 * folders).bit_length())
    return (
        f"All {limit} {what} that a user may have are taken: {folders} folders are scanned every few"
        f" minutes instead of watched. To allow more: sudo sysctl {name}={enough}"
    )
