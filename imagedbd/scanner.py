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
from imagedbd.roots import RootGuard
from imagedbd.rules import is_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.datatypes import LedgerEntry
    from imagedbd.ledger import Ledger
    from imagedbd.rules import FolderRules, Rules

_log = logging.getLogger(__name__)

EVERYTHING = "/"
"""The folder to scan that holds every root, and every file known from roots of the past."""

_RETRY_S = 30.0
"""How long to wait after a scan that the ledger made fail, e.g. because the disk is full."""


_MASS = 100
"""More pictures than so, and more than half of a folder's, are not gone just because one scan missed them."""


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What one scan found.

    :param seen: files that are to be indexed.
    :param changed: those of them that are new or changed, and so are in the queue now.
    :param missing: known files that are not there, or not to be indexed, any more; also in the queue.
    :param suspected: known files as well that are not there, but too many at once: a second scan decides.
    :param skipped: files with a picture's name that the rules leave out.
    :param unreadable: path → reason; nothing at or below such a path counts as missing.
    :param offline: root or mount point → reason; nothing in it counts as missing.
    """

    folder: str
    seen: int
    changed: int
    missing: int
    suspected: int
    skipped: int
    unreadable: dict[str, str]
    offline: dict[str, str]
    took_s: float


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """Pictures that vanished in great numbers, and of which no event told.

    :param ticket: requests from this one on are served when the suspicion is settled.
    :param due: on the monotonic clock: when to look again.
    """

    folder: str
    paths: frozenset[str]
    ticket: int
    due: float


@dataclass(frozen=True, slots=True)
class _Round:
    """What the thread does next; requests up to the ticket are served by it."""

    ticket: int
    folders: list[str]
    suspicions: list[_Suspicion]


class Scanner:
    """Scans on request and now and then, in a thread of its own; one scan at a time.

    :param settle_s: a file that changed less than this many seconds ago is queued as unsettled.
    :param rescan_s: seconds from one scan of everything to the next.
    :param confirm_s: seconds from a scan that misses a great many pictures to the one that decides.
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
        confirm_s: float = 3.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._queue = queue
        self._settle_s = settle_s
        self._rescan_s = rescan_s
        self._confirm_s = confirm_s
        self._wall_clock = wall_clock
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._requested: set[str] = set()
        self._ticket = 0
        self._scanned = 0
        self._suspicions: list[_Suspicion] = []
        self._next_full: float | None = None
        self._scan_lock = threading.Lock()
        self._scanning: str | None = None
        self._unreadable: dict[str, str] = {}

    def start(self) -> None:
        """Start the thread, with a scan of everything. To be called once."""
        self.request()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Break off the scan in progress, and wait for the thread."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def set_rules(self, rules: Rules) -> None:
        """Scan by other rules from the next scan on, which is requested: one of everything."""
        with self._changed:
            self._rules = rules
        self.request()

    def request(self, folder: str | None = None) -> int:
        """Ask for a scan of this folder with all below, or of everything. Returns at once.

        :returns: a ticket for :meth:`wait_scanned`.
        """
        with self._changed:
            self._ticket += 1
            self._requested.add(EVERYTHING if folder is None else folder)
            self._changed.notify_all()
            return self._ticket

    def wait_scanned(self, ticket: int, timeout: float | None = None) -> bool:
        """Wait until a scan that began after this request is complete, and its findings are queued.

        :param timeout: in seconds; ``None`` waits as long as it takes.
        :returns: False on a time-out, and when the scanner is stopped first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or self._served() >= ticket, timeout)
            return self._served() >= ticket

    def scan(self, folder: str = EVERYTHING) -> ScanReport:
        """Scan this folder with all below, here and now.

        :raises StoreError: the ledger cannot be used; what was found so far is queued.
        :raises ScanStoppedError: :meth:`stop` was called.
        """
        return self._scan(folder)

    def _scan(self, folder: str, confirming: _Suspicion | None = None) -> ScanReport:
        """:param confirming: what it suspected and is still missing, is missing."""
        with self._scan_lock:
            with self._changed:
                others = [s.paths for s in self._suspicions if s is not confirming]
            scan = _Scan(
                self._rules,
                self._ledger,
                self._queue,
                self._is_settled,
                self._stopping,
                suspects=frozenset().union(*others),
                confirmed=confirming.paths if confirming else frozenset(),
            )
            report = scan.run(folder)
            kept = {p: reason for p, reason in self._unreadable.items() if not is_within(p, folder)}
            self._unreadable = kept | report.unreadable
            self._settle(confirming, scan.suspected)
        return report

    def _settle(self, confirmed: _Suspicion | None, suspected: dict[str, frozenset[str]]) -> None:
        due = time.monotonic() + self._confirm_s
        for folder, paths in suspected.items():
            _log.warning("%d pictures in %s have vanished at once; a second scan decides", len(paths), folder)
        with self._changed:
            # Whoever waits for a scan that is not over waits for what it suspects.
            ticket = self._scanned + 1
            new = [_Suspicion(folder, paths, ticket, due) for folder, paths in suspected.items()]
            self._suspicions = [*(s for s in self._suspicions if s is not confirmed), *new]
            self._changed.notify_all()

    def roots_status(self) -> list[RootStatus]:
        """Each root as it stands now. Looks at the disk, a few system calls a root."""
        return [self._root_status(root) for root in self._rules.roots]

    def _root_status(self, root: str) -> RootStatus:
        indexed = self._count_indexed(root)
        reason = RootGuard(self._rules, self._ledger).why_offline(root)
        if reason is not None:
            return RootStatus(root, RootState.OFFLINE, indexed, f"It {reason}.")
        scanning = self._scanning
        if scanning is not None and (is_within(root, scanning) or is_within(scanning, root)):
            return RootStatus(root, RootState.SCANNING, indexed)
        vanished = sum(len(s.paths) for s in self._suspicions if self._rules.root_of(s.folder) == root)
        if vanished:
            reason = f"{vanished} pictures have vanished at once; a second look decides."
            return RootStatus(root, RootState.SCANNING, indexed, reason)
        unreadable = [p for p in self._unreadable if self._rules.root_of(p) == root]
        if unreadable:
            first = unreadable[0]
            reason = f"{len(unreadable)} paths cannot be read; {first!r}: {self._unreadable[first]}."
            return RootStatus(root, RootState.DEGRADED, indexed, reason)
        return RootStatus(root, RootState.ONLINE, indexed)

    def _count_indexed(self, root: str) -> int:
        """Without what belongs to the roots nested in this one."""
        nested = self._rules.nested_roots(root)
        outermost = _outermost(nested)
        inner = sum(self._ledger.counts(r)[PictureState.INDEXED] for r in outermost)
        return self._ledger.counts(root)[PictureState.INDEXED] - inner

    def _is_settled(self, signature: Signature) -> bool:
        """A time in the future (a camera's clock, ours set back) says nothing: then no."""
        last_change = max(signature.mtime_ns, signature.ctime_ns) / 1e9
        return self._wall_clock() - last_change > self._settle_s

    # The thread.

    def _run(self) -> None:
        while (work := self._next_round()) is not None:
            try:
                self._scan_all(work)
            except ScanStoppedError:
                return
            except Exception:  # noqa: BLE001 - without this thread nothing would ever be put right again
                _log.exception("a scan failed; it is tried again in %.0f s", _RETRY_S)
                self._give_back(work.folders)
                self._stopping.wait(_RETRY_S)
            else:
                self._finish(work.ticket)

    def _scan_all(self, work: _Round) -> None:
        try:
            for suspicion in work.suspicions:
                self._scanning = suspicion.folder
                self._scan(suspicion.folder, suspicion)
            for folder in work.folders:
                self._scanning = folder
                self._scan(folder)
        finally:
            self._scanning = None

    def _next_round(self) -> _Round | None:
        """Wait for something to do; ``None`` when it is time to stop."""
        with self._changed:
            while not self._stopping.is_set():
                now = time.monotonic()
                if self._next_full is not None and now >= self._next_full:
                    self._requested.add(EVERYTHING)
                suspicions = [s for s in self._suspicions if s.due <= now]
                if self._requested or suspicions:
                    folders = _outermost(self._requested)
                    self._requested.clear()
                    if EVERYTHING in folders:
                        self._next_full = now + self._rescan_s
                    return _Round(self._ticket, folders, suspicions)
                times = [s.due for s in self._suspicions]
                times += [] if self._next_full is None else [self._next_full]
                self._changed.wait(min(times) - now if times else None)
            return None

    def _give_back(self, folders: Iterable[str]) -> None:
        with self._changed:
            self._requested.update(folders)

    def _finish(self, ticket: int) -> None:
        with self._changed:
            self._scanned = ticket
            self._changed.notify_all()

    def _served(self) -> int:
        """The last ticket of which all is known; the lock is held."""
        return min([self._scanned, *(s.ticket - 1 for s in self._suspicions)])


class ScanStoppedError(Exception):
    """The scanner is told to stop in the middle of a scan."""


@dataclass(slots=True)
class _Scan:
    """One scan while it goes on. What is missing is queued last, when the root is known to have stayed.

    :param suspects: files of which another scan is to decide whether they are missing.
    :param confirmed: files that were missing some time ago already.
    :param suspected: by folder: what is missing here, and too much of it at once.
    """

    rules: Rules
    ledger: Ledger
    queue: ChangeQueue
    is_settled: Callable[[Signature], bool]
    stopping: threading.Event
    suspects: AbstractSet[str] = frozenset()
    confirmed: AbstractSet[str] = frozenset()
    suspected: dict[str, frozenset[str]] = field(default_factory=dict)
    guard: RootGuard = field(init=False)
    seen: int = 0
    changed: int = 0
    missing: int = 0
    skipped: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    offline: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.guard = RootGuard(self.rules, self.ledger)

    def run(self, folder: str) -> ScanReport:
        started = time.monotonic()
        root = self.rules.root_of(folder)
        if root is None:
            self._report_missing(self._known_outside_every_root(folder))
        else:
            self._scan_in_root(root, folder)
        for nested in self.rules.nested_roots(folder):
            self._scan_in_root(nested, nested)
        return ScanReport(
            folder,
            self.seen,
            self.changed,
            self.missing,
            sum(map(len, self.suspected.values())),
            self.skipped,
            self.unreadable,
            self.offline,
            time.monotonic() - started,
        )

    def _scan_in_root(self, root: str, top: str) -> None:
        """Scan the folder ``top``, which belongs to this root, up to where other roots begin."""
        if self._is_offline(root):
            return
        self.guard.remember(root)
        self._check_mounts(root)
        visited: set[str] = set()
        missing = self._walk(root, top, visited)
        missing += self._known_in_unvisited_folders(root, top, visited)
        self._check_mounts(root)
        if not self._is_offline(root):
            self._judge_missing(top, [path for path in missing if not self._is_out_of_reach(path)])
        self._have_looked_at_again(top)

    def _have_looked_at_again(self, top: str) -> None:
        """Queue what is being worked on: it may have gone since, and the ledger does not know it yet."""
        for path in self.queue.in_flight():
            if is_within(path, top):
                self.queue.put(path, settled=True)

    def _is_offline(self, place: str) -> bool:
        reason = self.guard.why_offline(place)
        if reason is None:
            return False
        self.offline[place] = reason
        return True

    def _check_mounts(self, root: str) -> None:
        """Note which file systems once mounted below a root are absent; drop what is a plain folder now."""
        for place in self.guard.mounts_below(root):
            with contextlib.suppress(OSError):
                if not self._is_offline(place) and not _is_mount_point(place):
                    self.ledger.forget_root(place)

    def _is_out_of_reach(self, path: str) -> bool:
        places = [*self.unreadable, *self.offline]
        return any(is_within(path, place) for place in places)

    # Down through the folders that are there.

    def _walk(self, root: str, top: str, visited: set[str]) -> list[str]:
        """Look into every folder from ``top`` down, note it as visited, and return what is missing there."""
        missing: list[str] = []
        if os.path.realpath(top) != top or self._is_out_of_reach(top):
            return missing
        ahead = [self.rules.folder(top)]
        while ahead:
            if self.stopping.is_set():
                raise ScanStoppedError
            folder = ahead.pop()
            if folder.root == root and folder.verdict.ok and self._may_enter(folder.path):
                ahead += self._look_into(folder, visited, missing)
        return missing

    def _may_enter(self, path: str) -> bool:
        try:
            if path in self.offline or not stat_module.S_ISDIR(os.lstat(path).st_mode):
                return False
            is_inner_mount = path not in self.rules.roots and _is_mount_point(path)
        except OSError:
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
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(folder.folder(entry.name))
                elif self._is_indexable(folder, entry):
                    self._compare(entry, known.pop(entry.path, None))
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unreadable[entry.path] = error.strerror or str(error)
        missing += known
        return below

    def _is_indexable(self, folder: FolderRules, entry: os.DirEntry[str]) -> bool:
        if not self.rules.concerns(entry.name):
            return False
        verdict = folder.file(entry.name)
        if verdict.ok:
            verdict = self.rules.kind_and_size(entry.stat(follow_symlinks=False))
        self.skipped += not verdict.ok
        return verdict.ok

    def _compare(self, entry: os.DirEntry[str], known: LedgerEntry | None) -> None:
        self.seen += 1
        signature = Signature.of(entry.stat(follow_symlinks=False))
        if known is not None and _is_unchanged(known.signature, signature):
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

    def _judge_missing(self, top: str, missing: list[str]) -> None:
        """Believe what is missing, but for a mass of pictures of which this scan alone says so."""
        # What is queued was heard of, one by one.
        alone = {
            p for p in missing if p not in self.suspects and p not in self.confirmed and p not in self.queue
        }
        if self._is_a_mass(top, len(alone), len(missing)):
            self.suspected[top] = frozenset(alone)
        else:
            alone.clear()
        self._report_missing(p for p in missing if p not in self.suspects and p not in alone)

    def _is_a_mass(self, top: str, alone: int, missing: int) -> bool:
        if alone <= _MASS:
            return False
        nested = _outermost(self.rules.nested_roots(top))
        known = self._count_known(top) - sum(map(self._count_known, nested))
        return 2 * alone > known - missing + alone

    def _count_known(self, folder: str) -> int:
        return sum(self.ledger.counts(folder).values())

    def _report_missing(self, paths: Iterable[str]) -> None:
        """Queue these at once: only the indexer, which looks again, forgets a file."""
        for path in paths:
            self.missing += 1
            self.queue.put(path, settled=True)


def _is_unchanged(known: Signature, now: Signature) -> bool:
    """A device number alone may change with a reboot or a cable; with all else equal it is the same file."""
    return known == replace(now, device=known.device)


def _is_mount_point(path: str) -> bool:
    return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev


def _outermost(folders: Iterable[str]) -> list[str]:
    """These folders without those that lie in others of them."""
    kept: list[str] = []
    # With their slash, folders stand right behind the one that they lie in.
    for folder in sorted(folders, key=lambda path: path.rstrip("/") + "/"):
        if not kept or not is_within(folder, kept[-1]):
            kept.append(folder)
    return kept
