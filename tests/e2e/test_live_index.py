"""The index follows the folders while the daemon runs."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pictures import encoded, save

if TYPE_CHECKING:
    from machine import Machine

numbers = itertools.count(1)


@dataclass
class Corner:
    """A folder of its own below the shared daemon's root, with three pictures that nobody else has."""

    machine: Machine
    folder: Path
    embedded_before: int
    seed: int

    def listed(self) -> set[str]:
        """The pictures of this corner in the index, relative to it."""
        rows = self.machine.json("list")
        paths = (row["path"] for row in rows)
        return {os.path.relpath(p, self.folder) for p in paths if p.startswith(f"{self.folder}/")}

    def show(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = self.machine.json("show", str(self.folder / name))
        return record

    def embedded(self) -> int:
        """How many pictures went through the model since the corner was begun."""
        total: int = self.machine.json("status")["embeds_total"]
        return total - self.embedded_before


@pytest.fixture(scope="module")
def alive(shared_machine: Machine) -> Machine:
    (shared_machine.home / "other").mkdir()
    shared_machine.start(roots=[shared_machine.photos, shared_machine.home / "other"])
    return shared_machine


@pytest.fixture
def corner(alive: Machine) -> Corner:
    number = next(numbers)
    before = alive.json("status")["embeds_total"]
    corner = Corner(alive, alive.photos / f"corner{number}", before, 1000 * number)
    save(corner.folder / "one.jpg", corner.seed + 1)
    save(corner.folder / "trip" / "two.png", corner.seed + 2)
    save(corner.folder / "trip" / "three.webp", corner.seed + 3)
    alive.wait()
    return corner


def test_every_picture_that_is_there_is_indexed_once(corner: Corner) -> None:
    assert corner.listed() == {"one.jpg", "trip/two.png", "trip/three.webp"}
    assert corner.embedded() == 3
    status = corner.machine.json("status")
    assert (status["pending"], status["failed"]) == (0, 0)
    assert status["indexed"] == status["store"]["rows"] == status["store"]["vectors"]


def test_a_new_picture_is_found_by_itself(corner: Corner) -> None:
    save(corner.folder / "new.jpg", corner.seed + 4)
    corner.machine.until(lambda: "new.jpg" in corner.listed())


def test_an_overwritten_picture_keeps_its_id_and_gets_another_vector(corner: Corner) -> None:
    before = corner.show("one.jpg")
    save(corner.folder / "one.jpg", corner.seed + 5)
    corner.machine.until(lambda: corner.show("one.jpg")["content_hash"] != before["content_hash"])
    assert corner.show("one.jpg")["id"] == before["id"]
    assert corner.embedded() == 4


def test_a_renamed_picture_is_not_embedded_again_and_keeps_its_id(corner: Corner) -> None:
    before = corner.show("one.jpg")
    os.rename(corner.folder / "one.jpg", corner.folder / "renamed.jpg")
    corner.machine.until(lambda: corner.listed() == {"renamed.jpg", "trip/two.png", "trip/three.webp"})
    assert corner.show("renamed.jpg")["id"] == before["id"]
    assert corner.embedded() == 3


def test_a_deleted_picture_is_forgotten(corner: Corner) -> None:
    os.remove(corner.folder / "one.jpg")
    corner.machine.until(lambda: "one.jpg" not in corner.listed())


def test_a_picture_that_comes_back_is_not_embedded_again(corner: Corner) -> None:
    before = corner.show("one.jpg")
    content = (corner.folder / "one.jpg").read_bytes()
    os.remove(corner.folder / "one.jpg")
    corner.machine.until(lambda: "one.jpg" not in corner.listed())
    (corner.folder / "back.jpg").write_bytes(content)
    corner.machine.until(lambda: "back.jpg" in corner.listed())
    assert corner.show("back.jpg")["id"] == before["id"]
    assert corner.embedded() == 3


def test_a_copy_is_not_embedded_again_and_is_a_picture_of_its_own(corner: Corner) -> None:
    shutil.copy(corner.folder / "one.jpg", corner.folder / "copy.jpg")
    corner.machine.until(lambda: "copy.jpg" in corner.listed())
    copy, original = corner.show("copy.jpg"), corner.show("one.jpg")
    assert copy["content_hash"] == original["content_hash"]
    assert copy["id"] != original["id"]
    assert corner.embedded() == 3


def test_twin_pictures_that_arrive_together_are_embedded_once(corner: Corner) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (corner.folder / name).write_bytes(encoded(corner.seed + 9))
    corner.machine.wait()
    assert len(corner.listed()) == 6
    assert corner.embedded() == 4


def test_two_pictures_that_swap_names_are_not_embedded_again(corner: Corner) -> None:
    one, two = corner.folder / "one.jpg", corner.folder / "trip" / "two.png"
    hashes = corner.show("one.jpg")["content_hash"], corner.show("trip/two.png")["content_hash"]
    os.rename(one, corner.folder / "tmp")
    os.rename(two, one)
    os.rename(corner.folder / "tmp", two)
    corner.machine.wait()
    assert (corner.show("trip/two.png")["content_hash"], corner.show("one.jpg")["content_hash"]) == hashes
    assert corner.embedded() == 3


def test_a_moved_folder_takes_its_pictures_along_without_embedding(corner: Corner) -> None:
    os.rename(corner.folder / "trip", corner.folder / "journey")
    corner.machine.until(lambda: corner.listed() == {"one.jpg", "journey/two.png", "journey/three.webp"})
    assert corner.embedded() == 3


def test_a_removed_folder_takes_its_pictures_with_it(corner: Corner) -> None:
    shutil.rmtree(corner.folder / "trip")
    corner.machine.until(lambda: corner.listed() == {"one.jpg"})


def test_a_touched_picture_is_not_embedded_again(corner: Corner) -> None:
    os.utime(corner.folder / "one.jpg", (1_000_000_000, 1_000_000_000))
    corner.machine.until(lambda: corner.show("one.jpg")["mtime"] == "2001-09-09T01:46:40Z")
    assert corner.embedded() == 3


def test_a_picture_moves_between_roots_without_embedding(corner: Corner) -> None:
    target = corner.machine.home / "other" / f"{corner.folder.name}.jpg"
    os.rename(corner.folder / "one.jpg", target)
    corner.machine.until(lambda: str(target) in {row["path"] for row in corner.machine.json("list")})
    corner.machine.until(lambda: corner.listed() == {"trip/two.png", "trip/three.webp"})
    assert corner.embedded() == 3


def test_the_last_picture_of_a_root_is_forgotten_like_any_other(alive: Machine) -> None:
    other = alive.home / "other"
    shutil.rmtree(other)
    other.mkdir()
    save(other / "last.jpg", 99)
    alive.until(lambda: str(other / "last.jpg") in {row["path"] for row in alive.json("list")})
    os.remove(other / "last.jpg")
    alive.until(lambda: not any(row["path"].startswith(str(other)) for row in alive.json("list")))
