"""``imagedb``: the companion of the daemon, one request a command."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd import __version__
from imagedbd.cli import entry
from imagedbd.cli.siblings import Program
from imagedbd.cli.target import (  # noqa: TC001 - typer reads the annotations when it runs
    ConfigOption,
    DataDirOption,
    SocketOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typer.core import TyperGroup

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "searching": ("search", "similar", "show", "why", "list"),
    "duplicates": ("dupes",),
    "keeping": ("export", "backup"),
    "watching": ("status", "wait", "failures", "scan"),
    "steering": ("pause", "resume", "reindex", "reset"),
    "roots": ("root",),
    "stores": ("store",),
    "models": ("model",),
    "configuring": ("config",),
    "service": ("service",),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "demo": ("demo",),
    "completion": ("completion",),
    "manual": ("man",),
}
"""The modules that define the commands, in the order of the help."""


def application(modules: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with the commands of these modules.

    One command needs only its own: to import and build all the others takes longer than most answers.
    """
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
    app.callback()(_options)
    for module in modules:
        app.add_typer(importlib.import_module(f"imagedbd.cli.{module}").app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imagedb {__version__}")
        raise typer.Exit


def _options(
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
    words = sys.argv[1:] if arguments is None else arguments
    return entry.run(command(_modules_for(words)), "imagedb", arguments)


def _modules_for(words: Sequence[str]) -> Iterable[str]:
    """All of them, unless the first word is a command: where options come first, the parser is to decide."""
    first = words[0] if words else ""
    return [module for module, names in COMMANDS.items() if first in names] or COMMANDS


def command(modules: Iterable[str] = COMMANDS) -> TyperGroup:
    """:func:`application`, ready to run."""
    command = entry.command_of(application(modules))
    target_options = [p for p in command.params if p.name in {"config", "data_dir", "socket"}]
    _accept_everywhere(command, target_options)
    return command


def _accept_everywhere(group: Any, parameters: Sequence[Any]) -> None:
    """Let options stand after a command's name too, where a hand types them."""
    for command in group.commands.values():
        command.params.extend(parameters)
        if hasattr(command, "commands"):
            _accept_everywhere(command, parameters)
