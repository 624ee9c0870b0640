"""Which folders are watched: the settings file is edited, and the daemon told."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import tomllib

import pytest

from imagedbd.datatypes import LedgerEntry, PictureState, Signature
from imagedbd.errors import UsageError
from imagedbd.ledger import Ledger

from .conftest import a_status, served


@pytest.fixture
def config(tmp_path):
    return tmp_path / "config.toml"


@pytest.fixture
def short_runtime(monkeypatch):
    """A runtime folder of a path that has room for a socket, in which the daemon is looked for."""
    monkeypatch.delenv("IMAGEDBD_SOCKET")
    with tempfile.TemporaryDirectory(prefix="idb") as folder:
        os.makedirs(f"{folder}/imagedbd", mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def ledger(tmp_path):
    """Of the daemon that does not run."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.closing(Ledger(str(folder / "ledger.sqlite3"))) as ledger:
        yield ledger


def _roots(config):
    return tomllib.loads(config.read_text())["roots"]


def test_adding_with_the_daemon_down(imagedb, config, photos):
    config.write_text("# mine\nsettle = '2s'  # slow disk\n")
    ran = imagedb("root", "add", "photos")
    assert ran.code == 0
    assert "The daemon is not running" in ran.words
    assert _roots(config) == [str(photos)]
    assert "# slow disk" in config.read_text()


def test_adding_goes_to_the_file_of_the_daemon_that_runs(daemon, imagedb, config, photos, tmp_path):
    own = tmp_path / "own.toml"
    daemon.answers |= {"/status": a_status(config_file=str(own)), "/reload": {"changed": ["roots"]}}
    assert imagedb("root", "add", "photos").code == 0
    assert _roots(own) == [str(photos)]
    assert not config.exists()
    assert daemon.bodies("/reload") == [None]


@pytest.mark.parametrize(
    "command", [["add", "photos"], ["remove", "--yes", "photos"], ["relocate", "photos", "new"]]
)
def test_a_faulty_file_is_told_once_and_as_check_config_tells_it(
    imagedb, config, photos, short_runtime, command
):
    config.write_text("roots = [\n")
    with served(f"{short_runtime}/imagedbd/imagedbd.sock", {"/status": a_status(config_file=str(config))}):
        ran = imagedb("root", *command)
    assert ran.code == 78
    fault = "line 1: this is not valid TOML: a value is missing or not whole, or is a text without quotes."
    assert ran.words == f"imagedb: Bad configuration: {config}, {fault}\n"


@pytest.mark.parametrize("command", [["add", "photos"], ["remove", "--yes", "photos"]])
def test_a_faulty_file_of_another_daemon_is_told_in_the_same_words(
    daemon, imagedb, photos, tmp_path, command
):
    own = tmp_path / "own.toml"
    own.write_text("roots = [\n")
    daemon.answers["/status"] = a_status(config_file=str(own))
    ran = imagedb("root", *command)
    assert (ran.code, ran.words.count("\n")) == (78, 1)
    assert f"{own}, line 1: this is not valid TOML: a value is missing" in ran.words


def test_adding_twice_is_told(imagedb, photos):
    imagedb("root", "add", "photos")
    assert "There already:" in imagedb("root", "add", "photos/").words


