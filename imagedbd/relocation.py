"""A root that lies elsewhere now: what is known of its pictures goes on under their new paths.

Nothing is read for that. A scan then finds the files unchanged, or where they were copied has them hashed
while they stay searchable. It is written down before it begins: what was broken off is completed by the next
start, before any scan could miss a picture at the old place.
"""

from __future__ import annotations

import os
import shlex
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imagedbd.datatypes import PictureState
from imagedbd.errors import DaemonStoppingError, NothingMatchedError, UsageError
from imagedbd.ledger import NAME as LEDGER
from imagedbd.ledger import Ledger
from imagedbd.locking import locked_data
from imagedbd.rules import Rules, is_within
from imagedbd.text import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imagedbd.config import Settings
    from imagedbd.datatypes import LedgerEntry

PAGE: Final = 2000
"""Pictures that are brought over at a time."""
_SAMPLE: Final = 64
"""Known pictures that are looked for at the new place before anything is done."""


def check_places(old: str, new: str, roots: tuple[str, ...]) -> None:
    """:raises ImagedbError: one of the two cannot be what it is said to be; the message says why."""
    if old not in roots:
        raise NothingMatchedError(f"{old} is not among the watched folders. `imagedb root list` shows them.")
    if old == new:
        raise UsageError(f"{old} is where it was.")
    if not os.path.isdir(new):
        what = "is not a folder" if os.path.lexists(new) else "does not exist"
        raise UsageError(f"{new} {what}.")
    for root in roots:
        if root != new and (is_within(new, root) or is_within(root, new)):
            inner, outer = (new, root) if is_within(new, root) else (root, new)
            remove = f"imagedb root remove {shlex.quote(old)}"
            is_watched = root != old and inner == new
            command = remove if is_watched else f"imagedb root add {shlex.quote(new)} && {remove}"
            raise UsageError(
                f"{inner} lies in {outer}, and pictures that move there are followed anyway, without "
                f"embedding. All that is left to do: `{command}`."
            )


def note_at_rest(settings: Settings, roots: Sequence[str], old: str, new: str) -> int | None:
    """Have the next start of the daemon bring the pictures over; for when none runs.

    :param roots: what is watched so far.
    :returns: how many files it will bring over; ``None`` if there is no index yet.
    :raises LockHeldError: one runs all the same.
    :raises ImagedbError: it cannot be done; the message says why.
    """
    file = os.path.join(settings.data_dir, LEDGER)
    if not os.path.exists(file):
        return None
    with locked_data(settings), closing(Ledger(file)) as ledger:
        # Those that were to come to the old place go on from where they are.
        starts = [old, *(start for start, end in ledger.relocations().items() if end == old)]
        for start in starts:
            rules = Rules([start if r == old else r for r in roots], [os.path.realpath(settings.data_dir)])
            Relocation(start, new, rules, ledger).check()
        ledger.note_relocation(old, new)
        return sum(sum(ledger.counts(start).values()) for start in starts)


@dataclass(frozen=True, slots=True)
class Relocation:
    """:param rules: those under which ``old`` is a root."""

    old: str
    new: str
    rules: Rules
    ledger: Ledger

    def check(self) -> None:
        """See that this can be done, and that the pictures are where they are said to be.

        :raises ImagedbError: it cannot be done; the message says why.
        """
        check_places(self.old, self.new, self.rules.roots)
        if any(is_within(self.new, folder) for folder in self.rules.excluded):
            raise UsageError(f"{self.new} lies in a folder of imagedbd's own.")
        if self.ledger.holds_any(self.new):
            raise UsageError(
                f"{self.new} has pictures in the index already: what is equal there was not embedded again."
                f" `imagedb root remove {shlex.quote(self.old)}` is all that is left to do."
            )
        sample = [e for e in self.ledger.sample(self.old, _SAMPLE) if self._is_ours(e.path)]
        found = sum(self._is_as_large(entry) for entry in sample)
        if 2 * found < len(sample):
            raise UsageError(
                f"{self.new} is not the same library: of {count(len(sample), 'picture')} of {self.old},"
                f" {found} were found there. To watch it all the same: `imagedb root add`, `root remove`."
            )

    def bring_over(
        self, relabel: Callable[[Mapping[str, LedgerEntry]], None], is_over: Callable[[], bool]
    ) -> int:
        """Put everything known of the old place under the new one, or what an earlier try left there.

        :param relabel: writes entries with their rows, each under its former path.
        :param is_over: whether the daemon stops.
        :returns: how many files that were.
        :raises DaemonStoppingError: in the middle; the next start brings the rest over.
        :raises StoreError: some may be brought over.
        """
        self.ledger.note_relocation(self.old, self.new)
        self._bring_places_over()
        total = 0
        for page in self._pages():
            if is_over():
                raise DaemonStoppingError(
                    f"It was asked to stop when {count(total, 'file was', 'files were')} brought over."
                )
            relabel(page)
            total += len(page)
        self.ledger.forget_relocation(self.old)
        return total

    def _bring_places_over(self) -> None:
        """Mount points below: one that is not mounted just now must not be taken for an empty folder."""
        places = self.ledger.places_under(self.old)
        if places or self.ledger.root_seen(self.old):  # else an earlier try brought them over
            moved = {self._moved(p) if self._is_ours(p) else p: identity for p, identity in places.items()}
            self.ledger.move_places(self.old, self.new, moved)

    def _pages(self) -> Iterator[dict[str, LedgerEntry]]:
        page: dict[str, LedgerEntry] = {}
        for entry in self.ledger.under(self.old):
            place = self._moved(entry.path)
            if self._is_ours(entry.path) and not self._is_known(place):
                # With the old signature: where the file is another one by that, a scan has it hashed.
                page[entry.path] = replace(entry, path=place)
            if len(page) == PAGE:
                yield page
                page = {}
        if page:
            yield page

    def _is_known(self, place: str) -> bool:
        """Whether a file was looked at there, after an earlier try that failed: that is newer."""
        entry = self.ledger.get(place)
        return entry is not None and entry.state is not PictureState.PENDING

    def _is_as_large(self, entry: LedgerEntry) -> bool:
        try:
            return os.lstat(self._moved(entry.path)).st_size == entry.signature.size
        except OSError:
            return False

    def _is_ours(self, path: str) -> bool:
        """Not so what belongs to a root nested in the old one: that stays where it is."""
        return self.rules.root_of(path) == self.old

    def _moved(self, path: str) -> str:
        return os.path.join(self.new, path[len(self.old) :].lstrip("/"))
