"""What is written into files: small pictures, each number another one, and things that are no pictures."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from blake3 import blake3
from pictures import picture

SIDE = 24


class Contents:
    """Makes contents, and knows each by its hash: so a file tells what must become of it."""

    def __init__(self) -> None:
        self.good: dict[str, bytes] = {}
        self.bad: set[str] = set()

    def make(self, rng: random.Random, number: int) -> bytes:
        """Mostly a new picture, sometimes one that was there before, sometimes nothing that can be read."""
        dice = rng.random()
        if dice < 0.25 and self.good:
            return self.good[rng.choice(list(self.good))]
        if dice < 0.35:
            data = rng.choice(_BROKEN)(number)
            self.bad.add(hash_of(data))
            return data
        return self.add(encoded(number, rng.choice(("PPM", "PPM", "JPEG", "PNG"))))

    def make_alike(self, number: int) -> bytes:
        """A picture of the very size in bytes that all uncompressed ones have."""
        return self.add(encoded(number, "PPM"))

    def add(self, data: bytes) -> bytes:
        self.good[hash_of(data)] = data
        return data


def encoded(number: int, kind: str) -> bytes:
    stream = io.BytesIO()
    picture(number, (SIDE, SIDE)).save(stream, kind)
    return stream.getvalue()


def hash_of(data: bytes) -> str:
    return blake3(data).hexdigest()


_BROKEN: tuple[Callable[[int], bytes], ...] = (
    lambda _: b"",
    lambda number: bytes(100 + number % 7),
    lambda number: f"not a picture, number {number}".encode(),
    lambda number: encoded(number, "JPEG")[:400],
    lambda number: encoded(number, "PNG")[:90],
)
