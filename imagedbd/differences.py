"""Where the settings name another store or model than the one that answers.

Only a switch exchanges them: until somebody asks for one, what is there goes on, and this says so. After
one, the settings file agrees, and a flag or a variable that goes before it is what is out of date.
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
    """:param command: what makes the index follow the setting; ``None`` if the setting should go.
    :param place: the flag or variable that should go.
    """

    setting: str
    configured: str
    active: str
    command: str | None
    place: str | None = None

    @property
    def finding(self) -> str:
        if self.command is None:
            return (
                f"The daemon was started with {self.configured} ({self.place}), which goes before the "
                f"settings file; the {self.setting} that answers is {self.active}, as the file says."
            )
        return (
            f"The settings name the {self.setting} {self.configured}; the index goes on with {self.active}."
        )

    @property
    def help(self) -> str:
        return self.command or f"start the daemon without {self.place}"

    @property
    def text(self) -> str:
        return f"{self.finding} What helps: {self.help}."

    def public(self) -> dict[str, Any]:
        return {**asdict(self), "finding": self.finding, "help": self.help, "text": self.text}


def differences(settings: Settings, answering: Generation) -> list[Difference]:
    """What the settings say otherwise; a default that nobody chose says nothing of an index that is there.

    :param answering: the generation that answers, or will when the switch under way is over; with its model.
    """
    found = []
    uri = wanted_place(settings, settings.store)
    wanted, active = uri or settings.store, answering.place if answering.is_remote else answering.kind
    if wanted != active and ("store" in settings.named or uri or answering.is_remote):
        found.append(_difference(settings, "store", wanted, active, f"imagedb store use {settings.store}"))
    if "model" in settings.named and answering.model and settings.model != answering.model:
        command = f"imagedb model use {settings.model}"
        found.append(_difference(settings, "model", settings.model, answering.model, command))
    return found


def _difference(settings: Settings, name: str, configured: str, active: str, command: str) -> Difference:
    over = settings.overridden.get(name)
    if over is not None and over.filed == active:
        return Difference(name, configured, active, None, over.place)
    return Difference(name, configured, active, command)
