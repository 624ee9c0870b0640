"""Small files that outlive a crash: after it there is the old content or the new one, whole."""

from __future__ import annotations

import contextlib
import logging
import os

log = logging.getLogger(__name__)


def write_durably(path: str, text: str) -> None:
    """Replace a file's content.

    :raises OSError: and the old file, if there was one, is still there.
    """
    draft = f"{path}.tmp"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    """Flush the folder's list of names: without it a power cut can undo the rename."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # The new file is in its place already: to call this a failure would tell the caller a lie.
        log.warning("%s could not be flushed to the disk: %s", folder, error.strerror)
