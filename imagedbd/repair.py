"""Offline repair: what cannot be read is set aside, and built anew from the rest at the next start."""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagedbd.data_folder import ledger_file, open_generation, running_mark
from imagedbd.datatypes import PictureState
from imagedbd.errors import ConfigError, StoreError, StoreUnreadableError
from imagedbd.generations import (
    Course,
    Generation,
    Generations,
    first_of,
    generations_file,
    generations_of,
    note_damage,
    write_generations,
)
from imagedbd.ledger import Ledger
from imagedbd.locking import locked_data
from imagedbd.replacement import settle
from imagedbd.stores import KINDS
from imagedbd.stores.salvage import put_in_place, save_rows, saved_place
from imagedbd.text import count

if TYPE_CHECKING:
    from imagedbd.config import Settings


def repair(settings: Settings) -> list[str]:
    """Check ledger and store, and set aside the one that is damaged; nothing is deleted.

    A ledger is built anew from the store and the folders, by hashing; a store from what can be read of it,
    and the rest is embedded anew. One that is kept to go back to is checked, and takes its place where
    nothing can be read. What says where the store is, is found out from the stores that are there.

    :returns: what was found and done, a sentence each.
    :raises LockHeldError: if the daemon runs.
    """
    with locked_data(settings):
        finished = settle(settings.data_dir)
        findings = [
            *([finished] if finished else []),
            *_check_generations(settings),
            *_finish_renewal(settings),
            _check_ledger(ledger_file(settings)),
            *_check_stores(settings),
        ]
        note_damage(settings.data_dir, None)
    return findings


def _check_generations(settings: Settings) -> list[str]:
    """Nothing to say if they can be read."""
    try:
        generations_of(settings)
    except StoreUnreadableError as error:
        stores = _readable_stores(settings)
        active = stores[0] if stores else first_of(settings)
        findings = [f"{error.reason} It was set aside as {_set_aside(generations_file(settings.data_dir))}."]
        write_generations(settings.data_dir, Generations(active))
        if len(stores) > 1:
            # Which of them the ledger knows is lost as well, and an older one may lack what came since.
            ledger = ledger_file(settings)
            _set_aside(ledger, f"{ledger}-wal", f"{ledger}-shm")
            findings.append("There is more than one store: the ledger is built anew by hashing.")
        return [*findings, f"The index in {active.where(settings.data_dir)} is the one that answers."]
    return []


def _readable_stores(settings: Settings) -> list[Generation]:
    """The stores that may have been the active one: remote if the settings say so, or with most vectors."""
    if settings.store_uri:
        return [first_of(settings)]
    found: list[tuple[int, Generation]] = []
    for place in sorted(os.listdir(settings.data_dir)):
        kind = place.partition("-")[0]
        if kind not in KINDS or "." in place:
            continue
        generation = Generation(kind, place)
        with (
            contextlib.suppress(StoreError, ConfigError),
            closing(open_generation(settings, generation)) as s,
        ):
            found.append((s.stats().vectors, generation))
    return [generation for _, generation in sorted(found, key=lambda item: -item[0])]


def _finish_renewal(settings: Settings) -> list[str]:
    """Nothing to say if no repair was interrupted at its last step."""
    active = generations_of(settings).active
    folder = active.where(settings.data_dir)
    if active.is_remote or not put_in_place(folder):
        return []
    return [f"The store that an interrupted repair had saved is {folder} now."]


def _check_ledger(file: str) -> str:
    try:
        ledger = Ledger(file)
        try:
            ledger.check()
        finally:
            ledger.close()
    except StoreUnreadableError as error:
        aside = _set_aside(file, f"{file}-wal", f"{file}-shm")
        return f"{error.reason} It was set aside as {aside} and is built anew at the next start."
    return f"The ledger {file} is in order."


def _check_stores(settings: Settings) -> list[str]:
    """The store that answers, and the one that is kept to go back to."""
    current = generations_of(settings)
    kept = _Kept.of(settings, current.previous)
    folder = current.active.where(settings.data_dir)
    try:
        rows = _checked_rows(settings, current.active)
    except StoreError as error:
        if current.active.is_remote:
            found = f"{error.message} It is not on this machine, so nothing was changed."
        else:
            found = f"{error.reason} {_renew_store(settings, current, kept)}"
    else:
        found = f"The store {folder} is in order, with {count(rows, 'row')}.{_missing_rows(settings, rows)}"
    # One that answers from now on is told of already.
    return [found, kept.finding] if kept.finding and generations_of(settings).previous else [found]


