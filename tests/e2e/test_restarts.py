"""What the index is after a restart, a kill, a lost file of its own, or a folder that was away."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from pictures import save

if TYPE_CHECKING:
    from machine import Machine


@pytest.fixture
def running(machine: Machine) -> Machine:
    """A daemon on three pictures, two of them in a folder."""
    save(machine.photos / "one.jpg", 1)
    save(machine.photos / "trip" / "two.png", 2)
    save(machine.photos / "trip" / "three.webp", 3)
    machine.start()
    machine.wait()
    return machine


def test_a_root_that_is_unmounted_or_renamed_keeps_its_pictures(running: Machine) -> None:
    os.rename(running.photos, running.home / "away")
    running.until(lambda: running.json("root", "list")[0]["state"] == "offline")
    running.run("scan")
    assert len(running.listed()) == 3
    os.rename(running.home / "away", running.photos)
    running.wait()
    assert len(running.listed()) == 3
    assert running.json("status")["embeds_total"] == 3


def test_a_restart_embeds_nothing_and_sees_what_happened_meanwhile(running: Machine) -> None:
    running.stop()
    os.rename(running.photos / "one.jpg", running.photos / "renamed.jpg")
    save(running.photos / "new.jpg", 8)
    running.start()
    running.wait()
    assert running.listed() == {
        "photos/renamed.jpg",
        "photos/new.jpg",
        "photos/trip/two.png",
        "photos/trip/three.webp",
    }
    assert running.json("status")["embeds_total"] == 1


def test_a_lost_ledger_is_built_anew_without_embedding(running: Machine) -> None:
    rows = running.json("list")
    running.stop()
    for file in (running.home / "data").glob("ledger.sqlite3*"):
        file.unlink()
    running.start()
    running.wait()
    assert running.json("list") == rows
    assert running.json("status")["embeds_total"] == 0


def test_a_lost_store_is_embedded_anew(running: Machine) -> None:
    rows = {row["path"] for row in running.json("list")}
    running.stop()
    shutil.rmtree(running.home / "data" / "lance")
    running.start()
    running.wait()
    assert {row["path"] for row in running.json("list")} == rows
    assert running.json("status")["embeds_total"] == 3


def test_the_daemon_is_killed_and_goes_on_where_it_was(running: Machine) -> None:
    for number in range(10, 30):
        save(running.photos / f"{number}.jpg", number)
    running.until(lambda: len(running.listed()) > 3)
    running.stop(9)
    running.start()
    running.wait()
    assert len(running.listed()) == 23
