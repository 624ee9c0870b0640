"""From a new photo in a watched folder to an answer that has it: an idle daemon, its model loaded.

    python benchmarks/freshness.py                       # 30 photos, one after the other, ViT-B-16
    python benchmarks/freshness.py --events 10 --json result.json

Times are from the end of the writing, by two ways of saving: written in place, and written aside and renamed
over. A photo is found when a search by what only its metadata say gives it, with a vector.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from photos import SIZES, draw_photos, made_up_model
from private import PrivateDaemon
from report import apart, measured, percentiles, print_times, say

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 0.02
REST_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=30, help="photos, for each way of saving")
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--settle", default="1s", help="the daemon's setting")
    measured(parser, measure, print_times)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    say("making a model and photos…")
    apart(made_up_model, wanted.architecture, f"{home}/model")
    photos = apart(draw_photos, f"{home}/photos", 2 * wanted.events, SIZES["large"])
    ways: dict[str, Callable[[str, str], object]] = {"written in place": _write, "renamed over": _rename}
    root, settings = f"{home}/root", f'settle = "{wanted.settle}"\n'
    os.mkdir(root)
    result = {}
    with PrivateDaemon(
        f"{home}/daemon", f"local-dir:{home}/model", "--root", root, settings=settings
    ) as daemon:
        daemon.client.load_model()
        daemon.client.wait()
        for name, save in ways.items():
            say(f"{name}…")
            times = []
            for _ in range(wanted.events):
                photo = photos.pop()
                save(photo, os.path.join(root, os.path.basename(photo)))
                times.append(_until_found(daemon, os.path.splitext(os.path.basename(photo))[0]))
                time.sleep(REST_S)
            result[f"{name}, settle {wanted.settle}"] = percentiles(times)
    return result


def _write(photo: str, path: str) -> None:
    with open(photo, "rb") as source, open(path, "wb") as target:
        while chunk := source.read(1 << 18):
            target.write(chunk)


def _rename(photo: str, path: str) -> None:
    aside = f"{path}.part"
    shutil.copyfile(photo, aside)
    os.rename(aside, path)


def _until_found(daemon: PrivateDaemon, name: str) -> float:
    started = time.perf_counter()
    embedded = daemon.client.status()["embeds_total"]
    while not daemon.client.search(where=f"name LIKE '{name}%'")["hits"]:
        time.sleep(LOOK_S)
    seconds = time.perf_counter() - started
    if daemon.client.status()["embeds_total"] <= embedded:
        raise SystemExit("it was found without a vector")
    return seconds


if __name__ == "__main__":
    main()
