"""Words for scenes: the canonical prompt, and captions as people would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagedbd.demo.palette import COLOURS
from imagedbd.demo.subjects import SUBJECTS

if TYPE_CHECKING:
    import random

    from imagedbd.demo.scenes import Scene

# The attributes of a scene that words can mention, in the order of a mention's key.
FACETS = ("subject", "colour", "time", "background", "position")

_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "airplane": ("plane", "aeroplane"),
    "bicycle": ("bike",),
    "boat": ("sailboat", "ship"),
    "cat": ("kitten",),
    "cup": ("mug",),
    "dog": ("puppy",),
    "lightning bolt": ("lightning",),
    "rabbit": ("bunny",),
    "moon": ("crescent",),
}
_IRREGULAR_PLURALS = {"fish": "fish", "leaf": "leaves"}
_OPENINGS = ("a photo of", "a picture of", "a drawing of", "an image of")
_TIMES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "during the day"),
    "night": ("at night", "by night", "in the dark"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
}
_PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on the grass", "in a field"),
    "beach": ("on the beach", "on a sandy beach"),
    "snow": ("in the snow", "in winter"),
    "city": ("in the city", "in a city street", "in town"),
    "forest": ("in the forest", "in the woods"),
    "desert": ("in the desert",),
    "sea": ("at sea", "on the water", "by the sea"),
    "mountains": ("in the mountains",),
    "plain": ("on a plain background",),
}
_POSITIONS: dict[str, tuple[str, ...]] = {
    "centre": ("in the middle", "in the centre"),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
}

_CANONICAL_SHARE = 0.5
_MOOD_SHARE = 0.12


@dataclass(frozen=True)
class Caption:
    """Words about a scene, and which of its ``FACETS`` they mention."""

    text: str
    facets: frozenset[str]


def prompt(scene: Scene) -> str:
    """Return the canonical words for the scene's subject and colour: "a red car"."""
    return with_article(f"{scene.colour} {scene.subject}")


def caption(scene: Scene, rng: random.Random) -> str:
    """Return one of the many ways to put the scene into words."""
    return describe(scene, rng).text


def sentence(scene: Scene, rng: random.Random) -> str:
    """Return the kind of caption that people store with a picture: "A red car at night"."""
    return " ".join([prompt(scene), *_tails(scene, rng).values()]).capitalize()


def describe(scene: Scene, rng: random.Random) -> Caption:
    """Return a random caption of the scene together with what it mentions."""
    if rng.random() < _CANONICAL_SHARE:
        return Caption(prompt(scene), frozenset({"subject", "colour"}))
    if rng.random() < _MOOD_SHARE:
        return _mood(scene, rng)
    words, facets = _subject_words(scene, rng)
    tails = _tails(scene, rng)
    return Caption(" ".join([words, *tails.values()]), frozenset({*facets, *tails.keys()}))


def all_prompts() -> list[str]:
    """Return the canonical prompt of every subject in every colour."""
    return [with_article(f"{colour} {subject}") for subject in SUBJECTS for colour in COLOURS]


def with_article(words: str) -> str:
    """Return ``words`` after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _subject_words(scene: Scene, rng: random.Random) -> tuple[str, set[str]]:
    """Return the subject's words, most often with its colour, and their facets."""
    noun = scene.subject
    if rng.random() < 0.25:
        noun = rng.choice(_OTHER_NAMES.get(noun, (noun,)))
    facets = {"subject"}
    if rng.random() < 0.8:
        noun, facets = f"{scene.colour} {noun}", {"subject", "colour"}
    form = rng.random()
    if form < 0.14:
        return noun, facets
    if form < 0.2:
        return _plural(noun), facets
    if form < 0.4:
        return f"{rng.choice(_OPENINGS)} {with_article(noun)}", facets
    return with_article(noun), facets


def _plural(noun: str) -> str:
    """Return the plural of ``noun``, which may start with an adjective."""
    *adjectives, last = noun.split(" ")
    if last in _IRREGULAR_PLURALS:
        last = _IRREGULAR_PLURALS[last]
    elif last.endswith(("s", "sh", "ch", "x")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return " ".join([*adjectives, last])


def _tails(scene: Scene, rng: random.Random) -> dict[str, str]:
    """Return up to three additions on time, place and position, in random order."""
    tails = {
        "time": rng.choice(_TIMES[scene.time]),
        "background": rng.choice(_PLACES[scene.background]),
        "position": rng.choice(_POSITIONS[scene.position]),
    }
    facets = rng.sample(list(tails), rng.choice((0, 1, 1, 1, 2, 2)))
    return {facet: tails[facet] for facet in facets}


def _mood(scene: Scene, rng: random.Random) -> Caption:
    """Return words that leave the subject out, as someone looking for a mood would."""
    time, place = rng.choice(_TIMES[scene.time]), rng.choice(_PLACES[scene.background])
    moods = (
        Caption(scene.time, frozenset({"time"})),
        Caption(f"something {time}", frozenset({"time"})),
        Caption(scene.background, frozenset({"background"})),
        Caption(f"something {place}", frozenset({"background"})),
        Caption(
            f"{with_article(scene.background)} {time}",
            frozenset({"time", "background"}),
        ),
        Caption(f"something {scene.colour}", frozenset({"colour"})),
        Caption(scene.colour, frozenset({"colour"})),
    )
    return rng.choice(moods)
