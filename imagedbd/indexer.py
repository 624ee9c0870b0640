"""The writer: takes changes through decode, embed and commit, and is the only one that does.

One thread drives it all. Files are decoded in worker processes and embedded in another while this thread
commits, so no stage waits for the next one as long as there is work::

    queue ─► taken ─► found ─► jobs ─► decoding ─► decoded ─► embedding ─► work ─► commit
               │        │                  │ known content, failures        ▲
               │        └─► left: offline  │                                │
               └─► gone ───────────────────┴────────────────────────────────┘

A store or ledger that refuses (a full disk) stops the line where it is: every stage takes a thing out of
the one before only when it has dealt with it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imagedbd.commits import Committer, Failure, Finished, Work
from imagedbd.datatypes import Decoded, FileChange, ModelState, PictureState, Signature
from imagedbd.errands import Errands
from imagedbd.errors import (
    DaemonBusyError,
    DaemonStoppingError,
    DecoderLostError,
    EmbedderError,
    ImagedbError,
    ModelUnavailableError,
    PictureChangedError,
    PictureError,
    PictureMissingError,
    PictureUnreadError,
    StoreError,
)
from imagedbd.pulse import Pulse
from imagedbd.rules import is_within
from imagedbd.sidecars import UNSURE, has_its_sidecars, is_sidecar
from imagedbd.spelling import Spelling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.datatypes import Embedder, LedgerEntry, Store
    from imagedbd.decoder import Decoder
    from imagedbd.ledger import Ledger
    from imagedbd.rules import Rules
    from imagedbd.unread import UnreadFiles

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 2
"""How often a file is opened that takes its decoder, or the daemon, down with it."""
MAX_MISSES: Final = 5
"""How often a file is looked for that is there, stays as it is, and cannot be opened."""
BATCHES_IN_FLIGHT: Final = 2
"""One that the model works on, and one that lies ready when it is done."""
TAKEN: Final = 256
"""Changes that are looked at together: most of a rescan, and all of a deletion, need no more than a look."""
ASKED_TOGETHER: Final = 64
"""Files for which it is asked together whether the place is there where they lie, while others are read."""
COMMIT_ROWS: Final = 64
COMMIT_AFTER_S: Final = 0.5
"""A finished picture is searchable after this time even if the batch has not filled up."""
GONE_AFTER_S: Final = 2.0
"""How long a vanished file waits for turning up elsewhere among the files that are being read."""
GLANCE_S: Final = 0.25
"""How often new changes are looked for while others are being worked on."""
TIDY_AFTER_S: Final = 1.0
CHORES_S: Final = 3600.0
PAUSE_S: Final = 5.0
"""How long to wait after something failed that may pass: a full disk, no process to be had."""
MODEL_PAUSE_S: Final = 60.0
"""How long pictures wait for a model that is there and fails."""
REFUSALS: Final = 3
"""Commits refused in a row, after which each change is committed on its own, to find what is at fault."""
PROBABLE_HASHES: Final = 64
"""Known contents of one file size that are worth telling a decoder; uncompressed pictures share theirs."""
RATE_WINDOW_S: Final = 30.0
ERRAND_LOOK_S: Final = 0.2
STEP_S: Final = 600.0
"""What a step may take before it counts as stuck: waiting for a disk, or for a batch on a slow machine."""
UPKEEP_ROW_S: Final = 0.006
"""For each picture besides, while all of them may be gone through: to build the index of vectors anew took
0.06 ms a picture in LanceDB (of 300,000) and 0.3 ms with Faiss (of 250,000) on two cores that others used as
well, and a machine may be twenty times as slow. Who is ended too early begins again, and comes to no end."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One file in work.

    :param attempts: how often it was opened so far, and not brought to an end.
    :param known: content hashes at which the decoder stops.
    :param must_embed: what seems known is not: its vector was looked for, and nobody has it.
    :param read_at: POSIX time before which it was not read.
    """

    change: FileChange
    signature: Signature
    generation: int
    attempts: int = 0
    known: frozenset[str] = frozenset()
    must_embed: bool = False
    read_at: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A decoded picture on its way through the model."""

    job: _Job
    decoded: Decoded

    def finished(self, *, vector: NDArray[np.float32] | None = None, known: bool = False) -> Finished:
        # The pixels have served; keeping them until the commit would cost memory.
        decoded = replace(self.decoded, pixels=None)
        job = self.job
        return Finished(job.change, decoded, vector, job.attempts, known=known, generation=job.generation)


