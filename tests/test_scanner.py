from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from loose import LOOK_UPS, loosened

from imagedbd import rules
from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import LedgerEntry, PictureState, RootState, Signature
from imagedbd.errors import StoreError
from imagedbd.ledger import Ledger, PlaceIdentity
from imagedbd.roots import RootGuard
from imagedbd.rules import IGNORE_FILE, Rules
from imagedbd.scanner import Scanner, ScanReport
from imagedbd.unread import UnreadFiles

FOREVER = 60.0
NOBODY = 65534


class World:
    """A root with its ledger, queue and scanner, in which every change is ready at once."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "root"
        self.root.mkdir()
        self.ledger = Ledger(str(base / "ledger.sqlite3"))
        self.queue = ChangeQueue(settle_s=0, settle_max_s=0)
        self.use(Rules([str(self.root)]))

    def use(self, rules: Rules) -> None:
        self.rules = rules
        self.scanner = Scanner(rules, self.ledger, self.queue, settle_s=0, confirm_s=0)

    def add(self, name: str, content: bytes = b"x") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def add_indexed(self, name: str, state: PictureState = PictureState.INDEXED) -> str:
        path = self.add(name)
        self.enter(path, state)
        return path

    def enter(self, path: str, state: PictureState = PictureState.INDEXED) -> None:
        self.ledger.put([LedgerEntry(path, Signature.of(os.lstat(path)), state)])

    def scan(self, folder: str = "/") -> ScanReport:
        return self.scanner.scan(folder)

    def queued(self) -> set[str]:
        changes = self.queue.take(100_000, timeout=0)
        for change in changes:
            self.queue.done(change)
        return {change.path for change in changes}

    def scanned(self, folder: str = "/") -> set[str]:
        self.scan(folder)
        return self.queued()


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    world.scanner.stop()
    world.ledger.close()


class TestFindingChanges:
    def test_new_pictures_are_queued_wherever_they_lie(self, world):
        names = ["a.jpg", "b/c.PNG", "b/d/e.gif", "b/new\nline'\".jpg", "not\udcffutf8/\udcfe.jpg"]
        paths = {world.add(name) for name in names}
        report = world.scan()
        assert world.queued() == paths
        assert (report.seen, report.changed, report.missing) == (5, 5, 0)

    def test_unchanged_pictures_are_not_queued(self, world):
        world.add_indexed("a.jpg")
        world.add_indexed("b/c.jpg")
        report = world.scan()
        assert world.queued() == set()
        assert (report.seen, report.changed) == (2, 0)

    def test_every_part_of_the_signature_tells_a_change(self, world):
        path = world.add_indexed("a.jpg")
        known = world.ledger.get(path)
        for part in ("inode", "size", "mtime_ns", "ctime_ns"):
            other = replace(known.signature, **{part: getattr(known.signature, part) + 1})
            world.ledger.put([replace(known, signature=other)])
            assert world.scanned() == {path}

    def test_a_device_number_alone_tells_nothing(self, world):
        path = world.add_indexed("a.jpg")
        known = world.ledger.get(path)
        world.ledger.put([replace(known, signature=replace(known.signature, device=12345))])
        assert world.scanned() == set()

    def test_an_edit_that_keeps_size_and_mtime_is_found(self, world):
        path = world.add_indexed("a.jpg")
        stat = os.lstat(path)
        Path(path).write_bytes(b"y")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert world.scanned() == {path}

    def test_states_decide_what_an_unchanged_file_needs(self, world):
        world.add_indexed("failed.jpg", PictureState.FAILED)
        waiting = world.add_indexed("waiting.jpg", PictureState.WAITING)
        pending = world.add_indexed("pending.jpg", PictureState.PENDING)
        assert world.scanned() == {pending, waiting}

    def test_a_failed_file_that_changed_is_tried_again(self, world):
        path = world.add_indexed("failed.jpg", PictureState.FAILED)
        world.add("failed.jpg", b"better")
        assert world.scanned() == {path}

    def test_a_pending_file_that_is_in_work_is_looked_at_once_more_and_no_oftener(self, world):
        path = world.add_indexed("a.jpg", PictureState.PENDING)
        world.queue.put(path, settled=True)
        (change,) = world.queue.take(1, timeout=0)
        assert world.scan().changed == 0
        world.scan()
        assert world.queue.pending == 2
        world.queue.done(change)
        assert world.queued() == {path}

    def test_a_file_that_was_looked_at_and_moved_before_the_ledger_knew_is_looked_at_again(self, world):
        world.add("keep.jpg")
        path = world.add("a/b.jpg")
        world.queue.put(path, settled=True)
        (change,) = world.queue.take(1, timeout=0)
        shutil.move(world.root / "a", world.base / "elsewhere")
        world.scan(f"{world.root}/a")
        world.queue.done(change)
        assert world.queued() == {path}

    @pytest.mark.parametrize(("age_s", "ready"), [(100, True), (0, False), (-100, False)])
    def test_only_what_has_been_at_rest_for_a_while_goes_at_once(self, world, age_s, ready):
        path = world.add("a.jpg")
        changed_at = max(os.lstat(path).st_mtime, os.lstat(path).st_ctime)
        queue = ChangeQueue(settle_s=FOREVER, settle_max_s=FOREVER)
        scanner = Scanner(world.rules, world.ledger, queue, settle_s=1, wall_clock=lambda: changed_at + age_s)
        scanner.scan()
        assert [change.path for change in queue.take(1, timeout=0)] == ([path] if ready else [])
        assert queue.pending == 1

    def test_files_dated_in_the_far_past_and_future_are_found_once(self, world):
        for year, seconds in ((1969, -1_000_000), (2100, 4_102_444_800)):
            path = world.add(f"{year}.jpg")
            os.utime(path, (seconds, seconds))
            assert world.scanned() == {path}
            world.enter(path)
        assert world.scanned() == set()

    def test_a_clock_that_jumps_neither_hides_a_file_nor_shows_one_twice(self, world):
        jumps = iter([0.0, 1e9, -1e9, 4e9, 0.0, -4e9])
        now = time.time()
        for number, jump in enumerate(jumps):
            world.scanner = Scanner(
                world.rules, world.ledger, world.queue, settle_s=1, wall_clock=lambda jump=jump: now + jump
            )
            path = world.add(f"{number}.jpg")
            assert world.scanned() == {path}
            world.enter(path)
            assert world.scanned() == set()

    def test_a_scan_of_a_folder_leaves_the_others_alone(self, world):
        inside = world.add("a/b/c.jpg")
        gone = world.add_indexed("a/gone.jpg")
        os.unlink(gone)
        world.add("ab.jpg")
        world.add("b.jpg")
        assert world.scanned(f"{world.root}/a") == {inside, gone}

    def test_a_folder_that_is_called_otherwise_by_now_is_not_scanned_by_its_former_name(
        self, world, monkeypatch
    ):
        known = world.add_indexed("Trip/a.jpg")
        for name in LOOK_UPS:
            monkeypatch.setattr(os, name, loosened(getattr(os, name), str(world.root)))
        (world.root / "Trip").rename(world.root / "trip")
        report = world.scan(f"{world.root}/Trip")
        assert world.queued() == {known}
        assert (report.seen, report.missing) == (0, 1)

    def test_links_pipes_and_devices_are_skipped(self, world):
        target = world.add_indexed("a.jpg")
        (world.root / "link.jpg").symlink_to(target)
        (world.root / "folder").symlink_to(world.base)
        (world.root / "loop").symlink_to(world.root)
        os.mkfifo(world.root / "pipe.jpg")
        report = world.scan()
        assert world.queued() == set()
        assert (report.seen, report.skipped) == (1, 2)

    def test_a_folder_that_is_reached_through_a_link_is_not_scanned(self, world):
        world.add("a/b.jpg")
        (world.root / "link").symlink_to("a")
        assert world.scanned(f"{world.root}/link") == set()


class TestMissingFiles:
    def test_deleted_files_and_folders_are_queued(self, world):
        world.add_indexed("keep.jpg")
        gone = {world.add_indexed(name) for name in ("a.jpg", "b/c.jpg", "b/d/e.jpg")}
        os.unlink(world.root / "a.jpg")
        shutil.rmtree(world.root / "b")
        report = world.scan()
        assert world.queued() == gone
        assert (report.missing, report.seen) == (3, 1)

    def test_a_folder_that_is_gone_can_be_scanned(self, world):
        world.add_indexed("keep.jpg")
        gone = world.add_indexed("b/d/e.jpg")
        shutil.rmtree(world.root / "b")
        assert world.scanned(f"{world.root}/b") == {gone}

    def test_files_that_became_links_folders_or_ignored_are_queued(self, world):
        paths = {world.add_indexed(f"{name}.jpg") for name in ("link", "folder", "ignored", "keep")}
        os.unlink(world.root / "link.jpg")
        (world.root / "link.jpg").symlink_to("keep.jpg")
        os.unlink(world.root / "folder.jpg")
        (world.root / "folder.jpg").mkdir()
        (world.root / IGNORE_FILE).write_text("ignored.jpg\n")
        assert world.scanned() == paths - {f"{world.root}/keep.jpg"}

    def test_files_in_a_folder_that_became_ignored_hidden_or_a_link_are_queued(self, world):
        paths = {world.add_indexed(f"{name}/a.jpg") for name in ("ignored", "hide", "link")}
        world.add_indexed("keep.jpg")
        (world.root / IGNORE_FILE).write_text("ignored/\n")
        (world.root / "hide").rename(world.root / ".hide")
        (world.root / "link").rename(world.base / "elsewhere")
        (world.root / "link").symlink_to(world.base / "elsewhere")
        assert world.scanned() == paths

    def test_files_of_a_root_that_was_removed_from_the_configuration_are_queued(self, world):
        path = world.add_indexed("a.jpg")
        other = world.base / "other"
        other.mkdir()
        world.use(Rules([str(other)]))
        assert world.scanned() == {path}

    def test_a_file_that_was_looked_at_before_its_root_was_removed_is_looked_at_again(self, world):
        path = world.add("a.jpg")
        world.scan()
        (change,) = world.queue.take(1, timeout=0)
        world.use(Rules([str(world.base / "other")]))
        world.scan()
        world.queue.done(change)
        assert world.queued() == {path}

    def test_files_that_were_taken_for_pictures_once_are_queued(self, world):
        path = world.add("a.xyz")
        world.enter(path)
        assert world.scanned() == {path}


class TestUnreadableFolders:
    @pytest.fixture
    def base(self):
        """A folder that another user can reach, unlike pytest's."""
        with tempfile.TemporaryDirectory() as base:
            yield Path(base)

    def run(self, base: Path, body: str) -> None:
        """In a process that is not root, for whom every folder is readable."""
        if os.geteuid() == 0:
            os.chown(base, NOBODY, NOBODY)
            body = f"os.setuid({NOBODY})\n{body}"
        run_in_a_process([], base, body)

    def test_hold_back_what_is_known_below_them(self, base):
        self.run(
            base,
            """
world = World(base)
world.add_indexed("closed/a.jpg"), world.add_indexed("closed/deeper/b.jpg"), world.add_indexed("listed/c.jpg")
gone = world.add_indexed("open/gone.jpg")
os.unlink(gone)
(world.root / "closed").chmod(0)
(world.root / "listed").chmod(0o444)
report = world.scan()
assert world.queued() == {gone}
assert report.unreadable == {
    f"{world.root}/closed": "Permission denied",
    f"{world.root}/listed/c.jpg": "Permission denied",
}
(status,) = world.scanner.roots_status()
assert status.state == "degraded" and "Permission denied" in status.reason
world.ledger.forget([gone])
for folder in ("closed", "listed"): (world.root / folder).chmod(0o700)
assert world.scanned() == set()
assert world.scanner.roots_status()[0].state == "online"
""",
        )

    def test_hold_it_back_also_from_a_scan_that_begins_below_them(self, base):
        self.run(
            base,
            """
world = World(base)
world.add_indexed("closed/deeper/b.jpg")
(world.root / "closed").chmod(0)
report = world.scan(f"{world.root}/closed/deeper")
assert world.queued() == set()
assert report.unreadable == {f"{world.root}/closed/deeper": "Permission denied"}
(world.root / "closed").chmod(0o700)
""",
        )


