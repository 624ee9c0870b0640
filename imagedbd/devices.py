"""Which devices this machine can have for a model, told by its device files.

Only torch knows for sure, and takes seconds to be asked. What can be told at once is told before the daemon
starts: a device that cannot be there at all is a mistake in the settings.
"""

from __future__ import annotations

import os
import re
from typing import Final

from imagedbd.errors import ConfigError

_NVIDIA: Final = re.compile(r"nvidia\d+")
_RENDERER: Final = re.compile(r"renderD\d+")
_DIRECTX: Final = "dxg"
"""The GPUs of the host of a Windows Subsystem for Linux."""
_ROCM: Final = "kfd"


def has_gpu(dev: str = "/dev") -> bool:
    """Whether there is any device file of a GPU."""
    return bool(_kinds(dev))


def check_device(device: str, dtype: str, dev: str = "/dev") -> None:
    """See that a device and its dtype can be there.

    :param device: as in the settings; ``auto`` always can.
    :param dev: the folder of the device files.
    :raises ConfigError: if not; the message lists what can.
    """
    kinds = _kinds(dev)
    kind, _, number = device.partition(":")
    numbered = _count(dev, _NVIDIA)
    if kind not in {"auto", "cpu", *kinds} or (kind == "cuda" and numbered and int(number or 0) >= numbered):
        raise ConfigError(f"There is no device {device!r} here. There are: {', '.join(_names(dev))}.")
    if dtype == "fp16" and (kind == "cpu" or not kinds):
        raise ConfigError("dtype 'fp16' is not for a CPU. There are: fp32, bf16.")


def _kinds(dev: str) -> set[str]:
    """What torch calls the kinds of the GPUs that there seem to be."""
    kinds = set()
    any_vendor = _is_there(dev, _DIRECTX)
    if any_vendor or _is_there(dev, _ROCM) or _count(dev, _NVIDIA):
        kinds.add("cuda")
    if any_vendor or _count(os.path.join(dev, "dri"), _RENDERER):
        kinds.add("xpu")
    return kinds


def _names(dev: str) -> list[str]:
    numbered = [f"cuda:{number}" for number in range(_count(dev, _NVIDIA))]
    others = sorted(kind for kind in _kinds(dev) if kind != "cuda" or not numbered)
    return ["cpu", *numbered, *others]


def _is_there(dev: str, name: str) -> bool:
    return os.path.exists(os.path.join(dev, name))


def _count(folder: str, name: re.Pattern[str]) -> int:
    try:
        return sum(bool(name.fullmatch(found)) for found in os.listdir(folder))
    except OSError:
        return 0
