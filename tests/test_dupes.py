"""Which pictures are there more than once: real files, decoders and stores, and vectors of likeness."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import INFO
from pictures import picture
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from imagedbd import dupes
from imagedbd.datatypes import Batch, ImageRecord, Metadata, Preprocess, Store, StoredPicture, Under
from imagedbd.decoder import Decoder
from imagedbd.dupes import Hunt, Tier
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from imagedbd.datatypes import Condition, Vector

pytestmark = pytest.mark.in_memory

PREPROCESS = Preprocess(64, 64, resize_mode="squash")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(2) as decoder:
        yield decoder


@pytest.fixture(params=["lance", "faiss"])
def index(request: pytest.FixtureRequest, decoder: Decoder, tmp_path: Path) -> Iterator[Index]:
    index = Index(open_store(request.param, str(tmp_path / "store")), decoder, tmp_path / "photos")
    yield index
    index.store.close()


class Index:
    """A store of pictures that are in a folder."""

    def __init__(self, store: Store, decoder: Decoder, photos: Path) -> None:
        self.store, self.decoder, self.photos = store, decoder, photos
        store.bind(replace(INFO, dimension=48))

    def add(
        self,
        name: str,
        image: Image.Image | bytes,
        *,
        bare: bool = False,
        as_like: Vector | None = None,
        **known: Any,
    ) -> Vector:
        """Write and index a picture; keywords beside these are fields of its record, or Pillow's options."""
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {key: known.pop(key) for key in ("taken_at", "camera_make", "camera_model") if key in known}
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **known)
        decoded = self.decoder.submit(str(path), frozenset(), PREPROCESS).result()
        metadata = replace(decoded.metadata, **told)
        record = ImageRecord(
            name, str(path), decoded.signature, decoded.content_hash, metadata, "2026-01-01T00:00:00Z"
        )
        assert decoded.pixels is not None
        blocks = decoded.pixels.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3)).ravel() - 100
        vector = (blocks / np.linalg.norm(blocks)).astype(np.float32) if as_like is None else as_like
        self.store.apply(Batch(upserts=(StoredPicture(record, None if bare else vector),)))
        return vector

    def hunt(self, *tiers: Tier, condition: Condition | None = None) -> Hunt:
        @contextmanager
        def opened() -> Iterator[Store]:
            yield self.store

        return Hunt(opened, self.decoder, condition, tiers or Tier)

    def groups(self, *tiers: Tier, condition: Condition | None = None) -> dict[str, list[list[str]]]:
        """Names of files by tier."""
        found: dict[str, list[list[str]]] = {}
        for group in self.hunt(*tiers, condition=condition).run().groups:
            found.setdefault(group.tier, []).append(
                [p.path[len(str(self.photos)) + 1 :] for p in group.pictures]
            )
        return found


def scene(seed: int, size: tuple[int, int] = (800, 600)) -> Image.Image:
    """Something with the soft edges of a photograph."""
    return picture(seed, size).filter(ImageFilter.GaussianBlur(3))


def test_files_with_the_same_bytes_are_identical(index: Index) -> None:
    index.add("a.jpg", scene(1))
    data = (index.photos / "a.jpg").read_bytes()
    index.add("b/copy.jpg", data)
    index.add("b/another.jpg", data, bare=True)
    index.add("c.jpg", scene(2))
    assert index.groups() == {"identical": [["a.jpg", "b/another.jpg", "b/copy.jpg"]]}


def test_copies_that_were_re_encoded_or_resized_are_the_same_and_the_largest_comes_first(
    index: Index,
) -> None:
    original = scene(3)
    index.add("a small.jpg", original.resize((200, 150)), quality=70)
    index.add("b.png", original)
    index.add("c poor.jpg", original, quality=25)
    index.add("d.webp", original.resize((640, 480)), quality=60)
    for seed in range(10, 16):
        index.add(f"other {seed}.jpg", scene(seed))
    assert index.groups() == {"same": [["b.png", "c poor.jpg", "d.webp", "a small.jpg"]]}


def test_what_only_resembles_is_not_the_same(index: Index) -> None:
    """Its vector says nothing against it, so its pixels must."""
    original = scene(4)
    vector = index.add("a.jpg", original)
    changed = original.copy()
    ImageDraw.Draw(changed).ellipse((300, 200, 420, 320), fill="white")
    alike = {
        "mirrored.jpg": original.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "shifted.jpg": original.crop((16, 12, 800, 600)).resize((800, 600)),
        "changed.jpg": changed,
        "brighter.jpg": ImageEnhance.Brightness(original).enhance(1.3),
        "grey.jpg": original.convert("L"),
        "stretched.jpg": original.resize((800, 500)),
    }
    for name, image in alike.items():
        index.add(name, image, as_like=vector)
    assert index.groups() == {}


def test_copies_have_the_same_date_or_none(index: Index) -> None:
    original = scene(5)
    index.add("a.png", original, taken_at="2024-05-01T12:00:00")
    index.add("no date.jpg", original)
    index.add("with zone.jpg", original.resize((400, 300)), taken_at="2024-05-01T12:00:00+02:00")
    index.add("later.bmp", original, taken_at="2024-05-01T12:00:09")
    (group,) = index.groups()["same"]
    assert {"a.png", "no date.jpg", "with zone.jpg"} <= set(group)