class TestIgnoreFiles:
    def test_that_cannot_be_read_hold_back_what_is_known_and_let_nothing_in(self, world, monkeypatch):
        known = world.add_indexed("trip/a.jpg")
        world.add("trip/new.jpg")
        ignoring = world.add("trip/.imagedbignore", b"*.png")

        def fail(file, mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO), file)

        with monkeypatch.context() as disk:
            disk.setattr("imagedbd.rules.open", fail, raising=False)
            report = world.scan()
            assert world.queued() == set()
            assert report.unreadable == {f"{world.root}/trip": f"{ignoring}: Input/output error"}
            assert f"{world.root}/trip" in world.scanner._all_unheard()
            (status,) = world.scanner.roots_status()
            assert (status.state, "1 path cannot be read" in status.reason) == ("degraded", True)
        os.unlink(known)
        assert world.scanned() == {known, f"{world.root}/trip/new.jpg"}

    def test_that_are_links_are_told(self, world):
        world.add("trip/a.jpg")
        (world.root / "trip" / ".imagedbignore").symlink_to("elsewhere")
        world.scan()
        (status,) = world.scanner.roots_status()
        assert f"{world.root}/trip/.imagedbignore is not used: it is a symbolic link" in status.reason


def run_in_a_process(prefix: list[str], base: Path, body: str) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_scanner import RootGuard, World\n"
        f"base = Path({str(base)!r})\n{body}"
    )
    command = [*prefix, sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestOfflineRoots:
    def test_a_root_that_is_missing_loses_nothing(self, world):
        world.add_indexed("a.jpg")
        world.scan()
        world.root.rename(world.base / "elsewhere")
        report = world.scan()
        assert world.queued() == set()
        assert list(report.offline) == [str(world.root)]
        assert "No such file" in report.offline[str(world.root)]

    def test_a_root_that_is_another_folder_and_empty_loses_nothing(self, world):
        world.add_indexed("a.jpg")
        world.scan()
        world.root.rename(world.base / "kept, so that its inode is not given again")
        world.root.mkdir()
        (world.root / ".directory").touch()
        assert world.scanned() == set()
        (status,) = world.scanner.roots_status()
        assert status.state is RootState.OFFLINE
        assert status.reason == "It is empty, and was not before."
        assert status.indexed == 1

    def test_a_root_whose_last_picture_was_deleted_is_emptied_and_not_offline(self, world):
        gone = world.add_indexed("a.jpg")
        world.scan()
        os.unlink(gone)
        assert world.scanned() == set(), "a root that is emptied is looked at twice"
        assert world.scanned() == {gone}
        world.ledger.forget([gone])
        world.scan()
        (status,) = world.scanner.roots_status()
        assert status.state is RootState.ONLINE

    def test_a_root_that_became_a_link_or_a_file_loses_nothing(self, world):
        world.add_indexed("a.jpg")
        os.unlink(world.root / "a.jpg")
        world.root.rmdir()
        world.root.touch()
        assert world.scanned() == set()
        world.root.unlink()
        world.root.symlink_to("/usr")
        assert world.scanned() == set()

    def test_a_root_on_another_file_system_loses_nothing(self, world):
        gone = world.add_indexed("a.jpg")
        os.unlink(gone)
        world.add("b.jpg")
        world.ledger.remember_place(str(world.root), PlaceIdentity(12345, 67890, 2))
        assert world.scanned() == set()
        (status,) = world.scanner.roots_status()
        assert status.reason == "It lies on another file system than before."

    def test_a_root_where_another_folder_of_the_same_disk_was_mounted_loses_nothing(self, world):
        gone = world.add_indexed("a.jpg")
        world.scan()
        os.unlink(gone)
        world.add("b.jpg")
        known = world.ledger.root_seen(str(world.root))
        world.ledger.remember_place(str(world.root), replace(known, inode=known.inode + 1, mounted=True))
        assert world.scanned() == set()
        (status,) = world.scanner.roots_status()
        assert status.reason == "It is not what was mounted there before."

    def test_a_root_on_another_file_system_that_holds_the_known_pictures_is_the_same(self, world):
        world.add_indexed("a.jpg")
        world.add_indexed("b.jpg")
        gone = world.add_indexed("c.jpg")
        os.unlink(gone)
        world.ledger.remember_place(str(world.root), PlaceIdentity(12345, 67890, 2))
        assert world.scanned() == {gone}
        assert world.ledger.root_seen(str(world.root)).device == os.lstat(world.root).st_dev

    def test_a_root_that_comes_back_is_online_by_itself(self, world):
        world.add_indexed("a.jpg")
        gone = world.add_indexed("b.jpg")
        world.root.rename(world.base / "elsewhere")
        assert world.scanned() == set()
        (world.base / "elsewhere").rename(world.root)
        os.unlink(gone)
        assert world.scanned() == {gone}
        assert world.scanner.roots_status()[0].state is RootState.ONLINE

    def test_an_empty_root_of_which_nothing_is_known_is_online(self, world):
        assert world.scan().offline == {}
        assert world.scanner.roots_status()[0].state is RootState.ONLINE

    def test_the_other_roots_are_scanned_all_the_same(self, world):
        other = world.base / "other"
        other.mkdir()
        world.add_indexed("a.jpg")
        world.use(Rules([str(world.root), str(other)]))
        world.root.rename(world.base / "elsewhere")
        (other / "b.jpg").touch()
        assert world.scanned() == {f"{other}/b.jpg"}

    def test_the_absence_of_a_file_proves_nothing_below_an_offline_root(self, world):
        path = world.add_indexed("a.jpg")
        guard = RootGuard(world.rules, world.ledger)
        world.add("b.jpg")
        assert guard.why_absence_is_no_proof(path) is None
        world.root.rename(world.base / "elsewhere")
        assert "is offline" in guard.why_absence_is_no_proof(path)
        assert guard.why_absence_is_no_proof("/outside/every/root.jpg") is None


class TestNestedRoots:
    def test_each_root_is_walked_once(self, world):
        inner = world.root / "x" / ".inner"
        world.use(Rules([str(world.root), str(inner)], excluded=[str(world.root / "data")]))
        world.add("data/no.jpg")
        paths = {world.add("a.jpg"), world.add("x/b.jpg"), world.add("x/.inner/c.jpg")}
        report = world.scan()
        assert world.queued() == paths
        assert report.seen == 3

    def test_a_nested_root_that_is_offline_loses_nothing_by_a_scan_of_the_outer_one(self, world):
        world.add_indexed("a.jpg")
        world.add_indexed("inner/b.jpg")
        inner = world.root / "inner"
        world.use(Rules([str(world.root), str(inner)]))
        shutil.rmtree(inner)
        for folder in ("/", str(world.root), str(inner)):
            assert world.scanned(folder) == set()

    def test_pictures_are_counted_for_the_root_that_they_belong_to(self, world):
        for name in ("a.jpg", "inner/b.jpg", "inner/c.jpg", "inner/most/d.jpg"):
            world.add_indexed(name)
        inner = world.root / "inner"
        world.use(Rules([str(world.root), str(inner), str(inner / "most")]))
        assert [status.indexed for status in world.scanner.roots_status()] == [1, 2, 1]


def may_mount() -> bool:
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and probe.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs a mount namespace")
class TestMounts:
    """Each in a process with mounts of its own, so that nothing stays behind."""

    def run(self, tmp_path: Path, body: str) -> None:
        run_in_a_process(
            ["unshare", "-m", "--propagation", "private"], tmp_path, f"world = World(base)\n{body}"
        )

    def test_a_root_that_is_unmounted_and_mounted_again_loses_nothing(self, tmp_path):
        self.run(
            tmp_path,
            """
os.chdir(base)
for command in ("truncate -s 8M disk", "mkfs.ext4 -q disk", "mount -o loop disk root"):
    subprocess.run(command.split(), check=True)
world.add_indexed("a.jpg"), world.add_indexed("b.jpg")
assert world.scanned() == set()
subprocess.run(["umount", world.root], check=True)
assert world.scanned() == set() and world.scan().offline
(world.root / "c.jpg").touch()
assert world.scanned() == set() and world.scan().offline, "the folder below the mount is another file system"
subprocess.run(["mount", "-o", "loop", base / "disk", world.root], check=True)
assert world.scanned() == set() and not world.scan().offline
os.unlink(world.root / "a.jpg")
assert world.scanned() == {str(world.root / "a.jpg")}
""",
        )

    def test_a_root_that_is_mounted_over_loses_nothing(self, tmp_path):
        self.run(
            tmp_path,
            """
world.add_indexed("a.jpg")
world.scan()
subprocess.run(["mount", "-t", "tmpfs", "none", world.root], check=True)
(world.root / "other.jpg").touch()
assert world.scanned() == set() and world.scan().offline
subprocess.run(["umount", world.root], check=True)
assert world.scanned() == set() and not world.scan().offline
""",
        )

    def test_a_disk_below_a_root_is_protected_like_a_root_until_its_folder_is_an_ordinary_one(self, tmp_path):
        self.run(
            tmp_path,
            """
disk = world.root / "disk"
disk.mkdir()
mount = lambda: subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
mount()
world.add_indexed("keep.jpg"), world.add_indexed("disk/a.jpg"), world.add_indexed("disk/b/c.jpg")
assert world.scanned() == set() and not world.scan().offline
subprocess.run(["umount", disk], check=True)
for folder in ("/", str(world.root), str(disk), str(disk / "b")):
    assert world.scanned(folder) == set(), folder
assert list(world.scan().offline) == [str(disk)]
mount()
(disk / "foreign.jpg").touch()
assert world.scanned() == set(), "another disk in the same place"
subprocess.run(["umount", disk], check=True)
a = world.add_indexed("disk/a.jpg"); world.add_indexed("disk/b/c.jpg")
assert world.scanned() == set() and not world.scan().offline
os.unlink(a)
assert world.scanned() == {a}
""",
        )

    def test_a_folder_of_the_same_disk_that_is_mounted_below_a_root_is_protected_like_a_disk(self, tmp_path):
        self.run(
            tmp_path,
            """
place, source = world.root / "place", base / "source"
place.mkdir(), source.mkdir()
mount = lambda: subprocess.run(["mount", "--bind", source, place], check=True)
mount()
world.add_indexed("keep.jpg"), (a := world.add_indexed("place/a.jpg"))
assert world.scanned() == set() and not world.scan().offline
subprocess.run(["umount", place], check=True)
for folder in ("/", str(world.root), str(place)):
    assert world.scanned(folder) == set(), folder
assert list(world.scan().offline) == [str(place)]
assert "is offline" in RootGuard(world.rules, world.ledger).why_absence_is_no_proof(a)
mount()
os.unlink(a)
world.add("place/b.jpg")
assert world.scanned() == {a, str(place / "b.jpg")}
""",
        )


class TestTheThread:
    def test_scans_everything_at_its_start(self, world):
        path = world.add("a.jpg")
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        assert world.queued() == {path}

    def test_has_queued_what_was_there_at_the_request_when_the_ticket_is_served(self, world):
        world.scanner.start()
        for number in range(20):
            path = world.add(f"{number}/a.jpg")
            ticket = world.scanner.request(os.path.dirname(path))
            assert world.scanner.wait_scanned(ticket, FOREVER)
            assert path in world.queued()
            world.enter(path)

    def test_does_not_wait_longer_than_it_may(self, world):
        assert not world.scanner.wait_scanned(world.scanner.request(), timeout=0)

    def test_scans_everything_again_after_a_while(self, world):
        world.scanner = Scanner(world.rules, world.ledger, world.queue, settle_s=0, rescan_s=0.05)
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        path = world.add("a.jpg")
        assert [change.path for change in world.queue.take(1, timeout=FOREVER)] == [path]

    def test_takes_up_another_pace_while_it_waits(self, world):
        world.scanner = Scanner(
            world.rules, world.ledger, world.queue, settle_s=0, rescan_s=1e6, unheard_s=1e6
        )
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        path = world.add("a.jpg")
        world.scanner.set_pace(0.05, 1e6)
        assert [change.path for change in world.queue.take(1, timeout=FOREVER)] == [path]

    def test_scans_by_new_rules_once_it_has_them(self, world):
        world.scanner.start()
        other = world.base / "other"
        other.mkdir()
        (other / "b.jpg").touch()
        world.scanner.set_rules(Rules([str(other)]))
        assert [change.path for change in world.queue.take(1, timeout=FOREVER)] == [f"{other}/b.jpg"]

    def test_tries_again_after_the_ledger_could_not_be_used(self, world, monkeypatch, caplog):
        monkeypatch.setattr("imagedbd.scanner._RETRY_S", 0.01)
        path = world.add("a.jpg")
        whole, failures = world.ledger.in_folder, iter([StoreError("disk full")] * 2)

        def failing(folder):
            for error in failures:
                raise error
            return whole(folder)

        monkeypatch.setattr(world.ledger, "in_folder", failing)
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        assert path in world.queued()
        assert "disk full" in caplog.text

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (StoreError("The disk is full.", "Make room."), "The disk is full. Make room."),
            (ValueError("odd"), "ValueError('odd')."),
        ],
    )
    def test_tells_why_its_scans_fail_until_one_is_complete(self, world, monkeypatch, error, told):
        monkeypatch.setattr("imagedbd.scanner._RETRY_S", 0.01)
        world.add("a.jpg")
        assert world.scanner.trouble is None
        whole, met, mended = world.ledger.in_folder, threading.Semaphore(0), threading.Event()

        def failing(folder):
            if mended.is_set():
                return whole(folder)
            met.release()
            raise error

        monkeypatch.setattr(world.ledger, "in_folder", failing)
        world.scanner.start()
        # When the second one has begun, the first is known to have failed.
        for _ in range(2):
            assert met.acquire(timeout=FOREVER)
        assert world.scanner.trouble == told
        mended.set()
        assert world.scanner.wait_scanned(1, FOREVER)
        assert world.scanner.trouble is None

    def test_stops_in_the_middle_of_a_scan_and_wakes_who_waits(self, world, monkeypatch):
        world.add("a/b.jpg")
        entered, go_on = threading.Event(), threading.Event()
        whole = world.ledger.in_folder

        def slow(folder):
            entered.set()
            go_on.wait(FOREVER)
            return whole(folder)

        monkeypatch.setattr(world.ledger, "in_folder", slow)
        world.scanner.start()
        assert entered.wait(FOREVER)
        assert world.scanner.roots_status()[0].state is RootState.SCANNING
        stopper = threading.Thread(target=world.scanner.stop)
        stopper.start()
        assert not world.scanner.wait_scanned(1, FOREVER)
        go_on.set()
        stopper.join(FOREVER)
        assert not stopper.is_alive()
        assert world.queued() == set()


