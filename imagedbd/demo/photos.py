"""Made-up photos that cost as much to decode as real ones: noise of all scales, the large ones strongest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE: Final = (4000, 2750)
"""Width and height of what cameras and phones take."""
SMALL: Final = (640, 480)
QUALITY: Final = 90
"""With this noise it gives about 2.5 bits a pixel, what cameras write."""
_SCENES: Final = 4
_SCALES: Final = (512, 128, 32, 8, 2, 1)


def draw_photos(folder: str, count: int, size: tuple[int, int], seed: int = 1) -> Iterator[str]:
    """Write JPEG files, each with other contents; their paths come as soon as each is there.

    :param size: width and height in pixels.
    """
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    width, height = size
    scenes = [_scene(rng, width, height) for _ in range(min(count, _SCENES))]
    for number in range(count):
        shift = tuple(int(way) for way in rng.integers((height, width)))
        shifted = np.roll(scenes[number % len(scenes)], shift, axis=(0, 1))
        path = os.path.join(folder, f"IMG_{number:05}.jpg")
        Image.fromarray(shifted).save(path, quality=QUALITY, exif=_exif(number))
        yield path


def _scene(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """In photos, power falls with the frequency as well."""
    scene = np.zeros((height, width, 3), dtype=np.float32)
    for scale in _SCALES:
        shape = (height // scale + 1, width // scale + 1, 3)
        noise = rng.standard_normal(shape, dtype=np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[:, :, channel]).resize((width, height), Image.Resampling.BICUBIC)
            scene[:, :, channel] += (3 + 4 * scale**0.35) * np.asarray(layer)
    return (scene + 128).clip(0, 255).astype(np.uint8)


def _exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "NIKON", "COOLPIX P6000"
    exif[0x0132] = f"2024:05:{1 + number % 28:02} 12:00:00"
    return exif
