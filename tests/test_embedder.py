"""Vectors are OpenCLIP's own, prompts overtake pictures, and the model's process may come, go and die."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import warm
from conftest import make_checkpoint
from pictures import encoded, picture
from PIL import Image, ImageOps
from reference import Reference, cosine

from imagedbd.datatypes import (
    Batch,
    ImageRecord,
    Limits,
    Metadata,
    ModelState,
    Priority,
    Signature,
    StoredPicture,
)
from imagedbd.decoder import decode_bytes
from imagedbd.demo import checkpoint_dir
from imagedbd.embedder import EmbedderProcess
from imagedbd.errors import EmbedderError, ModelUnavailableError
from imagedbd.processes import environment
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from imagedbd.datatypes import Pixels

EXACT = 0.9999
"""What PNG in fp32 must reach: nothing is lost on the way but rounding."""
CLOSE = 0.9995
"""What draft-mode JPEG and bf16 must reach. A mirrored picture must not, or the bound says nothing."""
PROMPTS = ["a red car", "two dogs on a beach at sunset", "snow", "", "a very long walk " * 30]


@pytest.fixture(scope="module")
def larger_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that takes pictures as large as ViT-B-16 does."""
    return make_checkpoint(tmp_path_factory.mktemp("larger"), size=224, width=192, layers=4)


