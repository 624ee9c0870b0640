"""A child process whose progress bars are seen and whose words are kept.

Downloaders draw bars only on a terminal, and what they print of a failure is no single clear line. So the
child gets a terminal of its own: what redraws a line goes on to the user's, the rest is kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from imagedbd.processes import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

CLEAR_LINE: Final = b"\r\x1b[K"
UP: Final = b"\x1b[A"


@dataclass(frozen=True, slots=True)
class Finished:
    """:param words: what it wrote to standard error. :param data: what it wrote to standard output."""

    code: int
    words: str
    data: str


def run_showing_progress(command: Sequence[str]) -> Finished:
    if not sys.stderr.isatty():
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        return Finished(done.returncode, done.stderr, done.stdout)
    ours, its = os.openpty()
    size = shutil.get_terminal_size()
    termios.tcsetwinsize(its, (size.lines, size.columns))  # a bar without columns is not drawn
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its, env=environment())
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(its)
    return _followed(child, ours)


def _followed(child: subprocess.Popen[bytes], terminal: int) -> Finished:
    words = bytearray()
    reader = threading.Thread(target=_forward, args=(terminal, words), daemon=True)
    reader.start()
    try:
        data, _ = child.communicate()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        reader.join(timeout=5)
        os.close(terminal)
        _show(sys.stderr, CLEAR_LINE)
    return Finished(child.returncode, words.decode("utf-8", "replace"), data.decode("utf-8", "replace"))


def _forward(terminal: int, words: bytearray) -> None:
    with contextlib.suppress(OSError):  # reading fails once the child's end is closed
        while chunk := os.read(terminal, 65_536):
            words += chunk
            _show(sys.stderr, _redrawn(chunk))


def _redrawn(chunk: bytes) -> bytes:
    """The lines that are drawn over: bars. All on one line, so no step up from a lower one."""
    for end in (b"\r\r\n", b"\r\n"):
        chunk = chunk.replace(end, b"\n")
    return b"".join(line for line in chunk.replace(UP, b"").split(b"\n") if b"\r" in line)


def _show(stream: IO[str], data: bytes) -> None:
    stream.flush()
    stream.buffer.write(data)  # type: ignore[attr-defined]  # a terminal is a TextIOWrapper
    stream.flush()
