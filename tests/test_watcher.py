from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from renames import exchange

from imagedbd import mounts
from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import LedgerEntry, PictureState, RootState, Signature
from imagedbd.ledger import Ledger
from imagedbd.roots import RootGuard
from imagedbd.rules import IGNORE_FILE, Rules, outermost
from imagedbd.scanner import Scanner
from imagedbd.tree_watch import TreeWatch
from imagedbd.watcher import Watcher, WatchStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 30.0


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Wait for it, but not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def may_mount() -> bool:
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and probe.returncode == 0


class Listener:
    """A watcher with what it has said so far."""

    def __init__(
        self, rules: Rules, *, check_s: float = 0.2, answers: Callable[[str], bool] = lambda _: True
    ) -> None:
        self.queue = ChangeQueue(settle_s=0, settle_max_s=0)
        self.doubts: list[tuple[str, str]] = []
        self.hints: set[str] = set()
        self.watcher = Watcher(
            rules,
            self.queue,
            lambda *doubt: self.doubts.append(doubt),
            answers=answers,
            check_s=check_s,
        )

    def heard(self) -> set[str]:
        """Every path that was hinted at up to now."""
        for change in self.queue.take(100_000, timeout=0):
            self.hints.add(change.path)
            self.queue.done(change)
        return self.hints

    def hears_of(self, *paths: str | Path) -> bool:
        return becomes_true(lambda: self.heard() >= set(map(str, paths)))

    def doubts_folder(self, folder: str | Path) -> bool:
        return becomes_true(lambda: str(folder) in [doubted for doubted, _ in self.doubts])

    def status(self) -> WatchStatus:
        (status,) = self.watcher.status()
        return status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def start(*roots: Path, **options: object) -> Listener:
        listener = Listener(Rules(map(str, roots), **options))
        listener.watcher.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.watcher.stop()


class TestHints:
    @pytest.mark.parametrize("name", ["a.jpg", "with space.JPG", "new\nline'\".png", "not\udcffutf8.gif"])
    def test_a_new_file_is_heard_of_whatever_its_name(self, root, listen, name):
        listener = listen(root)
        (root / name).write_bytes(b"x")
        assert listener.hears_of(root / name)

    def test_an_overwrite_in_place_is_heard_of(self, root, listen):
        (root / "a.jpg").write_bytes(b"x")
        listener = listen(root)
        (root / "a.jpg").write_bytes(b"y")
        assert listener.hears_of(root / "a.jpg")

    def test_a_file_that_is_still_being_written_is_heard_of(self, root, listen):
        listener = listen(root)
        with open(root / "a.jpg", "wb") as file:
            file.write(b"x")
            file.flush()
            assert listener.hears_of(root / "a.jpg")

    def test_an_atomic_save_is_heard_of_by_its_last_name(self, root, listen):
        (root / "a.jpg").write_bytes(b"x")
        listener = listen(root)
        (root / ".a.jpg.tmp").write_bytes(b"y")
        (root / ".a.jpg.tmp").rename(root / "a.jpg")
        assert listener.hears_of(root / "a.jpg")
        assert listener.heard() == {str(root / "a.jpg")}

    def test_a_file_linked_or_moved_in_is_heard_of(self, root, tmp_path, listen):
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(b"x")
        listener = listen(root)
        os.link(tmp_path / "a.jpg", root / "a.jpg")
        (tmp_path / "b.jpg").rename(root / "b.jpg")
        assert listener.hears_of(root / "a.jpg", root / "b.jpg")

    def test_both_ends_of_a_move_are_heard_of(self, root, tmp_path, listen):
        other = tmp_path / "other"
        other.mkdir()
        for name in ("a.jpg", "b.jpg"):
            (root / name).write_bytes(b"x")
        listener = listen(root, other)
        (root / "a.jpg").rename(root / "c.jpg")
        (root / "b.jpg").rename(other / "b.jpg")
        assert listener.hears_of(root / "a.jpg", root / "c.jpg", root / "b.jpg", other / "b.jpg")

    def test_a_deleted_a_touched_and_a_chmodded_file_is_heard_of(self, root, listen):
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (root / name).write_bytes(b"x")
        listener = listen(root)
        (root / "a.jpg").unlink()
        os.utime(root / "b.jpg", (1, 1))
        (root / "c.jpg").chmod(0o600)
        assert listener.hears_of(root / "a.jpg", root / "b.jpg", root / "c.jpg")

    def test_reading_is_not_heard_of(self, root, listen):
        (root / "a.jpg").write_bytes(b"x")
        listener = listen(root)
        (root / "a.jpg").read_bytes()
        os.listdir(root)
        (root / "b.jpg").touch()
        assert listener.hears_of(root / "b.jpg")
        assert listener.heard() == {str(root / "b.jpg")}

    def test_what_the_rules_leave_out_is_not_heard_of_and_not_watched(self, root, listen):
        for folder in (".hidden", "ignored/deep", "data", "nested", "seen/deep"):
            (root / folder).mkdir(parents=True)
        (root / IGNORE_FILE).write_text("ignored/\n")
        listener = listen(root, excluded=[str(root / "data")])
        for name in (".hidden/a.jpg", "ignored/deep/a.jpg", "data/a.jpg", ".a.jpg", "a.txt"):
            (root / name).touch()
        (root / "seen/deep/b.jpg").touch()
        assert listener.hears_of(root / "seen/deep/b.jpg")
        assert listener.heard() == {str(root / "seen/deep/b.jpg")}
        assert listener.status().folders == 4

    def test_a_nested_root_is_watched_once(self, root, listen):
        (root / "inner/deep").mkdir(parents=True)
        listener = listen(root, root / "inner")
        assert [status.folders for status in listener.watcher.status()] == [1, 2]

    def test_links_are_not_followed(self, root, tmp_path, listen):
        (tmp_path / "outside").mkdir()
        (root / "link").symlink_to(tmp_path / "outside")
        listener = listen(root)
        (tmp_path / "outside/a.jpg").touch()
        (root / "b.jpg").touch()
        assert listener.hears_of(root / "b.jpg")
        assert listener.heard() == {str(root / "b.jpg")}


