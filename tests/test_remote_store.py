"""A table that many daemons share: each knows its own rows, none undoes another's; bad addresses are told."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest
from store_rows import DIMENSION, MODEL, picture, record, vector

from imagedbd.datatypes import Batch, Compare
from imagedbd.errors import ConfigError, StoreError, StoreUnreadableError
from imagedbd.stores import lance, lance_service, open_store


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(lance_service, "FIRST_WAIT_S", 0.3)


@pytest.fixture
def uri(s3):
    return s3.bucket()


@pytest.fixture
def daemon(s3, uri):
    """Opens the table as one of the daemons that share it."""
    stores = []

    def open_as(owner):
        stores.append(open_store("lance", uri, owner=owner, exclusive=True, options=s3.options))
        return stores[-1]

    yield open_as
    for store in stores:
        store.close()


@pytest.fixture
def pair(daemon):
    """Two daemons on one bound table."""
    ann, bob = daemon("ann"), daemon("bob")
    ann.bind(MODEL)
    bob.bind(MODEL)
    return ann, bob


def ids(records):
    return {r.id for r in records}


def at_once(*actions):
    """Do these in threads that start together; what each returned or raised."""
    results = [None] * len(actions)
    start = threading.Barrier(len(actions))

    def run(number, action):
        start.wait()
        try:
            results[number] = action()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results[number] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# Sharing.


def test_each_daemon_has_its_own_rows_and_sees_all(pair):
    ann, bob = pair
    ann.apply(Batch(upserts=(picture("a1", 1), picture("a2", 2))))
    bob.apply(Batch(upserts=(picture("b1", 3),)))
    for store, own in ((ann, {"a1", "a2"}), (bob, {"b1"})):
        assert ids(store.scan(own=True)) == own
        assert store.count(own=True) == len(own)
        assert {p.record.id for p in store.pictures()} == own
        assert ids(store.scan()) == {"a1", "a2", "b1"}
        assert store.count() == 3
        assert [m.id for m in store.nearest(vector(3), 1)] == ["b1"]
        assert {m.id for m in store.matching(["dog"], 9)} == {"a1", "a2", "b1"}
    assert ids(bob.scan(Compare("id", "!=", "b1"), own=True)) == set()
    assert bob.count(Compare("id", "=", "a1"), own=True) == 0


def test_a_condition_cannot_reach_beyond_its_own_rows(pair):
    ann, bob = pair
    ann.apply(Batch(upserts=(picture("a1", 1),)))
    assert ids(bob.scan(Compare("id", "=", "' OR 1=1 --"), own=True)) == set()


def test_an_owner_is_never_read_as_sql(daemon):
    odd = daemon("' OR '1'='1")
    daemon("ann").apply(Batch(upserts=(picture("a1"),)))
    odd.apply(Batch(upserts=(picture("o1"),)))
    assert ids(odd.scan(own=True)) == {"o1"}


def test_own_rows_are_known_again_after_opening(pair, daemon):
    ann, bob = pair
    ann.apply(Batch(upserts=(picture("a1", 1),)))
    bob.apply(Batch(upserts=(picture("b1", 2),), patches=()))
    again = daemon("ann")
    assert again.model == MODEL
    assert ids(again.scan(own=True)) == {"a1"}


def test_two_writers_at_once_lose_nothing(pair):
    ann, bob = pair

    def write(store, letter):
        for n in range(12):
            store.apply(Batch(upserts=(picture(f"{letter}{n}", n, mark=n),)))
            if n % 4 == 3:
                store.apply(Batch(patches=(record(f"{letter}{n}", mark=99),), deletes=(f"{letter}{n - 1}",)))

    assert at_once(lambda: write(ann, "a"), lambda: write(bob, "b")) == [None, None]
    kept = {f"{letter}{n}" for letter in "ab" for n in range(12) if n % 4 != 2}
    assert ids(ann.scan()) == ids(bob.scan()) == kept
    assert {r.metadata.width for r in ann.scan() if r.id in ("a3", "b11")} == {99}


def test_a_write_beside_maintenance_loses_nothing(pair):
    ann, bob = pair
    for n in range(8):
        ann.apply(Batch(upserts=(picture(f"a{n}", n),)))

    def write():
        for n in range(8):
            bob.apply(Batch(upserts=(picture(f"b{n}", n),)))

    def compact():
        ann.maintain(idle=True)

    written, compacted = at_once(write, compact)
    assert written is None
    assert compacted is None or isinstance(compacted, StoreError)
    assert len(ids(bob.scan())) == 16
    assert [m.id for m in ann.nearest(vector(5), 2)] in (["a5", "b5"], ["b5", "a5"])


def test_one_daemon_at_a_time_compacts(pair, monkeypatch):
    ann, bob = pair
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert ann._place.may_maintain()
    assert ann._place.may_maintain()
    assert not bob._place.may_maintain()
    monkeypatch.setattr(time, "time", lambda: now + 3_600)
    assert bob._place.may_maintain()
    assert not ann._place.may_maintain()


def test_maintenance_leaves_what_another_daemon_may_still_read(pair):
    ann, bob = pair
    for n in range(9):
        ann.apply(Batch(upserts=(picture(f"a{n}", n),)))
    reading = bob.scan()
    assert next(reading).id.startswith("a")
    ann.maintain(idle=True)
    assert len(list(reading)) == 8


# Agreeing on one manifest.


def test_daemons_that_start_at_once_make_one_table(daemon):
    stores = at_once(*(lambda owner=owner: daemon(owner) for owner in "abc"))
    for store in stores:
        store.bind(MODEL)
    results = at_once(
        *(lambda s=s, n=n: s.apply(Batch(upserts=(picture(f"r{n}", n),))) for n, s in enumerate(stores))
    )
    assert results == [None] * 3
    assert ids(stores[0].scan()) == {"r0", "r1", "r2"}
    assert {m.id for m in stores[1].matching(["dog"], 5)} == {"r0", "r1", "r2"}


def test_the_second_daemon_must_agree_with_the_model(daemon):
    ann, bob = daemon("ann"), daemon("bob")
    ann.bind(MODEL)
    with pytest.raises(StoreError, match="tiny/demo"):
        bob.bind(replace(MODEL, spec="other", weights_hash="other", dimension=16))
    bob.bind(MODEL)
    bob.apply(Batch(upserts=(picture("b", 1),)))
    assert daemon("carl").model == MODEL


def test_of_models_bound_at_once_one_holds(daemon):
    models = [replace(MODEL, spec=f"m{n}", weights_hash=f"{n}", dimension=DIMENSION + n) for n in range(4)]
    stores = [daemon(str(n)) for n in range(4)]
    results = at_once(*(lambda s=s, m=m: s.bind(m) for s, m in zip(stores, models, strict=True)))
    (winner,) = [model for model, result in zip(models, results, strict=True) if result is None]
    assert all(result is None or isinstance(result, StoreError) for result in results)
    assert {store.model for store in (*stores, daemon("late"))} == {winner}


def test_a_daemon_without_a_model_keeps_vectors_that_it_patches(daemon):
    ann, late = daemon("ann"), daemon("ann")
    late_knows_of_no_model = late.model
    ann.bind(MODEL)
    ann.apply(Batch(upserts=(picture("a", 1),)))
    late.apply(Batch(patches=(record("a", mark=5),)))
    (found,) = ann.get(["a"])
    assert late_knows_of_no_model is None
    assert found.record.metadata.width == 5
    assert float(found.vector @ vector(1)) > 0.999


def test_a_binding_that_was_interrupted_is_finished_by_the_next(daemon, monkeypatch):
    ann = daemon("ann")
    with monkeypatch.context() as patched:
        patched.setattr(lance.LanceStore, "_add_vector_column", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ann.bind(MODEL)
    bob = daemon("bob")
    assert bob.model == MODEL
    bob.apply(Batch(upserts=(picture("b", 1),)))
    assert [m.id for m in bob.nearest(vector(1), 1)] == ["b"]


def test_what_is_of_a_newer_version_is_refused_and_left(daemon):
    store = daemon("ann")
    newer = replace(store._manifest, schema=lance.SCHEMA + 1)
    assert store._place.settle(newer) == newer
    with pytest.raises(StoreUnreadableError, match="newer imagedbd"):
        daemon("bob")


def test_a_damaged_manifest_is_told(daemon):
    store = daemon("ann")
    about = store._place._about()
    (row,) = about.search().to_list()
    about.update(values={"manifest": row["manifest"].replace("float16", "float32")})
    with pytest.raises(StoreUnreadableError, match="cannot be read"):
        daemon("bob")


def test_rows_without_a_manifest_are_told_and_left_alone(daemon):
    store = daemon("ann")
    store.bind(MODEL)
    store.apply(Batch(upserts=(picture("a", 1),)))
    store._place.connect().drop_table("pictures_about")
    with pytest.raises(StoreUnreadableError, match="pictures_about"):
        daemon("bob")
    assert ids(store.scan()) == {"a"}


# What a remote place cannot do is knowingly left.


def test_there_is_nothing_to_scrub_and_no_size(pair):
    assert list(pair[0].scrub()) == []
    assert pair[0].stats().bytes_on_disk is None


def test_a_failed_write_is_not_taken_back_over_others(pair, monkeypatch):
    """The other daemon may have committed in between: going back would undo that."""
    ann, bob = pair
    real = lance.LanceStore._write

    def failing(self, *given):
        bob_writes()
        real(self, *given)
        raise OSError("the connection was lost")

    def bob_writes():
        monkeypatch.setattr(lance.LanceStore, "_write", real)
        bob.apply(Batch(upserts=(picture("b", 1),)))

    monkeypatch.setattr(lance.LanceStore, "_write", failing)
    with pytest.raises(StoreError, match="connection was lost"):
        ann.apply(Batch(upserts=(picture("a", 1),)))
    assert "b" in ids(ann.scan())
    ann.apply(Batch(upserts=(picture("a", 1),)))
    assert ids(bob.scan()) == {"a", "b"}


# Addresses and options that do not work.


@pytest.mark.parametrize(
    ("address", "options", "why"),
    [
        ("nosuch://place", {}, "nosuch"),
        ("db://pictures", {}, "api_key"),
        ("db://pictures", {"api_key": "x", "colour": "red"}, "colour"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_bad_setting(monkeypatch, address, options, why):
    monkeypatch.delenv("LANCEDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=why) as caught:
        open_store("lance", address, options=options)
    assert address in caught.value.message
    assert caught.value.exit_code == 78


def test_a_bucket_that_is_not_there_is_a_fault(s3):
    with pytest.raises(StoreError, match="nowhere"):
        open_store("lance", "s3://nowhere/index", options=s3.options)


@pytest.fixture
def deaf():
    """A port that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def impatient(s3, endpoint):
    return {
        **s3.options,
        "aws_endpoint": endpoint,
        "timeout": "500 milliseconds",
        "client_max_retries": "0",
        "client_retry_timeout": "2",
    }


