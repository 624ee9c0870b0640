"""Names that people type, for the completion of shells: the cameras of the index, and models.

Both take seconds to gather in a large index, so they are kept for a while.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from imagedbd.processes import environment, python

if TYPE_CHECKING:
    from imagedbd.datatypes import Store

log = logging.getLogger(__name__)

CAMERAS_S: Final = 600.0
"""How long a list of cameras is good for."""
LISTING_S: Final = 60.0
"""How long OpenCLIP may take to say which models there are."""


class Names:
    """Any thread may call any method; one at a time gathers."""

    def __init__(self, store: Callable[[], AbstractContextManager[Store]]) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._cameras: list[str] = []
        self._cameras_until = 0.0
        self._models: list[str] | None = None

    def cameras(self) -> list[str]:
        """The models of cameras, in the order of the alphabet.

        :raises StoreError: the store cannot be read.
        """
        with self._lock:
            if time.monotonic() >= self._cameras_until:
                with self._store() as store:
                    found = {record.metadata.camera_model for record in store.scan()}
                self._cameras = sorted(name for name in found if name)
                self._cameras_until = time.monotonic() + CAMERAS_S
            return self._cameras

    def models(self) -> list[str]:
        """Every model that OpenCLIP offers; none where it cannot be asked."""
        with self._lock:
            if self._models is None:
                self._models = _listed_models()
            return self._models


def _listed_models() -> list[str]:
    command = python("imagedbd.embedder_worker", "list")
    try:
        done = subprocess.run(command, capture_output=True, env=environment(), timeout=LISTING_S, check=True)
        return [str(model["spec"]) for model in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        log.warning("models cannot be listed for completion: %s", error)
        return []
