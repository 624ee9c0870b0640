"""A clock on the wall that jumps by hours, by years, and to before 1970 changes nothing about the index."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from oracle import assert_equal, indexed, pictures_in
from packets import packet
from pictures import save

from imagedbd.datatypes import iso_utc

if TYPE_CHECKING:
    from machine import Machine

HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S


class Jumping:
    """A daemon whose clock is set, with a root that stays and one that comes and goes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.stays, self.goes, self.away = machine.photos, machine.home / "disk", machine.home / "away"
        machine.environment["IMAGEDBD_TEST_CLOCK"] = str(machine.home / "clock")
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """Set the clock to so much after what is right."""
        draft = self.machine.home / "clock.new"
        draft.write_text(str(seconds))
        draft.rename(self.machine.home / "clock")

    def start(self) -> None:
        self.machine.start(roots=[self.stays, self.goes])

    def embeds(self) -> int:
        return int(self.machine.json("status")["embeds_total"])

    def kept(self) -> dict[str, str]:
        """Ids of the pictures on the root that comes and goes, by path."""
        rows = self.machine.json("list")
        return {row["path"]: row["id"] for row in rows if row["path"].startswith(f"{self.goes}/")}

    def assert_follows(self) -> None:
        """By events alone, and then as a scan sees it."""
        self.machine.until(lambda: indexed(self.machine) == pictures_in(self.stays, self.goes), 40)
        assert_equal(self.machine, self.stays, self.goes)

    def is_offline(self) -> bool:
        states = {row["path"]: row["state"] for row in self.machine.json("root", "list")}
        return states[str(self.goes)] == "offline"


@pytest.fixture
def jumping(machine: Machine) -> Jumping:
    jumping = Jumping(machine)
    for number in range(4):
        save(jumping.stays / f"{number}.jpg", number)
        save(jumping.goes / "trip" / f"{number}.jpg", 10 + number)
    return jumping


def change(folder: Path, number: int) -> None:
    """Two new contents, in a file that comes and in one that was there; one goes, and one is renamed."""
    save(folder / f"new{number}.jpg", 100 * number)
    save(folder / "0.jpg", 100 * number + 1)
    (folder / "0.xmp").write_bytes(packet(caption=f"jump{number}"))
    os.rename(folder / "1.jpg", folder / "between.jpg")
    os.rename(folder / "between.jpg", folder / "1.jpg")
    (folder / f"new{number - 1}.jpg").unlink(missing_ok=True)


def test_whatever_it_shows_the_index_follows_and_what_is_offline_stays(jumping: Jumping) -> None:
    machine = jumping.machine
    jumping.start()
    jumping.assert_follows()
    kept, most = jumping.kept(), 8
    assert jumping.embeds() == most
    before_1970 = -time.time() - YEAR_S
    for number, seconds in enumerate((5 * HOUR_S, -3 * HOUR_S, before_1970, 80 * YEAR_S, 0.0), start=1):
        change(jumping.stays, number)
        os.rename(jumping.goes, jumping.away)
        jumping.jump(seconds)
        machine.until(jumping.is_offline)
        change(jumping.stays, number + 50)
        machine.run("scan")
        machine.wait()
        assert jumping.kept() == kept
        shown = machine.json("show", str(jumping.stays / "0.jpg"))
        assert shown["indexed_at"][:4] == iso_utc(time.time() + seconds)[:4]
        assert {hit["name"] for hit in machine.json("search", "--text", f"jump{number + 50}")} == {"0.jpg"}
        embeds = jumping.embeds()
        os.rename(jumping.away, jumping.goes)
        jumping.assert_follows()
        assert jumping.kept() == kept
        assert jumping.embeds() == embeds
        # Of two contents that followed one another in a file, the first may have gone unread.
        most += 4
        assert embeds <= most
    assert "Traceback" not in machine.log()


def test_it_jumps_while_pictures_are_read_embedded_and_written(jumping: Jumping) -> None:
    machine = jumping.machine
    config = Path(machine.model.removeprefix("local-dir:")) / "open_clip_config.json"
    config.write_text('{"seconds": 0.05}')
    jumping.start()
    for number in range(60):
        save(jumping.stays / f"{number}.jpg", 1000 + number)
        save(jumping.stays / f"{number}.jpg", 2000 + number)
        jumping.jump((5 * HOUR_S, -3 * HOUR_S, -time.time() - YEAR_S, 80 * YEAR_S)[number % 4])
    jumping.assert_follows()
    assert jumping.embeds() <= 8 + 120
    assert "Traceback" not in machine.log()


@pytest.mark.parametrize("seconds", [30 * HOUR_S, -5 * HOUR_S, -60 * YEAR_S])
def test_a_restart_under_another_time_embeds_nothing(jumping: Jumping, seconds: float) -> None:
    jumping.start()
    jumping.assert_follows()
    kept = jumping.kept()
    jumping.machine.stop()
    jumping.jump(seconds)
    os.rename(jumping.goes, jumping.away)
    jumping.start()
    jumping.machine.until(jumping.is_offline)
    jumping.machine.wait()
    assert jumping.kept() == kept
    os.rename(jumping.away, jumping.goes)
    jumping.assert_follows()
    assert jumping.kept() == kept
    assert jumping.embeds() == 0
