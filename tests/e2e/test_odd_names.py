"""Names of any bytes, from a search to another program and back."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from machine import program
from pictures import encoded, save

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


def test_a_rename_in_nothing_but_case_is_followed_where_look_ups_are_loose(machine: Machine) -> None:
    machine.environment["IMAGEDBD_TEST_LOOSE"] = str(machine.photos)
    save(machine.photos / "IMG_1.JPG", 1)
    save(machine.photos / "Trip" / "two.jpg", 2)
    machine.start()
    machine.wait()
    os.rename(machine.photos / "IMG_1.JPG", machine.photos / "img_1.jpg")
    os.rename(machine.photos / "Trip", machine.photos / "trip")
    machine.wait()
    assert machine.listed() == {"photos/img_1.jpg", "photos/trip/two.jpg"}
    assert machine.json("status")["embeds_total"] == 2
    machine.stop()
    os.rename(machine.photos / "trip", machine.photos / "TRIP")
    machine.start()
    machine.wait()
    assert machine.listed() == {"photos/img_1.jpg", "photos/TRIP/two.jpg"}
    assert machine.json("status")["embeds_total"] == 0
