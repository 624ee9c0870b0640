from __future__ import annotations

import math
import random
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imagedbd.change_queue import ChangeQueue
from imagedbd.datatypes import FileChange

FOREVER = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> ChangeQueue:
    return ChangeQueue(settle_s=1.0, settle_max_s=6.0, clock=clock)


def taken(queue: ChangeQueue, limit: int = 100) -> list[str]:
    return [change.path for change in queue.take(limit, timeout=0)]


class TestSettling:
    def test_a_path_waits_until_nothing_has_happened_for_the_settle_time(self, queue, clock):
        queue.put("a")
        clock.now += 0.9
        assert taken(queue) == []
        clock.now += 0.1
        assert taken(queue) == ["a"]

    def test_another_put_moves_the_deadline(self, queue, clock):
        queue.put("a")
        clock.now += 0.9
        queue.put("a")
        clock.now += 0.9
        assert taken(queue) == []
        clock.now += 0.2
        assert taken(queue) == ["a"]

    def test_a_path_that_never_rests_goes_after_the_longest_wait(self, queue, clock):
        for _ in range(7):
            queue.put("a")
            assert taken(queue) == []
            clock.now += 0.9
        assert taken(queue) == ["a"]

    def test_a_settled_path_goes_at_once(self, queue):
        queue.put("a", settled=True)
        assert taken(queue) == ["a"]

    def test_a_path_known_to_be_settled_no_longer_waits_for_an_earlier_put(self, queue, clock):
        first = queue.put("a")
        assert queue.put("a", settled=True) == first
        assert taken(queue) == ["a"]
        clock.now += 10
        assert taken(queue) == []

    def test_a_closed_file_waits_less_and_longer_again_when_it_is_written_on(self, queue, clock):
        queue.put("a")
        queue.put("a", closed=True)
        queue.put("b", closed=True)
        queue.put("b")
        clock.now += 0.5
        assert taken(queue) == ["a"]
        clock.now += 0.5
        assert taken(queue) == ["b"]

    def test_paths_come_in_the_order_in_which_they_settled(self, queue, clock):
        queue.put("late")
        queue.put("early", closed=True)
        queue.put("at once", settled=True)
        clock.now += 2
        assert taken(queue, limit=2) == ["at once", "early"]
        assert taken(queue) == ["late"]

    def test_a_file_that_is_written_for_long_takes_no_more_room_than_any_other(self, queue, clock):
        for _ in range(10_000):
            queue.put("a")
            clock.now += 0.0001
        assert len(queue._alarms) == 1


class TestWorkInFlight:
    def test_a_path_is_not_handed_out_twice(self, queue):
        queue.put("a", settled=True)
        queue.take(1, timeout=0)
        queue.put("a", settled=True)
        assert taken(queue) == []

    def test_what_was_put_meanwhile_is_a_change_of_its_own_afterwards(self, queue):
        first = queue.put("a", settled=True)
        (change,) = queue.take(1, timeout=0)
        second = queue.put("a", settled=True)
        assert second > first
        queue.done(change)
        assert queue.take(1, timeout=0) == [FileChange("a", second)]

    def test_what_was_put_meanwhile_settles_like_any_other(self, queue, clock):
        queue.put("a", settled=True)
        (change,) = queue.take(1, timeout=0)
        queue.put("a")
        queue.done(change)
        assert taken(queue) == []
        clock.now += 1
        assert taken(queue) == ["a"]

    def test_a_settled_path_that_is_written_meanwhile_has_to_settle_again(self, queue, clock):
        queue.put("a", settled=True)
        (change,) = queue.take(1, timeout=0)
        queue.put("a", settled=True)
        queue.put("a")
        queue.done(change)
        assert taken(queue) == []
        clock.now += 1
        assert taken(queue) == ["a"]

    def test_counts_as_pending_and_contained_until_it_is_done(self, queue):
        queue.put("a", settled=True)
        queue.put("b")
        assert queue.pending == 2
        (change,) = queue.take(5, timeout=0)
        assert queue.pending == 2
        assert "a" in queue
        assert queue.in_flight() == ["a"]
        queue.done(change)
        assert queue.pending == 1
        assert "a" not in queue
        assert "b" in queue
        assert queue.in_flight() == []

    def test_cannot_be_done_twice(self, queue):
        queue.put("a", settled=True)
        (change,) = queue.take(1, timeout=0)
        queue.done(change)
        with pytest.raises(KeyError):
            queue.done(change)


