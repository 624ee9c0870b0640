"""One switch in this process, where a disk can be full at the very moment: real parts, a fake model."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from fakes import INFO, FakeEmbedder
from PIL import Image
from store_rows import record

from imagedbd import switch as switch_module
from imagedbd.change_queue import ChangeQueue
from imagedbd.config import Settings
from imagedbd.datatypes import Batch, ModelInfo, PictureState, Preprocess, Store, StoredPicture
from imagedbd.decoder import Decoder
from imagedbd.engine import Engine, EngineRoom
from imagedbd.errors import (
    ConfigError,
    DaemonStoppingError,
    ModelUnavailableError,
    NothingMatchedError,
    StoreError,
)
from imagedbd.generations import Generation, GenerationsFile, read_generations
from imagedbd.indexer import Indexer
from imagedbd.ledger import Ledger
from imagedbd.rules import Rules
from imagedbd.search import Searcher
from imagedbd.stores import open_store
from imagedbd.switch import Workshop
from imagedbd.switcher import Switcher
from imagedbd.unread import UnreadFiles

if TYPE_CHECKING:
    from s3 import S3

    from imagedbd.embedder import EmbedderProcess

pytestmark = pytest.mark.in_memory

OTHER = replace(INFO, spec="local-dir:/other", weights_hash="1" * 64, preprocess=Preprocess(24, 24))
KNOWN = {INFO.spec: INFO, OTHER.spec: OTHER}


class LoadedEmbedder(FakeEmbedder):
    """A fake that can be loaded, where it is known."""

    def load(self) -> Future[Any]:
        future: Future[Any] = Future()
        if self.info is None:
            future.set_exception(ModelUnavailableError("There is none."))
        else:
            future.set_result(None)
        return future

    @property
    def embeds_total(self) -> int:
        return sum(self.embedded)

    def status(self) -> Any:
        status = super().status()
        return replace(status, name=self.info.spec) if self.info else status


class Bench:
    """An index of some pictures and everything that a switch of it needs."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(str(home / "config"), str(home / "data"), str(home / "s"))
        (home / "data").mkdir()
        self.photos = home / "photos"
        self.photos.mkdir()
        self.ledger = Ledger(str(home / "data" / "ledger"))
        self.file = GenerationsFile(self.settings)
        self.decoder = Decoder(2)
        self.embedders: dict[str, LoadedEmbedder] = {}
        self.opened: list[Store] = []
        self.remote_options: dict[str, str] = {}
        self.on_open: Callable[[Store], None] = lambda _: None
        store = self.open(self.file.current.active)
        self.room = EngineRoom(self.join(store, self.embedder(INFO.spec, None)))
        self.queue = ChangeQueue(0.01, 0.1)
        self.indexer = Indexer(
            queue=self.queue,
            ledger=self.ledger,
            store=store,
            decoder=self.decoder,
            embedder=self.room.current.embedder,
            rules=Rules([str(self.photos)]),
            may_forget=lambda _: True,
            offline_places=lambda _: (),
            request_scan=lambda _: None,
            on_crash=lambda: None,
            unread=UnreadFiles(),
        )
        shop = Workshop(
            file=self.file,
            room=self.room,
            indexer=self.indexer,
            ledger=self.ledger,
            decoder=self.decoder,
            gate=threading.Lock(),
            open_store=self.open,
            open_embedder=self.embedder,
            new_engine=self.join,
        )
        self.switcher = Switcher(shop, lambda: self.settings)
        self.indexer.start()

    def open(self, generation: Generation) -> Store:
        store = open_store(
            generation.kind,
            generation.where(self.settings.data_dir),
            owner="us" if generation.is_remote else "",
            exclusive=not generation.is_remote,
            options=self.remote_options,
        )
        self.opened.append(store)
        self.on_open(store)
        return store

    def embedder(self, spec: str, _: ModelInfo | None) -> EmbedderProcess:
        made = self.embedders[spec] = LoadedEmbedder(info=KNOWN.get(spec))
        return cast("EmbedderProcess", made)

    def join(self, store: Store, embedder: EmbedderProcess) -> Engine:
        return Engine(store, embedder, Searcher(store, self.ledger, self.decoder, embedder))

    def close(self) -> None:
        self.switcher.close()
        self.indexer.close()
        self.room.close()
        self.decoder.close()
        self.ledger.close()

    def add(self, *reds: int) -> None:
        for red in reds:
            path = self.photos / f"{red}.png"
            Image.new("RGB", (40, 40), (red, 100, 100)).save(path)
            self.queue.put(str(path), settled=True)
        # One that was read in the tick of its last write is read once more.
        self.until(lambda: self.queue.oldest_open() is None)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def status(self) -> dict[str, Any]:
        return self.switcher.status() or {}

    def until_over(self) -> None:
        self.until(lambda: self.switcher.status() is None)
        self.until(lambda: self.queue.oldest_open() is None)

    def assert_complete(self, model: ModelInfo, rows: int) -> None:
        store = self.room.current.store
        assert store.model == model
        found = list(store.pictures())
        assert len(found) == rows
        assert all(row.vector is not None and np.isfinite(row.vector).all() for row in found)
        assert self.ledger.counts()[PictureState.INDEXED] == rows
        assert self.ledger.counts()[PictureState.WAITING] == 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(switch_module, "PAUSE_S", 0.2)
    monkeypatch.setattr(switch_module, "FOLLOW_S", 0.01)
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def refusing(store: Store, refuse: Callable[[], bool]) -> None:
    """Let a store refuse writes as a full disk would."""
    real = store.apply

    def apply(batch: Batch) -> None:
        if refuse():
            raise StoreError("The disk is full.")
        real(batch)

    store.apply = apply  # type: ignore[method-assign]


