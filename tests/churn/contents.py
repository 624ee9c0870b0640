"""What is written into files: small pictures, each number another one, sidecars, and neither."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3
from packets import packet
from pictures import picture

SIDE = 24


@dataclass(frozen=True, slots=True)
class Said:
    """What sidecars say, or the record of a picture that says nothing itself."""

    rating: int | None = None
    caption: str | None = None
    keywords: tuple[str, ...] = ()

    def and_then(self, other: Said) -> Said:
        """This, and where it is silent, the other."""
        return Said(
            other.rating if self.rating is None else self.rating,
            self.caption or other.caption,
            tuple(dict.fromkeys((*self.keywords, *other.keywords))),
        )


class Contents:
    """Makes contents, and knows each by its hash: so a file tells what must become of it."""

    def __init__(self) -> None:
        self.good: dict[str, bytes] = {}
        self.bad: set[str] = set()
        self.said: dict[str, Said] = {}
        """Of all that were sidecars at any time, by content hash. Under a picture's name they are bad."""

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

    def make_sidecar(self, rng: random.Random, number: int) -> bytes:
        """Mostly a whole one, sometimes one that says little, or that says nothing because it is broken."""
        dice = rng.random()
        if dice < 0.6:
            return self.make_sidecar_alike(number)
        said = Said(
            rng.choice((None, 0, 5)),
            rng.choice((None, f"short {number}")),
            tuple(rng.sample(("sea", "dusk", "pier", f"k{number}"), rng.randrange(3))),
        )
        data = packet(rating=said.rating, caption=said.caption, keywords=said.keywords)
        if dice < 0.9:
            return self._add_sidecar(data, said)
        return self._add_sidecar(rng.choice((b"", data[: len(data) // 2], f"none {number}".encode())), Said())

    def make_sidecar_alike(self, number: int) -> bytes:
        """One of the very size in bytes that most of them have."""
        said = Said(number % 6, f"words{number:06} of it", (f"key{number:06}", "sea"))
        data = packet(rating=said.rating, caption=said.caption, keywords=said.keywords)
        return self._add_sidecar(data, said)

    def _add_sidecar(self, data: bytes, said: Said) -> bytes:
        self.said[hash_of(data)] = said
        self.bad.add(hash_of(data))
        return data

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
