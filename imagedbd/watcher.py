"""Hears of changes in all roots, and notices when it no longer does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat as stat_module
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagedbd.datatypes import RootState
from imagedbd.mounts import MOUNTINFO, mount_of, read_mounts
from imagedbd.pulse import Pulse
from imagedbd.rules import is_within, outermost
from imagedbd.text import count
from imagedbd.tree_watch import STOP_S, TreeWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.mounts import Mount
    from imagedbd.rules import Rules

_log = logging.getLogger(__name__)

_REST_S = 1.0
"""Between two rounds of checks that found something: a storm of events must not become one of walks."""

_LATE_S = 60.0
"""How much later than it said a machine under load may have the thread run."""
_ROUND_S = 3600.0
"""Checks with new watches for every root: a walk through all folders, on a slow disk that has cached none."""
_PATIENCE_S = 1.0
"""How long somebody who asks waits for a walk through the folders."""

_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What a root lacks that is there and cannot be watched: watches, instances, descriptors, memory, threads."""

_MAX_WATCHES = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
_MAX_INSTANCES = ("fs.inotify.max_user_instances", "user.max_inotify_instances")
"""The system's own limit, and that of a user namespace, as containers have; the lower one counts."""


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How well one root is watched.

    :param state: online; degraded (some folders only scanned now and then); offline (not there).
    :param folders: how many are watched.
    :param unwatched: how many should be and cannot. Those of a shared file system are watched, and yet
        events do not tell all that happens to them.
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
    :param heard: called with the path of each hint, when it is in the queue.
    :param answers: whether a root's file system does; one that does not is left alone until it does.
    :param check_s: seconds between two looks at the watches.
    """

    def __init__(
        self,
        rules: Rules,
        queue: ChangeQueue,
        on_doubt: Callable[[str, str], None],
        *,
        heard: Callable[[str], object] = lambda _: None,
        answers: Callable[[str], bool] = lambda _: True,
        check_s: float = 10.0,
    ) -> None:
        self._rules = rules
        self._queue = queue
        self._on_doubt = on_doubt
        self._heard = heard
        self._answers = answers
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

    def begin_stop(self) -> None:
        """End a walk through the folders early, that of :meth:`start` as well; never waits."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop listening, and wait for all threads; one that hangs in a file system is left behind."""
        self.begin_stop()
        self._alarm.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        if self._thread.is_alive():
            _log.warning("the watcher hangs in a file system that does not answer, and is left behind")
            return
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
            # While both watched, there may not have been enough for all.
            for root in self._roots:
                root.retry()
        for path in rules.roots:
            self._on_doubt(path, "the configuration has changed")

    def status(self) -> list[WatchStatus]:
        """Each root as its watch stands; never waits."""
        return [root.status() for root in self._roots]

    def unheard(self) -> list[str]:
        """The folders where events do not tell all; those that can be watched by now are, on return.

        A scan of them that starts then finds what was missed so far.
        """
        folders = outermost(folder for root in self._roots for folder in root.unheard())
        # While watches are being made, in what may not answer, nobody else waits for that.
        if self._lock.acquire(timeout=_PATIENCE_S):
            try:
                for root in self._roots:
                    if self._answers(root.path):
                        root.retry()
            finally:
                self._lock.release()
        return folders

    def _watch_roots(self) -> None:
        roots = tuple(self._new_watch(path) for path in self._rules.roots)
        for root in roots:
            if self._answers(root.path):
                root.arm()
        self._roots = roots

    def _new_watch(self, path: str) -> _RootWatch:
        return _RootWatch(
            path,
            self._rules,
            on_hint=self._on_hint,
            on_doubt=self._on_doubt,
            on_lost=self._alarm.set,
            is_stopping=self._stopping.is_set,
        )

    def _on_hint(self, path: str, closed: bool) -> None:  # noqa: FBT001 - a callback
        self._queue.put(path, closed=closed)
        self._heard(path)

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
        answering = {root.path for root in self._roots if self._answers(root.path)}
        with self._lock:
            roots = [root for root in self._roots if root.path in answering]
            doubts = [(root.path, why) for root in roots if (why := _replaced_if_needed(root))]
            self._restarts += len(doubts)
        for path, why in doubts:
            _log.warning("%s is watched anew: %s", path, why, extra={"root": path})
            self._on_doubt(path, why)
        return bool(doubts)


def _replaced_if_needed(root: _RootWatch) -> str | None:
    """As :meth:`_RootWatch.replace_if_needed`, also where that meets a bug: then the watch is lost."""
    try:
        return root.replace_if_needed()
    # The other roots are looked after all the same, and this one is tried again.
    except Exception as error:  # noqa: BLE001 - see above
        return root.give_up(error)


