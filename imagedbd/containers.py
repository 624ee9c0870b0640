"""What a file is by its first bytes and boxes, where the name of a format does not tell who reads it.

Sources: ISO/IEC 14496-12 (boxes, and brands of a file), ISO/IEC 23008-12 (HEIF), ISO/IEC 18181 (JPEG XL).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_JXL_CODESTREAM: Final = b"\xff\x0a"
_JXL_CONTAINER: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_MAX_BOXES: Final = 10_000

_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, where a JPEG XL header names one in place of a width."""
_SIZE_BITS: Final = (9, 13, 18, 30)


def is_heif(data: bytes) -> bool:
    """Whether this is HEIC or HEIF, and not AVIF, which shares its general brands and is Pillow's."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 512, len(data))
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return data[8:12] in _HEIF_BRANDS and not brands & _AVIF_BRANDS


def is_cr3(data: bytes) -> bool:
    """Whether this is Canon's raw format of the third kind."""
    return data[4:12] == b"ftypcrx "


def is_jxl(data: bytes) -> bool:
    return data.startswith((_JXL_CODESTREAM, _JXL_CONTAINER))


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG XL header promises, not turned; ``None`` if there is no header.

    Its reader decodes all of a file to tell its size, and a few bytes can promise gigabytes.
    """
    header = data[:32] if data.startswith(_JXL_CODESTREAM) else _first_codestream(data)
    if not header.startswith(_JXL_CODESTREAM) or len(header) < 12:
        return None
    bits = _Bits(header[2:])
    is_small = bits.take(1)
    height = _side(bits, is_small=bool(is_small))
    ratio = bits.take(3)
    if not ratio:
        return _side(bits, is_small=bool(is_small)), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def jxl_xmp(data: bytes) -> bytes | None:
    """The XMP packet in a JPEG XL container, which its reader passes over."""
    return next((data[span] for kind, span in _boxes(data) if kind == b"xml "), None)


class _Bits:
    """Numbers of some bits each, the lowest bit first, as JPEG XL packs them."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value


def _side(bits: _Bits, *, is_small: bool) -> int:
    if is_small:
        return 8 * (bits.take(5) + 1)
    return bits.take(_SIZE_BITS[bits.take(2)]) + 1


def _first_codestream(data: bytes) -> bytes:
    for kind, span in _boxes(data):
        if kind == b"jxlc":
            return data[span][:32]
        if kind == b"jxlp":  # a part, behind its number
            return data[span][4:36]
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Kind and extent of the content of each box, the outermost ones only."""
    start, size = 0, len(data)
    for _ in range(_MAX_BOXES):
        if start + 8 > size:
            return
        length, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        end = start + length if length else size
        if end < start + head or end > size:
            return
        yield kind, slice(start + head, end)
        start = end
