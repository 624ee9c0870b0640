"""Pictures in the terminal: by Kitty's protocol, as Sixels or as half blocks, whichever it has."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from imagedbd.cli import output, tables
from imagedbd.cli.thumbnails import Thumbnail, thumbnails

AREA: Final = 480 * 360
"""Pixels: what ten lines of a terminal with large letters can show."""
LINES: Final = 10
COLUMNS: Final = 44


def why_impossible() -> str | None:
    """Why there can be no preview here; ``None`` if there can."""
    if not sys.stdout.isatty():
        return "standard output is no terminal"
    if os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
        return f"the terminal is {os.environ.get('TERM') or 'unknown'}"
    if not all(os.get_terminal_size(sys.stdout.fileno())):
        return "the terminal does not say how large it is"
    if not _answers():
        return "the terminal cannot be asked what it can show"
    return None


def print_previews(hits: Sequence[Mapping[str, Any]]) -> None:
    """Each hit with its picture below, as soon as it is there; for a terminal that can be asked."""
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    # Its import asks the terminal.
    from textual_image.renderable import HalfcellImage, Image

    screen = output.console()
    if Image is HalfcellImage and screen.no_color:
        output.note("This terminal could show pictures only in colours, and NO_COLOR is set.")
        tables.print_hits(hits)
        return
    lines = dict(zip((hit["rank"] for hit in hits), tables.lines_of(hits), strict=True))
    for thumbnail in thumbnails(hits, AREA):
        output.write(f"{lines[thumbnail.hit['rank']]}\n")
        if thumbnail.image is None:
            output.write(f"{_reason(thumbnail)}\n\n")
            continue
        picture = Image(thumbnail.image, width="auto", height="auto")
        screen.print(picture, width=min(COLUMNS, screen.width), height=min(LINES, max(2, screen.height - 2)))
        output.write("\n")
        sys.stdout.flush()


def _answers() -> bool:
    """Whether standard input is the terminal, or can be made to be: a query picture may have come by it."""
    if sys.stdin.isatty():
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    os.dup2(terminal, sys.stdin.fileno())
    os.close(terminal)
    return True


def _reason(thumbnail: Thumbnail) -> str:
    return f"(no preview: {output.printable(thumbnail.reason or 'it cannot be read')})"
