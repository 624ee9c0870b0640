"""Sockets that systemd holds for the daemon and hands over at its start; see sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from imagedbd.errors import ConfigError, ImagedbError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

log = logging.getLogger(__name__)

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START: where handed over descriptors begin."""
READING_S: Final = 1.0
"""How long a client that is only to be refused may keep silent."""
_CHUNK: Final = 1 << 16


def listening(
    path: str, own: Callable[[str], AbstractContextManager[socket.socket]]
) -> AbstractContextManager[socket.socket]:
    """The socket that was handed over, or else one of our own at this path.

    The one that was handed over stays where it is afterwards: systemd listens on while the daemon is down.

    :param own: makes a socket at a path, and removes it.
    :raises ConfigError: what was handed over is something else than one listening Unix socket.
    """
    passed = _passed_socket()
    if passed is None:
        return own(path)
    if (name := passed.getsockname()) != path:
        log.warning("systemd listens at %s, but the settings say %s: `imagedb service install`", name, path)
    return passed


@contextmanager
def explaining_failure() -> Iterator[None]:
    """Tell clients that wait at a socket that was handed over why the daemon cannot start.

    A connection left there would have systemd start the daemon again for it, and again.
    """
    try:
        yield
    except ImagedbError as error:
        with contextlib.suppress(ConfigError):  # then nobody waits at it either
            if (passed := _passed_socket()) is not None:
                with passed:
                    _refuse_all(passed, error)
        raise


def _passed_socket() -> socket.socket | None:
    """:raises ConfigError: what was handed over is no listening Unix socket, or more than one."""
    count, process = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdecimal() or process != str(os.getpid()):
        return None
    if count != "1":
        raise ConfigError(f"systemd handed over {count} sockets instead of one; look at imagedbd.socket.")
    os.set_inheritable(FIRST_DESCRIPTOR, False)  # noqa: FBT003 - takes no keyword
    passed = socket.socket(fileno=os.dup(FIRST_DESCRIPTOR))
    if (passed.family, passed.type) == (socket.AF_UNIX, socket.SOCK_STREAM) and passed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        return passed
    passed.close()
    raise ConfigError("What systemd handed over is no listening Unix socket; look at imagedbd.socket.")


def _refuse_all(listener: socket.socket, error: ImagedbError) -> None:
    listener.setblocking(False)  # noqa: FBT003 - takes no keyword
    while True:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        with client, contextlib.suppress(OSError):  # it may have gone by now
            client.settimeout(READING_S)
            _refuse(client, error)


def _refuse(client: socket.socket, error: ImagedbError) -> None:
    """Answer one request, whatever it is, in the shape that every error has."""
    client.recv(_CHUNK)
    described = {"name": type(error).__name__, "title": error.title, "message": error.message}
    body = json.dumps({"error": described}).encode("ascii")
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode("ascii") + body)
    client.shutdown(socket.SHUT_WR)
    while client.recv(_CHUNK):  # to hang up on what is still being sent would break the client's pipe
        pass
