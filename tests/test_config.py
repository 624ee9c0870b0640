"""Where settings come from, which one wins, and how a faulty one is told."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from imagedbd.config import (
    DEFAULT_MODELS,
    Overridden,
    edit_roots,
    edit_setting,
    load_settings,
    move_root,
    parse_duration,
)
from imagedbd.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def env(tmp_path: Path, file: Path) -> dict[str, str]:
    return {"IMAGEDBD_CONFIG": str(file), "XDG_RUNTIME_DIR": "/run/user/7"}


def test_roots_of_flags_and_variables_are_known_as_such(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('roots = ["/filed"]\n')
    flags = {"config_file": str(file), "roots": ["/flag"]}
    assert load_settings(flags, {}).fixed_roots == ("/flag",)
    settings = load_settings(flags, {"IMAGEDBD_ROOTS": "/one:/two"})
    assert settings.roots == settings.fixed_roots == ("/one", "/two", "/flag")
    assert load_settings({"config_file": str(file)}, {}).fixed_roots == ()


def test_without_a_file_there_are_defaults(env: dict[str, str]) -> None:
    settings = load_settings(environ=env)
    assert settings.model == DEFAULT_MODELS["lance"]
    assert settings.roots == ()
    assert settings.socket == "/run/user/7/imagedbd/imagedbd.sock"


def test_without_a_session_the_socket_lies_with_the_data(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.config.RUNTIME_FOLDERS", str(tmp_path / "nowhere"))
    del env["XDG_RUNTIME_DIR"]
    settings = load_settings({"data_dir": str(tmp_path)}, env)
    assert settings.socket == str(tmp_path / "run" / "imagedbd.sock")


def test_who_is_not_told_of_the_session_finds_its_socket_all_the_same(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.config.RUNTIME_FOLDERS", str(tmp_path))
    del env["XDG_RUNTIME_DIR"]
    runtime = tmp_path / str(os.geteuid())
    runtime.mkdir(mode=0o700)
    assert load_settings(environ=env).socket == str(runtime / "imagedbd" / "imagedbd.sock")
    runtime.chmod(0o755)  # nobody else may have put it there
    assert not load_settings(environ=env).socket.startswith(str(runtime))


def test_flags_win_over_variables_and_variables_over_the_file(file: Path, env: dict[str, str]) -> None:
    file.write_text('model = "A/file"\ndtype = "fp32"\ndevice = "cpu"\n')
    env |= {"IMAGEDBD_MODEL": "A/variable", "IMAGEDBD_DTYPE": "bf16"}
    settings = load_settings({"model": "A/flag", "dtype": None}, env)
    assert (settings.model, settings.dtype, settings.device) == ("A/flag", "bf16", "cpu")


def test_roots_of_flags_are_added_to_those_of_the_file(
    file: Path, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file.write_text(f'roots = ["{tmp_path}/a", "{tmp_path}/link"]\n')
    settings = load_settings({"roots": [f"{tmp_path}/b", f"{tmp_path}/a/"]}, env)
    assert settings.roots == (f"{tmp_path}/a", f"{tmp_path}/real", f"{tmp_path}/b")


def test_a_variable_may_name_several_roots(env: dict[str, str]) -> None:
    assert load_settings(environ=env | {"IMAGEDBD_ROOTS": "/a:/b"}).roots == ("/a", "/b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('settle = "soon"', ", line 1: settle: 'soon' is not a duration"),
        ("# words\n\nmodle = 'x'", ", line 3: unknown setting 'modle'. Did you mean 'model'?"),
        ("quite_something = 1", "There are: roots"),
        ("roots = 7", "line 1: roots: expected a list"),
        ("model = 'ViT-B-16'", "ARCHITECTURE/TAG"),
        ("store = 'sqlite'", "is not one of lance"),
        ("device = 'gpu'", "is not a device"),
        ("max_file_size = 'big'", "is not a size"),
        ("decoders = -1", "is not a whole number"),
        ("roots = [\n", ", line 1: this is not valid TOML: a value is missing"),
        (
            "\nmodel = 'demo\ndtype = 'fp32'\n",
            ", line 2: this is not valid TOML: a string lacks its closing quote",
        ),
        ('roots = ["/a", "/b]\n', ", line 1: this is not valid TOML: a string lacks its closing quote"),
        ('model = "demo', ", line 1: this is not valid TOML: a string lacks its closing quote"),
        ("[store]\nkind = 'faiss'\nuri = 's3://b/i'", ", line 3: store.uri: s3://b/i is for LanceDB alone"),
        ("settle = 1\nsettle = 2", ", line 2: this is not valid TOML: "),
        ("model = 3", "expected a model's name"),
    ],
)
def test_a_faulty_setting_is_told_with_its_place(
    file: Path, env: dict[str, str], text: str, expected: str
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=env)
    assert str(file) in caught.value.message
    assert expected in caught.value.message


def test_all_faults_are_told_at_once_each_with_its_place(file: Path, env: dict[str, str]) -> None:
    file.write_text(
        "stor = 'lance'\ndevice = 'mps'\nsettle = 'soon'\n"
        "[store]\nknd = 'faiss'\nkind = 'sqlite'\nuri = 'nonsense'\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings({"dtype": "fp8"}, env | {"IMAGEDBD_DECODERS": "few"})
    told = [fault.removeprefix(f"{file}, ") for fault in caught.value.faults]
    beginnings = [
        "line 1: unknown setting 'stor'",
        "line 3: settle: 'soon' is not",
        "line 5: unknown setting 'store.knd'",
        "line 6: store.kind: 'sqlite' is not",
        "line 7: store.uri: 'nonsense' is no",
        "IMAGEDBD_DECODERS: decoders: 'few' is not",
        "--dtype: dtype: 'fp8' is not",
        "line 2: device: There is no device 'mps' here.",
    ]
    assert len(told) == len(beginnings)
    assert all(fault.startswith(start) for fault, start in zip(told, beginnings, strict=True))


def test_a_file_that_is_no_text_is_told_with_the_line(file: Path, env: dict[str, str]) -> None:
    file.write_bytes(b"settle = 1\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: this is not UTF-8"):
        load_settings(environ=env)


def test_a_faulty_flag_and_a_faulty_variable_are_named(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"--dtype: dtype: 'fp8'"):
        load_settings({"dtype": "fp8"}, env)
    with pytest.raises(ConfigError, match="IMAGEDBD_SETTLE: settle"):
        load_settings(environ=env | {"IMAGEDBD_SETTLE": "x"})


def test_a_socket_whose_path_is_too_long_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        load_settings({"socket": "/" + "x" * 110}, env)


def test_a_local_model_is_named_from_anywhere(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert load_settings({"model": "local-dir:share"}, env).model == "local-dir:/usr/share"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(2, 2), (0.5, 0.5), ("90", 90), ("1.5s", 1.5), ("30m", 1800), ("2 h", 7200), ("1d", 86400)],
)
def test_durations_have_units(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "-1s", "1 week", True, None, "1e3"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(value)


def test_what_goes_before_the_file_is_known(file: Path) -> None:
    file.write_text('model = "demo"\nstore = "faiss"\ndevice = "cpu"\n')
    environ = {"IMAGEDBD_CONFIG": str(file), "IMAGEDBD_STORE": "lance", "IMAGEDBD_DEVICE": "cpu"}
    settings = load_settings({"model": "hf-hub:a/b"}, environ)
    assert settings.overridden == {
        "model": Overridden("--model", "demo"),
        "store": Overridden("IMAGEDBD_STORE", "faiss"),
    }
    assert settings.named == {"model", "store", "device"}


def test_editing_roots_keeps_everything_else(file: Path) -> None:
    file.write_text('# mine\nroots = [\n  "/a", # first\n]\nmodel = "demo" # small\n')
    assert edit_roots(str(file), add="/b")
    assert not edit_roots(str(file), add="/b")
    assert edit_roots(str(file), remove="/a")
    assert not edit_roots(str(file), remove="/zzz")
    text = file.read_text()
    assert "# mine" in text
    assert 'model = "demo" # small' in text
    assert load_settings(environ={"IMAGEDBD_CONFIG": str(file)}).roots == ("/b",)


def test_the_first_root_makes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.toml"
    assert edit_roots(str(file), add="/a")
    assert load_settings(environ={"IMAGEDBD_CONFIG": str(file)}).roots == ("/a",)


def test_a_file_that_is_no_toml_is_not_edited(file: Path) -> None:
    file.write_text("roots = [")
    with pytest.raises(ConfigError):
        edit_roots(str(file), add="/a")
    assert file.read_text() == "roots = ["


@pytest.mark.parametrize(("name", "value"), [("store", "faiss"), ("store", "paper"), ("model", "rubbish")])
def test_an_edit_after_which_no_daemon_would_start_is_refused(file: Path, name: str, value: str) -> None:
    text = '[store]\nkind = "lance"\nuri = "s3://bucket/index" # mine\n'
    file.write_text(text)
    with pytest.raises(ConfigError):
        edit_setting(str(file), name, value)
    assert file.read_text() == text
    edit_setting(str(file), "store", "lance")
    assert file.read_text() == text


def test_a_root_takes_the_place_of_another(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('roots = [\n  "/a",  # first\n  "/b",  # second\n]  # end\n')
    assert move_root(str(file), "/a", "/c")
    assert file.read_text() == 'roots = [\n  "/c",  # first\n  "/b",  # second\n]  # end\n'
    assert move_root(str(file), "/c", "/b")
    assert tomllib.loads(file.read_text()) == {"roots": ["/b"]}
    assert not move_root(str(file), "/a", "/d")
    assert tomllib.loads(file.read_text()) == {"roots": ["/b"]}


def test_a_root_that_became_a_link_is_found_by_either_name(tmp_path: Path) -> None:
    file, old, new = tmp_path / "config.toml", tmp_path / "old", tmp_path / "new"
    new.mkdir()
    old.symlink_to(new)
    file.write_text(f'roots = ["{old}"]\n')
    assert move_root(str(file), str(old), str(new))
    assert file.read_text() == f'roots = ["{new}"]\n'
