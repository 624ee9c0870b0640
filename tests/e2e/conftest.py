"""Machines: one for each test, or one that a whole file shares; on a stub of OpenCLIP, or on the real one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine import Machine, interpreter_for_another_user


@contextmanager
def _new_machine(checkpoint: Path | None = None) -> Iterator[Machine]:
    # A Unix socket's path is short; pytest's own folders are not.
    home = Path(tempfile.mkdtemp(prefix="imagedbd-")).resolve()
    machine = Machine(home, checkpoint)
    try:
        yield machine
    finally:
        print(machine.log())  # shown for a test that failed
        machine.close()
        shutil.rmtree(home)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with _new_machine() as machine:
        yield machine


@pytest.fixture(scope="module")
def shared_machine() -> Iterator[Machine]:
    """For tests that leave each other alone."""
    with _new_machine() as machine:
        yield machine


@pytest.fixture(scope="class")
def class_machine() -> Iterator[Machine]:
    """For a class of tests that follow one another."""
    with _new_machine() as machine:
        yield machine


@pytest.fixture(scope="module")
def real_machine(checkpoint: Path) -> Iterator[Machine]:
    """Shared as well, and with torch and OpenCLIP themselves, on the small random model."""
    with _new_machine(checkpoint) as machine:
        yield machine


@pytest.fixture
def another_user() -> str:
    """The interpreter of a daemon that is not root: permissions count for it."""
    interpreter = interpreter_for_another_user()
    if interpreter is None:
        pytest.skip("Python lies where only root may look")
    return interpreter
