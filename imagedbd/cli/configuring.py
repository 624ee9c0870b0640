"""``imagedb config``: the settings file, and what holds."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from imagedbd.cli import flags, output, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of

if TYPE_CHECKING:
    from imagedbd.origins import Explained

app = typer.Typer(
    name="config",
    help="Write the settings file, and tell which settings hold.",
    epilog=examples("imagedb config init", "imagedb config show"),
    no_args_is_help=True,
)


@app.command(epilog=examples("imagedb config init", "imagedb config init --force"))
def init(
    context: typer.Context,
    force: Annotated[
        bool, typer.Option("--force", help="Set a file that is there aside, and begin a new one.")
    ] = False,
) -> None:
    """Write a settings file with every setting, its default, and what it means."""
    from imagedbd.config import default_settings, settings_place
    from imagedbd.settings_file import roots_in, write_first

    path = settings_place(target_of(context).flags.get("config_file"))
    aside = write_first(path, default_settings(path), force=force)
    if aside is not None:
        output.say(f"The file that was there is {output.short_path(aside)} now.")
        if roots := roots_in(aside):
            output.say(
                f"It names {output.count(len(roots), 'folder')}, watched no longer: "
                + " ".join(f"`imagedb root add {shlex.quote(output.printable(root))}`" for root in roots)
            )
    output.say(
        f"{output.short_path(path)} has every setting at its default. `imagedb root add DIR` names a folder "
        "in it; `imagedbd check-config` tells whether a change is in order."
    )


@app.command(epilog=examples("imagedb config show", "imagedb config show --json"))
def show(context: typer.Context, as_json: flags.JsonFlag = False) -> None:
    """Tell which settings hold, and where each comes from.

    They are those of a daemon that is started here and now: the default, or what the settings file says, or a
    variable, or an option. Credentials are not shown. With --json, times are in seconds and sizes in bytes.
    """
    from imagedbd.origins import explained

    settings = explained(target_of(context).settings)
    if as_json:
        output.write_json([asdict(setting) for setting in settings])
        return
    columns = [tables.Column("setting"), tables.Column("value"), tables.Column("from", style="dim")]
    tables.print_table(columns, [[each.name, _value(each), _from(each)] for each in settings])


def _value(setting: Explained) -> str:
    from imagedbd.settings_file import in_words

    return "none" if setting.value is None else output.home_path(in_words(setting.name, setting.value))


def _from(setting: Explained) -> str:
    return setting.origin if setting.place is None else output.home_path(setting.place)
