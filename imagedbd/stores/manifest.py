"""The manifest: a small JSON file beside a store's table that says what the table holds.

It is written to a file of its own first and renamed, each step flushed to the disk, so that after a crash
there is the old manifest or the new one, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from imagedbd.datatypes import ModelInfo, Preprocess
from imagedbd.errors import StoreError, StoreUnreadableError

FILE_NAME: Final = "manifest.json"

FORMAT: Final = 1
"""Grows when older versions of this program could no longer make sense of the store's files."""

SCHEMA: Final = 2
"""Grows when the columns of the table change."""

VECTOR_DTYPE: Final = "float16"


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
            content = json.load(file)
        _check_format(content, path)
        return _manifest(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreUnreadableError(
            f"{path} cannot be read ({error}). Run `imagedbd repair` to mend the store."
        ) from error


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Replace the manifest of the store in a folder, durably.

    :raises StoreError: and the old manifest, if there was one, is still there.
    """
    path = os.path.join(folder, FILE_NAME)
    try:
        replace_file(path, json.dumps(asdict(manifest), indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error


def _check_format(content: dict[str, Any], path: str) -> None:
    if _integer(content["format"]) > FORMAT:
        raise StoreUnreadableError(
            f"{path} was written by a newer imagedbd (format {content['format']}; this one reads {FORMAT}). "
            "Upgrade imagedbd, or run `imagedbd repair` to make the store anew."
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
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


def replace_file(path: str, content: str) -> None:
    """Replace a small file durably: after a crash there is the old one or the new one, whole.

    :raises OSError: and the old one, if there was one, is still there.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Flush a folder's list of names to the disk: without it a crash can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
