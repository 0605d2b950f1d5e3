"""The assessment record: one self-describing file that the report, the command line and the page read alike.

``smallfry assess`` writes it as ``assessment.json``. Readers ignore keys they do not know, so a later writer may add
some; a file of another format, or one that is cut off, is refused in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from .errors import SmallfryError
from .evals.statistics import Verdict
from .files import write_atomic
from .job import Kind, Metric

FORMAT = "smallfry-assessment/1"
_LARGEST = 10**18  # of a count in a record
FILE_NAME = "assessment.json"

RowType = Literal["baseline", "lm", "combined", "pretrained"]
Interval = tuple[float, float]

_T = TypeVar("_T")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class JobRecord:
    """What was asked: the job as it was loaded and checked.

    Args:
        name: The job's short name.
        kind: ``classify``, ``transform`` or ``generate``.
        metric: How answers are scored.
        higher_is_better: False for ``bits_per_byte``.
        target: The score that makes a candidate workable, in the metric's unit; None when none was given.
        n_train: Rows learnt from.
        n_valid: Rows used for choices.
        n_test: Rows the verdict rests on.
        source: Path, built-in name or hub name.
        hashes: SHA-256 of ``train``, ``valid`` and ``test``.
        notes: What loading decided, one sentence each.
        card: What the data check found, free form.
        warnings: What the data check warns of, one sentence each.
    """

    name: str
    kind: Kind
    metric: Metric
    higher_is_better: bool = True
    target: float | None = None
    n_train: int = 0
    n_valid: int = 0
    n_test: int = 0
    source: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class PlanStep:
    """One step of the time plan: what, and how many seconds it was expected to take."""

    what: str
    seconds: float


@dataclass
class PilotRecord:
    """One output form and vocabulary tried on the smallest rung, scored on the validation rows.

    Args:
        form: The output form's name.
        vocab_size: Tokens in the vocabulary.
        lowercase: Whether the text was lower-cased.
        rung: The rung it was tried on.
        score: Validation score in the metric's unit.
        ci: 95% interval of ``score``.
        loss: Validation cross-entropy in nats per token, the tie-breaker.
        seconds: Wall-clock time of the trial.
        chosen: Whether the assessment went on with it.
    """

    form: str
    vocab_size: int
    lowercase: bool = False
    rung: str = ""
    score: float | None = None
    ci: Interval | None = None
    loss: float | None = None
    seconds: float | None = None
    chosen: bool = False


@dataclass
class SeedScore:
    """The test score of one seed."""

    seed: int
    score: float


@dataclass
class CurvePoint:
    """One evaluation during training; None where a value was not measured.

    Args:
        step: Optimiser steps so far.
        epoch: Passes over the training rows so far.
        seconds: Wall-clock seconds since training began.
        train_loss: Cross-entropy on training batches, nats per token.
        valid_loss: Cross-entropy on the validation rows, nats per token.
        valid_score: Validation score in the metric's unit.
    """

    step: int
    epoch: float | None = None
    seconds: float | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    valid_score: float | None = None


@dataclass
class Versus:
    """A paired comparison with another candidate on the same test items.

    Args:
        other: The other candidate's name.
        difference: This score minus the other's, in the metric's unit.
        ci: 95% interval of the difference.
        p: Two-sided p-value.
        n_discordant: Items on which exactly one of the two is right; None where right and wrong do not apply.
    """

    other: str
    difference: float
    ci: Interval | None = None
    p: float | None = None
    n_discordant: int | None = None


@dataclass
class Row:
    """One candidate, measured.

    Args:
        name: The candidate's name; a rung's name for type ``lm``.
        type: ``baseline``, ``lm``, ``combined`` or ``pretrained``.
        score: Test score in the metric's unit; with several seeds, their mean.
        ci: 95% interval of ``score``.
        params: Numbers the candidate learnt, None where that is not meaningful.
        bytes: Size on disk of what must be shipped.
        n: Test items scored.
        seeds: The test score of each seed.
        verdict: None when the job has no target.
        train_seconds: Wall-clock training time of one seed, mean.
        latency_ms: Time of one answer, one at a time on one core, median.
        metrics: Further test metrics by name.
        curves: Learning curves by seed.
        versus: Paired comparison, normally with the best baseline.
        examples_to_decide: For ``undecided``: about how many more test examples would decide.
        note: One sentence on anything unusual.
    """

    name: str
    type: RowType
    score: float
    ci: Interval
    params: int | None = None
    bytes: int | None = None
    n: int = 0
    seeds: list[SeedScore] = field(default_factory=list)
    verdict: Verdict | None = None
    train_seconds: float | None = None
    latency_ms: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[CurvePoint]] = field(default_factory=dict)
    versus: Versus | None = None
    examples_to_decide: int | None = None
    note: str = ""


@dataclass
class PredictedPoint:
    """A rung that was not trained: its predicted score and 95% prediction interval."""

    name: str
    params: int
    score: float
    ci: Interval | None = None


@dataclass
class Prediction:
    """The scaling curve's extrapolation, and what it rests on."""

    points: list[PredictedPoint] = field(default_factory=list)
    note: str = ""


