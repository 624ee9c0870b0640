"""Very many changes at once: the index ends up equal to the folder, and the daemon at rest."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from oracle import indexed, pictures_in
from pictures import picture, save

if TYPE_CHECKING:
    from machine import Machine

LONG_S = 1800.0
LONG = [pytest.mark.slow, pytest.mark.timeout(LONG_S)]


def wait_long(machine: Machine) -> None:
    """As ``imagedb wait``, for as long as there is progress to hope for."""
    deadline = time.monotonic() + LONG_S
    while (done := machine.run("wait", "--timeout", "60")).returncode == 124:
        assert time.monotonic() < deadline, machine.log()
    assert done.returncode == 0, done.stderr.decode() + machine.log()


def cpu_seconds(machine: Machine) -> float:
    """What the daemon and its children have used so far."""
    assert machine.process is not None
    daemon = psutil.Process(machine.process.pid)
    times = [process.cpu_times() for process in (daemon, *daemon.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def is_at_rest(machine: Machine) -> bool:
    before = cpu_seconds(machine)
    time.sleep(1)
    return cpu_seconds(machine) - before < 0.05


def unpack(folder: Path, pictures: int, folders: int) -> None:
    """As a program does that unpacks an archive: folders and files as fast as the disk takes them."""
    for number in range(pictures):
        path = folder / str(number % folders % 7) / str(number % folders) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (24, 16)).save(path)


@pytest.mark.parametrize(("pictures", "folders"), [(400, 40), pytest.param(20_000, 2_000, marks=LONG)])
def test_very_many_pictures_unpacked_into_very_many_folders(
    machine: Machine, pictures: int, folders: int
) -> None:
    machine.start()
    unpack(machine.photos, pictures, folders)
    wait_long(machine)
    expected = pictures_in(machine.photos)
    assert len(expected) == pictures
    assert indexed(machine) == expected
    machine.until(lambda: is_at_rest(machine), 60)
    # And away with most of it, without a word from the kernel.
    assert machine.process is not None
    machine.process.send_signal(signal.SIGSTOP)
    for number in range(1, 7):
        shutil.rmtree(machine.photos / str(number))
    machine.process.send_signal(signal.SIGCONT)
    wait_long(machine)
    assert indexed(machine) == pictures_in(machine.photos)
    machine.until(lambda: is_at_rest(machine), 60)


@pytest.mark.parametrize("files", [1_000, pytest.param(60_000, marks=LONG)])
def test_files_that_come_and_go_faster_than_the_kernel_can_tell(machine: Machine, files: int) -> None:
    save(machine.photos / "before.jpg", 1)
    machine.start()
    machine.wait()
    assert machine.process is not None
    # While it stands still, its queue of events overflows for certain.
    machine.process.send_signal(signal.SIGSTOP)
    for number in range(max_queued_events() // 2):
        path = machine.photos / f"overflow {number}.jpg"
        path.write_bytes(b"")
        path.unlink()
    save(machine.photos / "unheard" / "a.jpg", 2)
    machine.process.send_signal(signal.SIGCONT)
    for number in range(files):
        path = machine.photos / f"{number}.jpg"
        path.write_bytes(b"no picture")
        if number % 100:
            os.unlink(path)
    for number in range(0, files, 100):
        os.replace(save(machine.home / "new.jpg", number), machine.photos / f"{number}.jpg")
    wait_long(machine)
    expected = pictures_in(machine.photos)
    assert len(expected) == 2 + files // 100
    assert indexed(machine) == expected
    status = machine.json("status")
    assert status["watcher_restarts"] > 0
    assert status["failed"] == 0
    machine.until(lambda: is_at_rest(machine), 60)


def max_queued_events() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
