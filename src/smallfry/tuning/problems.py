"""Problems with one right number each: GSM8K's files, and word problems that are generated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallfry.builtin._split import part_of
from smallfry.characters import whole_text
from smallfry.errors import SmallfryError
from smallfry.evals.suites.chat import final_answer
from smallfry.job import SplitName
from smallfry.loading.readers import Table, open_table
from smallfry.loading.splitting import SPLIT_OF_NAME
from smallfry.tuning.arithmetic import LEVELS, generate

if TYPE_CHECKING:
    from smallfry.tuning.conversations import Conversation

BUILT_IN = "arithmetic"
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
_COUNTS: dict[SplitName, int] = {"train": 20_000, "valid": 400, "test": 1000}  # of the built-in set
_OTHER = 1 << 20  # added to the seed of built-in training problems: not those that supervised tuning has seen
_VALID_SHARE = 20  # one in so many training problems of a file without any for validation
_COLUMNS = ("question", "answer", "final", "split")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with one right number.

    Args:
        question: What is asked.
        answer: The number, as it is written behind ``####``.
        solution: A worked solution that ends in ``#### answer``.
        level: How hard it is, from 1, where that is known; else 0.
    """

    question: str
    answer: str
    solution: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Problems:
    """Problems by split.

    Args:
        train: For rollouts.
        valid: For the curve.
        test: For what is measured before and after.
        facts: Counts and hashes for the record.
    """

    train: list[Problem]
    valid: list[Problem]
    test: list[Problem]
    facts: dict[str, Any] = field(default_factory=dict)


def reward(text: str, answer: str) -> float:
    """1 where the number behind the first ``####`` is the answer, else 0: the form alone earns nothing.

    Args:
        text: What the model wrote.
        answer: The right number.
    """
    said = final_answer(text)
    if said is None:
        return 0.0
    try:
        return float(float(said) == float(answer.replace(",", "")))
    except ValueError:  # "1.2.3" or "-." are no numbers
        return 0.0


def arithmetic(split: SplitName, count: int, seed: int = 0, levels: Sequence[int] = LEVELS) -> list[Problem]:
    """Generated problems; `generate` says what the splits do not share.

    Raises:
        SmallfryError: The levels have not so many problems.
    """
    return [Problem(*each) for each in generate(split, count, seed, levels)]


def conversations(
    split: SplitName = "train", seed: int = 0, count: int = 4000, levels: Sequence[int] = LEVELS
) -> list[Conversation]:
    """The generated problems as chat data: a question, and its worked solution with calculator marks.

    Raises:
        SmallfryError: The levels have not so many problems.
    """
    from smallfry.tuning.conversations import Message

    return [
        (Message("user", p.question), Message("assistant", p.solution)) for p in arithmetic(split, count, seed, levels)
    ]


