"""The decoder: what a model sees, what hostile files do, and what is left of a worker that dies."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from blake3 import blake3
from PIL import Image, ImageDraw, ImageOps

from imagedbd.datatypes import Limits, Preprocess, Signature
from imagedbd.decoder import Decoder, decode_bytes, decode_file
from imagedbd.errors import (
    DecoderLostError,
    ImagedbError,
    PictureChangedError,
    PictureError,
    PictureMissingError,
    PictureUnreadError,
)
from imagedbd.formats import PICTURE_SUFFIXES, is_picture_name
from imagedbd.pixels import shown_size, to_pixels
from imagedbd.processes import environment, python

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(max_bytes=20_000_000, max_pixels=5_000_000, memory_bytes=1 << 30, timeout_s=20)
SMALL = Preprocess(width=32, height=32)
UNKNOWN: frozenset[str] = frozenset()

FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture without any symmetry."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 200, height)[:, None].repeat(width, axis=1)
    image = Image.fromarray(np.stack([across, down, 255 - across / 2 - down / 3], axis=2).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((width * 0.1, height * 0.1, width * 0.4, height * 0.5), fill=(250, 240, 10))
    return image


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002 - Pillow calls it so
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels_of(data: bytes, preprocess: Preprocess = SMALL) -> np.ndarray[Any, np.dtype[np.uint8]]:
    pixels = decode_bytes(data, preprocess, LIMITS)[2]
    assert pixels is not None
    return pixels


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def reason(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode_bytes(data, SMALL, LIMITS)
    assert type(caught.value) is PictureError
    return caught.value.message


# Equality with OpenCLIP.


def openclip_pixels(image: Image.Image, preprocess: Preprocess) -> np.ndarray[Any, Any]:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(
        size=(preprocess.height, preprocess.width),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
        fill_color=preprocess.fill_color,
    )
    tensor = image_transform_v2(config, is_train=False)(image)
    pixels: np.ndarray[Any, Any] = (tensor * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    return pixels


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(48, 48), (56, 40), (37, 50)])
def test_pixels_equal_openclips(resize_mode: str, interpolation: str, target: tuple[int, int]) -> None:
    noise = np.random.default_rng(1)
    for size in [(160, 120), (120, 161), (48, 48), (49, 48), (30, 200), (333, 7), (5, 3), (47, 1000)]:
        for mode, depth in (("RGB", 3), ("L", 1)):
            values = noise.integers(0, 256, (size[1], size[0], depth), dtype=np.uint8)
            image = Image.fromarray(values.squeeze() if depth == 1 else values)
            assert image.mode == mode
            preprocess = Preprocess(*target, resize_mode, interpolation, fill_color=90)
            ours = pixels_of(saved(image), preprocess)
            np.testing.assert_array_equal(ours, openclip_pixels(image, preprocess), f"{mode} {size}")


def test_opaque_alpha_equals_openclips() -> None:
    image = scene().convert("RGBA")
    np.testing.assert_array_equal(pixels_of(saved(image)), openclip_pixels(image, SMALL))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_a_jpeg_decoded_at_a_reduced_scale_looks_the_same(resize_mode: str) -> None:
    # Real photographs have detail that scaling must treat alike: noise on top of the scene
    values = np.asarray(scene(1500, 1101)).astype(int)
    values += np.random.default_rng(2).normal(0, 12, values.shape).astype(int)
    data = saved(Image.fromarray(values.clip(0, 255).astype(np.uint8)), "JPEG", quality=92)
    preprocess = Preprocess(64, 64, resize_mode)
    full = openclip_pixels(Image.open(io.BytesIO(data)), preprocess)
    assert 0 < difference(pixels_of(data, preprocess), full) < 1
    assert difference(pixels_of(data, preprocess), full[:, ::-1]) > 20


def test_the_reduced_scale_keeps_twice_the_target() -> None:
    image = Image.open(io.BytesIO(saved(scene(1000, 600), "JPEG")))
    to_pixels(image, Preprocess(64, 64))
    assert image.size == (250, 150)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (40_000, 3)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_extreme_sides_cost_no_extreme_memory(size: tuple[int, int], resize_mode: str) -> None:
    pixels = to_pixels(Image.new("RGB", size, (9, 8, 7)), Preprocess(32, 32, resize_mode))
    assert pixels.shape == (32, 32, 3)
    assert tuple(pixels.max(axis=(0, 1))) == (9, 8, 7)


def test_the_centre_of_a_long_picture_is_taken() -> None:
    strip = Image.new("L", (8000, 64))
    strip.paste(255, (4000, 0, 8000, 64))
    pixels = to_pixels(strip, Preprocess(32, 32))
    assert pixels[:, :14].max() == 0
    assert pixels[:, 18:].min() == 255


def test_an_unknown_resize_mode_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="resize mode"):
        to_pixels(scene(), Preprocess(32, 32, "sideways"))


# Orientation, modes and formats.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_shown_upright(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if format_ == "WEBP" else {"quality": 95}
    data = saved(scene(96, 64), format_, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    _, metadata, pixels = decode_bytes(data, SMALL, LIMITS)
    assert (metadata.width, metadata.height) == upright.size
    assert metadata.width == (64 if orientation >= 5 else 96)
    assert pixels is not None
    # Every other orientation differs by far more than what lossy codecs and reduced scales change
    assert difference(pixels, openclip_pixels(upright.convert("RGB"), SMALL)) < 1
    if orientation > 1:
        assert difference(pixels, openclip_pixels(scene(96, 64), SMALL)) > 10


def test_shown_size_swaps_sides() -> None:
    image = Image.new("L", (3, 2))
    assert [shown_size(image, orientation)[0] for orientation in (None, *range(1, 9))] == [3] * 5 + [2] * 4


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_read(format_: str) -> None:
    image = scene().convert("P") if format_ == "GIF" else scene()
    content_hash, metadata, pixels = decode_bytes(data := saved(image, format_), SMALL, LIMITS)
    assert content_hash == blake3(data).hexdigest()
    assert (metadata.format, metadata.width, metadata.height) == (format_, 96, 64)
    assert pixels is not None
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, openclip_pixels(scene(), SMALL)) < 12
    assert FORMATS[format_] in PICTURE_SUFFIXES


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    image = scene().convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    pixels = to_pixels(image, SMALL)
    assert pixels.shape == (32, 32, 3)
    assert pixels.std() > 20


@pytest.mark.parametrize(
    ("mode", "dtype", "top"),
    [
        ("I;16", np.uint16, 65535),
        ("I;16B", ">u2", 65535),
        ("I", np.int32, 255),
        ("I", np.int32, 65535),
        ("I", np.int32, 10**9),
        ("F", np.float32, 1.0),
        ("F", np.float32, 255),
    ],
)
def test_deep_tones_are_scaled_not_clipped(mode: str, dtype: Any, top: float) -> None:
    ramp = np.linspace(0, top, 64)[None, :].repeat(64, axis=0).astype(dtype)
    image = Image.frombytes("I;16B", (64, 64), ramp.tobytes()) if mode == "I;16B" else Image.fromarray(ramp)
    assert image.mode == mode
    row = to_pixels(image, Preprocess(64, 64))[32, :, 0].astype(int)
    np.testing.assert_allclose(row, np.linspace(0, 255, 64), atol=1)


def test_not_a_number_is_black() -> None:
    values = np.full((64, 64), 0.5, dtype=np.float32)
    values[:8] = np.nan
    pixels = to_pixels(Image.fromarray(values), Preprocess(64, 64))
    assert pixels[0, 0, 0] == 0
    assert pixels[63, 63, 0] == 128


def test_what_is_transparent_is_white() -> None:
    black = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    black.paste((200, 0, 0, 255), (20, 0, 40, 40))
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.paste(1, (20, 0, 40, 40))
    for data in (
        saved(black),
        saved(black, "WEBP", lossless=True),
        saved(palette, transparency=0),
        saved(palette, "GIF", transparency=0),
    ):
        pixels = pixels_of(data)
        assert tuple(pixels[16, 2]) == (255, 255, 255)
        assert tuple(pixels[16, 29]) == (200, 0, 0)


def test_greyscale_with_a_transparent_tone() -> None:
    grey = Image.new("L", (40, 40), 7)
    assert pixels_of(saved(grey, transparency=7)).min() == 255
    assert pixels_of(saved(grey)).max() == 7


@pytest.mark.parametrize(("format_", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_is_its_first_frame(format_: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    data = saved(frames[0], format_, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert tuple(pixels_of(data)[5, 5]) == (250, 0, 0)


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    data = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert decode_bytes(data, None, LIMITS)[1].format == "JPEG"
    assert difference(pixels_of(data), openclip_pixels(scene(), SMALL)) < 5


def test_cmyk_jpegs_are_not_inverted() -> None:
    pixels = pixels_of(saved(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"))
    assert pixels[16, 16, 0] > 230
    assert pixels[16, 16, 1] < 25


def test_names_of_candidates() -> None:
    assert is_picture_name("/a/b.JPeG")
    assert is_picture_name("caf\udce9.png")
    assert not is_picture_name("jpg")
    assert not is_picture_name(".jpg")
    assert not is_picture_name("notes.txt")


# Files that are no pictures, or hostile ones.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_with_its_size() -> None:
    message = reason(png_of_size(20_000, 30_000))
    assert "20000 × 30000" in message
    assert "600 million" in message
    assert "5 million are decoded (setting max_pixels)" in message


def test_the_bound_on_pixels_is_ours_alone() -> None:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 10
    try:
        assert pixels_of(saved(scene())).shape == (32, 32, 3)
        assert Image.MAX_IMAGE_PIXELS == 10
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (bytes(5000), "zeros"),
        (b"just some words\n", "text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"PK\x03\x04abc\x00\x01", "ZIP"),
        (bytes(range(1, 256)), "unknown binary"),
        (b"\xff\xd8\xff", "damaged beginning"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_an_icon_is_not_read() -> None:
    assert "icon" in reason(saved(scene(), "ICO"))


@pytest.mark.parametrize("format_", FORMATS)
def test_truncated_anywhere_is_a_picture_error_or_a_picture(format_: str) -> None:
    data = saved(scene().convert("P") if format_ == "GIF" else scene(), format_)
    for kept in sorted({1, 2, 4, 8, 11, 12, 20, *range(25, len(data), max(1, len(data) // 25))}):
        with contextlib.suppress(PictureError):
            assert pixels_of(data[:kept]).shape == (32, 32, 3)


def test_a_truncated_jpeg_or_png_is_said_to_be_truncated() -> None:
    assert "truncated" in reason(saved(scene(400, 300), "JPEG", quality=95)[:9000])
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    assert "truncated" in reason(saved(Image.fromarray(noise))[:9000])


@pytest.mark.parametrize("format_", FORMATS)
def test_flipped_bytes_are_a_picture_error_or_a_picture(format_: str) -> None:
    original = saved(scene().convert("P") if format_ == "GIF" else scene(), format_)
    chance = random.Random(3)
    for _ in range(60):
        data = bytearray(original)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), 600))] = chance.randrange(256)
        with contextlib.suppress(PictureError):
            decode_bytes(bytes(data), SMALL, LIMITS)


def test_random_bytes_behind_every_magic() -> None:
    chance = random.Random(4)
    magics = [
        saved(scene(), name)[:16] for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF")
    ]
    for magic in (b"", b"GIF89a", b"P6\n9 9\n255\n", *magics):
        for _ in range(20):
            with contextlib.suppress(PictureError):
                decode_bytes(magic + chance.randbytes(chance.randint(0, 3000)), SMALL, LIMITS)


# Files.


def test_a_file_is_read_once_into_a_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data := saved(scene(), "JPEG"))
    decoded = decode_file(str(path), UNKNOWN, SMALL, LIMITS)
    assert decoded.signature == Signature.of(path.lstat())
    assert decoded.content_hash == blake3(data).hexdigest()
    assert decoded.metadata.format == "JPEG"
    assert decoded.pixels is not None


def test_known_content_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data := saved(scene()))
    decoded = decode_file(str(path), frozenset({blake3(data).hexdigest()}), SMALL, LIMITS)
    assert decoded.pixels is None
    assert decoded.metadata.width == 96
    assert decode_file(str(path), UNKNOWN, None, LIMITS).pixels is None


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9\n' OR 1=1.png"))
    Path(path).write_bytes(saved(scene()))
    assert decode_file(path, UNKNOWN, SMALL, LIMITS).pixels is not None


def test_what_is_no_regular_file_is_missing(tmp_path: Path) -> None:
    target = tmp_path / "real.png"
    target.write_bytes(saved(scene()))
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(target)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("socket.jpg")
        for name in ("fifo", "folder", "link", "dangling", "socket", "nothing"):
            with pytest.raises(PictureMissingError):
                decode_file(str(tmp_path / f"{name}.jpg"), UNKNOWN, SMALL, LIMITS)
    with pytest.raises(PictureMissingError):
        decode_file("/dev/null", UNKNOWN, SMALL, LIMITS)
    with pytest.raises(PictureMissingError):
        decode_file(str(target / "below-a-file.jpg"), UNKNOWN, SMALL, LIMITS)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    path.touch()
    os.truncate(path, 5_000_000_000)
    with pytest.raises(PictureError, match=r"5,000 MB; at most 20 MB"):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - see above
        yield Path(folder)


def test_an_unreadable_file(open_folder: Path) -> None:
    path = open_folder / "secret.jpg"
    path.write_bytes(saved(scene(), "JPEG"))
    path.chmod(0)
    with as_somebody_else(), pytest.raises(PictureError, match="permission"):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


def test_a_file_whose_folder_was_closed_is_not_to_blame(open_folder: Path) -> None:
    path = open_folder / "a.jpg"
    path.write_bytes(saved(scene(), "JPEG"))
    open_folder.chmod(0)
    with as_somebody_else(), pytest.raises(PictureMissingError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)
    open_folder.chmod(0o700)


def test_a_file_that_can_be_read_again_by_now_is_looked_at_again(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(scene(), "JPEG"))

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PictureMissingError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


class _BadFile(io.FileIO):
    error = errno.EIO

    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "ENODEV", "ENXIO", "EHOSTDOWN"])
def test_a_disk_that_fails_says_nothing_of_its_files(tmp_path: Path, monkeypatch: Any, name: str) -> None:
    from imagedbd import decoder_worker

    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))
    monkeypatch.setattr(_BadFile, "error", getattr(errno, name))
    monkeypatch.setattr(decoder_worker, "open", lambda file, _: _BadFile(file), raising=False)
    with pytest.raises(PictureUnreadError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOMEM", "EIO", "ENOKEY", "EAGAIN"])
def test_a_machine_that_cannot_open_a_file_says_nothing_of_it(
    tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))

    def refuse(*_: object) -> int:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PictureUnreadError, match=os.strerror(getattr(errno, name))):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


def test_a_sidecar_that_a_disk_does_not_give_is_not_taken_for_one_that_is_silent(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from imagedbd import sidecars

    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))
    path.with_suffix(".xmp").write_bytes(b"words")
    monkeypatch.setattr(sidecars, "open", lambda file, _: _BadFile(file), raising=False)
    with pytest.raises(PictureUnreadError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything, so be nobody for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def test_a_file_that_changes_meanwhile_is_looked_at_again(tmp_path: Path, monkeypatch: Any) -> None:
    from imagedbd import decoder_worker

    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))
    decode = decoder_worker._decode

    def touched(*args: Any) -> Any:
        os.utime(path, ns=(1, 1))
        return decode(*args)

    monkeypatch.setattr(decoder_worker, "_decode", touched)
    with pytest.raises(PictureChangedError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


def test_a_damaged_file_that_changes_is_not_called_damaged(tmp_path: Path, monkeypatch: Any) -> None:
    from imagedbd import decoder_worker

    path = tmp_path / "a.png"
    path.write_bytes(saved(scene())[:200])
    decode = decoder_worker._decode

    def replaced(*args: Any) -> Any:
        path.write_bytes(saved(scene()))
        return decode(*args)

    monkeypatch.setattr(decoder_worker, "_decode", replaced)
    with pytest.raises(PictureChangedError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)
    monkeypatch.setattr(decoder_worker, "_decode", lambda *_: path.unlink())
    with pytest.raises(PictureMissingError):
        decode_file(str(path), UNKNOWN, SMALL, LIMITS)


@pytest.mark.parametrize(
    "error", [PictureError, PictureChangedError, PictureMissingError, PictureUnreadError, ImagedbError]
)
def test_errors_survive_the_way_between_processes(error: type[ImagedbError]) -> None:
    back = pickle.loads(pickle.dumps(error("because")))
    assert type(back) is error
    assert back.message == "because"


# The pool of workers.


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(2, LIMITS) as decoder:
        yield decoder


@pytest.fixture
def hasty() -> Iterator[Decoder]:
    with Decoder(1, Limits(timeout_s=0.3, memory_bytes=1 << 28), idle_s=0.3) as decoder:
        yield decoder


def threads_of(decoder: Decoder) -> int:
    return len(decoder._indexing._threads) + len(decoder._queries._threads)


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_and_bytes_come_back_decoded(decoder: Decoder, tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        path.write_bytes(saved(scene(80 + number, 60)))
        paths.append(str(path))
    futures = [decoder.submit(path, UNKNOWN, SMALL) for path in paths]
    _, metadata, pixels = decoder.submit_bytes(saved(scene(50, 40)), SMALL).result(20)
    assert metadata.width == 50
    np.testing.assert_array_equal(pixels, to_pixels(scene(50, 40), SMALL))
    for number, future in enumerate(futures):
        decoded = future.result(20)
        assert decoded.metadata.width == 80 + number
        assert decoded.pixels is not None
        assert decoded.pixels.flags.writeable


def test_errors_of_a_worker_are_raised_here(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(PictureMissingError):
        decoder.submit(str(tmp_path / "nothing.png"), UNKNOWN, SMALL).result(20)
    with pytest.raises(PictureError, match="looks like text"):
        decoder.submit_bytes(b"words", SMALL).result(20)


def test_a_crash_costs_that_picture_only(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))
    before = [decoder.submit(str(path), UNKNOWN, SMALL) for _ in range(4)]
    crash = decoder._indexing.submit(signal.raise_signal, signal.SIGSEGV)
    after = [decoder.submit(str(path), UNKNOWN, SMALL) for _ in range(4)]
    with pytest.raises(DecoderLostError, match=r"crashed on it \(signal 11, SIGSEGV\)"):
        crash.result(20)
    assert all(future.result(20).pixels is not None for future in before + after)


def test_a_worker_that_leaves_is_reported(decoder: Decoder) -> None:
    with pytest.raises(DecoderLostError, match="exit status 3"):
        decoder._indexing.submit(os._exit, 3).result(20)


def test_an_unforeseen_error_is_a_picture_error_too(decoder: Decoder) -> None:
    with pytest.raises(PictureError, match="ZeroDivisionError"):
        decoder._indexing.submit(divmod, 1, 0).result(20)


def test_time_and_memory_are_bounded(hasty: Decoder) -> None:
    with pytest.raises(PictureError, match="MemoryError"):
        hasty._indexing.submit(bytearray, 1 << 29).result(20)
    started = time.monotonic()
    with pytest.raises(DecoderLostError, match=r"longer than 0.3 s"):
        hasty._indexing.submit(time.sleep, 100).result(20)
    assert time.monotonic() - started < 5


def test_time_that_a_disk_takes_is_no_fault_of_the_file(hasty: Decoder) -> None:
    sleep = "__import__('time').sleep"
    with_it = "__import__('imagedbd.worker_pool').worker_pool.waiting_for_a_disk()"
    with pytest.raises(PictureUnreadError, match=r"Reading it took longer than 0.3 s"):
        hasty._indexing.submit(exec, f"with {with_it}: {sleep}(100)").result(20)
    with pytest.raises(DecoderLostError, match=r"Decoding it took longer than 0.3 s"):
        hasty._indexing.submit(exec, f"with {with_it}: pass\n{sleep}(100)").result(20)
    both = hasty._indexing.submit(exec, f"with {with_it}: {sleep}(0.2)\n{sleep}(0.2)")
    assert both.result(20) is None


def test_a_file_whose_disk_hangs_is_not_blamed(hasty: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(scene()))
    worker = "__import__('imagedbd.decoder_worker').decoder_worker"
    hang = f"{worker}._read_file = lambda *_: __import__('time').sleep(100)"
    hasty._indexing.submit(exec, hang).result(20)
    with pytest.raises(PictureUnreadError):
        hasty.submit(str(path), UNKNOWN, SMALL).result(20)


def test_workers_are_polite_and_small(decoder: Decoder) -> None:
    assert decoder._indexing.submit(os.nice, 0).result(20) == min(os.nice(0) + 10, 19)
    assert decoder._queries.submit(os.nice, 0).result(20) == os.nice(0)
    io_class = "int(__import__('psutil').Process().ionice().ioclass)"
    assert decoder._indexing.submit(eval, io_class).result(20) == psutil.IOPRIO_CLASS_IDLE
    assert decoder._queries.submit(eval, io_class).result(20) == psutil.Process().ionice().ioclass
    modules = decoder._indexing.submit(eval, "set(__import__('sys').modules)").result(20)
    assert "PIL.Image" in modules
    assert modules.isdisjoint({"torch", "torchvision", "open_clip", "lancedb", "pytest"})


def test_idle_workers_leave_and_come_back(hasty: Decoder) -> None:
    first = hasty._queries.submit(os.getpid).result(20)
    assert threads_of(hasty) == 1
    wait_until(lambda: threads_of(hasty) == 0 and not os.path.exists(f"/proc/{first}/fd/0"))
    assert hasty._queries.submit(os.getpid).result(20) != first
    wait_until(lambda: threads_of(hasty) == 0)


def test_idle_stops_lose_nothing_under_load() -> None:
    with Decoder(2, LIMITS, idle_s=0.001) as decoder:
        results: list[int] = []

        def work() -> None:
            for number in range(15):
                results.append(decoder._indexing.submit(abs, -number).result(20))
                time.sleep(0.004 * (number % 4))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == sorted(list(range(15)) * 3)


def test_a_thread_that_cannot_be_started_costs_its_task_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Decoder(1, LIMITS) as one:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ImagedbError, match="can't start new thread") as refused:
                one._queries.submit(abs, -3).result(20)
        assert not isinstance(refused.value, PictureError)
        assert one._queries.submit(abs, -3).result(20) == 3


def test_tasks_are_done_by_the_threads_there_are_where_no_more_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, []

    def refuse_the_second(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with Decoder(2, LIMITS) as two, monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_the_second)
        futures = [two._indexing.submit(abs, -number) for number in range(5)]
        assert [future.result(20) for future in futures] == [0, 1, 2, 3, 4]


class _StopsItsReader:
    """Unpickled by a worker before it has taken up its task: it then stands still."""

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGSTOP,)


def test_a_worker_that_stands_still_costs_its_task_only(
    hasty: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.worker_pool.TRANSFER_S", 0.3)
    with pytest.raises(DecoderLostError, match="longer than"):
        hasty._indexing.submit(signal.raise_signal, signal.SIGSTOP).result(30)
    with pytest.raises(ImagedbError, match="stands still"):
        hasty._indexing.submit(str, _StopsItsReader()).result(30)
    assert hasty._indexing.submit(abs, -3).result(30) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_befalls_an_idle_worker_is_not_the_next_tasks_fault(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("imagedbd.worker_pool.TRANSFER_S", 0.3)
    for _ in range(5):
        pid = decoder._queries.submit(os.getpid).result(20)
        os.kill(pid, number)
        assert decoder._queries.submit(abs, -3).result(20) == 3


def test_an_answer_that_breaks_off_half_way_costs_its_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, or stopped, while more is on its way than a socket holds."""
    find = "next(c for c in gc.get_objects() if type(c).__name__ == 'Connection').fileno()"
    half = "os.write(descriptor, (1 << 20).to_bytes(4, 'big') + bytes(5000))"
    monkeypatch.setattr("imagedbd.worker_pool.TRANSFER_S", 1)
    for number in ("KILL", "STOP"):
        raised = f"signal.raise_signal(signal.SIG{number})"
        task = f"import gc, os, signal; descriptor = {find}; {half}; {raised}"
        with Decoder(1, LIMITS) as one:
            with pytest.raises(DecoderLostError, match=r"killed|middle of its answer"):
                one._indexing.submit(exec, task).result(30)
            assert one._indexing.submit(abs, -3).result(30) == 3


