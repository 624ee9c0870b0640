"""What is valid in the settings and yet may not be what its owner meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from imagedbd.cli import models, output
from imagedbd.errors import EmbedderError
from imagedbd.rules import absolute_patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.config import Settings


_BUNDLED: Final = (
    "`imagedb model use demo` takes the bundled model, which needs no network and knows drawings alone."
)


def doubts(settings: Settings) -> Iterator[str]:
    """A sentence each. The daemon starts with all of them, and tells of them in its status."""
    for root in settings.roots:
        if not os.path.isdir(root):
            yield f"roots: {output.home_path(root)} is not there: it counts as offline until it comes."
    for glob, meant in absolute_patterns(settings.ignore, settings.roots).items():
        yield (
            f"ignore: {output.printable(glob)} matches nothing, as patterns are paths from the watched "
            f"folder on: write {output.printable(meant)}."
        )
    yield from _about_model(settings.model)


def _about_model(spec: str) -> Iterator[str]:
    if spec.startswith("local-dir:"):
        if not os.path.isdir(folder := spec.removeprefix("local-dir:")):
            yield f"model: there is no folder {output.home_path(folder)}."
        return
    if spec.startswith("hf-hub:"):
        return  # whether the hub has it can be found out with a network alone
    try:
        known = models.listed()
    except EmbedderError as error:
        yield f"model: {error.message}"
        return
    found = next((model for model in known if model["spec"] == spec), None)
    if found is None:
        yield (
            f"model: OpenCLIP does not know {output.printable(spec)}: `imagedb model list` has them all. "
            f"{_BUNDLED}"
        )
    elif not found["local"]:
        yield (
            f"model: the weights of {spec} are not on this machine: `imagedb model pull` downloads them. "
            f"{_BUNDLED}"
        )
