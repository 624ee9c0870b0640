"""``imagedb demo``, the command that the README begins with: it checks its own answers."""

from __future__ import annotations

import os
import shlex
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


@pytest.mark.parametrize("count", [["--count", "60"], pytest.param([], marks=pytest.mark.slow)])
def test_the_demo_ends_well_and_leaves_nothing_behind(scratch: Path, count: list[str]) -> None:
    done = run_demo(scratch, *count)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers were right" in done.stdout
    assert "Real photos want a real model" in done.stdout
    # torch makes a folder for its compiler, used or not.
    assert [left.name for left in scratch.iterdir() if "torch" not in left.name] == []


def test_a_small_demo_that_is_kept_goes_on_answering_until_it_is_removed_as_it_says(scratch: Path) -> None:
    done = run_demo(scratch, "--count", "30", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    exports = next(line for line in commands if line.startswith("export "))
    kill, remove = commands[-2:]
    shell = ["sh", "-ec"]
    try:
        status = f"{exports}; {shlex.quote(program('imagedb'))} status --json"
        subprocess.run([*shell, status], check=True, capture_output=True)
    finally:
        subprocess.run([*shell, f"{kill}; {remove}"], check=True, timeout=60)
    assert [left.name for left in scratch.iterdir() if "torch" not in left.name] == []