class _RootWatch:
    """The watch over one root, through all its replacements.

    ``_tree`` is ``None`` while the root is not there or cannot be watched at all; then ``_error`` says why.
    """

    def __init__(
        self,
        path: str,
        rules: Rules,
        *,
        on_hint: Callable[[str, bool], None],
        on_doubt: Callable[[str, str], None],
        on_lost: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.path = path
        self._rules = rules
        self._on_hint = on_hint
        self._on_doubt = on_doubt
        self._on_lost = on_lost
        self._is_stopping = is_stopping
        self._tree: TreeWatch | None = None
        self._error: Exception | None = None
        self._folder: tuple[int, int] | None = None
        self._mounts: frozenset[Mount] = frozenset()
        self._shared: dict[str, str] = {}
        self._limit = 0

    def arm(self) -> bool:
        """Make a new watch, and only then end the former one; False if there can be none."""
        former = self._tree
        # Noted before the walk: what changes during it differs at the next check.
        self._folder = _identity(self.path)
        mounts = read_mounts()
        self._mounts = _at_and_below(self.path, mounts)
        self._shared = self._shared_among(mounts)
        self._limit = _limit(_MAX_WATCHES)[1]
        try:
            self._tree, self._error = self._new_tree(), None
        except OSError as error:
            self._tree, self._error = None, error
        if former is not None:
            former.stop()
            # The two of them together may have met the limit that one does not.
            self.retry()
        return self._tree is not None

    def _shared_among(self, mounts: list[Mount]) -> dict[str, str]:
        """Where events do not tell all: this root, or mount points in it; each with its kind."""
        holding = mount_of(self.path, mounts)
        if holding is not None and holding.is_shared:
            return {self.path: holding.kind}
        # Of two at one place the later one is on top.
        top = {mount.place: mount for mount in mounts if is_within(mount.place, self.path)}
        shared = ((mount, self._rules.folder(mount.place)) for mount in top.values() if mount.is_shared)
        return {m.place: m.kind for m, rules in shared if rules.root == self.path and rules.verdict.may_be_ok}

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
            is_stopping=self._is_stopping,
        )

    def stop(self) -> None:
        if self._tree is not None:
            self._tree.stop()
            self._tree = None

    def give_up(self, error: Exception) -> str | None:
        """Do without a watch until the next look, because of a bug.

        :returns: as :meth:`replace_if_needed`.
        """
        known, self._error = self._error, error
        tree, self._tree = self._tree, None
        if repr(known) != repr(error):
            _log.error("the watch over %s met a bug; it is tried again", self.path, exc_info=error)
        if tree is None:
            return None
        tree.stop()
        return f"its watch failed ({error!r})"

    def retry(self) -> None:
        if self._tree is not None:
            self._tree.retry()

    def unheard(self) -> list[str]:
        """The folders of which events do not tell all, as far as they are there."""
        tree = self._tree
        if tree is None:
            return [self.path] if self._is_fault_of_ours() else []
        return [*self._shared, *tree.unwatched()]

    def _is_fault_of_ours(self) -> bool:
        """Whether the root may well be there, and a limit or a bug is why it has no watch at all."""
        if isinstance(self._error, OSError):
            return self._error.errno in _LIMITS
        return self._error is not None

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
        if _at_and_below(self.path, read_mounts()) != self._mounts:
            return "file systems were mounted or unmounted"
        if tree.unwatched(errno.ENOSPC) and _limit(_MAX_WATCHES)[1] > self._limit:
            return "more watches are allowed now"
        return None

    def status(self) -> WatchStatus:
        tree, error = self._tree, self._error
        if tree is None:
            state = RootState.DEGRADED if self._is_fault_of_ours() else RootState.OFFLINE
            return WatchStatus(self.path, state, 0, 0, _explain_error(error))
        unwatched = tree.unwatched()
        reasons = [_explain_shared(place, kind) for place, kind in self._shared.items()]
        if unwatched:
            reasons.append(_explain_unwatched(unwatched, len(tree.unwatched(errno.ENOSPC))))
        state = RootState.DEGRADED if reasons else RootState.ONLINE
        return WatchStatus(self.path, state, tree.folders, len(unwatched), " ".join(reasons) or None)


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


def _at_and_below(folder: str, mounts: list[Mount]) -> frozenset[Mount]:
    return frozenset(mount for mount in mounts if is_within(mount.place, folder))


def _limit(names: tuple[str, ...]) -> tuple[str, int]:
    """The lowest of these limits, by its name; 0 if none can be told."""
    limits = [(_read_limit(name), name) for name in names]
    value, name = min((limit for limit in limits if limit[0]), default=(0, names[0]))
    return name, value


def _read_limit(name: str) -> int:
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _explain_error(error: Exception | None) -> str:
    if error is None:
        return "It is not watched."
    if not isinstance(error, OSError):
        return f"Its watch met a bug, which the log has, and is tried again: {error!r}."
    if error.errno == errno.ENOSPC:
        return _explain_limit("inotify watches", _MAX_WATCHES, 1)
    if error.errno == errno.EMFILE:
        return _explain_limit("inotify instances", _MAX_INSTANCES, 1)
    if error.errno in _LIMITS:
        return f"It is scanned now and then, as it cannot be watched: {error.strerror}. It is tried again."
    return f"It cannot be watched: {error.strerror}."


def _explain_shared(place: str, kind: str) -> str:
    return f"{place} is on {kind}, which is silent about changes made elsewhere: it is scanned now and then."


def _explain_unwatched(unwatched: list[str], over_limit: int) -> str:
    if over_limit:
        return _explain_limit("inotify watches", _MAX_WATCHES, over_limit)
    return (
        f"{count(len(unwatched), 'folder')} cannot be watched, e.g. {unwatched[0]!r};"
        " what can be read of that is scanned now and then."
    )


def _explain_limit(what: str, names: tuple[str, ...], folders: int) -> str:
    name, limit = _limit(names)
    enough = max(2 * limit, 1 << (limit + 2 * folders).bit_length())
    lacking = count(folders, "folder is", "folders are")
    return (
        f"All {limit} {what} that a user may have are taken: {lacking} scanned now and then"
        f" instead of watched. To allow more: sudo sysctl {name}={enough}"
    )
