"""What the index holds, picture by picture, for lists, exports and whoever asks about one."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from imagedbd.datatypes import Compare
from imagedbd.errors import NothingMatchedError
from imagedbd.explaining import speaking_sidecars
from imagedbd.successor import pages

if TYPE_CHECKING:
    from imagedbd.datatypes import Vector
    from imagedbd.engine import EngineRoom
    from imagedbd.health import Health
    from imagedbd.ledger import Ledger

EXPORTED_AT_ONCE: Final = 1_000
NAMESAKES: Final = 3
"""Pictures of the same name in other folders that are named where one is not found."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Any thread may call any method."""

    ledger: Ledger
    room: EngineRoom
    health: Health

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Every picture of the index, ordered by the bytes of its path."""
        for entry in self.ledger.under("/"):
            if entry.id is not None:
                yield {
                    "path": entry.path,
                    "id": entry.id,
                    "content_hash": entry.content_hash,
                    "state": entry.state,
                    "offline": self.health.is_offline(entry.path),
                }

    def export(self, *, vectors: bool) -> Iterator[dict[str, Any]]:
        """Every own record, with its vector as little-endian float32 in base64, ordered by path."""
        # By way of the ledger, which reads in pages: a slow reader holds no store open.
        ids = (entry.id for entry in self.ledger.under("/") if entry.id)
        for page in pages(ids, EXPORTED_AT_ONCE):
            with self.room.reading() as engine:
                found = {picture.record.id: picture for picture in engine.store.get(page, vectors=vectors)}
            for key in page:
                if picture := found.get(key):
                    data = None if picture.vector is None else _base64(picture.vector)
                    yield {**picture.record.public(), "vector": data}

    def failures(self) -> Iterator[dict[str, Any]]:
        """Every file that could not be indexed: its ``path``, the ``reason``, and the ``attempts``."""
        for entry in self.ledger.failures():
            yield {"path": entry.path, "reason": entry.reason, "attempts": entry.attempts}

    def show(self, path: str) -> dict[str, Any]:
        """The record of one picture.

        :raises NothingMatchedError: if it is not in the index.
        """
        entry = self.ledger.get(path)
        mark = entry.sidecar if entry else None
        with self.room.reading() as engine:
            for picture in engine.store.get([entry.id], vectors=False) if entry and entry.id else ():
                return {
                    **picture.record.public(),
                    "state": entry.state if entry else None,
                    "offline": self.health.is_offline(path),
                    "sidecars": [] if mark is None or self.health.silence(path) else speaking_sidecars(path),
                }
            namesakes = Compare("name", "=", os.path.basename(path))
            elsewhere = [record.path for record in islice(engine.store.scan(namesakes, own=True), NAMESAKES)]
        told = f" What is of that name: {', '.join(elsewhere)}." if elsewhere else ""
        reason = f"`imagedb why {shlex.quote(path)}` says the reason."
        raise NothingMatchedError(f"{path} is not in the index.{told} {reason}")


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
