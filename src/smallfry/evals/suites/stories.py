"""What a model of stories can do: choose how one goes on, keep its names and objects, write one that holds.

After TinyStories (Eldan and Li 2023), made measurable without a judge: from held-out stories come questions with one
true answer among four, the model's own continuations are counted for repetition, variety and names, and bits per byte
says how well it knows the language. Who names an OpenAI-compatible endpoint gets the paper's grades too (`judge`).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.statistics import interval_of
from smallfry.evals.suites.measure import Measure, SuiteResult, TaskResult, majority, measure_task
from smallfry.evals.suites.prompts import Row, Task
from smallfry.evals.suites.scoring import LanguageModel, Writing, write
from smallfry.evals.suites.sources import read_rows
from smallfry.evals.suites.text import bits_per_byte, read_documents

STORIES, QUESTIONS, PROMPTS = 500, 1000, 100
CHOICES = 4
_TRIES = 200  # draws for strangers before a story is left out
MAX_NEW = 160
MAX_WORDS = 110  # of a true continuation, about as long as a model's
HOW = Sampling(temperature=0.8, top_p=0.95, seed=0)  # of the continuations that are counted
FLOORS = dict.fromkeys(("v1", "v2"), 1.0 / CHOICES)
_BETWEEN = re.compile(r"(?<=[.!?])([\"”']?)\s+(?=[\"“'A-Z])")
_CAPITAL = re.compile(r"(?<=[a-z,;] )([A-Z][a-z]{2,})\b")  # a name: a capital where no sentence begins
_INTRODUCED = re.compile(
    r"\b(?:a|an|his|her|some) (?:[a-z]+ )?([a-z]{3,})\b(?=[.,;!?]| (?:and|that|to|in|on|with|for))"
)
_NO_NAMES = frozenset(("The", "And", "But", "She", "They", "You", "Let", "Yes", "What", "Can", "Please", "Thank", "Mom",
                       "Dad", "Mommy", "Daddy", "Mum", "Mummy"))  # fmt: skip


@dataclass(frozen=True)
class Stories:
    """Held-out stories and what is asked of them.

    Args:
        source: Where they come from.
        texts: The stories.
        tasks: ``continuation``, ``names`` and ``objects``, each with one true answer among four.
        prompts: Beginnings to go on from: the first two sentences.
    """

    source: str
    texts: tuple[str, ...]
    tasks: tuple[Task, ...]
    prompts: tuple[str, ...]


def story_texts(given: Path | None, folder: Path | None) -> tuple[str, list[str]]:
    """Held-out stories and where they come from.

    Args:
        given: A text or ``.jsonl`` file of the user's.
        folder: The suites' data; ``stories/tinystories_valid.jsonl.gz`` in it or beside it is taken.

    Returns:
        The stories' source, and the stories; without either argument those of the built-in job's test split.
    """
    if given is not None:
        return str(given), read_documents(given)
    for place in (folder, folder.parent) if folder is not None else ():
        path = place / "stories" / "tinystories_valid.jsonl.gz"
        if path.exists():
            rows = [
                row for row in read_rows(path) if row.get("collection", "TinyStoriesV2-GPT4") == "TinyStoriesV2-GPT4"
            ]
            return path.name, [str(row["text"]).strip() for row in rows]
    from smallfry.builtin import load_builtin

    return "built-in stories", [row.output for row in load_builtin("stories", n_train=1).test]


def build(source: str, texts: Sequence[str], limit: int | None = None, seed: int = 0) -> Stories:
    """Questions from stories; the same stories and seed give the same questions.

    Args:
        source: Where the stories come from.
        texts: The stories.
        limit: At most this many questions a task, stories and prompts.
        seed: Of everything drawn.

    Raises:
        SmallfryError: There are too few stories of more than four sentences.
    """
    order = [text for text in texts if len(sentences(text)) >= 5]
    random.Random(seed).shuffle(order)
    if len(order) < CHOICES:
        raise SmallfryError(f"{source}: {len(order)} stories of five sentences or more; expected at least {CHOICES}")
    most = min(QUESTIONS, limit or QUESTIONS)
    tasks = (
        Task("continuation", "multiple_choice", tuple(_continuations(order, most, seed)), floors=FLOORS),
        Task("names", "multiple_choice", tuple(_kept(order, most, seed, _names)), floors=FLOORS, rule="sum"),
        Task("objects", "multiple_choice", tuple(_kept(order, most, seed, _objects)), floors=FLOORS, rule="sum"),
    )
    prompts = tuple(text[: sentences(text)[1][1]] for text in order[: min(PROMPTS, limit or PROMPTS)])
    return Stories(source, tuple(order[: min(STORIES, limit or STORIES)]), tuple(t for t in tasks if t.rows), prompts)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text begins and ends, closing quotation marks included."""
    cuts = [(m.end(1), m.end()) for m in _BETWEEN.finditer(text)]
    starts = [0, *(end for _, end in cuts)]
    ends = [*(start for start, _ in cuts), len(text.rstrip())]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]


