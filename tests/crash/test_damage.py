"""Each file of a store in turn is damaged: that is told, or nothing is lost; never fewer rows in silence."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_rows import MODEL, picture, record, vector

from imagedbd.datatypes import Batch
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.stores import KINDS, open_store
from imagedbd.stores.salvage import save_rows

pytestmark = pytest.mark.in_memory

ROWS = 40
MOST = 36
SOME = 12
HOLDS_ROWS = re.compile(r"data/[^/]*$|metadata-|journal-")
"""Files that take rows with them when they go."""


@dataclass(frozen=True)
class Sound:
    folder: str
    contents: object


TOLERATED = ("latest_version_hint.json", "spare/manifest.json")
"""Files whose damage changes nothing: a hint that is not trusted, and a copy that is written anew."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def sound(kind, tmp_path_factory):
    """A store with all that there is: compacted and fresh rows, deletions, both indices, old versions."""
    folder = os.fspath(tmp_path_factory.mktemp("sound") / "store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"imagedbd.stores.{kind}.INDEX_FROM", 20)
        store = open_store(kind, folder, exclusive=True)
        store.bind(MODEL)
        for number in range(10):
            store.apply(Batch(upserts=tuple(picture(f"a{number}-{n}", number * 3 + n + 1) for n in range(3))))
        store.maintain(idle=True)
        store.apply(Batch(deletes=("a3-1", "a4-1")))
        store.apply(Batch(upserts=tuple(picture(f"b{n}", 50 + n) for n in range(10))))
        store.apply(
            Batch(upserts=(picture("b10", 60), picture("b11", 61)), patches=(record("a0-0", mark=7),))
        )
        assert store.count() == ROWS
        expected = contents(store)
        store.close()
    return Sound(folder, expected)


def files(folder):
    return sorted(os.path.relpath(os.path.join(at, n), folder) for at, _, ns in os.walk(folder) for n in ns)


def one_of_each_sort(folder):
    """By the folder that they are in and how their names end; of data, the largest."""
    by_size = sorted(files(folder), key=lambda name: os.path.getsize(os.path.join(folder, name)))
    return list({(re.sub("[^/]*/[^/]*$", "", n), n.rpartition(".")[2]): n for n in by_size}.values())


def halve(path):
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path):
    os.truncate(path, 0)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def contents(store):
    """All that the store can be asked for, so that what one reading hides another shows."""
    return (
        {r.id: r for r in store.scan()},
        {p.record.id for p in store.pictures()},
        store.count(),
        {m.id for m in store.nearest(vector(1), 1_000)},
        {m.id for m in store.matching(["dog"], 1_000)},
    )


def opened(kind, folder):
    """What an opening gave: the contents, or the fault that it told."""
    try:
        store = open_store(kind, folder, exclusive=True)
    except StoreUnreadableError as error:
        return error
    try:
        return contents(store)
    finally:
        store.close()


def names_the_repair(found):
    return isinstance(found, StoreUnreadableError) and "imagedbd repair" in found.message


@pytest.mark.parametrize("damage", [halve, empty, zero, os.remove])
def test_a_damaged_file_is_told_when_the_store_is_opened(damage, kind, sound, tmp_path, caplog):
    for number, name in enumerate(files(sound.folder)):
        caplog.clear()
        copy = Path(shutil.copytree(sound.folder, tmp_path / str(number)))
        damage(copy / name)
        found = opened(kind, os.fspath(copy))
        told = names_the_repair(found) or re.search("is taken back|is made anew", caplog.text)
        assert told or found == sound.contents, name
        assert told or name.endswith(TOLERATED), f"nothing was said of {name}"
        shutil.rmtree(copy)


@pytest.mark.parametrize("place", [0, 0.37, 0.5, 0.81, 1])
def test_a_flipped_bit_is_found_by_scrubbing(kind, sound, tmp_path, place):
    for number, name in enumerate(files(sound.folder)):
        copy = Path(shutil.copytree(sound.folder, tmp_path / str(number)))
        store = open_store(kind, os.fspath(copy), exclusive=True)
        assert [fault for fault in store.scrub() if fault] == []
        flip(copy / name, place)
        faults = [fault for fault in store.scrub() if fault]
        assert all("imagedbd repair" in fault.message for fault in faults)
        assert faults or name.endswith(TOLERATED), name
        store.close()
        shutil.rmtree(copy)


def test_large_files_are_read_whole_by_a_scrub_and_by_their_ends_at_opening(kind, tmp_path):
    folder = tmp_path / "store"
    store = open_store(kind, os.fspath(folder), exclusive=True)
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(3_000))))
    path = folder / max(files(folder), key=lambda name: (folder / name).stat().st_size)
    assert path.stat().st_size > 200_000
    flip(path, 0.5)
    (fault,) = [fault for fault in store.scrub() if fault]
    assert os.fspath(path) in fault.message
    store.close()
    if kind == "faiss":  # what is whole in memory is written anew before it is closed
        assert len(opened(kind, os.fspath(folder))[0]) == 3_000
        path = folder / max(files(folder), key=lambda name: (folder / name).stat().st_size)
    flip(path, 0.01)
    assert names_the_repair(opened(kind, os.fspath(folder)))


