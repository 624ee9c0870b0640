"""A TOML file that people write, and what is wrong with it in words for them."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from imagedbd.errors import ConfigError

_PLACE: Final = re.compile(r" \((?:at line (\d+), column \d+|at end of document)\)$")
_UNCLOSED: Final = re.compile(r"(Illegal|Found invalid) character '\\n'|Unterminated string|Expected \"'")


def read_toml(path: str) -> dict[str, Any]:
    """What the file says; nothing if it is not there.

    :raises ConfigError: it cannot be read; of a fault in it, with the line.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: this is not UTF-8, as TOML has to be.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = f"{path}, line {_line_of(error, text)}"
        raise ConfigError(f"{place}: this is not valid TOML: {_plain(error)}.") from error


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    """Where the reader stopped; that of a fault at the end is the last line."""
    found = _PLACE.search(str(error))
    return int(found[1]) if found and found[1] else len(text.splitlines())


def _plain(error: tomllib.TOMLDecodeError) -> str:
    """What is wrong, in the words of somebody who writes settings rather than parsers."""
    words = _PLACE.sub("", str(error))
    if _UNCLOSED.match(words):
        return "a string lacks its closing quote"
    if words == "Invalid value":
        return "a value is missing or not whole, or is a text without quotes"
    return words[:1].lower() + words[1:]
