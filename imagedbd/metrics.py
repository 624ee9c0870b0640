"""How the daemon fares, in numbers: the text that ``GET /metrics`` answers Prometheus with.

Counts and states are those of the status at the moment of asking. Searches alone are counted on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from imagedbd.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from imagedbd.library import Library

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SEARCH_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""From a search by a vector that is known to one that has to load the model first."""

Samples = list[tuple[tuple[str, ...], float | None]]
"""Values of the labels, and the number; one that is not known is left out."""


class Metrics:
    """All numbers of one daemon."""

    def __init__(self, library: Library) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(library))
        ProcessCollector(registry=self._registry)
        self.searches = Histogram(
            "imagedbd_search_seconds",
            "Time that searches took in the daemon.",
            buckets=SEARCH_BUCKETS_S,
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format.

        :raises ImagedbError: if the status cannot be had.
        """
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    def __init__(self, library: Library) -> None:
        self._library = library

    def collect(self) -> Iterator[Metric]:
        status = self._library.status()
        yield from _of_the_daemon(status)
        yield from _of_the_pictures(status)
        yield from _of_the_roots(status["roots"])
        yield from _of_the_store(status["store"])
        if (switch := status["switch"]) is not None:
            yield from _of_the_switch(switch)


def _of_the_daemon(status: Mapping[str, Any]) -> Iterator[Metric]:
    about = {
        "version": status["version"],
        "store": status["store"]["kind"],
        "model": status["model"]["name"],
        "device": status["device"],
        "dtype": status["dtype"],
    }
    value = {name: _label(value) for name, value in about.items()}
    yield InfoMetricFamily("imagedbd", "What answers.", value=value)
    yield _gauge("state", "1 with what the daemon does now.", [((status["state"],), 1)], "state")
    yield _gauge("model_state", "1 with how the model is.", [((status["model"]["state"],), 1)], "state")
    yield _gauge("uptime_seconds", "Time since the daemon started.", [((), status["uptime_s"])])
    yield _counter("embeds", "Pictures put through the model since the start.", status["embeds_total"])
    yield _counter("watcher_restarts", "Watches made anew since the start.", status["watcher_restarts"])


def _of_the_pictures(status: Mapping[str, Any]) -> Iterator[Metric]:
    states: Samples = [((state,), status[state]) for state in ("indexed", "waiting", "failed")]
    yield _gauge("pictures", "Pictures by what became of them.", states, "state")
    yield _gauge("pending_changes", "Changes that are still to be looked at.", [((), status["pending"])])


def _of_the_roots(roots: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    states: Samples = [((root["path"], root["state"]), 1) for root in roots]
    yield _gauge("root_state", "1 with how a watched folder is.", states, "path", "state")
    counts: Samples = [((root["path"],), root["indexed"]) for root in roots]
    yield _gauge("root_pictures", "Indexed pictures of a watched folder.", counts, "path")


def _of_the_store(store: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("store_rows", "Records in the store.", [((), store["rows"])])
    yield _gauge("store_vectors", "Records that have a vector.", [((), store["vectors"])])
    yield _gauge("store_bytes", "Size of the store on disk.", [((), store["bytes_on_disk"])])
    yield _gauge("store_damaged", "1 if the store is known to be damaged.", [((), bool(store["damage"]))])


def _of_the_switch(switch: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("switch_done_pictures", "Pictures in the index being built.", [((), switch["done"])])
    yield _gauge("switch_pictures", "Pictures that the index being built will have.", [((), switch["total"])])


def _gauge(name: str, words: str, samples: Samples, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"imagedbd_{name}", words, labels=labels)
    for values, number in samples:
        if number is not None:
            family.add_metric([_label(value) for value in values], number)
    return family


def _counter(name: str, words: str, number: float) -> Metric:
    return CounterMetricFamily(f"imagedbd_{name}", words, value=number)


def _label(value: str | None) -> str:
    """A label in UTF-8, which a path need not be."""
    return printable(value or "")
