"""Compares folders with the ledger, and queues every difference. Events are fast; scans are right."""

from __future__ import annotations

import contextlib
import logging
import os
import stat as stat_module
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagedbd.datatypes import PictureState, RootState, RootStatus, Signature
from imagedbd.errors import ImagedbError
from imagedbd.lookout import SILENT_S, Lookout
from imagedbd.mounts import is_mount_point, read_mounts
from imagedbd.roots import RootGuard
from imagedbd.rules import is_within, outermost, pattern_in_toml
from imagedbd.sidecars import has_its_sidecars, is_sidecar
from imagedbd.spelling import Spelling
from imagedbd.text import count
from imagedbd.unread import UnreadFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.datatypes import LedgerEntry
    from imagedbd.ledger import Ledger
    from imagedbd.rules import FolderRules, Rules

_log = logging.getLogger(__name__)

EVERYTHING = "/"
"""The folder to scan that holds every root, and every file known from roots of the past."""

_RETRY_S = 30.0
"""How long to wait after a scan that the ledger made fail, e.g. because the disk is full."""

_STATUS_PATIENCE_S = 2.0
"""How long a status waits for a root that has not been found silent yet."""

_STOP_S = 5.0
"""How long the thread may take to end."""

_SUDDEN = 64
"""That many files missing at once are a sudden disappearance: then a second scan must confirm it."""

