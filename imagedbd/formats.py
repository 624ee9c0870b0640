"""The names that picture files have. A leaf without Pillow, for whoever only walks folders."""

from __future__ import annotations

import os

PICTURE_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".gif", ".webp", ".avif", ".jp2", ".j2k"),
        *(".tif", ".tiff", ".bmp", ".dib"),
        *(".pbm", ".pgm", ".ppm", ".pnm"),
        *(".heic", ".heif", ".hif", ".jxl"),
        # Camera RAW, by who makes the camera: Canon, Nikon, Sony, Fujifilm, Olympus, Panasonic and Leica, …
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf"),
        *(".raf", ".orf", ".rw2", ".rwl", ".pef", ".srw", ".erf", ".mrw", ".x3f"),
        *(".3fr", ".fff", ".iiq", ".mos", ".mef", ".dcr", ".kdc"),
    }
)
"""Suffixes, in lower case and with their dot, of the files that are worth opening."""


def is_picture_name(name: str) -> bool:
    """Whether a file of this name (or path) is a candidate. The decoder has the last word."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
