"""Each kind of poisonous file beside fifty good ones, while decoders crash or hang besides."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import poison
import psutil
import pytest
from pictures import encoded
from poisons import BAD, HARMLESS, ODD_NAMES

if TYPE_CHECKING:
    from machine import Machine

GOOD = 50
DECODE_MEMORY = 512 << 20
DECODE_TIMEOUT_S = {"crash": 60, "hang": 6}
"""Bombs take their time where a machine has more to do, and only what hangs may run out of it."""


class Watch:
    """Asks for the status over and over, and looks at the memory of every process meanwhile.

    :param patience_s: as long as one decoder may hang; an answer that takes longer has waited for one.
    """

    def __init__(self, machine: Machine, patience_s: float) -> None:
        self.answered_s: list[float] = []
        self.unanswered: list[str] = []
        self.daemon_bytes: list[int] = []
        self.decoder_bytes = 0
        self._machine = machine
        self._patience_s = patience_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._measure)]

    @contextmanager
    def on(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            started = time.monotonic()
            try:
                get(self._machine, "/status", self._patience_s)
            except (AssertionError, OSError) as error:
                self.unanswered.append(repr(error))
                continue
            self.answered_s.append(time.monotonic() - started)

    def _measure(self) -> None:
        assert self._machine.process is not None
        daemon = psutil.Process(self._machine.process.pid)
        while not self._over.wait(0.05):
            self.daemon_bytes.append(daemon.memory_info().rss)
            for child in daemon.children(recursive=True):
                try:
                    if "imagedbd.fork_server" in child.cmdline():
                        # Without what it has in common with the server that it was forked from.
                        self.decoder_bytes = max(self.decoder_bytes, child.memory_full_info().uss)
                except psutil.NoSuchProcess:
                    continue

    def report(self) -> str:
        times = sorted(self.answered_s)
        return (
            f"{len(times)} answers, median {times[len(times) // 2] * 1000:.0f} ms, "
            f"slowest {times[-1] * 1000:.0f} ms; daemon from {self.daemon_bytes[0] >> 20} MB "
            f"to at most {max(self.daemon_bytes) >> 20} MB, decoders at most {self.decoder_bytes >> 20} MB"
        )


def get(machine: Machine, path: str, patience_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience_s)
        connection.connect(str(machine.home / "run" / "s.sock"))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert b" 200 " in answer.splitlines()[0], answer
    return answer


def lay_out(machine: Machine, kind: str, stack: ExitStack) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Names that must be indexed, that must fail, and that must be passed over."""
    folder = os.fsencode(machine.photos)

    def write(name: bytes, content: bytes) -> None:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)

    good = {b"good-%d.jpg" % number for number in range(GOOD)}
    for number, name in enumerate(sorted(good)):
        write(name, encoded(1000 + number))
    for number, name in enumerate(ODD_NAMES):
        write(name, encoded(2000 + number))
    for name, content in {**BAD, **HARMLESS}.items():
        write(name.encode(), content())
    bad = {name.encode() for name in BAD}
    for number in range(2):
        name = b"%s-%d.jpg" % (kind.replace(" ", "-").encode(), number)
        write(name, encoded(3000 + number) + poison.words(kind))
        bad.add(name)
    once = str(machine.home / "once")
    write(b"struck-once.jpg", encoded(4000) + poison.words(kind, once))
    good |= {b"struck-once.jpg", *ODD_NAMES, *(name.encode() for name in HARMLESS)}
    sparse = machine.photos / "huge.jpg"
    sparse.touch()
    os.truncate(sparse, 6 << 30)
    os.mkfifo(machine.photos / "fifo.jpg")
    (machine.photos / "folder.jpg").mkdir()
    os.symlink("good-1.jpg", machine.photos / "link.jpg")
    os.symlink("nowhere", machine.photos / "dangling.jpg")
    os.symlink("loop.jpg", machine.photos / "loop.jpg")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(machine.photos / "socket.jpg"))
    passed_over = {b"huge.jpg", b"fifo.jpg", b"link.jpg", b"dangling.jpg", b"loop.jpg", b"socket.jpg"}
    if os.geteuid() == 0:
        os.mknod(machine.photos / "zero.jpg", 0o644 | 0o020000, os.makedev(1, 5))
        passed_over.add(b"zero.jpg")
    return good, bad, passed_over


@contextmanager
def restless(folder: Path) -> Iterator[None]:
    """A file that grows while it is read, and one that comes and goes."""
    over = threading.Event()
    content = encoded(5000)

    def act() -> None:
        with (folder / "growing.jpg").open("wb") as growing:
            growing.write(content)
            while not over.wait(0.02):
                growing.write(bytes(1000))
                growing.flush()
                flicker = folder / "flickering.jpg"
                if flicker.exists():
                    flicker.unlink()
                else:
                    flicker.write_bytes(content[:-100])

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        (folder / "flickering.jpg").unlink(missing_ok=True)


def names_of(rows: list[dict[str, Any]]) -> set[bytes]:
    return {os.path.basename(os.fsencode(row["path"])) for row in rows}


@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_poison_costs_the_poisonous_files_and_no_other(
    machine: Machine, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.environment |= {
        "IMAGEDBD_DECODE_TIMEOUT": f"{DECODE_TIMEOUT_S[kind]}s",
        "IMAGEDBD_DECODE_MEMORY": str(DECODE_MEMORY),
        "IMAGEDBD_MAX_PIXELS": "50000000",
        "IMAGEDBD_SETTLE": "0.3s",
        "IMAGEDBD_SETTLE_MAX": "1s",
        "IMAGEDBD_TEST_DECODES": str(machine.home / "decodes"),
    }
    watch = Watch(machine, DECODE_TIMEOUT_S[kind])
    with ExitStack() as stack:
        good, bad, passed_over = lay_out(machine, kind, stack)
        machine.start()
        with watch.on():
            with restless(machine.photos):
                machine.wait()
            machine.wait()
            machine.until(lambda: machine.json("status")["pending"] == 0, 60)
        failures = {os.path.basename(os.fsencode(row["path"])): row for row in machine.json("failures")}
        assert set(failures) == bad, [failures[name] for name in set(failures) - bad]
        assert names_of(machine.json("list")) == good | {b"growing.jpg"}
        for name, row in failures.items():
            assert row["reason"], name
            assert row["attempts"] == (2 if name.startswith(kind.encode()) else 1), row
        opened = Path(machine.environment["IMAGEDBD_TEST_DECODES"]).read_bytes().splitlines()
        assert not {os.path.basename(line) for line in opened} & passed_over
        restless_ones = (b"/growing.jpg", b"/flickering.jpg")
        assert max(opened.count(line) for line in set(opened) if not line.endswith(restless_ones)) == 2
    with capsys.disabled():
        print(f"\n{kind}: {watch.report()}")
    assert watch.answered_s
    assert watch.unanswered == []
    assert 0 < watch.decoder_bytes < DECODE_MEMORY
    assert max(watch.daemon_bytes) < DECODE_MEMORY
    assert "Traceback" not in machine.log()
    machine.stop()
    machine.start()
    machine.wait()
    again = Path(machine.environment["IMAGEDBD_TEST_DECODES"]).read_bytes().splitlines()
    assert again == opened
