"""Another model, another store: built beside the index that answers, and swapped at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pictures import save

if TYPE_CHECKING:
    from machine import Machine


def other_model(machine: Machine, name: str = "other", seconds: float = 0.0) -> str:
    """A second checkpoint of the stub, which takes so long for a picture."""
    folder = machine.home / name
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"stub": name, "seconds": seconds}))
    return f"local-dir:{folder}"


@pytest.fixture
def running(machine: Machine) -> Machine:
    """A daemon on twelve pictures, with its model in the settings file."""
    del machine.environment["IMAGEDBD_MODEL"]
    (machine.home / "config.toml").write_text(f'# mine\nmodel = "{machine.model}"\n')
    for number in range(12):
        save(machine.photos / f"{number:02}.jpg", number)
    machine.start()
    machine.wait()
    return machine


def generations(machine: Machine) -> Any:
    return json.loads((machine.home / "data" / "generations.json").read_text())


def switched(machine: Machine, model: str) -> bool:
    status = machine.json("status")
    return status["switch"] is None and status["model"]["name"] == model


def similarity(machine: Machine, prompt: str = "a dog") -> dict[str, float]:
    """Of each picture to a prompt, as the model that answers sees it."""
    return {hit["path"]: hit["similarity"] for hit in machine.json("search", "--prompt", prompt, "-n", "100")}


def test_another_model_answers_when_all_its_vectors_are_there(running: Machine) -> None:
    other = other_model(running)
    before = similarity(running)
    done = running.run("model", "use", other, "--wait")
    assert done.returncode == 0, done.stderr.decode() + running.log()
    after = similarity(running)
    assert after.keys() == before.keys()
    assert after != before
    status = running.json("status")
    assert status["embeds_total"] == 24
    assert (status["indexed"], status["waiting"]) == (12, 0)
    assert status["store"]["vectors"] == 12
    assert status["differences"] == []
    assert status["previous"]["model"] == running.model
    settings = (running.home / "config.toml").read_text()
    assert f'model = "{other}"' in settings
    assert "# mine" in settings
