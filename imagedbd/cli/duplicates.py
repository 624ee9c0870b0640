"""``imagedb dupes``: pictures that are there more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd.cli import completion, flags, output, progress, query, tables
from imagedbd.cli.emptiness import why_nothing
from imagedbd.cli.entry import examples
from imagedbd.cli.output import Form
from imagedbd.cli.target import target_of
from imagedbd.errors import NothingMatchedError, ProtocolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

app = typer.Typer()

_TIERS: Final = {
    "identical": "identical files",
    "same": "one picture, re-encoded or resized",
    "burst": "shots of one scene within seconds",
}


@app.command(
    epilog=examples(
        "imagedb dupes",
        "imagedb dupes --tier identical --in ~/Pictures",
        "imagedb dupes --tier burst --json",
    )
)
def dupes(
    context: typer.Context,
    tiers: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            metavar="KIND",
            help="Only identical, same or burst. Repeatable.",
            autocompletion=completion.one_of(*_TIERS),
        ),
    ] = None,
    folders: flags.Folders = None,
    as_json: flags.RowsAsJson = False,
    jsonl: flags.JsonLines = False,
) -> None:
    """List pictures that are there more than once.

    There are three kinds: files with the same bytes; one picture re-encoded or resized, the largest first;
    and bursts, shots of one scene by one camera within seconds. Pictures of the second kind are read again to
    make sure. Nothing is ever deleted.
    """
    if unknown := [tier for tier in tiers or () if tier not in _TIERS]:
        raise UsageError(f"--tier is {', '.join(_TIERS)}; not {output.printable(unknown[0])}.")
    form = output.chosen_form(as_json=as_json, jsonl=jsonl, paths=False, nul=False)
    under = [query.real_path(folder) for folder in folders or ()]
    target = target_of(context)
    groups, end = _found(target.client.dupes(under, tiers or ()))
    if form is not Form.TABLE:
        output.write_rows(groups, form)
    else:
        for group in groups:
            _print_group(group)
    for remark in _remarks(end):
        output.note(remark)
    if not end["looked_at"]:
        raise NothingMatchedError(why_nothing(target, folders or ()))
    if not groups:
        raise NothingMatchedError(f"Among {output.count(end['looked_at'], 'picture')} none is there twice.")
    if form is Form.TABLE:
        output.say(_summary(groups))


def _found(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """The groups and what was said at the end; a bar for each step shows how far it is."""
    groups: list[Mapping[str, Any]] = []
    end: Mapping[str, Any] = {}
    with progress.steps() as show:
        for row in rows:
            if "tier" in row:
                groups.append(row)
            elif "looked_at" in row:
                end = row
            else:
                show(str(row["name"]).capitalize(), row["done"], row["total"])
    if not end:
        raise ProtocolError("The daemon's answer broke off.")
    return groups, end


def _print_group(group: Mapping[str, Any]) -> None:
    pictures: Sequence[Mapping[str, Any]] = group["pictures"]
    output.write(f"{_TIERS[group['tier']]}, {len(pictures):,}\n")
    columns = [
        tables.Column(""),
        tables.Column("", room=56, right=True),
        tables.Column("", room=64, right=True),
        tables.Column("", room=76),
    ]
    rows = [
        [
            f"  {output.short_path(picture['path'])}",
            tables.size_of(picture),
            output.byte_size(picture["size"]),
            output.printable(str(picture.get("taken_at") or "")),
        ]
        for picture in pictures
    ]
    tables.print_table(columns, rows)
    output.write("\n")


def _remarks(end: Mapping[str, Any]) -> list[str]:
    remarks = []
    if end["bare"]:
        waiting = output.count(end["bare"], "picture has", "pictures have")
        remarks.append(f"{waiting} no vector yet and could only be compared byte by byte (`imagedb wait`).")
    if end["unseen"]:
        files = output.count(end["unseen"], "file")
        remarks.append(f"{files} could not be read to make sure, and may have copies that are not listed.")
    return remarks


def _summary(groups: Sequence[Mapping[str, Any]]) -> str:
    told = []
    for tier, words in _TIERS.items():
        of_tier = [group["pictures"] for group in groups if group["tier"] == tier]
        if of_tier:
            files = sum(map(len, of_tier))
            more = sum(picture["size"] for pictures in of_tier for picture in pictures[1:])
            told.append(
                f"{output.count(len(of_tier), 'group')} of {words}: {files:,} files, "
                f"{output.byte_size(more)} beyond the first of each"
            )
    return "\n".join(told)
