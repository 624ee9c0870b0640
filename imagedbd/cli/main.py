"""``imagedb``: the companion of the daemon, one request a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedbd import __version__
from imagedbd.cli import (
    bench,
    completion,
    configuring,
    demo,
    doctor,
    duplicates,
    entry,
    keeping,
    manual,
    models,
    roots,
    searching,
    service,
    steering,
    stores,
    watching,
)
from imagedbd.cli.siblings import Program
from imagedbd.cli.target import (  # noqa: TC001 - typer reads the annotations when it runs
    ConfigOption,
    DataDirOption,
    SocketOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer.core import TyperGroup

app = typer.Typer(
    name="imagedb",
    cls=Program,
    help="Search your pictures, by what they show and by what is known of them.",
    epilog=entry.examples(
        "imagedb search 'a red car'",
        "imagedb search --text Nikon --where 'iso >= 800'",
        "imagedb status --watch",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    searching,
    duplicates,
    keeping,
    watching,
    steering,
    roots,
    stores,
    models,
    configuring,
    service,
    doctor,
    bench,
    demo,
    completion,
    manual,
):
    app.add_typer(group.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imagedb {__version__}")
        raise typer.Exit


@app.callback()
def options(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    socket: SocketOption = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """What all commands have in common; the options' own callbacks have done it all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``imagedb``; the exit code is returned."""
    return entry.run(_command(), "imagedb", arguments)


def _command() -> TyperGroup:
    command = entry.command_of(app)
    target_options = [p for p in command.params if p.name in {"config", "data_dir", "socket"}]
    _accept_everywhere(command, target_options)
    return command


def _accept_everywhere(group: Any, parameters: Sequence[Any]) -> None:
    """Let options stand after a command's name too, where a hand types them."""
    for command in group.commands.values():
        command.params.extend(parameters)
        if hasattr(command, "commands"):
            _accept_everywhere(command, parameters)
