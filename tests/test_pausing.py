"""A pause, and the clock on the wall."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imagedbd.change_queue import ChangeQueue
from imagedbd.errors import PausedError
from imagedbd.pausing import Pause


class Wall:
    """A clock that can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead_s)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def is_held(queue: ChangeQueue) -> bool:
    queue.put("/a", settled=True)
    changes = queue.take(1, timeout=0)
    for change in changes:
        queue.done(change)
    return not changes


def test_it_is_over_when_the_machine_has_slept_through_it(tmp_path: Path, wall: Wall) -> None:
    queue = ChangeQueue(settle_s=0)
    pause = Pause(os.fspath(tmp_path), queue)
    pause.begin(3600)
    assert pause.is_on
    assert is_held(queue)
    wall.ahead_s = 7200
    assert not pause.is_on
    assert pause.public() is None
    assert not is_held(queue)
    pause.check()


def test_it_holds_what_it_says_whichever_way_the_clock_is_set(tmp_path: Path, wall: Wall) -> None:
    queue = ChangeQueue(settle_s=0)
    pause = Pause(os.fspath(tmp_path), queue)
    pause.begin(3600)
    for wall.ahead_s in (-7200, 1800, 4000, -10):
        assert pause.is_on == is_held(queue) == (wall.ahead_s < 3600)


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    Pause(os.fspath(tmp_path), ChangeQueue()).begin(None)
    queue = ChangeQueue(settle_s=0)
    pause = Pause(os.fspath(tmp_path), queue)
    assert is_held(queue)
    with pytest.raises(PausedError, match="until somebody resumes it"):
        pause.check()
    pause.end()
    assert not is_held(queue)


def test_a_disk_that_is_full_keeps_nobody_from_pausing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, text: str) -> None:
        raise OSError(28, "No space left on device", path)

    queue = ChangeQueue(settle_s=0)
    pause = Pause(os.fspath(tmp_path), queue)
    with monkeypatch.context() as full:
        full.setattr("imagedbd.pausing.write_durably", refuse)
        pause.begin(None)
    assert is_held(queue)
    assert "A restart ends that, as it could not be written down: No space left" in pause.in_words()
    pause.begin(None)
    assert "restart" not in pause.in_words()
    assert Pause(os.fspath(tmp_path), ChangeQueue()).is_on


def test_after_a_restart_no_pause_holds_that_was_replaced_by_one_that_could_not_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, text: str) -> None:
        raise OSError(28, "No space left on device", path)

    pause = Pause(os.fspath(tmp_path), ChangeQueue())
    pause.begin(None)
    monkeypatch.setattr("imagedbd.pausing.write_durably", refuse)
    pause.begin(600)
    assert "A restart ends that" in pause.in_words()
    assert not Pause(os.fspath(tmp_path), ChangeQueue()).is_on


def test_a_pause_on_a_disk_that_takes_no_writing_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: str) -> None:
        raise OSError(30, "Read-only file system", path)

    queue = ChangeQueue(settle_s=0)
    pause = Pause(os.fspath(tmp_path), queue)
    monkeypatch.setattr("imagedbd.pausing.write_durably", refuse)
    monkeypatch.setattr("imagedbd.pausing.os.unlink", refuse)
    pause.begin(None)
    assert is_held(queue)
    pause.end()
    assert not is_held(queue)


@pytest.mark.parametrize(
    ("seconds", "form"),
    [(10, "%H:%M:%S"), (3600, "%H:%M"), (3 * 86_400, "%Y-%m-%d %H:%M")],
    ids=["seconds", "an hour", "days"],
)
def test_the_end_is_told_as_exactly_as_it_is_near(tmp_path: Path, seconds: float, form: str) -> None:
    pause = Pause(os.fspath(tmp_path), ChangeQueue())
    pause.begin(seconds)
    moment = pause.in_words().removeprefix("Indexing is paused until ").removesuffix(".")
    assert moment == time.strftime(form, time.localtime(pause._until))
