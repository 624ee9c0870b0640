"""Writing the settings file, and telling what holds."""

from __future__ import annotations

import json
import os

from imagedbd.config import DURATIONS, SIZES, load_settings


def shown(ran):
    return {setting["name"]: setting for setting in json.loads(ran.data)}


def test_a_file_is_written_once(imagedb, tmp_path):
    ran = imagedb("config", "init")
    assert (ran.code, ran.data) == (0, b"")
    written = (tmp_path / "config.toml").read_text()
    assert '#log_level = "info"' in written
    again = imagedb("config", "init")
    assert again.code == 2
    assert "imagedb config init --force" in again.words
    assert (tmp_path / "config.toml").read_text() == written
    (tmp_path / "config.toml").write_text("roots = ['/home/ana/my photos']\n")
    forced = imagedb("config", "init", "--force").words
    assert "config.toml.old" in forced
    assert "It names 1 folder, watched no longer: `imagedb root add '/home/ana/my photos'`" in " ".join(
        forced.split()
    )


def test_an_option_says_where(imagedb, tmp_path):
    assert imagedb("config", "init", "--config", "other.toml").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other.toml"]


def test_every_value_has_its_origin(imagedb, tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('\ndtype = "fp32"\nsettle = "2s"\n')
    monkeypatch.setenv("IMAGEDBD_SETTLE", "3s")
    settings = shown(imagedb("config", "show", "--json", "--data-dir", "/elsewhere"))
    found = {name: (each["value"], each["origin"], each["place"]) for name, each in settings.items()}
    path = str(tmp_path / "config.toml")
    assert found["dtype"] == ("fp32", "file", f"{path}, line 2")
    assert found["settle"] == (3.0, "environment", "IMAGEDBD_SETTLE")
    assert found["data_dir"] == ("/elsewhere", "flag", "--data-dir")
    assert found["device"] == ("auto", "default", None)
    assert found["config_file"] == (path, "environment", "IMAGEDBD_CONFIG")
    assert found["socket"] == (os.environ["IMAGEDBD_SOCKET"], "environment", "IMAGEDBD_SOCKET")


def test_keys_of_the_store_are_called_as_in_the_file(imagedb, tmp_path):
    options = 'storage_options = { region = "eu", aws_secret_access_key = "abc123" }'
    (tmp_path / "config.toml").write_text(f'[store]\nkind = "lance"\nuri = "s3://bucket/index"\n{options}\n')
    ran = imagedb("config", "show", "--json")
    settings = shown(ran)
    assert settings["store.uri"]["value"] == "s3://bucket/index"
    assert settings["store.uri"]["place"].endswith("line 3")
    assert settings["store.storage_options"]["value"]["region"] == "eu"
    assert b"abc123" not in ran.data + imagedb("config", "show").data


def test_people_get_a_table(imagedb):
    lines = imagedb("config", "show").text.splitlines()
    assert lines[0].split() == ["setting", "value", "from"]
    assert any(line.split() == ["device", "auto", "default"] for line in lines)
    assert any("IMAGEDBD_DATA_DIR" in line for line in lines)


def test_a_faulty_file_is_told_as_ever(imagedb, tmp_path):
    (tmp_path / "config.toml").write_text("rescann = 3\n")
    ran = imagedb("config", "show")
    assert ran.code == 78
    assert "line 1" in ran.words


def test_what_people_are_shown_can_be_set_again(imagedb, tmp_path):
    """Each value of the table, given by its variable, is the value that it was."""
    (tmp_path / "config.toml").write_text(
        "model_ttl = 90\nsettle = 0.25\nrescan = '2d'\nmax_file_size = '3G'\nmin_free = 1000001\n"
    )
    rows = [line.split() for line in imagedb("config", "show").text.splitlines()[1:]]
    shown_as = {row[0]: row[1] for row in rows}
    expected = {
        "model_ttl": "90s", "settle": "0.25s", "rescan": "48h", "decode_timeout": "1m",
        "max_file_size": "3G", "min_free": "1000001", "decode_memory": "4G", "max_pixels": "250000000",
    }  # fmt: skip
    assert expected.items() <= shown_as.items()
    before = load_settings({"config_file": str(tmp_path / "config.toml")}, environ={})
    again = {f"IMAGEDBD_{name.upper()}": text for name, text in shown_as.items() if name in DURATIONS | SIZES}
    after = load_settings({"config_file": str(tmp_path / "none.toml")}, environ=again)
    for name in DURATIONS | SIZES:
        assert getattr(after, name) == getattr(before, name)
