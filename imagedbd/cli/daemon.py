"""``imagedbd``: the daemon itself, in the foreground."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from imagedbd import __version__
from imagedbd.cli import completion, entry, flags, output, switching
from imagedbd.cli.siblings import Program
from imagedbd.cli.target import check_named_file

app = typer.Typer(
    name="imagedbd",
    cls=Program,
    help="Keep a searchable index of picture folders. `imagedb` asks it.",
    epilog=entry.examples("imagedbd run --root ~/Pictures", "imagedbd check-config"),
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Settings file. Also IMAGEDBD_CONFIG.")
]


@contextmanager
def _telling_of_silence() -> Iterator[None]:
    """Say it if the folders that the settings name do not answer: it is waited for them.

    Where a link in one of them leads is not known before, and pictures of another place would be forgotten.
    """
    from imagedbd.config import ROOT_PATIENCE_S, SILENT_FOLDER

    words = f"{SILENT_FOLDER} The daemon starts as soon as it does."
    telling = threading.Timer(ROOT_PATIENCE_S, output.say, [f"imagedbd: {words}"])
    telling.daemon = True
    telling.start()
    try:
        yield
    finally:
        telling.cancel()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imagedbd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """What all commands have in common."""


@app.command(
    epilog=entry.examples(
        "imagedbd run --root ~/Pictures",
        "imagedbd run --root ~/Pictures --model demo --no-pull",
        "imagedbd run --store faiss --device cuda --dtype bf16",
    )
)
def run(  # noqa: PLR0917 - typer gives them by name; each is an option
    roots: Annotated[
        list[str] | None,
        typer.Option(
            "--root", metavar="DIR", help="A folder to watch, beside those in the settings. Repeatable."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="lance|faiss",
            help="Which store a first index is made in.",
            autocompletion=completion.one_of("lance", "faiss"),
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="SPEC", help="ARCHITECTURE/TAG, hf-hub:OWNER/NAME, local-dir:DIR or demo."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, xpu or mps.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="auto, fp32, bf16 or fp16: of the weights.")
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", metavar="DIR", help="Where the index is kept. Also IMAGEDBD_DATA_DIR."),
    ] = None,
    socket: Annotated[
        str | None, typer.Option("--socket", metavar="FILE", help="Where to answer. Also IMAGEDBD_SOCKET.")
    ] = None,
    config: ConfigFile = None,
    pull: Annotated[
        bool | None,
        typer.Option(
            "--pull/--no-pull",
            help="Download missing weights first, or never. By default: on a terminal only.",
            show_default=False,
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
) -> int:
    """Watch the folders, index them and answer, until a signal says stop.

    An option counts for this run, over what settings file and environment say.
    """
    from imagedbd.activation import explaining_failure
    from imagedbd.config import load_settings

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # asks for what is only just being done
    flags: dict[str, Any] = {
        "roots": roots,
        "store": store,
        "model": model,
        "device": device,
        "dtype": dtype,
        "data_dir": data_dir,
        "socket": socket,
        "config_file": config,
        "log_level": log_level,
    }
    with explaining_failure():
        check_named_file(config)
        # A fault in the settings is told before the imports that take seconds.
        with _telling_of_silence():
            load_settings(flags)
        from imagedbd import daemon

        return daemon.run(lambda: load_settings(flags), pull=pull)


@app.command(
    "check-config", epilog=entry.examples("imagedbd check-config", "imagedbd check-config --config my.toml")
)
def check_config(config: ConfigFile = None) -> None:
    """Say whether the settings are valid; exit code 78 if they are not.

    What is valid and does not look right here, such as a folder that is not there, is told as well.
    """
    from imagedbd.config import load_settings

    check_named_file(config)
    settings = load_settings({"config_file": config})
    from imagedbd.live_settings import rules_of

    rules_of(settings)
    there = os.path.exists(settings.config_file)
    output.say(
        f"{output.short_path(settings.config_file)}: {'ok' if there else 'not there, the defaults hold'}"
    )
    from imagedbd.cli.doubts import doubts

    for doubt in doubts(settings, os.environ):
        output.say(f"imagedbd: {doubt}")


@app.command(epilog=entry.examples("imagedbd repair", "imagedbd repair --data-dir ~/index"))
def repair(
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the index is kept.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Set aside what cannot be read of the index, to be built anew."""
    from imagedbd.config import load_settings

    check_named_file(config)
    settings = load_settings({"config_file": config, "data_dir": data_dir})
    from imagedbd.repair import repair as repair_index

    for finding in repair_index(settings):
        output.say(finding)


@app.command(
    epilog=entry.examples(
        "imagedbd restore /mnt/backup/pictures-index", "imagedbd restore --yes ./index-of-may"
    )
)
def restore(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="What `imagedb backup` wrote.")],
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the index is kept.")
    ] = None,
    config: ConfigFile = None,
    yes: flags.Yes = False,
) -> None:
    """Put a backup in the place of the index, while the daemon is stopped.

    Every file of it is checked first. What is there now is set aside, and nothing is deleted.
    """
    from imagedbd.backups import read_backup
    from imagedbd.config import load_settings
    from imagedbd.locking import check_unlocked

    check_named_file(config)
    settings = load_settings({"config_file": config, "data_dir": data_dir})
    check_unlocked(settings)  # nobody is asked about what cannot be done
    backup = read_backup(os.path.abspath(os.path.expanduser(folder)))
    from imagedbd import restoring

    if restoring.index_there(settings) and not yes:
        switching.confirm(
            f"Put the index of {backup.created} ({output.count(backup.pictures, 'picture')}) in the place of "
            f"the one in {output.home_path(settings.data_dir)}? That one is set aside."
        )
    for sentence in restoring.restore(backup, settings):
        output.say(sentence)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``imagedbd``; the exit code is returned."""
    return entry.run(entry.command_of(app), "imagedbd", arguments)
