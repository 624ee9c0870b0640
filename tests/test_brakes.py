"""Battery, a disk that fills up, and a bound on CPU time hold indexing, and let go by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagedbd import brakes as brakes_module
from imagedbd.brakes import COUNT_S, LONGEST_S, LOOK_S, Brakes, is_on_battery
from imagedbd.change_queue import ChangeQueue
from imagedbd.errors import PausedError

CORES = len(os.sched_getaffinity(0))


class Meter:
    """A clock, and CPU time that was used."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used = 7.0

    def pass_by(self, seconds: float, cpu: float = 0.0) -> None:
        self.now += seconds
        self.used += cpu


@pytest.fixture
def meter() -> Meter:
    return Meter()


def supply(folder: Path, name: str, kind: str, online: str | None = None) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "type").write_text(f"{kind}\n")
    if online is not None:
        (folder / name / "online").write_text(f"{online}\n")


def make(folder: Path, meter: Meter, *, min_free: int = 1, mains: bool = False, max_cpu: int = 0) -> Brakes:
    return Brakes(
        str(folder),
        min_free=min_free,
        on_mains_alone=mains,
        max_cpu=max_cpu,
        supplies=str(folder),
        clock=lambda: meter.now,
        cpu_seconds=lambda: meter.used,
    )


@pytest.mark.parametrize(
    ("supplies", "is_on"),
    [
        ([], False),
        ([("BAT0", "Battery", None)], True),
        ([("BAT0", "Battery", None), ("AC", "Mains", "0")], True),
        ([("BAT0", "Battery", None), ("AC", "Mains", "1")], False),
        ([("BAT0", "Battery", None), ("AC", "Mains", "0"), ("ucsi", "USB", "1")], False),
        ([("ucsi", "USB", "0")], False),
        ([("BAT0", "Battery", None), ("AC", "Mains", None)], True),
    ],
)
def test_a_machine_is_on_battery_if_no_supply_of_its_gives_power(
    tmp_path: Path, supplies: list[tuple[str, str, str | None]], is_on: bool
) -> None:
    for one in supplies:
        supply(tmp_path, *one)
    assert is_on_battery(str(tmp_path)) == is_on
    assert not is_on_battery(str(tmp_path / "nowhere"))


def test_the_battery_of_a_mouse_is_none_of_the_machine(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp", "Battery")
    assert is_on_battery(str(tmp_path))
    (tmp_path / "hidpp" / "scope").write_text("Device\n")
    assert not is_on_battery(str(tmp_path))


def test_on_battery_nothing_is_begun_until_there_is_mains_again(tmp_path: Path, meter: Meter) -> None:
    supply(tmp_path, "BAT0", "Battery")
    supply(tmp_path, "AC", "Mains", "0")
    assert make(tmp_path, meter).left() == 0
    brakes = make(tmp_path, meter, mains=True)
    assert brakes.left() == LOOK_S
    with pytest.raises(PausedError, match="mains"):
        brakes.check()
    supply(tmp_path, "AC", "Mains", "1")
    assert brakes.left() == LOOK_S
    meter.pass_by(LOOK_S)
    assert brakes.left() == 0
    brakes.check()


def test_room_that_others_need_is_left_to_them(tmp_path: Path, meter: Meter) -> None:
    brakes = make(tmp_path, meter, min_free=1 << 60)
    assert brakes.left() == LOOK_S
    assert "MB are free on the disk of" in (brakes.reason() or "")
    assert make(tmp_path, meter).left() == 0
    assert make(tmp_path / "nowhere", meter, min_free=1 << 60).left() == 0


def test_who_used_more_than_the_share_waits_for_as_long_as_that_was(tmp_path: Path, meter: Meter) -> None:
    brakes = make(tmp_path, meter, max_cpu=25)
    rate = 0.25 * CORES
    meter.pass_by(1, cpu=1 * rate)
    assert brakes.left() == 0
    meter.pass_by(1, cpu=2 * rate)
    assert brakes.left() == pytest.approx(1)
    meter.pass_by(0.6)
    assert brakes.left() == pytest.approx(0.4)
    # Between two counts as well: who waits for a short time need not wait for it again.
    meter.pass_by(0.3)
    assert brakes.left() == pytest.approx(0.1)
    meter.pass_by(0.15)
    assert brakes.left() == 0
    meter.pass_by(COUNT_S)
    assert brakes.left() == 0
    # However much it was, it is looked at again after a while; and little is saved up by doing nothing.
    meter.pass_by(1, cpu=100 * rate)
    assert brakes.left() == LONGEST_S
    meter.pass_by(1000)
    assert brakes.left() == 0
    meter.pass_by(1, cpu=(1 + LONGEST_S + 0.5) * rate)
    assert brakes.left() == pytest.approx(0.5)


def test_the_time_of_children_counts_also_when_they_have_ended() -> None:
    family = brakes_module._Family()
    before = family.cpu_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while family.cpu_seconds() < before + 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    assert family.cpu_seconds() >= before + 0.3


def test_a_queue_hands_out_nothing_while_the_brake_is_on() -> None:
    left = [5.0]
    queue = ChangeQueue(settle_s=0, brake=lambda: left[0])
    queue.put("/a", settled=True)
    assert queue.take(1, timeout=0) == []
    queue.hold(lambda: 0.0)
    queue.release()
    assert queue.take(1, timeout=0) == []
    left[0] = 0.0
    assert [change.path for change in queue.take(1, timeout=0)] == ["/a"]


def test_who_would_be_refused_is_not_told_of_what_has_passed(tmp_path: Path, meter: Meter) -> None:
    brakes = make(tmp_path, meter, min_free=1 << 60)
    with pytest.raises(PausedError, match="waits for room"):
        brakes.check()
    brakes._min_free = 1  # as if somebody had made room
    assert brakes.reason() is not None
    brakes.check()
    assert brakes.reason() is None
