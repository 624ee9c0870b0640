"""Daemon, decoders and model are killed at random while there is work: nothing is lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from blake3 import blake3
from pictures import save

if TYPE_CHECKING:
    from machine import Machine

KILLS = int(os.environ.get("IMAGEDBD_KILLS", "6"))
IN_FLIGHT = 64 + 2 * 16
"""Pictures that one kill may cost another run through the model: a commit's, and two batches."""


class Photographer:
    """Adds, edits, moves and removes pictures, each of which is another than all before."""

    def __init__(self, machine: Machine, chance: random.Random) -> None:
        self.made = 0
        self._folder = machine.photos
        self._chance = chance

    def work(self, steps: int) -> None:
        for _ in range(steps):
            there = sorted(self._folder.glob("**/*.jpg"))
            deed = self._chance.choice(("add", "add", "add", "edit", "move", "remove"))
            if deed == "add" or not there:
                self._shoot(self._folder / f"{self.made % 5}" / f"{self.made}.jpg")
                continue
            path = self._chance.choice(there)
            if deed == "edit":
                self._shoot(path)
            elif deed == "move":
                path.rename(self._folder / f"moved-{self.made}-{path.name}"[-60:])
            else:
                path.unlink()

    def _shoot(self, path: Path) -> None:
        self.made += 1
        save(path, self.made, (160, 120))


def kill_one(machine: Machine, chance: random.Random) -> str:
    """Kill the daemon, or one of the processes that it has at this moment."""
    assert machine.process is not None
    victims = {"daemon": [machine.process.pid], "decoder": [], "model": []}
    for child in psutil.Process(machine.process.pid).children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        victims["model" if "imagedbd.embedder_worker" in command else "decoder"].append(child.pid)
    kind = chance.choice([kind for kind, pids in victims.items() if pids])
    if kind == "daemon":
        machine.stop(9)
        machine.start()
    else:
        os.kill(chance.choice(victims[kind]), 9)
    return kind


def test_kills_at_random_lose_nothing_and_do_nothing_twice(machine: Machine) -> None:
    seed = int(os.environ.get("IMAGEDBD_KILLS_SEED", str(random.SystemRandom().randrange(10**6))))
    print(f"IMAGEDBD_KILLS_SEED={seed}")
    chance = random.Random(seed)
    log = machine.home / "embedded"
    config = {"seconds": 0.01, "log": str(log)}
    (machine.home / "stub-model" / "open_clip_config.json").write_text(json.dumps(config))
    machine.environment |= {"IMAGEDBD_SETTLE": "0.2s", "IMAGEDBD_SETTLE_MAX": "1s"}
    photographer = Photographer(machine, chance)
    photographer.work(60)
    machine.start()
    killed = []
    for _ in range(KILLS):
        photographer.work(chance.randrange(5, 40))
        time.sleep(chance.uniform(0, 1.5))
        killed.append(kill_one(machine, chance))
    machine.wait()
    expected = {str(path): blake3(path.read_bytes()).hexdigest() for path in machine.photos.glob("**/*.jpg")}
    rows = machine.json("list")
    assert {row["path"]: row["content_hash"] for row in rows} == expected
    assert len(rows) == len(expected)
    assert machine.run("failures", "--json").stdout.strip() == b"[]"
    assert machine.json("status")["store"]["vectors"] == len(expected)
    embedded = log.read_text().split()
    again = len(embedded) - len(set(embedded))
    print(f"killed {killed}: of {photographer.made} pictures, {again} went through the model again")
    assert len(set(embedded)) <= photographer.made
    assert again <= len(killed) * IN_FLIGHT
    assert "Traceback" not in machine.log()
    machine.stop()
    machine.start()
    machine.wait()
    assert machine.json("list") == rows
    assert log.read_text().split() == embedded
