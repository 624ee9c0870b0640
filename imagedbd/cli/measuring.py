"""How fast a daemon indexes and answers, as it is measured for ``imagedb bench``."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.cli.waiting import wait_with_progress
from imagedbd.config import edit_roots
from imagedbd.errors import ImagedbError
from imagedbd.processes import environment, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagedbd.cli.private_daemon import PrivateDaemon
    from imagedbd.client import Client
    from imagedbd.config import Settings

TAKEN_OVER: Final = (
    "store", "device", "dtype", "decoders", "decode_timeout", "decode_memory", "max_pixels", "max_file_size",
)  # fmt: skip
"""Settings of the user's that decide how fast things are."""
HITS: Final = 10
KNOWN: Final = 200
"""Indexed pictures that are asked by, at most."""
_THINGS: Final = ("beach", "dog", "bicycle", "mountain", "birthday", "harbour", "train", "market", "snow")
_WORDS: Final = ("nikon", "canon", "sony", "apple", "fujifilm")
_CONDITION: Final = "width > 1024 AND (iso IS NULL OR iso >= 100)"


@dataclass(frozen=True, slots=True)
class Times:
    """Of one kind of question, in milliseconds."""

    p50: float
    p95: float


def settings_lines(settings: Settings) -> str:
    """What a private daemon's settings file says, so that it works as the user's own does."""
    return "".join(f"{name} = {json.dumps(getattr(settings, name))}\n" for name in TAKEN_OVER)


def load_model(daemon: PrivateDaemon) -> float:
    """Seconds until the model is there.

    :raises ModelUnavailableError: it cannot be had.
    """
    started = time.perf_counter()
    daemon.target.client.load_model()
    return time.perf_counter() - started


def index(daemon: PrivateDaemon, folder: str) -> float:
    """Seconds from the folder's becoming a root to its last picture's being searchable.

    :raises ImagedbError: not a single picture could be indexed.
    """
    started = time.perf_counter()
    edit_roots(daemon.target.settings.config_file, add=os.path.realpath(folder))
    daemon.target.client.reload()
    counts = wait_with_progress(daemon.target, None)
    seconds = time.perf_counter() - started
    if not counts["indexed"]:
        raise ImagedbError(f"No picture was indexed, and {counts['failed']} failed.")
    return seconds


def ask(client: Client, options: Sequence[str], repeat: int) -> dict[str, Times]:
    """The times of each kind of question; the first of each kind does not count.

    :param options: what a command line needs to talk to the same daemon.
    """
    prompts, words = _prompts(), itertools.cycle(_WORDS)
    known = [
        path for row in itertools.islice(client.pictures(), KNOWN) if os.path.exists(path := row["path"])
    ]
    pictures = itertools.cycle(known)
    kinds: dict[str, Callable[[], object]] = {
        "prompt": lambda: client.search([{"prompt": next(prompts)}], limit=HITS),
        "picture": lambda: client.search([{"path": next(pictures)}], limit=HITS),
        "metadata words": lambda: client.search(text=next(words), limit=HITS),
        "condition": lambda: client.search(where=_CONDITION, limit=HITS),
        "all of them, fused": lambda: client.search(
            [{"prompt": next(prompts)}], text=next(words), where=_CONDITION, limit=HITS
        ),
        "whole command": lambda: _run_command([*options, "search", "--prompt", next(prompts), "--json"]),
    }
    if not known:
        del kinds["picture"]
    return {name: _times(call, repeat) for name, call in kinds.items()}


def _times(call: Callable[[], object], repeat: int) -> Times:
    call()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    high = statistics.quantiles(taken, n=20, method="inclusive")[-1]
    return Times(round(statistics.median(taken), 2), round(high, 2))


def _run_command(arguments: Sequence[str]) -> None:
    command = python("imagedbd.cli", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode not in {0, 1}:  # nothing may match
        raise ImagedbError(f"The command ended with code {done.returncode}: {done.stderr.strip()}")


def _prompts() -> Iterator[str]:
    """No two alike: of a prompt that was asked before, the vector is kept."""
    for number, (one, other) in enumerate(itertools.cycle(itertools.permutations(_THINGS, 2))):
        yield f"{one} and {other}, number {number} of {os.getpid()}"
