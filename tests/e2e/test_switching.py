"""Another model, another store: built beside the index that answers, and swapped at once."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pictures import save
from wire import ask

from imagedbd.datatypes import Limits
from imagedbd.decoder import decode_file

if TYPE_CHECKING:
    from machine import Machine

PROMPT = "a dog"
PICTURES = 12

DYING = """
import os, signal, sys
from imagedbd import engine, generations, switch
from imagedbd.cli import daemon

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

write, moment = generations.GenerationsFile.write, sys.argv.pop(1)

def dying_write(self, wanted):
    swaps = self.current.next is not None and wanted.next is None
    if swaps and moment == "before":
        die()
    write(self, wanted)
    if swaps and moment == "after":
        die()

generations.GenerationsFile.write = dying_write
if moment == "ledger":
    switch.Switch._tell_complete = die
if moment == "retire":
    engine.EngineRoom.retire = die
sys.exit(daemon.main())
"""


def other_model(machine: Machine, name: str = "other", seconds: float = 0.0) -> str:
    """A second checkpoint of the stub, which takes so long for a picture."""
    folder = machine.home / name
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"stub": name, "seconds": seconds}))
    return f"local-dir:{folder}"


def likeness(machine: Machine, model: str) -> dict[str, float]:
    """Of each picture in the folder to the prompt, as a model sees it: what a search must find."""
    spec = importlib.util.spec_from_file_location(
        "stub_openclip", Path(__file__).parents[1] / "stub/openclip.py"
    )
    assert spec
    assert spec.loader
    stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    clip = stub.OpenClip(model)
    clip._seconds = 0.0
    prompt = clip.embed_prompts([PROMPT])[0]
    found = {}
    for path in sorted(machine.photos.rglob("*.jpg")):
        pixels = decode_file(str(path), frozenset(), clip.info.preprocess, Limits()).pixels
        assert pixels is not None
        found[str(path)] = float(clip.embed_pictures(np.stack([pixels]))[0] @ prompt)
    return found


def answered(machine: Machine) -> dict[str, float]:
    """The same, as the daemon answers."""
    hits = machine.json("search", "--prompt", PROMPT, "-n", "100")
    return {hit["path"]: hit["similarity"] for hit in hits}


def is_like(found: dict[str, float], wanted: dict[str, float]) -> bool:
    """Vectors are stored in half precision."""
    return found.keys() == wanted.keys() and all(abs(found[k] - wanted[k]) < 2e-3 for k in wanted)


def generations(machine: Machine) -> Any:
    return json.loads((machine.home / "data" / "generations.json").read_text())


def is_settled(machine: Machine, model: str) -> bool:
    status = machine.json("status")
    return status["switch"] is None and status["model"]["name"] == model


def assert_complete(machine: Machine, model: str) -> None:
    """The index equals the folder, and every vector is this model's."""
    machine.wait()
    wanted = likeness(machine, model)
    assert {str(machine.home / name) for name in machine.listed()} == wanted.keys()
    assert is_like(answered(machine), wanted)
    status = machine.json("status")
    assert (status["waiting"], status["failed"]) == (0, 0)
    assert status["store"]["vectors"] == status["store"]["rows"] == len(wanted)
    assert "Traceback" not in machine.log()


@pytest.fixture
def furnished(machine: Machine) -> Machine:
    """Some pictures, and the model in the settings file."""
    del machine.environment["IMAGEDBD_MODEL"]
    (machine.home / "config.toml").write_text(f'# mine\nmodel = "{machine.model}"\n')
    for number in range(PICTURES):
        save(machine.photos / f"{number:02}.jpg", number)
    return machine


@pytest.fixture
def running(furnished: Machine) -> Machine:
    """A daemon on them, which has indexed them all."""
    furnished.start()
    furnished.wait()
    return furnished


def test_a_wait_waits_for_the_switch_that_brings_a_model(furnished: Machine) -> None:
    (furnished.home / "config.toml").write_text(f'model = "local-dir:{furnished.home}/nowhere"\n')
    furnished.start()
    furnished.until(lambda: furnished.json("status")["waiting"] == PICTURES)
    refused = furnished.run("wait", "--timeout", "60")
    assert (refused.returncode, b"wait for it" in refused.stderr) == (70, True)
    other = other_model(furnished, seconds=0.2)
    assert furnished.run("model", "use", other).returncode == 0
    done = furnished.run("wait", "--timeout", "60")
    assert done.returncode == 0, done.stderr.decode()
    assert_complete(furnished, other)


