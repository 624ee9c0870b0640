"""Which store is which, through crashes and damage."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from imagedbd.config import Overridden, Settings
from imagedbd.differences import differences
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.generations import (
    Course,
    Generation,
    Generations,
    GenerationsFile,
    generations_of,
    owner_of,
    read_generations,
)

pytestmark = pytest.mark.in_memory

OLD = Generation("lance", "lance", "A")
NEW = Generation("lance", "lance-2", "B")
OTHER = Generation("faiss", "faiss", "B")
WHOLE = {
    "format": 1,
    "active": {"kind": "lance", "place": "lance", "model": None},
    "next": None,
    "course": None,
    "previous": None,
    "dropped": [],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(str(tmp_path / "config"), str(tmp_path / "data"), str(tmp_path / "s"))


def file_of(settings: Settings) -> Path:
    return Path(settings.data_dir, "generations.json")


def test_a_first_store_is_what_the_settings_want(settings: Settings) -> None:
    assert generations_of(replace(settings, store="faiss")).active == Generation("faiss", "faiss")
    remote = replace(settings, store_uri="s3://bucket/index")
    assert generations_of(remote).active == Generation("lance", "s3://bucket/index")
    assert generations_of(remote).active.where(settings.data_dir) == "s3://bucket/index"


def test_a_store_that_is_there_is_adopted_whatever_the_settings_want_by_now(settings: Settings) -> None:
    Path(settings.data_dir, "lance").mkdir()
    assert generations_of(replace(settings, store="faiss")).active == Generation("lance", "lance")
    remote = replace(settings, store_uri="s3://bucket/index")
    assert generations_of(remote).active.where(settings.data_dir) == str(Path(settings.data_dir, "lance"))


def test_what_was_written_is_read_and_settings_change_nothing(settings: Settings) -> None:
    file = GenerationsFile(settings)
    state = Generations(OLD, NEW, Course.EMBED, OTHER, ("lance-9",))
    file.write(state)
    assert read_generations(settings.data_dir) == state
    assert GenerationsFile(replace(settings, store="faiss")).current == state


def test_a_swap_keeps_the_former_and_drops_the_one_before() -> None:
    built = Generations(OLD, previous=OTHER).building(NEW, Course.EMBED)
    swapped = built.swapped("A")
    assert (swapped.active, swapped.next, swapped.previous) == (NEW, None, OLD)
    assert swapped.dropped == ("faiss",)


def test_going_back_drops_neither_of_the_two() -> None:
    swapped = Generations(NEW, previous=OLD).building(OLD, Course.RETURN).swapped("B")
    assert (swapped.active, swapped.previous, swapped.dropped) == (OLD, NEW, ())


def test_what_is_built_is_dropped_when_something_else_is_wanted() -> None:
    built = Generations(OLD).building(NEW, Course.EMBED)
    assert built.abandoned() == Generations(OLD, dropped=("lance-2",))
    assert built.building(OTHER, Course.EMBED).dropped == ("lance-2",)
    assert built.building(replace(NEW, model="C"), Course.EMBED).dropped == ()


def test_giving_up_the_way_back_keeps_what_one_could_go_back_to() -> None:
    going_back = Generations(NEW, previous=OLD).building(OLD, Course.RETURN)
    assert going_back.abandoned() == Generations(NEW, previous=OLD)


def test_dropped_folders_are_deleted_and_forgotten(settings: Settings) -> None:
    file = GenerationsFile(settings)
    Path(settings.data_dir, "lance-2", "inner").mkdir(parents=True)
    file.write(replace(file.current, dropped=("lance-2", "lance-3")))
    file.delete_dropped()
    assert file.current.dropped == ()
    assert not Path(settings.data_dir, "lance-2").exists()


def test_a_new_folder_is_neither_there_nor_spoken_for(settings: Settings) -> None:
    file = GenerationsFile(settings)
    Path(settings.data_dir, "lance-2").mkdir()
    file.write(replace(file.current, dropped=("lance-3",)))
    assert file.free_place("lance") == "lance-4"
    assert file.free_place("faiss") == "faiss"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({**WHOLE, "active": None}),
        json.dumps({**WHOLE, "active": {"kind": "lance", "place": "../x", "model": None}}),
        json.dumps({**WHOLE, "dropped": ["/etc"]}),
        json.dumps({**WHOLE, "course": "embed"}),
        json.dumps({**WHOLE, "format": 2}),
    ],
)
def test_a_damaged_file_names_the_command_that_mends_it(settings: Settings, text: str) -> None:
    file_of(settings).write_text(text)
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        GenerationsFile(settings)


def test_a_file_that_cannot_be_written_leaves_the_old_state(settings: Settings) -> None:
    file = GenerationsFile(settings)
    before = file.current
    Path(settings.data_dir, "generations.json.tmp").mkdir()
    with pytest.raises(StoreError):
        file.write(Generations(OLD, NEW, Course.EMBED))
    assert file.current == before == read_generations(settings.data_dir)


def test_what_fails_afterwards_puts_the_old_state_back_though_nothing_can_be_written(
    settings: Settings,
) -> None:
    file = GenerationsFile(settings)
    before, draft = file.current, Path(settings.data_dir, "generations.json.tmp")

    def fill_the_disk() -> None:
        assert read_generations(settings.data_dir) == Generations(NEW)
        draft.mkdir()
        raise StoreError("The disk is full.")

    with pytest.raises(StoreError, match="full"), file.written_if_all_goes_well(Generations(NEW)):
        fill_the_disk()
    assert file.current == before == read_generations(settings.data_dir)
    draft.rmdir()
    with file.written_if_all_goes_well(Generations(NEW)):
        pass
    assert file.current == Generations(NEW) == read_generations(settings.data_dir)
    assert os.listdir(settings.data_dir) == ["generations.json"]


def test_the_owner_is_made_up_once(settings: Settings) -> None:
    owner = owner_of(settings.data_dir)
    assert len(owner) == 32
    assert owner_of(settings.data_dir) == owner


class TestDifferences:
    def test_a_default_says_nothing_of_an_index_that_is_there(self, settings: Settings) -> None:
        assert differences(settings, Generation("faiss", "faiss", "B")) == []

    def test_what_somebody_named_is_told_with_the_command(self, settings: Settings) -> None:
        named = replace(settings, model="B", named=frozenset({"store", "model"}))
        found = differences(named, replace(OTHER, model="A"))
        assert [d.command for d in found] == ["imagedb store use lance", "imagedb model use B"]
        assert "goes on with faiss" in found[0].text

    def test_a_flag_that_a_switch_made_out_of_date_is_what_should_go(self, settings: Settings) -> None:
        over = {"model": Overridden("--model", "A"), "store": Overridden("IMAGEDBD_STORE", "faiss")}
        flagged = replace(settings, model="B", named=frozenset({"store", "model"}), overridden=over)
        found = differences(flagged, replace(OTHER, model="A"))
        assert [d.command for d in found] == [None, None]
        assert [d.help for d in found] == [
            "start the daemon without IMAGEDBD_STORE",
            "start the daemon without --model",
        ]
        # Where the file does not name what answers either, the flag is a wish like any other.
        (other,) = differences(flagged, replace(OTHER, model="C"))[1:]
        assert other.help == "imagedb model use B"

    def test_a_place_elsewhere(self, settings: Settings) -> None:
        remote = replace(settings, store_uri="s3://b/i", named=frozenset({"store_uri"}))
        (difference,) = differences(remote, OLD)
        assert (difference.configured, difference.active) == ("s3://b/i", "lance")
        assert differences(remote, Generation("lance", "s3://b/i")) == []
        (back,) = differences(settings, Generation("lance", "s3://b/i"))
        assert back.command == "imagedb store use lance"


def test_the_file_is_plain_enough_to_be_looked_at(settings: Settings) -> None:
    GenerationsFile(settings)
    assert json.loads(file_of(settings).read_text())["active"] == {
        "kind": "lance",
        "place": "lance",
        "model": None,
    }
