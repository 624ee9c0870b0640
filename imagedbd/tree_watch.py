"""inotify on all folders of one root, with a table of its own over watchdog's reader.

Of watchdog this uses the part that talks to the kernel: the descriptor, the thread that reads it, the
parser. What watchdog builds on top (pairing moves, following renames, making up events) is bookkeeping
that can fall behind the kernel, and then it is wrong without a word or takes the reader down. Here no
event is believed, so none needs to be understood: a file's event is a hint at its path, a folder's event
means that what lies there must be watched anew and scanned. Whatever breaks the promise that every change
is heard of makes the whole watch *lost*, and it says so.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from typing import TYPE_CHECKING

from watchdog.observers.inotify_c import (
    InotifyConstants,
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)

from imagedbd.rules import IGNORE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from watchdog.observers.inotify_c import InotifyEvent

    from imagedbd.rules import FolderRules, Rules

_log = logging.getLogger(__name__)

# Neither opening nor reading: hearing of our own walks would drown the rest.
_MASK = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
)

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class _Reader(InotifyFD):
    """Reads events in a thread, and tells when that ends before its time."""

    def __init__(
        self, on_event: Callable[[InotifyEvent], None], on_failure: Callable[[Exception], None]
    ) -> None:
        super().__init__()
        self.name = "inotify"
        # The descriptor would otherwise live on in every child process.
        os.set_inheritable(self._inotify_fd, False)  # noqa: FBT003 - takes no keyword
        self._on_event = on_event
        self._on_failure = on_failure

    def watch(self, path: bytes) -> WatchDescriptor:
        """:raises OSError: there is no such folder, it may not be read, or a limit is reached."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the watch is closed")
            descriptor = inotify_add_watch(self._inotify_fd, path, _MASK)
        if descriptor == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return descriptor

    def unwatch(self, descriptor: WatchDescriptor) -> None:
        """A descriptor whose folder is gone is no error."""
        with self._lock:
            if not self._closed:
                inotify_rm_watch(self._inotify_fd, descriptor)

    def handle_event(self, event: InotifyEvent) -> None:
        self._on_event(event)

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - a reader must never end without a word
            self._on_failure(error)


