"""A full disk holds indexing up and nothing else, and passes by itself."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from oracle import assert_equal, indexed
from pictures import save

from imagedbd.stores import KINDS

if TYPE_CHECKING:
    from machine import Machine

DISK_BYTES = 24 << 20


@pytest.fixture
def disk(machine: Machine) -> Iterator[Path]:
    """A small file system of its own for the index."""
    folder = machine.home / "data"
    folder.mkdir(mode=0o700)
    options = f"size={DISK_BYTES},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "imagedbd-test", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a file system takes root: {mounted.stderr.decode().strip()}")
    yield folder
    machine.close()
    machine.process = None
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_pauses_indexing_and_passes_by_itself(machine: Machine, disk: Path, kind: str) -> None:
    machine.environment |= {"IMAGEDBD_STORE": kind, "IMAGEDBD_MIN_FREE": "1"}
    for number in range(8):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    before = machine.listed()
    assert len(before) == 8
    ballast = fill(disk)
    for number in range(8, 40):
        save(machine.photos / f"{number}.jpg", number)
    os.unlink(machine.photos / "0.jpg")
    machine.until(lambda: machine.json("status")["state"] == "blocked", timeout=30)
    # Whichever of ledger and store it hits first.
    assert re.search(r"disk is full|No space left", machine.json("status")["doing"])
    assert machine.run("wait", "--timeout", "60").returncode == 70
    query = str(machine.photos / "3.jpg")
    hits = machine.json("search", "--image", query)
    assert hits[0]["path"] == query
    assert len(machine.json("search", "--where", "width > 1")) >= 8
    ballast.unlink()
    machine.until(lambda: machine.json("status")["state"] != "blocked", timeout=30)
    machine.wait()
    assert_equal(machine, machine.photos)
    assert len(machine.listed()) == 39
    assert machine.json("search", "--image", str(machine.photos / "30.jpg"))[0]["path"].endswith("/30.jpg")
    assert machine.stop() == 0
    machine.start()
    machine.wait()
    assert len(machine.listed()) == 39
    assert machine.json("status")["embeds_total"] == 0


def test_room_that_others_need_is_left_to_them(machine: Machine) -> None:
    save(machine.photos / "1.jpg", 1)
    machine.environment["IMAGEDBD_MIN_FREE"] = str(1 << 60)
    machine.start()
    machine.until(lambda: machine.json("status")["state"] == "blocked")
    assert "MB are free on the disk of" in machine.json("status")["doing"]
    assert machine.json("why", str(machine.photos / "1.jpg"))["reason"] == machine.json("status")["doing"]
    assert machine.run("wait", "--timeout", "30").returncode == 70
    assert machine.listed() == set()


def leave(disk: Path, room: int) -> None:
    """Have just so many bytes free on the disk, about."""
    ballast = fill(disk)
    with ballast.open("rb+") as file:
        file.truncate(max(0, ballast.stat().st_size - room))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "room",
    # In the second, the ledger is the first that finds none.
    [0, 64 << 10, *(pytest.param(kb << 10, marks=pytest.mark.slow) for kb in (4, 8, 12, 16, 24, 32, 128))],
)
def test_a_reset_without_room_forgets_all_or_nothing_and_ends_in_equality(
    machine: Machine, disk: Path, kind: str, room: int
) -> None:
    machine.environment |= {"IMAGEDBD_STORE": kind, "IMAGEDBD_MIN_FREE": "1"}
    for number in range(8):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    before = indexed(machine)
    leave(disk, room)
    done = machine.run("reset", "--yes")
    ballast = disk / "ballast"
    if done.returncode == 0:
        assert room
    else:
        assert done.returncode == 70
        assert re.search(rb"disk is full|No space left", done.stderr), done.stderr
        assert b"Traceback" not in done.stderr
        assert indexed(machine) == before
        assert machine.json("search", "--image", str(machine.photos / "3.jpg"))[0]["name"] == "3.jpg"
    save(machine.photos / "new.jpg", 50)
    (machine.photos / "0.jpg").unlink()
    ballast.unlink()
    machine.until(lambda: machine.json("status")["state"] != "blocked", timeout=30)
    assert_equal(machine, machine.photos)
    # Whatever it has been through, a restart finds the same index, and nothing of another.
    assert machine.stop() == 0
    machine.start()
    assert_equal(machine, machine.photos)
    assert machine.json("status")["embeds_total"] == 0
    assert machine.run("reset", "--yes").returncode == 0
    assert_equal(machine, machine.photos)
    assert len([name for name in os.listdir(disk) if name.startswith(kind)]) == 1
