"""What every store does, whichever answers."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from imagedbd.datatypes import (
    Batch,
    Compare,
    ImageRecord,
    Metadata,
    ModelInfo,
    Preprocess,
    Signature,
    StoredPicture,
    Under,
)
from imagedbd.errors import ConfigError, StoreError, StoreUnreadableError
from imagedbd.metadata import searchable_text
from imagedbd.stores import KINDS, lance_service, open_store
from imagedbd.stores.manifest import read_manifest, write_manifest

pytestmark = pytest.mark.in_memory

REMOTE = "lance-s3"
"""The store on LanceDB in an S3 bucket."""

DIMENSION = 32
MODEL = ModelInfo("tiny/demo", "abc", DIMENSION, Preprocess(8, 8, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))


def record(key, path=None, *, content_hash=None, metadata=None, inode=1):
    return ImageRecord(
        id=key,
        path=path or f"/photos/{key}.jpg",
        signature=Signature(2, inode, 1234, 1_700_000_000_123_456_789, 1_700_000_001_000_000_001),
        content_hash=content_hash or f"hash-of-{key}",
        metadata=metadata or Metadata(width=640, keywords=("Dog", "Zürich")),
        indexed_at="2024-05-01T12:00:00Z",
    )


def vector(seed):
    v = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return v / np.linalg.norm(v)


def picture(key, seed=None, **fields):
    return StoredPicture(record(key, **fields), None if seed is None else vector(seed))


def upsert(store, *pictures):
    store.apply(Batch(upserts=pictures))


def everything(store):
    return {r.id: r for r in store.scan()}


def ids(matches):
    return [match.id for match in matches]


@pytest.fixture(params=[*KINDS, REMOTE])
def kind(request):
    if request.param == REMOTE and request.node.get_closest_marker("local"):
        pytest.skip("about files of this machine")
    return request.param


@pytest.fixture
def folder(kind, tmp_path, request, monkeypatch):
    """Where the store is: a folder, or an address."""
    if kind != REMOTE:
        return os.fspath(tmp_path / "store")
    monkeypatch.setattr(lance_service, "FIRST_WAIT_S", 0)
    return request.getfixturevalue("s3").bucket()


@pytest.fixture
def opened(kind, request):
    """Opens the store of the kind in a place."""

    def open_it(place, **how):
        if kind == REMOTE:
            return open_store("lance", place, options=request.getfixturevalue("s3").options, **how)
        return open_store(kind, place, **how)

    return open_it


@pytest.fixture
def store(opened, folder):
    store = opened(folder)
    yield store
    store.close()


@pytest.fixture
def bound(store):
    store.bind(MODEL)
    return store


@pytest.fixture
def reopened(opened, folder):
    """Closes a store, and opens it again."""

    def reopen(store, *, exclusive=False):
        store.close()
        return opened(folder, exclusive=exclusive)

    return reopen


# Opening.


def test_an_unknown_store_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'redis'"):
        open_store("redis", os.fspath(tmp_path))


def test_a_new_store_is_empty_and_answers(store):
    assert store.model is None
    assert store.count() == 0
    assert list(store.scan()) == []
    assert store.get(["a"]) == []
    assert store.matching(["dog"], 10) == []
    assert store.nearest(vector(0), 10) == []
    assert store.find_vector("x") is None
    assert store.find_vectors(["x"]) == {}
    store.maintain()
    store.maintain(idle=True)
    assert store.stats().rows == 0


def test_a_bound_empty_store_answers(bound):
    assert bound.nearest(vector(0), 10) == []
    assert bound.matching(["dog"], 10) == []
    assert bound.find_vector("x") is None
    assert (bound.stats().rows, bound.stats().vectors) == (0, 0)


def test_a_closed_store_says_so(store):
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count()


def test_what_was_written_is_there_after_opening_again(bound, reopened):
    upsert(bound, picture("a", 1), picture("b"))
    again = reopened(bound)
    assert everything(again) == {"a": record("a"), "b": record("b")}
    assert again.model == MODEL
    assert ids(again.nearest(vector(1), 5)) == ["a"]
    again.close()


@pytest.mark.local
def test_the_first_maintenance_of_an_exclusive_user_cleans_up_and_loses_nothing(bound, reopened):
    for number in range(12):
        upsert(bound, picture(f"p{number}", number))
    before = bound.stats().bytes_on_disk
    again = reopened(bound, exclusive=True)
    again.maintain(idle=True)
    if again.stats().kind != "faiss":  # whose journal goes on as it is
        assert again.stats().bytes_on_disk < before
    assert len(everything(again)) == 12
    assert ids(again.matching(["p7"], 5)) == ["p7"]
    again.close()


# Writing.


def test_a_record_comes_back_as_it_went_in(store):
    full = Metadata(
        format="JPEG",
        width=4000,
        height=3000,
        taken_at="2024-05-01T12:00:00.5+02:00",
        camera_make="Canon",
        camera_model="EOS R5",
        lens="RF 50mm ƒ/1.2",
        iso=100,
        f_number=1.2,
        exposure_s=1 / 250,
        focal_mm=50.0,
        lat=-33.9,
        lon=151.2,
        orientation=6,
        rating=5,
        keywords=("Dog", "it's", "日本語"),
        caption='A "quoted" caption\nwith a line\x00and a NUL',
        comment="'; DROP TABLE pictures; --",
    )
    odd = replace(record("a", metadata=full), signature=Signature(2**64 - 1, 2**63 + 5, 9, -5, 2**62))
    upsert(store, StoredPicture(odd), picture("b", metadata=Metadata()))
    assert everything(store) == {"a": odd, "b": record("b", metadata=Metadata())}


def test_values_that_no_column_holds_become_empty_fields(store):
    metadata = Metadata(iso=2**70, f_number=float("nan"), lat=float("inf"), caption="odd \udcff byte")
    upsert(store, picture("a", metadata=metadata))
    assert everything(store)["a"].metadata == Metadata(caption="odd ? byte")


def test_an_upsert_replaces_the_row_of_its_id(bound):
    upsert(bound, picture("a", 1), picture("b", 2))
    upsert(bound, picture("a", 3, path="/photos/other.jpg"))
    assert bound.count() == 2
    assert everything(bound)["a"].path == "/photos/other.jpg"
    (found,) = bound.get(["a"])
    assert found.vector @ vector(3) > 0.999999


def test_a_batch_upserts_patches_and_deletes_at_once(bound):
    upsert(bound, picture("a", 1), picture("b", 2), picture("c", 3))
    patch = record("a", "/moved.jpg")
    bound.apply(Batch(upserts=(picture("d", 4),), patches=(patch,), deletes=("b", "gone")))
    assert set(everything(bound)) == {"a", "c", "d"}
    assert everything(bound)["a"].path == "/moved.jpg"


def test_a_batch_may_only_delete(bound):
    upsert(bound, picture("a", 1), picture("b", 2))
    bound.apply(Batch(deletes=("a", "a", "not there")))
    assert set(everything(bound)) == {"b"}


def test_an_empty_batch_is_nothing(store):
    store.apply(Batch())
    assert store.count() == 0


def test_a_large_batch_of_deletes_goes_through(store):
    store.apply(Batch(upserts=tuple(picture(f"p{n}") for n in range(3_000))))
    store.apply(Batch(deletes=tuple(f"p{n}" for n in range(2_999)) + tuple(f"q{n}" for n in range(3_000))))
    assert set(everything(store)) == {"p2999"}


def test_a_patch_leaves_the_vector_as_it_was_to_the_last_bit(bound):
    upsert(bound, picture("a", 1), picture("b"))
    (before,) = bound.get(["a"])
    bound.apply(Batch(patches=(record("a", "/elsewhere/a.jpg"), record("b", "/elsewhere/b.jpg"))))
    after = {p.record.id: p for p in bound.get(["a", "b"])}
    assert np.array_equal(after["a"].vector, before.vector)
    assert after["b"].vector is None
    assert {p.record.path for p in after.values()} == {"/elsewhere/a.jpg", "/elsewhere/b.jpg"}


def test_patches_work_before_there_are_vectors(store):
    upsert(store, picture("a"))
    store.apply(Batch(patches=(record("a", "/moved.jpg"),)))
    assert everything(store)["a"].path == "/moved.jpg"


@pytest.mark.parametrize(
    "batch",
    [
        Batch(upserts=(picture("new"), picture("new"))),
        Batch(upserts=(picture("new"),), deletes=("new",)),
        Batch(upserts=(picture("a"),), patches=(record("a"),)),
        Batch(upserts=(picture("new"),), patches=(record("not there"),)),
        Batch(upserts=(picture("new"), StoredPicture(record("bad"), np.ones(DIMENSION + 1, np.float32)))),
        Batch(upserts=(picture("new"), StoredPicture(record("bad"), np.zeros(DIMENSION, np.float32)))),
        Batch(upserts=(picture("new"), StoredPicture(record("bad"), np.full(DIMENSION, np.nan, np.float32)))),
    ],
    ids=["twice", "upsert and delete", "upsert and patch", "unknown patch", "dimension", "zero", "nan"],
)
def test_a_refused_batch_writes_nothing(bound, batch):
    upsert(bound, picture("a", 1))
    with pytest.raises(StoreError):
        bound.apply(batch)
    assert everything(bound) == {"a": record("a")}


@pytest.mark.local
def test_a_batch_that_cannot_be_made_durable_is_taken_back(bound, monkeypatch):
    upsert(bound, picture("a", 1))

    def refuse(_descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(StoreError, match="Input/output error"):
            bound.apply(Batch(upserts=(picture("b", 2),), deletes=("a",)))
    assert everything(bound) == {"a": record("a")}
    upsert(bound, picture("c", 3))
    assert set(everything(bound)) == {"a", "c"}


@pytest.mark.local
def test_every_file_of_a_commit_is_flushed_before_apply_returns(bound, folder, monkeypatch):
    real, flushed = os.fsync, set()

    def noted(descriptor):
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    def files():
        paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
        return {path: os.path.getsize(path) for path in paths}

    before = files()
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "fdatasync", noted)
    upsert(bound, picture("a", 1))
    written = {path for path, _ in files().items() - before.items()}
    assert written
    assert written <= flushed
    assert {os.path.dirname(path) for path in written - set(before)} <= flushed


# Paths.


def test_a_path_that_is_not_utf8_comes_back_byte_for_byte(bound):
    paths = [os.fsdecode(b"/photos/\xff\xfe.jpg"), os.fsdecode(b"/photos/\xff\xfd.jpg"), "/photos/??.jpg"]
    upsert(bound, *(picture(f"p{n}", n, path=path) for n, path in enumerate(paths)))
    assert {r.path for r in bound.scan()} == set(paths)
    for n, path in enumerate(paths):
        assert [r.id for r in bound.scan(Compare("path", "=", path))] == [f"p{n}"]


def test_a_folder_that_is_not_utf8_is_told_from_another(store):
    first, second = os.fsdecode(b"/a\xff"), os.fsdecode(b"/a\xfe")
    upsert(store, picture("a", path=f"{first}/x.jpg"), picture("b", path=f"{second}/x.jpg"))
    assert [r.id for r in store.scan(Under(first))] == ["a"]


@pytest.mark.parametrize(
    "name", ["' OR 1=1 --.jpg", "a'; DROP TABLE pictures.jpg", '".jpg', "%_\\.jpg", "a\nb.jpg"]
)
def test_names_are_never_read_as_sql(bound, name):
    hostile = f"/photos/{name}"
    upsert(bound, picture("a", 1), picture("b", 2), picture(name, 3, path=hostile, content_hash=name))
    assert [p.record.path for p in bound.get([name])] == [hostile]
    assert [r.path for r in bound.scan(Compare("path", "=", hostile))] == [hostile]
    assert bound.count(Under(hostile)) == 1
    assert bound.find_vector(name) is not None
    bound.apply(Batch(patches=(record(name, hostile + "2", content_hash=name),)))
    assert bound.count() == 3
    bound.apply(Batch(deletes=(name,)))
    assert set(everything(bound)) == {"a", "b"}


# Reading.


def test_get_leaves_out_what_is_not_there(bound):
    upsert(bound, picture("a", 1), picture("b"))
    found = {p.record.id: p for p in bound.get(["b", "a", "c"])}
    assert set(found) == {"a", "b"}
    assert found["a"].vector.dtype == np.float32
    assert np.linalg.norm(found["a"].vector) == pytest.approx(1, abs=1e-6)
    assert found["b"].vector is None


def test_what_was_found_is_found_again_wherever_it_lies_by_then(bound):
    upsert(bound, *(picture(f"p{number}", number) for number in range(20)))
    keys = [f"p{number}" for number in range(6)]

    def found():
        return {p.record.id: (p.record.path, p.vector) for p in bound.get(keys)}

    for search in (lambda: bound.nearest(vector(0), 20), lambda: bound.matching(["dog"], 20)):
        assert len(search()) == 20
        before = found()
        bound.apply(Batch(patches=(record("p1", f"/moved/{search}.jpg"),)))
        assert len(search()) == 20
        after = found()
        assert after.keys() == before.keys()
        assert after["p1"][0] == f"/moved/{search}.jpg"
        bound.maintain(idle=True)
        again = found()
        for key in keys:
            assert again[key][0] == after[key][0]
            assert np.array_equal(again[key][1], before[key][1])
    bound.apply(Batch(deletes=("p2",)))
    assert found().keys() == set(keys) - {"p2"}


def test_scan_and_count_take_a_condition(store):
    store.apply(Batch(upserts=tuple(picture(f"p{n}", metadata=Metadata(width=n)) for n in range(5_000))))
    few = Compare("width", "<", 10)
    assert store.count() == 5_000
    assert store.count(few) == 10
    assert {r.id for r in store.scan(few)} == {f"p{n}" for n in range(10)}
    assert sum(1 for _ in store.scan()) == 5_000


def test_a_vector_is_found_by_its_content(bound):
    upsert(bound, picture("a", content_hash="same"), picture("b", 2, content_hash="same"), picture("c", 3))
    assert bound.find_vector("same") @ vector(2) > 0.999999
    assert bound.find_vector("other") is None


def test_vectors_are_found_by_their_contents_many_at_once(bound):
    assert bound.find_vectors(["same"]) == {}
    upsert(bound, picture("a", content_hash="same"), picture("b", 2, content_hash="same"), picture("c", 3))
    upsert(bound, picture("d", 4, content_hash="it's"), picture("e", content_hash="without"))
    found = bound.find_vectors(["same", "it's", "without", "other"])
    assert set(found) == {"same", "it's"}
    assert found["same"] @ vector(2) > 0.999999
    assert found["it's"] @ vector(4) > 0.999999
    assert bound.find_vectors([]) == {}


def test_stats_count_rows_and_vectors(bound, kind, folder):
    upsert(bound, picture("a", 1), picture("b"))
    stats = bound.stats()
    assert (stats.kind, stats.uri, stats.rows, stats.vectors) == (kind.partition("-")[0], folder, 2, 1)
    assert kind == REMOTE or stats.bytes_on_disk > 1_000


# The model.


def test_rows_written_before_a_model_is_there_serve_metadata_searches(store):
    upsert(store, picture("a", metadata=Metadata(caption="a red boat")), picture("b"))
    assert ids(store.matching(["boat"], 5)) == ["a"]
    assert store.nearest(vector(0), 5) == []
    store.bind(MODEL)
    assert everything(store).keys() == {"a", "b"}
    assert store.nearest(vector(0), 5) == []
    upsert(store, picture("b", 2))
    assert ids(store.nearest(vector(0), 5)) == ["b"]
    assert ids(store.matching(["boat"], 5)) == ["a"]


def test_vectors_are_refused_before_a_model_is_bound(store):
    with pytest.raises(StoreError, match="bound to no model"):
        upsert(store, picture("a", 1))
    assert store.count() == 0


def test_binding_the_same_model_again_changes_nothing(bound):
    upsert(bound, picture("a", 1))
    bound.bind(replace(MODEL, spec="another name for it"))
    assert bound.model == MODEL
    assert ids(bound.nearest(vector(1), 1)) == ["a"]


@pytest.mark.parametrize("change", [{"weights_hash": "other"}, {"preprocess": Preprocess(9, 9)}])
def test_another_model_is_refused(bound, change):
    with pytest.raises(StoreError, match="tiny/demo"):
        bound.bind(replace(MODEL, **change))
    assert bound.model == MODEL


# Searching by vector.


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_nearest_is_what_comparing_with_every_stored_vector_gives(bound):
    bound.apply(Batch(upserts=tuple(picture(f"p{n:03}", n) for n in range(300))))
    stored = {p.record.id: p.vector for p in bound.get([f"p{n:03}" for n in range(300)])}
    for seed in range(1_000, 1_010):
        query = vector(seed)
        matches = bound.nearest(query, 20)
        cosines = {key: cosine(stored[key], query) for key in stored}
        assert ids(matches) == sorted(cosines, key=lambda key: -cosines[key])[:20]
        assert [m.score for m in matches] == pytest.approx([cosines[k] for k in ids(matches)], abs=1e-6)


def test_a_picture_is_like_itself(bound):
    bound.apply(Batch(upserts=tuple(picture(f"p{n}", n) for n in range(50))))
    for n in range(50):
        (best,) = bound.nearest(vector(n), 1)
        assert best.id == f"p{n}"
        assert 0.999999 <= best.score <= 1.000001


def test_equal_vectors_are_ordered_by_path_however_many_there_are(bound):
    paths = [f"/photos/{n:03}.jpg" for n in range(200)] + [os.fsdecode(b"/photos/\xff.jpg")]
    shuffled = np.random.default_rng(0).permutation(len(paths))
    bound.apply(Batch(upserts=tuple(picture(f"p{n}", 7, path=paths[n]) for n in shuffled)))
    upsert(bound, picture("else", 8))
    matches = bound.nearest(vector(7), 150)
    assert [m.path for m in matches] == sorted(paths, key=os.fsencode)[:150]
    assert len({m.score for m in matches}) == 1
    assert len(bound.nearest(vector(7), 1_000)) == 202


def test_vectors_closer_than_their_rounding_are_ordered_exactly(bound):
    base, noise = vector(1), np.random.default_rng(5).standard_normal((400, DIMENSION)) * 1e-3
    crowd = [(base + n).astype(np.float32) for n in noise]
    bound.apply(Batch(upserts=tuple(StoredPicture(record(f"p{n:03}"), v) for n, v in enumerate(crowd))))
    stored = {p.record.id: p.vector for p in bound.get([f"p{n:03}" for n in range(400)])}
    exact = sorted((-float((v * base).sum(dtype=np.float32)), key) for key, v in stored.items())
    assert {m.id for m in bound.nearest(base, 10)} == {key for _, key in exact[:10]}


def test_rows_without_a_vector_are_never_near(bound):
    upsert(bound, *(picture(f"p{n}") for n in range(100)), picture("a", 1))
    assert ids(bound.nearest(vector(2), 50)) == ["a"]


def test_a_condition_is_met_before_the_nearest_are_taken(bound):
    upsert(bound, *(picture(f"near{n}", 1) for n in range(60)))
    upsert(bound, picture("far", 2, metadata=Metadata(width=1)))
    assert ids(bound.nearest(vector(1), 5, Compare("width", "=", 1))) == ["far"]


def test_a_query_vector_of_the_wrong_size_is_refused(bound):
    upsert(bound, picture("a", 1))
    with pytest.raises(StoreError, match="shape"):
        bound.nearest(np.ones(3, np.float32), 5)


# Searching by words.


def captioned(key, caption, **fields):
    return picture(key, path=f"/p/{key}", metadata=Metadata(caption=caption), **fields)


def test_all_the_words_must_be_there(store):
    upsert(store, captioned("a", "red boat"), captioned("b", "red car"), captioned("c", "blue boat"))
    assert set(ids(store.matching(["red"], 5))) == {"a", "b"}
    assert ids(store.matching(["red", "boat"], 5)) == ["a"]
    assert store.matching(["red", "plane"], 5) == []
    assert store.matching([], 5) == []


def test_words_are_found_whole_and_as_they_are(store):
    long = "x" * 5_000
    upsert(store, captioned("a", f"the Running über 日本語 001 {long} can't"))
    for word in ("the", "running", "uber", "日本語", "001", long, "t"):
        assert ids(store.matching([word], 5)) == ["a"], word
    for word in ("run", "runn", "日", "x" * 40, "1", "über", "the*"):
        assert store.matching([word], 5) == [], word


def test_the_shortest_text_comes_first_and_equals_by_path(store):
    upsert(
        store, captioned("c", "boat"), captioned("a", "boat"), captioned("b", "boat with many other words")
    )
    matches = store.matching(["boat"], 5)
    assert ids(matches) == ["a", "c", "b"]
    assert matches[0].score == matches[1].score > matches[2].score > 0
    assert ids(store.matching(["boat"], 1)) == ["a"]


def test_a_rare_word_scores_higher(store):
    upsert(store, captioned("a", "boat common"), *(captioned(f"z{n}", "other common") for n in range(9)))
    assert store.matching(["boat"], 1)[0].score > store.matching(["common"], 1)[0].score


def test_words_follow_every_change_before_and_after_maintenance(store):
    store.apply(Batch(upserts=tuple(captioned(f"p{n}", f"boat number{n}") for n in range(20))))
    for _ in range(2):
        store.maintain(idle=True)
        upsert(store, captioned("new", "boat fresh"))
        store.apply(Batch(patches=(record("p3", metadata=Metadata(caption="car")),), deletes=("p4",)))
        boats = {f"p{n}" for n in range(20)} - {"p3", "p4"} | {"new"}
        assert set(ids(store.matching(["boat"], 50))) == boats
        assert ids(store.matching(["car"], 50)) == ["p3"]
        assert store.matching(["number4"], 50) == []
        for n in range(10):
            upsert(store, captioned(f"more{n}", "car park" if n else "none"))
        store.apply(Batch(deletes=tuple(f"more{n}" for n in range(10))))


def test_a_condition_is_met_before_the_best_words_are_taken(store):
    upsert(store, captioned("a", "boat"), captioned("b", "boat and some more"))
    assert ids(store.matching(["boat"], 1, Compare("id", "=", "b"))) == ["b"]


def test_what_is_matched_is_the_searchable_text(store):
    row = record("a", "/trips/Zürich 2019/IMG_1.jpg")
    upsert(store, StoredPicture(row))
    for word in searchable_text(row.path, row.metadata).split():
        assert ids(store.matching([word], 1)) == ["a"]


# Maintenance and concurrency.


def test_maintenance_bounds_the_files_and_changes_no_answer(bound, kind):
    batches = 70 if kind != REMOTE else 10
    for n in range(batches):
        upsert(bound, picture(f"p{n:02}", n))
        bound.maintain()
    rows, nearest = everything(bound), ids(bound.nearest(vector(3), 70))
    bound.maintain(idle=True)
    assert everything(bound) == rows
    assert ids(bound.nearest(vector(3), 70)) == nearest
    assert len(rows) == batches


def test_random_batches_leave_what_a_dict_would_hold(bound, reopened):
    rng, model = np.random.default_rng(11), {}
    for step in range(30):
        keys = [f"k{n}" for n in rng.permutation(25)[:9]]
        patches = tuple(record(k, f"/moved/{step}/{k}") for k in keys[:3] if k in model)
        upserts = tuple(picture(k, int(rng.integers(9)) or None) for k in keys[3:6])
        batch = Batch(upserts, patches, tuple(keys[6:]))
        bound.apply(batch)
        model.update({p.record.id: (p.record, p.vector) for p in batch.upserts})
        model.update({r.id: (r, model[r.id][1]) for r in patches})
        for key in batch.deletes:
            model.pop(key, None)
        if step % 10 == 0:
            bound.maintain(idle=True)
    again = reopened(bound)
    assert everything(again) == {key: row for key, (row, _) in model.items()}
    for found in again.get(list(model)):
        expected = model[found.record.id][1]
        assert (found.vector is None) == (expected is None)
        assert expected is None or found.vector @ expected > 0.999999
    again.close()


def test_readers_see_whole_batches_while_a_writer_writes_and_compacts(bound, kind):
    """Each batch moves all ten rows into the same folder: a reader that sees two folders saw half a batch."""

    def write(number):
        rows = (
            StoredPicture(
                record(f"p{n}", f"/{number}/p{n}.jpg", metadata=Metadata(caption="boat")), vector(n)
            )
            for n in range(10)
        )
        bound.apply(Batch(upserts=tuple(rows)))

    write(0)
    batches = 50 if kind != REMOTE else 10
    done, faults, reads = threading.Event(), [], []

    def read(look):
        while not done.is_set():
            folders = {os.path.dirname(row.path) for row in look()}
            reads.append(folders)
            if len(folders) != 1:
                faults.append(folders)

    def guarded(look):
        try:
            read(look)
        except Exception as error:
            faults.append(error)
            raise

    looks = [
        lambda: list(bound.scan()),
        lambda: [p.record for p in bound.get([f"p{n}" for n in range(10)])],
        lambda: bound.nearest(vector(1), 10),
        lambda: bound.matching(["boat"], 10),
    ]
    threads = [threading.Thread(target=guarded, args=(look,)) for look in looks]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, batches + 1):
            write(number)
            bound.maintain(idle=number % 10 == 0)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert len(reads) > 20
    assert {os.path.dirname(r.path) for r in bound.scan()} == {f"/{batches}"}


# Damage, in the files that LanceDB writes.


@pytest.fixture
def lance_folder(tmp_path):
    return os.fspath(tmp_path / "store")


@pytest.fixture
def lance(lance_folder):
    store = open_store("lance", lance_folder)
    store.bind(MODEL)
    yield store
    store.close()


def newest_version(folder):
    versions = os.path.join(folder, "pictures.lance", "_versions")
    return os.path.join(versions, min(n for n in os.listdir(versions) if n.endswith(".manifest")))


@pytest.mark.parametrize("keep_size", [True, False])
def test_a_zeroed_version_is_reported_and_not_opened_as_an_empty_store(lance, lance_folder, keep_size):
    upsert(lance, picture("a", 1))
    lance.close()
    path = newest_version(lance_folder)
    size = os.path.getsize(path)
    with open(path, "wb") as file:
        file.write(bytes(size) if keep_size else b"")
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        open_store("lance", lance_folder)


@pytest.mark.parametrize("lost", ["manifest.json", "pictures.lance"])
def test_a_store_that_lost_a_part_is_reported(lance, lance_folder, lost):
    upsert(lance, picture("a", 1))
    lance.close()
    os.rename(os.path.join(lance_folder, lost), lance_folder + "-lost")
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        open_store("lance", lance_folder)


def test_a_store_whose_making_was_interrupted_is_made_again(lance, lance_folder):
    lance.close()
    os.remove(os.path.join(lance_folder, "manifest.json"))
    shutil.rmtree(os.path.join(lance_folder, "spare"))
    again = open_store("lance", lance_folder)
    upsert(again, picture("a"))
    assert again.count() == 1
    again.close()


def test_a_binding_that_was_interrupted_can_be_made_with_another_model(lance, lance_folder):
    lance.close()
    write_manifest(lance_folder, replace(read_manifest(lance_folder), model=None))
    again = open_store("lance", lance_folder)
    upsert(again, picture("early"))
    again.bind(replace(MODEL, dimension=16))
    upsert(again, StoredPicture(record("a"), np.ones(16, np.float32)))
    assert ids(again.nearest(np.ones(16, np.float32), 5)) == ["a"]
    again.close()
