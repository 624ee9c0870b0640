"""``imagedb export`` and ``backup``: the index for other programs, and a copy of it that can be restored."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from imagedbd.cli import flags, output, progress, switching
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of
from imagedbd.errors import NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

app = typer.Typer()


@app.command(
    epilog=examples(
        "imagedb export pictures.parquet",
        "imagedb export --no-vectors --yes pictures.parquet",
    )
)
def export(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE.parquet", help="What is written.")],
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Leave the vectors out: a tenth of the size.")
    ] = False,
    yes: flags.Yes = False,
) -> None:
    """Write every record and its vector to a Parquet file.

    It has a row a picture, for pandas, DuckDB and the like. `path_bytes` is the path as the kernel has it,
    `path` the same as text, with replacements where it is not UTF-8.
    """
    path = os.path.expanduser(file)
    if not path.lower().endswith(".parquet"):
        raise UsageError(f"export writes Parquet; {output.printable(file)} does not end in .parquet.")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"There is no folder {output.printable(folder)} to write to; `mkdir -p` makes it.")
    if os.path.exists(path) and not yes:
        switching.confirm(f"{output.short_path(os.path.abspath(path))} is there already. Replace it?")
    client = target_of(context).client
    status = client.status()
    rows = client.export(vectors=not no_vectors)
    from imagedbd.cli.parquet import write_parquet

    with progress.bar("Exporting", status["indexed"] + status["waiting"]) as advance:
        written = write_parquet(path, _counted(rows, advance), model=status["model"]["name"])
    if not written:
        raise NothingMatchedError("The index is empty; nothing was written.")
    size = output.byte_size(os.path.getsize(path))
    output.say(
        f"Wrote {output.count(written, 'picture')} to {output.short_path(os.path.abspath(path))}, {size}."
    )


@app.command(
    epilog=examples(
        "imagedb backup /mnt/backup/pictures-index", "imagedbd restore /mnt/backup/pictures-index"
    )
)
def backup(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new folder for it.")],
) -> None:
    """Copy the index into a folder, from which it can be restored.

    Searching goes on meanwhile, indexing waits. With the daemon stopped, `imagedbd restore DIR` puts it back,
    here or on another machine; vectors are kept, so that nothing is embedded again. The pictures themselves
    are not copied.
    """
    from imagedbd import backups
    from imagedbd.cli.private_daemon import interrupted_by_sigterm

    path = os.path.abspath(os.path.expanduser(folder))
    if os.path.lexists(path):
        raise UsageError(
            f"{output.printable(folder)} is there already; a backup is written into a new folder."
        )
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with interrupted_by_sigterm(), target_of(context).client.held_still() as (told, is_held):
        source = backups.source_of(told)
        with progress.bar("Copying", source.size(), output.byte_size) as advance:
            size = backups.write_backup(source, path, created=created, advance=advance, is_held=is_held)
    if source.store_folder is None:
        output.note(f"The store is at {output.printable(source.active.place)} and was not copied.")
    output.say(
        f"Copied {output.count(source.pictures, 'picture')} of the index to {output.short_path(path)}, "
        f"{output.byte_size(size)}. `imagedbd restore` puts it back."
    )


def _counted(rows: Iterator[Mapping[str, Any]], advance: Any) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield row
        if not number % 100:
            advance(number)
