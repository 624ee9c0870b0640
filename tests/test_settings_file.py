"""The settings file as it is first written."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest

from imagedbd.config import (
    ABOUT_SETTINGS,
    FILE_KEYS,
    Settings,
    default_settings,
    edit_roots,
    edit_setting,
    load_settings,
)
from imagedbd.errors import ConfigError, UsageError
from imagedbd.settings_file import entries, first_text, write_first

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = {"store.uri", "store.storage_options"}
"""Settings that are off by default: the file shows what they may look like."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "imagedbd" / "config.toml"


def read(path: Path) -> Settings:
    """What the file says, without what is about the settings themselves."""
    settings = load_settings(environ={"IMAGEDBD_CONFIG": str(path)})
    return replace(settings, named=frozenset(), places={})


def defaults(path: Path) -> Settings:
    return default_settings(str(path), {})


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=[a-z_.]+ = )", "", text, flags=re.MULTILINE)


def test_it_changes_nothing(path: Path) -> None:
    assert write_first(str(path), defaults(path), force=False) is None
    assert read(path) == defaults(path)


def test_it_has_every_setting_with_its_default(path: Path) -> None:
    about_itself = {"config_file", *ABOUT_SETTINGS}
    names = {FILE_KEYS.get(each.name, each.name) for each in fields(Settings)} - about_itself
    assert {entry.key for entry in entries(defaults(path))} == names - {"roots", "store"} | {"store.kind"}
    text = uncommented(first_text(defaults(path)))
    path.parent.mkdir()
    path.write_text("".join(line for line in text.splitlines(True) if line.split(" ")[0] not in EXAMPLES))
    assert read(path) == defaults(path)


def test_its_examples_can_be_used(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(uncommented(first_text(defaults(path))))
    assert read(path).store_uri == "s3://bucket/pictures"
    assert read(path).storage_options == {"region": "eu-central-1"}


def test_commands_that_change_it_keep_what_it_explains(path: Path, tmp_path: Path) -> None:
    write_first(str(path), defaults(path), force=False)
    before = path.read_text().splitlines()
    edit_roots(str(path), add=str(tmp_path))
    edit_setting(str(path), "store", "faiss")
    edit_setting(str(path), "model", "A/b")
    settings = read(path)
    assert (settings.roots, settings.store, settings.model) == ((str(tmp_path),), "faiss", "A/b")
    assert {line for line in before if line.startswith("#")} <= {*path.read_text().splitlines()}
    assert path.read_text().count("roots = ") == 1


def test_one_that_is_there_stays_unless_that_is_forced(path: Path) -> None:
    path.parent.mkdir()
    for number in range(3):
        path.write_text(f"decoders = {number}\n")
        with pytest.raises(UsageError, match="--force"):
            write_first(str(path), defaults(path), force=False)
        assert path.read_text() == f"decoders = {number}\n"
        aside = write_first(str(path), defaults(path), force=True)
        assert aside is not None
        with open(aside) as file:
            assert file.read() == f"decoders = {number}\n"
    assert len(list(path.parent.iterdir())) == 4


def test_where_none_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "config.toml"
    with pytest.raises(ConfigError, match="cannot be written"):
        write_first(str(path), defaults(path), force=False)
