"""Stops, hang-ups and second daemons while everything is busy or hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import poison
import psutil
import pytest
from blake3 import blake3
from machine import program
from pictures import save

if TYPE_CHECKING:
    from machine import Machine


def children_of(machine: Machine, module: str) -> list[psutil.Process]:
    assert machine.process is not None
    children = psutil.Process(machine.process.pid).children(recursive=True)
    return [child for child in children if module in child.cmdline()]


def has_socket(process: subprocess.Popen[bytes]) -> bool:
    """Whether a command has come so far that it talks to somebody."""
    folder = Path(f"/proc/{process.pid}/fd")
    links = [os.readlink(descriptor) for descriptor in folder.iterdir() if descriptor.is_symlink()]
    return any(link.startswith("socket:") for link in links)


def test_it_stops_while_decoders_hang_and_the_model_stands_still(machine: Machine) -> None:
    """Within the time that systemd gives; a search and a wait are under way."""
    save(machine.photos / "first.jpg", 1)
    machine.start()
    machine.wait()
    (model,) = children_of(machine, "imagedbd.embedder_worker")
    model.send_signal(signal.SIGSTOP)
    for number in range(12):
        path = save(machine.photos / f"{number}.jpg", 10 + number)
        if number % 2:
            path.write_bytes(path.read_bytes() + poison.words("hang" if number % 4 == 1 else "stand still"))
    machine.until(lambda: machine.json("status")["pending"] >= 12)
    machine.until(lambda: len(children_of(machine, "imagedbd.fork_server")) >= 2)
    asking = [
        subprocess.Popen(
            [program("imagedb"), *arguments],
            env=machine.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for arguments in (["search", "--prompt", "a dog"], ["wait"])
    ]
    machine.until(lambda: all(map(has_socket, asking)), 60)
    time.sleep(1)  # to ask, and for the daemon to be at it
    assert machine.process is not None
    children = psutil.Process(machine.process.pid).children(recursive=True)
    assert machine.stop() == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    for process in asking:
        _, told = process.communicate(timeout=30)
        assert process.returncode in {69, 70}
        assert b"is stopping" in told
    machine.start()
    counted = machine.json("failures")
    assert not counted  # a stop is no file's fault


def test_a_daemon_that_is_killed_takes_a_model_that_stands_still_with_it(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    assert machine.process is not None
    children = psutil.Process(machine.process.pid).children(recursive=True)
    for child in children_of(machine, "imagedbd.embedder_worker"):
        child.send_signal(signal.SIGSTOP)
    machine.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_hang_up_that_comes_before_all_is_up_does_not_end_the_daemon(machine: Machine) -> None:
    command = [program("imagedbd"), "run", "--no-pull", "--root", str(machine.photos)]
    with (machine.home / "log").open("ab") as log:
        machine.process = subprocess.Popen(command, env=machine.environment, stdout=log, stderr=log)
    lock = machine.home / "data" / "lock"
    machine.until(lock.exists, 60)
    machine.process.send_signal(signal.SIGHUP)
    machine.until(lambda: machine.run("status").returncode == 0, 60)
    machine.until(lambda: "settings read again" in machine.log())


def test_it_stops_while_it_sets_up_the_watches(machine: Machine) -> None:
    """On a disk that takes half a second for each folder."""
    for number in range(200):
        (machine.photos / str(number)).mkdir()
    slow = (
        "import sys, time\n"
        "from imagedbd import tree_watch\n"
        "from imagedbd.cli.daemon import main\n"
        "add_watch = tree_watch.inotify_add_watch\n"
        "def slow(*watch):\n"
        "    print('a folder', flush=True)\n"
        "    time.sleep(0.5)\n"
        "    return add_watch(*watch)\n"
        "tree_watch.inotify_add_watch = slow\n"
        "sys.exit(main())\n"
    )
    machine.start(instead=[sys.executable, "-c", slow], until=lambda: machine.log().count("a folder") >= 2)
    assert machine.stop() == 0


def test_a_daemon_that_takes_its_time_to_stop_is_said_to_be_stopping(machine: Machine) -> None:
    may_end = machine.home / "may-end"
    slow = (
        "import os, sys, time\n"
        "from imagedbd.library import Library\n"
        "from imagedbd.cli.daemon import main\n"
        "close = Library.close\n"
        "def slow(library):\n"
        "    print('closing', flush=True)\n"
        f"    while not os.path.exists({str(may_end)!r}):\n"
        "        time.sleep(0.05)\n"
        "    close(library)\n"
        "Library.close = slow\n"
        "sys.exit(main())\n"
    )
    machine.start(instead=[sys.executable, "-c", slow])
    assert machine.process is not None
    machine.process.send_signal(signal.SIGTERM)
    machine.until(lambda: "closing" in machine.log())
    asked = machine.run("status")
    may_end.touch()
    assert asked.returncode == 69
    assert asked.stderr.startswith(b"imagedb: The daemon is stopping: ")
    assert machine.process.wait(timeout=30) == 0
    assert b"is not running" in machine.run("status").stderr


def test_a_second_daemon_leaves_the_first_ones_socket_alone(machine: Machine) -> None:
    """It may share the data, the socket, or both."""
    machine.start()
    path = machine.home / "run" / "s.sock"
    before = path.lstat()
    for own in (
        {"IMAGEDBD_DATA_DIR": str(machine.home / "other-data")},
        {"IMAGEDBD_SOCKET": str(machine.home / "run" / "other.sock")},
        {},
    ):
        second = machine.imagedbd("run", **own)
        assert second.returncode == 75
        assert b"Traceback" not in second.stderr
    assert not (machine.home / "other-data").exists()
    after = path.lstat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert not (machine.home / "run" / "other.sock").exists()
    assert machine.run("status").returncode == 0


@pytest.mark.parametrize("lost", ["ledger", "store", "both"])
def test_what_is_lost_while_it_is_down_is_built_anew(machine: Machine, lost: str) -> None:
    """After a kill, which leaves a write-ahead log beside the ledger."""
    decodes, embeds = machine.home / "decodes", machine.home / "embeds"
    config = {"log": str(embeds)}
    (machine.home / "stub-model" / "open_clip_config.json").write_text(json.dumps(config))
    machine.environment["IMAGEDBD_TEST_DECODES"] = str(decodes)
    for number in range(30):
        save(machine.photos / f"{number}.jpg", number)
    (machine.photos / "bad.jpg").write_bytes(b"bad")
    machine.start()
    machine.wait()
    rows = machine.json("list")
    machine.stop(signal.SIGKILL)
    data = machine.home / "data"
    if lost in {"ledger", "both"}:
        (data / "ledger.sqlite3").unlink()
    if lost in {"store", "both"}:
        shutil.rmtree(data / "lance")
    machine.start()
    machine.wait()
    again = machine.json("list")
    assert {(row["path"], row["content_hash"]) for row in again} == {
        (row["path"], row["content_hash"]) for row in rows
    }
    assert len(machine.json("failures")) == 1
    assert len(embeds.read_text().split()) == (30 if lost == "ledger" else 60)
    if lost == "ledger":
        assert again == rows
    assert machine.json("status")["store"]["vectors"] == 30


def test_a_ledger_that_was_zeroed_is_said_to_be_damaged_and_repaired(machine: Machine) -> None:
    for number in range(40):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    rows = machine.json("list")
    assert machine.stop() == 0
    ledger = machine.home / "data" / "ledger.sqlite3"
    ledger.write_bytes(bytes(ledger.stat().st_size))
    refused = machine.imagedbd("run", "--no-pull", "--root", str(machine.photos))
    assert refused.returncode == 78
    assert b"imagedbd repair" in refused.stderr
    repaired = machine.imagedbd("repair")
    assert repaired.returncode == 0
    assert b"built anew" in repaired.stderr + repaired.stdout
    machine.start()
    machine.wait()
    assert machine.json("list") == rows
    assert machine.json("status")["embeds_total"] == 0


def test_a_commit_that_was_cut_between_store_and_ledger_is_not_embedded_again(machine: Machine) -> None:
    """The daemon is killed by its own ledger, after the store has written: an edit, a move, an addition."""
    embeds = machine.home / "embeds"
    (machine.home / "stub-model" / "open_clip_config.json").write_text(json.dumps({"log": str(embeds)}))
    for number in range(4):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.wait()
    machine.stop()
    save(machine.photos / "0.jpg", 10)
    (machine.photos / "1.jpg").rename(machine.photos / "moved.jpg")
    (machine.photos / "2.jpg").unlink()
    save(machine.photos / "new.jpg", 11)
    killer = (
        "import os, signal, sys\n"
        "from imagedbd.ledger import Ledger\n"
        "put = Ledger.put\n"
        "def dying(ledger, entries, **more):\n"
        "    entries = list(entries)\n"
        "    stored = [e for e in entries if os.path.basename(e.path) in ('0.jpg', 'new.jpg')]\n"
        "    if not stored:\n"
        "        return put(ledger, entries, **more)\n"
        "    print(len(stored), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Ledger.put = dying\n"
        "from imagedbd.cli.daemon import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = machine.script(killer, "run", "--no-pull", "--root", str(machine.photos))
    assert done.returncode == -signal.SIGKILL, done.stderr
    in_flight = 2 - int(done.stdout)
    embedded = len(embeds.read_text().split())
    machine.start()
    machine.wait()
    expected = {str(p): blake3(p.read_bytes()).hexdigest() for p in machine.photos.iterdir()}
    assert {row["path"]: row["content_hash"] for row in machine.json("list")} == expected
    assert len(embeds.read_text().split()) == embedded + in_flight
    assert machine.json("status")["store"]["rows"] == 4
