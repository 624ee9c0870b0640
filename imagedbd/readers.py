"""Formats that a package beside Pillow reads: which one, whether it is there, and how to get it.

What Pillow does not read comes as an extra, for not everybody wants it. The packages themselves are imported
by decoders alone, and there by the first file that needs one.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from imagedbd.errors import PictureError

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Reader:
    """One package and what it is for.

    :param formats: what it reads, as the beginning of a sentence in the plural.
    :param package: its name for pip.
    :param module: its name for ``import``.
    :param extra: of imagedbd's, which brings it in a version that was tried.
    """

    formats: str
    package: str
    module: str
    extra: str

    @property
    def command(self) -> str:
        """What installs it into the very environment that this process runs in."""
        return f"{shlex.quote(sys.executable)} -m pip install 'imagedbd[{self.extra}]'"

    @property
    def why_missing(self) -> str:
        """The reason that a file of its formats cannot be read; a sentence that stays the same."""
        return f"{self.formats} are read by {self.package}, which is not installed."

    def is_installed(self) -> bool:
        """Whether it is there to be imported, which is not tried."""
        return importlib.util.find_spec(self.module) is not None


HEIF: Final = Reader("HEIC and HEIF pictures", "pillow-heif", "pillow_heif", "heif")
JXL: Final = Reader("JPEG XL pictures", "pillow-jxl-plugin", "pillow_jxl", "jxl")
RAW: Final = Reader("Camera RAW pictures", "rawpy", "rawpy", "raw")
READERS: Final = (HEIF, JXL, RAW)


def waits_for(reason: str | None) -> Reader | None:
    """The package whose absence is the reason why a file could not be read, if that is the reason."""
    return next((reader for reader in READERS if (reason or "").startswith(reader.why_missing)), None)


def loaded(reader: Reader) -> ModuleType:
    """The package, imported. Only decoders may call this.

    :raises PictureError: it is not there, or cannot be imported; the message says what to do.
    """
    if not reader.is_installed():
        raise PictureError(reader.why_missing, f"Install it and restart the daemon: {reader.command}")
    try:
        return _imported(reader.module)
    except ImportError as error:
        raise PictureError(
            f"{reader.formats} are read by {reader.package}, which cannot be loaded ({error}).",
            f"Install it anew, then `imagedb failures --retry`: {reader.command} --force-reinstall --no-deps",
        ) from error


@cache
def _imported(name: str) -> ModuleType:
    module = importlib.import_module(name)
    # There is a decoder for every core already.
    if name == HEIF.module:
        module.options.DECODE_THREADS = 1
        module.register_heif_opener()
    elif name == JXL.module:
        module.JpegXLImagePlugin.DECODE_THREADS = 0
    return module
