"""Conversations out of files, the hub and the sets that ship with the package, checked, some of them held out.

A conversation here is an optional system message, then user and assistant in turn, ending with the assistant. What data
sets write differently is brought into that form by fixed rules:

- two turns of one role become one, a line break between them;
- what a tool gave (roles ``tool``, ``observation``, ...) is a user's turn: the model is given it and does not learn it;
- a call of a tool (role ``tool_call``, or an assistant's ``tool_calls``) is what an assistant says;
- a system message in the middle stands before the user's next words;
- an answer before any question, and a question behind the last answer, are left out;
- an exchange whose question or answer is blank is left out: a model would learn to say nothing, or to speak unasked.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smallfry.characters import whole_text
from smallfry.errors import SmallfryError
from smallfry.loading.hub import hub_table
from smallfry.loading.mixtures import weighted
from smallfry.loading.readers import Table, open_table
from smallfry.loading.splitting import SPLIT_OF_NAME

Role = Literal["system", "user", "assistant"]

COLUMNS = ("messages", "conversations", "conversation")
PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("prompt", "response"), ("prompt", "completion"),
    ("question", "answer"), ("question", "response"),
)  # fmt: skip
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "tool": "user",
    "tool_result": "user", "observation": "user", "function": "user", "function_response": "user", "ipython": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "tool_call": "assistant",
    "function_call": "assistant",
}  # fmt: skip
EXPECTED = (
    'a column messages ([{"role": "user", "content": "..."}, ...]), conversations (from/value), or two columns such as '
    "prompt and response, or instruction and output"
)
VALID_SHARE, MIN_VALID, MAX_VALID, MOST_OF_ALL = 0.01, 50, 2000, 0.2
"""Held out: a hundredth of the conversations, at least 50 and at most 2,000, but never more than a fifth."""
BUILTIN_TRAIN, BUILTIN_VALID = 20_000, 500
"""Conversations made of a built-in set."""
_MOST_BAD = 0.1  # share of rows that may be no conversations before the whole source is refused
_HELD_OUT = ("valid", "test")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Args:
        role: Whose.
        content: Its text.
    """

    role: Role
    content: str


Conversation = tuple[Message, ...]


@dataclass(slots=True)
class Read:
    """What was read.

    Args:
        train: To learn from.
        valid: Held out.
        source_of: Which source each of ``train`` is from, by number.
        names: The sources, without their weights.
        weights: Their shares of the tokens, relative to each other; None where the user gave none.
        counts: ``conversations``, ``turns``, and by name what was left out or changed.
        hashes: SHA-256 of train and valid.
        notes: One sentence for each thing that the user should know.
    """

    train: list[Conversation]
    valid: list[Conversation]
    source_of: list[int]
    names: list[str]
    weights: list[float] | None
    counts: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class _BadRowError(Exception):
    """A row that is no conversation; the message says why."""


def read_conversations(sources: Sequence[str], seed: int = 0, limit: int | None = None) -> Read:
    """Read chat data.

    Args:
        sources: ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` files, ``hf:owner/name``, names of built-in sets (with
            ``chat:`` before them where a job is called the same), each with ``:WEIGHT`` behind it where wanted.
        seed: Of what is held out where the data has no column ``split``, and of built-in sets.
        limit: At most so many conversations of each source, the first ones.

    Raises:
        SmallfryError: A source cannot be read, or holds hardly any conversations.
    """
    if not sources:
        raise SmallfryError("no chat data; name a .jsonl or .parquet file, hf:owner/name or a built-in set")
    parsed = [weighted(source) for source in sources]
    given = [weight is not None for _, weight in parsed]
    read = Read([], [], [], [name for name, _ in parsed], [w or 1.0 for _, w in parsed] if any(given) else None)
    tally: Counter[str] = Counter()
    for number, (name, _) in enumerate(parsed):
        train, valid = _source(name, seed, limit, tally, read.notes)
        read.train += train
        read.source_of += [number] * len(train)
        read.valid += valid
    _keep_apart(read, tally)
    if not read.train:
        counted = ", ".join(f"{count:,} {name}" for name, count in sorted(tally.items()))
        told = f" ({counted})" if counted else ""
        raise SmallfryError(f"{', '.join(read.names)}: no conversation to learn from{told}; expected {EXPECTED}")
    read.counts = {
        "conversations": len(read.train), "held out": len(read.valid),
        "turns": sum(len(c) for c in read.train), **dict(sorted(tally.items())),
    }  # fmt: skip
    read.hashes = {"train": digest(read.train), "valid": digest(read.valid)}
    return read


def _keep_apart(read: Read, tally: Counter[str]) -> None:
    """Leave out of training what another source, or another row, holds out."""
    held = {digest([conversation]) for conversation in read.valid}
    kept = [i for i, conversation in enumerate(read.train) if digest([conversation]) not in held]
    if len(kept) < len(read.train):
        tally["left out: held out elsewhere"] += len(read.train) - len(kept)
        read.train = [read.train[i] for i in kept]
        read.source_of = [read.source_of[i] for i in kept]


