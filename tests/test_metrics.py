"""The numbers for Prometheus, read back by its own parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from prometheus_client.parser import text_string_to_metric_families

from imagedbd.answers import Status
from imagedbd.metrics import Metrics

if TYPE_CHECKING:
    from imagedbd.library import Library

HOSTILE = '/photos/\udcff "a"\n\\b'
STORE = {
    "kind": "lance", "uri": "/data/lance", "rows": 3, "vectors": 2, "bytes_on_disk": 9000,
    "reason": None, "configured": "lance", "damage": None,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "state": "idle", "doing": "Watching for changes.",
    "indexed": 2, "again": 0, "waiting": 1, "pending": 4, "failed": 5, "rate": None, "eta_s": None,
    "roots": [{"path": HOSTILE, "state": "online", "unwatched": 0, "indexed": 3, "reason": None}],
    "store": STORE,
    "model": {
        "name": "demo", "state": "ready", "only_prompts": False, "reason": None, "help": [],
        "configured": "demo",
    },
    "device": None, "dtype": None, "switch": None, "previous": None, "differences": [], "paused": None,
    "embeds_total": 7, "watcher_restarts": 1, "uptime_s": 12.5, "version": "1", "pid": 1,
    "settings_fault": None, "config_file": "/c", "data_dir": "/d", "socket": "/s",
}  # fmt: skip


class FakeLibrary:
    def __init__(self, status: dict[str, Any]) -> None:
        Status.model_validate(status)
        self._status = status

    def status(self) -> dict[str, Any]:
        return self._status


def measured(**changes: Any) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    metrics = Metrics(cast("Library", FakeLibrary(STATUS | changes)))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def test_every_count_of_the_status_is_there() -> None:
    found = measured()
    pictures = {labels[0]: value for (name, *labels), value in found.items() if name == "imagedbd_pictures"}
    assert pictures == {"indexed": 2, "waiting": 1, "failed": 5}
    assert found["imagedbd_pending_changes",] == 4
    assert found["imagedbd_embeds_total",] == 7
    assert found["imagedbd_watcher_restarts_total",] == 1
    assert found["imagedbd_store_vectors",] == 2
    assert found["imagedbd_state", "idle"] == 1


def test_a_folder_of_any_name_is_one_label() -> None:
    assert measured()["imagedbd_root_pictures", '/photos/\\xff "a"\\n\\b'] == 3


def test_what_is_not_known_is_left_out() -> None:
    silent = {**STORE, "rows": None, "vectors": None, "bytes_on_disk": None, "reason": "It hangs."}
    found = measured(store=silent)
    assert not [key for key in found if key[0].startswith("imagedbd_store_rows")]


def test_a_switch_is_measured_while_it_goes_on() -> None:
    switch = {
        "store": "faiss", "model": "demo", "course": "copy", "state": "building", "reason": None,
        "done": 10, "total": 30, "rate": None, "eta_s": None,
    }  # fmt: skip
    found = measured(switch=switch)
    assert (found["imagedbd_switch_done_pictures",], found["imagedbd_switch_pictures",]) == (10, 30)
