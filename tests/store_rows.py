"""Rows for tests of stores: each is made from a few small values, and told by them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imagedbd.datatypes import ImageRecord, Metadata, ModelInfo, Preprocess, Signature, StoredPicture

if TYPE_CHECKING:
    from imagedbd.datatypes import Vector

DIMENSION = 32
MODEL = ModelInfo("tiny/demo", "abc", DIMENSION, Preprocess(8, 8, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))


def record(key: str, *, mark: int = 0, path: str | None = None) -> ImageRecord:
    """A record that carries a mark where a search by words, too, gives it back."""
    return ImageRecord(
        id=key,
        path=path or f"/photos/{key}.jpg",
        signature=Signature(2, 1, 1234, 1_700_000_000_123_456_789, 1_700_000_001_000_000_001),
        content_hash=f"hash-of-{key}",
        metadata=Metadata(width=mark, keywords=("Dog", "Zürich")),
        indexed_at="2024-05-01T12:00:00Z",
    )


def vector(seed: int, dimension: int = DIMENSION) -> Vector:
    v = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    unit: Vector = v / np.linalg.norm(v)
    return unit


def picture(key: str, seed: int | None = None, *, mark: int = 0, path: str | None = None) -> StoredPicture:
    return StoredPicture(record(key, mark=mark, path=path), None if seed is None else vector(seed))