def test_a_service_that_does_not_answer_is_a_fault_in_bounded_time(s3, deaf):
    start = time.monotonic()
    with pytest.raises(StoreError, match="could not open"):
        open_store("lance", "s3://bucket/index", options=impatient(s3, deaf))
    assert time.monotonic() - start < 40


def test_a_service_that_is_not_there_is_a_fault_in_bounded_time(s3, closed_port):
    start = time.monotonic()
    with pytest.raises(StoreError, match="could not open"):
        open_store("lance", "s3://bucket/index", options=impatient(s3, closed_port))
    assert time.monotonic() - start < 40


def test_lancedbs_own_service_that_is_not_there_is_a_fault_in_bounded_time(closed_port):
    start = time.monotonic()
    options = {"api_key": "secret-key", "region": "eu", "host_override": closed_port}
    with pytest.raises(StoreError, match="could not open") as caught:
        open_store("lance", "db://pictures", options=options)
    assert "secret-key" not in caught.value.message
    assert time.monotonic() - start < 40


def test_a_service_that_comes_back_is_written_to_again(s3, pair, monkeypatch):
    ann, _ = pair
    ann.apply(Batch(upserts=(picture("a", 1),)))

    def lost(*_):
        raise OSError("the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(lance.LanceStore, "_write", lost)
        with pytest.raises(StoreError, match="connection was lost"):
            ann.apply(Batch(upserts=(picture("b", 1),)))
    ann.apply(Batch(upserts=(picture("b", 1),)))
    assert ids(ann.scan()) == {"a", "b"}
