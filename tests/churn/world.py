"""Folders, and hands that do to them whatever people and programs do."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from churn.contents import Contents, hash_of
from churn.oracle import IGNORE_FILE, PATTERNS, SIDECAR_SUFFIXES, SUFFIXES
from renames import exchange

FULL: Final = 100
"""Files in the roots, about; from there on more is taken away than added."""

DEEP: Final = 1000
"""Bytes of a path, at most; some of the names are long."""

NAMES: Final = tuple(
    os.fsdecode(name.encode() if isinstance(name, str) else name)
    for name in (
        *("a.jpg", "b.jpg", "c.png", "d.webp", "e.tif", "f.JPG", "F.JPG", "IMG_0001.jpg", "img_0001.jpg"),
        *("' OR 1=1 --.jpg", "-rf.jpg", "new\nline.jpg", 'quo"te.png', "back\\slash.jpg", "100%_*?.jpg"),
        *("🏖️ beach.jpg", "\u00e9t\u00e9.jpg", "e\u0301te\u0301.jpg", " space .jpg", "tab\t.jpg"),
        *(b"\xff\xfe.jpg", b"caf\xe9.png", "x" * 251 + ".jpg", ".jpg", ".hidden.jpg"),
        *("h.jpg", "i.jpeg", "j.ppm", "k.bmp", "l.gif", "m.jp2", "n.avif", "o.jfif"),
        *("notes.txt", "a.jpg.part", "two.dots.jpeg", "\u202egpj.jpg", "a.jpg~"),
        *("a.xmp", "a.jpg.xmp", "IMG_0001.XMP", "two.dots.xmp", "\u00e9t\u00e9.xmp"),
    )
)
FOLDERS: Final = tuple(
    os.fsdecode(name.encode() if isinstance(name, str) else name)
    for name in (
        *("trip", "Trip", "2024", "a.jpg", "new\nline", "-r", "🏖️", "\u00fc", "u\u0308", "' --", "y" * 200),
        *(b"\xfe\xff", ".thumbnails", "inner", "b", "c", "d", "b.xmp"),
    )
)
MODES: Final = (0o644, 0o644, 0o444, 0o000, 0o200)
FOLDER_MODES: Final = (0o755, 0o755, 0o000, 0o100, 0o400)
TIMES: Final = (-30_000_000, 0, 1_000_000_000, 4_110_000_000)
"""Of 1969, 1970, 2001 and 2100."""


@dataclass(slots=True)
class Writer:
    """A file that is being written, what it shall be, and what of that is still to come."""

    path: str
    descriptor: int
    whole: bytes
    rest: list[bytes]

    def step(self) -> bool:
        """Write a piece; True when that was the last."""
        os.write(self.descriptor, self.rest.pop(0))
        if not self.rest:
            os.close(self.descriptor)
        return not self.rest


@dataclass(slots=True)
class World:
    """:param roots: those that were there from the beginning; they stay where they are, or come back.
    :param outside: a folder on the same file system that nobody watches.
    :param private: one that belongs to the daemon.
    :param harmless: permissions are changed to such only as keep everything readable.
    :param heard: only what events tell of: no second name for a file, no folder that is closed for a while.
    ``away``: root → where it is now.
    """

    roots: list[str]
    outside: str
    private: str
    contents: Contents
    harmless: bool
    heard: bool
    writers: list[Writer] = field(default_factory=list)
    away: dict[str, str] = field(default_factory=dict)
    made_again: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    """Hashes of pictures that were in a file at any time, and one entry for each unfinished state."""

    def files(self) -> list[str]:
        return [path for top in self._tops() for path in _walk(top, self.private) if _is(path, "S_ISREG")]

    def folders(self) -> list[str]:
        """Those in the roots and outside, each root itself included."""
        tops = self._tops()
        inner = [path for top in tops for path in _walk(top, self.private) if _is(path, "S_ISDIR")]
        return sorted({*tops, *inner}, key=os.fsencode)

    def movable(self) -> list[str]:
        """Folders that are no root and hold none."""
        tops = [*self.roots, self.outside]
        return [
            path
            for path in self.folders()
            if not any(top == path or top.startswith(f"{path}/") for top in tops)
        ]

    def is_watched(self, path: str) -> bool:
        """Whether it lies in a root, or is one."""
        return any(f"{path}/".startswith(f"{root}/") for root in self.roots)

    def note(self, data: bytes) -> bytes:
        """Remember that this is, or was, in a file. A sidecar is no picture, whatever its name."""
        if hash_of(data) not in self.contents.said:
            self.seen.add(hash_of(data))
        return data

    def note_unfinished(self) -> None:
        """A file holds something for a moment that may even be a picture."""
        self.seen.add(f"unfinished {len(self.seen)}")

    def present(self) -> set[str]:
        """Hashes of all contents that are in files now."""
        return {hash_of(Path(path).read_bytes()) for path in self.files()} - self.contents.said.keys()

    def write_on(self, writer: Writer) -> bool:
        """Another piece; True when that was the last."""
        self.note_unfinished()
        if not writer.step():
            return False
        self.note(writer.whole)
        self.writers.remove(writer)
        return True

    def finish_writing(self) -> None:
        for writer in list(self.writers):
            while not self.write_on(writer):
                pass

    def come_to_rest(self, rng: random.Random, number: int, *, keep_closed: bool) -> None:
        """Finish what is being written; have roots there and not empty, and folders readable.

        :param keep_closed: leave those as they are that cannot be read.
        """
        self.finish_writing()
        self.bring_back()
        for folder in () if keep_closed else self.folders():
            os.chmod(folder, 0o755)  # noqa: S103 - as most folders are
        # A root that was made anew and is empty counts as one that is not there.
        for root in [root for root in self.roots if root in self.made_again or not os.path.isdir(root)]:
            os.makedirs(root, exist_ok=True)
            Path(root, "here.ppm").write_bytes(self.note(self.contents.make_alike(number + rng.randrange(9))))
        self.made_again.clear()

    def may_move(self, root: str) -> bool:
        """Whether it is there, and nothing in it is another root, the daemon's own, or away."""
        inner = [self.private, *self.away, *(other for other in self.roots if other != root)]
        is_lone = not any(f"{place}/".startswith(f"{root}/") for place in inner)
        return is_lone and root not in self.made_again and os.path.isdir(root)

    def take_away(self, root: str) -> None:
        """What unplugging a disk looks like."""
        os.rename(root, f"{self.outside}-{len(self.away)}")
        self.away[root] = f"{self.outside}-{len(self.away)}"

    def bring_back(self) -> None:
        for root, place in reversed(self.away.items()):
            # Something else may have come to that name meanwhile.
            shutil.rmtree(root, ignore_errors=True)
            os.makedirs(os.path.dirname(root), exist_ok=True)
            os.rename(place, root)
        if self.away:
            self.seen |= self.present()
        self.away.clear()

    def make_again(self, root: str) -> None:
        shutil.rmtree(root)
        os.mkdir(root)
        self.made_again.add(root)

    def symlinks(self) -> list[str]:
        return [path for top in self._tops() for path in _walk(top, self.private) if _is(path, "S_ISLNK")]

    def _tops(self) -> list[str]:
        tops = [top for top in (*self.roots, self.outside) if os.path.isdir(top)]
        return [top for top in tops if not any(top.startswith(f"{other}/") for other in tops)]


