"""Requests to answer from another store or with another model, and what becomes of them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from imagedbd.datatypes import ModelState
from imagedbd.errors import (
    ConfigError,
    DaemonBusyError,
    DaemonStoppingError,
    ImagedbError,
    ModelUnavailableError,
    NothingMatchedError,
    StoreError,
)
from imagedbd.generations import Course, Generation, first_of, wanted_place
from imagedbd.successor import delete_own_rows
from imagedbd.switch import LOOK_S, Switch, Workshop, leave

if TYPE_CHECKING:
    from imagedbd.config import Settings
    from imagedbd.datatypes import Store
    from imagedbd.embedder import EmbedderProcess
    from imagedbd.engine import Engine
    from imagedbd.generations import Generations

log = logging.getLogger(__name__)

PATIENCE_S: Final = 30.0
"""How long a request waits for another one, or for a swap."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request led to.

    :param state: ``switching``, or ``active`` where that answers already.
    """

    state: str
    store: str
    model: str | None

    def public(self) -> dict[str, Any]:
        return {"state": self.state, "store": self.store, "model": self.model}


class Switcher:
    """At most one switch at a time; any thread may call any method.

    :param settings: as they are now.
    """

    def __init__(self, shop: Workshop, settings: Callable[[], Settings]) -> None:
        self._shop = shop
        self._settings = settings
        self._switch: Switch | None = None
        self._trial: Switch | None = None
        """One that is not accepted yet: its model is being loaded."""
        self._closing = False

    def resume(self) -> None:
        """Go on with what was being built when the daemon last stopped."""
        self._shop.file.delete_dropped()
        current = self._shop.file.current
        if current.next is not None and current.course is not None:
            log.info("going on with the index for %s with %s", current.next.kind, current.next.model)
            self._switch = Switch(self._shop, current.next, current.course)
            self._switch.start()

    def close(self) -> None:
        """Stop what is being built; it is gone on with at the next start."""
        self._closing = True
        for switch in (self._trial, self._switch):
            if switch is not None:
                switch.stop()

    def use(self, *, kind: str | None = None, model: str | None = None) -> Accepted:
        """Answer from this kind of store, or with this model, as soon as that is complete.

        Whatever is not named stays as it is, or as it is being built. What was being built instead is given
        up; naming what answers already does no more than that.

        :raises ModelUnavailableError: the model cannot be had; nothing was changed.
        :raises ConfigError: that store cannot be had; nothing was changed.
        """
        with self._asking():
            wanted = self._wanted(kind, model)
            if _fits(self.active, wanted) and not (model and self._has_other_weights()):
                self._abandon()
                return Accepted("active", wanted.kind, wanted.model)
            running = self._running()
            if _goes_on(running) and running.course is not Course.RETURN and _fits(running.target, wanted):
                return Accepted("switching", wanted.kind, wanted.model)
            course = Course.COPY if self._is_model_of_active(wanted, model) else Course.EMBED
            if course is Course.EMBED and wanted.is_remote:
                raise ConfigError(
                    f"{wanted.place} may be shared with other daemons, so its model stays as it is. Take "
                    "store.uri out of the settings and `imagedb store use lance` first."
                )
            return self._begin(self._on_kept(wanted), course)

    def roll_back(self) -> Accepted:
        """Answer from the generation before this one; what it lacks is embedded afterwards.

        :raises NothingMatchedError: there is none.
        :raises ModelUnavailableError: its model cannot be had any more; nothing was changed.
        :raises ConfigError: the settings speak against its kind of store; nothing was changed.
        """
        with self._asking():
            previous = self._shop.file.current.previous
            if previous is None:
                raise NothingMatchedError("No earlier index is kept that could be gone back to.")
            if previous.kind != self.active.kind:  # otherwise the settings stay as they are
                self._check_kind(previous.kind)
            running = self._running()
            if _goes_on(running) and running.course is Course.RETURN:
                return Accepted("switching", previous.kind, previous.model)
            return self._begin(previous, Course.RETURN)

    def remove_previous(self) -> Generation:
        """Delete the generation that is kept to go back to; of a remote table, the rows of this daemon.

        :raises NothingMatchedError: there is none.
        :raises StoreError: it is being made the active one, or the remote table does not answer.
        """
        with self._asking():
            current = self._shop.file.current
            if current.previous is None:
                raise NothingMatchedError("No earlier index is kept.")
            if current.next is not None and current.next.place == current.previous.place:
                raise StoreError("The earlier index is being made the active one; it cannot be removed now.")
            if current.previous.is_remote and current.previous.place != current.active.place:
                with closing(self._shop.open_store(current.previous)) as store:
                    delete_own_rows(store)
            self._shop.file.write(current.without_previous())
            self._shop.file.delete_dropped()
            return current.previous

    def start_afresh(self) -> Accepted:
        """Forget the index and what is kept to go back to; answer from an empty one as the settings want it.

        The model is loaded first, where it can be had, so that no picture is read twice. In a shared table,
        the own rows are deleted.

        :raises ImagedbError: nothing was forgotten; or all was, and the message says that rows are left in
            the shared table.
        """
        with self._asking():
            if self._closing:
                raise DaemonStoppingError("It was asked to stop.")
            self._abandon()
            return self._exchange_for_new()

    def _exchange_for_new(self) -> Accepted:
        shop, settings = self._shop, self._settings()
        target = first_of(settings)
        if not target.is_remote:
            target = replace(target, place=shop.file.free_place(target.kind))
        former, forgotten = shop.room.current, shop.file.current
        try:
            store = shop.open_store(target)
        except ImagedbError:
            # A full disk leaves half a store, of which nobody would know.
            shop.file.discard(target.place)
            raise
        embedder = shop.open_embedder(store.model.spec if store.model else settings.model, store.model)
        try:
            self._load(embedder)
            engine = shop.new_engine(store, embedder)
            shop.indexer.have_done(lambda: self._take_up(engine, target), patience_s=math.inf)
        finally:
            if shop.room.current.embedder is embedder:
                self._clear_away(former, forgotten)
            else:
                embedder.close()
                store.close()
                shop.file.discard(target.place)
        log.info("the index was reset: %s with %s begins empty", target.kind, engine.embedder.status().name)
        return Accepted("active", target.kind, engine.embedder.status().name)

    def _clear_away(self, former: Engine, forgotten: Generations) -> None:
        """What was answered from until a reset, and what was kept to go back to."""
        self._shop.room.retire(former)
        self._shop.file.delete_dropped()
        for gone in (forgotten.active, forgotten.previous):
            if gone is not None:
                leave(self._shop, gone)

    def _load(self, embedder: EmbedderProcess) -> None:
        """Where it cannot be had, the status says so, and metadata is indexed."""
        loading = embedder.load()
        while not loading.done():
            if self._closing:
                raise DaemonStoppingError("It was asked to stop.")
            wait([loading], LOOK_S)
        with contextlib.suppress(ModelUnavailableError):
            loading.result()

    def _take_up(self, engine: Engine, target: Generation) -> None:
        """In the writer's thread, with nothing in hand.

        :raises StoreError: the old index is still the active one, with all its rows; or the new one is, and
            the message says that rows of the old one are left in the table.
        """
        shop = self._shop
        with shop.file.written_if_all_goes_well(shop.file.current.begun_anew(target)):
            # After a crash here, the next start finds that the store lacks what the ledger knows, and
            # forgets it.
            shop.ledger.clear()
        shop.room.exchange(engine)
        shop.indexer.use(engine.store, engine.embedder)
        if target.is_remote:
            # Rows cannot be put back, so they go when nothing else can fail any more.
            _forget_own_rows(engine.store, target)

    def retry(self) -> None:
        """Try again now what is paused."""
        if (switch := self._switch) is not None:
            switch.retry()

    @property
    def embeds_total(self) -> int:
        switch = self._switch
        return switch.embeds_total if switch is not None else 0

    def status(self) -> dict[str, Any] | None:
        """The switch under way, if there is one."""
        running = self._running()
        return running.status() if running is not None else None

    @property
    def active(self) -> Generation:
        """What answers, with the model that its vectors are of."""
        engine, active = self._shop.room.current, self._shop.file.current.active
        bound = engine.store.model
        return replace(active, model=bound.spec if bound else engine.embedder.status().name)

    @property
    def target(self) -> Generation | None:
        """What will answer when the switch under way is over."""
        running = self._running()
        return running.target if running is not None else None

    @property
    def previous(self) -> Generation | None:
        return self._shop.file.current.previous

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """One request at a time, and no swap meanwhile."""
        if not self._shop.gate.acquire(timeout=PATIENCE_S):
            raise DaemonBusyError(
                "Another switch is being begun or completed just now; ask again in a while."
            )
        try:
            yield
        finally:
            self._shop.gate.release()

    def _running(self) -> Switch | None:
        switch = self._switch
        return switch if switch is not None and not switch.swapped else None

    def _wanted(self, kind: str | None, model: str | None) -> Generation:
        """The target: without a place, if it is to be a new folder."""
        running, active = self._running(), self.active
        base = running.target if running else active
        if kind is None:
            return replace(base, model=model or base.model)
        self._check_kind(kind)
        if kind == active.kind != base.kind:
            base = active  # what was on its way to another kind is given up whole, its model too
        uri = wanted_place(self._settings(), kind)
        here = base.kind == kind and not base.is_remote and not uri
        return Generation(kind, base.place if here else uri or "", model or base.model)

    def _check_kind(self, kind: str) -> None:
        """:raises ConfigError: settings that name this kind would keep the daemon from starting."""
        settings = self._settings()
        if kind != "lance" and settings.store_uri:
            raise ConfigError(
                f"store.uri names {settings.store_uri}, which is for LanceDB alone: take it out of "
                f"{settings.config_file}, or out of IMAGEDBD_STORE_URI, first."
            )

    def _has_other_weights(self) -> bool:
        """Whether what the model's name stands for is not what it was when the vectors were made."""
        engine = self._shop.room.current
        return engine.store.model is not None and engine.embedder.status().state is ModelState.UNAVAILABLE

    def _is_model_of_active(self, wanted: Generation, named: str | None) -> bool:
        return wanted.model == self.active.model and not (named and self._has_other_weights())

    def _on_kept(self, wanted: Generation) -> Generation:
        """A new folder, or one that has most of it: that of the previous generation, if that fits."""
        previous = self._shop.file.current.previous
        if previous is not None and _fits(previous, wanted):
            return previous
        return wanted if wanted.is_remote else replace(wanted, place="")

    def _begin(self, target: Generation, course: Course) -> Accepted:
        if self._closing:
            raise DaemonStoppingError("It was asked to stop.")
        running = self._running()
        if running is not None and running.target.place == target.place:
            self._stop_running()  # two of them must not have one store open
        self._trial = switch = Switch(self._shop, target, course)
        try:
            switch.prepare()
            self._stop_running()
            switch.record()
        except BaseException:
            switch.stop()
            self._shop.file.discard(switch.target.place)
            if self._switch is None and not self._closing:
                self.resume()
            raise
        finally:
            self._trial = None
        self._switch = switch
        self._shop.file.delete_dropped()
        if self._closing:
            switch.stop()
            raise DaemonStoppingError("It was asked to stop; the switch begins at the next start.")
        switch.start()
        log.info("building %s with %s beside the index that answers", target.kind, target.model)
        return Accepted("switching", target.kind, target.model)

    def _stop_running(self) -> None:
        if (switch := self._switch) is not None:
            switch.stop()
            self._switch = None

    def _abandon(self) -> None:
        """Give up what is being built."""
        self._stop_running()
        current = self._shop.file.current
        if current.next is not None:
            self._shop.file.write(current.abandoned())
            self._shop.file.delete_dropped()
            log.info("the switch was given up; the index that answers stays")


def _forget_own_rows(store: Store, target: Generation) -> None:
    try:
        delete_own_rows(store)
    except StoreError as error:
        raise StoreError(
            f"The index was reset, but rows of the old one are left in {target.place}, and are still found: "
            f"{error.message} `imagedb reset` again deletes them."
        ) from error


def _goes_on(switch: Switch | None) -> TypeGuard[Switch]:
    """Whether there is one that will come to its end by itself; one that failed is begun anew on request."""
    return switch is not None and not switch.failed


def _fits(generation: Generation, wanted: Generation) -> bool:
    """Whether it is what is wanted: of a remote store, in that very place."""
    same_place = generation.is_remote == wanted.is_remote and (
        not wanted.is_remote or generation.place == wanted.place
    )
    return same_place and (generation.kind, generation.model) == (wanted.kind, wanted.model)
