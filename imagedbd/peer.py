"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct


def uid(connection: socket.socket) -> int:
    """The user as the kernel knows it, of a listener as of when it began to listen: SO_PEERCRED, unix(7)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)
