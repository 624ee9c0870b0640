"""The HTTP interface as a stranger uses it: every fault has one shape, and none is a 500."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pictures import save
from prometheus_client.parser import text_string_to_metric_families
from wire import ask, connect, session

from imagedbd import __version__

if TYPE_CHECKING:
    from machine import Machine


@pytest.fixture(scope="module")
def served(shared_machine: Machine) -> Machine:
    save(shared_machine.photos / "a.jpg", 1)
    shared_machine.start()
    shared_machine.wait()
    return shared_machine


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/status", None, 405),
        ("POST", "/search", b"no json", 422),
        ("POST", "/search", {"limit": 0}, 422),
        ("POST", "/search", {"limit": "7"}, 422),
        ("POST", "/search", {"limit": True}, 422),
        ("POST", "/search", {"limit": 10_001}, 422),
        ("POST", "/search", {"unknown": 1}, 422),
        ("POST", "/search", {"min_score": "x"}, 422),
        ("POST", "/search", b'{"min_score": NaN}', 422),
        ("POST", "/search", {"weights": {"likeness": -1}}, 422),
        ("POST", "/search", b'{"weights": {"words": NaN}}', 422),
        ("POST", "/search", {"weights": {"likeness": 0, "words": 0}}, 400),
        ("POST", "/search", {"terms": [{"prompt": "x", "weight": 1001}]}, 422),
        ("POST", "/search", {"where": "iso >"}, 400),
        ("POST", "/search", {"where": "((((" * 5000}, 422),
        ("POST", "/search", {"after": "soon"}, 400),
        ("POST", "/search", {"camera": "a " * 4000}, 400),
        ("POST", "/search", {"text": " ".join(map(str, range(1000)))}, 400),
        ("POST", "/search", {"text": "..."}, 400),
        ("POST", "/search", {"terms": [{"prompt": "  "}]}, 400),
        ("POST", "/search", {"terms": [{}]}, 400),
        ("POST", "/search", {"terms": [{"weight": 1}]}, 400),
        ("POST", "/search", {"terms": [{"data": "é"}]}, 400),
        ("POST", "/search", {"terms": [{"data": "QUJD"}]}, 400),
        ("POST", "/search", {"terms": [{"data": "QUJD" * (1 << 19)}]}, 400),
        ("POST", "/search", {"terms": [{"data": "QUJD" * (1 << 19) + "*"}]}, 400),
        ("POST", "/search", {"terms": [{"path": "/nowhere.jpg"}]}, 409),
        ("POST", "/search", {"terms": [{"path": "\ud800"}]}, 422),
        ("POST", "/search", {"near": {"lat": 91, "lon": 0}}, 422),
        ("POST", "/show", {"path": "/nowhere.jpg"}, 404),
        ("POST", "/show", {"path": "relative.jpg"}, 422),
        ("POST", "/show", {"path": "/a\0b"}, 422),
        ("POST", "/show", {"path": "/" + "a" * 9000}, 404),
        ("POST", "/show/", {"path": "/a"}, 404),
        ("POST", "/why", {"path": "/\ud800"}, 422),
        ("POST", "/scan", {"folder": "/nowhere"}, 400),
        ("POST", "/wait", {"timeout": -1}, 422),
        ("POST", "/failures/retry", {"paths": "all"}, 422),
    ],
)
def test_a_bad_request_gets_its_reason_in_one_shape(
    served: Machine, method: str, path: str, body: Any, status: int
) -> None:
    found, answer, _ = ask(served, method, path, body)
    assert (found, set(answer["error"]) >= {"name", "title", "message"}) == (status, True), answer


def test_every_answer_names_the_version(served: Machine) -> None:
    assert ask(served, "GET", "/status")[2]["X-Imagedbd-Version"] == __version__


def test_a_path_of_odd_bytes_travels(served: Machine) -> None:
    status, answer, _ = ask(served, "POST", "/why", {"path": "/odd\udcff.jpg"})
    assert (status, answer["path"]) == (200, "/odd\udcff.jpg")


def test_a_path_may_begin_with_any_number_of_slashes(served: Machine) -> None:
    for path in (f"/{served.photos}/a.jpg", f"//{served.photos}/./a.jpg"):
        assert ask(served, "POST", "/show", {"path": path})[0] == 200


def test_a_method_that_is_not_served_is_answered_with_those_that_are(served: Machine) -> None:
    status, _, headers = ask(served, "DELETE", "/status")
    assert (status, headers["Allow"]) == (405, "GET")


def test_a_folder_to_scan_may_be_written_in_any_way(served: Machine) -> None:
    assert ask(served, "POST", "/scan", {"folder": f"{served.photos}/../photos/"})[0] == 200


def test_a_body_that_is_too_long_is_refused_unread(served: Machine) -> None:
    with connect(served) as connection:
        head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_clients_that_hang_up_or_say_nothing_cost_nobody_else(served: Machine) -> None:
    silent = [connect(served) for _ in range(20)]
    for _ in range(50):
        with connect(served) as connection:
            connection.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    for _ in range(20):
        with connect(served) as connection:
            connection.sendall(b"\x16\x03\x01garbage\r\n\r\n")
    assert ask(served, "GET", "/status")[0] == 200
    for connection in silent:
        connection.close()
    assert "Traceback" not in served.log()


def test_a_waiter_gets_the_counts(served: Machine) -> None:
    status, answer, _ = ask(served, "POST", "/wait", {"timeout": 60})
    assert (status, answer["indexed"], answer["failed"]) == (200, 1, 0)


def test_the_metrics_count_what_was_done(served: Machine) -> None:
    def measured() -> dict[str, float]:
        with session(served) as own:
            text = own.get("http://imagedbd/metrics", timeout=30).text
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = measured()
    assert ask(served, "POST", "/search", {"text": "a"})[0] == 200
    after = measured()
    assert after["imagedbd_search_seconds_count"] == before["imagedbd_search_seconds_count"] + 1
    assert after["imagedbd_pictures indexed"] == after["imagedbd_embeds_total"] == 1
    assert after[f"imagedbd_root_pictures {served.photos}"] == 1
    assert after["process_resident_memory_bytes"] > 0
