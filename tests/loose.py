"""Look-ups that are loose about case below a folder, as those of FAT and of many shares are.

With ``IMAGEDBD_TEST_LOOSE`` naming that folder, they are so for a whole daemon. Listings stay exact.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

LOOK_UPS = ("lstat", "stat", "open", "scandir")


def loosened(look_up: Callable[..., Any], top: str) -> Callable[..., Any]:
    """The same function of :mod:`os`, loose below ``top``."""

    @functools.wraps(look_up)
    def find(path: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return look_up(path, *arguments, **named)
        except FileNotFoundError:
            real = _real(path, top) if isinstance(path, str) else path
            if real == path:
                raise
            return look_up(real, *arguments, **named)

    return find


def loosen() -> None:
    for name in LOOK_UPS:
        setattr(os, name, loosened(getattr(os, name), os.environ["IMAGEDBD_TEST_LOOSE"]))


def _real(path: str, top: str) -> str:
    """What the folders call this."""
    if not path.startswith(f"{top}/"):
        return path
    here = top
    for name in path.removeprefix(f"{top}/").split("/"):
        try:
            names = os.listdir(here)
        except OSError:
            return path
        alike = [other for other in names if other.lower() == name.lower()]
        here = os.path.join(here, name if name in names or not alike else alike[0])
    return here