_UNHEARD_SHARE = 0.05
"""Of the time, spent at most on scans of what events do not cover."""


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What one scan found.

    :param seen: files that are to be indexed.
    :param changed: those of them that are new or changed, and so are in the queue now.
    :param missing: known files that are not there, or not to be indexed, any more; also in the queue.
    :param unconfirmed: known files that have vanished suddenly with many others, and are not in the queue:
        a later scan must miss them as well.
    :param skipped: files with a picture's name that the rules leave out.
    :param unreadable: path → reason; nothing at or below such a path counts as missing.
    :param offline: root or mount point → reason; nothing in it counts as missing.
    """

    folder: str
    seen: int
    changed: int
    missing: int
    unconfirmed: int
    skipped: int
    unreadable: dict[str, str]
    offline: dict[str, str]
    took_s: float


class Scanner:
    """Scans on request and now and then, in a thread of its own; one scan at a time.

    A root whose file system does not answer is looked at by a thread of its own, and counts as offline. It
    holds up a scan only if it falls silent in the middle, which :attr:`trouble` tells.

    :param settle_s: a file that changed less than this many seconds ago is queued as unsettled.
    :param rescan_s: seconds from one scan of everything to the next.
    :param unheard: says in which folders events do not tell all, and must be quick to say that there is none.
    :param unheard_s: seconds from one scan of these, and of what could not be read or was offline, to the
        next; more if that would take too large a share of the time.
    :param confirm_s: seconds after which a scan can confirm what the one before it missed suddenly.
    :param unread: files that a disk did not give; those that are due are queued after what is unheard of.
    :param wall_clock: POSIX seconds, what file times are compared with.
    """

    def __init__(
        self,
        rules: Rules,
        ledger: Ledger,
        queue: ChangeQueue,
        *,
        settle_s: float = 1.0,
        rescan_s: float = 3600.0,
        unheard: Callable[[], Iterable[str]] = tuple,
        unheard_s: float = 60.0,
        confirm_s: float = 5.0,
        unread: UnreadFiles | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._queue = queue
        self._settle_s = settle_s
        self._rescan_s = rescan_s
        self._unheard = unheard
        self._unheard_s = unheard_s
        self._unread = unread or UnreadFiles()
        self._wall_clock = wall_clock
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._requested: set[str] = set()
        self._ticket = 0
        self._scanned = 0
        self._next_full: float | None = None
        self._next_unheard = time.monotonic() + unheard_s
        self._scan_lock = threading.Lock()
        self._scanning: str | None = None
        self._scan: _Scan | None = None
        self._lookout = Lookout(lambda place: RootGuard(self._rules, self._ledger).why_offline(place))
        self._unreadable: dict[str, str] = {}
        self._offline: dict[str, str] = {}
        self._confirm_s = confirm_s
        self._to_confirm: dict[str, float] = {}
        self._suspicion = _Suspicion(confirm_s)
        self._trouble: str | None = None
        self._tries_again = False

    def start(self) -> None:
        """Start the thread, with a scan of everything. To be called once."""
        reasons = {root: self._lookout.ask(root, SILENT_S) for root in self._rules.roots}
        self._offline = {root: reason for root, reason in reasons.items() if reason}
        self.request()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)
        self._thread.start()

    def begin_stop(self) -> None:
        """Break off the scan in progress, and have nobody wait for a root that does not answer."""
        self._stopping.set()
        self._lookout.stop()
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Break off the scan in progress, and wait for the thread; one that hangs is left behind."""
        self.begin_stop()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            if self._thread.is_alive():
                _log.warning("the scan hangs in a file system that does not answer, and is left behind")

    def set_rules(self, rules: Rules) -> None:
        """Scan by other rules from the next scan on, which is requested: one of everything."""
        with self._changed:
            self._rules = rules
        self.request()

    def set_pace(self, rescan_s: float, unheard_s: float) -> None:
        """Scan at other intervals, counted from the last scans; they are those of the constructor."""
        with self._changed:
            if self._next_full is not None:
                self._next_full += rescan_s - self._rescan_s
            self._next_unheard = min(self._next_unheard, time.monotonic() + unheard_s)
            self._rescan_s, self._unheard_s = rescan_s, unheard_s
            self._changed.notify_all()

    def request(self, folder: str | None = None) -> int:
        """Ask for a scan of this folder with all below, or of everything. Returns at once.

        :returns: a ticket for :meth:`wait_scanned`.
        """
        with self._changed:
            self._ticket += 1
            self._requested.add(EVERYTHING if folder is None else folder)
            self._changed.notify_all()
            return self._ticket

    def heard(self, path: str) -> None:
        """Something happens there: a place that was offline when last looked at may be back by now."""
        for place in [place for place in self._offline if is_within(path, place)]:
            self.request(place)

    def wait_scanned(self, ticket: int, timeout: float | None = None) -> bool:
        """Wait until a scan that began after this request is complete, and its findings are queued.

        That is when nothing which vanished suddenly is left to be confirmed.

        :param timeout: in seconds; ``None`` waits as long as it takes.
        :returns: False on a time-out, and when the scanner is stopped first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or self._scanned >= ticket, timeout)
            return self._scanned >= ticket

    def scan(self, folder: str = EVERYTHING) -> ScanReport:
        """Scan this folder with all below, here and now.

        :raises StoreError: the ledger cannot be used; what was found so far is queued.
        :raises ScanStoppedError: :meth:`stop` was called.
        """
        with self._scan_lock:
            self._scan = _Scan(
                self._rules,
                self._ledger,
                self._queue,
                self._is_settled,
                self._suspicion,
                self._stopping,
                self._lookout,
            )
            try:
                report = self._scan.run(folder)
            finally:
                self._scan = None
            kept = {p: reason for p, reason in self._unreadable.items() if not is_within(p, folder)}
            self._unreadable = kept | report.unreadable
            # Also what holds the folder was looked at.
            elsewhere = {p: r for p, r in self._offline.items() if not _touch(p, folder)}
            self._offline = elsewhere | report.offline
        return report

    @property
    def rules(self) -> Rules:
        """Those that the next scan goes by."""
        return self._rules

    @property
    def trouble(self) -> str | None:
        """Why the last scans that were asked for failed, or the one under way hangs, as a sentence.

        ``None`` once they are complete; never waits.
        """
        return self._trouble or self._why_it_hangs()

    @property
    def fresh_trouble(self) -> str | None:
        """The same, unless it is just being tried again whether that has passed; see :meth:`try_again`."""
        return (None if self._tries_again else self._trouble) or self._why_it_hangs()

    def try_again(self) -> None:
        """Somebody waits: if the last scan failed, find out now whether another one does."""
        with self._changed:
            self._tries_again = self._trouble is not None
            self._changed.notify_all()

    def _why_it_hangs(self) -> str | None:
        scan = self._scan
        if scan is None or time.monotonic() - scan.since < SILENT_S:
            return None
        folder = scan.at
        reason = self._lookout.silence(folder)
        return f"{folder} {reason}." if reason else None

    @property
    def offline(self) -> Mapping[str, str]:
        """Roots and mount points that were offline when last looked at → why; never waits."""
        silent = self._lookout.silent()
        return {**self._offline, **silent} if silent else self._offline

    @property
    def silent(self) -> Mapping[str, str]:
        """Those of them whose file system does not answer; never waits."""
        return self._lookout.silent()

    def why_offline(self, root: str) -> str | None:
        """As :meth:`RootGuard.why_offline`; waits for a while only where the root does not answer."""
        return self._lookout.ask(root, SILENT_S)

    def answers(self, root: str) -> bool:
        """Whether a root's file system answers; waits for a while only where it does not."""
        return self._lookout.answers(root, SILENT_S)

    def roots_status(self) -> list[RootStatus]:
        """Each root as it stands now. Looks at the disk, a few system calls a root."""
        return [self._root_status(root) for root in self._rules.roots]

    def _root_status(self, root: str) -> RootStatus:
        indexed = self._count_indexed(root)
        reason = self._lookout.ask(root, _STATUS_PATIENCE_S)
        if reason is not None:
            return RootStatus(root, RootState.OFFLINE, indexed, f"It {reason}.")
        scanning = self._scanning
        if scanning is not None and _touch(root, scanning):
            return RootStatus(root, RootState.SCANNING, indexed)
        if suspected := self._suspicion.count(root):
            vanished = count(suspected, "picture has", "pictures have")
            reason = f"{vanished} vanished at once: a second scan decides whether they are gone."
            return RootStatus(root, RootState.SCANNING, indexed, reason)
        lacks = [
            *self._lacking_mounts(root),
            *self._lacking_permissions(root),
            *self._lacking_contents(root),
            *self._lacking_ignore_files(root),
        ]
        return RootStatus(
            root, RootState.DEGRADED if lacks else RootState.ONLINE, indexed, " ".join(lacks) or None
        )

    def _lacking_mounts(self, root: str) -> list[str]:
        mounts = ((p, reason) for p, reason in self._offline.items() if p != root)
        return [
            f"{place} is offline, and its pictures stay: it {reason}. If it will not come back, "
            f"`ignore = {pattern_in_toml(place, root)}` in the settings file has them forgotten."
            for place, reason in mounts
            if self._rules.root_of(place) == root
        ]

    def _lacking_permissions(self, root: str) -> list[str]:
        unreadable = [p for p in self._unreadable if self._rules.root_of(p) == root]
        if not unreadable:
            return []
        first = unreadable[0]
        return [
            f"{count(len(unreadable), 'path')} cannot be read, e.g. {first!r}: {self._unreadable[first]}."
        ]

    def _lacking_contents(self, root: str) -> list[str]:
        unread = {p: reason for p, reason in self._unread.all().items() if self._rules.root_of(p) == root}
        if not unread:
            return []
        first, reason = next(iter(unread.items()))
        told = f"{count(len(unread), 'file')} could not be read, e.g. {first!r}: {reason}"
        return [f"{told} What is known of them stays, and they are tried again in a while."]

    def _lacking_ignore_files(self, root: str) -> list[str]:
        away = self.offline  # a look there might hang
        faults = (
            (file, reason)
            for file, reason in self._rules.ignore_faults().items()
            if self._rules.root_of(file) == root and not any(is_within(file, place) for place in away)
        )
        return [f"{file} {reason}." for file, reason in faults if os.path.lexists(file)]

    def _count_indexed(self, root: str) -> int:
        """Without what belongs to the roots nested in this one."""
        nested = self._rules.nested_roots(root)
        inner = sum(map(self._count_below, outermost(nested)))
        return self._count_below(root) - inner

    def _count_below(self, folder: str) -> int:
        return self._ledger.counts(folder)[PictureState.INDEXED] + self._ledger.looked_at_again(folder)

    def _is_settled(self, signature: Signature) -> bool:
        """A time in the future (a camera's clock, ours set back) says nothing: then no."""
        last_change = max(signature.mtime_ns, signature.ctime_ns) / 1e9
        return self._wall_clock() - last_change > self._settle_s

    # The thread.

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                self._do(work)
            except ScanStoppedError:
                return
            except Exception as error:  # noqa: BLE001 - without this thread nothing would ever be put right again
                _log.exception("a scan failed; it is tried again in %.0f s", _RETRY_S)
                self._give_back(work.folders)
                self._pause(error.message if isinstance(error, ImagedbError) else f"{error!r}.")
            else:
                self._trouble, self._tries_again = None, False
                self._finish(work.ticket)

    def _pause(self, trouble: str) -> None:
        with self._changed:
            self._trouble, self._tries_again = trouble, False
            self._changed.wait_for(lambda: self._stopping.is_set() or self._tries_again, _RETRY_S)

    def _next_work(self) -> _Work | None:
        """Wait for requests, or until it is time for a scan; ``None`` when it is time to stop."""
        with self._changed:
            while not self._stopping.is_set():
                now = time.monotonic()
                self._request_what_is_due(now)
                unheard = now >= self._next_unheard
                if self._requested or unheard:
                    folders = outermost(self._requested)
                    self._requested.clear()
                    if EVERYTHING in folders:
                        self._next_full = now + self._rescan_s
                    return _Work(self._ticket, folders, unheard)
                self._changed.wait(self._next_time() - now)
            return None

    def _request_what_is_due(self, now: float) -> None:
        if self._next_full is not None and now >= self._next_full:
            self._requested.add(EVERYTHING)
        for folder in [folder for folder, due in self._to_confirm.items() if now >= due]:
            del self._to_confirm[folder]
            self._requested.add(folder)

    def _next_time(self) -> float:
        times = [self._next_unheard, *self._to_confirm.values()]
        return min(times if self._next_full is None else [*times, self._next_full])

    def _do(self, work: _Work) -> None:
        started = time.monotonic()
        unheard = self._all_unheard() if work.unheard else []
        self._scan_all(outermost([*work.folders, *unheard]))
        if work.unheard:
            for path in self._unread.due():
                self._queue.put(path, settled=True)
            now = time.monotonic()
            self._next_unheard = now + max(self._unheard_s, (now - started) / _UNHEARD_SHARE)

    def _all_unheard(self) -> list[str]:
        """What nobody would tell of: folders beyond the reach of events, what was unreadable or away."""
        place_of = {path: self._rules.root_of(path) or path for path in self._unreadable}
        answering = {place for place in set(place_of.values()) if self.answers(place)}
        reached = (path for path, place in place_of.items() if place in answering)
        unreadable = (path if os.path.isdir(path) else os.path.dirname(path) for path in reached)
        ignore_files = self._rules.unread_ignore_files()
        ignoring = (os.path.dirname(f) for f in ignore_files if self.answers(self._rules.root_of(f) or f))
        return [*self._unheard(), *unreadable, *ignoring, *self._offline]

    def _scan_all(self, folders: list[str]) -> None:
        try:
            for folder in folders:
                self._scanning = folder
                report = self.scan(folder)
                if report.unconfirmed:
                    _log.warning("%d pictures have vanished; they are looked for again", report.unconfirmed)
                    self._to_confirm.setdefault(folder, time.monotonic() + self._confirm_s)
        finally:
            self._scanning = None

    def _give_back(self, folders: Iterable[str]) -> None:
        with self._changed:
            self._requested.update(folders)

    def _finish(self, ticket: int) -> None:
        with self._changed:
            if not self._to_confirm:
                self._scanned = ticket
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Work:
    """:param ticket: the newest request that this serves.
    :param unheard: it is time for the folders of which events do not tell all.
    """

    ticket: int
    folders: list[str]
    unheard: bool