def test_another_model_answers_when_all_its_vectors_are_there(running: Machine) -> None:
    other = other_model(running)
    assert is_like(answered(running), likeness(running, running.model))
    done = running.run("model", "use", other, "--wait")
    assert done.returncode == 0, done.stderr.decode() + running.log()
    assert_complete(running, other)
    status = running.json("status")
    assert status["embeds_total"] == 2 * PICTURES
    assert status["differences"] == []
    assert status["previous"]["model"] == running.model
    settings = (running.home / "config.toml").read_text()
    assert f'model = "{other}"' in settings
    assert "# mine" in settings
    running.stop()
    running.start()
    assert_complete(running, other)
    assert running.json("status")["embeds_total"] == 0


def test_the_old_model_answers_until_the_new_one_does_while_files_change(running: Machine) -> None:
    other = other_model(running, seconds=0.4)
    old, new = likeness(running, running.model), likeness(running, other)
    stop, odd = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            found = answered(running)
            common = found.keys() & old.keys() & new.keys()
            parts = [{key: some[key] for key in common} for some in (found, old, new)]
            if not is_like(parts[0], parts[1]) and not is_like(parts[0], parts[2]):
                odd.append(found)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert running.run("model", "use", other).returncode == 0
        status = running.json("status")
        assert status["switch"]["model"] == other
        assert status["model"]["name"] == running.model
        save(running.photos / "new.jpg", 77)
        os.rename(running.photos / "00.jpg", running.photos / "moved.jpg")
        os.remove(running.photos / "01.jpg")
        save(running.photos / "02.jpg", 78)
        old.pop(str(running.photos / "02.jpg"))
        running.until(lambda: is_settled(running, other), 60)
    finally:
        stop.set()
        asking.join()
    assert not odd
    assert_complete(running, other)


@pytest.mark.parametrize("kills", [(4,), pytest.param((1, 4, 8), marks=pytest.mark.slow)])
def test_a_build_that_is_killed_goes_on_where_it_was(running: Machine, kills: tuple[int, ...]) -> None:
    """:param kills: how many pictures are done at least when the daemon is killed."""
    # Slow enough not to be complete before it is asked how far it is.
    other = other_model(running, seconds=0.4 * len(kills))
    assert running.run("model", "use", other).returncode == 0
    for least in kills:
        # Asked without a command: on a busy machine the build would be over before one has started.
        running.until(lambda least=least: ask(running, "GET", "/status")[1]["switch"]["done"] >= least, 60)  # type: ignore[misc]
        running.stop(9)
        running.start()
    running.until(lambda: is_settled(running, other), 60)
    assert running.json("status")["embeds_total"] <= PICTURES - kills[-1]
    assert_complete(running, other)