class TestWaiting:
    def test_an_empty_queue_has_nothing_open(self, queue):
        assert queue.oldest_open() is None
        assert queue.wait_done(queue.ticket(), timeout=0)

    def test_a_ticket_covers_what_was_put_before_it_and_nothing_later(self, queue):
        queue.put("a", settled=True)
        ticket = queue.ticket()
        queue.put("b", settled=True)
        a, b = queue.take(2, timeout=0)
        assert queue.oldest_open() == a.sequence
        queue.done(b)
        assert not queue.wait_done(ticket, timeout=0)
        queue.done(a)
        assert queue.wait_done(ticket, timeout=0)
        assert queue.oldest_open() is None

    def test_a_path_that_is_put_again_is_waited_for_by_both_tickets(self, queue, clock):
        queue.put("a")
        early = queue.ticket()
        queue.put("a")
        late = queue.ticket()
        assert not queue.wait_done(early, timeout=0)
        assert not queue.wait_done(late, timeout=0)
        clock.now += 1
        queue.done(queue.take(1, timeout=0)[0])
        assert queue.wait_done(early, timeout=0)
        assert queue.wait_done(late, timeout=0)

    def test_a_change_in_flight_does_not_stand_for_one_that_was_put_after_it(self, queue):
        queue.put("a", settled=True)
        (change,) = queue.take(1, timeout=0)
        queue.put("a", settled=True)
        ticket = queue.ticket()
        queue.done(change)
        assert not queue.wait_done(ticket, timeout=0)
        queue.done(queue.take(1, timeout=0)[0])
        assert queue.wait_done(ticket, timeout=0)


class TestThreads:
    def test_a_taker_wakes_when_a_path_has_settled(self):
        queue = ChangeQueue(settle_s=0.05, settle_max_s=1)
        queue.put("a")
        assert [c.path for c in queue.take(1, timeout=FOREVER)] == ["a"]

    def test_a_taker_that_waits_already_wakes_for_a_new_path(self):
        queue = ChangeQueue(settle_s=0.05, settle_max_s=1)
        changes: list[FileChange] = []
        taker = threading.Thread(target=lambda: changes.extend(queue.take(1, timeout=FOREVER)))
        taker.start()
        queue.put("a")
        taker.join(FOREVER)
        assert [change.path for change in changes] == ["a"]

    def test_closing_wakes_takers_and_waiters_with_nothing(self):
        queue = ChangeQueue()
        queue.put("a")
        answers: list[object] = []
        threads = [
            threading.Thread(target=lambda: answers.append(queue.take(1))),
            threading.Thread(target=lambda: answers.append(queue.wait_done(1))),
        ]
        for thread in threads:
            thread.start()
        queue.close()
        for thread in threads:
            thread.join(FOREVER)
        assert sorted(map(str, answers)) == ["False", "[]"]
        assert queue.put("b") == 1
        assert queue.pending == 1

    def test_every_path_put_by_many_threads_is_done_and_none_is_worked_on_twice_at_once(self):
        queue = ChangeQueue(settle_s=0.01, settle_max_s=0.05)
        workers = Workers(queue)
        consumers = [threading.Thread(target=workers.consume) for _ in range(3)]
        producers = [threading.Thread(target=workers.produce, args=(seed,)) for seed in range(3)]
        for thread in consumers + producers:
            thread.start()
        for thread in producers:
            thread.join(FOREVER)
        assert queue.wait_done(queue.ticket(), FOREVER)
        queue.close()
        for thread in consumers:
            thread.join(FOREVER)
        assert workers.overlaps == []
        assert workers.last_work == workers.last_put
        assert queue.pending == 0


