"""The folders that the daemon writes in, and the locks that keep a second one out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat as stat_module
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from imagedbd.errors import ConfigError, LockHeldError

if TYPE_CHECKING:
    from imagedbd.config import Settings


_STOPPING: Final = b"stopping\n"
"""What a lock's file holds while its holder is on the way out; else it is empty."""
_TRIES: Final = 10
_PAUSE_S: Final = 0.02
"""Who only looks whether a lock is held has it for a moment: that must not keep a daemon from starting."""


@contextmanager
def locked_data(settings: Settings) -> Iterator[None]:
    """Have the data folder to oneself; it is made if it is not there.

    :raises LockHeldError: if a daemon works in it.
    :raises ConfigError: if it cannot be used.
    """
    prepare_folder(settings.data_dir)
    with locked(_data_lock(settings), settings.data_dir):
        yield


def check_unlocked(settings: Settings) -> None:
    """Look whether the data folder could be had now; nothing is made or held.

    :raises LockHeldError: a daemon works in it.
    """
    if is_locked(_data_lock(settings)):
        raise _held(settings.data_dir)


def check_free(path: str, what: str) -> None:
    """Look whether a lock could be had now; nothing is made or held. For who would make things before it is.

    :param what: as for :func:`locked`.
    :raises LockHeldError: another process holds it.
    """
    for _ in range(_TRIES):
        if not is_locked(path):
            return
        time.sleep(_PAUSE_S)
    raise _held(what)


def _data_lock(settings: Settings) -> str:
    return os.path.join(settings.data_dir, "lock")


@contextmanager
def locked(path: str, what: str) -> Iterator[None]:
    """Hold an advisory lock; the kernel lets go of it however the process ends.

    :param what: what the lock stands for, as an error names it.
    :raises LockHeldError: if another process holds it.
    :raises ConfigError: if the file cannot be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"The lock {path} cannot be used: {error.strerror}.") from error
    try:
        _acquire(descriptor, what)
        os.ftruncate(descriptor, 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, what: str) -> None:
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not left:
                raise _held(what) from error
            time.sleep(_PAUSE_S)
        else:
            return


def _held(what: str) -> LockHeldError:
    return LockHeldError(f"Another imagedbd uses {what}. `imagedb status` talks to it.")


def is_locked(path: str) -> bool:
    """Whether a process holds this lock at the moment; a file that cannot be looked at is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def mark_stopping(path: str) -> None:
    """For who holds this lock: have :func:`is_stopping` tell others that it will soon be free."""
    # Where that cannot be written, others learn no more than that somebody has it.
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        file.write(_STOPPING)


def is_stopping(path: str) -> bool:
    """Whether who holds this lock is on the way out; ``False`` also where nobody can tell."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_STOPPING)) == _STOPPING
    except OSError:
        return False


def socket_lock(socket: str) -> str:
    """The lock of the daemon at a socket, held from before there is one until after."""
    return f"{socket}.lock"


def prepare_folder(folder: str) -> None:
    """A new folder is private; one that is there must belong to this user, and to nobody else to write in.

    For the start, when there is one thread: the umask is one for all.

    :raises ConfigError: if that is not so, or cannot be.
    """
    umask = os.umask(0o077)  # folders on the way to it are private as well
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        stat = os.lstat(folder)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    finally:
        os.umask(umask)
    if not stat_module.S_ISDIR(stat.st_mode):
        raise ConfigError(f"{folder} is a symbolic link or no folder; name a real one.")
    if stat.st_uid != os.geteuid():
        raise ConfigError(f"The folder {folder} belongs to another user.")
    if stat.st_mode & 0o022:
        raise ConfigError(f"Others may write in the folder {folder}; `chmod go-w` it, or name another.")
