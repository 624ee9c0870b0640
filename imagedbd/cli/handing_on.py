"""What was found, given to other programs: as links in a folder, to a command, to the viewer."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from imagedbd.cli import output
from imagedbd.errors import ImagedbError, UsageError

VIEWER: Final = "xdg-open"
MANY: Final = 20
"""Windows that one command may open."""
PLACE: Final = "{}"
_LONGEST_NAME: Final = 255
"""Bytes of a file name, on every file system that matters."""


def command_of(text: str) -> list[str]:
    """The words of a command, one of which stands for the picture.

    :raises UsageError: there is no such program, or a quote without its end.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--exec: {text!r} cannot be taken apart: {error}.") from error
    if not words:
        raise UsageError("--exec is empty. For example: --exec 'cp {} /mnt/frame'")
    if shutil.which(words[0]) is None:
        raise UsageError(f"--exec: there is no program {words[0]!r} here.")
    return words if any(PLACE in word for word in words) else [*words, PLACE]


def run_each(words: Sequence[str], paths: Sequence[str], *, aside: bool = False) -> None:
    """Run a command for each path, one after the other. No shell sees the path.

    :param aside: what it writes to standard output goes to standard error.
    :raises ImagedbError: some of them failed; the others were run all the same.
    :raises BrokenPipeError: one failed, and nobody reads what they write; the others are not run.
    """
    sys.stdout.flush()
    failed, out = 0, sys.stderr if aside else None
    for path in paths:
        command = [word.replace(PLACE, path) for word in words]
        if subprocess.run(command, check=False, stdout=out).returncode != 0:
            if not aside:
                output.check_is_read()  # where nobody reads any more, that is what it failed of
            failed += 1
    if failed:
        raise ImagedbError(f"The command failed for {failed} of {output.count(len(paths), 'picture')}.")


def check_viewer(limit: int) -> None:
    """:raises UsageError: pictures cannot be opened here, or not so many."""
    if shutil.which(VIEWER) is None:
        raise UsageError(
            f"There is no {VIEWER} here (package xdg-utils). A viewer can be named: --exec 'feh {{}}'"
        )
    if limit > MANY:
        raise UsageError(
            f"--open would open up to {limit} windows; at most {MANY} at a time: -n {MANY}. "
            "For more there is --link-to DIR, and --sheet FILE.html."
        )


def open_each(paths: Sequence[str]) -> None:
    """Open each in the viewer of the desktop, which may write where nobody reads.

    :raises ImagedbError: some could not be opened; the message has the last that was said of it.
    """
    failed = []
    for path in paths:
        # No pipe: a viewer that stays open would keep it open, and be waited for.
        with tempfile.TemporaryFile() as said:
            command = [VIEWER, path]
            done = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            if done.returncode != 0:
                said.seek(0)
                failed.append(said.read().decode(errors="replace").strip())
    if failed:
        last = failed[-1].rpartition("\n")[2] or "it did not say why"
        raise ImagedbError(
            f"{VIEWER} failed for {len(failed)} of {output.count(len(paths), 'picture')}: {last}"
        )


def link_all(paths: Sequence[str], folder: str) -> int:
    """Fill a folder with symbolic links to these files. What is there stays as it is.

    :param folder: made if it is not there.
    :returns: how many links were made; a file that has one there already gets no second one.
    :raises OSError: the folder or a link cannot be made.
    """
    os.makedirs(folder, exist_ok=True)
    return sum(_link(path, folder) for path in paths)


def _link(path: str, folder: str) -> bool:
    for name in _names(os.path.basename(path)):
        link = os.path.join(folder, name)
        try:
            os.symlink(path, link)
        except FileExistsError:
            if _leads_to(link, path):
                return False
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror, link) from error
        else:
            return True
    raise AssertionError("names never end")


def _names(name: str) -> Iterator[str]:
    """``a.jpg``, ``a-2.jpg``, ``a-3.jpg`` and so on, none too long."""
    yield name
    stem, suffix = (os.fsencode(part) for part in os.path.splitext(name))
    for number in count(2):
        end = b"-%d%s" % (number, suffix)
        yield os.fsdecode(stem[: _LONGEST_NAME - len(end)] + end)


def _leads_to(link: str, path: str) -> bool:
    try:
        return os.readlink(link) == path
    except OSError:  # no link, or gone
        return False
