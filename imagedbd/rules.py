"""Which files are indexed: one answer for the scanner, the watcher, the indexer and ``imagedb why``.

A path belongs to the deepest root that holds it, and only what lies below that root counts: a root may
itself be hidden, or lie in a folder that the rules of another root ignore.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat as stat_module
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from imagedbd.formats import PICTURE_SUFFIXES
from imagedbd.sidecars import is_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log = logging.getLogger(__name__)

IGNORE_FILE = ".imagedbignore"
_IGNORE_FILE_MAX_BYTES = 1 << 20
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
"""What says that there is no file of that name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a file is indexed or a folder is entered.

    :param reason: why not, as the end of a sentence that begins with "it".
    :param rule: what exactly says so: a pattern with its place, a folder, a limit.
    :param unsure: nobody can tell at the moment: nothing is taken in, and what is known stays.
    """

    ok: bool
    reason: str | None = None
    rule: str | None = None
    unsure: bool = False

    @property
    def may_be_ok(self) -> bool:
        return self.ok or self.unsure


_YES = Verdict(ok=True)


def _no(reason: str, rule: str | None = None) -> Verdict:
    return Verdict(ok=False, reason=reason, rule=rule)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line in gitignore syntax.

    :param ignores: False if the line takes back (``!``) what others ignore.
    :param place: where it stands, e.g. ``/pictures/.imagedbignore:3: *.tmp.jpg``.
    """

    regex: re.Pattern[str]
    ignores: bool
    place: str


@dataclass(frozen=True, slots=True)
class _Patterns:
    """The patterns of one source, applied to paths relative to a folder."""

    base: str
    patterns: tuple[_Pattern, ...]

    def decide(self, path: str, *, is_dir: bool) -> Verdict | None:
        """What the last matching pattern says of a path below ``base``; ``None`` if no pattern matches."""
        relative = path[len(self.base.rstrip("/")) + 1 :]
        subject = f"{relative}/" if is_dir else relative
        for pattern in reversed(self.patterns):
            if pattern.regex.match(subject):
                return _no("is ignored", pattern.place) if pattern.ignores else _YES
        return None


