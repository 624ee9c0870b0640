"""A bar with rate and time left, on a terminal, for what takes more than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from imagedbd.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Words = Callable[[float], str]
"""How an amount is told, such as :func:`imagedbd.cli.output.byte_size`."""

SECONDS_OF_PEACE: Final = 1.0
"""What is over by then shows no bar."""


def number(done: float) -> str:
    return f"{done:,.0f}"


@contextmanager
def bar(description: str, total: float, words: Words = number) -> Iterator[Callable[[float], None]]:
    """Show how far one thing is: what is given takes how much is done now, in all.

    :param total: how much is done in the end; 0 if that is not known.
    """
    with steps(words) as show:
        yield lambda done: show(description, done, total)


@contextmanager
def steps(words: Words = number) -> Iterator[Callable[[str, float, float], None]]:
    """The same for one thing after the other: what is given takes a name, how much is done, and the total."""
    if not sys.stderr.isatty():
        yield lambda _name, _done, _total: None
        return
    shown = _Shown(words)
    try:
        yield shown.show
    finally:
        shown.stop()


class _Shown:
    def __init__(self, words: Words) -> None:
        self._words = words
        self._began = time.monotonic()
        self._step = ""
        self._step_began = self._began
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, name: str, done: float, total: float) -> None:
        now = time.monotonic()
        if name != self._step:
            self._step, self._step_began = name, now
        if now - self._began < SECONDS_OF_PEACE:
            return
        if self._progress is None:
            self._progress = _new_progress()
            self._task = self._progress.add_task("", total=None, speed="")
        if self._task is not None:
            speed = _speed(done, total, now - self._step_began, self._words) if done else ""
            self._progress.update(
                self._task, description=name, total=total or None, completed=done, speed=speed
            )

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _new_progress() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
    progress = Progress(*columns, console=output.console(sys.stderr), transient=True)
    progress.start()
    return progress


def _speed(done: float, total: float, seconds: float, words: Words) -> str:
    whole = f" of {words(total)}" if total else ""
    if seconds < SECONDS_OF_PEACE:  # too short to tell
        return f"{words(done)}{whole}"
    rate = done / seconds
    left = f", about {output.duration((total - done) / rate)} left" if total else ""
    return f"{words(done)}{whole}, {words(rate)}/s{left}"
