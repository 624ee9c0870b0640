"""Scenes are drawn as they are described, and put into words that are true of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from PIL import Image, ImageChops

from imagedbd.demo.backdrops import LANDS, SKIES
from imagedbd.demo.captions import FACETS, all_prompts, caption, describe, prompt, sentence, with_article
from imagedbd.demo.palette import COLOURS
from imagedbd.demo.scenes import POSITIONS, Scene, draw, random_scene
from imagedbd.demo.subjects import SUBJECTS

SIZE = (160, 120)
SCENE = Scene("car", "red", "day", "centre", "city", seed=7)


def test_there_is_enough_to_tell_apart() -> None:
    assert len(SUBJECTS) >= 40
    assert len(COLOURS) == 10
    assert set(SKIES) == {"day", "night", "sunset"}
    assert len(set(all_prompts())) == len(SUBJECTS) * len(COLOURS)


def test_a_scene_is_always_drawn_the_same() -> None:
    assert draw(SCENE, SIZE).tobytes() == draw(SCENE, SIZE).tobytes()
    assert draw(SCENE, SIZE).tobytes() != draw(replace(SCENE, seed=8), SIZE).tobytes()
    assert draw(SCENE, SIZE).size == SIZE


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_takes_its_colour(subject: str) -> None:
    red = draw(replace(SCENE, subject=subject), SIZE)
    blue = draw(replace(SCENE, subject=subject, colour="blue"), SIZE)
    coloured = _share_of_difference(red, blue)
    assert 0.02 < coloured < 0.5


@pytest.mark.parametrize("facet", ["time", "background"])
def test_surroundings_show(facet: str) -> None:
    for value in {"time": SKIES, "background": LANDS}[facet]:
        if value != getattr(SCENE, facet):
            other = draw(replace(SCENE, **{facet: value}), SIZE)
            assert _share_of_difference(draw(SCENE, SIZE), other) > 0.2


@pytest.mark.parametrize(
    ("position", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("top", 1, -1), ("bottom", 1, 1)]
)
def test_the_subject_is_where_its_position_says(position: str, axis: int, sign: int) -> None:
    scene = replace(SCENE, position=position)
    mask = _difference(draw(scene, SIZE), draw(replace(scene, colour="blue"), SIZE))
    left, top, right, bottom = mask.getbbox()
    middle = ((left + right - SIZE[0]) / 2, (top + bottom - SIZE[1]) / 2)
    assert middle[axis] * sign > 0


def test_the_prompt_names_colour_and_subject() -> None:
    assert prompt(SCENE) == "a red car"
    assert prompt(replace(SCENE, colour="orange", subject="lightning bolt")) == "an orange lightning bolt"
    assert with_article("umbrella") == "an umbrella"


def test_captions_mention_what_they_say_they_mention() -> None:
    rng = random.Random(1)
    seen = set()
    for _ in range(2000):
        scene = random_scene(rng)
        words = describe(scene, rng)
        seen |= words.facets
        assert words.facets <= set(FACETS)
        assert ("colour" in words.facets) == any(f" {colour} " in f" {words.text} " for colour in COLOURS)
        assert len(words.text) < 80
    assert seen == set(FACETS)


def test_captions_vary_but_are_often_the_prompt() -> None:
    rng = random.Random(2)
    captions = [caption(SCENE, rng) for _ in range(400)]
    assert captions.count(prompt(SCENE)) > 150
    assert len(set(captions)) > 60
    assert sentence(SCENE, rng).startswith("A red car")


def test_random_scenes_use_everything() -> None:
    rng = random.Random(3)
    scenes = [random_scene(rng) for _ in range(2000)]
    assert {scene.subject for scene in scenes} == set(SUBJECTS)
    assert {scene.position for scene in scenes} == set(POSITIONS)


def _difference(first: Image.Image, second: Image.Image) -> Image.Image:
    """Where two pictures differ clearly, as a mask."""
    return ImageChops.difference(first, second).convert("L").point(lambda level: 255 * (level > 24))


def _share_of_difference(first: Image.Image, second: Image.Image) -> float:
    return _difference(first, second).histogram()[255] / (SIZE[0] * SIZE[1])
