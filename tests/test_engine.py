"""What answers is exchanged as one, under searches that go on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast

from imagedbd.engine import Engine, EngineRoom


@dataclass
class Part:
    """A store or an embedder that knows whether it is open."""

    is_open: bool = True
    embeds_total: int = 0

    def close(self) -> None:
        self.is_open = False


def an_engine(embedder: Part | None = None) -> tuple[Engine, Part, Part]:
    store, embedder = Part(), embedder or Part()
    return Engine(cast("Any", store), cast("Any", embedder), cast("Any", None)), store, embedder


def test_who_reads_keeps_what_was_there_open() -> None:
    first, store, embedder = an_engine()
    second, *_ = an_engine()
    room = EngineRoom(first)
    with room.reading() as engine:
        assert room.exchange(second) is first
        retiring = threading.Thread(target=room.retire, args=(first,))
        retiring.start()
        retiring.join(0.1)
        assert engine is first
        assert retiring.is_alive()
        assert store.is_open
        assert embedder.is_open
        with room.reading() as newer:
            assert newer is second
    retiring.join(10)
    assert not store.is_open
    assert not embedder.is_open


def test_an_embedder_that_goes_on_is_left_open() -> None:
    first, store, embedder = an_engine()
    second, *_ = an_engine(embedder)
    room = EngineRoom(first)
    room.retire(room.exchange(second))
    assert embedder.is_open
    assert not store.is_open


def test_pictures_that_were_embedded_before_still_count() -> None:
    first, _, embedder = an_engine()
    embedder.embeds_total = 5
    second, _, other = an_engine()
    other.embeds_total = 7
    room = EngineRoom(first)
    room.exchange(second)
    assert room.embeds_total == 12