class TestDoubts:
    def test_a_new_folder_is_doubted_and_watched(self, root, listen):
        listener = listen(root)
        (root / "a/b/c").mkdir(parents=True)
        assert listener.doubts_folder(root / "a")
        assert becomes_true(lambda: listener.status().folders == 4)
        (root / "a/b/c/d.jpg").touch()
        assert listener.hears_of(root / "a/b/c/d.jpg")

    def test_both_names_of_a_renamed_folder_are_doubted_and_the_new_one_watched(self, root, listen):
        (root / "a/deep").mkdir(parents=True)
        listener = listen(root)
        (root / "a").rename(root / "b")
        assert listener.doubts_folder(root / "a")
        assert listener.doubts_folder(root / "b")
        (root / "b/deep/c.jpg").touch()
        assert listener.hears_of(root / "b/deep/c.jpg")
        assert str(root / "a/deep/c.jpg") not in listener.heard()

    def test_two_folders_that_swap_names_in_one_step_are_both_doubted_and_watched(self, root, listen):
        (root / "a/deep").mkdir(parents=True)
        (root / "b").mkdir()
        listener = listen(root)
        exchange(root / "a", root / "b")
        assert listener.doubts_folder(root / "a")
        assert listener.doubts_folder(root / "b")
        assert becomes_true(lambda: listener.status().folders == 4)
        (root / "a/c.jpg").touch()
        (root / "b/deep/d.jpg").touch()
        assert listener.hears_of(root / "a/c.jpg", root / "b/deep/d.jpg")

    def test_a_folder_moved_out_is_doubted_and_no_longer_watched(self, root, tmp_path, listen):
        (root / "a/deep").mkdir(parents=True)
        listener = listen(root)
        (root / "a").rename(tmp_path / "a")
        assert listener.doubts_folder(root / "a")
        (tmp_path / "a/deep/b.jpg").touch()
        (root / "c.jpg").touch()
        assert listener.hears_of(root / "c.jpg")
        assert listener.heard() == {str(root / "c.jpg")}
        assert listener.status().folders == 1

    @pytest.mark.skipif(not may_mount(), reason="needs a mount namespace")
    def test_a_folder_that_is_there_twice_is_heard_of_under_both_names(self, root, tmp_path):
        """A bind mount: for the kernel it is one folder with one watch."""
        program = (
            "import subprocess, sys, time\n"
            "from imagedbd.rules import Rules\n"
            "from imagedbd.watcher import Watcher\n"
            "from imagedbd.change_queue import ChangeQueue\n"
            "root = sys.argv[1]\n"
            "subprocess.run(['mount', '--bind', f'{root}/a', f'{root}/b'], check=True)\n"
            "queue = ChangeQueue(0, 0)\n"
            "watcher = Watcher(Rules([root]), queue, print)\n"
            "watcher.start()\n"
            "open(f'{root}/a/deep/new.jpg', 'w').close()\n"
            "time.sleep(0.5)\n"
            "print(sorted(change.path[len(root):] for change in queue.take(9, 30)))\n"
            "watcher.stop()\n"
        )
        (root / "a/deep").mkdir(parents=True)
        (root / "b").mkdir()
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", program, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout == "['/a/deep/new.jpg', '/b/deep/new.jpg']\n", done.stderr

    def test_a_removed_folder_is_doubted(self, root, listen):
        (root / "a/deep").mkdir(parents=True)
        listener = listen(root)
        shutil.rmtree(root / "a")
        assert listener.doubts_folder(root / "a")
        assert becomes_true(lambda: listener.status().folders == 1)

    def test_changed_ignore_rules_put_the_whole_root_in_doubt(self, root, listen):
        (root / "a/b").mkdir(parents=True)
        listener = listen(root)
        (root / "a" / IGNORE_FILE).write_text("b/\n")
        assert listener.doubts_folder(root)
        assert becomes_true(lambda: listener.status().folders == 2)

    def test_new_rules_put_all_their_roots_in_doubt_and_only_these_are_watched(self, root, tmp_path, listen):
        other = tmp_path / "other"
        other.mkdir()
        listener = listen(root)
        listener.watcher.set_rules(Rules([str(other)]))
        assert listener.doubts_folder(other)
        (root / "a.jpg").touch()
        (other / "b.jpg").touch()
        assert listener.hears_of(other / "b.jpg")
        assert listener.heard() == {str(other / "b.jpg")}

    def test_a_folder_that_moves_while_its_arrival_is_handled_ends_up_watched(self, root, tmp_path, listen):
        listener = listen(root)
        for number in range(50):
            (root / "a/deep").mkdir(parents=True)
            (root / "a").rename(root / f"b{number}")
            (root / f"b{number}/deep").rename(root / f"c{number}")
        assert becomes_true(lambda: listener.status().folders == 101)
        paths = [root / f"{letter}{number}/x.jpg" for number in range(50) for letter in "bc"]
        for path in paths:
            path.touch()
        assert listener.hears_of(*paths)


