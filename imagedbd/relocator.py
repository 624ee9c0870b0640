"""Follows roots to where they lie now: when somebody asks for it, and at the start."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imagedbd.errors import DaemonBusyError, DaemonStoppingError, StoreError, UsageError
from imagedbd.live_settings import rules_of
from imagedbd.relocation import Relocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagedbd.health import Health
    from imagedbd.indexer import Indexer
    from imagedbd.ledger import Ledger
    from imagedbd.live_settings import LiveSettings
    from imagedbd.rules import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocator:
    """:param rules: those that hold now.
    :param reload: reads the settings again and has everybody go by them.
    :param is_closing: whether the daemon was asked to stop.
    """

    settings: LiveSettings
    ledger: Ledger
    indexer: Indexer
    health: Health
    rules: Callable[[], Rules]
    reload: Callable[[], object]
    is_closing: Callable[[], bool]

    def relocate(self, old: str, new: str, *, only_check: bool = False) -> dict[str, Any]:
        """Follow a root to its new place, which the settings name already, without embedding anything.

        :param only_check: see whether it can be done, before the settings are changed. If the daemon ends
            after that change and before it is asked to go on, the next start does it.
        :returns: ``pictures``: how many were brought over, or would be.
        :raises ImagedbError: it cannot be done. If it broke off in the middle, the next start completes it,
            or until then a scan, by the pictures' content.
        """
        relocation = Relocation(old, new, self.rules(), self.ledger)
        relocation.check()
        self.health.check_work()
        if old in self.settings.current.fixed_roots:
            raise UsageError(
                f"{old} is watched because the daemon was started with it (--root or IMAGEDBD_ROOTS),"
                f" whatever the file says. Start it with {new} in its place: no picture is embedded again."
            )
        if only_check:
            self.ledger.note_relocation(old, new)
            return {"pictures": sum(self.ledger.counts(old).values())}
        roots = self.settings.read().roots
        if old in roots or new not in roots:
            raise UsageError(f"The settings must name {new} in the place of {old} first.")
        brought: list[int] = []

        def follow() -> None:
            # In the indexer's thread to the end: by the old rules it would forget what lies at the new place.
            try:
                relocation.check()  # what was indexed meanwhile would be there twice
                brought.append(self._bring_over(relocation))
            finally:
                self.reload()

        try:
            self.indexer.have_done(follow, patience_s=math.inf)
        except DaemonBusyError:
            self.reload()
            self.health.check_work()
            raise StoreError(
                "Indexing was held up; the pictures are followed by their content instead."
            ) from None
        return {"pictures": brought[0]}

    def complete(self) -> None:
        """Broken off ones, and those asked for while no daemon ran: before anything looks at the folders."""
        roots = self.rules().roots
        self.drop(roots)
        for old, new in self.ledger.relocations().items():
            before = tuple(old if root == new else root for root in roots)
            rules = rules_of(replace(self.settings.current, roots=before))
            try:
                self._bring_over(Relocation(old, new, rules, self.ledger))
            except DaemonStoppingError:
                return
            except StoreError as error:
                log.warning("pictures of %s are followed by their content instead: %s", old, error.message)

    def drop(self, roots: Sequence[str]) -> None:
        """Those that were announced, and that the settings do not make."""
        for old, new in self.ledger.relocations().items():
            if new not in roots or old in roots:
                log.info("%s is not at %s after all: that is what the settings say", old, new)
                self.ledger.forget_relocation(old)

    def _bring_over(self, relocation: Relocation) -> int:
        """In the indexer's thread, or before that has begun."""
        brought = relocation.bring_over(self.indexer.relabel, self.is_closing)
        log.info("%s lies at %s now: %d files were brought over", relocation.old, relocation.new, brought)
        return brought
