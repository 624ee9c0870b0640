"""The process: lock, library, socket, signals; and the same in reverse order at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat as stat_module
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagedbd import __version__
from imagedbd.api import create_app
from imagedbd.client import VERSION_HEADER
from imagedbd.errors import ConfigError, ImagedbError
from imagedbd.library import Library
from imagedbd.locking import locked, locked_data, prepare_folder

if TYPE_CHECKING:
    from imagedbd.config import Settings

log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 2
"""How long requests in work may go on after the signal to stop."""
MAX_CONNECTIONS: Final = 128


def run(read_settings: Callable[[], Settings], *, pull: bool | None = None) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the settings again.

    :param pull: whether to download a model that is missing; ``None`` does so at a terminal.
    :returns: the exit status: 0, or 70 after a bug.
    :raises LockHeldError: if another daemon has the data folder or the socket.
    :raises ConfigError: if data folder or socket cannot be used.
    """
    settings = read_settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    with ExitStack() as stack:
        stack.enter_context(locked_data(settings))
        prepare_folder(os.path.dirname(settings.socket))
        stack.enter_context(locked(f"{settings.socket}.lock", settings.socket))
        return asyncio.run(_serve(settings, read_settings, stack, pull=_should_pull(pull)))


async def _serve(
    settings: Settings, read_settings: Callable[[], Settings], stack: ExitStack, *, pull: bool
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    crashed = threading.Event()

    def on_crash() -> None:
        crashed.set()
        loop.call_soon_threadsafe(stop.set)

    library = Library(settings, read_settings, on_crash)
    stack.callback(library.close)
    listener = stack.enter_context(_listening(settings.socket))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, _reload, library))
    await loop.run_in_executor(None, library.start)
    if pull:
        threading.Thread(target=_pull_if_missing, args=(library, stack), name="pull", daemon=True).start()
    log.info("imagedbd %s serves %s", __version__, settings.socket)
    await _Server(library, stop).serve([listener])
    log.info("stopping")
    return 70 if crashed.is_set() else 0


class _Server(uvicorn.Server):
    """uvicorn with our own end: no tick ten times a second, and no signal handlers of its own."""

    def __init__(self, library: Library, stop: asyncio.Event) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(library),
                http=_OwnUserProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                headers=[(VERSION_HEADER, __version__)],
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
            )
        )
        self._library = library
        self._stop = stop

    async def main_loop(self) -> None:
        # Else only the tick would fill these in.
        self.server_state.default_headers = self.config.encoded_headers
        await self._stop.wait()
        self._library.begin_close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OwnUserProtocol(H11Protocol):
    """Hangs up on other users before a byte of theirs is parsed."""

    def connection_made(self, transport: Any) -> None:
        if _peer_uid(transport.get_extra_info("socket")) in {os.geteuid(), 0}:
            super().connection_made(transport)
        else:
            log.warning("a connection of another user was refused")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.transport is not None:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            super().connection_lost(exc)


def _peer_uid(connection: socket.socket) -> int:
    """The user behind a Unix socket, as the kernel knows it: SO_PEERCRED of unix(7)."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


@contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """A socket that only this user can open. The lock is ours, so what lies at its path is stale."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        umask = os.umask(0o177)
        try:
            _remove_stale_socket(path)
            listener.bind(path)
        except OSError as error:
            raise ConfigError(f"The socket {path} cannot be made: {error.strerror or error}.") from error
        finally:
            os.umask(umask)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _remove_stale_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat_module.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"{path} is there and is no socket; name another with --socket.")
        os.unlink(path)


def _reload(library: Library) -> None:
    try:
        changes = library.reload()
    except ImagedbError as error:
        log.error("the old settings stay: %s", error.message)
        library.scan(None)
    else:
        log.info("settings read again; changed: %s", ", ".join(changes["changed"]) or "nothing")
        if changes["needs_restart"]:
            log.warning("these count from the next start on: %s", ", ".join(changes["needs_restart"]))
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
    command = [sys.executable, "-m", "imagedbd.embedder_worker", "pull", spec]
    download = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stack.callback(download.kill)
    if download.wait() == 0:
        # What still fails is in the status, with its reason, as any model that cannot be had.
        with contextlib.suppress(ImagedbError):
            library.load_model().result()
