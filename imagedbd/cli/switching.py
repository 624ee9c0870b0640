"""What the commands that switch stores and models share: lasting settings, and something to see meanwhile."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import typer

from imagedbd.cli import output
from imagedbd.errors import ImagedbError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress, TaskID

    from imagedbd.cli.target import Target

LOOK_EVERY_S: Final = 0.5


def keep_settings(target: Target, answer: Mapping[str, Any], status: Mapping[str, Any]) -> None:
    """Write down what was asked for in the daemon's settings file, and tell what speaks against it.

    :param answer: of the request, with its ``settings``.
    :param status: of the daemon, with the place of its file.
    """
    from imagedbd.config import edit_setting

    wanted: Mapping[str, str] = answer["settings"]
    config_file = str(status["config_file"])
    for name, value in wanted.items():
        edit_setting(config_file, name, value)
    target.client.reload()
    now = target.client.status()
    for name, value in wanted.items():
        configured = now[name]["configured"]
        if configured != value:
            output.note(
                f"{output.home_path(config_file)} names the {name} {output.printable(value)} now, but the "
                f"daemon was started with {output.printable(configured)} (--{name} or "
                f"IMAGEDBD_{name.upper()}), which goes before it: start it without."
            )


def report(target: Target, answer: Mapping[str, Any], *, wait: bool) -> None:
    """Say what was begun, or see it through.

    :raises ImagedbError: it was waited for, and pauses or failed, or something else was asked for meanwhile.
    """
    what = f"{answer['store']} with {output.printable(str(answer['model']))}"
    if answer["state"] == "active":
        output.say(f"{what} answers already.")
    elif not wait:
        output.say(
            f"Building the index for {what}; the old one answers meanwhile. "
            "`imagedb status --watch` shows it."
        )
    else:
        _see_through(target, answer)
        output.say(f"{what} answers now. `imagedb model rollback` goes back.")


def confirm(question: str) -> None:
    """Have the user agree.

    :raises UsageError: nobody answered.
    :raises typer.Exit: the answer is no.
    """
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        output.say("")
        raise UsageError("Nobody answered, so nothing was changed. With --yes it does not ask.")
    if answer.strip().lower() not in {"y", "yes"}:
        output.say("Nothing was changed.")
        raise typer.Exit(1)


def progress_line(switch: Mapping[str, Any]) -> str:
    """How far a switch is, in a line."""
    speed = f", {switch['rate']:.1f}/s" if switch.get("rate") else ""
    left = f", about {output.duration(switch['eta_s'])} left" if switch.get("eta_s") else ""
    return f"{switch['done']:,} of {output.count(switch['total'], 'picture')}{speed}{left}"


def _see_through(target: Target, answer: Mapping[str, Any]) -> None:
    if not sys.stderr.isatty():
        _look_until_over(target, answer, lambda _: None)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=output.console(sys.stderr), transient=True) as progress:
        task = progress.add_task("Preparing", total=None, words="")
        _look_until_over(target, answer, lambda switch: _update(progress, task, switch))


def _look_until_over(
    target: Target, answer: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None]
) -> None:
    wanted = (answer["store"], answer["model"])
    while True:
        status = target.client.status()
        switch = status["switch"]
        if switch is None:
            if (status["store"]["kind"], status["model"]["name"]) != wanted:
                raise ImagedbError("It was given up: somebody asked for something else meanwhile.")
            return
        if (switch["store"], switch["model"]) != wanted:
            raise ImagedbError(f"{switch['store']} with {switch['model']} was asked for meanwhile.")
        if switch["state"] in {"paused", "failed"}:
            raise ImagedbError(_held_up(switch))
        show(switch)
        time.sleep(LOOK_EVERY_S)


def _held_up(switch: Mapping[str, Any]) -> str:
    if switch["state"] == "failed":
        return f"{switch['reason']} The daemon's log says more; the old index goes on answering."
    return (
        f"The switch pauses: {switch['reason']} It goes on by itself when that is over; "
        "`imagedb status --watch` shows it."
    )


def _update(progress: Progress, task: TaskID, switch: Mapping[str, Any]) -> None:
    progress.update(
        task,
        description=str(switch["state"]).capitalize(),
        total=switch["total"] or None,
        completed=switch["done"],
        words=progress_line(switch),
    )