class TreeWatch:
    """Watches a root with all its folders that the rules let in, up to where nested roots begin.

    The callbacks are called in the reader's thread and must be quick.

    :param on_hint: something may have happened to this file; and whether a writer closed it.
    :param on_doubt: something may have happened anywhere in this folder; and what was heard. What the
        folder holds is watched already.
    :param on_lost: :attr:`why_lost` is set.
    :raises OSError: the root cannot be watched: it is not there, or a limit is reached (ENOSPC for
        watches, EMFILE for inotify instances).
    """

    def __init__(
        self,
        root: str,
        rules: Rules,
        *,
        on_hint: Callable[[str, bool], None],
        on_doubt: Callable[[str, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.root = root
        self._rules = rules
        self._on_hint = on_hint
        self._on_doubt = on_doubt
        self._on_lost = on_lost
        self._why_lost: str | None = None
        self._lock = threading.Lock()
        self._path_of: dict[WatchDescriptor, str] = {}
        self._descriptor_of: dict[str, WatchDescriptor] = {}
        self._unwatched: dict[str, int] = {}
        self._unreadable: set[str] = set()
        self._reader = _Reader(self._handle, self._on_reader_failure)
        self._reader.start()
        try:
            self._watch_root()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening. Not to be called from a callback."""
        self._reader.stop()
        self._reader.join()

    @property
    def why_lost(self) -> str | None:
        """Why changes may go unheard from now on, as the end of a sentence; ``None`` while all is well."""
        if self._why_lost is None and not self._reader.is_alive():
            return "the reader of events has ended"
        return self._why_lost

    @property
    def folders(self) -> int:
        """How many folders are watched."""
        return len(self._descriptor_of)

    def unwatched(self, code: int | None = None) -> list[str]:
        """The folders that could not be watched; of these, those that failed with this ``errno``."""
        with self._lock:
            return [path for path, why in self._unwatched.items() if code in (None, why)]

    # Watching.

    def _watch_root(self) -> None:
        top = self._rules.folder(self.root)
        if top.verdict.ok:
            self._add(self.root)
            self._watch_all(self._folders_in(top))

    def _watch_tree(self, path: str) -> bool:
        """Watch a folder with all below; False if the rules leave it out."""
        folder = self._rules.folder(path)
        if folder.root != self.root or not folder.verdict.ok:
            return False
        self._watch_all([folder])
        return True

    def _watch_all(self, ahead: list[FolderRules]) -> None:
        while ahead:
            folder = ahead.pop()
            # Watched first and listed then: what comes in between is seen twice rather than never.
            if self._watch(folder.path):
                ahead += self._folders_in(folder)

    def _watch(self, path: str) -> bool:
        """Watch one folder, or note why not; False if it is not there."""
        try:
            self._add(path)
        except OSError as error:
            if error.errno in _GONE:
                return False
            self._note_unwatched(path, error)
        return True

    def _add(self, path: str) -> None:
        with self._lock:
            descriptor = self._reader.watch(os.fsencode(path))
            # The kernel knows folders, not paths: one that was renamed unheard keeps its descriptor.
            former = self._path_of.get(descriptor)
            if former is not None and self._descriptor_of.get(former) == descriptor:
                del self._descriptor_of[former]
            self._path_of[descriptor] = path
            self._descriptor_of[path] = descriptor
            self._unwatched.pop(path, None)

    def _folders_in(self, folder: FolderRules) -> list[FolderRules]:
        """Those that the rules let in and that belong to this root."""
        try:
            names = list(_folder_names(folder.path))
        except OSError as error:
            if error.errno not in _GONE:
                self._note_unwatched(folder.path, error)
            return []
        below = (folder.folder(name) for name in names)
        return [inner for inner in below if inner.root == self.root and inner.verdict.ok]

    def _note_unwatched(self, path: str, error: OSError) -> None:
        with self._lock:
            self._unwatched[path] = error.errno or 0

    def _unwatch_below(self, path: str) -> None:
        """Stop watching a folder that has moved, and all below, under the paths that it had."""
        prefix = f"{path}/"
        with self._lock:
            gone = [p for p in self._descriptor_of if p == path or p.startswith(prefix)]
            for former in gone:
                descriptor = self._descriptor_of.pop(former)
                self._path_of.pop(descriptor, None)
                self._reader.unwatch(descriptor)
            for former in [p for p in self._unwatched if p == path or p.startswith(prefix)]:
                del self._unwatched[former]

    def _drop(self, descriptor: WatchDescriptor) -> None:
        with self._lock:
            path = self._path_of.pop(descriptor, None)
            if path is not None and self._descriptor_of.get(path) == descriptor:
                del self._descriptor_of[path]

    # Events, in the reader's thread.

    def _handle(self, event: InotifyEvent) -> None:
        if event.is_queue_overflow:
            self._lose("the kernel had to drop events")
            return
        folder = self._path_of.get(event.wd)
        if folder is None:
            return
        if event.is_ignored:
            self._drop(event.wd)
        elif event.mask & InotifyConstants.IN_UNMOUNT:
            self._lose("a file system was unmounted")
        elif event.is_delete_self or event.is_move_self:
            if folder == self.root:
                self._lose("the folder itself was moved or removed")
        elif event.name:
            path = os.path.join(folder, os.fsdecode(event.name))
            if event.is_directory:
                self._handle_folder(event, path)
            else:
                self._handle_file(event, path)
        elif event.is_attrib and folder == self.root:
            self._handle_permissions(folder)

    def _handle_file(self, event: InotifyEvent, path: str) -> None:
        name = os.path.basename(path)
        if name == IGNORE_FILE:
            self._lose(f"{path} has changed")
        elif self._rules.concerns(name) and not name.startswith("."):
            self._on_hint(path, event.is_close_write)

    def _handle_folder(self, event: InotifyEvent, path: str) -> None:
        if not event.is_attrib:
            self._unreadable.discard(path)
        if event.is_moved_from:
            self._unwatch_below(path)
            self._on_doubt(path, "a folder has moved away")
        elif event.is_delete:
            with self._lock:
                self._unwatched.pop(path, None)
            self._on_doubt(path, "a folder was removed")
        elif event.is_create or event.is_moved_to:
            if self._watch_tree(path):
                self._on_doubt(path, "a folder has come")
        elif event.is_attrib:
            self._handle_permissions(path)

    def _handle_permissions(self, path: str) -> None:
        """A watch goes on in a folder that may no longer be read, but nobody can look at what it tells of."""
        was_unreadable = path in self._unreadable or path in self._unwatched
        is_unreadable = not os.access(path, os.R_OK | os.X_OK, effective_ids=True)
        if is_unreadable:
            self._unreadable.add(path)
        else:
            self._unreadable.discard(path)
        if was_unreadable != is_unreadable and self._watch_tree(path):
            self._on_doubt(path, "a folder's permissions have changed")

    def _on_reader_failure(self, error: Exception) -> None:
        _log.error("the reader of events below %s has ended", self.root, exc_info=error)
        self._lose(f"the reader of events has failed ({error!r})")

    def _lose(self, reason: str) -> None:
        if self._why_lost is None:
            self._why_lost = reason
            self._on_lost()


def _folder_names(path: str) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if _is_folder(entry):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
