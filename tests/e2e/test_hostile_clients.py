"""A real daemon under clients that send garbage, hang, flood, vanish: nobody else notices, and nothing grows.

``IMAGEDBD_HOSTILE_ROUNDS`` makes the random part longer; ``IMAGEDBD_HOSTILE_SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
from footprint import footprint, settled
from pictures import save
from wire import ask, connect, post, read_all

from imagedbd.datatypes import LedgerEntry, PictureState, Signature
from imagedbd.ledger import Ledger

if TYPE_CHECKING:
    from machine import Machine

ROUNDS = int(os.environ.get("IMAGEDBD_HOSTILE_ROUNDS", "200"))
SEED = int(os.environ.get("IMAGEDBD_HOSTILE_SEED", random.randrange(1 << 32)))
ROWS = 20_000
GET = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SEARCH = json.dumps({"terms": [{"prompt": "a dog"}], "text": "nikon", "limit": 10}).encode()
CROWD = 200
"""More than there is room for."""


@pytest.fixture(scope="module")
def served(shared_machine: Machine) -> Iterator[Machine]:
    """One good picture, and 20,000 files that are known to have failed."""
    machine = shared_machine
    save(machine.photos / "a.jpg", 1)
    many = machine.photos / "many"
    many.mkdir()
    entries = []
    for number in range(ROWS):
        file = many / f"{number:05}.jpg"
        file.touch()
        signature = Signature.of(file.lstat())
        entries.append(LedgerEntry(str(file), signature, PictureState.FAILED, attempts=1, reason="x" * 200))
    (machine.home / "data").mkdir(mode=0o700)
    with contextlib.closing(Ledger(str(machine.home / "data" / "ledger.sqlite3"))) as ledger:
        ledger.put(entries)
    machine.start()
    machine.wait()
    assert machine.json("status")["failed"] == ROWS
    yield machine
    assert "Traceback" not in machine.log()
    assert "never retrieved" not in machine.log()


def all_is_well(machine: Machine) -> None:
    """What an ordinary client asks is answered."""
    assert ask(machine, "GET", "/status")[0] == 200
    status, answer, _ = ask(machine, "POST", "/search", json.loads(SEARCH))
    assert status == 200, answer


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Connections that are kept open until the end of the test."""
    kept: list[socket.socket] = []
    yield kept
    for connection in kept:
        connection.close()


def test_a_crowd_that_says_nothing(served: Machine, crowd: list[socket.socket]) -> None:
    for number in range(CROWD):
        crowd.append(connect(served))
        if number % 50 == 0:
            all_is_well(served)
    all_is_well(served)


def test_a_crowd_that_speaks_slowly(served: Machine, crowd: list[socket.socket]) -> None:
    request = post("/search", SEARCH)
    crowd += [connect(served) for _ in range(100)]
    for number in range(20):
        for connection in crowd:
            connection.send(request[number : number + 1])
        all_is_well(served)


def test_a_crowd_that_never_reads_its_long_answers(served: Machine, crowd: list[socket.socket]) -> None:
    for number in range(CROWD):
        crowd.append(connect(served))
        crowd[-1].sendall(GET % b"/failures")
        if number % 50 == 0:
            all_is_well(served)
    all_is_well(served)


def test_a_reader_that_takes_its_time_gets_all_of_it(served: Machine) -> None:
    with connect(served) as slow:
        slow.sendall(GET % b"/failures")
        first = slow.recv(1000)
        time.sleep(1)
        answer = first + read_all(slow)
    assert answer.count(b'"attempts":1') == ROWS


def test_a_crowd_that_sends_on_and_never_reads(served: Machine, crowd: list[socket.socket]) -> None:
    for _ in range(20):
        crowd.append(connect(served))
        crowd[-1].settimeout(0.05)
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                crowd[-1].sendall(post("/search", SEARCH) * 50)
        all_is_well(served)


def test_clients_that_vanish_in_the_middle_of_a_wait(served: Machine) -> None:
    before = footprint(served)
    for _ in range(CROWD):
        with connect(served) as connection:
            connection.sendall(post("/wait", b"{}"))
    all_is_well(served)
    settled(served, before)