class TestSuddenDisappearance:
    """Many pictures at once, or all of a root, that one scan misses and no event told of."""

    def indexed(self, world: World, count: int = 100, folder: str = "lot") -> set[str]:
        return {world.add_indexed(f"{folder}/{number}.jpg") for number in range(count)}

    def run_thread(self, world: World) -> None:
        world.scanner = Scanner(world.rules, world.ledger, world.queue, settle_s=0, confirm_s=0.3)
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)

    def is_suspicious(self, world: World) -> bool:
        return "a second scan decides" in (world.scanner.roots_status()[0].reason or "")

    def test_is_not_believed_at_once(self, world):
        self.indexed(world)
        world.add_indexed("keep.jpg")
        shutil.rmtree(world.root / "lot")
        report = world.scan()
        assert (report.missing, report.unconfirmed) == (0, 100)
        (status,) = world.scanner.roots_status()
        assert (status.state, status.indexed) == (RootState.SCANNING, 101)
        assert "100 pictures have vanished at once" in status.reason
        assert world.queued() == set()

    def test_is_believed_after_a_second_scan_for_which_those_wait_who_wait_for_a_scan(self, world):
        lot = self.indexed(world)
        world.add_indexed("keep.jpg")
        self.run_thread(world)
        shutil.rmtree(world.root / "lot")
        assert world.scanner.wait_scanned(world.scanner.request(), FOREVER)
        assert world.queued() == lot
        assert world.scanner.roots_status()[0].state is RootState.ONLINE

    def test_a_second_scan_that_comes_too_soon_decides_nothing(self, world):
        world.scanner = Scanner(world.rules, world.ledger, world.queue, settle_s=0, confirm_s=FOREVER)
        self.indexed(world)
        world.add_indexed("keep.jpg")
        shutil.rmtree(world.root / "lot")
        for _ in range(3):
            assert world.scan().unconfirmed == 100

    def test_asking_again_and_again_puts_the_second_scan_off_no_longer(self, world):
        lot = self.indexed(world)
        world.add_indexed("keep.jpg")
        self.run_thread(world)
        shutil.rmtree(world.root / "lot")
        first = world.scanner.request()
        while not world.scanner.wait_scanned(first, 0.01):
            world.scanner.request()
        assert world.queued() == lot

    def test_what_is_back_by_then_was_never_gone(self, world):
        lot = self.indexed(world)
        world.add_indexed("keep.jpg")
        self.run_thread(world)
        os.rename(world.root / "lot", world.base / "away")
        ticket = world.scanner.request(f"{world.root}/lot")
        while not self.is_suspicious(world):
            assert not world.scanner.wait_scanned(ticket, 0.01)
        os.rename(world.base / "away", world.root / "lot")
        os.unlink(min(lot))
        assert world.scanner.wait_scanned(ticket, FOREVER)
        assert world.queued() == {min(lot)}

    def test_what_else_is_missing_by_then_is_judged_for_itself(self, world):
        lot, more = self.indexed(world), self.indexed(world, 70, "more")
        world.add_indexed("keep.jpg")
        world.scan()
        shutil.rmtree(world.root / "lot")
        assert world.scan().unconfirmed == 100
        shutil.rmtree(world.root / "more")
        assert world.scan().unconfirmed == 70
        assert world.queued() == lot
        world.ledger.forget(lot)
        assert world.scanned() == more

    def test_a_scan_of_another_folder_does_not_decide(self, world):
        lot = self.indexed(world)
        keep = world.add_indexed("other/keep.jpg")
        shutil.rmtree(world.root / "lot")
        world.scan(f"{world.root}/lot")
        assert world.scanned(os.path.dirname(keep)) == set()
        assert world.scanned(f"{world.root}/lot") == lot

    def test_fewer_are_believed_at_once(self, world):
        lot = self.indexed(world, 60)
        world.add_indexed("keep.jpg")
        shutil.rmtree(world.root / "lot")
        assert world.scanned() == lot

    def test_that_empties_a_root_is_not_believed_at_once_however_few_they_were(self, world):
        lot = self.indexed(world, 3)
        world.scan()
        shutil.rmtree(world.root / "lot")
        (world.root / "lot").mkdir()
        assert world.scanned() == set()
        assert world.scanned() == lot

    def test_pictures_that_events_told_of_are_believed_at_once(self, world):
        lot = self.indexed(world)
        world.add_indexed("keep.jpg")
        shutil.rmtree(world.root / "lot")
        for path in lot:
            world.queue.put(path)
        report = world.scan()
        assert (report.missing, report.unconfirmed) == (100, 0)
        assert world.queued() == lot

    def test_pictures_that_are_there_and_ignored_from_now_on_are_queued_at_once(self, world):
        lot = self.indexed(world)
        (world.root / IGNORE_FILE).write_text("*\n")
        assert world.scanned() == lot

    def test_a_root_that_the_user_removed_is_believed_at_once(self, world):
        lot = self.indexed(world)
        world.use(Rules([]))
        assert world.scanned() == lot

    def test_of_a_nested_root_is_decided_by_scans_of_that_root(self, world):
        lot = self.indexed(world, 100, "nested/lot")
        world.add_indexed("keep.jpg"), world.add_indexed("nested/keep.jpg")
        world.use(Rules([str(world.root), str(world.root / "nested")]))
        shutil.rmtree(world.root / "nested/lot")
        assert world.scan().unconfirmed == 100
        assert world.scanned() == lot


