"""The demo's own parts; the whole of it runs end to end elsewhere."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from imagedbd.cli import private_daemon
from imagedbd.cli.demo import _gallery_folder
from imagedbd.config import MAX_SOCKET_PATH
from imagedbd.errors import ImagedbError, UsageError


def test_a_new_folder_is_taken_away_again(tmp_path):
    path, leave = _gallery_folder(str(tmp_path / "new" / "gallery"))
    (tmp_path / "new" / "gallery" / "x.jpg").touch()
    leave()
    assert not os.path.exists(path)


def test_an_empty_folder_is_left_empty(tmp_path):
    _, leave = _gallery_folder(str(tmp_path))
    (tmp_path / "x.jpg").touch()
    leave()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["full", "file", "file/below"])
def test_a_folder_with_something_in_it_is_refused(tmp_path, name):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.jpg").touch()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        _gallery_folder(str(tmp_path / name))
    assert (tmp_path / "full" / "mine.jpg").exists()


def test_its_home_is_private_and_has_room_for_a_socket(tmp_path, monkeypatch):
    deep = tmp_path / ("long-" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    home = private_daemon.make_home()
    try:
        assert stat.S_IMODE(os.stat(home).st_mode) == 0o700
        assert len(os.fsencode(private_daemon._places(home)["socket"])) <= MAX_SOCKET_PATH
    finally:
        shutil.rmtree(home)


def test_a_daemon_that_does_not_start_says_why(tmp_path):
    daemon = private_daemon.start(str(tmp_path), str(tmp_path), "nonsense")
    with pytest.raises(ImagedbError, match="'nonsense' is not a model"):
        daemon.wait_until_up()
    daemon.stop()


def test_the_count_has_bounds(imagedb):
    assert imagedb("demo", "--count", "3").code == 2
