"""What is done with the pictures that were found: links, commands, the viewer, previews."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from pictures import save

from imagedbd.cli.entry import BROKEN_PIPE

from .conftest import a_hit

PROGRAM = [sys.executable, "-c", "import sys; from imagedbd.cli.main import main; sys.exit(main())"]
ODD = ["plain.jpg", "line\nfeed.jpg", "-n.jpg", "caf\udce9.jpg", "'q\" $(id) {}.jpg"]


@pytest.fixture
def found(daemon, tmp_path):
    """The daemon finds pictures of odd names."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [os.path.join(folder, name) for name in ODD]
    for number, path in enumerate(paths):
        save(folder / "x.jpg", number)
        os.rename(folder / "x.jpg", path)
    hits = [a_hit(path, rank, width=320, height=240) for rank, path in enumerate(paths, start=1)]
    daemon.answers["/search"] = {"hits": hits, "notes": [], "took_ms": 1}
    return paths


class TestLinks:
    def test_a_folder_is_filled(self, imagedb, found, tmp_path):
        ran = imagedb("search", "x", "--link-to", "best")
        assert (ran.code, ran.data) == (0, b"")
        assert ran.words == "best: 5 links made\n"
        assert sorted(os.listdir(tmp_path / "best")) == sorted(ODD)
        assert all(
            os.readlink(tmp_path / "best" / name) == path for name, path in zip(ODD, found, strict=True)
        )

    def test_a_second_time_adds_nothing(self, imagedb, found, tmp_path):
        imagedb("search", "x", "--link-to", "best")
        assert imagedb("search", "x", "--link-to", "best").words == "best: 0 links made, 5 there already\n"
        assert len(os.listdir(tmp_path / "best")) == 5

    def test_names_that_are_taken_get_a_number_and_nothing_is_replaced(self, daemon, imagedb, tmp_path):
        best = tmp_path / "best"
        best.mkdir()
        (best / "a.jpg").write_text("mine")
        os.symlink("/nowhere", best / "a-2.jpg")
        hits = [a_hit(f"/photos/{folder}/a.jpg", rank) for rank, folder in enumerate("xy", start=1)]
        daemon.answers["/search"] = {"hits": hits, "notes": [], "took_ms": 1}
        assert imagedb("search", "x", "--link-to", "best").code == 0
        assert (best / "a.jpg").read_text() == "mine"
        links = {name: os.readlink(best / name) for name in os.listdir(best) if name != "a.jpg"}
        assert links == {
            "a-2.jpg": "/nowhere",
            "a-3.jpg": "/photos/x/a.jpg",
            "a-4.jpg": "/photos/y/a.jpg",
        }

    def test_the_longest_names_stay_within_what_a_folder_takes(self, daemon, imagedb, tmp_path):
        name = "é" * 125 + ".jpeg"
        hits = [a_hit(f"/photos/{folder}/{name}", rank) for rank, folder in enumerate("xyz", start=1)]
        daemon.answers["/search"] = {"hits": hits, "notes": [], "took_ms": 1}
        assert imagedb("search", "x", "--link-to", "best").code == 0
        made = os.listdir(os.fsencode(tmp_path / "best"))
        assert len(made) == 3
        assert all(len(name) <= 255 and name.endswith(b".jpeg") for name in made)

    def test_a_folder_that_cannot_be_made_is_named(self, imagedb, found):
        ran = imagedb("search", "x", "--link-to", "/proc/best")
        assert ran.code == 70
        assert "/proc/best" in ran.words


