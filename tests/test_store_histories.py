"""Whatever is done to a store, in whatever order, it holds what a dict would hold and answers by it.

``IMAGEDBD_HISTORIES=500 pytest tests/test_store_histories.py`` tries longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from imagedbd.datatypes import (
    Batch,
    Compare,
    ImageRecord,
    Like,
    Metadata,
    ModelInfo,
    Preprocess,
    Signature,
    StoredPicture,
    Under,
)
from imagedbd.metadata import searchable_text
from imagedbd.ranking import cosines, unit
from imagedbd.stores import KINDS, open_store

MODEL = ModelInfo("tiny", "abc", 8, Preprocess(8, 8))
VECTORS = unit(np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32))

keys = st.sampled_from([f"id{number}" for number in range(12)])
paths = st.sampled_from(["/a/1.jpg", "/a/2.jpg", "/b/it's.jpg", "/b/\udcff.jpg", "/ü/ß %_.png", "/a/b/c.jpg"])
captions = st.sampled_from([None, "red boat", "blue boat at sea", "Straße", "O'Neill's dog", "日本"])
vectors = st.none() | st.integers(0, len(VECTORS) - 1)


@st.composite
def records(draw):
    metadata = Metadata(
        caption=draw(captions),
        iso=draw(st.sampled_from([None, 100, 800])),
        keywords=tuple(draw(st.lists(st.sampled_from(["dog", "Été"]), max_size=2, unique=True))),
    )
    size = draw(st.integers(0, 9))
    return ImageRecord(
        draw(keys), draw(paths), Signature(1, 2, size, 4, 5), f"hash{size}", metadata, "2024-01-01T00:00:00Z"
    )


@st.composite
def changes(draw):
    """Records by id, what becomes of each, and the ids to delete; no id in two places."""
    chosen = {record.id: record for record in draw(st.lists(records(), max_size=5))}
    deletes = tuple(draw(st.sets(keys, max_size=3)) - set(chosen))
    return [(record, draw(vectors), draw(st.booleans())) for record in chosen.values()], deletes


class StoreHistory(RuleBasedStateMachine):
    kind = ""

    def __init__(self):
        super().__init__()
        self.home = tempfile.mkdtemp(prefix="imagedbd-history-")
        self.store = self.opened(exclusive=False)
        self.model = {}
        self.bound = False

    def opened(self, *, exclusive):
        return open_store(self.kind, os.path.join(self.home, "store"), exclusive=exclusive)

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.home)

    @rule()
    def bind(self):
        self.store.bind(MODEL)
        self.bound = True

    @rule(change=changes())
    def write(self, change):
        written, deletes = change
        upserts, patches = [], []
        for record, number, as_patch in written:
            if as_patch and record.id in self.model:
                patches.append(record)
                self.model[record.id] = replace(self.model[record.id], record=record)
            else:
                vector = VECTORS[number] if self.bound and number is not None else None
                upserts.append(StoredPicture(record, vector))
                self.model[record.id] = upserts[-1]
        self.store.apply(Batch(tuple(upserts), tuple(patches), deletes))
        for key in deletes:
            self.model.pop(key, None)

    @rule(idle=st.booleans())
    def maintain(self, idle):
        self.store.maintain(idle=idle)

    @rule(exclusive=st.booleans())
    def open_again(self, exclusive):
        self.store.close()
        self.store = self.opened(exclusive=exclusive)

    @invariant()
    def rows_are_those_of_the_dict(self):
        assert {r.id: r for r in self.store.scan()} == {key: p.record for key, p in self.model.items()}
        assert self.store.count() == len(self.model)
        assert (self.store.model is not None) == self.bound

    @rule()
    def vectors_are_those_of_the_dict(self):
        found = {p.record.id: p.vector for p in self.store.pictures()}
        assert found.keys() == self.model.keys()
        for picture in self.store.get([*self.model, "not there"]):
            expected = self.model[picture.record.id].vector
            for vector in (picture.vector, found[picture.record.id]):
                assert (vector is None) == (expected is None)
                assert expected is None or float(vector @ expected) > 0.99999
        stats = self.store.stats()
        assert stats.rows == len(self.model)
        assert stats.vectors == sum(p.vector is not None for p in self.model.values())

    @rule(size=st.integers(0, 9))
    def contents_are_found(self, size):
        there = any(p.vector is not None and p.record.size == size for p in self.model.values())
        assert (self.store.find_vector(f"hash{size}") is not None) == there

    @precondition(lambda self: self.bound)
    @rule(number=st.integers(0, len(VECTORS) - 1), limit=st.integers(1, 6), under=st.booleans())
    def the_nearest_are_found(self, number, limit, under):
        condition = Under("/a") if under else None
        held = [
            p for p in self.model.values() if p.vector is not None and (not under or p.record.path < "/b")
        ]
        held = [p for p in held if not under or p.record.path.startswith("/a/")]
        scores = (
            cosines(np.stack([unit(p.vector).astype(np.float16) for p in held]), VECTORS[number])
            if held
            else []
        )
        ranked = sorted(
            zip(scores, held, strict=True), key=lambda pair: (-pair[0], os.fsencode(pair[1].record.path))
        )
        found = self.store.nearest(VECTORS[number], limit, condition)
        assert [m.score for m in found] == [score for score, _ in ranked[:limit]]
        assert [m.path for m in found] == [p.record.path for _, p in ranked[:limit]]

    @rule(
        word=st.sampled_from(["boat", "strasse", "o", "dog", "jpg", "nothing", "日本"]),
        limit=st.integers(1, 6),
    )
    def words_are_found(self, word, limit):
        texts = {
            key: searchable_text(p.record.path, p.record.metadata).split() for key, p in self.model.items()
        }
        having = [self.model[key].record for key, words in texts.items() if word in words]
        ranked = sorted(having, key=lambda r: (len(texts[r.id]), os.fsencode(r.path)))
        found = self.store.matching([word], limit)
        assert [m.path for m in found] == [r.path for r in ranked[:limit]]

    @rule(condition=st.sampled_from([Compare("iso", ">", 100), Like("caption", "%BOAT%", ignore_case=True)]))
    def conditions_select(self, condition):
        found = {r.id for r in self.store.scan(condition)}
        assert found == {key for key, p in self.model.items() if _meets(p.record.metadata, condition)}
        assert self.store.count(condition) == len(found)


def _meets(metadata, condition):
    if isinstance(condition, Compare):
        return metadata.iso is not None and metadata.iso > 100
    return "boat" in (metadata.caption or "")


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_leaves_what_a_dict_would_hold(kind):
    run_state_machine_as_test(
        type("History", (StoreHistory,), {"kind": kind}),
        settings=settings(
            max_examples=int(os.environ.get("IMAGEDBD_HISTORIES", "8")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
