"""Why an answer is empty, and what a user can do about it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from imagedbd.cli import output, query
from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagedbd.cli.target import Target


def why_nothing(target: Target, folders: Sequence[str] = ()) -> str:
    """What a user can do about an empty answer, as far as the daemon's state tells.

    :param folders: in which pictures were looked for.
    """
    status: Mapping[str, Any] = {}
    with contextlib.suppress(ImagedbError):  # the answer stands without it
        status = target.client.status()
    if status and not status.get("roots"):
        return "The daemon watches no folder yet: `imagedb root add DIR`."
    for folder in folders:
        if said := _about_folder(query.real_path(folder), status.get("roots", ())):
            return said
    if status.get("pending"):
        left = output.count(status["pending"], "picture")
        return f"Nothing among the pictures indexed so far; {left} to go (`imagedb wait`)."
    if status and not status.get("indexed") and not status.get("waiting"):
        return "The index is empty. `imagedb status` says why."
    return "No picture meets this query."


def _about_folder(folder: str, roots: Sequence[Mapping[str, Any]]) -> str | None:
    """Why there can be no pictures of this folder; ``None`` if there can."""
    from imagedbd.rules import is_within

    watched = any(is_within(folder, str(root["path"])) for root in roots)
    holds_roots = any(is_within(str(root["path"]), folder) for root in roots)
    if any(root.get("state") == "offline" and is_within(folder, str(root["path"])) for root in roots):
        return None
    if not os.path.isdir(folder):
        return f"There is no folder {output.home_path(folder)}."
    if not watched and not holds_roots:
        return (
            f"{output.home_path(folder)} lies in no folder that is watched: `imagedb root list` shows them."
        )
    return None
