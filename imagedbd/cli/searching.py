"""``imagedb search``, ``similar``, ``show``, ``why`` and ``list``: asking the index."""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedbd.bounds import MAX_LIMIT
from imagedbd.cli import completion, flags, output, query, showing, tables
from imagedbd.cli.emptiness import why_nothing
from imagedbd.cli.entry import ExplainedUsageError, examples
from imagedbd.cli.output import Form
from imagedbd.cli.plain import MinusIsNoOption
from imagedbd.cli.target import target_of
from imagedbd.errors import NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imagedbd.cli.showing import Wishes

app = typer.Typer()


@app.command(
    cls=MinusIsNoOption,
    epilog=examples(
        "imagedb search 'a red car'",
        "imagedb search holiday.jpg -n 5",
        "imagedb search '2:dog + ./pool.jpg - snow'",
        "imagedb search harbour --weights 1,3",
        "imagedb search --text 'Nikon lisbon' --after 2024-05",
        "imagedb search --camera nikon --sort date --offset 10",
        "imagedb search --sort date",
        "imagedb search beach --not people --where 'iso < 400 AND width > 1024'",
        "imagedb search --near 38.71,-9.14,25 -n 1000 -0 | xargs -0 cp -t ~/Lisbon",
        "imagedb search sunset --preview",
        "imagedb search sunset -n 60 --sheet sunset.html",
        "imagedb search --where 'rating = 5' -n 1000 --link-to ~/best",
        "imagedb search invoice --exec 'cp {} /tmp'",
        "curl -s https://example.org/cat.jpg | imagedb search --image -",
    ),
)
def search(  # noqa: PLR0917 - typer gives them by name; each is an option
    context: typer.Context,
    bare_words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY",
            show_default=False,
            help="A picture file, or words: what is to be seen, and what the metadata says; or several, "
            "with + and - between them.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", metavar="FILE", help="Pictures like this one; - is standard input. Repeatable."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="TEXT", help="Pictures that show this. Repeatable."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEXT", help="Pictures whose metadata has all of these words."),
    ] = None,
    unwanted: Annotated[
        list[str] | None,
        typer.Option(
            "--not", metavar="TEXT", help="Away from this; half the weight of a prompt. Repeatable."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="LIKENESS,WORDS",
            help="How much what is to be seen and what the metadata says count (1,1); 0 leaves one out.",
        ),
    ] = None,
    where: flags.Where = None,
    folders: flags.Folders = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="DATE", help="Taken on this date or later: 2024, 2024-05, …."),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="DATE", help="Taken before this date.")
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="TEXT",
            help="Part of the camera's make or model.",
            autocompletion=completion.cameras,
        ),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option("--near", metavar="LAT,LON[,KM]", help="Taken within KM kilometres of a place (10)."),
    ] = None,
    limit: flags.Limit = 10,
    offset: flags.Offset = 0,
    min_score: flags.MinScore = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="score|date",
            help="Order of what was found; date is newest first, those without one last.",
            autocompletion=completion.one_of("score", "date"),
        ),
    ] = "score",
    as_json: flags.RowsAsJson = False,
    jsonl: flags.JsonLines = False,
    paths: flags.Paths = False,
    nul: flags.NulPaths = False,
    preview: flags.Preview = False,
    open_them: flags.Open = False,
    sheet: flags.Sheet = None,
    link_to: flags.LinkTo = None,
    command: flags.Exec = None,
) -> None:
    """Find pictures by words, by example and by metadata.

    Words are looked for in two ways, and the two rankings are fused: as a prompt (what is to be seen) and in
    the metadata (captions, keywords, names, cameras). A query of conditions only lists what meets them,
    newest first, and --sort date alone lists the newest pictures.

    QUERY may add and subtract: '2:dog + ./pool.jpg - snow'. Each term is a picture file that is there, or
    words; a number and a colon before it make it count more or less. Only a + or - between spaces is one.
    The words that are added are looked for in the metadata too. A file whose name is all of QUERY is that
    file; what is in double quotes, and what is given with --prompt, is taken as it stands.
    """
    bare = " ".join(bare_words) if bare_words else None
    form = output.chosen_form(as_json=as_json, jsonl=jsonl, paths=paths, nul=nul)
    wanted = showing.wishes(
        form,
        preview=preview,
        open_them=open_them,
        sheet=sheet,
        link_to=link_to,
        command=command,
        limit=limit,
    )
    if sort not in {"score", "date"}:
        raise UsageError(f"--sort is score or date, not {sort!r}.")
    narrowing = query.conditions(
        where=where, folders=folders or (), after=after, before=before, camera=camera, near=near
    )
    balance = None if weights is None else query.weights_of(weights)
    bare_terms = query.bare_terms(bare)
    terms = query.terms_of(bare_terms, image or (), prompt or (), unwanted or ())
    words = query.words_of(bare_terms, text)
    if not terms and words is None and not narrowing and sort != "date":
        raise ExplainedUsageError("There is nothing to look for.", _EXAMPLES)
    if balance and not (terms and words):
        output.note("--weights changes nothing here: there are not both likeness and words to weigh.")
    target = target_of(context)
    answer = target.client.search(
        terms,
        text=words,
        # One more tells whether there are any more; what has terms ranks all pictures.
        limit=limit if terms else min(limit + 1, MAX_LIMIT),
        offset=offset or None,
        min_score=min_score,
        sort=sort,
        weights=balance,
        **narrowing,
    )
    found = len(answer["hits"])
    answer["hits"] = answer["hits"][:limit]
    _answer(context, answer, wanted, offset=offset)
    if found > limit or (not terms and found == limit == MAX_LIMIT):
        which = f"the first {limit}" if not offset else f"{offset + 1} to {offset + limit}"
        more = "are" if found > limit else "may be"
        output.note(
            f"These are {which}; there {more} more: -n sets how many, at most, and "
            f"--offset {offset + limit} goes on from here."
        )


