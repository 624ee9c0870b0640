"""What the benchmarks share: measuring in a folder that goes away, times, a table, JSON."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence


def measured(
    parser: argparse.ArgumentParser,
    measure: Callable[[str, argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Parse the arguments, measure in a temporary folder, print, and write JSON where it is wanted."""
    parser.add_argument("--json", metavar="FILE", help="write everything measured there as well")
    wanted = parser.parse_args()
    home = tempfile.mkdtemp(prefix="imagedbd-bench-")
    try:
        result = measure(home, wanted)
    finally:
        shutil.rmtree(home)
    show(result)
    if wanted.json:
        with open(wanted.json, "w", encoding="utf-8") as file:
            json.dump({"arguments": vars(wanted), "result": result}, file, indent=2)


def apart(function: Callable[..., Any], *arguments: object) -> Any:
    """Called in a process of its own: no measurement inherits another's threads or memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    value = action()
    return time.perf_counter() - started, value


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{percent}": 1_000 * float(np.percentile(seconds, percent)) for percent in (50, 95)}


def print_times(result: Mapping[str, Any]) -> None:
    """One line for each figure: times as p50 and p95, bytes as megabytes."""
    for name, value in result.items():
        print(f"{name:<60}{_cell(name, value):>24}")


def _cell(name: str, value: Any) -> str:
    match value:
        case {"p50": middle, "p95": high}:
            return f"{middle:.1f} / {high:.1f} ms"
        case int() | float() if "memory" in name or "size" in name:
            return f"{value / 1e6:,.0f} MB"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
