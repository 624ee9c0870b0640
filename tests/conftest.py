"""Shared fixtures: a small random OpenCLIP checkpoint on disk, and an S3 service in memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from s3 import S3, s3_service

from imagedbd.stores.lean_import import lean_lancedb

# A shell that runs the tests in its background has Ctrl-C ignored, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests' own torch spares the cores that others want, as an embedder's does: see imagedbd.embedder.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def make_checkpoint(
    folder: Path, *, size: int = 64, patch: int = 16, width: int = 64, layers: int = 2
) -> Path:
    """A randomly initialised OpenCLIP model, saved as any ``local-dir:`` model is."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": size, "patch_size": patch, "width": width, "head_width": 32, "layers": layers,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }  # fmt: skip
    preprocess = {
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic", "resize_mode": "shortest",
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = open_clip.CLIP(**config)
    # Fresh weights take the average of a picture; these tell one from its mirror image.
    model.visual.positional_embedding.data *= 5
    for block in model.visual.transformer.resblocks:
        block.attn.in_proj_weight.data *= 2
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    return folder


def pytest_collectstart() -> None:
    """LanceDB is imported as our programs do, before a module of tests imports all that belongs to it."""
    with lean_lancedb():
        import lancedb  # noqa: F401 - for the modules


@pytest.fixture(scope="session", autouse=True)
def _warm_processes() -> Iterator[None]:
    yield
    warm.close()


_MEMORY = "/dev/shm"  # noqa: S108 - a private folder in it
_ROOM = 2 << 30
"""Bytes that must be free there: containers may have next to nothing."""


def _is_in_memory(request: pytest.FixtureRequest) -> bool:
    if "IMAGEDBD_TEST_ON_DISK" in os.environ or request.node.get_closest_marker("in_memory") is None:
        return False
    return os.path.ismount(_MEMORY) and shutil.disk_usage(_MEMORY).free >= _ROOM


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """pytest's own, or for tests that are marked so, one where a flush to the disk takes no time."""
    if not _is_in_memory(request):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="imagedbd-", dir=_MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def short() -> Iterator[Path]:
    """A private folder with a short path, as a Unix socket needs; pytest's own are long."""
    with tempfile.TemporaryDirectory(prefix="idb") as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 service on loopback; nothing asks anyone else for credentials."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patched.setenv("AWS_CONFIG_FILE", os.devnull)
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        with s3_service() as service:
            yield service


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model: real in every way but that it knows nothing."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))