@app.command(
    epilog=examples(
        "imagedb similar holiday.jpg",
        "imagedb similar holiday.jpg --min-score 0.9 --paths",
        "imagedb similar holiday.jpg -n 5 --open",
    )
)
def similar(  # noqa: PLR0917 - as above
    context: typer.Context,
    file: flags.PictureFile,
    where: flags.Where = None,
    folders: flags.Folders = None,
    limit: flags.Limit = 10,
    offset: flags.Offset = 0,
    min_score: flags.MinScore = None,
    as_json: flags.RowsAsJson = False,
    jsonl: flags.JsonLines = False,
    paths: flags.Paths = False,
    nul: flags.NulPaths = False,
    preview: flags.Preview = False,
    open_them: flags.Open = False,
    sheet: flags.Sheet = None,
    link_to: flags.LinkTo = None,
    command: flags.Exec = None,
) -> None:
    """Find the pictures most like this one, itself left out."""
    form = output.chosen_form(as_json=as_json, jsonl=jsonl, paths=paths, nul=nul)
    wanted = showing.wishes(
        form,
        preview=preview,
        open_them=open_them,
        sheet=sheet,
        link_to=link_to,
        command=command,
        limit=limit,
    )
    target = target_of(context)
    answer = target.client.search(
        [{"path": file}],
        limit=min(offset + limit + 1, MAX_LIMIT),
        min_score=min_score,
        **query.conditions(where=where, folders=folders or ()),
    )
    own = query.real_path(file)
    others = [hit for hit in answer["hits"] if hit["path"] != own][offset : offset + limit]
    answer["hits"] = [{**hit, "rank": rank} for rank, hit in enumerate(others, start=offset + 1)]
    _answer(context, answer, wanted, offset=offset)


@app.command(epilog=examples("imagedb show holiday.jpg", "imagedb show holiday.jpg --json"))
def show(context: typer.Context, file: flags.PictureFile, as_json: flags.JsonFlag = False) -> None:
    """Print everything that is known of one picture."""
    record = target_of(context).client.show(query.real_path(file))
    if as_json:
        output.write_json(record)
    else:
        _print_fields(record)


@app.command(epilog=examples("imagedb why holiday.jpg", "imagedb why ~/Pictures/.thumbnails"))
def why(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any file or folder.")],
    as_json: flags.JsonFlag = False,
) -> None:
    """Explain why a file is in the index, or why it is not.

    Of a path at which there is nothing, and of which nothing is known, the exit code is 1.
    """
    answer = target_of(context).client.why(query.entry_path(file))
    if as_json:
        output.write_json(answer)
    else:
        _print_fields(answer)
    if answer["state"] == "missing":
        raise typer.Exit(NothingMatchedError.exit_code)