@pytest.fixture(scope="module", params=["random", "demo"])
def model_folder(request: pytest.FixtureRequest, larger_checkpoint: Path) -> Path:
    return larger_checkpoint if request.param == "random" else checkpoint_dir()


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Reference:
    return Reference(model_folder)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def embedder(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[EmbedderProcess]:
    with pytest.MonkeyPatch.context() as patched:
        warmed = SimpleNamespace(**vars(subprocess) | {"Popen": warm.start_model})
        patched.setattr("imagedbd.embedder.subprocess", warmed)
        embedder = EmbedderProcess(f"local-dir:{model_folder}", device="cpu", dtype=request.param)
        embedder.load().result(120)
    yield embedder
    embedder.close()


def pixels_of(embedder: EmbedderProcess, data: bytes) -> Pixels:
    assert embedder.info is not None
    _, _, pixels = decode_bytes(data, embedder.info.preprocess, Limits())
    assert pixels is not None
    return pixels


def bound(embedder: EmbedderProcess) -> float:
    return EXACT if embedder.status().dtype == "fp32" else CLOSE


def test_the_vector_of_a_png_is_openclips_own(embedder: EmbedderProcess, reference: Reference) -> None:
    for seed in range(4):
        vector = embedder.embed_pictures([pixels_of(embedder, encoded(seed, "PNG"))]).result(60)[0]
        expected = reference.picture(picture(seed))
        assert cosine(vector, expected) >= bound(embedder)
        assert cosine(vector, reference.picture(ImageOps.mirror(picture(seed)))) < bound(embedder)


def test_the_vector_of_a_large_jpeg_is_close_to_openclips_own(
    embedder: EmbedderProcess, reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    picture(5, (4000, 2800)).save(path, quality=90)
    with Image.open(path) as image:
        expected = reference.picture(image)
        mirrored = reference.picture(ImageOps.mirror(image))
    vector = embedder.embed_pictures([pixels_of(embedder, path.read_bytes())]).result(60)[0]
    assert cosine(vector, expected) >= CLOSE
    assert cosine(vector, mirrored) < CLOSE


def test_the_vector_of_a_turned_photo_is_that_of_the_upright_one(
    embedder: EmbedderProcess, reference: Reference, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    picture(6).rotate(90, expand=True).save(path, exif=exif)
    vector = embedder.embed_pictures([pixels_of(embedder, path.read_bytes())]).result(60)[0]
    assert cosine(vector, reference.picture(picture(6))) >= bound(embedder)


def test_the_vectors_of_prompts_are_openclips_own(embedder: EmbedderProcess, reference: Reference) -> None:
    expected = reference.prompts(PROMPTS)
    for some in (slice(0, 3), slice(3, 4), slice(4, 5), slice(None)):
        rows = embedder.embed_prompts(PROMPTS[some]).result(60)
        for row, own in zip(rows, expected[some], strict=True):
            assert cosine(row, own) >= bound(embedder)
    assert cosine(expected[0], expected[1]) < bound(embedder)


def test_vectors_are_the_same_alone_and_in_a_batch(embedder: EmbedderProcess) -> None:
    pixels = [pixels_of(embedder, encoded(seed, "PNG")) for seed in range(5)]
    together = embedder.embed_pictures(pixels).result(60)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    for one, row in zip(pixels, together, strict=True):
        assert cosine(embedder.embed_pictures([one]).result(60)[0], row) >= bound(embedder)


def test_a_stored_vector_is_openclips_own(
    embedder: EmbedderProcess, reference: Reference, tmp_path: Path
) -> None:
    assert embedder.info is not None
    vector = embedder.embed_pictures([pixels_of(embedder, encoded(1, "PNG"))]).result(60)[0]
    record = ImageRecord(
        "a" * 32, "/a.png", Signature(1, 2, 3, 4, 5), "hash", Metadata(), "2026-01-01T00:00:00Z"
    )
    store = open_store("lance", str(tmp_path / "store"))
    store.bind(embedder.info)
    store.apply(Batch(upserts=(StoredPicture(record, vector),)))
    (stored,) = store.get([record.id])
    store.close()
    assert stored.vector is not None
    assert cosine(stored.vector, reference.picture(picture(1))) >= bound(embedder)


@pytest.fixture
def stub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that loads in no time, for what is not about vectors."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("stub")))
    (tmp_path / "open_clip_config.json").write_text("{}")
    return f"local-dir:{tmp_path}"


@pytest.fixture
def slow_model(stub_model: str, tmp_path: Path) -> str:
    """A tenth of a second for a picture."""
    (tmp_path / "open_clip_config.json").write_text('{"seconds": 0.1}')
    return stub_model


def test_a_prompt_overtakes_pictures_that_wait(stub_model: str) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu", dtype="fp32")
    try:
        embedder.load().result(120)
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        order: list[str] = []
        futures: list[Any] = []
        for number in range(20):
            future = embedder.embed_pictures([pixels] * 64)
            future.add_done_callback(lambda _, n=number: order.append(f"batch {n}"))
            futures.append(future)
        query = embedder.embed_pictures([pixels], Priority.QUERY_PICTURE)
        query.add_done_callback(lambda _: order.append("query picture"))
        prompt = embedder.embed_prompts(["a dog"])
        prompt.add_done_callback(lambda _: order.append("prompt"))
        for future in (*futures, query, prompt):
            future.result(60)
        assert order.index("prompt") < order.index("query picture") < order.index("batch 19")
        assert embedder.embeds_total == 20 * 64 + 1
    finally:
        embedder.close()


def test_a_model_that_is_killed_comes_back_and_answers(stub_model: str) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        first = embedder.embed_prompts(["a dog"]).result(120)
        assert embedder._child is not None
        embedder._child.process.kill()
        assert np.array_equal(embedder.embed_prompts(["a dog"]).result(120), first)
        embedder._child.process.kill()
        embedder._child.process.wait()
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        assert (
            len(embedder.embed_pictures([pixels] * 4).result(120)) == 4
        )  # no batch was in work: none is shorter
    finally:
        embedder.close()


def killed_soon(embedder: EmbedderProcess, seconds: float = 0.0) -> None:
    """Kill the model's process, once there is one, this long after."""
    deadline = time.monotonic() + 30
    while embedder._child is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(seconds)
    embedder._child.process.kill()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2])
def test_a_model_that_is_killed_while_it_loads_is_loaded_again(stub_model: str, seconds: float) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        prompt = embedder.embed_prompts(["a dog"])
        killed_soon(embedder, seconds)
        assert prompt.result(120).shape == (1, 64)
        assert embedder.status().state is ModelState.READY
    finally:
        embedder.close()


def test_a_model_that_dies_whenever_it_is_loaded_comes_with_advice_that_fits_and_the_next_try(
    stub_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.embedder.python", lambda *_: ["sh", "-c", "kill -9 $$"])
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        with pytest.raises(ModelUnavailableError, match=r"died twice while it loaded \(exit status -9"):
            embedder.load().result(120)
        status = embedder.status()
        assert re.search(r"The next try is at \d\d:\d\d:\d\d\.$", str(status.reason))
        assert "memory" in status.help[0]
        assert not any("pull" in way for way in status.help)
    finally:
        embedder.close()


def test_a_stop_while_a_model_loads_is_no_death_of_it(
    slow_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = EmbedderProcess(slow_model, device="cpu")
    prompt = embedder.embed_prompts(["a dog"])
    while embedder._child is None:
        time.sleep(0.001)
    embedder.close()
    with pytest.raises(EmbedderError, match="stopping"):
        prompt.result(10)
    assert not caplog.records


def test_a_batch_for_which_the_model_was_killed_is_tried_again_in_shorter_ones(slow_model: str) -> None:
    """A kill is what the kernel does when memory runs out."""
    embedder = EmbedderProcess(slow_model, device="cpu")
    try:
        embedder.load().result(120)
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        batch = embedder.embed_pictures([pixels] * 4)
        killed_soon(embedder, 0.1)
        with pytest.raises(EmbedderError, match="killed"):
            batch.result(60)
        assert embedder.batch_size <= 2
        assert embedder.embed_pictures([pixels] * 2).result(60).shape == (2, 64)
        single = embedder.embed_pictures([pixels])
        killed_soon(embedder, 0.05)
        assert single.result(60).shape == (1, 64)  # nothing shorter than that: the same once more
    finally:
        embedder.close()


def test_batches_are_shorter_for_a_while_when_a_device_says_it_is_full(
    stub_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.embedder.SHORT_BATCHES", 3)
    # How fast it is bounds a batch as well, and a busy machine is slow.
    monkeypatch.setattr("imagedbd.embedder.BATCH_SECONDS", 3600.0)
    Path(stub_model.removeprefix("local-dir:"), "open_clip_config.json").write_text('{"room": 8}')
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        for number in (1, 64, 32, 16, 8):
            answer = embedder.embed_pictures([pixels] * number)
            if number > 8:
                with pytest.raises(EmbedderError, match="out of memory"):
                    answer.result(120)
                assert embedder.batch_size == number // 2
            else:
                assert len(answer.result(120)) == number
        embedder.embed_pictures([pixels]).result(60)
        embedder.embed_pictures([pixels]).result(60)
        assert embedder.batch_size == 16
    finally:
        embedder.close()


def test_an_answer_with_too_few_vectors_is_an_error(stub_model: str) -> None:
    Path(stub_model.removeprefix("local-dir:"), "open_clip_config.json").write_text('{"drops": true}')
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        with pytest.raises(EmbedderError, match="3 requests"):
            embedder.embed_pictures([pixels] * 3).result(120)
    finally:
        embedder.close()


def test_a_stopped_model_does_not_hold_up_closing(stub_model: str) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu")
    embedder.load().result(120)
    assert embedder._child is not None
    embedder._child.process.send_signal(signal.SIGSTOP)
    waiting = embedder.embed_prompts(["a dog"])
    embedder.close()
    with pytest.raises(EmbedderError):
        waiting.result(0)


@pytest.mark.parametrize("wish", [None, "ACTIVE"])
def test_the_threads_of_the_model_spin_shortly_unless_somebody_wants_something_else(
    stub_model: str, monkeypatch: pytest.MonkeyPatch, wish: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    if wish:
        monkeypatch.setenv("OMP_WAIT_POLICY", wish)
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        embedder.load().result(120)
        assert embedder._child is not None
        environment = Path(f"/proc/{embedder._child.process.pid}/environ").read_bytes().split(b"\0")
        assert (b"GOMP_SPINCOUNT=1000" in environment) == (wish is None)
        assert (b"OMP_WAIT_POLICY=ACTIVE" in environment) == (wish is not None)
    finally:
        embedder.close()


def test_an_idle_model_leaves_and_is_back_for_the_next_prompt(stub_model: str) -> None:
    ready = []
    embedder = EmbedderProcess(stub_model, device="cpu", ttl_s=0.2, on_ready=lambda: ready.append(True))
    try:
        embedder.embed_prompts(["a dog"]).result(120)
        deadline = time.monotonic() + 30
        while embedder.status().state is not ModelState.UNLOADED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert embedder._child is None
        assert embedder.embed_prompts(["a dog"]).result(120).shape == (1, 64)
        assert len(ready) == 2
    finally:
        embedder.close()


def test_an_idle_model_that_was_to_stay_leaves_when_it_is_told_to(stub_model: str) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu", ttl_s=0)
    try:
        embedder.embed_prompts(["a dog"]).result(120)
        embedder.keep_for(0.1, keep_text=False)
        deadline = time.monotonic() + 30
        while embedder.status().state is not ModelState.UNLOADED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        embedder.close()


def test_what_embeds_prompts_may_stay_when_the_rest_of_an_idle_model_leaves(stub_model: str) -> None:
    ready = []
    embedder = EmbedderProcess(
        stub_model, device="cpu", ttl_s=1.0, keep_text=True, on_ready=lambda: ready.append(True)
    )
    try:
        before = embedder.embed_prompts(["a dog"]).result(120)
        deadline = time.monotonic() + 30
        while not embedder.status().only_prompts:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert embedder.status().state is ModelState.READY
        time.sleep(1.5)  # no second time to live takes the rest
        assert (embedder.embed_prompts(["a dog"]).result(120) == before).all()
        assert (len(ready), embedder.status().only_prompts) == (1, True)
        assert embedder.embed_pictures([np.zeros((64, 64, 3), dtype=np.uint8)]).result(120).shape == (1, 64)
        assert (len(ready), embedder.status().only_prompts) == (2, False)
        embedder.keep_for(0.1, keep_text=False)
        while embedder.status().state is not ModelState.UNLOADED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        embedder.close()


@pytest.mark.parametrize("how", ["fails", "dies"])
def test_a_model_that_cannot_give_up_a_part_leaves_whole_and_comes_back(
    stub_model: str, tmp_path: Path, how: str
) -> None:
    (tmp_path / "open_clip_config.json").write_text(f'{{"giving_up": "{how}"}}')
    embedder = EmbedderProcess(stub_model, device="cpu", ttl_s=0.1, keep_text=True)
    try:
        for _ in range(2):
            assert embedder.embed_prompts(["a dog"]).result(120).shape == (1, 64)
            deadline = time.monotonic() + 30
            while embedder.status().state is not ModelState.UNLOADED:
                assert not embedder.status().only_prompts
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert embedder._child is None
    finally:
        embedder.close()


def test_a_request_that_fails_in_the_model_fails_alone(stub_model: str) -> None:
    embedder = EmbedderProcess(stub_model, device="cpu")
    try:
        wrong_size = np.zeros((10, 10, 3), dtype=np.uint8)
        with pytest.raises(EmbedderError):
            embedder.embed_pictures([wrong_size]).result(120)
        assert embedder.embed_prompts(["a dog"]).result(60).shape == (1, 64)
    finally:
        embedder.close()


REFUSED = """
import sys
from multiprocessing import Pipe
from imagedbd.embedder_worker import serve

for spec in sys.argv[1:]:
    ours, theirs = Pipe()
    serve(theirs, spec, "cpu", "auto")
    print(ours.recv().reason)
"""


def test_why_a_model_cannot_be_had_is_told(tmp_path: Path) -> None:
    """By one process, which loads OpenCLIP once."""
    reasons = {
        "ViT-B-16/laion2b_s34b_b88k": "not on this machine",
        "ViT-B-61/openai": "Did you mean",
        "ViT-B-16/nonsense": "laion2b_s34b_b88k",
        "local-dir:/nowhere": "cannot be loaded",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REFUSED, *reasons],
        env=environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)),
        capture_output=True,
        check=True,
        text=True,
        timeout=100,
    )
    for told, reason in zip(done.stdout.splitlines(), reasons.values(), strict=True):
        assert reason in told


@pytest.mark.parametrize(
    ("spec", "reason", "way"),
    [
        ("ViT-B-16/laion2b_s34b_b88k", "not on this machine", "model pull ViT-B-16/laion2b_s34b_b88k"),
        ("ViT-B-61/openai", "Did you mean", "imagedb model list"),
        ("local-dir:/nowhere", "cannot be loaded", "put an OpenCLIP checkpoint into /nowhere"),
    ],
)
def test_a_model_that_cannot_be_had_is_a_state_with_a_reason(
    spec: str, reason: str, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    embedder = EmbedderProcess(spec, device="cpu")
    try:
        with pytest.raises(ModelUnavailableError, match="imagedb model use demo"):
            embedder.load().result(120)
        status = embedder.status()
        assert status.state is ModelState.UNAVAILABLE
        assert reason in (status.reason or "")
        assert way in status.help[0]
        with pytest.raises(ModelUnavailableError):
            embedder.embed_prompts(["a dog"]).result(1)
    finally:
        embedder.close()


def test_other_weights_than_those_of_the_store_are_refused(stub_model: str) -> None:
    first = EmbedderProcess(stub_model, device="cpu")
    first.load().result(120)
    info = first.info
    first.close()
    assert info is not None
    second = EmbedderProcess(stub_model, device="cpu", expected=replace(info, weights_hash="other"))
    try:
        with pytest.raises(ModelUnavailableError, match="not those"):
            second.load().result(120)
        assert second.info == replace(info, weights_hash="other")
    finally:
        second.close()


def test_closing_fails_what_still_waits(checkpoint: Path) -> None:
    embedder = EmbedderProcess(f"local-dir:{checkpoint}", device="cpu")
    waiting = embedder.embed_prompts(["a dog"])
    time.sleep(0.5)
    embedder.close()
    with pytest.raises((EmbedderError, ModelUnavailableError)):
        waiting.result(10)


def test_the_daemons_half_loads_no_torch() -> None:
    assert "imagedbd.embedder" in sys.modules
    program = "import sys, imagedbd.daemon; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_index_from_before_colour_profiles_goes_on_without_them(stub_model: str) -> None:
    first = EmbedderProcess(stub_model, device="cpu")
    first.load().result(120)
    info = first.info
    first.close()
    assert info is not None
    assert info.preprocess.to_srgb
    former = replace(info, preprocess=replace(info.preprocess, to_srgb=False))
    second = EmbedderProcess(stub_model, device="cpu", expected=former)
    try:
        second.load().result(120)
        assert second.info == former
    finally:
        second.close()
