"""The pipeline with real files, decoders, ledger and store; only the model is a fake."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import poison
import pytest
from fakes import INFO, FakeEmbedder
from loose import LOOK_UPS, loosened
from pictures import save
from PIL import Image

from imagedbd import indexer as indexer_module
from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import Batch, Decoded, Limits, PictureState, Signature
from imagedbd.decoder import Decoder
from imagedbd.errors import (
    DaemonBusyError,
    DaemonStoppingError,
    ModelUnavailableError,
    PictureMissingError,
    StoreError,
)
from imagedbd.indexer import Indexer
from imagedbd.ledger import Ledger
from imagedbd.rules import Rules, is_within
from imagedbd.stores import open_store
from imagedbd.unread import UnreadFiles

pytestmark = pytest.mark.in_memory

STUB = Path(__file__).with_name("stub")


class Bench:
    """An indexer with everything around it but a watcher: changes are put by hand."""

    def __init__(
        self, home: Path, embedder: FakeEmbedder, *, keep: bool = False, limits: Limits | None = None
    ) -> None:
        self.photos = home / "photos"
        self.photos.mkdir(exist_ok=keep)
        self.embedder = embedder
        self.ledger = Ledger(str(home / "ledger"))
        self.store = open_store("lance", str(home / "store"))
        self.decoder = Decoder(2, limits)
        self.queue = ChangeQueue(settle_s=0.01, settle_max_s=0.1)
        self.offline: list[str] = []
        self.crashed = False
        self.scans: list[str] = []
        self.unread = UnreadFiles()
        self.indexer = Indexer(
            queue=self.queue,
            ledger=self.ledger,
            store=self.store,
            decoder=self.decoder,
            embedder=embedder,
            rules=Rules([str(self.photos)]),
            may_forget=lambda path: not any(is_within(path, place) for place in self.offline),
            offline_places=lambda _: self.offline,
            request_scan=self.scans.append,
            on_crash=self._note_crash,
            unread=self.unread,
        )
        self.indexer.start()

    def _note_crash(self) -> None:
        self.crashed = True

    def close(self) -> None:
        self.indexer.close()
        self.decoder.close()
        self.store.close()
        self.ledger.close()
        assert not self.crashed

    def look_at(self, *names: str) -> None:
        """Put these paths in the queue when they have come to rest, and return when all is done."""
        time.sleep(0.05)
        for name in names:
            self.queue.put(str(self.photos / name), settled=True)
        deadline = time.monotonic() + 60
        while self.queue.oldest_open() is not None:
            assert not self.crashed
            assert time.monotonic() < deadline
            self.queue.wait_done(self.queue.ticket(), 0.05)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def flat(self, name: str, red: int) -> str:
        """A picture of one colour, for the fake to recognise."""
        Image.new("RGB", (40, 40), (red, 100, 100)).save(self.photos / name)
        return name

    def state(self, name: str) -> PictureState | None:
        entry = self.ledger.get(str(self.photos / name))
        return entry.state if entry else None

    def names(self) -> set[str]:
        return {record.name for record in self.store.scan()}

    @property
    def embedded(self) -> int:
        return sum(self.embedder.embedded)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, FakeEmbedder())
    yield bench
    bench.close()


def test_pictures_get_into_store_and_ledger_with_their_vectors(bench: Bench) -> None:
    names = [bench.flat(f"{red}.png", red) for red in range(20)]
    bench.look_at(*names)
    assert bench.names() == set(names)
    assert bench.store.model == INFO
    assert bench.embedded == 20
    assert bench.ledger.counts()[PictureState.INDEXED] == 20
    ids = [bench.ledger.get(str(bench.photos / name)) for name in names]
    stored = bench.store.get([entry.id for entry in ids if entry and entry.id])
    assert all(row.vector is not None and np.isfinite(row.vector).all() for row in stored)


def test_one_picture_that_the_model_chokes_on_costs_that_picture_only(bench: Bench) -> None:
    bench.embedder.poison = 77
    names = [bench.flat(f"{red}.png", red) for red in range(70, 90)]
    bench.look_at(*names)
    assert bench.names() == set(names) - {"77.png"}
    (failure,) = bench.ledger.failures()
    assert failure.path.endswith("/77.png")
    assert "It choked." in (failure.reason or "")


@pytest.mark.parametrize(
    ("fault", "words"), [("blank", "not finite"), ("zero", "is zero"), ("short", "in place of 16 numbers")]
)
def test_a_malformed_vector_is_refused_singly(bench: Bench, fault: str, words: str) -> None:
    setattr(bench.embedder, fault, 5)
    names = [bench.flat(f"{red}.png", red) for red in range(10)]
    bench.look_at(*names)
    assert bench.names() == set(names) - {"5.png"}
    (failure,) = bench.ledger.failures()
    assert failure.path.endswith("/5.png")
    assert words in (failure.reason or "")


def test_without_a_model_records_are_stored_and_embedded_when_it_is_there(bench: Bench) -> None:
    bench.embedder.info = None
    names = [bench.flat(f"{red}.png", red) for red in range(6)]
    bench.look_at(*names)
    assert bench.names() == set(names)
    assert bench.store.model is None
    assert bench.ledger.counts()[PictureState.WAITING] == 6
    ids = {record.name: record.id for record in bench.store.scan()}

    bench.embedder.info = INFO
    bench.indexer.take_up_waiting()
    bench.look_at()
    assert bench.ledger.counts()[PictureState.INDEXED] == 6
    assert bench.store.stats().vectors == 6
    assert {record.name: record.id for record in bench.store.scan()} == ids


def test_a_moved_file_keeps_row_and_vector(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    (before,) = bench.store.scan()
    os.rename(bench.photos / "a.png", bench.photos / "b.png")
    bench.look_at("a.png", "b.png")
    (after,) = bench.store.scan()
    assert (after.id, after.name) == (before.id, "b.png")
    assert bench.embedded == 1
    assert bench.state("a.png") is None


def test_a_move_seen_from_its_far_end_first_is_a_move_too(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    (before,) = bench.store.scan()
    os.rename(bench.photos / "a.png", bench.photos / "b.png")
    bench.look_at("b.png")
    bench.look_at("a.png")
    (after,) = bench.store.scan()
    assert (after.id, after.name) == (before.id, "b.png")


@pytest.fixture
def loose(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Its folders find names whatever their case."""
    for name in LOOK_UPS:
        monkeypatch.setattr(os, name, loosened(getattr(os, name), str(bench.photos)))
    return bench