class TestLostWatches:
    def break_reader(self, listener: Listener) -> None:
        (watch,) = listener.watcher._roots

        def fail(event: object) -> None:
            raise RuntimeError("injected")

        watch._tree._reader.handle_event = fail

    def test_a_reader_that_dies_is_replaced_and_its_root_doubted(self, root, listen):
        listener = listen(root)
        self.break_reader(listener)
        (root / "unheard.jpg").touch()
        assert listener.doubts_folder(root)
        assert listener.watcher.restarts == 1
        assert "injected" in listener.doubts[0][1]
        (root / "b.jpg").touch()
        assert listener.hears_of(root / "b.jpg")

    def test_a_reader_that_ends_without_a_word_is_replaced(self, root, listen):
        listener = listen(root)
        (watch,) = listener.watcher._roots
        watch._tree._reader.stop()
        assert listener.doubts_folder(root)
        (root / "b.jpg").touch()
        assert listener.hears_of(root / "b.jpg")
        assert listener.watcher.restarts == 1

    def test_a_handler_that_fails_costs_one_replacement(self, root, listen, monkeypatch):
        listener = listen(root)
        failures = iter([RuntimeError("injected")])
        whole = listener.queue.put

        def put(path: str, **options: bool) -> int:
            for failure in failures:
                raise failure
            return whole(path, **options)

        monkeypatch.setattr(listener.queue, "put", put)
        (root / "a.jpg").touch()
        assert listener.doubts_folder(root)
        (root / "b.jpg").touch()
        assert listener.hears_of(root / "b.jpg")

    def test_an_overflow_of_the_kernels_queue_puts_the_root_in_doubt(self, root, listen):
        (root / "a.jpg").touch()
        (root / "b.jpg").touch()
        listener = listen(root)
        (watch,) = listener.watcher._roots
        reader = watch._tree._reader
        go_on, whole = threading.Event(), reader.handle_event

        def wait_first(event: object) -> None:
            go_on.wait(PATIENCE_S)
            whole(event)

        reader.handle_event = wait_first
        with open("/proc/sys/fs/inotify/max_queued_events") as file:
            limit = int(file.read())
        for number in range(limit + 5000):
            os.utime(root / ("a.jpg", "b.jpg")[number % 2])
        go_on.set()
        assert listener.doubts_folder(root)
        assert listener.doubts[0][1] == "the kernel had to drop events"
        assert listener.watcher.restarts == 1

    @pytest.mark.parametrize("how", ["renamed", "removed"])
    def test_a_root_that_goes_is_offline_and_watched_again_when_it_is_back(self, root, tmp_path, listen, how):
        listener = listen(root)
        if how == "renamed":
            root.rename(tmp_path / "elsewhere")
        else:
            root.rmdir()
        assert listener.doubts_folder(root)
        assert becomes_true(lambda: listener.status().state is RootState.OFFLINE)
        assert "No such file" in listener.status().reason
        listener.doubts.clear()
        root.mkdir()
        assert listener.doubts_folder(root)
        (root / "a.jpg").touch()
        assert listener.hears_of(root / "a.jpg")
        assert listener.status() == WatchStatus(str(root), RootState.ONLINE, 1, 0)

    def test_a_root_that_is_exchanged_for_another_folder_is_watched_anew(self, root, tmp_path, listen):
        (tmp_path / "new").mkdir()
        listener = listen(root)
        root.rename(tmp_path / "old")
        (tmp_path / "new").rename(root)
        assert listener.doubts_folder(root)
        assert becomes_true(lambda: listener.status().state is RootState.ONLINE)
        (root / "a.jpg").touch()
        assert listener.hears_of(root / "a.jpg")

    def test_a_folder_above_a_root_that_was_away_for_a_moment_puts_the_root_in_doubt(self, tmp_path):
        root = tmp_path / "above" / "higher" / "root"
        root.mkdir(parents=True)
        # By the clock alone nobody would notice: the root is the folder that it was. But a new watch that
        # meets the moment in which it is away has to be tried again.
        listener = Listener(Rules([str(root)]), check_s=1)
        listener.watcher.start()
        try:
            (tmp_path / "above").rename(tmp_path / "away")
            (tmp_path / "away").rename(tmp_path / "above")
            assert listener.doubts_folder(root)
            assert becomes_true(lambda: listener.status().state is RootState.ONLINE)
            (root / "a.jpg").touch()
            assert listener.hears_of(root / "a.jpg")
        finally:
            listener.watcher.stop()

    def test_a_root_that_is_not_there_at_the_start_is_no_error_and_no_replacement(self, root, listen):
        root.rmdir()
        listener = listen(root)
        assert listener.status().state is RootState.OFFLINE
        assert listener.watcher.restarts == 0
        assert listener.doubts == []

    def test_a_root_that_becomes_a_link_is_not_followed(self, root, tmp_path, listen):
        listener = listen(root)
        root.rename(tmp_path / "elsewhere")
        root.symlink_to(tmp_path / "elsewhere")
        assert becomes_true(lambda: listener.status().state is RootState.OFFLINE)

    def test_stopping_leaves_no_thread_and_no_descriptor(self, root, listen):
        def open_things() -> tuple[int, int]:
            return threading.active_count(), len(os.listdir("/proc/self/fd"))

        before = open_things()
        listener = listen(root)
        self.break_reader(listener)
        (root / "a.jpg").touch()
        assert listener.doubts_folder(root)
        listener.watcher.stop()
        assert open_things() == before