def test_clients_that_vanish_in_the_middle_of_a_search(served: Machine) -> None:
    before = footprint(served)
    for number in range(CROWD):
        prompt = json.dumps({"terms": [{"prompt": f"dog {number} {n}"} for n in range(20)]}).encode()
        with connect(served) as connection:
            connection.sendall(post("/search", prompt))
    all_is_well(served)
    settled(served, before)


def test_a_client_that_closes_its_own_half_costs_nothing(served: Machine) -> None:
    for _ in range(CROWD):
        with connect(served) as connection:
            connection.sendall(GET % b"/status")
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    all_is_well(served)


def test_large_pictures_in_a_crowd_stay_within_bounds(served: Machine, crowd: list[socket.socket]) -> None:
    head = post("/search", b"", b"").partition(b"Content-Length")[0]
    large = 200 << 20
    for _ in range(4):
        crowd.append(connect(served))
        crowd[-1].settimeout(5)
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            crowd[-1].sendall(head + b"Content-Length: %d\r\n\r\n" % large)
            for _ in range(100):
                crowd[-1].sendall(b"A" * (1 << 20))
    all_is_well(served)
    statuses = sorted(connection.recv(12)[-3:] for connection in crowd[2:])
    assert statuses == [b"503", b"503"]
    assert served.process is not None
    assert psutil.Process(served.process.pid).memory_info().rss < 1 << 30


def test_json_that_takes_long_to_read_is_refused(served: Machine) -> None:
    for body in (b"[" + b"1," * 1_000_000 + b"1]", b"{" * 1_000_000, b'{"":[' * 200_000):
        status, answer, _ = ask(served, "POST", "/search", body)
        assert (status, answer["error"]["name"]) == (413, "UsageError")
    status, answer, _ = ask(served, "POST", "/search", b"[" * 100_000)
    assert (status, answer["error"]["name"]) == (400, "UsageError")
    status, answer, _ = ask(
        served, "POST", "/search", json.dumps({f"k{n}": n for n in range(50_000)}).encode()
    )
    assert status == 422
    assert len(answer["error"]["message"]) < 1000


@pytest.mark.parametrize(
    "path", ["fifo.jpg", "/dev/zero", "/proc/self/mem", "/proc/kmsg", "/dev/stdin", ".", "/"]
)
def test_a_path_that_is_no_picture_is_never_opened(served: Machine, path: str) -> None:
    fifo = served.photos / "fifo.jpg"
    with contextlib.suppress(FileExistsError):
        os.mkfifo(fifo)
    full = str(served.photos / path)
    stat = {"device": 1, "inode": 1, "size": 1, "mtime_ns": 1, "ctime_ns": 1}
    assert ask(served, "POST", "/why", {"path": full})[0] == 200
    assert ask(served, "POST", "/show", {"path": full})[0] == 404
    assert ask(served, "POST", "/search", {"terms": [{"path": full, "stat": stat}]})[0] == 409
    assert ask(served, "POST", "/failures/retry", {"paths": [full]})[1] == {"retried": []}
    assert ask(served, "POST", "/model/use", {"model": f"local-dir:{full}"})[0] in {400, 503}
    assert ask(served, "POST", "/scan", {"folder": full})[0] in {200, 400}
    all_is_well(served)


# The random part: each takes a connection and does its worst with it.


def garbage(rng: random.Random, connection: socket.socket) -> None:
    connection.sendall(rng.randbytes(rng.choice([1, 10, 1000, 40_000])))


def mutated(rng: random.Random, connection: socket.socket) -> None:
    request = bytearray(a_request(rng))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(request))
        piece = rng.choice([b"\r\n", b"\0", b"\xff", b" ", b":", rng.randbytes(3), request[at : at + 20]])
        request[at : at + rng.randint(0, 5)] = piece
    connection.sendall(request)


def truncated(rng: random.Random, connection: socket.socket) -> None:
    request = a_request(rng)
    connection.sendall(request[: rng.randrange(len(request))])


def pipelined(rng: random.Random, connection: socket.socket) -> None:
    connection.sendall(b"".join(a_request(rng) for _ in range(rng.randint(2, 50))))