class Workers:
    """What producers have put and consumers worked on, by path the newest sequence number."""

    def __init__(self, queue: ChangeQueue) -> None:
        self.queue = queue
        self.lock = threading.Lock()
        self.working: set[str] = set()
        self.overlaps: list[str] = []
        self.last_put: dict[str, int] = {}
        self.last_work: dict[str, int] = {}

    def produce(self, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(500):
            path = f"/{rng.randrange(40)}"
            sequence = self.queue.put(path, settled=rng.random() < 0.5, closed=rng.random() < 0.5)
            with self.lock:
                self.last_put[path] = max(self.last_put.get(path, 0), sequence)

    def consume(self) -> None:
        while changes := self.queue.take(7):
            for change in changes:
                self.begin(change)
            for change in changes:
                self.end(change)

    def begin(self, change: FileChange) -> None:
        with self.lock:
            if change.path in self.working:
                self.overlaps.append(change.path)
            self.working.add(change.path)

    def end(self, change: FileChange) -> None:
        with self.lock:
            self.working.remove(change.path)
            self.last_work[change.path] = change.sequence
        self.queue.done(change)


class QueueAgainstModel(RuleBasedStateMachine):
    """The queue against its one promise: what is put is handed out afterwards, and covered by its ticket."""

    PATHS = st.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = ChangeQueue(settle_s=1, settle_max_s=6, clock=self.clock)
        self.open: dict[str, set[int]] = {}
        self.in_flight: list[FileChange] = []
        self.handed_out: set[int] = set()

    @rule(path=PATHS, settled=st.booleans(), closed=st.booleans())
    def put(self, path, settled, closed):
        sequence = self.queue.put(path, settled=settled, closed=closed)
        assert sequence not in self.handed_out
        self.open.setdefault(path, set()).add(sequence)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 7]))
    def time_goes_by(self, seconds):
        self.clock.now += seconds

    @rule(limit=st.integers(1, 5))
    def take(self, limit):
        changes = self.queue.take(limit, timeout=0)
        assert len(changes) <= limit
        busy = {change.path for change in self.in_flight}
        assert busy.isdisjoint(change.path for change in changes)
        self.handed_out.update(change.sequence for change in changes)
        self.in_flight += changes

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 10))
    def done(self, which):
        change = self.in_flight.pop(which % len(self.in_flight))
        self.queue.done(change)
        self.open[change.path].remove(change.sequence)

    @rule()
    def all_rest_comes_out_in_the_end(self):
        self.clock.now += 10
        self.take(100)
        while self.in_flight:
            self.done(0)
        self.clock.now += 10
        self.take(100)
        while self.in_flight:
            self.done(0)
        assert self.queue.pending == 0

    @invariant()
    def open_changes_are_known(self):
        sequences = set().union(*self.open.values())
        assert self.queue.pending == len(sequences)
        assert self.queue.oldest_open() == min(sequences, default=None)
        assert {path for path in "abcd" if path in self.queue} == {
            p for p, open_ in self.open.items() if open_
        }


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestHolding:
    def test_what_is_held_back_comes_when_a_clock_of_its_own_says_so(self, queue):
        left = [math.inf]
        queue.hold(lambda: left[0])
        queue.put("/a", settled=True)
        assert taken(queue) == []
        left[0] = 5.0
        assert taken(queue) == []
        left[0] = -1.0
        assert taken(queue) == ["/a"]

    def test_who_waits_looks_at_that_clock(self):
        queue, end = ChangeQueue(settle_s=0), time.monotonic() + 0.05
        queue.hold(lambda: end - time.monotonic())
        queue.put("/a", settled=True)
        assert [change.path for change in queue.take(1, timeout=FOREVER)] == ["/a"]

    def test_it_ends_when_it_is_released(self, queue):
        queue.hold(lambda: math.inf)
        queue.put("/a", settled=True)
        queue.release()
        assert taken(queue) == ["/a"]
