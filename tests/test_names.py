"""The names that shells complete, as an index changes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from store_rows import record

from imagedbd.names import SHARE, Cameras, Names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import ImageRecord


class Index:
    """A store that counts how often it is read whole, and a clock by which that takes a second a picture."""

    def __init__(self) -> None:
        self.records: list[ImageRecord] = []
        self.version = 0
        self.scans = 0
        self.now = 0.0

    def add(self, record: ImageRecord) -> None:
        self.records.append(record)
        self.version += 1

    def scan(self) -> Iterator[ImageRecord]:
        self.scans += 1
        self.now += len(self.records)
        yield from self.records

    def count(self) -> int:
        return len(self.records)

    @contextmanager
    def in_use(self) -> Iterator[Index]:
        yield self


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def names(index: Index) -> Names:
    return Names(index.in_use, lambda: index.version, lambda: index.now)  # type: ignore[arg-type] # it has what is asked of it


def shot(make: str | None, model: str | None) -> ImageRecord:
    plain = record("a")
    return replace(plain, metadata=replace(plain.metadata, camera_make=make, camera_model=model))


def test_makes_and_models_are_each_told_once_and_in_order(index: Index, names: Names) -> None:
    for pair in (("NIKON CORPORATION", "Z 6"), ("Canon", "EOS"), ("NIKON CORPORATION", "D700"), (None, None)):
        index.add(shot(*pair))
    assert names.cameras() == Cameras(["Canon", "NIKON CORPORATION"], ["D700", "EOS", "Z 6"])


def test_an_index_that_does_not_change_is_read_once(index: Index, names: Names) -> None:
    index.add(shot("Canon", "EOS"))
    for _ in range(3):
        names.cameras()
        index.now += 1e6
    assert index.scans == 1


def test_the_first_camera_of_an_index_is_known_at_once(index: Index, names: Names) -> None:
    assert names.cameras() == Cameras([], [])
    index.add(shot("Canon", "EOS"))
    assert names.cameras() == Cameras(["Canon"], ["EOS"])


def test_a_new_camera_is_known_when_looking_for_it_costs_little(index: Index, names: Names) -> None:
    index.add(shot("Canon", "EOS"))
    names.cameras()
    index.add(shot("Canon", "R6"))
    assert names.cameras().models == ["EOS"]
    index.now += 1 / SHARE
    assert names.cameras().models == ["EOS", "R6"]
