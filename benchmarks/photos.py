"""Made-up photos that cost as much to decode as real ones, and a model with random weights."""

from __future__ import annotations

import json
import os

import numpy as np
from PIL import Image

SIZES = {"large": (4000, 2750), "small": (640, 480)}
QUALITY = 90
"""With the noise below this gives about 2.5 bits a pixel, what cameras write."""


def draw_photos(folder: str, count: int, size: tuple[int, int], seed: int = 1) -> list[str]:
    """JPEG files, each with other contents; returns their paths."""
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    width, height = size
    scenes = [_scene(rng, width, height) for _ in range(min(count, 4))]
    paths = []
    for number in range(count):
        scene = scenes[number % len(scenes)]
        shifted = np.roll(scene, tuple(rng.integers((height, width))), axis=(0, 1))
        path = os.path.join(folder, f"IMG_{number:05}.jpg")
        Image.fromarray(shifted).save(path, quality=QUALITY, exif=_exif(number))
        paths.append(path)
    return paths


def _scene(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of all scales, the large ones strongest, as in photos (power falls with the frequency)."""
    scene = np.zeros((height, width, 3), dtype=np.float32)
    for scale in (512, 128, 32, 8, 2, 1):
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


def made_up_model(architecture: str, folder: str) -> None:
    """A checkpoint of random weights in a folder, as ``local-dir:FOLDER`` loads it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model = open_clip.create_model(architecture)
    os.makedirs(folder)
    config = {
        "model_cfg": open_clip.get_model_config(architecture),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    with open(os.path.join(folder, "open_clip_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, os.path.join(folder, "open_clip_model.safetensors"))
