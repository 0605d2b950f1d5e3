"""Asking a teacher that writes: every answer is kept as a line of JSON as soon as it is there.

A run that was killed or failed asks for nothing twice but what was in flight. A question that gets no answer costs no
other one its answer; only where many get none does the asking stop.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from smallfry.errors import SmallfryError

if TYPE_CHECKING:
    from smallfry.tuning.conversations import Conversation

MOST_WITHOUT = 16
"""Questions in a row that get no answer, or an empty one, until the teacher is taken to be broken."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question.

    Args:
        text: The answer; may be empty.
        refused: Why the teacher gave none; empty where it answered.
    """

    text: str
    refused: str = ""


class TextTeacher(Protocol):
    """A model that answers in words."""

    @property
    def name(self) -> str:
        """For records."""

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        """What it says next in each conversation, the last turn of which is the user's.

        Args:
            conversations: Turns so far.
            max_new: Most tokens of an answer.

        Yields:
            The number of a conversation and what came of it, in any order, as soon as it is there.

        Raises:
            SmallfryError: It answers nobody; what it said before was given.
        """


class Kept:
    """Replies on disk, one line of JSON each, by who was asked what.

    Args:
        path: The file; None keeps them in memory only.
        teacher: Whose they are: what tells one teacher from another, such as a hash of its weights. By default its
            name does.

    Raises:
        SmallfryError: It cannot be read.
    """

    def __init__(self, path: Path | None, teacher: str = "") -> None:
        self.path, self.teacher = path, teacher
        self._replies: dict[str, Reply] = {}
        if path is None or not path.exists():
            return
        try:
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]  # the last line of a killed run may be half there
            if len(whole) < len(data):
                path.write_bytes(whole)
            for line in whole.splitlines():
                row = json.loads(line)
                self._replies[row["key"]] = Reply(str(row["answer"]), str(row.get("refused", "")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SmallfryError(f"{path}: not what a teacher's answers are kept in ({error}); delete it") from None

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Reply | None:
        """A reply, if there is one."""
        return self._replies.get(key)

    def add(self, rows: Iterable[tuple[str, str, Reply]]) -> None:
        """Keep replies: key, what was asked, and what came of it.

        Raises:
            SmallfryError: They cannot be written.
        """
        rows = list(rows)
        self._replies |= {key: reply for key, _, reply in rows}
        if self.path is None or not rows:
            return
        lines = ""
        for key, asked, reply in rows:
            row = {"key": key, "asked": asked, "answer": reply.text}
            lines += json.dumps(row | ({"refused": reply.refused} if reply.refused else {}), ensure_ascii=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise SmallfryError(f"{self.path}: cannot write ({error.strerror}); free some space") from None


class Asking:
    """Questions to one teacher; what is kept is not asked again.

    A refusal is kept as soon as a later question was answered, or at the end: then the question was at fault and not
    the teacher. The last ones before a failure are asked again by a run that goes on.

    Args:
        teacher: Who answers.
        max_new: Most tokens of an answer.
        kept: Where replies are kept; None keeps them in memory only.
    """

    def __init__(self, teacher: TextTeacher, max_new: int, kept: Kept | None = None) -> None:
        self.teacher, self.max_new = teacher, max_new
        self.kept = Kept(None) if kept is None else kept
        self._held: dict[str, tuple[str, Reply]] = {}  # refusals that are not kept yet
        self._without = 0  # replies without an answer in a row

    def ask(self, conversations: Sequence[Conversation], turn: int = 0) -> list[Reply]:
        """The teacher's next turn in each conversation.

        Args:
            conversations: Each ends with what the user says.
            turn: Counts how often the same has been asked, where every answer is to be another.

        Raises:
            SmallfryError: The teacher fails, or `MOST_WITHOUT` questions in a row get no answer; what it said before
                is kept.
        """
        keys = [self._key(each, turn) for each in conversations]
        missing = {k: each for k, each in zip(keys, conversations, strict=True) if self._found(k) is None}
        # In the order of their hashes: questions that stand together, and that a teacher refuses, are not in a row.
        left = sorted(missing)
        try:
            for place, reply in self.teacher.answer([missing[k] for k in left], self.max_new) if left else ():
                self._take(left[place], missing[left[place]][-1].content, reply)
        except SmallfryError as error:
            count = len(self.kept)
            hint = f"; {count:,} answers are kept: start again with --resume" if self.kept.path and count else ""
            raise SmallfryError(f"{error}{hint}") from None
        return [self._found(k) or Reply("") for k in keys]

    def finish(self) -> None:
        """Nothing more is asked: keep the last refusals too."""
        self.kept.add((key, *row) for key, row in self._held.items())
        self._held.clear()

    def _take(self, key: str, asked: str, reply: Reply) -> None:
        self._held[key] = (asked, reply)
        if not reply.refused:
            self.finish()
        self._without = 0 if reply.text.strip() else self._without + 1
        if self._without == MOST_WITHOUT:
            why = reply.refused or "empty answers; a larger --max-new may help"
            raise SmallfryError(
                f"--teacher {self.teacher.name}: {MOST_WITHOUT} questions in a row got no answer ({why})"
            )

    def _found(self, key: str) -> Reply | None:
        return self._held[key][1] if key in self._held else self.kept.get(key)

    def _key(self, conversation: Conversation, turn: int) -> str:
        turns = [[m.role, m.content] for m in conversation]
        asked = [self.kept.teacher or self.teacher.name, self.max_new, turns, *([turn] if turn else [])]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def unanswered(replies: Iterable[Reply]) -> str:
    """How many questions got no answer, and the commonest reason; empty where there are none.

    Args:
        replies: What came of them.
    """
    why = Counter(reply.refused for reply in replies if reply.refused)
    return f"{why.total():,} questions got no answer ({why.most_common(1)[0][0]})" if why else ""
