"""A root on a file system that never answers, as a dead share: a mount by FUSE behind which nobody is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine import program
from pictures import save

from imagedbd.client import Client
from imagedbd.errors import ConfigError, ImagedbError

if TYPE_CHECKING:
    from machine import Machine

MOUNTING = """
import ctypes, os, sys
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", os.fsencode(sys.argv[1]), b"fuse.dead", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
"""
FAR = 100


@contextmanager
def silent(machine: Machine, folder: Path) -> Iterator[None]:
    """Have nobody answer for this folder, as the daemon sees it."""
    assert machine.process is not None
    inside = ["nsenter", "--mount", "--target", str(machine.process.pid)]
    with subprocess.Popen(
        [*inside, sys.executable, "-c", MOUNTING, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as mounting:
        assert mounting.stdout is not None
        assert mounting.stderr is not None
        try:
            if mounting.stdout.readline() != b"mounted\n":
                pytest.skip(f"no FUSE here: {mounting.stderr.read().decode()}")
            yield
        finally:
            mounting.kill()  # whose end lets go of what hangs


@pytest.fixture
def dead(machine: Machine) -> Path:
    """The root that dies, with a picture; the other one has three."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting takes root")
    dead = machine.home / "dead"
    for number in range(3):
        save(machine.photos / f"{number}.jpg", number)
    save(dead / "kept.jpg", FAR)
    machine.start(instead=["unshare", "--mount", program("imagedbd")], roots=[machine.photos, dead])
    machine.wait()
    return dead


def client(machine: Machine) -> Client:
    return Client(machine.environment["IMAGEDBD_SOCKET"], timeout=60)


def root(machine: Machine, folder: Path) -> dict[str, Any]:
    return next(root for root in client(machine).status()["roots"] if root["path"] == str(folder))


def test_everything_else_goes_on_and_a_stop_is_a_stop(machine: Machine, dead: Path) -> None:
    with silent(machine, dead):
        machine.until(lambda: "has not answered since" in (root(machine, dead)["reason"] or ""))
        assert root(machine, dead)["state"] == "offline"
        assert root(machine, machine.photos)["state"] != "offline"
        threads = [threading.Thread(target=client(machine).status) for _ in range(45)]
        for thread in threads:
            thread.start()
        assert machine.listed() == {*(f"photos/{number}.jpg" for number in range(3)), "dead/kept.jpg"}
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        save(machine.photos / "new.jpg", 50)
        (machine.photos / "0.jpg").unlink()
        machine.wait()  # which scans everything
        expected = {"photos/1.jpg", "photos/2.jpg", "photos/new.jpg", "dead/kept.jpg"}
        assert machine.listed() == expected
        assert machine.stop() == 0
        assert "Traceback" not in machine.log()


def test_what_falls_silent_is_there_for_nothing_when_it_answers_again(machine: Machine, dead: Path) -> None:
    with silent(machine, dead):
        machine.until(lambda: root(machine, dead)["state"] == "offline")
        machine.wait()
    assert machine.process is not None
    inside = ["nsenter", "--mount", "--target", str(machine.process.pid)]
    # Somebody may look into it at this very moment.
    subprocess.run([*inside, "umount", "--lazy", str(dead)], check=True)
    save(dead / "another.jpg", FAR + 1)
    machine.until(lambda: root(machine, dead)["state"] == "online", 60)
    machine.until(lambda: "dead/another.jpg" in machine.listed(), 60)
    assert "dead/kept.jpg" in machine.listed()
    assert machine.json("status")["embeds_total"] == 5


def test_who_asks_for_what_hangs_is_told_of_the_stop(machine: Machine, dead: Path) -> None:
    told: list[ImagedbError] = []

    def ask(number: int) -> None:
        try:
            client(machine).why(str(dead / f"{number}.jpg"))
        except ImagedbError as error:
            told.append(error)

    with silent(machine, dead):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # they are on their way into it
        assert machine.stop() == 0
        for thread in threads:
            thread.join(60)
        assert [type(error).__name__ for error in told] == ["DaemonStoppingError"] * 3


def test_commands_and_a_reload_beside_a_root_that_hangs_do_not_hang(machine: Machine, dead: Path) -> None:
    assert machine.process is not None
    inside = ["nsenter", "--mount", "--target", str(machine.process.pid)]
    Path(machine.environment["IMAGEDBD_CONFIG"]).write_text(f"roots = ['{machine.photos}', '{dead}']\n")
    with silent(machine, dead):
        machine.until(lambda: root(machine, dead)["state"] == "offline")
        done = subprocess.run(
            [*inside, program("imagedb"), "status"],
            env=machine.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"has not answered since" in done.stdout
        with pytest.raises(ConfigError, match=r"does not answer.*umount -l"):
            client(machine).reload()
        assert client(machine).status()["roots"]
        assert machine.stop() == 0


def test_a_start_beside_a_root_that_hangs_says_what_it_waits_for(machine: Machine, dead: Path) -> None:
    assert machine.process is not None
    inside = ["nsenter", "--mount", "--target", str(machine.process.pid)]
    with silent(machine, dead), (machine.home / "second").open("wb") as log:
        command = [program("imagedbd"), "run", "--no-pull", "--root", str(dead), "--log-level", "debug"]
        second = subprocess.Popen([*inside, *command], env=machine.environment, stderr=log)
        said = Path(log.name)
        machine.until(lambda: b"does not answer" in said.read_bytes(), 60)
        assert b"The daemon starts as soon as it does." in said.read_bytes()
        assert second.poll() is None
    # It answers now, and the first daemon still runs.
    assert second.wait(60) == 75, said.read_text()
