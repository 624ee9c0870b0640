"""The checkup."""

from __future__ import annotations

import json
import os
import sys

import pytest
from systemctl import DEAD, FAILED, RUNNING, pretend_systemd

from imagedbd.cli import checkup
from imagedbd.generations import note_damage
from imagedbd.service import user_name

from .conftest import a_status


@pytest.fixture(autouse=True)
def systemd(tmp_path, monkeypatch):
    return pretend_systemd(tmp_path, monkeypatch)


@pytest.fixture
def healthy(daemon, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "data" / "lance").mkdir(parents=True)
    (tmp_path / "data" / "ledger.sqlite3").touch()
    roots = [{"path": str(photos), "state": "online", "indexed": 1, "reason": None}]
    daemon.answers["/status"] = a_status(roots=roots, data_dir=str(tmp_path / "data"))
    return daemon


def _findings(ran):
    return {finding["check"]: finding for finding in json.loads(ran.data)}


def test_all_is_well(healthy, imagedb, monkeypatch):
    monkeypatch.setattr(checkup, "LOW_SPACE", 0)
    ran = imagedb("doctor", "--json")
    assert ran.code == 0, ran.text
    assert {f["level"] for f in json.loads(ran.data)} <= {"ok", "note"}
    assert {
        "python",
        "packages",
        "formats",
        "settings",
        "data",
        "index",
        "socket",
        "daemon",
        "service",
        "model",
        "folders",
    } <= set(_findings(ran))
    assert imagedb("doctor").words == "All is well.\n"


def test_each_format_is_listed_with_the_package_that_reads_it(healthy, imagedb, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    formats = [f for f in json.loads(imagedb("doctor", "--json").data) if f["check"] == "formats"]
    said = " ".join(finding["finding"] for finding in formats)
    assert "JPEG 2000, GIF, BMP and PNM are read by Pillow." in said
    assert "HEIC and HEIF pictures are read by pillow-heif 1." in said
    assert "JPEG XL pictures are read by pillow-jxl-plugin 1." in said
    (missing,) = [finding for finding in formats if finding["level"] == "note"]
    assert missing["finding"] == "Camera RAW pictures are read by rawpy, which is not installed."
    assert "-m pip install 'imagedbd[raw]'" in missing["fix"]


def test_each_problem_comes_with_its_fix(healthy, imagedb, tmp_path):
    model = {"name": "m", "state": "unavailable", "reason": "No weights.", "help": ["imagedb model pull"]}
    roots = [{"path": str(tmp_path / "gone"), "state": "offline", "indexed": 1, "reason": "It is gone."}]
    healthy.answers["/status"] |= {"model": model, "roots": roots, "version": "9.9"}
    ran = imagedb("doctor", "--json")
    assert ran.code == 70
    for check in ("model", "folders", "daemon"):
        assert _findings(ran)[check]["level"] == "problem"
        assert _findings(ran)[check]["fix"]
    assert "→ imagedb model pull" in imagedb("doctor").text


@pytest.mark.parametrize(("owner", "fix"), [(0, "chmod u+rwx"), (1, "sudo setfacl -m u:$USER:rwx")])
def test_who_owns_a_folder_says_how_one_gets_into_it(healthy, imagedb, monkeypatch, owner, fix):
    somebody = os.geteuid() + owner
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: somebody)
    monkeypatch.setattr("imagedbd.peer.uid", lambda _: somebody)
    assert _findings(imagedb("doctor", "--json"))["data"]["fix"].startswith(fix)


def test_no_daemon(imagedb):
    ran = imagedb("doctor", "--json")
    assert ran.code == 70
    assert _findings(ran)["daemon"]["fix"] == "imagedbd run"
    assert _findings(ran)["folders"]["fix"] == "imagedb root add DIR"


def test_an_index_that_keeps_the_daemon_from_starting_is_to_be_repaired(imagedb, tmp_path):
    (tmp_path / "data").mkdir()
    note_damage(str(tmp_path / "data"), "manifest.json is damaged.")
    found = _findings(imagedb("doctor", "--json"))
    assert (found["index"]["level"], found["index"]["finding"]) == ("problem", "manifest.json is damaged.")
    assert found["index"]["fix"] == "imagedbd repair"
    assert found["daemon"]["fix"] == "imagedbd repair && imagedbd run"


