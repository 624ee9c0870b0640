"""Pretrained models, known without torch; the hub, asked once whether it is there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagedbd.pretrained import list_models
from imagedbd.processes import environment, python

LISTED = """
import sys
from imagedbd.pretrained import list_models

known = [model["spec"] for model in list_models()]
assert not {"torch", "open_clip"} & sys.modules.keys()
import open_clip

assert known == [f"{name}/{tag}" for name, tag in open_clip.list_pretrained()] + ["demo"]
assert open_clip.pretrained._has_safetensors
"""
OF_THE_HUB = "ViT-B-32/laion2b_s34b_b79k"
ITS_REPOSITORY = "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"


def test_the_models_are_those_that_openclip_lists_and_are_told_without_torch() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", LISTED], check=True, env=environment(), timeout=100)


def _cached(hub: Path, repository: str, name: str) -> None:
    folder = hub / "hub" / repository
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1")
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "snapshots" / "1" / name).touch()


def test_a_model_is_local_if_its_weights_are_in_the_cache(tmp_path: Path) -> None:
    _cached(tmp_path / "hf", ITS_REPOSITORY, "open_clip_model.safetensors")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "RN50.pt").touch()
    local = "import imagedbd.pretrained as p; print(*(m['spec'] for m in p.list_models() if m['local']))"
    done = subprocess.run(
        [sys.executable, "-c", local],
        check=True,
        capture_output=True,
        text=True,
        env=environment(HF_HOME=str(tmp_path / "hf"), XDG_CACHE_HOME=str(tmp_path)),
    )
    found = done.stdout.split()
    assert {OF_THE_HUB, "demo"} <= set(found)
    assert "ViT-L-14/laion2b_s32b_b82k" not in found


def test_every_name_is_there_once() -> None:
    names = [model["spec"] for model in list_models()]
    assert len(names) == len(set(names)) > 100


@pytest.fixture
def broken_hub() -> Iterator[tuple[str, list[None]]]:
    """The address of a hub that hangs up on everybody, and how often somebody came."""
    visits: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                visits.append(None)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", visits
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _pull(spec: str, home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python("imagedbd.embedder_worker", "pull", spec),
        check=False,
        capture_output=True,
        text=True,
        env=environment(HF_HOME=str(home), HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1"),
        timeout=100,
    )


@pytest.mark.parametrize("spec", [OF_THE_HUB, "hf-hub:timm/ViT-B-16-SigLIP2-256"])
def test_a_hub_that_does_not_answer_is_told_after_one_try(
    tmp_path: Path, broken_hub: tuple[str, list[None]], spec: str
) -> None:
    endpoint, visits = broken_hub
    done = _pull(spec, tmp_path, endpoint)
    assert done.returncode == 70
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"The weights of {spec} are not on this machine, and {endpoint} does not answer: ")
    assert len(visits) == 1


def test_without_a_network_the_reason_is_told(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        done = _pull(OF_THE_HUB, tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert done.returncode == 70
    assert os.strerror(111) in done.stderr


def test_a_model_that_is_here_needs_no_hub(tmp_path: Path, broken_hub: tuple[str, list[None]]) -> None:
    endpoint, visits = broken_hub
    assert _pull("demo", tmp_path, endpoint).returncode == 0
    assert not visits
