"""A machine for each test, on the small random model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine


@pytest.fixture
def machine(checkpoint: Path) -> Iterator[Machine]:
    # A Unix socket's path is short; pytest's own folders are not.
    home = Path(tempfile.mkdtemp(prefix="imagedbd-"))
    machine = Machine(home.resolve(), f"local-dir:{checkpoint}")
    yield machine
    machine.close()
    shutil.rmtree(home)
