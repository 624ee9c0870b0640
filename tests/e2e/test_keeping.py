"""The index as a file for other programs, and as a copy that is put back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import exif, save

if TYPE_CHECKING:
    from pathlib import Path

    from machine import Machine


KILLED = """
import os, signal
from imagedbd.cli.daemon import main

real = os.rename

def rename(before, after):
    if os.path.dirname(before).endswith("restoring"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(before, after)

os.rename = rename
main(["restore", "--yes", os.environ["KEPT"]])
"""
"""It dies when the index that was there is set aside, and before the other moves in."""


SLOW_BACKUP = """
import os, sys, time
from pathlib import Path
from imagedbd import backups
from imagedbd.cli.main import main

copy = backups._copy

def slow(source, target):
    size = copy(source, target)
    Path(os.environ["BEGUN"]).touch()
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.05)
    return size

backups._copy = slow
sys.exit(main())
"""
"""When it has copied a file, it waits to be told to go on."""


class Copying:
    """A backup in the middle of its copying, in the folder ``kept``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kept, self._go = machine.home / "kept", machine.home / "go"
        self._begun = machine.home / "begun"

    def __enter__(self) -> Self:
        environment = {**self.machine.environment, "BEGUN": str(self._begun), "GO": str(self._go)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW_BACKUP, "backup", str(self.kept)],
            env=environment,
            stderr=subprocess.PIPE,
        )
        self.machine.until(lambda: self._begun.exists() or self.process.poll() is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self._go.touch()
        with self.process:
            self.process.kill()

    def end(self) -> tuple[int, str]:
        """Let it go on, and return how it ended and what it said."""
        self._go.touch()
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()

    def drafts(self) -> list[Path]:
        return [path for path in self.kept.parent.iterdir() if path.name.startswith(".kept-")]


def filled(machine: Machine, *arguments: str, count: int = 4) -> None:
    for number in range(count):
        save(machine.photos / f"{number}.jpg", number, exif=exif(make="NIKON", taken="2024:05:01 10:00:00"))
    machine.start(*arguments)
    machine.wait()


def restore(machine: Machine, *arguments: str, answer: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return machine.imagedbd("restore", *arguments, stdin=answer)


class TestExport:
    def test_has_every_record_and_vector(self, machine: Machine) -> None:
        odd = os.fsencode(machine.photos) + b"/caf\xe9\n.jpg"
        filled(machine)
        with open(odd, "wb") as file:
            file.write((machine.photos / "0.jpg").read_bytes())
        machine.wait()
        path = machine.home / "all.parquet"
        done = machine.run("export", str(path))
        assert done.returncode == 0, done.stderr
        assert b"Wrote 5 pictures to" in done.stderr
        table = pq.read_table(path)
        rows = {row["path_bytes"]: row for row in table.to_pylist()}
        assert set(rows) == {odd, *(os.fsencode(machine.photos / f"{n}.jpg") for n in range(4))}
        assert rows[odd]["name"] == "caf\ufffd\n.jpg"
        first = rows[os.fsencode(machine.photos / "0.jpg")]
        shown = machine.json("show", str(machine.photos / "0.jpg"))
        for field in ("id", "taken_at", "camera_make", "width", "size", "content_hash"):
            assert first[field] == shown[field]
        assert first["mtime"].isoformat().replace("+00:00", "Z") == shown["mtime"]
        assert np.linalg.norm(first["vector"]) == pytest.approx(1, abs=1e-3)
        assert table.schema.metadata[b"model"].decode() == machine.model

    def test_replaces_nothing_unasked(self, machine: Machine) -> None:
        filled(machine, count=1)
        path = machine.home / "all.parquet"
        path.write_text("mine")
        assert machine.run("export", str(path), stdin=b"").returncode == 2
        assert path.read_text() == "mine"
        assert machine.run("export", "--no-vectors", "--yes", str(path)).returncode == 0
        assert pq.read_table(path)["vector"].null_count == 1
        assert machine.run("export", str(machine.home / "all.csv")).returncode == 2
        nowhere = machine.run("export", str(machine.home / "nowhere" / "all.parquet"))
        assert (nowhere.returncode, b"There is no folder" in nowhere.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["lance", "faiss"])
class TestBackup:
    def test_is_put_back_without_embedding_anything(self, machine: Machine, kind: str) -> None:
        filled(machine, "--store", kind)
        before = {row["path"]: row["id"] for row in machine.json("list")}
        found = machine.json("search", "--image", str(machine.photos / "2.jpg"))
        kept = machine.home / "kept"
        beside = [machine.home / name for name in ("kept.part", ".kept")]
        for path in beside:
            path.write_text("mine")
        done = machine.run("backup", str(kept))
        assert done.returncode == 0, done.stderr
        assert b"Copied 4 pictures of the index" in done.stderr
        assert [path.read_text() for path in beside] == ["mine", "mine"]
        assert [path for path in machine.home.iterdir() if path.name.startswith(".kept-")] == []
        save(machine.photos / "new.jpg", 50)
        (machine.photos / "3.jpg").unlink()
        machine.run("reset", "--yes")
        machine.wait()
        machine.stop()
        done = restore(machine, "--yes", str(kept))
        assert done.returncode == 0, done.stderr
        assert b"with 4 pictures" in done.stderr

        machine.start("--store", kind)
        machine.wait()
        after = {row["path"]: row["id"] for row in machine.json("list")}
        gone, new = (str(machine.photos / name) for name in ("3.jpg", "new.jpg"))
        assert after == {**{path: key for path, key in before.items() if path != gone}, new: after[new]}
        assert machine.json("status")["embeds_total"] == 1
        again = machine.json("search", "--image", str(machine.photos / "2.jpg"))
        assert again[0]["similarity"] == pytest.approx(found[0]["similarity"])

    def test_on_another_machine_files_are_hashed_and_not_embedded(self, machine: Machine, kind: str) -> None:
        filled(machine, "--store", kind)
        machine.run("backup", str(machine.home / "kept"))
        machine.stop()
        shutil.rmtree(machine.home / "data")
        copy = machine.home / "copy"
        shutil.copytree(machine.photos, copy)  # other inodes and times of change
        shutil.rmtree(machine.photos)
        os.rename(copy, machine.photos)
        assert restore(machine, str(machine.home / "kept")).returncode == 0
        machine.start("--store", kind)
        machine.wait()
        assert machine.json("status")["indexed"] == 4
        assert machine.json("status")["embeds_total"] == 0

    def test_taken_amid_work_is_of_one_moment(self, machine: Machine, kind: str) -> None:
        filled(machine, "--store", kind, count=2)
        stop = threading.Event()

        def work() -> None:
            number = 100
            while not stop.is_set() and number < 200:  # a slow machine need not index more
                save(machine.photos / f"{number}.jpg", number)
                number += 1
                stop.wait(0.05)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            done = [machine.run("backup", str(machine.home / f"kept{n}")) for n in range(2)]
        finally:
            stop.set()
            worker.join()
        assert [d.returncode for d in done] == [0, 0], done
        machine.wait()
        machine.stop()
        for number in range(2):
            assert restore(machine, "--yes", str(machine.home / f"kept{number}")).returncode == 0
        machine.start("--store", kind)
        machine.wait()
        assert len(machine.listed()) == len(list(machine.photos.iterdir()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_during_a_backup_leaves_none_and_the_next_one_is_whole(
    machine: Machine, number: signal.Signals
) -> None:
    filled(machine)
    before = machine.listed()
    with Copying(machine) as copying:
        # It ends while the copying goes on, which would wait for ever.
        assert machine.stop(number) == (0 if number == signal.SIGTERM else -number)
        status, said = copying.end()
    assert (status, "nothing was kept" in said) == (70, True), said
    assert "Traceback" not in said
    assert not copying.kept.exists()
    assert copying.drafts() == []
    machine.start()
    machine.wait()
    assert machine.listed() == before
    assert machine.json("status")["embeds_total"] == 0
    assert machine.run("backup", str(copying.kept)).returncode == 0
    machine.stop()
    assert restore(machine, "--yes", str(copying.kept)).returncode == 0
    machine.start()
    machine.wait()
    assert machine.listed() == before
    assert machine.json("status")["embeds_total"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_backup_that_is_broken_off_passes_for_none_and_the_daemon_goes_on(
    machine: Machine, number: signal.Signals
) -> None:
    filled(machine)
    with Copying(machine) as copying:
        save(machine.photos / "meanwhile.jpg", 60)
        copying.process.send_signal(number)
        copying.process.wait(60)
        status, _ = copying.end()
    assert status != 0
    assert not copying.kept.exists()
    # Nobody has to kill what only Ctrl-C or a shutdown has broken off.
    assert (copying.drafts() == []) == (number != signal.SIGKILL)
    machine.wait()
    assert "photos/meanwhile.jpg" in machine.listed()
    assert machine.run("backup", str(copying.kept)).returncode == 0
    machine.stop()
    for draft in copying.drafts():
        refused = restore(machine, "--yes", str(draft))
        assert (refused.returncode, b"is no backup" in refused.stderr) == (2, True), refused.stderr


def test_a_damaged_backup_changes_nothing(machine: Machine) -> None:
    filled(machine, count=2)
    kept = machine.home / "kept"
    machine.run("backup", str(kept))
    assert machine.run("backup", str(kept)).returncode == 2
    machine.stop()
    before = sorted(os.listdir(machine.home / "data"))
    listed = json.loads((kept / "backup.json").read_text())["files"]
    name = max(listed, key=lambda name: listed[name][0])
    data = bytearray((kept / name).read_bytes())
    data[len(data) // 2] ^= 1
    (kept / name).write_bytes(data)
    done = restore(machine, "--yes", str(kept))
    assert (done.returncode, b"damaged" in done.stderr) == (78, True)
    (kept / name).unlink()
    assert restore(machine, "--yes", str(kept)).returncode == 78
    assert sorted(os.listdir(machine.home / "data")) == before
    assert restore(machine, "--yes", str(machine.photos)).returncode == 2
    machine.start()
    assert machine.json("status")["indexed"] == 2


@pytest.mark.parametrize("repairs", [False, True])
def test_a_restore_that_died_halfway_is_finished_by_whoever_comes_next(
    machine: Machine, *, repairs: bool
) -> None:
    filled(machine, count=2)
    kept = machine.home / "kept"
    machine.run("backup", str(kept))
    machine.stop()
    killed = machine.script(KILLED, KEPT=str(kept))
    assert killed.returncode == -signal.SIGKILL
    assert not (machine.home / "data" / "ledger.sqlite3").exists()
    if repairs:
        done = machine.imagedbd("repair")
        assert b"A restore had been broken off" in done.stderr
    machine.start()
    assert machine.json("status")["indexed"] == 2
    assert machine.json("status")["embeds_total"] == 0
    assert not (machine.home / "data" / "restoring").exists()
    assert ("A restore had been broken off" in (machine.home / "log").read_text()) != repairs


def test_a_start_says_what_it_cannot_finish_of_a_restore(machine: Machine) -> None:
    draft = machine.home / "data" / "restoring"
    draft.mkdir(parents=True)
    (machine.home / "data").chmod(0o700)
    (draft / "plan.json").write_text("{")
    done = machine.imagedbd("run", "--no-pull")
    assert done.returncode == 78
    assert b"imagedbd restore" in done.stderr


def test_a_restore_asks_and_leaves_a_running_daemon_alone(machine: Machine) -> None:
    filled(machine, count=1)
    kept = machine.home / "kept"
    machine.run("backup", str(kept))
    for arguments in (["--yes"], []):
        done = restore(machine, *arguments, str(kept))
        assert (done.returncode, b"?" in done.stderr) == (75, False)
    machine.stop()
    assert restore(machine, str(kept), answer=b"n\n").returncode == 1
    assert restore(machine, str(kept), answer=b"").returncode == 2
    done = restore(machine, str(kept), answer=b"y\n")
    assert done.returncode == 0, done.stderr
    assert b"before-restore-" in done.stderr


def test_whoever_stops_copying_lets_the_daemon_go_on(machine: Machine) -> None:
    from imagedbd.client import Client

    filled(machine, count=1)
    client = Client(machine.environment["IMAGEDBD_SOCKET"])
    with client.held_still() as (_, is_held):
        save(machine.photos / "new.jpg", 9)
        machine.until(lambda: machine.json("status")["pending"] >= 1)
        assert is_held()
        assert len(machine.json("search", "anything")) == 1
    machine.wait()
    assert machine.json("status")["indexed"] == 2
    with client.held_still() as (_, is_held):
        machine.stop(signal.SIGTERM)
        assert not is_held()
