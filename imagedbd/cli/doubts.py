"""What is valid in the settings and yet may not be what its owner meant."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Final

from imagedbd.cli import models, output
from imagedbd.config import SETTING_VARIABLES, resolve_root
from imagedbd.errors import EmbedderError
from imagedbd.rules import absolute_patterns
from imagedbd.toml_file import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imagedbd.config import Settings


_BUNDLED: Final = (
    "`imagedb model use demo` takes the bundled model, which needs no network and knows drawings alone."
)


_SCHEMES: Final = frozenset({
    "abfs", "abfss", "adl", "az", "azure", "cos", "db", "gs", "hf", "oss", "s3", "s3+ddb", "tos",
})  # fmt: skip
_BESIDE_SETTINGS: Final = frozenset({"IMAGEDBD_CONFIG", "IMAGEDBD_DEBUG"})


def doubts(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence each. The daemon starts with all of them, and tells of most in its status."""
    yield from _about_variables(environ)
    for root in read_toml(settings.config_file).get("roots", ()):
        if not os.path.isabs(os.path.expanduser(root)):
            yield (
                f"roots: {output.printable(root)} is read from whatever folder the daemon is started in: "
                f"write {output.printable(resolve_root(root))}, if that is meant."
            )
    scheme = settings.store_uri.partition("://")[0] if settings.store_uri else None
    if scheme and scheme not in _SCHEMES:
        known = ", ".join(sorted(f"{name}://" for name in _SCHEMES))
        yield f"store.uri: LanceDB may not know {output.printable(scheme)}://. It knows {known}."
    for root in settings.roots:
        if not os.path.isdir(root):
            yield f"roots: {output.home_path(root)} is not there: it counts as offline until it comes."
    for glob, meant in absolute_patterns(settings.ignore, settings.roots).items():
        yield (
            f"ignore: {output.printable(glob)} matches nothing, as patterns are paths from the watched "
            f"folder on: write {output.printable(meant)}."
        )
    yield from _about_model(settings.model)


def _about_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = _BESIDE_SETTINGS | SETTING_VARIABLES
    for name in sorted(environ):
        if name.startswith("IMAGEDBD_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f" Did you mean {close[0]}?" if close else ""
            yield f"{output.printable(name)}: there is no such setting, and nobody reads it.{hint}"


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
