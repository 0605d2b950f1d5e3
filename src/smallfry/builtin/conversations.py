"""Conversations that the package makes itself: small talk, stories on request, simple facts, sums, things to remember.

Everything is drawn from a seed by rules, so that what is right is known: the facts asked of a story are in it, a name
asked for was told, arithmetic is worked out in steps. Held-out splits use combinations that train does not have: hero
and place, object and plot, two things that a user tells, a fact and the wording of its question, the numbers of each
step of a sum, a name that no story has; and no conversation is in two splits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from smallfry.builtin._conversation_acts import KINDS, Talk
from smallfry.builtin._conversation_probes import BESIDE_TASKS, PROBE_TASKS, Probe, probes
from smallfry.builtin._split import choose, part_of
from smallfry.errors import SmallfryError
from smallfry.job import SplitName

__all__ = ["BESIDE_TASKS", "CONVERSATIONS", "PROBE_TASKS", "ConversationSet", "Probe", "make", "probes"]

Messages = list[dict[str, str]]
_MISSES = 2000  # draws in a row without a new conversation before there are taken to be no more


@dataclass(frozen=True, slots=True)
class ConversationSet:
    """A built-in set of conversations; called, it makes some.

    Args:
        name: Its name.
        description: One line.
        draw: Fills an empty `Talk`.
    """

    name: str
    description: str
    draw: Callable[[Talk], None]

    def __call__(self, count: int, seed: int, split: str) -> list[Messages]:
        """Make conversations; the same arguments give the same ones, and fewer are a prefix of more.

        Args:
            count: How many.
            seed: Of everything drawn.
            split: ``train``, ``valid`` or ``test``.

        Returns:
            Each a list of messages ``{"role": "user" | "assistant", "content": text}``, user first, no two alike.

        Raises:
            SmallfryError: No such split, or not so many different conversations.
        """
        parts: dict[str, SplitName] = {"train": "train", "valid": "valid", "test": "test"}
        if split not in parts:
            raise SmallfryError(f"split {split!r}: expected train, valid or test")
        rng = random.Random(f"smallfry:conversations:{self.name}:{split}:{seed}")
        seen: set[str] = set()
        found: list[Messages] = []
        misses = 0
        while len(found) < count:
            talk = Talk(rng, parts[split], wide=True)
            self.draw(talk)
            text = json.dumps(talk.turns)
            if text in seen or not (talk.owned or part_of(text) == split):
                misses += 1
                if misses > _MISSES:
                    raise SmallfryError(
                        f"built-in conversations {self.name!r}: only {len(found)} different ones of split {split} for "
                        f"seed {seed}, {count} were asked for; ask for at most {len(found)}"
                    )
                continue
            misses = 0
            seen.add(text)
            found.append(talk.turns)
        return found


# ---- the sets --------------------------------------------------------------------------------------------------------


def _open(talk: Talk) -> None:
    kind = talk.rng.random()
    if kind < 0.25:
        talk.greet()
    elif kind < 0.5:
        talk.tell("name")


def _story(talk: Talk) -> None:
    """A story and up to three questions about it."""
    talk.tell_story()
    if talk.rng.random() < 0.2:
        talk.like_story()
    names = talk.story_questions()
    for name in talk.rng.sample(names, min(len(names), int(talk.rng.random() * 4))):
        talk.ask_story(name)


def _memory(talk: Talk) -> None:
    """Something told, perhaps other things between, and asked for; now and then asked for what nobody told."""
    rng = talk.rng
    open_kinds = [kind for kind in KINDS if kind not in talk.told]
    if "name" in talk.told and rng.random() < 0.5:
        kinds = ["name"]
    elif rng.random() < 0.15:
        talk.ask(choose(rng, open_kinds))
        return
    else:
        kinds = rng.sample(open_kinds, 1 + (rng.random() < 0.4))
        if "name" in open_kinds and rng.random() < 0.3:
            kinds[0] = "name"
        kinds = [kind for kind in dict.fromkeys(kinds) if talk.tell(kind) is not None]
        if not kinds:
            return
    for _ in range(int(rng.random() * 4)):
        talk.filler()
    for kind in rng.sample(kinds, 1 + int(rng.random() * len(kinds))):
        talk.ask(kind)


def _several(act: Callable[[Talk], object], most: int) -> Callable[[Talk], None]:
    def repeat(talk: Talk) -> None:
        for _ in range(1 + int(talk.rng.random() * most)):
            act(talk)

    return repeat


_BLOCKS: tuple[tuple[float, Callable[[Talk], None]], ...] = (
    (0.20, _story), (0.26, _memory), (0.20, _several(Talk.fact, 3)), (0.12, _several(Talk.sum, 2)),
    (0.08, _several(Talk.chat, 2)), (0.08, _several(Talk.about_itself, 2)), (0.06, _several(Talk.outside, 2)),
)  # fmt: skip


def _chat(talk: Talk) -> None:
    """Of everything something; at most one story, so that a conversation fits into a short context."""
    _open(talk)
    left = list(_BLOCKS)
    for _ in range(1 + int(talk.rng.random() * 2.5)):
        block = talk.rng.choices(left, [share for share, _ in left])[0]
        block[1](talk)
        if block[1] is _story:
            left.remove(block)
    if talk.rng.random() < 0.2:
        talk.part_ways()


def _stories_chat(talk: Talk) -> None:
    """A story, and questions about it."""
    _story(talk)


CONVERSATIONS: dict[str, ConversationSet] = {
    "chat": ConversationSet(
        "chat",
        "small talk, stories on request, simple facts, sums in steps, things to remember, honest refusals",
        _chat,
    ),
    "stories-chat": ConversationSet("stories-chat", "stories on request and questions about them", _stories_chat),
}


def make(count: int, seed: int, split: str) -> list[Messages]:
    """Conversations of the set ``chat`` (`ConversationSet.__call__`)."""
    return CONVERSATIONS["chat"](count, seed, split)
