"""What every store asks of what it is given, and how it reports what its engine says."""

from __future__ import annotations

import errno
import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from imagedbd.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagedbd.datatypes import Batch, ModelInfo, Vector

ENGINE_ERRORS: Final = (RuntimeError, ValueError, OSError, MemoryError, pa.ArrowException)
"""What LanceDB, Arrow, Faiss and the disk raise."""


_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES}
)
"""What the system refuses for reasons that lie outside the files."""

_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
"""How the engines written in Rust tell the system's error."""


_PANICS: Final = frozenset({"RustPanic", "PanicException"})
"""What a bug of an engine written in Rust comes out as; these classes cannot be imported."""

_SOURCE: Final = re.compile(r",?\s*/\S+\.rs:\d+(:\d+)?")
"""The line of an engine's source, which says nothing to a user."""


@contextmanager
def reported(doing: str, doubted: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn an engine's error into ours: the store could not do what it was doing.

    :param doubted: called if the cause may be damage; returns a sentence on what helps then.
    """
    try:
        with panics_as_errors():
            yield
    except ENGINE_ERRORS as error:
        said = f"The store could not {doing}: {_SOURCE.sub('', str(error)).strip()}"
        help_ = doubted() if doubted is not None and may_be_damage(error) else ""
        raise StoreError(f"{said.rstrip('.')}. {help_}" if help_ else said) from error


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Damage may make an engine panic, and what it raises then is no ordinary error."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ not in _PANICS:
            raise
        raise RuntimeError(f"its engine panicked: {error}") from error


def may_be_damage(error: BaseException) -> bool:
    """Whether an engine's error may come from what its files say, and not from a lack of room or rights."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING):
        return False
    return not _PASSING.intersection(map(int, _OS_ERROR.findall(str(error))))


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
