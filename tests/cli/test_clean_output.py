"""What is printed is clean wherever it goes: pipes, narrow terminals, terminals without colours."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from imagedbd.errors import NothingMatchedError

from .conftest import a_hit
from .test_entry import PROGRAM
from .test_showing import PLAIN, Terminal

LONG = "/photos/a very long folder with a very long name/and below it a file whose name does not end.jpg"
DUPES = [
    {"tier": "identical", "pictures": [{"path": LONG, "size": 1, "width": 1, "height": 1}] * 2},
    {"looked_at": 2, "unseen": 0, "bare": 0},
]
COMMANDS = [
    ["search", "x"], ["similar", "x.jpg"], ["list"], ["show", "x.jpg"], ["why", "x.jpg"], ["status"],
    ["failures"], ["dupes"], ["root", "list"], ["search", "--help"], ["dupes", "--help"], ["man"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _answers(daemon, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    hits = [a_hit(LONG, rank) for rank in range(1, 4)]
    daemon.answers |= {
        "/search": {"hits": hits, "notes": [], "took_ms": 1},
        "/pictures": [{"path": LONG, "state": "indexed"}],
        "/show": hits[0],
        "/why": {
            "path": LONG,
            "state": "failed",
            "reason": "It is broken. " * 5,
            "rule": None,
            "attempts": 1,
        },
        "/failures": [{"path": LONG, "reason": "It is broken. " * 5, "attempts": 1}],
        "/dupes": DUPES,
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_pipe_gets_no_escapes(command):
    for environment in ({}, {"COLUMNS": "40"}, {"TERM": "xterm", "COLORTERM": "truecolor"}):
        ran = subprocess.run(
            [*PROGRAM, *command], env={**os.environ, **environment}, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert b"\x1b" not in ran.stdout + ran.stderr
        lines = [line for line in ran.stdout.decode().splitlines() if not line.startswith("Usage: ")]
        assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in (["man"], ["list"])], ids=" ".join)
def test_a_narrow_terminal_without_colours_is_not_overrun(command):
    code, seen = Terminal(PLAIN, (24, 40)).run(*command, NO_COLOR="1", COLUMNS="40")
    assert code == 0
    assert not re.search(r"\x1b\[([0-9]+;)*([349]|10)[0-9](;[0-9]+)*m", seen)
    seen = re.sub(r"\x1b\[[0-9;]*m", "", seen)  # bold is no colour
    printed = seen.partition("Examples:")[0]
    assert max(map(len, printed.splitlines())) <= 40


REFUSALS = [
    (
        ["show", "x.jpg"],
        "/show",
        NothingMatchedError("It is not in the index. `imagedb why` says the reason."),
    ),
    (["search", "--camera", "x", "-n", "2"], None, None),
]


@pytest.mark.parametrize(("command", "path", "error"), REFUSALS, ids=["an error", "a hint"])
def test_words_at_a_narrow_terminal_are_folded_between_words_and_commands_are_kept_whole(
    daemon, command, path, error
):
    if path is not None:
        daemon.answers[path] = error
    piped = subprocess.run([*PROGRAM, *command], capture_output=True, check=False, text=True).stderr
    _, seen = Terminal(PLAIN, (24, 40)).run(*command, NO_COLOR="1", COLUMNS="40")
    lines = seen.splitlines()
    said = lines[next(i for i, line in enumerate(lines) if line.startswith("imagedb: ")) :]
    assert len(piped.splitlines()) == 1
    assert max(map(len, said)) <= 40
    assert " ".join(said) == piped.strip()
    assert all(line.count("`") % 2 == 0 for line in said)