def test_workers_that_are_killed_at_random_cost_what_they_had_in_hand(
    decoder: Decoder, tmp_path: Path
) -> None:
    """A kill may hit a worker that is idle, that takes a task, or that sends an answer."""
    path = tmp_path / "a.png"
    path.write_bytes(saved(scene(300, 200)))
    chance, over = random.Random(5), threading.Event()
    kills: list[int] = []

    def kill() -> None:
        while not over.wait(chance.uniform(0, 0.3)):
            for worker in list(decoder._indexing._workers):
                worker.kill()
                kills.append(1)

    killer = threading.Thread(target=kill)
    killer.start()
    done = lost = 0
    deadline = time.monotonic() + 60
    while done < 100 and time.monotonic() < deadline:
        for future in [decoder.submit(str(path), UNKNOWN, Preprocess(224, 224)) for _ in range(4)]:
            try:
                assert future.result(30).pixels is not None
            except DecoderLostError:
                lost += 1
            else:
                done += 1
    over.set()
    killer.join()
    assert done >= 100
    assert lost <= len(kills)


def test_a_killed_server_of_workers_is_replaced(decoder: Decoder) -> None:
    assert decoder._indexing.submit(abs, -3).result(30) == 3
    hung = decoder._indexing.submit(time.sleep, 100)
    time.sleep(0.2)
    assert decoder._server._process is not None
    decoder._server._process.kill()
    with pytest.raises(DecoderLostError):
        hung.result(30)
    assert decoder._indexing.submit(abs, -3).result(30) == 3


