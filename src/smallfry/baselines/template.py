"""Delexicalised templates for data-to-text: the sentence most like the others for the same set of fields."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smallfry.baselines.calibration import evenly, point_scores, tuning_rows
from smallfry.candidates import Prediction
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import score_predictions, tokenize_13a
from smallfry.job import Example, Job

Fields = dict[str, str]
Item = tuple[str, str]  # (field, its value) for a closed field, (field, "") for an open one

_MIN_STRUCTURED = 0.95  # share of inputs that must parse
_OPEN_SHARES = (0.3, 0.6, 0.9)  # verbatim copies a field needs to become a placeholder; chosen on valid
_VOTERS = 60  # sentences a group of equal fields votes with
_CHECKS = 500  # valid rows the choice is made on
_MARK = "\x1a"  # opens and closes a placeholder
_BRACKET = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*(,|$)")


def parse_bracketed(text: str) -> Fields | None:
    """``name[The Vaults], eatType[pub]``, as in the E2E NLG challenge."""
    fields: Fields = {}
    at = 0
    while at < len(text):
        found = _BRACKET.match(text, at)
        if found is None:
            return None
        fields[found[1].strip()] = found[2].strip()
        at = found.end()
    return fields or None


@dataclass(frozen=True, slots=True)
class Assigned:
    """Reads ``name = The Vaults ; eatType = pub``.

    Args:
        separator: Between fields.
        assign: Between a field and its value.
    """

    separator: str
    assign: str

    def __call__(self, text: str) -> Fields | None:
        """Fields of one input; None where a piece has no assignment."""
        pairs = [part.partition(self.assign) for part in text.split(self.separator) if part.strip()]
        if not pairs or not all(sign and key.strip() for key, sign, _ in pairs):
            return None
        return {key.strip(): value.strip() for key, _, value in pairs}


def parse_json(text: str) -> Fields | None:
    """A flat JSON object; lists of scalars are joined with commas."""
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not value:
        return None
    fields: Fields = {}
    for key, child in value.items():
        parts = child if isinstance(child, list) else [child]
        if any(isinstance(part, dict | list) for part in parts):
            return None
        fields[key] = ", ".join(part if isinstance(part, str) else json.dumps(part) for part in parts)
    return fields


_PARSERS: tuple[Callable[[str], Fields | None], ...] = (
    parse_bracketed,
    parse_json,
    *(Assigned(separator, assign) for separator in (";", "|", "\n", ",") for assign in ("=", ":")),
)


def structure(inputs: Sequence[str]) -> Callable[[str], Fields | None] | None:
    """The parser that reads nearly all of these inputs as fields, and finds most of them; None for free text."""
    sample = inputs[:: max(1, len(inputs) // 1000)]
    best: tuple[int, Callable[[str], Fields | None]] | None = None
    for parser in _PARSERS:
        parsed = [fields for fields in map(parser, sample) if fields]
        keys = Counter(key for fields in parsed for key in fields)
        # "Note: this" parses as a field too, but real keys repeat.
        if not keys or len(parsed) < _MIN_STRUCTURED * len(sample) or keys.total() < 3 * len(keys):
            continue
        if best is None or keys.total() > best[0]:
            best = keys.total(), parser
    return best[1] if best else None


def delexicalise(output: str, fields: Fields) -> tuple[str, frozenset[str]]:
    """Replace every value found in a sentence by its field's placeholder, longer values first.

    Args:
        output: The sentence.
        fields: Fields of its input.

    Returns:
        The template and the fields it has a place for.
    """
    placed = set()
    for key, value in sorted(fields.items(), key=lambda item: -len(item[1])):
        if not value:
            continue
        pattern = rf"(?<![\w{_MARK}]){re.escape(value)}(?![\w{_MARK}])"
        # Not inside a placeholder set before: those lie between two marks, so an even number follows outside them.
        outside = rf"{pattern}(?=(?:[^{_MARK}]*{_MARK}[^{_MARK}]*{_MARK})*[^{_MARK}]*$)"
        place = f"{_MARK}{key}{_MARK}".replace("\\", r"\\")
        output, n = re.subn(outside, place, output, flags=re.IGNORECASE)
        if n:
            placed.add(key)
    return output, frozenset(placed)


def _pattern_tokens(template: str) -> list[str]:
    """Lower-cased words; a placeholder is one."""
    tokens: list[str] = []
    for i, piece in enumerate(template.split(_MARK)):
        tokens += [_MARK + piece] if i % 2 else tokenize_13a(piece.lower())
    return tokens


def consensus(templates: Sequence[str]) -> tuple[int, float]:
    """Index of the template most like the others, and its mean likeness.

    Minimum-Bayes-risk choice (Kumar & Byrne 2004) with the F1 of n-gram sets, averaged over orders 1 to 4, as gain.
    """
    likeness = np.zeros((len(templates), len(templates)))
    tokens = [_pattern_tokens(t) for t in templates]
    for order in range(1, 5):
        grams = [set(zip(*(words[i:] for i in range(order)), strict=False)) for words in tokens]
        column = {gram: i for i, gram in enumerate(sorted(set().union(*grams)))}
        table = np.zeros((len(templates), len(column)), dtype=np.float32)
        for row, found in enumerate(grams):
            table[row, [column[gram] for gram in found]] = 1
        sizes = table.sum(axis=1)
        likeness += 2 * (table @ table.T) / np.maximum(1, sizes[:, None] + sizes[None, :]) / 4
    if len(templates) == 1:
        return 0, 0.5
    gain = (likeness.sum(axis=1) - likeness.diagonal()) / (len(templates) - 1)
    return int(gain.argmax()), float(gain.max())


@dataclass(frozen=True, slots=True)
class Pattern:
    """The template of one group.

    Args:
        template: Sentence with placeholders.
        items: What an input must have: open fields, and closed fields with their values.
        likeness: Mean likeness to the group's other sentences, in [0, 1].
        support: Training sentences in the group.
    """

    template: str
    items: frozenset[Item]
    likeness: float
    support: int


class Templates:
    """Fills the template of the input's fields, or of the most similar fields the input can fill."""

    name = "template"

    def __init__(
        self, parser: Callable[[str], Fields | None], open_fields: frozenset[str], patterns: Sequence[Pattern]
    ) -> None:
        """Take learned patterns over.

        Args:
            parser: Reads inputs.
            open_fields: Fields whose values are copied into placeholders.
            patterns: One a group.
        """
        self._parser, self._open = parser, open_fields
        self._patterns = {pattern.items: pattern for pattern in patterns}
        self._ranked = sorted(patterns, key=lambda p: (-p.support, p.template))

    @property
    def params(self) -> int:
        """Templates kept."""
        return len(self._patterns)

    def _pattern(self, items: frozenset[Item]) -> Pattern | None:
        exact = self._patterns.get(items)
        if exact is not None:
            return exact
        fields = {key for key, _ in items}
        usable = [p for p in self._ranked if all(key in fields for key, value in p.items if not value)]
        # Saying what the input does not say is worse than leaving something out.
        return max(usable, key=lambda p: len(p.items & items) - 2 * len(p.items - items), default=None)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The filled template; confidence is how much the group's training sentences agree with it."""
        answers = []
        chosen: dict[frozenset[Item], Pattern | None] = {}
        for text in inputs:
            fields = self._parser(text) or {}
            items = _items(fields, self._open)
            if items not in chosen:
                chosen[items] = self._pattern(items)
            pattern = chosen[items]
            if pattern is None:
                answers.append(Prediction(" ".join(v for v in fields.values() if v) or text, 0.0))
                continue
            pieces = pattern.template.split(_MARK)  # text, field, text, field, ..., text
            pieces[1::2] = [fields[key] for key in pieces[1::2]]
            answers.append(Prediction("".join(pieces), pattern.likeness))
        return answers

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log confidence of the filled template; the rest is spread evenly over the other templates."""
        return [
            point_scores(answer.output, answer.confidence, max(2, self.params), proposed)
            for answer, proposed in zip(self.predict(inputs), outputs, strict=True)
        ]

    def size_bytes(self) -> int:
        """Templates and their fields as text."""
        items = sum(len(k.encode()) + len(v.encode()) + 2 for p in self._ranked for k, v in p.items)
        return items + sum(len(p.template.encode()) + 1 for p in self._ranked)


def _items(fields: Fields, open_fields: frozenset[str]) -> frozenset[Item]:
    return frozenset((key, "" if key in open_fields else value) for key, value in fields.items())


def _learn(
    parser: Callable[[str], Fields | None], rows: Sequence[tuple[Fields, str]], open_fields: frozenset[str]
) -> Templates:
    """Group sentences by fields and let each group vote; sentences without a place for an open field do not count."""
    groups: dict[frozenset[Item], list[str]] = defaultdict(list)
    for fields, output in rows:
        template, placed = delexicalise(output, {k: v for k, v in fields.items() if k in open_fields})
        if placed >= fields.keys() & open_fields:
            groups[_items(fields, open_fields)].append(template)
    patterns = []
    for items, templates in groups.items():
        voters = templates[:: max(1, -(-len(templates) // _VOTERS))]
        best, likeness = consensus(voters)
        patterns.append(Pattern(voters[best], items, likeness, len(templates)))
    return Templates(parser, open_fields, patterns)


def fit_template(job: Job) -> Templates:
    """Learn templates; which fields are placeholders is chosen by BLEU on the valid rows.

    Args:
        job: A job whose inputs are fields: ``key[value], ...``, ``key = value ; ...`` or flat JSON objects.

    Raises:
        SmallfryError: The inputs are not fields.
    """
    parser = structure([row.input for row in job.train])
    if parser is None:
        raise SmallfryError(
            f"job {job.name}: inputs are not fields such as 'name[The Vaults], food[French]', no templates"
        )
    rows, held_out = tuning_rows(job)
    parsed = [(fields, row.output) for row in rows if (fields := parser(row.input)) is not None]
    seen: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    for fields, output in parsed:
        seen.update(fields.keys())
        copied.update(key for key, value in fields.items() if value and value.lower() in output.lower())
    choices = dict.fromkeys(
        frozenset(key for key in seen if copied[key] >= share * seen[key]) for share in _OPEN_SHARES
    )
    judged = replace(job, metric="bleu", valid=tuple(_whole_groups(held_out)))
    fitted = [_learn(parser, parsed, choice) for choice in choices]
    inputs = [row.input for row in judged.valid]
    return max(fitted, key=lambda t: score_predictions(judged, t.predict(inputs), "valid").score)


def _whole_groups(rows: Sequence[Example]) -> list[Example]:
    """Some rows, but all references of each input among them."""
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.input, row)
    kept = {row.input for row in evenly(list(first.values()), _CHECKS)}
    return [row for row in rows if row.input in kept]
