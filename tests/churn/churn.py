"""One seed: a daemon, a world that churns below it, and looks at whether the two still agree."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from churn.aftermath import leftovers
from churn.contents import Contents, Said
from churn.oracle import PATTERNS, Expected, Oracle, compare, compare_said
from churn.world import Hands, World
from machine import Machine

from imagedbd.client import Client

LOOK_EVERY: Final = 125
"""Steps, from one look at whether the index equals the folders to the next."""
HEARD_S: Final = 40.0
"""How long the index may take to follow by events alone."""
SWITCHED_S: Final = 60.0
WORN_OUT: Final = ("crash", "died", "hung", "killed", "lost")
"""Words in the reasons of files that were in work each time that something was killed."""


class DriftError(AssertionError):
    """The index is not what the folders say, or the daemon did what it must not."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs from seed to seed before the first step.

    :param layout: one root, two, or one in another.
    :param heard: whether the index must follow by events, without a scan that somebody asks for.
    """

    store: str
    layout: str
    obedient: bool
    data_inside: bool
    heard: bool
    settle: str

    @classmethod
    def of(cls, seed: int) -> Shape:
        rng = random.Random(f"shape {seed}")
        return cls(
            store=rng.choice(("lance", "faiss")),
            layout=rng.choice(("one", "two", "nested")),
            obedient=os.geteuid() == 0 and rng.random() < 0.6,
            data_inside=rng.random() < 0.2,
            heard=rng.random() < 0.25,
            settle=rng.choice(("1s", "300ms")),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of what was done, and the paths that it was done to."""

    number: int
    what: str
    paths: tuple[str, ...] = ()


