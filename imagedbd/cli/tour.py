"""The guided tour of ``imagedb demo``: each step is a real command line, and its answer is checked.

What is right is known beforehand: the gallery's own plan says what every picture shows, when and where.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd.cli import output, tables
from imagedbd.errors import ImagedbError, NothingMatchedError

if TYPE_CHECKING:
    from imagedbd.cli.private_daemon import PrivateDaemon
    from imagedbd.demo.shots import Shot

SHOWN: Final = 3
"""Hits printed of each answer."""
SEEN_WITHIN_S: Final = 30.0
"""Longest wait for a change to be seen before the demo calls it missed."""
HIGH_ISO: Final = 1600
LARGE: Final = 640
AROUND_KM: Final = 25
AMBIGUOUS: Final = {"Apple"}
"""Makers whose name also says what a picture shows."""

Check = Callable[[Sequence[Mapping[str, Any]]], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """:param right: whether an answer is the right one, by the gallery's plan."""

    title: str
    arguments: tuple[str, ...]
    right: Check


class Tour:
    """:param truth: what each picture shows, by its path."""

    def __init__(self, daemon: PrivateDaemon, gallery: str, truth: Mapping[str, Shot]) -> None:
        self._daemon = daemon
        self._gallery = gallery
        self._truth = dict(truth)
        self.checked = 0

    def show(self) -> None:
        """Run everything, the pictures' folder being the working folder.

        :raises ImagedbError: at the first answer that is not right.
        """
        for step in self._steps():
            self._run(step)
        self._follow_changes()

    def _steps(self) -> Iterator[Step]:
        favourite = self._wanted("car", "red")
        yield Step(
            "Say what is to be seen",
            ("search", "--prompt", _words(favourite), "-n", "3"),
            lambda hits: self._shows(hits[0], favourite),
        )
        first, second = self._pair()
        yield Step(
            "Show a picture, and find more like it",
            ("similar", os.path.relpath(first, self._gallery), "-n", "3"),
            lambda hits: self._shows(hits[0], self._truth[second]),
        )
        make = next(shot.camera.make for shot in self._truth.values() if shot.camera.make not in AMBIGUOUS)
        yield Step(
            "Look for words in the metadata",
            ("search", "--text", make.split(" ")[0], "-n", "3"),
            lambda hits: all(self._truth[hit["path"]].camera.make == make for hit in hits),
        )
        yield Step(
            "Ask for conditions",
            ("search", "--where", f"iso >= {HIGH_ISO} AND width >= {LARGE}", "-n", "10000"),
            lambda hits: {hit["path"] for hit in hits} == set(self._paths(_is_large_and_grainy)),
        )
        yield from self._place_and_date()
        pet = self._wanted("cat", "black")
        yield Step(
            "All at once: what is to be seen and what the metadata says, fused, under a condition",
            ("search", _words(pet), "--after", str(pet.taken.year), "--where", "width >= 300", "-n", "3"),
            lambda hits: self._shows(hits[0], pet) and all(_year(hit) >= pet.taken.year for hit in hits),
        )

    def _place_and_date(self) -> Iterator[Step]:
        path, centre = next(
            (path, shot.place) for path, shot in self._truth.items() if shot.place and _has_exif(path)
        )
        trip = os.path.dirname(path)
        yield Step(
            "Ask for a place",
            ("search", "--near", f"{centre.latitude:.2f},{centre.longitude:.2f},{AROUND_KM}", "-n", "10000"),
            lambda hits: (
                {hit["path"] for hit in hits}
                == set(
                    self._paths(lambda path, shot: shot.place is not None and os.path.dirname(path) == trip)
                )
            ),
        )
        last = max(shot.taken.year for shot in self._truth.values())
        yield Step(
            "Ask for a time",
            ("search", "--after", str(last), "-n", "10000"),
            lambda hits: (
                all(_year(hit) == last for hit in hits)
                and {hit["path"] for hit in hits} >= set(self._paths(lambda _, shot: shot.taken.year == last))
            ),
        )

    def _run(self, step: Step) -> None:
        output.write(f"\n{step.title}\n  $ imagedb {shlex.join(step.arguments)}\n")
        started = time.perf_counter()
        hits = self._ask(step.arguments)
        took = 1000 * (time.perf_counter() - started)
        self._print(hits[:SHOWN])
        more = f", {output.count(len(hits), 'picture')} in all" if len(hits) > SHOWN else ""
        output.write(f"  {took:.0f} ms{more}\n")
        self._check(bool(hits) and step.right(hits), f"the answer to `imagedb {shlex.join(step.arguments)}`")

    def _ask(self, arguments: Sequence[str]) -> list[dict[str, Any]]:
        """The hits of a command line, run as a shell would run it: the time is what a user waits."""
        command = [sys.executable, "-m", "imagedbd.cli", *self._daemon.options, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in {0, NothingMatchedError.exit_code}:
            raise ImagedbError(
                f"`imagedb {shlex.join(arguments)}` ended with code {done.returncode}: {done.stderr.strip()}"
            )
        hits: list[dict[str, Any]] = json.loads(done.stdout)
        return hits

    def _print(self, hits: Sequence[Mapping[str, Any]]) -> None:
        columns = [
            tables.Column("", right=True, style="dim"), tables.Column("score", right=True, style="cyan"),
            tables.Column("picture"), tables.Column("what was drawn", room=70, style="dim"),
        ]  # fmt: skip
        rows = [
            [
                str(hit["rank"]),
                f"{hit['score']:.3f}" if hit["score"] else "",
                output.short_path(hit["path"]),
                _described(self._truth.get(hit["path"])),
            ]
            for hit in hits
        ]
        tables.print_table(columns, rows)

    def _follow_changes(self) -> None:
        """Add, rename and delete a picture while the daemon runs."""
        output.write("\nThe index follows the folder\n")
        new = os.path.join(self._gallery, "new.jpg")
        renamed = os.path.join(self._gallery, "renamed.jpg")
        self._draw_new(new)
        self._see("(a new picture is drawn: new.jpg)", "in the index", lambda: self._is_indexed(new))
        self._check(
            self._ask(["search", "new.jpg", "-n", "1"])[0]["path"] == new, "finding the new picture by itself"
        )
        before = self._embeds()
        os.rename(new, renamed)
        self._see(
            "$ mv new.jpg renamed.jpg", "known under its new name",
            lambda: self._is_indexed(renamed) and not self._is_indexed(new),
        )  # fmt: skip
        self._check(self._embeds() == before, "renaming without a second run through the model")
        output.write(f"  embeds_total stayed {before}: a move costs no second run through the model.\n")
        os.remove(renamed)
        self._see("$ rm renamed.jpg", "gone from the index", lambda: not self._is_indexed(renamed))

    def _see(self, action: str, what: str, done: Callable[[], bool]) -> None:
        output.write(f"  {action}\n")
        started = time.monotonic()
        while not (seen := done()) and time.monotonic() < started + SEEN_WITHIN_S:
            time.sleep(0.05)
        if seen:
            output.write(f"  {what} after {time.monotonic() - started:.1f} s\n")
        self._check(seen, f"seeing `{action}`")

    def _check(self, right: bool, what: str) -> None:
        self.checked += 1
        if not right:
            raise ImagedbError(f"The demo found a fault: {what} was not right. Please report it.")

    def _draw_new(self, path: str) -> None:
        from imagedbd.demo.scenes import draw

        model = self._wanted("umbrella", "yellow")
        scene = replace(model.scene, seed=model.scene.seed + 1)
        draw(scene, (640, 480)).save(path, quality=88)
        self._truth[path] = replace(model, scene=scene)

    def _is_indexed(self, path: str) -> bool:
        try:
            return bool(self._daemon.target.client.show(path)["state"] == "indexed")
        except NothingMatchedError:
            return False

    def _embeds(self) -> int:
        return int(self._daemon.target.client.status()["embeds_total"])

    def _wanted(self, subject: str, colour: str) -> Shot:
        """A picture of that, or of what comes first, for a small gallery has not everything."""
        shots = list(self._truth.values())
        there = (shot for shot in shots if (shot.scene.subject, shot.scene.colour) == (subject, colour))
        return next(there, shots[0])

    def _pair(self) -> tuple[str, str]:
        """Two pictures of one motif, the second taken right after the first where there is such a pair."""
        paths = sorted(self._truth, key=lambda path: self._truth[path].taken)
        pairs = [(a, b) for a, b in itertools.pairwise(paths) if self._same_view(a, b)]
        return pairs[0] if pairs else (paths[0], paths[0])

    def _same_view(self, a: str, b: str) -> bool:
        first, second = self._truth[a].scene, self._truth[b].scene
        return replace(first, seed=0) == replace(second, seed=0)

    def _shows(self, hit: Mapping[str, Any], wanted: Shot) -> bool:
        scene = self._truth[hit["path"]].scene
        return (scene.subject, scene.colour) == (wanted.scene.subject, wanted.scene.colour)

    def _paths(self, condition: Callable[[str, Shot], bool]) -> list[str]:
        """The pictures of which that is true and can be known: exported ones lost what the camera wrote."""
        return [path for path, shot in self._truth.items() if _has_exif(path) and condition(path, shot)]


def _is_large_and_grainy(_path: str, shot: Shot) -> bool:
    return shot.exposure.iso >= HIGH_ISO and shot.size[0] >= LARGE


def _has_exif(path: str) -> bool:
    return not path.endswith(".png")


def _words(shot: Shot) -> str:
    from imagedbd.demo.captions import prompt

    return prompt(shot.scene)


def _year(hit: Mapping[str, Any]) -> int:
    return int(str(hit["taken_at"])[:4])


def _described(shot: Shot | None) -> str:
    if shot is None:
        return ""
    scene = shot.scene
    return f"{scene.colour} {scene.subject}, {scene.background}, {scene.time}"
