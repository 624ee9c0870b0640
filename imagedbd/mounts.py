"""What is mounted where, and whether events tell all that happens there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from imagedbd.rules import is_within

MOUNT_TABLE: Final = "/proc/self/mountinfo"

_SHARED_KINDS: Final = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fuse", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs",
    "vboxsf", "virtiofs",
})  # fmt: skip
"""File systems that others than this kernel's processes change: inotify keeps silent about those."""


@dataclass(frozen=True, slots=True)
class Mount:
    """:param line: all that the kernel says of it; another line is another mount.
    :param kind: of file system, e.g. ``ext4``.
    """

    point: str
    kind: str
    line: str

    @property
    def is_shared(self) -> bool:
        """Whether it may change without an event."""
        return self.kind in _SHARED_KINDS or self.kind.startswith("fuse.")


def read_mounts() -> tuple[Mount, ...]:
    """All mounts that this process sees, in the order of mounting; none where there is no table."""
    try:
        with open(MOUNT_TABLE, "rb") as file:
            lines = os.fsdecode(file.read()).split("\n")
    except OSError:
        return ()
    return tuple(_parsed(line) for line in lines if line)


def mounts_at_and_below(folder: str) -> frozenset[Mount]:
    return frozenset(mount for mount in read_mounts() if is_within(mount.point, folder))


def shared_places(folder: str) -> dict[str, str]:
    """Where events below this folder do not tell all: the folder itself or mount points in it, with kinds."""
    mounts = read_mounts()
    # Of two at the same point the later one is on top.
    around = [mount for mount in mounts if is_within(folder, mount.point)]
    holding = max(reversed(around), key=lambda mount: len(mount.point), default=None)
    if holding is not None and holding.is_shared:
        return {folder: holding.kind}
    top = {mount.point: mount for mount in mounts if is_within(mount.point, folder)}
    return {point: mount.kind for point, mount in top.items() if mount.is_shared}


def _parsed(line: str) -> Mount:
    """The fifth field is the point, its blanks and backslashes as octal escapes; the kind follows a dash."""
    fields = line.split(" ")
    point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(point, fields[fields.index("-") + 1], line)