def read_problems(
    sources: Sequence[str], seed: int = 0, levels: Sequence[int] = LEVELS, apart: Sequence[Problem] = ()
) -> Problems:
    """Problems from files and the built-in set.

    Args:
        sources: ``arithmetic``, or files of rows with ``question`` and ``answer``. The answer ends in ``#### 12``, or
            the number stands in ``final``. A column ``split`` says where a row belongs; without it a hash of the
            question decides (70% train, 10% valid, 20% test). Where there are rows for train but none for valid, one
            in twenty of train is taken.
        seed: Of the built-in set.
        levels: Of the built-in set.
        apart: What is measured besides: none of it is trained or looked at.

    Raises:
        SmallfryError: A file cannot be read, a row is none, or there is nothing to train or to test on.
    """
    if not sources:
        raise SmallfryError(f"no problems; name {BUILT_IN} or a file with the columns question and answer")
    parts: dict[SplitName, list[Problem]] = {split: [] for split in SPLITS}
    for source in sources:
        if source == BUILT_IN:
            found = {s: arithmetic(s, _COUNTS[s], seed + _OTHER * (s == "train"), levels) for s in SPLITS}
        else:
            found = _read(Path(source))
        for split in SPLITS:
            parts[split] += found[split]
    beside = {p.question for p in apart}
    parts["valid"] = [p for p in parts["valid"] if p.question not in beside]
    held = {p.question for split in ("valid", "test") for p in parts[split]} | beside
    train = list({p.question: p for p in parts["train"] if p.question not in held}.values())
    if not train or not parts["test"]:
        lacking = "test" if train else "training"
        raise SmallfryError(f"{' '.join(sources)}: no {lacking} problems; expected rows for train and for test")
    if not parts["valid"]:  # too few for any
        parts["valid"] = parts["test"]
    facts = {
        "sources": list(sources), "train": len(train), "valid": len(parts["valid"]), "test": len(parts["test"]),
        "left_out": len(parts["train"]) - len(train), "train_sha256": digest(train),
        "valid_sha256": digest(parts["valid"]), "test_sha256": digest(parts["test"]),
    }  # fmt: skip
    return Problems(train, parts["valid"], parts["test"], facts)


def digest(problems: Sequence[Problem]) -> str:
    """SHA-256 of the questions and their answers."""
    whole = hashlib.sha256()
    for problem in problems:
        whole.update(f"{problem.question}\0{problem.answer}\0".encode())
    return whole.hexdigest()


def read_test(path: Path, split: SplitName = "test") -> list[Problem]:
    """One split of a file of problems; all of a file that has no column ``split``.

    Raises:
        SmallfryError: The file cannot be read or has no such rows.
    """
    parts, named = _parts(path)
    found = parts[split] if named else [p for name in SPLITS for p in parts[name]]
    if not found:
        raise SmallfryError(f"{path}: no {split} problems; expected rows with split {split}")
    return found


def _read(path: Path) -> dict[SplitName, list[Problem]]:
    parts, named = _parts(path)
    if named and not parts["valid"]:
        chosen = [int(digest([p])[:8], 16) % _VALID_SHARE == 0 for p in parts["train"]]
        parts["valid"] = [p for p, take in zip(parts["train"], chosen, strict=True) if take]
        parts["train"] = [p for p, take in zip(parts["train"], chosen, strict=True) if not take]
    return parts


def _parts(path: Path) -> tuple[dict[SplitName, list[Problem]], bool]:
    """A file's problems by split, and whether it names them itself."""
    if not path.exists():
        raise SmallfryError(f"{path}: no such file; expected {BUILT_IN} or a file with the columns question and answer")
    table = open_table(path, _COLUMNS)
    parts: dict[SplitName, list[Problem]] = {split: [] for split in SPLITS}
    named = False
    for number, row in table.rows:
        problem = _problem(table, number, row)
        said = row.get("split")
        named = named or said is not None
        split = part_of(problem.question) if said is None else SPLIT_OF_NAME.get(str(said).strip().lower())
        if split is None:
            raise SmallfryError(f"{table.at(number)}: split {str(said)[:40]!r}; expected train, valid or test")
        parts[split].append(problem)
    return parts, named


def _problem(table: Table, number: int, row: dict[str, Any]) -> Problem:
    question, solution, final = (row.get(name) for name in ("question", "answer", "final"))
    if not isinstance(question, str) or not question.strip():
        raise SmallfryError(f"{table.at(number)}: no question; expected a text in the column question")
    question, text = whole_text(question), whole_text("" if solution is None else str(solution))
    answer = final_answer(text) if final is None else str(final).replace(",", "").strip()
    try:
        float(answer or "")
    except ValueError:
        raise SmallfryError(
            f"{table.at(number)}: no number to reach; expected #### and a number at the end of answer, or one in final"
        ) from None
    assert answer is not None
    if final_answer(text) is None:
        text = f"{text}\n#### {answer}".lstrip()
    return Problem(question, answer, text)
