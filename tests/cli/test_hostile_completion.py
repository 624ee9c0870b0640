"""Names that strangers wrote, such as of cameras, are completed in shells as the names that they are."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from machine import program

from .conftest import a_status

PATIENCE_S = 60.0

CAMERAS = [
    r"a\$(touch ran)",
    r"b\`touch ran`",
    "c$(touch ran)",
    "d`touch ran`",
    "e';touch ran;'",
    'f";touch ran;"',
    'g"$(touch ran)"\'`touch ran`',
    "h)); touch ran; ((",
    "i' )) '; touch ran #",
    "j:$(touch ran):k",
    "k\\",
    "l\\\\",
    "m\\'; touch ran #",
    "n${(e):-$(touch ran)}",
    "o=(touch ran)|touch ran&touch ran>ran",
    "p*?[r]{a,b}~%F{red}!!",
]
ROOTS = [f"/{name}" for name in CAMERAS]


@pytest.fixture
def shell(daemon, imagedb, tmp_path, monkeypatch):
    """Runs a command of a shell in an empty folder, with the program on the path."""
    daemon.answers["/names"] = {"cameras": CAMERAS, "makes": [], "models": []}
    daemon.answers["/status"] = a_status(roots=[{"path": path} for path in ROOTS])
    monkeypatch.setenv("PATH", f"{Path(program('imagedb')).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))

    def script(name: str) -> Path:
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name} here")
        file = tmp_path / f"script.{name}"
        file.write_bytes(imagedb("completion", name).data)
        return file

    return script


class Zsh:
    """An interactive shell at a terminal, in which ``imagedb`` writes down its words when it is run."""

    def __init__(self, script: Path, folder: Path) -> None:
        self.folder = folder
        self._ours, its = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "PS1": "", "COLUMNS": "400", "LINES": "80"}
        self._child = subprocess.Popen(
            ["zsh", "-f", "-i"], stdin=its, stdout=its, stderr=its, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(its)
        self.type("autoload -Uz compinit && compinit -u -D\n")
        self.type(f"source {script}; setopt no_beep no_list_ambiguous no_auto_menu\n")
        self.type("imagedb() { printf '%s\\0' \"$@\" > words.part; mv words.part words }\n")
        self.type("show-line() { print -r -- $BUFFER > line.part; mv line.part line }\n")
        self.type("zle -N show-line; bindkey '^T' show-line\n")

    def type(self, keys: str) -> None:
        os.write(self._ours, os.fsencode(keys))

    def line(self) -> str:
        """What stands in the line now."""
        self.type("\x14")
        return self._written("line")

    def run(self) -> list[str]:
        self.type("\n")
        return self._written("words").split("\0")[:-1]

    def _written(self, name: str) -> str:
        file = self.folder / name
        until = time.monotonic() + PATIENCE_S
        seen = b""
        os.set_blocking(self._ours, False)
        while not file.exists():
            assert time.monotonic() < until, seen
            with contextlib.suppress(BlockingIOError):
                seen += os.read(self._ours, 65_536)
            time.sleep(0.01)
        os.set_blocking(self._ours, True)
        text = file.read_text()
        file.unlink()
        return text

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._ours)


@pytest.fixture
def zsh(shell, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    started = Zsh(shell("zsh"), folder)
    yield started
    started.close()


def test_zsh_puts_hostile_names_into_the_line_as_they_are_and_runs_nothing(zsh):
    given = []
    for name in CAMERAS:
        zsh.type(f"imagedb search --camera {name[0]}\t")
        zsh.line()
        given.append(zsh.run())
        zsh.type(f"imagedb search --in /{name[0]}\t")
        zsh.line()
        given.append(zsh.run())
    wanted = [["search", *pair] for name in CAMERAS for pair in (("--camera", name), ("--in", f"/{name}"))]
    assert (given, os.listdir(zsh.folder)) == (wanted, [])


def test_zsh_lists_hostile_names_and_runs_nothing(zsh):
    zsh.type("imagedb search --camera \t\t")
    assert zsh.line() == "imagedb search --camera \n"
    assert os.listdir(zsh.folder) == []


def test_zsh_loads_the_script_from_its_function_path_and_completes_at_the_first_press(shell, tmp_path):
    functions = tmp_path / "functions"
    functions.mkdir()
    shell("zsh").rename(functions / "_imagedb")
    (tmp_path / "setup").write_text(f"fpath=({functions} $fpath); compinit -u -D\n")
    (tmp_path / "here").mkdir()
    started = Zsh(tmp_path / "setup", tmp_path / "here")
    started.type("imagedb search --sor\t")
    line = started.line()
    started.close()
    assert line == "imagedb search --sort \n"


def test_a_script_of_an_earlier_version_is_told_nothing_that_it_would_run(shell):
    line = {"_TYPER_COMPLETE_ARGS": "imagedb search --camera ", "_IMAGEDB_COMPLETE": "complete_zsh"}
    ran = subprocess.run(
        [program("imagedb")], env={**os.environ, **line}, capture_output=True, check=False, text=True
    )
    assert "touch" not in ran.stdout
    assert "imagedb completion zsh" in ran.stdout


@pytest.mark.parametrize("name", CAMERAS)
def test_bash_puts_hostile_names_into_the_line_as_they_are_and_runs_nothing(shell, tmp_path, name):
    folder = tmp_path / "here"
    folder.mkdir()
    typed = (
        f"source {shell('bash')}; COMP_WORDS=(imagedb search --camera {name[0]}); COMP_CWORD=3; "
        "$(complete -p imagedb | sed 's/.*-F \\([^ ]*\\).*/\\1/') imagedb; "
        'eval "printf %s ${COMPREPLY[0]}"; echo " ${#COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", typed], cwd=folder, capture_output=True, check=True, text=True)
    assert (ran.stdout, os.listdir(folder)) == (f"{name} 1\n", [])


def test_fish_offers_hostile_names_as_they_are_and_runs_nothing(shell, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    typed = f"source {shell('fish')}; complete -C 'imagedb search --camera '"
    ran = subprocess.run(["fish", "-c", typed], cwd=folder, capture_output=True, check=True, text=True)
    assert (sorted(ran.stdout.splitlines()), os.listdir(folder)) == (sorted(CAMERAS), [])
    escaped = [line.replace("complete -C", "complete --escape -C") for line in [typed]]
    ran = subprocess.run(["fish", "-c", *escaped], cwd=folder, capture_output=True, check=True, text=True)
    back = "".join(f"printf '%s\\n' {line}\n" for line in ran.stdout.splitlines())
    ran = subprocess.run(["fish", "-c", back], cwd=folder, capture_output=True, check=True, text=True)
    assert (sorted(ran.stdout.splitlines()), os.listdir(folder)) == (sorted(CAMERAS), [])
