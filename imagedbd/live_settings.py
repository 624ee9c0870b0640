"""The settings that a running daemon goes by, and what reading them again changes at once."""

from __future__ import annotations

import os
import threading
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imagedbd.config import ABOUT_SETTINGS, settings_soon
from imagedbd.errors import ConfigError, ImagedbError
from imagedbd.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagedbd.config import Settings

RULES: Final = frozenset({"roots", "ignore"})
BRAKES: Final = frozenset({"max_cpu", "on_battery", "min_free"})
PACE: Final = frozenset({"rescan", "rescan_unheard"})
MODEL_STAY: Final = frozenset({"model_ttl", "keep_text_tower"})
LIVE_SETTINGS: Final = RULES | BRAKES | PACE | MODEL_STAY | {"log_level"}
"""Settings that a reload applies at once."""
SWITCHED_SETTINGS: Final = frozenset(
    {"store", "store_uri", "storage_options", "model", "named", "overridden"}
)
"""Settings that say what a first index is like; where they differ from the one that is there, it is told."""


class Change(NamedTuple):
    """What reading the settings again led to.

    :param settings: those that hold from now on; ``rules`` are theirs.
    :param wanted: as they were read, with what counts from the next start on.
    :param names: of the settings that are other ones than when they were last read.
    """

    settings: Settings
    rules: Rules
    wanted: Settings
    names: tuple[str, ...]


class LiveSettings:
    """:param read: reads the settings again."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self._current = settings
        self._last_read = settings
        self._had_file = os.path.exists(settings.config_file)
        self._read = read
        self._reloading = threading.Lock()
        self._fault: str | None = None

    @property
    def current(self) -> Settings:
        return self._current

    @property
    def fault(self) -> str | None:
        """Why the last reload changed nothing; ``None`` once one has succeeded."""
        return self._fault

    def read(self) -> Settings:
        """As they stand in file, environment and flags now, which changes nothing.

        :raises ConfigError: with the fault.
        """
        return self._read()

    def reload(self, apply: Callable[[Change], None]) -> dict[str, Any]:
        """Read the settings again; a faulty file changes nothing.

        :param apply: has everybody go by the change. What it raises leaves all of it to the next reload.
        :returns: ``changed``: names of settings that are other ones than when they were last read; and
            ``needs_restart``: of those that count from the next start on, whenever they changed.
        :raises ConfigError: with the fault.
        """
        with self._reloading:
            try:
                change = self._read_again()
                apply(change)
            except ImagedbError as error:
                self._fault = error.message
                raise
            self._fault = None
            self._current, self._last_read = change.settings, change.wanted
            self._had_file = os.path.exists(change.wanted.config_file)
        late = _differing(change.wanted, change.settings)
        return {
            "changed": [name for name in change.names if name not in ABOUT_SETTINGS],
            "needs_restart": [name for name in late if name not in ABOUT_SETTINGS],
        }

    def _read_again(self) -> Change:
        wanted = settings_soon(self._read)
        if self._had_file and not os.path.exists(wanted.config_file):
            raise ConfigError(f"{wanted.config_file} is gone, and what it said goes on to hold.")
        followed = LIVE_SETTINGS | SWITCHED_SETTINGS
        settings = replace(self._current, **{name: getattr(wanted, name) for name in followed})
        rules = rules_of(settings)  # what is wrong with them is found before anything is changed
        return Change(settings, rules, wanted, _differing(wanted, self._last_read))


def rules_of(settings: Settings) -> Rules:
    """:raises ConfigError: a pattern of theirs is none."""
    try:
        return Rules(
            settings.roots, [os.path.realpath(settings.data_dir)], settings.ignore, settings.max_file_size
        )
    except ValueError as error:
        raise ConfigError(f"ignore: {error}.") from error


def _differing(one: Settings, other: Settings) -> tuple[str, ...]:
    return tuple(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))
