"""kill -9 while a writer writes: what was acknowledged is there, whole and once; the last all or nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_rows import vector
from store_script import BIND_AT, Script, same

from imagedbd.stores import KINDS, open_store

SCRIPT = Path(__file__).parents[1] / "store_script.py"


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def killed_writer(kind, folder, script, delay):
    """Let a process write for a while, and kill it; the number of the first write not acknowledged."""
    command = [sys.executable, "-W", "ignore", SCRIPT, kind, folder, str(script.seed), str(script.number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "opening\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        lines = [line for line in writer.stdout.read().split("\n")[:-1] if line]
    assert writer.returncode == -signal.SIGKILL, f"it died of itself, after {lines[-1:]}"
    return int(lines[-1]) + 1 if lines else script.number


def rows_of(store):
    pictures = list(store.pictures())
    assert len({p.record.id for p in pictures}) == len(pictures) == store.count()
    return {p.record.id: p for p in pictures}


def holds(found, script):
    return found.keys() == script.rows.keys() and all(
        found[key].record.metadata.width == mark and same(found[key], seed)
        for key, (mark, seed) in script.rows.items()
    )


def check_searches(store, found):
    """Every way of reading sees the same rows."""
    with_vector = {key for key, p in found.items() if p.vector is not None}
    assert {m.id for m in store.nearest(vector(0), 1_000)} == with_vector
    assert {m.id for m in store.matching(["dog"], 1_000)} == set(found)


def survive(kind, folder, script, rng):
    """One kill, and what is found afterwards; the script from there on."""
    delay = rng.uniform(0, 1.2)
    acknowledged = script.advanced(killed_writer(kind, folder, script, delay))
    store = open_store(kind, folder, exclusive=True)
    found = rows_of(store)
    after = next(
        (s for s in (acknowledged, acknowledged.advanced(acknowledged.number + 1)) if holds(found, s)), None
    )
    assert after is not None, f"killed after {delay:.3f} s, with {acknowledged.number} writes acknowledged"
    if acknowledged.number > BIND_AT:
        assert store.model is not None
    check_searches(store, found)
    assert [fault for fault in store.scrub() if fault] == []
    store.close()
    return after


def kill_often(kind, folder, seed, kills):
    print(f"seed {seed}")
    rng = random.Random(seed)
    script = Script(seed)
    for _ in range(kills):
        script = survive(kind, folder, script, rng)
    return script.number


def test_a_few_kills(kind, tmp_path):
    kill_often(kind, os.fspath(tmp_path / "store"), int(time.time()), 2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_kills(kind, tmp_path):
    """A new store every ten: making one and binding it are interrupted as well."""
    seed = int(time.time())
    writes = sum(kill_often(kind, os.fspath(tmp_path / f"{n}"), seed + n, 10) for n in range(5))
    print(f"{writes} writes")
    assert writes > 50
