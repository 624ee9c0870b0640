"""``imagedb service`` over a systemctl that remembers what it was asked; the real one is in e2e."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from machine import program
from systemctl import DEAD, FAILED, Systemd, pretend_systemd

from imagedbd.cli.main import main


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return pretend_systemd(tmp_path, monkeypatch)


def test_status_tells_in_words_and_in_json_how_it_stands(
    systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "status"]) == 0
    words = capsys.readouterr().out
    assert "running since Wed 2026-11-25 05:00:00 UTC, process 4711, 250 MB, 1 restart" in words
    assert "Watching for changes." in words
    assert main(["service", "status", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["runs"], state["pid"], state["at_login"]) == (True, 4711, True)


def test_status_of_a_service_that_does_not_run_is_69_and_wakes_nobody(
    systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.is_in(FAILED)
    assert main(["service", "status"]) == 69
    said = capsys.readouterr().out
    assert "failed: exit-code, exit status 78" in said
    assert "imagedbd check-config" in said
    assert systemd.asked == []


def test_stop_closes_the_socket_too(systemd: Systemd) -> None:
    assert main(["service", "stop"]) == 0
    assert systemd.asked == ["stop imagedbd.socket imagedbd.service"]


def test_restart_keeps_the_socket(systemd: Systemd) -> None:
    assert main(["service", "restart"]) == 0
    assert systemd.asked == [
        "stop imagedbd.service",
        "reset-failed imagedbd.service imagedbd.socket",
        "start imagedbd.socket imagedbd.service",
    ]


@pytest.mark.parametrize("command", ["start", "stop", "restart", "status"])
def test_without_the_units_every_command_names_the_one_that_makes_them(
    systemd: Systemd, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    systemd.is_in({**DEAD, "LoadState": "not-found"})
    assert main(["service", command]) == 70
    assert "imagedb service install" in capsys.readouterr().err


def test_a_sandbox_that_cannot_be_set_up_is_told_with_the_way_out(
    systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.is_in({**FAILED, "ExecMainStatus": "226"}, failing=("start",))
    assert main(["service", "start"]) == 70
    assert "imagedb service install --no-sandbox" in capsys.readouterr().err


def test_faulty_settings_stop_an_installation_before_anything_is_written(
    systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    (systemd.folder / "config.toml").write_text("rots = []\n")
    assert main(["service", "install"]) == 78
    assert not (systemd.folder / "config" / "systemd").exists()


def test_a_model_that_cannot_be_had_stops_an_installation_before_anything_is_written(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGEDBD_MODEL", f"local-dir:{systemd.folder}/none")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "stub"))
    assert main(["service", "install"]) == 70
    assert not (systemd.folder / "config" / "systemd").exists()


def test_uninstall_disables_and_removes(systemd: Systemd) -> None:
    units = systemd.folder / "config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "imagedbd.service").write_text("")
    assert main(["service", "uninstall"]) == 0
    assert systemd.asked == ["disable --now imagedbd.socket imagedbd.service", "daemon-reload"]
    assert list(units.iterdir()) == []


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="this machine is run by systemd")
def test_without_systemd_the_user_is_told_what_to_run_instead() -> None:
    done = subprocess.run([program("imagedb"), "service", "install"], capture_output=True, check=False)
    assert done.returncode == 70
    assert b"imagedbd run" in done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("stop", "ends with Ctrl-C"),
        ("restart", "Then start it as before"),
        ("status", "`imagedb status` tells of the daemon"),
        ("uninstall", "nothing is installed"),
        ("start", "Have whatever starts your session start this"),
    ],
)
def test_without_systemd_each_command_says_what_helps_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    monkeypatch.setattr("imagedbd.service.has_systemd", lambda: False)
    assert main(["service", command]) == 70
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("imagedb: There is no systemd here: This machine is not run by systemd.")
    assert words in said
    assert (command == "start") == ("@reboot" in said)