def test_a_server_whose_maker_is_gone_leaves_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.send(b"end of 1")
        ours.close()
        command = python("imagedbd.fork_server", str(theirs.fileno()), "imagedbd.worker_pool")
        done = subprocess.run(
            command,
            pass_fds=[theirs.fileno()],
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_clock_that_is_set_ends_nothing(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    future = decoder._indexing.submit(time.sleep, 0.5)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    assert future.result(30) is None


def test_the_current_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with Decoder(1, LIMITS) as decoder:
        assert decoder.submit_bytes(saved(scene()), SMALL).result(30)[1].format == "PNG"


def test_when_memory_runs_out_a_worker_is_the_first_to_go(decoder: Decoder) -> None:
    pid = decoder._indexing.submit(os.getpid).result(20)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


def test_closing_fails_what_is_left() -> None:
    decoder = Decoder(1, LIMITS)
    futures = [decoder._indexing.submit(time.sleep, 100) for _ in range(3)]
    decoder.close()
    futures.append(decoder._indexing.submit(time.sleep, 100))
    for future in futures:
        with pytest.raises(ImagedbError, match="closed"):
            future.result(5)
    decoder.close()


PROGRAM = """
    import os, signal, sys, time
    print("main module imported", flush=True)
    from imagedbd.decoder import Decoder

    if __name__ == "__main__":
        decoder = Decoder(2)
        print(decoder._indexing.submit(os.getpid).result(), flush=True)
        hung = [decoder._indexing.submit(time.sleep, 1000) for _ in range(2)]
        time.sleep(0.3)
        print("PIL" in sys.modules, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_a_killed_daemon_leaves_no_worker(tmp_path: Path, as_module: bool) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "program"] if as_module else [sys.executable, "program.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    imported, pid, pillow_here = done.stdout.split("\n")[:3]
    assert imported == "main module imported"  # once: workers do not import it again
    assert pillow_here == "False"
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
