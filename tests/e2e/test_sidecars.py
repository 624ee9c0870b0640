"""Sidecars below a running daemon: what they say is searchable, live, after a restart, and after moves."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from negatives import dng
from packets import packet
from pictures import picture, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machine import Machine


def _said(machine: Machine, *names: str) -> list[Any]:
    """Rating, caption and keywords of these pictures; nothing for one that is not in the index."""
    rows = {row["name"]: row for row in machine.json("search", "--where", "width > 0", "-n", "50")}
    return [
        (rows[n]["rating"], rows[n]["caption"], rows[n]["keywords"]) if n in rows else None for n in names
    ]


def _embeds(machine: Machine) -> int:
    return int(machine.json("status")["embeds_total"])


def _shot(folder: Path) -> None:
    """One press of the button, as a camera that writes both leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / "IMG_1.DNG").write_bytes(dng(picture(1), preview=picture(1)))
    save(folder / "IMG_1.JPG", 1, format="JPEG")


@pytest.mark.parametrize("store", ["lance", "faiss"])
def test_changes_are_followed_live_and_over_a_restart(machine: Machine, store: str) -> None:
    shot, sidecar = ("IMG_1.DNG", "IMG_1.JPG"), machine.photos / "IMG_1.xmp"
    _shot(machine.photos)
    save(machine.photos / "other.jpg", 2)
    machine.start("--store", store)
    machine.wait()
    nothing = (None, None, [])
    assert _said(machine, *shot, "other.jpg") == [nothing] * 3
    embeds = _embeds(machine)

    # Nobody asks for a scan: events alone must do.
    sidecar.write_bytes(packet(rating=3, caption="The pier", keywords=("sea",)))
    machine.until(lambda: _said(machine, *shot) == [(3, "The pier", ["sea"])] * 2)
    assert {hit["name"] for hit in machine.json("search", "--text", "pier")} == set(shot)
    sidecar.write_bytes(packet(rating=5))
    machine.until(lambda: _said(machine, *shot) == [(5, None, [])] * 2)
    (machine.photos / "IMG_1.DNG.xmp").write_bytes(packet(keywords=("raw",)))
    machine.until(lambda: _said(machine, *shot) == [(5, None, ["raw"]), (5, None, [])])
    raw = machine.photos / "IMG_1.DNG"
    assert machine.json("show", str(raw))["sidecars"] == [f"{raw}.xmp", str(sidecar)]
    assert b"sidecars      IMG_1.DNG.xmp, IMG_1.xmp\n" in machine.run("show", str(raw)).stdout
    assert machine.json("show", str(machine.photos / "other.jpg"))["sidecars"] == []
    sidecar.unlink()
    machine.until(lambda: _said(machine, *shot) == [(None, None, ["raw"]), nothing])
    assert machine.listed() == {"photos/IMG_1.DNG", "photos/IMG_1.JPG", "photos/other.jpg"}
    assert _embeds(machine) == embeds

    machine.stop()
    (machine.photos / "IMG_1.DNG.xmp").write_bytes(packet(rating=1))
    (machine.photos / "other.xmp").write_bytes(packet(rating=2))
    machine.start("--store", store)
    machine.wait()
    assert _said(machine, *shot, "other.jpg") == [(1, None, []), nothing, (2, None, [])]

    machine.stop()
    (machine.photos / "other.xmp").unlink()
    machine.start("--store", store)
    machine.wait()
    assert _said(machine, *shot, "other.jpg") == [(1, None, []), nothing, nothing]
    assert _embeds(machine) == 0
    assert machine.json("failures") == []
    why = machine.json("why", str(machine.photos / "IMG_1.DNG.xmp"))
    assert why["state"] == "skipped"
    assert why["reason"].endswith("sidecar: what it says counts for the pictures of its name, IMG_1.DNG.")
    (machine.photos / "IMG_1.DNG.xmp").write_bytes(b"<broken")
    machine.wait()
    why = machine.json("why", str(machine.photos / "IMG_1.DNG.xmp"))
    assert "damaged, unfinished or too large, and says nothing of" in why["reason"]
    why = machine.json("why", str(machine.photos / "IMG_1.DNG"))
    assert why["reason"].endswith(". IMG_1.DNG.xmp beside it cannot be read, and says nothing of it.")


