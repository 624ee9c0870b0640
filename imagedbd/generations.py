"""Which store answers, which one is being built beside it, and which one is kept to go back to.

That is state, not settings: ``generations.json`` in the data folder. Settings say what a *first* store is
like; from then on only a switch exchanges one generation for another, and writing this file is the moment
at which it does.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd.durable import write_durably
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.stores import KINDS
from imagedbd.text import fault

if TYPE_CHECKING:
    from imagedbd.config import Settings

log = logging.getLogger(__name__)

FILE_NAME: Final = "generations.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Generation:
    """One store.

    :param place: the name of its folder in the data folder, or the URI of a remote table.
    :param model: the spec of the model whose vectors it has or will have; ``None`` is told by the store
        itself or, before its first vector, by the settings.
    """

    kind: str
    place: str
    model: str | None = None

    @property
    def is_remote(self) -> bool:
        return "://" in self.place

    def where(self, data_dir: str) -> str:
        """What :func:`imagedbd.stores.open_store` opens."""
        return self.place if self.is_remote else os.path.join(data_dir, self.place)


class Course(enum.StrEnum):
    """How the next generation comes by its vectors."""

    COPY = "copy"
    """Of the same model: they are those of the active one."""
    EMBED = "embed"
    """Of another model: every picture is read and embedded once more."""
    RETURN = "return"
    """Those that it has are taken as they are; what it lacks is embedded after the swap."""


@dataclass(frozen=True, slots=True)
class Generations:
    """
    :param next: being built, along its course; on a return it is the previous one.
    :param dropped: places that nothing refers to any more, and whose folders are being deleted.
    """

    active: Generation
    next: Generation | None = None
    course: Course | None = None
    previous: Generation | None = None
    dropped: tuple[str, ...] = ()

    def building(self, generation: Generation, course: Course) -> Generations:
        """The same with this one to be built; what was being built instead is dropped."""
        same = self.next is not None and self.next.place == generation.place
        base = self if same else self.abandoned()
        return replace(base, next=generation, course=course)

    def abandoned(self) -> Generations:
        """The same with nothing being built."""
        return replace(self, next=None, course=None, dropped=self._dropping(self.next, self.previous))

    def swapped(self, model: str | None) -> Generations:
        """The next one active, and the active one kept.

        :param model: whose vectors the one that is active now has.
        """
        if self.next is None:
            raise ValueError("there is no next generation")
        kept = replace(self.active, model=model)
        return Generations(active=self.next, previous=kept, dropped=self._dropping(self.previous, self.next))

    def begun_anew(self, generation: Generation) -> Generations:
        """Nothing but this one; every other place is dropped."""
        places = {g.place for g in (self.active, self.next, self.previous) if g and not g.is_remote}
        return Generations(generation, dropped=(*self.dropped, *sorted(places - {generation.place})))

    def without_previous(self) -> Generations:
        return replace(self, previous=None, dropped=self._dropping(self.previous, self.next))

    def _dropping(self, gone: Generation | None, kept: Generation | None) -> tuple[str, ...]:
        if gone is None or gone.is_remote or (kept is not None and kept.place == gone.place):
            return self.dropped
        return (*self.dropped, gone.place)


class GenerationsFile:
    """The file of one data folder, whose lock the caller holds.

    :raises StoreUnreadableError: it is damaged; the message names ``imagedbd repair``.
    :raises StoreError: it had to be made and could not be written.
    """

    def __init__(self, settings: Settings) -> None:
        self._data_dir = settings.data_dir
        self._current = generations_of(settings)
        if not os.path.exists(generations_file(self._data_dir)):
            self.write(self._current)

    @property
    def current(self) -> Generations:
        return self._current

    def write(self, generations: Generations) -> None:
        """Make this the state, durably.

        :raises StoreError: the old state holds.
        """
        write_generations(self._data_dir, generations)
        self._current = generations

    @contextlib.contextmanager
    def written_if_all_goes_well(self, generations: Generations) -> Iterator[None]:
        """Make this the state; where what follows fails, the old one is put back, which takes no room.

        :raises StoreError: the old state holds.
        """
        former, kept = self._current, f"{generations_file(self._data_dir)}.former"
        _write(kept, former)
        try:
            self.write(generations)
            yield
        except BaseException:
            os.replace(kept, generations_file(self._data_dir))
            self._current = former
            raise
        with contextlib.suppress(OSError):
            os.unlink(kept)  # one that is left is written over by the next

    def free_place(self, kind: str) -> str:
        """A folder's name for a new store: ``lance``, or ``lance-2`` and so on."""
        known = self._current
        taken = {g.place for g in (known.active, known.next, known.previous) if g} | {*known.dropped}
        number, place = 1, kind
        while place in taken or os.path.lexists(os.path.join(self._data_dir, place)):
            number += 1
            place = f"{kind}-{number}"
        return place

    def discard(self, place: str) -> None:
        """Delete a store's folder, unless a generation is there."""
        current = self._current
        known = {g.place for g in (current.active, current.next, current.previous) if g}
        if place and "://" not in place and place not in known:
            shutil.rmtree(os.path.join(self._data_dir, place), ignore_errors=True)

    def delete_dropped(self) -> None:
        """Delete the folders that nothing refers to any more; what cannot be deleted is tried next time."""
        if not (dropped := self._current.dropped):
            return
        for place in dropped:
            shutil.rmtree(os.path.join(self._data_dir, place), ignore_errors=True)
        left = tuple(p for p in dropped if os.path.lexists(os.path.join(self._data_dir, p)))
        try:
            self.write(replace(self._current, dropped=left))
        except StoreError as error:
            log.warning("%s", error.message)


