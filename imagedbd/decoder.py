"""Pictures are decoded in processes of their own: a file may crash, hang or fill one, and no more.

The daemon holds a :class:`Decoder`; what its workers do is in :mod:`imagedbd.decoder_worker`, which this
module imports late so that Pillow and its parsers stay out of the daemon.

Workers are forked from a small server process that has imported what they need, so that one starts in
milliseconds and shares its memory with the others. They come with the first picture and leave when there is
nothing to do, because an idle pool wakes up many times a second.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import types
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from imagedbd.datatypes import Limits
from imagedbd.errors import ImagedbError, PictureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagedbd.datatypes import Decoded, Metadata, Pixels, Preprocess

T = TypeVar("T")
P = ParamSpec("P")

IDLE_S: Final = 10.0
"""How long unused workers are kept."""
INDEXING_NICENESS: Final = 10
TASKS_PER_WORKER: Final = 1000
"""A worker is replaced after this many pictures: what a codec leaks is not kept."""
CLOSE_S: Final = 10.0
ATTEMPTS: Final = 2
"""How often a picture is tried whose worker died: it may have been the wrong victim of a lack of memory."""


def decode_file(path: str, known: frozenset[str], preprocess: Preprocess | None, limits: Limits) -> Decoded:
    """:func:`imagedbd.decoder_worker.decode_file`, which runs in the worker."""
    from imagedbd import decoder_worker  # noqa: PLC0415  (only workers should load Pillow)

    return decoder_worker.decode_file(path, known, preprocess, limits)


def decode_bytes(
    data: bytes, preprocess: Preprocess | None, limits: Limits
) -> tuple[str, Metadata, Pixels | None]:
    """:func:`imagedbd.decoder_worker.decode_bytes`, which runs in the worker."""
    from imagedbd import decoder_worker  # noqa: PLC0415  (only workers should load Pillow)

    return decoder_worker.decode_bytes(data, preprocess, limits)


class Decoder:
    """Decodes pictures in isolated processes; safe to call from any thread.

    Futures raise subclasses of :class:`ImagedbError` only: :class:`PictureError` if it is the picture's fault
    (it cannot be read, crashes its decoder twice, or takes too long), and :class:`ImagedbError` itself if no
    decoder could be run, where trying again later may help. Cancelling a future ends its worker.

    The first call starts the server process (about 0.3 s), a first call after a pause the workers only.

    :param workers: processes for indexing, by default one a core; query pictures have one more of their own.
    :param idle_s: seconds after which unused processes are stopped.
    """

    def __init__(
        self, workers: int | None = None, limits: Limits | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._limits = limits or Limits()
        self._capacity = workers or len(os.sched_getaffinity(0))
        self._indexing = _Pool("index", self._capacity, self._limits, INDEXING_NICENESS, idle_s)
        self._queries = _Pool("query", 1, self._limits, 0, idle_s)

    @property
    def capacity(self) -> int:
        """How many pictures are decoded at the same time; more than about twice that only wait."""
        return self._capacity

    def submit(self, path: str, known: frozenset[str], preprocess: Preprocess | None) -> Future[Decoded]:
        """Decode a file; see :func:`imagedbd.decoder_worker.decode_file`.

        :param known: travels to the worker with each call: give the few hashes that are probable, not all.
        """
        return self._indexing.submit(decode_file, path, known, preprocess, self._limits)

    def submit_bytes(
        self, data: bytes, preprocess: Preprocess | None
    ) -> Future[tuple[str, Metadata, Pixels | None]]:
        """Decode a query picture, ahead of all indexing; see :func:`imagedbd.decoder_worker.decode_bytes`."""
        return self._queries.submit(decode_bytes, data, preprocess, self._limits)

    def stop_idle(self, seconds: float = 0.0) -> None:
        """Stop the processes that have had nothing to do for so long; they come back when needed."""
        self._indexing.stop_idle(seconds)
        self._queries.stop_idle(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers now; what was not done yet fails with :class:`ImagedbError`."""
        self._indexing.close()
        self._queries.close()


@dataclass(eq=False)
class _Task:
    """One call on its way through a crew, or through another if its worker dies."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)
    inner: Future[Any] | None = None
    attempts: int = 0

    def succeed(self, result: object) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)

    def fail(self, error: ImagedbError) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def pass_cancel_on(self, future: Future[Any]) -> None:
        if future.cancelled() and self.inner is not None:
            self.inner.cancel()


@dataclass(eq=False)
class _Crew:
    """One running pool of Pebble's, and what it is doing."""

    pool: ProcessPool
    tasks: set[_Task] = field(default_factory=set)
    last_progress: float = field(default_factory=time.monotonic)

    def seconds_left(self, idle_s: float, stuck_s: float) -> float:
        """Until this crew should be stopped: because it has nothing to do, or gets nothing done."""
        return self.last_progress + (stuck_s if self.tasks else idle_s) - time.monotonic()

    def begin(self, task: _Task) -> None:
        if not self.tasks:
            self.last_progress = time.monotonic()
        self.tasks.add(task)

    def end(self, task: _Task) -> None:
        self.last_progress = time.monotonic()
        self.tasks.discard(task)


