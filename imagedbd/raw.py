"""Camera RAW: the values of a sensor, with a picture of what the camera made of them.

What the camera made is what a person knows, and it is quickly read. Where there is none, or only a stamp, the
sensor's values are developed at half their size. LibRaw does both, through rawpy.
"""

from __future__ import annotations

import io
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from imagedbd.containers import is_cr3
from imagedbd.errors import PictureError
from imagedbd.readers import RAW, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagedbd.datatypes import Preprocess

_MAGIC: Final = (
    (0, b"FUJIFILMCCD-RAW", "RAF"),
    (0, b"IIRO", "ORF"),
    (0, b"IIRS", "ORF"),
    (0, b"MMOR", "ORF"),
    (0, b"IIU\0", "RW2"),
    (6, b"HEAPCCDR", "CRW"),
    (0, b"\0MRM", "MRW"),
    (0, b"FOVb", "X3F"),
    (0, b"IIII", "IIQ"),
    (8, b"CR\x02", "CR2"),
)
_MAKERS: Final = (
    ("NIKON", "NEF"),
    ("SONY", "ARW"),
    ("PENTAX", "PEF"),
    ("RICOH", "PEF"),
    ("SAMSUNG", "SRW"),
    ("EPSON", "ERF"),
    ("HASSELBLAD", "3FR"),
    ("KODAK", "DCR"),
    ("EASTMAN", "DCR"),
)
"""Whose RAW is a TIFF file to all appearance, by how the maker's name begins."""

# TIFF 6.0, TIFF/EP and DNG 1.4.
_PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES, _XMP, _DNG_VERSION = 0x0106, 0x010F, 0x014A, 0x02BC, 0xC612
_OF_A_SENSOR: Final = frozenset({32803, 34892})
"""PhotometricInterpretation: a colour filter array, or its values made linear."""
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4}
_MAX_ENTRIES: Final = 500
_MAX_DIRECTORIES: Final = 16

_ORIENTATIONS: Final = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's flips, as dcraw counts them, to the orientations of Exif."""


def raw_format(data: bytes) -> str | None:
    """What kind of camera RAW this is, by its content; ``None`` if it is none.

    Most are TIFF files with a stamp in the first directory, and only the others tell.
    """
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return name
    if is_cr3(data):
        return "CR3"
    directories = list(_directories(data))
    if not directories:
        return None
    if _DNG_VERSION in directories[0]:
        return "DNG"
    if not any(_OF_A_SENSOR & set(_numbers(data, found.get(_PHOTOMETRIC))) for found in directories):
        return None
    maker = _bytes(data, directories[0].get(_MAKE)).decode("latin-1").upper()
    return next((name for start, name in _MAKERS if maker.startswith(start)), "RAW")


def raw_xmp(data: bytes) -> bytes | None:
    """The XMP packet of a RAW that is a TIFF file, as converters write it into DNG."""
    first = next(_directories(data), {})
    return _bytes(data, first.get(_XMP)) or None


@dataclass(frozen=True, slots=True)
class Negative:
    """An opened RAW.

    :param size: width and height in pixels of what is developed from it, not turned.
    :param orientation: as Exif counts.
    :param preview: the largest embedded picture, not turned and not decoded; ``None`` if there is none.
    """

    size: tuple[int, int]
    orientation: int
    preview: Image.Image | None
    _raw: Any

    def image_for(self, preprocess: Preprocess) -> Image.Image:
        """The preview, if it is large enough for this; or else what is developed.

        :raises PictureError: the sensor's values are damaged.
        """
        if self.preview is not None and _suffices(self.preview.size, self.size, preprocess):
            return self.preview
        with _blaming_the_file():
            values = self._raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0)
        # A sensor without colours gives one channel.
        return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


