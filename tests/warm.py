"""Our programs, started in milliseconds: each runs in a fork of a process that has imported all of it before.

What runs is the program itself, in a process of its own, with its own arguments, variables, streams and end.
Only the start of a fresh interpreter is left out; who tests that starts the console script. A script that
is given as ``python -c`` runs as well, and finds the program's modules imported.

Run as a script, this is the process that forks.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import os
import pickle
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from imagedbd.processes import die_with_parent
from imagedbd.stores.lean_import import lean_lancedb

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 60.0

_COMMAND = [
    "imagedbd.cli.main",
    "imagedbd.client",
    "rich.console",
    "rich.table",
    "imagedbd.cli.statusview",
]
_DAEMON = [
    "imagedbd.cli.daemon",
    "imagedbd.daemon",
    "imagedbd.stores.faiss",
    "imagedbd.stores.lance",
    "imagedbd.stores.lance_folder",
]
"""What its stores load when they are opened is loaded beforehand as well."""
_MODEL = ["imagedbd.embedder_worker", "imagedbd.openclip"]
_SERVE = "import sys; from imagedbd import embedder_worker; sys.exit(embedder_worker.main(sys.argv[1:]))"


class Warmed:
    """A process that forks our programs.

    :param preload: the modules that it has imported by then.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(TIMEOUT_S)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # As the programs' own processes are started; a library reads it when it is loaded.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"},
            )

    def start(
        self,
        command: Sequence[str | bytes],
        environment: Mapping[str, str],
        streams: Sequence[int | IO[bytes]],
    ) -> WarmProcess:
        """:param command: the console script or ``python -c``, and its arguments.
        :param streams: where it reads from, writes to, and complains to.
        """
        umask = os.umask(0)
        os.umask(umask)
        request = pickle.dumps(([os.fsencode(word) for word in command], environment, os.getcwd(), umask))
        descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
        return WarmProcess(self._ask(request, descriptors), command, self._end_of)

    def run(
        self,
        command: Sequence[str | bytes],
        environment: Mapping[str, str],
        given: bytes = b"",
        timeout: float = TIMEOUT_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end, as ``subprocess.run`` does.

        :param given: what it reads.
        """
        (reads, into), (out, writes), (err, complains) = os.pipe(), os.pipe(), os.pipe()
        streams = (reads, writes, complains)
        process = self.start(command, environment, streams)
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb") as writing:
            writing.write(given)
        read = _read_all([out, err], time.monotonic() + timeout)
        return subprocess.CompletedProcess(list(command), process.wait(timeout), *read)

    def close(self) -> None:
        """End it, with all that it has started."""
        self._control.close()
        self._process.wait(TIMEOUT_S)

    def _end_of(self, pid: int) -> int:
        return self._ask(b"%d" % pid)

    def _ask(self, request: bytes, descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            socket.send_fds(self._control, [request], descriptors)
            return int(self._control.recv(64))


class WarmProcess:
    """One that was forked: what the tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, command: Sequence[str | bytes], end_of: Callable[[int], int]) -> None:
        self.pid = pid
        self.args = command
        self.returncode: int | None = None
        self._end_of = end_of
        self._descriptor = os.pidfd_open(pid)
        # Not before nobody waits any more: one thread may wait for an end that another one sees.
        weakref.finalize(self, os.close, self._descriptor)
        self._asking = threading.Lock()

    def poll(self) -> int | None:
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended_within(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(list(self.args), timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if not poll.poll(None if seconds is None else 1000 * seconds):
                return None
            with self._asking:
                if self.returncode is None:
                    self.returncode = self._end_of(self.pid)
        return self.returncode


def _read_all(descriptors: list[int], deadline: float) -> list[bytes]:
    """Until whoever writes has closed them all."""
    read = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as waiting:
        for descriptor in descriptors:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(deadline - time.monotonic())
            assert ready, "it does not end"
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                read[key.fd] += chunk
                if not chunk:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return list(read.values())


@functools.cache
def commands() -> Warmed:
    """For ``imagedb``."""
    return Warmed(_COMMAND)


@functools.cache
def daemons() -> Warmed:
    """For ``imagedbd``, and for scripts that run it."""
    return Warmed(_DAEMON)


@functools.cache
def models() -> Warmed:
    """For the process that holds a model."""
    return Warmed(_MODEL)


def start_model(
    command: Sequence[str], *, pass_fds: Sequence[int], stdin: int, env: Mapping[str, str]
) -> WarmProcess:
    """In the place of ``subprocess.Popen``, where an embedder starts that process."""
    (descriptor,) = pass_fds
    _, spec, device, dtype = command[-4:]
    # What it answers through takes the place of what it would read, which is nothing.
    return models().start(
        [sys.executable, "-c", _SERVE, "serve", "0", spec, device, dtype], env, (descriptor, 1, 2)
    )


def close() -> None:
    """End what has been started here."""
    for warmed in (commands, daemons, models):
        if warmed.cache_info().currsize:
            warmed().close()
            warmed.cache_clear()


def _serve(control: socket.socket) -> Callable[[], int | None] | None:
    """Fork and tell how children ended, until nobody asks any more.

    :returns: in a child, the program that it is to run.
    """
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not request:
            return None
        if not descriptors:
            _, status = os.waitpid(int(request), 0)
            control.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        server = os.getpid()
        pid = os.fork()
        if not pid:
            control.close()
            die_with_parent()
            if os.getppid() != server:
                os._exit(1)
            return _become(pickle.loads(request), descriptors)
        control.send(b"%d" % pid)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(
    request: tuple[list[bytes], dict[str, str], str, int], streams: list[int]
) -> Callable[[], int | None]:
    from imagedbd.cli import start

    command, environment, folder, umask = request
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those that were there know what they led to: whether one may seek, whether it is a terminal.
    sys.stdin = open(0, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = open(1, "w", errors=sys.stdout.errors, closefd=False)  # noqa: SIM115 - likewise
    sys.stderr = open(2, "w", buffering=1, errors=sys.stderr.errors, closefd=False)  # noqa: SIM115 - likewise
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    os.umask(umask)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _lay_killpoint()
    sys.argv = [os.fsdecode(word) for word in command]
    if sys.argv[0] == sys.executable:
        _, _, script, *arguments = sys.argv
        sys.argv = ["-c", *arguments]
        return lambda: exec(script, {"__name__": "__main__"})  # noqa: S102 - of our own
    program: Callable[[], int] = getattr(start, os.path.basename(sys.argv[0]))
    return program


def _beside(name: str) -> ModuleType:
    """A module by its file: the folder that it lies in is not on our programs' path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lay_killpoint() -> None:
    if place := os.environ.get("IMAGEDBD_TEST_KILL"):
        _beside("killpoint").lay(importlib.import_module(place.partition(":")[0]))


def _end_threads() -> None:
    """What lancedb has running from its import on; in a fork it begins anew by itself."""
    if background := sys.modules.get("lancedb.background_loop"):
        background._FORK_WARNED = True  # it says that what is done here is rarely done
        background.LOOP.loop.call_soon_threadsafe(background.LOOP.loop.stop)
        background.LOOP.thread.join()
    # A fork has one thread, and keeps for good what another one held. Who was joined is gone a moment later.
    deadline = time.monotonic() + TIMEOUT_S
    while len(threads := _threads()) > 1:
        assert time.monotonic() < deadline, threads
        time.sleep(0.001)


def _threads() -> list[str]:
    """Names of this process's threads, without that of jemalloc, which sees to its own at a fork."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append((task / "comm").read_text("ascii").strip())
    return [name for name in names if name != "jemalloc_bg_thd"]


def _main() -> int | None:
    descriptor, *modules = sys.argv[1:]
    # A Ctrl-C is for the tests, which end this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Some modules keep the function, so it has to be there before them.
    _beside("clock").wind()
    with lean_lancedb():
        for module in modules:
            importlib.import_module(module)
    if main := sys.modules.get("imagedbd.cli.main"):
        # Typer makes it of all commands' signatures, the same each time.
        command = main.command()
        main.command = lambda *_: command
    _end_threads()
    # What a fork collects at its end is its own; the rest would be copied for it page by page.
    gc.freeze()
    with socket.socket(fileno=int(descriptor)) as control:
        program = _serve(control)
    return program() if program else None


if __name__ == "__main__":
    sys.exit(_main())
