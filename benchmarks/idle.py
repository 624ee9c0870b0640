"""What an idle daemon costs: memory and processor, with its model and when that has left.

python benchmarks/idle.py                            # ten minutes, 10,000 pictures, ViT-B-16
python benchmarks/idle.py --seconds 60 --json result.json
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from photos import made_up_model
from prepared import prepare
from private import PrivateDaemon
from report import apart, measured, print_times, say

TTL_S = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--store", choices=("lance", "faiss"), default="lance")
    parser.add_argument("--architecture", default="ViT-B-16")
    measured(parser, measure, print_times)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    say("making a model and a library…")
    apart(made_up_model, wanted.architecture, f"{home}/model")
    ready = apart(prepare, f"{home}/daemon", f"local-dir:{home}/model", wanted.pictures, wanted.store)
    settings = f'model_ttl = "{TTL_S}s"\n'
    arguments = ("--store", wanted.store, "--root", ready.gallery)
    with PrivateDaemon(ready.home, ready.model, *arguments, settings=settings) as daemon:
        daemon.client.wait()
        daemon.client.search(terms=[{"prompt": "a red boat"}])
        daemon.client.search(text="boat")
        result: dict[str, Any] = {"memory, model loaded": daemon.memory()}
        say("waiting for the model to leave…")
        while daemon.client.status()["model"]["state"] != "unloaded":
            time.sleep(1)
        # Decoders, the fork server and what else leaves after work.
        time.sleep(TTL_S)
        say(f"idle for {wanted.seconds:.0f} s…")
        before, switches = daemon.cpu_seconds(), daemon.wakeups()
        time.sleep(wanted.seconds)
        spent, woken = daemon.cpu_seconds() - before, daemon.wakeups() - switches
        result["memory, idle"] = daemon.memory()
        result["processes, idle"] = daemon.processes()
        result["% of a core, idle"] = 100 * spent / wanted.seconds
        result["wake-ups a second, idle"] = woken / wanted.seconds
    return result


if __name__ == "__main__":
    main()
