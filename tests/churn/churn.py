"""One seed: a daemon, a world that churns below it, and looks at whether the two still agree."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from machine import Machine

from churn.contents import Contents
from churn.oracle import Expected, Oracle
from churn.world import Hands, World
from imagedbd.client import Client
from imagedbd.errors import ImagedbError

LOOKS: Final = 4
"""How often it is asked in one run whether the index equals the folders; the last time after a clean stop too."""
WORN_OUT: Final = ("crashed", "died", "hung")
"""What reasons say of files that were in work each time that something was killed."""


class Drift(AssertionError):
    """The index is not what the folders say, or the daemon did what it must not."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs from seed to seed before the first step."""

    store: str
    layout: str
    obedient: bool
    data_inside: bool
    settle: str

    @classmethod
    def of(cls, seed: int) -> Shape:
        rng = random.Random(f"shape {seed}")
        return cls(
            store=rng.choice(("lance", "faiss")),
            layout=rng.choice(("one", "two", "nested")),
            obedient=os.geteuid() == 0 and rng.random() < 0.6,
            data_inside=rng.random() < 0.2,
            settle=rng.choice(("1s", "300ms")),
        )


@dataclass(slots=True)
class Churn:
    """:param steps: the numbers of the steps to take; those of a whole run, or fewer to find out which matter."""

    seed: int
    steps: Collection[int]
    checkpoint: Path | None = None
    shape: Shape = field(init=False)
    home: Path = field(init=False)
    machine: Machine = field(init=False)
    world: World = field(init=False)
    oracle: Oracle = field(init=False)
    done: list[str] = field(default_factory=list)
    proven: set[str] = field(default_factory=set)
    """Contents that were seen in the index: their vectors are never made again."""
    kills: int = 0
    starting: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.shape = Shape.of(self.seed)
        # A Unix socket's path is short; pytest's own folders are not.
        self.home = Path(tempfile.mkdtemp(prefix="churn-")).resolve()
        self.machine = Machine(self.home, self.checkpoint)
        photos, outside = self.machine.photos, self.home / "outside"
        roots = [photos]
        if self.shape.layout != "one":
            roots.append(self.home / "other" if self.shape.layout == "two" else photos / "2024" / "inner")
        for folder in (*roots, outside):
            folder.mkdir(parents=True, exist_ok=True)
        data = photos / "data" if self.shape.data_inside else self.home / "data"
        self.machine.environment |= {
            "IMAGEDBD_DATA_DIR": str(data),
            "IMAGEDBD_SETTLE": self.shape.settle,
            "IMAGEDBD_DECODERS": "2",
        }
        contents = Contents()
        self.world = World([str(root) for root in roots], str(outside), str(data), contents, self.shape.obedient)
        self.oracle = Oracle(contents, str(data), self.shape.obedient)

    def run(self) -> None:
        """:raises Drift: with everything that is needed to find out why."""
        try:
            self._start()
            looks = _evenly(sorted(self.steps), LOOKS)
            for number in sorted(self.steps):
                self._step(number)
                if number in looks:
                    self.look()
            self.look_at_what_stays()
        except Exception as error:
            raise Drift(f"{error}\n{self._tell(error)}") from error

    def close(self) -> None:
        if self.starting is not None:
            self.starting.join()
        self.machine.close()
        shutil.rmtree(self.home)

    # Steps.

    def _step(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        dice = rng.random()
        if dice < 0.025:
            self._disturb(rng, number)
        elif dice < 0.10:
            time.sleep(rng.choice((0.01, 0.05, 0.1, 0.25, 0.5)))
        hands = Hands(self.world, rng, 10 * number)
        done = hands.act()
        self._log(number, done)

    def _disturb(self, rng: random.Random, number: int) -> None:
        chosen = rng.choice(
            ("kill daemon", "kill decoder", "kill decoder", "kill embedder", "kill embedder", "restart", "reload", "freeze", "start")
        )
        self._log(number, f"*** {chosen}")
        process = self.machine.process
        if process is None or self.starting is not None:
            if chosen == "start" or rng.random() < 0.5:
                self._await_start()
                self._start()
            return
        if chosen == "kill daemon":
            self._end(signal.SIGKILL)
        elif chosen == "restart":
            self._end(signal.SIGTERM)
            self._start()
        elif chosen == "reload":
            process.send_signal(signal.SIGHUP)
        elif chosen == "freeze":
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            process.send_signal(signal.SIGCONT)
        elif chosen.startswith("kill"):
            self._kill_child(chosen.removeprefix("kill "), process.pid, rng)

    def _kill_child(self, kind: str, daemon: int, rng: random.Random) -> None:
        children = psutil.Process(daemon).children(recursive=True)
        chosen = [child for child in children if kind in _kind_of(child)]
        if chosen:
            self.kills += 1
            rng.choice(chosen).kill()

    def _start(self) -> None:
        """Start the daemon; what comes next does not wait until it answers."""
        if self.machine.process is not None or self.starting is not None:
            return
        self.world.seen = self.world.present() - self.proven

        def start() -> None:
            arguments = ("--store", self.shape.store)
            roots = [Path(root) for root in self.world.roots]
            self.machine.start(*arguments, roots=roots, obedient=self.shape.obedient)

        self.starting = threading.Thread(target=start)
        self.starting.start()

    def _await_start(self) -> None:
        if self.starting is not None:
            self.starting.join()
            self.starting = None

    def _end(self, number: int) -> None:
        self._await_start()
        self._check_embeds()
        self.kills += number == signal.SIGKILL
        status = self.machine.stop(number)
        _check(status == (0 if number == signal.SIGTERM else -9), f"the daemon ended with {status}")

    # Looks.

    def look(self) -> None:
        """Wait, and compare the index with the folders."""
        self.world.come_to_rest()
        self._start()
        self._await_start()
        expected = self.oracle.look(self.world.roots)
        self.world.seen.update(expected.either.values())
        done = self.machine.run("wait", "--timeout", "60")
        _check(done.returncode == 0, f"wait: {done.returncode} {done.stderr.decode()}")
        rows = self.machine.json("list")
        failures = {row["path"]: row["reason"] for row in self.client.failures()}
        if self.kills > 1 and any(_worn_out(reason) for reason in failures.values()):
            self.client.retry([path for path, reason in failures.items() if _worn_out(reason)])
            self.machine.wait()
            rows = self.machine.json("list")
            failures = {row["path"]: row["reason"] for row in self.client.failures()}
        _compare([(row["path"], row["content_hash"]) for row in rows], set(failures), expected)
        _check(len({row["id"] for row in rows}) == len(rows), "two pictures have one id")
        status = self.client.status()
        counts = {status["indexed"], status["store"]["rows"], status["store"]["vectors"]}
        _check(counts == {len(rows)}, f"counts differ: {status}")
        self._check_embeds()
        self.proven.update(row["content_hash"] for row in rows)
        self.kills = 0
        self._log(-1, f"=== looked: {len(rows)} pictures, {len(failures)} failures")

    def _check_embeds(self) -> None:
        if self.machine.process is None:
            return
        embedded = self.client.status()["embeds_total"]
        news = self.world.seen - self.proven
        _check(embedded <= len(news), f"{embedded} pictures were embedded for {len(news)} new contents")

    def look_at_what_stays(self) -> None:
        """End the daemon and open what it leaves."""
        self._end(signal.SIGTERM)

    @property
    def client(self) -> Client:
        return Client(self.machine.environment["IMAGEDBD_SOCKET"])

    def _log(self, number: int, what: str) -> None:
        self.done.append(f"{number:4} {what}")

    def _tell(self, error: Exception) -> str:
        steps = "\n".join(self.done[-80:])
        log = "\n".join(self.machine.log().splitlines()[-60:])
        return f"seed {self.seed} {self.shape}\n{steps}\n--- log\n{log}"


def _kind_of(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if "embedder_worker" in words:
        return "embedder"
    return "decoder" if "forkserver" in words else ""


def _worn_out(reason: str) -> bool:
    return any(word in reason for word in WORN_OUT)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _compare(rows: list[tuple[str, str]], failed: set[str], expected: Expected) -> None:
    faults = []
    listed = dict(rows)
    if len(listed) != len(rows):
        faults.append("a path is listed twice")
    for path, content in expected.pictures.items():
        if listed.get(path) != content:
            faults.append(f"{path!r} should have {content[:8]}, has {listed.get(path)}, failed: {path in failed}")
    for path, content in expected.either.items():
        if listed.get(path) != content and path not in failed:
            faults.append(f"{path!r} should have {content[:8]} or be failed, has {listed.get(path)}")
    for path in expected.failed - failed:
        faults.append(f"{path!r} should be failed, has {listed.get(path)}")
    for path in listed.keys() - expected.pictures.keys() - expected.either.keys():
        faults.append(f"{path!r} should not be listed, has {listed[path][:8]}")
    for path in failed - expected.failed - expected.either.keys() - expected.pictures.keys():
        faults.append(f"{path!r} should not be failed")
    for path in failed & listed.keys():
        faults.append(f"{path!r} is both")
    if faults:
        raise AssertionError("\n".join(faults))


def _evenly(steps: list[int], looks: int) -> set[int]:
    return {steps[(index + 1) * len(steps) // looks - 1] for index in range(looks)} if steps else set()