class TestPermissions:
    @pytest.mark.parametrize("name", ["", "a"])
    def test_a_folder_that_is_closed_and_opened_again_is_doubted_both_times(self, root, name):
        """In a process of its own, for which permissions count."""
        program = (
            "import os, sys, time\n"
            "from imagedbd.rules import Rules\n"
            "from imagedbd.watcher import Watcher\n"
            "from imagedbd.change_queue import ChangeQueue\n"
            "root, folder = sys.argv[1:]\n"
            "doubts, queue = [], ChangeQueue()\n"
            "watcher = Watcher(Rules([root]), queue, lambda *doubt: doubts.append(doubt), check_s=60)\n"
            "watcher.start()\n"
            "for mode, count in ((0o755, 0), (0, 1), (0, 1), (0o700, 2), (0o755, 2)):\n"
            "    os.chmod(folder, mode)\n"
            f"    for _ in range({PATIENCE_S:g}):\n"
            "        time.sleep(0.2)\n"
            "        if len(doubts) >= count: break\n"
            "    print(doubts[count:], len(doubts) == count, watcher.status()[0].state)\n"
            "open(f'{root}/a/new.jpg', 'w').close()\n"
            "print([c.path == f'{root}/a/new.jpg' for c in queue.take(1, 30)])\n"
            "watcher.stop()\n"
        )
        (root / "a").mkdir()
        obedient = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        command = [sys.executable, "-c", program, str(root), str(root / name)]
        command = [*obedient, *command] if os.geteuid() == 0 else command
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.stdout == 5 * "[] True online\n" + "[True]\n", done.stderr


