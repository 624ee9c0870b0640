"""The open index: every room built and joined, and the operations that the daemon offers.

Building a :class:`Library` is the one place where rooms meet each other; closing goes in reverse order.
"""

from __future__ import annotations

import base64
import logging
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd import __version__
from imagedbd.backups import Source
from imagedbd.brakes import Brakes
from imagedbd.change_queue import ChangeQueue
from imagedbd.config import ABOUT_SETTINGS, parse_model, settings_soon
from imagedbd.datatypes import Limits, ModelState, PictureState, Query, RootState
from imagedbd.decoder import Decoder
from imagedbd.differences import Difference, differences
from imagedbd.dupes import Hunt, Tier
from imagedbd.embedder import EmbedderProcess
from imagedbd.engine import Engine, EngineRoom
from imagedbd.errors import (
    ConfigError,
    DaemonBusyError,
    DaemonStoppingError,
    ModelUnavailableError,
    NothingMatchedError,
    StoreError,
    StoreUnreadableError,
    UsageError,
    WaitTimeoutError,
)
from imagedbd.explaining import Explainer, speaking_sidecars
from imagedbd.generations import Generation, GenerationsFile, generations_of, note_damage, owner_of
from imagedbd.indexer import Indexer
from imagedbd.ledger import NAME as LEDGER
from imagedbd.ledger import Ledger
from imagedbd.logs import set_level
from imagedbd.names import Names
from imagedbd.pausing import Pause
from imagedbd.readers import READERS, waits_for
from imagedbd.reconcile import reconcile
from imagedbd.relocation import Relocation
from imagedbd.roots import RootGuard
from imagedbd.rules import Rules, is_within, outermost
from imagedbd.scanner import Scanner
from imagedbd.scrubber import Scrubber
from imagedbd.search import Answer, Searcher
from imagedbd.stillness import Stillness
from imagedbd.stores import open_store
from imagedbd.stores.salvage import put_in_place
from imagedbd.successor import pages
from imagedbd.switch import Workshop
from imagedbd.switcher import Switcher
from imagedbd.text import count
from imagedbd.unread import UnreadFiles
from imagedbd.watcher import Watcher

