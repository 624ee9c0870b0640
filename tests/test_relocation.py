from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagedbd.datatypes import LedgerEntry, PictureState, Signature
from imagedbd.errors import DaemonStoppingError, ImagedbError, NothingMatchedError, UsageError
from imagedbd.ledger import Ledger, PlaceIdentity
from imagedbd.relocation import PAGE, Relocation, check_places
from imagedbd.rules import Rules


class World:
    """Two folders, and a ledger of what lay in the first and lies in the second."""

    def __init__(self, base: Path) -> None:
        self.old, self.new = base / "old", base / "new"
        self.new.mkdir()
        self.ledger = Ledger(str(base / "ledger.sqlite3"))
        self.roots = [str(self.old)]

    @property
    def relocation(self) -> Relocation:
        return Relocation(str(self.old), str(self.new), Rules(self.roots), self.ledger)

    def add(self, name: str, **entry: object) -> LedgerEntry:
        """A picture that is at the new place, and known at the old one."""
        path = self.new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        now = Signature.of(os.lstat(path))
        # Another disk: all is different but size and time.
        known = Signature(now.device + 1, now.inode + 1, now.size, now.mtime_ns, now.ctime_ns - 1)
        made = LedgerEntry(str(self.old / name), known, PictureState.INDEXED, f"id of {name}", "hash")
        self.ledger.put([made])
        return made

    def bring_over(self, is_over: Callable[[], bool] = lambda: False) -> int:
        return self.relocation.bring_over(lambda page: self.ledger.put(page.values(), forget=page), is_over)

    def known(self) -> list[str]:
        return [entry.path for entry in self.ledger.under("/")]


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    world.ledger.close()


def test_what_is_known_goes_on_under_the_new_path_and_a_scan_decides_whether_it_is_still_true(
    world: World,
) -> None:
    made = world.add("a/b.jpg")
    assert world.bring_over() == 1
    assert list(world.ledger.under("/")) == [replace(made, path=str(world.new / "a" / "b.jpg"))]


def test_more_than_a_page_of_them(world: World) -> None:
    made = world.add("a.jpg")
    names = [f"{number}\n'é\udcff.jpg" for number in range(2 * PAGE)]
    world.ledger.put(
        [LedgerEntry(f"{world.old}/{name}", made.signature, PictureState.FAILED) for name in names]
    )
    assert world.bring_over() == 2 * PAGE + 1
    assert set(world.known()) == {f"{world.new}/{name}" for name in [*names, "a.jpg"]}


def test_a_daemon_that_stops_does_not_wait_for_the_end(world: World) -> None:
    made = world.add("a.jpg")
    names = [f"{number}.jpg" for number in range(2 * PAGE)]
    world.ledger.put([replace(made, path=f"{world.old}/{name}") for name in names])
    stops = iter([False, True])
    with pytest.raises(DaemonStoppingError, match=f"{PAGE:,} files"):
        world.bring_over(lambda: next(stops))
    brought = [path for path in world.known() if path.startswith(f"{world.new}/")]
    assert len(brought) == PAGE
    assert len(world.known()) == 2 * PAGE + 1
    assert world.ledger.relocations() == {str(world.old): str(world.new)}
    assert world.bring_over() == PAGE + 1
    assert world.known() == sorted(f"{world.new}/{name}" for name in [*names, "a.jpg"])
    assert world.ledger.relocations() == {}


def test_mount_points_below_are_brought_over_once_however_often_it_is_tried(world: World) -> None:
    world.add("a.jpg")
    identity = PlaceIdentity(1, 2, 3, mounted=True)
    for place in (world.old, world.old / "usb"):
        world.ledger.remember_place(str(place), identity)
    with pytest.raises(DaemonStoppingError):
        world.bring_over(lambda: True)
    assert world.bring_over() == 1
    assert world.ledger.places_under("/") == {str(world.new / "usb"): identity}


def test_what_was_indexed_at_the_new_place_since_a_failed_try_is_newer(world: World) -> None:
    made = world.add("a.jpg")
    newer = replace(made, path=str(world.new / "a.jpg"), content_hash="other")
    world.ledger.put([newer])
    assert world.bring_over() == 0
    assert world.ledger.get(newer.path) == newer


def test_a_root_nested_in_the_old_one_stays_with_what_belongs_to_it(world: World) -> None:
    world.add("a.jpg")
    nested = world.add("nested/b.jpg")
    world.roots.append(str(world.old / "nested"))
    identity = PlaceIdentity(1, 2, 3)
    for place in (world.old, world.old / "nested", world.old / "usb"):
        world.ledger.remember_place(str(place), identity)
    world.bring_over()
    assert world.known() == sorted([str(world.new / "a.jpg"), nested.path])
    assert world.ledger.root_seen(str(world.old)) is None
    assert world.ledger.root_seen(str(world.old / "nested")) == identity
    assert world.ledger.root_seen(str(world.new)) is None
    assert world.ledger.root_seen(str(world.new / "usb")) == identity


def test_a_place_where_the_pictures_are_is_taken(world: World) -> None:
    for number in range(5):
        world.add(f"{number}.jpg")
    for number in range(2):
        (world.new / f"{number}.jpg").unlink()
    world.relocation.check()


def test_a_place_where_they_are_not_is_refused(world: World) -> None:
    for number in range(5):
        world.add(f"{number}.jpg")
    for number in range(3):
        (world.new / f"{number}.jpg").unlink()
    with pytest.raises(ImagedbError, match=r"of 5 pictures of .*, 2 were found there"):
        world.relocation.check()


def test_a_folder_that_is_no_root_is_refused(world: World) -> None:
    world.roots = [str(world.new)]
    with pytest.raises(NothingMatchedError, match="not among the watched folders"):
        world.relocation.check()


def test_a_place_in_the_daemons_own_folder_is_refused(world: World) -> None:
    rules = Rules(world.roots, [str(world.new.parent)])
    with pytest.raises(ImagedbError, match="imagedbd's own"):
        Relocation(str(world.old), str(world.new), rules, world.ledger).check()


def test_a_place_that_is_in_the_index_is_refused(world: World) -> None:
    made = world.add("a.jpg")
    world.ledger.put([LedgerEntry(str(world.new / "a.jpg"), made.signature, PictureState.INDEXED)])
    with pytest.raises(ImagedbError, match="in the index already"):
        world.relocation.check()


@pytest.mark.parametrize(
    ("new", "command"),
    [
        ("/b/my pictures", "`imagedb root remove /a`"),
        ("/a/inner", "`imagedb root add /a/inner && imagedb root remove /a`"),
    ],
)
def test_a_root_that_moved_into_one_that_is_watched_comes_with_the_command_that_is_left_to_do(
    monkeypatch: pytest.MonkeyPatch, new: str, command: str
) -> None:
    monkeypatch.setattr("os.path.isdir", lambda _: True)
    with pytest.raises(UsageError) as told:
        check_places("/a", new, ("/a", "/b"))
    assert command in told.value.message
