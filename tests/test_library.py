"""What a library in this process tells of itself, with the store made to fail; nothing runs in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from store_rows import MODEL, picture

from imagedbd import daemon
from imagedbd.config import Settings
from imagedbd.datatypes import Batch, LedgerEntry, PictureState, Query, Signature
from imagedbd.errors import (
    ConfigError,
    NothingMatchedError,
    StoreError,
    StoreUnreadableError,
    UsageError,
    WaitTimeoutError,
)
from imagedbd.generations import Generation, Generations, noted_damage
from imagedbd.library import Library
from imagedbd.notify import Notifier
from imagedbd.scanner import EVERYTHING
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from imagedbd.datatypes import StoreStats


class Home:
    """A library and the settings that it reads when it is told to."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(mode=0o700, exist_ok=True)
        self.settings = Settings(
            str(folder / "config"), str(folder / "data"), str(folder / "s"), model="demo", decoders=1
        )
        self.library = Library(self.settings, lambda: self.settings, lambda: None)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.library.close()


def test_a_store_that_does_not_answer_leaves_the_rest_of_the_status(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home.library.status()["store"]["reason"] is None

    def stats() -> StoreStats:
        raise StoreError("It does not answer.")

    monkeypatch.setattr(home.library._room.current.store, "stats", stats)
    status = home.library.status()
    assert (status["state"], status["indexed"]) == ("idle", 0)
    store = status["store"]
    assert (store["kind"], store["reason"]) == ("lance", "It does not answer.")
    assert store["uri"].endswith("data/lance")
    assert store["rows"] is store["vectors"] is store["bytes_on_disk"] is None


def test_a_store_that_a_repair_had_saved_is_opened_instead_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    store = open_store("lance", str(tmp_path / "data" / "lance.saved"))
    store.bind(MODEL)
    store.close()
    home = Home(tmp_path)
    try:
        assert home.library._room.current.store.model == MODEL
    finally:
        home.library.close()


def test_options_of_a_remote_store_that_is_open_need_a_restart(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.settings = replace(home.settings, storage_options={"region": "eu-central-1"})
    assert home.library.reload() == {"changed": ["storage_options"], "needs_restart": []}
    remote = Generations(Generation("lance", "s3://bucket/index"))
    monkeypatch.setattr(home.library._generations, "_current", remote)
    home.settings = replace(home.settings, storage_options={"region": "eu-west-1"})
    wanted = {"changed": ["storage_options"], "needs_restart": ["storage_options"]}
    assert home.library.reload() == wanted
    assert home.library.reload() == {"changed": [], "needs_restart": ["storage_options"]}


def test_settings_of_pace_and_restraint_count_at_once(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # whatever was set is undone
    assert home.library._brakes.reason() is None
    changes: dict[str, Any] = {
        "model_ttl": 5.0, "rescan": 7.0, "rescan_unheard": 8.0, "max_cpu": 50, "on_battery": "pause",
        "min_free": 1 << 60, "log_level": "error",
    }  # fmt: skip
    home.settings = replace(home.settings, **changes)
    assert home.library.reload() == {"changed": list(changes), "needs_restart": []}
    assert "Indexing waits for room" in str(home.library._brakes.reason())
    assert logging.getLogger().level == logging.ERROR
    assert home.library._embedder._ttl_s == 5.0
    assert (home.library._scanner._rescan_s, home.library._scanner._unheard_s) == (7.0, 8.0)
    home.settings = replace(home.settings, min_free=1)
    home.library.reload()
    assert home.library._brakes.reason() is None


def test_a_model_that_was_on_its_way_while_the_settings_changed_goes_by_those_that_hold(home: Home) -> None:
    library = home.library
    embedder = library._open_embedder("demo", None)
    try:
        home.settings = replace(home.settings, model_ttl=5.0, keep_text_tower=True)
        library.reload()
        library._new_engine(library._room.current.store, embedder)
        for following in (library._embedder, embedder):
            assert (following._ttl_s, following._keep_text) == (5.0, True)
    finally:
        embedder.close()


def test_what_counts_from_the_next_start_on_is_logged_when_it_changes_and_no_other_time(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.settings = replace(home.settings, device="cuda", model="ViT-B-16/openai", named=frozenset({"model"}))
    assert home.library.reload() == {"changed": ["model", "device"], "needs_restart": ["device"]}
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1  # the model's switch
    caplog.clear()
    daemon._reload(home.library, Notifier(enabled=False))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    home.settings = replace(home.settings, decoders=2, named=frozenset({"model", "decoders"}))
    daemon._reload(home.library, Notifier(enabled=False))
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert told == ["these count from the next start on: decoders"]
    assert home.library.reload() == {"changed": [], "needs_restart": ["device", "decoders"]}


def test_a_wait_that_was_too_short_for_the_scan_says_so(home: Home) -> None:
    with pytest.raises(WaitTimeoutError, match="The folders are still being scanned; 0 changes"):
        home.library.wait(0).poll()


def furnish(folder: Path) -> Path:
    """A store of so many pictures that its largest file is more than its ends; returns that file."""
    (folder / "data").mkdir(mode=0o700)
    store = open_store("lance", str(folder / "data" / "lance"))
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(2_000))))
    store.close()
    return max(Path(folder, "data", "lance").rglob("data/*"), key=lambda path: path.stat().st_size)


def hollow_out(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[17_000:-17_000] = bytes(255 - byte for byte in content[17_000:-17_000])
    file.write_bytes(content)


def test_a_read_that_fails_has_damage_found_and_told(tmp_path: Path) -> None:
    file = furnish(tmp_path)
    home = Home(tmp_path)
    try:
        home.library._scrubber.start()
        hollow_out(file)
        with pytest.raises(StoreError, match="If that is damage, `imagedbd repair` mends it"):
            home.library.search(Query(text="dog"))
        deadline = time.monotonic() + 30
        while home.library.status()["state"] != "damaged":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert str(file) in home.library.status()["doing"]
    finally:
        home.library.close()


def test_damage_that_keeps_it_from_starting_is_told_and_noted(tmp_path: Path) -> None:
    file = furnish(tmp_path)
    hollow_out(file)
    with pytest.raises(StoreUnreadableError, match="is damaged") as told:
        Home(tmp_path)
    assert noted_damage(str(tmp_path / "data")) == told.value.message


def test_a_faulty_pattern_changes_nothing(home: Home) -> None:
    good = home.settings
    home.settings = replace(good, roots=("/elsewhere",), ignore=("!",))
    with pytest.raises(ConfigError, match="ignore"):
        home.library.reload()
    assert home.library._live.current == good
    assert home.library._rules.roots == ()
    home.settings = good
    assert home.library.reload() == {"changed": [], "needs_restart": []}


@pytest.mark.parametrize("fault", ["_crashed", "_refusals"])
def test_a_stop_in_the_middle_of_a_commit_is_not_taken_for_a_clean_one(tmp_path: Path, fault: str) -> None:
    home = Home(tmp_path)
    mark = tmp_path / "data" / "running"
    assert mark.exists()
    setattr(home.library._indexer, fault, True)
    home.library.close()
    assert mark.exists()
    Home(tmp_path).library.close()
    assert not mark.exists()


def test_a_start_that_fails_leaves_the_mark_of_an_unclean_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it should have repaired is still to be repaired."""

    def fail(*_: object, **__: object) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr("imagedbd.library.reconcile", fail)
    with pytest.raises(StoreError):
        Home(tmp_path)
    assert (tmp_path / "data" / "running").exists()


def test_a_hang_up_compares_folders_and_index_whatever_the_settings_say(home: Home) -> None:
    scans = home.library._scanner
    scans._requested.clear()
    daemon._reload(home.library, Notifier(enabled=False))
    assert scans._requested == {EVERYTHING}
    scans._requested.clear()
    home.settings = replace(home.settings, ignore=("!",))
    daemon._reload(home.library, Notifier(enabled=False))
    assert scans._requested == {EVERYTHING}


def test_a_scan_that_fails_is_told_and_ends_a_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = home.library._scanner

    def fail(folder: str) -> None:
        raise StoreError(f"The ledger is damaged: nothing is known of {folder}.")

    monkeypatch.setattr(scanner, "scan", fail)
    wait = home.library.wait(None)
    scanner.start()
    deadline = time.monotonic() + 30
    while scanner.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(StoreError, match="The ledger is damaged"):
        wait.poll()
    state, doing = home.library.activity()
    assert (state, "The ledger is damaged" in doing) == ("blocked", True)


def test_what_is_held_up_has_no_speed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.library._indexer, "rate", lambda: 7.0)
    home.library._queue.put("/photos/a.jpg")
    assert (home.library.status()["rate"], home.library.status()["eta_s"]) == (7.0, 0)
    home.library.pause(None)
    assert (home.library.status()["rate"], home.library.status()["eta_s"]) == (None, None)
    home.library.resume()
    monkeypatch.setattr(home.library._indexer, "_trouble", "The disk is full.")
    assert home.library.status()["state"] == "blocked"
    assert (home.library.status()["rate"], home.library.status()["eta_s"]) == (None, None)


def test_a_fault_in_the_settings_is_told_until_it_is_mended(home: Home) -> None:
    assert home.library.status()["settings_fault"] is None
    good = home.settings
    home.settings = replace(good, ignore=("!",))
    with pytest.raises(ConfigError):
        home.library.reload()
    assert "not a pattern: '!'" in home.library.status()["settings_fault"]
    home.settings = good
    home.library.reload()
    assert home.library.status()["settings_fault"] is None


def test_a_wait_looks_again_before_it_tells_of_what_was_amiss_before(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexer, scanner = home.library._indexer, home.library._scanner
    monkeypatch.setattr(indexer, "_trouble", "The disk is full.")
    monkeypatch.setattr(scanner, "_trouble", "The ledger is full.")
    wait = home.library.wait(None)
    assert wait.poll() is None
    assert indexer._again.is_set()
    monkeypatch.setattr(indexer, "_tries_again", False)  # it is as it was
    with pytest.raises(StoreError, match="The disk is full"):
        wait.poll()
    monkeypatch.setattr(indexer, "_trouble", None)
    assert wait.poll() is None
    monkeypatch.setattr(scanner, "_tries_again", False)
    with pytest.raises(StoreError, match="The ledger is full"):
        wait.poll()


def test_a_scan_that_failed_is_made_again_for_who_waits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner, scan = home.library._scanner, home.library._scanner.scan

    def fail(folder: str) -> None:
        raise StoreError(f"The ledger is full: nothing is known of {folder}.")

    monkeypatch.setattr(scanner, "scan", fail)
    scanner.start()
    deadline = time.monotonic() + 30
    while scanner.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(scanner, "scan", scan)
    wait = home.library.wait(None)
    while wait.poll() is None:
        assert time.monotonic() < deadline, "it was waited for the next try"
        time.sleep(0.01)


def test_settings_whose_file_is_gone_go_on_to_hold(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.touch()
    home.settings = replace(home.settings, roots=(str(tmp_path / "photos"),))
    home.library.reload()
    file.unlink()
    home.settings = replace(home.settings, roots=())
    with pytest.raises(ConfigError, match="is gone, and what it said goes on to hold"):
        home.library.reload()
    assert [root["path"] for root in home.library.roots()] == [str(tmp_path / "photos")]


def test_a_pattern_that_is_an_absolute_path_is_told_with_what_is_meant(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    ignore = ("/photos/private/*.jpg", "!/photos/private/a.jpg", "/other/", "*.tmp")
    home.settings = replace(home.settings, roots=("/photos",), ignore=ignore)
    home.library.reload()
    told = [record.getMessage() for record in caplog.records if "ignore" in record.getMessage()]
    assert [line.rpartition("write ")[2] for line in told] == ["/private/*.jpg", "!/private/a.jpg"]


def test_a_relocation_that_was_only_announced_is_dropped_when_the_settings_are_read_again(
    home: Home, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    home.settings = replace(home.settings, roots=(str(old),))
    home.library.reload()
    home.library.relocate(str(old), str(new), only_check=True)
    announced = {str(old): str(new)}
    assert home.library._ledger.relocations() == announced
    faulty = replace(home.settings, ignore=("a\\",))
    good, home.settings = home.settings, faulty
    with pytest.raises(ConfigError, match="ignore"):
        home.library.reload()
    assert home.library._ledger.relocations() == announced
    home.settings = good
    home.library.reload()
    assert home.library._ledger.relocations() == {}


def test_what_a_start_without_folders_keeps_is_kept_until_one_is_named(home: Home, tmp_path: Path) -> None:
    home.settings = replace(home.settings, ignore=("*.tmp",))
    home.library.reload()
    assert not home.library._may_forget("/gone/a.jpg")
    home.settings = replace(home.settings, roots=(str(tmp_path),))
    home.library.reload()
    assert home.library._may_forget("/gone/a.jpg")


def test_a_folder_of_which_nothing_is_known_and_that_is_not_there_is_not_scanned(
    home: Home, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    home.settings = replace(home.settings, roots=(str(photos), str(tmp_path / "away")))
    home.library.reload()
    _know(home, photos / "gone" / "a.jpg")
    for folder in (photos / "trip", photos / "gone", tmp_path / "away"):
        home.library.scan(str(folder))
    with pytest.raises(NothingMatchedError, match=r"There is no .*nope"):
        home.library.scan(str(photos / "nope"))


def _know(home: Home, path: Path) -> None:
    home.library._ledger.put([LedgerEntry(str(path), Signature(1, 2, 3, 4, 5), PictureState.INDEXED)])


def test_a_relocation_that_is_held_up_leaves_the_pictures_to_a_scan(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    home.settings = replace(home.settings, roots=(str(old),))
    home.library.reload()
    assert home.library.relocate(str(old), str(new), only_check=True) == {"pictures": 0}
    with pytest.raises(UsageError, match="The settings must name"):
        home.library.relocate(str(old), str(new))
    home.settings = replace(home.settings, roots=(str(new),))
    # Its thread does not run here, and finds out that the disk is full as soon as somebody waits for it.
    begin = home.library._indexer.between_batches

    def fails(action: Callable[[], None]) -> Future[None]:
        monkeypatch.setattr(home.library._indexer, "_trouble", "The disk is full.")
        return begin(action)

    monkeypatch.setattr(home.library._indexer, "between_batches", fails)
    with pytest.raises(StoreError, match="The disk is full"):
        home.library.relocate(str(old), str(new))
    assert [root["path"] for root in home.library.roots()] == [str(new)]
