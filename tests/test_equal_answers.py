"""Nobody can tell by an answer which store gave it."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest
from fakes import INFO, FakeEmbedder
from library import CAMERAS, PEOPLE, PLACES, SUBJECTS, make_library

from imagedbd.datatypes import (
    Batch,
    LedgerEntry,
    PictureState,
    PictureTerm,
    PromptTerm,
    Query,
    SortOrder,
)
from imagedbd.decoder import Decoder
from imagedbd.errors import ImagedbError
from imagedbd.ledger import Ledger
from imagedbd.search import Searcher, conditions_of
from imagedbd.stores import KINDS, open_store

PICTURES = 5_000
QUERIES = int(os.environ.get("IMAGEDBD_QUERIES", "200"))

LIBRARY = make_library(PICTURES, dimension=INFO.dimension, model=INFO)


def lived_in(store):
    """The library after a life: written in batches, moved, deleted, written again, compacted in between."""
    chosen = random.Random(5)
    store.bind(INFO)
    for number, pictures in enumerate(LIBRARY.batches(500)):
        store.apply(Batch(upserts=pictures))
        if number % 4 == 1:
            store.maintain(idle=True)
    some = chosen.sample(LIBRARY.pictures, 300)
    moved = (replace(p.record, path=p.record.path.replace("IMG", "moved")) for p in some[:100])
    store.apply(Batch(patches=tuple(moved), deletes=tuple(p.record.id for p in some[100:200])))
    store.apply(Batch(upserts=tuple(some[150:300])))
    return store


@pytest.fixture(scope="module")
def searchers(tmp_path_factory):
    """One for each store, over the same ledger and model."""
    folder = tmp_path_factory.mktemp("equal")
    ledger, decoder = Ledger(os.fspath(folder / "ledger")), Decoder(1)
    stores = [lived_in(open_store(kind, os.fspath(folder / kind))) for kind in KINDS]
    ledger.put(
        LedgerEntry(r.path, r.signature, PictureState.INDEXED, r.id, r.content_hash) for r in stores[0].scan()
    )
    yield [Searcher(store, ledger, decoder, FakeEmbedder()) for store in stores]
    for store in stores:
        store.close()
    decoder.close()
    ledger.close()


def terms(chosen):
    made = []
    for _ in range(chosen.randint(1, 3)):
        weight = chosen.choice([1.0, 1.0, 2.0, -0.5])
        if chosen.random() < 0.4:
            picture = chosen.choice(LIBRARY.pictures)
            data = PictureTerm(picture.record.path, picture.record.signature, weight=weight)
            made.append(data)
        else:
            made.append(PromptTerm(chosen.choice(SUBJECTS), weight))
    return tuple(made)


def condition(chosen):
    name = chosen.choice([*PEOPLE, *SUBJECTS]).replace("'", "''")
    where = chosen.choice(
        [
            None,
            "iso >= 400 AND width > 1000",
            "NOT (format = 'PNG' OR rating IS NULL)",
            f"'{name}' IN keywords",
            f"caption ILIKE '%{name[:4]}%'",
            "taken_at BETWEEN '2022' AND '2023-06'",
            "lens IS NULL OR f_number < 2",
            "name LIKE 'IMG%7.jpg'",
            "path UNDER '/photos/2024'",
            "size > 3000 AND NOT orientation IN (1, 3)",
        ]
    )
    narrowed = chosen.random()
    return conditions_of(
        where=where,
        under=["/photos/2024", "/photos/misc"] if narrowed < 0.15 else [],
        after="2023-05" if 0.15 < narrowed < 0.3 else None,
        camera=chosen.choice(CAMERAS)[0].lower() if 0.3 < narrowed < 0.4 else None,
        near=(*chosen.choice(PLACES), chosen.choice([3.0, 12.0, 500.0])) if 0.4 < narrowed < 0.5 else None,
    )


def query(number):
    chosen = random.Random(number)
    kind = ("vector", "words", "fused", "listing")[number % 4]
    asked = {"vector", "fused"} & {kind}
    return Query(
        terms=terms(chosen) if asked else (),
        text=" ".join(chosen.sample(SUBJECTS, chosen.randint(1, 2))) if kind in {"words", "fused"} else None,
        condition=condition(chosen),
        limit=chosen.choice([1, 10, 50, 300]),
        min_score=0.2 if asked and chosen.random() < 0.2 else None,
        sort=SortOrder.DATE if chosen.random() < 0.2 else SortOrder.SCORE,
        weights=chosen.choice([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.5, 3.0)]),
    )


def asked(searcher, question):
    """Paths in their order, with all scores; or the error, where the query has one."""
    try:
        hits = searcher.search(question).hits
    except ImagedbError as error:
        return type(error).__name__, error.message
    return [(hit.record.path, hit.score, hit.similarity, hit.text_score) for hit in hits]


def test_the_same_queries_have_the_same_answers_in_the_same_order(searchers):
    one, other = searchers
    found = 0
    for number in range(QUERIES):
        question = query(number)
        first, second = asked(one, question), asked(other, question)
        assert first == second, (number, question)
        found += isinstance(first, list) and len(first) > 0
    assert found > QUERIES * 0.7


def test_they_hold_the_same_records(searchers):
    one, other = ({r.id: r for r in searcher._store.scan()} for searcher in searchers)
    assert one == other
    assert len(one) > PICTURES * 0.9
