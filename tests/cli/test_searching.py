"""Searching from the command line: what is asked, and the forms of the answer."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import sys

import pytest

from imagedbd.cli.query import AVERSION
from imagedbd.errors import ExpressionError, PictureNeededError, QueryPictureError

from .conftest import a_hit, a_status

HOSTILE = [
    "/photos/plain.jpg",
    "/photos/two words 'quoted' \"twice\".jpg",
    "/photos/line\nbreak.jpg",
    "/photos/\x1b[31mred\x07.jpg",
    "/photos/caf\udce9.jpg",
    "/photos/right\u202eleft.jpg",
    "/photos/[bold]no markup[/bold] :smile:.jpg",
    "/photos/père 写真 👩‍💻.jpg",
]


def _answering(daemon, hits, notes=()):
    daemon.answers["/search"] = {"hits": hits, "notes": list(notes), "took_ms": 3.2}


@pytest.fixture
def hostile(daemon):
    _answering(daemon, [a_hit(path, rank) for rank, path in enumerate(HOSTILE, start=1)])
    return daemon


class TestForms:
    def test_json_is_one_ascii_list(self, hostile, imagedb):
        ran = imagedb("search", "x", "--json")
        assert ran.data.isascii()
        assert [hit["path"] for hit in json.loads(ran.data)] == HOSTILE
        assert rb"caf\udce9.jpg" in ran.data
        assert {"path", "score", "rank"} <= set(json.loads(ran.data)[0])
        assert (ran.code, ran.words) == (0, "")

    def test_jsonl_is_an_object_a_line(self, hostile, imagedb):
        ran = imagedb("search", "x", "--jsonl")
        assert [json.loads(line)["path"] for line in ran.data.splitlines()] == HOSTILE

    def test_paths_are_the_bytes_of_the_file_system(self, hostile, imagedb):
        assert imagedb("search", "x", "--paths").data == b"".join(os.fsencode(p) + b"\n" for p in HOSTILE)

    @pytest.mark.parametrize("flag", ["-0", "--null"])
    def test_nul_ended_paths_are_safe_for_every_name(self, hostile, imagedb, flag):
        assert [os.fsdecode(p) for p in imagedb("search", "x", flag).data.split(b"\0")[:-1]] == HOSTILE

    def test_a_table_shows_a_name_and_never_obeys_it(self, hostile, imagedb):
        text = imagedb("search", "x").text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
        for shown in (
            r"line\nbreak",
            r"\x1b[31mred\x07",
            r"caf\xe9",
            r"right\u202eleft",
            "[bold]no markup[/bold]",
        ):
            assert shown in text
        assert ":smile:" in text
        assert "写真 👩‍💻" in text
        assert len(text.splitlines()) == 1 + len(HOSTILE)

    def test_a_table_in_a_pipe_folds_nothing(self, daemon, imagedb):
        path = f"/photos/{'very ' * 60}long.jpg"
        _answering(daemon, [a_hit(path)])
        lines = imagedb("search", "x").text.splitlines()
        assert lines[1].split(None, 2)[:2] == ["1", "1.000"]
        assert path in lines[1]
        assert lines[1].endswith("2024-05-04  640×480  NIKON Z 6")

    def test_a_table_at_forty_columns_keeps_the_whole_path(self, daemon, imagedb, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        path = "/photos/2024/a-rather-long-folder-name/and_a_long_file_name.jpg"
        _answering(daemon, [a_hit(path)])
        lines = imagedb("search", "x").text.splitlines()
        assert max(map(len, lines)) <= 40
        assert path in "".join(line.split()[-1] for line in lines)

    def test_a_table_is_without_colour_in_a_pipe(self, hostile, imagedb):
        assert b"\x1b" not in imagedb("search", "x").data

    def test_paths_are_shortened_to_where_one_stands(self, daemon, imagedb, tmp_path):
        _answering(daemon, [a_hit(str(tmp_path / "here.jpg"))])
        assert imagedb("search", "x").text.splitlines()[1].split()[2] == "here.jpg"

    def test_two_forms_at_once_are_refused(self, hostile, imagedb):
        ran = imagedb("search", "x", "--json", "-0")
        assert (ran.code, ran.data) == (2, b"")
        assert "--json and -0 exclude each other" in ran.words


class TestNothing:
    @pytest.mark.parametrize(
        ("flag", "data"), [("--json", b"[]\n"), ("--jsonl", b""), ("--paths", b""), ("-0", b""), (None, b"")]
    )
    def test_nothing_matched_is_1_in_every_form(self, daemon, imagedb, flag, data):
        _answering(daemon, [])
        ran = imagedb("search", "x", *([flag] if flag else []))
        assert (ran.code, ran.data) == (1, data)
        assert "No picture meets this query" in ran.words

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (a_status(roots=[]), "imagedb root add"),
            (a_status(pending=1), "1 picture to go"),
            (a_status(indexed=0), "The index is empty"),
        ],
    )
    def test_it_says_what_can_be_done(self, daemon, imagedb, status, words):
        _answering(daemon, [])
        daemon.answers["/status"] = status
        assert words in imagedb("search", "x").words


class TestQuery:
    @pytest.fixture
    def asked(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")])

        def run(*arguments):
            ran = imagedb("search", *arguments)
            assert ran.code == 0, ran.words
            return daemon.bodies("/search")[-1]

        return run

    def test_words_are_a_prompt_and_a_metadata_search(self, asked):
        body = asked("a red car")
        assert body["terms"] == [{"prompt": "a red car"}]
        assert body["text"] == "a red car"
        assert body["limit"] == 10

    def test_text_beside_a_bare_query_replaces_its_words(self, asked):
        body = asked("a red car", "--text", "Nikon")
        assert (body["terms"], body["text"]) == ([{"prompt": "a red car"}], "Nikon")

    def test_a_bare_query_without_words_is_a_prompt_only(self, asked):
        assert "text" not in asked("❤")

    def test_a_prompt_alone_searches_no_metadata(self, asked):
        assert "text" not in asked("--prompt", "a red car")

    def test_what_is_not_wanted_has_a_negative_weight(self, asked):
        terms = asked("beach", "--not", "people", "--not", "dogs")["terms"]
        assert terms[1:] == [{"prompt": "people", "weight": AVERSION}, {"prompt": "dogs", "weight": AVERSION}]
        assert -1 <= AVERSION < 0

    def test_a_bare_query_that_names_a_picture_is_one(self, asked, tmp_path):
        picture = tmp_path / "x.JPG"
        picture.write_bytes(b"picture")
        body = asked("x.JPG")
        assert body["terms"][0]["path"] == str(picture)
        assert body["terms"][0]["stat"]["size"] == 7
        assert "text" not in body

    def test_an_ordinary_file_does_not_hide_a_word(self, asked, tmp_path):
        (tmp_path / "cat").write_text("not a picture")
        assert asked("cat")["terms"] == [{"prompt": "cat"}]

    def test_a_picture_that_is_not_there_becomes_words_with_a_remark(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")])
        assert "There is no file holiday.jpg here" in imagedb("search", "holiday.jpg").words
        assert "copy.jpg here, so its words are subtracted" in imagedb("search", "IMG 1 - copy.jpg").words

    def test_terms_are_added_and_subtracted(self, asked, tmp_path):
        (tmp_path / "pool.jpg").write_bytes(b"picture")
        body = asked("2:a dog + ./pool.jpg - snow", "--not", "people")
        stat = body["terms"][1].pop("stat")
        assert stat["size"] == 7
        assert body["terms"] == [
            {"prompt": "a dog", "weight": 2},
            {"path": str(tmp_path / "pool.jpg")},
            {"prompt": "snow", "weight": -1},
            {"prompt": "people", "weight": AVERSION},
        ]
        assert body["text"] == "a dog"

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            (["horse", "+", "2:stripes", "-", "grass"], "horse stripes"),
            (["2:horse"], "horse"),
            (["pool.jpg + horse"], "horse"),
            (["pool.jpg - 2:pool.jpg"], None),
            (["pool.jpg", "-", "snow"], None),
            (["-", "snow"], None),
            (["❤ + ☀"], None),
            (['"Paris - Eiffel Tower"'], "Paris - Eiffel Tower"),
        ],
    )
    def test_the_words_that_are_added_are_looked_for_in_the_metadata(self, asked, tmp_path, query, words):
        (tmp_path / "pool.jpg").write_bytes(b"picture")
        assert asked(*query).get("text") == words

    def test_a_file_with_a_sign_in_its_name_is_a_file(self, asked, tmp_path):
        picture = tmp_path / "IMG 1 - copy.jpg"
        picture.write_bytes(b"picture")
        assert [term["path"] for term in asked("IMG 1 - copy.jpg")["terms"]] == [str(picture)]
        terms = asked("IMG 1 - copy.jpg", "+", "2:snow")["terms"]
        assert (terms[0]["path"], terms[1:]) == (str(picture), [{"prompt": "snow", "weight": 2}])

    @pytest.mark.parametrize("query", ["black-and-white", "c++", "year 2:1 crop", "16:9 wallpaper", "a -b"])
    def test_words_with_signs_and_colons_stay_words(self, asked, query):
        body = asked(query)
        assert (body["terms"], body["text"]) == ([{"prompt": query}], query)

    @pytest.mark.parametrize(
        "arguments", [("- snow",), ("-n", "5", "- snow"), ("- snow", "-n", "5"), ("--", "- snow")]
    )
    def test_a_query_may_begin_with_a_minus(self, asked, arguments):
        assert asked(*arguments)["terms"] == [{"prompt": "snow", "weight": -1.0}]

    def test_an_option_takes_what_begins_with_a_minus_as_it_stands(self, asked):
        assert asked("dog", "--not", "- snow")["terms"][1] == {"prompt": "- snow", "weight": -0.5}

    def test_options_are_taken_as_they_stand(self, asked):
        body = asked("--prompt", "2:dog - snow", "--not", "a + b")
        assert body["terms"] == [{"prompt": "2:dog - snow"}, {"prompt": "a + b", "weight": AVERSION}]

    def test_all_pictures_of_a_query_are_sent_if_the_daemon_wants_them(self, daemon, imagedb, tmp_path):
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(name.encode())

        def answer(body):
            if not all("data" in term for term in body["terms"] if "path" in term):
                raise PictureNeededError("Send it.")
            return {"hits": [a_hit("/photos/a.jpg")], "notes": [], "took_ms": 1}

        daemon.answers["/search"] = answer
        assert imagedb("search", "a.jpg - 0.5:b.jpg + dog").code == 0
        first, second, prompt = daemon.bodies("/search")[1]["terms"]
        assert [base64.b64decode(term["data"]) for term in (first, second)] == [b"a.jpg", b"b.jpg"]
        assert ("weight" in first, second["weight"], prompt) == (False, -0.5, {"prompt": "dog"})

    def test_the_bytes_are_sent_only_if_the_daemon_wants_them(self, daemon, imagedb, tmp_path):
        (tmp_path / "x.jpg").write_bytes(b"picture")

        def answer(body):
            if "data" not in body["terms"][0]:
                raise PictureNeededError("Send it.")
            return {"hits": [a_hit("/photos/a.jpg")], "notes": [], "took_ms": 1}

        daemon.answers["/search"] = answer
        assert imagedb("search", "--image", "x.jpg").code == 0
        by_stat, by_bytes = daemon.bodies("/search")
        assert base64.b64decode(by_bytes["terms"][0]["data"]) == b"picture"
        assert "data" not in by_stat["terms"][0]

    def test_a_picture_comes_through_standard_input(self, asked, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xd8picture")))
        assert base64.b64decode(asked("--image", "-")["terms"][0]["data"]) == b"\xff\xd8picture"

    def test_conditions_alone_are_a_query(self, asked, tmp_path):
        body = asked(
            "--where", "iso > 3", "--in", ".", "--after", "2024", "--before", "2025-02", "--camera", "nikon"
        )
        assert body == {
            "terms": [], "where": "iso > 3", "under": [str(tmp_path)], "after": "2024", "before": "2025-02",
            "camera": "nikon", "limit": 11, "sort": "score",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("-33.86,151.2", {"lat": -33.86, "lon": 151.2, "km": 10.0}),
            ("38.7, -9.1, 2.5", {"lat": 38.7, "lon": -9.1, "km": 2.5}),
        ],
    )
    def test_a_place(self, asked, text, place):
        assert asked("--near", text)["near"] == place

    def test_the_order_of_date_alone_asks_for_the_newest_of_all(self, asked):
        body = asked("--sort", "date")
        assert (body.get("terms", []), body.get("text"), body["sort"]) == ([], None, "date")

    def test_limit_bound_and_order(self, asked):
        body = asked("x", "-n", "3", "--min-score", "-0.25", "--sort", "date")
        assert (body["limit"], body["min_score"], body["sort"]) == (3, -0.25, "date")

    @pytest.mark.parametrize("text", ["2,1", "0,1", "1.5, 0"])
    def test_weights_of_the_two_rankings(self, asked, text):
        likeness, words = map(float, text.split(","))
        assert asked("x", "--weights", text)["weights"] == {"likeness": likeness, "words": words}

    def test_weights_with_nothing_to_weigh_are_remarked_on(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")])
        assert "--weights changes nothing" in imagedb("search", "--prompt", "x", "--weights", "2,1").words
        assert imagedb("search", "x", "--weights", "2,1").words == ""

    def test_a_name_that_is_not_utf8_travels(self, asked, tmp_path):
        name = os.fsdecode(b"caf\xe9.jpg")
        (tmp_path / name).write_bytes(b"picture")
        assert asked(name)["terms"][0]["path"] == os.path.join(tmp_path, name)


class TestBadQuery:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "There is nothing to look for"),
            (["-n", "5"], "imagedb search 'a red car'"),
            ([""], "QUERY is empty"),
            (["--prompt", "  "], "--prompt is empty"),
            (["x", "-n", "0"], "-n, --limit: 0 is not between 1 and 10000"),
            (["x", "--link-to", "/dev/null"], "--link-to: /dev/null is not a folder"),
            (["x", "--link-to", "/dev/null/deeper"], "--link-to: /dev/null is not a folder"),
            (["x", "-n", "many"], "--limit: 'many' is not a whole number"),
            (["x", "--min-score", "nan"], "--min-score: 'nan' is not a number"),
            (["x", "--sort", "size"], "--sort is score or date"),
            (["--near", "38.7"], "LAT,LON[,KM]"),
            (["--near", "91,0"], "not on this earth"),
            (["--near", "nan,0"], "not on this earth"),
            (["--image", "-", "--image", "-"], "give `--image -` once"),
            (["x", "--colour"], "No such option: --colour"),
            (["x", "--weights", "2"], "is not LIKENESS,WORDS"),
            (["x", "--weights", "1,b"], "is not LIKENESS,WORDS"),
            (["x", "--weights", "0,0"], "one is above 0"),
            (["x", "--weights", "-1,1"], "from 0 to 1000"),
            (["x", "--weights", "nan,1"], "from 0 to 1000"),
            (["2:"], "The term '2:' is empty"),
            (["+", "+", "dog"], "The term '+' is empty"),
            (["0:dog + cat"], "'0:': a weight is above 0 and at most 1000"),
            (["dog + -2:cat"], "a weight has no sign"),
        ],
    )
    def test_it_exits_2_and_says_what_is_wrong(self, daemon, imagedb, arguments, words):
        ran = imagedb("search", *arguments)
        assert (ran.code, ran.data) == (2, b"")
        assert words in ran.words
        assert not daemon.requests

    @pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
    def test_a_query_picture_that_cannot_be_read(self, daemon, imagedb, tmp_path, kind):
        path = tmp_path / "x.jpg"
        if kind == "folder":
            path.mkdir()
        if kind == "pipe":
            os.mkfifo(path)
        daemon.answers["/search"] = PictureNeededError("Send it.")
        ran = imagedb("search", "--image", "x.jpg")
        assert ran.code == 2
        assert re.search(r"Query picture cannot be read: x.jpg: .+", ran.words)

    def test_an_empty_standard_input(self, daemon, imagedb, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        ran = imagedb("search", "--image", "-")
        assert ran.code == 2
        assert "Standard input is empty" in ran.words

    def test_what_the_daemon_cannot_decode(self, daemon, imagedb, tmp_path):
        (tmp_path / "x.jpg").write_text("not a picture")
        daemon.answers["/search"] = QueryPictureError("It is not a picture.")
        ran = imagedb("search", "x.jpg")
        assert (ran.code, ran.words) == (2, "imagedb: Query picture cannot be read: It is not a picture.\n")

    def test_a_bad_expression_is_pointed_at(self, daemon, imagedb):
        daemon.answers["/search"] = ExpressionError(
            "No such field.", position=10, expression="iso > 3 & colour = 1"
        )
        ran = imagedb("search", "--where", "iso > 3 & colour = 1")
        lines = ran.words.splitlines()
        assert ran.code == 2
        assert lines[:3] == [
            "imagedb: Bad expression: No such field.",
            "  iso > 3 & colour = 1",
            "            ^",
        ]
        assert "camera_make" in " ".join(lines[3:])

    def test_the_caret_stays_below_the_fault_of_a_long_expression(self, daemon, imagedb, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        text = f"name = '{'写' * 60}\n' AND colour = 1 AND {'width > 3 AND ' * 9}"
        at = text.index("colour")
        daemon.answers["/search"] = ExpressionError("No such field.", position=at, expression=text)
        _, shown, caret, *_ = imagedb("search", "--where", text).words.splitlines()
        from rich.cells import cell_len

        assert cell_len(shown[: shown.index("colour")]) == len(caret) - 1
        assert len(caret) <= 40


class TestOthers:
    def test_similar_leaves_the_picture_itself_out(self, daemon, imagedb, tmp_path):
        own = tmp_path / "own.jpg"
        own.write_bytes(b"picture")
        _answering(daemon, [a_hit(str(own), 1), a_hit("/photos/b.jpg", 2), a_hit("/photos/c.jpg", 3)])
        hits = json.loads(imagedb("similar", "own.jpg", "-n", "2", "--json").data)
        assert [(hit["rank"], hit["path"]) for hit in hits] == [(1, "/photos/b.jpg"), (2, "/photos/c.jpg")]
        assert daemon.bodies("/search")[0]["limit"] == 3

    def test_similar_to_a_picture_that_is_not_indexed_gives_as_many(self, daemon, imagedb, tmp_path):
        (tmp_path / "own.jpg").write_bytes(b"picture")
        _answering(daemon, [a_hit(f"/photos/{n}.jpg", n) for n in (1, 2, 3)])
        assert len(json.loads(imagedb("similar", "own.jpg", "-n", "2", "--json").data)) == 2

    def test_similar_to_a_unique_picture_matches_nothing(self, daemon, imagedb, tmp_path):
        own = tmp_path / "own.jpg"
        own.write_bytes(b"picture")
        _answering(daemon, [a_hit(str(own))])
        assert imagedb("similar", "own.jpg").code == 1

    def test_notes_go_to_standard_error(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")], notes=["Answered from metadata alone."])
        ran = imagedb("search", "x", "--paths")
        assert (ran.data, ran.words) == (b"/photos/a.jpg\n", "imagedb: Answered from metadata alone.\n")

    def test_show(self, daemon, imagedb, tmp_path):
        path = str(tmp_path / "x.jpg")
        daemon.answers["/show"] = lambda body: {
            **a_hit(body["path"]),
            "caption": "two\nlines",
            "exposure_s": 0.004,
        }
        assert json.loads(imagedb("show", "x.jpg", "--json").data)["path"] == path
        text = imagedb("show", "x.jpg").text
        assert r"two\nlines" in text
        assert "1/250 s" in text
        assert "keywords" not in text

    @pytest.mark.parametrize(("state", "code"), [("missing", 1), ("skipped", 0), ("unreadable", 0)])
    def test_why_of_what_is_not_there_ends_like_a_look_up_of_it(self, daemon, imagedb, state, code):
        daemon.answers["/why"] = lambda body: {
            "path": body["path"], "state": state, "reason": "It is so.", "rule": None, "attempts": 0,
        }  # fmt: skip
        ran = imagedb("why", "x.jpg", "--json")
        assert (ran.code, json.loads(ran.data)["state"]) == (code, state)

    def test_why_asks_about_a_link_and_not_about_its_goal(self, daemon, imagedb, tmp_path):
        (tmp_path / "link.jpg").symlink_to("/etc/passwd")
        daemon.answers["/why"] = lambda body: {
            "path": body["path"],
            "state": "skipped",
            "reason": "It is a link.",
        }
        assert json.loads(imagedb("why", "link.jpg", "--json").data)["path"] == str(tmp_path / "link.jpg")
        assert "It is a link." in imagedb("why", "./link.jpg").text

    def test_list(self, daemon, imagedb):
        daemon.answers["/pictures"] = [
            {"path": path, "id": "i", "content_hash": "h", "state": "indexed"} for path in HOSTILE
        ]
        assert [row["path"] for row in json.loads(imagedb("list", "--json").data)] == HOSTILE
        assert imagedb("list", "-0").data == b"".join(os.fsencode(p) + b"\0" for p in HOSTILE)
        lines = imagedb("list").text.splitlines()
        assert len(lines) == len(HOSTILE)
        assert all(line.startswith("indexed   /photos/") for line in lines)

    def test_of_none_is_refused(self, imagedb):
        ran = imagedb("list", "-n", "0")
        assert (ran.code, "-n, --limit: 0 is not at least 1" in ran.words) == (2, True)

    def test_a_list_has_pages_which_say_how_one_goes_on(self, daemon, imagedb):
        paths = [f"/photos/{number}.jpg" for number in range(5)]
        daemon.answers["/pictures"] = [{"path": path, "state": "indexed"} for path in paths]
        ran = imagedb("list", "-n", "2", "--offset", "1", "--paths")
        assert ran.text.splitlines() == paths[1:3]
        assert "These are 2 to 3, and there are more: --offset 3 goes on from here." in ran.words
        ran = imagedb("list", "-n", "2", "--offset", "3", "--json")
        assert ([row["path"] for row in json.loads(ran.data)], ran.words) == (paths[3:], "")
        assert imagedb("list", "--offset", "5").code == 1

    def test_a_list_of_folders_has_what_lies_in_them(self, daemon, imagedb, tmp_path):
        paths = [f"{tmp_path}/{name}" for name in ("a/1.jpg", "a/b/2.jpg", "ab/3.jpg", "c/4.jpg")]
        daemon.answers["/pictures"] = [{"path": path, "state": "indexed"} for path in paths]
        assert imagedb("list", "--in", "a", "--paths").text.splitlines() == paths[:2]
        ran = imagedb("list", "--in", "a", "--in", "c", "-n", "2", "--offset", "1", "--paths")
        assert ran.text.splitlines() == [paths[1], paths[3]]
        ran = imagedb("list", "--in", "nowhere", "--json")
        assert (ran.code, ran.data) == (1, b"[]\n")
        assert "There is no folder" in ran.words

    def test_an_empty_index_is_an_empty_list(self, daemon, imagedb):
        daemon.answers["/pictures"] = []
        assert imagedb("list", "--json").data == b"[]\n"
        ran = imagedb("list")
        assert (ran.code, ran.data) == (0, b"")


class TestPaging:
    def test_the_next_page_is_asked_for_and_named(self, daemon, imagedb):
        _answering(daemon, [a_hit(f"/photos/{rank}.jpg", rank) for rank in range(11, 22)])
        ran = imagedb("search", "--camera", "nikon", "--offset", "10", "--paths")
        body = daemon.bodies("/search")[0]
        assert (body["offset"], body["limit"]) == (10, 11)
        assert ran.text.splitlines() == [f"/photos/{rank}.jpg" for rank in range(11, 21)]
        assert "These are 11 to 20; there are more" in ran.words
        assert "--offset 20 goes on from here" in ran.words

    def test_a_last_page_that_is_full_is_the_last(self, daemon, imagedb):
        _answering(daemon, [a_hit(f"/photos/{rank}.jpg", rank) for rank in range(1, 3)])
        ran = imagedb("search", "--camera", "nikon", "-n", "2")
        assert (ran.text.count("/photos/"), ran.words) == (2, "")

    @pytest.mark.parametrize("place", ["QUERY", "--text", "--prompt", "--not"])
    def test_a_text_that_is_too_long_is_told_with_its_length(self, daemon, imagedb, place):
        ran = imagedb("search", *([] if place == "QUERY" else [place]), "x" * 100_000)
        assert ran.code == 2
        assert f"{place} has 100,000 characters, and may have 10,000 at most." in ran.words

    def test_a_page_behind_the_last_is_nothing(self, daemon, imagedb):
        daemon.answers["/search"] = {"hits": [], "notes": [], "took_ms": 1}
        ran = imagedb("search", "x", "--offset", "50")
        assert (ran.code, ran.words) == (
            1,
            "imagedb: Nothing matched: There are no more than 50 such pictures.\n",
        )

    def test_pages_of_similar_pictures_leave_the_picture_itself_out(self, daemon, imagedb, tmp_path):
        own = tmp_path / "own.jpg"
        own.write_bytes(b"x")
        paths = [str(own), *(f"/photos/{n}.jpg" for n in range(1, 6))]
        hits = [a_hit(path, rank) for rank, path in enumerate(paths, start=1)]
        daemon.answers["/search"] = lambda body: {"hits": hits[: body["limit"]], "notes": [], "took_ms": 1}
        ran = imagedb("similar", "own.jpg", "-n", "2", "--offset", "2", "--json")
        assert [(hit["rank"], hit["path"]) for hit in json.loads(ran.text)] == [
            (3, "/photos/3.jpg"),
            (4, "/photos/4.jpg"),
        ]


class TestHints:
    """What was typed and is probably not what was meant."""

    def test_words_that_begin_with_a_minus_are_no_option(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")])
        assert imagedb("search", "-5 degrees").code == 0
        (body,) = daemon.bodies("/search")
        assert body["terms"] == [{"prompt": "-5 degrees"}]

    def test_an_option_with_its_value_in_one_word_is_one(self, daemon, imagedb):
        _answering(daemon, [a_hit("/photos/a.jpg")])
        assert imagedb("search", "x", "-n 5").code == 0
        assert daemon.bodies("/search")[0]["limit"] == 5

    def test_what_is_no_option_goes_behind_two_dashes(self, imagedb):
        ran = imagedb("search", "-5")
        assert ran.code == 2
        assert "goes behind --: `imagedb search -- …`" in ran.words
        assert "behind" not in imagedb("status", "-5").words

    @pytest.mark.parametrize(("query", "is_told"), [("./album", True), (".", True), ("album", False)])
    def test_a_folder_is_no_query(self, daemon, imagedb, tmp_path, query, is_told):
        (tmp_path / "album").mkdir()
        _answering(daemon, [a_hit("/photos/a.jpg")])
        ran = imagedb("search", query)
        assert (f"`--in {query}`" in ran.words) == is_told

    def test_nothing_in_a_folder_that_is_not_there(self, daemon, imagedb, tmp_path):
        _answering(daemon, [])
        ran = imagedb("search", "x", "--in", "/photos/mispelt")
        assert ran.code == 1
        assert "There is no folder /photos/mispelt" in ran.words
        assert "lies in no folder that is watched" in imagedb("search", "x", "--in", str(tmp_path)).words


@pytest.mark.parametrize("words", ["iso >= 800", "rating=5", "Camera_Make = 'NIKON'"])
def test_words_that_look_like_a_condition_are_told_from_one(daemon, imagedb, words):
    _answering(daemon, [a_hit("/photos/a.jpg")])
    said = " ".join(imagedb("search", words).words.split())
    assert f"--where {shlex.quote(words)}` looks for pictures that meet it" in said


@pytest.mark.parametrize("words", ["iso", "name! of the rose", "a red car = joy"])
def test_words_that_are_none_are_words(daemon, imagedb, words):
    _answering(daemon, [a_hit("/photos/a.jpg")])
    assert imagedb("search", words).words == ""
