"""Output forms: how a job's outputs are spelled inside the model. The user's own format goes in and comes out.

``text``    the output in BPE pieces.
``units``   output strings that recur whole are one token each: a class label, a SCAN action, an SQL keyword.
``inline``  the output as a frame (`frames`): head symbols, then the input's own words, each followed by its tag. The
            words are forced while decoding, so the model only ever chooses symbols and tags.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from smallfry.engine.constraints import Constraint, InlineConstraint, JsonConstraint, Trie, TrieConstraint, infer_schema
from smallfry.frames import OUTSIDE, FrameCodec, tag_runs
from smallfry.job import Example, Job
from smallfry.tokenizer import ASSISTANT, END, TEXT, USER, Tokenizer, split_words

FormName = Literal["text", "units", "inline"]
# An item of a sequence: an id is a choice of the model's, a string is a word of the input (in byte-level spelling).
Item = int | str

MAX_PROMPT_TOKENS = 1536  # of an input; what lies between the first and the last half of it is not read
_LETTERS = re.compile(r"[^\W\d_]+")
_MAX_UNITS = 1024
_MIN_UNIT_COUNT = 8  # a unit seen less often is learned worse than its pieces
_UNIT_COVER = 0.9  # share of output words that must be units for the form to be worth offering


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training row inside the model: prompt items (no loss) and answer items (loss on the ids)."""

    prompt: list[Item]
    answer: list[Item]


def available_forms(job: Job, codec: FrameCodec | None) -> list[FormName]:
    """Forms worth trying for a job, the likely best first.

    Args:
        job: The job; only its training rows are looked at.
        codec: What `FrameCodec.learn` found on them.
    """
    if job.kind == "classify":
        return ["units"]
    if job.metric == "bits_per_byte":  # of any text: a form that cannot express one has no likelihood for it
        return ["text"]
    forms: list[FormName] = []
    if codec is not None:
        forms.append("inline")
    elif job.kind == "transform" and find_units(job.train):
        forms.append("units")
    return [*forms, "text"]


def find_units(examples: Sequence[Example]) -> list[str]:
    """Output words that recur whole and cover the outputs: with their leading space, most frequent first.

    Words that occur as often in the inputs as in the outputs are copied, not chosen, and stay in pieces.
    """
    outputs: Counter[str] = Counter()
    for example in examples:
        outputs.update(split_words(" " + example.output))
    total = sum(outputs.values())
    if not total:
        return []
    units = [word for word, count in outputs.most_common(_MAX_UNITS) if count >= _MIN_UNIT_COUNT and len(word) > 2]
    covered = sum(outputs[word] for word in units)
    single = sum(count for word, count in outputs.items() if len(word) == 2)
    return units if total - single and covered >= _UNIT_COVER * (total - single) and covered >= 0.3 * total else []