class TestCommands:
    SCRIPT = "import sys; print(*map(ascii, sys.argv[1:]), flush=True)"

    def test_they_end_without_a_word_when_nobody_reads_what_they_write(self, found):
        command = [*PROGRAM, "search", "x", "--exec", "yes"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            child.stdout.readline()
            child.stdout.close()
            assert (child.wait(), child.stderr.read()) == (BROKEN_PIPE, b"")

    def test_each_picture_is_handed_over_as_one_word(self, imagedb, found, tmp_path):
        script = tmp_path / "show.py"
        script.write_text(self.SCRIPT)
        ran = imagedb("search", "x", "--exec", f"{sys.executable} {script} 'a b' <{{}}>")
        assert (ran.code, ran.words) == (0, "")
        assert ran.text.splitlines() == [f"'a b' {f'<{path}>'!a}" for path in found]

    def test_without_a_place_it_comes_last(self, imagedb, found, tmp_path):
        script = tmp_path / "show.py"
        script.write_text(self.SCRIPT)
        ran = imagedb("search", "x", "--exec", f"{sys.executable} {script} -v")
        assert ran.text.splitlines()[0] == f"'-v' {found[0]!a}"

    @pytest.mark.parametrize("form", ["--json", "--jsonl", "--paths", "-0"])
    def test_what_the_command_prints_is_not_among_data(self, imagedb, found, form):
        alone = imagedb("search", "x", form)
        ran = imagedb("search", "x", form, "--exec", "echo ran")
        assert ran.data == alone.data
        assert ran.words.count("ran ") == len(found)

    def test_all_are_run_and_failures_are_counted(self, imagedb, found):
        ran = imagedb("search", "x", "--exec", "sh -c 'case $0 in *plain*) exit 3; esac'")
        assert ran.code == 70
        assert "failed for 1 of 5 pictures" in ran.words

    @pytest.mark.parametrize("command", ["", "no-such-program {}", "cp 'x"])
    def test_what_cannot_be_run_is_refused_before_anything_is_asked(self, daemon, imagedb, found, command):
        ran = imagedb("search", "x", "--exec", command)
        assert ran.code == 2
        assert "--exec" in ran.words
        assert not daemon.requests


class TestTheViewer:
    @pytest.fixture
    def viewer(self, tmp_path, monkeypatch):
        """A stand-in for xdg-open that notes what it was given."""
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "xdg-open"
        program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$1\" >> {tmp_path}/opened\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return tmp_path / "opened"

    def test_gets_each_picture(self, imagedb, found, viewer):
        assert imagedb("search", "x", "--open").code == 0
        assert viewer.read_bytes().split(b"\0")[:-1] == [os.fsencode(path) for path in found]

    def test_says_nothing_unless_it_fails(self, imagedb, found, viewer, tmp_path):
        program = tmp_path / "bin" / "xdg-open"
        program.write_text("#!/bin/sh\necho Gtk-Message; echo Gtk-WARNING >&2\n")
        code, seen = Terminal({}).run("search", "x", "--open")
        assert (code, "Gtk" in seen) == (0, False)
        program.write_text(f"#!/bin/sh\ntest \"$1\" = '{found[0]}' || exit 0\necho no viewer >&2; exit 3\n")
        ran = imagedb("search", "x", "--open")
        assert ran.code == 70
        assert f"xdg-open failed for 1 of {len(found)} pictures: no viewer" in ran.words

    def test_is_not_flooded(self, daemon, imagedb, found, viewer):
        ran = imagedb("search", "x", "-n", "21", "--open")
        assert ran.code == 2
        assert "-n 20" in ran.words
        assert not daemon.requests

    def test_that_is_not_there_is_told_with_what_helps(self, imagedb, found, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        ran = imagedb("search", "x", "--open")
        assert ran.code == 2
        assert "xdg-utils" in ran.words


class Terminal:
    """A terminal of one's own, as a program sees it, that answers what it is asked."""

    def __init__(self, answers: dict[bytes, bytes], size: tuple[int, int] = (24, 80)) -> None:
        """:param size: lines and columns."""
        self._answers = answers
        self._size = size

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, self._size)
        variables = {**os.environ, "TERM": "xterm", "COLORTERM": "truecolor", **environment}
        seen, asked = b"", b""
        command = [*PROGRAM, *arguments]
        with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=variables) as child:
            os.close(its)
            with contextlib.suppress(OSError):  # the other end is closed
                while True:
                    chunk = os.read(ours, 65_536)
                    seen, asked = seen + chunk, asked + chunk
                    for question, answer in self._answers.items():
                        if question in asked:
                            asked = b""
                            os.write(ours, answer)
        os.close(ours)
        return child.returncode, seen.decode(errors="replace")


SIXEL = {b"\x1b[c": b"\x1b[?62;4;22c", b"\x1b[16t": b"\x1b[6;20;10t"}
KITTY = {b"\x1b[c": b"\x1b[?62c", b"\x1b_G": b"\x1b_Gi=1;OK\x1b\\", b"\x1b[16t": b"\x1b[6;20;10t"}
PLAIN = {b"\x1b[c": b"\x1b[?6c", b"\x1b[16t": b"\x1b[6;20;10t"}


class TestPreviews:
    @pytest.mark.parametrize(
        ("answers", "mark"),
        [(SIXEL, "\x1bP"), (KITTY, "\x1b_G"), (PLAIN, "▀"), ({}, "▀")],
        ids=["sixel", "kitty", "plain", "silent"],
    )
    def test_are_drawn_as_the_terminal_can(self, found, answers, mark):
        code, seen = Terminal(answers).run("search", "x", "--preview")
        assert code == 0, seen
        assert seen.count(mark) >= 5
        assert "Traceback" not in seen
        assert "5 pictures in" in seen

    def test_say_what_cannot_be_shown(self, found):
        Path(found[0]).write_bytes(b"no picture")
        code, seen = Terminal(PLAIN).run("search", "x", "--preview")
        assert code == 0
        assert "(no preview: It is not a picture that can be read" in seen

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [({"NO_COLOR": "1"}, "NO_COLOR is set"), ({"TERM": "dumb"}, "the terminal is dumb")],
    )
    def test_give_way_to_the_table(self, found, environment: dict[str, Any], reason):
        code, seen = Terminal(PLAIN).run("search", "x", "--preview", **environment)
        assert code == 0
        assert reason in seen
        assert "plain.jpg" in seen
        assert "▀" not in seen

    def test_give_way_to_the_table_where_the_terminal_has_no_size(self, found):
        code, seen = Terminal(PLAIN, (0, 0)).run("search", "x", "--preview")
        assert code == 0
        assert "does not say how large it is" in seen

    def test_fit_a_narrow_terminal(self, found):
        code, seen = Terminal(PLAIN, (12, 40)).run("search", "x", "--preview", NO_COLOR="")
        assert code == 0
        rows = [line for line in re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", seen).splitlines() if "▀" in line]
        assert rows
        assert max(map(len, rows)) <= 40

    def test_leave_a_pipe_clean(self, imagedb, found):
        ran = imagedb("search", "x", "--preview")
        assert ran.words == "imagedb: There is no preview: standard output is no terminal.\n"
        assert b"\x1b" not in ran.data
        assert b"plain.jpg" in ran.data
