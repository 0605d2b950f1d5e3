"""Conditional random field over the input's units, for outputs that are labels plus spans of the input."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import sklearn_crfsuite

from smallfry.baselines.calibration import log_probability
from smallfry.baselines.linear import Constant, Linear, fit_svm
from smallfry.candidates import SCORE_FLOOR, Prediction
from smallfry.errors import SmallfryError
from smallfry.frames import Frame, FrameCodec
from smallfry.job import Example, Job

_JOIN = "\x1f"  # between the symbols of a head when it is one class
_HEADS = 3  # most probable heads whose tags are compared
_AFFIX = 4
_WINDOW = 2
_EDGE = "<>"  # stands for units beyond either end


def shape(word: str) -> str:
    """Letter case and digits with runs collapsed: ``McDonald's`` is ``XxXx'x``."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in word)
    out = ""
    for kind in kinds:
        if not out.endswith(kind):
            out += kind
    return out


def unit_features(text: str, units: Sequence[tuple[int, int]], head: str) -> list[list[str]]:
    """Attributes of each unit.

    Word, affixes of 1 to 4 characters, shape, digits, position, whether the unit touches its left neighbour, words
    two to either side, word pairs, and the head (what the whole input is about) alone and with the word.

    Args:
        text: The input.
        units: Its units.
        head: The head's class.
    """
    words = [text[a:b] for a, b in units]
    lower = [_EDGE] * _WINDOW + [w.lower() for w in words] + [_EDGE] * _WINDOW
    rows = []
    for i, word in enumerate(words):
        at = i + _WINDOW
        w, before, after = lower[at], lower[at - 1], lower[at + 1]
        row = ["1", f"w={w}", f"s={shape(word)}", f"n={min(i, 4)}", f"e={min(len(words) - 1 - i, 3)}"]
        row += [f"p={w[:k]}" for k in range(1, min(_AFFIX, len(w) - 1) + 1)]
        row += [f"q={w[-k:]}" for k in range(1, min(_AFFIX, len(w) - 1) + 1)]
        row += [f"{o}={lower[at + o]}" for o in range(-_WINDOW, _WINDOW + 1) if o]
        row += [f"a={before} {w}", f"b={w} {after}", f"c={before} {after}", f"d={lower[at - 2]} {before}"]
        row += [f"f={after} {lower[at + 2]}", f"h={head}", f"hw={head} {w}"]
        if any(c.isdigit() for c in word):
            row.append(f"#={len(word)}")
        if i and units[i - 1][1] == units[i][0]:
            row.append("g")
        rows.append(row)
    return rows