@pytest.mark.parametrize(
    "moment",
    ["before", "after", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ledger", "retire"))],
)
def test_a_daemon_that_is_killed_around_the_swap_has_one_whole_index(furnished: Machine, moment: str) -> None:
    machine, other = furnished, other_model(furnished)
    machine.start(instead=[sys.executable, "-c", DYING, moment])
    machine.wait()
    machine.run("model", "use", other)
    assert machine.process is not None
    machine.process.wait(60)
    machine.process = None
    assert generations(machine)["active"]["model"] == (None if moment == "before" else other)
    save(machine.photos / "new.jpg", 77)
    machine.start()
    machine.until(lambda: is_settled(machine, other), 60)
    assert_complete(machine, other)
    assert machine.json("status")["embeds_total"] <= 2
    assert sorted(os.listdir(machine.home / "data"))[:3] == ["generations.json", "lance", "lance-2"]


def test_going_back_embeds_only_what_came_since(running: Machine) -> None:
    other = other_model(running)
    assert running.run("model", "use", other, "--wait").returncode == 0
    save(running.photos / "new.jpg", 77)
    os.remove(running.photos / "00.jpg")
    os.rename(running.photos / "01.jpg", running.photos / "moved.jpg")
    running.wait()
    before = running.json("status")["embeds_total"]
    done = running.run("model", "rollback")
    assert done.returncode == 0, done.stderr.decode()
    assert_complete(running, running.model)
    assert running.json("status")["embeds_total"] == before + 1
    assert f'model = "{running.model}"' in (running.home / "config.toml").read_text()
    assert running.run("model", "rollback").returncode == 0
    assert_complete(running, other)
    assert running.json("status")["embeds_total"] == before + 1

    assert running.run("model", "remove").returncode == 2
    assert running.run("model", "remove", "--yes").returncode == 0
    assert running.json("status")["previous"] is None
    assert running.run("model", "rollback").returncode == 1
    assert len(list((running.home / "data").glob("lance*"))) == 1
    assert_complete(running, other)


def test_what_cannot_be_had_changes_nothing_and_what_can_replaces_what_is_built(running: Machine) -> None:
    before = generations(running), (running.home / "config.toml").read_text()
    done = running.run("model", "use", "ViT-B-32/nowhere")
    assert done.returncode == 70
    assert b"imagedb model pull ViT-B-32/nowhere" in done.stderr
    assert (generations(running), (running.home / "config.toml").read_text()) == before
    assert running.run("model", "use", "nonsense").returncode == 2
    assert len(list((running.home / "data").glob("lance*"))) == 1
    assert_complete(running, running.model)

    slow, quick = other_model(running, "slow", seconds=1.0), other_model(running, "quick")
    assert running.run("model", "use", slow).returncode == 0
    assert running.run("model", "use", running.model).returncode == 0
    status = running.json("status")
    assert (status["switch"], status["model"]["name"]) == (None, running.model)
    assert len(list((running.home / "data").glob("lance*"))) == 1
    assert running.run("model", "use", slow).returncode == 0
    done = running.run("model", "use", quick, "--wait")
    assert done.returncode == 0, done.stderr.decode()
    assert len(list((running.home / "data").glob("lance*"))) == 2
    assert_complete(running, quick)


def test_pictures_out_of_reach_are_kept_and_embedded_when_they_are_back(running: Machine) -> None:
    other = other_model(running)
    os.rename(running.photos, running.home / "away")
    running.until(lambda: running.json("root", "list")[0]["state"] == "offline")
    assert running.run("model", "use", other, "--wait").returncode == 0
    assert len(running.listed()) == PICTURES
    assert running.json("status")["waiting"] == PICTURES
    os.rename(running.home / "away", running.photos)
    assert_complete(running, other)


def test_what_goes_before_the_file_is_told_and_the_index_goes_its_own_way(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    other = other_model(machine)
    machine.start()
    machine.wait()
    done = machine.run("model", "use", other, "--wait")
    assert done.returncode == 0
    assert b"IMAGEDBD_MODEL" in done.stderr
    (difference,) = machine.json("status")["differences"]
    assert difference["help"] == "start the daemon without IMAGEDBD_MODEL"
    assert difference["help"] in machine.run("status").stdout.decode()
    assert difference["help"] in machine.run("doctor").stdout.decode()
    machine.stop()
    machine.start()
    assert difference["help"] in machine.log()
    assert_complete(machine, other)


def test_other_weights_under_the_same_name_are_embedded_anew_on_request(running: Machine) -> None:
    running.stop()
    folder = Path(running.model.removeprefix("local-dir:"))
    (folder / "open_clip_config.json").write_text('{"stub": "retrained"}')
    running.start()
    save(running.photos / "new.jpg", 77)
    running.until(lambda: running.json("status")["waiting"] == 1)
    assert "imagedb model use" in running.json("status")["model"]["reason"]
    done = running.run("model", "use", running.model, "--wait")
    assert done.returncode == 0, done.stderr.decode()
    assert_complete(running, running.model)


def test_another_store_takes_the_pictures_over_without_embedding(running: Machine) -> None:
    done = running.run("store", "use", "faiss", "--wait")
    assert done.returncode == 0, done.stderr.decode()
    assert_complete(running, running.model)
    status = running.json("status")
    assert (status["store"]["kind"], status["embeds_total"]) == ("faiss", PICTURES)
    # In files that are checked as a whole, and not all in one record at the end of a journal.
    (journal,) = (running.home / "data" / "faiss").glob("journal-*.log")
    assert journal.stat().st_size < 1_000
    assert status["differences"] == []
    assert running.run("model", "rollback").returncode == 0
    assert running.json("status")["store"]["kind"] == "lance"
    assert_complete(running, running.model)
    assert running.json("status")["embeds_total"] == PICTURES