@contextmanager
def opened_raw(data: bytes) -> Iterator[Negative]:
    """
    :raises PictureError: LibRaw does not know it, it is damaged, or rawpy is not installed.
    :raises MemoryError: more is needed than may be used.
    """
    rawpy = loaded(RAW)
    with _blaming_the_file():
        raw = rawpy.imread(io.BytesIO(data))
    with raw:
        sizes = raw.sizes
        orientation = _ORIENTATIONS.get(sizes.flip, 1)
        yield Negative((sizes.width, sizes.height), orientation, _preview(rawpy, raw), raw)


def _preview(rawpy: Any, raw: Any) -> Image.Image | None:
    try:
        found = raw.extract_thumb()
        if found.format == rawpy.ThumbFormat.JPEG:
            return Image.open(io.BytesIO(found.data), formats=("JPEG",))
        if found.format == rawpy.ThumbFormat.BITMAP:
            return Image.fromarray(found.data)
    except (rawpy.LibRawError, rawpy.NotSupportedError, OSError, ValueError, TypeError):
        # One that cannot be read is as good as none: the sensor's values are there.
        return None
    return None


def _suffices(preview: tuple[int, int], whole: tuple[int, int], preprocess: Preprocess) -> bool:
    """Whether nothing is gained by developing, which gives half the size."""
    return min(preview) >= max(preprocess.width, preprocess.height) or 2 * min(preview) >= min(whole)


@contextmanager
def _blaming_the_file() -> Iterator[None]:
    rawpy = loaded(RAW)
    try:
        yield
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawFileUnsupportedError as error:
        raise PictureError("It is camera RAW of a kind that LibRaw does not know, or damaged.") from error
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise PictureError(f"The camera RAW is damaged: {_said(error)}.") from error


def _said(error: Exception) -> str:
    reason = error.args[0] if error.args else type(error).__name__
    return reason.decode("latin-1") if isinstance(reason, bytes) else str(reason)


# Directories of TIFF files, no more of them than it takes to tell what a file is.

_Entry = tuple[int, int, int]
"""Type, number of values, and where those are."""


def _directories(data: bytes) -> Iterator[dict[int, _Entry]]:
    """The first directory and those that it says lie below it, each with its entries by tag."""
    if not data.startswith((b"II*\0", b"MM\0*")):
        return
    order = _order(data)
    first = _directory(data, struct.unpack_from(f"{order}L", data.ljust(8, b"\0"), 4)[0])
    yield first
    for offset in _numbers(data, first.get(_SUB_DIRECTORIES))[:_MAX_DIRECTORIES]:
        yield _directory(data, offset)


def _directory(data: bytes, offset: int) -> dict[int, _Entry]:
    order, found = _order(data), {}
    if offset + 2 > len(data):
        return {}
    (entries,) = struct.unpack_from(f"{order}H", data, offset)
    for number in range(min(entries, _MAX_ENTRIES)):
        at = offset + 2 + 12 * number
        if at + 12 > len(data):
            break
        tag, kind, count = struct.unpack_from(f"{order}HHL", data, at)
        is_inside = count * _TYPE_BYTES.get(kind, 8) <= 4
        place = at + 8 if is_inside else struct.unpack_from(f"{order}L", data, at + 8)[0]
        found[tag] = (kind, count, place)
    return found


def _order(data: bytes) -> str:
    return "<" if data.startswith(b"II") else ">"


def _bytes(data: bytes, entry: _Entry | None) -> bytes:
    if entry is None:
        return b""
    kind, count, place = entry
    return data[place : place + count * _TYPE_BYTES.get(kind, 0)]


def _numbers(data: bytes, entry: _Entry | None) -> tuple[int, ...]:
    """Values of the whole-number types; nothing for another type, or for what lies beyond the end."""
    form = {3: "H", 4: "L", 13: "L"}.get(entry[0]) if entry else None
    if entry is None or form is None:
        return ()
    held = _bytes(data, entry)[: _MAX_ENTRIES * _TYPE_BYTES[entry[0]]]
    count = len(held) // _TYPE_BYTES[entry[0]]
    return struct.unpack(f"{_order(data)}{count}{form}", held[: count * _TYPE_BYTES[entry[0]]])
