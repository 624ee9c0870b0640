"""What becomes of the pictures that were found: a table, data for a program, previews, or work with them."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imagedbd.cli import output, tables
from imagedbd.cli.output import Form
from imagedbd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import typer

_NOT_THE_QUERY: Final = frozenset(
    {"as_json", "jsonl", "paths", "nul", "preview", "open_them", "sheet", "link_to", "command"}
)
"""Parameters that say what is done with the answer."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    :param form: in which the hits are printed.
    :param preview: whether each has its picture with it.
    :param open_them: whether they are opened in the desktop's viewer.
    :param sheet: the contact sheet that is written.
    :param link_to: the folder that is filled with links.
    :param command: that is run for each, in words.
    """

    form: Form
    preview: bool = False
    open_them: bool = False
    sheet: str | None = None
    link_to: str | None = None
    command: tuple[str, ...] = ()

    @property
    def prints_table(self) -> bool:
        """A table is for those who want nothing else."""
        return self.form is Form.TABLE and not (self.open_them or self.sheet or self.link_to or self.command)


def wishes(
    form: Form,
    *,
    preview: bool,
    open_them: bool,
    sheet: str | None,
    link_to: str | None,
    command: str | None,
    limit: int,
) -> Wishes:
    """What is wanted, checked before anything is asked for.

    :raises UsageError: something of it cannot be done.
    """
    from imagedbd.cli import handing_on

    if open_them:
        handing_on.check_viewer(limit)
    if sheet is not None:
        sheet = os.path.expanduser(sheet)
        _check_sheet(sheet)
    words = handing_on.command_of(command) if command is not None else []
    if link_to is not None:
        link_to = os.path.expanduser(link_to)
        _check_folder_of_links(link_to)
    return Wishes(form, preview, open_them, sheet, link_to, tuple(words))


def _check_sheet(path: str) -> None:
    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--sheet writes a web page; {output.printable(path)} does not end in .html.")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"--sheet: there is no folder {output.printable(folder)}.")
    if os.path.exists(path):
        from imagedbd.cli.sheet import is_sheet

        if not is_sheet(path):
            raise UsageError(
                f"--sheet: {output.printable(path)} is there already and no contact sheet; it stays as it is."
            )


def _check_folder_of_links(path: str) -> None:
    there = path
    while there and not os.path.lexists(there):
        there = os.path.dirname(there)
    if there and not os.path.isdir(there):
        raise UsageError(f"--link-to: {output.printable(there)} is not a folder.")


def show(context: typer.Context, hits: Sequence[Mapping[str, Any]], wanted: Wishes) -> None:
    """Print the hits and do with them what is wanted.

    :raises ImagedbError: some of it failed.
    """
    if wanted.form is not Form.TABLE:
        output.write_rows(hits, wanted.form)
    elif hits and wanted.preview:
        _preview(hits)
    elif hits and wanted.prints_table:
        tables.print_hits(hits)
    sys.stdout.flush()
    if hits:
        _work(context, hits, wanted)


def _preview(hits: Sequence[Mapping[str, Any]]) -> None:
    from imagedbd.cli import preview

    if why := preview.why_impossible():
        output.note(f"There is no preview: {why}.")
        tables.print_hits(hits)
    else:
        preview.print_previews(hits)


def _work(context: typer.Context, hits: Sequence[Mapping[str, Any]], wanted: Wishes) -> None:
    paths = [str(hit["path"]) for hit in hits]
    if wanted.sheet is not None:
        _write_sheet(context, hits, wanted.sheet)
    if not (wanted.link_to or wanted.open_them or wanted.command):
        return
    from imagedbd.cli import handing_on

    if wanted.link_to is not None:
        made = handing_on.link_all(paths, wanted.link_to)
        there = f", {len(paths) - made:,} there already" if made < len(paths) else ""
        output.say(
            f"{output.short_path(os.path.abspath(wanted.link_to))}: {output.count(made, 'link')} made{there}"
        )
    if wanted.open_them:
        handing_on.open_each(paths)
    if wanted.command:
        # Where data is printed, what the commands say is not to be among it.
        handing_on.run_each(wanted.command, paths, aside=wanted.form is not Form.TABLE)


def _write_sheet(context: typer.Context, hits: Sequence[Mapping[str, Any]], path: str) -> None:
    from imagedbd.cli.sheet import write_sheet

    command = command_line(context)
    title = " ".join(context.params.get("bare_words") or ()) or f"imagedb {context.info_name}"
    if context.info_name == "similar":
        title = f"Like {os.path.basename(context.params['file'])}"
    lacking = write_sheet(path, hits, title=title, command=command)
    without = f"; {output.count(lacking, 'of them has', 'of them have')} no thumbnail" if lacking else ""
    output.say(
        f"Wrote {output.count(len(hits), 'picture')} to {output.short_path(os.path.abspath(path))}{without}."
    )


def command_line(context: typer.Context) -> str:
    """The query as it can be typed again, without what was done with the answer."""
    words = ["imagedb", str(context.info_name)]
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in _NOT_THE_QUERY or value in (None, (), [], parameter.default):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            arguments += [str(item) for item in values]
        else:
            name = max(parameter.opts, key=len)
            options += [word for item in values for word in (name, str(item))]
    return shlex.join([*words, *arguments, *options])
