"""Pictures are decoded in processes of their own: a file may crash, hang or fill one, and no more.

The daemon holds a :class:`Decoder`; what its workers do is in :mod:`imagedbd.decoder_worker`, which this
module imports late so that Pillow and its parsers stay out of the daemon.

Workers are forked from a small server process that has imported what they need, so that one starts in
milliseconds and shares its memory with the others. They come with the first picture and leave when there is
nothing to do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from imagedbd.datatypes import Limits
from imagedbd.fork_server import ForkServer
from imagedbd.worker_pool import Terms, WorkerPool, waiting_for_a_disk

if TYPE_CHECKING:
    from concurrent.futures import Future

    from imagedbd.datatypes import Decoded, Metadata, Pixels, Preprocess

IDLE_S: Final = 10.0
"""How long unused workers are kept."""
INDEXING_NICENESS: Final = 10


def decode_file(path: str, known: frozenset[str], preprocess: Preprocess | None, limits: Limits) -> Decoded:
    """:func:`imagedbd.decoder_worker.decode_file`, which runs in the worker."""
    from imagedbd import decoder_worker  # noqa: PLC0415  (only workers should load Pillow)

    return decoder_worker.decode_file(path, known, preprocess, limits, waiting_for_a_disk)


def decode_bytes(
    data: bytes, preprocess: Preprocess | None, limits: Limits
) -> tuple[str, Metadata, Pixels | None]:
    """:func:`imagedbd.decoder_worker.decode_bytes`, which runs in the worker."""
    from imagedbd import decoder_worker  # noqa: PLC0415  (only workers should load Pillow)

    return decoder_worker.decode_bytes(data, preprocess, limits)


class Decoder:
    """Decodes pictures in isolated processes; safe to call from any thread.

    Futures raise subclasses of :class:`ImagedbError` only: :class:`PictureError` if it is the picture's
    fault; of these, :class:`DecoderLostError` if its decoder crashed or took too long, where a second try is
    due, for a decoder may be killed by others as well, and :class:`PictureUnreadError` if it was its disk's;
    and :class:`ImagedbError` itself if no decoder could be run, where trying again later may help.

    The first call starts the server process (about 0.3 s), a first call after a pause the workers only.

    :param workers: processes for indexing, by default one a core; query pictures have one more of their own.
    :param idle_s: seconds after which unused processes are stopped.
    """

    def __init__(
        self, workers: int | None = None, limits: Limits | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._limits = limits or Limits()
        self._capacity = workers or len(os.sched_getaffinity(0))
        self._server = ForkServer("imagedbd.worker_pool", ["imagedbd.decoder_worker", __name__])
        self._indexing = self._pool("index", self._capacity, INDEXING_NICENESS, idle_s)
        self._queries = self._pool("query", 1, 0, idle_s)

    def _pool(self, name: str, size: int, niceness: int, idle_s: float) -> WorkerPool:
        terms = Terms(niceness, self._limits.memory_bytes)
        timeout_s = self._limits.timeout_s
        return WorkerPool(name, self._server, size, terms, timeout_s=timeout_s, idle_s=idle_s)

    @property
    def capacity(self) -> int:
        """How many pictures are decoded at the same time; more than about twice that only wait."""
        return self._capacity

    def submit(self, path: str, known: frozenset[str], preprocess: Preprocess | None) -> Future[Decoded]:
        """Decode a file; see :func:`imagedbd.decoder_worker.decode_file`.

        :param known: travels to the worker with each call: give the few hashes that are probable, not all.
        """
        return self._indexing.submit(decode_file, path, known, preprocess, self._limits)

    def submit_bytes(
        self, data: bytes, preprocess: Preprocess | None
    ) -> Future[tuple[str, Metadata, Pixels | None]]:
        """Decode a query picture, ahead of all indexing; see :func:`imagedbd.decoder_worker.decode_bytes`."""
        return self._queries.submit(decode_bytes, data, preprocess, self._limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers now; what was not done yet fails with :class:`ImagedbError`."""
        self._indexing.close()
        self._queries.close()
        self._server.close()
