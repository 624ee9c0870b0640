"""One switch on its way: from a generation that was asked for to the moment at which it answers.

The steps and what a crash between them leaves::

    record next ─► open, bind ─► fill ─► follow … ─► (the writer waits) finish ─► ledger ─► swap ─► drop
                        resumed at the next start: nothing is done twice            │        │
                  pictures that lack a new vector wait for one, and are embedded ◄──┘        │
                  the next one is active, the former one previous ◄──────────────────────────┘
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd.datatypes import PictureState
from imagedbd.errors import (
    DaemonStoppingError,
    ImagedbError,
    ModelUnavailableError,
    PausedError,
    StoreError,
    StoreUnreadableError,
)
from imagedbd.generations import Course, Generation
from imagedbd.reembedder import Reembedder
from imagedbd.successor import Progress, Successor, delete_own_rows

if TYPE_CHECKING:
    from imagedbd.datatypes import LedgerEntry, ModelInfo, Store
    from imagedbd.decoder import Decoder
    from imagedbd.embedder import EmbedderProcess
    from imagedbd.engine import Engine, EngineRoom
    from imagedbd.generations import GenerationsFile
    from imagedbd.indexer import Indexer
    from imagedbd.ledger import Ledger

log = logging.getLogger(__name__)

FEW: Final = 32
"""Rows that may be left when the writer is asked to wait: without a vector, they are embedded afterwards."""
PAUSE_S: Final = 30.0
"""How long to wait after something failed that may pass: a full disk, a model that cannot be had."""
MODEL_PAUSE_S: Final = 300.0
"""The same for a model: to look for it takes seconds of work."""
LOOK_S: Final = 0.2
FOLLOW_S: Final = 1.0
"""A busy writer is followed in steps of this length."""
LEDGER_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a switch works with.

    :param gate: held to change which generation is which; whoever waits for a switch to end holds it too.
    :param open_store: opens the store of a generation.
    :param open_embedder: for a spec, and the identity that its model must have.
    :param new_engine: joins a store and an embedder.
    :param check_pause: raises :class:`PausedError` while nothing is to be worked on.
    """

    file: GenerationsFile
    room: EngineRoom
    indexer: Indexer
    ledger: Ledger
    decoder: Decoder
    gate: threading.Lock
    open_store: Callable[[Generation], Store]
    open_embedder: Callable[[str, ModelInfo | None], EmbedderProcess]
    new_engine: Callable[[Store, EmbedderProcess], Engine]
    check_pause: Callable[[], None] = lambda: None


