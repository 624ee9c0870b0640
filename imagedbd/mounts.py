"""Which file systems are mounted where, by the kernel's own list."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.rules import is_within

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

MOUNTINFO: Final = "/proc/self/mountinfo"

# fmt: off
_SHARED = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fuse", "gfs", "gfs2",
    "glusterfs", "gpfs", "hgfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs",
    "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})
# fmt: on
# fmt: off
_OF_THE_KERNEL = frozenset({
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
})
# fmt: on
_ITS_PLACES = frozenset({"/dev", "/proc", "/run", "/sys"})
"""``/run`` and ``/dev`` may hold disks and shares, which are folders like any other."""


@dataclass(frozen=True, slots=True)
class Mount:
    """:param line: the whole of it, which differs if anything about the mount does."""

    place: str
    kind: str
    line: str

    @property
    def is_shared(self) -> bool:
        """Whether others than this machine's kernel may change what is there: then events do not tell all.

        So may any program behind FUSE; ``fuseblk`` is a disk.
        """
        return self.kind in _SHARED or self.kind.startswith("fuse.")


def read_mounts() -> list[Mount]:
    """In the order of mounting; none where that is not told."""
    try:
        with open(MOUNTINFO, "rb") as file:
            lines = os.fsdecode(file.read()).split("\n")
    except OSError:
        return []
    return [_parsed(line) for line in lines if line]


def is_mount_point(path: str, places: Container[str]) -> bool:
    """Whether a file system begins here: also one that is bound here from elsewhere, or a subvolume.

    :param places: those of :func:`read_mounts`.
    :raises OSError: it is not there.
    """
    return path in places or os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The one that this path lies on: the deepest, and of those at one place the last."""
    holding = [mount for mount in mounts if is_within(path, mount.place)]
    deepest = max((len(mount.place) for mount in holding), default=0)
    return next((mount for mount in reversed(holding) if len(mount.place) == deepest), None)


def is_of_the_kernel(folder: str) -> bool:
    """Whether this is a file system that the kernel makes up, or the place of such ones."""
    mount = mount_of(folder, read_mounts())
    return folder in _ITS_PLACES or (mount is not None and mount.kind in _OF_THE_KERNEL)


def _parsed(line: str) -> Mount:
    """See proc_pid_mountinfo(5): the fifth field is the place, and the type follows a lone hyphen."""
    fields = line.split(" ")
    place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(place, fields[fields.index("-", 6) + 1], line)
