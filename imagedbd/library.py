"""The open index: every room built and joined, and the operations that the daemon offers.

:meth:`Library.open` is the one place where rooms meet each other; closing goes in reverse order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from imagedbd import __version__
from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import Limits, ModelState, PictureState, Query, RootState
from imagedbd.decoder import Decoder
from imagedbd.embedder import EmbedderProcess
from imagedbd.errors import (
    ConfigError,
    ImagedbError,
    ModelUnavailableError,
    NothingMatchedError,
    StoreError,
    UsageError,
    WaitTimeoutError,
)
from imagedbd.indexer import Indexer
from imagedbd.ledger import Ledger
from imagedbd.reconcile import reconcile
from imagedbd.roots import RootGuard
from imagedbd.rules import Rules
from imagedbd.scanner import Scanner
from imagedbd.search import Answer, Searcher
from imagedbd.stores import open_store
from imagedbd.watcher import Watcher

if TYPE_CHECKING:
    from imagedbd.config import Settings
    from imagedbd.datatypes import LedgerEntry, RootStatus, Store

WAIT_LOOK_S: Final = 0.2
LOAD_TIMEOUT_S: Final = 900.0


class Library:
    """An index in work. Made by :meth:`open`; every public method may be called from any thread."""

    def __init__(
        self, settings: Settings, read_settings: Callable[[], Settings], on_crash: Callable[[], object]
    ) -> None:
        """Build all rooms and join them; nothing runs before :meth:`start`.

        :param read_settings: reads the settings again, for :meth:`reload`.
        :param on_crash: called if a thread met a bug and the daemon must stop.
        :raises StoreUnreadableError: if store or ledger cannot be opened.
        """
        self._settings = settings
        self._read_settings = read_settings
        self._started = time.monotonic()
        self._closing = False
        self._closers = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._closers.close)
            self._build(settings, on_crash)
            undo.pop_all()

    def _build(self, settings: Settings, on_crash: Callable[[], object]) -> None:
        os.makedirs(settings.data_dir, mode=0o700, exist_ok=True)
        self._rules = _rules(settings)
        self._ledger = Ledger(os.path.join(settings.data_dir, "ledger.sqlite3"))
        self._closers.callback(self._ledger.close)
        self._store: Store = open_store(
            settings.store, os.path.join(settings.data_dir, settings.store), exclusive=True
        )
        self._closers.callback(self._store.close)
        reconcile(self._store, self._ledger)
        self._decoder = Decoder(settings.decoders or None, _limits(settings))
        self._closers.callback(self._decoder.close)
        self._queue = ChangeQueue(settings.settle, settings.settle_max)
        bound = self._store.model
        self._embedder = EmbedderProcess(
            bound.spec if bound else settings.model,
            device=settings.device,
            dtype=settings.dtype,
            ttl_s=settings.model_ttl,
            expected=bound,
            on_ready=self._on_model_ready,
        )
        self._closers.callback(self._embedder.close)
        self._scanner = Scanner(
            self._rules, self._ledger, self._queue, settle_s=settings.settle, rescan_s=settings.rescan
        )
        self._indexer = Indexer(
            queue=self._queue,
            ledger=self._ledger,
            store=self._store,
            decoder=self._decoder,
            embedder=self._embedder,
            rules=self._rules,
            may_forget=self._may_forget,
            request_scan=self._scanner.request,
            on_crash=on_crash,
        )
        self._closers.callback(self._indexer.close)
        self._closers.callback(self._scanner.stop)
        self._watcher = Watcher(self._rules, self._queue, self._on_doubt)
        self._closers.callback(self._watcher.stop)
        self._searcher = Searcher(self._store, self._ledger, self._decoder, self._embedder)

    def start(self) -> None:
        """Watch first, then scan: nothing that changes in between is missed by both."""
        if self._embedder.info is None or self._ledger.counts()[PictureState.WAITING]:
            first_load = self._embedder.load()
            self._indexer.wait_for_model(first_load)
        self._watcher.start()
        self._scanner.start()
        self._indexer.start()

    def close(self) -> None:
        """Stop all threads and processes, newest first; what was in flight is done again next time."""
        self._closing = True
        self._closers.close()

    def search(self, query: Query) -> Answer:
        """See :meth:`imagedbd.search.Searcher.search`."""
        return self._searcher.search(query)

    def status(self) -> dict[str, Any]:
        """What ``imagedb status --json`` prints."""
        counts = self._ledger.counts()
        pending = self._queue.pending
        model = self._embedder.status()
        roots = self._roots_status()
        rate = self._indexer.rate()
        state, doing = self._activity(roots, pending, counts[PictureState.WAITING])
        return {
            "state": state,
            "doing": doing,
            "indexed": counts[PictureState.INDEXED],
            "waiting": counts[PictureState.WAITING],
            "pending": pending,
            "failed": counts[PictureState.FAILED],
            "rate": round(rate, 2) if rate else None,
            "eta_s": round(pending / rate) if rate and pending else None,
            "roots": [asdict(root) for root in roots],
            "store": asdict(self._store.stats()),
            "model": {
                "name": model.name,
                "state": model.state,
                "reason": model.reason,
                "help": model.help,
                "configured": self._settings.model,
            },
            "device": model.device,
            "dtype": model.dtype,
            "embeds_total": self._embedder.embeds_total,
            "watcher_restarts": self._watcher.restarts,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "version": __version__,
            "pid": os.getpid(),
            "config_file": self._settings.config_file,
            "data_dir": self._settings.data_dir,
            "socket": self._settings.socket,
        }

    def roots(self) -> list[dict[str, Any]]:
        return [asdict(root) for root in self._roots_status()]

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Every picture of the index, ordered by the bytes of its path."""
        for entry in self._ledger.under("/"):
            if entry.id is not None:
                yield {
                    "path": entry.path,
                    "id": entry.id,
                    "content_hash": entry.content_hash,
                    "state": entry.state,
                }

    def failures(self) -> Iterator[dict[str, Any]]:
        for entry in self._ledger.failures():
            yield {"path": entry.path, "reason": entry.reason, "attempts": entry.attempts}

    def show(self, path: str) -> dict[str, Any]:
        """The record of one picture.

        :raises NothingMatchedError: if it is not in the index.
        """
        entry = self._ledger.get(path)
        for picture in self._store.get([entry.id]) if entry and entry.id else ():
            return {**picture.record.public(), "state": entry.state if entry else None}
        raise NothingMatchedError(f"{path} is not in the index. `imagedb why` says the reason.")

    def why(self, path: str) -> dict[str, Any]:
        """What is known of a path: its state, the reason, and the rule or error behind it."""
        entry = self._ledger.get(path)
        state, reason, rule = self._explain(path, entry)
        return {
            "path": path,
            "state": state,
            "reason": reason,
            "rule": rule,
            "attempts": entry.attempts if entry else 0,
        }

    def scan(self, folder: str | None) -> int:
        """Request a scan of a folder or of everything.

        :raises UsageError: if the folder lies outside every root.
        """
        if folder is not None and self._rules.root_of(folder) is None:
            raise UsageError(f"{folder} lies outside every root. `imagedb root list` shows them.")
        return self._scanner.request(folder)

    def wait(self, timeout: float | None) -> dict[str, Any]:
        """Scan, and return once every change made before the call is searchable.

        :raises WaitTimeoutError: after ``timeout`` seconds.
        :raises ModelUnavailableError: if pictures wait for a model that cannot be had.
        :raises StoreError: if nothing can be written at the moment.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        ticket = self._scanner.request()
        while not self._scanner.wait_scanned(ticket, WAIT_LOOK_S):
            self._check_wait(deadline)
        while True:
            newest = self._queue.ticket()
            while not self._queue.wait_done(newest, WAIT_LOOK_S):
                self._check_wait(deadline)
            if not self._ledger.counts()[PictureState.WAITING]:
                break
            self._check_model()
            self._check_wait(deadline)
            time.sleep(WAIT_LOOK_S)
        counts = self._ledger.counts()
        return {"indexed": counts[PictureState.INDEXED], "failed": counts[PictureState.FAILED]}

    def retry(self, paths: list[str] | None) -> list[str]:
        """Queue failed files again; returns those that had failed."""
        again = self._ledger.retry(paths)
        for path in again:
            self._queue.put(path, settled=True)
        return again

    def load_model(self) -> dict[str, Any]:
        """Load the model, also after it was found unavailable.

        :raises ModelUnavailableError: if it still is.
        """
        self._embedder.load().result(LOAD_TIMEOUT_S)
        status = self._embedder.status()
        return {"name": status.name, "state": status.state}

    def model_to_pull(self) -> str | None:
        """The model to download: one that is not on this machine, and that somebody publishes."""
        status = self._embedder.status()
        offered = not status.name.startswith("local-dir:") and status.name != "demo"
        return status.name if offered and status.state is ModelState.UNAVAILABLE else None

    def reload(self) -> dict[str, Any]:
        """Read the settings again; a faulty file changes nothing.

        :returns: ``changed``, and ``needs_restart``: names of settings that count from the next start on.
        :raises ConfigError: with the fault.
        """
        old, new = self._settings, self._read_settings()
        names = [name for name in asdict(new) if getattr(new, name) != getattr(old, name)]
        live = {"roots", "ignore", "max_file_size"}
        if live.intersection(names):
            rules = _rules(new)
            self._rules = self._indexer.rules = rules
            self._watcher.set_rules(rules)
            self._scanner.set_rules(rules)
        self._settings = new
        return {"changed": names, "needs_restart": [name for name in names if name not in live]}

    def _activity(self, roots: list[RootStatus], pending: int, waiting: int) -> tuple[str, str]:
        model = self._embedder.status()
        if self._indexer.trouble:
            return "blocked", f"Nothing can be written: {self._indexer.trouble}"
        if model.state is ModelState.LOADING and self._embedder.info is None:
            return "loading", f"Loading the model {model.name}."
        if any(root.state == "scanning" for root in roots):
            return "scanning", f"Comparing the folders with the index; {pending} changes to look at so far."
        if pending:
            return "indexing", f"{pending} changes to look at."
        if waiting and model.state is ModelState.UNAVAILABLE:
            return "waiting", f"{waiting} pictures wait for the model. {model.reason}"
        if not roots:
            return "idle", "There is no folder to watch yet: `imagedb root add DIR`."
        return "idle", "Watching for changes."

    def _explain(self, path: str, entry: LedgerEntry | None) -> tuple[str, str, str | None]:
        offline = RootGuard(self._rules, self._ledger).why_absence_is_no_proof(path)
        verdict = self._rules.explain(path)
        if path in self._queue:
            return "pending", "It is about to be looked at, or waits until it has settled.", None
        if offline and entry:
            return entry.state, f"What was indexed stays: {offline}", None
        if entry is None and not verdict.ok:
            return "skipped", f"It {verdict.reason}.", verdict.rule
        if entry is None:
            return "unknown", "Neither an event nor a scan has met it yet; try `imagedb scan`.", None
        if entry.state is PictureState.FAILED:
            return "failed", entry.reason or "It could not be read.", None
        if entry.state is PictureState.WAITING:
            reason = self._embedder.status().reason or "It is loading."
            return "waiting", f"Its metadata is searchable; its vector waits for the model. {reason}", None
        return entry.state, "It is in the index." if verdict.ok else f"It {verdict.reason}.", verdict.rule

    def _check_wait(self, deadline: float | None) -> None:
        if self._closing:
            raise ImagedbError("The daemon is stopping.")
        if self._indexer.trouble:
            raise StoreError(f"Nothing can be written at the moment: {self._indexer.trouble}")
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeoutError(f"{self._queue.pending} changes are still to be indexed.")

    def _check_model(self) -> None:
        model = self._embedder.status()
        if model.state is ModelState.UNAVAILABLE:
            ways = " or ".join(f"`{way}`" for way in model.help)
            raise ModelUnavailableError(f"{model.reason} Pictures wait for it. Ways on: {ways}.")

    def _roots_status(self) -> list[RootStatus]:
        """What the scanner says of each root, or of one that is in order, what its watch lacks."""
        watches = {watch.root: watch for watch in self._watcher.status()}
        return [
            replace(root, state=RootState.DEGRADED, reason=watch.reason)
            if root.state is RootState.ONLINE
            and (watch := watches.get(root.path))
            and watch.state is RootState.DEGRADED
            else root
            for root in self._scanner.roots_status()
        ]

    def _may_forget(self, path: str) -> bool:
        return RootGuard(self._rules, self._ledger).why_absence_is_no_proof(path) is None

    def _on_model_ready(self) -> None:
        self._indexer.model_became_ready()

    def _on_doubt(self, folder: str, _reason: str) -> None:
        self._scanner.request(folder)


def _rules(settings: Settings) -> Rules:
    excluded = {os.path.realpath(settings.data_dir), os.path.realpath(os.path.dirname(settings.socket))}
    try:
        return Rules(settings.roots, excluded, settings.ignore, settings.max_file_size)
    except ValueError as error:
        raise ConfigError(f"ignore: {error}.") from error


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_bytes=settings.max_file_size,
        max_pixels=settings.max_pixels,
        memory_bytes=settings.decode_memory,
        timeout_s=settings.decode_timeout,
    )