def smuggled(rng: random.Random, connection: socket.socket) -> None:
    hidden = GET % b"/reload"
    body = b"0\r\n\r\n" + hidden
    odd = rng.choice(
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"transfer-encoding:\tchunked, gzip",
         b"Content-Length: 3", b"Content-Length: 0x10", b"Content-Length: +5", b"Content-Length: 9" * 30]
    )  # fmt: skip
    connection.sendall(post("/search", body, odd))


def chunked(rng: random.Random, connection: socket.socket) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"1\r\nx\r\n" * rng.choice([1, 1000]) + rng.choice([b"", b"ffffffffff\r\n"]))


def oversized(rng: random.Random, connection: socket.socket) -> None:
    connection.sendall(rng.choice([
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"GET /" + b"a" * 100_000,
        b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
        post("/search", json.dumps({"where": "(" * 10_001}).encode()),
        post("/search", json.dumps({"terms": [{"prompt": "x"}] * 10_000}).encode()),
        post("/search", json.dumps({"terms": [{"prompt": "x" * 1_000_000}]}).encode()),
    ]))  # fmt: skip


def odd_values(rng: random.Random, connection: socket.socket) -> None:
    value = rng.choice(ODD)
    field = rng.choice(["limit", "min_score", "where", "text", "under", "near", "sort", "weights", "terms"])
    body = b'{"%s":%s}' % (field.encode(), value)
    connection.sendall(post("/search", body, b"Connection: close"))


ODD = [
    b"NaN", b"-Infinity", b"1e999", b"-1", b"1" * 5000, b"true", b"null", b"[]", b"{}",
    b'"\\ud800"', b'"\\u0000"', b'"\\u202e \\u0007"', b'"\xff"', b'["/\\udcff"]',
    b'[{"prompt":"\\ud800\\udfff\\udc80"}]', b'[{"prompt":"\\u0000"}]', b'[{"path":"/dev/zero"}]',
    b'[{"data":"AAAA"}]', b'[{"data":"===="}]', b'[{"prompt":"dog"},{"prompt":"dog","weight":-1}]',
    b'{"lat":1e308,"lon":0}', b'{"likeness":1e-300,"words":1e3}', b'"iso = 99999999999999999999999"',
    b'"NOT NOT NOT iso = 1"', b'"iso = 1e400"', b'"name LIKE \'%%%%\'"',
]  # fmt: skip


def a_request(rng: random.Random) -> bytes:
    path = rng.choice(
        ["/status", "/roots", "/search", "/show", "/why", "/scan", "/wait", "/openapi.json", "/"]
    )
    if path in {"/status", "/roots", "/openapi.json", "/"}:
        return GET % path.encode()
    body = rng.choice([b"{}", SEARCH, b'{"path":"/a"}', b'{"timeout":0}'])
    return post(path, body, *rng.choice([(), (b"Connection: close",)]))


ATTACKS: list[Callable[[random.Random, socket.socket], None]] = [
    garbage, mutated, truncated, pipelined, smuggled, chunked, oversized, odd_values,
]  # fmt: skip


def test_random_attacks_leave_nothing_behind(served: Machine) -> None:
    print(f"IMAGEDBD_HOSTILE_SEED={SEED}")
    rng = random.Random(SEED)
    statuses: set[int] = set()
    rounds(served, rng, ROUNDS, statuses)  # caches and pools fill
    before = footprint(served)
    rounds(served, rng, ROUNDS, statuses)
    settled(served, before)
    assert statuses <= {100, 200, 400, 404, 405, 408, 409, 411, 413, 422, 431, 501, 503, 504}, statuses
    assert {200, 400, 411, 413, 422} <= statuses


def rounds(machine: Machine, rng: random.Random, number: int, statuses: set[int]) -> None:
    for turn in range(number):
        with connect(machine) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                rng.choice(ATTACKS)(rng, connection)
            if rng.random() < 0.7:
                # What it reads until there is no more; then it goes, whatever may still be due.
                connection.settimeout(0.05)
                answer = read_all(connection)
                statuses |= {int(code) for code in re.findall(rb"^HTTP/1.1 (\d+)", answer, re.MULTILINE)}
        if turn % 50 == 0:
            all_is_well(machine)
    all_is_well(machine)