def digest(conversations: Iterable[Conversation]) -> str:
    """SHA-256 of conversations in their order; fields are length-prefixed."""
    found = hashlib.sha256()
    for conversation in conversations:
        for message in conversation:
            data = message.content.encode()
            found.update(f"{message.role}{len(data)}:".encode())
            found.update(data)
        found.update(b"\n")
    return found.hexdigest()


# ---- one source -----------------------------------------------------------------------------------------------------


def _source(
    name: str, seed: int, limit: int | None, tally: Counter[str], notes: list[str]
) -> tuple[list[Conversation], list[Conversation]]:
    builtin = builtin_set(name)
    if builtin is not None:
        train, valid = (
            [normal(_turns(messages), Counter()) for messages in builtin(min(count, limit or count), seed, split)]
            for count, split in ((BUILTIN_TRAIN, "train"), (BUILTIN_VALID, "valid"))
        )
        notes.append(f"{name}: {len(train):,} conversations made with seed {seed}")
        return [c for c in train if c], [c for c in valid if c]
    table = table_of(name)
    rows = list(_conversations(table, limit, tally, notes))
    if any(split is not None for _, split in rows):
        parts = [[c for c, s in rows if (s in _HELD_OUT) == held] for held in (False, True)]
        if not parts[0]:
            raise SmallfryError(f"{name}: all its rows are of split valid or test; expected rows to learn from")
        if parts[1]:
            return parts[0], parts[1]
    return hold_out([c for c, _ in rows], seed)


def table_of(name: str) -> Table:
    """The rows of a file or a hub data set.

    Raises:
        SmallfryError: There is no such file, or it cannot be read.
    """
    wanted = {*COLUMNS, *itertools.chain(*PAIRS), "input", "output", "system", "chosen", "split", "text"}
    if name.startswith("hf:"):
        return hub_table(name, "messages", wanted)
    path = Path(name)
    if not path.exists():
        sets = ", ".join(sorted(names()))
        raise SmallfryError(f"{name}: no such file and no built-in set of conversations; built-in: {sets or 'none'}")
    return open_table(path, wanted)


