"""What the index has to hold, found out without any of the code under test: a walk, a hash and the rules."""

from __future__ import annotations

import fnmatch
import os
import stat as stat_module
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from churn.contents import Said, hash_of

if TYPE_CHECKING:
    from churn.contents import Contents

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".webp", ".avif", ".jp2", ".j2k"),
        *(".tif", ".tiff", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm"),
    }
)
SIDECAR_SUFFIXES = (".xmp", ".XMP")
IGNORE_FILE = ".imagedbignore"
PATTERNS = ("*.png", "trip/", "!*.png", "*", "!*", "a*", "/a.jpg", "!/inner/", "?.jpg", "2024", "!f.JPG")
"""Lines that are written into ignore files."""


@dataclass(slots=True)
class Expected:
    """:param pictures: path → content hash, of all that must be listed.
    :param said: path → what its sidecars say, of the same; without those beside which a writer was overtaken.
    :param failed: paths that must be told as failures.
    :param either: path → content hash, where a writer was overtaken and left nobody knows what.
    :param out_of_reach: folders that the daemon may not look into.
    """

    pictures: dict[str, str] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    either: dict[str, str] = field(default_factory=dict)
    out_of_reach: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Oracle:
    """:param obedient: whether the daemon is bound by permission bits.
    :param excluded: a folder of the daemon's own.
    """

    contents: Contents
    excluded: str
    obedient: bool

    def look(self, roots: Iterable[str], globs: Iterable[str] = ()) -> Expected:
        expected = Expected()
        roots = set(roots)
        for root in roots:
            for path in self._files(root, roots, (_Lines(root, tuple(globs)),), expected):
                self._judge(path, expected)
        return expected

    def _judge(self, path: str, expected: Expected) -> None:
        with open(path, "rb") as file:
            found = hash_of(file.read())
        if not self._readable(path) or found in self.contents.bad:
            expected.failed.add(path)
        elif found in self.contents.good:
            expected.pictures[path] = found
            if (said := self._said_of(path)) is not None:
                expected.said[path] = said
        else:
            expected.either[path] = found

    def _said_of(self, picture: str) -> Said | None:
        """What is beside a picture; ``None`` if nobody knows. The whole name goes before its stem."""
        said = Said()
        for base in dict.fromkeys((picture, os.path.splitext(picture)[0])):
            for path in (f"{base}{suffix}" for suffix in SIDECAR_SUFFIXES):
                one = self._said_in(path)
                if one is None:
                    return None
                said = said.and_then(one)
        return said

    def _said_in(self, sidecar: str) -> Said | None:
        try:
            if not stat_module.S_ISREG(os.lstat(sidecar).st_mode) or not self._readable(sidecar):
                return Said()
        except OSError:
            return Said()
        with open(sidecar, "rb") as file:
            found = hash_of(file.read())
        known_for_silence = found in self.contents.good or found in self.contents.bad
        return self.contents.said.get(found, Said() if known_for_silence else None)

    def _files(
        self, folder: str, roots: set[str], lines: tuple[_Lines, ...], expected: Expected
    ) -> Iterator[str]:
        if folder == self.excluded:
            return
        if not self._readable(folder, 0o500):
            expected.out_of_reach.add(folder)
            return
        own = self._ignore_lines(folder)
        lines = (own, *lines) if own else lines
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            is_dir = stat_module.S_ISDIR(mode)
            if path in roots or name.startswith(".") or _ignored(path, is_dir, lines):
                continue
            if is_dir:
                yield from self._files(path, roots, lines, expected)
            elif stat_module.S_ISREG(mode) and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield path

    def _readable(self, path: str, bits: int = 0o400) -> bool:
        return not self.obedient or os.lstat(path).st_mode & bits == bits

    def _ignore_lines(self, folder: str) -> _Lines | None:
        file = os.path.join(folder, IGNORE_FILE)
        try:
            usable = stat_module.S_ISREG(os.lstat(file).st_mode) and self._readable(file)
        except OSError:
            return None
        if not usable:
            return None
        with open(file, "rb") as stream:
            lines = (os.fsdecode(line) for line in stream.read().split(b"\n"))
        # Whole pictures come to lie under this name; of those, no line fits a file's name.
        return _Lines(folder, tuple(line for line in lines if line in PATTERNS))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines in as much of gitignore's syntax as is used here: ``!``, a slash at either end, ``*``, ``?``."""

    folder: str
    lines: tuple[str, ...]

    def decide(self, path: str, is_dir: bool) -> bool | None:
        """What the last line that fits says; ``None`` if none does."""
        relative = os.path.relpath(path, self.folder)
        decision = None
        for line in self.lines:
            pattern, takes_back = line.removeprefix("!"), line.startswith("!")
            subject = relative if pattern.startswith("/") else os.path.basename(path)
            if pattern.endswith("/") and not is_dir:
                continue
            pattern = pattern.strip("/")
            if ("/" not in subject) and fnmatch.fnmatchcase(subject, pattern):
                decision = not takes_back
        return decision


def _ignored(path: str, is_dir: bool, nearest_first: tuple[_Lines, ...]) -> bool:
    for lines in nearest_first:
        if (decision := lines.decide(path, is_dir)) is not None:
            return decision
    return False


def compare(rows: list[tuple[str, str]], failures: Mapping[str, str], expected: Expected) -> dict[str, str]:
    """Path → what is wrong with it. Of what lies in folders out of reach, anything may still be known.

    :param rows: path and content hash of all that is listed.
    :param failures: path → reason.
    """
    listed = dict(rows)
    faults: dict[str, str] = {}
    for path, content in expected.pictures.items():
        if listed.get(path) != content or path in failures:
            faults[path] = f"should have {content[:8]}, {_state(path, listed, failures)}"
    for path, content in expected.either.items():
        if (listed.get(path) == content) == (path in failures):
            faults[path] = f"should have {content[:8]} or be failed, {_state(path, listed, failures)}"
    for path in expected.failed:
        if path not in failures or path in listed:
            faults[path] = f"should be failed, {_state(path, listed, failures)}"
    known = expected.pictures.keys() | expected.either.keys() | expected.failed
    for path in (listed.keys() | failures.keys()) - known:
        if any(path.startswith(f"{folder}/") for folder in expected.out_of_reach):
            continue
        faults[path] = f"should not be known, {_state(path, listed, failures)}"
    twice = [path for path, count in Counter(path for path, _ in rows).items() if count > 1]
    return faults | dict.fromkeys(twice, "is listed twice")


def compare_said(rows: Mapping[str, Said], expected: Expected) -> dict[str, str]:
    """Path → what its record has wrong of its sidecars; those without one are :func:`compare`'s."""
    return {
        path: f"its sidecars say {said}, its record {rows[path]}"
        for path, said in expected.said.items()
        if path in rows and rows[path] != said
    }


def _state(path: str, listed: Mapping[str, str], failures: Mapping[str, str]) -> str:
    # In work, and waiting for its vector, a row has none.
    return f"has {(listed.get(path) or 'none')[:8]}, failed: {failures.get(path)}"
