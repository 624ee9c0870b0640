"""From queries to ranked hits, over a real store; only the model is a fake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import INFO, FakeEmbedder, vector_of
from pictures import encoded

from imagedbd.datatypes import (
    Batch,
    Compare,
    ImageRecord,
    LedgerEntry,
    Match,
    Metadata,
    PictureState,
    PictureTerm,
    PromptTerm,
    Query,
    Signature,
    SortOrder,
    Store,
    StoredPicture,
)
from imagedbd.decoder import Decoder
from imagedbd.errors import (
    ExpressionError,
    ModelUnavailableError,
    PictureNeededError,
    QueryPictureError,
    UsageError,
)
from imagedbd.ledger import Ledger
from imagedbd.search import Searcher, conditions_of
from imagedbd.stores import open_store

SIGNATURE = Signature(1, 2, 3, 4, 5)
CAPTIONS = ["dog", "dog cat", "cat", None]


def record(name: str, **metadata: object) -> ImageRecord:
    described = replace(Metadata(), **metadata)  # type: ignore[arg-type]
    return ImageRecord(
        f"{name:0>32}", f"/p/{name}", SIGNATURE, f"hash {name}", described, "2026-01-01T00:00:00Z"
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Pictures 0 to 3 with the vectors of the prompts "0" to "3", and one without a vector."""
    store = open_store("lance", str(tmp_path_factory.mktemp("search") / "store"))
    store.bind(INFO)
    rows = [
        StoredPicture(
            record(str(number), caption=caption, taken_at=f"200{number}-01-01T00:00:00"),
            vector_of(str(number).encode()),
        )
        for number, caption in enumerate(CAPTIONS)
    ]
    store.apply(Batch(upserts=(*rows, StoredPicture(record("waiting", caption="dog")))))
    yield store
    store.close()


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def searcher(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> Iterator[Searcher]:
    ledger, decoder = Ledger(str(tmp_path / "ledger")), Decoder(1)
    ledger.put(
        [LedgerEntry("/p/2", SIGNATURE, PictureState.INDEXED, id=f"{'2':0>32}", content_hash="hash 2")]
    )
    yield Searcher(store, ledger, decoder, embedder)
    decoder.close()
    ledger.close()


LIKE = PromptTerm("like")
OWN = PictureTerm("/p/own", SIGNATURE)


def at_angle(radians: float) -> np.ndarray:
    """A unit vector that far from the one of the prompt "like"."""
    ahead, aside = vector_of(b"like"), vector_of(b"aside")
    aside -= aside @ ahead * ahead
    return np.asarray(np.cos(radians) * ahead + np.sin(radians) * aside / np.linalg.norm(aside), np.float32)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two hundred pictures that are alike and as many that have the word, and "both": 201st in each way.

    "own" has forty copies whose paths come first.
    """
    store = open_store("lance", str(tmp_path_factory.mktemp("crowd") / "store"))
    store.bind(INFO)
    rows = [(f"like{n:03}", at_angle(0.3 + n / 300), None) for n in range(200)]
    rows += [(f"word{n:03}", at_angle(2 + n / 400), "boat") for n in range(200)]
    rows += [("both", at_angle(1.0), "a boat on a wide and very quiet lake of the far north")]
    rows += [(name, at_angle(1.5), None) for name in ("own", *(f"copy{n:02}" for n in range(40)))]
    pictures = (StoredPicture(record(name, caption=caption), vector) for name, vector, caption in rows)
    store.apply(Batch(upserts=tuple(pictures)))
    yield store
    store.close()


@pytest.fixture
def crowded(crowd: Store, embedder: FakeEmbedder, tmp_path: Path) -> Iterator[Searcher]:
    ledger, decoder = Ledger(str(tmp_path / "ledger")), Decoder(1)
    ledger.put([LedgerEntry("/p/own", SIGNATURE, PictureState.INDEXED, id=f"{'own':0>32}")])
    yield Searcher(crowd, ledger, decoder, embedder)
    decoder.close()
    ledger.close()


def names(searcher: Searcher, query: Query) -> list[str]:
    return [hit.record.name for hit in searcher.search(query).hits]


def test_a_prompt_finds_the_picture_with_its_vector_first(searcher: Searcher) -> None:
    answer = searcher.search(Query(terms=(PromptTerm("1"),)))
    assert answer.hits[0].record.name == "1"
    assert answer.hits[0].similarity == pytest.approx(1, abs=1e-3)
    assert answer.hits[0].text_score is None
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4]


def test_a_prompt_is_embedded_once_however_often_it_is_asked(
    searcher: Searcher, embedder: FakeEmbedder
) -> None:
    for _ in range(3):
        searcher.search(Query(terms=(PromptTerm("a dog"),)))
    assert embedder.prompts == ["a dog"]


def test_words_are_looked_up_while_the_model_is_at_the_prompt(
    searcher: Searcher, embedder: FakeEmbedder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Future[Any] = Future()
    look_up = store.matching

    def matching(*arguments: Any) -> list[Match]:
        asked.set_result(np.stack([vector_of(b"1")]))
        return look_up(*arguments)

    monkeypatch.setattr(embedder, "embed_prompts", lambda _: asked)
    monkeypatch.setattr(store, "matching", matching)
    answer = searcher.search(Query(terms=(PromptTerm("1"),), text="dog"))
    assert answer.hits[0].record.name == "1"


def test_terms_are_added_up_by_their_weights(searcher: Searcher) -> None:
    both = Query(terms=(PromptTerm("0", 1.0), PromptTerm("3", 0.9)), limit=2)
    assert names(searcher, both) == ["0", "3"]
    away = Query(terms=(PromptTerm("0"), PromptTerm("3", -0.9)))
    assert names(searcher, away)[0] == "0"
    assert names(searcher, away)[-1] == "3"


def test_terms_that_cancel_each_other_are_refused(searcher: Searcher) -> None:
    with pytest.raises(UsageError, match="cancel"):
        searcher.search(Query(terms=(PromptTerm("0"), PromptTerm("0", -1.0))))


@pytest.mark.parametrize("weight", [1e-12, 1e-3, 1.0, 1000.0])
def test_only_the_proportions_of_weights_count(searcher: Searcher, weight: float) -> None:
    one = searcher.search(Query(terms=(PromptTerm("0", 2), PromptTerm("3", -1)))).hits
    scaled = searcher.search(Query(terms=(PromptTerm("0", 2 * weight), PromptTerm("3", -weight)))).hits
    assert [h.record.name for h in scaled] == [h.record.name for h in one]
    assert [h.score for h in scaled] == pytest.approx([h.score for h in one], abs=1e-6)


def test_away_from_a_prompt_is_its_ranking_backwards(searcher: Searcher) -> None:
    towards, away = (names(searcher, Query(terms=(PromptTerm("1", weight),))) for weight in (1.0, -1.0))
    assert away == towards[::-1]


def test_weights_of_zero_leave_nothing_to_look_for(searcher: Searcher) -> None:
    with pytest.raises(UsageError, match="cancel"):
        searcher.search(Query(terms=(PromptTerm("0", 0.0),)))


def test_words_must_all_be_there(searcher: Searcher) -> None:
    assert sorted(names(searcher, Query(text="dog"))) == ["0", "1", "waiting"]
    assert names(searcher, Query(text="DOG, cat!")) == ["1"]
    assert names(searcher, Query(text="horse")) == []


def test_a_query_of_no_words_is_refused(searcher: Searcher) -> None:
    with pytest.raises(UsageError, match="no word"):
        searcher.search(Query(text="!?"))


def test_fusion_puts_first_what_both_rankings_have(searcher: Searcher) -> None:
    hits = searcher.search(Query(terms=(PromptTerm("2"),), text="dog")).hits
    assert {hit.record.name for hit in hits} == {"0", "1", "2", "3", "waiting"}
    by_name = {hit.record.name: hit for hit in hits}
    assert by_name["waiting"].similarity is None
    assert by_name["waiting"].text_score is not None
    assert by_name["2"].text_score is None
    assert hits[0].record.name in {"0", "1"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_weights_favour_likeness_or_words(searcher: Searcher) -> None:
    query = Query(terms=(PromptTerm("2"),), text="dog")
    by_likeness = names(searcher, replace(query, weights=(1000, 1)))
    assert by_likeness[0] == "2"
    by_words = names(searcher, replace(query, weights=(1, 1000)))
    assert set(by_words[:3]) == {"0", "1", "waiting"}
    assert set(by_words) == set(by_likeness)


def test_a_weight_of_zero_leaves_a_ranking_out(searcher: Searcher, embedder: FakeEmbedder) -> None:
    query = Query(terms=(PromptTerm("2"),), text="dog")
    worded = searcher.search(replace(query, weights=(0, 1))).hits
    assert worded == searcher.search(Query(text="dog")).hits
    assert not embedder.prompts, "no model is asked for what counts for nothing"
    prompt = searcher.search(replace(query, text=None)).hits
    assert searcher.search(replace(query, weights=(1, 0))).hits == prompt
    similarity = {h.record.name: h.similarity for h in prompt}
    enough = searcher.search(replace(query, weights=(0, 1), min_score=-1)).hits
    assert {h.record.name: h.similarity for h in enough} == pytest.approx(
        {name: similarity[name] for name in ("0", "1")}, abs=1e-6
    )


def test_where_there_is_one_ranking_weights_change_nothing(searcher: Searcher) -> None:
    for query in (Query(terms=(PromptTerm("2"),)), Query(text="dog"), Query()):
        for weights in ((0.0, 1.0), (1.0, 0.0), (5.0, 1.0)):
            assert searcher.search(replace(query, weights=weights)) == searcher.search(query)


@pytest.mark.parametrize("weights", [(0, 0), (-1, 1), (1, 1001), (float("nan"), 1), (1, float("inf"))])
def test_weights_out_of_range_are_refused(searcher: Searcher, weights: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="weights"):
        searcher.search(Query(terms=(PromptTerm("2"),), text="dog", weights=weights))


def test_what_both_rankings_have_far_down_is_not_missed(crowded: Searcher) -> None:
    found = names(crowded, Query(terms=(LIKE,), text="boat", limit=100, min_score=0.4))
    assert len(found) == 100
    assert found[69:72] == ["like069", "both", "like070"]


def test_the_similar_enough_are_found_wherever_they_stand_among_the_words(crowded: Searcher) -> None:
    query = Query(terms=(LIKE,), text="boat", min_score=0.4, limit=5)
    assert names(crowded, replace(query, weights=(0, 1))) == ["both"]
    assert names(crowded, replace(query, weights=(1e-9, 1))) == ["both", *(f"like{n:03}" for n in range(4))]
    assert names(crowded, query) == [f"like{n:03}" for n in range(5)]


def test_a_query_picture_comes_before_however_many_copies(crowded: Searcher) -> None:
    copies = [f"copy{n:02}" for n in range(40)]
    for limit in (1, 2, 40, 41, 50):
        found = names(crowded, Query(terms=(OWN,), limit=limit))
        assert found[:41] == ["own", *copies][:limit]
    elsewhere = Query(terms=(OWN,), limit=3, condition=Compare("name", "<", "e"))
    assert names(crowded, elsewhere) == copies[:3]


@pytest.mark.parametrize("terms", [(LIKE,), (OWN,), (OWN, PromptTerm("like", 0.1))])
def test_fewer_hits_are_the_first_of_more(crowded: Searcher, terms: tuple[PromptTerm | PictureTerm]) -> None:
    everything = names(crowded, Query(terms=terms, limit=1_000))
    for limit in (1, 7, 41, 199, 200, 300):
        assert names(crowded, Query(terms=terms, limit=limit)) == everything[:limit]


def test_the_lowest_similarity_drops_what_has_none(searcher: Searcher) -> None:
    query = Query(terms=(PromptTerm("1"),), text="dog", min_score=0.99)
    assert names(searcher, query) == ["1"]


def test_a_lowest_similarity_needs_something_to_be_similar_to(searcher: Searcher) -> None:
    with pytest.raises(UsageError, match="prompt or a picture"):
        searcher.search(Query(text="dog", min_score=0.5))


def test_a_query_of_conditions_lists_the_newest_first(searcher: Searcher) -> None:
    assert names(searcher, Query(condition=Compare("taken_at", ">=", "2001"))) == ["3", "2", "1"]
    assert names(searcher, Query()) == ["3", "2", "1", "0", "waiting"]


def test_hits_can_be_ordered_by_date(searcher: Searcher) -> None:
    query = Query(terms=(PromptTerm("0"),), limit=2, sort=SortOrder.DATE)
    hits = searcher.search(query).hits
    taken = [hit.record.metadata.taken_at or "" for hit in hits]
    assert taken == sorted(taken, reverse=True)
    assert [hit.rank for hit in hits] == [1, 2]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_limit_out_of_range_is_refused(searcher: Searcher, limit: int) -> None:
    with pytest.raises(UsageError):
        searcher.search(Query(limit=limit))


@pytest.mark.parametrize(
    "query",
    [
        Query((PromptTerm("2"),)),
        Query((PromptTerm("0"),), text="dog"),
        Query(text="dog"),
        Query(text="dog", sort=SortOrder.DATE),
        Query(),
        Query((PromptTerm("2"),), min_score=-1, sort=SortOrder.DATE),
    ],
    ids=["likeness", "fused", "words", "words by date", "conditions", "similar enough by date"],
)
def test_pages_put_together_are_the_whole(crowded: Searcher, query: Query) -> None:
    whole = crowded.search(replace(query, limit=300)).hits
    pages = [crowded.search(replace(query, limit=70, offset=start)).hits for start in range(0, 350, 70)]
    found = [hit for page in pages for hit in page]
    assert [hit.record.path for hit in found[:300]] == [hit.record.path for hit in whole]
    assert [hit.rank for hit in found[:300]] == list(range(1, len(whole) + 1))


def test_by_date_the_newest_of_all_that_has_the_words_comes_first(searcher: Searcher) -> None:
    assert names(searcher, Query(text="dog", limit=1, sort=SortOrder.DATE)) == ["1"]


def test_by_date_everything_similar_enough_counts(searcher: Searcher) -> None:
    query = Query((PromptTerm("0"),), min_score=-1, limit=2, sort=SortOrder.DATE)
    assert names(searcher, query) == ["3", "2"]
    assert names(searcher, replace(query, min_score=0.99)) == ["0"]


def test_dates_are_ordered_by_the_clock_on_the_wall(tmp_path: Path, embedder: FakeEmbedder) -> None:
    clocks = ["2024-05-01T12:00:00+09:00", "2024-05-01T11:00:00Z", "2024-05-01T11:30:00", None]
    store, decoder = open_store("lance", str(tmp_path / "store")), Decoder(1)
    ledger = Ledger(str(tmp_path / "ledger"))
    rows = (StoredPicture(record(str(number), taken_at=clock)) for number, clock in enumerate(clocks))
    store.apply(Batch(upserts=tuple(rows)))
    assert names(Searcher(store, ledger, decoder, embedder), Query()) == ["0", "2", "1", "3"]
    for part in (decoder, ledger, store):
        part.close()


def test_only_the_pictures_that_are_shown_are_read(
    crowded: Searcher, crowd: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get = crowd.get

    def noted(ids: Sequence[str], *, vectors: bool = True) -> list[StoredPicture]:
        read.extend(ids)
        return get(ids, vectors=vectors)

    monkeypatch.setattr(crowd, "get", noted)
    for query in (Query((LIKE,)), Query(text="boat"), Query((LIKE,), text="boat")):
        read.clear()
        page = crowded.search(replace(query, limit=10, offset=5)).hits
        assert read == [hit.record.id for hit in page]
        assert len(page) == 10


@pytest.mark.parametrize("query", [Query((PromptTerm("0"),)), Query((PromptTerm("0"),), text="dog")])
def test_what_goes_after_it_was_ranked_is_left_out_and_the_rest_is_as_it_is_now(
    query: Query, store: Store, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = searcher.search(query).hits
    get = store.get

    def later(ids: Sequence[str], *, vectors: bool = True) -> list[StoredPicture]:
        _, *rest = sorted(get(ids, vectors=vectors), key=lambda picture: ids.index(picture.record.id))
        return [replace(p, record=replace(p.record, path=f"/moved{p.record.path}")) for p in reversed(rest)]

    monkeypatch.setattr(store, "get", later)
    after = searcher.search(query).hits
    assert [hit.record.path for hit in after] == [f"/moved{hit.record.path}" for hit in before[1:]]
    assert [hit.score for hit in after] == [hit.score for hit in before[1:]]
    assert [hit.rank for hit in after] == list(range(1, len(before)))


@pytest.mark.parametrize("offset", [-1, 100_001])
def test_an_offset_out_of_range_is_refused(searcher: Searcher, offset: int) -> None:
    with pytest.raises(UsageError, match="offset"):
        searcher.search(Query(offset=offset))


def test_an_indexed_picture_is_found_by_its_stored_vector(searcher: Searcher, embedder: FakeEmbedder) -> None:
    hits = searcher.search(Query(terms=(PictureTerm("/p/2", SIGNATURE),))).hits
    assert hits[0].record.name == "2"
    assert embedder.embedded == []


def test_a_changed_or_unknown_picture_must_be_sent(searcher: Searcher) -> None:
    for term in (PictureTerm("/p/2", replace(SIGNATURE, mtime_ns=9)), PictureTerm("/p/9", SIGNATURE)):
        with pytest.raises(PictureNeededError):
            searcher.search(Query(terms=(term,)))


def test_a_picture_that_is_sent_is_embedded(searcher: Searcher, embedder: FakeEmbedder) -> None:
    answer = searcher.search(Query(terms=(PictureTerm(data=encoded(1)),)))
    assert len(answer.hits) == 4
    assert embedder.embedded == [1]


def test_bytes_that_are_no_picture_are_refused_with_the_reason(searcher: Searcher) -> None:
    with pytest.raises(QueryPictureError, match="text"):
        searcher.search(Query(terms=(PictureTerm(data=b"plain text"),)))


def test_without_a_model_words_alone_answer_and_say_so(searcher: Searcher, embedder: FakeEmbedder) -> None:
    embedder.info = None
    answer = searcher.search(Query(terms=(PromptTerm("new"),), text="cat"))
    assert sorted(hit.record.name for hit in answer.hits) == ["1", "2"]
    assert any("metadata" in note for note in answer.notes)
    with pytest.raises(ModelUnavailableError):
        searcher.search(Query(terms=(PromptTerm("new"),)))
    with pytest.raises(ModelUnavailableError):
        searcher.search(Query(terms=(PictureTerm(data=encoded(1)),)))


def test_a_lowest_similarity_is_not_answered_without_a_model(
    searcher: Searcher, embedder: FakeEmbedder
) -> None:
    embedder.info = None
    for query in (Query(min_score=0.1), Query(weights=(1, 0))):
        with pytest.raises(ModelUnavailableError):
            searcher.search(replace(query, terms=(PromptTerm("unheard of"),), text="cat"))


def test_conditions_are_joined(searcher: Searcher) -> None:
    condition = conditions_of(where="caption IS NOT NULL", under=["/p/"], after="2001", before="2003")
    assert names(searcher, Query(condition=condition)) == ["2", "1"]
    assert conditions_of() is None


@pytest.mark.parametrize("date", ["yesterday", "2024-13", "2024-02-30", ""])
def test_what_is_no_date_is_refused(date: str) -> None:
    with pytest.raises(UsageError):
        conditions_of(after=date)


def test_a_bad_expression_tells_its_position() -> None:
    with pytest.raises(ExpressionError) as caught:
        conditions_of(where="iso > ")
    assert caught.value.position >= 5


def test_wildcards_in_a_cameras_name_are_letters(searcher: Searcher) -> None:
    assert names(searcher, Query(condition=conditions_of(camera="%"))) == []


def test_scores_are_finite_numbers(searcher: Searcher) -> None:
    hits = searcher.search(Query(terms=(PromptTerm("1"),), text="dog")).hits
    assert all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize("kind", ["lance", "faiss"])
def test_a_value_in_another_case_than_asked_for_is_named(
    kind: str, tmp_path: Path, embedder: FakeEmbedder, searcher: Searcher
) -> None:
    store = open_store(kind, str(tmp_path / "store"))
    rows = [record("a", camera_make="NIKON", format="JPEG", rating=5)]
    store.apply(Batch(upserts=tuple(map(StoredPicture, rows))))
    own = Searcher(store, searcher._ledger, searcher._decoder, embedder)

    def notes(where: str) -> str:
        answer = own.search(Query(condition=conditions_of(where=where)))
        assert not answer.hits
        return " ".join(answer.notes)

    told = "No picture has the camera_make 'nikon', but 'NIKON' is there"
    assert told in notes("camera_make = 'nikon' AND rating = 5")
    assert "'JPEG' is there" in notes("format IN ('png', 'jpg')")
    assert notes("camera_make = 'NIK_N'") == ""
    assert notes("camera_make = 'NIKON' AND rating = 1") == ""
    store.close()
