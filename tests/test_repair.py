"""What is damaged is set aside, and the next start builds it anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fakes import INFO, vector_of
from store_rows import MODEL, picture

from imagedbd.config import Settings
from imagedbd.data_folder import ledger_file, running_mark, store_folder
from imagedbd.datatypes import (
    Batch,
    ImageRecord,
    LedgerEntry,
    Metadata,
    PictureState,
    Signature,
    StoredPicture,
)
from imagedbd.errors import LockHeldError, StoreUnreadableError
from imagedbd.generations import (
    Generation,
    Generations,
    note_damage,
    noted_damage,
    read_generations,
    write_generations,
)
from imagedbd.ledger import Ledger
from imagedbd.locking import locked_data
from imagedbd.repair import repair
from imagedbd.stores import open_store
from imagedbd.stores.salvage import put_in_place

pytestmark = pytest.mark.in_memory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An index of one picture."""
    settings = Settings(str(tmp_path / "config"), str(tmp_path / "data"), str(tmp_path / "s"))
    (tmp_path / "data").mkdir(mode=0o700)
    Ledger(ledger_file(settings)).close()
    store = open_store("lance", store_folder(settings))
    record = ImageRecord("a" * 32, "/a", Signature(1, 2, 3, 4, 5), "h", Metadata(), "2026-01-01T00:00:00Z")
    store.apply(Batch(upserts=(StoredPicture(record),)))
    store.close()
    return settings


def test_what_is_in_order_stays(settings: Settings) -> None:
    ledger, store = repair(settings)
    assert "is in order" in ledger
    assert "with 1 row." in store


def test_a_store_that_is_gone_is_told_as_lost(settings: Settings) -> None:
    ledger = Ledger(ledger_file(settings))
    ledger.put([LedgerEntry("/a", Signature(1, 2, 3, 4, 5), PictureState.INDEXED, "a" * 32, "h")])
    ledger.close()
    shutil.rmtree(store_folder(settings))
    _, store = repair(settings)
    assert "with 0 rows. 1 picture that the ledger knows is not in it" in store
    assert "embedded anew at the next start" in store
    assert Path(running_mark(settings)).exists()


def test_a_damaged_ledger_is_set_aside(settings: Settings) -> None:
    Path(ledger_file(settings)).write_bytes(b"rubbish" * 2000)
    ledger, store = repair(settings)
    assert "set aside" in ledger
    assert "is in order" in store
    assert not Path(ledger_file(settings)).exists()
    assert len(list(Path(settings.data_dir).glob("ledger.sqlite3.damaged-*"))) == 1


def test_a_damaged_store_is_set_aside(settings: Settings) -> None:
    versions = Path(store_folder(settings)).rglob("_versions/*")
    for file in versions:
        file.write_bytes(b"\0" * file.stat().st_size)
    ledger, store = repair(settings)
    assert "is in order" in ledger
    assert "set aside" in store
    assert open_store("lance", store_folder(settings)).count() == 0


def test_what_can_be_read_of_a_damaged_store_is_saved(settings: Settings) -> None:
    folder = store_folder(settings)
    store = open_store("lance", folder)
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(20))))
    store.close()
    newest = max(Path(folder).rglob("*.lance"), key=lambda path: path.is_file() and path.stat().st_mtime_ns)
    newest.write_bytes(bytes(newest.stat().st_size))
    _, found = repair(settings)
    assert "is damaged" in found
    assert "1 picture was saved into a new store. 20 were lost, and are embedded anew" in found
    assert "imagedbd repair" not in found
    assert repair(settings)[1].endswith("in order, with 1 row.")
    store = open_store("lance", folder)
    assert store.model == MODEL
    assert [r.id for r in store.scan()] == ["a" * 32]
    store.close()
    assert len(list(Path(folder).parent.glob("lance.damaged-*"))) == 1


