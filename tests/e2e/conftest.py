"""Machines on the small random model: one for each test, or one that a whole file shares."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine import Machine


@contextmanager
def _new_machine(checkpoint: Path) -> Iterator[Machine]:
    # A Unix socket's path is short; pytest's own folders are not.
    home = Path(tempfile.mkdtemp(prefix="imagedbd-"))
    machine = Machine(home.resolve(), f"local-dir:{checkpoint}")
    try:
        yield machine
    finally:
        machine.close()
        shutil.rmtree(home)


@pytest.fixture
def machine(checkpoint: Path) -> Iterator[Machine]:
    with _new_machine(checkpoint) as machine:
        yield machine


@pytest.fixture(scope="module")
def shared_machine(checkpoint: Path) -> Iterator[Machine]:
    """For tests that leave each other alone: loading a model takes most of a test's time."""
    with _new_machine(checkpoint) as machine:
        yield machine
