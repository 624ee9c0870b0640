"""A kill at any step of making a store leaves nothing that the next start does not get over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagedbd.stores import KINDS

pytestmark = pytest.mark.in_memory

KILLED_AT_EACH_STEP = """
import importlib, itertools, os, signal, sys
from imagedbd.stores import open_store

kind, parent = sys.argv[1:]
importlib.import_module(f"imagedbd.stores.{kind}")

def make(folder, left):
    def count(event, arguments):
        nonlocal left
        if event in ("open", "os.rename", "os.mkdir") and str(arguments[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    open_store(kind, folder, exclusive=True).close()
    os._exit(0)

for step in itertools.count(1):
    folder = os.path.join(parent, f"step-{step}")
    if not (child := os.fork()):
        make(folder, step)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    print(folder, flush=True)
"""

OPENED_AGAIN = """
import os, sys
from store_rows import picture, MODEL
from imagedbd.datatypes import Batch
from imagedbd.stores import open_store

for folder in sys.argv[2:]:
    store = open_store(sys.argv[1], folder, exclusive=True)
    assert store.count() == 0
    store.bind(MODEL)
    store.apply(Batch(upserts=(picture("p1", 1),)))
    assert [fault for fault in store.scrub() if fault] == []
    store.close()
    print(folder)
"""


def run(script, *given):
    path = os.pathsep.join([os.fspath(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", script, *given]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_whose_making_was_killed_is_made_by_the_next_start(kind, tmp_path):
    folders = run(KILLED_AT_EACH_STEP, kind, os.fspath(tmp_path))
    assert len(folders) >= 4
    assert run(OPENED_AGAIN, kind, *folders) == folders