def test_a_link_is_added_as_what_it_leads_to(imagedb, config, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    imagedb("root", "add", "link")
    assert _roots(config) == [str(photos)]


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_only_folders_can_be_added(imagedb, config, photos, tmp_path, name):
    (tmp_path / "file").write_text("")
    assert imagedb("root", "add", "photos", name).code == 2
    assert not config.exists()


@pytest.mark.parametrize("folder", ["/proc", "/proc/self", "/sys", "/dev", "/run"])
def test_what_the_kernel_makes_up_cannot_be_added(imagedb, config, folder):
    assert imagedb("root", "add", "--yes", folder).code == 2
    assert not config.exists()


@pytest.fixture
def homes(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="idb") as folder:
        os.mkdir(f"{folder}/me")
        monkeypatch.setenv("HOME", f"{folder}/me")
        yield folder


@pytest.mark.parametrize("of_all", [True, False])
def test_adding_all_or_what_holds_homes_asks_first(imagedb, config, monkeypatch, homes, of_all):
    folder = "/" if of_all else homes
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    ran = imagedb("root", "add", folder)
    assert ran.code == 1
    assert "with system files" in ran.words
    assert not config.exists()
    assert imagedb("root", "add", "--yes", folder).code == 0
    assert _roots(config) == [os.path.realpath(folder)]


def test_removing_asks_first(daemon, imagedb, config, photos, monkeypatch):
    config.write_text(f'roots = ["{photos}"]\n')
    root = {"path": str(photos), "state": "online", "indexed": 59, "reason": None}
    daemon.answers |= {"/status": a_status(config_file=str(config), roots=[root]), "/reload": {}}
    for answer, code in (("no\n", 1), ("\n", 1), ("", 2)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        ran = imagedb("root", "remove", "photos")
        assert ran.code == code
        assert "Forget 59 pictures" in ran.words
        assert _roots(config) == [str(photos)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert imagedb("root", "remove", "photos").code == 0
    assert _roots(config) == []
    assert len(daemon.bodies("/reload")) == 1


def test_removing_a_folder_that_is_gone(imagedb, config):
    config.write_text('roots = ["/gone", "/stays"]\n')
    assert imagedb("root", "remove", "--yes", "/gone").code == 0
    assert _roots(config) == ["/stays"]


def test_removing_what_is_not_there(imagedb, config):
    assert imagedb("root", "remove", "--yes", "/gone").code == 1


def test_removing_what_only_the_command_line_of_the_daemon_names(daemon, imagedb):
    ran = imagedb("root", "remove", "--yes", "/photos")
    assert ran.code == 2
    assert "--root" in ran.words


def test_listing(daemon, imagedb):
    assert json.loads(imagedb("root", "list", "--json").data) == daemon.answers["/status"]["roots"]
    assert imagedb("root", "list").text.splitlines()[1].split() == ["/photos", "online", "1,204"]


@pytest.mark.parametrize("columns", [40, 80])
def test_why_a_folder_is_offline_takes_no_room_from_the_paths(daemon, imagedb, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    reason = "It lies on another file system than before, so that nothing is concluded."
    root = {"path": "/mnt/usb/Pictures", "state": "offline", "indexed": 300, "reason": reason}
    daemon.answers["/status"] = a_status(roots=[root])
    lines = imagedb("root", "list").text.splitlines()
    assert lines[1].split()[:2] == ["/mnt/usb/Pictures", "offline"]
    assert max(map(len, lines)) <= columns
    assert f"/mnt/usb/Pictures: {reason}" in " ".join(line.strip() for line in lines)


def test_listing_with_the_daemon_down(imagedb, config):
    config.write_text('roots = ["/photos"]\n')
    assert json.loads(imagedb("root", "list", "--json").data)[0]["path"] == "/photos"
    assert "The daemon is not running" in imagedb("root", "list").words


def test_a_variable_that_hides_the_file_is_told(imagedb, photos, monkeypatch):
    monkeypatch.setenv("IMAGEDBD_ROOTS", "/elsewhere")
    assert "IMAGEDBD_ROOTS is set" in imagedb("root", "add", "photos").words


def test_adding_what_lies_in_another_folder_says_so(imagedb, config, photos):
    config.write_text(f'roots = ["{photos}"]\n')
    (photos / "trip").mkdir()
    ran = imagedb("root", "add", "photos/trip")
    assert ran.code == 0
    assert f"lies in {photos}, which is watched" in " ".join(ran.words.split())
    assert _roots(config) == [str(photos), str(photos / "trip")]


def test_relocating_with_the_daemon_down(imagedb, config, photos):
    config.write_text('roots = ["/stays", "/gone"] # mine\n')
    ran = imagedb("root", "relocate", "/gone", "photos")
    assert ran.code == 0
    assert "not running, and has no index yet" in ran.words
    assert _roots(config) == ["/stays", str(photos)]
    assert "# mine" in config.read_text()


def test_relocating_an_index_at_rest(imagedb, config, photos, ledger):
    config.write_text('roots = ["/gone"]\n')
    (photos / "a.jpg").touch()
    signature = Signature.of(os.lstat(photos / "a.jpg"))
    ledger.put([LedgerEntry("/gone/a.jpg", signature, PictureState.INDEXED)])
    ran = imagedb("root", "relocate", "/gone", "photos")
    assert ran.code == 0
    assert "brings 1 picture over when it starts" in ran.words
    assert ledger.relocations() == {"/gone": str(photos)}


def test_relocating_an_index_at_rest_to_a_place_that_has_not_its_pictures(imagedb, config, photos, ledger):
    config.write_text('roots = ["/gone"]\n')
    ledger.put([LedgerEntry("/gone/else.jpg", Signature(1, 1, 1, 1, 1), PictureState.INDEXED)])
    ran = imagedb("root", "relocate", "/gone", "photos")
    assert ran.code == 2
    assert "not the same library" in ran.words
    assert ledger.relocations() == {}
    assert _roots(config) == ["/gone"]


def test_relocating_where_a_variable_hides_the_file_is_refused_before_it_is_touched(
    imagedb, config, photos, monkeypatch
):
    config.write_text('roots = ["/gone"] # mine\n')
    monkeypatch.setenv("IMAGEDBD_ROOTS", "/gone")
    ran = imagedb("root", "relocate", "/gone", "photos")
    assert ran.code == 2
    assert "IMAGEDBD_ROOTS is set" in ran.words
    assert config.read_text() == 'roots = ["/gone"] # mine\n'


def test_relocating_asks_the_daemon_first(daemon, imagedb, config, photos):
    config.write_text('roots = ["/photos"]\n')
    seen = []

    def relocate(body):
        seen.append((body["only_check"], _roots(config)))
        return {"pictures": 59}

    daemon.answers |= {"/status": a_status(config_file=str(config)), "/roots/relocate": relocate}
    ran = imagedb("root", "relocate", "/photos", "photos")
    assert "59 pictures" in ran.words
    assert seen == [(True, ["/photos"]), (False, [str(photos)])]


def test_relocating_what_the_daemon_refuses_changes_nothing(daemon, imagedb, config, photos):
    config.write_text('roots = ["/photos"]\n')
    refusal = UsageError("It is not the same library.")
    daemon.answers |= {"/status": a_status(config_file=str(config)), "/roots/relocate": refusal}
    ran = imagedb("root", "relocate", "/photos", "photos")
    assert ran.code == 2
    assert "not the same library" in ran.words
    assert _roots(config) == ["/photos"]


def test_relocating_what_only_the_command_line_of_the_daemon_names(daemon, imagedb, photos):
    daemon.answers |= {"/roots/relocate": {"pictures": 59}}
    ran = imagedb("root", "relocate", "/photos", "photos")
    assert ran.code == 2
    assert "--root" in ran.words


def test_relocating_a_folder_that_became_a_link(daemon, imagedb, config, photos, tmp_path):
    old = tmp_path / "old"
    old.symlink_to(photos)
    config.write_text(f'roots = ["{old}"]\n')
    root = {"path": str(old), "state": "offline", "indexed": 59, "reason": None}
    answers = {
        "/status": a_status(config_file=str(config), roots=[root]),
        "/roots/relocate": {"pictures": 59},
    }
    daemon.answers |= answers
    assert imagedb("root", "relocate", "old", "photos").code == 0
    assert _roots(config) == [str(photos)]
    assert daemon.bodies("/roots/relocate")[0] == {"old": str(old), "new": str(photos), "only_check": True}
