"""Conversations: how turns are spelled, how a history is cut to a model's context, and the commands of ``chat``.

Nothing here knows a model: `fit` is given a function that spells turns as tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smallfry.errors import SmallfryError
from smallfry.tokenizer import ASSISTANT, END, USER

Turn = tuple[str, str]  # role (system, user or assistant) and text
Spell = Callable[[Sequence[Turn]], Sequence[int]]
Kind = Literal["chat", "continue", "answer"]
"""What a model does with a line: converse, go on with the text, or answer it as its job asks."""

HOTTEST = 10.0  # temperature


# ---- spelling --------------------------------------------------------------------------------------------------------


def merged(turns: Sequence[Turn]) -> list[Turn]:
    """Turns as smallfry's models are taught them: two roles, one after the other.

    A system text goes to the head of the user's next turn, an empty line between: what a third role would say, models
    this small read in the user's words. Two turns of one role become one.
    """
    found: list[Turn] = []
    waiting: list[str] = []
    for role, text in turns:
        if role == "system":
            waiting.append(text)
            continue
        if role == "user" and waiting:
            text, waiting = "\n\n".join([*waiting, text]), []
        if found and found[-1][0] == role:
            text = f"{found.pop()[1]}\n{text}"
        found.append((role, text))
    return merged([*found, ("user", "\n\n".join(waiting))]) if waiting else found


def own_ids(turns: Sequence[Turn], encode: Callable[[str], Sequence[int]]) -> list[int]:
    """The spelling of smallfry's own models: a conversation in which it is the model's turn.

    ``<|user|> text<|assistant|> text<|end|><|user|> text<|assistant|>``

    Args:
        turns: (role, text).
        encode: A text to token ids, special tokens written in it taken as text.
    """
    ids: list[int] = []
    for role, text in merged(turns):
        words = encode(" " + text)
        ids += [ASSISTANT, *words, END] if role == "assistant" else [USER, *words]
    return [*ids, ASSISTANT]


# ---- cutting to the context ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fitted:
    """A history that a model can read, with room for its answer.

    Args:
        turns: What is left of it.
        ids: The same as tokens.
        room: Tokens that the answer may have.
        dropped: Exchanges left out, oldest first.
        cut: Characters cut from single texts that were too long.
    """

    turns: tuple[Turn, ...]
    ids: tuple[int, ...]
    room: int
    dropped: int = 0
    cut: int = 0

    @property
    def notice(self) -> str:
        """What somebody who wrote the last message should know, or nothing; dropped exchanges are the usual case."""
        if not self.cut:
            return ""
        return f"too long for the model's context: {self.cut:,} characters at its beginning are not read"


def fit(turns: Sequence[Turn], spell: Spell, context: int, wanted: int = 256) -> Fitted:
    """Cut a history so that it and an answer fit into a context.

    Whole exchanges (a user's turn and what was answered) are left out, oldest first; system texts before the first of
    them stay. Only where the last exchange alone is too long, texts are cut: the longest of its turns at its beginning,
    and a system text that would leave it less than half of the room at its end.

    Args:
        turns: (role, text), at least one; it is the model's turn.
        spell: Turns to token ids. More turns or longer ones must not make fewer tokens.
        context: Tokens the model can read and write together.
        wanted: Tokens wanted for the answer; at most half of the context is kept for it.

    Raises:
        SmallfryError: Not even empty turns fit.
    """
    limit = context - min(wanted, context // 2)
    head, exchanges = _exchanges(turns)

    def last(count: int) -> list[Turn]:
        return [turn for exchange in exchanges[-count:] for turn in exchange] if count else []

    kept = _most(len(exchanges), lambda n: len(spell([*head, *last(n)])) <= limit)
    left = [*head, *last(kept)]
    cut = 0
    if not kept and (exchanges or len(spell(head)) > limit):
        left, cut = _shorten(head, last(1), spell, limit)
        kept = 1
    ids = tuple(spell(left))
    return Fitted(tuple(left), ids, min(wanted, context - len(ids)), max(0, len(exchanges) - kept), cut)


def _exchanges(turns: Sequence[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    """System texts at the beginning, and exchanges, each of which begins with a user's turn."""
    start = next((i for i, (role, _) in enumerate(turns) if role != "system"), len(turns))
    exchanges: list[list[Turn]] = []
    for before, turn in zip([None, *turns[start:]], turns[start:], strict=False):
        joins = before is not None and (turn[0] == "assistant" or before[0] == "system")
        if joins:
            exchanges[-1].append(turn)
        else:
            exchanges.append([turn])
    return list(turns[:start]), exchanges


def _shorten(head: list[Turn], exchange: list[Turn], spell: Spell, limit: int) -> tuple[list[Turn], int]:
    """One exchange behind its system texts, texts cut until it fits; and how many characters went."""
    turns = [*head, *exchange]
    before = sum(len(text) for _, text in turns)
    room = limit // 2 if exchange else limit
    for i in range(len(head)):
        if len(spell(turns[: len(head)])) > room:
            role, text = turns[i]
            turns[i] = (role, text[: _length(turns[: len(head)], i, spell, room, False)].rstrip())
    for i in sorted(range(len(head), len(turns)), key=lambda i: -len(turns[i][1])):
        if len(spell(turns)) > limit:
            role, text = turns[i]
            turns[i] = (role, _from_a_word(text, len(text) - _length(turns, i, spell, limit, True)))
    if len(spell(turns)) > limit:
        raise SmallfryError(
            f"the model's context leaves {limit:,} tokens before the answer, too few for any conversation; take another"
        )
    return turns, before - sum(len(text) for _, text in turns)


def _length(turns: Sequence[Turn], index: int, spell: Spell, limit: int, end: bool) -> int:
    """How many characters at the beginning or the end of one text may stay so that the turns fit."""
    role, text = turns[index]

    def fits(n: int) -> bool:
        part = text[len(text) - n :] if end else text[:n]
        return len(spell([*turns[:index], (role, part), *turns[index + 1 :]])) <= limit

    return _most(len(text), fits)


def _from_a_word(text: str, at: int) -> str:
    """A text from ``at`` on, from the next word where one begins in the first half of the rest."""
    if at == 0 or text[at - 1 : at].isspace():
        return text[at:].lstrip() if at else text
    space = next((i for i in range(at, at + (len(text) - at) // 2) if text[i].isspace()), -1)
    return text[at:] if space < 0 else text[space:].lstrip()


def _most(top: int, fits: Callable[[int], bool]) -> int:
    """The largest of 1 to ``top`` that fits, 0 where none does; looks at small ones first, for large ones cost more."""
    good, bad, step = 0, top + 1, 1
    while good + step < bad:
        if not fits(good + step):
            bad = good + step
            break
        good, step = good + step, 2 * step
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


# ---- a conversation and its commands ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Exchange:
    """What was said and answered.

    Args:
        said: The user's text.
        answer: The model's.
        stopped: The user stopped it.
        confidence: Of a job's answer.
    """

    said: str
    answer: str
    stopped: bool = False
    confidence: float | None = None

    def to_dicts(self) -> list[dict[str, object]]:
        """Two messages as plain data."""
        answer: dict[str, object] = {"role": "assistant", "content": self.answer}
        if self.stopped:
            answer["stopped"] = True
        if self.confidence is not None:
            answer["confidence"] = self.confidence
        return [{"role": "user", "content": self.said}, answer]


@dataclass(slots=True)
class Conversation:
    """The state of ``smallfry chat``: what was said, and the settings that its commands change.

    Args:
        kind: What the model does with a line.
        temperature: Of the draws; 0 takes the likeliest token.
        seed: Of the draws; every answer has draws of its own.
        system: What stands before the first exchange, or empty.
        exchanges: What was said, oldest first.
        drawn: Answers since the seed was set.
        ended: The user wants to leave.
        earlier: Conversations before ``/reset``.
    """

    kind: Kind = "chat"
    temperature: float = 0.7
    seed: int = 0
    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    drawn: int = 0
    ended: bool = False
    earlier: list[list[Exchange]] = field(default_factory=list)

    def turns(self, said: str) -> list[Turn]:
        """The history with a new message."""
        found: list[Turn] = [("system", self.system)] if self.system else []
        for exchange in self.exchanges:
            found += [("user", exchange.said), ("assistant", exchange.answer)]
        return [*found, ("user", said)]

    def command(self, line: str) -> str:
        """Do what a line with a slash asks.

        Returns:
            What to tell the user: one line, or the list of commands.
        """
        name, _, rest = line.strip().partition(" ")
        known = _COMMANDS.get(name)
        if known is None:
            return f"{name}: no such command; /help lists them (a text that begins with a slash: //...)"
        if self.kind not in known.kinds:
            return f"{name}: of no use here, {_WHY[self.kind]}"
        return known.act(self, rest.strip())

    def to_dict(self) -> dict[str, object]:
        """The turns as messages, and those before each ``/reset``."""

        def plain(exchanges: Sequence[Exchange]) -> list[dict[str, object]]:
            return [message for exchange in exchanges for message in exchange.to_dicts()]

        found: dict[str, object] = {"turns": plain(self.exchanges), "earlier": [plain(e) for e in self.earlier]}
        return {"system": self.system, **found} if self.system else found


@dataclass(frozen=True, slots=True)
class _Command:
    usage: str
    what: str
    act: Callable[[Conversation, str], str]
    kinds: tuple[Kind, ...] = ("chat", "continue", "answer")


_WHY: dict[Kind, str] = {
    "chat": "the model converses", "continue": "the model was not trained to talk and goes on with each text by itself",
    "answer": "the model answers each line by itself, with its likeliest answer",
}  # fmt: skip


def _temperature(talk: Conversation, rest: str) -> str:
    if rest:
        try:
            value = float(rest)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= HOTTEST:
            return (
                f"/temperature {rest[:40]}: expected a number from 0 (the likeliest token) to {HOTTEST:g}, such as 0.7"
            )
        talk.temperature = value
    return f"temperature {talk.temperature:g}"


def _seed(talk: Conversation, rest: str) -> str:
    if rest:
        if not (rest.isascii() and rest.isdigit() and int(rest[:20]) < 2**53):
            return f"/seed {rest[:40]}: expected a whole number from 0, such as 7"
        talk.seed, talk.drawn = int(rest), 0
    return f"seed {talk.seed}"


def _reset(talk: Conversation, rest: str) -> str:
    count = len(talk.exchanges)
    if count:
        talk.earlier.append(talk.exchanges)
    talk.exchanges = []
    return f"forgot {count} exchange{'' if count == 1 else 's'}" + ("; the system message stays" if talk.system else "")


def _undo(talk: Conversation, rest: str) -> str:
    if not talk.exchanges:
        return "/undo: nothing was said yet"
    return f"took back: {talk.exchanges.pop().said}"


def _system(talk: Conversation, rest: str) -> str:
    talk.system = rest
    return f"system message: {rest}" if rest else "no system message"


def _help(talk: Conversation, rest: str) -> str:
    known = [command for command in _COMMANDS.values() if talk.kind in command.kinds]
    width = max(len(command.usage) for command in known)
    return "\n".join(f"{command.usage.ljust(width)}  {command.what}" for command in known)


def _exit(talk: Conversation, rest: str) -> str:
    talk.ended = True
    return ""


_DRAWN: tuple[Kind, ...] = ("chat", "continue")
_COMMANDS = {
    "/temperature": _Command("/temperature X", "0 takes the likeliest token, 1 draws", _temperature, _DRAWN),
    "/seed": _Command("/seed N", "of the draws", _seed, _DRAWN),
    "/system": _Command("/system TEXT", "what stands before the conversation; alone: nothing", _system, ("chat",)),
    "/undo": _Command("/undo", "take the last exchange back", _undo, ("chat",)),
    "/reset": _Command("/reset", "begin a new conversation", _reset),
    "/help": _Command("/help", "this list", _help),
    "/exit": _Command("/exit", "end, as Ctrl-D does; Ctrl-C stops an answer", _exit),
}
