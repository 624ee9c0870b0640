"""A format whose package is missing: said, left alone, and made up for when the package is there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from negatives import dng
from pictures import picture, save

from imagedbd.readers import HEIF, JXL, READERS, loaded

if TYPE_CHECKING:
    from machine import Machine


def _hide(machine: Machine, *modules: str) -> None:
    """As if these were not installed, for every process of this machine's from the next start on."""
    machine.environment["IMAGEDBD_STUB_HIDES"] = ",".join(modules)


def _fill(photos: Path) -> None:
    for reader in (HEIF, JXL):
        loaded(reader)
    save(photos / "a.heic", 1)
    stream = io.BytesIO()
    picture(2).save(stream, "JXL")
    (photos / "b.jxl").write_bytes(stream.getvalue())
    (photos / "c.dng").write_bytes(dng(picture(3), preview=picture(3)))
    save(photos / "d.jpg", 4)


@pytest.mark.parametrize("store", ["lance", "faiss"])
def test_what_lacks_its_package_is_indexed_by_itself_after_the_install(machine: Machine, store: str) -> None:
    _fill(machine.photos)
    _hide(machine, *(reader.module for reader in READERS))
    machine.start("--store", store)
    machine.wait()
    assert machine.listed() == {"photos/d.jpg"}
    failures = {Path(row["path"]).name: row for row in machine.json("failures")}
    for name, reader in zip(("a.heic", "b.jxl", "c.dng"), READERS, strict=True):
        assert reader.package in failures[name]["reason"]
        assert f"pip install 'imagedbd[{reader.extra}]'" in failures[name]["reason"]
        why = machine.json("why", str(machine.photos / name))
        assert (why["state"], why["reason"]) == ("failed", failures[name]["reason"])

    machine.stop()
    machine.start("--store", store)
    machine.wait()
    again = {Path(row["path"]).name: row["attempts"] for row in machine.json("failures")}
    assert again == {name: row["attempts"] for name, row in failures.items()}

    machine.stop()
    _hide(machine)
    machine.start("--store", store)
    machine.wait()
    assert machine.json("failures") == []
    assert machine.listed() == {"photos/a.heic", "photos/b.jxl", "photos/c.dng", "photos/d.jpg"}
    assert {row["format"] for row in machine.json("search", "--where", "width = 320 AND height = 240")} == {
        *("HEIF", "JXL", "DNG", "JPEG")
    }


def test_a_file_of_such_a_format_can_be_asked_for(machine: Machine) -> None:
    _fill(machine.photos)
    machine.start()
    machine.wait()
    outside = machine.home / "outside.dng"
    outside.write_bytes(dng(picture(3), preview=picture(3)))
    assert machine.json("search", str(outside))[0]["name"] == "c.dng"
