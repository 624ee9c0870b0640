"""An index that takes the place of another, whole or not at all, however the process ends.

It lies in a folder of its own until it is checked. The plan of what moves where is written down before the
first move, and is gone after the last: with a plan the next start goes on, without one it cleans up. All
functions are for who holds the data folder's lock; nobody may read an index before :func:`settle`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from imagedbd.durable import free_name, sync_folder, write_durably
from imagedbd.errors import StoreUnreadableError
from imagedbd.text import fault

_DRAFT: Final = "restoring"
_PLAN: Final = "plan.json"
_ASIDE: Final = "before-restore-"
_STAYS: Final = frozenset({"lock", _DRAFT})
"""What is no part of an index."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """:param aside: the folder, in the data folder, that ``old`` moves into; ``new`` comes from the draft."""

    aside: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def draft_folder(data_dir: str) -> str:
    """Where an index is put that is to take the place of the one in the data folder."""
    return os.path.join(data_dir, _DRAFT)


def parts(data_dir: str) -> Iterator[str]:
    """The names in a data folder that make up its index."""
    for name in sorted(os.listdir(data_dir)):
        if name not in _STAYS and not name.startswith(_ASIDE):
            yield name


def replace_index(data_dir: str) -> str | None:
    """Move the index out of the draft, and the one that is there into a folder of its own.

    :returns: that folder; ``None`` if there was no index.
    :raises OSError: and all is where it was.
    :raises StoreUnreadableError: some is not, and :func:`settle` goes on.
    """
    draft = draft_folder(data_dir)
    aside = free_name(os.path.join(data_dir, time.strftime(f"{_ASIDE}%Y%m%dT%H%M%S")))
    plan = _Plan(os.path.basename(aside), tuple(parts(data_dir)), tuple(sorted(os.listdir(draft))))
    for folder, _, _ in os.walk(draft):
        sync_folder(folder)
    write_durably(_plan_file(data_dir), json.dumps(asdict(plan)))
    _carry_out(plan, data_dir)
    return aside if plan.old else None


def settle(data_dir: str) -> str | None:
    """Finish a replacement that was broken off, or remove the draft of one that had not begun.

    :returns: what was done, a sentence; ``None`` if there was nothing to finish.
    :raises StoreUnreadableError: it cannot be finished.
    """
    if (plan := _read_plan(data_dir)) is None:
        clear(data_dir)
        return None
    try:
        _carry_out(plan, data_dir)
    except OSError as error:
        clear(data_dir)
        raise StoreUnreadableError(
            f"A restore was broken off, and cannot be finished: {fault(error)}. "
            "The index is the one before it.",
            "Start with that, or run `imagedbd restore` again.",
        ) from error
    told = "A restore had been broken off; its index is in place now."
    return f"{told} What was there before is in {os.path.join(data_dir, plan.aside)}." if plan.old else told


def clear(data_dir: str) -> None:
    """Remove the draft, unless a replacement by it has begun."""
    if not os.path.lexists(_plan_file(data_dir)):
        shutil.rmtree(draft_folder(data_dir), ignore_errors=True)


def _carry_out(plan: _Plan, data_dir: str) -> None:
    """:raises OSError: and all is where it was."""
    try:
        _move_all(plan, data_dir)
        os.unlink(_plan_file(data_dir))
    except BaseException as error:
        _move_back(plan, data_dir, error)
        raise
    clear(data_dir)


def _move_all(plan: _Plan, data_dir: str) -> None:
    draft, aside = draft_folder(data_dir), os.path.join(data_dir, plan.aside)
    # Once the first has moved in, what lies in the data folder under an old name may be new.
    if plan.old and not _missing(plan.new, draft):
        os.makedirs(aside, mode=0o700, exist_ok=True)
        _move(plan.old, data_dir, aside)
    _move(plan.new, draft, data_dir)


def _move_back(plan: _Plan, data_dir: str, reason: BaseException) -> None:
    draft, aside = draft_folder(data_dir), os.path.join(data_dir, plan.aside)
    try:
        _move(_missing(plan.new, draft), data_dir, draft)
        if os.path.isdir(aside):
            _move(plan.old, aside, data_dir)
            os.rmdir(aside)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_plan_file(data_dir))
        # A plan that came back after a power cut would find a draft that is half removed.
        sync_folder(draft)
    except OSError as error:
        why = fault(reason) if isinstance(reason, Exception) else "interrupted"
        raise StoreUnreadableError(
            f"The restore was broken off ({why}), and cannot be undone: {fault(error)}.",
            "Mend that, and run `imagedbd restore` again: it first finishes this one, as a start does.",
        ) from error


def _missing(names: Iterable[str], folder: str) -> list[str]:
    return [name for name in names if not os.path.lexists(os.path.join(folder, name))]


def _move(names: Iterable[str], source: str, target: str) -> None:
    """Those that moved already are left alone.

    :raises FileExistsError: something of that name is in both folders.
    """
    for name in names:
        if os.path.lexists(before := os.path.join(source, name)):
            if os.path.lexists(after := os.path.join(target, name)):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), after)
            os.rename(before, after)
    sync_folder(source)
    sync_folder(target)


def _plan_file(data_dir: str) -> str:
    return os.path.join(draft_folder(data_dir), _PLAN)


def _read_plan(data_dir: str) -> _Plan | None:
    path = _plan_file(data_dir)
    try:
        with open(path, encoding="ascii") as file:
            told = json.load(file)
        return _Plan(told["aside"], tuple(told["old"]), tuple(told["new"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnreadableError(
            f"A restore was broken off, and what was left to do cannot be read: {path}: {fault(error)}.",
            f"Move {os.path.dirname(path)} elsewhere, and run `imagedbd restore` again.",
        ) from error
