"""Names of any bytes, from a search to another program and back."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from machine import program
from pictures import encoded

if TYPE_CHECKING:
    from machine import Machine

NAMES = [b"plain.jpg", b"line\nfeed.jpg", b"caf\xe9.jpg", b"-rf.jpg", b"a 'b' \"c\" $(d).jpg", b"\x1b[2J.jpg"]


def test_a_pipe_hands_every_name_over_as_it_is(machine: Machine) -> None:
    folder = os.fsencode(machine.photos)
    for number, name in enumerate(NAMES):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(encoded(number))
    machine.start()
    machine.wait()
    copies = machine.home / "copies"
    copies.mkdir()
    typed = f'"{program("imagedb")}" search anything -n 100 -0 | xargs -0 cp -t "{copies}"'
    subprocess.run(["bash", "-o", "pipefail", "-c", typed], env=machine.environment, check=True)
    assert sorted(os.listdir(os.fsencode(copies))) == sorted(NAMES)
    links = machine.home / "links"
    assert machine.run("search", "anything", "--link-to", str(links)).returncode == 0
    assert sorted(os.listdir(os.fsencode(links))) == sorted(NAMES)
    for name in NAMES:
        assert machine.run("show", os.path.join(folder, name)).returncode == 0
        assert machine.run("similar", os.path.join(folder, name)).returncode == 0
