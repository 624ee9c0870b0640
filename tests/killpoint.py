"""A place in the program where it is to be killed: ``IMAGEDBD_TEST_KILL=MODULE:CLASS.METHOD:before|after``.

It counts from when the file ``IMAGEDBD_TEST_KILL_FROM`` is there, which makes it the place in what is tested.
"""

from __future__ import annotations

import functools
import os
import signal
from types import ModuleType
from typing import Any


def lay(module: ModuleType) -> None:
    """:param module: the one that was named."""
    _, place, moment = os.environ["IMAGEDBD_TEST_KILL"].split(":")
    owner, _, name = place.partition(".")
    method = getattr(getattr(module, owner), name)

    @functools.wraps(method)
    def deadly(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            _die()
        result = method(*arguments, **named)
        _die()
        return result

    setattr(getattr(module, owner), name, deadly)


def _die() -> None:
    if os.path.exists(os.environ["IMAGEDBD_TEST_KILL_FROM"]):
        os.kill(os.getpid(), signal.SIGKILL)
