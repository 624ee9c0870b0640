"""A restart over many unchanged files: when it answers, when it has compared them all, what it opens.

    python benchmarks/restart.py                         # 100,000 files
    python benchmarks/restart.py --pictures 10000 --store faiss --json result.json

Two starts: after a clean stop, and after a kill -9, when store and ledger are compared row by row. Where
`strace` is installed, a third one counts the files that are opened in the gallery.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from typing import Any

from prepared import Prepared, prepare
from private import PrivateDaemon
from report import apart, measured, print_times, say


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--store", choices=("lance", "faiss"), default="lance")
    measured(parser, measure, print_times)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    say("making a library…")
    # The model is not what is measured, so it is the smallest that there is.
    ready = apart(prepare, f"{home}/daemon", "demo", wanted.pictures, wanted.store)
    arguments = ["--store", wanted.store, "--root", ready.gallery]
    _start(ready, arguments, signal.SIGTERM)
    result: dict[str, Any] = {}
    for name, end in (("after a clean stop", signal.SIGKILL), ("after a kill -9", signal.SIGTERM)):
        say(f"{name}…")
        result |= {f"{key}, {name}": value for key, value in _start(ready, arguments, end).items()}
    if strace := shutil.which("strace"):
        say("counting…")
        result["files opened in the gallery"] = _opened(strace, ready, arguments)
    return result


def _start(ready: Prepared, arguments: list[str], end: signal.Signals) -> dict[str, float]:
    started = time.perf_counter()
    with PrivateDaemon(ready.home, ready.model, *arguments) as daemon:
        answers = time.perf_counter() - started
        while daemon.client.status()["roots"][0]["state"] == "scanning":
            time.sleep(0.05)
        compared = time.perf_counter() - started
        status = daemon.client.status()
        if status["pending"] or status["embeds_total"] or status["failed"]:
            raise SystemExit(f"something was done: {status}")
        memory = daemon.memory()
        daemon.end(end)
    return {"answers (s)": answers, "compared (s)": compared, "memory": memory}


def _opened(strace: str, ready: Prepared, arguments: list[str]) -> int:
    """Regular files of the gallery that any process of the daemon opened."""
    log = os.path.join(ready.home, "opened")
    with PrivateDaemon(
        ready.home, ready.model, *arguments,
        before=[strace, "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", log],
    ) as daemon:  # fmt: skip
        daemon.client.wait()
    with open(log, encoding="utf-8", errors="replace") as file:
        return sum(ready.gallery in line and ".jpg" in line for line in file)


if __name__ == "__main__":
    main()
