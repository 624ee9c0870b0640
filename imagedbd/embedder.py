"""The model, seen from the daemon: a queue before a child process, which comes and goes.

One thread owns the child and the connection to it. Prompts overtake pictures; the child leaves after an
idle time and is started again by the next request; if it dies, its request is tried once more.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from imagedbd.datatypes import ModelInfo, ModelState, ModelStatus, Priority
from imagedbd.embedder_worker import (
    Done,
    EmbedPictures,
    EmbedPrompts,
    Failed,
    KeepOnlyPrompts,
    Ready,
    Refused,
    Vectors,
)
from imagedbd.errors import EmbedderError, ImagedbError, ModelUnavailableError
from imagedbd.processes import environment, give_memory_back, python

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagedbd.datatypes import Pixels

log = logging.getLogger(__name__)

BATCH_SECONDS: Final = 0.15
"""How long a batch may hold the model: a prompt never waits much longer."""
MAX_BATCH: Final = 256
FIRST_BATCH: Final = 4
SHORT_BATCHES: Final = 50
"""How many batches stay short after one for which the memory was too small; then longer ones are tried."""
ANSWER_TIMEOUT_S: Final = 300.0
LOAD_TIMEOUT_S: Final = 900.0
RETRY_S: Final = (60.0, 120.0, 300.0, 900.0, 3600.0)
"""Pauses between looks for a model that was not there."""

_WAYS_ON_AFTER_DEATH: Final = (
    "make room in memory, if the exit status is -9 (else `imagedb service logs` has its last words)",
    "`imagedb model use SPEC` with a smaller one that `imagedb model list` prints",
)
"""What helps where there are weights, and loading them kills the process."""


@dataclass(order=True)
class _Request:
    priority: Priority
    sequence: int
    message: EmbedPrompts | EmbedPictures | None = field(compare=False)
    """``None`` asks for the model to be loaded, no more."""
    future: Future[NDArray[np.float32]] = field(compare=False, default_factory=Future)


def _patient_threads() -> dict[str, str]:
    """Have torch's threads soon fall asleep where they wait for each other, unless the user says otherwise.

    By default they spin for milliseconds (libgomp's GOMP_SPINCOUNT), which takes the core from the very
    thread that they wait for as soon as anything else runs. On two cores with one other busy process, a
    picture then cost twice the CPU time, and 1.6 times the wall time, of what it costs so; alone, both are
    equal, while not to spin at all made it a fifth slower.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return {}
    return {"GOMP_SPINCOUNT": "1000"}


class _Child:
    """One running worker process."""

    def __init__(self, spec: str, device: str, dtype: str) -> None:
        ours, theirs = socket.socketpair()
        arguments = ["serve", str(theirs.fileno()), spec, device, dtype]
        with theirs:
            self.process = subprocess.Popen(
                python("imagedbd.embedder_worker", *arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", **_patient_threads()),
            )
        self._connection = Connection(ours.detach())

    def ask(self, message: object) -> Any:
        self._connection.send(message)
        return self.receive(ANSWER_TIMEOUT_S)

    def receive(self, timeout: float) -> Any:
        if not self._connection.poll(timeout):
            raise EOFError(f"no answer for {timeout:.0f} s")
        return self._connection.recv()

    def stop(self, patience: float = 0.0) -> int | None:
        """End the process, which has nothing to save.

        :param patience: seconds in which it may end by itself.
        :returns: its exit status, or ``None`` if it had to be killed.
        """
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience)
        self.process.kill()
        self.process.wait()
        return None


class EmbedderProcess:
    """OpenCLIP in a child process; honours :class:`imagedbd.datatypes.Embedder`.

    :param expected: the identity that a store is bound to; other weights under the same name are refused.
    :param ttl_s: idle seconds after which the child leaves; 0 keeps it.
    :param keep_text: have what embeds prompts stay then, so that only pictures need the model loaded again.
        Prompts that come while it is loaded wait.
    :param on_ready: called, in this embedder's thread, whenever the model has become available.
    """

    def __init__(
        self,
        spec: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        ttl_s: float = 1800.0,
        keep_text: bool = False,
        expected: ModelInfo | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec, self._device, self._dtype = spec, device, dtype
        self._ttl_s, self._keep_text = ttl_s, keep_text
        self._quiet_since = time.monotonic()
        self._expected = expected
        self._on_ready = on_ready
        self._status = ModelStatus(spec, ModelState.UNLOADED)
        self._requests: queue.PriorityQueue[_Request] = queue.PriorityQueue()
        self._sequence = itertools.count()
        self._seconds_per_picture: float | None = None
        self._embeds_total = 0
        self._longest_batch = MAX_BATCH
        self._short_batches = 0
        self._failures = 0
        self._child: _Child | None = None
        self._retry_at = 0.0
        self._closing = threading.Event()
        self._gate = threading.Lock()
        """Held to hand in a request, and to close: none is handed in to a thread that has left."""
        self._thread = threading.Thread(target=self._run, name="embedder", daemon=True)
        self._thread.start()

    @property
    def info(self) -> ModelInfo | None:
        return self._expected

    @property
    def embeds_total(self) -> int:
        """Pictures put through the model so far."""
        return self._embeds_total

    @property
    def batch_size(self) -> int:
        if self._seconds_per_picture is None:
            return min(FIRST_BATCH, self._longest_batch)
        return max(1, min(self._longest_batch, int(BATCH_SECONDS / self._seconds_per_picture)))

    def status(self) -> ModelStatus:
        return self._status

    def keep_for(self, ttl_s: float, *, keep_text: bool) -> None:
        """Have the child leave after so many idle seconds from now on, those that have passed included."""
        self._ttl_s, self._keep_text = ttl_s, keep_text
        wake = _Request(Priority.PROMPT, next(self._sequence), None)
        wake.future.cancel()  # it asks for nothing
        self._requests.put(wake)

    def load(self) -> Future[NDArray[np.float32]]:
        """Have the model loaded now, also after it was found unavailable; resolves to an empty array."""
        return self._submit(Priority.PROMPT, None)

    def embed_prompts(self, prompts: Sequence[str]) -> Future[NDArray[np.float32]]:
        return self._submit(Priority.PROMPT, EmbedPrompts(tuple(prompts)))

    def embed_pictures(
        self, pictures: Sequence[Pixels], priority: Priority = Priority.INDEX
    ) -> Future[NDArray[np.float32]]:
        return self._submit(priority, EmbedPictures(np.stack(pictures)))

    def begin_close(self) -> None:
        """Have requests fail from now on, and those that wait at once; returns without waiting."""
        with self._gate:
            self._closing.set()
            self._requests.put(_Request(Priority.PROMPT, -1, None))
        if (child := self._child) is not None:
            child.process.kill()

    def close(self) -> None:
        """Stop the child; requests that are still waiting fail."""
        self.begin_close()
        self._thread.join(timeout=1)
        if (child := self._child) is not None:  # it was only just being started
            child.process.kill()
        self._thread.join()

    def _submit(
        self, priority: Priority, message: EmbedPrompts | EmbedPictures | None
    ) -> Future[NDArray[np.float32]]:
        request = _Request(priority, next(self._sequence), message)
        with self._gate:
            if self._closing.is_set():
                _refuse(request)
            else:
                self._requests.put(request)
        return request.future

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                request = self._requests.get(timeout=self._patience())
            except queue.Empty:
                self._be_quiet()
                continue
            if self._closing.is_set():
                _refuse(request)
            elif request.future.set_running_or_notify_cancel():
                self._serve(request)
                self._quiet_since = time.monotonic()
        self._stop_child()
        self._refuse_the_rest()

    def _patience(self) -> float | None:
        if self._status.state is ModelState.UNAVAILABLE:
            return max(0.0, self._retry_at - time.monotonic())
        if self._child and self._ttl_s and not (self._keep_text and self._status.only_prompts):
            return max(0.0, self._quiet_since + self._ttl_s - time.monotonic())
        return None

    def _be_quiet(self) -> None:
        try:
            self._on_quiet()
        # As in _serve: the thread must outlive its bugs.
        except Exception:
            log.exception("the embedder met a bug while it had nothing to do")
            self._quiet_since = time.monotonic()

    def _on_quiet(self) -> None:
        if self._status.state is ModelState.UNAVAILABLE:
            self.load()
        elif self._child and self._keep_text and self._shed():
            log.info(
                "of model %s, what embeds prompts stays after %.0f s without work", self._spec, self._ttl_s
            )
            give_memory_back()
        elif self._child:
            log.info("model %s unloaded after %.0f s without work", self._spec, self._ttl_s)
            self._stop_child()
            self._status = ModelStatus(self._spec, ModelState.UNLOADED)
            # Whoever has had nothing to do for so long has pages that were for work.
            give_memory_back()

    def _shed(self) -> bool:
        """Have the child give up what embeds pictures; whether it did."""
        child = self._child
        assert child is not None  # noqa: S101 - asked where there is one
        try:
            reply = child.ask(KeepOnlyPrompts())
        except (EOFError, OSError) as error:
            _, reason = self._bury(error)
            if not self._closing.is_set():
                log.warning("the embedder died while it gave up a part of the model (%s)", reason)
            return False
        self._status = replace(self._status, only_prompts=isinstance(reply, Done))
        return self._status.only_prompts

    def _serve(self, request: _Request) -> None:
        try:
            answer = self._answer(request.message)
        except ImagedbError as error:
            request.future.set_exception(error)
        # The thread must outlive its bugs: without it every search and all indexing would hang.
        except Exception as error:
            log.exception("the embedder met a bug")
            request.future.set_exception(EmbedderError(f"A bug: {type(error).__name__}: {error}"))
        else:
            request.future.set_result(answer)

    def _answer(self, message: EmbedPrompts | EmbedPictures | None) -> NDArray[np.float32]:
        if message is not None and self._status.state is ModelState.UNAVAILABLE:
            raise ModelUnavailableError(self._status.reason or "The model is not available.")
        try:
            return self._attempt(message)
        except (EOFError, OSError) as error:
            status, reason = self._bury(error)
            if self._closing.is_set():
                raise _stopping() from error
            in_work = not isinstance(error, BrokenPipeError)  # else it was gone before it was asked
            if in_work and status == -signal.SIGKILL and self._shorten(message):
                raise EmbedderError(f"The model's process was killed ({reason}).") from error
            log.warning("the embedder died (%s); it is started again", reason)
        try:
            return self._attempt(message)
        except (EOFError, OSError) as error:
            _, reason = self._bury(error)
            raise EmbedderError(f"The model's process died twice in a row: {reason}.") from error

    def _attempt(self, message: EmbedPrompts | EmbedPictures | None) -> NDArray[np.float32]:
        if isinstance(message, EmbedPictures) and self._status.only_prompts:
            self._stop_child()
        child = self._child or self._start_child()
        if message is None:
            return np.empty((0, 0), dtype=np.float32)
        started = time.monotonic()
        reply: Vectors | Failed = child.ask(message)
        if isinstance(reply, Failed):
            if reply.of_memory:
                self._shorten(message)
            raise EmbedderError(reply.reason)
        if isinstance(message, EmbedPictures):
            self._measure(len(message.pictures), time.monotonic() - started)
        _check_rows(reply.rows, message)
        return reply.rows

    def _shorten(self, message: EmbedPrompts | EmbedPictures | None) -> bool:
        """Where memory may have been too small for a batch: have shorter ones, if it could be shorter."""
        if not isinstance(message, EmbedPictures) or len(message.pictures) < 2:
            return False
        self._longest_batch = len(message.pictures) // 2
        self._short_batches = 0
        log.warning("batches have at most %d pictures for a while", self._longest_batch)
        return True

    def _measure(self, pictures: int, seconds: float) -> None:
        each = seconds / pictures
        known = self._seconds_per_picture
        self._seconds_per_picture = each if known is None else 0.7 * known + 0.3 * each
        self._embeds_total += pictures
        self._short_batches += 1
        if self._short_batches >= SHORT_BATCHES:
            self._short_batches, self._longest_batch = 0, min(MAX_BATCH, 2 * self._longest_batch)

    def _start_child(self) -> _Child:
        """:raises ModelUnavailableError: it cannot be loaded, or two processes died of it or beside it."""
        loaded = self._load()
        if isinstance(loaded, str):
            loaded = self._load()
        if isinstance(loaded, str):
            next_try = time.strftime("%H:%M:%S", time.localtime(time.time() + self._pause_s()))
            reason = (
                f"The model's process died twice while it loaded ({loaded}). The next try is at {next_try}."
            )
            raise self._unavailable(reason, _WAYS_ON_AFTER_DEATH)
        child, reply = loaded
        if isinstance(reply, Ready):
            reply = self._checked(reply)
        if isinstance(reply, Refused):
            self._stop_child()
            raise self._unavailable(reply.reason, _ways_on(self._spec, is_unknown=reply.is_unknown))
        self._expected = reply.info
        self._failures = 0
        self._status = ModelStatus(self._spec, ModelState.READY, device=reply.device, dtype=reply.dtype)
        log.info("model %s ready on %s in %s", self._spec, reply.device, reply.dtype)
        self._on_ready()
        return child

    def _load(self) -> tuple[_Child, Ready | Refused] | str:
        """A new process, and what it says when it is done with loading; or of what it died meanwhile."""
        if self._closing.is_set():
            raise _stopping()
        self._status = ModelStatus(self._spec, ModelState.LOADING)
        self._child = child = _Child(self._spec, self._device, self._dtype)
        try:
            return child, child.receive(LOAD_TIMEOUT_S)
        except (EOFError, OSError) as error:
            _, reason = self._bury(error)
            if self._closing.is_set():
                raise _stopping() from error
            log.warning("the embedder died while it loaded the model (%s)", reason)
            return reason

    def _checked(self, reply: Ready) -> Ready | Refused:
        expected = self._expected
        if expected is None or expected.key == reply.info.key:
            return reply
        # What a decoder does to colours is no business of the model's: a store from before profiles were
        # applied goes on without, until `imagedb reset` builds another one.
        as_expected = replace(reply.info.preprocess, to_srgb=expected.preprocess.to_srgb)
        if replace(reply.info, preprocess=as_expected).key == expected.key:
            log.info(
                "this index was begun without colour profiles and stays so; `imagedb reset` begins another"
            )
            return replace(reply, info=expected)
        return Refused(
            f"The weights or preprocessing of {self._spec} are not those that the stored vectors were made "
            f"with. Put the old weights back, or `imagedb model use {self._spec}` to embed all pictures anew."
        )

    def _unavailable(self, reason: str, ways: tuple[str, str]) -> ModelUnavailableError:
        self._retry_at = time.monotonic() + self._pause_s()
        self._failures += 1
        self._status = ModelStatus(self._spec, ModelState.UNAVAILABLE, reason, ways)
        log.warning("model %s unavailable: %s", self._spec, reason)
        return ModelUnavailableError(f"{reason} Two ways on: {ways[0]}, or {ways[1]}.")

    def _pause_s(self) -> float:
        """How long after the next failure another try is."""
        return RETRY_S[min(self._failures, len(RETRY_S) - 1)]

    def _bury(self, error: Exception) -> tuple[int | None, str]:
        """The exit status of a process that died by itself, and what to say of it."""
        status = self._stop_child(patience=1.0)
        self._status = ModelStatus(self._spec, ModelState.UNLOADED)
        how = "it hung" if status is None else f"exit status {status}"
        return status, f"{error}, {how}" if str(error) else how

    def _stop_child(self, patience: float = 0.0) -> int | None:
        child, self._child = self._child, None
        return child.stop(patience) if child else None

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                _refuse(self._requests.get_nowait())
            except queue.Empty:
                return


def _check_rows(rows: NDArray[np.float32], message: EmbedPrompts | EmbedPictures) -> None:
    """:raises EmbedderError: it is not known which vector is whose."""
    asked = len(message.pictures) if isinstance(message, EmbedPictures) else len(message.prompts)
    if rows.ndim != 2 or len(rows) != asked:
        raise EmbedderError(f"The model gave an answer of the shape {rows.shape} for {asked} requests.")


def _refuse(request: _Request) -> None:
    if request.future.set_running_or_notify_cancel():
        request.future.set_exception(_stopping())


def _stopping() -> EmbedderError:
    return EmbedderError("The daemon is stopping.")


def _ways_on(spec: str, *, is_unknown: bool) -> tuple[str, str]:
    """What helps where there are no weights. The demo's model finds drawings; one can go back from it."""
    demo = "`imagedb model use demo`, which is bundled, needs no network and knows drawings alone"
    if spec.startswith("local-dir:"):
        return f"put an OpenCLIP checkpoint into {spec.removeprefix('local-dir:')}", demo
    if is_unknown:
        return "`imagedb model use SPEC` with one that `imagedb model list` prints", demo
    return f"`imagedb model pull {spec}`", demo
