"""What vectors are compared with: OpenCLIP as its own documentation uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


class Reference:
    """OpenCLIP as its own documentation uses it."""

    def __init__(self, folder: Path) -> None:
        import open_clip
        import torch

        self._torch = torch
        name = f"local-dir:{folder}"
        model, _, preprocess = open_clip.create_model_and_transforms(name)
        self._model, self._preprocess = model.eval(), preprocess
        self._tokenizer = open_clip.get_tokenizer(name)

    def picture(self, image: Image.Image) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            batch = self._preprocess(image).unsqueeze(0)
            vector: NDArray[np.float32] = self._model.encode_image(batch, normalize=True)[0].numpy()
        return vector

    def prompts(self, texts: list[str]) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            rows: NDArray[np.float32] = self._model.encode_text(
                self._tokenizer(texts), normalize=True
            ).numpy()
        return rows


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    wide = one.astype(np.float64), other.astype(np.float64)
    return float(wide[0] @ wide[1] / np.linalg.norm(wide[0]) / np.linalg.norm(wide[1]))
