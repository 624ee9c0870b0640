"""What happens in a decoder process: one picture is read once, and told apart from everything else.

Nothing here trusts a file. Whatever Pillow makes of hostile bytes comes out as a :class:`PictureError` with a
reason for people; what it makes of them without an exception (a crash, a hang, all the memory) is the
business of :mod:`imagedbd.decoder`, which can lose this process.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from blake3 import blake3
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from imagedbd.containers import is_heif, is_jxl, jxl_size
from imagedbd.datatypes import Decoded, Metadata, Signature
from imagedbd.errors import PictureChangedError, PictureError, PictureMissingError, PictureUnreadError
from imagedbd.metadata import read_metadata, read_raw_metadata, with_sidecars
from imagedbd.pixels import to_pixels
from imagedbd.png_chunks import metadata_first
from imagedbd.raw import opened_raw, raw_format
from imagedbd.readers import HEIF, JXL, loaded
from imagedbd.sidecars import OF_THE_FILE, UNSURE, mark_of, read_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from imagedbd.datatypes import Limits, Pixels, Preprocess
    from imagedbd.sidecars import Sidecars

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF")
"""What Pillow may take a file for; MPO is opened as JPEG. No EPS: that would start Ghostscript."""
PLUGIN_FORMATS = {HEIF: "HEIF", JXL: "JXL"}
"""What a package has Pillow take it for, where a file is that and nothing else."""

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEXT_CHUNK_BYTES = 64 << 20

_PILLOW_ERRORS = (
    OSError,  # the usual one: truncated or broken data; also UnidentifiedImageError
    SyntaxError,  # "not a PNG file", "broken PNG file" and their like
    ValueError,  # impossible sizes, bad palettes, text chunks that are too large
    TypeError,  # a tag whose value has another type than the format says
    AttributeError,  # the same
    AssertionError,  # plugins assert what a well-formed file would give
    NotImplementedError,  # a variant that Pillow does not know
    LookupError,  # IndexError, KeyError: tags or modes that are missing
    ArithmeticError,  # ZeroDivisionError, OverflowError: sizes and resolutions from the file
    EOFError,
    BufferError,
    RuntimeError,  # codecs; includes RecursionError
    struct.error,
    zlib.error,
)
"""What Pillow is known, or by its source able, to raise for damaged data."""

_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

_LOOKS_LIKE: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"\x1aE\xdf\xa3", "a Matroska video"),
    (0, b"OggS", "an Ogg file"),
    (0, b"ID3", "an MP3 file"),
    (0, b"\xff\x0a", "a damaged JPEG XL picture"),
    (4, b"JXL ", "a damaged JPEG XL picture"),
    (4, b"ftyphei", "a damaged HEIC picture"),
    (4, b"ftyphev", "a damaged HEIC picture"),
    (4, b"ftypmif1", "a damaged HEIF picture"),
    (4, b"ftypmsf1", "a damaged HEIF picture"),
    (4, b"ftyp", "a video"),
    (8, b"AVI ", "a video"),
    (8, b"WAVE", "a sound"),
)
"""Offset, magic bytes, and what to call such a file."""


def decode_file(
    path: str,
    known: frozenset[str],
    preprocess: Preprocess | None,
    limits: Limits,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Decoded:
    """Read a file once: signature, content hash, metadata and, for new content, pixels.

    :param known: content hashes whose vectors are there already; such a picture is not decoded.
    :param preprocess: what the model expects; ``None`` if that is not known yet.
    :param reading: entered while a disk is waited for.
    :raises PictureMissingError: nothing is there that can be opened, or something that is no regular file.
    :raises PictureChangedError: the file changed meanwhile; what was read may be half of two versions.
    :raises PictureUnreadError: its disk fails, or this machine does.
    :raises PictureError: it may not be read, or is no picture that can be indexed.
    """
    with reading():
        data, signature = _read_file(path, limits)
        sidecars = _read_sidecars(path)
    content_hash = blake3(data).hexdigest()
    wanted = None if content_hash in known else preprocess
    try:
        metadata, pixels = _decode(data, wanted, limits)
    finally:
        # Also before a failure is reported: a file that is still being written looks damaged
        _check_unchanged(path, signature, sidecars)
    metadata = with_sidecars(metadata, sidecars.packets)
    return Decoded(signature, content_hash, metadata, pixels, sidecars.mark)


def decode_bytes(
    data: bytes, preprocess: Preprocess | None, limits: Limits
) -> tuple[str, Metadata, Pixels | None]:
    """A query picture's content hash, metadata and pixels (if the model's preprocessing is known).

    :raises PictureError: it is no picture, or too large, or damaged.
    """
    _check_size(len(data), limits)
    metadata, pixels = _decode(data, preprocess, limits)
    return blake3(data).hexdigest(), metadata, pixels


# Reading.


def _read_file(path: str, limits: Limits) -> tuple[bytes, Signature]:
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PictureMissingError("It is not a regular file.")
            _check_size(status.st_size, limits)
            data = file.read(status.st_size + 1)  # one more byte shows that the file has grown
            signature = Signature.of(os.fstat(file.fileno()))
    except _GONE as error:
        raise PictureMissingError(_os_reason(error)) from error
    except MemoryError as error:
        raise PictureError(_out_of_memory(limits)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if signature != Signature.of(status) or len(data) != status.st_size:
        raise PictureChangedError("It changed while it was being read.")
    return data, signature


def _unreadable(path: str, error: OSError) -> PictureError:
    """Sockets, symbolic links and some devices refuse to be opened, each with an error of its own."""
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError as out_of_sight:
        return _out_of_sight(out_of_sight)
    if not regular:
        return PictureMissingError("It is not a regular file.")
    if isinstance(error, PermissionError):
        if os.access(path, os.R_OK, effective_ids=True):
            return PictureMissingError(
                f"{_os_reason(error)} Its own permissions allow it: its folder was closed for a moment, "
                "or a security policy refuses, or the server that it lies on."
            )
        return PictureError("There is no permission to read it.")
    return PictureUnreadError(_os_reason(error))


def _out_of_sight(error: OSError) -> PictureError:
    """A folder that was closed a moment ago is no fault of the file's."""
    kind = PictureMissingError if error.errno in OF_THE_FILE else PictureUnreadError
    return kind(_os_reason(error))


