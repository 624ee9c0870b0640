"""What must be seen with torch and OpenCLIP themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pictures import save
from PIL import Image, ImageOps
from reference import Reference, cosine

from imagedbd.stores import open_store

if TYPE_CHECKING:
    from machine import Machine


def test_what_the_daemon_has_stored_is_openclips_own_and_it_never_loads_torch(
    real_machine: Machine, checkpoint: Path
) -> None:
    machine = real_machine
    for number in range(3):
        save(machine.photos / f"{number}.png", number, size=(300 + number, 200))
    machine.environment |= {"IMAGEDBD_MODEL_TTL": "2s", "IMAGEDBD_KEEP_TEXT_TOWER": "true"}
    machine.start(cold=True)
    machine.wait()
    found = machine.json("search", "--prompt", "a dog")
    machine.until(lambda: machine.json("status")["model"]["only_prompts"])
    assert machine.json("search", "--prompt", "a dog") == found
    assert machine.json("search", "--prompt", "a cat") != found
    save(machine.photos / "3.png", 3, size=(303, 200))  # has what embeds pictures loaded again
    machine.wait()
    assert machine.process is not None
    maps = Path(f"/proc/{machine.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "lance" in maps
    ids = {row["path"]: row["id"] for row in machine.json("list")}
    assert machine.stop() == 0
    reference = Reference(checkpoint)
    store = open_store("lance", str(machine.home / "data" / "lance"))
    for number in range(4):
        path = machine.photos / f"{number}.png"
        (row,) = store.get([ids[str(path)]])
        assert row.vector is not None
        with Image.open(path) as image:
            assert cosine(row.vector, reference.picture(image)) >= 0.9999
            assert cosine(row.vector, reference.picture(ImageOps.mirror(image))) < 0.9999
    store.close()


def test_a_model_that_is_not_on_this_machine_is_named_with_the_two_ways_on(real_machine: Machine) -> None:
    machine = real_machine
    machine.environment["IMAGEDBD_MODEL"] = "ViT-B-16/laion2b_s34b_b88k"
    machine.environment["IMAGEDBD_DATA_DIR"] = str(machine.home / "fresh")
    machine.environment["HF_HOME"] = str(machine.home / "hub")
    machine.start()
    machine.until(lambda: machine.json("status")["model"]["state"] == "unavailable")
    model = machine.json("status")["model"]
    assert "not on this machine" in model["reason"]
    assert "imagedb model pull ViT-B-16/laion2b_s34b_b88k" in model["help"][0]
    assert "imagedb model use demo" in model["help"][1]
    shown = machine.run("status").stdout
    assert b"imagedb model pull" in shown
    assert b"imagedb model use demo" in shown
    done = machine.run("model", "use", "demo", "--wait")
    assert done.returncode == 0, done.stderr
    model = machine.json("status")["model"]
    assert (model["name"], model["state"]) == ("demo", "ready")
    assert "Traceback" not in machine.log()
