"""From the colours that a file means to sRGB, which is what models were trained on and screens expect.

A profile (ICC.1) says what the numbers in a file stand for. Most say sRGB, in one of many wordings; whether
one does is told by what it makes of some colours, once for each profile.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from blake3 import blake3
from PIL import Image, ImageCms

MAX_PROFILE_BYTES: Final = 8 << 20
"""Those of printers have a few megabytes at most; what is larger is no profile that anybody uses."""

_MODES: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The kinds of numbers that profiles are for, and Pillow's names of them."""
_SAME: Final = 2
"""Of 255: what profiles of sRGB differ in, by how they round its tone curve."""
_REMEMBERED: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class ToSrgb:
    """What a profile asks for.

    :param mode: Pillow's mode of the pictures that it is for.
    """

    mode: str
    _transform: ImageCms.ImageCmsTransform

    def __call__(self, image: Image.Image) -> Image.Image:
        """The same picture in sRGB, mode ``RGB``; one of another mode is taken for one of :attr:`mode`."""
        made = self._transform.apply(image if image.mode == self.mode else image.convert(self.mode))
        made.info.pop("icc_profile", None)
        return made


_known: OrderedDict[bytes, ToSrgb | None] = OrderedDict()
"""By the hash of the profile: many pictures have the same one, and some are as large as a picture."""


def conversion(profile: object) -> ToSrgb | None:
    """What a picture with this profile needs.

    :param profile: as Pillow has it in ``info["icc_profile"]``.
    :returns: ``None`` where there is nothing to do: no profile, one of sRGB, or one that cannot be used.
    """
    if not isinstance(profile, bytes) or not 0 < len(profile) <= MAX_PROFILE_BYTES:
        return None
    key = blake3(profile).digest()
    if key not in _known:
        while len(_known) >= _REMEMBERED:
            _known.popitem(last=False)
        _known[key] = _conversion(profile)
    _known.move_to_end(key)
    return _known[key]


def _conversion(profile: bytes) -> ToSrgb | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space)
        if mode is None:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        made = ToSrgb(mode, transform)
        return None if mode != "CMYK" and _changes_nothing(made) else made
    # ImportError: a Pillow that was built without LittleCMS.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return None


def _changes_nothing(convert: ToSrgb) -> bool:
    """Whether a lattice of colours, greys among them, comes out as it went in."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, len(steps), 3)
    if convert.mode == "L":
        colours = np.repeat(steps[None, :, None], 3, axis=2)
    made = np.asarray(convert(Image.fromarray(colours)), dtype=np.int16)
    return int(np.abs(made - colours).max()) <= _SAME