def test_moves_take_along_what_moves_and_nothing_else(machine: Machine) -> None:
    photos, away = machine.photos, machine.photos / "away"
    save(photos / "a.jpg", 1)
    save(photos / "b.jpg", 2)
    away.mkdir()
    for name in ("a", "b"):
        (photos / f"{name}.xmp").write_bytes(packet(caption=f"of {name}"))
    machine.start()
    machine.wait()
    assert _said(machine, "a.jpg", "b.jpg") == [(None, "of a", []), (None, "of b", [])]
    embeds = _embeds(machine)

    # With its sidecar; without; and a whole folder.
    for name in ("a.jpg", "a.xmp", "b.jpg"):
        (photos / name).rename(away / name)
    machine.wait()
    machine.until(lambda: _said(machine, "a.jpg", "b.jpg") == [(None, "of a", []), (None, None, [])])
    away.rename(photos / "moved")
    machine.wait()
    assert _said(machine, "a.jpg", "b.jpg") == [(None, "of a", []), (None, None, [])]
    (photos / "b.xmp").rename(photos / "moved" / "b.xmp")
    machine.until(lambda: _said(machine, "b.jpg") == [(None, "of b", [])])
    (photos / "moved" / "a.xmp").rename(photos / "moved" / "c.xmp")
    machine.until(lambda: _said(machine, "a.jpg") == [(None, None, [])])
    (photos / "moved" / "a.jpg").rename(photos / "moved" / "c.jpg")
    machine.until(lambda: _said(machine, "c.jpg") == [(None, "of a", [])])
    assert machine.listed() == {"photos/moved/b.jpg", "photos/moved/c.jpg"}
    assert _embeds(machine) == embeds


def test_a_copy_has_the_words_of_the_sidecars_beside_it_and_of_no_others(machine: Machine) -> None:
    photos, sub = machine.photos, machine.photos / "sub"
    save(photos / "a.jpg", 1)
    (photos / "a.xmp").write_bytes(packet(rating=4, caption="The pier", keywords=("sea",)))
    machine.start()
    machine.wait()
    embeds = _embeds(machine)
    sub.mkdir()
    shutil.copy2(photos / "a.jpg", photos / "alone.jpg")
    shutil.copy2(photos / "a.jpg", photos / "a.jpeg")
    shutil.copy2(photos / "a.jpg", sub / "with.jpg")
    shutil.copy2(photos / "a.xmp", sub / "with.jpg.xmp")
    machine.wait()
    said, nothing = (4, "The pier", ["sea"]), (None, None, [])
    assert _said(machine, "a.jpg", "a.jpeg", "with.jpg", "alone.jpg") == [said, said, said, nothing]
    # Each goes its own way.
    (sub / "with.jpg.xmp").write_bytes(packet(rating=1))
    (photos / "a.xmp").unlink()
    machine.until(lambda: _said(machine, "a.jpg", "a.jpeg", "with.jpg") == [nothing, nothing, (1, None, [])])
    assert _embeds(machine) == embeds