@dataclass(slots=True)
class Churn:
    """:param steps: the numbers of those to take: a whole run's, or fewer to find out which matter."""

    seed: int
    steps: Collection[int]
    checkpoint: Path | None = None
    shape: Shape = field(init=False)
    home: Path = field(init=False)
    machine: Machine = field(init=False)
    world: World = field(init=False)
    oracle: Oracle = field(init=False)
    watched: list[str] = field(init=False)
    """The roots in the settings."""
    globs: list[str] = field(default_factory=list)
    done: list[Entry] = field(default_factory=list)
    proven: set[str] = field(default_factory=set)
    """Contents that were seen in the index: their vectors are never made again."""
    proven_before: frozenset[str] = frozenset()
    """Those of them that were when the daemon was started."""
    kills: int = 0
    """Of anything, since the last look."""
    embedder_kills: int = 0
    """Since the daemon was started."""
    store: str = field(init=False)
    """The kind that is to answer when nothing is left to be done."""
    again: int = 0
    """How many contents may be embedded a second time, since the daemon was started."""
    paused: bool = False
    starting: Future[None] | None = None
    starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        self.shape = Shape.of(self.seed)
        self.store = self.shape.store
        # A Unix socket's path is short; pytest's own folders are not.
        self.home = Path(tempfile.mkdtemp(prefix="churn-")).resolve()
        self.machine = Machine(self.home, self.checkpoint)
        photos, outside = self.machine.photos, self.home / "outside"
        inner = {"two": [self.home / "other"], "nested": [photos / "nest" / "inner"]}
        roots = [photos, *inner.get(self.shape.layout, [])]
        for folder in (*roots, outside):
            folder.mkdir(parents=True, exist_ok=True)
        data = photos / "data" if self.shape.data_inside else self.home / "data"
        self.machine.environment |= {
            "IMAGEDBD_DATA_DIR": str(data),
            "IMAGEDBD_SETTLE": self.shape.settle,
            "IMAGEDBD_DECODERS": "2",
            "IMAGEDBD_TEST_BAD_DISK": str(self._bad_disk),
        }
        contents = Contents()
        self.watched = [str(root) for root in roots]
        self.world = World(
            list(self.watched),
            str(outside),
            str(data),
            contents,
            harmless=os.geteuid() != 0,
            heard=self.shape.heard,
        )
        self.oracle = Oracle(contents, str(data), self.shape.obedient)

    @property
    def _bad_disk(self) -> Path:
        """While this is there, decoders get nothing but errors from some files."""
        return self.home / "bad disk"

    def run(self) -> None:
        """:raises DriftError: with everything that is needed to find out why."""
        try:
            self._write_config()
            self._start()
            for count, number in enumerate(sorted(self.steps), start=1):
                self._step(number)
                last = count == len(self.steps)
                if last or count % LOOK_EVERY == 0:
                    self.look(last=last)
            self.look_at_what_stays()
        except Exception as error:
            raise DriftError(f"{type(error).__name__}: {error}\n{self._tell()}") from error

    def close(self) -> None:
        self.machine.close()
        self.starter.shutdown()
        shutil.rmtree(self.home)

    # Steps.

    def _step(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        dice = rng.random()
        if dice < 0.035:
            # With dice of its own: how many it throws depends on what the daemon is doing.
            own = random.Random(f"{self.seed}/{number} disturbance")
            disturbance = own.choice(_DISTURBANCES)
            self._log(number, f"*** {disturbance.__name__} {disturbance(self, own) or ''}")
        elif dice < 0.10:
            time.sleep(rng.choice((0.01, 0.05, 0.1, 0.25, 0.5)))
        elif dice < 0.105:
            time.sleep(1.5)
        hands = Hands(self.world, rng, 10 * number)
        done = hands.act()
        self._log(number, done, *hands.touched)

    # Disturbances. Where the daemon is down or only starting, most of them do nothing.

    def kill_daemon(self, _: random.Random) -> str | None:
        if self.machine.process is None:
            return self.start(_)
        self._end(signal.SIGKILL)
        return None

    def start(self, _: random.Random) -> str:
        self._start()
        return "started"

    def restart(self, _: random.Random) -> None:
        self._await_start()
        if self.machine.process is not None:
            self._end(signal.SIGTERM)
        self._start()

    def kill_decoder(self, rng: random.Random) -> str | None:
        return self._kill_child("decoder", rng)

    def kill_embedder(self, rng: random.Random) -> str | None:
        problem = self._kill_child("embedder", rng)
        self.embedder_kills += problem is None
        return problem

    def freeze(self, _: random.Random) -> None:
        """Have events pile up."""
        if self.machine.process is not None:
            self.machine.process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            self.machine.process.send_signal(signal.SIGCONT)

    def fail_reads(self, rng: random.Random) -> str:
        """Or end it, where a disk does so already."""
        if self._bad_disk.exists():
            self._bad_disk.unlink()
            return "no more"
        if self.shape.heard:
            return "not possible"  # that it is well again, nobody hears
        words = f"{rng.choice((1, 2, 5))} {rng.randrange(100)}"
        whole = self._bad_disk.with_suffix(".new")
        whole.write_text(words)
        whole.rename(self._bad_disk)
        return words

    def pause(self, _: random.Random) -> str | None:
        return self._tell_daemon("resume" if self.paused else "pause")

    def ignore_glob(self, rng: random.Random) -> str:
        """Other patterns in the settings, and a signal."""
        self.globs = rng.sample(PATTERNS[:2], rng.randrange(2))
        self._await_start()
        self._write_config()
        if self.machine.process is not None:
            self.machine.process.send_signal(signal.SIGHUP)
        return str(self.globs)

    def change_roots(self, rng: random.Random) -> str:
        root = rng.choice(self.world.roots)
        if not os.path.isdir(root) or self.watched == [root]:
            return "not possible"
        self._await_start()
        if root in self.watched:
            self.watched.remove(root)
            words = ["remove", "--yes", root]
        else:
            self.watched.append(root)
            words = ["add", root]
        done = self.machine.run("root", *words)
        _check(done.returncode == 0, f"root {words}: {done.returncode} {done.stderr.decode()}")
        return str(words)

    def relocate(self, rng: random.Random) -> str:
        """Move a root for good, and say so to the daemon or, when it is down, to its index."""
        movable = [root for root in self.watched if self.world.may_move(root)]
        if not movable:
            return "not possible"
        root = rng.choice(movable)
        self.world.finish_writing()
        self._await_start()
        place = f"{self.home}/moved{len(self.done)}"
        os.rename(root, place)
        done = self.machine.run("root", "relocate", root, place)
        if place not in tomllib.loads((self.home / "config.toml").read_text())["roots"]:
            _check(done.returncode in {2, 70}, f"relocate: {done.returncode} {done.stderr.decode()}")
            os.rename(place, root)
            return f"refused: {done.stderr.decode()}"
        self.watched = [place if watched == root else watched for watched in self.watched]
        self.world.roots = [place if known == root else known for known in self.world.roots]
        return f"{root} → {place}: {done.returncode}"

    def use_other_store(self, _: random.Random) -> str:
        self._await_start()
        if self.machine.process is None:
            return "not possible"
        kind = "faiss" if self.store == "lance" else "lance"
        done = self.machine.run("store", "use", kind)
        if done.returncode == 0:
            self.store = kind
        return f"{kind}: {done.returncode} {done.stderr.decode()}"

    def reset(self, _: random.Random) -> str:
        """Everything is forgotten, and embedded once more."""
        self._await_start()
        if self.machine.process is None:
            return "not possible"
        done = self.machine.run("reset", "--yes")
        if done.returncode == 0:
            self.again += len(self.world.seen)
            self.proven.clear()
            self.proven_before = frozenset()
            self.store = self.shape.store
        return f"{done.returncode} {done.stderr.decode()}"

    def take_root_away(self, rng: random.Random) -> str:
        root = rng.choice(self.world.roots)
        if self.world.away:
            self.world.bring_back()
            return "it is back"
        if self.world.private.startswith(f"{root}/") or not os.path.isdir(root):
            return "not possible"
        self.world.take_away(root)
        return root

    def make_root_again(self, rng: random.Random) -> str:
        root = rng.choice(self.world.roots)
        if self.world.private.startswith(f"{root}/") or not os.path.isdir(root):
            return "not possible"
        self.world.make_again(root)
        return root

    def _kill_child(self, kind: str, rng: random.Random) -> str | None:
        if self.machine.process is None:
            return "not possible"
        children = psutil.Process(self.machine.process.pid).children(recursive=True)
        chosen = [child for child in children if kind in _kind_of(child)]
        if not chosen:
            return "none is there"
        self.kills += 1
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(chosen).kill()
        return None

    def _tell_daemon(self, word: str) -> str | None:
        self._await_start()
        if self.machine.process is None:
            return "not possible"
        done = self.machine.run(word)
        _check(done.returncode == 0, f"{word}: {done.returncode} {done.stderr.decode()}")
        self.paused = word == "pause"
        return word

    # The daemon.

    def _start(self) -> None:
        """Start the daemon; what comes next does not wait until it answers."""
        if self.machine.process is not None or self.starting is not None:
            return
        self.world.seen = self.world.present()
        self.proven_before = frozenset(self.proven)
        self.embedder_kills = self.again = 0
        start = self.machine.start
        obedient = self.shape.obedient
        self.starting = self.starter.submit(start, "--store", self.shape.store, roots=[], obedient=obedient)

    def _await_start(self) -> None:
        if self.starting is not None:
            self.starting.result()
            self.starting = None

    def _end(self, number: int) -> None:
        process = self.machine.process
        assert process is not None
        if number == signal.SIGKILL:
            self.kills += 1
            process.kill()
            process.wait()
            if self.starting is not None:
                self.starting.exception()
            self.starting = None
            self.machine.process = None
            return
        self._await_start()
        self._check_embeds()
        status = self.machine.stop(number)
        _check(status == 0, f"the daemon ended with {status}")

    def _write_config(self) -> None:
        # JSON's strings are TOML's, but for lone surrogates, which no root has.
        lines = f"roots = {json.dumps(self.watched)}\nignore = {json.dumps(self.globs)}\n"
        (self.home / "config.toml").write_text(lines)

    @property
    def client(self) -> Client:
        return Client(self.machine.environment["IMAGEDBD_SOCKET"])

    # Looks.

    def look(self, *, last: bool) -> None:
        """Compare the index with the folders, now that they are at rest."""
        number = self.done[-1].number
        rng = random.Random(f"{self.seed}/{number} rest")
        self._bad_disk.unlink(missing_ok=True)
        self.world.come_to_rest(rng, 10 * number + 5, keep_closed=not last and rng.random() < 0.3)
        self._start()
        self._await_start()
        if self.paused:
            self._tell_daemon("resume")
        # The signal may be on its way still; this returns when the settings count.
        self.client.reload()
        if self.embedder_kills > 1 and self.client.status()["model"]["state"] == "unavailable":
            # Twice in a row while it was loading; then it is tried again after a while, or when asked.
            self.client.load_model()
        if self.shape.heard:
            self._wait_for_events()
        done = self.machine.run("wait", "--timeout", "60")
        _check(done.returncode == 0, f"wait: {done.returncode} {done.stderr.decode()}")
        self._await_switch()
        faults = self._faults()
        if faults and self._retry_worn_out():
            faults = self._faults()
        if faults:
            raise AssertionError(self._describe(faults))
        self._check_counts()
        self.kills = 0
        self._log(number, f"=== {len(self.proven)} contents in the index so far")

    def _await_switch(self) -> None:
        deadline = time.monotonic() + SWITCHED_S
        while (status := self.client.status())["store"]["kind"] != self.store:
            _check(time.monotonic() < deadline, f"{self.store} does not answer: {status}")
            time.sleep(0.3)

    def _wait_for_events(self) -> None:
        deadline = time.monotonic() + HEARD_S
        while faults := self._faults(self.client.pictures()):
            if time.monotonic() > deadline:
                if not self._retry_worn_out():
                    raise AssertionError(f"nobody heard\n{self._describe(faults)}")
                return
            time.sleep(0.3)

    def _faults(self, listed: Iterable[dict[str, Any]] | None = None) -> dict[str, str]:
        """Path → what is wrong with it.

        :param listed: what to compare, in place of what ``imagedb list`` says.
        """
        expected = self.oracle.look(self.watched, self.globs)
        self.world.seen.update(expected.either.values())
        listed = self.machine.json("list") if listed is None else listed
        rows = [(row["path"], row["content_hash"]) for row in listed]
        failures = {row["path"]: row["reason"] for row in self.client.failures()}
        said = {row["path"]: _said_in(row) for row in self.client.export(vectors=False)}
        faults = compare(rows, failures, expected)
        return {**compare_said(said, expected), **self._search_faults(expected), **faults}

    def _search_faults(self, expected: Expected) -> dict[str, str]:
        """Whether a search for a word of a sidecar, of today or of the past, finds what it has to."""
        words = sorted({word for said in self.world.contents.said.values() for word in said.keywords})
        if (
            not words
            or len(expected.said) < len(expected.pictures)
            or expected.out_of_reach
            or expected.either
        ):
            return {}
        word = random.Random(f"{self.seed}/{self.done[-1].number} word").choice(words)
        hits = self.client.search(text=word, limit=1000)["hits"]
        found = {hit["path"] for hit in hits}
        wanted = {path for path, said in expected.said.items() if word in said.keywords}
        return dict.fromkeys(found ^ wanted, f"is found by {word!r} and must not be, or the reverse")

    def _retry_worn_out(self) -> bool:
        """Who was killed over a file twice must not believe in it; it is tried again when somebody asks."""
        reasons = {row["path"]: row["reason"] for row in self.client.failures()}
        paths = [path for path, reason in reasons.items() if any(word in reason for word in WORN_OUT)]
        if self.kills < 2 or not paths:
            return False
        self._log(self.done[-1].number, f"=== retried: {[reasons[path] for path in paths]}", *paths)
        self.client.retry(paths)
        self.machine.wait()
        return True

    def _check_counts(self) -> None:
        rows = list(self.client.pictures())
        _check(len({row["id"] for row in rows}) == len(rows), "two pictures have one id")
        status = self.client.status()
        counts = {status["indexed"], status["store"]["rows"], status["store"]["vectors"]}
        _check(counts == {len(rows)}, f"counts differ: {len(rows)} in the list, {status}")
        self._check_embeds()
        self.proven.update(row["content_hash"] for row in rows)

    def _check_embeds(self) -> None:
        """The model sees each content once at most. Black pictures tell whether it fails on all."""
        embedded = self.client.status()["embeds_total"]
        news = len(self.world.seen - self.proven_before) + self.embedder_kills + self.again
        _check(embedded <= news, f"{embedded} pictures were embedded for {news} new contents")

    def look_at_what_stays(self) -> None:
        """End the daemon and open what it leaves."""
        store = self.client.status()["store"]
        self._end(signal.SIGTERM)
        expected = self.oracle.look(self.watched, self.globs)
        faults = leftovers(self.world.private, store, expected, self.world.contents)
        _check(not faults, "\n".join(faults))

    # Telling.

    def _log(self, number: int, what: str, *paths: str) -> None:
        self.done.append(Entry(number, what, paths))

    def _describe(self, faults: dict[str, str]) -> str:
        time.sleep(3.0)
        self.machine.run("wait", "--timeout", "60")
        later = self._faults()
        lines = []
        for path, fault in list(faults.items())[:5]:
            lines.append(f"{path!r} {fault}; {'still so' if path in later else 'right'} after another wait")
            lines.append(f"  why: {self.client.why(path) if path.startswith('/') else ''}")
            lines += [f"  {self._line(entry)}" for entry in self.done if _concerns(entry, path)]
        return "\n".join([f"{len(faults)} faults", *lines])

    def _line(self, entry: Entry) -> str:
        paths = " → ".join(repr(os.path.relpath(path, self.home)) for path in entry.paths)
        return f"{entry.number:4} {entry.what} {paths}".replace("x" * 251, "x…").replace("y" * 200, "y…")

    def _tell(self) -> str:
        marked = [entry for entry in self.done[:-40] if entry.what.startswith(("***", "==="))]
        steps = "\n".join(self._line(entry) for entry in (*marked, *self.done[-40:]))
        log = "\n".join(self.machine.log().splitlines()[-60:])
        count = len(self.steps)
        variables = f"IMAGEDBD_CHURN_BASE={self.seed} IMAGEDBD_CHURN_SEEDS=1 IMAGEDBD_CHURN_STEPS={count}"
        return (
            f"seed {self.seed} {self.shape} in {self.home}\n"
            f"--- what was done besides, and the last steps\n{steps}\n--- the daemon's log\n{log}\n"
            f"again: {variables} pytest -n0 tests/churn\n"
            f"which steps matter: PYTHONPATH=tests python -m churn.shrink {self.seed} {count}"
        )


_DISTURBANCES: Final[tuple[Callable[[Churn, random.Random], str | None], ...]] = (
    *(Churn.kill_daemon, Churn.start, Churn.start, Churn.restart),
    *(Churn.kill_decoder, Churn.kill_decoder, Churn.kill_embedder, Churn.kill_embedder),
    *(Churn.freeze, Churn.ignore_glob, Churn.change_roots),
    *(Churn.relocate, Churn.relocate, Churn.use_other_store, Churn.reset),
    *(Churn.take_root_away, Churn.take_root_away, Churn.make_root_again),
    *(Churn.fail_reads, Churn.fail_reads),
    *((Churn.pause, Churn.pause) if hasattr(Client, "pause") else ()),
)


def _said_in(row: Mapping[str, Any]) -> Said:
    return Said(row["rating"], row["caption"], tuple(row["keywords"]))


def _kind_of(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if "embedder_worker" in words:
        return "embedder"
    return "decoder" if "forkserver" in words or "decoder" in words or "worker" in words else ""


def _concerns(entry: Entry, path: str) -> bool:
    return any(f"{path}/".startswith(f"{other}/") or other.startswith(f"{path}/") for other in entry.paths)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
