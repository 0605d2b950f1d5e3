"""`stories`: short stories in simple words, told by a small simulator, for open generation.

A story has a hero, a friend or somebody of the family, one object, one place and one of 17 plots. The simulator first
fixes the facts (who, what, where it was put, why it went wrong, what helps) and then tells them, so that every mention
agrees. Stories for valid and test use pairs (object, plot) and (hero, place) that occur together in no training story.
"""

from __future__ import annotations

import random
import re
from functools import partial

from smallfry.builtin._grammar import fill
from smallfry.builtin._split import choose, collect, part_of
from smallfry.builtin._story_plots import PLOTS_ONE, Plot
from smallfry.builtin._story_plots_more import PLOTS_TWO
from smallfry.builtin._story_words import (
    ADJECTIVES,
    ANIMALS,
    BOYS,
    FOODS,
    GIRLS,
    GLAD,
    HOMES,
    LIKES,
    MEN,
    OBJECTS,
    PLACES,
    SAD,
    SCENES,
    TIMES,
    TRAITS,
    WOMEN,
)
from smallfry.job import Example, SplitName

PLOTS: dict[str, Plot] = PLOTS_ONE | PLOTS_TWO
SHORTEST, LONGEST = 60, 150  # words
INDOORS = frozenset({"school", "library", "kitchen", "attic", "station", "bakery", "cave", "museum", "toy shop"})
_PLOT_NAMES, _ALL_PLACES = tuple(PLOTS), tuple(PLACES)
OUTDOORS = tuple(p for p in PLACES if p not in INDOORS)
CRIES = ("cried", "shook with fear", "made a sad sound", "called for help", "was cold and tired")
_MALE = ("he", "him", "his")
_FEMALE = ("she", "her", "her")
_HIM = frozenset({"he", "him", "his", "himself"})
_HER = frozenset({"she", "her", "hers", "herself"})
_PRONOUNS = _HIM | _HER
_GIRL_NAMES, _OBJECTS = frozenset(GIRLS), frozenset(OBJECTS)
_NAMES = _GIRL_NAMES | frozenset(BOYS)
_MALES, _FEMALES = frozenset((*BOYS, *MEN, "man")), frozenset((*GIRLS, *WOMEN, "lady"))
_PEOPLE = _MALES | _FEMALES
_WORD = re.compile(r"[A-Za-z']+")
_INTRODUCTIONS = (
    "[Once there was|There was once|Once upon a time there was] a {trait} {child} {called} {N}[| who lived {home}].",
    "{N} was a {trait} {child}[| who lived {home}| who liked {like}].",
    "{N} lived {home}. {He} was a {trait} {child}.",
    "{N} liked {like}[| and {like2}]. [{He} was a {trait} {child}.|]",
    "A {child} {called} {N} lived {home}[| with {his} {pet}].",
    "{N}, a {trait} {child}, [loved {food}|liked {like}|had a {pet}].",
)


class _World:
    """The facts of one story; every slot of every sentence is looked up here."""

    def __init__(self, rng: random.Random, part: SplitName) -> None:
        self.rng = rng
        while True:
            name = choose(rng, _PLOT_NAMES)
            self.plot = PLOTS[name]
            item = choose(rng, self.plot.objects)
            hero = choose(rng, GIRLS) if (girl := rng.random() < 0.5) else choose(rng, BOYS)
            place = choose(rng, OUTDOORS if self.plot.outdoors else _ALL_PLACES)
            if part_of(f"{item}|{name}") == part and part_of(f"{hero}|{place}") == part:
                break
        friend = hero
        while friend[0] == hero[0]:
            friend = choose(rng, GIRLS) if (friend_girl := rng.random() < 0.5) else choose(rng, BOYS)
        kin = choose(rng, WOMEN) if (woman := rng.random() < 0.5) else choose(rng, MEN)
        self.facts: dict[str, str] = {"N": hero, "F": friend, "o": item, "place": place, "kin": kin}
        self._pronouns("", girl)
        self._pronouns("f", friend_girl)
        self._pronouns("a", woman)
        self._things(girl, place)
        for fact, choices in self.plot.facts.items():
            for i, text in enumerate(choices[int(rng.random() * len(choices))]):
                self.facts[f"{fact}{i}"] = fill(rng, text, self.look_up)

    def _pronouns(self, prefix: str, female: bool) -> None:
        for slot, word in zip(_MALE, _FEMALE if female else _MALE, strict=True):
            self.facts[prefix + slot] = word

    def _things(self, girl: bool, place: str) -> None:
        rng, facts = self.rng, self.facts
        preposition, spots = PLACES[place]
        one, two, three = rng.sample(spots, 3)
        like, other_like = rng.sample(LIKES, 2)
        animal, pet = rng.sample(ANIMALS, 2)
        facts |= {
            "O": f"{choose(rng, ADJECTIVES)} {facts['o']}",
            "A": f"{facts['his']} {facts['kin']}",
            "at": f"{preposition} the {place}",
            "to": f"to the {place}",
            "spot": one,
            "spot2": two,
            "spot3": three,
            "child": choose(rng, ("girl", "little girl") if girl else ("boy", "little boy")),
            "called": choose(rng, ("named", "called", "with the name")),
            "trait": choose(rng, TRAITS),
            "home": choose(rng, HOMES),
            "like": like,
            "like2": other_like,
            "animal": animal,
            "pet": f"{choose(rng, ('old', 'young', 'lazy', 'fat', 'clever', 'tame'))} {pet}",
            "food": choose(rng, FOODS),
            "when": choose(rng, TIMES),
            "cry": choose(rng, CRIES),
        }

    def look_up(self, slot: str) -> str:
        """The text of a slot; feelings vary, facts do not. A capital slot or a trailing underscore means a capital."""
        if slot in ("sad", "glad"):
            return choose(self.rng, SAD if slot == "sad" else GLAD)
        if slot in self.facts:
            return self.facts[slot]
        text = self.facts[slot.removesuffix("_") if slot.endswith("_") else slot[0].lower() + slot[1:]]
        return text[0].upper() + text[1:]


