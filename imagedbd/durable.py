"""Files that outlive a crash: after it there is the old content or the new one, whole."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os

log = logging.getLogger(__name__)


def replace_file(path: str, content: bytes) -> None:
    """Put a file in the place of another, and make that durable.

    :raises OSError: and the old one, if there was one, is still there; or, if it was the folder that could
        not be flushed, the new one is, and a power cut may undo that.
    """
    _put_in_place(path, content)
    sync_folder(os.path.dirname(path))


def write_durably(path: str, text: str) -> None:
    """The same for a file whose new content counts from the moment that it can be read.

    :raises OSError: and the old file, if there was one, is still there.
    """
    _put_in_place(path, text.encode())
    try:
        sync_folder(os.path.dirname(path))
    except OSError as error:
        # The new file is in its place already: to call this a failure would tell the caller a lie.
        log.warning("%s could not be flushed to the disk: %s", os.path.dirname(path), error.strerror)


def sync_folder(folder: str) -> None:
    """Flush a folder's list of names to the disk: without it a crash can undo a rename.

    :raises OSError: if the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_name(path: str) -> str:
    """The path itself, or where something is there already, the first free one of ``PATH-2``, …."""
    names = itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def _put_in_place(path: str, content: bytes) -> None:
    draft = f"{path}.tmp"
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
