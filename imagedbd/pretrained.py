"""Which pretrained models OpenCLIP offers, and whether their weights are here; told without torch.

OpenCLIP's table lies in a module that has no need of torch, in a package that takes seconds to load it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from imagedbd.errors import EmbedderError, ModelUnavailableError

REACHING_S: Final = 5.0
"""How long the hub may take to answer at all, before gigabytes are asked of it."""

_ALONE: Final = "_open_clip_alone"
"""What OpenCLIP's package is called here, so that the true one can still be imported."""
_WEIGHTS: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def list_models() -> Iterator[dict[str, Any]]:
    """Every pretrained model that OpenCLIP knows: ``spec``, and whether its weights are ``local``."""
    for name, tag in _table().list_pretrained():
        yield {"spec": f"{name}/{tag}", "local": _are_here(_table().get_pretrained_cfg(name, tag))}
    yield {"spec": "demo", "local": True}


def check_hub(spec: str) -> None:
    """See that the hub answers, where a model's weights have to come from there.

    Its own client tries each file again and again, for a minute in all.

    :raises ModelUnavailableError: it does not.
    """
    if not _is_from_hub(spec) or os.environ.get("HF_HUB_OFFLINE") == "1":
        return
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # not in its __all__

    try:
        get_session().head(ENDPOINT, timeout=REACHING_S)
    # Which library it asks by, and so what that raises, differs between the hub's versions.
    except Exception as error:
        raise ModelUnavailableError(
            f"The weights of {spec} are not on this machine, and {ENDPOINT} does not answer: "
            f"{str(error) or type(error).__name__}. Is there a network?"
        ) from error


def _is_from_hub(spec: str) -> bool:
    """Whether something of it is to be had from the hub alone."""
    if spec.startswith("hf-hub:"):
        repository = spec.removeprefix("hf-hub:")
        is_here = _is_cached(repository, ("open_clip_config.json",)) and _is_cached(repository, _WEIGHTS)
        return not is_here
    name, _, tag = spec.partition("/")
    config = _table().get_pretrained_cfg(name, tag)
    return bool(config.get("hf_hub")) and not _are_here(config)


def _are_here(config: dict[str, Any]) -> bool:
    # As OpenCLIP reads it: OWNER/NAME/, or OWNER/NAME/FILE.
    repository, file_name = os.path.split(str(config.get("hf_hub") or ""))
    if repository:
        return _is_cached(repository, (file_name,) if file_name else _WEIGHTS)
    return bool(config.get("url")) and _download_target(config["url"]).is_file()


def _is_cached(repository: str, any_of: tuple[str, ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in any_of)


def _download_target(url: str) -> Path:
    cache_folder = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    return Path(cache_folder, "clip", url.rsplit("/", 1)[-1])


@cache
def _table() -> ModuleType:
    """OpenCLIP's ``pretrained`` module, without what its package imports beside it.

    :raises EmbedderError: OpenCLIP is not installed.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or found.submodule_search_locations is None:
        raise EmbedderError("open_clip_torch is not installed.")
    package = ModuleType(_ALONE)
    package.__path__ = list(found.submodule_search_locations)
    sys.modules[_ALONE] = package
    # It looks whether there is a reader of weights, which would bring torch.
    with _hidden("safetensors.torch"):
        return importlib.import_module(f"{_ALONE}.pretrained")


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Have a module be as good as not installed."""
    former = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # how import knows that there is none
    try:
        yield
    finally:
        del sys.modules[name]
        if former is not None:
            sys.modules[name] = former