class FrameCrf:
    """A linear SVM for the head and a CRF for the tags given the head; the pair with the highest product answers."""

    name = "crf"

    def __init__(self, codec: FrameCodec, heads: Linear | Constant | None, field: sklearn_crfsuite.CRF) -> None:
        """Take fitted parts over.

        Args:
            codec: Between outputs and frames.
            heads: Classifies inputs into joined heads; None where every head is empty.
            field: Fitted on `unit_features`.
        """
        self._codec, self._heads, self._field = codec, heads, field
        self._tags = frozenset(field.classes_)
        state, self._n_transitions = field.state_features_, len(field.transition_features_)
        self._n_states = len(state)
        self._attribute_bytes = sum(len(name.encode()) + 1 for name in {name for name, _ in state})

    @property
    def params(self) -> int:
        """Weights of the CRF that are not zero, and the head classifier's numbers."""
        return self._n_states + self._n_transitions + (self._heads.params if self._heads else 0)

    def _ranked_heads(self, inputs: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Likeliest heads of each input with their log-probabilities."""
        if not isinstance(self._heads, Linear):
            answers = self._heads.predict(inputs) if self._heads else [Prediction("", 1.0)] * len(inputs)
            return [[(answer.output, 0.0)] for answer in answers]
        if not inputs:
            return []
        table = self._heads.log_probabilities(inputs)
        order = (-table).argsort(axis=1, kind="stable")[:, :_HEADS]
        labels = self._heads.labels
        return [[(labels[j], float(row[j])) for j in top] for row, top in zip(table, order, strict=True)]

    def _log_tags(self, tags: Sequence[str]) -> float:
        """Log-probability of tags for the sequence last set on the tagger."""
        if not all(tag in self._tags for tag in tags):
            return SCORE_FLOOR
        return log_probability(self._field.tagger_.probability(list(tags)))

    def frames(self, inputs: Sequence[str]) -> list[tuple[Frame, float]]:
        """The most probable frame of each input and its log-probability."""
        found = []
        for text, ranked in zip(inputs, self._ranked_heads(inputs), strict=True):
            units = self._codec.units(text)
            best: tuple[Frame, float] | None = None
            for head, log_head in ranked:
                if best is not None and log_head <= best[1]:
                    break  # no tags can make up for a less probable head
                tags = self._field.tagger_.tag(unit_features(text, units, head)) if units else []
                total = log_head + (self._log_tags(tags) if units else 0.0)
                if best is None or total > best[1]:
                    best = Frame(tuple(head.split(_JOIN)) if head else (), tuple(units), tuple(tags)), total
            assert best is not None
            found.append(best)
        return found

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The most probable frame in the job's own format; confidence is its probability."""
        return [
            Prediction(self._codec.render(text, frame.head, frame.tags), min(1.0, math.exp(total)))
            for text, (frame, total) in zip(inputs, self.frames(inputs), strict=True)
        ]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log P(head) + log P(tags | head); the floor for outputs that are no frame of the input."""
        joined = [
            [self._codec.parse(Example(x, o)) for o in proposed] for x, proposed in zip(inputs, outputs, strict=True)
        ]
        wanted = [[_JOIN.join(frame.head) if frame else "" for frame in frames] for frames in joined]
        log_heads = self._heads.score(inputs, wanted) if self._heads else [[0.0] * len(heads) for heads in wanted]
        table = []
        for text, frames, heads, logs in zip(inputs, joined, wanted, log_heads, strict=True):
            units = self._codec.units(text)
            scores, shown = [], ""
            for frame, head, log_head in zip(frames, heads, logs, strict=True):
                if frame is None or log_head <= SCORE_FLOOR:
                    scores.append(SCORE_FLOOR)
                    continue
                if units and head + "\n" != shown:
                    self._field.tagger_.set(unit_features(text, units, head))
                    shown = head + "\n"
                scores.append(max(SCORE_FLOOR, log_head + (self._log_tags(frame.tags) if units else 0.0)))
            table.append(scores)
        return table

    def size_bytes(self) -> int:
        """2-byte weights with a 2-byte tag each, attribute names as text, the codec as JSON, the head classifier."""
        field = 4 * (self._n_states + self._n_transitions) + self._attribute_bytes
        return field + len(json.dumps(self._codec.to_dict())) + (self._heads.size_bytes() if self._heads else 0)


def fit_crf(
    job: Job, codec: FrameCodec | None = None, c1: float = 0.05, c2: float = 0.05, iterations: int = 60
) -> FrameCrf:
    """Fit head and tags.

    The penalties are constants: on the valid rows of SNIPS and ATIS, pairs from (0.02, 0.1) to (0.1, 0.01) differ by
    less than 0.5 points of exact match, while the head among the attributes is worth 2.6 and 0.4.

    Args:
        job: A job whose outputs are frames.
        codec: Its codec; learned from train by default.
        c1: L1 penalty of the CRF.
        c2: L2 penalty of the CRF.
        iterations: L-BFGS iterations.

    Raises:
        SmallfryError: The outputs are not labels plus spans of the input.
    """
    codec = codec or FrameCodec.learn(job.train)
    if codec is None:
        raise SmallfryError(f"job {job.name}: outputs are not labels plus spans of the input, a CRF cannot tag them")
    framed = [(row, frame) for row in job.train if (frame := codec.parse(row)) is not None]
    heads = _fit_heads(job, codec, framed)
    field = sklearn_crfsuite.CRF(
        algorithm="lbfgs", c1=c1, c2=c2, max_iterations=iterations, all_possible_transitions=False
    )
    tagged = [(row, frame) for row, frame in framed if frame.units]
    field.fit(
        [unit_features(row.input, frame.units, _JOIN.join(frame.head)) for row, frame in tagged],
        [list(frame.tags) for _, frame in tagged],
    )
    return FrameCrf(codec, heads, field)


def _fit_heads(job: Job, codec: FrameCodec, framed: Sequence[tuple[Example, Frame]]) -> Linear | Constant | None:
    """The head as one class for each combination of symbols seen in training."""
    if not any(frame.head for _, frame in framed):
        return None
    pairs = [(row, codec.parse(row)) for row in job.valid]
    return fit_svm(
        replace(
            job, kind="classify", metric="accuracy",
            train=tuple(Example(row.input, _JOIN.join(frame.head)) for row, frame in framed),
            valid=tuple(Example(row.input, _JOIN.join(frame.head)) for row, frame in pairs if frame),
        )
    )  # fmt: skip