@app.command(
    "list",
    epilog=examples(
        "imagedb list",
        "imagedb list --in ~/Pictures/2024 -n 20",
        "imagedb list --json | jq length",
        "imagedb list -0 | xargs -0 ls -l",
    ),
)
def list_pictures(  # noqa: PLR0917 - as above
    context: typer.Context,
    folders: flags.Folders = None,
    limit: flags.ListLimit = None,
    offset: flags.ListOffset = 0,
    as_json: flags.RowsAsJson = False,
    jsonl: flags.JsonLines = False,
    paths: flags.Paths = False,
    nul: flags.NulPaths = False,
) -> None:
    """List every indexed picture, in the order of their paths."""
    form = output.chosen_form(as_json=as_json, jsonl=jsonl, paths=paths, nul=nul)
    target = target_of(context)
    page = _Page(_in_folders(target.client.pictures(), folders or ()), limit, offset)
    if form is Form.TABLE:
        # Not a table of rich: that would hold all rows back until the last one is there.
        for row in page:
            output.write(f"{row.get('state', ''):<8}  {tables.place_of(row)}\n")
    else:
        output.write_rows(page, form)
    if page.has_more:
        output.note(
            f"These are {offset + 1} to {offset + page.shown}, and there are more: "
            f"--offset {offset + page.shown} goes on from here."
        )
    if not page.shown and offset:
        raise NothingMatchedError(f"There are no more than {offset} such pictures.")
    if not page.shown and folders:
        raise NothingMatchedError(why_nothing(target, folders))
    if not page.shown and form is Form.TABLE:
        output.say(why_nothing(target))


class _Page:
    """Some of many rows, each handed on as soon as it is there.

    :param limit: how many, at most; ``None`` is all of them.
    :param offset: how many are left out before.
    """

    def __init__(self, rows: Iterator[dict[str, Any]], limit: int | None, offset: int) -> None:
        self._rows = rows
        self._limit = limit
        self._offset = offset
        self.shown = 0
        self.has_more = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in islice(self._rows, self._offset, None):
            if self.shown == self._limit:
                self.has_more = True
                return
            self.shown += 1
            yield row


def _in_folders(rows: Iterator[dict[str, Any]], folders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of pictures in these folders or below; all of them if none is named."""
    if not folders:
        return rows
    from imagedbd.rules import is_within

    real = [query.real_path(folder) for folder in folders]
    return (row for row in rows if any(is_within(row["path"], folder) for folder in real))


_EXAMPLES = """Try, for example:
  imagedb search 'a red car'          what is to be seen, or in the metadata
  imagedb search holiday.jpg          pictures like this one
  imagedb search 'dog + beach - snow' with and without
  imagedb search --text 'Nikon 2024'  words in the metadata
  imagedb search --where 'iso >= 800' a condition; `imagedb search --help` has them all"""


def _answer(context: typer.Context, answer: Mapping[str, Any], wanted: Wishes, *, offset: int) -> None:
    hits: Sequence[Mapping[str, Any]] = answer["hits"]
    try:
        showing.show(context, hits, wanted)
    finally:
        for remark in answer.get("notes", ()):
            output.note(output.printable(remark))
    if not hits and offset:
        raise NothingMatchedError(f"There are no more than {offset} such pictures.")
    if not hits:
        raise NothingMatchedError(why_nothing(target_of(context), context.params.get("folders") or ()))
    if wanted.form is Form.TABLE and sys.stderr.isatty() and sys.stdout.isatty():
        output.say(f"{output.count(len(hits), 'picture')} in {answer['took_ms']:.0f} ms")


def _print_fields(record: Mapping[str, Any]) -> None:
    """One field a line; what is empty is left out."""
    rows = [
        (name, _shown(name, value))
        for name, value in record.items()
        if value is not None and value not in ("", [])
    ]
    tables.print_table([tables.Column("", style="dim"), tables.Column("")], rows)


def _shown(name: str, value: Any) -> str:
    if name in {"path", "folder"}:
        return output.short_path(value)
    if name == "size":
        return f"{value} ({output.byte_size(value)})"
    if name == "exposure_s" and 0 < value < 0.4:
        return f"1/{round(1 / value)} s"
    if name == "sidecars":
        value = [os.path.basename(path) for path in value]
    if isinstance(value, list):
        return output.printable(", ".join(map(str, value)))
    return output.printable(str(value))
