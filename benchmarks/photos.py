"""Made-up photos, all of them at once, and a model with random weights."""

from __future__ import annotations

import json
import os

from imagedbd.demo import photos

SIZES = {"large": photos.LARGE, "small": photos.SMALL}


def draw_photos(folder: str, count: int, size: tuple[int, int], seed: int = 1) -> list[str]:
    """See :func:`imagedbd.demo.photos.draw_photos`."""
    return list(photos.draw_photos(folder, count, size, seed))


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
