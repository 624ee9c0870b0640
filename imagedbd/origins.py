"""Where the value of each setting comes from, for whoever wonders why it is what it is."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from imagedbd.config import ABOUT_SETTINGS, FILE_KEYS, Settings, place_in_file

HIDDEN: Final = "…"
_SECRET: Final = re.compile(r"secret|token|key|password|credential|sas", re.IGNORECASE)


class Origin(enum.StrEnum):
    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting.

    :param name: as the settings file calls it.
    :param value: as JSON has it; what may be a secret is hidden.
    :param place: the flag, the variable, or the file and the line; ``None`` for a default.
    """

    name: str
    value: Any
    origin: Origin
    place: str | None = None


def explained(settings: Settings) -> list[Explained]:
    """Every setting, in the order of :class:`imagedbd.config.Settings`."""
    names = [field.name for field in fields(Settings) if field.name not in ABOUT_SETTINGS]
    return [_explained(settings, name) for name in names]


def _explained(settings: Settings, name: str) -> Explained:
    value, shown = _public(getattr(settings, name)), FILE_KEYS.get(name, name)
    if place := settings.places.get(name):
        return Explained(shown, value, Origin.FLAG if place.startswith("-") else Origin.ENVIRONMENT, place)
    if name in settings.named:
        return Explained(shown, value, Origin.FILE, place_in_file(settings.config_file, shown))
    return Explained(shown, value, Origin.DEFAULT)


def _public(value: Any) -> Any:
    match value:
        case tuple():
            return list(value)
        case dict():
            return {key: HIDDEN if _SECRET.search(key) else text for key, text in value.items()}
        case _:
            return value
