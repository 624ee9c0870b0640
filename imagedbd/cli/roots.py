"""``imagedb root``: which folders are watched. The settings file is the one place that says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedbd.cli import completion, flags, output, switching, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.output import Form
from imagedbd.cli.target import Target, target_of
from imagedbd.errors import DaemonNotRunningError, NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer(
    name="root",
    help="Add, remove, relocate and list the folders that are watched.",
    epilog=examples("imagedb root add ~/Pictures", "imagedb root list"),
    no_args_is_help=True,
)

_Known = Annotated[list[str], typer.Argument(metavar="DIR", help="Folders.", autocompletion=completion.roots)]
_Folders = Annotated[list[str], typer.Argument(metavar="DIR", help="Folders.")]


@app.command(epilog=examples("imagedb root add ~/Pictures /mnt/camera"))
def add(context: typer.Context, folders: _Folders, yes: flags.Yes = False) -> None:
    """Watch these folders, with all that is below them."""
    from imagedbd.config import edit_roots, resolve_root

    roots = [resolve_root(folder) for folder in folders]
    for root in roots:
        _check_folder(root)
    for root in roots:
        if not yes and _holds_homes(root):
            switching.confirm(
                f"Watch {root}, with system files and what belongs to other users as far as it can be read?"
            )
    target = target_of(context)
    target.check_file()
    status = _status(target)
    config_file = _config_file(target, status)
    for root in roots:
        added = edit_roots(config_file, add=root)
        output.say(f"{'Added' if added else 'There already:'} {output.home_path(root)}")
        if added:
            _note_nesting(root, config_file)
    _tell_daemon(target, config_file, status)


@app.command(epilog=examples("imagedb root remove /mnt/camera", "imagedb root remove --yes /mnt/camera"))
def remove(
    context: typer.Context,
    folders: _Known,
    yes: flags.Yes = False,
) -> None:
    """Watch these folders no longer, and forget their pictures.

    The files stay as they are.
    """
    from imagedbd.config import edit_roots, resolve_root

    target = target_of(context)
    target.check_file()
    status = _status(target)
    config_file = _config_file(target, status)
    roots = [resolve_root(folder) for folder in folders]
    for root in roots:
        _check_configured(root, config_file, status)
    if not yes:
        _confirm(roots, status)
    for root in roots:
        edit_roots(config_file, remove=root)
        output.say(f"Removed {output.home_path(root)}")
    _tell_daemon(target, config_file, status)


@app.command(
    epilog=examples(
        "imagedb root relocate ~/Pictures /mnt/big/Pictures", "imagedb root relocate /mnt/usb /mnt/usb1"
    )
)
def relocate(
    context: typer.Context,
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="A watched folder, there or not.", autocompletion=completion.roots
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Where its pictures are now.")],
) -> None:
    """Follow a folder that you have moved, to a new name or another disk.

    Nothing is embedded again, and pictures keep their identity. Move the files first, by any means.
    """
    from imagedbd.config import load_settings, move_root, resolve_root
    from imagedbd.relocation import check_places, note_at_rest

    target = target_of(context)
    target.check_file()
    status = _status(target)
    config_file = _config_file(target, status)
    place = resolve_root(new)
    if status is None:
        _check_no_variable()
        roots = load_settings({"config_file": config_file}, environ={}).roots
        root = _as_watched(old, roots)
        check_places(root, place, tuple(roots))
        pictures = note_at_rest(target.settings, roots, root, place)
    else:
        root = _as_watched(old, [known["path"] for known in status["roots"]])
        target.client.relocate(root, place, only_check=True)
    filed = load_settings({"config_file": config_file}, environ={}).roots
    # Where a first try broke off, the file names the new place already.
    if not move_root(config_file, root, place) and place not in filed:
        _check_configured(root, config_file, status)
    if status is None:
        it = (
            "has no index yet"
            if pictures is None
            else f"brings {output.count(pictures, 'picture')} over when it starts"
        )
        output.say(f"Saved in {output.home_path(config_file)}. The daemon is not running, and {it}.")
        return
    with output.busy("Bringing the pictures over…"):
        what = output.count(target.client.relocate(root, place)["pictures"], "picture")
    output.say(f"{output.home_path(root)} lies at {output.home_path(place)} now, with {what}.")


@app.command("list", epilog=examples("imagedb root list", "imagedb root list --json"))
def list_roots(context: typer.Context, as_json: flags.RowsAsJson = False) -> None:
    """List the folders that are watched."""
    target = target_of(context)
    status = _status(target)
    rows = status["roots"] if status is not None else _configured_rows(target)
    if as_json:
        output.write_rows(rows, Form.JSON)
        return
    if status is None:
        output.say("The daemon is not running; these are the folders in the settings.")
    if not rows:
        known = status["indexed"] + status.get("waiting", 0) if status else 0
        there = f"{output.count(known, 'picture stays', 'pictures stay')} in the index from before"
        output.say(
            f"There is none now; {there}, and `imagedb status` says how they are watched again."
            if known
            else "There is none yet: `imagedb root add DIR`."
        )
        return
    columns = [
        tables.Column("folder"),
        tables.Column("state"),
        tables.Column("pictures", room=50, right=True),
    ]
    tables.print_table(columns, [_row(root) for root in rows])
    # Sentences in a column would leave no room for the paths.
    for root in rows:
        if root.get("reason"):
            output.show_words(f"{output.home_path(root['path'])}: {output.printable(root['reason'])}")


def _row(root: Mapping[str, Any]) -> list[str]:
    indexed = root.get("indexed")
    return [output.home_path(root["path"]), str(root["state"]), "" if indexed is None else f"{indexed:,}"]


def _status(target: Target) -> dict[str, Any] | None:
    """The daemon's status; ``None`` if it does not run."""
    try:
        return target.client.status()
    except DaemonNotRunningError:
        return None


