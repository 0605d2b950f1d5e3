"""One exchange after another: what is said in a built-in conversation, with what it must remember."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from smallfry.builtin import _conversation_sums as sums
from smallfry.builtin import stories
from smallfry.builtin._conversation_phrases import (
    GOODBYES,
    GREETINGS,
    NEVER_TOLD,
    REACTIONS,
    SELF,
    SMALL_TALK,
    STORY_ABOUT,
    STORY_OPINIONS,
    STORY_QUESTIONS,
    STORY_QUESTIONS_WIDE,
    STORY_REQUESTS,
    TOLD,
    UNKNOWN,
)
from smallfry.builtin._conversation_words import COLORS, OUTSIDE, TOPICS
from smallfry.builtin._grammar import fill
from smallfry.builtin._new_names import new_name
from smallfry.builtin._split import choose, part_of
from smallfry.builtin._story_words import ANIMALS, BOYS, FOODS, GIRLS, TOYS
from smallfry.builtin._words import ONES, words
from smallfry.job import SplitName

NAMES = (*GIRLS, *BOYS)
PETS = words("dog cat rabbit pony hamster parrot goat duck")
PET_NAMES = words("Spot Fluffy Rex Coco Bello Minka Shadow Lucky Pepper Snowy Buddy Biscuit Socks Patch Bonny Ginger")
AGES = ONES[5:15]
_REMEMBERED: dict[str, tuple[str, ...]] = {
    "name": NAMES, "color": COLORS, "animal": ANIMALS, "food": FOODS, "toy": TOYS, "pet": PET_NAMES, "friend": NAMES,
    "age": AGES,
}  # fmt: skip
KINDS = tuple(_REMEMBERED)
_ANY_NAME = ("name", "friend", "pet")
_NEW_SHARE, _WIDE_SHARE = 0.4, 0.3  # of such names and of questions about a story, where a talk is wide
Facts = dict[str, str]


class Talk:
    """A conversation being made.

    Args:
        rng: Source of everything drawn.
        part: The split whose combinations it may have.
        wide: Has names that are on no list, and questions in words that probes do not have.
    """

    def __init__(self, rng: random.Random, part: SplitName, wide: bool = False) -> None:
        self.rng, self.part, self.wide = rng, part, wide
        self.turns: list[dict[str, str]] = []
        self.told: dict[str, str] = {}  # by kind, what the user said of himself
        self.pet = choose(rng, PETS)
        self.story: Facts | None = None
        self.text = ""  # the story's
        self.addresses = True  # whether the model calls the user by the name
        self.owned = False  # whether something was said that no other split can have

    # ---- wording ----------------------------------------------------------------------------------------------------

    def fill(self, template: str, facts: Facts | None = None) -> str:
        """Take a template's choices and fill its slots; a capital slot asks for a capital letter."""
        known = {"k": self.pet, **(facts or {})}
        name = self.told.get("name")
        known["you"] = f", {name}" if name and self.addresses and self.rng.random() < 0.5 else ""

        def look_up(slot: str) -> str:
            if slot in known:
                return known[slot]
            text = known[slot.lower()]
            return text[0].upper() + text[1:]

        return " ".join(stories.with_articles(fill(self.rng, template, look_up)).split(" ")).strip()

    def say(self, said: str, answer: str) -> None:
        """Add an exchange as it is."""
        self.turns += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]

    def exchange(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Add one of several exchanges."""
        said, answer = pairs[int(self.rng.random() * len(pairs))]
        self.say(casual(self.rng, self.fill(said)), self.fill(answer))

    def owns(self, what: str) -> bool:
        """Whether something belongs to the conversation's split, and so tells it from every other split's."""
        mine = part_of(what) == self.part
        self.owned |= mine
        return mine

    # ---- what is talked about ---------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Hello."""
        self.exchange(GREETINGS)

    def chat(self) -> None:
        """Small talk."""
        self.exchange(SMALL_TALK + REACTIONS if self.turns else SMALL_TALK)

    def about_itself(self) -> None:
        """What the model is and is not."""
        self.exchange(SELF)

    def part_ways(self) -> None:
        """Goodbye."""
        self.exchange(GOODBYES)

    def fact(self) -> tuple[str, str, str]:
        """A fact of the closed world; gives its topic, what was asked about and the right word."""
        rng = self.rng
        while True:
            name = choose(rng, tuple(TOPICS))
            topic = TOPICS[name]
            about = choose(rng, tuple(topic.facts))
            facts = {"x": about, "a": topic.facts[about]}
            question = self.fill(choose(rng, topic.questions), facts)
            if self.owns(f"{name}|{_plain(question)}"):
                self.say(casual(rng, question), self.fill(choose(rng, topic.answers), facts))
                return name, about, topic.facts[about]

    def sum(self) -> sums.Sum:
        """Arithmetic."""
        found = sums.make(self.rng, self.part)
        self.owned = True
        self.say(found.question, found.answer)
        return found

    def outside(self) -> None:
        """A question that the model cannot answer, and says so."""
        while True:
            template, things = OUTSIDE[int(self.rng.random() * len(OUTSIDE))]
            question = self.fill(template, {"x": choose(self.rng, things)})
            if self.owns(f"outside|{_plain(question)}"):
                self.say(casual(self.rng, question), self.fill(choose(self.rng, UNKNOWN)))
                return

    def tell(self, kind: str, new: bool = False) -> str | None:
        """The user tells something of himself; each pair of things told belongs to the split.

        Args:
            kind: What it is.
            new: A name that is on no list; in a wide talk some are.

        Returns:
            The thing; None where the split has nothing of that kind beside what was told.
        """
        told, answers, _, _ = TOLD[kind]
        if kind == "pet":
            self.pet = choose(self.rng, PETS)
        beside = [f"{known}|{value}" for known, value in self.told.items()]
        beside += [f"a|{self.pet}"] if kind == "pet" else []
        new = new or (self.wide and kind in _ANY_NAME and self.rng.random() < _NEW_SHARE)
        possible = [
            thing for thing in ([new_name(self.rng, self.part) for _ in range(8)] if new else _REMEMBERED[kind])
            if thing not in self.told.values()
            and all(part_of("|".join(sorted((f"{kind}|{thing}", other)))) == self.part for other in beside)
        ]  # fmt: skip
        if not possible:
            return None
        thing = choose(self.rng, possible)
        self.owned |= new or bool(beside)
        facts = {"x": thing, "name": thing}
        said = self.fill(choose(self.rng, told), facts)
        self.told[kind] = thing
        self.say(said, self.fill(choose(self.rng, answers), facts))
        return thing

    def ask(self, kind: str) -> None:
        """The user asks for what he told, or did not tell."""
        _, _, questions, answers = TOLD[kind]
        question = casual(self.rng, self.fill(choose(self.rng, questions)))
        if kind in self.told:
            self.say(question, self.fill(choose(self.rng, answers), {"x": self.told[kind]}))
        else:
            self.say(question, self.fill(choose(self.rng, NEVER_TOLD)))

    def tell_story(self) -> None:
        """A story about what is asked for: the request names facts of a story that has them."""
        while True:
            self.text, facts = stories.tell(self.rng, self.part)
            if stories.sound(self.text):
                break
        facts["adjective"] = facts["O"].removesuffix(" " + facts["o"])
        self.story = facts
        mentioned = {"N": facts["N"], "F": facts["F"], "O": facts["o"], "P": facts["place"]}
        there = {key for key, word in mentioned.items() if _has(self.text, word)}
        asked = choose(self.rng, [key for key in STORY_ABOUT if set(key) <= there])
        request = choose(self.rng, STORY_REQUESTS).replace("{about}", choose(self.rng, STORY_ABOUT[asked]))
        self.owned = True
        self.say(self.fill(request, facts), self.text)

    def story_questions(self) -> list[str]:
        """What can be asked of the story that was told."""
        facts = self.story
        if facts is None:
            return []
        needed = {"hero": "N", "friend": "F", "object": "o", "looks": "O", "place": "place", "sex": "N"}
        return [name for name, fact in needed.items() if _has(self.text, facts[fact])]

    def ask_story(self, name: str) -> str:
        """A question about the story; gives the right word."""
        fact, questions, answers = STORY_QUESTIONS[name]
        if self.wide and name in STORY_QUESTIONS_WIDE and self.rng.random() < _WIDE_SHARE:
            questions = STORY_QUESTIONS_WIDE[name]
        facts = self.story or {}
        question = casual(self.rng, self.fill(choose(self.rng, questions), facts))
        self.say(question, self.fill(choose(self.rng, answers), facts))
        return facts[fact]

    def like_story(self) -> None:
        """An opinion of the story."""
        self.exchange(STORY_OPINIONS)

    def filler(self) -> None:
        """An exchange in which nothing is told that is asked for later."""
        choice: tuple[Callable[[], object], ...] = (
            self.fact,
            self.fact,
            self.chat,
            self.about_itself,
            self.sum,
            self.outside,
        )
        choice[int(self.rng.random() * len(choice))]()


def _has(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def _plain(question: str) -> str:
    """A question without what `casual` changes."""
    return question.rstrip(".?!").lower()


def casual(rng: random.Random, text: str) -> str:
    """What people type: now and then without the mark at its end, or without the first capital."""
    if rng.random() < 0.12 and text[-1:] in ".?!":
        text = text[:-1]
    first = text.split(" ", 1)[0].strip(",.!?")
    if rng.random() < 0.12 and first not in ("I", "I'm") and first not in NAMES:
        text = text[:1].lower() + text[1:]
    return text
