"""The writer: takes changes through decode, embed and commit, and is the only one that does.

One thread drives it all. Files are decoded in worker processes and embedded in another while this thread
commits, so no stage waits for the next one as long as there is work::

    queue ─► begin ─► decoding ─► decoded ─► embedding ─► done ─► commit
                         │ known content, failures, vanished files ▲
                         └──────────────────────────────────────────┘
"""

from __future__ import annotations

import logging
import os
import stat as stat_module
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imagedbd.commits import Committer, Failure, Finished, Work
from imagedbd.datatypes import Decoded, FileChange, ModelState, PictureState, Signature
from imagedbd.errors import (
    EmbedderError,
    ImagedbError,
    ModelUnavailableError,
    PictureChangedError,
    PictureError,
    PictureMissingError,
    StoreError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagedbd.change_queue import ChangeQueue
    from imagedbd.datatypes import Embedder, LedgerEntry, Store
    from imagedbd.decoder import Decoder
    from imagedbd.ledger import Ledger
    from imagedbd.rules import Rules

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 2
"""How often a file is tried that takes its decoder, or the daemon, down with it."""
BATCHES_IN_FLIGHT: Final = 2
"""One that the model works on, and one that lies ready when it is done."""
COMMIT_ROWS: Final = 64
COMMIT_AFTER_S: Final = 0.5
"""A finished picture is searchable after this time even if the batch has not filled up."""
GONE_AFTER_S: Final = 2.0
"""How long a vanished file waits for turning up elsewhere among the files that are being read."""
GLANCE_S: Final = 0.25
"""How often new changes are looked for while others are being worked on."""
CHORES_S: Final = 3600.0
RETRY_STORE_S: Final = 5.0
RATE_WINDOW_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One file in work.

    :param known: content hashes at which the decoder stops.
    :param must_embed: what seems known is not: its vector was looked for, and nobody has it.
    """

    change: FileChange
    signature: Signature
    attempts: int
    model_generation: int
    known: frozenset[str] = frozenset()
    must_embed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A decoded picture on its way through the model."""

    job: _Job
    decoded: Decoded


class Indexer:
    """Keeps the store equal to the folders, one change at a time.

    :param request_scan: called with a folder that took the place of a file.
    :param may_forget: whether a vanished path may be forgotten now.
    :param on_crash: called, in the indexer's thread, when it has met a bug and stopped.
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
        request_scan: Callable[[str], object],
        on_crash: Callable[[], object],
    ) -> None:
        self.rules = rules
        self._queue = queue
        self._ledger = ledger
        self._store = store
        self._decoder = decoder
        self._embedder = embedder
        self._request_scan = request_scan
        self._on_crash = on_crash
        self._committer = Committer(store, ledger, may_forget)
        self._decoding: dict[Future[Decoded], _Job] = {}
        self._decoded: deque[_Picture] = deque()
        self._embedding: dict[Future[NDArray[np.float32]], list[_Picture]] = {}
        self._halves: deque[list[_Picture]] = deque()
        self._followers: dict[str, list[_Picture]] = {}
        self._work = Work()
        self._work_since = 0.0
        self._gone: deque[tuple[float, FileChange]] = deque()
        self._model_generation = 0
        self._worked = False
        self._progress: deque[tuple[float, int]] = deque(maxlen=1000)
        self._trouble: str | None = None
        self._first_load: Future[NDArray[np.float32]] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for_model(self, first_load: Future[NDArray[np.float32]]) -> None:
        """Begin only when this load has ended, well or not: no picture is then decoded for nothing."""
        self._first_load = first_load

    def close(self) -> None:
        """Stop after the step in hand; what was in flight is taken up again at the next start."""
        self._closing.set()
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def trouble(self) -> str | None:
        """Why nothing is being written at the moment, if that is so."""
        return self._trouble

    def rate(self) -> float | None:
        """Pictures a second over the last half minute; ``None`` when idle."""
        since = time.monotonic() - RATE_WINDOW_S
        recent = [(moment, count) for moment, count in tuple(self._progress) if moment >= since]
        if len(recent) < 2:
            return None
        span = time.monotonic() - recent[0][0]
        return sum(count for _, count in recent[1:]) / span if span > 0 else None

    def model_became_ready(self) -> None:
        """Take up the pictures that were stored without a vector."""
        self._model_generation += 1
        for entry in self._ledger.by_state(PictureState.WAITING):
            self._queue.put(entry.path, settled=True)

    def _run(self) -> None:
        try:
            while self._first_load and not self._first_load.done() and not self._closing.is_set():
                wait([self._first_load], GLANCE_S)
            while not self._closing.is_set():
                self._step()
        # A bug must stop the daemon loudly: a writer that is gone while the rest lives on would drift.
        except Exception:
            log.exception("the indexer met a bug and stops the daemon")
            self._on_crash()

    def _step(self) -> None:
        busy = self._in_flight() or bool(self._work or self._gone)
        if (room := self._room()) > 0:
            self._begin(self._queue.take(room, timeout=0 if busy else self._idle_timeout()))
        if self._decoding or self._embedding:
            futures: list[Future[Any]] = [*self._decoding, *self._embedding]
            wait(futures, GLANCE_S, FIRST_COMPLETED)
        self._collect_decoded()
        self._collect_embedded()
        self._embed()
        if self._commit_is_due():
            self._commit()
        elif not busy:
            self._do_chores()

    def _in_flight(self) -> bool:
        return bool(self._decoding or self._decoded or self._embedding or self._halves)

    def _room(self) -> int:
        """How many files may be begun: enough to keep every stage busy, and no pixels without bound."""
        waiting_for_model = len(self._decoded) - 2 * self._embedder.batch_size
        return 0 if waiting_for_model > 0 else 2 * self._decoder.capacity - len(self._decoding)

    def _idle_timeout(self) -> float:
        # The first quiet moment after work is for tidying up; then only changes and the clock wake us.
        return 1.0 if self._worked else CHORES_S

    def _do_chores(self) -> None:
        self._ledger.expire_kept(time.time())
        self._store.maintain(idle=True)
        self._worked = False

    def _begin(self, changes: Sequence[FileChange]) -> None:
        jobs = [job for change in changes if (job := self._look_at(change))]
        if not jobs:
            return
        attempts = self._ledger.begin((job.change.path, job.signature) for job in jobs)
        for job in jobs:
            counted = replace(job, attempts=attempts[job.change.path])
            if counted.attempts > MAX_ATTEMPTS:
                self._fail(counted, "The daemon died twice while it was reading this file.")
            else:
                self._decode(replace(counted, known=self._ledger.hashes_of_size(job.signature.size)))

    def _look_at(self, change: FileChange) -> _Job | None:
        """What is to be done about a path, by what ``lstat`` says of it now."""
        self._worked = True
        entry = self._ledger.get(change.path)
        try:
            stat = os.lstat(change.path)
        except OSError:
            stat = None
        if stat is None or not self.rules.verdict(change.path, stat=stat).ok:
            if stat is not None and stat_module.S_ISDIR(stat.st_mode):
                self._request_scan(change.path)
            if entry is None:
                self._queue.done(change)
            else:
                self._gone.append((time.monotonic(), change))
            return None
        signature = Signature.of(stat)
        if entry and entry.signature == signature and self._is_settled(entry):
            self._queue.done(change)
            return None
        return _Job(change, signature, 1, self._model_generation)

    def _is_settled(self, entry: LedgerEntry) -> bool:
        if entry.state is PictureState.WAITING:
            return self._embedder.status().state is ModelState.UNAVAILABLE
        return entry.state in {PictureState.INDEXED, PictureState.FAILED}

    def _decode(self, job: _Job) -> None:
        info = self._embedder.info
        preprocess = info.preprocess if info else None
        self._decoding[self._decoder.submit(job.change.path, job.known, preprocess)] = job

    def _collect_decoded(self) -> None:
        for future in [future for future in self._decoding if future.done()]:
            job = self._decoding.pop(future)
            try:
                decoded = future.result()
            except (PictureChangedError, PictureMissingError):
                self._again(job.change)
            except PictureError as error:
                self._fail(job, error.message)
            except ImagedbError as error:
                log.warning("%s could not be decoded and is tried again: %s", job.change.path, error.message)
                self._again(job.change)
            else:
                self._sort(job, decoded)

    def _sort(self, job: _Job, decoded: Decoded) -> None:
        if decoded.pixels is not None:
            self._sort_pixels(_Picture(job, decoded))
        elif decoded.content_hash in job.known:
            self._add_finished(Finished(job.change, decoded, attempts=job.attempts, known=True))
        elif job.model_generation != self._model_generation:
            self._again(job.change, settled=True)
        else:
            self._add_finished(Finished(job.change, decoded, attempts=job.attempts))

    def _sort_pixels(self, picture: _Picture) -> None:
        """To the model, unless a twin is there already or got its vector while this one was decoded."""
        job, content_hash = picture.job, picture.decoded.content_hash
        if (followers := self._followers.get(content_hash)) is not None:
            followers.append(picture)
        elif (twin := self._uncommitted(content_hash)) is not None:
            self._add_finished(Finished(job.change, picture.decoded, twin.vector, job.attempts))
        elif not job.must_embed and self._is_known(content_hash):
            decoded = replace(picture.decoded, pixels=None)
            self._add_finished(Finished(job.change, decoded, attempts=job.attempts, known=True))
        else:
            self._followers[content_hash] = []
            self._decoded.append(picture)

    def _uncommitted(self, content_hash: str) -> Finished | None:
        same = (item for item in self._work.finished if item.decoded.content_hash == content_hash)
        return next((item for item in same if item.vector is not None), None)

    def _is_known(self, content_hash: str) -> bool:
        held = {PictureState.INDEXED, PictureState.PENDING}
        if any(entry.state in held for entry in self._ledger.by_hash(content_hash)):
            return True
        info = self._embedder.info
        return info is not None and self._ledger.kept_vector(content_hash, info.key) is not None

    def _embed(self) -> None:
        while len(self._embedding) < BATCHES_IN_FLIGHT and (batch := self._next_batch()):
            pixels = [picture.decoded.pixels for picture in batch if picture.decoded.pixels is not None]
            self._embedding[self._embedder.embed_pictures(pixels)] = batch

    def _next_batch(self) -> list[_Picture]:
        if self._halves:
            return self._halves.popleft()
        size = self._embedder.batch_size
        # An idle model takes what there is; behind a busy one, a batch has the time to fill up.
        if self._embedding and self._decoding and len(self._decoded) < size:
            return []
        return [self._decoded.popleft() for _ in range(min(size, len(self._decoded)))]

    def _collect_embedded(self) -> None:
        for future in [future for future in self._embedding if future.done()]:
            batch = self._embedding.pop(future)
            try:
                rows = future.result()
            except ModelUnavailableError:
                for picture in batch:
                    self._finish(picture, None)
            except EmbedderError as error:
                self._halve(batch, error)
            else:
                for picture, row in zip(batch, rows, strict=True):
                    self._accept(picture, row)

    def _accept(self, picture: _Picture, row: NDArray[np.float32]) -> None:
        if np.isfinite(row).all():
            self._finish(picture, row)
        else:
            self._give_up(picture, "The model gave no finite vector for this picture.")

    def _halve(self, batch: list[_Picture], error: EmbedderError) -> None:
        """One picture of a failed batch may be the cause: the others must not pay for it."""
        if self._closing.is_set():
            return
        if len(batch) == 1:
            self._give_up(batch[0], f"The model could not embed this picture. {error.message}")
            return
        log.warning("a batch of %d failed and is halved: %s", len(batch), error.message)
        middle = len(batch) // 2
        self._halves.extend((batch[:middle], batch[middle:]))

    def _finish(self, picture: _Picture, vector: NDArray[np.float32] | None) -> None:
        for member in (picture, *self._followers.pop(picture.decoded.content_hash, ())):
            # The pixels have served; keeping them until the commit would cost memory.
            decoded = replace(member.decoded, pixels=None)
            self._add_finished(Finished(member.job.change, decoded, vector, member.job.attempts))

    def _give_up(self, picture: _Picture, reason: str) -> None:
        for member in (picture, *self._followers.pop(picture.decoded.content_hash, ())):
            self._fail(member.job, reason)

    def _fail(self, job: _Job, reason: str) -> None:
        self._stamp()
        self._work.failures.append(Failure(job.change, job.signature, reason, job.attempts))

    def _add_finished(self, finished: Finished) -> None:
        self._stamp()
        self._work.finished.append(finished)

    def _stamp(self) -> None:
        if not self._work:
            self._work_since = time.monotonic()

    def _again(self, change: FileChange, *, settled: bool = False) -> None:
        self._queue.put(change.path, settled=settled)
        self._queue.done(change)

    def _commit_is_due(self) -> bool:
        if not self._in_flight():
            return bool(self._work or self._gone)
        now = time.monotonic()
        return (
            len(self._work) >= COMMIT_ROWS
            or (bool(self._work) and now - self._work_since >= COMMIT_AFTER_S)
            or (bool(self._gone) and now - self._gone[0][0] >= GONE_AFTER_S)
        )

    def _commit(self) -> None:
        work = self._work
        work.gone.extend(self._forgettable())
        unresolved = self._write(work)
        if unresolved is None:
            return
        self._work = Work()
        for item in unresolved:
            generation = self._model_generation
            signature = item.decoded.signature
            self._decode(_Job(item.change, signature, item.attempts, generation, must_embed=True))
        again = {item.change for item in unresolved}
        for change in work.changes():
            if change not in again:
                self._queue.done(change)
        self._progress.append((time.monotonic(), len(work.finished) - len(unresolved)))
        self._store.maintain()

    def _forgettable(self) -> list[FileChange]:
        """Vanished files whose time is over: while files are read, one of them may be where they went."""
        until = time.monotonic() - (GONE_AFTER_S if self._in_flight() else 0.0)
        found = []
        while self._gone and self._gone[0][0] <= until:
            found.append(self._gone.popleft()[1])
        return found

    def _write(self, work: Work) -> list[Finished] | None:
        """Commit, or say why not and try again in a while: a full disk passes, and loses nothing."""
        try:
            self._bind_model(work)
            unresolved = self._committer.commit(work)
        except StoreError as error:
            log.error("nothing can be written, trying again in %.0f s: %s", RETRY_STORE_S, error.message)
            self._trouble = error.message
            self._closing.wait(RETRY_STORE_S)
            return None
        self._trouble = None
        return unresolved

    def _bind_model(self, work: Work) -> None:
        info = self._embedder.info
        if self._store.model is None and info and any(f.vector is not None for f in work.finished):
            self._store.bind(info)
