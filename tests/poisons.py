"""Files that break decoders: each kind that we know of, made on the spot and by name.

``BAD`` must fail with a reason; ``HARMLESS`` hold a picture that can be read whatever is around it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from pictures import encoded, exif, picture
from PIL import Image, PngImagePlugin

ODD_NAMES = (
    b"line\nbreak.jpg",
    b"quote'\".jpg",
    b"' OR 1=1 --.jpg",
    b"bytes\xff\xfe.jpg",
    b"-rf.jpg",
    b"\x1b[31mred\x07.jpg",
    b"%s%n%x.jpg",
    b"\xe2\x80\xaegpj.exe.jpg",
    b"a" * 251 + b".jpg",
)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def zeros(megabytes: int) -> bytes:
    """A deflate stream that swells a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def with_chunk(made: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    good = encoded(11, "PNG")
    return good[:33] + made + good[33:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_with(*segments: bytes) -> bytes:
    good = encoded(12)
    return good[:2] + b"".join(segments) + good[2:]


def tiff(*tags: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
    """One directory of tags (number, type, count, value), at offset 8."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + tail


def huge_tiff() -> bytes:
    sides = ((256, 4, 1, 200_000), (257, 4, 1, 200_000))
    rest = ((258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 1))
    return tiff(*sides, *rest, (279, 4, 1, 100))


def endless_tiff() -> bytes:
    """A directory whose sub-directory is itself, in Exif: whoever follows it never comes back."""
    return tiff((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), following=8)


def exif_of(block: bytes) -> bytes:
    return jpeg_with(segment(0xE1, b"Exif\0\0" + block))


def preallocated_jpeg(share: int) -> bytes:
    """What a download looks like that reserved its space first.

    :param share: hundredths of the picture that are there; the rest is zeros.
    """
    whole = saved(picture(13, (1600, 1200)), "JPEG", quality=95)
    there = len(whole) * share // 100
    return whole[:there] + bytes(len(whole) - there)


def bomb_of_entities() -> bytes:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 12))
    packet = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "lol">{levels}]><x:xmpmeta>&e11;</x:xmpmeta>'
    return jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet.encode()))


def deep_xmp() -> bytes:
    packet = b"<a>" * 9000 + b"</a>" * 9000
    return jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))


def enormous_xmp() -> bytes:
    items = b"<rdf:li>word</rdf:li>" * 1_000_000
    text = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + items + b"</x:xmpmeta>"
    return with_chunk(chunk(b"iTXt", text))


def many_frames() -> bytes:
    frames = [Image.new("L", (16, 16), number % 255 + 1) for number in range(3000)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20)


def gif_of_no_size() -> bytes:
    return (
        b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 0, 0, 0) + b";"
    )


def jpeg_of_no_size() -> bytes:
    good = bytearray(encoded(14))
    start = good.index(b"\xff\xc0")
    good[start + 5 : start + 9] = bytes(4)
    return bytes(good)


def jpeg_of_other_size() -> bytes:
    """Its header promises 65,500 pixels a side, which a few kilobytes cannot hold."""
    good = bytearray(encoded(15))
    start = good.index(b"\xff\xc0")
    good[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(good)


def many_markers() -> bytes:
    return jpeg_with(*(segment(0xFE, bytes(60_000)) for _ in range(200)))


def swollen_icc() -> bytes:
    return with_chunk(chunk(b"iCCP", b"profile\0\0" + zeros(80)))


def broken_icc() -> bytes:
    return saved(picture(16), "JPEG", icc_profile=b"\xff\x00garbage" * 400)


def text_bomb(kind: bytes) -> bytes:
    head = b"Comment\0\0" if kind == b"zTXt" else b"Comment\0\1\0\0\0"
    return with_chunk(chunk(kind, head + zeros(80)))


def deep(dtype: Any, top: float) -> bytes:
    ramp = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(dtype)
    return saved(Image.fromarray(ramp), "TIFF")


def commented() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "word " * 200_000)
    return saved(picture(17), "PNG", pnginfo=info)


BAD: dict[str, Callable[[], bytes]] = {
    "empty.jpg": bytes,
    "text.jpg": lambda: b"this is no picture",
    "zeros.png": lambda: bytes(5000),
    "one-byte.jpg": lambda: b"\xff",
    "truncated.jpg": lambda: encoded(1)[:3000],
    "truncated.png": lambda: encoded(2, "PNG")[:500],
    "truncated.webp": lambda: encoded(3, "WEBP")[:500],
    "truncated.gif": lambda: encoded(4, "GIF")[:1500],
    "truncated.tif": lambda: encoded(5, "TIFF")[:20_000],
    "truncated.bmp": lambda: encoded(6, "BMP")[:20_000],
    "truncated.jp2": lambda: encoded(7, "JPEG2000")[:300],
    "truncated.avif": lambda: encoded(8, "AVIF")[:300],
    "bomb.png": lambda: png(60_000, 60_000, data=bytes(1000)),
    "bomb-that-unfolds.png": lambda: png(20_000, 20_000, depth=1, colour=0, data=bytes(2501 * 20_000)),
    "bomb.tif": huge_tiff,
    "bomb.ppm": lambda: b"P6\n100000 100000\n255\n" + bytes(100),
    "bomb.bmp": lambda: b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(100),
    "bomb.jpg": jpeg_of_other_size,
    "no-size.gif": gif_of_no_size,
    "no-size.jpg": jpeg_of_no_size,
    "no-size.png": lambda: png(0, 0),
    "no-size.bmp": lambda: b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 0, 0, 1, 24) + bytes(100),
    "endless.tif": endless_tiff,
    "postscript.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "document.jpg": lambda: b"%PDF-1.7\n1 0 obj\n",
    "vector.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "page.gif": lambda: b"<!DOCTYPE html><html>404 not found",
    "archive.png": lambda: b"PK\x03\x04" + bytes(100),
    "compressed.png": lambda: b"\x1f\x8b\x08" + bytes(100),
    "program.jpg": lambda: b"\x7fELF" + bytes(100),
    "video.jpg": lambda: b"\0\0\0\x18ftypmp42" + bytes(100),
    "compressed-text-bomb.png": lambda: text_bomb(b"zTXt"),
    "international-text-bomb.png": lambda: text_bomb(b"iTXt"),
    "swollen-profile.png": swollen_icc,
    "preallocated.jpg": lambda: preallocated_jpeg(1),
    "half-written.jpg": lambda: preallocated_jpeg(50),
}

HARMLESS: dict[str, Callable[[], bytes]] = {
    "wrong-suffix.png": lambda: encoded(20),
    "trailing-rubbish.jpg": lambda: encoded(21) + bytes(range(256)) * 4000,
    "broken-profile.jpg": broken_icc,
    "endless-exif.jpg": lambda: exif_of(endless_tiff()),
    "rubbish-exif.jpg": lambda: exif_of(b"\xff" * 60_000),
    "exif-of-many-tags.jpg": lambda: exif_of(tiff(*((number, 2, 0xFFFFFFFF, 8) for number in range(4000)))),
    "exif-out-of-bounds.jpg": lambda: exif_of(tiff((0x010F, 2, 0x7FFFFFFF, 0x7FFFFFFF))),
    "exif-past-the-end.jpg": lambda: exif_of(b"II*\0\xff\xff\xff\x7f"),
    "entities.jpg": bomb_of_entities,
    "deep.jpg": deep_xmp,
    "enormous-xmp.png": enormous_xmp,
    "commented.png": commented,
    "markers.jpg": many_markers,
    "frames.gif": many_frames,
    "cmyk.jpg": lambda: saved(picture(22).convert("CMYK"), "JPEG"),
    "cmyk.tif": lambda: saved(picture(23).convert("CMYK"), "TIFF"),
    "deep-16.tif": lambda: deep(np.uint16, 65535),
    "deep-32.tif": lambda: deep(np.int32, 1_000_000),
    "float.tif": lambda: deep(np.float32, 1.0),
    "one-bit.tif": lambda: saved(picture(24).convert("1"), "TIFF", compression="group4"),
    "one-pixel.png": lambda: saved(Image.new("RGB", (1, 1), (9, 9, 9)), "PNG"),
    "one-row.png": lambda: saved(Image.new("RGB", (20_000, 1), (9, 8, 7)), "PNG"),
    "rotated.jpg": lambda: saved(picture(26), "JPEG", exif=exif(make="X" * 30_000)),
}
