"""OpenCLIP, and the only file that imports torch. It runs in processes of its own: see ``embedder_worker``.

Vectors equal ``model.encode_image(preprocess(picture), normalize=True)`` of OpenCLIP itself. Resizing and
cropping have happened before (in the decoder); what is left here is scaling to 0…1, mean and standard
deviation, and the model.
"""

from __future__ import annotations

import difflib
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from blake3 import blake3
from numpy.typing import NDArray

from imagedbd.datatypes import ModelInfo, Preprocess
from imagedbd.demo import checkpoint_dir
from imagedbd.errors import ConfigError, ModelUnavailableError, ModelUnknownError

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TOKENS_STEP = 8
"""Prompts are cut to a multiple of as many tokens: kernels are prepared for each length that is met."""


class OpenClip:
    """One loaded model on one device.

    :param spec: ``ARCHITECTURE/TAG``, ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER`` or ``demo``.
    :param device: ``auto``, or a torch device.
    :param dtype: ``auto``, ``fp32``, ``bf16`` or ``fp16``: of the weights, not of the vectors.
    :raises ModelUnavailableError: if the weights cannot be had; the message says which and why.
    :raises ConfigError: if the device or dtype is not to be had on this machine.
    """

    def __init__(self, spec: str, device: str = "auto", dtype: str = "auto") -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        name, tag = resolve(spec)
        try:
            self._model = open_clip.create_model(
                name,
                pretrained=tag,
                precision=self.dtype,
                device=self.device,
                force_quick_gelu=_needs_quick_gelu(name, tag),
                require_pretrained=True,
            ).eval()
            self._tokenizer = open_clip.get_tokenizer(name)
            weights_hash = _hash_files(_weight_files(name, tag))
        # OpenCLIP, the hub's client and torch's readers raise whatever they meet; a model that cannot be
        # loaded is a state of the daemon, never its end.
        except Exception as error:
            raise _explained(spec, name, tag, error) from error
        preprocess = _plain_preprocess(open_clip.get_model_preprocess_cfg(self._model))
        self._mean = torch.tensor(preprocess.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=self.device).view(1, 3, 1, 1)
        self._is_causal = _is_causal(self._model)
        dimension = self.embed_prompts(["a picture"]).shape[1]
        self.info = ModelInfo(spec, weights_hash, dimension, preprocess)

    @torch.inference_mode()
    def embed_pictures(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors ``(n, dimension)`` of RGB pictures ``(n, height, width, 3)`` in the model's size."""
        batch = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)
        scaled = (batch.to(torch.float32) / 255 - self._mean) / self._std
        vectors = self._model.encode_image(scaled.to(_PRECISIONS[self.dtype]), normalize=True)
        return _unit_rows(vectors)

    @torch.inference_mode()
    def embed_prompts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors ``(len(prompts), dimension)``."""
        tokens = self._tokenizer(list(prompts)).to(self.device)
        if self._is_causal:
            return _unit_rows(_encode_briefly(self._model, tokens))
        return _unit_rows(self._model.encode_text(tokens, normalize=True))

    def keep_only_prompts(self) -> None:
        """Give up what embeds pictures: :meth:`embed_pictures` fails from now on."""
        self._model.visual = None
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _is_causal(model: Any) -> bool:
    """Whether a prompt's vector is what a transformer, in which no token sees the next, has at its end.

    What stands behind the end, as padding does, then changes nothing.
    """
    if not isinstance(model, open_clip.CLIP) or model.text_pool_type != "argmax":
        return False
    mask = model.attn_mask
    return mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))


def _encode_briefly(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``encode_text`` without the padding: most prompts are a few tokens of the 77 that there is room for.

    :param tokens: shape ``(n, context)``; the end of a prompt is the highest of its numbers.
    """
    longest = int(tokens.argmax(dim=-1).max()) + 1
    length = min(-(-longest // _TOKENS_STEP) * _TOKENS_STEP, tokens.shape[1])
    shortened = {
        "positional_embedding": model.positional_embedding[:length],
        "attn_mask": model.attn_mask[:length, :length],
    }
    encoded = torch.func.functional_call(model, shortened, kwargs={"text": tokens[:, :length]})
    vectors: torch.Tensor = encoded["text_features"] if isinstance(encoded, dict) else encoded[1]
    return vectors


def resolve(spec: str) -> tuple[str, str | None]:
    """A spec as OpenCLIP names it: model name (with its schema, if any) and pretrained tag."""
    if spec == "demo":
        return f"local-dir:{checkpoint_dir()}", None
    if spec.startswith(("hf-hub:", "local-dir:")):
        return spec, None
    name, _, tag = spec.partition("/")
    return name, tag


def choose_device(wanted: str) -> str:
    available = ["cpu", *_accelerators()]
    if wanted == "auto":
        return available[-1] if len(available) == 1 else available[1]
    if wanted not in available and f"{wanted}:0" not in available:
        raise ConfigError(f"There is no device {wanted!r} here. There are: {', '.join(available)}.")
    return wanted


def choose_dtype(wanted: str, device: str) -> str:
    """``auto`` is half precision where the hardware multiplies it natively, and fp32 elsewhere."""
    if wanted != "auto":
        if wanted == "fp16" and device == "cpu":
            raise ConfigError("dtype fp16 is not for a CPU. There are: fp32, bf16.")
        return wanted
    if device == "cpu":
        return "bf16" if _cpu_has_bf16() else "fp32"
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def _accelerators() -> list[str]:
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    found += [f"xpu:{i}" for i in range(torch.xpu.device_count())]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _cpu_has_bf16() -> bool:
    # torch also takes bf16 on CPUs that only emulate it, slower than fp32: the flags tell those apart.
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _needs_quick_gelu(name: str, tag: str | None) -> bool:
    # Some checkpoints were trained with another activation than their architecture's file names.
    return bool(tag and (open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu"))


def _plain_preprocess(config: dict[str, Any]) -> Preprocess:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocess(
        width=int(width),
        height=int(height),
        resize_mode=config.get("resize_mode") or "shortest",
        interpolation=config.get("interpolation") or "bicubic",
        fill_color=int(config.get("fill_color") or 0),
        mean=tuple(float(m) for m in config["mean"]),
        std=tuple(float(s) for s in config["std"]),
    )


def _weight_files(name: str, tag: str | None) -> list[Path]:
    """The files that a load reads; in offline mode the hub's client answers with what is on disk."""
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        weights = (file for file in folder.iterdir() if file.suffix in {".safetensors", ".bin", ".pth"})
        return [folder / "open_clip_config.json", *sorted(weights)]
    if name.startswith("hf-hub:"):
        return [Path(open_clip.pretrained.download_pretrained_from_hf(name.removeprefix("hf-hub:")))]
    config = open_clip.get_pretrained_cfg(name, tag)
    return [Path(open_clip.download_pretrained(config))] if config else [Path(str(tag))]


def _hash_files(files: Sequence[Path]) -> str:
    digest = blake3(max_threads=blake3.AUTO)
    for file in files:
        digest.update(file.name.encode())
        digest.update_mmap(file)
    return digest.hexdigest()


def _unit_rows(vectors: torch.Tensor) -> NDArray[np.float32]:
    # Low-precision weights give vectors whose length is 1 only to three digits.
    rows = torch.nn.functional.normalize(vectors.to(torch.float32), dim=-1)
    return rows.cpu().numpy()


def _explained(spec: str, name: str, tag: str | None, error: Exception) -> ModelUnavailableError:
    if ":" not in name and name not in open_clip.list_models():
        suggested = _suggest(name, open_clip.list_models())
        return ModelUnknownError(f"OpenCLIP knows no architecture {name!r}.{suggested}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags and not os.path.isfile(tag):
        known = ", ".join(tags) or "none"
        return ModelUnknownError(f"OpenCLIP knows no weights {tag!r} for {name}. There are: {known}.")
    if os.environ.get("HF_HUB_OFFLINE") == "1" and not name.startswith("local-dir:"):
        return ModelUnavailableError(f"The weights of {spec} are not on this machine.")
    return ModelUnavailableError(f"{spec} cannot be loaded: {str(error) or type(error).__name__}")


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else " See `imagedb model list`."
