"""``imagedb demo``, the command that the README begins with: it checks its own answers."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import program


@pytest.fixture
def scratch() -> Iterator[Path]:
    # A Unix socket's path is short; pytest's own folders are not.
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def run_demo(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1"}
    command = [program("imagedb"), "demo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)


def test_the_demo_ends_well_and_leaves_nothing_behind(scratch: Path) -> None:
    done = run_demo(scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers were right" in done.stdout
    assert "Real photos want a real model" in done.stdout
    # torch makes a folder for its compiler, used or not.
    assert [left.name for left in scratch.iterdir() if "torch" not in left.name] == []


def test_a_small_demo_that_is_kept_goes_on_answering(scratch: Path) -> None:
    done = run_demo(scratch, "--count", "30", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = dict(
        word.split("=", 1)
        for line in done.stdout.splitlines()
        if line.strip().startswith("export ")
        for word in line.split()[1:]
    )
    environment = {**os.environ, **{name: value.strip("'\"") for name, value in settings.items()}}
    status = subprocess.run(
        [program("imagedb"), "status", "--json"], env=environment, capture_output=True, check=False
    )
    assert status.returncode == 0, status.stderr
    pid = int(status.stdout.split(b'"pid": ')[1].split(b",")[0])
    os.kill(pid, signal.SIGTERM)
