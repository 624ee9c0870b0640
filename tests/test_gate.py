from __future__ import annotations

import threading

import pytest

from imagedbd.stores.gate import Gate


def begun(action):
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_readers_come_in_together():
    gate, inside = Gate(), threading.Barrier(3, timeout=10)

    def read():
        with gate.reading():
            inside.wait()

    threads = [begun(read) for _ in range(3)]
    for thread in threads:
        thread.join(10)
    assert not inside.broken


def test_a_writer_is_alone():
    gate, seen, value = Gate(), [], [0, 0]

    def write():
        for _ in range(300):
            with gate.writing():
                value[0] += 1
                value[1] += 1

    def read():
        for _ in range(300):
            with gate.reading():
                seen.append(tuple(value))

    threads = [begun(action) for action in (write, read, write, read)]
    for thread in threads:
        thread.join(30)
    assert value == [600, 600]
    assert all(one == other for one, other in seen)


def test_a_waiting_writer_goes_before_new_readers():
    gate, order = Gate(), []
    entered = threading.Event()

    def write():
        with gate.writing():
            order.append("writer")

    def read():
        with gate.reading():
            order.append("reader")

    with gate.reading():
        writer = begun(write)
        while not gate._writer:
            entered.wait(0.01)
        reader = begun(read)
        entered.wait(0.05)
        assert order == []
    writer.join(10)
    reader.join(10)
    assert order == ["writer", "reader"]


def test_an_error_inside_leaves_the_gate_open():
    gate = Gate()
    for way in (gate.reading, gate.writing):
        with pytest.raises(ZeroDivisionError), way():
            _ = 1 / 0
    with gate.writing():
        pass