if TYPE_CHECKING:
    from concurrent.futures import Future

    from imagedbd.config import Settings
    from imagedbd.datatypes import Condition, ModelInfo, RootStatus, Store, Vector
    from imagedbd.pulse import Pulse
    from imagedbd.switcher import Accepted
    from imagedbd.watcher import WatchStatus

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""How long a request waits for what the indexer has in hand."""
EXPORTED_AT_ONCE: Final = 1_000
RULES: Final = frozenset({"roots", "ignore"})
BRAKES: Final = frozenset({"max_cpu", "on_battery", "min_free"})
PACE: Final = frozenset({"rescan", "rescan_unheard"})
LIVE_SETTINGS: Final = RULES | BRAKES | PACE | {"model_ttl", "log_level"}
"""Settings that a reload applies at once."""
SWITCHED_SETTINGS: Final = frozenset(
    {"store", "store_uri", "storage_options", "model", "named", "overridden"}
)
"""Settings that say what a first index is like; where they differ from the one that is there, it is told."""
WORK_LOOK_S: Final = 1.0
"""How often somebody who waits for the indexer looks whether it is held up."""


class Library:
    """An index in work, in a data folder that is locked; any thread may call any public method."""

    def __init__(
        self, settings: Settings, read_settings: Callable[[], Settings], on_crash: Callable[[], object]
    ) -> None:
        """Build all rooms and join them; nothing runs before :meth:`start`.

        :param read_settings: reads the settings again, for :meth:`reload`.
        :param on_crash: called if a thread met a bug and the daemon must stop.
        :raises StoreUnreadableError: if store or ledger cannot be opened.
        """
        self._settings = settings
        self._last_read = settings
        self._had_file = os.path.exists(settings.config_file)
        self._told_differences: frozenset[str] = frozenset()
        self._read_settings = read_settings
        self._started = time.monotonic()
        self._closing = False
        self._built = False
        self._reloading = threading.Lock()
        self._roots_are_wanted = bool(settings.roots)
        self._first_load: Future[Any] | None = None
        self._options_in_use = settings.storage_options
        self._closers = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._closers.close)
            try:
                self._build(settings, on_crash)
            except StoreUnreadableError as error:
                note_damage(settings.data_dir, error.message)
                raise
            self._built = True
            undo.pop_all()
        note_damage(settings.data_dir, None)

    def _build(self, settings: Settings, on_crash: Callable[[], object]) -> None:
        self._rules = _rules(settings)
        self._ledger = Ledger(ledger_file(settings))
        self._closers.callback(self._ledger.close)
        self._generations = GenerationsFile(settings)
        # Before any store is open: whatever fails in one has it looked through.
        self._scrubber = Scrubber(self._store_in_use, lambda store: store is self._room.current.store)
        self._decoder = Decoder(settings.decoders or None, _limits(settings))
        self._closers.callback(self._decoder.close)
        self._room = EngineRoom(self._first_engine())
        self._closers.callback(self._room.close)
        self._brakes = Brakes(settings.data_dir, **_brakes(settings))
        self._queue = ChangeQueue(settings.settle, settings.settle_max, brake=self._brakes.left)
        self._pause = Pause(settings.data_dir, self._queue)
        self._unread = UnreadFiles(settings.rescan_unheard)
        self._scanner = Scanner(
            self._rules,
            self._ledger,
            self._queue,
            settle_s=settings.settle,
            rescan_s=settings.rescan,
            unheard=self._unheard,
            unheard_s=settings.rescan_unheard,
            unread=self._unread,
        )
        self._indexer = Indexer(
            queue=self._queue,
            ledger=self._ledger,
            store=self._room.current.store,
            decoder=self._decoder,
            embedder=self._room.current.embedder,
            rules=self._rules,
            may_forget=self._may_forget,
            request_scan=self._scanner.request,
            on_crash=on_crash,
            unread=self._unread,
        )
        self._closers.callback(self._indexer.close)
        self._closers.callback(self._scanner.stop)
        self._watcher = Watcher(
            self._rules,
            self._queue,
            self._on_doubt,
            heard=self._scanner.heard,
            answers=self._scanner.answers,
        )
        self._closers.callback(self._watcher.stop)
        self._names = Names(self._store_in_use, self._ledger.version)
        self._switcher = Switcher(self._workshop(), lambda: self._settings)
        self._closers.callback(self._switcher.close)
        self._closers.callback(self._scrubber.stop)

    def _first_engine(self) -> Engine:
        """The active generation, with ledger and store brought to agree."""
        active = self._generations.current.active
        if not active.is_remote and put_in_place(active.where(self._settings.data_dir)):
            log.warning("the store that an interrupted repair had saved is in its place now")
        store = self._open(active)
        with ExitStack() as undo:
            undo.callback(store.close)
            with _blaming_damage(store):
                reconcile(store, self._ledger, thorough=self._note_the_run())
            bound = store.model
            spec = bound.spec if bound else active.model or self._settings.model
            engine = self._new_engine(store, self._open_embedder(spec, bound))
            undo.pop_all()
        return engine

    def _open(self, generation: Generation) -> Store:
        if generation.is_remote:
            self._options_in_use = self._settings.storage_options
        return open_generation(self._settings, generation, on_doubt=self._scrubber.request)

    def _open_embedder(self, spec: str, expected: ModelInfo | None) -> EmbedderProcess:
        def on_ready() -> None:
            # While its store is still being built, nobody waits for it.
            if self._room.current.embedder is embedder:
                self._indexer.take_up_waiting()

        embedder = EmbedderProcess(
            spec,
            device=self._settings.device,
            dtype=self._settings.dtype,
            ttl_s=self._settings.model_ttl,
            expected=expected,
            on_ready=on_ready,
        )
        return embedder

    def _new_engine(self, store: Store, embedder: EmbedderProcess) -> Engine:
        return Engine(store, embedder, Searcher(store, self._ledger, self._decoder, embedder))

    @contextmanager
    def _store_in_use(self) -> Iterator[Store]:
        with self._room.reading() as engine:
            yield engine.store

    def _workshop(self) -> Workshop:
        return Workshop(
            file=self._generations,
            room=self._room,
            indexer=self._indexer,
            ledger=self._ledger,
            decoder=self._decoder,
            gate=threading.Lock(),
            open_store=self._open,
            open_embedder=self._open_embedder,
            new_engine=self._new_engine,
            check_pause=self._check_pause,
        )

    @property
    def _embedder(self) -> EmbedderProcess:
        return self._room.current.embedder

    def _note_the_run(self) -> bool:
        """Leave a mark that only a close removes after which all is well; returns whether there was one."""
        mark = running_mark(self._settings)
        unclean = os.path.exists(mark)
        with open(mark, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        self._closers.callback(self._end_the_run, mark)
        return unclean

    def _end_the_run(self, mark: str) -> None:
        if self._built and self._indexer.left_all_in_step:
            os.unlink(mark)

    def start(self) -> None:
        """Watch first, then scan: nothing that changes in between is missed by both."""
        if self._embedder.info is None or self._ledger.counts()[PictureState.WAITING]:
            self._first_load = self._embedder.load()
            self._indexer.wait_for_model(self._first_load)
        self._complete_relocations()
        self._log_what_is_odd()
        self._retry_what_can_be_read_now()
        self._watcher.start()
        self._scanner.start()
        self._indexer.start()
        self._switcher.resume()
        self._scrubber.start()

    def _complete_relocations(self) -> None:
        """Broken off ones, and those asked for while no daemon ran: before anything looks at the folders."""
        roots = self._rules.roots
        self._drop_relocations(roots)
        for old, new in self._ledger.relocations().items():
            before = tuple(old if root == new else root for root in roots)
            rules = _rules(replace(self._settings, roots=before))
            try:
                self._bring_over(Relocation(old, new, rules, self._ledger))
            except DaemonStoppingError:
                return
            except StoreError as error:
                log.warning("pictures of %s are followed by their content instead: %s", old, error.message)

    def _drop_relocations(self, roots: Sequence[str]) -> None:
        """Those that were announced, and that the settings do not make."""
        for old, new in self._ledger.relocations().items():
            if new not in roots or old in roots:
                log.info("%s is not at %s after all: that is what the settings say", old, new)
                self._ledger.forget_relocation(old)

    def _bring_over(self, relocation: Relocation) -> int:
        """In the indexer's thread, or before that has begun."""
        brought = relocation.bring_over(self._indexer.relabel, lambda: self._closing)
        log.info("%s lies at %s now: %d files were brought over", relocation.old, relocation.new, brought)
        return brought

    def _retry_what_can_be_read_now(self) -> None:
        """Files whose package was missing when they were read become pending; the first scan finds them."""
        # Each is looked for once: without a package, a library may have as many failures as pictures.
        installed = {reader for reader in READERS if reader.is_installed()}
        readable = [e.path for e in self._ledger.failures() if waits_for(e.reason) in installed]
        if readable:
            self._ledger.retry(readable)
            log.info("%d files can be read now that their package is installed", len(readable))

    def _log_what_is_odd(self) -> None:
        """What a user should know who looks at the terminal only."""
        if not self._rules.roots:
            log.warning("%s", self._without_roots())
        for root in self._scanner.roots_status():
            if root.state is RootState.OFFLINE:
                log.warning("%s is offline: %s", root.path, root.reason, extra={"root": root.path})
        self._tell_differences()

    def break_off_start(self) -> None:
        """The daemon is to stop: :meth:`start` does nothing more that takes long. Never waits."""
        self._closing = True
        self._watcher.begin_stop()
        self._scanner.begin_stop()

    def begin_close(self) -> None:
        """From now on, who waits is told that the daemon stops, for changes or for the model."""
        self._closing = True
        # In this order: else pictures in work would seem to be what the model fails of.
        self._indexer.begin_close()
        self._embedder.begin_close()
        self._scanner.begin_stop()

    @property
    def is_closing(self) -> bool:
        return self._closing

    @property
    def silent(self) -> Mapping[str, str]:
        """Places whose file system does not answer → since when, in words; threads may hang in them."""
        return self._scanner.silent

    def close(self) -> None:
        """Stop all threads and processes, newest first; what was in flight is done again next time.

        Threads that hang in a file system which does not answer are left behind.
        """
        self._closing = True
        if self._built:
            self._scanner.begin_stop()
        self._closers.close()

    def search(self, query: Query) -> Answer:
        """See :meth:`imagedbd.search.Searcher.search`."""
        with self._room.reading() as engine:
            answer = engine.searcher.search(query)
        hits = tuple(replace(hit, offline=self._is_offline(hit.record.path)) for hit in answer.hits)
        answer = replace(answer, hits=hits)
        if damage := self._scrubber.damage:
            return replace(answer, notes=(*answer.notes, f"The store is damaged. {damage}"))
        return answer

    def status(self) -> dict[str, Any]:
        """What ``imagedb status --json`` prints."""
        # Before the model is looked at: when there is no switch any more, what it switched to answers.
        switch = self._switcher.status()
        counts, again = self._ledger.counts(), self._ledger.looked_at_again()
        pending = self._queue.pending
        with self._room.reading() as engine:
            model, store = engine.embedder.status(), self._store_status(engine.store)
        roots = self._roots_status()
        rate = self._indexer.rate()
        state, doing = self._activity(roots, pending, counts[PictureState.WAITING], switch)
        return {
            "state": state,
            "doing": doing,
            "indexed": counts[PictureState.INDEXED] + again,
            "again": again,
            "waiting": counts[PictureState.WAITING],
            "pending": pending,
            "failed": counts[PictureState.FAILED],
            "rate": round(rate, 2) if rate else None,
            "eta_s": round(pending / rate) if rate and pending else None,
            "roots": [asdict(root) for root in roots],
            "store": {
                **store,
                "configured": self._settings.store,
                "damage": self._scrubber.damage,
            },
            "model": {
                "name": model.name,
                "state": model.state,
                "reason": model.reason,
                "help": model.help,
                "configured": self._settings.model,
            },
            "device": model.device,
            "dtype": model.dtype,
            "paused": self._pause.public(),
            "switch": switch,
            "previous": asdict(previous) if (previous := self._switcher.previous) else None,
            "differences": [difference.public() for difference in self._differences()],
            "embeds_total": self._room.embeds_total + self._switcher.embeds_total,
            "watcher_restarts": self._watcher.restarts,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "version": __version__,
            "pid": os.getpid(),
            "config_file": self._settings.config_file,
            "data_dir": self._settings.data_dir,
            "socket": self._settings.socket,
        }

    def names(self) -> dict[str, list[str]]:
        """What people type and shells complete; see :class:`imagedbd.names.Names`."""
        cameras = self._names.cameras()
        return {"cameras": cameras.models, "makes": cameras.makes, "models": self._names.models()}

    def activity(self) -> tuple[str, str]:
        """The state and one line on it, as :meth:`status` has them."""
        switch = self._switcher.status()
        waiting = self._ledger.counts()[PictureState.WAITING]
        return self._activity(self._roots_status(), self._queue.pending, waiting, switch)

    @property
    def pulses(self) -> tuple[Pulse, ...]:
        """Those of the loops that must not stop while the daemon runs."""
        return self._watcher.pulse, self._indexer.pulse

    def roots(self) -> list[dict[str, Any]]:
        return [asdict(root) for root in self._roots_status()]

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Every picture of the index, ordered by the bytes of its path."""
        for entry in self._ledger.under("/"):
            if entry.id is not None:
                yield {
                    "path": entry.path,
                    "id": entry.id,
                    "content_hash": entry.content_hash,
                    "state": entry.state,
                    "offline": self._is_offline(entry.path),
                }

    def export(self, *, vectors: bool) -> Iterator[dict[str, Any]]:
        """Every own record, with its vector as little-endian float32 in base64, ordered by path."""
        # By way of the ledger, which reads in pages: a slow reader holds no store open.
        ids = (entry.id for entry in self._ledger.under("/") if entry.id)
        for page in pages(ids, EXPORTED_AT_ONCE):
            with self._room.reading() as engine:
                found = {picture.record.id: picture for picture in engine.store.get(page)}
            for key in page:
                if picture := found.get(key):
                    data = None if picture.vector is None or not vectors else _base64(picture.vector)
                    yield {**picture.record.public(), "vector": data}

    def hold_still(self) -> Stillness:
        """A while in which nothing is written, for a copy of :meth:`backup_source`."""
        return Stillness(self._indexer, lambda: self._closing)

    def backup_source(self) -> dict[str, Any]:
        """Where everything is that a backup holds, while it is held still."""
        active = self._switcher.active
        return asdict(
            Source(
                data_dir=self._settings.data_dir,
                ledger=self._ledger.file,
                config_file=self._settings.config_file,
                active=self._generations.current.active,
                model=active.model,
                pictures=self._pictures(),
            )
        )

    def failures(self) -> Iterator[dict[str, Any]]:
        for entry in self._ledger.failures():
            yield {"path": entry.path, "reason": entry.reason, "attempts": entry.attempts}

    def show(self, path: str) -> dict[str, Any]:
        """The record of one picture.

        :raises NothingMatchedError: if it is not in the index.
        """
        entry = self._ledger.get(path)
        mark = entry.sidecar if entry else None
        with self._room.reading() as engine:
            for picture in engine.store.get([entry.id]) if entry and entry.id else ():
                return {
                    **picture.record.public(),
                    "state": entry.state if entry else None,
                    "offline": self._is_offline(path),
                    "sidecars": [] if mark is None or self._silence(path) else speaking_sidecars(path),
                }
        raise NothingMatchedError(f"{path} is not in the index. `imagedb why` says the reason.")

    def why(self, path: str) -> dict[str, Any]:
        """What is known of a path: its state, the reason, and the rule or error behind it."""
        entry = self._ledger.get(path)
        explainer = Explainer(
            self._rules,
            self._ledger,
            self._unread,
            is_queued=self._queue.__contains__,
            silence=self._silence,
            held_up=self._held_up,
            model=self._embedder.status,
        )
        explained = explainer.explain(path, entry)
        return {"path": path, **explained._asdict(), "attempts": entry.attempts if entry else 0}

    def scan(self, folder: str | None) -> int:
        """Request a scan of a folder or of everything.

        :raises UsageError: if the folder lies outside every root.
        """
        if folder is not None and self._rules.root_of(folder) is None:
            raise UsageError(f"{folder} lies outside every root. `imagedb root list` shows them.")
        return self._scanner.request(folder)

    def wait(self, timeout: float | None) -> Wait:
        """Scan, and find out when every change made before the call is searchable; see :class:`Wait`."""
        return Wait(self, self._scanner, self._queue, timeout)

    def hunt(self, condition: Condition | None, tiers: Iterable[Tier]) -> Hunt:
        """A look for duplicates, to be run; see :class:`imagedbd.dupes.Hunt`."""
        return Hunt(self._store_in_use, self._decoder, condition, tiers)

    def retry(self, paths: list[str] | None) -> list[str]:
        """Queue failed files again; returns those that had failed."""
        again = self._ledger.retry(paths)
        for path in again:
            self._queue.put(path, settled=True)
        return again

    def pause(self, seconds: float | None) -> dict[str, Any]:
        """Index nothing for this time, or until :meth:`resume`; searching and watching go on.

        :returns: the pause, as :meth:`status` tells it.
        """
        self._pause.begin(seconds)
        return {"paused": self._pause.public()}

    def resume(self) -> dict[str, Any]:
        """Go on with what a pause put off; ``was_paused`` says whether there was one."""
        was_paused = self._pause.is_on
        self._pause.end()
        self._switcher.retry()
        return {"was_paused": was_paused}

    def reindex(self, paths: list[str] | None, *, force: bool) -> dict[str, Any]:
        """Have unchanged pictures read again, and with ``force`` put through the model again.

        :param paths: files, and folders with all below them; ``None`` is everything that can be read now.
        :returns: ``files``: how many of them are read again; ``copies``: how many elsewhere, because they
            have the same content; ``offline``: roots that had to be left out.
        :raises UsageError: if a path lies outside every root or on one that is offline.
        :raises DaemonBusyError: if what is in hand now does not come to an end.
        """
        guard = RootGuard(self._rules, self._ledger)
        roots = self._rules.roots
        offline = [] if paths is not None else [root for root in roots if self._scanner.why_offline(root)]
        places = [root for root in roots if root not in offline] if paths is None else paths
        for path in paths or ():
            if self._rules.root_of(path) is None:
                raise UsageError(f"{path} lies outside every root. `imagedb root list` shows them.")
            if reason := self._silence(path) or guard.why_absence_is_no_proof(path):
                raise UsageError(f"{path} cannot be read now: {reason}")
        found: set[str] = set()

        def mark() -> None:
            for place in places:
                found.update(self._ledger.reread(place, afresh=force))

        # Between batches: what is being read at this moment would come out of it as settled.
        self._indexer.have_done(mark, patience_s=PATIENCE_S)
        for path in (*found, *(paths or ())):  # one that is not known yet may be there now
            self._queue.put(path, settled=True)
        asked = sum(any(is_within(path, place) for place in places) for path in found)
        return {"files": asked, "copies": len(found) - asked, "offline": offline}

    def reset(self) -> dict[str, Any]:
        """Forget the index, and begin one as the settings want it; see :meth:`Switcher.start_afresh`."""
        try:
            return self._switcher.start_afresh().public()
        finally:
            self._scanner.request(None)

    def load_model(self) -> Future[Any]:
        """Load the model, also after it was found unavailable.

        A switch that is paused for want of its own is tried again as well. The future raises
        :class:`ModelUnavailableError` if the model still is unavailable.
        """
        self._switcher.retry()
        return self._embedder.load()

    def use_store(self, kind: str, model: str | None = None) -> dict[str, Any]:
        """Answer from this kind of store as soon as it is complete; see :meth:`Switcher.use`.

        :param model: embed for this one meanwhile; by default the vectors are copied.
        :returns: what the request led to, with ``settings``: those that make it last.
        """
        wanted = None if model is None else _checked_model(model)
        accepted = self._switcher.use(kind=kind, model=wanted)
        return _answer(accepted, store=kind, model=wanted)

    def use_model(self, spec: str) -> dict[str, Any]:
        """Answer with this model as soon as all pictures have its vectors; see :meth:`Switcher.use`.

        :returns: as :meth:`use_store`.
        """
        accepted = self._switcher.use(model=_checked_model(spec))
        return _answer(accepted, model=accepted.model)

    def roll_back(self) -> dict[str, Any]:
        """Answer from the generation before this one; see :meth:`Switcher.roll_back`.

        :returns: as :meth:`use_store`.
        """
        before = self._switcher.active
        accepted = self._switcher.roll_back()
        return _answer(
            accepted,
            store=accepted.store if accepted.store != before.kind else None,
            model=accepted.model if accepted.model != before.model else None,
        )

    def remove_previous(self) -> dict[str, Any]:
        """Delete the generation that is kept to go back to; see :meth:`Switcher.remove_previous`."""
        return asdict(self._switcher.remove_previous())

    def first_load(self) -> Future[Any]:
        """The load that the start asked for, or one that is asked for now; as :meth:`load_model`."""
        return self._first_load or self._embedder.load()

    def model_to_pull(self) -> str | None:
        """The model to download: one that is not on this machine, and that somebody publishes."""
        status = self._embedder.status()
        offered = not status.name.startswith("local-dir:") and status.name != "demo"
        return status.name if offered and status.state is ModelState.UNAVAILABLE else None

    def reload(self) -> dict[str, Any]:
        """Read the settings again; a faulty file changes nothing.

        :returns: ``changed``: names of settings that are other ones than when they were last read; and
            ``needs_restart``: of those that count from the next start on, whenever they changed.
        :raises ConfigError: with the fault.
        """
        with self._reloading:
            return self._reload()

    def _reload(self) -> dict[str, Any]:
        old, new = self._settings, settings_soon(self._read_settings)
        if self._had_file and not os.path.exists(new.config_file):
            raise ConfigError(f"{new.config_file} is gone, and what it said goes on to hold.")
        changed = [name for name in asdict(new) if getattr(new, name) != getattr(self._last_read, name)]
        followed = LIVE_SETTINGS | SWITCHED_SETTINGS
        settings = replace(old, **{name: getattr(new, name) for name in followed})
        rules = _rules(settings)  # what is wrong with them is found before anything is changed
        self._drop_relocations(new.roots)
        self._settings, self._last_read = settings, new
        self._had_file = os.path.exists(new.config_file)
        if SWITCHED_SETTINGS.intersection(changed):
            self._tell_differences()
        self._apply(settings, rules, frozenset(changed))
        late = [n for n in asdict(new) if n not in ABOUT_SETTINGS and getattr(new, n) != getattr(settings, n)]
        # A remote table keeps those that it was opened with, however often the settings are read again.
        if self._generations.current.active.is_remote and self._options_in_use != new.storage_options:
            late.append("storage_options")
        return {"changed": [name for name in changed if name not in ABOUT_SETTINGS], "needs_restart": late}

    def _apply(self, settings: Settings, rules: Rules, changed: frozenset[str]) -> None:
        """Have the rooms go by what has changed of the live settings."""
        if changed & RULES:
            self._rules = self._indexer.rules = rules
            self._roots_are_wanted = self._roots_are_wanted or "roots" in changed
            self._watcher.set_rules(rules)
            self._scanner.set_rules(rules)
        if changed & BRAKES:
            self._brakes.adjust(**_brakes(settings))
        if changed & PACE:
            self._scanner.set_pace(settings.rescan, settings.rescan_unheard)
        if "model_ttl" in changed:
            self._embedder.keep_for(settings.model_ttl)
        if "log_level" in changed:
            set_level(settings.log_level)

    def _tell_differences(self) -> None:
        """Each once, and again if it was gone in between."""
        texts = [difference.text for difference in self._differences()]
        for text in texts:
            if text not in self._told_differences:
                log.warning("%s", text)
        self._told_differences = frozenset(texts)

    def relocate(self, old: str, new: str, *, only_check: bool = False) -> dict[str, Any]:
        """Follow a root to its new place, which the settings name already, without embedding anything.

        :param only_check: see whether it can be done, before the settings are changed. If the daemon ends
            after that change and before it is asked to go on, the next start does it.
        :returns: ``pictures``: how many were brought over, or would be.
        :raises ImagedbError: it cannot be done. If it broke off in the middle, the next start completes it,
            or until then a scan, by the pictures' content.
        """
        relocation = Relocation(old, new, self._rules, self._ledger)
        relocation.check()
        self.check_work()
        if old in self._settings.fixed_roots:
            raise UsageError(
                f"{old} is watched because the daemon was started with it (--root or IMAGEDBD_ROOTS),"
                f" whatever the file says. Start it with {new} in its place: no picture is embedded again."
            )
        if only_check:
            self._ledger.note_relocation(old, new)
            return {"pictures": sum(self._ledger.counts(old).values())}
        roots = self._read_settings().roots
        if old in roots or new not in roots:
            raise UsageError(f"The settings must name {new} in the place of {old} first.")
        brought: list[int] = []

        def follow() -> None:
            # In the indexer's thread to the end: by the old rules it would forget what lies at the new place.
            try:
                relocation.check()  # what was indexed meanwhile would be there twice
                brought.append(self._bring_over(relocation))
            finally:
                self.reload()

        try:
            self._indexer.have_done(follow, patience_s=math.inf)
        except DaemonBusyError:
            self.reload()
            self.check_work()
            raise StoreError(
                "Indexing was held up; the pictures are followed by their content instead."
            ) from None
        return {"pictures": brought[0]}

    def check_work(self) -> None:
        """:raises ImagedbError: nothing is being indexed at the moment; the message says why."""
        if self._closing:
            raise DaemonStoppingError("It was asked to stop.")
        self._check_pause()
        if self._indexer.trouble:
            raise StoreError(f"Indexing is held up: {self._scrubber.damage or self._indexer.trouble}")
        if self._scanner.trouble:
            raise StoreError(f"Comparing the folders with the index fails: {self._scanner.trouble}")

    def waiting(self) -> int:
        """How many pictures are stored without a vector.

        :raises ModelUnavailableError: there are some, and the model cannot be had.
        """
        waiting = self._ledger.counts()[PictureState.WAITING]
        model = self._embedder.status()
        if waiting and model.state is ModelState.UNAVAILABLE and not self.brings_model:
            ways = " or ".join(model.help)
            raise ModelUnavailableError(
                f"{model.reason} {_waiting_in_words(waiting)} for it. Ways on: {ways}."
            )
        return waiting

    @property
    def brings_model(self) -> bool:
        """Whether the model that cannot be had is on the point of being exchanged for one that can."""
        switch = self._switcher.status()
        is_on_its_way = switch is not None and switch["state"] not in {"paused", "failed"}
        return is_on_its_way and self._embedder.status().state is ModelState.UNAVAILABLE

    def take_up_waiting(self) -> None:
        """Queue the pictures that are stored without a vector."""
        self._indexer.take_up_waiting()

    def counts(self) -> dict[str, int]:
        return {state.value: count for state, count in self._ledger.counts().items()}

    def _store_status(self, store: Store) -> dict[str, Any]:
        """What a store says of itself, or the ``reason`` for which it does not answer."""
        try:
            return {**asdict(store.stats()), "reason": None}
        except StoreError as error:
            active = self._generations.current.active
            unknown = dict.fromkeys(("rows", "vectors", "bytes_on_disk"))
            uri = active.where(self._settings.data_dir)
            return {"kind": active.kind, "uri": uri, **unknown, "reason": error.message}

    def _activity(
        self, roots: list[RootStatus], pending: int, waiting: int, switch: dict[str, Any] | None
    ) -> tuple[str, str]:
        model = self._embedder.status()
        if trouble := self._trouble():
            return trouble
        if model.state is ModelState.LOADING and self._embedder.info is None:
            return "loading", f"Loading the model {model.name}."
        if any(root.state == "scanning" for root in roots):
            return (
                "scanning",
                f"Comparing the folders with the index; {count(pending, 'change')} to look at so far.",
            )
        if pending:
            return "indexing", f"{count(pending, 'change')} to look at."
        if switch is not None:
            return "switching", _switch_in_words(switch)
        if waiting and model.state is ModelState.UNAVAILABLE:
            return "waiting", f"{_waiting_in_words(waiting)} for the model. {model.reason}"
        if not roots:
            return "idle", self._without_roots()
        return "idle", "Watching for changes."

    def _pictures(self) -> int:
        """How many pictures are found by a search, if only by their metadata."""
        counts = self._ledger.counts()
        settled = counts[PictureState.INDEXED] + counts[PictureState.WAITING]
        return settled + self._ledger.looked_at_again()

    def _without_roots(self) -> str:
        """What there is to say where no folder is watched; what was indexed stays until another one is."""
        pictures = self._pictures()
        if not pictures:
            return "There is no folder to watch yet: `imagedb root add DIR`."
        known = outermost(place for place in self._ledger.places_under("/") if self._ledger.holds_any(place))
        folders = " ".join(map(shlex.quote, known)) or "DIR"
        return (
            f"There is no folder to watch, and {count(pictures, 'picture stays', 'pictures stay')} in the "
            f"index from before: `imagedb root add {folders}` has them watched again. With another folder "
            "in their place, the pictures are forgotten."
        )

    def _trouble(self) -> tuple[str, str] | None:
        """What somebody should do something about, if there is anything."""
        # Damage first: it may be what holds indexing up, and it names what helps.
        if damage := self._scrubber.damage:
            return "damaged", damage
        if self._indexer.trouble:
            return "blocked", f"Indexing is held up: {self._indexer.trouble}"
        if self._scanner.trouble:
            return "blocked", f"Comparing the folders with the index fails: {self._scanner.trouble}"
        if self._pause.is_on:
            pending = self._queue.pending
            held = f" {count(pending, 'change waits', 'changes wait')}." if pending else ""
            return "paused", f"{self._pause.in_words()}{held}"
        if (self._queue.pending or self._switcher.status()) and (reason := self._brakes.reason()):
            return "blocked", reason
        return None

    def _check_pause(self) -> None:
        """:raises PausedError: nothing is to be worked on now."""
        self._pause.check()
        self._brakes.check()

    def _held_up(self) -> str | None:
        """What keeps everything from being indexed now, in words."""
        trouble = self._trouble()
        return trouble[1] if trouble and trouble[0] in {"paused", "blocked"} else None

    def _is_offline(self, path: str) -> bool:
        """Whether the root or disk of this picture was away when it was last looked at; never waits."""
        return any(is_within(path, place) for place in self._scanner.offline)

    def _silence(self, path: str) -> str | None:
        """That the place of this path does not answer, in a sentence; never waits."""
        silent = self._scanner.silent.items()
        return next((f"{place} {reason}." for place, reason in silent if is_within(path, place)), None)

    def _roots_status(self) -> list[RootStatus]:
        """What the scanner says of each root, and of one that is there, what its watch lacks."""
        watches = {watch.root: watch for watch in self._watcher.status()}
        return [_with_watch(root, watches.get(root.path)) for root in self._scanner.roots_status()]

    def _may_forget(self, path: str) -> bool:
        # A start without any root is a slip more likely than a wish to forget everything.
        if not self._rules.roots and not self._roots_are_wanted:
            return False
        if self._rules.root_of(path) is None and self._is_to_be_brought_over(path):
            return False
        return RootGuard(self._rules, self._ledger).why_absence_is_no_proof(path) is None

    def _is_to_be_brought_over(self, path: str) -> bool:
        return any(is_within(path, old) for old in self._ledger.relocations())

    def _differences(self) -> list[Difference]:
        return differences(self._settings, self._switcher.target or self._switcher.active)

    def _unheard(self) -> list[str]:
        return self._watcher.unheard()

    def _on_doubt(self, folder: str, _reason: str) -> None:
        self._scanner.request(folder)


class Wait:
    """One wait for everything that had changed when it began. It blocks nobody: it is asked now and then."""

    def __init__(self, library: Library, scanner: Scanner, queue: ChangeQueue, timeout: float | None) -> None:
        self._library = library
        self._scanner = scanner
        self._queue = queue
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._scan = scanner.request()
        self._ticket: int | None = None
        self._took_up_waiting = False

    def poll(self) -> dict[str, Any] | None:
        """What the index is now, or ``None`` while it is too early.

        :raises WaitTimeoutError: the time is over.
        :raises ModelUnavailableError: pictures wait for a model that cannot be had.
        :raises ImagedbError: nothing is being indexed at the moment.
        """
        if self._is_over():
            return self._library.counts()
        self._library.check_work()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise WaitTimeoutError(self._what_is_left())
        return None

    def _what_is_left(self) -> str:
        pending = self._queue.pending
        if self._ticket is None:
            return f"The folders are still being scanned; {count(pending, 'change')} to look at so far."
        if not pending:
            return f"{_waiting_in_words(self._library.waiting())} for the model."
        return f"{count(pending, 'change is', 'changes are')} still to be indexed."

    def _is_over(self) -> bool:
        if self._ticket is None:
            if not self._scanner.wait_scanned(self._scan, 0):
                return False
            self._ticket = self._queue.ticket()
        if not self._queue.wait_done(self._ticket, 0):
            return False
        waiting = self._library.waiting()
        if waiting and self._library.brings_model:
            return False
        if waiting and not self._took_up_waiting:
            # The model came while they were on their way; what is left then is on a root that is offline.
            self._took_up_waiting = True
            self._library.take_up_waiting()
            self._ticket = self._queue.ticket()
            return self._queue.wait_done(self._ticket, 0)
        return True


def running_mark(settings: Settings) -> str:
    """The file that is there while a daemon runs, and after one that did not end cleanly."""
    return os.path.join(settings.data_dir, "running")


def ledger_file(settings: Settings) -> str:
    return os.path.join(settings.data_dir, LEDGER)


def store_folder(settings: Settings) -> str:
    """The folder or URI of the store that answers.

    :raises StoreUnreadableError: what says where it is cannot be read.
    """
    return generations_of(settings).active.where(settings.data_dir)


@contextmanager
def _blaming_damage(store: Store) -> Iterator[None]:
    """Before anybody is served: where a store fails and is damaged, that is what is said.

    :raises StoreUnreadableError: in the place of whatever else failed.
    """
    try:
        yield
    except StoreError as error:
        if damage := next(filter(None, store.scrub()), None):
            raise damage from error
        raise


def open_generation(
    settings: Settings, generation: Generation, on_doubt: Callable[[], object] = lambda: None
) -> Store:
    """Open the store of a generation, for a caller who holds the data folder's lock.

    :param on_doubt: as for :func:`~imagedbd.stores.open_store`.
    :raises StoreUnreadableError: if it cannot be read.
    """
    # A folder here has one owner whoever that is; to lose the file that names it must not cost the index.
    owner = owner_of(settings.data_dir) if generation.is_remote else ""
    return open_store(
        generation.kind,
        generation.where(settings.data_dir),
        owner=owner,
        exclusive=not generation.is_remote,
        options=settings.storage_options if generation.is_remote else None,
        on_doubt=on_doubt,
    )


def _waiting_in_words(pictures: int) -> str:
    return count(pictures, "picture waits", "pictures wait")


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _with_watch(root: RootStatus, watch: WatchStatus | None) -> RootStatus:
    if root.state is RootState.OFFLINE or watch is None or watch.state is not RootState.DEGRADED:
        return root
    state = RootState.SCANNING if root.state is RootState.SCANNING else RootState.DEGRADED
    reason = " ".join(part for part in (root.reason, watch.reason) if part)
    return replace(root, state=state, reason=reason, unwatched=watch.unwatched)


def _checked_model(spec: str) -> str:
    try:
        return parse_model(spec)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{error}.") from error


def _answer(accepted: Accepted, **settings: str | None) -> dict[str, Any]:
    lasting = {name: value for name, value in settings.items() if value is not None}
    return {**accepted.public(), "settings": lasting}


def _switch_in_words(switch: dict[str, Any]) -> str:
    if switch["reason"]:
        return f"The index for {switch['store']} with {switch['model']} is not built on: {switch['reason']}"
    made = f"{switch['done']} of {switch['total']} pictures are done."
    return f"Building the index for {switch['store']} with {switch['model']} beside this one; {made}"


def _rules(settings: Settings) -> Rules:
    try:
        return Rules(
            settings.roots, [os.path.realpath(settings.data_dir)], settings.ignore, settings.max_file_size
        )
    except ValueError as error:
        raise ConfigError(f"ignore: {error}.") from error


def _brakes(settings: Settings) -> dict[str, Any]:
    return {
        "min_free": settings.min_free,
        "on_mains_alone": settings.on_battery == "pause",
        "max_cpu": settings.max_cpu,
    }


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_bytes=settings.max_file_size,
        max_pixels=settings.max_pixels,
        memory_bytes=settings.decode_memory,
        timeout_s=settings.decode_timeout,
    )
