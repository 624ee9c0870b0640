"""Whatever happens to folders and daemon, after ``imagedb wait`` the index equals the folders.

New seeds each time; ``IMAGEDBD_CHURN_SEEDS=200 pytest -n 4 tests/churn`` tries as many, with longer runs.
A failure prints the seed and the line that runs it again.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from churn.churn import Churn
from churn.shrink import shrink

SEEDS = int(os.environ.get("IMAGEDBD_CHURN_SEEDS", "2"))
STEPS = int(os.environ.get("IMAGEDBD_CHURN_STEPS", "500" if "IMAGEDBD_CHURN_SEEDS" in os.environ else "120"))
# The processes of a parallel run have this in common; alone, chance will do.
_BASE = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(10**9)
BASE = int(os.environ.get("IMAGEDBD_CHURN_BASE", _BASE))


def churn(seed: int, checkpoint: Path | None = None) -> None:
    run = Churn(seed, range(STEPS), checkpoint)
    try:
        run.run()
    finally:
        run.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(SEEDS))
def test_the_index_equals_the_folders_whatever_happens(number: int) -> None:
    churn(BASE + number)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(10))
def test_it_does_so_with_the_real_model(number: int, checkpoint: Path) -> None:
    churn(BASE + number, checkpoint)


def test_shrinking_leaves_the_steps_that_matter() -> None:
    assert shrink(list(range(100)), lambda steps: {17, 80} <= set(steps)) == [17, 80]
    assert shrink(list(range(100)), lambda steps: len(steps) > 3) == [96, 97, 98, 99]
