"""Every format is read with the right size, date and orientation, or reported with what is missing for it."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from negatives import dng
from pictures import exif, picture
from PIL import Image

from imagedbd.containers import is_heif, jxl_size
from imagedbd.datatypes import Limits, Metadata, Preprocess
from imagedbd.decoder_worker import decode_bytes
from imagedbd.errors import PictureError
from imagedbd.formats import PICTURE_SUFFIXES
from imagedbd.processes import environment
from imagedbd.raw import raw_format
from imagedbd.readers import HEIF, JXL, RAW, READERS, Reader, loaded, waits_for

LIMITS = Limits(max_bytes=20_000_000, max_pixels=5_000_000, memory_bytes=1 << 30, timeout_s=20)
WANTED = Preprocess(width=40, height=30, resize_mode="squash")
TAKEN = "2024:05:06 07:08:09"
STORED = picture(3, (320, 240))
"""What lies in the file; shown, it is turned."""

Maker = Callable[[Image.Image, int], bytes]


def tags(orientation: int) -> Image.Exif:
    made = exif(taken=TAKEN)
    made[0x0112] = orientation
    return made


def by_pillow(kind: str, **options: Any) -> Maker:
    def make(stored: Image.Image, orientation: int) -> bytes:
        stream = io.BytesIO()
        stored.save(stream, kind, exif=tags(orientation).tobytes(), **options)
        return stream.getvalue()

    return make


def heic(stored: Image.Image, orientation: int) -> bytes:
    loaded(HEIF)
    return by_pillow("HEIF", quality=95)(stored, orientation)


def jxl_from_jpeg(stored: Image.Image, orientation: int, folder: Path) -> bytes:
    """A JPEG packed without loss, as most JPEG XL files are made."""
    loaded(JXL)
    jpeg = folder / "packed.jpg"
    jpeg.write_bytes(by_pillow("JPEG", quality=95)(stored, orientation))
    stream = io.BytesIO()
    with Image.open(jpeg) as image:
        image.save(stream, "JXL", lossless_jpeg=True)
    return stream.getvalue()


def dng_with_preview(stored: Image.Image, orientation: int) -> bytes:
    return dng(stored, preview=stored.resize((240, 180)), orientation=orientation, taken=TAKEN)


def dng_without_preview(stored: Image.Image, orientation: int) -> bytes:
    return dng(stored, orientation=orientation, taken=TAKEN)


TURNED: dict[str, tuple[str, Maker]] = {
    "JPEG": ("JPEG", by_pillow("JPEG", quality=95)),
    "PNG": ("PNG", by_pillow("PNG")),
    "WebP": ("WEBP", by_pillow("WEBP", quality=95)),
    "TIFF": ("TIFF", by_pillow("TIFF")),
    "AVIF": ("AVIF", by_pillow("AVIF", quality=95)),
    "HEIC": ("HEIF", heic),
    "RAW by its preview": ("DNG", dng_with_preview),
    "RAW developed": ("DNG", dng_without_preview),
}


def assert_upright(metadata: Metadata, pixels: np.ndarray[Any, Any] | None, kind: str, bound: float) -> None:
    upright = STORED.transpose(Image.Transpose.ROTATE_270)
    assert metadata.format == kind
    assert (metadata.width, metadata.height) == upright.size == (240, 320)
    assert metadata.taken_at == "2024-05-06T07:08:09"
    assert metadata.orientation == 6
    assert pixels is not None
    assert likeness(pixels, upright) > bound
    for turn in Image.Transpose:
        assert likeness(pixels, upright.transpose(turn)) < likeness(pixels, upright) - 0.1


def likeness(pixels: np.ndarray[Any, Any], image: Image.Image) -> float:
    """The correlation of their values: a camera's tones are its own."""
    expected = np.asarray(image.resize((WANTED.width, WANTED.height), Image.Resampling.BICUBIC), dtype=float)
    return float(np.corrcoef(pixels.astype(float).ravel(), expected.ravel())[0, 1])


@pytest.mark.parametrize("name", TURNED)
def test_size_date_and_orientation_are_right(name: str) -> None:
    kind, make = TURNED[name]
    _, metadata, pixels = decode_bytes(make(STORED, 6), WANTED, LIMITS)
    assert_upright(metadata, pixels, kind, 0.9 if name == "RAW developed" else 0.98)


def test_a_jpeg_packed_into_jpeg_xl_is_turned_as_the_jpeg_was(tmp_path: Path) -> None:
    _, metadata, pixels = decode_bytes(jxl_from_jpeg(STORED, 6, tmp_path), WANTED, LIMITS)
    assert_upright(metadata, pixels, "JXL", 0.98)


def test_in_jpeg_xl_exif_turns_nothing_for_the_codestream_does() -> None:
    loaded(JXL)
    _, metadata, pixels = decode_bytes(by_pillow("JXL")(STORED, 6), WANTED, LIMITS)
    assert (metadata.format, metadata.width, metadata.height) == ("JXL", 320, 240)
    assert metadata.taken_at == "2024-05-06T07:08:09"
    assert pixels is not None
    assert likeness(pixels, STORED) > 0.98