@pytest.mark.parametrize("order", [("IMG_1.PNG", "img_1.png"), ("img_1.png", "IMG_1.PNG")])
def test_a_file_renamed_in_nothing_but_case_has_its_new_name_alone(
    loose: Bench, order: tuple[str, ...]
) -> None:
    loose.look_at(loose.flat("IMG_1.PNG", 1))
    (before,) = loose.store.scan()
    os.rename(loose.photos / "IMG_1.PNG", loose.photos / "img_1.png")
    loose.look_at(*order)
    (after,) = loose.store.scan()
    assert (after.id, after.name) == (before.id, "img_1.png")
    assert [entry.path for entry in loose.ledger.under("/")] == [str(loose.photos / "img_1.png")]
    assert loose.embedded == 1


def test_a_file_in_a_folder_renamed_in_nothing_but_case_has_its_new_path_alone(loose: Bench) -> None:
    (loose.photos / "Trip").mkdir()
    loose.look_at(loose.flat("Trip/two.png", 1), loose.flat("other.png", 2))
    os.rename(loose.photos / "Trip", loose.photos / "trip")
    loose.look_at("trip/two.png")
    loose.look_at("Trip/two.png", "other.png")
    assert {os.path.relpath(entry.path, loose.photos) for entry in loose.ledger.under("/")} == {
        "trip/two.png",
        "other.png",
    }
    assert {record.path for record in loose.store.scan()} == {e.path for e in loose.ledger.under("/")}


def test_a_name_that_no_folder_has_is_not_indexed_because_it_finds_a_file(loose: Bench) -> None:
    loose.flat("a.png", 1)
    loose.look_at("A.png")
    assert loose.names() == set()
    loose.look_at("a.png")
    assert loose.names() == {"a.png"}


def test_names_that_differ_in_case_alone_are_two_where_folders_are_exact(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1), bench.flat("A.png", 2))
    os.link(bench.photos / "a.png", bench.photos / "A.PNG")
    bench.look_at("A.PNG", "a.png")
    assert bench.names() == {"a.png", "A.png", "A.PNG"}


