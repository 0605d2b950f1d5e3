"""Questions with one right answer, asked in held-out conversations: can a model hold a conversation?"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from smallfry.builtin._conversation_acts import NAMES, PET_NAMES, Talk
from smallfry.builtin._conversation_words import COLORS, TOPICS
from smallfry.builtin._story_words import ADJECTIVES, ANIMALS, FOODS, OBJECTS, PLACES

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|\d+")
_FINAL = re.compile(r"#### (-?[0-9.,]*[0-9])")


@dataclass(frozen=True, slots=True)
class Probe:
    """One question in its conversation.

    Args:
        task: One of `PROBE_TASKS` or `BESIDE_TASKS`.
        turns: Messages before, and the question; the model is next.
        right: The word or number of the right answer.
        rivals: Words of the same kind, of which a right answer has none.
        answer: A right answer as the conversations have it.
    """

    task: str
    turns: tuple[dict[str, str], ...]
    right: str
    rivals: frozenset[str]
    answer: str

    def check(self, said: str) -> bool:
        """Whether what a model said is right: it has the right word, and no other word of its kind.

        Of arithmetic the number behind ``####`` counts, or where there is none the last number.
        """
        if self.task == "arithmetic":
            final = _FINAL.search(said)
            numbers = [final[1]] if final else re.findall(r"\d+", said)
            return bool(numbers) and numbers[-1].replace(",", "") == self.right
        spoken = " ".join(_WORD.findall(said)).lower()
        words = f" {spoken} "
        rest = words.replace(f" {self.right.lower()} ", "  ")
        return rest != words and not any(f" {rival.lower()} " in rest for rival in self.rivals)


def _memory(rng: random.Random, kinds: Sequence[tuple[str, tuple[str, ...]]], back: int) -> Probe:
    """Something told ``back`` exchanges before it is asked for."""
    right = None
    while right is None:
        talk = Talk(rng, "test")
        kind, words = kinds[int(rng.random() * len(kinds))]
        right = talk.tell(kind)
    talk.addresses = False  # "Thank you, Anna!" would tell the name again
    while len(talk.turns) < 2 * back:
        talk.filler()
    talk.ask(kind)
    return _probe(talk, right, words)


def _new_name(rng: random.Random) -> Probe:
    """The user's name, one that no training conversation has, told one to three exchanges before."""
    right = None
    while right is None:
        talk = Talk(rng, "test")
        right = talk.tell("name", new=True)
    for _ in range(int(rng.random() * 3)):
        talk.filler()
    talk.ask("name")
    return _probe(talk, right, NAMES)


def _story(rng: random.Random, asked: Sequence[tuple[str, tuple[str, ...]]]) -> Probe:
    """A question about a story just told."""
    while True:
        talk = Talk(rng, "test")
        talk.tell_story()
        there = set(talk.story_questions())
        possible = [(name, words) for name, words in asked if name in there]
        if possible:
            name, words = possible[int(rng.random() * len(possible))]
            return _probe(talk, talk.ask_story(name), words)


def _fact(rng: random.Random) -> Probe:
    """A fact of the closed world, in a wording that train does not have for it."""
    talk = Talk(rng, "test")
    if rng.random() < 0.5:
        talk.greet()
    topic, about, right = talk.fact()
    rivals = [word for word in TOPICS[topic].facts.values() if word != about]
    return _probe(talk, right, rivals)


def _arithmetic(rng: random.Random) -> Probe:
    talk = Talk(rng, "test")
    found = talk.sum()
    return _probe(talk, str(found.value), ())


def _probe(talk: Talk, right: str, kind: Sequence[str]) -> Probe:
    rivals = frozenset(word for word in kind if word.lower() != right.lower())
    return Probe("", tuple(talk.turns[:-1]), right, rivals, talk.turns[-1]["content"])


_NAME = (("name", NAMES),)
_OTHERS = (("color", COLORS), ("animal", ANIMALS), ("food", FOODS), ("pet", PET_NAMES), ("friend", NAMES))
_MAKERS: dict[str, Callable[[random.Random], Probe]] = {
    "name_1": partial(_memory, kinds=_NAME, back=1),
    "name_2": partial(_memory, kinds=_NAME, back=2),
    "name_3": partial(_memory, kinds=_NAME, back=3),
    "memory": lambda rng: _memory(rng, _OTHERS, 1 + int(rng.random() * 3)),
    "story_who": partial(_story, asked=(("hero", NAMES), ("friend", NAMES))),
    "story_what": partial(_story, asked=(("object", OBJECTS), ("looks", ADJECTIVES))),
    "story_where": partial(_story, asked=(("place", tuple(PLACES)),)),
    "facts": _fact,
    "arithmetic": _arithmetic,
}
PROBE_TASKS = tuple(_MAKERS)
"""``name_1`` to ``name_3``: the user's name, told so many exchanges before; ``memory``: other things told, one to
three exchanges before; ``story_who``, ``story_what``, ``story_where``: of a story just told; ``facts``;
``arithmetic``."""


_MAKERS_BESIDE: dict[str, Callable[[random.Random], Probe]] = {"new_name": _new_name}
BESIDE_TASKS = tuple(_MAKERS_BESIDE)
"""Asked beside those and not counted in the score, which is older."""


def probes(seed: int, n: int) -> list[Probe]:
    """Held-out questions, ``n`` of each task, no two of a task alike; the same seed gives the same ones.

    Names, objects, places and numbers come in combinations, facts in wordings, that the split train does not have.
    """
    found: list[Probe] = []
    for task, draw in (_MAKERS | _MAKERS_BESIDE).items():
        rng = random.Random(f"smallfry:probes:{task}:{seed}")
        seen: set[str] = set()
        while len(seen) < n:
            probe = draw(rng)
            key = repr(probe.turns)
            if key not in seen:
                seen.add(key)
                found.append(Probe(task, probe.turns, probe.right, probe.rivals, probe.answer))
    return found
