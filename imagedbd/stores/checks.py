"""What every store asks of what it is given, and how it reports what its engine says."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from imagedbd.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import Batch, ModelInfo, Vector

ENGINE_ERRORS: Final = (RuntimeError, ValueError, OSError, MemoryError, pa.ArrowException)
"""What LanceDB, Arrow, Faiss and the disk raise."""


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Turn an engine's error into ours: the store could not do what it was doing."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise StoreError(f"The store could not {doing}: {error}") from error


def check_ids(batch: Batch) -> None:
    """:raises StoreError: if an id is in the batch more than once; deletes may repeat each other."""
    written = [picture.record.id for picture in batch.upserts] + [record.id for record in batch.patches]
    repeated = [key for key, times in Counter([*written, *set(batch.deletes)]).items() if times > 1]
    if repeated:
        raise StoreError(f"The id {repeated[0]!r} is in the batch more than once.")


def check_vector(vector: Vector, dimension: int | None) -> None:
    """:raises StoreError: if the vector has not this many numbers, or no direction."""
    if dimension is None:
        raise StoreError("The store takes no vectors yet: it is bound to no model.")
    if vector.shape != (dimension,):
        raise StoreError(f"A vector has the shape {vector.shape}; this store's have {dimension} numbers.")
    if not np.isfinite(vector).all() or not vector.any():
        raise StoreError("A vector has no direction: it is zero or has numbers that are not finite.")


def check_model(bound: ModelInfo | None, wanted: ModelInfo) -> None:
    """:raises StoreError: if a store is bound to a model whose vectors cannot be compared with these."""
    if bound is not None and (bound.key, bound.dimension) != (wanted.key, wanted.dimension):
        raise StoreError(f"The store holds vectors of {bound.spec}, which cannot go with {wanted.spec}.")