class TestUnheardFolders:
    """What events do not cover is scanned on a timer."""

    def run_thread(self, world: World, *folders: Path) -> None:
        world.scanner = Scanner(
            world.rules,
            world.ledger,
            world.queue,
            settle_s=0,
            unheard=lambda: map(str, folders),
            unheard_s=0.05,
        )
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)

    def test_are_scanned_again_and_again_and_no_others(self, world):
        elsewhere = world.add("elsewhere/b.jpg")
        world.enter(elsewhere)
        (world.root / "unheard").mkdir()
        self.run_thread(world, world.root / "unheard")
        Path(elsewhere).unlink()
        for number in range(3):
            path = world.add(f"unheard/deep/{number}.jpg")
            # A scan that had asked the ledger before the last one was entered finds that one once more.
            while (change := world.queue.take(1, timeout=FOREVER)[0]).path != path:
                assert change.path != elsewhere
                world.queue.done(change)
            world.enter(path)
            world.queue.done(change)

    def test_that_could_not_be_read_are_scanned_again_as_well(self, world, monkeypatch):
        path = world.add("closed/a.jpg")
        whole, closed = os.scandir, [True]

        def scandir(folder):
            if closed and str(folder).endswith("/closed"):
                raise PermissionError(13, "Permission denied")
            return whole(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        self.run_thread(world)
        # It may be in the middle of one of its scans.
        deadline = time.monotonic() + FOREVER
        while (state := world.scanner.roots_status()[0].state) is RootState.SCANNING:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert state is RootState.DEGRADED
        closed.clear()
        assert [change.path for change in world.queue.take(9, timeout=FOREVER)] == [path]
        assert world.scanner.wait_scanned(world.scanner.request(), FOREVER)
        assert world.scanner.roots_status()[0].state is RootState.ONLINE


class TestFilesThatADiskDoesNotGive:
    def test_are_told_of_and_queued_again_when_they_are_due(self, world):
        path = world.add_indexed("a/b.jpg")
        now = [0.0]
        unread = UnreadFiles(10.0, lambda: now[0])
        unread.add(path, "Input/output error.")
        world.scanner = Scanner(
            world.rules, world.ledger, world.queue, settle_s=0, unheard_s=0.05, unread=unread
        )
        (status,) = world.scanner.roots_status()
        assert status.state is RootState.DEGRADED
        assert status.reason.startswith(f"1 file could not be read, e.g. {path!r}: Input/output error.")
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        assert world.queue.pending == 0
        now[0] = 10.0
        assert [change.path for change in world.queue.take(9, timeout=FOREVER)] == [path]
        unread.discard(path)
        assert world.scanner.wait_scanned(world.scanner.request(), FOREVER)
        assert world.scanner.roots_status()[0].state is RootState.ONLINE

    def test_are_tried_less_often_the_longer_it_goes_on(self):
        now = 0.0
        unread = UnreadFiles(60.0, lambda: now)
        waits = []
        for _ in range(9):
            unread.add("/a.jpg", "Input/output error.")
            began = now
            while not unread.due():
                now += 30.0
            waits.append(now - began)
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


class TestWhatIsOffline:
    def test_is_known_from_the_start_and_after_each_scan_without_a_look(self, world):
        world.add_indexed("a.jpg")
        world.root.rename(world.base / "elsewhere")
        world.scanner.start()
        assert set(world.scanner.offline) == {str(world.root)}
        assert world.scanner.wait_scanned(1, FOREVER)
        (world.base / "elsewhere").rename(world.root)
        assert world.scanner.wait_scanned(world.scanner.request(f"{world.root}/sub"), FOREVER)
        assert dict(world.scanner.offline) == {}


class TestSilentRoots:
    """A file system that never answers, made of looks that wait until they are let go."""

    @pytest.fixture
    def hang(self, monkeypatch):
        """Has what is looked for in these folders, or below them, hang."""
        folders, let_go = [], threading.Event()
        whole_scandir, whole_lstat = os.scandir, os.lstat

        def hanging(real):
            def act(path, *arguments, **named):
                if any(rules.is_within(str(path), folder) for folder in folders):
                    let_go.wait(FOREVER)
                return real(path, *arguments, **named)

            return act

        monkeypatch.setattr("os.scandir", hanging(whole_scandir))
        monkeypatch.setattr("os.lstat", hanging(whole_lstat))
        monkeypatch.setattr("imagedbd.lookout.SILENT_S", 0.2)
        monkeypatch.setattr("imagedbd.scanner.SILENT_S", 0.2)
        monkeypatch.setattr("imagedbd.scanner._STATUS_PATIENCE_S", 0.2)
        monkeypatch.setattr("imagedbd.scanner._STOP_S", 0.2)
        yield folders.append
        let_go.set()

    @pytest.fixture
    def silent(self, world) -> str:
        """A second root, with a picture."""
        silent = world.base / "silent"
        silent.mkdir()
        (silent / "deep").mkdir()
        (silent / "deep/kept.jpg").touch()
        world.enter(str(silent / "deep/kept.jpg"))
        world.use(Rules([str(world.root), str(silent)]))
        world.scan()
        return str(silent)

    def status(self, world: World, folder: str):
        return next(status for status in world.scanner.roots_status() if status.path == folder)

    def test_a_root_that_does_not_answer_is_offline_and_the_others_are_scanned(self, world, silent, hang):
        hang(silent)
        new = world.add("new.jpg")
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        assert world.queued() == {new}
        told = self.status(world, silent)
        assert told.state is RootState.OFFLINE
        assert told.reason.startswith("It has not answered since 20")
        assert self.status(world, str(world.root)).state is RootState.ONLINE
        assert silent in world.scanner.offline
        assert list(world.scanner.silent) == [silent]
        looks = [thread for thread in threading.enumerate() if thread.name.startswith("lookout")]
        assert len(looks) == 1, "whoever asks, one look hangs"

    def test_the_status_waits_for_no_ignore_file_on_a_disk_that_does_not_answer(self, world, hang):
        mounted = world.root / "mounted"
        mounted.mkdir()
        (mounted / IGNORE_FILE).symlink_to("elsewhere")
        world.scan()
        assert "is a symbolic link" in self.status(world, str(world.root)).reason
        hang(str(mounted))
        assert "has not answered" in str(world.scanner.why_offline(str(mounted)))
        told = []
        asking = threading.Thread(
            target=lambda: told.append(self.status(world, str(world.root))), daemon=True
        )
        asking.start()
        asking.join(FOREVER / 4)
        assert [status.state for status in told] == [RootState.ONLINE]

    def test_a_scan_that_falls_silent_in_the_middle_is_told_and_a_stop_leaves_it(
        self, world, silent, hang, caplog
    ):
        hang(f"{silent}/deep")
        world.scanner.start()
        deadline = time.monotonic() + FOREVER
        while world.scanner.trouble is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert world.scanner.trouble.startswith(f"{silent}/deep has not answered since 20")
        world.scanner.stop()
        assert "left behind" in caplog.text

    def test_a_scan_that_is_stopped_while_it_waits_for_an_answer_counts_for_nothing(
        self, world, silent, hang, monkeypatch
    ):
        monkeypatch.setattr("imagedbd.scanner._STOP_S", FOREVER)
        world.scanner.start()
        assert world.scanner.wait_scanned(1, FOREVER)
        hang(silent)
        monkeypatch.setattr("imagedbd.scanner.SILENT_S", FOREVER)
        monkeypatch.setattr("imagedbd.lookout.SILENT_S", FOREVER)
        ticket = world.scanner.request(silent)
        while not world.scanner._lookout._looks:
            time.sleep(0.01)
        world.scanner.stop()
        assert not world.scanner.wait_scanned(ticket, 0)
        assert not world.scanner._thread.is_alive()
