"""Names that people type, for the completion of shells: makes and models of the index's cameras, and models.

They take seconds to gather in a large index, so they are kept until it changes, and for a while beyond.
"""

from __future__ import annotations

import json
import logging
import math
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.processes import environment, python

if TYPE_CHECKING:
    from imagedbd.datatypes import Store

log = logging.getLogger(__name__)

SHARE: Final = 0.05
"""Of the time, the most that goes into gathering cameras, however fast the index changes."""
LISTING_S: Final = 60.0
"""How long OpenCLIP may take to say which models there are."""


@dataclass(frozen=True, slots=True)
class Cameras:
    """What the cameras of the index are called, in the order of the alphabet."""

    makes: list[str]
    models: list[str]


class Names:
    """Any thread may call any method; one at a time gathers."""

    def __init__(
        self,
        store: Callable[[], AbstractContextManager[Store]],
        version: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """:param version: another number after each change that this daemon makes to the index."""
        self._store = store
        self._version = version
        self._clock = clock
        self._lock = threading.Lock()
        self._cameras = Cameras([], [])
        self._cameras_of: tuple[int, int] | None = None
        self._good_until = -math.inf
        self._models: list[str] | None = None

    def cameras(self) -> Cameras:
        """Those of the index as it is now, or as it was a short while ago.

        :raises StoreError: the store cannot be read.
        """
        with self._lock, self._store() as store:
            # The number of rows is for a remote table, to which others write as well.
            current = (self._version(), store.count())
            if current != self._cameras_of and self._clock() >= self._good_until:
                begun = self._clock()
                self._cameras = _cameras_of(store)
                self._cameras_of = current
                self._good_until = self._clock() + (self._clock() - begun) / SHARE
            return self._cameras

    def models(self) -> list[str]:
        """Every model that OpenCLIP offers; none where it cannot be asked."""
        with self._lock:
            if self._models is None:
                self._models = _listed_models()
            return self._models


def _cameras_of(store: Store) -> Cameras:
    makes, models = set(), set()
    for record in store.scan():
        makes.add(record.metadata.camera_make)
        models.add(record.metadata.camera_model)
    return Cameras(sorted(filter(None, makes)), sorted(filter(None, models)))


def _listed_models() -> list[str]:
    command = python("imagedbd.embedder_worker", "list")
    try:
        done = subprocess.run(command, capture_output=True, env=environment(), timeout=LISTING_S, check=True)
        return [str(model["spec"]) for model in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        log.warning("models cannot be listed for completion: %s", error)
        return []