@dataclass(slots=True)
class _Line:
    """Everything that is between the queue and the store."""

    taken: deque[FileChange] = field(default_factory=deque)
    found: deque[_Job] = field(default_factory=deque)
    """Files to be read, if the place where they lie turns out to be what it was."""
    jobs: deque[_Job] = field(default_factory=deque)
    suspects: deque[_Job] = field(default_factory=deque)
    """Files that were in work when a decoder or the daemon died. They are tried when there is nothing else to
    do, and one at a time: if it happens again, it is known which of them it was."""
    decoding: dict[Future[Decoded], _Job] = field(default_factory=dict)
    decoded: deque[_Picture] = field(default_factory=deque)
    embedding: dict[Future[NDArray[np.float32]], list[_Picture]] = field(default_factory=dict)
    halves: deque[list[_Picture]] = field(default_factory=deque)
    followers: dict[str, list[_Picture]] = field(default_factory=dict)
    """Twins of pictures that are decoded or being embedded, by content hash."""
    gone: deque[tuple[float, FileChange]] = field(default_factory=deque)
    work: Work = field(default_factory=Work)
    work_since: float = 0.0

    def reading(self) -> bool:
        """Whether files are in work that may turn out to be others that vanished."""
        to_read = self.taken or self.found or self.jobs or self.suspects or self.decoding
        return bool(to_read or self.decoded or self.embedding or self.halves)

    def empty(self) -> bool:
        return not (self.reading() or self.work or self.gone)

    def add_finished(self, item: Finished) -> None:
        self._stamp()
        self.work.finished.append(item)

    def add_failure(self, job: _Job, reason: str) -> None:
        self._stamp()
        self.work.failures.append(Failure(job.change, job.signature, reason, job.attempts))

    def _stamp(self) -> None:
        if not self.work:
            self.work_since = time.monotonic()


