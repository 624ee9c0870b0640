from __future__ import annotations

import os

import pytest

from imagedbd import mounts
from imagedbd.mounts import mount_of, read_mounts

# As the kernel writes them; the fields before the hyphen vary in number.
MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /nas rw,relatime shared:2 master:1 - nfs4 10.0.0.2:/volume1 rw,vers=4.2
41 27 0:41 / /mnt/two\040words\134 rw - cifs //box/photos rw
42 27 0:42 / /home/me/remote rw,nosuid - fuse.sshfs me@box: rw,user_id=1000
43 27 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw
44 27 0:44 / /stacked rw - nfs4 10.0.0.2:/a rw
45 44 0:45 / /stacked rw - tmpfs tmpfs rw
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO.lstrip())
    monkeypatch.setattr(mounts, "MOUNTINFO", str(file))
    return read_mounts()


@pytest.mark.parametrize(
    ("path", "kind", "shared"),
    [
        ("/home/me/photos", "ext4", False),
        ("/nas", "nfs4", True),
        ("/nas/photos/2024", "nfs4", True),
        ("/nas2", "ext4", False),
        ("/mnt/two words\\/a", "cifs", True),
        ("/home/me/remote/a", "fuse.sshfs", True),
        ("/media/stick/DCIM", "fuseblk", False),
        ("/stacked/a", "tmpfs", False),
    ],
)
def test_what_a_path_lies_on(read, path, kind, shared):
    mount = mount_of(path, read)
    assert mount is not None
    assert (mount.kind, mount.is_shared) == (kind, shared)


def test_where_nothing_is_told_nothing_is_known(monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTINFO", os.devnull)
    assert read_mounts() == []
    assert mount_of("/a", []) is None


def test_the_list_of_this_machine_is_understood():
    assert mount_of("/proc/self", read_mounts()).kind == "proc"
