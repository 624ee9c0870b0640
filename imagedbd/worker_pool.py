"""Functions run in processes that they may crash, hang or fill, at the cost of that process alone.

A thread here goes with each process there: it hands over one task, waits for the answer as long as that may
take, and gets a new process when the old one is lost. The two share one socket, and no two processes share
anything. So a process may be killed or stopped at any moment, half an answer on its way, and nobody else
waits for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import psutil

from imagedbd.errors import DecoderLostError, ImagedbError, PictureError, PictureUnreadError
from imagedbd.processes import be_killed_early
from imagedbd.text import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagedbd.fork_server import ForkServer

T = TypeVar("T")
P = ParamSpec("P")

TASKS_PER_WORKER: Final = 1000
"""A worker is replaced after this many tasks: what a codec leaks is not kept."""
TRANSFER_S: Final = 10.0
"""How long a message may stand still that has begun to come or go: a process that was stopped, say."""
CLOSE_S: Final = 10.0
_TRIES: Final = 3
"""How many workers may be gone before they have begun with a task."""
_TAKEN: Final = b"taken"
_WAITS: Final = b"waits for a disk"
_WORKS: Final = b"works"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker lives.

    :param niceness: added to that of the daemon; who is nicer at all reads when nobody else does: ionice(1).
    :param memory_bytes: what it may have for itself, beside what it shares with the others.
    """

    niceness: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)


