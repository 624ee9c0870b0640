"""A restore that comes to nothing leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_rows import MODEL, picture

from imagedbd.backups import Backup, Source, read_backup, write_backup
from imagedbd.config import Settings
from imagedbd.data_folder import ledger_file, running_mark, store_folder
from imagedbd.datatypes import Batch
from imagedbd.errors import StoreError, StoreUnreadableError, UsageError
from imagedbd.generations import Generation
from imagedbd.ledger import Ledger
from imagedbd.repair import repair
from imagedbd.restoring import restore
from imagedbd.stores import open_store

pytestmark = pytest.mark.in_memory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An index of three pictures."""
    settings = Settings(str(tmp_path / "config.toml"), str(tmp_path / "data"), str(tmp_path / "s"))
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "config.toml").touch()
    Ledger(ledger_file(settings)).close()
    store = open_store("lance", store_folder(settings))
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(3))))
    store.close()
    return settings


@pytest.fixture
def backup(settings: Settings, tmp_path: Path) -> Backup:
    active = Generation("lance", os.path.basename(store_folder(settings)))
    source = Source(settings.data_dir, ledger_file(settings), settings.config_file, active, "tiny/demo", 3)
    folder = str(tmp_path / "kept")
    write_backup(source, folder, created="2026-05-01T00:00:00Z", advance=lambda _: None, is_held=lambda: True)
    return read_backup(folder)


@pytest.mark.parametrize("place", ["data/lance/kept", "data/kept", "link/deeper/kept"])
def test_a_backup_into_the_index_itself_is_refused(settings: Settings, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(store_folder(settings))
    source = Source(
        settings.data_dir,
        ledger_file(settings),
        settings.config_file,
        Generation("lance", "lance"),
        "demo",
        3,
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="of which it is to be a copy; name a folder elsewhere"):
        write_backup(
            source,
            str(tmp_path / place),
            created="2026-05-01T00:00:00Z",
            advance=lambda copied: pytest.fail(f"{copied} bytes were copied"),
            is_held=lambda: True,
        )
    assert sorted(tmp_path.rglob("*")) == before


def names(settings: Settings) -> set[str]:
    return set(os.listdir(settings.data_dir)) - {"lock"}


def test_a_damaged_backup_leaves_no_copy_behind(settings: Settings, backup: Backup) -> None:
    before = names(settings)
    last = Path(backup.folder, list(backup.files)[-1])
    last.write_bytes(last.read_bytes() + b"more")
    with pytest.raises(StoreUnreadableError, match="damaged"):
        restore(backup, settings)
    assert names(settings) == before


def test_ctrl_c_amid_the_check_leaves_no_copy_behind(
    settings: Settings, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Ledger) -> None:
        raise KeyboardInterrupt

    before = names(settings)
    monkeypatch.setattr(Ledger, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore(backup, settings)
    assert names(settings) == before


def test_the_index_is_as_it_was_where_that_is_said(
    settings: Settings, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = names(settings), os.rename

    def rename(old: str, new: str) -> None:
        if old == ledger_file(settings):
            raise OSError(5, "Input/output error", old)
        real(old, new)

    monkeypatch.setattr("os.rename", rename)
    with pytest.raises(StoreError, match="The index is as it was") as told:
        restore(backup, settings)
    assert f"Input/output error ({ledger_file(settings)})" in told.value.message
    assert "Errno" not in told.value.message
    assert names(settings) == before


def test_what_was_copied_by_a_restore_that_died_is_removed(settings: Settings) -> None:
    draft = Path(settings.data_dir, "restoring")
    draft.mkdir()
    (draft / "ledger.sqlite3").touch()
    repair(settings)
    assert not draft.exists()


def test_the_settings_of_a_backup_stay_where_they_are(settings: Settings, backup: Backup) -> None:
    assert "with 3 pictures" in restore(backup, settings)[0]
    assert "config.toml" not in names(settings)
    assert os.path.exists(running_mark(settings))


def test_what_is_no_backup_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope is no backup: there is no such folder\.$"):
        read_backup(str(tmp_path / "nope"))
    with pytest.raises(UsageError, match=r"is no backup: there is no \S+ in it\.$"):
        read_backup(str(tmp_path))
