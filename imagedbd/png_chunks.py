"""PNG files with their metadata at the end.

The format (PNG 1.2, 4.3) lets text and Exif stand behind the pixels, where ExifTool, for one, puts XMP.
Pillow finds them there only by decoding everything before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METADATA = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf"})
_PIXELS = b"IDAT"
_FRAMING_BYTES = 12  # length, type and checksum


def metadata_first(data: bytes) -> bytes:
    """The same file with metadata that follow the pixels moved before them; any other file as it is."""
    if not data.startswith(_SIGNATURE):
        return data
    pixels: int | None = None
    late: list[slice] = []
    for kind, span in _chunks(data):
        if pixels is None and kind == _PIXELS:
            pixels = span.start
        elif pixels is not None and kind in _METADATA:
            late.append(span)
    if pixels is None or not late:
        return data
    return b"".join((data[:pixels], *(data[span] for span in late), data[pixels:]))


def _chunks(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Type and extent of each whole chunk."""
    start = len(_SIGNATURE)
    while (end := start + _FRAMING_BYTES + int.from_bytes(data[start : start + 4], "big")) <= len(data):
        yield data[start + 4 : start + 8], slice(start, end)
        start = end
