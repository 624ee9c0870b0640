"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from imagedbd.cli import completion
from imagedbd.errors import UsageError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RowsAsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print JSON, one object a line.")]
Paths = Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")]
NulPaths = Annotated[
    bool, typer.Option("-0", "--null", help="Print paths ended by NUL: safe for every name, for `xargs -0`.")
]

Preview = Annotated[
    bool, typer.Option("--preview", help="Show the pictures in the terminal, as well as it can.")
]
Open = Annotated[bool, typer.Option("--open", help="Open them in the desktop's viewer (xdg-open).")]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", metavar="FILE.html", help="Write a contact sheet, one file with thumbnails."),
]
LinkTo = Annotated[
    str | None,
    typer.Option("--link-to", metavar="DIR", help="Fill a folder with links to them; nothing is replaced."),
]
Exec = Annotated[
    str | None,
    typer.Option("--exec", metavar="CMD", help="Run a command for each, with {} for its path."),
]

Limit = Annotated[
    int, typer.Option("-n", "--limit", metavar="N", min=1, max=10_000, help="How many, at most.")
]
Offset = Annotated[
    int,
    typer.Option("--offset", metavar="N", min=0, max=100_000, help="Leave the first N out: the next page."),
]
ListLimit = Annotated[
    int | None,
    typer.Option("-n", "--limit", metavar="N", min=1, help="How many, at most; all of them if left out."),
]
ListOffset = Annotated[
    int, typer.Option("--offset", metavar="N", min=0, help="Leave the first N out: the next page.")
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score", metavar="S", min=-1, max=1, help="Only pictures at least this similar, -1 to 1."
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPR",
        help='Only pictures that meet this, such as "width > 1024".',
        autocompletion=completion.fields,
    ),
]
Folders = Annotated[
    list[str] | None,
    typer.Option(
        "--in",
        metavar="DIR",
        help="Only pictures in this folder or below. Repeatable.",
        autocompletion=completion.roots,
    ),
]

WaitForSwitch = Annotated[
    bool, typer.Option("--wait", help="Return when the new index answers, not when it is begun.")
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

PictureFile = Annotated[str, typer.Argument(metavar="FILE", help="A picture.")]


def seconds(name: str, text: str | None) -> float | None:
    """The value of an option that is a duration, such as ``90``, ``2m`` or ``1h``.

    :raises UsageError: it is none.
    """
    from imagedbd.config import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}.") from error