def test_another_model(bench: Bench) -> None:
    bench.add(*range(10))
    accepted = bench.switcher.use(model=OTHER.spec)
    assert accepted.state == "switching"
    bench.until_over()
    bench.assert_complete(OTHER, 10)
    bench.add(50)
    bench.assert_complete(OTHER, 11)
    assert bench.switcher.use(model=OTHER.spec).state == "active"


def test_a_full_disk_pauses_the_build_and_it_goes_on_by_itself(bench: Bench) -> None:
    bench.add(*range(10))
    full = threading.Event()
    full.set()
    bench.on_open = lambda store: refusing(store, full.is_set)
    bench.switcher.use(model=OTHER.spec)
    bench.until(lambda: bench.status()["state"] == "paused")
    assert bench.status()["reason"] == "The disk is full."
    bench.assert_complete(INFO, 10)
    full.clear()
    bench.until_over()
    bench.assert_complete(OTHER, 10)


def test_a_bug_ends_a_switch_which_says_so_and_can_be_asked_for_again(bench: Bench) -> None:
    bench.add(*range(4))

    def broken(store: Store) -> None:
        store.apply = lambda _: {}["a bug"]  # type: ignore[method-assign]

    bench.on_open = broken
    bench.switcher.use(model=OTHER.spec)
    bench.until(lambda: bench.status()["state"] == "failed")
    assert "given up until the next start: KeyError: 'a bug'" in bench.status()["reason"]
    bench.assert_complete(INFO, 4)
    bench.on_open = lambda _: None
    assert bench.switcher.use(model=OTHER.spec).state == "switching"
    bench.until_over()
    bench.assert_complete(OTHER, 4)


def test_a_swap_that_cannot_be_written_down_did_not_happen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(*range(4))
    (bench.photos / "3.png").unlink()  # so that one picture lacks its vector at the swap
    real, refused = bench.file.write, []

    def write(generations: Any) -> None:
        if generations.next is None and len(refused) < 2:
            waiting = list(bench.ledger.by_state(PictureState.WAITING))
            refused.append(len(waiting))
            raise StoreError("The disk is full.")
        real(generations)

    monkeypatch.setattr(bench.file, "write", write)
    bench.switcher.use(model=OTHER.spec)
    bench.until(lambda: len(refused) == 1 and bench.status()["state"] == "paused")
    bench.assert_complete(INFO, 4)
    bench.until(lambda: bench.switcher.status() is None)
    assert refused == [1, 1]
    assert bench.room.current.store.model == OTHER


