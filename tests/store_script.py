"""A long series of writes, the same in any process that knows its seed; and a process that makes them.

    python store_script.py KIND FOLDER SEED FIRST

makes the writes from number FIRST on, for ever, and prints the number of each that was acknowledged.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
from store_rows import MODEL, picture, record, vector

from imagedbd.datatypes import Batch, Store, StoredPicture
from imagedbd.stores import open_store

BIND_AT = 3
MAINTAIN_EVERY = 9
_KEYS = [f"k{number:02}" for number in range(60)]


@dataclass
class Script:
    """The writes of a seed, and what they leave: by id, the mark of its last write and its vector's seed."""

    seed: int
    rows: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    number: int = 0
    """The next write."""

    def step(self) -> Batch | None:
        """The next write; ``None`` for one that changes no row. Takes it into account."""
        number, self.number = self.number, self.number + 1
        if number == BIND_AT or number % MAINTAIN_EVERY == 0:
            return None
        rng = np.random.default_rng([self.seed, number])
        keys = list(rng.permutation(_KEYS)[: rng.integers(3, 24)])
        third = len(keys) // 3
        patched = [key for key in keys[:third] if key in self.rows]
        deleted = keys[third : third + third // 2]
        upserted = keys[third + third // 2 :]
        seeds = {key: int(rng.integers(1, 99)) if number > BIND_AT else None for key in upserted}
        self.rows |= {key: (number, self.rows[key][1]) for key in patched}
        self.rows |= {key: (number, seed) for key, seed in seeds.items()}
        for key in deleted:
            self.rows.pop(key, None)
        return Batch(
            tuple(picture(key, seed, mark=number) for key, seed in seeds.items()),
            tuple(record(key, mark=number) for key in patched),
            tuple(deleted),
        )

    def advanced(self, number: int) -> Script:
        """The same series, before the write of this number."""
        other = Script(self.seed, dict(self.rows), self.number)
        while other.number < number:
            other.step()
        return other


def perform(store: Store, number: int, batch: Batch | None) -> None:
    if batch is not None:
        store.apply(batch)
    elif number == BIND_AT:
        store.bind(MODEL)
    else:
        store.maintain(idle=True)


def same(picture: StoredPicture, seed: int | None) -> bool:
    if seed is None or picture.vector is None:
        return seed is None and picture.vector is None
    return float(picture.vector @ vector(seed)) > 0.999


def main(kind: str, folder: str, seed: int, first: int) -> None:
    script = Script(seed).advanced(first)
    print("opening", flush=True)
    store = open_store(kind, folder, exclusive=True)
    if script.number > BIND_AT:
        store.bind(MODEL)
    while True:
        number = script.number
        perform(store, number, script.step())
        print(number, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "lance":
        import imagedbd.stores.lance

        imagedbd.stores.lance.INDEX_FROM = 20
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