class Indexer:
    """Keeps the store equal to the folders, one change at a time.

    :param request_scan: called with a folder to scan: one that took the place of a file, or that holds a
        file which cannot be looked at.
    :param may_forget: whether a vanished path may be forgotten now.
    :param offline_places: which of the places that hold these paths are offline: their files are left to the
        scan that follows when they are back. It must look at the disk after it is called.
    :param on_crash: called, in the indexer's thread, when it has met a bug and stopped.
    :param unread: where files are noted that a disk does not give.
    """

    def __init__(
        self,
        *,
        queue: ChangeQueue,
        ledger: Ledger,
        store: Store,
        decoder: Decoder,
        embedder: Embedder,
        rules: Rules,
        may_forget: Callable[[str], bool],
        offline_places: Callable[[Collection[str]], Collection[str]],
        request_scan: Callable[[str], object],
        on_crash: Callable[[], object],
        unread: UnreadFiles,
    ) -> None:
        self.rules = rules
        self.pulse = Pulse("indexer")
        self._queue = queue
        self._ledger = ledger
        self._store = store
        self._decoder = decoder
        self._embedder = embedder
        self._request_scan = request_scan
        self._on_crash = on_crash
        self._may_forget = may_forget
        self._offline_places = offline_places
        self._committer = self._new_committer()
        self._line = _Line()
        self._spelling = Spelling()
        self._read_well: list[str] = []
        self._unread = unread
        self._missed: dict[str, tuple[Signature, int]] = {}
        self._generation = 0
        self._refusals = 0
        self._crashed = False
        self._untidy = False
        self._told = False
        self._look_for_model_at: float | None = None
        self._progress: deque[tuple[float, int]] = deque(maxlen=1000)
        self._trouble: str | None = None
        self._tries_again = False
        self._again = threading.Event()
        self._first_load: Future[NDArray[np.float32]] | None = None
        self._errands = Errands()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for_model(self, first_load: Future[NDArray[np.float32]]) -> None:
        """Begin only when this load has ended, well or not: no picture is then decoded for nothing."""
        self._first_load = first_load

    def begin_close(self) -> None:
        """Stop after the step in hand; returns without waiting for that."""
        self._closing.set()
        self._again.set()
        self._queue.close()

    def close(self) -> None:
        """Stop after the step in hand; what was in flight is taken up again at the next start."""
        self.begin_close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def left_all_in_step(self) -> bool:
        """Whether store and ledger have the same, now that this is closed: no commit stopped between them."""
        return not (self._crashed or self._refusals)

    def between_batches(self, action: Callable[[], None]) -> Future[None]:
        """Have the indexer's thread do this: it finishes what is in hand first, and takes nothing new.

        :returns: see :meth:`imagedbd.errands.Errands.hand_in`; it is cancelled if the indexer stops first.
        """
        future = self._errands.hand_in(action)
        self._queue.nudge()
        return future

    def have_done(
        self,
        action: Callable[[], None],
        *,
        patience_s: float | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """As :meth:`between_batches`, and wait for its end; it is withdrawn only before it has begun.

        :param patience_s: how long what is in hand may take, if nothing holds it up; ``None`` waits as long
            as it takes, also while something does.
        :param is_over: whether it is not wanted any more; asked now and then.
        :raises DaemonBusyError: what is in hand does not come to an end.
        :raises DaemonStoppingError: the indexer stops first, or it is over.
        """
        errand = self.between_batches(action)
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while not errand.done():
            if self._closing.is_set() or is_over():
                errand.cancel()
            elif deadline is not None and (self._trouble or time.monotonic() >= deadline) and errand.cancel():
                why = self._trouble or "What is in hand takes longer than usual."
                raise DaemonBusyError(f"Nothing was changed. {why} Ask again in a while.")
            wait([errand], ERRAND_LOOK_S)
        if errand.cancelled():
            raise DaemonStoppingError("It was asked to stop.")
        errand.result()

    def listen(self, listener: Callable[[Iterable[str]], None] | None) -> None:
        """See :meth:`imagedbd.commits.Committer.listen`."""
        self._committer.listen(listener)

    def relabel(self, entries: Mapping[str, LedgerEntry]) -> None:
        """See :meth:`imagedbd.commits.Committer.relabel`; only for an action :meth:`between_batches`."""
        self._committer.relabel(entries)

    def use(self, store: Store, embedder: Embedder) -> None:
        """Work with these from now on; only for an action :meth:`between_batches`."""
        self._store, self._embedder = store, embedder
        self._committer = self._new_committer()
        self._generation += 1
        self._look_for_model_at = None

    def _new_committer(self) -> Committer:
        return Committer(self._store, self._ledger, lambda p: self._is_gone(p) and self._may_forget(p))

    @property
    def trouble(self) -> str | None:
        """What keeps pictures from being indexed at the moment, if something does."""
        return self._trouble

    @property
    def fresh_trouble(self) -> str | None:
        """The same, unless it is just being tried again whether that has passed; see :meth:`try_again`."""
        return None if self._tries_again else self._trouble

    def try_again(self) -> None:
        """Somebody waits: where something failed that may pass, find out now whether it has."""
        if self._trouble and self._look_for_model_at is None:
            self._tries_again = True
            self._again.set()

    def rate(self) -> float | None:
        """Pictures a second over the last half minute; ``None`` when idle."""
        now = time.monotonic()
        recent = [(moment, count) for moment, count in tuple(self._progress) if now - moment <= RATE_WINDOW_S]
        if len(recent) < 2:
            return None
        return sum(count for _, count in recent[1:]) / (now - recent[0][0])

    def take_up_waiting(self) -> None:
        """Queue the pictures that were stored without a vector, for the model is there now."""
        self._generation += 1
        try:
            for entry in self._ledger.by_state(PictureState.WAITING):
                self._queue.put(entry.path, settled=True)
        except StoreError as error:
            log.warning("pictures that wait for the model are found by the next scan: %s", error.message)

    # The thread.

    def _run(self) -> None:
        try:
            while self._first_load and not self._first_load.done() and not self._closing.is_set():
                self.pulse.promise(STEP_S)
                wait([self._first_load], GLANCE_S)
            while not self._closing.is_set():
                self.pulse.promise(STEP_S)
                self._guarded_step()
            self.pulse.end()
            self._release_all()
        # A bug must stop the daemon loudly: a writer that is gone while the rest lives on would drift.
        except Exception:
            log.exception("the indexer met a bug and stops the daemon")
            self._crashed = True
            self._on_crash()
        finally:
            self._errands.close()

    def _guarded_step(self) -> None:
        try:
            self._step()
        except StoreError as error:
            self._pause(error)
        else:
            self._tries_again = False
            if self._look_for_model_at is None:
                self._trouble = None

    def _pause(self, error: ImagedbError) -> None:
        """Something failed that may pass, and nothing is lost: say so, and try again in a while."""
        log.error("indexing pauses for %.0f s: %s", PAUSE_S, error.message)
        self._again.clear()
        self._trouble = error.message
        self._tries_again = False
        if not self._closing.is_set():
            self._again.wait(PAUSE_S)

    def _step(self) -> None:
        line = self._line
        if not self._errands:
            self._take()
        elif line.empty():
            self._promise_upkeep(sum(self._ledger.counts().values()))
            self._errands.do_next()
            return
        self._look_at_taken()
        self._begin_jobs()
        futures: list[Future[Any]] = [*line.decoding, *line.embedding]
        if futures:
            wait(futures, GLANCE_S, FIRST_COMPLETED)
        self._collect_decoded()
        self._collect_embedded()
        self._embed()
        if self._commit_is_due():
            self._commit()

    def _take(self) -> None:
        idle = self._line.empty()
        line = self._line
        room = TAKEN - len(line.taken) - len(line.found) - len(line.jobs) - len(line.suspects)
        patience = self._patience() if idle else 0
        self.pulse.promise(patience + STEP_S)
        changes = self._queue.take(room, timeout=patience) if room > 0 else []
        self.pulse.promise(STEP_S)
        self._line.taken.extend(changes)
        self._untidy = self._untidy or bool(changes)
        if idle and not changes and not self._errands and not self._closing.is_set():
            self._do_chores()

    def _patience(self) -> float:
        # The first quiet moment after work is for tidying up; then only changes and the clock wake us.
        patience = TIDY_AFTER_S if self._untidy else CHORES_S
        if self._look_for_model_at is not None:
            patience = min(patience, max(0.0, self._look_for_model_at - time.monotonic()))
        return patience

    def _do_chores(self) -> None:
        if self._look_for_model_at is not None and time.monotonic() >= self._look_for_model_at:
            self._look_for_model_at = None
            self.take_up_waiting()
            return
        self._untidy = False
        try:
            self._tell_once()
            self._ledger.expire_kept(time.time())
            self._promise_upkeep(self._store.count())
            self._store.maintain(idle=True)
        except StoreError as error:
            log.warning("tidying up failed and is tried again later: %s", error.message)

    def _promise_upkeep(self, pictures: int) -> None:
        self.pulse.promise(STEP_S + UPKEEP_ROW_S * pictures)

    def _tell_once(self) -> None:
        """One line when the index has first caught up; an idle daemon logs nothing."""
        if self._told:
            return
        self._told = True
        counts = self._ledger.counts()
        log.info(
            "up to date: %d pictures indexed, %d waiting for the model, %d failed",
            counts[PictureState.INDEXED],
            counts[PictureState.WAITING],
            counts[PictureState.FAILED],
        )

    # From paths to jobs.

    def _look_at_taken(self) -> None:
        line = self._line
        self._spelling = Spelling()
        while line.taken:
            job = self._look_at(line.taken[0])
            line.taken.popleft()
            if job is not None:
                line.found.append(job)
        self._leave_what_is_offline()

    def _leave_what_is_offline(self) -> None:
        """Take up what was found, but nothing that lies in the place of a root or disk that is away.

        This is asked after the files were looked at: what another disk had shown is not read after it has
        gone, for its signature is no more that of the file.
        """
        line = self._line
        if not line.found or (line.jobs and len(line.found) < ASKED_TOGETHER):
            return
        offline = self._offline_places([job.change.path for job in line.found])
        for place in offline:
            self._request_scan(place)  # the scanner comes again until it is back
        while line.found:
            job = line.found[0]
            if any(is_within(job.change.path, place) for place in offline):
                self._queue.done(job.change)
            else:
                (line.suspects if job.attempts else line.jobs).append(job)
            line.found.popleft()

    def _look_at(self, change: FileChange) -> _Job | None:
        """What is to be done about a path, by what ``lstat`` says of it now."""
        if is_sidecar(change.path):
            self._look_at_pictures_of(change)
            return None
        entry = self._ledger.get(change.path)
        try:
            stat = _lstat(change.path)
            is_eligible = stat is not None and self._is_eligible(change.path, stat)
            is_done = entry is not None and stat is not None and self._is_done(entry, Signature.of(stat))
        except OSError as error:
            # Not being allowed to look proves nothing: what is known of it stays.
            log.warning(
                "%s cannot be looked at: %s", change.path, error.strerror, extra={"path": change.path}
            )
            self._queue.done(change)
            # A scan knows to come again, and finds what is changed by then.
            self._request_scan(os.path.dirname(change.path))
            return None
        if stat is None or not is_eligible:
            self._forget_troubles(change.path)
            if stat is not None and stat_module.S_ISDIR(stat.st_mode):
                self._request_scan(change.path)
            if entry is None:
                self._queue.done(change)
            else:
                self._line.gone.append((time.monotonic(), change))
            return None
        signature = Signature.of(stat)
        if is_done:
            self._forget_troubles(change.path)
            self._queue.done(change)
            return None
        if entry is not None and stat.st_nlink > 1:
            self._look_at_other_names(entry)
        return _Job(change, signature, self._generation, _tries_so_far(entry, signature))

    def _look_at_pictures_of(self, sidecar: FileChange) -> None:
        """A sidecar came, went or changed: its pictures say something else of themselves now.

        One that the ledger does not know yet will be read with its sidecars anyhow.
        """
        for entry in self._ledger.of_sidecar(sidecar.path):
            self._queue.put(entry.path, settled=entry.path not in self._queue)
        self._queue.done(sidecar)

    def _is_eligible(self, path: str, stat: os.stat_result) -> bool:
        """:raises OSError: that cannot be told."""
        folder = os.path.dirname(path)
        root = self.rules.root_of(path)
        verdict = self.rules.verdict(path, stat=stat)
        if verdict.unsure:
            raise OSError(errno.EAGAIN, f"it {verdict.reason}")
        return (
            root is not None
            and verdict.ok
            and os.path.realpath(folder) == folder
            and self._spelling.is_exact(path, root)
        )

    def _look_at_other_names(self, entry: LedgerEntry) -> None:
        """A file was written to under one of its names, which is not heard of under the others."""
        for other in self._ledger.by_hash(entry.content_hash) if entry.content_hash else ():
            if other.signature.inode == entry.signature.inode and other.path != entry.path:
                self._queue.put(other.path)

    def _is_done(self, entry: LedgerEntry, signature: Signature) -> bool:
        """:raises OSError: what lies beside the file cannot be told."""
        return entry.signature == signature and self._is_settled(entry) and has_its_sidecars(entry)

    def _is_settled(self, entry: LedgerEntry) -> bool:
        if entry.state is PictureState.WAITING:
            return self._embedder.status().state is ModelState.UNAVAILABLE
        return entry.state in {PictureState.INDEXED, PictureState.FAILED}

    def _is_gone(self, path: str) -> bool:
        """Whether a path still has no place in the index, now that it is about to be forgotten."""
        try:
            stat = _lstat(path)
            return stat is None or not self._is_eligible(path, stat)
        except OSError:
            return False

    # From jobs to pictures.

    def _begin_jobs(self) -> None:
        line = self._line
        source = line.jobs
        batch = [line.jobs[i] for i in range(min(self._room(), len(line.jobs)))]
        if not batch and line.suspects and self._room() > 0 and not self._suspects_in_work():
            source, batch = line.suspects, [line.suspects[0]]
        if not batch and not self._read_well:
            return
        known = [self._probable(job.signature.size) for job in batch]
        files = [(job.change.path, job.signature) for job in batch]
        attempts = self._ledger.begin(files, released=self._read_well)
        self._read_well.clear()
        for job, hashes in zip(batch, known, strict=True):
            source.popleft()
            counted = replace(job, attempts=attempts[job.change.path], known=hashes)
            if counted.attempts > MAX_ATTEMPTS:
                line.add_failure(replace(counted, attempts=MAX_ATTEMPTS), _FATAL)
            else:
                self._decode(counted)

    def _suspects_in_work(self) -> bool:
        return any(job.attempts > 1 for job in self._line.decoding.values())

    def _room(self) -> int:
        """How many files may be begun: enough to keep every stage busy, and no pixels without bound."""
        waiting_for_model = len(self._line.decoded) - 2 * self._embedder.batch_size
        return 0 if waiting_for_model > 0 else 2 * self._decoder.capacity - len(self._line.decoding)

    def _probable(self, size: int) -> frozenset[str]:
        hashes = self._ledger.hashes_of_size(size)
        return hashes if len(hashes) <= PROBABLE_HASHES else frozenset()

    def _decode(self, job: _Job) -> None:
        info = self._embedder.info
        preprocess = info.preprocess if info else None
        begun = replace(job, read_at=time.time())
        self._line.decoding[self._decoder.submit(job.change.path, job.known, preprocess)] = begun

    def _collect_decoded(self) -> None:
        for future in [future for future in self._line.decoding if future.done()]:
            job = self._line.decoding[future]
            if not self._has_died(job, future):
                self._read_well.append(job.change.path)
            del self._line.decoding[future]

    def _has_died(self, job: _Job, future: Future[Decoded]) -> bool:
        """Take a file on that was read; returns whether its decoder was lost to it instead."""
        try:
            decoded = future.result()
        except DecoderLostError as error:
            if job.attempts < MAX_ATTEMPTS:
                path = job.change.path
                log.warning("%s is tried once more: %s", path, error.message, extra={"path": path})
                self._line.suspects.append(job)
            else:
                self._line.add_failure(job, error.message)
            return True
        except PictureChangedError:
            # What was read is out of date, and what it is now is a change of its own: whoever waits for the
            # former must not wait for a file that never comes to rest.
            self._queue.done(job.change)
            self._queue.put(job.change.path)
        except PictureMissingError as error:
            self._look_again(job, error)
        except PictureUnreadError as error:
            self._leave_unread(job, error)
        except PictureError as error:
            self._forget_troubles(job.change.path)
            signature = self._sure_signature(job, job.signature)
            self._line.add_failure(replace(job, signature=signature), error.message)
        except ImagedbError as error:
            # No decoder could be run at all, which no file is to blame for.
            self._queue.again(job.change)
            self._pause(error)
        else:
            self._forget_troubles(job.change.path)
            if decoded.sidecar == UNSURE:
                self._queue.put(job.change.path)
            self._sort(job, replace(decoded, signature=self._sure_signature(job, decoded.signature)))
        return False

    def _look_again(self, job: _Job, error: PictureMissingError) -> None:
        """At a file that was there and could not be opened, until that is more than a moment's matter."""
        path = job.change.path
        signature, times = self._missed.get(path, (job.signature, 0))
        times = times + 1 if signature == job.signature else 1
        self._missed[path] = job.signature, times
        if times < MAX_MISSES:
            self._queue.again(job.change)
            return
        # Nothing of its own will tell when it can be opened: with a signature that no file has, scans try.
        never = replace(job, signature=replace(job.signature, ctime_ns=0))
        self._unread.discard(path)
        self._line.add_failure(never, f"It is there and cannot be opened: {error.message}")

    def _leave_unread(self, job: _Job, error: PictureUnreadError) -> None:
        """As it was: it stays pending, and a scan takes it up."""
        path = job.change.path
        self._missed.pop(path, None)
        if self._unread.add(path, error.message):
            log.warning("%s cannot be read: %s", path, error.message, extra={"path": path})
        self._queue.done(job.change)

    def _forget_troubles(self, path: str) -> None:
        self._missed.pop(path, None)
        self._unread.discard(path)

    def _sure_signature(self, job: _Job, signature: Signature) -> Signature:
        """The same; or one that no file has, and another look, if a write could hide in the tick of this."""
        if not signature.may_outlast_a_write(job.read_at):
            return signature
        self._queue.put(job.change.path)
        return replace(signature, ctime_ns=0)

    def _sort(self, job: _Job, decoded: Decoded) -> None:
        picture = _Picture(job, decoded)
        if decoded.pixels is not None:
            self._sort_pixels(picture)
        elif decoded.content_hash in job.known:
            self._line.add_finished(picture.finished(known=True))
        else:
            self._line.add_finished(picture.finished())

    def _sort_pixels(self, picture: _Picture) -> None:
        """To the model, unless a twin is there already or got its vector while this one was decoded."""
        line, content_hash = self._line, picture.decoded.content_hash
        if (followers := line.followers.get(content_hash)) is not None:
            followers.append(replace(picture, decoded=replace(picture.decoded, pixels=None)))
        elif (twin := self._uncommitted(content_hash)) is not None:
            line.add_finished(picture.finished(vector=twin.vector))
        elif not picture.job.must_embed and self._is_known(content_hash):
            line.add_finished(picture.finished(known=True))
        else:
            line.followers[content_hash] = []
            line.decoded.append(picture)

    def _uncommitted(self, content_hash: str) -> Finished | None:
        same = (item for item in self._line.work.finished if item.decoded.content_hash == content_hash)
        return next((item for item in same if item.vector is not None), None)

    def _is_known(self, content_hash: str) -> bool:
        held = {PictureState.INDEXED, PictureState.PENDING}
        if any(entry.state in held for entry in self._ledger.by_hash(content_hash)):
            return True
        info = self._embedder.info
        return info is not None and self._ledger.kept_vector(content_hash, info.key) is not None

    # From pictures to vectors.

    def _embed(self) -> None:
        while len(self._line.embedding) < BATCHES_IN_FLIGHT and (batch := self._next_batch()):
            pixels = [picture.decoded.pixels for picture in batch if picture.decoded.pixels is not None]
            self._line.embedding[self._embedder.embed_pictures(pixels)] = batch

    def _next_batch(self) -> list[_Picture]:
        line = self._line
        if line.halves:
            return line.halves.popleft()
        size = self._embedder.batch_size
        # An idle model takes what there is; behind a busy one, a batch has the time to fill up.
        if line.embedding and line.decoding and len(line.decoded) < size:
            return []
        return [line.decoded.popleft() for _ in range(min(size, len(line.decoded)))]

    def _collect_embedded(self) -> None:
        for future in [future for future in self._line.embedding if future.done()]:
            batch = self._line.embedding.pop(future)
            try:
                rows = future.result()
            except ModelUnavailableError:
                self._finish_without_vectors(batch)
            except ImagedbError as error:
                self._halve(batch, error)
            else:
                self._model_works()
                for picture, row in zip(batch, rows, strict=True):
                    self._accept(picture, row)

    def _accept(self, picture: _Picture, row: NDArray[np.float32]) -> None:
        if fault := self._fault_of(row):
            self._give_up(picture, f"The model gave no usable vector for this picture: {fault}.")
        else:
            self._finish(picture, row)

    def _fault_of(self, row: NDArray[np.float32]) -> str | None:
        info = self._embedder.info
        if info and row.shape != (info.dimension,):
            return f"it has the shape {row.shape} in place of {info.dimension} numbers"
        if not np.isfinite(row).all():
            return "some of its numbers are not finite"
        return None if row.any() else "it is zero"

    def _halve(self, batch: list[_Picture], error: ImagedbError) -> None:
        """One picture of a failed batch may be the cause: the others must not pay for it."""
        if self._closing.is_set():
            return
        if len(batch) > 1:
            log.warning("a batch of %d failed and is halved: %s", len(batch), error.message)
            middle = len(batch) // 2
            self._line.halves.extend((batch[:middle], batch[middle:]))
        elif self._model_fails_anyway(batch[0]):
            log.error("the model fails; pictures wait for it: %s", error.message)
            self._trouble = f"The model fails. {error.message}"
            self._look_for_model_at = time.monotonic() + MODEL_PAUSE_S
            self._finish_without_vectors(batch)
        else:
            self._give_up(batch[0], f"The model could not embed this picture. {error.message}")

    def _model_fails_anyway(self, picture: _Picture) -> bool:
        """Whether even a black picture fails: then a device is full or broken, and no file is to blame."""
        pixels = picture.decoded.pixels
        if pixels is None:
            return False
        black = self._embedder.embed_pictures([np.zeros_like(pixels)])
        while not black.done():
            if self._closing.is_set():
                return True
            self.pulse.promise(STEP_S)
            wait([black], GLANCE_S)
        return isinstance(black.exception(), (EmbedderError, ModelUnavailableError))

    def _model_works(self) -> None:
        if self._look_for_model_at is not None:
            self._look_for_model_at = None
            self.take_up_waiting()

    def _finish_without_vectors(self, batch: list[_Picture]) -> None:
        for picture in batch:
            self._finish(picture, None)

    def _finish(self, picture: _Picture, vector: NDArray[np.float32] | None) -> None:
        for member in (picture, *self._line.followers.pop(picture.decoded.content_hash, ())):
            self._line.add_finished(member.finished(vector=vector))

    def _give_up(self, picture: _Picture, reason: str) -> None:
        for member in (picture, *self._line.followers.pop(picture.decoded.content_hash, ())):
            self._line.add_failure(member.job, reason)

    # From finished work to the store.

    def _commit_is_due(self) -> bool:
        line, now = self._line, time.monotonic()
        if not line.reading():
            return bool(line.work or line.gone)
        return (
            len(line.work) >= COMMIT_ROWS
            or (bool(line.work) and now - line.work_since >= COMMIT_AFTER_S)
            or (bool(line.gone) and now - line.gone[0][0] >= GONE_AFTER_S)
        )

    def _commit(self) -> None:
        work = self._line.work
        # Whatever was seen when its changes were taken may be otherwise by now.
        self._spelling = Spelling()
        self._check_model(work)
        work.gone.extend(self._forgettable())
        try:
            self._write(work)
        except StoreError:
            self._refusals += 1
            if self._refusals < REFUSALS or len(work) < 2:
                raise
            self._commit_singly(work)
        else:
            self._line.work = Work()
        self._refusals = 0
        try:
            self._promise_upkeep(self._store.count())
            self._store.maintain()
        except StoreError as error:
            log.warning("compaction failed and is tried again later: %s", error.message)

    def _check_model(self, work: Work) -> None:
        """See each time that the store takes vectors of this model: many daemons may share one table.

        :raises StoreError: it has those of another, which no picture is to blame for.
        """
        info = self._embedder.info
        if info and any(item.vector is not None for item in work.finished):
            self._store.bind(info)

    def _forgettable(self) -> list[FileChange]:
        """Vanished files whose time is over: while files are read, one of them may be where they went."""
        until = time.monotonic() - (GONE_AFTER_S if self._line.reading() else 0.0)
        found = []
        while self._line.gone and self._line.gone[0][0] <= until:
            found.append(self._line.gone.popleft()[1])
        return found

    def _write(self, work: Work) -> None:
        unresolved = self._committer.commit(work)
        again = {item.change for item in unresolved}
        for change in work.changes():
            if change not in again:
                self._queue.done(change)
        for item in unresolved:
            self._decode(
                _Job(item.change, item.decoded.signature, self._generation, item.attempts, must_embed=True)
            )
        for item in work.finished:
            # The model came while this was on its way: too late to be embedded, too early to be waiting.
            if item.lacks_vector and item.generation != self._generation:
                self._queue.put(item.change.path, settled=True)
        self._progress.append((time.monotonic(), len(work.finished) - len(unresolved)))

    def _commit_singly(self, work: Work) -> None:
        """Find what the store refuses. Where it refuses everything, it is the store that is at fault.

        :raises StoreError: nothing could be written; the work is as it was.
        """
        units = list(work.units())
        refused: list[tuple[Work, StoreError]] = []
        for unit in units:
            try:
                self._write(unit)
            except StoreError as error:
                refused.append((unit, error))
        if len(refused) == len(units):
            raise refused[0][1]
        self._line.work = Work()
        for unit, refusal in refused:
            path = unit.changes()[0].path
            log.error("the store refuses %s: %s", path, refusal.message, extra={"path": path})
            self._line.work.failures += [_refused(item, refusal) for item in unit.finished]
            for change in (*(failure.change for failure in unit.failures), *unit.gone):
                self._queue.again(change)

    def _release_all(self) -> None:
        """A clean stop is no file's fault: those in hand have not been tried."""
        line = self._line
        in_hand = [*self._read_well, *(job.change.path for job in line.decoding.values())]
        try:
            self._ledger.begin((), released=in_hand)
        except StoreError as error:
            log.warning("attempts at %d files stay counted: %s", len(in_hand), error.message)


_FATAL: Final = "The daemon died twice while it was reading this file."


def _tries_so_far(entry: LedgerEntry | None, signature: Signature) -> int:
    """How often this version of a file was opened without coming to an end, as the ledger counts."""
    if entry is None or entry.state is not PictureState.PENDING or entry.signature != signature:
        return 0
    return entry.attempts


def _lstat(path: str) -> os.stat_result | None:
    """``None`` if there is no such file, also where links on the way go round in circles.

    :raises OSError: if that cannot be told (no permission, a device that does not answer).
    """
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _refused(item: Finished, error: StoreError) -> Failure:
    reason = f"The store refuses this picture's record. {error.message}"
    return Failure(item.change, item.decoded.signature, reason, item.attempts)
