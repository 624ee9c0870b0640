"""What the inventory knows of files: which are right, which are wrong, and which nobody was told of."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from imagedbd.errors import StoreUnreadableError
from imagedbd.stores import inventory as inventory_module
from imagedbd.stores.inventory import FILE_NAME, Inventory, Work

pytestmark = pytest.mark.in_memory


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    put(tmp_path, "a", b"first")
    put(tmp_path, "deep/b", bytes(range(256)) * 1_000)
    return tmp_path


@pytest.fixture
def inventory(folder):
    made = fresh(folder)
    made.start()
    return made


def fresh(folder):
    return Inventory(os.fspath(folder), lambda path: path.startswith("ignored"))


def loaded(folder):
    found = fresh(folder)
    found.load()
    return found


def put(folder, name, content):
    Path(folder, name).write_bytes(content)


def wrong(inventory):
    return list(inventory.faults()), [fault for fault in inventory.scrub() if fault]


def test_what_is_there_at_the_start_is_listed(folder, inventory):
    put(folder, "ignored", b"x")
    again = loaded(folder)
    assert set(again) == {"a", "deep/b"}
    assert again.unlisted() == []
    assert wrong(again) == ([], [])
    assert again.damaged() == []


def test_new_files_count_once_they_are_acknowledged(folder, inventory):
    put(folder, "deep/c", b"new")
    assert inventory.unlisted() == ["deep/c"]
    assert loaded(folder).unlisted() == ["deep/c"]
    inventory.acknowledge()
    again = loaded(folder)
    assert again.unlisted() == []
    assert "deep/c" in again


def test_discarded_files_are_gone(folder, inventory):
    put(folder, "c", b"new")
    inventory.discard(["c", "never was"])
    assert inventory.unlisted() == []
    assert not Path(folder, "c").exists()


def test_new_files_and_their_folders_are_flushed_before_they_are_listed(folder, inventory, monkeypatch):
    steps = []

    def noted(descriptor):
        steps.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    Path(folder, "new").mkdir()
    put(folder, "new/c", b"new")
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "fdatasync", noted)
    inventory.acknowledge()
    assert steps[0] == "c"
    assert set(steps[1:-1]) == {"new", folder.name}
    assert steps[-1] == FILE_NAME


@pytest.mark.parametrize("name", ["a", "deep/b"])
@pytest.mark.parametrize("how", ["missing", "shorter", "longer", "zeroed", "another end"])
def test_damage_is_seen_by_size_and_ends(folder, inventory, name, how):
    path = Path(folder, name)
    content = path.read_bytes()
    damaged = {
        "shorter": content[:-1],
        "longer": content + b"x",
        "zeroed": bytes(len(content)),
        "another end": content[:-1] + b"x",
    }
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged[how])
    faults, scrubbed = wrong(loaded(folder))
    assert len(faults) == len(scrubbed) == 1
    assert os.fspath(path) in faults[0]
    assert loaded(folder).damaged() == [name]


def test_damage_in_the_middle_is_seen_by_reading_it_all(folder, inventory):
    content = bytearray(Path(folder, "deep/b").read_bytes())
    content[len(content) // 2] ^= 1
    put(folder, "deep/b", content)
    faults, scrubbed = wrong(loaded(folder))
    assert faults == []
    assert len(scrubbed) == 1
    assert loaded(folder).damaged() == ["deep/b"]


def test_starting_again_does_not_take_damage_for_right(folder, inventory):
    put(folder, "a", b"fIrst")
    inventory.start()
    assert loaded(folder).damaged() == ["a"]


# Work that takes several steps.


def test_a_rewriting_ends_when_it_is_acknowledged(folder, inventory):
    inventory.begin(Work.REWRITE)
    assert loaded(folder).work is Work.REWRITE
    put(folder, "c", b"new")
    inventory.acknowledge()
    assert inventory.work is None
    assert loaded(folder).work is None


def test_while_it_is_cleaned_a_missing_file_proves_nothing(folder, inventory):
    inventory.begin(Work.CLEAN)
    os.remove(Path(folder, "a"))
    put(folder, "c", b"new")
    inventory.acknowledge()
    again = loaded(folder)
    assert again.work is Work.CLEAN
    assert wrong(again) == ([], [])
    put(folder, "deep/b", b"")
    assert len(list(again.faults())) == 1
    again.start()
    assert loaded(folder).work is None
    assert set(loaded(folder)) == {"deep/b", "c"}


# The log itself.


@pytest.mark.parametrize("cut", [1, 2, 10, 60])
def test_a_line_that_a_crash_cut_short_does_not_count(folder, inventory, cut):
    put(folder, "c", b"new")
    inventory.acknowledge()
    log = Path(folder, FILE_NAME)
    log.write_bytes(log.read_bytes()[:-cut])
    again = loaded(folder)
    assert again.unlisted() == ["c"]
    put(folder, "d", b"newer")
    again.acknowledge()
    assert loaded(folder).unlisted() == []


@pytest.mark.parametrize("place", [0, 5, 40, -60, -2, -1])
def test_a_changed_byte_is_damage(folder, inventory, place):
    put(folder, "c", b"new")
    inventory.acknowledge()
    log = Path(folder, FILE_NAME)
    content = bytearray(log.read_bytes())
    content[place] ^= 4
    log.write_bytes(content)
    assert any(inventory.scrub())
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        loaded(folder)


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\n", b"x y\n"])
def test_rubbish_is_damage(folder, inventory, content):
    put(folder, FILE_NAME, content)
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        loaded(folder)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_refused_line_leaves_none(folder, inventory, monkeypatch, call):
    put(folder, "c", b"new")
    before = Path(folder, FILE_NAME).read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if call == "write":
            patched.setattr("imagedbd.stores.inventory._write_all", refuse)
        else:
            patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="No space"):
            inventory.acknowledge()
    assert Path(folder, FILE_NAME).read_bytes() == before
    assert inventory.unlisted() == ["c"]
    inventory.acknowledge()
    assert loaded(folder).unlisted() == []


def test_cleaning_that_did_not_end_is_remembered_through_later_commits(tmp_path):
    """Its files may be missing until the log is written anew, whatever is begun and ended meanwhile."""
    (tmp_path / "old").write_bytes(b"old")
    inventory = Inventory(str(tmp_path), lambda _: False)
    inventory.start()
    inventory.begin(Work.CLEAN)
    (tmp_path / "old").unlink()
    inventory.begin(Work.REWRITE)
    (tmp_path / "new").write_bytes(b"new")
    inventory.acknowledge()
    again = Inventory(str(tmp_path), lambda _: False)
    again.load()
    assert again.work is Work.CLEAN
    assert list(again.faults()) == []
    again.start()
    assert again.work is None
    assert set(again) == {"new"}


def test_a_scrub_never_reads_a_new_log_by_the_length_of_the_old_one(inventory, folder, monkeypatch):
    put(folder, "c", b"third")
    real, faults = inventory_module.replace_file, []
    scrub = threading.Thread(target=lambda: faults.append(next(inventory.scrub())))

    def replace(path, content):
        real(path, content)
        scrub.start()
        scrub.join(0.2)

    monkeypatch.setattr(inventory_module, "replace_file", replace)
    inventory.start()
    scrub.join()
    assert faults == [None]
