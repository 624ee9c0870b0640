"""Pictures that are indexed already, read and embedded once more for another model."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Final

import numpy as np

from imagedbd.errors import DecoderLostError, EmbedderError, PictureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagedbd.datatypes import Decoded, Embedder, ImageRecord, Pixels, Vector
    from imagedbd.decoder import Decoder

log = logging.getLogger(__name__)

BATCHES_IN_FLIGHT: Final = 2
"""One that the model works on, and one that lies ready when it is done."""

LOOK_S: Final = 0.25
TRIES: Final = 2
"""How often a picture is read whose decoder was lost: somebody may have killed it."""

_Batch = list[tuple["ImageRecord", "Pixels"]]


class Reembedder:
    """Takes records through decoder and model, both of which work while the caller stores what is done.

    :param embedder: of the new model, which has been loaded.
    :param stopping: ends early what goes on.
    """

    def __init__(self, decoder: Decoder, embedder: Embedder, stopping: threading.Event) -> None:
        self._decoder = decoder
        self._embedder = embedder
        self._stopping = stopping

    def vectors(self, records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, Vector | None]]:
        """Each record with its new vector, in an order of its own.

        There is no vector for a picture that cannot be read, has changed, or that the model chokes on.

        :raises ModelUnavailableError: the model cannot be had any more.
        :raises EmbedderError: it fails whatever it is given.
        :raises ImagedbError: no decoder can be run.
        """
        embedding: deque[tuple[_Batch, Future[NDArray[np.float32]]]] = deque()
        batch: _Batch = []
        for record, pixels in self._decoded(records):
            if pixels is None:
                yield record, None
                continue
            batch.append((record, pixels))
            if len(batch) >= self._embedder.batch_size:
                embedding.append((batch, self._begin(batch)))
                batch = []
            if len(embedding) >= BATCHES_IN_FLIGHT:
                yield from self._embedded(*embedding.popleft())
        if batch and not self._stopping.is_set():
            embedding.append((batch, self._begin(batch)))
        for begun in embedding:
            yield from self._embedded(*begun)

    def _decoded(self, records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, Pixels | None]]:
        """In the order given, a few of them read ahead; without pixels where a picture is not what it was."""
        ahead: deque[tuple[ImageRecord, Future[Decoded]]] = deque()
        for record in records:
            ahead.append((record, self._submit(record)))
            if len(ahead) > 2 * self._decoder.capacity:
                yield from self._read(*ahead.popleft())
        while ahead:
            yield from self._read(*ahead.popleft())

    def _submit(self, record: ImageRecord) -> Future[Decoded]:
        info = self._embedder.info
        return self._decoder.submit(record.path, frozenset(), info.preprocess if info else None)

    def _read(
        self, record: ImageRecord, future: Future[Decoded]
    ) -> Iterator[tuple[ImageRecord, Pixels | None]]:
        """One picture, or nothing if it is time to stop."""
        tries = 1
        while not self._stopping.is_set():
            if not wait([future], LOOK_S).done:
                continue
            if isinstance(future.exception(), DecoderLostError) and tries < TRIES:
                tries += 1
                future = self._submit(record)
                continue
            yield record, _pixels(record, future)
            return

    def _begin(self, batch: _Batch) -> Future[NDArray[np.float32]]:
        return self._embedder.embed_pictures([pixels for _, pixels in batch])

    def _embedded(
        self, batch: _Batch, future: Future[NDArray[np.float32]]
    ) -> Iterator[tuple[ImageRecord, Vector | None]]:
        try:
            rows = future.result()
        except EmbedderError as error:
            if len(batch) == 1:
                ((record, pixels),) = batch
                self._check_model(pixels)
                path = record.path
                log.warning("the model could not embed %s: %s", path, error.message, extra={"path": path})
                yield record, None
                return
            # One picture of a failed batch may be the cause: the others must not pay for it.
            for item in batch:
                yield from self._embedded([item], self._begin([item]))
            return
        for (record, _), row in zip(batch, rows, strict=True):
            yield record, row if _is_usable(row) else None

    def _check_model(self, pixels: Pixels) -> None:
        """:raises EmbedderError: even a black picture of this size fails, so that no picture is to blame."""
        self._embedder.embed_pictures([np.zeros_like(pixels)]).result()


def _pixels(record: ImageRecord, future: Future[Decoded]) -> Pixels | None:
    try:
        decoded = future.result()
    except PictureError:
        return None
    return decoded.pixels if decoded.content_hash == record.content_hash else None


def _is_usable(row: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(row).all() and row.any())