def _config_file(target: Target, status: Mapping[str, Any] | None) -> str:
    # The daemon's own file: it may have been started with another one than this command would find.
    return target.settings.config_file if status is None else str(status["config_file"])


def _configured_rows(target: Target) -> list[dict[str, Any]]:
    return [
        {"path": root, "state": "unknown", "indexed": None, "reason": None} for root in target.settings.roots
    ]


def _check_folder(root: str) -> None:
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.lexists(root) else "does not exist"
        raise UsageError(f"{output.printable(root)} {what}.")
    from imagedbd.mounts import is_of_the_kernel

    if is_of_the_kernel(root):
        raise UsageError(f"{output.printable(root)} is the kernel's, and no place for pictures.")


def _holds_homes(root: str) -> bool:
    """Whether this is a slip more likely than a wish: an empty variable before a slash, a blank in a path."""
    from imagedbd.rules import is_within

    own = os.path.dirname(os.path.realpath(os.path.expanduser("~")))
    return is_within(own, root) or is_within("/home", root)


def _check_no_variable() -> None:
    if os.environ.get("IMAGEDBD_ROOTS") is not None:
        raise UsageError(
            "IMAGEDBD_ROOTS is set, and where it is, the daemon goes by it and not by the file: name the new"
            " place there, or unset it. No picture is embedded again."
        )


def _as_watched(folder: str, roots: Sequence[str]) -> str:
    """The root that is meant: where its pictures have gone, a link may lie in its place."""
    from imagedbd.config import plain_path, resolve_root

    plain = plain_path(folder)
    return plain if plain in roots else resolve_root(folder)


def _note_nesting(root: str, config_file: str) -> None:
    from imagedbd.config import load_settings
    from imagedbd.rules import is_within

    for other in load_settings({"config_file": config_file}, environ={}).roots:
        if root != other and is_within(root, other):
            output.note(
                f"{output.home_path(root)} lies in {output.home_path(other)}, which is watched already:"
                " it is a root of its own now, which ignore files above it do not concern."
            )
        elif root != other and is_within(other, root):
            output.note(f"{output.home_path(other)} lies in it, and stays a root of its own.")


def _check_configured(root: str, config_file: str, status: Mapping[str, Any] | None) -> None:
    from imagedbd.config import load_settings

    if root in load_settings({"config_file": config_file}, environ={}).roots:
        return
    if status is not None and any(known["path"] == root for known in status["roots"]):
        raise UsageError(
            f"{root} is watched because the daemon was started with it (--root or IMAGEDBD_ROOTS): "
            "start it without."
        )
    raise NothingMatchedError(
        f"{root} is not among the folders in {config_file}. `imagedb root list` shows them."
    )


def _confirm(roots: Sequence[str], status: Mapping[str, Any] | None) -> None:
    known = {root["path"]: root.get("indexed") or 0 for root in status["roots"]} if status else {}
    pictures = sum(known.get(root, 0) for root in roots)
    what = output.count(pictures, "picture") if pictures else "their pictures"
    names = ", ".join(output.home_path(root) for root in roots)
    switching.confirm(f"Forget {what} in {names}? The files stay.")


def _tell_daemon(target: Target, config_file: str, status: Mapping[str, Any] | None) -> None:
    if os.environ.get("IMAGEDBD_ROOTS") is not None:
        output.note("IMAGEDBD_ROOTS is set: where it is, the daemon goes by it and not by the file.")
    if status is None:
        output.say(
            f"Saved in {output.home_path(config_file)}. The daemon is not running: it reads it at its start."
        )
        return
    target.client.reload()
    output.say("The daemon knows. `imagedb status --watch` shows it at work.")