def _missing_rows(settings: Settings, rows: int) -> str:
    """What to say where the ledger knows more pictures than the store has; the next start compares them.

    :param rows: of the store; of a remote one they may be others', and then too many to tell.
    """
    file = ledger_file(settings)
    if not os.path.exists(file):  # to open it would make an empty one
        return ""
    with closing(Ledger(file)) as ledger:
        states = ledger.counts()
    lost = states[PictureState.INDEXED] + states[PictureState.WAITING] - rows
    if lost <= 0:
        return ""
    _have_rows_compared(settings)
    what = count(lost, "picture that the ledger knows is", "pictures that the ledger knows are")
    return f" {what} not in it: lost, with the vectors, and embedded anew at the next start."


@dataclass(frozen=True, slots=True)
class _Kept:
    """The store that is kept to go back to. It is not worth saving: what answers has all that it has.

    :param finding: what was found; ``None`` if there is none on this machine.
    :param intact: whether it could answer.
    """

    finding: str | None = None
    intact: bool = False
    rows: int = 0

    @classmethod
    def of(cls, settings: Settings, previous: Generation | None) -> _Kept:
        if previous is None or previous.is_remote:
            return cls()
        folder = previous.where(settings.data_dir)
        try:
            if not os.path.isdir(folder):  # to open it would make an empty one
                raise StoreUnreadableError(f"{folder} is not there.")
            rows = _checked_rows(settings, previous)
        except StoreError as error:
            return cls(
                f"The store that is kept to go back to: {error.reason} `imagedb model remove` drops it."
            )
        return cls(
            f"The store {folder}, which is kept to go back to, is in order, with {count(rows, 'row')}.",
            intact=True,
            rows=rows,
        )


def _checked_rows(settings: Settings, generation: Generation) -> int:
    """Read all that the store has.

    :returns: how many rows it has.
    :raises StoreError: if anything is damaged.
    """
    store = open_generation(settings, generation)
    try:
        if faults := [fault for fault in store.scrub() if fault]:
            raise faults[0]
        return sum(1 for _ in store.scan())
    finally:
        store.close()


def _renew_store(settings: Settings, current: Generations, kept: _Kept) -> str:
    """Make a store of what can be read of a damaged one, and put it in its place.

    Where nothing can be read, the one that is kept to go back to answers from now on, if it is intact.

    :raises StoreError: if there is no room for it; the damaged one stays where it is.
    """
    folder = current.active.where(settings.data_dir)
    try:
        saved, lost = save_rows(current.active.kind, folder, saved_place(folder))
    except StoreUnreadableError as error:
        told = f"{error.reason} It was set aside as {_set_aside(folder)}"
        if kept.intact and current.previous is not None:
            return f"{told}. {_go_back(settings, current, current.previous, kept.rows)}"
        return f"{told}. All its vectors are lost: the pictures are embedded anew after the next start."
    _have_rows_compared(settings)
    aside = _set_aside(folder)
    put_in_place(folder)
    were = "was" if saved == 1 else "were"
    return (
        f"{count(saved, 'picture')} {were} saved into a new store. {_lost_in_words(lost)} "
        f"The old one was set aside as {aside}."
    )


def _lost_in_words(lost: int | None) -> str:
    """:param lost: how many pictures; ``None`` if that is not known."""
    match lost:
        case None:
            return "Pictures that it lacks are embedded anew at the next start."
        case 0:
            return "None was lost."
        case 1:
            return "One was lost, and is embedded anew at the next start."
        case _:
            return f"{lost:,} were lost, and are embedded anew at the next start."


def _go_back(settings: Settings, current: Generations, previous: Generation, rows: int) -> str:
    """Have the store that was kept answer: it knows the pictures by the same ids as the ledger."""
    # What was being copied from the lost one is begun anew on request; what is embedded has a use still.
    base = current if current.course is Course.EMBED else current.abandoned()
    write_generations(settings.data_dir, replace(base, active=previous, previous=None))
    _have_rows_compared(settings)
    model = f" with {previous.model}" if previous.model else ""
    return (
        f"The {previous.kind} store{model} that was kept to go back to answers from the next start on, with "
        f"{count(rows, 'row')}; what it lacks is embedded anew."
    )


def _have_rows_compared(settings: Settings) -> None:
    """Some rows may be what they were a while ago: the next start compares them with the ledger, each."""
    with open(running_mark(settings), "a", encoding="ascii"):
        pass


def _set_aside(*paths: str) -> str:
    """Rename these; returns the new name of the first."""
    mark = time.strftime("damaged-%Y%m%dT%H%M%S")
    for path in paths:
        if os.path.lexists(path):
            os.rename(path, f"{path}.{mark}")
    return f"{paths[0]}.{mark}"
