"""``imagedb pause``, ``resume``, ``reindex`` and ``reset``: work put off, done again, or begun anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedbd.cli import flags, output, query, switching
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of
from imagedbd.errors import NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer()


@app.command(epilog=examples("imagedb pause", "imagedb pause --for 2h"))
def pause(
    context: typer.Context,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 1d; otherwise until `resume`."),
    ] = None,
) -> None:
    """Stop indexing for a while; searching goes on.

    Changes are still noticed, and taken up afterwards. A pause outlives a restart of the daemon.
    """
    seconds = flags.seconds("--for", duration)
    if seconds == 0:
        raise UsageError("--for: a pause lasts more than 0 seconds; `imagedb resume` ends one.")
    target = target_of(context)
    target.client.pause(seconds)
    output.say(f"{target.client.status()['doing']} `imagedb resume` goes on.")


@app.command(epilog=examples("imagedb resume"))
def resume(context: typer.Context) -> None:
    """Go on with indexing after a pause."""
    was_paused = target_of(context).client.resume()["was_paused"]
    output.say("Indexing goes on." if was_paused else "Indexing was not paused.")


@app.command(
    epilog=examples(
        "imagedb reindex", "imagedb reindex ~/Pictures/2024 --wait", "imagedb reindex --force DSC_0042.jpg"
    )
)
def reindex(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="These files and folders only.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Put them through the model again, too.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is done.")] = False,
) -> None:
    """Read pictures again that have not changed.

    That renews their metadata. The model sees again only what has changed, or all of them with --force.
    Searches find everything meanwhile.
    """
    target = target_of(context)
    real = [query.entry_path(path) for path in paths] if paths else None
    with output.busy("Waiting for what is in hand…"):
        answer = target.client.reindex(real, force=force)
    for root in answer["offline"]:
        output.note(f"{output.home_path(root)} is offline and was left out.")
    if not answer["files"]:
        raise NothingMatchedError(_nothing_to_reread(real))
    again = "read and embedded" if force else "read"
    files = output.count(answer["files"], "picture is", "pictures are")
    if copies := answer.get("copies"):
        own = output.count(answer["files"], "picture")
        files = f"{own} and {output.count(copies, 'copy', 'copies')} elsewhere are"
    if not wait:
        output.say(f"{files} {again} again. `imagedb wait` returns when that is done.")
        return
    output.say(f"{files} {again} again.")
    from imagedbd.cli import waiting

    output.say(waiting.settled(waiting.wait_with_progress(target, None)))


def _nothing_to_reread(paths: Sequence[str] | None) -> str:
    if paths is None:
        return "There is no picture to read again: `imagedb status` says more."
    if any(os.path.lexists(path) for path in paths):
        return "No picture of the index is there; what is new is looked at now. `imagedb why PATH` says more."
    names = ", ".join(map(output.short_path, paths))
    return f"There is no {names}, and the index has no picture of that name."


@app.command(epilog=examples("imagedb reset", "imagedb reset --yes && imagedb wait"))
def reset(context: typer.Context, yes: flags.Yes = False) -> None:
    """Forget the whole index and build a new one.

    The new one has the store and the model that the settings name. The pictures themselves stay as they are.
    """
    target = target_of(context)
    if not yes:
        switching.confirm(_question(target.client.status()))
    with output.busy("Beginning a new index…"):
        answer = target.client.reset()
    model = output.printable(str(answer["model"]))
    output.say(
        f"The index in {answer['store']} with {model} begins empty. `imagedb status --watch` shows it grow."
    )


def _question(status: Mapping[str, Any]) -> str:
    pictures = output.count(status["indexed"] + status.get("waiting", 0), "picture")
    embedded = ", which are all embedded again" if status["indexed"] else ""
    offline = sum(root.get("indexed") or 0 for root in status["roots"] if root["state"] == "offline")
    away = (
        f" {output.count(offline, 'of them is', 'of them are')} offline now, and back later."
        if offline
        else ""
    )
    return f"Forget what is known of {pictures}{embedded}?{away} The files stay."