def test_a_burst_is_of_one_camera_within_seconds_and_alike(index: Index) -> None:
    base = scene(6)
    camera = {"camera_make": "NIKON", "camera_model": "Z 6"}
    for second, shift in enumerate((0, 24, 48)):
        frame = base.crop((shift, 0, 700 + shift, 600))
        index.add(f"{second}.jpg", frame, taken_at=f"2024-05-01T12:00:0{second}", **camera)
    index.add(
        "export of 1.jpg",
        base.crop((24, 0, 724, 600)).resize((350, 300)),
        taken_at="2024-05-01T12:00:01",
        **camera,
    )
    index.add("much later.jpg", base.crop((60, 0, 760, 600)), taken_at="2024-05-01T12:01:00", **camera)
    index.add("unlike.jpg", scene(60), taken_at="2024-05-01T12:00:03", **camera)
    index.add(
        "other camera.jpg", base.crop((72, 0, 772, 600)), taken_at="2024-05-01T12:00:02", camera_model="X100"
    )
    assert index.groups() == {"same": [["1.jpg", "export of 1.jpg"]], "burst": [["0.jpg", "1.jpg", "2.jpg"]]}


def test_two_shots_of_one_second_are_a_burst_and_not_copies(index: Index) -> None:
    base = scene(7)
    shot = {"camera_model": "X100", "taken_at": "2024-05-01T12:00:00"}
    index.add("0.jpg", base.crop((0, 0, 700, 600)), **shot)
    index.add("1.jpg", base.crop((4, 0, 704, 600)), **shot)
    assert index.groups() == {"burst": [["0.jpg", "1.jpg"]]}


def test_only_the_tiers_and_the_folder_that_were_asked_for(index: Index) -> None:
    original = scene(8)
    for folder in "xy":
        index.add(f"{folder}/a.png", original)
        index.add(f"{folder}/b.jpg", original, quality=50)
    assert index.groups(Tier.IDENTICAL) == {"identical": [["x/a.png", "y/a.png"], ["x/b.jpg", "y/b.jpg"]]}
    assert index.groups(Tier.SAME) == {"same": [["x/b.jpg", "x/a.png"]]}
    inside = Under(str(index.photos / "y"))
    assert index.groups(condition=inside) == {"same": [["y/b.jpg", "y/a.png"]]}


def test_what_could_not_be_made_sure_of_is_counted(index: Index) -> None:
    original = scene(9)
    index.add("a.png", original)
    index.add("gone.jpg", original)
    index.add("waiting.jpg", original.resize((400, 300)), bare=True)
    (index.photos / "gone.jpg").unlink()
    found = index.hunt().run()
    assert (found.groups, found.looked_at, found.unseen, found.bare) == ((), 3, 1, 1)


def test_an_index_without_a_model_is_compared_byte_by_byte(decoder: Decoder, tmp_path: Path) -> None:
    store = open_store("faiss", str(tmp_path / "store"))
    signature = decoder.submit(str(_saved(tmp_path / "a.png")), frozenset(), None).result().signature
    rows = (ImageRecord(key, f"/p/{key}", signature, "h", Metadata(), "2026-01-01T00:00:00Z") for key in "ab")
    store.apply(Batch(upserts=tuple(StoredPicture(row) for row in rows)))

    @contextmanager
    def opened() -> Iterator[Store]:
        yield store

    found = Hunt(opened, decoder, None, Tier).run()
    assert [group.tier for group in found.groups] == [Tier.IDENTICAL]
    assert found.bare == 1
    store.close()


def _saved(path: Path) -> Path:
    picture(1).save(path)
    return path


def test_a_hunt_that_nobody_waits_for_ends(index: Index) -> None:
    index.add("a.jpg", scene(1))
    index.add("b.jpg", scene(2))
    hunt = index.hunt()
    hunt.stop()
    with pytest.raises(CancelledError):
        hunt.run()


def test_many_pictures_are_compared_by_lists(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are found among so many others that not every pair is compared."""
    monkeypatch.setattr(dupes, "FEW", 100)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3_000, 48)).astype(np.float32)
    rows[1_500:1_600] = rows[:100] + 0.05 * rng.standard_normal((100, 48))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    signature = (
        index.decoder.submit(str(_saved(index.photos.parent / "a.png")), frozenset(), None).result().signature
    )
    known = Metadata(width=640, height=480)
    index.store.apply(
        Batch(
            upserts=tuple(
                StoredPicture(
                    ImageRecord(f"{n:04}", f"/p/{n}", signature, f"h{n}", known, "2026-01-01T00:00:00Z"), row
                )
                for n, row in enumerate(rows)
            )
        )
    )
    hunt = index.hunt()
    pictures = hunt._records()
    pairs, bare = hunt._near_pairs(pictures)
    assert bare == 0
    assert {(int(one.id), int(other.id)) for one, other in pairs} >= {(n, n + 1_500) for n in range(100)}
    assert hunt.step.done == hunt.step.total == 3_000


def test_how_far_it_is_can_be_read_meanwhile(index: Index) -> None:
    for seed in range(5):
        index.add(f"{seed}.png", scene(seed, (320, 240)))
        index.add(f"{seed}.jpg", scene(seed, (320, 240)))
    hunt = index.hunt()
    steps = set()
    thread = threading.Thread(target=hunt.run)
    thread.start()
    while thread.is_alive():
        steps.add(hunt.step.name)
    assert "looking at pictures" in steps