def _check_size(size: int, limits: Limits) -> None:
    if size == 0:
        raise PictureError("The file is empty.")
    if size > limits.max_bytes:
        raise PictureError(
            f"The file has {size / 1e6:,.0f} MB; at most {limits.max_bytes / 1e6:,.0f} MB are read."
        )


def _read_sidecars(path: str) -> Sidecars:
    try:
        return read_sidecars(path)
    except OSError as error:
        raise _out_of_sight(error) from error


def _check_unchanged(path: str, signature: Signature, sidecars: Sidecars) -> None:
    try:
        now, mark = Signature.of(os.lstat(path)), mark_of(path)
    except OSError as error:
        raise _out_of_sight(error) from error
    if now != signature:
        raise PictureChangedError("It changed while it was being read.")
    if sidecars.mark not in (mark, UNSURE):
        raise PictureChangedError("Its sidecar changed while it was being read.")


def _os_reason(error: OSError) -> str:
    return f"{error.strerror or error}."


# Decoding.


def _decode(data: bytes, preprocess: Preprocess | None, limits: Limits) -> tuple[Metadata, Pixels | None]:
    try:
        with _careful_pillow():
            if (kind := raw_format(data)) is not None:
                return _develop(data, kind, preprocess, limits)
            readable = io.BytesIO(metadata_first(data))
            with Image.open(readable, formats=_formats_for(data, limits)) as image:
                _check_pixels(image.size, limits)
                metadata = read_metadata(data, image)
                pixels = None if preprocess is None else to_pixels(image, preprocess, metadata.orientation)
                return metadata, pixels
    except MemoryError as error:
        raise PictureError(_out_of_memory(limits)) from error
    except UnidentifiedImageError as error:
        raise PictureError(_not_a_picture(data)) from error
    except _PILLOW_ERRORS as error:
        raise PictureError(_damage(error)) from error


def _formats_for(data: bytes, limits: Limits) -> tuple[str, ...]:
    """What Pillow may take this file for, with the package loaded that reads it.

    :raises PictureError: that is not installed.
    """
    reader = HEIF if is_heif(data) else JXL if is_jxl(data) else None
    if reader is None:
        return FORMATS
    if reader is JXL and (size := jxl_size(data)) is not None:
        _check_pixels(size, limits)
    loaded(reader)
    return (PLUGIN_FORMATS[reader],)


def _develop(
    data: bytes, kind: str, preprocess: Preprocess | None, limits: Limits
) -> tuple[Metadata, Pixels | None]:
    with opened_raw(data) as negative:
        _check_pixels(negative.size, limits)
        if negative.preview is not None:
            _check_pixels(negative.preview.size, limits)
        metadata = read_raw_metadata(data, kind, negative)
        if preprocess is None:
            return metadata, None
        return metadata, to_pixels(negative.image_for(preprocess), preprocess, negative.orientation)


@contextmanager
def _careful_pillow() -> Iterator[None]:
    """Pillow with our bounds in place of its own, and without its warnings about odd metadata.

    Its bound on pixels is lifted because :func:`_check_pixels` knows the picture's sides and can say them.
    """
    pixels, text = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, _TEXT_CHUNK_BYTES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = pixels, text


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise PictureError(
            f"It has {width} × {height} pixels ({width * height / 1e6:,.0f} million); "
            f"at most {limits.max_pixels / 1e6:,.0f} million are decoded (setting max_pixels)."
        )


def _out_of_memory(limits: Limits) -> str:
    megabytes = f"{limits.memory_bytes / 1e6:,.0f} MB"
    return f"Decoding it takes more than the {megabytes} that a decoder may use (setting decode_memory)."


def _damage(error: Exception) -> str:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if "truncated" in reason.lower():
        return f"The file is truncated ({reason})."
    if "MAX_TEXT_" in reason:
        return f"Its texts or colour profile unfold to more than {_TEXT_CHUNK_BYTES >> 20} MB."
    return f"The picture is damaged: {reason}."


def _not_a_picture(data: bytes) -> str:
    if not any(data):
        return "The file holds nothing but zeros."
    return f"It is not a picture that can be read: it looks like {_looks_like(data)}."


def _looks_like(data: bytes) -> str:
    for offset, magic, name in _LOOKS_LIKE:
        if data.startswith(magic, offset):
            return name
    if any(data.startswith(magic) for magic in _PICTURE_MAGIC):
        return "the damaged beginning of one"
    head = data[:512].lstrip().lower()
    if head.startswith((b"<svg", b"<?xml")):
        return "SVG or other XML"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return "text" if _is_text(data[:512]) else "unknown binary data"


_PICTURE_MAGIC = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head)
