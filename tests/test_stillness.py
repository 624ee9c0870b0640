"""A while in which the writer stands still on purpose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

import pytest

from imagedbd.errors import DaemonStoppingError
from imagedbd.pulse import Pulse
from imagedbd.stillness import Stillness

if TYPE_CHECKING:
    from imagedbd.indexer import Indexer


class Writer:
    """Of an indexer, what counts here: a thread that does errands, and its word on when it is heard of."""

    def __init__(self) -> None:
        self.pulse = Pulse("indexer")
        self.pulse.promise(-60)
        self.free = threading.Event()
        self.thread: threading.Thread | None = None

    def between_batches(self, action: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            self.free.wait()
            if future.set_running_or_notify_cancel():
                action()
                future.set_result(None)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        return future


@pytest.fixture
def writer() -> Writer:
    return Writer()


def still(writer: Writer, is_over: Callable[[], bool] = lambda: False) -> Stillness:
    return Stillness(cast("Indexer", writer), is_over)


def ended(writer: Writer) -> bool:
    assert writer.thread is not None
    writer.thread.join(10)
    return not writer.thread.is_alive()


def test_it_begins_when_the_writer_is_free_and_ends_when_released(writer: Writer) -> None:
    while_ = still(writer)
    assert not while_.poll()
    writer.free.set()
    while not while_.poll():
        time.sleep(0.01)
    while_.release()
    assert ended(writer)


def test_a_writer_that_stands_still_keeps_its_word(writer: Writer) -> None:
    while_ = still(writer)
    writer.free.set()
    while writer.pulse.overdue_s() is not None:
        time.sleep(0.01)
    while_.release()
    assert ended(writer)


def test_one_that_is_released_before_it_began_never_begins(writer: Writer) -> None:
    while_ = still(writer)
    while_.release()
    writer.free.set()
    assert ended(writer)
    with pytest.raises(DaemonStoppingError):
        while_.poll()


def test_a_stop_ends_it(writer: Writer) -> None:
    stopping = threading.Event()
    while_ = still(writer, stopping.is_set)
    writer.free.set()
    while not while_.poll():
        time.sleep(0.01)
    stopping.set()
    assert ended(writer)