class Form:
    """Spells a job's rows for a model and reads its answers back.

    Args:
        name: Which form.
        tokenizer: Trained with this form's units and symbols (`build_form` does both).
        lowercase: Whether inputs are lower-cased before they are read.
        codec: The frame codec of the ``inline`` form.
        grammar: What the other forms may write: ``{"labels": [...]}``, ``{"schema": {...}}`` or ``{}``; for
            ``inline``, what may follow what in a head.
    """

    def __init__(
        self, name: FormName, tokenizer: Tokenizer, lowercase: bool, codec: FrameCodec | None, grammar: dict[str, Any]
    ) -> None:
        self.name: FormName = name
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.codec = codec
        self.grammar = grammar
        self._trie: Trie | None = None
        if "labels" in grammar:
            self._trie = Trie([[*tokenizer.encode_output(" " + label), END] for label in grammar["labels"]])
        if name == "inline":
            assert codec is not None
            self._symbol_id = {s: tokenizer.symbol(f"h:{s}") for s in codec.symbols}
            self._tag_id = {t: tokenizer.symbol(f"t:{t}") for t in codec.tag_names}
            self._symbol_of = {i: s for s, i in self._symbol_id.items()}
            self._tag_of = {i: t for t, i in self._tag_id.items()}

    # ---- rows to sequences ------------------------------------------------------------------------------------------

    def prompt(self, text: str) -> list[Item]:
        """``<|user|> words <|assistant|>``; of a text beyond `MAX_PROMPT_TOKENS` the beginning and the end.

        Inline answers repeat every word of the input, so their prompts are never cut.
        """
        if self.name == "inline" or len(text) <= MAX_PROMPT_TOKENS // 4:  # no character is more than four tokens
            return [USER, *self.tokenizer.words(" " + self.fold(text)), ASSISTANT]
        return [USER, *self._fitting(text), ASSISTANT]

    def _fitting(self, text: str) -> list[str]:
        """Words of a text; where they are too many tokens, as many from both ends as fit."""
        far = 8 * MAX_PROMPT_TOKENS  # characters that are worth cutting into words
        if len(text) > 2 * far:
            text = text[:far] + text[-far:]
        words = self.tokenizer.words(" " + self.fold(text))
        sizes = np.array([len(self.tokenizer.word_ids(word)) for word in words])
        if sizes.sum() <= MAX_PROMPT_TOKENS:
            return words
        front = int(np.searchsorted(np.cumsum(sizes), MAX_PROMPT_TOKENS // 2, side="right"))
        back = int(np.searchsorted(np.cumsum(sizes[::-1]), MAX_PROMPT_TOKENS // 2, side="right"))
        part = MAX_PROMPT_TOKENS // 8  # characters: of a "word" as long as this, of which nothing would be read
        first = words[:front] or self.tokenizer.words(" " + self.fold(text[:part]))
        last = words[len(words) - back :] if back else self.tokenizer.words(self.fold(text[-part:]))
        return [*first, *last]

    def shortens(self, text: str) -> bool:
        """Whether a text is too long to be read whole."""
        if self.name == "inline" or len(text) <= MAX_PROMPT_TOKENS // 4:
            return False
        words = self.tokenizer.words(" " + self.fold(text))
        return sum(len(self.tokenizer.word_ids(word)) for word in words) > MAX_PROMPT_TOKENS

    def prompt_ids(self, text: str) -> list[int]:
        """The prompt as ids."""
        return self.ids(self.prompt(text))

    def sequence(self, example: Example) -> Encoded | None:
        """A training row inside the model; None where this form cannot express it."""
        if self.name != "inline":
            ids = self.tokenizer.encode_output(" " + example.output)
            return Encoded(self.prompt(example.input), [*ids, END])
        assert self.codec is not None
        frame = self.codec.parse(example)
        if frame is None:
            return None
        answer: list[Item] = [self._symbol_id[s] for s in frame.head if s in self._symbol_id]
        answer.append(TEXT)
        if any(tag not in self._tag_id for tag in frame.tags):
            return None
        words = self._unit_words(example.input)
        for unit, tag in zip(words, frame.tags, strict=True):
            answer += unit
            answer.append(self._tag_id[tag])
        answer.append(END)
        return Encoded(self.prompt(example.input), answer)

    def ids(self, items: Sequence[Item]) -> list[int]:
        """Items as ids, words in their usual segmentation."""
        ids: list[int] = []
        for item in items:
            if isinstance(item, str):
                ids += self.tokenizer.word_ids(item)
            else:
                ids.append(item)
        return ids

    def fold(self, text: str) -> str:
        """The text the model reads: lower-cased where the form says so."""
        return text.lower() if self.lowercase else text

    def _unit_words(self, text: str) -> list[list[str]]:
        assert self.codec is not None
        return [self.tokenizer.words(" " + self.fold(text[start:end])) for start, end in self.codec.units(text)]

    def _schedule(self, text: str) -> list[int]:
        """Ids of the input's words in the order of an inline answer, -1 where a tag is to be chosen."""
        plan: list[int] = []
        for words in self._unit_words(text):
            plan += [*self.ids(words), -1]
        return plan

    # ---- decoding ---------------------------------------------------------------------------------------------------

    def constraint(self, text: str) -> Constraint | None:
        """What may be written in answer to ``text``; None where anything may."""
        if self.name == "inline":
            return InlineConstraint(self._inline_rules(), self._schedule(text))
        if self._trie is not None:
            return TrieConstraint(self._trie)
        if "schema" in self.grammar:
            return JsonConstraint(self.tokenizer, self.grammar["schema"])
        return None

    def read(self, text: str, ids: Sequence[int]) -> str:
        """The output that a model's answer ``ids`` stands for."""
        if self.name != "inline":
            return self.tokenizer.decode([i for i in ids if i != END]).strip()
        assert self.codec is not None
        head, tags = self.split(ids)
        tags += [self.codec.tag_names[0] if self.codec.style == "tags" else OUTSIDE] * (
            len(self.codec.units(text)) - len(tags)
        )
        return self.codec.render(text, head, tags)

    def split(self, ids: Sequence[int]) -> tuple[list[str], list[str]]:
        """Head symbols and tags of an inline answer."""
        head = [self._symbol_of[i] for i in ids if i in self._symbol_of]
        return head, [self._tag_of[i] for i in ids if i in self._tag_of]

    def answer_ids(self, text: str, output: str) -> list[int] | None:
        """The ids with which this form would write ``output``; None where it cannot."""
        sequence = self.sequence(Example(text, output))
        return None if sequence is None else self.ids(sequence.answer)

    def _inline_rules(self) -> dict[str, Any]:
        if "compiled" not in self.grammar:
            assert self.codec is not None
            self.grammar["compiled"] = compile_rules(self.grammar, self.codec, self._symbol_id, self._tag_id)
        return dict(self.grammar["compiled"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``smallfry.json``; the tokenizer is a file of its own."""
        return {
            "name": self.name,
            "lowercase": self.lowercase,
            "units": list(self.tokenizer.units),
            "codec": self.codec.to_dict() if self.codec else None,
            "grammar": {k: v for k, v in self.grammar.items() if k != "compiled"},
        }

    @staticmethod
    def from_dict(data: dict[str, Any], tokenizer: Tokenizer) -> Form:
        """Rebuild a form from `to_dict` and its tokenizer."""
        codec = FrameCodec.from_dict(data["codec"]) if data["codec"] else None
        return Form(data["name"], tokenizer, data["lowercase"], codec, dict(data["grammar"]))


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a form needs of a tokenizer, and what it may write.

    Args:
        texts: What the pieces are learned from.
        units: Outputs that are one token each, with their leading space.
        symbols: Further special tokens.
        grammar: Rules of the outputs; see `Form`.
    """

    texts: list[str]
    units: list[str]
    symbols: list[str]
    grammar: dict[str, Any]


def spelling(job: Job, name: FormName, lowercase: bool, codec: FrameCodec | None) -> Spelling:
    """What a form takes from a job's training rows; see `build_form`."""
    fold = str.lower if lowercase else str
    texts = [" " + fold(e.input) for e in job.train]
    units: list[str] = []
    symbols: list[str] = []
    grammar: dict[str, Any] = {}
    if name == "inline":
        assert codec is not None
        symbols = [f"h:{s}" for s in codec.symbols] + [f"t:{t}" for t in codec.tag_names]
        grammar = learn_rules(job.train, codec)
    elif job.kind == "classify":
        units = [" " + label for label in job.labels]
        grammar = {"labels": list(job.labels)}
    else:
        units = find_units(job.train) if name == "units" else []
        held = set(units)
        texts += ["".join(w for w in split_words(" " + e.output) if w not in held) for e in job.train]
        schema = infer_schema([e.output for e in job.train])
        grammar = {"schema": schema} if schema is not None and name == "text" else {}
    return Spelling(texts, units, symbols, grammar)


def build_form(job: Job, name: FormName, vocab_size: int, lowercase: bool, codec: FrameCodec | None) -> Form:
    """Train the tokenizer and gather the rules of one form on a job's training rows.

    Args:
        job: The job; only ``job.train`` is read.
        name: Which form.
        vocab_size: Size of the BPE vocabulary, specials included; units and symbols come on top.
        lowercase: Whether inputs are lower-cased.
        codec: Needed for ``inline``.
    """
    found = spelling(job, name, lowercase, codec)
    tokenizer = Tokenizer.train(found.texts, vocab_size, found.units, found.symbols)
    return Form(name, tokenizer, lowercase, codec if name == "inline" else None, found.grammar)


def learn_rules(examples: Sequence[Example], codec: FrameCodec) -> dict[str, Any]:
    """What training shows of heads: which symbols follow which path, and which slots go with which first symbol."""
    follows: dict[str, set[str]] = defaultdict(set)
    slots: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        frame = codec.parse(example)
        if frame is None:
            continue
        first, previous = (frame.head[0] if frame.head else ""), ""
        for symbol in (*frame.head, ""):
            follows[json.dumps([first if previous else "", previous])].add(symbol)
            previous = symbol.split("=", 1)[0]
        slots[first].update(t[2:] for t in frame.tags if t != OUTSIDE)
    return {
        "follows": {k: sorted(v) for k, v in sorted(follows.items())},
        "slots": {k: sorted(v) for k, v in sorted(slots.items())},
    }


def compile_rules(
    grammar: dict[str, Any], codec: FrameCodec, symbol_id: dict[str, int], tag_id: dict[str, int]
) -> dict[str, Any]:
    """Rules in terms of ids, for `InlineConstraint`."""
    follows: dict[tuple[int, str], np.ndarray] = {}
    for key, symbols in grammar["follows"].items():
        first, previous = json.loads(key)
        ids = [TEXT if s == "" else symbol_id[s] for s in symbols]
        follows[symbol_id.get(first, -1), previous] = np.array(ids)
    path_of = {i: s.split("=", 1)[0] for s, i in symbol_id.items()}
    tags: dict[int, dict[int, np.ndarray]] = {}
    everything = sorted(codec.open_paths)
    for first, paths in [*grammar["slots"].items(), (None, everything)]:
        key = -2 if first is None else symbol_id.get(first, -1)
        if codec.style == "tags":
            tags[key] = {-1: np.array(sorted(tag_id.values()))}
            continue
        begin = [tag_id[OUTSIDE], *(tag_id[f"B-{p}"] for p in paths)]
        table = {-1: np.array(begin)}
        for path in paths:
            inside = np.array([*begin, tag_id[f"I-{path}"]])
            table[tag_id[f"B-{path}"]] = table[tag_id[f"I-{path}"]] = inside
        tags[key] = table
    return {"follows": follows, "path_of": path_of, "tags": tags}


def swap_values(
    example: Example, codec: FrameCodec, lexicon: dict[str, list[str]], rng: np.random.Generator, chance: float
) -> Example:
    """Replace each copied value, with probability ``chance``, by another training value of the same path.

    The rest of the row stays; what comes out is a new row with a right answer, and a model that has seen the same
    sentence with many values learns the sentence rather than the values.

    Args:
        example: A training row.
        codec: The job's frame codec.
        lexicon: Values seen in training for each path (`value_lexicon`).
        rng: Source of randomness.
        chance: Probability of replacing each value.
    """
    frame = codec.parse(example)
    if frame is None or codec.style == "tags":
        return example
    pieces: list[str] = []
    tags = list(frame.tags)
    at = 0
    grown = 0  # units that the new values have more than the old ones, so far
    for path, first, last in tag_runs(frame.tags):
        if rng.random() >= chance:
            continue
        value = invent_value(lexicon[path], lexicon[""], rng)
        pieces += [example.input[at : frame.units[first][0]], value]
        at = frame.units[last - 1][1]
        new = [f"B-{path}", *[f"I-{path}"] * (len(codec.units(value)) - 1)]
        tags[first + grown : last + grown] = new
        grown += len(new) - (last - first)
    if not pieces:
        return example
    text = "".join([*pieces, example.input[at:]])
    if len(codec.units(text)) != len(tags):  # the value grew together with its neighbours
        return example
    return Example(text, codec.render(text, frame.head, tags))


def invent_value(values: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> str:
    """A value as another row might hold it: a known one, a splice of two, or one with words nobody has seen there.

    Values that no lexicon holds teach a model to find a value by what surrounds it.

    Args:
        values: Known values of one path.
        words: All words of the training inputs.
        rng: Source of randomness.
    """

    def known() -> str:
        return values[int(rng.integers(len(values)))]

    draw = rng.random()
    parts = known().split(" ")
    if draw < 0.3:
        return " ".join(parts)
    if draw < 0.5:
        other = known().split(" ")
        return " ".join([*parts[: int(rng.integers(1, len(parts) + 1))], *other[int(rng.integers(len(other))) :]])
    for at in {int(i) for i in rng.integers(len(parts), size=1 + len(parts) // 2)}:
        if not words or not parts[at].isalpha():
            continue
        other_word = words[int(rng.integers(len(words)))]
        if rng.random() < 0.5:  # the front of this word and the end of another make one that nobody knows
            other_word = parts[at][: 1 + len(parts[at]) // 2] + other_word[len(other_word) // 2 :]
        parts[at] = other_word
    return " ".join(parts)


def value_lexicon(examples: Sequence[Example], codec: FrameCodec) -> dict[str, list[str]]:
    """Distinct values copied in training, by path, sorted; under ``""`` all words of the inputs."""
    values: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        values[""].update(_LETTERS.findall(example.input))
        frame = codec.parse(example)
        if frame is None or codec.style == "tags":
            continue
        for path, first, last in tag_runs(frame.tags):
            values[path].add(example.input[frame.units[first][0] : frame.units[last - 1][1]])
    return {path: sorted(v) for path, v in sorted(values.items())}
