"""``imagedb model use``, ``rollback`` and ``remove``, and ``imagedb store use``, against a canned daemon."""

from __future__ import annotations

import io

import pytest

from imagedbd.errors import ModelUnavailableError

from .conftest import a_status


def a_switch(**changes):
    return {
        "store": "lance", "model": "ViT-B-32/openai", "course": "embed", "state": "building", "reason": None,
        "done": 120, "total": 1204, "rate": 20.5, "eta_s": 53, **changes,
    }  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return tmp_path / "its-own.toml"


@pytest.fixture
def switching(daemon, config):
    """A daemon that takes every request, with a settings file of its own."""
    config.write_text("# mine\n")
    accepted = {"state": "switching", "store": "lance", "model": "ViT-B-32/openai"}
    daemon.answers |= {
        "/status": status_of(config),
        "/model/use": {**accepted, "settings": {"model": "ViT-B-32/openai"}},
        "/store/use": {**accepted, "store": "faiss", "settings": {"store": "faiss"}},
        "/model/rollback": {**accepted, "settings": {"model": "ViT-B-32/openai"}},
        "/model/remove": {"kind": "lance", "place": "lance", "model": "demo"},
        "/reload": {},
    }
    return daemon


def status_of(config, configured="ViT-B-32/openai", **changes):
    plain = a_status()
    return {
        **plain,
        "config_file": str(config),
        "model": {**plain["model"], "configured": configured},
        "store": {**plain["store"], "configured": "faiss"},
        "switch": None,
        "previous": None,
        "differences": [],
        **changes,
    }


def test_a_model_is_asked_for_and_the_choice_is_kept_in_the_daemons_file(switching, imagedb, config):
    ran = imagedb("model", "use", "ViT-B-32/openai")
    assert ran.code == 0, ran.words
    assert switching.bodies("/model/use") == [{"model": "ViT-B-32/openai"}]
    assert config.read_text() == '# mine\nmodel = "ViT-B-32/openai"\n'
    assert [path for path, _ in switching.requests].index("/model/use") < [
        path for path, _ in switching.requests
    ].index("/reload")
    assert "the old one answers meanwhile" in ran.words


def test_a_refusal_changes_no_settings(switching, imagedb, config):
    switching.answers["/model/use"] = ModelUnavailableError("What helps: `imagedb model pull X/y`.")
    ran = imagedb("model", "use", "X/y")
    assert ran.code == 70
    assert "imagedb model pull X/y" in ran.words
    assert config.read_text() == "# mine\n"


def test_a_flag_of_the_daemon_that_goes_before_the_file_is_told(switching, imagedb, config):
    switching.answers["/status"] = status_of(config, configured="demo")
    words = imagedb("model", "use", "ViT-B-32/openai").words
    assert "started with demo (--model or IMAGEDBD_MODEL)" in words


def test_waiting_ends_when_it_answers(switching, imagedb, config):
    over = status_of(config)
    over["model"]["name"] = "ViT-B-32/openai"
    looks = iter([status_of(config)] * 2 + [status_of(config, switch=a_switch())] * 2)
    switching.answers["/status"] = lambda _: next(looks, over)
    ran = imagedb("model", "use", "ViT-B-32/openai", "--wait")
    assert ran.code == 0, ran.words
    assert "answers now" in ran.words


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("paused", "pauses: The disk is full. It goes on by itself"),
        ("failed", "The disk is full. The daemon's log"),
    ],
)
def test_waiting_ends_where_the_switch_does_not_go_on(switching, imagedb, config, state, said):
    held_up = status_of(config, switch=a_switch(reason="The disk is full.", state=state))
    looks = iter([status_of(config)] * 2 + [status_of(config, switch=a_switch())] * 2)
    switching.answers["/status"] = lambda _: next(looks, held_up)
    ran = imagedb("model", "use", "ViT-B-32/openai", "--wait")
    assert ran.code == 70
    assert said in ran.words


def test_waiting_ends_when_something_else_is_asked_for(switching, imagedb, config):
    switching.answers["/status"] = status_of(config, switch=a_switch(model="demo"))
    ran = imagedb("model", "use", "ViT-B-32/openai", "--wait")
    assert ran.code == 70
    assert "demo was asked for meanwhile" in ran.words


def test_a_store_is_asked_for(switching, imagedb, config):
    assert imagedb("store", "use", "faiss", "--model", "ViT-B-32/openai").code == 0
    assert switching.bodies("/store/use") == [{"kind": "faiss", "model": "ViT-B-32/openai"}]
    assert 'store = "faiss"' in config.read_text()
    assert imagedb("store", "use", "paper").code == 2


def test_going_back_is_seen_through(switching, imagedb, config):
    over = status_of(config)
    over["model"]["name"] = "ViT-B-32/openai"
    switching.answers["/status"] = over
    ran = imagedb("model", "rollback")
    assert ran.code == 0, ran.words
    assert "answers now" in ran.words
    assert 'model = "ViT-B-32/openai"' in config.read_text()


def test_removing_asks_first(switching, imagedb, config, monkeypatch):
    assert imagedb("model", "remove").code == 1
    previous = {"kind": "lance", "place": "lance", "model": "demo"}
    switching.answers["/status"] = status_of(config, previous=previous)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert imagedb("model", "remove").code == 2
    assert not switching.bodies("/model/remove")
    assert imagedb("model", "remove", "--yes").code == 0
    assert len(switching.bodies("/model/remove")) == 1


@pytest.mark.parametrize(
    "command",
    [("model", "use", "demo"), ("model", "rollback"), ("model", "remove"), ("store", "use", "lance")],
)
def test_without_a_daemon(imagedb, command):
    assert imagedb(*command).code == 69


def test_the_status_shows_how_far_it_is_and_what_the_settings_say_otherwise(switching, imagedb, config):
    difference = {"finding": "The settings name the model X/y.", "help": "imagedb model use X/y"}
    switching.answers["/status"] = status_of(
        config,
        switch=a_switch(reason="The disk is full.", state="paused"),
        previous={"kind": "faiss", "place": "faiss", "model": "old"},
        differences=[difference],
    )
    text = imagedb("status").text
    assert "lance with ViT-B-32/openai  paused  120 of 1,204 pictures, 20.5/s, about 53 s left" in text
    assert "The disk is full." in text
    assert "faiss with old (imagedb model rollback)" in text
    assert "→ imagedb model use X/y" in text
