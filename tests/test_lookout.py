"""Places that do not answer, made of looks that wait until they are let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from imagedbd import lookout as lookout_module
from imagedbd.errors import StoreError
from imagedbd.lookout import Lookout, within

FOREVER = 60.0


class Places:
    """What is said of places, of which ``/dead`` says nothing until it is let go."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.answer: str | None = None
        self.let_go = threading.Event()

    def look(self, place: str) -> str | None:
        self.looks.append(place)
        if place == "/dead":
            self.let_go.wait(FOREVER)
        return self.answer


@pytest.fixture
def places() -> Iterator[Places]:
    places = Places()
    yield places
    places.let_go.set()


def together(number: int, ask: Callable[[], object]) -> list[object]:
    """What as many threads are told that ask at once."""
    told: list[object] = []
    threads = [threading.Thread(target=lambda: told.append(ask())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FOREVER)
    return told


def test_what_a_place_says_is_told_as_it_is_now(places: Places) -> None:
    lookout = Lookout(places.look)
    assert lookout.ask("/there") is None
    places.answer = "is empty, and was not before"
    assert lookout.ask("/there") == "is empty, and was not before"
    assert lookout.answers("/there")
    assert not lookout.silent()


def test_a_place_that_does_not_answer_has_one_look_however_many_ask(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "SILENT_S", 0.05)
    lookout = Lookout(places.look)
    told = together(45, lambda: lookout.ask("/dead", 0.05))
    assert len(told) == 45
    assert all(str(words).startswith("has not answered since 20") for words in told)
    assert places.looks == ["/dead"]
    assert not lookout.answers("/dead", 0.0)
    assert list(lookout.silent()) == ["/dead"]
    assert lookout.silence("/dead") == lookout.silent()["/dead"] == told[0]
    assert lookout.ask("/there", FOREVER) is None, "others are looked at all the same"


def test_a_place_that_answers_again_is_heard(places: Places) -> None:
    lookout = Lookout(places.look)
    assert lookout.ask("/dead", 0.01) is not None
    waiting = threading.Thread(target=lambda: together(3, lambda: lookout.ask("/dead", FOREVER)))
    waiting.start()
    places.let_go.set()
    waiting.join(FOREVER)
    assert lookout.ask("/dead", FOREVER) is None
    assert not lookout.silent()


def test_a_look_that_began_before_the_question_is_no_answer_to_it(places: Places) -> None:
    lookout = Lookout(places.look)
    assert lookout.ask("/dead", 0.01) is not None
    places.answer = "is gone"
    told: list[str | None] = []
    asking = threading.Thread(target=lambda: told.append(lookout.ask("/dead", FOREVER)))
    asking.start()
    places.let_go.set()
    asking.join(FOREVER)
    assert told == ["is gone"]
    assert places.looks == ["/dead", "/dead"]


def test_a_stop_waits_for_nobody_and_takes_no_place_for_well(places: Places) -> None:
    lookout = Lookout(places.look)
    told: list[object] = []
    asking = threading.Thread(target=lambda: told.append(lookout.ask("/dead", FOREVER)))
    asking.start()
    while not places.looks:
        time.sleep(0.01)
    lookout.stop()
    asking.join(FOREVER)
    assert told == ["was not looked at, as the daemon stops"]
    assert not lookout.answers("/dead")
    assert lookout.ask("/there") == "was not looked at, as the daemon stops"


def test_whether_a_place_answers_is_found_out_by_a_touch_that_is_no_look(places: Places) -> None:
    touches: list[str] = []

    def touch(place: str) -> None:
        touches.append(place)
        if place == "/dead":
            places.let_go.wait(FOREVER)

    lookout = Lookout(places.look, touch)
    assert lookout.answers("/there")
    assert not lookout.answers("/dead", 0.05)
    assert (touches, places.looks) == (["/there", "/dead"], [])
    places.answer = "is gone"
    assert str(lookout.ask("/dead", 0.05)).startswith("has not answered since")
    assert places.looks == [], "one of them at a time"
    places.let_go.set()
    assert lookout.ask("/dead", FOREVER) == "is gone"


def test_a_look_that_fails_is_told_to_who_asked() -> None:
    def fail(_: str) -> str | None:
        raise StoreError("The ledger is damaged.")

    lookout = Lookout(fail)
    with pytest.raises(StoreError, match="damaged"):
        lookout.ask("/there")
    assert lookout.answers("/there")


def test_without_a_thread_to_be_had_a_place_counts_as_not_looked_at(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookout = Lookout(places.look)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert lookout.ask("/there") == "could not be looked at: can't start new thread"
    assert lookout.ask("/there") is None


def test_an_action_that_hangs_is_left_behind(places: Places) -> None:
    with pytest.raises(TimeoutError):
        within(0.05, lambda: places.look("/dead"))
    places.answer = "said"
    assert within(FOREVER, lambda: places.look("/there")) == "said"
    with pytest.raises(ZeroDivisionError):
        within(FOREVER, lambda: 1 // 0)
