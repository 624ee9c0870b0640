"""The manifest: a small JSON file beside a store's table that says what the table holds.

It is written to a file of its own first and renamed, each step flushed to the disk, so that after a crash
there is the old manifest or the new one, whole. It carries a checksum of the rest of it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from blake3 import blake3

from imagedbd.datatypes import ModelInfo, Preprocess
from imagedbd.durable import replace_file
from imagedbd.errors import MENDING, StoreError, StoreUnreadableError

_log = logging.getLogger(__name__)

FILE_NAME: Final = "manifest.json"

FORMAT: Final = 1
"""Grows when older versions of this program could no longer make sense of the store's files."""

SCHEMA: Final = 2
"""Grows when the columns of the table change, or the files beside it."""

_CHECKSUM_SINCE = 2
"""The first schema whose manifest has a checksum."""

VECTOR_DTYPE: Final = "float16"

SPARE: Final = "spare"
"""The folder of copies of what all else hangs on."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store holds.

    :param kind: which store wrote it, ``lance`` or ``faiss``.
    :param model: whose vectors are there; ``None`` before the first one.
    """

    kind: str
    format: int = FORMAT
    schema: int = SCHEMA
    vector_dtype: str = VECTOR_DTYPE
    model: ModelInfo | None = None


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of the store in a folder; ``None`` if there is none.

    :raises StoreUnreadableError: if it cannot be read, makes no sense, or is of a newer format.
    """
    path = os.path.join(folder, FILE_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return manifest_of(text, path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Replace the manifest of the store in a folder, durably.

    :raises StoreError: and the old manifest, if there was one, is still there.
    """
    path = os.path.join(folder, FILE_NAME)
    try:
        replace_file(path, manifest_text(manifest).encode())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error


def settle_manifest(folder: str, manifest: Manifest) -> None:
    """Replace the manifest, and then its copy, for a repair that finds the first one damaged.

    :raises StoreError: the manifest may be the new one or the old one.
    """
    write_manifest(folder, manifest)
    spare = os.path.join(folder, SPARE)
    try:
        os.makedirs(spare, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{spare} cannot be made: {error.strerror or error}.") from error
    write_manifest(spare, manifest)


def mend_spare(folder: str, manifest: Manifest) -> None:
    """Write the copy anew if it is not as it should be; where that fails, it is tried again next time."""
    try:
        if read_manifest(os.path.join(folder, SPARE)) == manifest:
            return
    except StoreUnreadableError as error:
        _log.warning("the copy of the manifest is written anew: %s", error.message)
    try:
        settle_manifest(folder, manifest)
    except StoreError as error:
        _log.warning("%s", error.message)


def manifest_text(manifest: Manifest) -> str:
    """The manifest as JSON, with its checksum."""
    content = asdict(manifest)
    return json.dumps({**content, "checksum": _checksum(content)}, indent=2) + "\n"


def manifest_of(text: str, place: str) -> Manifest:
    """The manifest in a JSON text.

    :param place: where the text was, for a message.
    :raises StoreUnreadableError: if it makes no sense, is not as it was written, or is of a newer format.
    """
    try:
        content = json.loads(text)
        _check_format(content, place)
        _verify(content)
        return _manifest(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unreadable(place, error) from error


def _verify(content: dict[str, Any]) -> None:
    checksum = content.pop("checksum", None)
    if checksum is None and _integer(content["schema"]) < _CHECKSUM_SINCE:
        return
    if checksum != _checksum(content):
        raise ValueError("it is not as it was written")


def _checksum(content: dict[str, Any]) -> str:
    return blake3(json.dumps(content, sort_keys=True).encode()).hexdigest(16)


def _unreadable(place: str, error: Exception) -> StoreUnreadableError:
    return StoreUnreadableError(f"{place} cannot be read ({error}).", MENDING)


def _check_format(content: dict[str, Any], path: str) -> None:
    if _integer(content["format"]) > FORMAT:
        raise StoreUnreadableError(
            f"{path} was written by a newer imagedbd (format {content['format']}; this one reads {FORMAT}).",
            "Upgrade imagedbd, or run `imagedbd repair` to make the store anew.",
        )


def _manifest(content: dict[str, Any]) -> Manifest:
    model = content["model"]
    return Manifest(
        kind=_text(content["kind"]),
        format=_integer(content["format"]),
        schema=_integer(content["schema"]),
        vector_dtype=_text(content["vector_dtype"]),
        model=None if model is None else _model(model),
    )


def _model(content: dict[str, Any]) -> ModelInfo:
    return ModelInfo(
        spec=_text(content["spec"]),
        weights_hash=_text(content["weights_hash"]),
        dimension=_integer(content["dimension"]),
        preprocess=_preprocess(content["preprocess"]),
    )


def _preprocess(content: dict[str, Any]) -> Preprocess:
    return Preprocess(
        width=_integer(content["width"]),
        height=_integer(content["height"]),
        resize_mode=_text(content["resize_mode"]),
        interpolation=_text(content["interpolation"]),
        fill_color=_integer(content["fill_color"]),
        mean=tuple(float(value) for value in content["mean"]),
        std=tuple(float(value) for value in content["std"]),
        # A manifest that does not know of this is of a store whose pictures were seen without it.
        to_srgb=_flag(content.get("to_srgb", False)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value
