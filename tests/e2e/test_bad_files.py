"""One bad file is one line in ``imagedb failures``, or is skipped and explained; all others are indexed."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from typing import TYPE_CHECKING

from pictures import encoded, save

if TYPE_CHECKING:
    from pathlib import Path

    from machine import Machine


def bomb() -> bytes:
    """A PNG of a few hundred bytes that asks for 60,000 by 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def make_bad_files(folder: Path) -> set[str]:
    """Files that cannot be decoded; returns their names."""
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "zeros.png": b"\0" * 5000,
        "truncated.jpg": encoded(1)[:3000],
        "bomb.png": bomb(),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return set(contents)


def test_bad_files_are_reported_and_everything_else_is_indexed(machine: Machine) -> None:
    bad = make_bad_files(machine.photos)
    hostile = [b"line\nbreak.jpg", b"quote'\".jpg", b"' OR 1=1 --.jpg", b"bytes\xff\xfe.jpg", b"-rf.jpg"]
    for number, name in enumerate(hostile):
        with open(os.path.join(os.fsencode(machine.photos), name), "wb") as file:
            file.write(encoded(100 + number))
    save(machine.photos / "wrong-suffix.png", 50, format="JPEG")
    os.mkfifo(machine.photos / "fifo.jpg")
    os.symlink("wrong-suffix.png", machine.photos / "link.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machine.photos / "socket.jpg"))
        machine.start()
        machine.wait()

    failures = {os.path.basename(row["path"]): row for row in machine.json("failures")}
    assert set(failures) == bad
    assert all(row["reason"] and row["attempts"] == 1 for row in failures.values())
    names = {os.path.basename(os.fsencode(row["path"])) for row in machine.json("list")}
    assert names == {*hostile, b"wrong-suffix.png"}
    for name in ("fifo.jpg", "link.jpg", "socket.jpg"):
        answer = machine.json("why", str(machine.photos / name))
        assert answer["state"] == "skipped"
        assert answer["reason"]


def test_a_picture_cut_short_waits_for_the_model_and_is_a_failure_when_it_has_come(machine: Machine) -> None:
    """Its pixels are looked at by nobody before; list, why and failures tell the same all along."""
    late = machine.home / "late"
    machine.environment["IMAGEDBD_MODEL"] = f"local-dir:{late}"
    save(machine.photos / "whole.jpg", 1)
    cut = machine.photos / "cut.jpg"
    cut.write_bytes(encoded(2)[:3000])
    machine.start()
    machine.until(lambda: machine.json("status")["waiting"] == 2)
    assert machine.listed() == {"photos/whole.jpg", "photos/cut.jpg"}
    assert machine.json("failures") == []
    why = machine.json("why", str(cut))
    assert why["state"] == "waiting"
    assert "whether all of it can be read shows then" in why["reason"]

    late.mkdir()
    (late / "open_clip_config.json").write_text("{}")
    assert machine.run("model", "pull").returncode == 0
    machine.wait()
    assert machine.listed() == {"photos/whole.jpg"}
    (failure,) = machine.json("failures")
    why = machine.json("why", str(cut))
    assert (failure["path"], why["state"], why["reason"]) == (str(cut), "failed", failure["reason"])
    assert machine.run("show", str(cut)).returncode == 1
    assert machine.json("status")["failed"] == 1


def test_what_has_no_pictures_suffix_is_skipped_and_explained(machine: Machine) -> None:
    save(machine.photos / "picture.txt", 1, format="JPEG")
    machine.start()
    machine.wait()
    assert machine.listed() == set()
    answer = machine.json("why", str(machine.photos / "picture.txt"))
    assert answer["state"] == "skipped"
    assert "suffix" in answer["reason"]


def test_a_file_that_may_not_be_read_is_reported(machine: Machine, another_user: str) -> None:
    save(machine.photos / "secret.jpg", 1).chmod(0)
    save(machine.photos / "public.jpg", 2)
    machine.start(another_user=another_user)
    machine.wait()
    (failure,) = machine.json("failures")
    assert failure["path"].endswith("/secret.jpg")
    assert "permission" in failure["reason"].lower()
    assert machine.listed() == {"photos/public.jpg"}


def test_a_disk_that_fails_for_a_while_costs_nothing_and_is_told(machine: Machine, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    machine.environment |= {
        "IMAGEDBD_TEST_BAD_DISK": str(bad),
        "IMAGEDBD_RESCAN_UNHEARD": "0.3s",
    }
    paths = [save(machine.photos / f"{number}.jpg", number) for number in range(5)]
    machine.start()
    machine.wait()
    before = machine.json("list")
    bad.write_text("1")
    assert machine.run("reindex").returncode == 0
    machine.wait()
    assert {row["path"]: row["id"] for row in machine.json("list")} == {r["path"]: r["id"] for r in before}
    assert machine.json("failures") == []
    why = machine.json("why", str(paths[0]))
    assert why["state"] == "pending"
    assert "Input/output error" in why["reason"]
    (root,) = machine.json("status")["roots"]
    assert root["state"] == "degraded"
    assert root["reason"].startswith("5 files could not be read, e.g. ")

    bad.unlink()
    machine.until(lambda: bool(machine.json("status")["roots"][0]["state"] == "online"))
    assert machine.json("status")["embeds_total"] == 5
    assert machine.json("list") == before


def test_hostile_names_come_out_whole_in_every_form(machine: Machine) -> None:
    name = b"new\nline \xff'\".jpg"
    path = os.path.join(os.fsencode(machine.photos), name)
    with open(path, "wb") as file:
        file.write(encoded(1))
    machine.start()
    machine.wait()
    found = machine.run("search", "--image", path, "-0")
    assert found.stdout == path + b"\0", found.stderr
    (row,) = machine.json("search", "--image", path)
    assert os.fsencode(row["path"]) == path


def test_a_mended_file_leaves_the_failures(machine: Machine) -> None:
    (machine.photos / "a.jpg").write_bytes(b"not yet")
    machine.start()
    machine.wait()
    assert len(machine.json("failures")) == 1
    save(machine.photos / "a.jpg", 1)
    machine.wait()
    assert machine.run("failures", "--json").stdout.strip() == b"[]"
    assert machine.listed() == {"photos/a.jpg"}


def test_a_picture_that_is_overwritten_with_rubbish_leaves_the_index(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    (machine.photos / "a.jpg").write_bytes(b"rubbish")
    machine.wait()
    assert machine.listed() == set()
    (failure,) = machine.json("failures")
    assert failure["path"] == str(machine.photos / "a.jpg")
    assert machine.json("status")["store"]["rows"] == 0
