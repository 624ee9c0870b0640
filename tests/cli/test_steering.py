"""``imagedb pause``, ``resume``, ``reindex`` and ``reset``."""

from __future__ import annotations

import io
import sys

import pytest

from imagedbd.errors import PausedError

from .conftest import a_status


@pytest.mark.parametrize(("arguments", "seconds"), [((), None), (("--for", "2h"), 7200.0)])
def test_a_pause_has_an_end_or_none(daemon, imagedb, arguments, seconds):
    daemon.answers |= {
        "/pause": {"paused": {"until": None}},
        "/status": a_status(state="paused", doing="Indexing is paused until 12:00."),
    }
    ran = imagedb("pause", *arguments)
    assert (ran.code, ran.data) == (0, b"")
    assert daemon.bodies("/pause") == [{"seconds": seconds}]
    assert ran.words == "Indexing is paused until 12:00. `imagedb resume` goes on.\n"


@pytest.mark.parametrize("time", ["soon", "-1", "0"])
def test_a_pause_of_no_length_is_refused(daemon, imagedb, time):
    ran = imagedb("pause", f"--for={time}")
    assert ran.code == 2
    assert "--for" in ran.words
    assert not daemon.bodies("/pause")


@pytest.mark.parametrize(("was", "words"), [(True, "Indexing goes on."), (False, "Indexing was not paused.")])
def test_resume_says_whether_there_was_a_pause(daemon, imagedb, was, words):
    daemon.answers["/resume"] = {"was_paused": was}
    assert imagedb("resume").words == f"{words}\n"


def test_waiting_during_a_pause_fails_with_the_reason(daemon, imagedb):
    daemon.answers["/wait"] = PausedError("Indexing is paused until 12:00. `imagedb resume` goes on.")
    ran = imagedb("wait")
    assert ran.code == 70
    assert ran.words.startswith("imagedb: Paused: Indexing is paused until 12:00.")


class TestReindex:
    def test_paths_are_as_the_index_knows_them(self, daemon, imagedb, tmp_path):
        daemon.answers["/reindex"] = {"files": 1, "offline": []}
        ran = imagedb("reindex", "--force", "a.jpg")
        assert daemon.bodies("/reindex") == [{"paths": [str(tmp_path / "a.jpg")], "force": True}]
        assert ran.words.startswith("1 picture is read and embedded again.")

    def test_copies_elsewhere_are_told_apart(self, daemon, imagedb):
        daemon.answers["/reindex"] = {"files": 1, "copies": 2, "offline": []}
        words = imagedb("reindex", "--force", "a.jpg").words
        assert words.startswith("1 picture and 2 copies elsewhere are read and embedded again.")

    def test_without_paths_it_is_all_but_what_is_offline(self, daemon, imagedb):
        daemon.answers["/reindex"] = {"files": 1204, "offline": ["/media/camera"]}
        ran = imagedb("reindex")
        assert daemon.bodies("/reindex") == [{"paths": None, "force": False}]
        assert "/media/camera is offline and was left out." in ran.words
        assert "1,204 pictures are read again." in ran.words

    def test_what_is_nowhere_is_no_success(self, daemon, imagedb, tmp_path):
        daemon.answers["/reindex"] = {"files": 0, "copies": 0, "offline": []}
        ran = imagedb("reindex", "nope.jpg")
        assert (ran.code, "There is no nope.jpg, and the index has no" in ran.words) == (1, True)
        (tmp_path / "new.jpg").write_bytes(b"new")
        ran = imagedb("reindex", "new.jpg")
        assert (ran.code, "what is new is looked at now" in ran.words) == (1, True)
        assert imagedb("reindex").code == 1

    def test_it_waits_when_told_to(self, daemon, imagedb):
        daemon.answers |= {"/reindex": {"files": 2, "offline": []}, "/wait": {"indexed": 2, "failed": 0}}
        assert imagedb("reindex", "--wait").words.endswith("2 pictures indexed.\n")


class TestReset:
    @pytest.fixture(autouse=True)
    def _answer(self, daemon):
        daemon.answers["/reset"] = {"state": "active", "store": "lance", "model": "demo"}

    def test_it_asks_first_and_tells_what_it_costs(self, daemon, imagedb, monkeypatch):
        root = {"path": "/media/camera", "state": "offline", "indexed": 300, "reason": "it is gone"}
        daemon.answers["/status"] = a_status(roots=[root])
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        ran = imagedb("reset")
        assert ran.code == 1
        assert "Forget what is known of 1,204 pictures, which are all embedded again?" in ran.words
        assert "300 of them are offline now" in ran.words
        assert not daemon.bodies("/reset")

    def test_nobody_to_answer_is_no_consent(self, daemon, imagedb, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        assert imagedb("reset").code == 2
        assert not daemon.bodies("/reset")

    @pytest.mark.parametrize("yes", ["--yes", "-y"])
    def test_a_script_says_yes(self, daemon, imagedb, yes):
        ran = imagedb("reset", yes)
        assert ran.code == 0
        assert len(daemon.requests) == 1
        assert "begins empty" in ran.words
