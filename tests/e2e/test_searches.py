"""Searches of every kind, asked as a user asks them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from pictures import encoded, exif, save

if TYPE_CHECKING:
    from machine import Machine


@pytest.fixture(scope="module")
def gallery(real_machine: Machine) -> Machine:
    """Six pictures with known metadata, indexed by the real model."""
    machine = real_machine
    rome, oslo = (41.9, 12.5), (59.91, 10.75)
    shots: dict[str, dict[str, Any]] = {
        "rome/a.jpg": {
            "make": "NIKON",
            "model": "E950",
            "iso": 80,
            "taken": "2019:05:01 10:00:00",
            "gps": rome,
        },
        "rome/b.jpg": {
            "make": "NIKON",
            "model": "D700",
            "iso": 400,
            "taken": "2020:06:02 11:00:00",
            "gps": rome,
        },
        "oslo/c.jpg": {
            "make": "Canon",
            "model": "EOS 5D",
            "iso": 200,
            "taken": "2021:07:03 12:00:00",
            "gps": oslo,
        },
        "oslo/d.jpg": {"description": "a cafe by the harbour", "taken": "2022:08:04 13:00:00"},
        "e.jpg": {},
    }
    for number, (name, tags) in enumerate(shots.items()):
        save(machine.photos / name, number, exif=exif(**tags))
    save(machine.photos / "wide.png", 77, size=(1200, 100))
    machine.start()
    machine.wait()
    return machine


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [os.path.basename(row["path"]) for row in rows]


def test_a_picture_finds_itself_first(gallery: Machine) -> None:
    for row in gallery.json("list"):
        hits = gallery.json("search", "--image", row["path"])
        assert hits[0]["path"] == row["path"]
        assert hits[0]["similarity"] == pytest.approx(1, abs=1e-4)
        assert [hit["rank"] for hit in hits] == list(range(1, 7))


def test_a_picture_from_elsewhere_is_sent_and_finds_its_like(gallery: Machine) -> None:
    before = gallery.json("status")["embeds_total"]
    hits = json.loads(gallery.run("search", "--image", "-", "--json", stdin=encoded(2)).stdout)
    assert names(hits)[0] == "c.jpg"
    assert gallery.json("status")["embeds_total"] == before + 1


def test_similar_leaves_the_picture_itself_out(gallery: Machine) -> None:
    hits = gallery.json("similar", str(gallery.photos / "e.jpg"))
    assert sorted(names(hits)) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "wide.png"]


def test_a_prompt_ranks_every_picture_by_similarity(gallery: Machine) -> None:
    hits = gallery.json("search", "--prompt", "a dog")
    assert len(hits) == 6
    scores = [hit["similarity"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit["score"] for hit in hits] == scores


def test_metadata_words_must_all_be_there_whatever_their_case_and_accents(gallery: Machine) -> None:
    assert sorted(names(gallery.json("search", "--text", "nikon"))) == ["a.jpg", "b.jpg"]
    assert names(gallery.json("search", "--text", "Nikon d700")) == ["b.jpg"]
    assert names(gallery.json("search", "--text", "CAFÉ")) == ["d.jpg"]
    assert gallery.run("search", "--text", "nikon cafe").returncode == 1


def test_words_need_no_quotes(gallery: Machine) -> None:
    assert gallery.json("search", "by", "the", "harbour") == gallery.json("search", "by the harbour")


def test_a_list_that_is_cut_says_so(gallery: Machine) -> None:
    done = gallery.run("search", "--text", "nikon", "-n", "1", "--paths")
    assert done.stdout.count(b"\n") == 1
    assert b"-n" in done.stderr


def test_a_bare_query_fuses_prompt_and_metadata(gallery: Machine) -> None:
    hits = gallery.json("search", "harbour")
    assert names(hits)[0] == "d.jpg"
    assert hits[0]["text_score"] > 0
    assert all(hit["similarity"] is not None for hit in hits)
    assert len(hits) == 6


def test_weights_let_one_ranking_decide(gallery: Machine) -> None:
    prompt = names(gallery.json("search", "--prompt", "harbour"))
    assert names(gallery.json("search", "harbour", "--weights", "1,0")) == prompt
    assert names(gallery.json("search", "harbour", "--weights", "0,1")) == ["d.jpg"]


def test_pictures_are_added_and_subtracted(gallery: Machine) -> None:
    a, b = str(gallery.photos / "rome" / "a.jpg"), str(gallery.photos / "rome" / "b.jpg")
    assert set(names(gallery.json("search", f"{a} + {b}", "-n", "2"))) == {"a.jpg", "b.jpg"}
    away = names(gallery.json("search", f"2:{a} - {b}"))
    assert (away[0], away[-1]) == ("a.jpg", "b.jpg")
    sent = gallery.home / "IMG 1 - copy.png"  # outside of the index, so both are sent
    sent.write_bytes(encoded(2))
    assert set(names(gallery.json("search", f"2:{a} + 2:{sent}", "-n", "2"))) == {"a.jpg", "c.jpg"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--where", "iso >= 100 and camera_make = 'NIKON'"], ["b.jpg"]),
        (["--where", "iso >= 100"], ["b.jpg", "c.jpg"]),
        (["--where", "width > 1024"], ["wide.png"]),
        (["--where", "iso is null and taken_at is not null"], ["d.jpg"]),
        (["--where", "taken_at between '2019' and '2020'"], ["a.jpg", "b.jpg"]),
        (["--after", "2021"], ["c.jpg", "d.jpg"]),
        (["--before", "2020-06"], ["a.jpg"]),
        (["--after", "2020", "--before", "2021-07-03"], ["b.jpg"]),
        (["--camera", "nikon"], ["a.jpg", "b.jpg"]),
        (["--camera", "eos 5"], ["c.jpg"]),
        (["--near", "41.95,12.5,10"], ["a.jpg", "b.jpg"]),
        (["--near", "59.9,10.7"], ["c.jpg"]),
        (["--in", "photos/oslo"], ["c.jpg", "d.jpg"]),
    ],
)
def test_conditions_choose_the_pictures(gallery: Machine, options: list[str], expected: list[str]) -> None:
    if options[0] == "--in":
        options = ["--in", str(gallery.home / options[1])]
    assert sorted(names(gallery.json("search", *options))) == expected
    assert sorted(names(gallery.json("search", "--prompt", "anything", *options))) == expected


def test_a_bad_expression_shows_where_it_is_bad(gallery: Machine) -> None:
    done = gallery.run("search", "--where", "iso >= 'many'")
    assert done.returncode == 2
    assert b"iso >= 'many'" in done.stderr
    assert b"       ^" in done.stderr
    assert b"Traceback" not in done.stderr
    unknown = gallery.run("search", "--where", "isoo > 100")
    assert unknown.returncode == 2
    assert b"camera_make" in unknown.stderr


def test_a_query_picture_that_cannot_be_read_is_refused_with_its_reason(gallery: Machine) -> None:
    text = gallery.home / "text.jpg"
    text.write_text("no picture")
    for query in (str(text), str(gallery.home / "absent.jpg")):
        done = gallery.run("search", "--image", query)
        assert done.returncode == 2
        assert done.stderr.strip()
        assert b"Traceback" not in done.stderr


def test_the_limit_and_the_lowest_similarity_hold(gallery: Machine) -> None:
    assert len(gallery.json("search", "--prompt", "x", "-n", "2")) == 2
    path = str(gallery.photos / "e.jpg")
    assert names(gallery.json("search", "--image", path, "--min-score", "0.9999")) == ["e.jpg"]


def test_every_output_form_names_the_same_pictures(gallery: Machine) -> None:
    query = ("search", "--text", "nikon")
    paths = [os.fsencode(hit["path"]) for hit in gallery.json(*query)]
    assert gallery.run(*query, "--paths").stdout.split(b"\n")[:-1] == paths
    assert gallery.run(*query, "-0").stdout.split(b"\0")[:-1] == paths
    lines = gallery.run(*query, "--jsonl").stdout.splitlines()
    assert [os.fsencode(json.loads(line)["path"]) for line in lines] == paths
    assert b"a.jpg" in gallery.run(*query).stdout


def test_show_of_a_name_that_is_indexed_elsewhere_says_where(gallery: Machine) -> None:
    done = gallery.run("show", "/elsewhere/a.jpg")
    assert done.returncode == 1
    said = " ".join(done.stderr.decode().split())
    assert str(gallery.photos / "rome" / "a.jpg") in said
    assert "`imagedb why /elsewhere/a.jpg` says the reason" in said


def test_show_prints_the_whole_record(gallery: Machine) -> None:
    record = gallery.json("show", str(gallery.photos / "rome" / "a.jpg"))
    assert record["camera_make"] == "NIKON"
    assert record["taken_at"] == "2019-05-01T10:00:00"
    assert (record["width"], record["height"]) == (320, 240)
    assert record["lat"] == pytest.approx(41.9, abs=1e-3)
    assert record["lon"] == pytest.approx(12.5, abs=1e-3)