def test_xmp_in_jpeg_xl_counts() -> None:
    loaded(JXL)
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    )
    stream = io.BytesIO()
    STORED.save(stream, "JXL", xmp=packet)
    assert decode_bytes(stream.getvalue(), None, LIMITS)[1].rating == 4


def test_a_large_preview_is_used_and_a_stamp_is_not() -> None:
    red, blue = Image.new("RGB", (320, 240), (200, 20, 20)), (20, 20, 200)

    def first_pixel(preview: tuple[int, int]) -> list[int]:
        data = dng(red, preview=Image.new("RGB", preview, blue))
        pixels = decode_bytes(data, WANTED, LIMITS)[2]
        assert pixels is not None
        return [int(value) for value in pixels[0, 0]]

    assert first_pixel((80, 60))[2] > 150
    assert first_pixel((16, 12))[0] > 150


def test_raw_carries_camera_and_exposure() -> None:
    metadata = decode_bytes(dng_with_preview(STORED, 1), None, LIMITS)[1]
    assert (metadata.camera_make, metadata.camera_model, metadata.iso) == ("Sigma", "Hand-made", 400)


def test_a_plain_tiff_is_no_raw() -> None:
    data = by_pillow("TIFF")(STORED, 1)
    assert raw_format(data) is None
    assert raw_format(dng(STORED)) == "DNG"


def test_avif_stays_pillows() -> None:
    data = by_pillow("AVIF")(STORED, 1)
    assert not is_heif(data)
    assert is_heif(heic(STORED, 1))


@pytest.mark.parametrize(
    "size", [(8, 8), (256, 256), (320, 240), (300, 7), (1, 900), (1920, 1080), (2600, 9)]
)
@pytest.mark.parametrize("options", [{}, {"use_container": True}])
def test_a_jpeg_xl_header_tells_the_size(size: tuple[int, int], options: dict[str, Any]) -> None:
    loaded(JXL)
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "JXL", effort=1, **options)
    assert jxl_size(stream.getvalue()) == size


def test_a_jpeg_xl_with_too_many_pixels_is_not_decoded() -> None:
    loaded(JXL)
    stream = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(stream, "JXL", effort=1)
    with pytest.raises(PictureError, match="3000 × 2000 pixels"):
        decode_bytes(stream.getvalue(), None, LIMITS)


@pytest.mark.parametrize("name", ["HEIC", "JXL", "RAW by its preview", "RAW developed"])
def test_damage_is_a_picture_error_or_a_picture(name: str) -> None:
    loaded(JXL)
    original = (TURNED[name][1] if name in TURNED else by_pillow("JXL"))(STORED, 6)
    chance = random.Random(5)
    for _ in range(40):
        data = bytearray(original[: chance.choice([len(original), chance.randrange(len(original))])])
        for _ in range(chance.randint(0, 8)):
            if data:
                data[chance.randrange(min(len(data), 700))] = chance.randrange(256)
        with contextlib.suppress(PictureError):
            decode_bytes(bytes(data), WANTED, LIMITS)


# Packages that are not there.


SAMPLES: dict[Reader, Maker] = {HEIF: heic, JXL: by_pillow("JXL"), RAW: dng_with_preview}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extra)
def test_a_missing_package_is_named_with_the_command(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(JXL)
    data = SAMPLES[reader](STORED, 1)
    monkeypatch.setitem(sys.modules, reader.module, None)
    with pytest.raises(PictureError) as caught:
        decode_bytes(data, None, LIMITS)
    assert reader.package in caught.value.message
    assert caught.value.message.endswith(f" -m pip install 'imagedbd[{reader.extra}]'")
    assert waits_for(caught.value.message) == reader


def test_other_reasons_wait_for_nothing() -> None:
    assert waits_for(None) is None
    assert waits_for("The file is truncated (rawpy is not installed).") is None


def test_a_package_that_cannot_be_loaded_is_said_to_be_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_reader.py").write_text("raise ImportError('libfoo.so.3 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = Reader("Odd pictures", "broken-reader", "broken_reader", "odd")
    with pytest.raises(PictureError, match=r"libfoo\.so\.3 is not there.*--force-reinstall"):
        loaded(broken)


def test_every_suffix_of_these_formats_is_a_candidate() -> None:
    wanted = ".heic .heif .hif .jxl .cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .pef .srw"
    assert set(wanted.split()) <= PICTURE_SUFFIXES


def test_neither_daemon_nor_command_line_nor_an_idle_decoder_loads_them() -> None:
    script = (
        "import sys, imagedbd.daemon, imagedbd.cli.main, imagedbd.cli.checkup, imagedbd.decoder_worker;"
        "print([name for name in ('pillow_heif', 'pillow_jxl', 'rawpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "[]"
