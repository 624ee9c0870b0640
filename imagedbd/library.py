"""The open index: every room built and joined, and the operations that the daemon offers.

Building a :class:`Library` is the one place where rooms meet each other; closing goes in reverse order.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd.backups import Source
from imagedbd.brakes import Brakes
from imagedbd.catalogue import Catalogue
from imagedbd.change_queue import ChangeQueue
from imagedbd.config import parse_model
from imagedbd.data_folder import ledger_file, open_generation, running_mark
from imagedbd.datatypes import Limits, ModelState, PictureState, Query, RootState
from imagedbd.decoder import Decoder
from imagedbd.dupes import Hunt, Tier
from imagedbd.embedder import EmbedderProcess
from imagedbd.engine import Engine, EngineRoom
from imagedbd.errors import (
    NothingMatchedError,
    StoreError,
    StoreUnreadableError,
    UsageError,
)
from imagedbd.explaining import Explainer
from imagedbd.generations import Generation, GenerationsFile, note_damage
from imagedbd.health import Health
from imagedbd.indexer import Indexer
from imagedbd.ledger import Ledger
from imagedbd.live_settings import BRAKES, MODEL_STAY, PACE, RULES, SWITCHED_SETTINGS, LiveSettings, rules_of
from imagedbd.logs import set_level
from imagedbd.names import Names
from imagedbd.pausing import Pause
from imagedbd.readers import READERS, waits_for
from imagedbd.reconcile import reconcile
from imagedbd.relocator import Relocator
from imagedbd.roots import RootGuard
from imagedbd.rules import absolute_patterns, is_within
from imagedbd.scanner import Scanner
from imagedbd.scrubber import Scrubber
from imagedbd.search import Answer, Searcher
from imagedbd.stillness import Stillness
from imagedbd.stores.salvage import put_in_place
from imagedbd.switch import Workshop
from imagedbd.switcher import Switcher
from imagedbd.unread import UnreadFiles
from imagedbd.wait import Wait
from imagedbd.watcher import Watcher

if TYPE_CHECKING:
    from concurrent.futures import Future

    from imagedbd.config import Settings
    from imagedbd.datatypes import Condition, ModelInfo, Store
    from imagedbd.live_settings import Change
    from imagedbd.pulse import Pulse
    from imagedbd.switcher import Accepted

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""How long a request waits for what the indexer has in hand."""


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
        self._live = LiveSettings(settings, read_settings)
        self._told_differences: frozenset[str] = frozenset()
        self._started = time.monotonic()
        self._closing = False
        self._built = False
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
        self._rules = rules_of(settings)
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
            offline_places=self._offline_places,
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
        self._health = Health(
            started=self._started,
            settings=self._live,
            ledger=self._ledger,
            generations=self._generations,
            room=self._room,
            brakes=self._brakes,
            queue=self._queue,
            pause=self._pause,
            scanner=self._scanner,
            indexer=self._indexer,
            watcher=self._watcher,
            switcher=self._switcher,
            scrubber=self._scrubber,
            is_closing=lambda: self._closing,
        )
        self._catalogue = Catalogue(self._ledger, self._room, self._health)
        self._relocator = Relocator(
            settings=self._live,
            ledger=self._ledger,
            indexer=self._indexer,
            health=self._health,
            rules=lambda: self._rules,
            reload=self.reload,
            is_closing=lambda: self._closing,
        )

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
            keep_text=self._settings.keep_text_tower,
            expected=expected,
            on_ready=on_ready,
        )
        return embedder

    def _new_engine(self, store: Store, embedder: EmbedderProcess) -> Engine:
        self._have_stay(embedder, self._settings)  # they may be other ones than when it was opened
        return Engine(store, embedder, Searcher(store, self._ledger, self._decoder, embedder))

    @staticmethod
    def _have_stay(embedder: EmbedderProcess, settings: Settings) -> None:
        embedder.keep_for(settings.model_ttl, keep_text=settings.keep_text_tower)

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

    def _check_pause(self) -> None:
        self._health.check_pause()

    @property
    def _settings(self) -> Settings:
        return self._live.current

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
        self._relocator.complete()
        self._log_what_is_odd()
        self._retry_what_can_be_read_now()
        self._watcher.start()
        self._scanner.start()
        self._indexer.start()
        self._switcher.resume()
        self._scrubber.start()

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
            log.warning("%s", self._health.without_roots())
        else:
            for sentence in self._health.dropped_roots():
                log.warning("%s", sentence)
        for root in self._scanner.roots_status():
            if root.state is RootState.OFFLINE:
                log.warning("%s is offline: %s", root.path, root.reason, extra={"root": root.path})
        self._tell_differences(self._settings)
        _tell_absolute_patterns(self._settings)

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
        hits = tuple(replace(hit, offline=self._health.is_offline(hit.record.path)) for hit in answer.hits)
        answer = replace(answer, hits=hits)
        if damage := self._scrubber.damage:
            return replace(answer, notes=(*answer.notes, f"The store is damaged. {damage}"))
        return answer

    def status(self) -> dict[str, Any]:
        """What ``imagedb status --json`` prints."""
        return self._health.status()

    def names(self) -> dict[str, list[str]]:
        """What people type and shells complete; see :class:`imagedbd.names.Names`."""
        cameras = self._names.cameras()
        return {"cameras": cameras.models, "makes": cameras.makes, "models": self._names.models()}

    def activity(self) -> tuple[str, str]:
        """The state and one line on it, as :meth:`status` has them."""
        return self._health.activity()

    @property
    def pulses(self) -> tuple[Pulse, ...]:
        """Those of the loops that must not stop while the daemon runs."""
        return self._watcher.pulse, self._indexer.pulse

    def roots(self) -> list[dict[str, Any]]:
        return [asdict(root) for root in self._health.roots_status()]

    def pictures(self) -> Iterator[dict[str, Any]]:
        """See :meth:`imagedbd.catalogue.Catalogue.pictures`."""
        return self._catalogue.pictures()

    def export(self, *, vectors: bool) -> Iterator[dict[str, Any]]:
        """See :meth:`imagedbd.catalogue.Catalogue.export`."""
        return self._catalogue.export(vectors=vectors)

    def failures(self) -> Iterator[dict[str, Any]]:
        """See :meth:`imagedbd.catalogue.Catalogue.failures`."""
        return self._catalogue.failures()

    def show(self, path: str) -> dict[str, Any]:
        """The record of one picture; see :meth:`imagedbd.catalogue.Catalogue.show`."""
        return self._catalogue.show(path)

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
                pictures=self._health.pictures(),
            )
        )

    def why(self, path: str) -> dict[str, Any]:
        """What is known of a path: its state, the reason, and the rule or error behind it."""
        entry = self._ledger.get(path)
        explainer = Explainer(
            self._rules,
            self._ledger,
            self._unread,
            is_queued=self._queue.__contains__,
            silence=self._health.silence,
            held_up=self._health.held_up,
            model=self._embedder.status,
        )
        explained = explainer.explain(path, entry)
        return {"path": path, **explained._asdict(), "attempts": entry.attempts if entry else 0}

    def scan(self, folder: str | None) -> int:
        """Request a scan of a folder or of everything.

        :raises UsageError: if the folder lies outside every root.
        :raises NothingMatchedError: if there is no such folder, and nothing is known of one.
        """
        if folder is not None:
            if self._rules.root_of(folder) is None:
                raise UsageError(f"{folder} lies outside every root. `imagedb root list` shows them.")
            known = folder in self._rules.roots or self._ledger.holds_any(folder)
            if not known and not self._health.silence(folder) and not os.path.lexists(folder):
                raise NothingMatchedError(f"There is no {folder}, and the index has no picture there.")
        return self._scanner.request(folder)

    def wait(self, timeout: float | None) -> Wait:
        """Scan, and find out when every change made before the call is searchable; see :class:`Wait`."""
        return Wait(self._health, self._scanner, self._queue, self._indexer, timeout)

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
            if reason := self._health.silence(path) or guard.why_absence_is_no_proof(path):
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
        answer = self._live.reload(self._apply)
        # A remote table keeps those that it was opened with, however often the settings are read again.
        if (
            self._generations.current.active.is_remote
            and self._options_in_use != self._settings.storage_options
        ):
            answer["needs_restart"].append("storage_options")
        return answer

    def _apply(self, change: Change) -> None:
        """Have the rooms go by what has changed of the live settings."""
        settings, changed = change.settings, frozenset(change.names)
        self._relocator.drop(change.wanted.roots)
        if changed & SWITCHED_SETTINGS:
            self._tell_differences(settings)
        if changed & RULES:
            self._rules = self._indexer.rules = change.rules
            self._roots_are_wanted = self._roots_are_wanted or "roots" in changed
            self._watcher.set_rules(change.rules)
            self._scanner.set_rules(change.rules)
            _tell_absolute_patterns(settings)
        if changed & BRAKES:
            self._brakes.adjust(**_brakes(settings))
        if changed & PACE:
            self._scanner.set_pace(settings.rescan, settings.rescan_unheard)
        if changed & MODEL_STAY:
            self._have_stay(self._embedder, settings)
        if "log_level" in changed:
            set_level(settings.log_level)

    def _tell_differences(self, settings: Settings) -> None:
        """Each once, and again if it was gone in between."""
        texts = [difference.text for difference in self._health.differences(settings)]
        for text in texts:
            if text not in self._told_differences:
                log.warning("%s", text)
        self._told_differences = frozenset(texts)

    def relocate(self, old: str, new: str, *, only_check: bool = False) -> dict[str, Any]:
        """Follow a root to its new place; see :meth:`imagedbd.relocator.Relocator.relocate`."""
        return self._relocator.relocate(old, new, only_check=only_check)

    def _may_forget(self, path: str) -> bool:
        # A start without any root is a slip more likely than a wish to forget everything.
        if not self._rules.roots and not self._roots_are_wanted:
            return False
        if self._rules.root_of(path) is None and self._is_to_be_brought_over(path):
            return False
        return RootGuard(self._rules, self._ledger).why_absence_is_no_proof(path) is None

    def _offline_places(self, paths: Iterable[str]) -> list[str]:
        places = RootGuard(self._rules, self._ledger).places_of(paths)
        return [place for place in places if self._scanner.why_offline(place)]

    def _is_to_be_brought_over(self, path: str) -> bool:
        return any(is_within(path, old) for old in self._ledger.relocations())

    def _unheard(self) -> list[str]:
        return self._watcher.unheard()

    def _on_doubt(self, folder: str, _reason: str) -> None:
        self._scanner.request(folder)


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


def _tell_absolute_patterns(settings: Settings) -> None:
    for glob, meant in absolute_patterns(settings.ignore, settings.roots).items():
        log.warning(
            "ignore: %s matches nothing, as patterns are paths from the watched folder on: write %s",
            glob,
            meant,
        )


def _checked_model(spec: str) -> str:
    try:
        return parse_model(spec)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{error}.") from error


def _answer(accepted: Accepted, **settings: str | None) -> dict[str, Any]:
    lasting = {name: value for name, value in settings.items() if value is not None}
    return {**accepted.public(), "settings": lasting}


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
