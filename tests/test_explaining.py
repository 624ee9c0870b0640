"""Why a folder has no pictures that nobody may look into."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534

PROGRAM = """
import os, sys
from imagedbd.datatypes import ModelState, ModelStatus
from imagedbd.explaining import Explainer
from imagedbd.ledger import Ledger
from imagedbd.rules import Rules
from imagedbd.unread import UnreadFiles

base = sys.argv[1]
if os.geteuid() == 0:
    os.setuid(65534)
photos = os.path.join(base, "photos")
for name in ("closed", "listed", "open"):
    os.makedirs(os.path.join(photos, name, "inner"))
os.chmod(os.path.join(photos, "closed"), 0)
os.chmod(os.path.join(photos, "listed"), 0o444)
ledger = Ledger(os.path.join(base, "ledger"))
explainer = Explainer(
    Rules([photos]), ledger, UnreadFiles(), is_queued=lambda _: False, silence=lambda _: None,
    held_up=lambda: None, model=lambda: ModelStatus("demo", ModelState.READY),
)
for name in ("closed", "listed", "open", "closed/inner", "nowhere"):
    path = os.path.join(photos, name)
    told = explainer.explain(path, ledger.get(path))
    print(name, told.state, "Permission denied" in told.reason)
for name in ("closed", "listed"):
    os.chmod(os.path.join(photos, name), 0o700)
ledger.close()
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that another user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def test_a_folder_that_cannot_be_entered_is_told_from_one_without_pictures(base: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "closed unreadable True",
        "listed unreadable True",
        "open folder False",
        "closed/inner unreadable True",
        "nowhere missing False",
    ]
