"""How long a search takes: the whole command and the daemon's part, at rest and while it indexes.

    python benchmarks/queries.py                         # 100,000 pictures, ViT-B-16, store lance
    python benchmarks/queries.py --pictures 10000 --store faiss --json result.json

The pictures, their records and vectors are made up; the model has random weights, loaded before. No prompt is
asked twice, but where it says so. Then a folder of large photos is added, and the same is asked again while
the daemon indexes them.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from typing import TYPE_CHECKING, Any

from library import SUBJECTS
from photos import SIZES, draw_photos, made_up_model
from prepared import prepare
from private import PrivateDaemon
from report import apart, measured, percentiles, print_times, say, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--store", choices=("lance", "faiss"), default="lance")
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--queries", type=int, default=40, help="of each kind")
    parser.add_argument("--photos", type=int, default=60, help="large ones, indexed while it is asked again")
    measured(parser, measure, print_times)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    say("making a model, photos and a library…")
    apart(made_up_model, wanted.architecture, f"{home}/model")
    apart(draw_photos, f"{home}/photos", wanted.photos, SIZES["large"])
    ready = apart(prepare, f"{home}/daemon", f"local-dir:{home}/model", wanted.pictures, wanted.store)
    with PrivateDaemon(ready.home, ready.model, "--store", wanted.store, "--root", ready.gallery) as daemon:
        daemon.client.load_model()
        daemon.client.wait()
        say("asking…")
        result = _asked(daemon, wanted.queries, _prompts(1), "at rest")
        result["memory"] = daemon.memory()
        say("asking while it indexes…")
        daemon.cli("root", "add", f"{home}/photos")
        _until_busy(daemon)
        result |= _asked(daemon, wanted.queries, _prompts(2), "while indexing", busy=True)
    return result


def _asked(
    daemon: PrivateDaemon, count: int, prompts: Iterator[str], when: str, *, busy: bool = False
) -> dict[str, Any]:
    def ask(**query: Any) -> object:
        return daemon.client.search(limit=10, **query)

    def words() -> str:
        return next(prompts)

    calls: dict[str, Callable[[], object]] = {
        "whole command, `search WORDS`": lambda: daemon.cli("search", words(), "--json", "-n", "10"),
        "daemon, prompt": lambda: ask(terms=[{"prompt": words()}]),
        "daemon, same prompt again": lambda: ask(terms=[{"prompt": "a red boat"}]),
        "daemon, words": lambda: ask(text=words().split()[-1]),
        "daemon, prompt and condition": lambda: ask(terms=[{"prompt": words()}], where="iso >= 800"),
    }
    result = {}
    for name, call in calls.items():
        call()
        times = [timed(call)[0] for _ in range(count)]
        still = not busy or daemon.client.status()["pending"] > 0
        result[f"{name}, {when}" + ("" if still else " (indexing had ended)")] = percentiles(times)
    return result


def _prompts(seed: int) -> Iterator[str]:
    chosen = random.Random(seed)
    for number in itertools.count():
        yield f"{' '.join(chosen.sample(SUBJECTS, 3))} number {number} {chosen.choice(SUBJECTS)}"


def _until_busy(daemon: PrivateDaemon) -> None:
    before = daemon.client.status()["embeds_total"]
    while daemon.client.status()["embeds_total"] == before:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
