"""Colour profiles: what a file means is what the model sees."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from imagedbd import colours
from imagedbd.colours import conversion
from imagedbd.datatypes import Limits, Preprocess
from imagedbd.decoder_worker import decode_bytes

LIMITS = Limits(max_bytes=20_000_000, max_pixels=20_000_000, memory_bytes=1 << 30, timeout_s=20)
WANTED = Preprocess(24, 24)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORANGE = (200, 100, 50)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">LH", 1, round(gamma * 256)) + bytes(2)


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3l", *(round(value * 65536) for value in (x, y, z)))


def profile(space: bytes = b"RGB ", gamma: float = 2.2) -> bytes:
    """ICC.1:2001: Adobe RGB's primaries, or greys, with this tone curve."""
    tags = {
        b"desc": _description(),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": _xyz(0.9642, 1, 0.8249),
    }
    if space == b"RGB ":
        tags |= {
            b"rXYZ": _xyz(0.60974, 0.31111, 0.01947),
            b"gXYZ": _xyz(0.20528, 0.62567, 0.06087),
            b"bXYZ": _xyz(0.14919, 0.06322, 0.74457),
        }
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    else:
        tags = {b"kTRC": _curve(gamma)}
    return _laid_out(b"mntr", space, b"XYZ ", tags)


def _laid_out(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _description(), b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    tags[b"wtpt"] = _xyz(0.9642, 1, 0.8249)
    table, body = struct.pack(">L", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">LL", 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">L4sL4s4s4s", size, bytes(4), 0x02100000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3l", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _description() -> bytes:
    name = b"Made by hand\0"
    return b"desc" + bytes(4) + struct.pack(">L", len(name)) + name + bytes(78)


def seen(image: Image.Image, kind: str = "PNG", to: Preprocess = WANTED, **options: Any) -> list[int]:
    """The middle pixel as the model gets it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    pixels = decode_bytes(stream.getvalue(), to, LIMITS)[2]
    assert pixels is not None
    return [int(value) for value in pixels[12, 12]]


def assert_near(one: list[int], other: list[int] | tuple[int, ...], bound: int = 3) -> None:
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= bound, (one, other)


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    colours._known.clear()


def test_a_wider_space_is_made_srgb() -> None:
    """Adobe RGB (200, 100, 50) is sRGB (231, 98, 40), computed from its primaries and curve."""
    found = seen(Image.new("RGB", (64, 64), ORANGE), icc_profile=profile())
    assert_near(found, _by_hand(ORANGE))
    assert found[0] > 220


def _by_hand(colour: tuple[int, int, int]) -> tuple[int, ...]:
    """By the definitions: tone curve, primaries (adapted to D50), sRGB's inverse."""
    to_xyz = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = np.linalg.inv(srgb) @ to_xyz @ (np.array(colour) / 255) ** 2.2
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055)
    return tuple(int(value) for value in (curved.clip(0, 1) * 255).round())


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 100}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_every_kind_of_file_with_a_profile_is(kind: str, options: dict[str, Any]) -> None:
    found = seen(Image.new("RGB", (64, 64), ORANGE), kind, icc_profile=profile(), **options)
    assert_near(found, _by_hand(ORANGE))


def test_transparency_and_palettes_are() -> None:
    layer = Image.new("RGBA", (64, 64), (*ORANGE, 255))
    assert_near(seen(layer, icc_profile=profile()), _by_hand(ORANGE))
    assert_near(seen(Image.new("RGBA", (64, 64), (*ORANGE, 0)), icc_profile=profile()), (255, 255, 255))
    palette = Image.new("RGB", (64, 64), ORANGE).convert("P", palette=Image.Palette.ADAPTIVE)
    assert_near(seen(palette, icc_profile=profile()), _by_hand(ORANGE))


def test_greys_have_profiles_too() -> None:
    (red, green, blue) = seen(Image.new("L", (64, 64), 128), icc_profile=profile(b"GRAY", gamma=1.0))
    assert red == green == blue
    assert 183 <= red <= 190  # half of the light is 188 in sRGB


@pytest.mark.parametrize("shape", [(64, 64), (64, 1), (30_000, 1)])
def test_the_shape_does_not_matter(shape: tuple[int, int]) -> None:
    assert_near(seen(Image.new("RGB", shape, ORANGE), icc_profile=profile()), _by_hand(ORANGE))


def test_padding_is_no_colour_of_the_pictures() -> None:
    padded = Preprocess(24, 24, resize_mode="longest", fill_color=90)
    stream = io.BytesIO()
    Image.new("RGB", (64, 16), ORANGE).save(stream, "PNG", icc_profile=profile(gamma=1.0))
    pixels = decode_bytes(stream.getvalue(), padded, LIMITS)[2]
    assert pixels is not None
    assert pixels[0, 0].tolist() == [90, 90, 90]


@pytest.mark.parametrize("data", [SRGB, profile(gamma=2.2)[:60], b"\0" * 500, b"junk", b""])
def test_srgb_and_broken_profiles_change_nothing(data: bytes) -> None:
    assert conversion(data) is None
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    stored, bare = io.BytesIO(), io.BytesIO()
    image.save(stored, "PNG", icc_profile=data or None)
    image.save(bare, "PNG")
    one, other = (decode_bytes(file.getvalue(), WANTED, LIMITS)[2] for file in (stored, bare))
    assert one is not None
    assert (one == other).all()


def printer_profile() -> bytes:
    """ICC.1:2001, lut8Type: a press whose cyan is Lab (55, -37, -50), and all other inks black."""
    corners = bytearray()
    for number in range(16):
        cyan, others = number & 8, number & 7
        lab = (0, 0, 0) if others else (55, -37, -50) if cyan else (100, 0, 0)
        corners += bytes((round(lab[0] * 2.55), lab[1] + 128, lab[2] + 128))
    identity = struct.pack(">9l", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(corners) + ramp * 3
    return _laid_out(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def test_cmyk_is_what_the_press_makes_of_it() -> None:
    cyan = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    assert seen(cyan, "TIFF")[:2] == [0, 255]
    assert_near(seen(cyan, "TIFF", icc_profile=printer_profile()), (0, 144, 217), bound=8)
    assert_near(seen(Image.new("CMYK", (64, 64)), "TIFF", icc_profile=printer_profile()), (255, 255, 255))


def test_a_profile_for_other_numbers_is_left_out() -> None:
    plain = seen(Image.new("RGB", (64, 64), ORANGE))
    assert seen(Image.new("RGB", (64, 64), ORANGE), icc_profile=profile(b"GRAY", gamma=1.0)) == plain
    assert seen(Image.new("L", (64, 64), 99), icc_profile=profile()) == [99, 99, 99]
    cmyk = Image.new("CMYK", (64, 64), (0, 200, 200, 20))
    assert seen(cmyk, "TIFF", icc_profile=profile()) == seen(cmyk, "TIFF")


def test_no_profile_costs_nothing_and_one_is_looked_at_once() -> None:
    assert conversion(None) is None
    assert not colours._known
    first = conversion(profile())
    assert first is not None
    assert conversion(bytes(bytearray(profile()))) is first
    for number in range(100):
        conversion(b"broken %d" % number)
    assert len(colours._known) <= 32


def test_a_store_from_before_goes_on_without() -> None:
    former = replace(WANTED, to_srgb=False)
    assert seen(Image.new("RGB", (64, 64), ORANGE), to=former, icc_profile=profile()) == list(ORANGE)