class Switch:
    """A thread that makes one generation the active one, however often it has to try.

    :param target: without a place where a new store is to be made.
    """

    def __init__(self, shop: Workshop, target: Generation, course: Course) -> None:
        self.target = target
        self.course = course
        self.trouble: str | None = None
        """What keeps it from going on at the moment, if something does."""
        self.swapped = False
        self.failed = False
        """Whether it met a bug and has ended: the trouble says which."""
        self._shop = shop
        self._store: Store | None = None
        self._embedder: EmbedderProcess | None = None
        self._successor: Successor | None = None
        self._state = "preparing"
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, wherever it is; what was built stays as it is."""
        self._stopping.set()
        self._wake.set()
        # What is waited for (a model that loads, a batch in it) fails at once when its embedder is closed.
        self._close()
        if self._thread.is_alive():
            self._thread.join()
            self._close()

    def retry(self) -> None:
        """Try again now what failed."""
        self._wake.set()

    @property
    def embeds_total(self) -> int:
        """Pictures put through the new model before it became the active engine's."""
        return self._embedder.embeds_total if self._embedder and not self.swapped else 0

    def status(self) -> dict[str, Any]:
        successor = self._successor
        progress = successor.progress() if successor else Progress(0, 0, None)
        left = progress.seconds_left
        return {
            "store": self.target.kind,
            "model": self.target.model,
            "course": self.course,
            "state": "failed" if self.failed else "paused" if self.trouble else self._state,
            "reason": self.trouble,
            "done": progress.done,
            "total": progress.total,
            "rate": None if progress.rate is None else round(progress.rate, 2),
            "eta_s": None if left is None else round(left),
        }

    # Before anything is built.

    def prepare(self) -> None:
        """Have the model loaded and the store open.

        :raises ModelUnavailableError: the model cannot be had.
        :raises ImagedbError: the store cannot be opened.
        """
        answering = self._shop.room.current.store.model
        match self.course:
            case Course.COPY:
                self._store = self._store or self._open_to_fill(answering)
            case Course.EMBED:
                info = self._load(self.target.model or "", None)
                self._store = self._store or self._open_to_fill(info)
                self._store.bind(info)
            case Course.RETURN:
                self._store = self._store or self._open()
                bound = self._store.model
                if not _are_alike(bound, answering):
                    info = self._load(bound.spec if bound else self.target.model or "", bound)
                    # One that has no vectors yet must not take those of the model that answers.
                    self._store.bind(info)

    def _load(self, spec: str, expected: ModelInfo | None) -> ModelInfo:
        if self._embedder is None:
            self._embedder = self._shop.open_embedder(spec, expected)
        if self._stopping.is_set():
            raise DaemonStoppingError("It was asked to stop.")
        try:
            self._embedder.load().result()
        except ModelUnavailableError as error:
            status = self._embedder.status()
            why = (status.reason or error.message).rstrip(".")
            ways = f" What helps: {status.help[0]}." if status.help else ""
            raise ModelUnavailableError(f"{why}.{ways}") from error
        if self._embedder.info is None:
            raise ModelUnavailableError(f"{spec} was loaded and does not say what it is.")
        return self._embedder.info

    def _open(self) -> Store:
        """The store of the target, in a new folder if it has none yet."""
        if not self.target.place:
            self.target = replace(self.target, place=self._shop.file.free_place(self.target.kind))
        return self._shop.open_store(self.target)

    def _open_to_fill(self, info: ModelInfo | None) -> Store:
        """The same, but what cannot be read or has vectors of other weights is left for a new folder."""
        try:
            store = self._open()
        except StoreUnreadableError as error:
            if self.target.is_remote:
                raise
            log.warning("the store that was being built is begun anew: %s", error.message)
        else:
            if store.model is None or _are_alike(store.model, info):
                return store
            store.close()
            if self.target.is_remote:
                raise StoreError(
                    f"{self.target.place} holds vectors of {store.model.spec}, and the pictures here are of "
                    f"another model. `imagedb model use {store.model.spec}` first."
                )
        self.target = replace(self.target, place="")
        return self._open()

    @property
    def is_recorded(self) -> bool:
        current = self._shop.file.current
        return (current.next, current.course) == (self.target, self.course)

    def record(self) -> None:
        """Write down that this is being built, so that it goes on after a crash; the gate is held.

        :raises StoreError: that could not be written.
        """
        if not self.is_recorded:
            self._shop.file.write(self._shop.file.current.building(self.target, self.course))

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and not self.swapped:
                self._guarded_try()
        # The old generation goes on answering whatever happens here, so the daemon does as well.
        except Exception as error:
            log.exception("a switch met a bug and is given up until the next start")
            self.trouble = (
                f"It met a bug and is given up until the next start: {type(error).__name__}: {error}."
            )
            self.failed = True
        finally:
            self._shop.indexer.listen(None)
            self._close()

    def _guarded_try(self) -> None:
        try:
            self._try()
        except DaemonStoppingError:
            self._stopping.set()
        except PausedError as error:
            self.trouble = error.message
            self._wait(PAUSE_S)
        except ImagedbError as error:
            if not self._stopping.is_set():
                pause = MODEL_PAUSE_S if isinstance(error, ModelUnavailableError) else PAUSE_S
                log.error("the switch pauses for %.0f s: %s", pause, error.message)
                self.trouble = error.message
                self._wait(pause)

    def _wait(self, seconds: float) -> None:
        """Until it is time to try again, or somebody asks for it."""
        if not self._stopping.is_set():
            self._wake.wait(seconds)
            self._wake.clear()

    def _try(self) -> None:
        self._shop.check_pause()
        if self._successor is None:
            self._successor = self._begin()
        self._state, self.trouble = "building", None
        self._successor.fill()
        while self._successor.touched > FEW and not self._stopping.wait(FOLLOW_S):
            self._successor.follow()
        self._state = "finishing"
        if self._holds_gate():
            try:
                self._swap(self._successor)
            finally:
                self._shop.gate.release()

    def _begin(self) -> Successor:
        self.prepare()
        if not self.is_recorded:
            if not self._holds_gate():
                raise DaemonStoppingError("It was asked to stop.")
            try:
                self.record()
            finally:
                self._shop.gate.release()
        if self._store is None:
            raise StoreError("The next store is not open.")
        reembedder = None
        if self.course is Course.EMBED and self._embedder is not None:
            reembedder = Reembedder(self._shop.decoder, self._embedder, self._stopping)
        active = self._shop.room.current.store
        successor = Successor(
            active,
            self._store,
            self._shop.ledger,
            reembedder,
            self._stopping,
            check_pause=self._shop.check_pause,
        )
        self._shop.indexer.listen(successor.note)
        return successor

    def _holds_gate(self) -> bool:
        """Take the gate, unless the one who has it ends this switch."""
        while not self._stopping.is_set():
            if self._shop.gate.acquire(timeout=LOOK_S):
                if not self._stopping.is_set():
                    return True
                self._shop.gate.release()
        return False

    # The swap.

    def _swap(self, successor: Successor) -> None:
        shop = self._shop
        former, kept_before = shop.room.current, shop.file.current.previous
        shop.indexer.have_done(lambda: self._take_over(successor), is_over=self._stopping.is_set)
        shop.room.retire(former)
        shop.file.delete_dropped()
        if kept_before is not None:
            leave(shop, kept_before)

    def _take_over(self, successor: Successor) -> None:
        """In the writer's thread, with nothing in hand: from one engine to the next.

        :raises StoreError: the old one is still the active one, in memory and on the disk.
        """
        if self._store is None or not successor.finish():
            raise StoreError("The new store lacks pictures of the old one; they are compared again.")
        shop, former = self._shop, self._shop.room.current
        engine = shop.new_engine(self._store, self._embedder or former.embedder)
        bare = successor.bare()
        waiting = [entry for record in bare if (entry := self._indexed(record.path, record.id))]
        bound = former.store.model
        # The ledger first: if the power goes now, these few are embedded once more, and none is left out.
        self._put(waiting, PictureState.WAITING)
        try:
            shop.file.write(shop.file.current.swapped(bound.spec if bound else former.embedder.status().name))
        except StoreError:
            self._put(waiting, PictureState.INDEXED)
            raise
        self._tell_complete({record.id for record in bare})
        # Queued before this is over: who waits for its end then waits for these as well.
        shop.indexer.take_up_waiting()
        shop.room.exchange(engine)
        self.swapped = True
        shop.indexer.use(engine.store, engine.embedder)
        model = engine.embedder.status().name
        log.info("%s with %s answers now; %d pictures wait for it", self.target.kind, model, len(bare))

    def _indexed(self, path: str, key: str) -> LedgerEntry | None:
        entry = self._shop.ledger.get(path)
        is_it = entry is not None and entry.id == key and entry.state is PictureState.INDEXED
        return entry if is_it else None

    def _tell_complete(self, bare: set[str]) -> None:
        """Pictures that waited for a vector and have one in this store wait no longer."""
        try:
            entries = self._shop.ledger.by_state(PictureState.WAITING)
            complete = [entry for entry in entries if entry.id and entry.id not in bare]
            self._put(complete, PictureState.INDEXED)
        except StoreError as error:
            log.warning("some pictures will be embedded once more: %s", error.message)

    def _put(self, entries: list[LedgerEntry], state: PictureState) -> None:
        for start in range(0, len(entries), LEDGER_ROWS):
            some = entries[start : start + LEDGER_ROWS]
            self._shop.ledger.put([replace(entry, state=state) for entry in some])

    def _close(self) -> None:
        """Close what did not become the engine's."""
        if self.swapped:
            return
        if self._embedder is not None:
            self._embedder.close()
        if self._store is not None:
            self._store.close()


def leave(shop: Workshop, gone: Generation) -> None:
    """Take the rows of this daemon out of a remote table that nothing goes back to any more."""
    current = shop.file.current
    kept = {g.place for g in (current.active, current.previous) if g}
    if not gone.is_remote or gone.place in kept:
        return
    try:
        with contextlib.closing(shop.open_store(gone)) as store:
            delete_own_rows(store)
    except ImagedbError as error:
        log.warning("the rows of this daemon stay in %s: %s", gone.place, error.message)


def _are_alike(one: ModelInfo | None, other: ModelInfo | None) -> bool:
    return one is not None and other is not None and one.key == other.key
