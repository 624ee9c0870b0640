"""Roots that move, vanish, come back, nest, are mounted, are forbidden: the index equals what is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pictures import save

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

    def test_a_moved_library_is_followed_without_embedding_or_reading(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "disk" / "photos"
        new.parent.mkdir()
        os.rename(library.photos, new)
        # What cannot be opened as a picture shows that nothing was read.
        damaged = new / "one.jpg"
        stat = damaged.stat()
        damaged.write_bytes(bytes(stat.st_size))
        os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))
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

    def test_while_the_daemon_is_down_the_pictures_are_known_by_their_content(self, library: Machine) -> None:
        before, new = self.ids(library), library.home / "disk"
        library.stop()
        os.rename(library.photos, new)
        self.relocate(library, new)
        library.start(roots=[])
        library.wait()
        assert self.ids(library) == before
        assert library.listed() == {f"disk/{p}" for p in ("one.jpg", "trip/two.png", "trip/three.webp")}
        assert library.json("status")["embeds_total"] == 0

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