@pytest.mark.parametrize(
    ("state", "doing", "fix"),
    [
        ("blocked", "Indexing is held up: No space left on device.", "Make room"),
        ("blocked", "Indexing is held up: bad. If that is damage, `imagedbd repair` mends it.", "repair"),
        ("damaged", "x.lance is damaged. Run `imagedbd repair` to mend it.", "run `imagedbd repair`"),
    ],
)
def test_what_holds_indexing_up_comes_with_what_helps(healthy, imagedb, state, doing, fix):
    healthy.answers["/status"] |= {"state": state, "doing": doing}
    found = _findings(imagedb("doctor", "--json"))["daemon"]
    assert found["level"] == "problem"
    assert fix in found["fix"]
    assert ("Make room" in found["fix"]) == (fix == "Make room")


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("service", "socket", "told"),
    [
        ({**DEAD, "LoadState": "not-found"}, DEAD, ("note", "imagedb service install")),
        (FAILED, RUNNING, ("problem", "imagedbd check-config")),
        ({**FAILED, "ExecMainStatus": "203"}, RUNNING, ("problem", "imagedb service install")),
        ({**FAILED, "ExecMainStatus": "226"}, RUNNING, ("problem", "install --no-sandbox")),
        (DEAD, DEAD, ("note", "imagedb service start")),
        ({**RUNNING, "UnitFileState": "disabled"}, RUNNING, ("note", "imagedb service install")),
        (RUNNING, RUNNING, ("note", "imagedb service install --linger")),
    ],
    ids=["not-installed", "settings", "moved", "sandbox", "stopped", "disabled", "not-lingering"],
)
def test_a_service_that_is_not_all_it_could_be_comes_with_what_helps(imagedb, systemd, service, socket, told):
    systemd.is_in(service, socket=socket)
    found = [f for f in json.loads(imagedb("doctor", "--json").data) if f["check"] == "service"]
    level, fix = told
    assert any(f["level"] == level and fix in (f["fix"] or "") for f in found)


def test_a_service_that_runs_from_boot_on_needs_nothing(healthy, imagedb, systemd, tmp_path):
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / user_name()).touch()
    assert _findings(imagedb("doctor", "--json"))["service"] == {
        "check": "service",
        "level": "ok",
        "finding": "running since Wed 2026-11-25 05:00:00 UTC, process 4711, 250 MB, 1 restart",
        "fix": None,
    }
    systemd.is_in(DEAD, socket=RUNNING)
    found = _findings(imagedb("doctor", "--json"))["service"]
    assert (found["level"], found["fix"]) == ("ok", None)
    assert "the next question starts it" in found["finding"]


def test_without_systemd_the_service_is_a_note_with_another_way(healthy, imagedb, monkeypatch):
    monkeypatch.setattr("imagedbd.service.has_systemd", lambda: False)
    found = _findings(imagedb("doctor", "--json"))["service"]
    assert found["level"] == "note"
    assert "imagedbd run" in found["finding"]


def test_bad_settings_end_the_round(imagedb, tmp_path):
    (tmp_path / "config.toml").write_text("roots = 3\n")
    ran = imagedb("doctor", "--json")
    assert ran.code == 70
    assert list(_findings(ran))[-1] == "settings"


def test_too_many_folders(healthy, imagedb, tmp_path, monkeypatch):
    limit = tmp_path / "limit"
    limit.write_text("3\n")
    for name in "abc":
        (tmp_path / "photos" / name).mkdir()
    monkeypatch.setattr(checkup, "WATCH_LIMIT", str(limit))
    found = _findings(imagedb("doctor", "--json"))["watches"]
    assert found["level"] == "problem"
    assert "fs.inotify.max_user_watches=524288" in found["fix"]


def test_builds_of_torch_that_do_not_match(healthy, imagedb, monkeypatch):
    versions = {"torch": "2.9.0+cpu"}
    monkeypatch.setattr(checkup, "_version", lambda name: versions.get(name, "0.24.0"))
    assert "different builds" in _findings(imagedb("doctor", "--json"))["packages"]["finding"]


def test_it_imports_nothing_heavy(healthy, tmp_path):
    import subprocess
    import sys

    probe = (
        "import sys; from imagedbd.cli.main import main; main(['doctor', '--json']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", probe], check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert not {"torch", "lancedb", "open_clip", "pandas", "pydantic"} & set(ran.stderr.split())
