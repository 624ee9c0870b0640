"""Memory over time while it indexes: a flat line after the beginning, or what grows.

    python benchmarks/memory.py                          # 5,000 small photos, ViT-B-16
    python benchmarks/memory.py --pictures 1000 --large --json result.json

The table has the sums of all processes (PSS) by tenth of the pictures, and the growth from the third tenth to
the last, by a straight line through all looks in between.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from photos import SIZES, draw_photos, made_up_model
from private import PrivateDaemon
from report import apart, measured, say

LOOK_S = 1.0
TENTHS = 10
WARM = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=5_000)
    parser.add_argument("--large", action="store_true", help="eleven megapixels instead of 640 x 480")
    parser.add_argument("--store", choices=("lance", "faiss"), default="lance")
    parser.add_argument("--architecture", default="ViT-B-16")
    measured(parser, measure, show)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    say("making a model and photos…")
    apart(made_up_model, wanted.architecture, f"{home}/model")
    apart(draw_photos, f"{home}/photos", wanted.pictures, SIZES["large" if wanted.large else "small"])
    looks: list[tuple[float, int, dict[str, int]]] = []
    started = time.perf_counter()
    with PrivateDaemon(f"{home}/daemon", f"local-dir:{home}/model", "--store", wanted.store) as daemon:
        daemon.client.load_model()
        daemon.cli("root", "add", os.path.join(home, "photos"))
        while (done := int(daemon.client.status()["indexed"])) < wanted.pictures:
            looks.append((time.perf_counter() - started, done, daemon.memory_by_process()))
            time.sleep(LOOK_S)
    return {"pictures": wanted.pictures, "looks": looks}


def show(result: dict[str, Any]) -> None:
    looks, pictures = result["looks"], result["pictures"]
    names = sorted({name for _, _, memory in looks for name in memory})
    print(f"{'indexed':>10}" + "".join(f"{name:>14}" for name in [*names, "together"]))
    for tenth in range(TENTHS):
        low, high = tenth * pictures / TENTHS, (tenth + 1) * pictures / TENTHS
        some = [memory for _, done, memory in looks if low <= done < high]
        if some:
            cells = [np.mean([memory.get(name, 0) for memory in some]) / 1e6 for name in names]
            print(f"{high:>10.0f}" + "".join(f"{cell:>11.0f} MB" for cell in [*cells, sum(cells)]))
    warm = [(done, sum(memory.values())) for _, done, memory in looks if done >= WARM * pictures]
    if len(warm) > 2:
        slope = np.polyfit([done for done, _ in warm], [size for _, size in warm], 1)[0]
        print(f"growth: {1_000 * slope / 1e6:.1f} MB for each 1,000 pictures, after the first fifth")


if __name__ == "__main__":
    main()
