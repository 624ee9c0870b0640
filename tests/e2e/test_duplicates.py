"""Duplicates, found by a real daemon."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import TYPE_CHECKING

from pictures import picture, save

if TYPE_CHECKING:
    from machine import Machine


def test_copies_are_listed_and_stay(machine: Machine) -> None:
    for seed in range(4):
        save(machine.photos / f"{seed}.png", seed)
    (machine.photos / "twin.png").write_bytes((machine.photos / "0.png").read_bytes())
    picture(1).resize((160, 120)).save(machine.photos / "small.jpg")
    machine.start()
    machine.wait()
    found = {
        group["tier"]: [os.path.basename(p["path"]) for p in group["pictures"]]
        for group in machine.json("dupes")
    }
    assert found == {"identical": ["0.png", "twin.png"], "same": ["1.png", "small.jpg"]}
    assert len(machine.listed()) == 6
    assert machine.run("dupes", "--tier", "burst").returncode == 1


def test_whoever_hangs_up_costs_nothing(machine: Machine) -> None:
    for seed in range(3):
        save(machine.photos / f"{seed}.png", seed)
    machine.start()
    machine.wait()
    for _ in range(5):
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(machine.home / "run" / "s.sock"))
        connection.request("POST", "/dupes", json.dumps({}), {"Content-Type": "application/json"})
        connection.sock.close()
    assert machine.run("dupes").returncode == 1
    assert machine.stop() == 0
    assert "Traceback" not in machine.log()
