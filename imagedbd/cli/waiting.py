"""Waiting for the daemon, with something to see meanwhile."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from imagedbd.cli import output, statusview
from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from imagedbd.cli.target import Target

GRACE_S: Final = 30.0
"""Seconds that the daemon may be late with saying that the time is up."""
LOOK_EVERY_S: Final = 0.5


def wait_with_progress(target: Target, timeout: float | None, grace: float = 0.0) -> dict[str, Any]:
    """What :meth:`imagedbd.client.Client.wait` returns, with a progress bar on a terminal.

    :param timeout: seconds, after which :class:`~imagedbd.errors.WaitTimeoutError` is raised.
    :param grace: seconds in which a daemon that is not there may yet come.
    """
    patience = None if timeout is None else timeout + GRACE_S
    waiter = target.connect(patience, grace if timeout is None else min(grace, timeout))
    if not sys.stderr.isatty():
        return waiter.wait(timeout)
    answer = _Answer(lambda: waiter.wait(timeout))
    _show_until(answer, target)
    return answer.result()


def note_what_is_away(target: Target) -> None:
    """Folders that a wait could not answer for: what changed in them is not known."""
    roots: list[dict[str, Any]] = []
    with contextlib.suppress(ImagedbError):  # the answer stands without it
        roots = target.client.status()["roots"]
    lacking = [root for root in roots if root["state"] in {"offline", "degraded"}]
    if lacking:
        told = (
            f"{output.home_path(root['path'])} is {root['state']}: {output.printable(root['reason'] or '')}"
            for root in lacking
        )
        output.note(" ".join(told))


def settled(answer: dict[str, Any]) -> str:
    """What a wait ended with, in a sentence."""
    parts = [f"{output.count(answer['indexed'], 'picture')} indexed"]
    parts += [f"{answer['failed']:,} failed (see `imagedb failures`)"] if answer.get("failed") else []
    parts += [f"{answer['skipped']:,} skipped"] if answer.get("skipped") else []
    return ", ".join(parts) + "."


class _Answer:
    """One request under way in a thread, which an interrupted command leaves behind."""

    def __init__(self, request: Any) -> None:
        self._result: dict[str, Any] | ImagedbError | None = None
        self._thread = threading.Thread(target=self._run, args=(request,), daemon=True)
        self._thread.start()

    def is_there(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()

    def result(self) -> dict[str, Any]:
        if isinstance(self._result, dict):
            return self._result
        raise self._result or ImagedbError("The daemon's answer was lost.")

    def _run(self, request: Any) -> None:
        try:
            self._result = request()
        except ImagedbError as error:
            self._result = error


def _show_until(answer: _Answer, target: Target) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, console=output.console(sys.stderr), transient=True) as progress:
        task = progress.add_task("Scanning", total=None, speed="")
        while not answer.is_there(LOOK_EVERY_S):
            _update(progress, task, target)


def _update(progress: Progress, task: TaskID, target: Target) -> None:
    try:
        status = target.client.status()
    except ImagedbError:  # the wait itself will say what is wrong
        return
    done, left = statusview.progress_of(status)
    speed = f"{status['rate']:.1f}/s" if status.get("rate") else ""
    eta = f", about {output.duration(status['eta_s'])} left" if status.get("eta_s") else ""
    progress.update(
        task,
        description=str(status["state"]).capitalize(),
        total=done + left if left else None,
        completed=done if left else None,
        speed=f"{output.count(left, 'picture')} to go {speed}{eta}" if left else "",
    )
