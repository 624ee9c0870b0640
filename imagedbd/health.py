"""How the index is: what ``imagedb status`` says, and what keeps it from being brought up to date."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd import __version__
from imagedbd.datatypes import ModelState, PictureState, RootState
from imagedbd.differences import Difference, differences
from imagedbd.errors import DaemonStoppingError, ModelUnavailableError, StoreError
from imagedbd.rules import is_within, outermost
from imagedbd.text import count

if TYPE_CHECKING:
    from imagedbd.brakes import Brakes
    from imagedbd.change_queue import ChangeQueue
    from imagedbd.config import Settings
    from imagedbd.datatypes import ModelStatus, RootStatus, Store
    from imagedbd.engine import EngineRoom
    from imagedbd.generations import GenerationsFile
    from imagedbd.indexer import Indexer
    from imagedbd.ledger import Ledger
    from imagedbd.live_settings import LiveSettings
    from imagedbd.pausing import Pause
    from imagedbd.scanner import Scanner
    from imagedbd.scrubber import Scrubber
    from imagedbd.switcher import Switcher
    from imagedbd.watcher import Watcher, WatchStatus

_HELD_UP: Final = frozenset({"paused", "blocked"})
"""States in which nothing is indexed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Asks every room, changes none; any thread may call any method.

    :param started: when the daemon did, by the monotonic clock.
    :param is_closing: whether it was asked to stop.
    """

    started: float
    settings: LiveSettings
    ledger: Ledger
    generations: GenerationsFile
    room: EngineRoom
    brakes: Brakes
    queue: ChangeQueue
    pause: Pause
    scanner: Scanner
    indexer: Indexer
    watcher: Watcher
    switcher: Switcher
    scrubber: Scrubber
    is_closing: Callable[[], bool]

    def status(self) -> dict[str, Any]:
        """What ``imagedb status --json`` prints."""
        # Before the model is looked at: when there is no switch any more, what it switched to answers.
        switch = self.switcher.status()
        counts, again = self.ledger.counts(), self.ledger.looked_at_again()
        pending = self.queue.pending
        with self.room.reading() as engine:
            model, store = engine.embedder.status(), self._store_status(engine.store)
        roots = self.roots_status()
        state, doing = self._activity(roots, pending, counts[PictureState.WAITING], switch)
        # What is held up has no speed, whatever it had half a minute ago.
        rate = None if state in _HELD_UP else self.indexer.rate()
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
                "configured": self.settings.current.store,
                "damage": self.scrubber.damage,
            },
            "model": {
                "name": model.name,
                "state": model.state,
                "only_prompts": model.only_prompts,
                "reason": model.reason,
                "help": model.help,
                "configured": self.settings.current.model,
            },
            "device": model.device,
            "dtype": model.dtype,
            "paused": self.pause.public(),
            "switch": switch,
            "previous": asdict(previous) if (previous := self.switcher.previous) else None,
            "differences": [difference.public() for difference in self.differences(self.settings.current)],
            "embeds_total": self.room.embeds_total + self.switcher.embeds_total,
            "watcher_restarts": self.watcher.restarts,
            "uptime_s": round(time.monotonic() - self.started, 1),
            "version": __version__,
            "pid": os.getpid(),
            "settings_fault": self.settings.fault,
            "config_file": self.settings.current.config_file,
            "data_dir": self.settings.current.data_dir,
            "socket": self.settings.current.socket,
        }

    def activity(self) -> tuple[str, str]:
        """The state and one line on it, as :meth:`status` has them."""
        switch = self.switcher.status()
        waiting = self.ledger.counts()[PictureState.WAITING]
        return self._activity(self.roots_status(), self.queue.pending, waiting, switch)

    def check_work(self) -> None:
        """:raises ImagedbError: nothing is being indexed at the moment; the message says why."""
        if self.is_closing():
            raise DaemonStoppingError("It was asked to stop.")
        self.check_pause()
        if trouble := self.indexer.fresh_trouble:
            raise StoreError(f"Indexing is held up: {self.scrubber.damage or trouble}")
        if trouble := self.scanner.fresh_trouble:
            raise StoreError(f"Comparing the folders with the index fails: {trouble}")

    def waiting(self) -> int:
        """How many pictures are stored without a vector.

        :raises ModelUnavailableError: there are some, and the model cannot be had.
        """
        waiting = self.ledger.counts()[PictureState.WAITING]
        model = self._model()
        if waiting and model.state is ModelState.UNAVAILABLE and not self.brings_model:
            ways = " or ".join(model.help)
            raise ModelUnavailableError(
                f"{model.reason} {waiting_in_words(waiting)} for it. Ways on: {ways}."
            )
        return waiting

    @property
    def brings_model(self) -> bool:
        """Whether the model that cannot be had is on the point of being exchanged for one that can."""
        switch = self.switcher.status()
        is_on_its_way = switch is not None and switch["state"] not in {"paused", "failed"}
        return is_on_its_way and self._model().state is ModelState.UNAVAILABLE

    def counts(self) -> dict[str, int]:
        """How many files there are in each state."""
        return {state.value: count for state, count in self.ledger.counts().items()}

    def pictures(self) -> int:
        """How many pictures are found by a search, if only by their metadata."""
        counts = self.ledger.counts()
        settled = counts[PictureState.INDEXED] + counts[PictureState.WAITING]
        return settled + self.ledger.looked_at_again()

    def without_roots(self) -> str:
        """What there is to say where no folder is watched; what was indexed stays until another one is."""
        pictures = self.pictures()
        if not pictures:
            return "There is no folder to watch yet: `imagedb root add DIR`."
        known = outermost(place for place in self.ledger.places_under("/") if self.ledger.holds_any(place))
        folders = " ".join(map(shlex.quote, known)) or "DIR"
        return (
            f"There is no folder to watch, and {count(pictures, 'picture stays', 'pictures stay')} in the "
            f"index from before: `imagedb root add {folders}` has them watched again. With another folder "
            "in their place, the pictures are forgotten."
        )

    def dropped_roots(self) -> list[str]:
        """What was watched at an earlier start and is not now, though something else is: a sentence each."""
        rules = self.scanner.rules
        brought_over = self.ledger.relocations()
        places = (place for place in self.ledger.places_under("/") if rules.root_of(place) is None)
        known = outermost(p for p in places if p not in brought_over and self.ledger.holds_any(p))
        given = bool(self.settings.current.fixed_roots)
        return [
            f"{place} is not watched any more, and "
            f"{_known_in_words(sum(self.ledger.counts(place).values()))} forgotten: "
            f"`{'imagedbd run --root' if given else 'imagedb root add'} {shlex.quote(place)}` brings it back."
            for place in known
        ]

    def check_pause(self) -> None:
        """:raises PausedError: nothing is to be worked on now."""
        self.pause.check()
        self.brakes.check()

    def held_up(self) -> str | None:
        """What keeps everything from being indexed now, in words."""
        trouble = self._trouble()
        return trouble[1] if trouble and trouble[0] in _HELD_UP else None

    def is_offline(self, path: str) -> bool:
        """Whether the root or disk of this picture was away when it was last looked at; never waits."""
        return any(is_within(path, place) for place in self.scanner.offline)

    def silence(self, path: str) -> str | None:
        """That the place of this path does not answer, in a sentence; never waits."""
        silent = self.scanner.silent.items()
        return next((f"{place} {reason}." for place, reason in silent if is_within(path, place)), None)

    def roots_status(self) -> list[RootStatus]:
        """What the scanner says of each root, and of one that is there, what its watch lacks."""
        watches = {watch.root: watch for watch in self.watcher.status()}
        return [_with_watch(root, watches.get(root.path)) for root in self.scanner.roots_status()]

    def differences(self, settings: Settings) -> list[Difference]:
        """Where settings name another store or model than the one that answers, or soon will."""
        return differences(settings, self.switcher.target or self.switcher.active)

    def _model(self) -> ModelStatus:
        return self.room.current.embedder.status()

    def _store_status(self, store: Store) -> dict[str, Any]:
        """What a store says of itself, or the ``reason`` for which it does not answer."""
        try:
            return {**asdict(store.stats()), "reason": None}
        except StoreError as error:
            active = self.generations.current.active
            unknown = dict.fromkeys(("rows", "vectors", "bytes_on_disk"))
            uri = active.where(self.settings.current.data_dir)
            return {"kind": active.kind, "uri": uri, **unknown, "reason": error.message}

    def _activity(
        self, roots: list[RootStatus], pending: int, waiting: int, switch: dict[str, Any] | None
    ) -> tuple[str, str]:
        model = self._model()
        if trouble := self._trouble():
            return trouble
        if model.state is ModelState.LOADING and self.room.current.embedder.info is None:
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
            return "waiting", f"{waiting_in_words(waiting)} for the model. {model.reason}"
        if not roots:
            return "idle", self.without_roots()
        return "idle", "Watching for changes."

    def _trouble(self) -> tuple[str, str] | None:
        """What somebody should do something about, if there is anything."""
        # Damage first: it may be what holds indexing up, and it names what helps.
        if damage := self.scrubber.damage:
            return "damaged", damage
        if self.indexer.trouble:
            return "blocked", f"Indexing is held up: {self.indexer.trouble}"
        if self.scanner.trouble:
            return "blocked", f"Comparing the folders with the index fails: {self.scanner.trouble}"
        if self.pause.is_on:
            pending = self.queue.pending
            held = f" {count(pending, 'change waits', 'changes wait')}." if pending else ""
            return "paused", f"{self.pause.in_words()}{held}"
        if (self.queue.pending or self.switcher.status()) and (reason := self.brakes.reason()):
            return "blocked", reason
        return None


def _known_in_words(files: int) -> str:
    return count(files, "file known there is", "files known there are")


def waiting_in_words(pictures: int) -> str:
    return count(pictures, "picture waits", "pictures wait")


def _with_watch(root: RootStatus, watch: WatchStatus | None) -> RootStatus:
    if root.state is RootState.OFFLINE or watch is None or watch.state is not RootState.DEGRADED:
        return root
    state = RootState.SCANNING if root.state is RootState.SCANNING else RootState.DEGRADED
    reason = " ".join(part for part in (root.reason, watch.reason) if part)
    return replace(root, state=state, reason=reason, unwatched=watch.unwatched)


def _switch_in_words(switch: dict[str, Any]) -> str:
    if switch["reason"]:
        return f"The index for {switch['store']} with {switch['model']} is not built on: {switch['reason']}"
    made = f"{switch['done']} of {count(switch['total'], 'picture')} done."
    return f"Building the index for {switch['store']} with {switch['model']} beside this one; {made}"