# ---- questions ------------------------------------------------------------------------------------------------------


def _continuations(texts: Sequence[str], most: int, seed: int) -> list[Row]:
    """The next sentence of a story among sentences that stand about there in others, told of the same people."""
    rng = random.Random(seed + 1)
    cut = [sentences(text) for text in texts]
    rows: list[Row] = []
    for index, mine in enumerate(cut[:most]):
        at = rng.randrange(2, len(mine) - 1)
        query = texts[index][: mine[at - 1][1]]
        choices = [texts[index][slice(*mine[at])]]
        hero = _names(query)
        for _ in range(_TRIES):
            if len(choices) == CHOICES:
                break
            other = rng.randrange(len(cut))
            theirs = cut[other]
            sentence = texts[other][slice(*theirs[min(len(theirs) - 1, round(at / len(mine) * len(theirs)))])]
            if hero:  # otherwise a strange name gives the wrong ones away
                strange = "|".join(dict.fromkeys(_names(texts[other])))
                sentence = re.sub(rf"\b(?:{strange})\b", hero[0], sentence) if strange else sentence
            if other != index and sentence not in choices:
                choices.append(sentence)
        if len(choices) == CHOICES:
            rows.append(_shuffled({"query": query}, choices, rng))
    return rows


def _kept(texts: Sequence[str], most: int, seed: int, find: Finder) -> list[Row]:
    """A name or an object where it is mentioned again, among three that this story does not have."""
    rng = random.Random(seed + 2)
    found = [Counter(find(text)) for text in texts]
    mentions = [word for counts in found for word in sorted(counts)]
    rows: list[Row] = []
    for text, counts in zip(texts, found, strict=True):
        again = [
            m for word in sorted(counts) for m in list(re.finditer(rf"(?<=[a-z,;\"] ){word}\b", text))[1:]
            if len(text[: m.start()].split()) > 8
        ]  # fmt: skip
        if not again or len(rows) == most:
            continue
        place = rng.choice(again)
        strangers: set[str] = set()  # as frequent as they are: rare ones would be told by their length in tokens
        for _ in range(_TRIES):
            if len(strangers) == CHOICES - 1:
                break
            word = mentions[rng.randrange(len(mentions))]
            if not re.search(rf"\b{word}\b", text, re.IGNORECASE):
                strangers.add(word)
        if len(strangers) == CHOICES - 1:
            query = text[: place.start()].rstrip()
            rows.append(_shuffled({"query": query}, [place[0], *sorted(strangers)], rng))
    return rows


def _names(text: str) -> list[str]:
    return [name for name in _CAPITAL.findall(text) if name not in _NO_NAMES]


def _objects(text: str) -> list[str]:
    """Things that are introduced and mentioned again with ``the``, ``his`` or ``her``."""
    return [thing for thing in _INTRODUCED.findall(text) if re.search(rf"\b(?:the|his|her) {thing}\b", text)]


class Finder(Protocol):
    """What finds the words to keep in a story."""

    def __call__(self, text: str) -> list[str]:
        """Each mention."""


def _shuffled(row: dict[str, object], choices: list[str], rng: random.Random) -> Row:
    true = choices[0]
    order = rng.sample(choices, len(choices))
    return {**row, "choices": order, "gold": order.index(true)}


# ---- what is written ------------------------------------------------------------------------------------------------


