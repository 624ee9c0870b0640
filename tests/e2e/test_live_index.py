"""The index follows the folders while the daemon runs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from pictures import encoded, save

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


def test_every_picture_that_is_there_at_the_start_is_indexed(running: Machine) -> None:
    assert running.listed() == {"photos/one.jpg", "photos/trip/two.png", "photos/trip/three.webp"}
    status = running.json("status")
    assert (status["indexed"], status["pending"], status["failed"]) == (3, 0, 0)
    assert status["embeds_total"] == 3
    assert status["store"]["vectors"] == 3


def test_a_new_picture_is_found_by_itself(running: Machine) -> None:
    save(running.photos / "new.jpg", 4)
    running.until(lambda: "photos/new.jpg" in running.listed())


def test_an_overwritten_picture_keeps_its_id_and_gets_another_vector(running: Machine) -> None:
    before = running.json("show", str(running.photos / "one.jpg"))
    save(running.photos / "one.jpg", 5)
    running.wait()
    after = running.json("show", str(running.photos / "one.jpg"))
    assert after["id"] == before["id"]
    assert after["content_hash"] != before["content_hash"]
    assert running.json("status")["embeds_total"] == 4


def test_a_renamed_picture_is_not_embedded_again_and_keeps_its_id(running: Machine) -> None:
    before = running.json("show", str(running.photos / "one.jpg"))
    os.rename(running.photos / "one.jpg", running.photos / "renamed.jpg")
    running.until(lambda: "photos/renamed.jpg" in running.listed())
    running.wait()
    assert "photos/one.jpg" not in running.listed()
    assert running.json("show", str(running.photos / "renamed.jpg"))["id"] == before["id"]
    assert running.json("status")["embeds_total"] == 3


def test_a_deleted_picture_is_forgotten(running: Machine) -> None:
    os.remove(running.photos / "one.jpg")
    running.until(lambda: "photos/one.jpg" not in running.listed())


def test_a_picture_that_comes_back_within_a_day_is_not_embedded_again(running: Machine) -> None:
    content = (running.photos / "one.jpg").read_bytes()
    os.remove(running.photos / "one.jpg")
    running.until(lambda: "photos/one.jpg" not in running.listed())
    (running.photos / "back.jpg").write_bytes(content)
    running.until(lambda: "photos/back.jpg" in running.listed())
    assert running.json("status")["embeds_total"] == 3


def test_a_copy_is_not_embedded_again_and_is_a_picture_of_its_own(running: Machine) -> None:
    shutil.copy(running.photos / "one.jpg", running.photos / "copy.jpg")
    running.wait()
    rows = {os.path.basename(row["path"]): row for row in running.json("list")}
    assert rows["copy.jpg"]["content_hash"] == rows["one.jpg"]["content_hash"]
    assert rows["copy.jpg"]["id"] != rows["one.jpg"]["id"]
    assert running.json("status")["embeds_total"] == 3


def test_twin_pictures_that_arrive_together_are_embedded_once(running: Machine) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (running.photos / name).write_bytes(encoded(9))
    running.wait()
    assert len(running.listed()) == 6
    assert running.json("status")["embeds_total"] == 4


def test_two_pictures_that_swap_names_are_not_embedded_again(running: Machine) -> None:
    hashes = {row["path"]: row["content_hash"] for row in running.json("list")}
    one, two = running.photos / "one.jpg", running.photos / "trip" / "two.png"
    os.rename(one, running.photos / "tmp")
    os.rename(two, one)
    os.rename(running.photos / "tmp", two)
    running.wait()
    now = {row["path"]: row["content_hash"] for row in running.json("list")}
    assert now[str(one)] == hashes[str(two)]
    assert now[str(two)] == hashes[str(one)]
    assert running.json("status")["embeds_total"] == 3


def test_a_moved_folder_takes_its_pictures_along_without_embedding(running: Machine) -> None:
    os.rename(running.photos / "trip", running.photos / "journey")
    running.wait()
    assert running.listed() == {"photos/one.jpg", "photos/journey/two.png", "photos/journey/three.webp"}
    assert running.json("status")["embeds_total"] == 3


def test_a_removed_folder_takes_its_pictures_with_it(running: Machine) -> None:
    shutil.rmtree(running.photos / "trip")
    running.until(lambda: running.listed() == {"photos/one.jpg"})


def test_a_touched_picture_is_not_embedded_again(running: Machine) -> None:
    os.utime(running.photos / "one.jpg", (1_000_000_000, 1_000_000_000))
    running.wait()
    assert running.json("show", str(running.photos / "one.jpg"))["mtime"] == "2001-09-09T01:46:40Z"
    assert running.json("status")["embeds_total"] == 3


def test_a_picture_moves_between_roots_without_embedding(machine: Machine) -> None:
    other = machine.home / "other"
    save(machine.photos / "one.jpg", 1)
    save(other / "two.jpg", 2)
    machine.start(roots=[machine.photos, other])
    machine.wait()
    os.rename(machine.photos / "one.jpg", other / "one.jpg")
    machine.wait()
    assert machine.listed() == {"other/one.jpg", "other/two.jpg"}
    assert machine.json("status")["embeds_total"] == 2


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
