"""Status, waiting, failures and scans."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading

import pytest

from imagedbd.cli.entry import BROKEN_PIPE
from imagedbd.errors import DaemonStoppingError, ModelUnavailableError, UsageError, WaitTimeoutError

from .conftest import a_status
from .test_entry import PROGRAM


class TestStatus:
    def test_json_is_what_the_daemon_said(self, daemon, imagedb):
        assert json.loads(imagedb("status", "--json").data) == daemon.answers["/status"]

    def test_it_says_all_that_matters(self, daemon, imagedb):
        daemon.answers["/status"] = a_status(
            state="indexing", pending=1300, failed=2, rate=14.25, eta_s=91,
            roots=[{"path": "/mnt/usb", "state": "offline", "indexed": 300, "reason": "It is not mounted."}],
        )  # fmt: skip
        text = imagedb("status").text
        for part in (
            "indexing", "1,204 indexed", "1,300 to go", "2 failed", "14.2 pictures/s, about 2 min left",
            "demo  ready  on cpu, bf16", "12.3 MB", "/mnt/usb  offline  300 pictures  It is not mounted.",
        ):  # fmt: skip
            assert part in text

    def test_a_missing_model_comes_with_the_ways_on(self, daemon, imagedb):
        model = {
            "name": "ViT-B-16/x", "state": "unavailable", "reason": "Its weights are not here.",
            "help": ["imagedb model pull", "imagedb model use demo"], "configured": "ViT-B-16/x",
        }  # fmt: skip
        daemon.answers["/status"] = a_status(model=model, waiting=59)
        text = imagedb("status").text
        assert "59 waiting for the model" in text
        assert "Its weights are not here." in text
        assert "Ways on: imagedb model pull or imagedb model use demo" in text

    def test_another_model_in_the_settings_is_told(self, daemon, imagedb):
        difference = {
            "finding": "The settings name the model ViT-L-14/x; the index goes on with demo.",
            "help": "imagedb model use ViT-L-14/x",
        }
        daemon.answers["/status"] = a_status(differences=[difference])
        text = imagedb("status").text
        assert "The settings name the model ViT-L-14/x; the index goes on with demo." in text
        assert "→ imagedb model use ViT-L-14/x" in text

    def test_a_fault_in_the_settings_file_is_told_with_what_helps(self, daemon, imagedb):
        daemon.answers["/status"] = a_status(settings_fault="config.toml, line 3: no such setting.")
        text = " ".join(imagedb("status").text.split())
        assert "config.toml, line 3: no such setting." in text
        assert "imagedbd check-config" in text

    def test_it_is_readable_at_forty_columns(self, daemon, imagedb, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        lines = imagedb("status").text.splitlines()
        assert max(map(len, lines)) <= 40
        assert "1,204 indexed" in " ".join(lines)

    @pytest.mark.parametrize(
        ("options", "indexed"),
        [
            ([], lambda line: int(line.split(", ")[1].split()[0])),
            (["--json"], lambda line: json.loads(line)["indexed"]),
        ],
    )
    def test_watching_into_a_pipe_is_a_line_a_change(self, daemon, options, indexed):
        looks = itertools.count()
        seen_all = threading.Event()

        def status(_):
            look = next(looks)
            if look == 2:
                seen_all.set()
            return a_status(indexed=min(look, 1), uptime_s=4000.0 + look)

        daemon.answers["/status"] = status
        command = [*PROGRAM, "status", "--watch", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert seen_all.wait(20)
            child.send_signal(signal.SIGINT)
            assert [indexed(line) for line in child.stdout] == [0, 1]
            assert (child.wait(), child.stderr.read()) == (0, "")

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_watching_ends_without_a_word_when_nobody_reads_though_nothing_changes(self, daemon, options):
        command = [*PROGRAM, "status", "--watch", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            child.stdout.readline()
            child.stdout.close()
            assert (child.wait(), child.stderr.read()) == (BROKEN_PIPE, "")


class TestWait:
    def test_done(self, daemon, imagedb):
        daemon.answers["/wait"] = {"indexed": 57, "failed": 2}
        ran = imagedb("wait")
        assert (ran.code, ran.data) == (0, b"")
        assert ran.words == "57 pictures indexed, 2 failed (see `imagedb failures`).\n"
        assert json.loads(imagedb("wait", "--json").data) == {"indexed": 57, "failed": 2}

    @pytest.mark.parametrize(("text", "seconds"), [("2", 2.0), ("1.5m", 90.0)])
    def test_time_out(self, daemon, imagedb, text, seconds):
        daemon.answers["/wait"] = WaitTimeoutError("5 changes are still to be indexed.")
        assert imagedb("wait", "--timeout", text).code == 124
        assert daemon.bodies("/wait") == [{"timeout": seconds}]

    @pytest.mark.parametrize(("state", "told"), [("offline", True), ("degraded", True), ("online", False)])
    def test_what_could_not_be_waited_for_is_told(self, daemon, imagedb, state, told):
        root = {"path": "/mnt/usb", "state": state, "indexed": 3, "reason": "It is not there."}
        daemon.answers["/status"] = a_status(roots=[root])
        daemon.answers["/wait"] = {"indexed": 3}
        ran = imagedb("wait")
        assert ran.code == 0
        assert (f"/mnt/usb is {state}: It is not there." in ran.words) == told

    def test_what_is_done_is_done_though_the_daemon_leaves(self, daemon, imagedb):
        daemon.answers["/status"] = DaemonStoppingError("It was asked to stop.")
        daemon.answers["/wait"] = {"indexed": 3}
        daemon.answers["/scan"] = {"ticket": 1}
        assert imagedb("wait").code == imagedb("scan").code == 0

    def test_without_a_model(self, daemon, imagedb):
        daemon.answers["/wait"] = ModelUnavailableError("The weights are not here.")
        ran = imagedb("wait")
        assert ran.code == 70
        assert "The weights are not here." in ran.words

    def test_a_time_that_is_none(self, daemon, imagedb):
        assert imagedb("wait", "--timeout", "soon").code == 2


FAILED = [{"path": "/photos/bad\n\udce9.jpg", "reason": "It is empty.", "attempts": 3}]


class TestFailures:
    def test_forms(self, daemon, imagedb):
        daemon.answers["/failures"] = FAILED
        assert json.loads(imagedb("failures", "--json").data) == FAILED
        assert imagedb("failures").text.splitlines()[1].split() == [
            r"/photos/bad\n\xe9.jpg",
            *("It", "is", "empty."),
            "3",
        ]

    def test_none(self, daemon, imagedb):
        daemon.answers["/failures"] = []
        assert imagedb("failures", "--json").data == b"[]\n"
        ran = imagedb("failures")
        assert (ran.code, ran.data) == (0, b"")

    def test_retry_all_and_some(self, daemon, imagedb, tmp_path):
        daemon.answers["/failures/retry"] = {"retried": ["/photos/b.jpg"]}
        assert "Trying 1 file again" in imagedb("failures", "--retry").words
        ran = imagedb("failures", "--retry", "bad.jpg", "/photos/b.jpg")
        assert ran.code == 0
        assert "bad.jpg is not among the files that have failed" in ran.words
        assert "Trying 1 file again" in ran.words
        assert [body["paths"] for body in daemon.bodies("/failures/retry")] == [
            None,
            [str(tmp_path / "bad.jpg"), "/photos/b.jpg"],
        ]

    def test_retry_of_what_has_not_failed(self, daemon, imagedb):
        daemon.answers["/failures/retry"] = {"retried": []}
        ran = imagedb("failures", "--retry", "nope", "neither")
        assert ran.code == 1
        assert "nope, neither are not among the files that have failed" in " ".join(ran.words.split())

    def test_a_path_without_retry_is_no_request(self, daemon, imagedb):
        assert imagedb("failures", "bad.jpg").code == 2


class TestScan:
    def test_all_and_one(self, daemon, imagedb, tmp_path):
        daemon.answers["/scan"] = {"ticket": 1}
        assert "all folders" in imagedb("scan").words
        imagedb("scan", ".")
        assert [body["folder"] for body in daemon.bodies("/scan")] == [None, str(tmp_path)]

    def test_during_a_pause_it_says_that_nothing_is_indexed_before_it_ends(self, daemon, imagedb):
        doing = "Indexing is paused until somebody resumes it."
        daemon.answers["/status"] = a_status(state="paused", doing=doing, paused={"until": None})
        daemon.answers["/scan"] = {"ticket": 1}
        words = imagedb("scan").words
        assert doing in words
        assert "`imagedb resume`" in words
        assert "imagedb wait" not in words

    def test_outside(self, daemon, imagedb):
        daemon.answers["/scan"] = UsageError("/etc lies outside every root.")
        assert imagedb("scan", "/etc").code == 2


def test_a_store_that_does_not_answer_is_told_beside_the_rest(daemon, imagedb):
    store = {"kind": "lance", "uri": "s3://bucket/index", "rows": None, "vectors": None,
             "bytes_on_disk": None, "reason": "s3://bucket/index does not answer."}  # fmt: skip
    daemon.answers["/status"] = a_status(store=store)
    ran = imagedb("status")
    assert ran.code == 0, ran.words
    assert "lance, s3://bucket/index" in ran.text
    assert "s3://bucket/index does not answer." in ran.text
    assert "1,204 indexed" in ran.text