def test_scrubbing_beside_a_writer_that_cleans_up_finds_nothing(kind, tmp_path):
    store = open_store(kind, os.fspath(tmp_path / "store"), exclusive=True)
    store.bind(MODEL)
    for number in range(30):
        scrub = store.scrub()
        faults = [next(scrub, None) for _ in range(4)]
        store.apply(Batch(upserts=(picture(f"p{number}", number),)))
        store.maintain(idle=True)
        assert [fault for fault in (*faults, *scrub) if fault] == []
    store.close()


@pytest.mark.parametrize(
    "damage", [halve, zero, os.remove, lambda path: flip(path, 0.4)], ids=["half", "zeros", "missing", "flip"]
)
def test_what_can_be_read_is_saved(damage, kind, sound, tmp_path):
    for number, name in enumerate(one_of_each_sort(sound.folder)):
        copy = Path(shutil.copytree(sound.folder, tmp_path / str(number)))
        damage(copy / name)
        saved, lost = save_rows(kind, os.fspath(copy), os.fspath(tmp_path / "fresh"))
        store = open_store(kind, os.fspath(tmp_path / "fresh"), exclusive=True)
        rows, whole, count, near, worded = contents(store)
        with_vector = {p.record.id for p in store.pictures() if p.vector is not None}
        assert set(rows) == whole == worded
        assert near == with_vector
        assert near == whole or name.startswith(("vectors-", "metadata-", "journal-"))
        assert len(rows) == count == saved
        assert saved >= MOST or HOLDS_ROWS.search(name), name
        assert saved >= SOME
        assert lost is not None or kind == "faiss"
        unchanged = {key for key, row in rows.items() if sound.contents[0].get(key) == row}
        assert len(unchanged) >= saved - 3, "of rows that were deleted or replaced since a few may be back"
        assert store.model == MODEL
        store.close()
        shutil.rmtree(copy)


def test_a_flipped_bit_never_becomes_another_row(kind, tmp_path):
    """Whatever a damaged file makes of a row: it is as it was, or it is left out."""
    folder = tmp_path / "store"
    store = open_store(kind, os.fspath(folder), exclusive=True)
    store.bind(MODEL)
    store.apply(Batch(upserts=tuple(picture(f"p{n:03}", n + 1) for n in range(300))))
    store.close()
    data = max(files(folder), key=lambda name: (folder / name).stat().st_size)
    for number in range(6):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        content = bytearray((copy / data).read_bytes())
        content[number * 4096 : number * 4096 + 512] = bytes(512)
        (copy / data).write_bytes(content)
        saved, _ = save_rows(kind, os.fspath(copy), os.fspath(tmp_path / "fresh"))
        store = open_store(kind, os.fspath(tmp_path / "fresh"))
        for found in store.pictures():
            expected = picture(found.record.id, int(found.record.id[1:]) + 1)
            assert found.record.path == expected.record.path
            assert float(found.vector @ expected.vector) > 0.99
        print(number, saved)
        store.close()


@pytest.fixture(scope="module")
def hollow(tmp_path_factory):
    """A Lance store whose largest file is damaged everywhere but at its ends; and that file's name."""
    folder = tmp_path_factory.mktemp("hollow") / "store"
    store = open_store("lance", os.fspath(folder), exclusive=True)
    store.bind(MODEL)
    for start in range(0, 3_000, 300):
        store.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(start, start + 300))))
    store.maintain(idle=True)
    for n in range(10):
        store.apply(Batch(upserts=(picture(f"q{n}", n),)))
    store.close()
    data = folder / max(files(folder), key=lambda name: (folder / name).stat().st_size)
    content = bytearray(data.read_bytes())
    content[17_000:-17_000] = bytes(255 - byte for byte in content[17_000:-17_000])
    data.write_bytes(content)
    return folder, data.relative_to(folder)


@pytest.mark.parametrize("asked", ["pictures", "nearest", "matching", "get", "maintain"])
def test_damage_between_the_ends_of_a_file_is_suspected_by_the_first_read_that_fails(asked, hollow, tmp_path):
    """No engine's error gets through as it is, a panic's neither; and each names what mends it."""
    folder, data, doubts = shutil.copytree(hollow[0], tmp_path / "store"), hollow[1], []
    store = open_store("lance", os.fspath(folder), exclusive=True, on_doubt=lambda: doubts.append(asked))
    ask = {
        "pictures": lambda: list(store.pictures()),
        "nearest": lambda: store.nearest(vector(1), 10),
        "matching": lambda: store.matching(["dog"], 10),
        "get": lambda: store.get([f"p{n}" for n in range(0, 3_000, 10)]),
        "maintain": lambda: store.maintain(idle=True),
    }[asked]
    with pytest.raises(StoreError, match="If that is damage, `imagedbd repair` mends it") as told:
        ask()
    assert ".rs:" not in told.value.message
    assert doubts
    assert any(fault and os.fspath(folder / data) in fault.message for fault in store.scrub())
    store.close()
