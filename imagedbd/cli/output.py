r"""How answers are written: data on standard output, words on standard error.

Names may hold any byte but NUL and ``/``. JSON carries odd bytes as ``\udcXX`` escapes, ``--paths`` and
``-0`` write them as they are (``--paths`` not to a terminal), and everything meant for eyes goes through
:func:`printable`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import io
import json
import os
import re
import select
import shutil
import sys
import textwrap
from typing import IO, TYPE_CHECKING, Any, Final

from imagedbd import text
from imagedbd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console, RenderableType

printable: Final = text.printable
count: Final = text.count

_QUOTED: Final = re.compile("`[^`]*`")
_UNBROKEN: Final = "\x91"
"""Stands for a blank that is no place to fold; nothing printable has it."""
_UNBOUNDED: Final = 100_000
"""Columns of an output that nobody folds."""


class Form(enum.Enum):
    """The shapes in which a list of pictures can be written."""

    TABLE = "table"
    JSON = "--json"
    JSONL = "--jsonl"
    PATHS = "--paths"
    NUL = "-0"


def chosen_form(*, as_json: bool, jsonl: bool, paths: bool, nul: bool) -> Form:
    """The one form that was asked for.

    :raises UsageError: if there is more than one.
    """
    flags = {Form.JSON: as_json, Form.JSONL: jsonl, Form.PATHS: paths, Form.NUL: nul}
    asked = [form for form, wanted in flags.items() if wanted]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(form.value for form in asked)} exclude each other: give one.")
    return asked[0] if asked else Form.TABLE


def write_rows(rows: Iterable[Mapping[str, Any]], form: Form) -> None:
    """Write rows in any form but a table, each as soon as it is there."""
    if form is Form.JSON:
        _write_array(rows)
    elif form is Form.JSONL:
        for row in rows:
            write(_ascii(row) + "\n")
    else:
        end = b"\0" if form is Form.NUL else b"\n"
        # As with find(1): names may steer a terminal, and whoever reads there is no program.
        if form is Form.PATHS and sys.stdout.isatty():
            for row in rows:
                write(printable(row["path"]) + "\n")
            return
        for row in rows:
            _write_bytes(os.fsencode(row["path"]) + end)


def sleep_while_read(seconds: float) -> None:
    """Sleep, as long as somebody reads standard output.

    :raises BrokenPipeError: the reader is gone, which a program that writes nothing meanwhile never learns.
    """
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)  # that the other end is closed is told without being asked for
    if watched.poll(1000 * seconds):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def check_is_read() -> None:
    """:raises BrokenPipeError: as :func:`sleep_while_read`."""
    sleep_while_read(0)


def write_json(value: Any) -> None:
    """Write one value over several lines."""
    write(json.dumps(value, indent=2) + "\n")


def write(text: str) -> None:
    sys.stdout.write(text)


def say(words: str) -> None:
    """Words for the user, on standard error; they may have several lines, and steer no terminal.

    A terminal has them folded between words. A line that is set in has its place, and stays as it is.
    """
    lines = list(map(printable, words.split("\n")))
    if sys.stderr.isatty():
        lines = [part for line in lines for part in _folded(line, columns_of_errors())]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def note(words: str) -> None:
    """A remark that a user should see beside a result."""
    say(f"imagedb: {words}")


def short_path(path: str) -> str:
    """A path as eyes like it: from the working folder or from ``~`` where that is shorter; printable."""
    return min(home_path(path), printable(_below(path, _working_folder(), "")), key=len)


def home_path(path: str) -> str:
    """A path that means the same wherever one stands, ``~`` at most; printable."""
    return printable(_below(path, os.path.expanduser("~"), "~/"))


def console(stream: IO[str] | None = None) -> Console:
    """A console that prints text as it is, in colour on a terminal only.

    What goes into a pipe or a file is never folded, unless ``COLUMNS`` asks for it.
    """
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else _UNBOUNDED
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def show(view: RenderableType) -> None:
    """Print something of rich on standard output, without the blanks that fill its lines."""
    screen = console()
    with screen.capture() as captured:
        screen.print(view)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def show_words(words: str) -> None:
    """Print words on standard output, folded where the terminal ends."""
    from rich.text import Text

    show(Text(words, overflow="fold"))


def busy(words: str) -> contextlib.AbstractContextManager[Any]:
    """Something to look at on a terminal while there is nothing to measure."""
    return console(sys.stderr).status(words) if sys.stderr.isatty() else contextlib.nullcontext()


def columns_of_errors() -> int:
    """How wide words on standard error may be."""
    return max(20, shutil.get_terminal_size().columns)


def byte_size(size: float) -> str:
    """``512 B``, ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(seconds: float) -> str:
    """``12 s``, ``4 min``, ``3 h 20 min``, ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def show_anything() -> None:
    """Let no text fail to print for want of a character in the output's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _folded(line: str, width: int) -> list[str]:
    """A line as lines of this many columns; what stands in backquotes can still be copied in one piece."""
    if len(line) <= width or line[:1] == " ":
        return [line]
    kept = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", _UNBROKEN), line)
    parts = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_UNBROKEN, " ") for part in parts]


def _write_array(rows: Iterable[Mapping[str, Any]]) -> None:
    # An object a line: as quick to stream as JSON lines, and still one document.
    separator = "["
    for row in rows:
        write(f"{separator}\n  {_ascii(row)}")
        separator = ","
    write("[]\n" if separator == "[" else "\n]\n")


def _ascii(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=True)


def _write_bytes(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def _below(path: str, folder: str, sign: str) -> str:
    start = folder.rstrip("/") + "/"
    return sign + path[len(start) :] if len(start) > 1 and path.startswith(start) else path


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted under us
        return ""
