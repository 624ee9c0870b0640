"""``imagedb status``, ``wait``, ``failures`` and ``scan``: what the daemon does, and asking it to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd.cli import flags, output, query, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.output import Form
from imagedbd.cli.target import target_of
from imagedbd.errors import ImagedbError, NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer()

ARRIVAL_S: Final = 10.0
"""How long a wait gives a daemon that is not there yet: it cannot be seen while it imports."""


@app.command(
    epilog=examples("imagedb status", "imagedb status --watch", "imagedb status --json | jq .pending")
)
def status(
    context: typer.Context,
    as_json: flags.JsonFlag = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Go on showing it until Ctrl-C; into a pipe or with --json, a line a change.",
        ),
    ] = False,
) -> None:
    """Show what the daemon is doing and what it has."""
    target = target_of(context)
    if as_json and not watch:
        output.write_json(target.client.status())
        return
    from imagedbd.cli import statusview

    if watch:
        statusview.watch(target, as_json=as_json)
    else:
        output.show(statusview.overview(target.client.status()))


@app.command(epilog=examples("imagedb wait && imagedb search 'a red car'", "imagedb wait --timeout 2m"))
def wait(
    context: typer.Context,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="S", help="Give up after this many seconds (or 2m, 1h) with exit code 124."
        ),
    ] = None,
    as_json: flags.JsonFlag = False,
) -> None:
    """Return once every change made so far is searchable.

    A daemon that was only just started, as by `imagedbd run &`, is waited for as well, for some seconds.
    """
    from imagedbd.cli import waiting

    target = target_of(context)
    answer = waiting.wait_with_progress(target, flags.seconds("--timeout", timeout), ARRIVAL_S)
    waiting.note_what_is_away(target)
    if as_json:
        output.write_json(answer)
    else:
        output.say(waiting.settled(answer))


@app.command(
    epilog=examples("imagedb failures", "imagedb failures --retry", "imagedb failures --retry scan-0042.tif")
)
def failures(
    context: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="With --retry: these files only.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try them again now.")] = False,
    as_json: flags.RowsAsJson = False,
) -> None:
    """List the files that could not be indexed, with the reasons."""
    if paths and not retry:
        raise UsageError(
            "To try files again: `imagedb failures --retry PATH`. To ask about one: `imagedb why PATH`."
        )
    client = target_of(context).client
    if retry:
        real = [query.entry_path(path) for path in paths or ()]
        _report_retried(real, client.retry(real or None)["retried"], as_json=as_json)
        return
    rows = client.failures()
    if as_json:
        output.write_rows(rows, Form.JSON)
        return
    shown = [
        [output.short_path(row["path"]), output.printable(row["reason"]), str(row["attempts"])]
        for row in rows
    ]
    if not shown:
        output.say("Every picture could be indexed.")
        return
    columns = [tables.Column("file"), tables.Column("reason"), tables.Column("tries", room=60, right=True)]
    tables.print_table(columns, shown)


@app.command(epilog=examples("imagedb scan", "imagedb scan ~/Pictures/2024 && imagedb wait"))
def scan(
    context: typer.Context,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="This folder only.")] = None,
) -> None:
    """Compare the folders with the index now."""
    real = None if folder is None else query.real_path(folder)
    client = target_of(context).client
    client.scan(real)
    where = "all folders" if real is None else output.short_path(real)
    status: dict[str, Any] = {}
    with contextlib.suppress(ImagedbError):  # it was asked for all the same
        status = client.status()
    if status.get("paused"):
        held = f"{status['doing']} What the scan finds is indexed when it goes on: `imagedb resume`."
        output.say(f"Scanning {where}. {held}")
    else:
        output.say(f"Scanning {where}. `imagedb wait` returns when all is searchable.")


def _report_retried(asked: Sequence[str], retried: Sequence[str], *, as_json: bool) -> None:
    """:raises NothingMatchedError: none of those that were asked for has failed."""
    others = [path for path in asked if path not in retried]
    if others:
        names = ", ".join(map(output.short_path, others))
        are = "is not" if len(others) == 1 else "are not"
        told = f"{names} {are} among the files that have failed: `imagedb why PATH` says more of one."
        if not retried:
            raise NothingMatchedError(told)
        output.note(told)
    if as_json:
        output.write_json(retried)
    elif retried:
        output.say(
            f"Trying {output.count(len(retried), 'file')} again. `imagedb wait` returns when that is done."
        )
    else:
        output.say("There is no failed file to try again.")