def looks_like_chat(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a conversation rather than a job's input and output."""
    return any(column in row for column in COLUMNS) or any(a in row and b in row for a, b in PAIRS)


def _conversations(
    table: Table, limit: int | None, tally: Counter[str], notes: list[str]
) -> Iterator[tuple[Conversation, str | None]]:
    total = bad = good = 0
    first = ""
    for number, row in table.rows:
        total += 1
        try:
            conversation = normal(_of_row(row), tally)
            split = _split(row)
        except _BadRowError as error:
            bad += 1
            first = first or f"{table.at(number)}: {error}"
            continue
        if not conversation:
            tally["rows without an answer"] += 1
            continue
        yield conversation, split
        good += 1
        if good == limit:
            break
    if bad > _MOST_BAD * total:
        more = f" (and {bad - 1:,} more of {total:,} rows)" if bad > 1 else ""
        raise SmallfryError(f"{first}{more}; expected {EXPECTED}")
    if bad:
        tally["bad rows"] += bad
        notes.append(f"{bad:,} of {total:,} rows were left out; the first: {first}")


def read_turns(table: Table, number: int, row: Mapping[str, Any]) -> list[Message]:
    """The turns of one row as they were written.

    Raises:
        SmallfryError: It holds no conversation.
    """
    try:
        return _of_row(row)
    except _BadRowError as error:
        raise SmallfryError(f"{table.at(number)}: {error}; expected {EXPECTED}") from None


def _split(row: Mapping[str, Any]) -> str | None:
    value = row.get("split")
    if value is None or value == "":
        return None
    found = SPLIT_OF_NAME.get(str(value).strip().lower())
    if found is None:
        raise _BadRowError(f"unknown split {str(value)[:40]!r}, expected train, valid or test")
    return found


def _of_row(row: Mapping[str, Any]) -> list[Message]:
    for column in COLUMNS:
        if row.get(column) is not None:
            turns = _turns(row[column])
            chosen = row.get("chosen")  # of preference data, the better answer
            if chosen is not None and (not turns or turns[-1].role != "assistant"):
                turns += _turns([chosen if isinstance(chosen, dict) else {"role": "assistant", "content": chosen}])
            if isinstance(row.get("system"), str) and row["system"] and (not turns or turns[0].role != "system"):
                turns.insert(0, Message("system", row["system"]))
            return turns
    for ask, answer in PAIRS:
        if row.get(ask) is not None and row.get(answer) is not None:
            asked = _text(row[ask])
            if ask == "instruction" and row.get("input"):
                asked += "\n\n" + _text(row["input"])
            system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
            return _turns([*system, {"role": "user", "content": asked}, {"role": "assistant", "content": row[answer]}])
    raise _BadRowError(f"no conversation in columns {', '.join(map(str, list(row)[:8]))}")


def _turns(messages: Any) -> list[Message]:
    """Messages of any of the usual spellings."""
    if not isinstance(messages, list | tuple) or not messages:
        raise _BadRowError("messages is not a list of turns")
    found = []
    for place, message in enumerate(messages, 1):
        if isinstance(message, Message):
            found.append(message)
            continue
        if not isinstance(message, Mapping):
            raise _BadRowError(f"turn {place} is a {type(message).__name__}, expected an object with role and content")
        name = message.get("role", message.get("from"))
        role = ROLES.get(str(name).strip().lower())
        if role is None:
            raise _BadRowError(f"turn {place} has the role {str(name)[:30]!r}, expected system, user or assistant")
        text = _text(message.get("content", message.get("value")), f"turn {place}", bool(message.get("tool_calls")))
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        found.append(Message(role, "\n".join([*([text] if text or not calls else []), *calls])))
    return found


def _text(value: Any, where: str = "a column", optional: bool = False) -> str:
    if isinstance(value, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in value):
        value = "\n".join(part["text"] for part in value)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise _BadRowError(f"{where} holds a {type(value).__name__}, expected text")
    return whole_text(value).strip()


def _call(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _BadRowError("a tool call has no name")
    return json.dumps({"name": function["name"], "arguments": function.get("arguments")}, ensure_ascii=False)


def normal(turns: Sequence[Message], tally: Counter[str], blank: bool = False) -> Conversation:
    """Turns in the one form that is learned: an optional system message, then user and assistant in turn.

    Args:
        turns: As they were written.
        tally: Counts ``answers without a question``, ``questions without an answer``, ``exchanges with a blank
            question`` and ``exchanges with a blank answer``, which are left out.
        blank: Whether answers without words stay: as places for a teacher's.

    Returns:
        The conversation; empty where no answer is left.
    """
    system: list[str] = []
    found: list[Message] = []
    between: list[str] = []  # system messages behind the beginning
    for turn in turns:
        if turn.role == "system":
            (between if found else system).append(turn.content)
        elif turn.role == "assistant" and not found:
            tally["answers without a question"] += 1
        elif found and found[-1].role == turn.role == "assistant":  # a system message between waits for the user
            found[-1] = Message("assistant", f"{found[-1].content}\n{turn.content}".strip())
        elif found and found[-1].role == turn.role:
            found[-1] = Message("user", "\n".join([found[-1].content, "\n\n".join([*between, turn.content])]).strip())
            between = []
        elif turn.role == "user":
            found.append(Message("user", "\n\n".join([*between, turn.content])))
            between = []
        else:
            found.append(turn)
    if found and found[-1].role == "user":
        tally["questions without an answer"] += 1
        found.pop()
    found = _worded(found, tally, blank)
    head = [Message("system", "\n\n".join(system))] if any(system) and found else []
    return (*head, *found)


def _worded(turns: Sequence[Message], tally: Counter[str], blank: bool) -> list[Message]:
    """The exchanges in which both sides say something."""
    found: list[Message] = []
    for ask, answer in zip(turns[::2], turns[1::2], strict=True):
        if not ask.content.strip():
            tally["exchanges with a blank question"] += 1
        elif not answer.content.strip() and not blank:
            tally["exchanges with a blank answer"] += 1
        else:
            found += [ask, answer]
    return found


# ---- held out -------------------------------------------------------------------------------------------------------


def hold_out(conversations: Sequence[Conversation], seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """Cut off what is measured on; which conversations these are depends on their text and the seed alone.

    Equal conversations stay on one side.

    Returns:
        To learn from, and held out; the second is empty where there is only one conversation.
    """
    ranks: dict[str, list[int]] = {}
    for index, conversation in enumerate(conversations):
        ranks.setdefault(digest([conversation]), []).append(index)
    order = sorted(ranks, key=lambda key: hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest())
    total = len(conversations)
    wanted = int(min(MAX_VALID, max(MIN_VALID, VALID_SHARE * total), MOST_OF_ALL * total))
    chosen: set[int] = set()
    for key in order:
        if len(chosen) + len(ranks[key]) <= max(1, wanted) and len(order) > 1:
            chosen.update(ranks[key])
    train = [c for i, c in enumerate(conversations) if i not in chosen]
    return train, [c for i, c in enumerate(conversations) if i in chosen]


# ---- built-in sets --------------------------------------------------------------------------------------------------

Make = Callable[[int, int, str], Iterable[Any]]


def builtin_set(name: str) -> Make | None:
    """What makes a built-in set, called with a number, a seed and a split; None where there is none."""
    plain = name.removeprefix("chat:")
    if plain in names() and not (plain == name and Path(name).exists()):
        return names()[plain]
    return None


def names() -> dict[str, Make]:
    """The built-in sets of conversations."""
    found: dict[str, Make] = {}
    if importlib.util.find_spec("smallfry.builtin.conversations"):
        found |= importlib.import_module("smallfry.builtin.conversations").CONVERSATIONS
    problems = importlib.import_module("smallfry.tuning.problems")
    return found | {"arithmetic": lambda count, seed, split: problems.conversations(split, seed, count)}
