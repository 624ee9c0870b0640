"""``imagedb demo``: everything once, on drawn pictures, with nothing to download and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imagedbd.cli import output
from imagedbd.cli.entry import examples
from imagedbd.errors import ImagedbError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.cli.private_daemon import PrivateDaemon
    from imagedbd.demo.shots import Shot

app = typer.Typer()

MODEL: Final = "demo"
WHAT_IT_KNOWS: Final = (
    "The demo's model is a real OpenCLIP model, but a tiny one that has seen nothing but such drawings: "
    "it knows some fifty subjects in ten colours. Real photos want a real model: `imagedb model pull`."
)


@app.command(
    epilog=examples("imagedb demo", "imagedb demo --keep", "imagedb demo --count 1000 --dir ~/gallery")
)
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave daemon and gallery there to play with.")
    ] = False,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=30, max=20_000, help="Pictures to draw.")
    ] = 240,
    folder: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Where to draw them; a folder that is new or empty."),
    ] = None,
) -> None:
    """Show what searching is like, on drawn pictures.

    A private daemon indexes a sample gallery, answers searches of every kind, and follows changes. Your own
    daemon, settings and pictures are not touched, and in the end everything is removed.
    """
    run_demo(count=count, folder=folder, keep=keep)


def run_demo(*, count: int, folder: str | None = None, keep: bool = False, model: str = MODEL) -> None:
    """The whole demo.

    :raises ImagedbError: if the daemon fails, or one of its answers is not the right one.
    """
    from imagedbd.cli import private_daemon
    from imagedbd.cli.tour import Tour

    started = time.perf_counter()
    with private_daemon.interrupted_by_sigterm(), ExitStack() as stack:
        home = private_daemon.make_home()
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        gallery, leave_as_it_was = _gallery_folder(folder or os.path.join(home, "gallery"))
        stack.callback(leave_as_it_was)
        truth = _draw(gallery, count)
        daemon = private_daemon.start(home, gallery, model)
        stack.callback(daemon.stop)
        _index(daemon, len(truth))
        stack.enter_context(contextlib.chdir(gallery))
        tour = Tour(daemon, gallery, truth)
        tour.show()
        if keep:
            stack.pop_all()
            os.chdir("/")
            _print_how_to_go_on(daemon, gallery)
            return
    output.write(
        f"\nAll {tour.checked} answers were right, in {output.duration(time.perf_counter() - started)}. "
        "Daemon and gallery are removed.\n"
        "Next: `imagedb demo --keep` to play with it, or `imagedbd run --root ~/Pictures` for your own.\n"
    )


def _gallery_folder(path: str) -> tuple[str, Callable[[], None]]:
    """A new or empty folder, and what leaves it as it was found."""
    path = os.path.realpath(os.path.expanduser(path))
    there = os.path.lexists(path)
    if there and (not os.path.isdir(path) or os.listdir(path)):
        raise UsageError(f"--dir: {path} is neither new nor an empty folder.")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--dir: {path} cannot be made: {error.strerror}.") from error

    def leave_as_it_was() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if there:
            os.makedirs(path, exist_ok=True)

    return path, leave_as_it_was


def _draw(gallery: str, count: int) -> dict[str, Shot]:
    """Draw the gallery; what each picture shows, by its path."""
    from imagedbd.demo.gallery import DEFAULT_SEED, planned, write_gallery

    started = time.perf_counter()
    with output.busy(f"Drawing {output.count(count, 'picture')}…"):
        write_gallery(Path(gallery), count)
    truth = {os.path.join(gallery, name): shot for name, shot in planned(count, DEFAULT_SEED)}
    folders = output.count(len({os.path.dirname(path) for path in truth}), "folder")
    seconds = time.perf_counter() - started
    drawn = output.count(count, "picture")
    output.write(
        f"Drew {drawn} in {folders}, with what cameras say about them ({seconds:.1f} s):\n"
        f"  {output.printable(gallery)}\n"
    )
    return truth


def _index(daemon: PrivateDaemon, count: int) -> None:
    from imagedbd.cli.waiting import wait_with_progress

    started = time.perf_counter()
    daemon.wait_until_up()
    answer = wait_with_progress(daemon.target, None)
    seconds = time.perf_counter() - started
    if answer["indexed"] != count or answer["failed"]:
        drawn = output.count(count, "picture")
        raise ImagedbError(f"Of {drawn}, {answer['indexed']} were indexed and {answer['failed']} failed.")
    output.write(f"A private daemon started, loaded its model and indexed them all ({seconds:.1f} s).\n")
    output.write(f"{WHAT_IT_KNOWS}\n")


def _print_how_to_go_on(daemon: PrivateDaemon, gallery: str) -> None:
    inside = gallery.startswith(daemon.home + "/")
    folders = [daemon.home] if inside else [daemon.home, gallery]
    output.write(
        "\nDaemon and gallery are still there. To talk to this daemon, in any shell:\n\n"
        f"  {daemon.exports}\n"
        f"  cd {shlex.quote(gallery)}\n"
        "  imagedb status\n"
        "  imagedb search 'a red car'\n\n"
        "To stop it and remove everything:\n\n"
        # The daemon writes until it has ended, so its folder is removed after that.
        f"  kill {daemon.process.pid} && tail --pid {daemon.process.pid} -f /dev/null\n"
        f"  rm -r {shlex.join(folders)}\n"
    )