def test_no_folder_is_listed_for_its_names_where_look_ups_are_exact(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.spelling._listing", lambda folder: pytest.fail(f"{folder} was listed"))
    names = [bench.flat(f"IMG_{red}.PNG", red) for red in range(5)]
    bench.look_at(*names)
    bench.look_at(*names)
    assert bench.names() == set(names)


def test_a_delete_seen_before_its_create_costs_no_embedding(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    (before,) = bench.store.scan()
    os.rename(bench.photos / "a.png", bench.photos / "b.png")
    bench.look_at("a.png")
    assert bench.names() == set()
    bench.look_at("b.png")
    (after,) = bench.store.scan()
    assert (after.id, after.name) == (before.id, "b.png")
    assert bench.embedded == 1


def test_the_id_of_a_forgotten_picture_is_not_given_twice(bench: Bench) -> None:
    content = (bench.photos / bench.flat("a.png", 1)).read_bytes()
    bench.look_at("a.png")
    bench.flat("a.png", 2)
    bench.look_at("a.png")
    (bench.photos / "b.png").write_bytes(content)
    shutil.copy(bench.photos / "b.png", bench.photos / "c.png")
    bench.look_at("b.png", "c.png")
    assert bench.names() == {"a.png", "b.png", "c.png"}
    assert len({record.id for record in bench.store.scan()}) == 3
    assert bench.embedded == 2


def test_what_lies_in_the_place_of_a_root_that_is_away_is_left_to_a_scan(bench: Bench) -> None:
    known = bench.flat("known.png", 10)
    bench.look_at(known)
    before = bench.ledger.get(str(bench.photos / known))
    bench.offline = [str(bench.photos)]
    bench.flat(known, 20)
    stray = bench.flat("stray.png", 30)
    bench.look_at(known, stray)
    assert bench.names() == {known}
    assert bench.ledger.get(str(bench.photos / known)) == before
    assert set(bench.scans) == {str(bench.photos)}
    bench.offline = []
    bench.look_at(known, stray)
    assert bench.names() == {known, stray}
    assert bench.ledger.get(str(bench.photos / known)) != before


def test_nothing_is_forgotten_while_its_root_is_offline(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    os.remove(bench.photos / "a.png")
    bench.offline = [str(bench.photos)]
    bench.look_at("a.png")
    assert bench.names() == {"a.png"}
    assert bench.state("a.png") is PictureState.INDEXED
    bench.offline = []
    bench.look_at("a.png")
    assert bench.names() == set()


def test_what_an_ignore_file_that_cannot_be_read_may_say_forgets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.flat("a.png", 10)
    bench.look_at("a.png")
    ignoring = bench.photos / ".imagedbignore"
    ignoring.write_text("*.png")

    def fail(file: str, mode: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), file)

    with monkeypatch.context() as disk:
        disk.setattr("imagedbd.rules.open", fail, raising=False)
        bench.look_at("a.png", bench.flat("b.png", 20))
    assert bench.names() == {"a.png"}
    assert bench.state("b.png") is None
    assert bench.scans == [str(bench.photos)] * 2
    bench.look_at("a.png")
    assert bench.names() == set()


@pytest.mark.parametrize("target", ["elsewhere", "nowhere", "trip"])
def test_pictures_whose_folder_became_a_link_are_forgotten_wherever_it_leads(
    bench: Bench, target: str
) -> None:
    (bench.photos / "trip").mkdir()
    bench.look_at(bench.flat("trip/a.png", 1))
    os.rename(bench.photos / "trip", bench.photos / "elsewhere")
    (bench.photos / "trip").symlink_to(target)
    bench.look_at("trip/a.png")
    assert bench.names() == set()


def test_a_folder_in_the_place_of_a_file_is_scanned(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    os.remove(bench.photos / "a.png")
    (bench.photos / "a.png").mkdir()
    bench.look_at("a.png")
    assert bench.names() == set()
    assert bench.scans == [str(bench.photos / "a.png")]


def test_a_store_that_refuses_for_a_while_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.PAUSE_S", 0.05)
    real, refusals = bench.store.apply, []

    def refuse_twice(batch: Batch) -> None:
        if len(refusals) < 2:
            refusals.append(bench.indexer.trouble)
            raise StoreError("The disk is full.")
        real(batch)

    monkeypatch.setattr(bench.store, "apply", refuse_twice)
    bench.look_at(bench.flat("a.png", 1))
    assert refusals == [None, "The disk is full."]
    bench.until(lambda: bench.indexer.trouble is None)
    assert bench.names() == {"a.png"}


def test_who_waits_has_a_store_that_refused_tried_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.PAUSE_S", 3600.0)
    write = bench.store.apply

    def refuse(batch: Batch) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(bench.store, "apply", refuse)
    bench.flat("a.png", 10)
    bench.queue.put(str(bench.photos / "a.png"), settled=True)
    bench.until(lambda: bench.indexer.fresh_trouble is not None)
    monkeypatch.setattr(bench.store, "apply", write)
    bench.indexer.try_again()
    bench.until(lambda: bench.state("a.png") is PictureState.INDEXED)
    bench.until(lambda: bench.indexer.trouble is None)


def test_a_file_that_took_the_daemon_down_twice_is_left_alone(bench: Bench) -> None:
    path = str(bench.photos / bench.flat("a.png", 1))
    stat = os.lstat(path)
    for _ in range(2):
        bench.ledger.begin([(path, Signature.of(stat))])
    bench.look_at("a.png")
    assert bench.state("a.png") is PictureState.FAILED
    bench.ledger.retry([path])
    bench.look_at("a.png")
    assert bench.state("a.png") is PictureState.INDEXED


@pytest.fixture
def infected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    """Its decoders crash, hang and so on over pictures that say so: see ``poison.py``."""
    monkeypatch.setenv("PYTHONPATH", str(STUB))
    monkeypatch.setenv("IMAGEDBD_TEST_DECODES", str(tmp_path / "decodes"))
    monkeypatch.setenv("IMAGEDBD_TEST_BAD_DISK", str(tmp_path / "bad"))
    given = getattr(request.node, "callspec", None)
    hangs = given is not None and given.params.get("kind") in {"hang", "stand still"}
    limits = Limits(timeout_s=2 if hangs else 60, memory_bytes=1 << 28)
    bench = Bench(tmp_path, FakeEmbedder(), limits=limits)
    yield bench
    bench.close()


def poisoned(bench: Bench, name: str, kind: str, *, once: bool = False) -> str:
    path = bench.photos / bench.flat(name, len(kind) * 7)
    with path.open("ab") as file:
        file.write(poison.words(kind, f"{path}.flag" if once else None))
    return name


def decodes(bench: Bench, name: str) -> int:
    """How often a file was opened."""
    return (bench.photos.parent / "decodes").read_text().split().count(str(bench.photos / name))


@pytest.mark.parametrize(
    ("kind", "words", "times"),
    [
        ("crash", "SIGSEGV", 2),
        ("abort", "SIGABRT", 2),
        ("leave", "exit status 7", 2),
        ("killed", "killed while it read", 2),
        ("hang", "longer than 2 s", 2),
        ("stand still", "longer than 2 s", 2),
        ("fill memory", "MemoryError", 1),
    ],
)
def test_a_decoder_that_is_lost_costs_that_file_only_and_two_tries(
    infected: Bench, kind: str, words: str, times: int
) -> None:
    names = [infected.flat(f"{red}.png", red) for red in range(10)]
    infected.look_at(poisoned(infected, "bad.png", kind), *names)
    assert infected.names() == set(names)
    (failure,) = infected.ledger.failures()
    assert failure.path.endswith("/bad.png")
    assert words in (failure.reason or "")
    assert failure.attempts == decodes(infected, "bad.png") == times
    infected.look_at("bad.png")
    assert decodes(infected, "bad.png") == times
    assert infected.ledger.retry() == [failure.path]
    infected.look_at("bad.png")
    assert decodes(infected, "bad.png") == 2 * times


@pytest.mark.parametrize("kind", ["killed", "stand still"])
def test_what_befalls_a_decoder_once_costs_no_picture(infected: Bench, kind: str) -> None:
    infected.look_at(poisoned(infected, "good.png", kind, once=True))
    assert infected.state("good.png") is PictureState.INDEXED
    assert decodes(infected, "good.png") == 2


def test_a_disk_that_fails_costs_no_picture_of_what_it_does_not_give(infected: Bench, tmp_path: Path) -> None:
    names = [infected.flat(f"{red}.png", red) for red in range(6)]
    infected.look_at(*names)
    before = {record.name: record.id for record in infected.store.scan()}
    (tmp_path / "bad").write_text("1")
    infected.ledger.reread(str(infected.photos))
    infected.look_at(*names, infected.flat("new.png", 99))
    assert {record.name: record.id for record in infected.store.scan()} == before
    assert list(infected.ledger.failures()) == []
    assert infected.unread.all() == {
        str(infected.photos / name): "Input/output error." for name in (*names, "new.png")
    }
    assert infected.state("new.png") is PictureState.PENDING

    (tmp_path / "bad").unlink()
    infected.look_at(*names, "new.png")
    assert infected.unread.all() == {}
    assert infected.names() == {*names, "new.png"}
    assert all(infected.state(name) is PictureState.INDEXED for name in infected.names())
    assert {record.name: record.id for record in infected.store.scan() if record.name in before} == before
    assert infected.embedded == 7


def test_what_a_disk_does_not_give_is_no_fault_of_the_files_however_often_it_is_tried(
    infected: Bench, tmp_path: Path
) -> None:
    infected.look_at(infected.flat("a.png", 1))
    (tmp_path / "bad").write_text("1")
    infected.ledger.reread(str(infected.photos))
    for _ in range(2 * indexer_module.MAX_MISSES):
        infected.look_at("a.png")
    assert infected.names() == {"a.png"}
    assert infected.unread.why(str(infected.photos / "a.png")) == "Input/output error."
    os.unlink(infected.photos / "a.png")
    infected.look_at("a.png")
    assert infected.unread.all() == {}
    assert infected.names() == set()


def refused(bench: Bench, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have decoders find these out of sight, where everybody else can see them."""
    submit = bench.decoder.submit

    def answer(path: str, *rest: Any) -> Future[Decoded]:
        if os.path.basename(path) not in names:
            return submit(path, *rest)
        future: Future[Decoded] = Future()
        future.set_exception(PictureMissingError("Permission denied."))
        return future

    monkeypatch.setattr(bench.decoder, "submit", answer)


def test_a_file_that_is_there_and_never_can_be_opened_fails_until_it_can(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look_at(bench.flat("a.png", 1), bench.flat("b.png", 2))
    with monkeypatch.context() as patch:
        refused(bench, patch, "a.png")
        bench.ledger.reread(str(bench.photos))
        bench.look_at("a.png", "b.png")
        (failure,) = bench.ledger.failures()
        assert failure.path.endswith("/a.png")
        assert failure.reason == "It is there and cannot be opened: Permission denied."
        # No change of the file's own would have it read again, so it must not count as read.
        assert failure.signature != Signature.of(os.lstat(failure.path))
        bench.look_at("a.png")
        assert [entry.path for entry in bench.ledger.failures()] == [failure.path]
    bench.look_at("a.png")
    assert bench.names() == {"a.png", "b.png"}
    assert bench.embedded == 2


def test_a_file_that_is_out_of_sight_for_a_moment_keeps_its_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look_at(bench.flat("a.png", 1))
    submit, left = bench.decoder.submit, [None] * (indexer_module.MAX_MISSES - 1)

    def answer(path: str, *rest: Any) -> Future[Decoded]:
        if not left:
            return submit(path, *rest)
        left.pop()
        future: Future[Decoded] = Future()
        future.set_exception(PictureMissingError("No such file or directory."))
        return future

    monkeypatch.setattr(bench.decoder, "submit", answer)
    monkeypatch.setattr(bench.ledger, "put", _without_failures(bench.ledger.put))
    bench.ledger.reread(str(bench.photos))
    bench.look_at("a.png")
    assert bench.state("a.png") is PictureState.INDEXED


def _without_failures(put: Callable[..., None]) -> Callable[..., None]:
    def check(entries: Any, **options: Any) -> None:
        entries = list(entries)
        assert all(entry.state is not PictureState.FAILED for entry in entries)
        put(entries, **options)

    return check


def test_files_under_suspicion_are_tried_last_and_singly(infected: Bench) -> None:
    """If a second one of them takes the daemon down, it is known which."""
    names = [infected.flat(f"{red}.png", red) for red in range(20)]
    suspects = names[:6]
    for name in suspects:
        path = str(infected.photos / name)
        infected.ledger.begin([(path, Signature.of(os.lstat(path)))])
    seen: list[tuple[str, set[str]]] = []
    real = infected.decoder.submit

    def submit(path: str, *arguments: Any) -> Any:
        in_work = {os.path.basename(job.change.path) for job in infected.indexer._line.decoding.values()}
        seen.append((os.path.basename(path), in_work))
        return real(path, *arguments)

    infected.decoder.submit = submit  # type: ignore[method-assign]
    infected.look_at(*names)
    assert [name for name, _ in seen][-6:] == suspects
    assert all(not (in_work & set(suspects)) for name, in_work in seen if name in suspects)
    assert infected.names() == set(names)


def test_files_that_were_read_are_cleared_of_suspicion_also_while_the_model_is_slow(
    bench: Bench,
) -> None:
    """Two kills of the daemon while pictures wait for their vectors are no fault of theirs."""
    held: Future[Any] = Future()
    bench.embedder.embed_pictures = lambda *_: held  # type: ignore[method-assign]
    names = [bench.flat(f"{red}.png", red) for red in range(3)]
    for name in names:
        bench.queue.put(str(bench.photos / name), settled=True)
    bench.until(lambda: all(bench.state(name) is PictureState.PENDING for name in names))
    bench.until(lambda: all(entry.attempts == 0 for entry in bench.ledger.under("/")))
    held.set_exception(ModelUnavailableError("It is gone."))


def test_who_waits_does_not_wait_for_a_file_that_never_rests(bench: Bench) -> None:
    path = bench.photos / bench.flat("growing.png", 1)
    over = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not over.is_set():
                file.write(bytes(100))
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        bench.queue.put(str(path), settled=True)
        bench.queue.put(str(bench.photos / bench.flat("a.png", 2)), settled=True)
        ticket = bench.queue.ticket()
        bench.until(lambda: bench.queue.wait_done(ticket, 0))
        assert bench.names() == {"a.png"}
    finally:
        over.set()
        writer.join()
    bench.until(lambda: bench.names() == {"a.png", "growing.png"})


@pytest.mark.parametrize("content", ["picture", "rubbish"])
def test_a_file_that_was_read_within_a_tick_of_its_change_is_read_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A write that came after the reading may have left its signature as it was."""
    path = bench.photos / bench.flat("a.png", 1)
    if content == "rubbish":
        path.write_bytes(b"rubbish")
    submit, read = bench.decoder.submit, []

    def note(path: str, *rest: Any) -> Future[Decoded]:
        read.append(path)
        return submit(path, *rest)

    monkeypatch.setattr(bench.decoder, "submit", note)
    monkeypatch.setattr(Signature, "may_outlast_a_write", lambda *_: len(read) == 1)
    bench.look_at("a.png")
    assert read == [str(path)] * 2
    (entry,) = bench.ledger.under("/")
    assert entry.signature == Signature.of(path.stat())
    assert bench.embedded == (content == "picture")


@pytest.mark.parametrize(
    ("age_s", "second_s", "told"),
    [(0.01, 0.5, True), (0.1, 0.5, False), (1.5, 0, True), (2.5, 0, False), (-3600, 0.5, False)],
)
def test_what_a_tick_may_hide(age_s: float, second_s: float, told: bool) -> None:
    """Two seconds where times are whole seconds. A time far in the future says that a clock was set back."""
    changed = 1_700_000_000 + second_s
    signature = Signature(1, 2, 3, int(changed * 1e9), int(changed * 1e9))
    assert signature.may_outlast_a_write(changed + age_s) is told


def test_a_failed_file_is_read_again_only_when_it_changes(bench: Bench) -> None:
    (bench.photos / "a.jpg").write_bytes(b"rubbish")
    bench.look_at("a.jpg")
    bench.look_at("a.jpg")
    (failure,) = bench.ledger.failures()
    assert failure.attempts == 1
    save(bench.photos / "a.jpg", 3)
    bench.look_at("a.jpg")
    assert bench.state("a.jpg") is PictureState.INDEXED


def test_a_copy_does_not_take_the_row_of_a_picture_that_is_offline(bench: Bench) -> None:
    (bench.photos / "disk").mkdir()
    content = (bench.photos / bench.flat("disk/usb.png", 1)).read_bytes()
    bench.look_at("disk/usb.png")
    os.remove(bench.photos / "disk" / "usb.png")
    bench.offline = [str(bench.photos / "disk")]
    (bench.photos / "backup.png").write_bytes(content)
    bench.look_at("backup.png")
    assert bench.names() == {"usb.png", "backup.png"}
    assert bench.embedded == 1


def test_a_ledger_that_refuses_after_the_store_wrote_makes_no_second_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.PAUSE_S", 0.05)
    real, refusals = bench.ledger.put, []

    def refuse_twice(entries: Any, **options: Any) -> None:
        if len(refusals) < 2:
            refusals.append(True)
            raise StoreError("The disk is full.")
        real(entries, **options)

    monkeypatch.setattr(bench.ledger, "put", refuse_twice)
    bench.look_at(bench.flat("a.png", 1), bench.flat("b.png", 2))
    assert len(refusals) == 2
    assert bench.store.count() == 2
    assert bench.names() == {"a.png", "b.png"}


def test_a_ledger_that_refuses_at_the_beginning_stops_nothing_for_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.PAUSE_S", 0.05)
    real, refusals = bench.ledger.begin, []

    def refuse_twice(*arguments: Any, **options: Any) -> Any:
        if len(refusals) < 2:
            refusals.append(True)
            raise StoreError("The disk is full.")
        return real(*arguments, **options)

    monkeypatch.setattr(bench.ledger, "begin", refuse_twice)
    bench.look_at(*(bench.flat(f"{red}.png", red) for red in range(5)))
    assert len(bench.names()) == 5


def test_a_record_that_the_store_refuses_does_not_hold_up_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.PAUSE_S", 0.01)
    real = bench.store.apply

    def refuse_one(batch: Batch) -> None:
        if any(row.record.name == "3.png" for row in batch.upserts):
            raise StoreError("It does not fit.")
        real(batch)

    monkeypatch.setattr(bench.store, "apply", refuse_one)
    bench.look_at(*(bench.flat(f"{red}.png", red) for red in range(6)))
    assert bench.names() == {f"{red}.png" for red in (0, 1, 2, 4, 5)}
    (failure,) = bench.ledger.failures()
    assert "It does not fit." in (failure.reason or "")


def test_a_model_that_fails_altogether_blames_no_picture(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedbd.indexer.MODEL_PAUSE_S", 0.5)
    bench.embedder.broken = True
    names = [bench.flat(f"{red}.png", red) for red in range(6)]
    bench.look_at(*names)
    assert bench.names() == set(names)
    assert bench.ledger.counts()[PictureState.WAITING] == 6
    assert "choked" in (bench.indexer.trouble or "")
    bench.embedder.broken = False
    bench.until(lambda: bench.ledger.counts()[PictureState.INDEXED] == 6)
    bench.until(lambda: bench.indexer.trouble is None)


def test_a_model_that_comes_while_pictures_are_on_their_way_misses_none(bench: Bench) -> None:
    bench.embedder.info = None
    names = [bench.flat(f"{number}.png", number % 250) for number in range(120)]
    for name in names:
        bench.queue.put(str(bench.photos / name), settled=True)
    bench.until(lambda: bench.ledger.counts()[PictureState.WAITING] > 0)
    bench.embedder.info = INFO
    bench.indexer.take_up_waiting()
    bench.look_at()
    assert bench.ledger.counts()[PictureState.WAITING] == 0
    assert bench.ledger.counts()[PictureState.INDEXED] == 120


def test_two_clean_stops_in_the_middle_of_work_blame_no_file(tmp_path: Path) -> None:
    for attempt in range(4):
        bench = Bench(tmp_path, FakeEmbedder(), keep=attempt > 0)
        for number in range(40):
            bench.queue.put(bench_picture(bench, number), settled=True)
        if attempt < 3:
            bench.until(lambda bench=bench: len(bench.queue.in_flight()) > 0)
            bench.close()
    bench.look_at()
    assert bench.ledger.counts()[PictureState.FAILED] == 0
    assert bench.ledger.counts()[PictureState.INDEXED] == 40
    bench.close()


def bench_picture(bench: Bench, number: int) -> str:
    path = bench.photos / f"{number}.png"
    if not path.exists():
        bench.flat(path.name, number)
    return str(path)


def test_a_picture_below_a_symbolic_link_is_not_indexed(bench: Bench) -> None:
    (bench.photos / "real").mkdir()
    bench.flat("real/a.png", 1)
    bench.look_at("real/a.png")
    os.rename(bench.photos / "real", bench.photos.parent / "outside")
    (bench.photos / "real").symlink_to(bench.photos.parent / "outside")
    bench.look_at("real/a.png")
    assert bench.names() == set()


def test_many_deletions_take_few_commits(bench: Bench) -> None:
    names = [bench.flat(f"{number}.png", number) for number in range(100)]
    bench.look_at(*names)
    before = bench.store.stats()
    for name in names:
        os.remove(bench.photos / name)
    commits = []
    real = bench.store.apply
    bench.store.apply = lambda batch: (commits.append(1), real(batch))[1]  # type: ignore[method-assign]
    bench.look_at(*names)
    assert bench.store.count() == 0
    assert before.rows == 100
    assert len(commits) <= 5


def test_an_errand_finds_nothing_in_hand_and_new_changes_wait_for_it(bench: Bench) -> None:
    names = [bench.flat(f"{red}.png", red) for red in range(40)]
    for name in names:
        bench.queue.put(str(bench.photos / name), settled=True)
    seen: list[tuple[bool, int]] = []
    errand = bench.indexer.between_batches(
        lambda: seen.append((bool(bench.queue.in_flight()), bench.store.count()))
    )
    errand.result(30)
    assert not seen[0][0]
    bench.look_at()
    assert bench.names() == set(names)


def test_an_errand_wakes_an_idle_indexer_and_its_failure_is_its_own(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    with pytest.raises(ZeroDivisionError):
        bench.indexer.between_batches(lambda: print(1 // 0)).result(10)
    bench.look_at(bench.flat("b.png", 2))
    assert bench.names() == {"a.png", "b.png"}


def test_an_errand_that_is_withdrawn_is_not_run(bench: Bench) -> None:
    real = bench.store.apply
    bench.store.apply = lambda batch: (time.sleep(0.5), real(batch))[1]  # type: ignore[method-assign]
    bench.queue.put(str(bench.photos / bench.flat("a.png", 1)), settled=True)
    bench.until(lambda: bool(bench.queue.in_flight()))
    ran: list[int] = []
    assert bench.indexer.between_batches(lambda: ran.append(1)).cancel()
    bench.look_at(bench.flat("b.png", 2))
    assert bench.names() == {"a.png", "b.png"}
    assert not ran


def test_what_waits_for_an_indexer_that_stops_is_told_so(bench: Bench) -> None:
    bench.look_at(bench.flat("a.png", 1))
    bench.indexer.close()
    assert bench.indexer.between_batches(lambda: None).cancelled()
    with pytest.raises(DaemonStoppingError):
        bench.indexer.have_done(lambda: None)


def test_an_errand_does_not_outlive_an_indexer_that_met_a_bug(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(bench.indexer, "_step", breaks)
    with pytest.raises(DaemonStoppingError):
        bench.indexer.have_done(lambda: None)
    assert bench.crashed
    bench.crashed = False


def test_an_errand_that_something_holds_up_is_withdrawn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = bench.store.apply, threading.Event()
    full.set()

    def apply(batch: Batch) -> None:
        if full.is_set():
            raise StoreError("The disk is full.")
        real(batch)

    monkeypatch.setattr(indexer_module, "PAUSE_S", 0.05)
    monkeypatch.setattr(bench.store, "apply", apply)
    bench.queue.put(str(bench.photos / bench.flat("a.png", 1)), settled=True)
    ran: list[int] = []
    with pytest.raises(DaemonBusyError, match="The disk is full"):
        bench.indexer.have_done(lambda: ran.append(1), patience_s=60)
    full.clear()
    bench.look_at(bench.flat("b.png", 2))
    assert bench.names() == {"a.png", "b.png"}
    assert not ran


def test_the_indexer_goes_on_with_another_store_and_model(bench: Bench, tmp_path: Path) -> None:
    bench.look_at(bench.flat("a.png", 1))
    other, embedder = open_store("lance", str(tmp_path / "other")), FakeEmbedder()
    told: list[str] = []
    bench.indexer.listen(told.extend)
    bench.look_at(bench.flat("b.png", 2))
    assert len(told) == 1
    bench.indexer.between_batches(lambda: bench.indexer.use(other, embedder)).result(10)
    bench.look_at(bench.flat("c.png", 3))
    assert {record.name for record in other.scan()} == {"c.png"}
    assert (embedder.embedded, len(told)) == ([1], 1)
    other.close()


def test_vectors_of_another_model_never_get_into_a_store_however_often_it_is_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another daemon on the same table was first. No picture is to blame."""
    monkeypatch.setattr(indexer_module, "PAUSE_S", 0.01)
    bench.store.bind(replace(INFO, spec="of another daemon", weights_hash="1" * 64))
    name = bench.flat("1.png", 1)
    bench.queue.put(str(bench.photos / name), settled=True)
    bench.until(lambda: bench.indexer.trouble is not None)
    time.sleep(0.3)
    assert "of another daemon" in (bench.indexer.trouble or "")
    assert bench.store.count() == 0
    assert bench.state(name) is PictureState.PENDING


@pytest.mark.parametrize(("pictures", "minutes"), [(1_000, 11), (1_000_000, 120)])
def test_upkeep_that_hangs_is_noticed_after_a_time_that_goes_by_the_size_of_the_index(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, pictures: int, minutes: int
) -> None:
    in_upkeep, goes_on = threading.Event(), threading.Event()

    def hang(*, idle: bool = False) -> None:
        in_upkeep.set()
        assert goes_on.wait(60)

    begun = time.monotonic()
    monkeypatch.setattr(bench.store, "count", lambda: pictures)
    monkeypatch.setattr(bench.store, "maintain", hang)
    bench.queue.put(str(bench.photos / bench.flat("a.png", 1)), settled=True)
    try:
        assert in_upkeep.wait(60)
        monkeypatch.setattr(bench.indexer.pulse, "_clock", lambda: begun + 60 * minutes)
        assert bench.indexer.pulse.overdue_s() is not None
        # As long as a machine takes that is twenty times as slow as the one where it was measured.
        monkeypatch.setattr(bench.indexer.pulse, "_clock", lambda: begun + 20 * 0.0003 * pictures)
        assert bench.indexer.pulse.overdue_s() is None
    finally:
        monkeypatch.undo()
        goes_on.set()
