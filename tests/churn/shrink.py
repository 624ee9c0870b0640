"""Which steps of a seed that fails matter: ``PYTHONPATH=tests python -m churn.shrink SEED [STEPS [TRIES]]``.

Delta debugging over the numbers of the steps. Each step has dice of its own, so that leaving others out
changes little about it; and as a daemon's threads never run twice in the same way, a smaller set of steps
counts as failing if one of a few tries fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from churn.churn import Churn, DriftError


def shrink(steps: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """Fewer of these steps that fail still: none of the chunks tried last can be left out."""
    chunks = 2
    while len(steps) > 1:
        size = -(-len(steps) // chunks)
        for start in range(0, len(steps), size):
            fewer = steps[:start] + steps[start + size :]
            if fewer and fails(fewer):
                steps, chunks = fewer, max(chunks - 1, 2)
                break
        else:
            if size == 1:
                break
            chunks = min(2 * chunks, len(steps))
    return steps


def failure(seed: int, steps: list[int]) -> DriftError | None:
    churn = Churn(seed, steps)
    try:
        churn.run()
    except DriftError as drift:
        return drift
    finally:
        churn.close()
    return None


def main(seed: int, count: int = 500, tries: int = 2) -> None:
    last: list[DriftError] = []

    def fails(steps: list[int]) -> bool:
        found = next((drift for _ in range(tries) if (drift := failure(seed, steps))), None)
        print(f"{len(steps)} steps: {'fails' if found else 'passes'}", flush=True)
        last.extend([found] if found else [])
        return found is not None

    steps = list(range(count))
    if not fails(steps):
        sys.exit(f"seed {seed} did not fail in {tries} tries")
    left = shrink(steps, fails)
    print(f"{last[-1]}\n{len(left)} steps are left: {left}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
