"""``imagedb bench`` measures, tells, and leaves all as it was."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from pictures import exif, save

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machine import Machine

KINDS = ["prompt", "picture", "metadata words", "condition", "all of them, fused", "whole command"]


@pytest.fixture
def scratch(machine: Machine) -> Iterator[str]:
    """Where temporary folders are made; its path is short, for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        machine.environment["TMPDIR"] = folder
        yield folder


def test_a_folder_is_indexed_and_both_daemons_are_asked(machine: Machine, scratch: str) -> None:
    for number in range(3):
        save(machine.photos / f"{number}.jpg", number, exif=exif(make="NIKON"))
    sample = machine.home / "sample"
    for number in range(5):
        save(sample / f"{number}.jpg", 10 + number)
    (sample / "broken.jpg").write_bytes(b"no picture")
    machine.environment["IMAGEDBD_STORE"] = "faiss"
    machine.start()
    machine.wait()
    before = machine.json("list")
    result = machine.json("bench", "--dir", str(sample), "--repeat", "2")
    assert (result["model"], result["store"], result["dtype"]) == (machine.model, "faiss", "fp32")
    assert result["indexing"].items() >= {"pictures": 5, "failed": 1, "made_up": False}.items()
    assert result["indexing"]["rate"] == pytest.approx(5 / result["indexing"]["seconds"], rel=0.1)
    for name, pictures in (("sample", 5), ("index", 3)):
        asked = result["queries"][name]
        assert asked["pictures"] == pictures
        assert list(asked["ms"]) == KINDS
        assert all(0 < times["p50"] <= times["p95"] for times in asked["ms"].values())
    assert machine.json("list") == before
    assert len(os.listdir(sample)) == 6
    assert os.listdir(scratch) == []


def test_without_a_daemon_photos_are_made_up_and_people_get_a_table(machine: Machine, scratch: str) -> None:
    done = machine.run("bench", "--pictures", "2", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    table = done.stdout.decode()
    assert "pictures/s (2 made-up photos of 11 megapixels in" in table
    assert all(f"\n{kind}  " in table for kind in KINDS)
    assert "no daemon answers" in table
    assert os.listdir(scratch) == []


def test_what_cannot_be_measured_is_told(machine: Machine, scratch: str) -> None:
    assert machine.run("bench", "--dir", "/nowhere").returncode == 2
    (machine.home / "empty").mkdir()
    done = machine.run("bench", "--dir", str(machine.home / "empty"))
    assert (done.returncode, b"No picture was indexed" in done.stderr) == (70, True)
    machine.environment["IMAGEDBD_MODEL"] = "local-dir:/nowhere"
    # To draw so many would take longer than the command is given.
    done = machine.run("bench", "--pictures", "10000")
    assert done.returncode == 70
    assert b"Traceback" not in done.stderr
    assert os.listdir(scratch) == []
