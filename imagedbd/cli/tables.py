"""Tables for eyes: as many columns as fit, the path always whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imagedbd.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Column:
    """:param room: columns of the terminal from which on this one is shown."""

    title: str
    room: int = 0
    right: bool = False
    style: str = ""


_RANK: Final = Column("", right=True, style="dim")
_SCORE: Final = Column("score", right=True, style="cyan")
_PATH: Final = Column("picture")
_DATE: Final = Column("taken", room=56)
_SIZE: Final = Column("size", room=72, right=True)
_CAMERA: Final = Column("camera", room=80)


def print_hits(hits: Sequence[Mapping[str, Any]]) -> None:
    """Search results; the score is left out where nothing was ranked."""
    scored = [_SCORE] if _is_ranked(hits) else []
    print_table([_RANK, *scored, _PATH, _DATE, _SIZE, _CAMERA], _rows(hits))


def lines_of(hits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same, a line each, however long."""
    return ["  ".join(cell for cell in row if cell) for row in _rows(hits)]


def _is_ranked(hits: Sequence[Mapping[str, Any]]) -> bool:
    return any(hit["score"] for hit in hits)


def score_digits(hits: Sequence[Mapping[str, Any]]) -> int:
    """How many decimals tell these scores apart: those of a fusion are small."""
    return 4 if max((abs(hit["score"]) for hit in hits), default=1.0) < 0.1 else 3


def _rows(hits: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    ranked = _is_ranked(hits)
    digits = score_digits(hits)
    return [
        [
            str(hit["rank"]),
            *([f"{hit['score']:.{digits}f}"] if ranked else []),
            place_of(hit),
            date_of(hit),
            size_of(hit),
            camera_of(hit),
        ]
        for hit in hits
    ]


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    width = output.console().width
    shown = [index for index, column in enumerate(columns) if width >= column.room]
    table = grid([columns[index] for index in shown])
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    output.show(table)


def grid(columns: Sequence[Column]) -> Table:
    """A table without lines, whose cells fold rather than lose anything."""
    from rich.table import Table

    titled = any(column.title for column in columns)
    table = Table(box=None, pad_edge=False, show_header=titled, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.right else "left", style=column.style, overflow="fold"
        )
    return table


def place_of(record: Mapping[str, Any]) -> str:
    """The path, marked where the picture cannot be opened at the moment."""
    return output.short_path(record["path"]) + (" (offline)" if record.get("offline") else "")


def date_of(record: Mapping[str, Any]) -> str:
    return output.printable(str(record.get("taken_at") or ""))[:10]


def size_of(record: Mapping[str, Any]) -> str:
    width, height = record.get("width"), record.get("height")
    return f"{width}×{height}" if width and height else ""


def camera_of(record: Mapping[str, Any]) -> str:
    """``NIKON Z 6`` rather than ``NIKON CORPORATION NIKON Z 6``."""
    make, model = str(record.get("camera_make") or ""), str(record.get("camera_model") or "")
    brand = make.split(" ", maxsplit=1)[0]
    named = model if brand.casefold() in model.casefold() else f"{brand.capitalize()} {model}"
    return output.printable(named.strip())
