"""Sidecars below a running daemon: what they say is searchable, live, after a restart, and after moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from negatives import dng
from packets import packet
from pictures import picture, save

if TYPE_CHECKING:
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
