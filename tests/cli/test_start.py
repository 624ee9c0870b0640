"""The first moments of a program, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
from imagedbd.cli import start
sys.exit(getattr(start, sys.argv[2])())
"""


@pytest.mark.parametrize(
    ("module", "program"), [("imagedbd.cli.main", "imagedb"), ("imagedbd.cli.daemon", "imagedbd")]
)
def test_ctrl_c_before_everything_is_imported_ends_it_without_a_word(module, program):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, module, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGINT


def test_in_the_background_of_a_script_ctrl_c_is_not_for_it():
    script = (
        "import signal, sys; from imagedbd.cli import start; start._end_at_ctrl_c(); "
        "sys.exit(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)"
    )
    shell = f"trap '' INT; exec {sys.executable} -c '{script}'"
    assert subprocess.run(["sh", "-c", shell], check=False).returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["--version", "status", "search --image -"])
def test_a_closed_stream_leads_nowhere_and_is_no_bug(closed, command, tmp_path):
    socket = tmp_path / "nobody.sock"
    shell = f"{sys.executable} -m imagedbd.cli {command} {closed}"
    done = subprocess.run(
        ["sh", "-c", shell], check=False, capture_output=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "IMAGEDBD_SOCKET": os.fspath(socket), "HOME": os.fspath(tmp_path)},
    )  # fmt: skip
    assert b"bug" not in done.stderr
    assert done.returncode in {0, 2, 69}
