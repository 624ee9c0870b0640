"""Models: the child process that knows them is played by a small script here."""

from __future__ import annotations

import json
import sys

import pytest

from imagedbd.cli import models
from imagedbd.errors import ModelUnavailableError

from .conftest import a_status

LIST = [
    {"spec": "ViT-B-16/laion2b_s34b_b88k", "local": True},
    {"spec": "ViT-B-32/openai", "local": False},
    {"spec": "demo", "local": True},
]


@pytest.fixture
def child(monkeypatch):
    """Sets what the child process does, as Python."""

    def play(script):
        monkeypatch.setattr(models, "_command", lambda *arguments: [sys.executable, "-c", script, *arguments])

    return play


class TestList:
    @pytest.fixture(autouse=True)
    def _known(self, child):
        child(f"print({json.dumps(json.dumps(LIST))})")

    def test_json(self, imagedb):
        assert json.loads(imagedb("model", "list", "--json").data) == LIST

    def test_table(self, imagedb):
        lines = imagedb("model", "list", "--filter", "vit-b").text.splitlines()
        assert [line.split() for line in lines[1:]] == [
            ["ViT-B-16/laion2b_s34b_b88k", "yes", "in", "the", "settings"],
            ["ViT-B-32/openai"],
        ]

    def test_no_match(self, imagedb):
        assert imagedb("model", "list", "--filter", "resnet").code == 1


def test_a_child_that_fails(child, imagedb):
    child("import sys; sys.exit('Traceback\\nImportError: no torch')")
    ran = imagedb("model", "list")
    assert ran.code == 70
    assert ran.words == "imagedb: The embedder failed: OpenCLIP cannot be asked: ImportError: no torch\n"


class TestPull:
    OK = (
        "import json, sys; sys.stderr.write('\\r 50%\\r100%\\n');"
        "print(json.dumps({'spec': sys.argv[2], 'dimension': 512, 'weights_hash': 'x'}))"
    )

    def test_the_model_of_the_settings(self, child, imagedb):
        child(self.OK)
        ran = imagedb("model", "pull")
        assert ran.code == 0
        assert "ViT-B-16/laion2b_s34b_b88k is on this machine; its vectors have 512 numbers." in ran.words
        assert "The daemon is not running" in ran.words

    def test_the_daemon_is_told(self, child, daemon, imagedb):
        child(self.OK)
        daemon.answers["/model/load"] = {"name": "demo", "state": "ready"}
        assert imagedb("model", "pull", "demo").code == 0
        assert daemon.bodies("/model/load") == [None]

    def test_a_daemon_with_another_model_goes_on(self, child, daemon, imagedb):
        child(self.OK)
        assert "goes on with it" in imagedb("model", "pull", "ViT-B-32/openai").words
        assert not daemon.bodies("/model/load")

    def test_a_daemon_that_cannot_load_it(self, child, daemon, imagedb):
        child(self.OK)
        daemon.answers |= {"/status": a_status(), "/model/load": ModelUnavailableError("Out of memory.")}
        ran = imagedb("model", "pull", "demo")
        assert ran.code == 70
        assert "the daemon cannot load them: Out of memory." in ran.words

    def test_a_failure_is_one_clear_line(self, child, imagedb):
        child("import sys; print('\\r 50%\\rwarning', file=sys.stderr); sys.exit('There is no network.')")
        ran = imagedb("model", "pull", "demo")
        assert ran.code == 70
        assert ran.words.splitlines()[1:] == [
            "imagedb: Model unavailable: demo cannot be had: There is no network."
        ]

    def test_a_bar_is_seen_on_a_terminal_and_words_are_kept_for_the_end(self, terminal):
        script = (
            "import sys; from imagedbd.cli import main, models;"
            "models._command = lambda *_: [sys.executable, '-c', sys.argv[1]];"
            "sys.exit(main.main(['model', 'pull', 'demo']))"
        )
        bar = (
            "import os, sys; print('some warning', file=sys.stderr);"
            "columns = os.get_terminal_size(2).columns;"
            "print(f'\\r{columns:-^{columns}}', end='', file=sys.stderr);"
            "sys.exit('\\nThere is no network.')"
        )
        code, seen = terminal([sys.executable, "-c", script, bar], COLUMNS="60")
        assert code == 70
        assert b"-60-" in seen
        assert b"some warning" not in seen
        said = b"imagedb: Model unavailable: demo cannot be had: There is no\r\nnetwork.\r\n"
        assert seen.endswith(said)  # folded where the terminal ends

    def test_a_spec_that_is_none(self, child, imagedb):
        child("raise SystemExit(9)")
        ran = imagedb("model", "pull", "nonsense")
        assert ran.code == 2
        assert ran.words.startswith("imagedb: Bad request: 'nonsense' is not a model")