class TestLimits:
    def test_folders_beyond_the_watch_limit_degrade_the_root_and_say_what_helps(
        self, root, listen, monkeypatch
    ):
        for number in range(10):
            (root / str(number)).mkdir()
        listener = self.limited(monkeypatch, 5, lambda: listen(root))
        status = listener.status()
        assert (status.state, status.folders, status.unwatched) == (RootState.DEGRADED, 5, 6)
        assert "sudo sysctl fs.inotify.max_user_watches=" in status.reason
        (root / "a.jpg").touch()
        assert listener.hears_of(root / "a.jpg")

    def test_a_root_that_cannot_be_watched_at_all_is_degraded_and_tried_again(
        self, root, listen, monkeypatch
    ):
        listener = self.limited(monkeypatch, 0, lambda: listen(root))
        assert listener.status().state is RootState.DEGRADED
        assert "sudo sysctl" in listener.status().reason
        monkeypatch.undo()
        assert listener.doubts_folder(root)
        assert listener.status().state is RootState.ONLINE

    def test_folders_beyond_the_limit_are_left_to_scans_until_there_is_room_for_them(
        self, root, listen, monkeypatch
    ):
        for number in range(3):
            (root / f"{number}/deep").mkdir(parents=True)
        with monkeypatch.context() as limited:
            listener = self.limited(limited, 4, lambda: listen(root))
            assert listener.status().unwatched == 3
            left = listener.watcher.unheard()
            assert set(left) == set(outermost(folder for folder in self.folders(root) if folder in left))
        (root / "0/deep/unheard.jpg").touch()
        assert listener.watcher.unheard() == left, "what was not heard of until now must be scanned once more"
        assert listener.watcher.unheard() == []
        assert listener.status() == WatchStatus(str(root), RootState.ONLINE, 7, 0)
        for folder in self.folders(root):
            Path(folder, "a.jpg").touch()
        assert listener.hears_of(*(f"{folder}/a.jpg" for folder in self.folders(root)))

    def folders(self, root: Path) -> list[str]:
        return [folder for folder, _, _ in os.walk(root)]

    def test_a_root_without_any_watch_is_left_to_scans(self, root, listen, monkeypatch):
        listener = self.limited(monkeypatch, 0, lambda: listen(root))
        assert listener.watcher.unheard() == [str(root)]

    def test_the_watch_that_takes_the_place_of_another_has_the_room_of_both(self, root, listen, monkeypatch):
        """Two of them at once, as when one is lost, may meet the limit that one does not."""
        for number in range(10):
            (root / str(number)).mkdir()
        listener = listen(root)
        (watch,) = listener.watcher._roots
        go_on = watch._tree.stop
        with monkeypatch.context() as limited:
            self.limited(limited, 5, lambda: None)
            monkeypatch.setattr(watch._tree, "stop", lambda: (limited.undo(), go_on()))
            watch.arm()
        assert listener.status() == WatchStatus(str(root), RootState.ONLINE, 11, 0)

    def test_watches_by_new_rules_have_the_room_of_those_by_the_former(self, root, listen, monkeypatch):
        for number in range(10):
            (root / str(number)).mkdir()
        listener = listen(root)
        (watch,) = listener.watcher._roots
        go_on = watch._tree.stop
        with monkeypatch.context() as limited:
            self.limited(limited, 5, lambda: None)
            monkeypatch.setattr(watch._tree, "stop", lambda: (limited.undo(), go_on()))
            listener.watcher.set_rules(Rules([str(root)]))
        assert listener.status() == WatchStatus(str(root), RootState.ONLINE, 11, 0)

    def test_what_is_watched_whole_is_left_to_nobody(self, root, listen):
        (root / "a").mkdir()
        assert listen(root).watcher.unheard() == []

    def limited(self, monkeypatch, watches: int, start: Callable[[], Listener]) -> Listener:
        """As the kernel answers when a user has no more than so many watches."""
        import ctypes

        from imagedbd import tree_watch

        whole, left = tree_watch.inotify_add_watch, iter(range(watches))

        def add_watch(fd: int, path: bytes, mask: int) -> int:
            if next(left, None) is None:
                ctypes.set_errno(errno.ENOSPC)
                return -1
            return whole(fd, path, mask)

        monkeypatch.setattr(tree_watch, "inotify_add_watch", add_watch)
        return start()

    def test_the_real_limit_of_the_kernel_is_understood(self, root):
        """In a user namespace, where the limit can be lowered without a loss to anybody."""
        program = (
            "import sys, time\n"
            "open('/proc/sys/user/max_inotify_watches', 'w').write('5')\n"
            "from imagedbd.rules import Rules\n"
            "from imagedbd.watcher import Watcher\n"
            "from imagedbd.change_queue import ChangeQueue\n"
            "watcher = Watcher(Rules([sys.argv[1]]), ChangeQueue(), print)\n"
            "watcher.start()\n"
            "print(watcher.status()[0].state, watcher.status()[0].folders, watcher.status()[0].unwatched)\n"
            "watcher.stop()\n"
        )
        for number in range(10):
            (root / str(number)).mkdir()
        unshare = ["unshare", "--user", "--map-root-user"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs a user namespace")
        command = [*unshare, sys.executable, "-c", program, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "degraded 5 6\n", done.stderr


class TestSharedFileSystems:
    """A tmpfs stands for a share: its type is taken for one of those that others write to."""

    @pytest.fixture
    def mount(self, monkeypatch) -> Iterator[Callable[[Path], None]]:
        monkeypatch.setattr(mounts, "_SHARED", frozenset({"tmpfs"}))
        mounted: list[Path] = []

        def mount(folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "imagedbd-test", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("mounting takes root")
            mounted.append(folder)

        yield mount
        for folder in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def test_a_root_on_one_is_watched_and_left_to_scans(self, root, listen, mount):
        mount(root)
        (root / "a").mkdir()
        listener = listen(root / "a")
        assert listener.status().state is RootState.DEGRADED
        assert f"{root}/a is on tmpfs, which is silent about changes" in listener.status().reason
        assert listener.watcher.unheard() == [str(root / "a")]
        (root / "a" / "local.jpg").touch()
        assert listener.hears_of(root / "a" / "local.jpg")

    def test_one_below_a_root_is_left_to_scans_alone(self, root, listen, mount):
        listener = listen(root)
        assert listener.status().state is RootState.ONLINE
        mount(root / "with space")
        assert becomes_true(lambda: listener.status().state is RootState.DEGRADED)
        assert f"{root}/with space is on tmpfs" in listener.status().reason
        assert listener.watcher.unheard() == [str(root / "with space")]

    def test_one_that_the_rules_leave_out_matters_to_nobody(self, root, listen, mount):
        mount(root / "skipped")
        assert listen(root, ignore_globs=["skipped/"]).status().state is RootState.ONLINE


class Index:
    """Watcher, scanner, queue and ledger at work, with an indexer for whom every file is a good picture."""

    def __init__(self, base: Path, *roots: Path) -> None:
        self.roots = roots
        rules = Rules(map(str, roots))
        self.ledger = Ledger(str(base / "ledger.sqlite3"))
        self.queue = ChangeQueue(settle_s=0.1, settle_max_s=0.5)
        self.scanner = Scanner(rules, self.ledger, self.queue, settle_s=0.1)
        self.watcher = Watcher(rules, self.queue, lambda folder, _: self.scanner.request(folder), check_s=1)
        self.rules = rules
        self.guard = RootGuard(rules, self.ledger)
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.watcher.start()
        self.scanner.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.stop()
        self.scanner.stop()
        self.queue.close()
        self.thread.join()
        self.ledger.close()

    def _run(self) -> None:
        while changes := self.queue.take(256):
            found: list[LedgerEntry] = []
            gone: list[str] = []
            for change in changes:
                signature = self._look_at(change.path)
                if signature is not None:
                    found.append(LedgerEntry(change.path, signature, PictureState.INDEXED))
                elif self.guard.why_absence_is_no_proof(change.path) is None:
                    gone.append(change.path)
            self.ledger.put(found)
            self.ledger.forget(gone)
            for change in changes:
                self.queue.done(change)

    def _look_at(self, path: str) -> Signature | None:
        try:
            stat = os.lstat(path)
        except OSError:
            return None
        return Signature.of(stat) if self.rules.verdict(path, stat=stat).ok else None

    def content(self) -> dict[str, tuple[int, int]]:
        entries = self.ledger.under("/")
        return {entry.path: (entry.signature.size, entry.signature.mtime_ns) for entry in entries}

    def truth(self) -> dict[str, tuple[int, int]]:
        files = (os.path.join(f, n) for r in self.roots for f, _, names in os.walk(r) for n in names)
        stats = {path: os.lstat(path) for path in files if path.endswith(".jpg")}
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

    def equals_the_folders(self) -> bool:
        """Without being asked for anything: by events, and by the scans that doubts have led to."""
        return becomes_true(lambda: self.content() == self.truth())


class TestTogether:
    def test_a_burst_of_files_in_new_folders_is_covered(self, root, tmp_path):
        with Index(tmp_path, root) as index:
            for number in range(2000):
                folder = root / f"{number % 50}"
                folder.mkdir(exist_ok=True)
                (folder / f"{number}.jpg").write_bytes(b"x")
            assert index.equals_the_folders()
            assert len(index.content()) == 2000

    def test_trees_copied_moved_and_removed_are_covered(self, root, tmp_path):
        source, other = tmp_path / "source", tmp_path / "other"
        for number in range(60):
            (source / f"{number % 6}/deep").mkdir(parents=True, exist_ok=True)
            (source / f"{number % 6}/deep/{number}.jpg").write_bytes(b"x" * number)
        other.mkdir()
        with Index(tmp_path, root, other) as index:
            (root / "keep.jpg").touch()
            (other / "keep.jpg").touch()
            subprocess.run(["cp", "-r", source, root / "copied"], check=True)
            assert index.equals_the_folders()
            (root / "copied").rename(other / "moved")
            assert index.equals_the_folders()
            (other / "moved").rename(tmp_path / "out")
            assert index.equals_the_folders()
            (tmp_path / "out").rename(root / "in")
            assert index.equals_the_folders()
            assert len(index.content()) == 62
            shutil.rmtree(root / "in")
            assert index.equals_the_folders()
            assert len(index.content()) == 2

    def test_an_archived_folder_whose_name_is_taken_again_does_no_harm(self, root, tmp_path):
        """Known to kill the reader of watchdog's own observer."""
        with Index(tmp_path, root) as index:
            (root / "keep.jpg").touch()
            (root / "import").mkdir()
            (root / "import/a.jpg").write_bytes(b"a")
            assert index.equals_the_folders()
            (root / "import").rename(tmp_path / "archive")
            (root / "import").mkdir()
            (root / "import/b.jpg").write_bytes(b"b")
            (root / "import").rename(root / "holiday")
            shutil.rmtree(tmp_path / "archive")
            (root / "holiday/c.jpg").write_bytes(b"c")
            assert index.equals_the_folders()
            assert index.watcher.restarts == 0
            assert set(index.content()) == {
                f"{root}/{name}" for name in ("keep.jpg", "holiday/b.jpg", "holiday/c.jpg")
            }

    def test_nothing_is_forgotten_while_a_root_is_away(self, root, tmp_path):
        with Index(tmp_path, root) as index:
            (root / "a").mkdir()
            (root / "a/b.jpg").touch()
            assert index.equals_the_folders()
            before = index.content()
            root.rename(tmp_path / "unplugged")
            assert becomes_true(lambda: index.scanner.roots_status()[0].state is RootState.OFFLINE)
            assert index.scanner.wait_scanned(index.scanner.request(), PATIENCE_S)
            assert index.queue.wait_done(index.queue.ticket(), PATIENCE_S)
            assert index.content() == before
            (tmp_path / "unplugged").rename(root)
            (root / "a/c.jpg").touch()
            assert index.equals_the_folders()
            assert len(index.content()) == 2

    @pytest.mark.parametrize("run", range(3))
    def test_random_changes_are_covered_by_events_and_the_scans_that_follow_doubts(self, root, tmp_path, run):
        # Other changes every time; a failing test shows what was printed, and the number repeats them.
        seed = random.SystemRandom().randrange(10**6)
        print(f"seed {seed}")
        outside = tmp_path / "outside"
        outside.mkdir()
        with Index(tmp_path, root) as index:
            (root / "keep.jpg").touch()
            Churn(random.Random(seed), root, outside).run(steps=400)
            assert index.equals_the_folders()
            folders = sum(1 for _ in os.walk(root))
            assert becomes_true(lambda: index.watcher.status()[0].folders == folders)


class Churn:
    """Random changes to two trees, of which one is watched."""

    NAMES = ("a", "b", "c", "d\udcff", "e\n'")

    def __init__(self, rng: random.Random, inside: Path, outside: Path) -> None:
        self.rng = rng
        self.tops = [str(inside), str(outside)]

    def run(self, steps: int) -> None:
        actions = [self.write, self.write, self.save, self.make, self.remove, self.move, self.move_tree]
        actions += [self.move_tree, self.remove_tree, self.copy_tree]
        for _ in range(steps):
            try:
                self.rng.choice(actions)()
            except (OSError, shutil.Error):
                continue

    def folder(self) -> str:
        top = self.rng.choice([*self.tops, self.tops[0]])
        return self.rng.choice([folder for folder, _, _ in os.walk(top)])

    def name(self) -> str:
        return os.path.join(self.folder(), self.rng.choice(self.NAMES))

    def file(self) -> str:
        folders = [(f, n) for f, _, names in os.walk(self.rng.choice(self.tops)) for n in names]
        return os.path.join(*self.rng.choice(folders)) if folders else "/nonexistent"

    def content(self) -> bytes:
        return b"x" * self.rng.randrange(1000)

    def write(self) -> None:
        Path(f"{self.name()}.jpg").write_bytes(self.content())

    def save(self) -> None:
        name = f"{self.name()}.jpg"
        Path(f"{name}.tmp").write_bytes(self.content())
        os.replace(f"{name}.tmp", name)

    def make(self) -> None:
        os.makedirs(os.path.join(self.name(), self.rng.choice(self.NAMES)))

    def remove(self) -> None:
        os.unlink(self.file())

    def move(self) -> None:
        os.replace(self.file(), f"{self.name()}.jpg")

    def move_tree(self) -> None:
        source = self.folder()
        if source not in self.tops:
            os.rename(source, self.name())

    def remove_tree(self) -> None:
        source = self.folder()
        if source not in self.tops and self.rng.random() < 0.3:
            shutil.rmtree(source)

    def copy_tree(self) -> None:
        source, target = self.folder(), self.name()
        if not target.startswith(source):
            shutil.copytree(source, target)


@pytest.mark.parametrize("stopped_at", ["the start", "new rules"])
def test_a_stop_does_not_wait_for_the_walk_through_all_folders(root, monkeypatch, stopped_at):
    from imagedbd import tree_watch

    for number in range(20):
        (root / str(number)).mkdir()
    watcher = Listener(Rules([str(root)])).watcher
    if stopped_at == "new rules":
        watcher.start()
    whole, stopper = tree_watch.inotify_add_watch, threading.Thread(target=watcher.stop)

    def add_watch(fd: int, path: bytes, mask: int) -> int:
        if path.startswith(os.fsencode(f"{root}/")) and stopper.ident is None:
            stopper.start()
            assert becomes_true(watcher._stopping.is_set)
        return whole(fd, path, mask)

    monkeypatch.setattr(tree_watch, "inotify_add_watch", add_watch)
    folders: list[int] = []
    arm = watcher._watch_roots
    monkeypatch.setattr(
        watcher, "_watch_roots", lambda: (arm(), folders.extend(s.folders for s in watcher.status()))
    )
    watcher.start() if stopped_at == "the start" else watcher.set_rules(Rules([str(root)]))
    stopper.join(PATIENCE_S)
    watcher.stop()
    assert folders == [2]


def test_a_root_that_does_not_answer_is_left_alone_until_it_does(tmp_path, monkeypatch):
    """Whoever looks into it would hang; the other root is looked after all the same."""
    root, silent = tmp_path / "root", tmp_path / "silent"
    root.mkdir()
    silent.mkdir()
    answers = threading.Event()
    whole = os.lstat

    def lstat(path, *arguments, **named):
        if path == str(silent) and not answers.is_set():
            pytest.fail("it was looked into")
        return whole(path, *arguments, **named)

    monkeypatch.setattr("os.lstat", lstat)
    listener = Listener(
        Rules([str(root), str(silent)]), answers=lambda path: path != str(silent) or answers.is_set()
    )
    listener.watcher.start()
    try:
        shutil.rmtree(root)
        root.mkdir()
        assert listener.doubts_folder(root)
        # It may have been looked at while it was not there.
        assert becomes_true(lambda: listener.watcher.status()[0].state is RootState.ONLINE)
        (root / "a.jpg").touch()
        assert listener.hears_of(root / "a.jpg")
        assert listener.watcher.unheard() == []
        answers.set()
        assert listener.doubts_folder(silent)
        (silent / "b.jpg").touch()
        assert listener.hears_of(silent / "b.jpg")
    finally:
        listener.watcher.stop()


def test_a_watcher_that_hangs_holds_up_neither_a_scan_nor_a_stop(root, monkeypatch, caplog):
    listener = Listener(Rules([str(root)]))
    listener.watcher.start()
    let_go, hangs = threading.Event(), threading.Event()

    def hang(_: object) -> str | None:
        hangs.set()
        let_go.wait(PATIENCE_S)
        return None

    monkeypatch.setattr("imagedbd.watcher._RootWatch.replace_if_needed", hang)
    monkeypatch.setattr("imagedbd.watcher._PATIENCE_S", 0.05)
    monkeypatch.setattr("imagedbd.watcher.STOP_S", 0.05)
    assert hangs.wait(PATIENCE_S)
    assert listener.watcher.unheard() == []
    listener.watcher.stop()
    assert "left behind" in caplog.text
    let_go.set()
    listener.watcher._thread.join(PATIENCE_S)
    listener.watcher.stop()


class Spoilt:
    """Makes the next watches of a test fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
        self.left = 0
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name == "inotify" and self.left:
                self.left -= 1
                raise fault
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), ZeroDivisionError("a bug")])
def test_a_watch_that_cannot_be_replaced_is_told_and_tried_again(
    tmp_path, listen, monkeypatch, fault, caplog
):
    root, other = tmp_path / "above" / "root", tmp_path / "other"
    root.mkdir(parents=True)
    other.mkdir()
    spoilt = Spoilt(monkeypatch, fault)
    listener = listen(root, other)
    open_before = len(os.listdir("/proc/self/fd"))
    spoilt.left = 1_000_000
    os.rename(tmp_path / "above", tmp_path / "moved")
    os.rename(tmp_path / "moved", tmp_path / "above")
    assert listener.doubts_folder(root)
    status, beside = listener.watcher.status()
    assert becomes_true(lambda: listener.watcher.status()[0].state is RootState.DEGRADED)
    status, beside = listener.watcher.status()
    assert str(fault) in status.reason
    assert "tried again" in status.reason
    assert beside.state is RootState.ONLINE
    assert listener.watcher.restarts == 1
    assert listener.watcher.unheard() == [str(root)], "until then it is scanned now and then"
    tries = spoilt.left
    assert becomes_true(lambda: spoilt.left < tries - 3)
    assert len(os.listdir("/proc/self/fd")) <= open_before
    assert [doubted for doubted, _ in listener.doubts] == [str(root)], "what is known is not told again"
    assert caplog.text.count("Traceback") <= 1
    spoilt.left = 0
    assert becomes_true(lambda: listener.watcher.status()[0].state is RootState.ONLINE)
    (root / "a.jpg").touch()
    (other / "b.jpg").touch()
    assert listener.hears_of(root / "a.jpg", other / "b.jpg")


def test_a_watch_that_cannot_be_made_leaves_nothing_behind(tmp_path):
    threads = threading.active_count()
    rules = Rules([str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError):
        TreeWatch(
            str(tmp_path / "missing"),
            rules,
            on_hint=lambda *_: None,
            on_doubt=lambda *_: None,
            on_lost=lambda: None,
            is_stopping=lambda: False,
        )
    assert threading.active_count() == threads