class Hands:
    """One step at a time, each with a generator of its own: leaving one out changes no other's dice."""

    def __init__(self, world: World, rng: random.Random, number: int) -> None:
        self.world = world
        self.rng = rng
        self.number = number
        self.touched: list[str] = []

    def act(self) -> str:
        """Do something; returns what it was."""
        kinds, weights = zip(*_ACTIONS, strict=True)
        action = self.rng.choices(kinds, weights)[0]
        if len(self.world.files()) > FULL and self.rng.random() < 0.4:
            action = self.rng.choice((Hands.remove, Hands.remove_tree))
        try:
            done = action(self)
        except OSError as error:
            done = f"refused: {error.strerror}"
        paths = " → ".join(repr(path) for path in self.touched)
        return f"{action.__name__} {paths} {done or ''}".rstrip()

    # Choosing.

    def file(self) -> str:
        """:raises FileNotFoundError: there is none."""
        files = self.world.files()
        if not files:
            raise FileNotFoundError(2, "no file")
        return self._touch(self.rng.choice(files))

    def picture(self) -> str:
        """A file with a picture's name.

        :raises FileNotFoundError: there is none.
        """
        pictures = [p for p in self.world.files() if os.path.splitext(p)[1].lower() in SUFFIXES]
        if not pictures:
            raise FileNotFoundError(2, "no picture")
        return self._touch(self.rng.choice(pictures))

    def sidecar(self) -> str:
        """:raises FileNotFoundError: there is none."""
        sidecars = [path for path in self.world.files() if path.endswith(SIDECAR_SUFFIXES)]
        if not sidecars:
            raise FileNotFoundError(2, "no sidecar")
        of_pictures = [path for path in sidecars if self._has_owner(path)]
        return self._touch(
            self.rng.choice(of_pictures if of_pictures and self.rng.random() < 0.7 else sidecars)
        )

    @staticmethod
    def _has_owner(sidecar: str) -> bool:
        stem = os.path.splitext(sidecar)[0]
        return any(os.path.lexists(f"{stem}{suffix}") for suffix in ("", ".jpg", ".jpeg", ".png", ".ppm"))

    def beside(self, picture: str) -> str:
        """Where a sidecar of this picture may be or not."""
        base = picture if self.rng.random() < 0.4 else os.path.splitext(picture)[0]
        suffix = self.rng.choice((*SIDECAR_SUFFIXES, SIDECAR_SUFFIXES[0]))
        return self._touch(f"{base}{suffix}")

    def folder(self) -> str:
        """Mostly one that is watched, and is not hidden."""
        folders = self.world.folders()
        watched = [path for path in folders if "/." not in path and self.world.is_watched(path)]
        return self.rng.choice(watched if watched and self.rng.random() < 0.9 else folders)

    def tree(self) -> str:
        movable = self.world.movable()
        if not movable:
            raise FileNotFoundError(2, "no folder")
        return self._touch(self.rng.choice(movable))

    def place(self, names: tuple[str, ...] = NAMES) -> str:
        """A path where something may be or not."""
        path = self._touch(os.path.join(self.folder(), self.rng.choice(names)))
        if len(os.fsencode(path)) > DEEP:
            raise OSError(errno.ENAMETOOLONG, "deep enough")
        return path

    def data(self) -> bytes:
        return self.world.contents.make(self.rng, self.number)

    def _touch(self, path: str) -> str:
        self.touched.append(path)
        return path

    # Doing.

    def create(self) -> str:
        return self._write(self.place(), self.data())

    def create_in_new_folder(self) -> str:
        folder = self.place(FOLDERS)
        os.makedirs(folder, exist_ok=True)
        path = self._touch(os.path.join(folder, self.rng.choice(NAMES)))
        return self._write(path, self.data())

    def overwrite(self) -> str:
        return self._write(self.file(), self.data())

    def overwrite_unnoticed(self) -> str:
        """Another picture of the same size, under the same time, in the same inode."""
        path = self.file()
        stat = os.stat(path)
        data = self.world.note(self.world.contents.make_alike(self.number))
        if stat.st_size != len(data):
            return self._write(path, data)
        if self.rng.random() < 0.3:
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[:] = data
        else:
            with open(path, "r+b") as file:
                file.write(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return hash_of(data)[:8]

    def save_atomically(self) -> str:
        path = self.file() if self.rng.random() < 0.5 else self.place()
        folder, name = os.path.split(path)
        temporary = self.rng.choice(
            (f".{name[:200]}.tmp", f"{name[:200]}.part", f"tmp{self.number}.jpg", None)
        )
        place = os.path.join(self.world.outside if temporary is None else folder, temporary or "t.jpg")
        done = self._write(self._touch(place), self.data())
        os.replace(place, path)
        return done

    def write_slowly(self) -> str:
        path, data = self.place(), self.data()
        cuts = sorted(self.rng.sample(range(len(data) + 1), min(3, len(data) + 1)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if self.rng.random() < 0.2:
            os.ftruncate(descriptor, len(data))
        self.world.writers.append(Writer(path, descriptor, data, pieces))
        return f"begun {hash_of(data)[:8]}"

    def write_on(self) -> str:
        if not self.world.writers:
            return "nothing"
        writer = self.rng.choice(self.world.writers)
        self._touch(writer.path)
        return "finished" if self.world.write_on(writer) else "a piece"

    def copy(self) -> None:
        shutil.copy2(self.file(), self.place())

    def rename(self) -> None:
        os.rename(self.file(), self.place())

    def swap(self) -> None:
        """In three steps, as people do it."""
        one, two = self.file(), self.file()
        between = os.path.join(self.rng.choice((os.path.dirname(one), self.world.outside)), "between.jpg")
        os.rename(one, between)
        os.rename(two, one)
        os.rename(between, two)

    def exchange(self) -> None:
        """In one step; files and folders."""
        choose = self.tree if self.rng.random() < 0.3 else self.file
        one, two = choose(), choose()
        exchange(one, two)

    def move_tree(self) -> None:
        """Anywhere: in, out, within, between."""
        os.rename(self.tree(), self.place(FOLDERS))

    def move_tree_away_and_make_it_again(self) -> str:
        """The case that leaves a reader behind which follows renames."""
        tree = self.tree()
        away = self._touch(os.path.join(self.world.outside, f"archive{self.number}"))
        os.rename(tree, away)
        os.mkdir(tree)
        path = self._touch(os.path.join(tree, self.rng.choice(NAMES)))
        done = self._write(path, self.data())
        if self.rng.random() < 0.5:
            renamed = self._touch(os.path.join(os.path.dirname(tree), self.rng.choice(FOLDERS)))
            os.rename(tree, renamed)
            shutil.rmtree(away)
            self._write(self._touch(os.path.join(renamed, "after.jpg")), self.data())
        return done

    def copy_tree(self) -> None:
        tree, place = self.tree(), self.place(FOLDERS)
        if not place.startswith(f"{tree}/"):
            shutil.copytree(tree, place, symlinks=True)

    def remove(self) -> None:
        os.remove(self.file())

    def remove_tree(self) -> None:
        shutil.rmtree(self.tree())

    def make_folder(self) -> None:
        os.mkdir(self.place(FOLDERS))

    def link_hard(self) -> str | None:
        if self.world.heard:
            return "not here"
        os.link(self.file(), self.place())
        return None

    def link_symbolically(self) -> None:
        targets: tuple[Callable[[], str], ...] = (self.file, self.folder, lambda: "nowhere", lambda: ".")
        target = self.rng.choice(targets)()
        path = self.place(self.rng.choice((NAMES, FOLDERS)))
        os.symlink(os.path.basename(path) if target == "." else target, path)

    def replace_by_symlink(self) -> None:
        path = self.file() if self.rng.random() < 0.5 else self.tree()
        away = self._touch(os.path.join(self.world.outside, f"target{self.number}.jpg"))
        os.rename(path, away)
        os.symlink(away, path)

    def remove_symlink(self) -> None:
        if links := self.world.symlinks():
            os.remove(self._touch(self.rng.choice(links)))

    def make_special(self) -> None:
        os.mkfifo(self.place())

    def touch(self) -> None:
        path = self.file()
        seconds = self.rng.choice((*TIMES, None))
        os.utime(path, None if seconds is None else (seconds, seconds))

    def chmod(self) -> str:
        path = self.file() if self.world.heard or self.rng.random() < 0.7 else self.tree()
        mode = self.rng.choice(FOLDER_MODES if os.path.isdir(path) else MODES)
        if self.world.harmless and mode not in {0o644, 0o444, 0o755}:
            mode = 0o755
        os.chmod(path, mode)
        return f"{mode:o}"

    def ignore(self) -> str:
        folder = self.folder()
        # Seeds that ignore a whole root for long see little.
        patterns = [line for line in PATTERNS if folder not in self.world.roots or line != "*"]
        lines = "\n".join(self.rng.sample(patterns, self.rng.randrange(1, 3)))
        path = self._touch(os.path.join(folder, IGNORE_FILE))
        with open(path, "w", encoding="ascii") as file:
            file.write(lines)
        return repr(lines)

    def stop_ignoring(self) -> str | None:
        folders = [f for f in self.world.folders() if os.path.lexists(os.path.join(f, IGNORE_FILE))]
        if not folders:
            return "nothing"
        path = self._touch(os.path.join(self.rng.choice(folders), IGNORE_FILE))
        os.remove(path)
        return None

    def write_sidecar(self) -> str:
        """As most editors do, over what is there."""
        return self._write_sidecar(self.beside(self.picture()))

    def write_sidecar_first(self) -> str:
        """Before its picture comes, or without one."""
        place = self.place()
        done = self._write_sidecar(self.beside(place))
        return f"{done} and {self._write(place, self.data())}" if self.rng.random() < 0.7 else done

    def edit_sidecar_unnoticed(self) -> str:
        """Other words of the same size, under the same time, in the same inode."""
        path = self.sidecar()
        stat, data = os.stat(path), self.world.contents.make_sidecar_alike(self.number)
        if stat.st_size != len(data):
            return self._write_sidecar(path, data)
        with open(path, "r+b") as file:
            file.write(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return hash_of(data)[:8]

    def save_sidecar_atomically(self) -> str:
        path = self.sidecar() if self.rng.random() < 0.5 else self.beside(self.picture())
        folder, name = os.path.split(path)
        temporary = self.rng.choice((f".{name[:200]}.tmp", f"{name[:200]}~", f"tmp{self.number}.xmp", None))
        place = os.path.join(self.world.outside if temporary is None else folder, temporary or "t.xmp")
        done = self._write_sidecar(self._touch(place))
        os.replace(place, path)
        return done

    def remove_sidecar(self) -> None:
        os.remove(self.sidecar())

    def move_sidecar(self) -> None:
        """To another picture, and not with its own."""
        os.rename(self.sidecar(), self.beside(self.picture()))

    def exchange_sidecars(self) -> None:
        exchange(self.sidecar(), self.sidecar())

    def move_picture_without_sidecars(self) -> None:
        os.rename(self.picture(), self.place())

    def move_with_sidecars(self) -> None:
        """A picture with all of its sidecars, in either order, mostly."""
        pairs = self._with_sidecars()
        for source, target in pairs if self.rng.random() < 0.5 else reversed(pairs):
            os.rename(source, target)

    def copy_with_sidecars(self) -> None:
        for source, target in self._with_sidecars():
            shutil.copy2(source, target)

    def _with_sidecars(self) -> list[tuple[str, str]]:
        """A picture and its sidecars, and where each goes when the picture gets another place."""
        picture, place = self.picture(), self.place()
        bases = {picture: place, os.path.splitext(picture)[0]: os.path.splitext(place)[0]}
        pairs = [(f"{old}{s}", f"{new}{s}") for old, new in bases.items() for s in SIDECAR_SUFFIXES]
        there = [(self._touch(old), self._touch(new)) for old, new in pairs if os.path.lexists(old)]
        return [(picture, place), *there]

    def _write_sidecar(self, path: str, data: bytes | None = None) -> str:
        data = self.world.contents.make_sidecar(self.rng, self.number) if data is None else data
        self._write_through(path, data)
        return f"says {hash_of(data)[:8]}"

    def _write(self, path: str, data: bytes) -> str:
        self.world.note(data)
        self.world.note_unfinished()
        self._write_through(path, data)
        return hash_of(data)[:8]

    def _write_through(self, path: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | self.rng.choice((os.O_TRUNC, os.O_TRUNC, 0))
        # Not through a symbolic link: what that points to may be anything.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            middle = len(data) // 2 if self.rng.random() < 0.3 else len(data)
            os.write(descriptor, data[:middle])
            os.write(descriptor, data[middle:])
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)


def _walk(folder: str, without: str) -> Iterator[str]:
    """Everything below, in an order that is always the same."""
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = os.path.join(folder, name)
        if path == without:
            continue
        yield path
        if _is(path, "S_ISDIR"):
            yield from _walk(path, without)


def _is(path: str, kind: str) -> bool:
    test: Callable[[int], bool] = getattr(stat_module, kind)
    return test(os.lstat(path).st_mode)


_ACTIONS: Final[tuple[tuple[Callable[[Hands], str | None], int], ...]] = (
    (Hands.create, 24),
    (Hands.create_in_new_folder, 10),
    (Hands.overwrite, 7),
    (Hands.overwrite_unnoticed, 6),
    (Hands.save_atomically, 7),
    (Hands.write_slowly, 4),
    (Hands.write_on, 8),
    (Hands.copy, 7),
    (Hands.rename, 8),
    (Hands.swap, 3),
    (Hands.exchange, 3),
    (Hands.move_tree, 6),
    (Hands.move_tree_away_and_make_it_again, 2),
    (Hands.copy_tree, 3),
    (Hands.remove, 4),
    (Hands.remove_tree, 1),
    (Hands.make_folder, 2),
    (Hands.link_hard, 4),
    (Hands.link_symbolically, 3),
    (Hands.replace_by_symlink, 2),
    (Hands.remove_symlink, 2),
    (Hands.make_special, 1),
    (Hands.touch, 3),
    (Hands.chmod, 5),
    (Hands.ignore, 2),
    (Hands.stop_ignoring, 4),
    (Hands.write_sidecar, 12),
    (Hands.write_sidecar_first, 4),
    (Hands.edit_sidecar_unnoticed, 8),
    (Hands.save_sidecar_atomically, 5),
    (Hands.remove_sidecar, 3),
    (Hands.move_sidecar, 4),
    (Hands.exchange_sidecars, 1),
    (Hands.move_picture_without_sidecars, 3),
    (Hands.move_with_sidecars, 5),
    (Hands.copy_with_sidecars, 3),
)