class _Suspicion:
    """What has vanished suddenly, root by root, until a later scan has missed it as well."""

    def __init__(self, confirm_s: float) -> None:
        self._confirm_s = confirm_s
        self._missed: dict[str, dict[str, float]] = {}

    def confirmed(self, root: str, top: str, missing: list[str], *, emptied: bool) -> list[str]:
        """Which of these files may be taken for gone.

        :param missing: all that is missing in ``top``, a folder of this root.
        :param emptied: that is everything, and ``top`` is the root.
        """
        now, absent = time.monotonic(), set(missing)
        before = self._missed.pop(root, {})
        elsewhere = {path: since for path, since in before.items() if not is_within(path, top)}
        if not emptied and len(missing) < _SUDDEN:
            self._missed[root] = elsewhere
            return missing
        sure = {p for p in absent if p in before and now - before[p] >= self._confirm_s}
        self._missed[root] = elsewhere | {path: before.get(path, now) for path in absent - sure}
        return [path for path in missing if path in sure]

    def count(self, root: str) -> int:
        """How many files of this root were missed by one scan alone."""
        return len(self._missed.get(root, ()))


class ScanStoppedError(Exception):
    """The scanner is told to stop in the middle of a scan."""


@dataclass(slots=True)
class _Scan:
    """One scan while it goes on. What is missing is queued last, when the root is known to have stayed.

    :param at: the folder that it is in, ``since`` so long by the monotonic clock.
    """

    rules: Rules
    ledger: Ledger
    queue: ChangeQueue
    is_settled: Callable[[Signature], bool]
    suspicion: _Suspicion
    stopping: threading.Event
    lookout: Lookout
    at: str = EVERYTHING
    since: float = field(default_factory=time.monotonic)
    guard: RootGuard = field(init=False)
    mounts: frozenset[str] = frozenset()
    seen: int = 0
    changed: int = 0
    missing: int = 0
    unconfirmed: int = 0
    skipped: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    offline: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.guard = RootGuard(self.rules, self.ledger)

    def run(self, folder: str) -> ScanReport:
        started = time.monotonic()
        root = self.rules.root_of(folder)
        if root is None:
            self._put_missing(self._known_outside_every_root(folder))
            self._have_looked_at_again(None, folder)
        else:
            self._scan_in_root(root, folder)
        for nested in self.rules.nested_roots(folder):
            self._scan_in_root(nested, nested)
        return ScanReport(
            folder,
            self.seen,
            self.changed,
            self.missing,
            self.unconfirmed,
            self.skipped,
            self.unreadable,
            self.offline,
            time.monotonic() - started,
        )

    def _scan_in_root(self, root: str, top: str) -> None:
        """Scan the folder ``top``, which belongs to this root, up to where other roots begin."""
        if self._is_offline(root):
            return
        self._enter(root)
        self.guard.remember(root)
        self._check_mounts(root)
        visited: set[str] = set()
        seen_before = self.seen
        missing = self._walk(root, top, visited)
        missing += self._known_in_unvisited_folders(root, top, visited)
        self._check_mounts(root)
        if not self._is_offline(root):
            within_reach = [path for path in missing if not self._is_out_of_reach(path)]
            emptied = top == root and self.seen == seen_before and len(within_reach) == len(missing)
            self._report_missing(root, top, within_reach, emptied=emptied)
        self._have_looked_at_again(root, top)

    def _have_looked_at_again(self, root: str | None, top: str) -> None:
        """Queue what is being worked on: it may have gone since, and the ledger does not know it yet.

        :param root: the root that it belongs to now; ``None`` for what lies outside all of them.
        """
        for path in self.queue.in_flight():
            if is_within(path, top) and self.rules.root_of(path) == root:
                self.queue.put(path, settled=True)

    def _enter(self, folder: str) -> None:
        self.at, self.since = folder, time.monotonic()

    def _is_offline(self, place: str) -> bool:
        reason = self.lookout.ask(place, SILENT_S)
        if self.stopping.is_set():  # then that says nothing, and nobody may take this scan for complete
            raise ScanStoppedError
        if reason is None:
            return False
        self.offline[place] = reason
        return True

    def _check_mounts(self, root: str) -> None:
        """Note which file systems once mounted below a root are absent; drop what is a plain folder now."""
        self.mounts = frozenset(mount.place for mount in read_mounts())
        for place in self.guard.mounts_below(root):
            if self.guard.is_deleted(place):
                self.ledger.forget_place(place)
            elif not self._is_offline(place):
                with contextlib.suppress(OSError):
                    if not is_mount_point(place, self.mounts):
                        self.ledger.forget_place(place)

    def _is_out_of_reach(self, path: str) -> bool:
        places = [*self.unreadable, *self.offline]
        return any(is_within(path, place) for place in places)

    # Down through the folders that are there.

    def _walk(self, root: str, top: str, visited: set[str]) -> list[str]:
        """Look into every folder from ``top`` down, note it as visited, and return what is missing there."""
        missing: list[str] = []
        if os.path.realpath(top) != top or self._is_out_of_reach(top):
            return missing
        if not Spelling().is_exact(top, root):
            return missing
        ahead = [self.rules.folder(top)]
        while ahead:
            if self.stopping.is_set():
                raise ScanStoppedError
            folder = ahead.pop()
            self._enter(folder.path)
            if folder.root == root and folder.verdict.unsure:
                self.unreadable[folder.path] = str(folder.verdict.rule)
            elif folder.root == root and folder.verdict.ok and self._may_enter(folder.path):
                ahead += self._look_into(folder, visited, missing)
        return missing

    def _may_enter(self, path: str) -> bool:
        try:
            if path in self.offline or not stat_module.S_ISDIR(os.lstat(path).st_mode):
                return False
            is_inner_mount = path not in self.rules.roots and is_mount_point(path, self.mounts)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # it lies in a folder that may not be entered
            self.unreadable[path] = error.strerror or str(error)
            return False
        return not is_inner_mount or self._may_enter_mount(path)

    def _may_enter_mount(self, path: str) -> bool:
        if self._is_offline(path):
            return False
        self.guard.remember(path)
        return True

    def _look_into(self, folder: FolderRules, visited: set[str], missing: list[str]) -> list[FolderRules]:
        """Compare one folder with the ledger; return the folders in it."""
        known = self.ledger.in_folder(folder.path)
        try:
            with os.scandir(folder.path) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.unreadable[folder.path] = error.strerror or str(error)
            return []
        visited.add(folder.path)
        below: list[FolderRules] = []
        sidecars = frozenset(entry.name for entry in entries if is_sidecar(entry.name))
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    below += self._folder_below(folder, entry)
                elif self._is_indexable(folder, entry):
                    self._compare(entry, known.pop(entry.path, None), sidecars)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unreadable[entry.path] = error.strerror or str(error)
        missing += known
        return below

    def _folder_below(self, folder: FolderRules, entry: os.DirEntry[str]) -> list[FolderRules]:
        """One folder with its rules, which may be in a file of its own; none of a place that is offline."""
        if entry.path in self.offline:
            return []
        self._enter(entry.path)
        below = [folder.folder(entry.name)]
        self._enter(folder.path)
        return below

    def _is_indexable(self, folder: FolderRules, entry: os.DirEntry[str]) -> bool:
        if is_sidecar(entry.name) or not self.rules.concerns(entry.name):
            return False
        verdict = folder.file(entry.name)
        if verdict.ok:
            verdict = self.rules.kind_and_size(entry.stat(follow_symlinks=False))
        self.skipped += not verdict.ok
        return verdict.ok

    def _compare(self, entry: os.DirEntry[str], known: LedgerEntry | None, sidecars: Collection[str]) -> None:
        """:param sidecars: the names of those in the folder."""
        self.seen += 1
        signature = Signature.of(entry.stat(follow_symlinks=False))
        if (
            known is not None
            and _is_unchanged(known.signature, signature)
            and has_its_sidecars(known, sidecars)
        ):
            unfinished = known.state in {PictureState.PENDING, PictureState.WAITING}
            if not unfinished or entry.path in self.queue:
                return
        self.changed += 1
        self.queue.put(entry.path, settled=self.is_settled(signature))

    # What the ledger knows and the walk did not meet.

    def _known_in_unvisited_folders(self, root: str, top: str, visited: set[str]) -> list[str]:
        return [
            path
            for folder in self.ledger.folders_under(top)
            if folder not in visited and self.rules.root_of(folder) == root
            for path in self.ledger.in_folder(folder)
        ]

    def _known_outside_every_root(self, folder: str) -> list[str]:
        return [
            path
            for known_folder in self.ledger.folders_under(folder)
            if self.rules.root_of(known_folder) is None
            for path in self.ledger.in_folder(known_folder)
        ]

    def _report_missing(self, root: str, top: str, paths: list[str], *, emptied: bool) -> None:
        """Queue what is to be indexed no longer, and what has vanished unless that was suspiciously much.

        What is queued already was heard of, one by one, and that is no suspicious way to go.
        """
        vanished = [path for path in paths if path not in self.queue and not os.path.lexists(path)]
        gone = self.suspicion.confirmed(root, top, vanished, emptied=emptied)
        self.unconfirmed += len(vanished) - len(gone)
        self._put_missing(set(paths).difference(vanished))
        self._put_missing(gone)

    def _put_missing(self, paths: Iterable[str]) -> None:
        """Queue these at once: only the indexer, which looks again, forgets a file."""
        for path in paths:
            self.missing += 1
            self.queue.put(path, settled=True)


def _is_unchanged(known: Signature, now: Signature) -> bool:
    """A device number alone may change with a reboot or a cable; with all else equal it is the same file."""
    return known == replace(now, device=known.device)


def _touch(place: str, folder: str) -> bool:
    """Whether one of them is the other, or lies in it."""
    return is_within(place, folder) or is_within(folder, place)
