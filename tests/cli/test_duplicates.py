"""``imagedb dupes``: what is asked, and what is printed of the answer."""

from __future__ import annotations

import json
import time

import pytest

from imagedbd.errors import StoreError

END = {"looked_at": 1204, "unseen": 0, "bare": 0}
STEP = {"name": "comparing vectors", "done": 500, "total": 1204}


def a_picture(path: str, **changes):
    picture = {
        "path": path, "id": path, "content_hash": "h", "size": 3_100_000, "mtime": "2024-05-04T10:00:00Z",
        "format": "JPEG", "width": 4000, "height": 3000, "taken_at": None, "camera": None,
    }  # fmt: skip
    return {**picture, **changes}


IDENTICAL = {"tier": "identical", "pictures": [a_picture("/photos/a.jpg"), a_picture("/photos/b\udce9.jpg")]}
SAME = {"tier": "same", "pictures": [a_picture("/photos/a.jpg"), a_picture("/photos/small.jpg", size=50_000)]}


def test_groups_are_told_with_what_they_cost(daemon, imagedb):
    daemon.answers["/dupes"] = [STEP, IDENTICAL, SAME, END]
    ran = imagedb("dupes")
    assert ran.code == 0
    lines = ran.text.splitlines()
    assert lines[0] == "identical files, 2"
    assert lines[2].split() == [r"/photos/b\xe9.jpg", "4000×3000", "3.1", "MB"]
    assert "1 group of identical files: 2 files, 3.1 MB beyond the first of each" in ran.words
    assert "1 group of one picture, re-encoded or resized: 2 files, 50.0 kB" in ran.words


def test_it_is_asked_for_tiers_and_folders(daemon, imagedb, tmp_path):
    daemon.answers["/dupes"] = [IDENTICAL, END]
    imagedb("dupes", "--tier", "identical", "--tier", "burst", "--in", "x")
    assert daemon.bodies("/dupes") == [{"under": [str(tmp_path / "x")], "tiers": ["identical", "burst"]}]


def test_json_is_the_groups(daemon, imagedb):
    daemon.answers["/dupes"] = [STEP, IDENTICAL, SAME, END]
    assert json.loads(imagedb("dupes", "--json").text) == [IDENTICAL, SAME]
    assert [json.loads(line) for line in imagedb("dupes", "--jsonl").text.splitlines()] == [IDENTICAL, SAME]


def test_nothing_twice_is_1(daemon, imagedb):
    daemon.answers["/dupes"] = [END]
    ran = imagedb("dupes", "--json")
    assert (ran.code, json.loads(ran.text)) == (1, [])
    assert ran.words == "imagedb: Nothing matched: Among 1,204 pictures none is there twice.\n"


def test_a_folder_that_is_not_there_is_named_as_a_search_names_it(daemon, imagedb):
    daemon.answers["/dupes"] = [{"looked_at": 0, "unseen": 0, "bare": 0}]
    ran = imagedb("dupes", "--in", "/none")
    assert (ran.code, "There is no folder /none." in ran.words) == (1, True)


def test_what_is_not_sure_is_said(daemon, imagedb):
    daemon.answers["/dupes"] = [IDENTICAL, {**END, "unseen": 2, "bare": 1}]
    words = imagedb("dupes").words
    assert "2 files could not be read to make sure" in words
    assert "1 picture has no vector yet" in words


def test_an_unknown_tier_is_refused(daemon, imagedb):
    assert imagedb("dupes", "--tier", "similar").code == 2
    assert not daemon.requests


@pytest.mark.parametrize("answer", [[STEP], [IDENTICAL]])
def test_an_answer_without_its_end_is_no_answer(daemon, imagedb, answer):
    daemon.answers["/dupes"] = answer
    ran = imagedb("dupes")
    assert (ran.code, ran.data) == (70, b"")
    assert "broke off" in ran.words


def test_an_error_on_the_way_is_told(daemon, imagedb):
    error = StoreError("It does not answer.")
    body = {"name": "StoreError", "title": error.title, "message": error.message}
    daemon.answers["/dupes"] = [STEP, {"error": body}]
    ran = imagedb("dupes")
    assert (ran.code, ran.words) == (70, "imagedb: Store failed: It does not answer.\n")


def test_a_terminal_sees_how_far_it_is(daemon, terminal):
    from .test_entry import PROGRAM

    def rows(_):
        yield STEP
        time.sleep(1.2)
        yield {**STEP, "done": 900}
        yield IDENTICAL
        yield END

    daemon.answers["/dupes"] = rows
    code, seen = terminal([*PROGRAM, "dupes"], COLUMNS="100")
    assert code == 0
    assert b"Comparing vectors" in seen
    assert b"900 of 1,204" in seen
