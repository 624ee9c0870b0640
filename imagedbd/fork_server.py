"""A small process that forks others in milliseconds, for work that may take its process down.

It has imported what its children need, so that they share that memory, and it runs nothing but this
module's loop: no file can harm it. Each child gets one end of a socket whose other end its maker holds, and
nothing is shared between children: whichever is killed, wherever it was, the others never notice.

Children die with the server, and the server leaves when its maker is gone, so that none is left behind.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from imagedbd.processes import die_with_parent, environment, python

if TYPE_CHECKING:
    from collections.abc import Sequence

REPLY_TIMEOUT_S: Final = 30.0
"""How long the server may take to answer, its start included; then another takes its place."""
_RESTARTS: Final = 3
"""How many servers in a row may be killed before one that is wanted has answered."""
_STATUSES: Final = 1000
"""How many ends of children are remembered until somebody asks for them."""


class ForkServer:
    """The server, seen from the process that wants children; it is started when it is first needed.

    Any thread may call any method.

    :param module: has ``serve(descriptor)``, which a child runs with its end of the socket.
    :param preload: modules that are imported before the first fork.
    """

    def __init__(self, module: str, preload: Sequence[str] = ()) -> None:
        self._modules = [module, *preload]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False

    def fork(self, descriptor: int) -> int:
        """Start a child with this descriptor, and return its process id.

        :raises OSError: none could be started.
        """
        with self._lock:
            for _ in range(_RESTARTS):
                try:
                    return int(self._ask(b"fork", [descriptor]))
                except OSError:
                    # Whoever killed the server may not have meant us: a new one answers, or there is none.
                    self._stop()
            return int(self._ask(b"fork", [descriptor]))

    def exit_code(self, pid: int) -> int | None:
        """How a child ended that has closed its socket: as ``subprocess`` has it, or ``None`` if unknown."""
        with self._lock:
            if self._process is None:
                return None
            try:
                reply = self._ask(b"end of %d" % pid)
            except OSError:
                self._stop()
                return None
            return int(reply) if reply != b"unknown" else None

    def close(self) -> None:
        """End the server with all its children."""
        with self._lock:
            self._closed = True
            self._stop()

    def _ask(self, request: bytes, descriptors: Sequence[int] = ()) -> bytes:
        control = self._control or self._start()
        socket.send_fds(control, [request], descriptors)
        reply = control.recv(64)
        if not reply:
            raise ConnectionResetError("it was killed")
        return reply

    def _start(self) -> socket.socket:
        if self._closed:
            raise ConnectionAbortedError("it was closed")
        # Each send is one message, whole or not at all.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(REPLY_TIMEOUT_S)
        with theirs:
            self._process = subprocess.Popen(
                python(__name__, str(theirs.fileno()), *self._modules),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(OPENBLAS_NUM_THREADS="1"),
            )
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class _Loop:
    """What the server does, forever: fork, and remember how children ended."""

    def __init__(self, control: socket.socket, module: str) -> None:
        self._control = control
        self._module = module
        self._ends: dict[int, int] = {}

    def run(self) -> None:
        while True:
            request, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
            if not request:
                return
            if request == b"fork":
                reply = str(self._fork(descriptors[0]))
            else:
                reply = self._end_of(int(request.removeprefix(b"end of ")))
            self._control.send(reply.encode())

    def _fork(self, descriptor: int) -> int:
        self._reap()
        server = os.getpid()
        pid = os.fork()
        if pid:
            os.close(descriptor)
            return pid
        code = 1
        try:
            self._control.close()
            die_with_parent()
            if os.getppid() == server:  # else it died before the kernel knew
                importlib.import_module(self._module).serve(descriptor)
                code = 0
        finally:
            os._exit(code)

    def _end_of(self, pid: int) -> str:
        # Its socket is closed, so it is as good as gone; but whoever waits for good could wait for long.
        for _ in range(100):
            self._reap()
            if pid in self._ends:
                return str(self._ends.pop(pid))
            time.sleep(0.01)
        return "unknown"

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._ends[pid] = os.waitstatus_to_exitcode(status)
                if len(self._ends) > _STATUSES:
                    del self._ends[next(iter(self._ends))]


def main(arguments: list[str]) -> int:
    # The daemon says when all this ends. A Ctrl-C at its terminal, and what systemd sends to a whole service,
    # reach this process and its children as well: then a file in work must not seem to kill its decoder.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    descriptor, *modules = arguments
    for module in modules:
        importlib.import_module(module)
    # Its maker may go at any moment, also between a question and the answer.
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=int(descriptor)) as control,
    ):
        _Loop(control, modules[0]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
