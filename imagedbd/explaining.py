"""Why a file is in the index or not, in words."""

from __future__ import annotations

import os
import shlex
import stat as stat_module
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imagedbd.datatypes import PictureState
from imagedbd.roots import RootGuard
from imagedbd.sidecars import is_sidecar, read_packet, sidecars_of
from imagedbd.xmp import is_packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.datatypes import LedgerEntry, ModelStatus
    from imagedbd.ledger import Ledger
    from imagedbd.rules import Rules
    from imagedbd.unread import UnreadFiles


MISSING: Final = "missing"
UNREADABLE: Final = "unreadable"


class Explanation(NamedTuple):
    """:param reason: a sentence or two.
    :param rule: of those that let files in or leave them out, the one that decided.
    """

    state: str
    reason: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Explainer:
    """:param is_queued: whether a path is about to be looked at.
    :param silence: that the place of a path does not answer, in a sentence; must never wait.
    :param held_up: what keeps everything from being indexed now, in words.
    """

    rules: Rules
    ledger: Ledger
    unread: UnreadFiles
    is_queued: Callable[[str], bool]
    silence: Callable[[str], str | None]
    held_up: Callable[[], str | None]
    model: Callable[[], ModelStatus]

    def explain(self, path: str, entry: LedgerEntry | None) -> Explanation:
        """:param entry: what the ledger has of this path."""
        if self.is_queued(path):
            held = self.held_up() or "It is about to be looked at, or waits until it has settled."
            return Explanation("pending", held)
        if silence := self.silence(path):
            return Explanation(entry.state if entry else "unknown", silence)
        return self._of_unknown(path) if entry is None else self._of_known(path, entry)

    def _of_known(self, path: str, entry: LedgerEntry) -> Explanation:
        if offline := RootGuard(self.rules, self.ledger).why_absence_is_no_proof(path):
            return Explanation(entry.state, f"What was indexed stays: {offline}")
        if unread := self.unread.why(path):
            stays = " What was indexed of it stays." if entry.id else ""
            reason = f"It cannot be read now, and is tried again in a while: {unread}{stays}"
            return Explanation(entry.state, reason)
        if entry.state is PictureState.FAILED:
            return Explanation(entry.state, entry.reason or "It could not be read.")
        if entry.state is PictureState.WAITING:
            reason = self.held_up() or self.model().reason or "It is loading."
            said = "its vector waits for the model, and whether all of it can be read shows then"
            return Explanation(entry.state, f"Its metadata is searchable; {said}. {reason}")
        verdict = self.rules.explain(path)
        if not verdict.ok:
            stays = " What was indexed of it stays." if verdict.unsure else ""
            return Explanation(entry.state, f"It {verdict.reason}.{stays}", verdict.rule)
        mute = [os.path.basename(sidecar) for sidecar in sidecars_of(path) if _is_mute(sidecar)]
        but = f" {' and '.join(mute)} beside it cannot be read, and says nothing of it." if mute else ""
        return Explanation(entry.state, f"It is in the index.{but}", verdict.rule)

    def _of_unknown(self, path: str) -> Explanation:
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return Explanation(MISSING, "There is no such file, and none is known.")
        except OSError as error:
            return Explanation(UNREADABLE, f"It cannot be looked at: {error.strerror}.")
        if stat_module.S_ISDIR(mode):
            return self._of_folder(path)
        verdict = self.rules.explain(path)
        if verdict.ok and (offline := RootGuard(self.rules, self.ledger).why_absence_is_no_proof(path)):
            return Explanation("unknown", f"It is left alone: {offline}")
        if verdict.ok:
            return Explanation(
                "unknown", "Neither an event nor a scan has met it yet; try `imagedb scan`.", None
            )
        if verdict.unsure:
            return Explanation(UNREADABLE, f"It {verdict.reason}.", verdict.rule)
        return Explanation("skipped", self._why_skipped(path, verdict.reason), verdict.rule)

    def _why_skipped(self, path: str, reason: str | None) -> str:
        if os.path.islink(path) and os.path.isdir(path):
            return self._of_linked_folder(os.path.realpath(path))
        return self._of_sidecar(path) if is_sidecar(path) else f"It {reason}."

    def _of_sidecar(self, path: str) -> str:
        names = ", ".join(os.path.basename(entry.path) for entry in self.ledger.of_sidecar(path))
        whose = f"the pictures of its name{f', {names}' if names else ''}"
        if _is_mute(path):
            return f"It is a sidecar that is damaged, unfinished or too large, and says nothing of {whose}."
        return f"It is a sidecar: what it says counts for {whose}."

    def _of_linked_folder(self, real: str) -> str:
        verdict = self.rules.explain(real)
        what = "is watched" if verdict.ok else verdict.reason
        return (
            f"It is a symbolic link to the folder {real}, and links are not followed. That folder {what}: "
            f"`imagedb why {shlex.quote(real)}` says more."
        )

    def _of_folder(self, path: str) -> Explanation:
        verdict = self.rules.explain(path)
        if not verdict.ok:
            state = UNREADABLE if verdict.unsure else "skipped"
            return Explanation(state, f"It is a folder that {verdict.reason}.", verdict.rule)
        counts = self.ledger.counts(path)
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        if closed := _why_closed(path):
            stays = f" What is known of it stays: {told}." if told else ""
            reason = f"It is a folder that cannot be read, and is tried again in a while: {closed}.{stays}"
            return Explanation(UNREADABLE, reason)
        reason = f"It is a folder that is watched. Files in it and below: {told or 'no pictures'}."
        return Explanation("folder", reason)


def speaking_sidecars(path: str) -> list[str]:
    """The sidecars of a picture that can be read."""
    return [sidecar for sidecar in sidecars_of(path) if not _is_mute(sidecar)]


def _why_closed(folder: str) -> str | None:
    """What keeps this process from listing a folder, or from looking at what lies in it."""
    try:
        os.listdir(folder)
        os.lstat(os.path.join(folder, "."))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _is_mute(sidecar: str) -> bool:
    packet = read_packet(sidecar)
    return packet is None or not is_packet(packet)
