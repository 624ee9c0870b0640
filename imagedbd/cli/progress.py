"""A bar with rate and time left, on a terminal, for what takes more than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from imagedbd.cli import output

Advance = Callable[[float], None]
"""Called with how much is done now, in all."""

SECONDS_OF_PEACE: Final = 1.0
"""What is over by then shows no bar."""


@contextmanager
def bar(
    description: str, total: float, words: Callable[[float], str] = lambda done: f"{done:,.0f}"
) -> Iterator[Advance]:
    """Show how far something is, on standard error if that is a terminal.

    :param total: how much is done in the end; 0 if that is not known.
    :param words: how an amount is told, such as :func:`imagedbd.cli.output.byte_size`.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
    progress = Progress(*columns, console=output.console(sys.stderr), transient=True)
    task = progress.add_task(description, total=total or None, speed="")

    def advance(done: float) -> None:
        seconds = time.monotonic() - began
        if seconds < SECONDS_OF_PEACE:
            return
        progress.start()
        progress.update(task, completed=done, speed=_speed(done, total, seconds, words))

    try:
        yield advance
    finally:
        progress.stop()


def _speed(done: float, total: float, seconds: float, words: Callable[[float], str]) -> str:
    rate = done / seconds
    whole = f" of {words(total)}" if total else ""
    left = f", about {output.duration((total - done) / rate)} left" if rate and total else ""
    return f"{words(done)}{whole}, {words(rate)}/s{left}"
