"""Whether a root is really there: what decides if an absent file is a deleted one.

An unplugged disk, a share that did not mount and an empty mount point all look like a great deletion.
"""

from __future__ import annotations

import os
import stat as stat_module
from dataclasses import replace
from typing import TYPE_CHECKING

from imagedbd.ledger import PlaceIdentity
from imagedbd.mounts import read_mounts
from imagedbd.rules import is_within, outermost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagedbd.ledger import Ledger
    from imagedbd.rules import Rules

_SAMPLE = 64
"""Known pictures that are looked for on a file system that is not the one remembered."""


class RootGuard:
    """Knows roots, and file systems mounted below them, by what the ledger remembers.

    Safe for any number of threads; reads the disk at every call and keeps nothing in between.
    """

    def __init__(self, rules: Rules, ledger: Ledger) -> None:
        self._rules = rules
        self._ledger = ledger

    def why_offline(self, place: str) -> str | None:
        """Why nothing may be concluded from what is absent below a root or mount point.

        :returns: the end of a sentence that begins with "it"; ``None`` if the place is there.
        """
        try:
            identity = _identity(place)
            empty = _is_empty(place)
        except _NotAFolderError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if empty and not self._is_the_very_folder(place, identity) and self._ledger.holds_any(place):
            return "is empty, and was not before"
        return self._why_unfamiliar(place, identity)

    def why_absence_is_no_proof(self, path: str) -> str | None:
        """Why a file that cannot be found may still be there; ``None`` if it is gone for good.

        :returns: the reason, as a sentence. A path outside every root is protected by nothing.
        """
        for place in self.places_of([path]):
            if (reason := self.why_offline(place)) is not None:
                return f"{place} is offline: it {reason}."
        return None

    def places_of(self, paths: Iterable[str]) -> list[str]:
        """The roots of these paths, and the mount points below them in which any of them lies; each once."""
        by_root: dict[str, list[str]] = {}
        for path in paths:
            if (root := self._rules.root_of(path)) is not None:
                by_root.setdefault(root, []).append(path)
        places = []
        for root, within in by_root.items():
            mounts = self.mounts_below(root)
            places += [root, *(m for m in mounts if any(is_within(path, m) for path in within))]
        return places

    def mounts_below(self, root: str) -> list[str]:
        """The mount points seen below this root that belong to it, and are not ignored."""
        places = ((place, self._rules.folder(place)) for place in self._ledger.places_under(root))
        return [place for place, rules in places if rules.root == root and rules.verdict.may_be_ok]

    def is_deleted(self, place: str) -> bool:
        """Whether a place below a root is gone for good, as far as anybody cares.

        It was no mount point, but a subvolume or a plain folder; or no picture of it is known.
        """
        if os.path.lexists(place):
            return False
        known = self._ledger.root_seen(place)
        return known is None or not known.mounted or not self._ledger.holds_any(place)

    def remember(self, place: str) -> None:
        """Note the file system that is now at a root or mount point, which is online.

        A place that has gone again meanwhile is left as it was remembered.
        """
        try:
            identity = replace(_identity(place), mounted=_is_mounted(place))
        except (_NotAFolderError, OSError):
            return
        if identity != self._ledger.root_seen(place):
            self._ledger.remember_place(place, identity)

    def _is_the_very_folder(self, place: str, identity: PlaceIdentity) -> bool:
        """Whether this is the folder that was seen before: then what is not in it was taken out of it.

        An empty mount point, or a folder made anew, is another one.
        """
        known = self._ledger.root_seen(place)
        return known is not None and _same_file_system(known, identity) and known.inode == identity.inode

    def _why_unfamiliar(self, place: str, identity: PlaceIdentity) -> str | None:
        """Why this is not what was there before, nor holds what that held.

        Device numbers change with a reboot and file systems with a new disk: the pictures decide. So they
        do where a folder of the same disk is bound to this place, or was.
        """
        known = self._ledger.root_seen(place)
        if known is None:
            return None
        if not _same_file_system(known, identity):
            reason = "lies on another file system than before"
        elif known.inode == identity.inode:
            return None
        elif known.mounted:
            reason = "is not what was mounted there before"
        elif _is_mounted(place):
            reason = "is hidden by what was mounted there"
        else:
            return None
        return None if self._holds_what_is_known(place) else reason

    def _holds_what_is_known(self, place: str) -> bool:
        # What lies on other file systems says nothing of this one.
        inner = outermost([*self._ledger.places_under(place), *self._rules.nested_roots(place)])
        sample = self._ledger.sample(place, _SAMPLE, without=inner)
        found = sum(_is_there(e.path, e.signature.size, e.signature.mtime_ns) for e in sample)
        return 2 * found >= len(sample)


class _NotAFolderError(Exception):
    pass


def _identity(place: str) -> PlaceIdentity:
    stat = os.lstat(place)
    if stat_module.S_ISLNK(stat.st_mode):
        raise _NotAFolderError("has become a symbolic link")
    if not stat_module.S_ISDIR(stat.st_mode):
        raise _NotAFolderError("is no folder any more")
    if os.path.realpath(place) != place:
        raise _NotAFolderError("lies behind a symbolic link now")
    return PlaceIdentity(stat.st_dev, os.statvfs(place).f_fsid, stat.st_ino)


def _is_mounted(place: str) -> bool:
    """By the kernel's list: a subvolume that nobody mounted is a folder, which may be deleted."""
    return any(mount.place == place for mount in read_mounts())


def _same_file_system(known: PlaceIdentity, now: PlaceIdentity) -> bool:
    if known.file_system and now.file_system:
        return known.file_system == now.file_system
    return known.device == now.device


def _is_empty(place: str) -> bool:
    """Whether nothing is there but what a desktop or ``mkfs`` leaves in any folder."""
    with os.scandir(place) as entries:
        return all(entry.name.startswith(".") or entry.name == "lost+found" for entry in entries)


def _is_there(path: str, size: int, mtime_ns: int) -> bool:
    try:
        stat = os.lstat(path)
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)
