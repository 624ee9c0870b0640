"""What the index has to be: the folders, by path and content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from imagedbd.formats import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from machine import Machine


def pictures_in(
    *roots: Path, seen_from: Path = Path("/"), without: tuple[Path, ...] = ()
) -> list[tuple[str, str]]:
    """Path and content hash of every file with a picture's name, hidden folders and links left out.

    :param seen_from: how this process reaches the daemon's ``/``.
    :param without: folders that are to be left alone.
    """
    found = {
        str(path): blake3((seen_from / path.relative_to("/")).read_bytes()).hexdigest()
        for root in roots
        for path in _files(root, seen_from)
        if not any(folder in path.parents for folder in without)
    }
    return sorted(found.items())


def _files(root: Path, seen_from: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(seen_from / root.relative_to("/")):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".") and not path.is_symlink():
                yield Path("/") / path.relative_to(seen_from)


def indexed(machine: Machine) -> list[tuple[str, str]]:
    """What ``imagedb list`` says, each row once for as often as it is there."""
    return sorted((row["path"], row["content_hash"]) for row in machine.json("list"))


def assert_equal(
    machine: Machine, *roots: Path, seen_from: Path = Path("/"), without: tuple[Path, ...] = ()
) -> None:
    """After ``imagedb wait``, index and folders are one."""
    machine.wait()
    assert indexed(machine) == pictures_in(*roots, seen_from=seen_from, without=without)
    status = machine.json("status")
    assert status["store"]["rows"] == status["indexed"]
    assert (status["pending"], status["waiting"], status["failed"]) == (0, 0, 0)
