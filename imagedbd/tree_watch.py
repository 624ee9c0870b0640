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
from typing import TYPE_CHECKING, Final

from watchdog.observers.inotify_c import (
    InotifyConstants,
    InotifyFD,
    Mask,
    WatchDescriptor,
    inotify_add_watch,
    inotify_rm_watch,
)

from imagedbd.rules import IGNORE_FILE, is_within, outermost

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

# Added to what is asked of the folder already, should it lie in the root as well (a bind mount).
_ABOVE_MASK = Mask(
    InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
    | InotifyConstants.IN_MASK_ADD
)

STOP_S: Final = 5.0
"""How long a reader may take to end."""

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

    def watch(self, path: bytes, mask: Mask = _MASK) -> WatchDescriptor:
        """:raises OSError: there is no such folder, it may not be read, or a limit is reached."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the watch is closed")
            descriptor = inotify_add_watch(self._inotify_fd, path, mask)
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

    def begin(self) -> None:
        """Start reading.

        :raises OSError: this user may have no more threads; nothing is left open.
        """
        try:
            self.start()
        except BaseException as error:
            self._is_reading = False  # else it would be left to the thread to close the descriptors
            self.stop()
            if not isinstance(error, RuntimeError):
                raise
            raise OSError(errno.EAGAIN, f"no thread could be started to read its events ({error})") from error

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - a reader must never end without a word
            self._on_failure(error)


class TreeWatch:
    """Watches a root with all its folders that the rules let in, up to where nested roots begin.

    The kernel knows folders, not paths: one folder has one descriptor, under however many paths it was met
    (bind mounts, a rename that is not heard of yet). Its events are taken for events at each of them.

    The callbacks are called in the reader's thread and must be quick.

    :param on_hint: something may have happened to this file; and whether a writer closed it.
    :param on_doubt: something may have happened anywhere in this folder; and what was heard. What the
        folder holds is watched already.
    :param on_lost: :attr:`why_lost` is set.
    :param is_stopping: ends a walk through the folders early: what is not watched by then never is.
    :raises OSError: the root cannot be watched: it is not there, or a limit is reached (ENOSPC for
        watches, EMFILE for inotify instances, EAGAIN for threads).
    """

    def __init__(
        self,
        root: str,
        rules: Rules,
        *,
        on_hint: Callable[[str, bool], None],
        on_doubt: Callable[[str, str], None],
        on_lost: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.root = root
        self._rules = rules
        self._on_hint = on_hint
        self._on_doubt = on_doubt
        self._on_lost = on_lost
        self._is_stopping = is_stopping
        self._ended = False
        self._why_lost: str | None = None
        self._lock = threading.Lock()
        self._paths_of: dict[WatchDescriptor, tuple[str, ...]] = {}
        self._descriptor_of: dict[str, WatchDescriptor] = {}
        self._unwatched: dict[str, int] = {}
        self._closed: set[str] = set()
        self._above: set[WatchDescriptor] = set()
        self._reader = _Reader(self._handle, self._on_reader_failure)
        self._reader.begin()
        try:
            self._watch_root()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop listening, and end a walk through the folders early. Not to be called from a callback."""
        self._ended = True
        self._reader.stop()
        # One that hangs in a file system that never answers is left behind: it does nothing any more.
        self._reader.join(STOP_S)

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

    def retry(self) -> None:
        """Try once more to watch the folders that could not be watched, until a limit is met again."""
        for path in outermost(self.unwatched()):
            try:
                self._add(path)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
                if error.errno in _GONE:
                    self._forget_unwatched(path)
            else:
                self._watch_tree(path)

    # Watching.

    def _watch_root(self) -> None:
        top = self._rules.folder(self.root)
        if top.verdict.may_be_ok:
            self._add(self.root)
            self._watch_all(self._folders_in(top))
            self._watch_above()

    def _watch_above(self) -> None:
        """Hear of it when a folder above the root moves away: the root's own watch goes along, silently.

        While it is away, what changed before is looked for in vain, and when it is back, it is as it was.
        A folder that may not be watched is left to those who look at the root every few seconds.

        :raises OSError: one has gone already.
        """
        path = self.root
        while (path := os.path.dirname(path)) != "/":
            try:
                self._above.add(self._reader.watch(os.fsencode(path), _ABOVE_MASK))
            except OSError as error:
                if error.errno in _GONE:
                    raise

    def _watch_tree(self, path: str) -> bool:
        """Watch a folder with all below; False if the rules leave it out."""
        folder = self._rules.folder(path)
        if folder.root != self.root or not folder.verdict.may_be_ok:
            return False
        self._watch_all([folder])
        return True

    def _watch_all(self, ahead: list[FolderRules]) -> None:
        while ahead and not (self._ended or self._is_stopping()):
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
            former = self._descriptor_of.get(path)
            if former is not None and former != descriptor:
                self._take_away(path, former)
            paths = self._paths_of.get(descriptor, ())
            self._paths_of[descriptor] = paths if path in paths else (*paths, path)
            self._descriptor_of[path] = descriptor
            self._unwatched.pop(path, None)

    def _take_away(self, path: str, descriptor: WatchDescriptor) -> None:
        """Take a path from a folder, which is watched on under those that are left. The lock is held."""
        left = tuple(other for other in self._paths_of.pop(descriptor, ()) if other != path)
        if left:
            self._paths_of[descriptor] = left
        else:
            self._reader.unwatch(descriptor)

    def _folders_in(self, folder: FolderRules) -> list[FolderRules]:
        """Those that the rules let in and that belong to this root."""
        try:
            names = list(_folder_names(folder.path))
        except OSError as error:
            if error.errno not in _GONE:
                self._note_unwatched(folder.path, error)
            return []
        below = (folder.folder(name) for name in names)
        return [inner for inner in below if inner.root == self.root and inner.verdict.may_be_ok]

    def _note_unwatched(self, path: str, error: OSError) -> None:
        with self._lock:
            self._unwatched[path] = error.errno or 0

    def _unwatch_below(self, path: str) -> None:
        """Stop watching a folder that has moved, and all below, under the paths that it had."""
        with self._lock:
            for former in [p for p in self._descriptor_of if is_within(p, path)]:
                self._take_away(former, self._descriptor_of.pop(former))
        self._forget_unwatched(path)

    def _forget_unwatched(self, path: str) -> None:
        with self._lock:
            for former in [p for p in self._unwatched if is_within(p, path)]:
                del self._unwatched[former]
            self._closed = {p for p in self._closed if not is_within(p, path)}

    def _drop(self, descriptor: WatchDescriptor) -> None:
        with self._lock:
            for path in self._paths_of.pop(descriptor, ()):
                if self._descriptor_of.get(path) == descriptor:
                    del self._descriptor_of[path]

    # Events, in the reader's thread.

    def _handle(self, event: InotifyEvent) -> None:
        if event.is_queue_overflow:
            self._lose("the kernel had to drop events")
        elif event.is_move_self and event.wd in self._above:
            self._lose("a folder above it was moved")
        elif event.is_ignored:
            self._drop(event.wd)
        else:
            for folder in self._paths_of.get(event.wd, ()):
                self._handle_in(folder, event)

    def _handle_in(self, folder: str, event: InotifyEvent) -> None:
        if event.mask & InotifyConstants.IN_UNMOUNT:
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
        elif event.is_attrib:
            self._handle_permissions(folder)

    def _handle_file(self, event: InotifyEvent, path: str) -> None:
        name = os.path.basename(path)
        if name == IGNORE_FILE:
            self._lose(f"{path} has changed")
        elif self._rules.concerns(name) and not name.startswith("."):
            self._on_hint(path, event.is_close_write)

    def _handle_folder(self, event: InotifyEvent, path: str) -> None:
        if event.is_moved_from:
            self._unwatch_below(path)
            # Of two that swapped names at once, the other one is here, and had come before this one went.
            self._watch_tree(path)
            self._on_doubt(path, "a folder has moved away")
        elif event.is_delete:
            self._forget_unwatched(path)
            self._on_doubt(path, "a folder was removed")
        elif event.is_create or event.is_moved_to:
            if self._watch_tree(path):
                self._on_doubt(path, "a folder has come")
        elif event.is_attrib and path in self._unwatched:
            self._handle_permissions(path)

    def _handle_permissions(self, path: str) -> None:
        """A folder was closed or opened, or merely touched, as every unpacked one is in the end."""
        if _is_gone(path):
            return
        if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
            if path not in self._closed:
                self._closed.add(path)
                self._on_doubt(path, "a folder cannot be read any more")
        elif (path in self._closed or path in self._unwatched) and self._watch_tree(path):
            self._closed.discard(path)
            self._on_doubt(path, "a folder's permissions have changed")

    def _on_reader_failure(self, error: Exception) -> None:
        _log.error("the reader of events below %s has ended", self.root, exc_info=error)
        self._lose(f"the reader of events has failed ({error!r})")

    def _lose(self, reason: str) -> None:
        if self._why_lost is None:
            self._why_lost = reason
            self._on_lost()


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _GONE
    return False


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