def test_a_flipped_bit_is_found_and_costs_one_picture_at_most(settings: Settings) -> None:
    folder = store_folder(settings)
    store = open_store("lance", folder)
    store.apply(Batch(upserts=tuple(picture(f"p{n}") for n in range(20))))
    store.close()
    data = max(Path(folder).rglob("data/*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 1
    data.write_bytes(content)
    _, found = repair(settings)
    assert "saved into a new store" in found
    assert open_store("lance", folder).count() >= 20


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_repair_that_was_interrupted_is_finished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    folder = store_folder(settings)
    store = open_store("lance", folder)
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(20))))
    store.close()
    newest = max(Path(folder).rglob("*.lance"), key=lambda path: path.is_file() and path.stat().st_mtime_ns)
    newest.write_bytes(bytes(newest.stat().st_size))
    done: list[str] = []
    real = os.rename

    def rename(old: str, new: str) -> None:
        if old.startswith(folder):
            if len(done) == renames:
                raise KeyboardInterrupt
            done.append(new)
        real(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", rename)
        with pytest.raises(KeyboardInterrupt):
            repair(settings)
    assert len(done) == renames
    findings = repair(settings)
    assert any("an interrupted repair had saved" in finding for finding in findings) == (renames == 2)
    assert repair(settings)[1].endswith("in order, with 1 row.")
    assert not list(Path(settings.data_dir).glob("lance.saved*"))
    assert Path(running_mark(settings)).exists()


def test_what_was_not_saved_to_the_end_takes_no_place(settings: Settings) -> None:
    folder = store_folder(settings)
    os.rename(folder, f"{folder}.saved.draft")
    assert not put_in_place(folder)
    os.rename(f"{folder}.saved.draft", f"{folder}.saved")
    assert put_in_place(folder)
    assert not put_in_place(folder)


def test_a_store_that_is_kept_is_checked_and_left_as_it_is(settings: Settings) -> None:
    kept = Path(settings.data_dir, "lance-2")
    store = open_store("lance", str(kept))
    store.bind(MODEL)
    store.apply(Batch(upserts=(picture("p1", 1),)))
    store.close()
    write_generations(
        settings.data_dir, Generations(Generation("lance", "lance"), previous=Generation("lance", "lance-2"))
    )
    assert repair(settings)[2].endswith("lance-2, which is kept to go back to, is in order, with 1 row.")
    for file in kept.rglob("_versions/*"):
        file.write_bytes(bytes(file.stat().st_size))
    _, active, previous = repair(settings)
    assert "is in order" in active
    assert "`imagedb model remove` drops it" in previous
    shutil.rmtree(kept)
    assert "lance-2 is not there. `imagedb model remove` drops it." in repair(settings)[2]
    assert not list(Path(settings.data_dir).glob("lance-2*"))


def test_where_nothing_can_be_read_the_store_that_is_kept_answers(settings: Settings) -> None:
    """With the ids that the ledger knows, so that only what came since is embedded."""
    kept = Path(settings.data_dir, "faiss")
    store = open_store("faiss", str(kept))
    store.bind(MODEL)
    store.apply(Batch(upserts=(picture("p1", 1), picture("p2", 2))))
    store.close()
    previous = Generation("faiss", "faiss", MODEL.spec)
    write_generations(settings.data_dir, Generations(Generation("lance", "lance"), previous=previous))
    for file in Path(store_folder(settings)).rglob("*"):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))
    _, found = repair(settings)
    assert "was set aside" in found
    assert f"The faiss store with {MODEL.spec} that was kept to go back to answers" in found
    assert read_generations(settings.data_dir) == Generations(previous)
    assert Path(running_mark(settings)).exists()
    assert repair(settings)[1].endswith("in order, with 2 rows.")


def test_damage_that_kept_a_daemon_from_starting_is_noted_until_it_is_mended(settings: Settings) -> None:
    note_damage(settings.data_dir, "It is damaged.")
    assert noted_damage(settings.data_dir) == "It is damaged."
    repair(settings)
    assert noted_damage(settings.data_dir) is None


def test_what_says_where_the_index_is_is_found_out_anew(settings: Settings) -> None:
    Path(settings.data_dir, "generations.json").write_text("{")
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        store_folder(settings)
    aside, found, ledger, store = repair(settings)
    assert "set aside" in aside
    assert found.endswith("data/lance is the one that answers.")
    assert "is in order" in ledger
    assert "with 1 row." in store
    assert read_generations(settings.data_dir) == Generations(Generation("lance", "lance"))


def test_of_several_stores_the_one_with_most_vectors_is_taken_and_the_ledger_is_built_anew(
    settings: Settings,
) -> None:
    store = open_store("lance", str(Path(settings.data_dir, "lance-2")))
    store.bind(INFO)
    record = ImageRecord("a" * 32, "/a", Signature(1, 2, 3, 4, 5), "h", Metadata(), "2026-01-01T00:00:00Z")
    store.apply(Batch(upserts=(StoredPicture(record, vector_of(b"a")),)))
    store.close()
    Path(settings.data_dir, "generations.json").write_text("{")
    repair(settings)
    assert store_folder(settings).endswith("lance-2")
    assert len(list(Path(settings.data_dir).glob("ledger.sqlite3.damaged-*"))) == 1


def test_a_running_daemon_is_left_alone(settings: Settings) -> None:
    with locked_data(settings), pytest.raises(LockHeldError):
        repair(settings)
