"""Camera RAW made by hand: a small DNG (TIFF 6.0, DNG 1.4) with a sensor's values and an embedded preview."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_SHORT, _LONG, _ASCII, _BYTE, _RATIONAL, _SRATIONAL = 3, 4, 2, 1, 5, 10
_FORMS = {_SHORT: "<%dH", _LONG: "<%dL", _BYTE: "<%dB", _RATIONAL: "<%dL", _SRATIONAL: "<%dl"}

Entry = tuple[int, int, Sequence[int] | bytes]
"""Tag, type and values; a fraction is two of them."""


def dng(
    image: Image.Image,
    *,
    preview: Image.Image | None = None,
    orientation: int = 1,
    taken: str = "2024:05:06 07:08:09",
    make: str = "Sigma",
) -> bytes:
    """A picture as a sensor with a Bayer pattern (RGGB, 16 bit) would have taken it.

    :param image: what the sensor saw, not turned; even width and height.
    :param preview: what the embedded JPEG shows, not turned; ``None`` leaves it out.
    :param orientation: how both are to be turned, as Exif counts.
    """
    sensor = _mosaic(image)
    shot = [(0x9003, _ASCII, taken.encode() + b"\0"), (0x8827, _SHORT, [400])]
    whole = [
        (0x010F, _ASCII, make.encode() + b"\0"),
        (0x0110, _ASCII, b"Hand-made\0"),
        (0x0112, _SHORT, [orientation]),
        (0xC612, _BYTE, [1, 4, 0, 0]),
        (0xC614, _ASCII, b"Hand-made\0"),
        # As if the sensor saw the world in linear sRGB: XYZ of D65 to its colours.
        (0xC621, _SRATIONAL, _fractions(32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)),
        (0xC628, _RATIONAL, [1, 1, 1, 1, 1, 1]),
        (0xC65A, _SHORT, [21]),
    ]
    negative = _strip_entries(sensor, image.size, bits=[16], compression=1, photometric=32803)
    negative += [(0x828D, _SHORT, [2, 2]), (0x828E, _BYTE, [0, 1, 1, 2]), (0xC61D, _SHORT, [65535])]
    if preview is None:
        return _laid_out([(0x00FE, _LONG, [0]), *whole, *negative], shot, sensor, None, b"")
    stream = io.BytesIO()
    preview.save(stream, "JPEG", quality=95)
    jpeg = stream.getvalue()
    small = _strip_entries(jpeg, preview.size, bits=[8, 8, 8], compression=7, photometric=6)
    first = [(0x00FE, _LONG, [1]), *whole, *small]
    return _laid_out(first, shot, jpeg, [(0x00FE, _LONG, [0]), *negative], sensor)


def _mosaic(image: Image.Image) -> bytes:
    """One colour a pixel, in linear light."""
    rgb = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    values = (linear * 65535).round().astype("<u2")
    bayer = values[:, :, 1].copy()
    bayer[0::2, 0::2] = values[0::2, 0::2, 0]
    bayer[1::2, 1::2] = values[1::2, 1::2, 2]
    return bayer.tobytes()


def _strip_entries(
    data: bytes, size: tuple[int, int], *, bits: list[int], compression: int, photometric: int
) -> list[Entry]:
    """A picture in one strip; where it lies is filled in later."""
    return [
        (0x0100, _LONG, [size[0]]),
        (0x0101, _LONG, [size[1]]),
        (0x0102, _SHORT, bits),
        (0x0103, _SHORT, [compression]),
        (0x0106, _SHORT, [photometric]),
        (0x0111, _LONG, [0]),
        (0x0115, _SHORT, [len(bits)]),
        (0x0116, _LONG, [size[1]]),
        (0x0117, _LONG, [len(data)]),
    ]


def _fractions(*tenthousandths: int) -> list[int]:
    return [part for value in tenthousandths for part in (value, 10_000)]


def _laid_out(
    first: list[Entry], shot: list[Entry], strip: bytes, below: list[Entry] | None, inner_strip: bytes
) -> bytes:
    """Header, first directory, Exif directory, the one below if there is one, and the strips."""
    pointers: list[Entry] = [(0x8769, _LONG, [0])]
    if below is not None:
        pointers.append((0x014A, _LONG, [0]))
    exif_at = 8 + len(_directory([*first, *pointers], 8))
    below_at = exif_at + len(_directory(shot, exif_at))
    strip_at = below_at + (len(_directory(below, below_at)) if below is not None else 0)
    inner_at = strip_at + len(strip) + len(strip) % 2
    first = _with(_with([*first, *pointers], 0x8769, exif_at), 0x0111, strip_at)
    parts = [struct.pack("<2sHL", b"II", 42, 8)]
    parts.append(_directory(_with(first, 0x014A, below_at), 8))
    parts.append(_directory(shot, exif_at))
    if below is not None:
        parts.append(_directory(_with(below, 0x0111, inner_at), below_at))
    parts += [strip, bytes(len(strip) % 2), inner_strip]
    return b"".join(parts)


def _with(entries: list[Entry], tag: int, value: int) -> list[Entry]:
    return [(t, kind, [value] if t == tag else values) for t, kind, values in entries]


def _directory(entries: list[Entry], at: int) -> bytes:
    """A directory with the values behind it that do not fit into its entries."""
    table, behind = struct.pack("<H", len(entries)), b""
    beyond = at + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
        data = bytes(values) if kind == _ASCII else struct.pack(_FORMS[kind] % len(values), *values)
        count = len(values) // 2 if kind in (_RATIONAL, _SRATIONAL) else len(values)
        if len(data) <= 4:
            table += struct.pack("<HHL", tag, kind, count) + data.ljust(4, b"\0")
        else:
            table += struct.pack("<HHLL", tag, kind, count, beyond + len(behind))
            behind += data + bytes(len(data) % 2)
    return table + bytes(4) + behind