class WorkerPool:
    """At most so many processes, which come when there is work and leave when there is none.

    Futures raise subclasses of :class:`ImagedbError` only: what the function raised, if it is one; a
    :class:`PictureError` for what else it raised; :class:`DecoderLostError` if the process died or was out
    of time; :class:`PictureUnreadError` if it was out of time because of a disk; and :class:`ImagedbError`
    itself if no process could be had, or the pool was closed.

    Any thread may call any method.

    :param timeout_s: how long a function may run, by a clock that nobody can set; and as long again for
        what it does in :func:`waiting_for_a_disk`.
    :param idle_s: seconds after which an unused process leaves.
    """

    def __init__(
        self, name: str, server: ForkServer, size: int, terms: Terms, *, timeout_s: float, idle_s: float
    ) -> None:
        self._name = name
        self._server = server
        self._size = size
        self._terms = terms
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._workers: set[_Worker] = set()
        self._closed = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **_kwargs: P.kwargs) -> Future[T]:
        task = _Task(function, args)
        with self._changed:
            if self._closed:
                task.future.set_exception(_closed())
                return task.future
            self._waiting.append(task)
            if len(self._waiting) > self._idle and len(self._threads) < self._size:
                self._start_thread()
            self._changed.notify()
        return task.future

    def _start_thread(self) -> None:
        """One more for the tasks that wait. Where none can be started, those that are there do them all."""
        thread = threading.Thread(target=self._work, name=f"decoder-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                _fail(self._waiting, f"No decoder could be started: {error}.")
        else:
            self._threads.add(thread)

    def close(self) -> None:
        """End all workers now; what was not done yet fails."""
        with self._changed:
            self._closed = True
            for worker in self._workers:
                worker.kill()
            left = tuple(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            threads = tuple(self._threads)
        for task in left:
            task.future.set_exception(_closed())
        for thread in threads:
            thread.join(CLOSE_S)

    # A thread and its process.

    def _work(self) -> None:
        worker: _Worker | None = None
        while (task := self._next()) is not None:
            worker = self._do(task, worker)
        if worker is not None:
            self._part_with(worker)

    def _next(self) -> _Task | None:
        """The next task, or nothing when it is time to leave."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed, self._idle_s)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads.discard(threading.current_thread())
            return None

    def _do(self, task: _Task, worker: _Worker | None) -> _Worker | None:
        """See a task to its end; returns the worker if it can do another."""
        try:
            worker = self._handed_over(task, worker)
        except (OSError, MemoryError) as error:
            reason = (
                _closed() if self._closed else ImagedbError(f"No decoder could be started: {fault(error)}.")
            )
            task.future.set_exception(reason)
            return None
        try:
            result, raised = worker.answer(self._timeout_s)
        except (DecoderLostError, PictureUnreadError) as lost:
            self._part_with(worker)
            task.future.set_exception(_closed() if self._closed else lost)
            return None
        if raised is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(raised)
        if worker.tasks < TASKS_PER_WORKER:
            return worker
        self._part_with(worker)
        return None

    def _handed_over(self, task: _Task, worker: _Worker | None) -> _Worker:
        """The worker that has begun: the present one, or a new one if that died while it was idle.

        :raises OSError: none could be started.
        """
        tries = _TRIES
        while True:
            try:
                worker = worker or self._hire()
                worker.begin(task.function, task.arguments)
            except (OSError, MemoryError):
                if worker is not None:
                    self._part_with(worker)
                worker, tries = None, tries - 1
                if not tries or self._closed:
                    raise
            else:
                return worker

    def _hire(self) -> _Worker:
        worker = _Worker(self._server, self._terms)
        with self._changed:
            self._workers.add(worker)
            if self._closed:
                worker.kill()
        return worker

    def _part_with(self, worker: _Worker) -> None:
        with self._changed:
            self._workers.discard(worker)
            worker.kill()
            worker.close()


class _Worker:
    """One process, and our end of the socket to it.

    :raises OSError: it could not be started.
    """

    def __init__(self, server: ForkServer, terms: Terms) -> None:
        self.tasks = 0
        self._server = server
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._pid = server.fork(theirs.fileno())
            limit = struct.pack("@ll", int(TRANSFER_S), int(TRANSFER_S % 1 * 1_000_000))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, limit)
            # A number may be given to another process; this stands for the one that was started.
            self._process = os.pidfd_open(self._pid)
            self._connection = Connection(ours.detach())
        # Connection.poll makes a selector each time, which takes longer than all else about a message.
        self._readable = select.poll()
        self._readable.register(self._connection, select.POLLIN)
        with contextlib.suppress(OSError):  # it has died; the first task will tell
            self._connection.send(terms)

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Hand over a task, and see that it is taken up: from then on, what happens may be the task's doing.

        :raises OSError: it is not there any more, or stands still; the task is not to blame.
        """
        self._connection.send((function, arguments))
        if not self._readable.poll(1000 * TRANSFER_S):
            raise TimeoutError("it stands still")
        try:
            self._connection.recv_bytes()
        except EOFError as ended:
            raise ConnectionResetError("it has ended") from ended
        self.tasks += 1

    def answer(self, timeout_s: float) -> tuple[Any, ImagedbError | None]:
        """What the function returned or raised.

        :raises DecoderLostError: it died or took too long. It must not be used again.
        :raises PictureUnreadError: a disk took too long. It must not be used again either.
        """
        waits = False
        try:
            while True:
                if not self._readable.poll(1000 * timeout_s):
                    raise _late(timeout_s, waits=waits)
                message = self._connection.recv_bytes()
                # Compared, not looked up in a set: pixels would be hashed for it.
                if message != _WAITS and message != _WORKS:  # noqa: PLR1714 - see above
                    answer: tuple[Any, ImagedbError | None] = pickle.loads(message)  # noqa: S301 - our own process
                    return answer
                waits = message == _WAITS
        except BlockingIOError as stopped:
            raise DecoderLostError("The decoder stopped in the middle of its answer.") from stopped
        except (EOFError, OSError) as ended:
            raise DecoderLostError(_how_it_died(self._server.exit_code(self._pid))) from ended

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        self._connection.close()
        os.close(self._process)


def _fail(tasks: deque[_Task], reason: str) -> None:
    while tasks:
        tasks.popleft().future.set_exception(ImagedbError(reason))


def _closed() -> ImagedbError:
    return ImagedbError("The decoder was closed.")


def _late(timeout_s: float, *, waits: bool) -> ImagedbError:
    if waits:
        return PictureUnreadError(f"Reading it took longer than {timeout_s:g} s.")
    return DecoderLostError(f"Decoding it took longer than {timeout_s:g} s.")


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "The decoder died on it."
    if code >= 0:
        return f"The decoder ended on it with exit status {code}."
    if code == -signal.SIGKILL:
        return "The decoder was killed while it read this file: by somebody, or because memory ran out."
    try:
        name = f", {signal.Signals(-code).name}"
    except ValueError:
        name = ""
    return f"The decoder crashed on it (signal {-code}{name})."


# In the worker.


_served: list[Connection] = []
"""The other end, where there is one: what runs as a function may run elsewhere as well."""


@contextlib.contextmanager
def waiting_for_a_disk() -> Iterator[None]:
    """What takes too long in here is no fault of what is read."""
    _tell(_WAITS)
    try:
        yield
    finally:
        _tell(_WORKS)


def _tell(what: bytes) -> None:
    for connection in _served:
        connection.send_bytes(what)


def serve(descriptor: int) -> None:
    """Do one task after another until the other end closes."""
    connection = Connection(descriptor)
    _served.append(connection)
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        _settle_in(connection.recv())
        while True:
            function, arguments = connection.recv()
            connection.send_bytes(_TAKEN)
            connection.send(_outcome(function, arguments))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ImagedbError | None]:
    try:
        return function(*arguments), None
    except ImagedbError as error:
        return None, error
    # Whatever it is, it came of this picture, and the worker has survived it.
    except Exception as error:  # noqa: BLE001 - see above
        return None, PictureError(f"The decoder failed on it: {type(error).__name__}: {error}.")


def _settle_in(terms: Terms) -> None:
    if terms.niceness:
        os.nice(terms.niceness)
        # Reading a photo library must not be felt by who works on the same disk.
        with contextlib.suppress(psutil.AccessDenied):
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(terms.memory_bytes)
    # A decoder is what costs least: one picture, tried once more.
    be_killed_early(1000)


def _limit_memory(memory_bytes: int) -> None:
    """Bound private memory. RLIMIT_AS would also count what the fork server has mapped and shares."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _private_bytes() + memory_bytes
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int:
    """``VmData`` of ``proc_pid_status(5)``, which is what RLIMIT_DATA is compared with."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0