@pytest.mark.parametrize("store", ["lance", "faiss"])
def test_a_ledger_that_was_lost_is_built_anew_with_what_sidecars_say_by_now(
    machine: Machine, store: str
) -> None:
    photos = machine.photos
    for number, name in enumerate(("stays", "changes", "comes", "goes")):
        save(photos / f"{name}.jpg", number)
    for name in ("stays", "changes", "goes"):
        (photos / f"{name}.xmp").write_bytes(packet(rating=2, caption=name))
    machine.start("--store", store)
    machine.wait()
    machine.stop()
    for file in (machine.home / "data").glob("ledger.sqlite3*"):
        file.unlink()
    (photos / "changes.xmp").write_bytes(packet(rating=3, caption="changed"))
    (photos / "comes.jpg.xmp").write_bytes(packet(caption="came"))
    (photos / "goes.xmp").unlink()
    machine.start("--store", store)
    machine.wait()
    now = [(2, "stays", []), (3, "changed", []), (None, "came", []), (None, None, [])]
    names = ("stays.jpg", "changes.jpg", "comes.jpg", "goes.jpg")
    assert _said(machine, *names) == now
    assert _embeds(machine) == 0
    # What was rebuilt tells the next changes as the first one did.
    (photos / "stays.xmp").unlink()
    machine.until(lambda: _said(machine, "stays.jpg") == [(None, None, [])])
    machine.stop()
    (photos / "changes.xmp").unlink()
    machine.start("--store", store)
    machine.wait()
    assert _said(machine, "changes.jpg") == [(None, None, [])]
    assert _embeds(machine) == 0


@pytest.mark.parametrize("how", [os.rename, shutil.copytree])
def test_a_relocated_root_keeps_what_its_sidecars_say_and_follows_them(
    machine: Machine, how: Callable[[Path, Path], object]
) -> None:
    """Renamed, each file is the one that it was; in a copy, no inode and no time of change is."""
    (machine.home / "config.toml").write_text(f'roots = ["{machine.photos}"]\n')
    photos, new = machine.photos, machine.home / "disk"
    for number, name in enumerate(("stays", "changes", "goes")):
        save(photos / "trip" / f"{name}.jpg", number)
        (photos / "trip" / f"{name}.xmp").write_bytes(packet(rating=2, caption=name))
    machine.start(roots=[])
    machine.wait()
    embeds = _embeds(machine)
    how(photos, new)
    (new / "trip" / "changes.xmp").write_bytes(packet(rating=5))
    (new / "trip" / "goes.xmp").unlink()
    done = machine.run("root", "relocate", str(photos), str(new))
    assert done.returncode == 0, done.stderr.decode()
    machine.wait()
    names = ("stays.jpg", "changes.jpg", "goes.jpg")
    assert _said(machine, *names) == [(2, "stays", []), (5, None, []), (None, None, [])]
    (new / "trip" / "stays.jpg.xmp").write_bytes(packet(rating=1))
    machine.until(lambda: _said(machine, "stays.jpg") == [(1, "stays", [])])
    assert machine.listed() == {f"disk/trip/{name}" for name in names}
    assert _embeds(machine) == embeds


def test_hidden_ones_are_nobodys_until_they_are_shown(machine: Machine) -> None:
    photos = machine.photos
    save(photos / "a.jpg", 1)
    save(photos / "other.jpg", 2)
    for name in (".a.xmp", ".a.jpg.xmp", "._a.xmp", ".xmp"):
        (photos / name).write_bytes(packet(rating=5, caption=name))
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "a.xmp").write_bytes(packet(rating=5))
    machine.start()
    machine.wait()
    assert _said(machine, "a.jpg") == [(None, None, [])]
    (photos / ".a.jpg.xmp").rename(photos / "a.jpg.xmp")
    machine.until(lambda: _said(machine, "a.jpg") == [(5, ".a.jpg.xmp", [])])
    (photos / "a.jpg.xmp").rename(photos / ".a.jpg.xmp")
    machine.until(lambda: _said(machine, "a.jpg") == [(None, None, [])])
    machine.wait()
    assert machine.listed() == {"photos/a.jpg", "photos/other.jpg"}
    assert machine.json("failures") == []
    # A picture that is hidden takes no notice of anything, and takes its words along when it is shown.
    (photos / "a.jpg").rename(photos / ".a.jpg")
    machine.until(lambda: machine.listed() == {"photos/other.jpg"})
    (photos / ".a.jpg").rename(photos / "b.jpg")
    (photos / ".a.xmp").rename(photos / "b.xmp")
    machine.until(lambda: _said(machine, "b.jpg") == [(5, ".a.xmp", [])])
    assert _embeds(machine) == 2
