"""Completion in shells, and manual pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine import program

from imagedbd.cli import daemon as daemon_cli
from imagedbd.cli import main
from imagedbd.cli.entry import command_of

from .conftest import a_status

NAMES = {
    "cameras": ["NIKON Z 6", "NIKON D700", "X100", "bad\x1b[2J"],
    "makes": ["FUJIFILM", "NIKON CORPORATION"],
    "models": ["ViT-B-16/openai", "demo"],
}


@pytest.fixture
def complete(daemon, monkeypatch):
    """What bash is offered for the last word of a command line."""
    daemon.answers["/names"] = NAMES
    daemon.answers["/status"] = a_status(roots=[{"path": "/photos"}, {"path": "/media/camera"}])

    def run(*words: str) -> list[str]:
        line = {"_IMAGEDB_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["imagedb", *words])}
        ran = subprocess.run(
            [program("imagedb")],
            env={**os.environ, **line, "COMP_CWORD": str(len(words))},
            capture_output=True,
            check=False,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return [line for line in ran.stdout.split("\n") if line]

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["res"], ["resume", "reset"]),
        (["search", "--sor"], ["--sort"]),
        (["search", "--sort", "d"], ["date"]),
        (["search", "--where", "iso"], ["iso"]),
        (["search", "--camera", "NIK"], [r"NIKON\ CORPORATION", r"NIKON\ Z\ 6", r"NIKON\ D700"]),
        (["search", "--camera", "nik"], [r"nikON\ CORPORATION", r"nikON\ Z\ 6", r"nikON\ D700"]),
        (["search", "--camera", "b"], []),
        (["search", "--camera", "fu"], ["fuJIFILM"]),
        (["root", "remove", "/m"], ["/media/camera"]),
        (["root", "relocate", "/m"], ["/media/camera"]),
        (["root", "relocate", "/media/camera", "/m"], []),
        (["search", "--in", "/p"], ["/photos"]),
        (["model", "use", "ViT"], ["ViT-B-16/openai"]),
        (["store", "use", "f"], ["faiss"]),
        (["dupes", "--tier", "b"], ["burst"]),
    ],
)
def test_words_are_completed(complete, words, offered):
    assert complete(*words) == offered


def test_without_a_daemon_nothing_is_offered_and_nothing_said(complete, monkeypatch):
    monkeypatch.setenv("IMAGEDBD_SOCKET", "/nowhere/s")
    assert complete("search", "--camera", "n") == []


def test_without_a_daemon_the_folders_of_the_settings_are_completed(complete, monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEDBD_SOCKET", "/nowhere/s")
    (tmp_path / "config.toml").write_text('roots = ["/media/usb", "/photos"]\n')
    assert complete("root", "relocate", "/me") == ["/media/usb"]


def test_the_daemon_is_completed_as_well():
    line = {"_IMAGEDBD_COMPLETE": "complete_bash", "COMP_WORDS": "imagedbd run --st", "COMP_CWORD": "2"}
    ran = subprocess.run(
        [program("imagedbd")], env={**os.environ, **line}, capture_output=True, check=True, text=True
    )
    assert ran.stdout.split() == ["--store"]


@pytest.mark.parametrize("of", ["imagedb", "imagedbd"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(imagedb, tmp_path, shell, of):
    ran = imagedb("completion", shell, of)
    assert ran.code == 0
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to read it")
    script = tmp_path / "script"
    script.write_bytes(ran.data)
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)


def test_another_shell_is_refused(imagedb):
    assert imagedb("completion", "tcsh").code == 2
    assert imagedb("completion", "bash", "ls").code == 2


def test_bash_completes_by_the_script(complete, imagedb, tmp_path):
    script = tmp_path / "script"
    script.write_bytes(imagedb("completion", "bash").data)
    typed = (
        f"source {script}; COMP_WORDS=(imagedb search --sort d); COMP_CWORD=3; "
        "$(complete -p imagedb | sed 's/.*-F \\([^ ]*\\).*/\\1/') imagedb; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", typed], env={**os.environ, "PATH": path}, capture_output=True, check=True, text=True
    )
    assert ran.stdout.split() == ["date"]


@pytest.mark.parametrize(("name", "app"), [("imagedb", main.application()), ("imagedbd", daemon_cli.app)])
class TestManual:
    def test_has_every_command_option_and_example(self, imagedb, name, app):
        page = imagedb("man", name).text.replace("\\-", "-")

        def check(command, path):
            for sub, inner in getattr(command, "commands", {}).items():
                check(inner, f"{path} {sub}")
            if hasattr(command, "commands"):
                return
            assert f".SS {path} " in page
            for parameter in command.params:
                names = parameter.opts if parameter.param_type_name == "option" else []
                assert all(f"{option}" in page for option in names)
            for line in command.epilog.splitlines()[2:]:
                assert line.strip().replace("\\", "\\e") in page

        check(command_of(app), name)

    def test_is_sound(self, imagedb, name, app, tmp_path):
        formatter = shutil.which("groff")
        if formatter is None:
            pytest.skip("there is no groff here")
        page = tmp_path / "page.1"
        page.write_bytes(imagedb("man", name).data)
        ran = subprocess.run(
            [formatter, "-man", "-Tutf8", "-ww", str(page)], capture_output=True, check=True, text=True
        )
        assert ran.stderr == ""
        assert f"{name} [OPTIONS]" in re.sub("_?.\x08", "", ran.stdout)


def test_a_page_of_something_else_is_refused(imagedb):
    assert imagedb("man", "ls").code == 2


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
@pytest.mark.parametrize("name", ["imagedb", "imagedbd"])
def test_the_line_of_the_name_is_as_apropos_wants_it(imagedb, name):
    plain = ["groff", "-man", "-Tascii", "-rLL=78n", "-P-cbou"]
    page = subprocess.run(plain, input=imagedb("man", name).data, capture_output=True, check=True).stdout
    line = page.decode().partition("NAME\n")[2].splitlines()[0].strip()
    assert line.startswith(f"{name} - ")
    assert "  " not in line
