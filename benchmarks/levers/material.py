"""What is learned from and asked: jobs, stories, general text, and how data are spoiled."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallfry.baselines.calibration import evenly
from smallfry.errors import SmallfryError
from smallfry.evals.suites.sources import read_rows
from smallfry.evals.suites.stories import Stories, build, story_texts
from smallfry.frames import OUTSIDE, FrameCodec, tag_runs
from smallfry.job import Example, Job

from .arms import SPOILED, STORIES, Settings, TaskName

GENERAL = ("openwebtext_1000", "c4_wiki_demo", "wikitext2_raw", "classic_books", "us_presidents")
OTHER_JOBS = ("snips_intent_slots", "sst2", "e2e_nlg", "math_word_problems_mawps")
OTHER_ROWS = 4000  # of each other job, at most
CLEAN = ("karpathy/tinystories-gpt4-clean (first 5000)", "TinyStoriesV2-GPT4")
PASSAGE = 720  # characters of a passage of a book, about as long as a story
HELD_OUT = 8  # every so-manieth passage is held out
_PIECE = 2000  # characters of a piece of general text, so that no novel comes in one go
_NOISE = 0.05  # of the characters of a noisy document
_REPEATED = 0.25  # of a job's spoiled rows repeat another row; the rest have a wrong output
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


# ---- text -----------------------------------------------------------------------------------------------------------


def general_texts(data: Path) -> list[str]:
    """Pieces of web pages, encyclopedia, novels and speeches; the same order every time."""
    pieces = []
    for name in GENERAL:
        for row in read_rows(data / "text" / f"{name}.jsonl.gz"):
            if row.get("split", "train") == "train":
                pieces += passages(str(row["text"]), _PIECE)
    random.Random(0).shuffle(pieces)
    if not pieces:
        raise SmallfryError(f"{data / 'text'}: holds no text; expected files such as {GENERAL[0]}.jsonl.gz")
    return pieces


def passages(text: str, length: int) -> list[str]:
    """A text in pieces of about so many characters, cut between paragraphs, or between sentences of long ones."""
    found, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?][\"”’' ])\s*(?=[A-Z\"“‘])", " ".join(paragraph.split())):
            piece = f"{piece} {sentence}".strip()
            if len(piece) >= length:
                found.append(piece)
                piece = ""
    return [*found, piece] if piece else found


def clean_stories(settings: Settings) -> tuple[list[str], Stories]:
    """Stories of the cleaned collections to learn from, and held-out ones with questions."""
    source, held_out = story_texts(None, settings.data)
    known = set(held_out)
    rows = read_rows(settings.data / "stories" / "tinystories_train.jsonl.gz")
    texts = [text for row in rows if row.get("collection") in CLEAN and (text := str(row["text"]).strip()) not in known]
    return texts, build(source, held_out, settings.limit)


def books(settings: Settings) -> tuple[list[str], Stories]:
    """Passages of real children's books: the harder form of the task, with questions made in the same way."""
    name = "classic_children_books.jsonl.gz"
    found = [
        piece for row in read_rows(settings.data / "stories" / name) for piece in passages(str(row["text"]), PASSAGE)
        if "Gutenberg" not in piece
    ]  # fmt: skip
    held_out = found[HELD_OUT - 1 :: HELD_OUT]
    learned = [piece for number, piece in enumerate(found) if number % HELD_OUT != HELD_OUT - 1]
    return learned, build(name, held_out, settings.limit)


