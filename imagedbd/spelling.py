"""How folders spell names: where a look-up is loose about case, a file is found by names it does not have.

So it is on FAT, exFAT, many shares, and in folders of ext4 that fold case. After a file or a folder was
renamed in nothing but case, its former name still finds it, and no listing has that name.
"""

from __future__ import annotations

import os


class Spelling:
    """What folders say of names in one go: each is asked once, so make another for what comes later.

    Where a look-up is exact, as nearly everywhere, no folder is listed.
    """

    def __init__(self) -> None:
        self._loose: dict[str, bool] = {}
        self._names: dict[str, frozenset[str] | None] = {}

    def is_exact(self, path: str, root: str) -> bool:
        """Whether this, which was found, is called so, and each folder on the way to it from a root.

        :returns: True also where that cannot be told.
        """
        folder = root
        for name in filter(None, path.removeprefix(root).split("/")):
            if self._is_loose(folder, name) and not self._lists(folder, name):
                return False
            folder = os.path.join(folder, name)
        return True

    def _is_loose(self, folder: str, name: str) -> bool:
        """Whether names of another case find what is in this folder, as far as one name can tell."""
        if folder in self._loose:
            return self._loose[folder]
        other = "".join(map(_swapped, name))
        if other == name:
            return False
        self._loose[folder] = _are_one(os.path.join(folder, name), os.path.join(folder, other))
        return self._loose[folder]

    def _lists(self, folder: str, name: str) -> bool:
        if folder not in self._names:
            self._names[folder] = _listing(folder)
        names = self._names[folder]
        return names is None or name in names


def _swapped(character: str) -> str:
    """In the other case, where that is one character as well: ``ß`` is not the same as ``SS`` everywhere."""
    other = character.swapcase()
    return other if len(other) == 1 else character


def _are_one(path: str, other: str) -> bool:
    try:
        # This one first: nearly everywhere it is not there, and that is all there is to ask.
        two, one = os.lstat(other), os.lstat(path)
    except OSError:
        return False
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def _listing(folder: str) -> frozenset[str] | None:
    """``None`` if there is none to be had."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return None