@dataclass(frozen=True, slots=True)
class _IgnoreFile:
    """:param version: inode, size, and times of change; another one has it read again.
    :param unused: why it is not followed, as the end of a sentence.
    """

    version: tuple[int, int, int, int]
    patterns: _Patterns
    unused: str | None


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The rules as they stand in one folder: what a walk carries with it from folder to folder.

    :param root: the root that the folder belongs to; ``None`` outside all of them.
    :param verdict: whether the folder is entered at all.
    """

    path: str
    root: str | None
    verdict: Verdict
    _rules: Rules
    _patterns: tuple[_Patterns, ...] = ()

    def folder(self, name: str) -> FolderRules:
        """The rules in a folder that lies in this one. A nested root there begins rules of its own."""
        path = os.path.join(self.path, name)
        if path in self._rules.roots:
            return self._rules.folder(path)
        verdict = self._folder_verdict(name, path)
        if not verdict.ok:
            return FolderRules(path, self.root, verdict, self._rules)
        return self._rules.with_own_patterns(path, self.root, self._patterns)

    def file(self, name: str, stat: os.stat_result | None = None) -> Verdict:
        """Whether this file is indexed.

        :param stat: what ``lstat`` says of it, to judge its kind and size as well.
        """
        if not self.verdict.may_be_ok:
            return self.verdict
        if name.startswith("."):
            return _no("is hidden", name)
        suffix = os.path.splitext(name)[1].lower()
        if is_sidecar(name):
            return _no("is a sidecar: what it says counts for the pictures of its name", suffix)
        if suffix not in self._rules.suffixes:
            return _no("has no picture's suffix", suffix or None)
        if stat is not None and not (verdict := self._rules.kind_and_size(stat)).ok:
            return verdict
        return self._decide(os.path.join(self.path, name), is_dir=False)

    def _folder_verdict(self, name: str, path: str) -> Verdict:
        if not self.verdict.may_be_ok:
            return self.verdict
        if name.startswith("."):
            return _no("lies in a hidden folder", path)
        if path in self._rules.excluded:
            return _no("lies in a folder of imagedbd's own", path)
        return self._decide(path, is_dir=True)

    def _decide(self, path: str, *, is_dir: bool) -> Verdict:
        if self.verdict.unsure:
            return self.verdict
        for patterns in self._patterns:
            verdict = patterns.decide(path, is_dir=is_dir)
            if verdict is not None:
                return verdict
        return _YES


class Rules:
    """Everything that decides which files are indexed. Unchanging, but for the ignore files on disk.

    Ignore files have gitignore syntax. Of those from a file's folder up to its root the nearest one with
    a matching pattern decides, then ``ignore_globs``. As in git, what lies in an ignored folder stays
    ignored. Safe for any number of threads.

    :param roots: absolute, normalised, symlinks resolved.
    :param excluded: folders that are never entered (the daemon's data), in the same form.
    :param ignore_globs: patterns in gitignore syntax, relative to each root.
    :param max_file_size: in bytes; ``None`` means any.
    :param suffixes: of pictures, lower-case, with their dot.
    :raises ValueError: a root or excluded folder is not absolute and normalised, or a glob is no pattern.
    """

    def __init__(
        self,
        roots: Iterable[str],
        excluded: Iterable[str] = (),
        ignore_globs: Sequence[str] = (),
        max_file_size: int | None = None,
        suffixes: frozenset[str] = PICTURE_SUFFIXES,
    ) -> None:
        self.roots = tuple(dict.fromkeys(_checked(root) for root in roots))
        self.excluded = frozenset(_checked(folder) for folder in excluded)
        self.max_file_size = max_file_size
        self.suffixes = suffixes
        self._deepest_first = sorted(self.roots, key=len, reverse=True)
        parsed = (_parsed(glob, f"ignore: {glob}") for glob in ignore_globs)
        self._globs = tuple(pattern for pattern in parsed if pattern)
        self._ignore_files: dict[str, _IgnoreFile] = {}
        self._unread_ignore_files: dict[str, str] = {}

    def root_of(self, path: str) -> str | None:
        """The deepest root that is this path or holds it."""
        return next((root for root in self._deepest_first if is_within(path, root)), None)

    def nested_roots(self, folder: str) -> list[str]:
        """The roots anywhere below this folder."""
        return [root for root in self.roots if root != folder and is_within(root, folder)]

    def folder(self, path: str) -> FolderRules:
        """The rules as they stand in this folder, whether it is there or not."""
        root = self.root_of(path)
        if root is None:
            return FolderRules(path, None, _no("lies outside every root"), self)
        rules = self._root(root)
        for name in path[len(root) :].split("/"):
            if name:
                rules = rules.folder(name)
        return rules

    def verdict(self, path: str, *, is_dir: bool = False, stat: os.stat_result | None = None) -> Verdict:
        """Whether this file is indexed, or with ``is_dir`` this folder entered, by its path.

        Reads no more than the ignore files on the way, and none that is unchanged.

        :param stat: what ``lstat`` says of the file, to judge its kind and size as well.
        """
        if is_dir:
            return self.folder(path).verdict
        parent, name = os.path.split(path)
        return self.folder(parent).file(name, stat)

    def explain(self, path: str) -> Verdict:
        """As :meth:`verdict`, with all that the file system knows: for a person who asks about one file."""
        try:
            stat = os.lstat(path)
        except OSError as error:
            return _no(f"cannot be looked at: {error.strerror}")
        parent = os.path.dirname(path)
        real_parent = os.path.realpath(parent)
        if real_parent != parent and self.root_of(path) is not None:
            return _no("is reached through a symbolic link", f"{parent} is {real_parent}")
        return self.verdict(path, is_dir=stat_module.S_ISDIR(stat.st_mode), stat=stat)

    def concerns(self, path: str) -> bool:
        """Whether an event at this path may matter: a quick look at the name that opens nothing.

        Never False for a file that :meth:`verdict` accepts or may have accepted before, or for a sidecar.
        """
        return is_sidecar(path) or os.path.splitext(path)[1].lower() in self.suffixes

    def kind_and_size(self, stat: os.stat_result) -> Verdict:
        """What ``lstat`` alone has to say against a file."""
        if stat_module.S_ISLNK(stat.st_mode):
            return _no("is a symbolic link; what it points to is indexed where that lies below a root itself")
        if not stat_module.S_ISREG(stat.st_mode):
            return _no("is not a regular file")
        if self.max_file_size is not None and stat.st_size > self.max_file_size:
            return _no(
                "is too large",
                f"{stat.st_size} bytes, the limit is {self.max_file_size} (setting max_file_size)",
            )
        return _YES

    def ignore_faults(self) -> dict[str, str]:
        """Ignore files that were met and are not followed as they stand → why, as the end of a sentence."""
        unused = {f: known.unused for f, known in tuple(self._ignore_files.items()) if known.unused}
        return unused | dict(self._unread_ignore_files)

    def unread_ignore_files(self) -> list[str]:
        """Those of them that could not be read, and may be at another time."""
        return list(self._unread_ignore_files)

    def with_own_patterns(
        self, folder: str, root: str | None, patterns: tuple[_Patterns, ...]
    ) -> FolderRules:
        """The rules in a folder that is entered: those of its own ignore file go before these."""
        try:
            own = self._ignore_file(folder)
        except OSError as error:
            file = os.path.join(folder, IGNORE_FILE)
            reason = f"lies in a folder whose {IGNORE_FILE} cannot be read"
            rule = f"{file}: {error.strerror or error}"
            return FolderRules(folder, root, Verdict(ok=False, reason=reason, rule=rule, unsure=True), self)
        return FolderRules(folder, root, _YES, self, (own, *patterns) if own else patterns)

    def _ignore_file(self, folder: str) -> _Patterns | None:
        """The patterns of this folder's ignore file, read again only when it has changed.

        :raises OSError: it cannot be read, and was not read before either.
        """
        file = os.path.join(folder, IGNORE_FILE)
        known = self._ignore_files.get(file)
        try:
            stat = os.lstat(file)
            version = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if known is None or known.version != version:
                known = _read_ignore_file(folder, file, stat, version)
                self._ignore_files[file] = known
        except OSError as error:
            if error.errno in _NO_FILE:
                self._ignore_files.pop(file, None)
                self._unread_ignore_files.pop(file, None)
                return None
            if error.errno == errno.EACCES and not os.access(folder, os.X_OK):
                # Nor can anything else in this folder be looked at, which others tell.
                return known.patterns if known else None
            self._note_unread(file, error, follows_former=known is not None)
            if known is None:
                raise
        else:
            self._unread_ignore_files.pop(file, None)
        return known.patterns

    def _note_unread(self, file: str, error: OSError, *, follows_former: bool) -> None:
        reason = f"cannot be read ({error.strerror or error})"
        reason += ", and what it said before goes on to hold" if follows_former else ""
        if self._unread_ignore_files.get(file) != reason:
            _log.warning("%s %s", file, reason)
        self._unread_ignore_files[file] = reason

    def _root(self, root: str) -> FolderRules:
        for folder in self.excluded:
            if is_within(root, folder):
                return FolderRules(root, root, _no("lies in a folder of imagedbd's own", folder), self)
        return self.with_own_patterns(root, root, (_Patterns(root, self._globs),))


def absolute_patterns(globs: Iterable[str], roots: Iterable[str]) -> dict[str, str]:
    """Patterns that are absolute paths of what lies in a root, and match nothing → what is meant by them.

    A pattern is a path from each root on.
    """
    found = {}
    deepest_first = sorted(roots, key=len, reverse=True)
    for glob in globs:
        sign = "!" if glob.startswith("!") else ""
        path = os.path.expanduser(glob.removeprefix(sign))
        root = next((root for root in deepest_first if root != "/" and is_within(path, root)), None)
        if root is not None:
            below = path[len(root) :]
            found[glob] = sign + (below if below.strip("/") else "/**")
    return found


def pattern_in_toml(folder: str, root: str) -> str:
    """The list of one pattern, as a settings file has it, that ignores this folder of the root."""
    literal = re.sub(r"([\\*?\[\]])", r"\\\1", os.path.relpath(folder, root))
    # What is not UTF-8 has no place in such a file.
    pattern = re.sub("[\ud800-\udfff]", "?", literal)
    return json.dumps([f"/{pattern}/"], ensure_ascii=False)


def is_within(path: str, folder: str) -> bool:
    """Whether a path is this folder or lies anywhere below it; both absolute and normalised."""
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def outermost(folders: Iterable[str]) -> list[str]:
    """These folders without those that lie in others of them."""
    kept: list[str] = []
    # In this order, a folder comes right before all that lies in it.
    for folder in sorted(folders, key=lambda folder: folder.replace("/", "\0")):
        if not (kept and is_within(folder, kept[-1])):
            kept.append(folder)
    return kept


def _checked(folder: str) -> str:
    if not folder.startswith("/") or os.path.normpath(folder) != folder:
        raise ValueError(f"not an absolute, normalised path: {folder!r}")
    return folder


def _parsed(line: str, place: str) -> _Pattern | None:
    """A line in gitignore syntax; ``None`` for a comment, a blank, and what git passes over.

    pathspec's own matching lets a pattern speak for all that lies below what it matches. A walk asks
    for each folder on the way, so here a pattern speaks for the very path: then one that takes a folder
    back takes back no more than git would.

    :raises ValueError: the line is no pattern.
    """
    # With git, two stars at the end stand for all that is in the folder; with pathspec for the folder too.
    line = re.sub(r"(/\*\*)(/?\s*)$", r"\1/*\2", line)
    try:
        regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(line)
    except GitIgnorePatternError as error:
        raise ValueError(f"not a pattern: {line!r}") from error
    if regex is None or ignores is None:
        return None
    if not regex.startswith("^"):
        # Shortcuts of pathspec's, for any folder and for anything at all.
        regex = ".*/" if regex.endswith("/)") else ".*"
    try:
        # pathspec hands ranges on as they are: `[z-a]` matches nothing with git, and is an error to `re`.
        return _Pattern(re.compile(rf"{regex}\Z", re.DOTALL), ignores, place)
    except re.error as error:
        raise ValueError(f"not a pattern: {line!r}") from error


def _read_ignore_file(
    folder: str, file: str, stat: os.stat_result, version: tuple[int, int, int, int]
) -> _IgnoreFile:
    """:raises OSError: it cannot be read."""
    if unused := _why_unused(stat):
        _log.warning("%s %s", file, unused)
        return _IgnoreFile(version, _Patterns(folder, ()), unused)
    patterns: list[_Pattern] = []
    for number, line in enumerate(_ignore_lines(file), start=1):
        try:
            pattern = _parsed(line, f"{file}:{number}: {line.strip()}")
        except ValueError as error:
            _log.warning("%s, line %d is left out: %s", file, number, error)
        else:
            patterns += [pattern] if pattern else []
    return _IgnoreFile(version, _Patterns(folder, tuple(patterns)), None)


def _why_unused(stat: os.stat_result) -> str | None:
    # Only a regular file is opened: a FIFO of that name would never answer.
    if stat_module.S_ISLNK(stat.st_mode):
        return "is not used: it is a symbolic link, and has to be the file itself"
    if not stat_module.S_ISREG(stat.st_mode):
        return "is not used: it is no regular file"
    if stat.st_size > _IGNORE_FILE_MAX_BYTES:
        return f"is not used: it is larger than {_IGNORE_FILE_MAX_BYTES} bytes"
    return None


def _ignore_lines(file: str) -> list[str]:
    with open(file, "rb") as stream:
        content = stream.read(_IGNORE_FILE_MAX_BYTES)
    return [os.fsdecode(line) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