def generations_of(settings: Settings) -> Generations:
    """What the file says; without one, the store that is there, or else a first one as the settings want it.

    :raises StoreUnreadableError: if the file is damaged.
    """
    return read_generations(settings.data_dir) or Generations(_found(settings) or first_of(settings))


def first_of(settings: Settings) -> Generation:
    """The first store, as the settings want it."""
    return Generation(settings.store, settings.store_uri or settings.store)


def wanted_place(settings: Settings, kind: str) -> str | None:
    """The URI that settings name for stores of this kind; ``None`` stands for a folder here."""
    return settings.store_uri if kind == "lance" else None


def read_generations(data_dir: str) -> Generations | None:
    """``None`` if there is no file.

    :raises StoreUnreadableError: if it makes no sense, or is of a newer format.
    """
    path = generations_file(data_dir)
    try:
        with open(path, encoding="utf-8") as file:
            return _parsed(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreUnreadableError(
            f"{path}, which says where the index is, cannot be read ({error}).", "Run `imagedbd repair`."
        ) from error


def write_generations(data_dir: str, generations: Generations) -> None:
    """:raises StoreError: the old file is still there."""
    _write(generations_file(data_dir), generations)


def _write(path: str, generations: Generations) -> None:
    try:
        write_durably(path, json.dumps({"format": FORMAT, **asdict(generations)}, indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error


def owner_of(data_dir: str) -> str:
    """Who this daemon is among those that share a remote table: made up once, and kept.

    :raises StoreError: if it cannot be kept.
    """
    path = os.path.join(data_dir, "owner")
    try:
        if not os.path.exists(path):
            write_durably(path, f"{secrets.token_hex(16)}\n")
        with open(path, encoding="ascii") as file:
            owner = file.read().strip()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read or written: {fault(error)}.") from error
    if not owner:
        raise StoreUnreadableError(f"{path}, which tells this daemon's rows in a shared table, is empty.")
    return owner


def note_damage(data_dir: str, message: str | None) -> None:
    """Keep the reason for which a daemon could not start, for those who ask while there is none.

    :param message: ``None`` once it is mended.
    """
    path = _damage_file(data_dir)
    try:
        if message is not None:
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{message}\n")
        elif os.path.exists(path):
            os.unlink(path)
    except OSError as error:
        log.warning("%s cannot be kept up to date: %s", path, error.strerror)


def noted_damage(data_dir: str) -> str | None:
    """The reason for which the last daemon could not start, if that was damage."""
    try:
        with open(_damage_file(data_dir), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _damage_file(data_dir: str) -> str:
    return os.path.join(data_dir, "damaged")


def generations_file(data_dir: str) -> str:
    return os.path.join(data_dir, FILE_NAME)


def _found(settings: Settings) -> Generation | None:
    """The store that is there without being written down: of the kind in the settings, or of another."""
    for kind in (settings.store, *KINDS):
        if os.path.isdir(os.path.join(settings.data_dir, kind)):
            return Generation(kind, kind)
    return None


def _parsed(content: Any) -> Generations:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}; this imagedbd reads {FORMAT}")
    active, following = _generation(content["active"]), _generation(content["next"])
    course = content["course"]
    if active is None or (following is None) != (course is None):
        raise ValueError("it is incomplete")
    dropped = tuple(_plain_name(place) for place in content["dropped"])
    return Generations(
        active, following, Course(course) if course else None, _generation(content["previous"]), dropped
    )


def _generation(content: Any) -> Generation | None:
    if content is None:
        return None
    if not isinstance(content, Mapping) or not isinstance(content["model"], str | None):
        raise TypeError(f"{content!r} is no generation")
    kind, place = content["kind"], content["place"]
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of store")
    return Generation(kind, place if "://" in place else _plain_name(place), content["model"])


def _plain_name(place: Any) -> str:
    """A name that cannot lead out of the data folder: these folders are deleted in the end."""
    if not isinstance(place, str) or place != os.path.basename(place) or place.startswith("."):
        raise ValueError(f"{place!r} is no folder's name")
    if not place:
        raise ValueError("a folder's name is empty")
    return place
