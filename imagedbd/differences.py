"""Where the settings name another store or model than the one that answers.

Only a switch exchanges them: until somebody asks for one, what is there goes on, and this says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from imagedbd.generations import wanted_place

if TYPE_CHECKING:
    from imagedbd.config import Settings
    from imagedbd.generations import Generation


@dataclass(frozen=True, slots=True)
class Difference:
    """:param command: what makes the index follow the setting."""

    setting: str
    configured: str
    active: str
    command: str

    @property
    def text(self) -> str:
        return (
            f"The settings name the {self.setting} {self.configured}; the index goes on with {self.active} "
            f"until `{self.command}`."
        )

    def public(self) -> dict[str, Any]:
        return {**asdict(self), "text": self.text}


def differences(settings: Settings, answering: Generation) -> list[Difference]:
    """What the settings say otherwise; a default that nobody chose says nothing of an index that is there.

    :param answering: the generation that answers, or will when the switch under way is over; with its model.
    """
    found = []
    uri = wanted_place(settings, settings.store)
    wanted, active = uri or settings.store, answering.place if answering.is_remote else answering.kind
    if wanted != active and ("store" in settings.named or uri or answering.is_remote):
        found.append(Difference("store", wanted, active, f"imagedb store use {settings.store}"))
    if "model" in settings.named and answering.model and settings.model != answering.model:
        command = f"imagedb model use {settings.model}"
        found.append(Difference("model", settings.model, answering.model, command))
    return found