class _Pool:
    """Worker processes that exist only while they are used.

    Each crew has a thread that stops it: when it has been idle for long enough, when it broke, or when it is
    stuck (a worker killed while it held the pipe's lock). Tasks of a crew that is given up go to a new one.
    """

    def __init__(self, name: str, workers: int, limits: Limits, niceness: int, idle_s: float) -> None:
        self._name = name
        self._workers = workers
        self._limits = limits
        self._niceness = niceness
        self._idle_s = idle_s
        self._stuck_s = 2 * limits.timeout_s + 30
        self._changed = threading.Condition()
        self._crew: _Crew | None = None
        self._keepers: set[threading.Thread] = set()
        self._closed = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **_kwargs: P.kwargs) -> Future[T]:
        task = _Task(function, args)
        task.future.add_done_callback(task.pass_cancel_on)
        self._start(task)
        return task.future

    def stop_idle(self, seconds: float) -> None:
        with self._changed:
            if self._crew is not None and self._crew.seconds_left(seconds, self._stuck_s) <= 0:
                self._dismiss()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._dismiss()
            keepers = tuple(self._keepers)
        for keeper in keepers:
            keeper.join(CLOSE_S)

    def _start(self, task: _Task) -> None:
        task.attempts += 1
        try:
            with self._changed:
                crew, task.inner = self._schedule(task)
        except ImagedbError as error:
            task.fail(error)
            return
        task.pass_cancel_on(task.future)
        task.inner.add_done_callback(lambda inner: self._finish(crew, task, inner))

    def _schedule(self, task: _Task) -> tuple[_Crew, Future[Any]]:
        if self._closed:
            raise _closed()
        if self._crew is not None and not self._crew.pool.active:
            self._dismiss()
        crew = self._crew = self._crew or self._hire()
        try:
            inner = crew.pool.schedule(task.function, args=task.arguments, timeout=self._limits.timeout_s)
        except (OSError, EOFError, RuntimeError) as error:
            self._dismiss()
            raise ImagedbError(f"No decoder process could be started: {error}.") from error
        crew.begin(task)
        return crew, inner

    def _finish(self, crew: _Crew, task: _Task, inner: Future[Any]) -> None:
        with self._changed:
            if task not in crew.tasks:
                return  # the crew was given up, and the task with it
            crew.end(task)
        if inner.cancelled():
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
            return
        error = inner.exception()
        if error is None:
            task.succeed(inner.result())
        elif isinstance(error, BrokenProcessPool):
            self._retry(task, ImagedbError(f"The decoder's processes failed: {error}."))
        elif isinstance(error, ProcessExpired):
            self._retry(task, PictureError(_how_it_died(error.exitcode)))
        else:
            task.fail(self._translated(error))

    def _retry(self, task: _Task, error: ImagedbError) -> None:
        if task.attempts < ATTEMPTS:
            self._start(task)
        else:
            task.fail(error)

    def _translated(self, error: BaseException) -> ImagedbError:
        if isinstance(error, ImagedbError):
            return error
        if isinstance(error, TimeoutError):
            return PictureError(f"Decoding it took longer than {self._limits.timeout_s:g} s.")
        return PictureError(f"The decoder failed on it: {type(error).__name__}: {error}.")

    def _hire(self) -> _Crew:
        context = _Context()
        context.set_forkserver_preload(["imagedbd.decoder_worker", __name__])
        pool = ProcessPool(
            max_workers=self._workers,
            max_tasks=TASKS_PER_WORKER,
            initializer=_prepare_worker,
            initargs=(self._niceness, self._limits.memory_bytes),
            context=context,
        )
        crew = _Crew(pool)
        keeper = threading.Thread(target=self._keep, args=(crew,), name=f"decoder-{self._name}", daemon=True)
        self._keepers.add(keeper)
        keeper.start()
        return crew

    def _dismiss(self) -> None:
        """Let the present crew's thread stop it. The next task finds, or gets, another crew."""
        self._crew = None
        self._changed.notify_all()

    def _keep(self, crew: _Crew) -> None:
        """Wait until a crew is no longer wanted, and stop it."""
        with self._changed:
            while self._crew is crew and (left := crew.seconds_left(self._idle_s, self._stuck_s)) > 0:
                self._changed.wait(min(left, self._idle_s))
            if self._crew is crew:
                self._crew = None
            orphans = tuple(crew.tasks)
            crew.tasks.clear()
        for task in orphans:
            self._retry(task, ImagedbError("The decoder's processes hung."))
        crew.pool.stop()  # type: ignore[no-untyped-call]  # Pebble leaves it so
        crew.pool.join()
        with self._changed:
            self._keepers.discard(threading.current_thread())


def _closed() -> ImagedbError:
    return ImagedbError("The decoder was closed.")


def _how_it_died(exitcode: int) -> str:
    if exitcode >= 0:
        return f"The decoder ended on it with exit status {exitcode}."
    try:
        name = f", {signal.Signals(-exitcode).name}"
    except ValueError:
        name = ""
    return f"The decoder crashed on it (signal {-exitcode}{name})."


# Starting workers.


class _Worker(ForkServerProcess):
    """A process that does not import the daemon's main module, as multiprocessing's children do."""

    _starting: ClassVar[threading.Lock] = threading.Lock()

    def start(self) -> None:
        with self._starting, _main_module_hidden():
            super().start()


class _Context(ForkServerContext):
    Process = _Worker


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Workers need nothing of it, and it drags in the whole daemon."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _prepare_worker(niceness: int, memory_bytes: int) -> None:
    # In place of Pebble's handler, which would wait for the codec that hangs
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_the_daemon()
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(memory_bytes)


def _die_with_the_daemon() -> None:
    """Have the kernel kill this worker when the daemon is gone, whatever the worker is busy with.

    The parent in the kernel's eyes is the fork server, so its death signal is of no use. But the daemon, and
    nobody else, holds the other end of the sentinel pipe: asynchronous notification (``fcntl(2)``,
    ``F_SETSIG``) sends the signal of our choice when that end closes.
    """
    daemon = multiprocessing.parent_process()
    if daemon is None:
        return
    sentinel = daemon.sentinel
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([sentinel], timeout=0):  # it died before we listened
        os._exit(1)


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
