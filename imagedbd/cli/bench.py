"""``imagedb bench``: how fast this machine is with the user's own settings."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd import __version__
from imagedbd.cli import flags, output, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of
from imagedbd.errors import DaemonNotRunningError, ImagedbError, UsageError

if TYPE_CHECKING:
    from imagedbd.cli.measuring import Times
    from imagedbd.cli.target import Target

app = typer.Typer()

FIGURES: Final = "p50 / p95"


@app.command(
    epilog=examples(
        "imagedb bench", "imagedb bench --dir ~/Pictures/2024", "imagedb bench --json > today.json"
    )
)
def bench(
    context: typer.Context,
    pictures: Annotated[
        int, typer.Option("--pictures", metavar="N", min=1, max=10_000, help="Made-up photos to index.")
    ] = 48,
    folder: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="Index this folder's pictures instead.")
    ] = None,
    repeat: Annotated[
        int,
        typer.Option("--repeat", metavar="N", min=2, max=10_000, help="How often each question is asked."),
    ] = 20,
    as_json: flags.JsonFlag = False,
) -> None:
    """Measure how fast pictures are indexed and questions answered here.

    A private daemon with your model, device and kind of store indexes sample pictures in a temporary folder
    and is asked; so is your own daemon, if it runs. Your index and your pictures stay as they are.
    """
    result = measured(target_of(context), pictures=pictures, folder=folder, repeat=repeat)
    if as_json:
        output.write_json(result)
    else:
        _print(result)


def measured(target: Target, *, pictures: int, folder: str | None, repeat: int) -> dict[str, Any]:
    """All figures, as ``--json`` prints them: times of questions in milliseconds, others in seconds.

    :raises ModelUnavailableError: the model of the settings cannot be had.
    """
    from imagedbd.cli import measuring, private_daemon

    settings = target.settings
    if folder is not None and not os.path.isdir(folder := os.path.realpath(os.path.expanduser(folder))):
        raise UsageError(f"--dir: {folder} is no folder.")
    with private_daemon.interrupted_by_sigterm(), ExitStack() as stack:
        home = private_daemon.make_home()
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        daemon = private_daemon.start(home, None, settings.model, measuring.settings_lines(settings))
        stack.callback(daemon.stop)
        with output.busy("Loading the model…"):
            daemon.wait_until_up()
            load_s = measuring.load_model(daemon)
        # Not before it is known that there will be something to measure.
        sample = folder or _drawn(os.path.join(home, "sample"), pictures)
        seconds = measuring.index(daemon, sample)
        status = daemon.target.client.status()
        with output.busy("Asking…"):
            times = measuring.ask(daemon.target.client, daemon.options, repeat)
    return {
        "version": __version__,
        "cores": len(os.sched_getaffinity(0)),
        "model": status["model"]["name"],
        "device": status["device"],
        "dtype": status["dtype"],
        "store": status["store"]["kind"],
        "model_load_s": round(load_s, 2),
        "indexing": {
            "pictures": status["indexed"],
            "failed": status["failed"],
            "made_up": folder is None,
            "seconds": round(seconds, 2),
            "rate": round(status["indexed"] / seconds, 2),
        },
        "queries": {"sample": _row(status["indexed"], times), "index": _own(target, repeat)},
    }


def _drawn(folder: str, count: int) -> str:
    from imagedbd.cli import progress
    from imagedbd.demo.photos import LARGE, draw_photos

    with progress.bar("Drawing photos", count) as advance:
        for done, _ in enumerate(draw_photos(folder, count, LARGE), 1):
            advance(done)
    return folder


def _own(target: Target, repeat: int) -> dict[str, Any] | None:
    """The same questions to the daemon of the user's own; ``None`` if it cannot be asked."""
    from imagedbd.cli import measuring

    options = ["--socket", target.socket]
    try:
        status = target.client.status()
        if not status["indexed"]:
            return None
        if status["pending"]:
            output.note("Your daemon is indexing, which takes its share of the machine.")
        with output.busy("Asking your own daemon…"):
            return _row(status["indexed"], measuring.ask(target.client, options, repeat))
    except DaemonNotRunningError:
        return None
    except ImagedbError as error:
        output.note(f"Your own index could not be asked. {error.message}")
        return None


def _row(pictures: int, times: dict[str, Times]) -> dict[str, Any]:
    return {"pictures": pictures, "ms": {name: asdict(each) for name, each in times.items()}}


def _print(result: dict[str, Any]) -> None:
    indexing, sample, own = result["indexing"], result["queries"]["sample"], result["queries"]["index"]
    facts = tables.grid([tables.Column("", style="dim"), tables.Column("")])
    place = f"{result['device']}, {result['dtype']}, {output.count(result['cores'], 'core')}"
    facts.add_row("model", f"{output.printable(result['model'])} on {place}")
    facts.add_row("loading it", f"{result['model_load_s']:.1f} s")
    facts.add_row("store", result["store"])
    kind = "made-up photo of 11 megapixels" if indexing["made_up"] else "picture"
    plural = "made-up photos of 11 megapixels" if indexing["made_up"] else "pictures"
    what = output.count(indexing["pictures"], kind, plural)
    facts.add_row("indexing", f"{indexing['rate']:.1f} pictures/s ({what} in {indexing['seconds']:.1f} s)")
    if indexing["failed"]:
        facts.add_row("failed", output.count(indexing["failed"], "picture"))
    output.show(facts)
    output.write("\n")
    asked = [("sample", sample), *([("your index", own)] if own else [])]
    titles = [f"{name}, {row['pictures']:,}" for name, row in asked]
    columns = [tables.Column(f"question ({FIGURES})")]
    columns += [tables.Column(title, right=True) for title in titles]
    rows = [[name, *(_cell(row["ms"].get(name)) for _, row in asked)] for name in sample["ms"]]
    tables.print_table(columns, rows)
    if not own:
        output.write("\nYour own index was not asked: no daemon answers, or it is empty.\n")


def _cell(times: dict[str, float] | None) -> str:
    return f"{times['p50']:.1f} / {times['p95']:.1f} ms" if times else ""
