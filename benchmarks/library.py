"""A made-up library of pictures: records with vectors, the same for the same seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagedbd.datatypes import ImageRecord, Metadata, ModelInfo, Preprocess, Signature, StoredPicture

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUBJECTS = [
    *("dog", "cat", "boat", "beach", "harbour", "snow", "mountain", "forest", "river", "bridge", "market"),
    *("church", "garden", "bird", "horse", "train", "bicycle", "sunset", "lighthouse", "castle", "café"),
    *("Zürich", "São", "naïve", "日本", "été"),
]
PEOPLE = ("Anna", "Björn", "O'Neill", "Émile", "李", "50% off", "under_score", 'the "boss"', "back\\slash")
CAMERAS = (("NIKON", "COOLPIX P6000"), ("Canon", "EOS R5"), ("FUJIFILM", "X-T5"), ("Apple", "iPhone 15"))
LENSES = (None, "XF35mm F1.4", "RF 24-70mm", "AF-S ƒ/1.8")
PLACES = ((38.71, -9.14), (47.37, 8.54), (-33.86, 151.21), (35.68, 139.69), (0.0, 179.99), (0.0, -179.99))
FOLDERS = ("2022/summer", "2023/Zürich trip", "2024/it's here", "2024", "misc/100%", "misc/\udcff odd")


@dataclass(frozen=True)
class Library:
    pictures: tuple[StoredPicture, ...]
    model: ModelInfo

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Of the pictures that have one, in their order."""
        return np.stack([picture.vector for picture in self.pictures if picture.vector is not None])

    def batches(self, size: int) -> Iterator[tuple[StoredPicture, ...]]:
        yield from (self.pictures[at : at + size] for at in range(0, len(self.pictures), size))


def make_library(
    count: int, *, dimension: int = 64, seed: int = 1, model: ModelInfo | None = None
) -> Library:
    """Clustered unit vectors; one picture in fifty has the vector of another, and one in thirty has none."""
    rng, chosen = np.random.default_rng(seed), random.Random(seed)
    vectors = clustered(count, dimension, rng)
    twins = rng.permutation(count)[: count // 50]
    vectors[twins] = vectors[rng.integers(count, size=len(twins))]
    bare = set(rng.permutation(count)[: count // 30].tolist())
    pictures = tuple(
        StoredPicture(_record(number, chosen), None if number in bare else vectors[number])
        for number in range(count)
    )
    made = ModelInfo("made-up", "0" * 64, dimension, Preprocess(32, 32, mean=(0.5,) * 3, std=(0.5,) * 3))
    return Library(pictures, model or made)


def clustered(count: int, dimension: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors in some clusters, as embeddings of photos lie; shape ``(count, dimension)``."""
    clusters = max(4, int(count**0.5))
    centres = rng.standard_normal((clusters, dimension), dtype=np.float32)
    points = centres[rng.integers(clusters, size=count)]
    points += 0.7 * rng.standard_normal((count, dimension), dtype=np.float32)
    unit: NDArray[np.float32] = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def _record(number: int, chosen: random.Random) -> ImageRecord:
    make, model = chosen.choice(CAMERAS)
    lat, lon = chosen.choice(PLACES)
    placed = chosen.random() < 0.5
    words = chosen.sample(SUBJECTS, chosen.randint(1, 5))
    metadata = Metadata(
        format=chosen.choice(["JPEG", "JPEG", "PNG", "WEBP"]),
        width=chosen.choice([None, 640, 1024, 4000, 6000]),
        height=chosen.choice([480, 768, 3000]),
        taken_at=chosen.choice(
            [
                None,
                f"20{chosen.randint(20, 25)}-{chosen.randint(1, 12):02}-{chosen.randint(1, 28):02}T12:00:00",
            ]
        ),
        camera_make=chosen.choice([None, make]),
        camera_model=model,
        lens=chosen.choice(LENSES),
        iso=chosen.choice([None, 100, 200, 400, 800, 6400]),
        f_number=chosen.choice([None, 1.4, 2.8, 8.0]),
        lat=lat + chosen.uniform(-0.1, 0.1) if placed else None,
        lon=max(-180.0, min(180.0, lon + chosen.uniform(-0.1, 0.1))) if placed else None,
        orientation=chosen.choice([None, 1, 6]),
        rating=chosen.choice([None, 0, 3, 5]),
        keywords=tuple(chosen.sample([*SUBJECTS, *PEOPLE], chosen.randint(0, 3))),
        caption=chosen.choice([None, " ".join(words), f"{chosen.choice(PEOPLE)} and a {words[0]}"]),
        comment=chosen.choice([None, "masterpiece, best quality", f"seed {number % 97}"]),
    )
    path = os.path.join("/photos", chosen.choice(FOLDERS), f"IMG_{number:05}.jpg")
    signature = Signature(
        1, number + 1, 1_000 + number * 7 % 5_000, 1_700_000_000_000_000_000 + number, number
    )
    return ImageRecord(f"{number:032x}", path, signature, f"{number:064x}", metadata, "2026-01-01T00:00:00Z")