@dataclass
class ErrorExample:
    """A test item the chosen model got wrong; ``confidence`` is its own probability of what it answered."""

    input: str
    expected: str
    got: str
    confidence: float | None = None


@dataclass
class Sample:
    """A test item with the chosen model's answer."""

    input: str
    output: str
    expected: str = ""


@dataclass
class Assessment:
    """One job, its candidates and seeds, measured.

    Args:
        job: What was asked.
        rows: Every candidate that was measured.
        smallest: Name of the smallest workable rung, or None.
        shipped: Name of the rung whose model is shipped: the smallest workable one, else the best on validation rows.
        shipped_seed: Its seed, the best on validation rows.
        advice: One sentence: what to use.
        prediction: Scores of rungs that were not trained, or None.
        command: The command line that produced the record.
        started: Start time, ISO 8601.
        seconds: Wall-clock time of the whole assessment.
        out: The run directory as the user gave it, or None.
        settings: Every setting that was chosen or derived.
        versions: Versions of the libraries that were used.
        machine: What it ran on.
        plan: The time plan made before training.
        pilot: Output forms and vocabularies tried on the smallest rung.
        errors: What the chosen model gets wrong.
        samples: What the chosen model answers.
        model_dir: The chosen model's directory, relative to the record, or None.
        format: Always ``smallfry-assessment/1``.
    """

    job: JobRecord
    rows: list[Row] = field(default_factory=list)
    smallest: str | None = None
    shipped: str | None = None
    shipped_seed: int | None = None
    advice: str = ""
    prediction: Prediction | None = None
    command: str = ""
    started: str = ""
    seconds: float = 0.0
    out: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    plan: list[PlanStep] = field(default_factory=list)
    pilot: list[PilotRecord] = field(default_factory=list)
    errors: list[ErrorExample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    model_dir: str | None = None
    format: str = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values; a number that is not finite becomes null."""
        plain = _plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return {"format": plain.pop("format"), **plain}

    @classmethod
    def from_dict(cls, data: object, where: str = "assessment") -> Assessment:
        """Read a record from plain JSON values.

        Args:
            data: What ``json.loads`` returned.
            where: Name of the file, for the error message.

        Returns:
            The record; keys it does not know are ignored, missing optional ones take their defaults.

        Raises:
            SmallfryError: ``data`` is not an assessment, is of another format version, or a value has the wrong type.
        """
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            if isinstance(found, str) and found.startswith("smallfry-assessment/"):
                raise SmallfryError(f"{where} has format {found!r}, this smallfry reads {FORMAT!r}: update smallfry")
            raise SmallfryError(
                f'{where} is not an assessment: expected a JSON object with "format": "{FORMAT}"; '
                f"give the {FILE_NAME} that `smallfry assess` wrote"
            )
        record = _decode(cls, data, where)
        assert isinstance(record, cls)
        return record

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically: a reader sees the old file or the new one, never half of one.

        Args:
            path: The file, or a directory to write ``assessment.json`` in.
        """
        target = path / FILE_NAME if path.is_dir() else path
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)
        # A lone surrogate has no UTF-8 form; its JSON escape has.
        text = _LONE_SURROGATE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)
        write_atomic(target, text + "\n")

    @classmethod
    def load(cls, path: Path) -> Assessment:
        """Read a record that `save` wrote.

        Args:
            path: The file, or the run directory that holds ``assessment.json``.

        Returns:
            The record.

        Raises:
            SmallfryError: The file is missing, is not whole JSON, or is not an assessment.
        """
        source = path / FILE_NAME if path.is_dir() else path
        try:
            data = json.loads(source.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SmallfryError(
                f"{source} does not exist: give the directory or {FILE_NAME} that `smallfry assess` wrote"
            ) from None
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or absurd numbers or nesting
            line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise SmallfryError(
                f"{source}{line} is not whole JSON: expected an assessment record; run `smallfry assess` again"
            ) from None
        except OSError as error:
            raise SmallfryError(
                f"{source} cannot be read: {error.strerror or error}; expected a readable {FILE_NAME}"
            ) from None
        return cls.from_dict(data, str(source))


def summary(assessment: Assessment) -> dict[str, Any]:
    """What ``smallfry assess --json`` prints: the record without curves, examples and provenance.

    Args:
        assessment: The whole record.

    Returns:
        Plain JSON values with the keys ``job``, ``rows``, ``smallest``, ``advice``, ``prediction`` and ``out``.
    """
    whole = assessment.to_dict()
    job_keys = ("name", "kind", "metric", "target", "n_train", "n_test")
    row_keys = ("name", "type", "params", "bytes", "score", "ci", "seeds", "verdict", "train_seconds", "latency_ms")
    return {
        "job": {key: whole["job"][key] for key in job_keys},
        "rows": [{key: len(row[key]) if key == "seeds" else row[key] for key in row_keys} for row in whole["rows"]],
        "smallest": whole["smallest"],
        "advice": whole["advice"],
        "prediction": whole["prediction"],
        "out": whole["out"],
    }


def _plain(value: Any) -> Any:
    """Tuples become lists, numbers that JSON cannot hold become None, foreign scalars become Python's own."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return str(value)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Turn a JSON value into the annotated type ``kind``; ``where`` names the place for the error message."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _decode(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        return value if value in arguments else _refuse(where, " or ".join(map(repr, arguments)), value)
    if origin is list:
        items = _expect(list, value, where, "a list")
        return [_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items)]
    if origin is dict:
        pairs = _expect(dict, value, where, "an object")
        return {key: _decode(arguments[1], item, f"{where}[{key!r}]") for key, item in pairs.items()}
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(arguments):
            _refuse(where, f"a list of {len(arguments)} numbers", value)
        return tuple(
            _decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, value, strict=True))
        )
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, _expect(dict, value, where, "an object"), where)
    return _decode_scalar(kind, value, where)


def _decode_dataclass(kind: Any, data: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    known: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.name in data:
            known[item.name] = _decode(hints[item.name], data[item.name], f"{where}: {item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise SmallfryError(
                f"{where}: {item.name} is missing: the record is incomplete; run `smallfry assess` again"
            )
    return kind(**known)


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float:
        if value is None:  # how a number that is not finite was written
            return math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # a whole number beyond a float's range
                return float(value)
        _refuse(where, "a number", value)
    if kind is int and isinstance(value, bool):
        _refuse(where, "a whole number", value)
    if kind is int and isinstance(value, int) and not 0 <= value <= _LARGEST:
        _refuse(where, "a whole number from 0 to 10^18", value)
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    return _expect(kind, value, where, names[kind])


def _expect(kind: type[_T], value: Any, where: str, name: str) -> _T:
    return value if isinstance(value, kind) else _refuse(where, name, value)


def _refuse(where: str, expected: str, value: Any) -> typing.NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    raise SmallfryError(f"{where} is {shown}, expected {expected}: the record is damaged; run `smallfry assess` again")
