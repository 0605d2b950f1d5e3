"""Reading what was measured: suites of our own models, assessments, levers, other records."""

from __future__ import annotations

import fnmatch
import math
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import SmallfryError
from ..files import read_json
from ..reference_models import gpt2, nanochat_2025
from .criteria import Found, Interval
from .model import Claims, Suite
from .references import Reference

IGNORANT = ("guessing", "untrained", "majority")
OWN, USE_CASES, LEVERS = "own", "use_cases", "levers.json"
_JOBS = (f"{USE_CASES}/*/assessment.json", "narrow/*.json", "narrow/*/assessment.json", "demo/assessment.json")


class Results:
    """The stored measurements under one folder.

    ``own/MODEL/SUITE.json`` is what ``smallfry eval MODEL --suite SUITE --json`` prints, with the key ``command``;
    ``use_cases/NAME/assessment.json`` what ``smallfry assess`` writes, or its parts ``command``, ``job`` and ``rows``;
    ``narrow/NAME.json`` and ``demo/assessment.json`` likewise; ``levers.json`` is that of
    ``benchmarks/levers.py``: ``comparisons`` of ``lever``, ``size``, ``task``, ``measure``, ``worth`` (above nought the
    lever helps), ``ci``, ``adjusted`` (p after Holm) and ``n``.

    Args:
        root: The folder.
        claims: What is measured, for the chance of suites.

    Raises:
        SmallfryError: There is no such folder.
    """

    def __init__(self, root: Path, claims: Claims) -> None:
        if not root.is_dir():
            raise SmallfryError(
                f"{root}: no such folder of stored measurements; run it in a clone of the project, or name one (--from)"
            )
        self.root, self.claims = root, claims
        self._files: dict[str, Any] = {}

    def find(self, reference: Reference) -> list[Found]:
        """What was measured under a name: nothing where that is still to be done."""
        return {
            "suite": self._suite, "job": self._job, "lever": self._lever, "file": self._file, "params": self._params,
        }[reference.source](reference)  # fmt: skip

    def params(self, file: str) -> int | None:
        """Parameters of the model a suite's file is about, where that or its training's record says so."""
        for name in (file, f"{file.rpartition('/')[0]}/training.json"):
            found = (self.load(name) or {}).get("params")
            if isinstance(found, int):
                return found
        return None

    def load(self, file: str) -> dict[str, Any] | None:
        """A stored file, or None where there is none.

        Raises:
            SmallfryError: It is not a JSON object.
        """
        if file not in self._files:
            path = self.root / file
            self._files[file] = read_json(path) if path.is_file() else None
        found = self._files[file]
        if found is not None and not isinstance(found, dict):
            raise SmallfryError(f"{self.root / file}: expected a JSON object; measure it again")
        return found

    @cached_property
    def jobs(self) -> list[tuple[str, dict[str, Any]]]:
        """Every assessment with its file, the use cases first."""
        files = [p.relative_to(self.root).as_posix() for pattern in _JOBS for p in sorted(self.root.glob(pattern))]
        loaded = [(file, record) for file in files if (record := self.load(file)) is not None]
        return [(file, record) for file, record in loaded if "job" in record and "rows" in record]

    # ---- suites -----------------------------------------------------------------------------------------------------

    def _suite(self, ref: Reference) -> list[Found]:
        file = f"{OWN}/{ref.name}/{ref.part}.json"
        record = self.load(file)
        if record is None:
            return []
        suite = self.claims.suites[ref.part]
        if ref.measure:
            other = (record.get("versions") or {}).get(ref.measure)  # CORE with another version of its baselines
            if other:
                return [self._found(ref, file, float(other["score"]), _interval(other["ci"]), 0, suite.chance, {})]
            return [self._measure(ref, file, m) for m in _rows(record, "measures") if m.get("name") == ref.measure]
        if not ref.task:
            return [self._score(ref, file, record, suite)]
        tasks = [*_rows(record, "tasks"), *_rows(record, "beside")]
        return [self._task(ref, file, record, suite, t) for t in tasks if fnmatch.fnmatch(str(t["name"]), ref.task)]

    def _score(self, ref: Reference, file: str, record: dict[str, Any], suite: Suite) -> Found:
        controls = {
            name: (float(c["score"]), _interval(c.get("ci")))
            for name, c in record.get("controls", {}).items()
            if c.get("score") is not None
        }
        n = sum(int(t["n"]) for t in _rows(record, "tasks")) or int(record.get("documents", 0))
        missing = [str(name) for name in record.get("missing") or []]
        label = f"{ref.label} without {', '.join(missing)}" if missing else ""
        return self._found(
            ref, file, float(record["score"]), _interval(record.get("ci")), n, suite.chance, controls, label,
            unit="bits" if suite.lower else "share", lower=suite.lower,
        )  # fmt: skip

    def _task(self, ref: Reference, file: str, record: dict[str, Any], suite: Suite, task: dict[str, Any]) -> Found:
        name = str(task["name"])
        controls = {}
        for who, control in record.get("controls", {}).items():
            for other in [*_rows(control, "tasks"), *_rows(control, "beside")]:
                if other["name"] == name and other["n"]:
                    controls[who] = (float(other["accuracy"]), _interval(other["ci"]))
        label = f"{ref.name}, {ref.part}: {name}"
        return self._found(
            ref, file, float(task["accuracy"]), _interval(task["ci"]), int(task["n"]), suite.chance_of(name), controls,
            label=label,
        )  # fmt: skip

    def _measure(self, ref: Reference, file: str, measure: dict[str, Any]) -> Found:
        reference = measure.get("reference")
        unit = "bits" if "bits" in ref.measure else "share"
        found = self._found(
            ref, file, float(measure["value"]), _interval(measure.get("ci")), int(measure["n"]), None, {}, unit=unit,
            lower=ref.lower or "lower is better" in str(measure.get("what", "")),
        )  # fmt: skip
        if reference is not None:
            found.terms["reference"] = float(reference)
        return found

    def _found(
        self, ref: Reference, file: str, score: float, ci: Interval | None, n: int, chance: float | None,
        controls: dict[str, tuple[float, Interval | None]], label: str = "", unit: str = "share", lower: bool = False,
    ) -> Found:  # fmt: skip
        terms = {} if chance is None else {"chance": chance}
        ignorant = [found for name, found in controls.items() if name in IGNORANT]  # an n-gram model knows something
        tops = [score if ci is None else (ci[0] if lower else ci[1]) for score, ci in ignorant]
        if tops:
            terms["controls"] = min(tops) if lower else max(tops)
        return Found(
            label or ref.label, file, score, ci or (score, score), n, ref.target, ref.lower or lower, unit, terms,
            controls, seen=self.claims.was_seen(file),
        )  # fmt: skip

    # ---- jobs -------------------------------------------------------------------------------------------------------

    def _job(self, ref: Reference) -> list[Found]:
        records = [(file, record) for file, record in self.jobs if record["job"]["name"] == ref.name]
        for file, record in records:
            for row in record["rows"]:
                if row["type"] == "lm" and row["name"] == ref.part and row.get("score") is not None:
                    return [self._row(ref, file, record, row, [r for _, r in records])]
        return []

    def _row(
        self, ref: Reference, file: str, record: dict[str, Any], row: dict[str, Any], alike: list[dict[str, Any]]
    ) -> Found:
        if ref.measure:
            value = float(row[ref.measure])
            unit = "seconds" if ref.measure.endswith("seconds") else "plain"
            return Found(ref.label, file, value, (value, value), unit=unit, seen=self.claims.was_seen(file))
        job = record["job"]
        lower = job["metric"] == "bits_per_byte"
        same = [r for r in alike if _test_rows(r) == _test_rows(record)]  # baselines of another run on the same rows
        rows = {r["name"]: r for other in reversed(same) for r in other["rows"] if r["type"] == "baseline"}
        terms, controls, best = {}, {}, ""
        if "majority" in rows:
            majority = rows.pop("majority")
            controls["majority"] = (float(majority["score"]), _interval(majority["ci"]))
            terms["majority"] = float(majority["score"])
        if rows:
            best = (min if lower else max)(rows, key=lambda name: float(rows[name]["score"]))
            terms["baseline"] = float(rows[best]["score"])
            terms["paired"] = _upper(row, best, lower, terms["baseline"])
        target = job.get("target") if ref.target is None else ref.target
        return Found(
            ref.label, file, float(row["score"]), _interval(row["ci"]) or (row["score"], row["score"]),
            int(job.get("n_test", 0)), target, lower, "bits" if lower else "share", terms, controls, best,
            self.claims.was_seen(file), len(row.get("seeds") or ()),
            row.get("examples_to_decide") if ref.target is None else None,
        )  # fmt: skip

    # ---- others -----------------------------------------------------------------------------------------------------

    def _lever(self, ref: Reference) -> list[Found]:
        record = self.load(LEVERS)
        found = []
        whole = (record or {}).get("complete", {}).get(ref.part, [])
        for row in _rows(record, "comparisons") if record and ref.name in whole else []:
            interval = _interval(row.get("ci"))
            mine = (row.get("lever"), row.get("size")) == (ref.name, ref.part) and ref.task in ("", row.get("task"))
            if mine and interval is not None and row["adjusted"] is not None:  # asked the same items with and without
                measure = str(row["measure"])
                label = f"{ref.name} at {ref.part}, {row['task']} {measure.replace('_', ' ')}"
                unit = "bits" if measure == "bits_per_byte" else "difference"
                found.append(Found(
                    label, LEVERS, float(row["worth"]), interval, int(row["n"]), unit=unit,
                    terms={"p": float(row["adjusted"])}, seeds=int(row["seeds"]),
                ))  # fmt: skip
        return found

    def _file(self, ref: Reference) -> list[Found]:
        value: Any = self.load(ref.name)
        for key in ref.part.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, (bool, int, float)):
            return []
        number = float(value)
        label = f"{ref.name}: {ref.part}"
        return [Found(label, ref.name, number, (number, number), unit="plain", seen=self.claims.was_seen(ref.name))]

    def _params(self, ref: Reference) -> list[Found]:
        if ref.name == "gpt2":
            params = gpt2("GPT-2", width=768, depth=12).params
        else:
            depth, vocab = (int(part) for part in ref.part.split("/"))
            params = nanochat_2025(depth, vocab).params
        return [Found(ref.label, "", float(params), (float(params), float(params)), unit="count")]


def _rows(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [row for row in record.get(key) or [] if isinstance(row, dict)]


def _interval(ci: Any) -> Interval | None:
    """An interval as stored; None where there is none, or an end is not a number."""
    if not isinstance(ci, (list, tuple)) or len(ci) != 2 or any(end is None or not math.isfinite(end) for end in ci):
        return None
    return float(ci[0]), float(ci[1])


def _upper(row: dict[str, Any], best: str, lower: bool, baseline: float) -> float:
    """How much better than the best baseline the model can be: by the paired test, else by the model's interval."""
    versus = row.get("versus") or {}
    ci = _interval(versus.get("ci")) if versus.get("other") == best else None
    if ci is None:
        low, high = _interval(row.get("ci")) or (row["score"], row["score"])
        return baseline - low if lower else high - baseline
    return -ci[0] if lower else ci[1]


def _test_rows(record: dict[str, Any]) -> Any:
    job = record["job"]
    return (job.get("hashes") or {}).get("test") or job.get("n_test")
