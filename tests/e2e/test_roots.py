"""Roots that move, vanish, come back, nest, are mounted, are forbidden: the index equals what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from machine import program
from oracle import assert_equal, indexed, pictures_in
from pictures import save

from imagedbd.config import move_root

if TYPE_CHECKING:
    from machine import Machine


class TestRelocation:
    """The library was moved, and the settings name the old place."""

    @pytest.fixture
    def library(self, machine: Machine) -> Machine:
        (machine.home / "config.toml").write_text(
            f'# mine\nroots = [\n  "{machine.photos}",  # the family\n]\n'
        )
        save(machine.photos / "one.jpg", 1)
        save(machine.photos / "trip" / "two.png", 2)
        save(machine.photos / "trip" / "three.webp", 3)
        machine.start(roots=[])
        machine.wait()
        return machine

    def ids(self, machine: Machine) -> dict[str, str]:
        return {Path(row["path"]).name: row["id"] for row in machine.json("list")}

    def relocate(self, machine: Machine, new: Path) -> None:
        done = machine.run("root", "relocate", str(machine.photos), str(new))
        assert done.returncode == 0, done.stderr.decode()

    def test_a_moved_library_is_followed_without_embedding(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "disk" / "photos"
        new.parent.mkdir()
        os.rename(library.photos, new)
        self.relocate(library, new)
        library.wait()
        assert library.listed() == {
            f"disk/photos/{p}" for p in ("one.jpg", "trip/two.png", "trip/three.webp")
        }
        assert self.ids(library) == before
        assert library.json("status")["embeds_total"] == 3
        assert library.json("search", "--where", f"path UNDER '{new}/trip'")
        settings = (library.home / "config.toml").read_text()
        assert f'"{new}",  # the family' in settings
        assert str(library.photos) not in settings
        save(new / "later.jpg", 4)
        library.until(lambda: "disk/photos/later.jpg" in library.listed())

    def test_a_file_that_was_changed_on_the_way_is_found_whatever_its_size_and_time(
        self, library: Machine
    ) -> None:
        new = library.home / "disk"
        shutil.copytree(library.photos, new)
        changed, stat = new / "one.jpg", (new / "one.jpg").stat()
        changed.write_bytes(bytes(stat.st_size))
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.relocate(library, new)
        library.wait()
        assert library.listed() == {"disk/trip/two.png", "disk/trip/three.webp"}
        assert [row["path"] for row in library.json("failures")] == [str(changed)]
        assert library.json("status")["embeds_total"] == 3

    def test_a_copy_with_new_times_is_hashed_and_not_embedded(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "copy"
        shutil.copytree(library.photos, new, copy_function=shutil.copyfile)
        shutil.move(library.photos, library.home / "old")
        (new / "trip" / "two.png").unlink()
        self.relocate(library, new)
        library.wait()
        assert library.listed() == {"copy/one.jpg", "copy/trip/three.webp"}
        assert self.ids(library).items() <= before.items()
        assert library.json("status")["embeds_total"] == 3

    def test_a_link_left_behind_and_a_restart_change_nothing(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "disk"
        os.rename(library.photos, new)
        library.photos.symlink_to(new)
        self.relocate(library, new)
        library.wait()
        assert self.ids(library) == before
        assert library.json("status")["embeds_total"] == 3
        library.stop()
        library.start(roots=[])
        library.wait()
        assert self.ids(library) == before
        assert library.json("status")["embeds_total"] == 0

    def test_a_daemon_that_is_down_follows_at_its_start_and_need_not_see_the_files(
        self, library: Machine
    ) -> None:
        before, new = self.ids(library), library.home / "disk"
        library.stop()
        os.rename(library.photos, new)
        self.relocate(library, new)
        os.rename(new, library.home / "unplugged")
        library.start(roots=[])
        library.run("scan")
        library.wait()
        assert self.ids(library) == before
        assert library.listed() == {f"disk/{p}" for p in ("one.jpg", "trip/two.png", "trip/three.webp")}
        os.rename(library.home / "unplugged", new)
        assert_equal(library, new)
        assert self.ids(library) == before
        assert embedded(library) == 0

    def test_a_daemon_that_is_down_follows_two_relocations_in_a_row(self, library: Machine) -> None:
        before, photos = self.ids(library), library.photos
        second, third = library.home / "second", library.home / "third"
        library.stop()
        os.rename(photos, second)
        self.relocate(library, second)
        os.rename(second, third)
        done = library.run("root", "relocate", str(second), str(third))
        assert b"brings 3 pictures over" in done.stderr
        os.rename(third, library.home / "unplugged")
        library.start(roots=[])
        library.run("scan")
        library.wait()
        assert self.ids(library) == before
        os.rename(library.home / "unplugged", third)
        assert_equal(library, third)
        assert embedded(library) == 0

    def test_a_relocation_that_the_settings_take_back_is_none(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "disk"
        library.stop()
        os.rename(library.photos, new)
        self.relocate(library, new)
        os.rename(new, library.photos)
        assert move_root(str(library.home / "config.toml"), str(new), str(library.photos))
        library.start(roots=[])
        assert_equal(library, library.photos)
        assert self.ids(library) == before
        assert embedded(library) == 0

    def test_a_daemon_that_was_given_the_root_otherwise_refuses_before_the_file_is_touched(
        self, library: Machine
    ) -> None:
        library.stop()
        new, settings = library.home / "disk", (library.home / "config.toml").read_text()
        os.rename(library.photos, new)
        library.environment["IMAGEDBD_ROOTS"] = str(library.photos)
        library.start(roots=[])
        done = library.run("root", "relocate", str(library.photos), str(new))
        assert done.returncode == 2
        assert "started with it (--root or IMAGEDBD_ROOTS)" in " ".join(done.stderr.decode().split())
        assert (library.home / "config.toml").read_text() == settings
        assert len(library.listed()) == 3

    def test_a_command_that_was_killed_when_it_had_changed_the_file_is_given_once_more(
        self, library: Machine
    ) -> None:
        before, new = self.ids(library), library.home / "disk"
        os.rename(library.photos, new)
        assert move_root(str(library.home / "config.toml"), str(library.photos), str(new))
        self.relocate(library, new)
        assert_equal(library, new)
        assert self.ids(library) == before
        assert embedded(library) == 3

    @pytest.mark.parametrize(
        "place",
        [
            pytest.param("imagedbd.relocation:Relocation.bring_over:before", marks=pytest.mark.slow),
            pytest.param("imagedbd.relocation:Relocation._bring_places_over:after", marks=pytest.mark.slow),
            "imagedbd.ledger:Ledger.put:before",
            pytest.param("imagedbd.ledger:Ledger.put:after", marks=pytest.mark.slow),
            pytest.param("imagedbd.relocation:Relocation.bring_over:after", marks=pytest.mark.slow),
        ],
        ids=["settings", "places", "store", "ledger", "all"],
    )
    def test_a_daemon_that_is_killed_in_the_middle_ends_in_equality(
        self, library: Machine, place: str
    ) -> None:
        before, new = self.ids(library), library.home / "disk"
        pictures = [os.path.relpath(path, library.photos) for path, _ in pictures_in(library.photos)]
        library.stop()
        library.environment |= {
            "IMAGEDBD_TEST_KILL": place,
            "IMAGEDBD_TEST_KILL_FROM": str(library.home / "now"),
        }
        library.start(roots=[])
        library.wait()
        os.rename(library.photos, new)
        (library.home / "now").touch()
        done = library.run("root", "relocate", str(library.photos), str(new))
        assert done.returncode == 70, done.stderr
        assert library.process is not None
        assert library.process.wait(30) == -signal.SIGKILL
        (library.home / "now").unlink()
        # What was begun is completed, whether the new place can be seen just now or not.
        os.rename(new, library.home / "unplugged")
        library.start(roots=[])
        library.run("scan")
        library.wait()
        assert self.ids(library) == before
        assert {row["path"] for row in library.json("list")} == {str(new / p) for p in pictures}
        os.rename(library.home / "unplugged", new)
        assert_equal(library, new)
        assert self.ids(library) == before
        assert embedded(library) == 0

    def test_a_pause_is_told_before_the_file_is_touched_and_after_it_all_is_followed(
        self, library: Machine
    ) -> None:
        before, new = self.ids(library), library.home / "disk"
        settings = (library.home / "config.toml").read_text()
        assert library.run("pause").returncode == 0
        os.rename(library.photos, new)
        done = library.run("root", "relocate", str(library.photos), str(new))
        assert (done.returncode, b"imagedb resume" in done.stderr) == (70, True), done.stderr
        assert (library.home / "config.toml").read_text() == settings
        assert self.ids(library) == before
        save(new / "meanwhile.jpg", 4)
        assert library.run("resume").returncode == 0
        self.relocate(library, new)
        assert_equal(library, new)
        assert self.ids(library).items() >= before.items()
        assert embedded(library) == 4

    @pytest.mark.parametrize("what", ["model", "store"])
    def test_during_a_switch_both_indexes_follow_and_no_picture_is_embedded_twice(
        self, library: Machine, what: str
    ) -> None:
        new = library.home / "disk"
        for number in range(10, 19):
            save(library.photos / "trip" / f"{number}.jpg", number)
        library.wait()
        before = self.ids(library)
        other = library.home / "other"
        other.mkdir()
        (other / "open_clip_config.json").write_text(json.dumps({"seconds": 0.5}))
        wanted = f"local-dir:{other}"
        use = ["model", "use", wanted] if what == "model" else ["store", "use", "faiss", "--model", wanted]
        assert library.run(*use).returncode == 0
        library.until(lambda: library.json("status")["switch"]["done"] >= 1)
        os.rename(library.photos, new)
        self.relocate(library, new)
        assert library.json("status")["switch"] is not None
        assert self.ids(library) == before
        library.until(lambda: library.json("status")["switch"] is None, 60)
        assert_equal(library, new)
        status = library.json("status")
        assert status["model"]["name"] == wanted
        assert status["store"]["vectors"] == len(before)
        assert self.ids(library) == before
        assert embedded(library) == 2 * len(before)
        assert library.run("model", "rollback").returncode == 0
        library.until(lambda: library.json("status")["switch"] is None, 60)
        assert_equal(library, new)
        assert embedded(library) == 2 * len(before)

    def test_what_cannot_be_is_refused_and_changes_nothing(self, library: Machine) -> None:
        settings = (library.home / "config.toml").read_text()
        other, empty, file = library.home / "other", library.home / "empty", library.home / "file"
        save(other / "else.jpg", 9)
        empty.mkdir()
        file.write_text("")
        photos = library.photos
        for old, new, words in [
            (photos, library.home / "nowhere", "does not exist"),
            (photos, file, "is not a folder"),
            (photos, photos / "trip", "lies in"),
            (photos, library.home, "lies in"),
            (photos, photos, "is where it was"),
            (photos, empty, "0 were found there"),
            (other, empty, "is not among the watched folders"),
        ]:
            done = library.run("root", "relocate", str(old), str(new))
            assert done.returncode in {1, 2}
            assert words in " ".join(done.stderr.decode().split()), (new, done.stderr)
        assert library.run("root", "add", str(other)).returncode == 0
        library.wait()
        done = library.run("root", "relocate", str(photos), str(other))
        assert done.returncode == 2
        assert b"in the index already" in done.stderr
        library.run("root", "remove", "--yes", str(other))
        library.wait()
        assert (library.home / "config.toml").read_text() == settings
        assert len(library.listed()) == 3


def embedded(machine: Machine) -> int:
    total: int = machine.json("status")["embeds_total"]
    return total


def state_of(machine: Machine, root: Path) -> str:
    states = {row["path"]: row["state"] for row in machine.json("root", "list")}
    return str(states[str(root)])


class TestLife:
    """One daemon: a root in a root, one that was given by a link, and its own data folder inside of one."""

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls, class_machine: Machine) -> Machine:
        machine, photos = class_machine, class_machine.photos
        (machine.home / "link").symlink_to(machine.home / "real")
        machine.environment["IMAGEDBD_DATA_DIR"] = str(photos / "index")
        (photos / "index").mkdir(mode=0o700)
        save(photos / "index" / "none of the user's.jpg", 1)
        save(photos / "outer.jpg", 2)
        save(photos / ".hidden" / "nested" / "inner.jpg", 3)
        save(photos / ".hidden" / "not.jpg", 4)
        save(machine.home / "real" / "linked.jpg", 5)
        save(machine.home / "other" / "a.jpg", 6)
        save(machine.home / "other" / "sub" / "b.jpg", 7)
        machine.start(
            roots=[photos, photos / ".hidden" / "nested", machine.home / "link", machine.home / "other"]
        )
        return machine

    @pytest.fixture(autouse=True)
    def equal_before_and_after(self, machine: Machine) -> Iterator[None]:
        self.assert_equal(machine)
        yield
        self.assert_equal(machine)

    def assert_equal(self, machine: Machine) -> None:
        home, photos = machine.home, machine.photos
        roots = [photos, photos / ".hidden" / "nested", home / "real", home / "other"]
        assert_equal(machine, *roots, without=(photos / "index",))

    def test_nested_roots_and_a_data_folder_inside_a_root(self, machine: Machine) -> None:
        hidden = machine.photos / ".hidden"
        before = embedded(machine)
        os.rename(machine.photos / "outer.jpg", hidden / "nested" / "was outer.jpg")
        save(machine.photos / "again.jpg", 8)
        os.rename(hidden, machine.home / "away")
        machine.until(lambda: state_of(machine, hidden / "nested") == "offline")
        os.rename(machine.home / "away", hidden)
        self.assert_equal(machine)
        assert embedded(machine) == before + 1

    def test_the_archive_that_ends_many_a_watcher(self, machine: Machine) -> None:
        folder, archive = machine.photos / "import", machine.home / "archive"
        save(folder / "old" / "one.jpg", 20)
        self.assert_equal(machine)
        shutil.move(folder, archive)
        save(folder / "old" / "two.jpg", 21)
        os.rename(folder, machine.photos / "sorted")
        shutil.rmtree(archive)
        save(machine.photos / "sorted" / "old" / "three.jpg", 22)
        machine.until(lambda: "photos/sorted/old/three.jpg" in machine.listed())

    def test_edits_within_a_tick_that_keep_size_and_time(self, machine: Machine) -> None:
        picture = save(machine.photos / "same.bmp", 30)
        self.assert_equal(machine)
        stat, before = picture.stat(), dict(indexed(machine))[str(picture)]
        for seed in (31, 32):
            save(picture, seed)
            os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        machine.until(lambda: dict(indexed(machine))[str(picture)] != before)

    def test_times_before_the_epoch_and_far_in_the_future(self, machine: Machine) -> None:
        for name, year, seconds in (("1969.jpg", 1969, -10_000_000), ("2100.jpg", 2100, 4_102_500_000)):
            os.utime(save(machine.photos / name, seconds), (seconds, seconds))
            machine.until(lambda name=name: f"photos/{name}" in machine.listed())
            assert machine.json("show", str(machine.photos / name))["mtime"].startswith(str(year))
        before = embedded(machine)
        self.assert_equal(machine)
        assert embedded(machine) == before

    def test_a_root_that_is_renamed_and_comes_back_changed(self, machine: Machine) -> None:
        other, away, before = machine.home / "other", machine.home / "away", embedded(machine)
        known = indexed(machine)
        os.rename(other, away)
        machine.until(lambda: state_of(machine, other) == "offline")
        save(away / "new.jpg", 40)
        os.remove(away / "sub" / "b.jpg")
        machine.run("scan")
        machine.wait()
        assert indexed(machine) == known
        os.rename(away, other)
        self.assert_equal(machine)
        assert embedded(machine) == before + 1

    def test_a_root_that_is_deleted_and_made_again(self, machine: Machine) -> None:
        other = machine.home / "other"
        content = (other / "a.jpg").read_bytes()
        before = embedded(machine)
        shutil.rmtree(other)
        machine.until(lambda: state_of(machine, other) == "offline")
        other.mkdir()
        (other / "the same.jpg").write_bytes(content)
        save(other / "another.jpg", 50)
        self.assert_equal(machine)
        assert embedded(machine) == before + 1

    def test_a_root_that_was_given_by_a_link(self, machine: Machine) -> None:
        save(machine.home / "real" / "sub" / "new.jpg", 60)
        machine.until(lambda: "real/sub/new.jpg" in machine.listed())
        (machine.home / "link").unlink()
        (machine.home / "link").symlink_to(machine.home / "other")
        save(machine.home / "link" / "by the link.jpg", 61)
        machine.until(lambda: "other/by the link.jpg" in machine.listed())


def test_a_root_that_was_made_again_while_nobody_watched_is_compared_when_something_comes(
    machine: Machine,
) -> None:
    save(machine.photos / "old" / "one.jpg", 1)
    machine.start()
    machine.wait()
    machine.stop()
    another = machine.home / "another"
    another.mkdir()  # while the first is there: else it may get the number of that
    shutil.rmtree(machine.photos)
    another.rename(machine.photos)
    machine.start()
    machine.until(lambda: state_of(machine, machine.photos) == "offline")
    assert machine.listed() == {"photos/old/one.jpg"}
    save(machine.photos / "new.jpg", 2)
    machine.until(lambda: machine.listed() == {"photos/new.jpg"})


def test_a_root_below_a_folder_that_became_a_link_is_away(machine: Machine) -> None:
    root, moved = machine.photos / "deep" / "library", machine.home / "moved"
    for number in range(3):
        save(root / f"{number}.jpg", number)
    machine.start(roots=[root])
    machine.wait()
    known = indexed(machine)
    os.rename(machine.photos, moved)
    machine.photos.symlink_to(moved)
    machine.until(lambda: state_of(machine, root) == "offline")
    machine.run("scan")
    machine.wait()
    assert indexed(machine) == known
    machine.photos.unlink()
    os.rename(moved, machine.photos)
    machine.until(lambda: state_of(machine, root) == "online")
    assert_equal(machine, root)
    assert embedded(machine) == 3


class TestMounts:
    """The daemon has mounts of its own, and this test reaches them by way of its process."""

    @pytest.fixture
    def mounted(self, machine: Machine) -> Machine:
        """A disk with three pictures, mounted at the root ``photos``; and one picture on another root."""
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting takes root")
        disk, elsewhere = machine.home / "disk", machine.home / "elsewhere"
        disk.mkdir()
        save(elsewhere / "stays.jpg", 9)
        script = (
            f'mount -t tmpfs imagedbd-test {disk} && mount --bind {disk} {machine.photos} && exec "$0" "$@"'
        )
        machine.start(
            instead=["unshare", "--mount", "sh", "-c", script, program("imagedbd")],
            roots=[machine.photos, elsewhere],
        )
        view = self.view(machine)
        save(view / machine.photos.relative_to("/") / "one.jpg", 1)
        save(view / machine.photos.relative_to("/") / "trip" / "two.png", 2)
        save(view / machine.photos.relative_to("/") / "trip" / "three.webp", 3)
        self.assert_equal(machine)
        assert embedded(machine) == 4
        return machine

    def view(self, machine: Machine) -> Path:
        assert machine.process is not None
        return Path(f"/proc/{machine.process.pid}/root")

    def inside(self, machine: Machine, *command: str) -> None:
        assert machine.process is not None
        subprocess.run(["nsenter", "--mount", "--target", str(machine.process.pid), *command], check=True)

    def assert_equal(self, machine: Machine) -> None:
        assert_equal(machine, machine.photos, machine.home / "elsewhere", seen_from=self.view(machine))

    def test_a_disk_that_is_unmounted_loses_nothing_and_comes_back_for_nothing(
        self, mounted: Machine
    ) -> None:
        photos, known = mounted.photos, indexed(mounted)
        self.inside(mounted, "umount", str(photos))
        mounted.until(lambda: state_of(mounted, photos) == "offline")
        bare = self.view(mounted) / photos.relative_to("/")
        save(bare / "stray.jpg", 6)
        save(mounted.home / "elsewhere" / "meanwhile.jpg", 5)
        mounted.until(lambda: "elsewhere/meanwhile.jpg" in mounted.listed())
        assert set(indexed(mounted)) > set(known)
        assert len(indexed(mounted)) == len(known) + 1
        (bare / "stray.jpg").unlink()
        # Another, empty disk at the same place.
        self.inside(mounted, "mount", "-t", "tmpfs", "imagedbd-test", str(photos))
        mounted.run("scan")
        mounted.wait()
        assert state_of(mounted, photos) == "offline"
        save(bare / "one.jpg", 7)
        save(bare / "late.jpg", 8)
        save(mounted.home / "elsewhere" / "later.jpg", 10)
        mounted.until(lambda: "elsewhere/later.jpg" in mounted.listed())
        mounted.wait()
        assert "is offline" in mounted.json("why", str(photos / "late.jpg"))["reason"]
        assert set(indexed(mounted)) > set(known)
        assert len(indexed(mounted)) == len(known) + 2
        self.inside(mounted, "umount", str(photos))
        disk = self.view(mounted) / mounted.home.relative_to("/") / "disk"
        os.rename(disk / "one.jpg", disk / "trip" / "one.jpg")
        self.inside(mounted, "mount", "--bind", str(mounted.home / "disk"), str(photos))
        mounted.until(lambda: state_of(mounted, photos) != "offline")
        mounted.until(lambda: "photos/trip/one.jpg" in mounted.listed())
        self.assert_equal(mounted)
        assert embedded(mounted) == 6

    @pytest.mark.parametrize("source", ["disk", "album"], ids=["another disk", "a folder of the same"])
    @pytest.mark.parametrize("beneath", [0, 1], ids=["empty beneath", "pictures beneath"])
    def test_what_is_mounted_below_a_root_is_missed_and_not_forgotten(
        self, mounted: Machine, source: str, beneath: int
    ) -> None:
        if source == "album":
            shutil.copytree(self.view(mounted) / mounted.photos.relative_to("/"), mounted.home / "album")
        stick = mounted.home / "elsewhere" / "stick"
        stick.mkdir()
        for number in range(beneath):
            save(stick / f"{number}.jpg", 20 + number)
        self.assert_equal(mounted)
        self.inside(mounted, "mount", "--bind", str(mounted.home / source), str(stick))
        mounted.until(lambda: "elsewhere/stick/trip/two.png" in mounted.listed())
        self.assert_equal(mounted)
        known = indexed(mounted)
        self.inside(mounted, "umount", str(stick))
        mounted.run("scan")
        mounted.wait()
        assert indexed(mounted) == known
        save(stick / "trip" / "two.png", 30)
        save(mounted.home / "elsewhere" / "meanwhile.jpg", 31)
        mounted.until(lambda: "elsewhere/meanwhile.jpg" in mounted.listed())
        assert set(indexed(mounted)) > set(known)
        shutil.rmtree(stick / "trip")
        self.inside(mounted, "mount", "--bind", str(mounted.home / source), str(stick))
        self.assert_equal(mounted)
        assert embedded(mounted) == 5 + beneath

    def test_a_mount_point_of_which_no_picture_is_known_is_missed_by_nobody(self, mounted: Machine) -> None:
        elsewhere, stick = mounted.home / "elsewhere", mounted.home / "elsewhere" / "stick"
        stick.mkdir()
        self.inside(mounted, "mount", "-t", "tmpfs", "imagedbd-test", str(stick))
        mounted.run("scan")
        mounted.wait()
        self.inside(mounted, "umount", str(stick))
        stick.rmdir()
        mounted.until(lambda: state_of(mounted, elsewhere) == "online")
        mounted.run("scan")
        mounted.wait()
        assert state_of(mounted, elsewhere) == "online"

    def test_a_disk_that_will_not_come_back_is_forgotten_when_its_folder_is_ignored(
        self, mounted: Machine
    ) -> None:
        stick = mounted.home / "elsewhere" / "stick"
        stick.mkdir()
        self.inside(mounted, "mount", "--bind", str(mounted.home / "disk"), str(stick))
        mounted.until(lambda: "elsewhere/stick/trip/two.png" in mounted.listed())
        self.inside(mounted, "umount", str(stick))
        mounted.run("scan")
        mounted.wait()
        assert "elsewhere/stick/trip/two.png" in mounted.listed()
        reasons = " ".join(root["reason"] or "" for root in mounted.json("status")["roots"])
        found = re.search("`(ignore = .*?)`", reasons)
        assert found
        assert found[1] == 'ignore = ["/stick/"]'
        (mounted.home / "config.toml").write_text(found[1])
        assert mounted.process is not None
        mounted.process.send_signal(signal.SIGHUP)
        mounted.until(lambda: "elsewhere/stick/trip/two.png" not in mounted.listed())
        self.assert_equal(mounted)


class TestTwoDisks:
    """One mounted below the other; the pictures of each stay while it is away, whatever the other does."""

    inside, view = TestMounts.inside, TestMounts.view

    @pytest.fixture
    def disks(self, machine: Machine) -> Machine:
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting takes root")
        outer, inner = machine.photos / "outer", machine.photos / "outer" / "inner"
        for folder in (outer, machine.home / "one", machine.home / "two"):
            folder.mkdir()
        save(machine.photos / "own.jpg", 1)
        script = (
            f"mount -t tmpfs one {machine.home}/one && mount -t tmpfs two {machine.home}/two &&"
            f" mount --bind {machine.home}/one {outer} && mkdir {inner} &&"
            f' mount --bind {machine.home}/two {inner} && exec "$0" "$@"'
        )
        machine.start(instead=["unshare", "--mount", "sh", "-c", script, program("imagedbd")])
        for number in range(4):
            save(self.seen(machine, outer) / f"{number}.jpg", 10 + number)
        for number in range(12):
            save(self.seen(machine, inner) / f"{number}.jpg", 20 + number)
        assert_equal(machine, machine.photos, seen_from=self.view(machine))
        assert embedded(machine) == 17
        return machine

    def seen(self, machine: Machine, folder: Path) -> Path:
        return self.view(machine) / folder.relative_to("/")

    def unmount_both(self, machine: Machine) -> tuple[Path, Path]:
        outer = machine.photos / "outer"
        inner = outer / "inner"
        self.inside(machine, "umount", str(inner))
        self.inside(machine, "umount", str(outer))
        return outer, inner

    def test_the_inner_one_is_no_sign_of_the_outer_one(self, disks: Machine) -> None:
        known = indexed(disks)
        outer, inner = self.unmount_both(disks)
        self.seen(disks, inner).mkdir()  # as services make a mount point that is not there
        self.inside(disks, "mount", "--bind", f"{disks.home}/two", str(inner))
        for _ in range(2):
            disks.run("scan")
            disks.wait()
        assert indexed(disks) == known
        self.inside(disks, "umount", str(inner))
        self.inside(disks, "mount", "--bind", f"{disks.home}/one", str(outer))
        self.inside(disks, "mount", "--bind", f"{disks.home}/two", str(inner))
        assert_equal(disks, disks.photos, seen_from=self.view(disks))
        assert embedded(disks) == 17

    def test_the_outer_one_may_have_become_a_plain_folder(self, disks: Machine) -> None:
        known = indexed(disks)
        outer, inner = self.unmount_both(disks)
        self.inside(disks, "sh", "-c", f"cp -a {disks.home}/one/*.jpg {outer}")
        self.seen(disks, inner).mkdir()
        for _ in range(2):
            disks.run("scan")
            disks.wait()
        assert indexed(disks) == known
        assert embedded(disks) == 17

    def test_a_folder_of_the_same_disk_hides_a_root_that_was_a_plain_one(self, disks: Machine) -> None:
        other = disks.home / "other"
        save(other / "else.jpg", 99)
        known = indexed(disks)
        self.inside(disks, "mount", "--bind", str(other), str(disks.photos))
        disks.until(lambda: state_of(disks, disks.photos) == "offline")
        disks.run("scan")
        disks.wait()
        assert indexed(disks) == known
        self.inside(disks, "umount", str(disks.photos))
        disks.until(lambda: state_of(disks, disks.photos) == "online")
        assert_equal(disks, disks.photos, seen_from=self.view(disks))
        assert embedded(disks) == 17


def test_folders_over_the_watch_limit_are_told_and_scanned(machine: Machine) -> None:
    unshare = ["unshare", "--user", "--map-root-user"]
    limit = "/proc/sys/user/max_inotify_watches"
    script = f'echo 5 > {limit} && exec "$0" "$@"'
    if subprocess.run(
        [*unshare, "sh", "-c", f"echo 5 > {limit}"], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs a user namespace of its own")
    for number in range(10):
        save(machine.photos / str(number) / "a.jpg", number)
    machine.environment["IMAGEDBD_RESCAN_UNHEARD"] = "1s"
    machine.start(instead=[*unshare, "sh", "-c", script, program("imagedbd")])
    assert_equal(machine, machine.photos)
    (root,) = machine.json("status")["roots"]
    assert root["state"] == "degraded"
    assert root["unwatched"] == 6
    assert "6 folders are scanned now and then" in root["reason"]
    assert "sudo sysctl user.max_inotify_watches=" in root["reason"]
    for number in range(10):
        save(machine.photos / str(number) / "b.jpg", 100 + number)
        os.remove(machine.photos / str(number) / "a.jpg")
    # Nobody asks for a scan, and yet.
    machine.until(lambda: indexed(machine) == pictures_in(machine.photos), 60)
    assert_equal(machine, machine.photos)


def test_folders_that_may_not_be_read_keep_their_pictures(machine: Machine, another_user: str) -> None:
    private = machine.photos / "private"
    save(machine.photos / "one.jpg", 1)
    save(private / "two.jpg", 2)
    save(private / "sub" / "three.jpg", 3)
    machine.start(another_user=another_user)
    assert machine.process is not None
    assert psutil.Process(machine.process.pid).uids().real != 0
    assert_equal(machine, machine.photos)
    private.chmod(0)
    (private / "sub" / "three.jpg").rename(private / "three.jpg")
    machine.wait()
    assert len(machine.listed()) == 3
    assert state_of(machine, machine.photos) == "degraded"
    save(machine.photos / "new.jpg", 4)
    machine.until(lambda: "photos/new.jpg" in machine.listed())
    private.chmod(0o700)
    machine.until(lambda: "photos/private/three.jpg" in machine.listed())
    assert_equal(machine, machine.photos)
    assert embedded(machine) == 4


def test_a_start_without_the_root_of_before_says_how_its_pictures_are_watched_again(machine: Machine) -> None:
    photos = machine.photos / "of last year"
    save(photos / "one.jpg", 1)
    save(photos / "two.jpg", 2)
    machine.start(roots=[photos])
    machine.wait()
    machine.stop()
    machine.start(roots=[])
    machine.wait()
    status = machine.json("status")
    assert (status["indexed"], status["roots"]) == (2, [])
    assert "2 pictures stay in the index from before" in status["doing"]
    assert f"`imagedb root add '{photos}'`" in status["doing"]
    assert b"none now" in machine.run("status").stdout
    assert b"2 pictures stay" in machine.run("root", "list").stderr
    assert machine.run("root", "add", str(photos)).returncode == 0
    machine.wait()
    assert machine.listed() == {"photos/of last year/one.jpg", "photos/of last year/two.jpg"}
    status = machine.json("status")
    assert (status["doing"], status["embeds_total"]) == ("Watching for changes.", 0)


def test_a_start_with_another_root_in_the_place_of_the_former_says_what_is_dropped(machine: Machine) -> None:
    other = machine.home / "other"
    save(machine.photos / "one.jpg", 1)
    save(other / "else.jpg", 2)
    machine.start()
    machine.wait()
    machine.stop()
    (machine.home / "config.toml").write_text(f'roots = ["{other}"]\n')
    machine.start(roots=[])
    machine.wait()
    assert machine.listed() == {"other/else.jpg"}
    told = f"{machine.photos} is not watched any more, and 1 file known there is forgotten"
    assert machine.log().count(told) == 1
    assert f"`imagedb root add {machine.photos}` brings it back" in machine.log()
    machine.stop()
    machine.start(roots=[])
    assert machine.log().count("is not watched any more") == 1