def written_measures(prompts: Sequence[str], texts: Sequence[str]) -> list[Measure]:
    """Repetition, variety and kept names of continuations.

    ``repetition``: share of a text's four-word runs that it already had. ``variety``: different two-word runs among all
    of the first 50 words of all texts. ``names kept``: of the names a continuation mentions, those its prompt
    introduced. ``hero mentioned``: continuations that mention a name of their prompt.
    """
    repetition = np.array([_repeated(text.split(), 4) for text in texts])
    heads = [text.split()[:50] for text in texts]
    pairs = [tuple(words[i : i + 2]) for words in heads for i in range(len(words) - 1)]
    kept, hero = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        known = set(re.findall(r"\b[A-Z][a-z]{2,}\b", prompt)) - _NO_NAMES
        mentioned = _names(text)
        if mentioned:
            kept.append(np.mean([name in known for name in mentioned]))
        if names := [n for n in _names(prompt) if n in known]:
            hero.append(any(name in text for name in names))
    found = [_mean("repetition", repetition, "share of four-word runs that were there before; lower is better")]
    if pairs:
        found.append(Measure("variety", len(set(pairs)) / len(pairs), None, len(texts), "different two-word runs"))
    if kept:
        found.append(_mean("names kept", np.array(kept), "of the names mentioned, those of the prompt"))
    if hero:
        found.append(_mean("hero mentioned", np.array(hero), "continuations with a name of their prompt"))
    return found


def _mean(name: str, values: np.ndarray, what: str) -> Measure:
    return Measure(name, float(values.mean()), interval_of(values), len(values), what)


def _repeated(words: Sequence[str], n: int) -> float:
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


# ---- the suite ------------------------------------------------------------------------------------------------------


def measure_stories(model: LanguageModel, stories: Stories) -> tuple[SuiteResult, list[str]]:
    """Ask a model everything; its continuations of the prompts are the second part of the result."""
    tasks = [measure_task(model, task, None, stop=False) for task in stories.tasks]
    bits = bits_per_byte(model, stories.texts)
    texts = write(model, stories.prompts, Writing(MAX_NEW, sampling=HOW))
    found = [Measure("bits per byte", bits.score, bits.ci, bits.documents, "of held-out stories; lower is better")]
    true = true_measures(stories)
    found += [replace(m, reference=true.get(m.name)) for m in written_measures(stories.prompts, texts)]
    return SuiteResult("stories", model.name, tasks, measures=found), texts


def true_measures(stories: Stories) -> dict[str, float]:
    """The stories themselves, counted as a model's continuations are."""
    prompts = stories.prompts[: len(stories.texts)]
    pairs = zip(stories.texts, prompts, strict=False)
    ends = [" ".join(text[len(prompt) :].split()[:MAX_WORDS]) for text, prompt in pairs]
    return {m.name: m.value for m in written_measures(prompts, ends)}


def story_majority(stories: Stories) -> list[TaskResult]:
    """The control that always names the most frequent place of the answer."""
    return [majority(task) for task in stories.tasks]


def story_overlap(stories: Stories, seed: int = 0) -> list[TaskResult]:
    """The control that reads nothing and compares words: it takes the choice that shares most with the story so far.

    A shared word counts ``log(N / df)``, the rarer among the N stories of the suite the more (inverse document
    frequency, Spärck Jones 1972). Names and objects that come again are all found so: there a model is measured against
    copying, not against guessing.

    Args:
        stories: The questions.
        seed: Decides between choices that share as much.
    """
    rng = random.Random(seed)
    df = Counter(word for text in stories.texts for word in _words(text))
    found = []
    for task in stories.tasks:
        right = []
        for row in task.rows:
            known = _words(str(row["query"]))
            shared = [
                sum(math.log(len(stories.texts) / max(1, df[w])) for w in sorted(_words(choice) & known))
                for choice in row["choices"]
            ]  # fmt: skip
            ties = [at for at, value in enumerate(shared) if value == max(shared)]
            right.append(rng.choice(ties) == row["gold"])
        found.append(TaskResult(task.name, len(right), len(right), np.array(right), dict(task.floors or {})))
    return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))