def test_changes_during_the_build_are_followed(bench: Bench) -> None:
    bench.add(*range(5))
    go = threading.Event()
    bench.on_open = lambda store: refusing(store, lambda: not go.wait(20))
    bench.switcher.use(model=OTHER.spec)
    bench.add(*range(100, 150))
    (bench.photos / "0.png").unlink()
    bench.queue.put(str(bench.photos / "0.png"), settled=True)
    assert bench.queue.wait_done(bench.queue.ticket(), 30)
    go.set()
    bench.until_over()
    bench.assert_complete(OTHER, 54)


def test_what_lacks_a_vector_at_the_swap_is_queued_before_the_switch_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(*range(5))
    bench.switcher.use(model=OTHER.spec)
    bench.until_over()
    bench.add(60)
    real, go = bench.room.retire, threading.Event()

    def retire(former: Engine) -> None:
        assert go.wait(30)
        real(former)

    monkeypatch.setattr(bench.room, "retire", retire)
    bench.switcher.roll_back()
    bench.until_over()
    bench.assert_complete(INFO, 6)
    go.set()


def test_going_back_and_forth(bench: Bench) -> None:
    with pytest.raises(NothingMatchedError):
        bench.switcher.roll_back()
    bench.add(*range(5))
    bench.switcher.use(model=OTHER.spec)
    bench.until_over()
    bench.add(60)
    assert bench.switcher.roll_back().model == INFO.spec
    bench.until_over()
    bench.assert_complete(INFO, 6)
    assert bench.embedders[INFO.spec].embedded == [1]
    # Whoever names that model again gets the index that is kept, brought up to date.
    bench.add(61)
    bench.switcher.use(model=OTHER.spec)
    bench.until_over()
    bench.assert_complete(OTHER, 7)
    assert bench.embedders[OTHER.spec].embeds_total == 1
    assert bench.switcher.remove_previous().model == INFO.spec
    assert bench.file.current.previous is None


@pytest.mark.parametrize("by", ["request", "the next switch"])
def test_a_remote_index_that_is_not_kept_is_left_to_the_others(bench: Bench, s3: S3, by: str) -> None:
    bench.add(*range(3))
    here, uri = bench.settings, s3.bucket()
    bench.settings, bench.remote_options = replace(here, store_uri=uri), s3.options
    bench.switcher.use(kind="lance")
    bench.until_over()
    shared = open_store("lance", uri, owner="them", options=s3.options)
    shared.apply(Batch(upserts=(StoredPicture(record("theirs")),)))
    assert shared.count() == 4
    bench.settings = here
    bench.switcher.use(kind="faiss")
    bench.until_over()
    assert shared.count() == 4
    if by == "request":
        assert bench.switcher.remove_previous().place == uri
    else:
        bench.switcher.use(kind="lance")
        bench.until_over()
    bench.until(lambda: shared.count() == 1)
    assert [row.id for row in shared.scan()] == ["theirs"]
    bench.assert_complete(INFO, 3)
    shared.close()


def test_what_cannot_be_had_changes_nothing(bench: Bench) -> None:
    bench.add(1)
    before = bench.file.current
    with pytest.raises(ModelUnavailableError, match="What helps: get one"):
        bench.switcher.use(model="local-dir:/nowhere")
    bench.settings = replace(bench.settings, store_uri="s3://bucket/index")
    with pytest.raises(ConfigError, match=r"store\.uri"):
        bench.switcher.use(kind="faiss")
    with pytest.raises(ConfigError, match="shared"):
        bench.switcher.use(kind="lance", model=OTHER.spec)
    assert bench.file.current == before == read_generations(bench.settings.data_dir)
    assert bench.switcher.status() is None
    bench.assert_complete(INFO, 1)


def test_no_return_to_a_kind_that_the_settings_could_not_name(bench: Bench) -> None:
    bench.add(1)
    bench.switcher.use(kind="faiss")
    bench.until_over()
    bench.switcher.use(kind="lance")
    bench.until_over()
    bench.settings = replace(bench.settings, store_uri="s3://bucket/index")
    before = bench.file.current
    with pytest.raises(ConfigError, match=r"store\.uri"):
        bench.switcher.roll_back()
    assert bench.file.current == before
    assert bench.switcher.status() is None


