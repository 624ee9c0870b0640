from __future__ import annotations

import time
from contextlib import contextmanager

from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.scrubber import Scrubber


class Pieces:
    """A store of which only the scrubbing is asked for; the last pass is repeated."""

    def __init__(self, *passes):
        self.passes = list(passes)
        self.read = 0

    def scrub(self):
        for piece in self.passes.pop(0) if len(self.passes) > 1 else self.passes[0]:
            self.read += 1
            if isinstance(piece, Exception):
                raise piece
            yield piece and StoreUnreadableError(piece)


def scrubbing(store, *, is_current=lambda _: True, first=0.0, every=0.01, pace=0.0):
    @contextmanager
    def in_use():
        yield store

    return Scrubber(in_use, is_current, first_s=first, every_s=every, pace_s=pace)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_damage_is_remembered_until_a_pass_finds_none(caplog):
    store = Pieces([None, "block 7 is bad", "so is block 9"])
    scrubber = scrubbing(store)
    assert scrubber.damage is None
    scrubber.start()
    until(lambda: scrubber.damage)
    assert scrubber.damage == "block 7 is bad"
    assert caplog.text.count("block 7 is bad") == 1
    store.passes = [[None, None]]
    until(lambda: scrubber.damage is None)
    scrubber.stop()


def test_a_store_that_fails_is_scrubbed_again_later():
    store = Pieces([StoreError("The disk is gone.")], ["bad"])
    scrubber = scrubbing(store)
    scrubber.start()
    until(lambda: scrubber.damage == "bad")
    scrubber.stop()
    assert store.read >= 2


def test_stopping_does_not_wait_for_the_end_of_a_pass():
    store = Pieces([None] * 1_000)
    scrubber = scrubbing(store, pace=60.0)
    scrubber.start()
    until(lambda: store.read)
    scrubber.stop()
    assert store.read == 1


def test_a_store_that_was_exchanged_is_left_alone():
    store = Pieces([None] * 50)
    scrubber = scrubbing(store, is_current=lambda _: False, every=60.0)
    scrubber.start()
    until(lambda: store.read)
    scrubber.stop()
    assert store.read == 1


def test_a_doubt_has_everything_looked_through_at_once_and_without_pauses():
    store = Pieces([None] * 20 + ["bad"])
    scrubber = scrubbing(store, first=3600.0, pace=60.0)
    scrubber.start()
    scrubber.request()
    until(lambda: scrubber.damage == "bad")
    scrubber.stop()


def test_a_doubt_hurries_a_pass_that_is_under_way():
    store = Pieces([None] * 20 + ["bad"])
    scrubber = scrubbing(store, every=3600.0, pace=60.0)
    scrubber.start()
    until(lambda: store.read)
    scrubber.request()
    until(lambda: scrubber.damage == "bad")
    scrubber.stop()


def test_doubts_that_repeat_themselves_are_looked_into_once():
    store = Pieces([None])
    scrubber = scrubbing(store, first=3600.0, every=3600.0)
    scrubber.start()
    scrubber.request()
    until(lambda: store.read)
    for _ in range(100):
        scrubber.request()
    scrubber.stop()
    assert store.read == 1