def tell(rng: random.Random, part: SplitName) -> tuple[str, dict[str, str]]:
    """Tell one story: introduction, perhaps a scene, the beats of the plot, a last sentence.

    Args:
        rng: Source of everything drawn.
        part: The split whose combinations it may have.

    Returns:
        The text, and its facts: ``N`` hero, ``F`` friend, ``A`` somebody of the family, ``o`` object, ``O`` object with
        adjective, ``place``, ``at`` (with its preposition), ``child`` (boy or girl), ``he``, ``his`` and more; a fact
        need not be mentioned.
    """
    world = _World(rng, part)
    told = [choose(rng, _INTRODUCTIONS) if rng.random() < 0.75 else ""]
    if rng.random() < 0.3:
        told.append(choose(rng, SCENES))
    told += [choose(rng, beat) for beat in world.plot.beats]
    if rng.random() < 0.7:
        told.append(choose(rng, world.plot.morals))
    text = " ".join(s for s in (fill(rng, t, world.look_up).strip() for t in told) if s)
    return with_articles(text), world.facts


def with_articles(text: str) -> str:
    """A text in which ``a`` is ``an`` where this world's words want it."""
    return re.sub(r"\b([Aa]) (?=[aeio]|ugly|umbrella|uncle)", r"\1n ", text)


def sound(text: str) -> bool:
    """Whether a story has a story's length and its facts hold."""
    return SHORTEST <= len(_WORD.findall(text)) <= LONGEST and all(consistency(text).values())


def _row(rng: random.Random, part: SplitName) -> Example | None:
    text, _ = tell(rng, part)
    return Example("", text) if sound(text) else None


def consistency(story: str) -> dict[str, bool]:
    """Check a story of this world, told by anybody, for facts that must not change on the way.

    The checks are necessary, not sufficient: a story that fails one is broken, one that passes all may still be.

    Args:
        story: The text of one story.

    Returns:
        `names_kept`: somebody is named, and no name is new in the second half (by words). `object_kept`: an object is
        mentioned in both halves and none is new in the second. `pronoun_agrees`: the first "he" or "she" after the main
        character's name, before anybody else is mentioned, has the main character's sex, and nobody is called "he" or
        "she" in a story without a male or a female. `complete`: the story ends with a full stop, a question or
        exclamation mark and all quotation marks are closed.
    """
    said = _WORD.findall(story)
    half = len(said) // 2
    first, second = said[:half], said[half:]
    early, late = _OBJECTS.intersection(first), _OBJECTS.intersection(second)
    return {
        "names_kept": bool(_NAMES.intersection(first)) and _NAMES.intersection(second) <= _NAMES.intersection(first),
        "object_kept": bool(early & late) and late <= early,
        "pronoun_agrees": _pronouns_agree(said),
        "complete": bool(re.search(r'[.!?]"?$', story.strip())) and story.count('"') % 2 == 0,
    }


def _pronouns_agree(said: list[str]) -> bool:
    spoken = {w.lower() for w in said}
    everyone = set(said)
    if (spoken & _HIM and not everyone & _MALES) or (spoken & _HER and not everyone & _FEMALES):
        return False
    main = next((w for w in said if w in _NAMES), None)
    if main is None:
        return False
    after = said[said.index(main) + 1 :]
    for word in after:
        if word != main and word in _PEOPLE:
            return True
        if word.lower() in _PRONOUNS:
            return (word.lower() in _HER) == (main in _GIRL_NAMES)
    return True


def generate(seed: int, n_train: int, n_valid: int, n_test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Make the rows of the `stories` job: empty input, one story as output.

    Args:
        seed: Seed of everything random; the same seed gives the same rows.
        n_train: Training stories.
        n_valid: Validation stories.
        n_test: Test stories, of combinations that no training story has.

    Returns:
        Train, valid and test rows.

    Raises:
        SmallfryError: More rows were asked for than there are different ones.
    """
    sizes: dict[SplitName, int] = {"train": n_train, "valid": n_valid, "test": n_test}
    train, valid, test = (collect("stories", seed, part, n, partial(_row, part=part)) for part, n in sizes.items())
    return train, valid, test
