"""The process: lock, library, socket, signals; and the same in reverse order at the end."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from imagedbd import __version__, activation, logs, notify
from imagedbd.api import create_app
from imagedbd.errors import ImagedbError
from imagedbd.library import Library
from imagedbd.locking import check_free, locked, locked_data, mark_stopping, prepare_folder, socket_lock
from imagedbd.lookout import NAME as LOOKOUT
from imagedbd.notify import Notifier
from imagedbd.processes import environment, python
from imagedbd.replacement import settle
from imagedbd.server import Server, listening
from imagedbd.supervisor import Supervisor

if TYPE_CHECKING:
    from imagedbd.config import Settings

log = logging.getLogger(__name__)

LEAVE_S: Final = 10.0
"""How long all may take to end after the signal to stop, where something hangs."""


def run(read_settings: Callable[[], Settings], *, pull: bool | None = None) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the settings again and compares folders and index.

    :param pull: whether to download a model that is missing; ``None`` does so at a terminal.
    :returns: the exit status: 0, or 70 after a bug.
    :raises LockHeldError: if another daemon has the data folder or the socket.
    :raises ConfigError: if data folder or socket cannot be used.
    :raises StoreUnreadableError: if store or ledger cannot be opened, or a restore not be finished.
    """
    # One that comes before all is up must not end the daemon, as it would by default.
    too_early = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: too_early.set())
    settings = read_settings()
    # What a watchdog ends by SIGABRT says where each of its threads stood.
    faulthandler.enable()
    # It tells for which processors it was built and which of them it tried, each time.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    with ExitStack() as stack:
        stack.enter_context(logs.logging_at(settings.log_level))
        check_free(socket_lock(settings.socket), settings.socket)  # before a data folder is made for nothing
        stack.enter_context(locked_data(settings))
        if finished := settle(settings.data_dir):
            log.warning("%s", finished)
        prepare_folder(os.path.dirname(settings.socket))
        stack.enter_context(locked(socket_lock(settings.socket), settings.socket))
        status = asyncio.run(_serve(settings, read_settings, stack, too_early, pull=_should_pull(pull)))
    # Everything is closed and on the disk. Python would wait for threads of requests that hang.
    if any(thread.name.startswith(LOOKOUT) for thread in threading.enumerate()):
        _leave(status)
    return status


async def _serve(
    settings: Settings,
    read_settings: Callable[[], Settings],
    stack: ExitStack,
    hung_up: threading.Event,
    *,
    pull: bool,
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    crashed = threading.Event()
    notifier = Notifier()

    def end() -> None:
        mark_stopping(socket_lock(settings.socket))
        notifier.stopping()
        if not stop.is_set():
            stop.set()
            leaving = threading.Timer(LEAVE_S, _leave_what_hangs, (library, crashed))
            leaving.daemon = True
            leaving.start()

    def on_crash() -> None:
        crashed.set()
        with contextlib.suppress(RuntimeError):  # it has stopped meanwhile, and its loop is closed
            loop.call_soon_threadsafe(end)

    stack.enter_context(_heeding_threads(on_crash))
    notifier.status("Opening the index.")
    library = Library(settings, read_settings, on_crash)
    stack.callback(library.close)
    listener = stack.enter_context(activation.listening(settings.socket, listening))

    def end_early() -> None:
        library.break_off_start()
        end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end_early)
    notifier.status("Setting up the watches.")
    await loop.run_in_executor(None, library.start)
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, _reload, library, notifier))
    if hung_up.is_set():
        await loop.run_in_executor(None, _reload, library, notifier)
    if pull:
        threading.Thread(target=_pull_if_missing, args=(library, stack), name="pull", daemon=True).start()
    log.info("imagedbd %s serves %s", __version__, settings.socket)
    supervisor = Supervisor(notifier, library.pulses, library.activity, notify.watchdog_s(), on_crash)
    supervision = loop.create_task(supervisor.run(listener.getsockname()))
    await Server(create_app(library), stop, library.begin_close).serve([listener])
    supervision.cancel()
    log.info("stopping")
    return _status(crashed)


def _leave_what_hangs(library: Library, crashed: threading.Event) -> None:
    """End the process where a thread that is waited for hangs in a file system; the next start looks closer.

    To be called when the stop has taken too long.
    """
    while not (silent := library.silent):
        time.sleep(1.0)
    for place, reason in silent.items():
        log.warning("the daemon ends although something still waits for %s, which %s", place, reason)
    _leave(_status(crashed))


def _leave(status: int) -> NoReturn:
    """End the process as it is, with threads that nothing can end."""
    logging.shutdown()
    os._exit(status)


def _status(crashed: threading.Event) -> int:
    return 70 if crashed.is_set() else 0


@contextmanager
def _heeding_threads(on_crash: Callable[[], object]) -> Iterator[None]:
    """Stop the daemon when a bug ends one of its threads: the others would go on as if nothing were amiss."""

    def heed(ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread else "of an unknown name"
        log.critical("the thread %s met a bug and stops the daemon", name, exc_info=ended.exc_value)
        on_crash()

    former, threading.excepthook = threading.excepthook, heed
    try:
        yield
    finally:
        threading.excepthook = former


def _reload(library: Library, notifier: Notifier) -> None:
    notifier.reloading()
    try:
        changes = library.reload()
    except ImagedbError as error:
        log.error("the old settings stay: %s", error.message)
    else:
        log.info("settings read again; changed: %s", ", ".join(changes["changed"]) or "nothing")
        if late := [name for name in changes["needs_restart"] if name in changes["changed"]]:
            log.warning("these count from the next start on: %s", ", ".join(late))
    finally:
        notifier.reloaded()
    library.scan(None)


def _should_pull(wanted: bool | None) -> bool:  # noqa: FBT001 - a flag's value, handed on
    if wanted is not None:
        return wanted
    by_systemd = "INVOCATION_ID" in os.environ or "NOTIFY_SOCKET" in os.environ
    return sys.stderr.isatty() and not by_systemd


def _pull_if_missing(library: Library, stack: ExitStack) -> None:
    """Download what the first load did not find, with a progress bar, while everything else goes on."""
    try:
        library.first_load().result()
    except ImagedbError:
        spec = library.model_to_pull()
    else:
        return
    if spec is None:
        return
    log.info("downloading the model %s", spec)
    command = python("imagedbd.embedder_worker", "pull", spec)
    try:
        download = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    except OSError as error:
        log.warning("the download could not be started: %s; `imagedb model pull %s` does it", error, spec)
        return
    stack.callback(download.kill)
    if download.wait() == 0:
        # What still fails is in the status, with its reason, as any model that cannot be had.
        with contextlib.suppress(ImagedbError):
            library.load_model().result()