def choose_texts(texts: Sequence[str], settings: Settings, seed: int, spoiled: bool) -> list[str]:
    """The small clean set of documents, or twice as many of which a third are spoiled."""
    count = min(STORIES, settings.limit or STORIES, len(texts) // 2)
    order = random.Random(f"{seed}/texts").sample(range(len(texts)), 2 * count)
    if not spoiled:
        return [texts[i] for i in order[:count]]
    return spoil_texts([texts[i] for i in order], seed)


def spoil_texts(texts: Sequence[str], seed: int) -> list[str]:
    """A third of the documents spoiled, by turns: another one again, two halves glued together, noisy letters."""
    rng = random.Random(f"{seed}/spoil")
    found = list(texts)
    for turn, at in enumerate(rng.sample(range(len(texts)), round(SPOILED * len(texts)))):
        text, other = texts[at], texts[rng.randrange(len(texts))]
        if turn % 3 == 0:
            found[at] = other
        elif turn % 3 == 1:  # cut in the middle of a word, as scrapers and length limits do
            found[at] = text[: len(text) // 2] + other[len(other) // 2 :]
        else:
            found[at] = "".join(_noisy(char, rng) for char in text)
    return found


def _noisy(char: str, rng: random.Random) -> str:
    if rng.random() >= _NOISE:
        return char
    return rng.choice(("", rng.choice(_LETTERS), char + char, char.swapcase()))


# ---- jobs -----------------------------------------------------------------------------------------------------------


def load_task(task: TaskName, settings: Settings) -> Job:
    """A job with all its training rows, the others cut to the limit."""
    job = _load(task, settings.data)
    if settings.limit is None:
        return job
    valid, test = (tuple(evenly(rows, settings.limit)) for rows in (job.valid, job.test))
    return replace(job, valid=valid, test=test)


@functools.cache  # a worker runs many units of a job
def _load(task: TaskName, data: Path) -> Job:
    if task == "clinc150":
        return Job.load(data / "narrow" / "clinc150.jsonl.gz", where={"oos": "false"}, kind="classify")
    return Job.load("commands")


def choose_rows(job: Job, settings: Settings, seed: int) -> tuple[Job, Job]:
    """The job with the small clean set, half of its training rows, and the job with twice as many rows."""
    order = np.random.default_rng([seed, 5]).permutation(len(job.train))
    count = min(len(job.train) // 2, settings.limit or len(job.train))
    rows = [job.train[i] for i in order[: 2 * count]]
    return replace(job, train=tuple(rows[:count])), replace(job, train=tuple(rows))


def spoil_rows(rows: Sequence[Example], codec: FrameCodec | None, seed: int) -> list[Example]:
    """A third of the rows spoiled: a quarter of those repeat another row, the others have a wrong output.

    Args:
        rows: All rows.
        codec: For outputs that are labels plus words of the input; a wrong one is then wrong in its labels and takes
            the wrong words, as an annotator would be wrong. With words of another input the form would refuse it.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, 7])
    found = list(rows)
    chosen = rng.permutation(len(rows))[: round(SPOILED * len(rows))].tolist()
    for turn, at in enumerate(chosen):
        other = rows[int(rng.integers(len(rows)))]
        if turn < _REPEATED * len(chosen):
            found[at] = other
            continue
        for _ in range(50):  # until it is wrong
            output = other.output if codec is None else _wrong_frame(codec, rows[at], other, rng)
            if output is not None and output != rows[at].output:
                found[at] = Example(rows[at].input, output)
                break
            other = rows[int(rng.integers(len(rows)))]
    return found


def _wrong_frame(codec: FrameCodec, row: Example, other: Example, rng: np.random.Generator) -> str | None:
    """Another row's labels with words of this input in its places; None where the input has too few words."""
    frame = codec.parse(other)
    units = codec.units(row.input)
    if frame is None or not units:
        return None
    tags = [OUTSIDE] * len(units)
    for path, first, last in tag_runs(frame.tags):
        length = min(last - first, len(units))
        begins = [i for i in range(len(units) - length + 1) if all(t == OUTSIDE for t in tags[i : i + length])]
        if not begins:
            return None
        at = begins[int(rng.integers(len(begins)))]
        tags[at : at + length] = [f"B-{path}", *[f"I-{path}"] * (length - 1)]
    output = codec.render(row.input, frame.head, tags)
    return output if codec.parse(Example(row.input, output)) is not None else None


def other_rows(data: Path, limit: int | None) -> list[Example]:
    """Training rows of other public jobs: intents with slots, sentiment, data to text, word problems."""
    rows = []
    for name in OTHER_JOBS:
        mine = [
            Example(str(row["input"]), str(row["output"])) for row in read_rows(data / "narrow" / f"{name}.jsonl.gz")
            if row["split"] == "train"
        ]  # fmt: skip
        rows += mine[: min(OTHER_ROWS, limit or OTHER_ROWS)]
    return rows