def test_a_next_store_that_is_damaged_is_begun_anew(bench: Bench) -> None:
    bench.add(1, 2)
    folder = Path(bench.settings.data_dir, "lance-2")
    folder.mkdir()
    (folder / "manifest.json").write_text("rubbish")
    target = Generation("lance", "lance-2", OTHER.spec)
    bench.file.write(bench.file.current.building(target, switch_module.Course.EMBED))
    bench.switcher.resume()
    bench.until_over()
    bench.assert_complete(OTHER, 2)
    assert bench.file.current.active.place == "lance-3"
    assert not folder.exists()


def test_a_kept_index_that_was_lost_is_embedded_by_its_own_model(bench: Bench) -> None:
    """It must not take the vectors that answer now, which are of another model."""
    bench.add(*range(6))
    bench.switcher.use(model=OTHER.spec)
    bench.until_over()
    previous = bench.switcher.previous
    assert previous is not None
    shutil.rmtree(previous.where(bench.settings.data_dir))
    bench.switcher.roll_back()
    bench.until_over()
    # What it lacked is queued a moment after the swap, and neither waiting nor indexed while it is in work.
    bench.until(lambda: bench.ledger.counts()[PictureState.INDEXED] == 6)
    assert bench.room.current.embedder.info == INFO
    bench.assert_complete(INFO, 6)


def test_a_reset_that_cannot_forget_forgets_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add(*range(3))
    before = bench.file.current

    def full() -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(bench.ledger, "clear", full)
        with pytest.raises(StoreError, match="The disk is full"):
            bench.switcher.start_afresh()
    assert bench.file.current == before == read_generations(bench.settings.data_dir)
    bench.assert_complete(INFO, 3)
    bench.add(50)
    bench.assert_complete(INFO, 4)


def into_a_shared_table(bench: Bench, s3: S3) -> str:
    uri = s3.bucket()
    bench.settings, bench.remote_options = replace(bench.settings, store_uri=uri), s3.options
    bench.switcher.use(kind="lance")
    bench.until_over()
    return uri


@pytest.mark.parametrize("fault", ["the ledger", "the state"])
def test_a_reset_of_a_shared_table_that_cannot_forget_forgets_nothing(
    bench: Bench, s3: S3, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    bench.add(*range(3))
    into_a_shared_table(bench, s3)
    before = bench.file.current

    def full(*_: object) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patched:
        if fault == "the ledger":
            patched.setattr(bench.ledger, "clear", full)
        else:
            patched.setattr(bench.file, "write", full)
        with pytest.raises(StoreError, match=r"^The disk is full\.$"):
            bench.switcher.start_afresh()
    assert bench.file.current == before == read_generations(bench.settings.data_dir)
    bench.assert_complete(INFO, 3)
    assert bench.switcher.start_afresh().state == "active"
    assert list(bench.room.current.store.scan(own=True)) == []


def test_rows_that_a_reset_had_to_leave_in_a_shared_table_are_told_and_go_with_the_next_one(
    bench: Bench, s3: S3
) -> None:
    bench.add(*range(3))
    uri = into_a_shared_table(bench, s3)
    bench.on_open = lambda store: refusing(store, lambda: True)
    with pytest.raises(StoreError, match=f"The index was reset, but rows .* in {uri}.*`imagedb reset` again"):
        bench.switcher.start_afresh()
    assert not sum(bench.ledger.counts().values())
    assert len(list(bench.room.current.store.scan(own=True))) == 3
    bench.on_open = lambda _: None
    bench.switcher.start_afresh()
    assert list(bench.room.current.store.scan(own=True)) == []
    bench.add(50)
    bench.assert_complete(INFO, 1)


def test_a_daemon_that_stops_does_not_wait_for_the_model_of_a_reset(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(*range(3))
    monkeypatch.setattr(LoadedEmbedder, "load", lambda _: Future())
    closing = threading.Timer(0.2, bench.switcher.close)
    closing.start()
    with pytest.raises(DaemonStoppingError):
        bench.switcher.start_afresh()
    closing.join()
    bench.assert_complete(INFO, 3)


def test_who_asks_for_the_kind_that_answers_gives_up_the_other_with_its_model(bench: Bench) -> None:
    bench.add(*range(3))
    assert bench.switcher.use(kind="faiss", model=OTHER.spec).state == "switching"
    accepted = bench.switcher.use(kind="lance")
    assert (accepted.state, accepted.store) == ("active", "lance")
    bench.until(lambda: bench.switcher.status() is None)
    bench.assert_complete(INFO, 3)
