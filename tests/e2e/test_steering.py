"""Work that is put off, done again, and begun anew, by a real daemon."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from pictures import exif, save

if TYPE_CHECKING:
    from machine import Machine


def embeds(machine: Machine) -> int:
    return int(machine.json("status")["embeds_total"])


def test_a_pause_puts_off_what_changes_and_outlives_a_restart(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    assert machine.run("pause").returncode == 0
    save(machine.photos / "b.jpg", 2)
    machine.until(lambda: machine.json("status")["pending"] >= 1)
    waited = machine.run("wait")
    assert (waited.returncode, b"imagedb resume" in waited.stderr) == (70, True)
    assert len(machine.json("search", "anything")) == 1

    machine.stop(signal.SIGKILL)
    machine.start()
    machine.until(lambda: machine.json("status")["pending"] >= 1)
    assert machine.json("status")["state"] == "paused"
    assert machine.json("status")["paused"] == {"until": None}
    machine.run("resume")
    machine.wait()
    assert machine.listed() == {"photos/a.jpg", "photos/b.jpg"}


def test_why_tells_of_a_pause_and_of_links(machine: Machine) -> None:
    machine.start()
    machine.run("pause")
    save(machine.photos / "late.jpg", 1)
    machine.until(lambda: machine.json("why", str(machine.photos / "late.jpg"))["state"] == "pending")
    why = machine.json("why", str(machine.photos / "late.jpg"))
    assert why["reason"] == "Indexing is paused until somebody resumes it. 1 change waits."
    (machine.home / "link").symlink_to(machine.photos)
    why = machine.json("why", str(machine.home / "link"))
    assert why["state"] == "skipped"
    assert f"link to the folder {machine.photos}" in why["reason"]
    assert f"is watched: `imagedb why {machine.photos}`" in why["reason"]


def test_a_pause_ends_by_itself(machine: Machine) -> None:
    machine.start()
    machine.run("pause", "--for", "2s")
    assert machine.json("status")["paused"]["until"]
    save(machine.photos / "a.jpg", 1)
    machine.until(lambda: machine.json("status")["indexed"] == 1)
    assert machine.json("status")["paused"] is None


def test_reading_again_renews_the_record_and_keeps_the_vector(machine: Machine) -> None:
    for number in range(3):
        save(machine.photos / f"{number}.jpg", number, exif=exif(make="NIKON"))
    machine.start()
    machine.wait()
    before = {row["path"]: row["id"] for row in machine.json("list")}
    first = machine.photos / "0.jpg"
    indexed_at = machine.json("show", str(first))["indexed_at"]
    time.sleep(1.1)  # the record tells when to the second
    done = machine.run("reindex", "--wait", str(first))
    assert b"1 picture is read again." in done.stderr
    assert machine.json("show", str(first))["indexed_at"] > indexed_at
    assert embeds(machine) == 3
    machine.run("reindex", "--wait")
    assert embeds(machine) == 3
    assert {row["path"]: row["id"] for row in machine.json("list")} == before


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_what_is_to_be_read_again_counts_as_indexed_as_long_as_it_is_found(
    machine: Machine, options: list[str]
) -> None:
    for number in range(3):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    machine.run("pause")
    assert machine.run("reindex", *options).returncode == 0
    status = machine.json("status")
    assert (status["indexed"], status["again"], status["pending"]) == (3, 3, 3)
    assert [root["indexed"] for root in status["roots"]] == [3]
    assert len(machine.json("search", "anything")) == 3
    assert b"Forget what is known of 3 pictures" in machine.run("reset").stderr
    machine.run("resume")
    machine.wait()
    status = machine.json("status")
    assert (status["indexed"], status["again"], status["pending"]) == (3, 0, 0)


def test_force_embeds_again_also_what_has_copies(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    (machine.photos / "copy.jpg").write_bytes((machine.photos / "a.jpg").read_bytes())
    save(machine.photos / "b.jpg", 2)
    machine.start()
    machine.wait()
    assert embeds(machine) == 2
    done = machine.run("reindex", "--force", "--wait", str(machine.photos / "copy.jpg"))
    assert b"1 picture and 1 copy elsewhere are read and embedded again." in done.stderr, done.stderr
    assert embeds(machine) == 3
    assert len(machine.json("search", "--image", str(machine.photos / "a.jpg"))) == 3


def test_what_cannot_be_read_again_is_refused(machine: Machine) -> None:
    usb = machine.home / "usb"
    save(usb / "a.jpg", 1)
    machine.start(roots=[usb, machine.photos])
    machine.wait()
    os.rename(usb, machine.home / "unplugged")
    assert machine.run("reindex", str(machine.home / "elsewhere")).returncode == 2
    refused = machine.run("reindex", str(usb / "a.jpg"))
    assert (refused.returncode, b"offline" in refused.stderr) == (2, True)
    assert b"offline and was left out" in machine.run("reindex").stderr
    assert machine.listed() == {"usb/a.jpg"}
    assert machine.json("list")[0]["state"] == "indexed"


@pytest.mark.parametrize("kind", ["lance", "faiss"])
def test_a_reset_forgets_everything_and_indexes_it_again(machine: Machine, kind: str) -> None:
    for number in range(3):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    ids = {row["id"] for row in machine.json("list")}
    machine.stop()
    machine.start("--store", kind)
    assert machine.run("reset", "--yes").returncode == 0
    machine.wait()
    status = machine.json("status")
    assert (status["store"]["kind"], status["indexed"], status["previous"]) == (kind, 3, None)
    assert ids.isdisjoint(row["id"] for row in machine.json("list"))
    assert len(machine.json("search", "anything")) == 3
    machine.stop(signal.SIGKILL)
    machine.start("--store", kind)
    machine.wait()
    assert machine.json("status")["embeds_total"] == 0
    folders = {name for name in os.listdir(machine.home / "data") if name.startswith(("lance", "faiss"))}
    assert len(folders) == 1, folders
    written = json.loads((machine.home / "data" / "generations.json").read_text())
    assert written["active"]["kind"] == kind
