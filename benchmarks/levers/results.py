"""From finished units to what each lever is worth: paired on the same items, seeds pooled, Holm over the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smallfry.evals.paired import Paired, holm, paired_statistic
from smallfry.evals.statistics import join_seed_spread, normal_quantile, wilson
from smallfry.evals.suites.text import bits_rate

from .arms import ARMS, LEVERS, SEEDS, SIZES, TASKS, TaskName

Result = dict[str, Any]
Floats = np.ndarray
MEASURES: dict[TaskName, tuple[str, ...]] = {
    "clinc150": ("accuracy",), "commands": ("exact_match",), "stories": ("continuation", "names", "bits_per_byte"),
}  # fmt: skip
TITLES = {
    "accuracy": "accuracy", "exact_match": "exact match", "continuation": "continuation choice",
    "names": "name consistency", "bits_per_byte": "bits per byte",
}  # fmt: skip
_RESAMPLES = 4000
_BRIEF = ("tuning", "tuning-alone")


def compare(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What each lever is worth, a row a size, task, measure and lever.

    A row holds ``full`` and ``off`` (means over seeds), ``worth`` (positive where the lever helps) with ``ci``, ``p``,
    ``n`` items, ``seeds``, whether the two were asked the same items, and where they were ``adjusted`` (Holm over these
    rows), else None: such a row decides nothing.
    """
    by = {(r["task"], r["size"], r["arm"], r["seed"]): r for r in results}
    sizes = sorted({r["size"] for r in results}, key=lambda size: SIZES.index(size) if size in SIZES else -1)
    rows = []
    for size in sizes:
        for task in TASKS:
            for measure in MEASURES[task]:
                pairs = {}
                for lever in LEVERS:
                    seeds = sorted(
                        s for t, z, a, s in by
                        if (t, z, a) == (task, size, "full") and (task, size, lever.arm, s) in by
                    )  # fmt: skip
                    pairs[lever.arm] = [(by[task, size, "full", s], by[task, size, lever.arm, s]) for s in seeds]
                for arm, both in pairs.items():
                    # Models with a tenth of the practice differ much more from seed to seed than the others do.
                    like = [each for name, each in pairs.items() if (name in _BRIEF) == (arm in _BRIEF)]
                    row = _row(both, measure, typical(like, measure))
                    if row is not None:
                        rows.append({"size": size, "task": task, "measure": measure, "lever": arm, **row})
    paired = [row for row in rows if row["same_items"]]
    adjusted = dict(zip(map(id, paired), holm([row["p"] for row in paired]), strict=True))
    return [{**row, "adjusted": adjusted.get(id(row))} for row in rows]


def complete(results: Sequence[Result]) -> dict[str, list[str]]:
    """By size the levers of which every task has every seed, with the lever on and off."""
    there = {(r["task"], r["size"], r["arm"], r["seed"]) for r in results}
    return {
        size: [
            lever.arm for lever in LEVERS
            if all((t, size, arm, s) in there for t in TASKS for arm in ("full", lever.arm) for s in range(SEEDS))
        ]
        for size in SIZES
    }  # fmt: skip


def typical(comparisons: Sequence[Sequence[tuple[Result, Result]]], measure: str) -> float | None:
    """How much seeds differ in a measure: the pooled standard deviation over like levers; None where none has two."""
    squares, freedom = 0.0, 0
    for pairs in comparisons:
        if len(pairs) > 1 and all(measure in r["measures"] for pair in pairs for r in pair):
            each = [full["measures"][measure]["score"] - off["measures"][measure]["score"] for full, off in pairs]
            squares, freedom = squares + float(np.var(each)) * len(each), freedom + len(each) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _row(pairs: Sequence[tuple[Result, Result]], measure: str, spread: float | None) -> dict[str, Any] | None:
    """One comparison; None where there is no seed of both, or the measure means something else in the two."""
    if not pairs or any(measure not in r["measures"] for pair in pairs for r in pair):
        return None
    same = pairs[0][0]["judged_on"] == pairs[0][1]["judged_on"]
    full, off = ([pair[i]["measures"][measure] for pair in pairs] for i in (0, 1))
    if measure == "bits_per_byte":
        if not same:
            return None  # other texts have other bits in them
        found = difference([_bits(m) for m in off], [_bits(m) for m in full], bits_rate, spread)  # fewer are better
        n = len(full[0]["nats"])
    elif same:
        found = difference([_hits(m) for m in full], [_hits(m) for m in off], _mean, spread)
        n = len(full[0]["right"])
    else:
        found = apart([_right(m) for m in full], [_right(m) for m in off])
        n = min(len(full[0]["right"]), len(off[0]["right"]))
    return {
        "full": float(np.mean([m["score"] for m in full])), "off": float(np.mean([m["score"] for m in off])),
        "worth": found.difference, "ci": [found.low, found.high], "p": found.p_value, "n": n, "seeds": len(pairs),
        "same_items": same,
    }  # fmt: skip


def difference(
    a: Sequence[Floats], b: Sequence[Floats], statistic: Callable[[Floats], Floats], spread: float | None = None
) -> Paired:  # fmt: skip
    """Statistic of a minus that of b on the same items, the mean over seeds of both.

    `paired_statistic` compares seeds of one candidate with a fixed one. Here each seed of a stands with one of b and is
    itself the difference; the fixed candidate is compared with itself, which is 0 however the items are drawn.

    Args:
        a: For each seed ``(n, d)`` numbers whose sums over items the statistic reads.
        b: The same of the other arm.
        statistic: From ``(k, d)`` sums to ``(k,)`` scores.
        spread: How much seeds differ in such comparisons (`typical`).
    """
    width = a[0].shape[1]

    def gap(sums: Floats) -> Floats:
        return np.asarray(statistic(sums[:, :width]) - statistic(sums[:, width:]))

    stacked = [np.hstack([x, y]) for x, y in zip(a, b, strict=True)]
    return paired_statistic(stacked, np.hstack([b[0], b[0]]), gap, resamples=_RESAMPLES, typical=spread)


def apart(a: Sequence[Floats], b: Sequence[Floats]) -> Paired:
    """Difference of two shares of right answers to different items.

    Each share, the mean over seeds, has Wilson's interval widened by the seeds' spread; the two are joined by
    square-and-add (Newcombe 1998, Statistics in Medicine 17:873, method 10). The p-value is the normal one of the
    joined interval.
    """
    (ma, la, ua), (mb, lb, ub) = (_share(x) for x in (a, b))
    gap = ma - mb
    low, high = gap - math.hypot(ma - la, ub - mb), gap + math.hypot(ua - ma, mb - lb)
    error = (high - low) / 2 / normal_quantile(0.95)
    return Paired(gap, low, high, math.erfc(abs(gap) / error / math.sqrt(2)) if error else 1.0)


def _share(seeds: Sequence[Floats]) -> tuple[float, float, float]:
    each = [float(np.mean(right)) for right in seeds]
    middle, n = float(np.mean(each)), len(seeds[0])
    return middle, *join_seed_spread(middle, *wilson(middle * n, n), each)


def _right(measure: dict[str, Any]) -> Floats:
    return np.array([c == "1" for c in measure["right"]], dtype=np.float64)


def _hits(measure: dict[str, Any]) -> Floats:
    right = _right(measure)
    return np.stack([right, np.ones_like(right)], axis=1)


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[:, 0] / sums[:, 1])


def _bits(measure: dict[str, Any]) -> Floats:
    return np.array([measure["nats"], measure["bytes"]], dtype=np.float64).T


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """What docs/results/levers.json holds: every unit without its items, and all comparisons."""
    units = []
    for result in sorted(results, key=lambda r: (r["size"], TASKS.index(r["task"]), ARMS.index(r["arm"]), r["seed"])):
        kept = {k: v for k, v in result.items() if k not in ("measures", "identity", "key")}
        units.append({**kept, "scores": {name: m["score"] for name, m in result["measures"].items()}})
    missing = len(TASKS) * len(SIZES) * len(ARMS) * SEEDS - len(units)
    seconds = sum(result["seconds"] for result in results)
    return {
        "units": units, "missing": max(0, missing), "complete": complete(results), "core_seconds": seconds,
        "comparisons": compare(results),
    }  # fmt: skip


# ---- in words -------------------------------------------------------------------------------------------------------

NAMES = {"clinc150": "CLINC150", "commands": "commands", "stories": "stories"}


def blocks(record: dict[str, Any] | None) -> dict[str, list[str]]:
    """The generated parts of docs/levers.md by name: ``short``, ``table``, ``cost``, and one a lever."""
    if record is None or not record["comparisons"]:
        nothing = ["Nothing is measured yet: `python benchmarks/levers.py --data DIR --write` does it."]
        return {"short": nothing, "table": nothing, "cost": nothing, **{lever.arm: nothing for lever in LEVERS}}
    rows = record["comparisons"]
    found = {"short": _short(rows), "table": _table(rows), "cost": _cost(record)}
    found |= {lever.arm: _sentences([row for row in rows if row["lever"] == lever.arm]) for lever in LEVERS}
    found["vocabulary"] += _text_read(record)
    found["tuning-alone"] += _text_before(rows)
    return found


def _text_before(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a tenth of the practice gives with general text before it and without: 5a's off arm beside 5b's."""
    off = {(r["size"], r["task"], r["measure"], r["lever"]): r["off"] for r in rows}
    parts = []
    for (size, task, measure, lever), without in off.items():
        with_it = off.get((size, task, measure, "tuning"))
        if lever == "tuning-alone" and with_it is not None:
            values = f"{_score(measure, with_it)} with it and {_score(measure, without)} without"
            parts.append(f"{NAMES[task]} at {size}, {TITLES[measure]}, {values}")
    return ["", f"General text before the tenth: {'; '.join(parts)}."] if parts else []


def _text_read(record: dict[str, Any]) -> list[str]:
    """How many more tokens the task's text has where the vocabulary is general."""
    by = {(u["task"], u["size"], u["arm"], u["seed"]): u["tokens_a_pass"] for u in record["units"]}
    more = [tokens / by[t, z, "full", s] - 1 for (t, z, a, s), tokens in by.items()
            if a == "vocabulary" and (t, z, "full", s) in by]  # fmt: skip
    if not more:
        return []
    low, high = (f"{100 * x:.0f}" for x in (min(more), max(more)))
    return ["", f"With the general vocabulary a pass over the task's text has {low} to {high}% more tokens."]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| size | task | measure | lever | all on | this one off | worth | 95% interval | p (Holm) |", "|" + "---|" * 9
    ]  # fmt: skip
    for row in rows:
        lever = next(lever for lever in LEVERS if lever.arm == row["lever"])
        measure, worth = row["measure"], row["worth"]
        low, high = (_signed(measure, x) for x in row["ci"])
        name = TITLES[measure] + ("" if row["same_items"] else " \\*")
        lines.append(
            f"| {row['size']} | {NAMES[row['task']]} | {name} | {lever.number} {lever.title} "
            f"| {_score(measure, row['full'])} | {_score(measure, row['off'])} | {_signed(measure, worth)} "
            f"| {low} to {high} | {'' if row['adjusted'] is None else _p(row['adjusted'])} |"
        )
    return lines


def _cost(record: dict[str, Any]) -> list[str]:
    rows = record["comparisons"]
    least = min(row["seeds"] for row in rows)
    paired = sum(row["adjusted"] is not None for row in rows)
    left = f" {record['missing']} units of the grid are not measured yet." if record["missing"] else ""
    return [
        f"{len(record['units'])} trainings, {record['core_seconds'] / 3600:.1f} core-hours; every comparison has at "
        f"least {least} seed{'s' if least > 1 else ''}. {paired} comparisons share Holm's correction.{left}"
    ]


def _short(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a lever: the least and the most it is worth, by kind of measure, and in how many comparisons it helps."""
    lines = [
        "| lever | jobs, points | questions about stories, points | bits per byte saved | helps in | undecided |",
        "|" + "---|" * 6,
    ]  # fmt: skip
    for lever in LEVERS:
        mine = [row for row in rows if row["lever"] == lever.arm]
        if not mine:
            continue
        jobs = [r for r in mine if r["task"] != "stories"]
        bits = [r for r in mine if r["measure"] == "bits_per_byte"]
        asked = [r for r in mine if r["task"] == "stories" and r not in bits]
        words = [_shown(r) for r in mine if r["adjusted"] is not None]
        cells = [f"{lever.number} {lever.title}", *(_range(part) for part in (jobs, asked, bits))]
        cells += [f"{words.count('helps')} of {len(words)}", str(words.count("undecided"))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _range(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    least, most = min(rows, key=lambda r: r["worth"]), max(rows, key=lambda r: r["worth"])
    return " to ".join(_signed(r["measure"], r["worth"]) for r in (least, most))


def _sentences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence a size: where the lever helps, hurts or neither can be said; the table has the rest."""
    if not rows:
        return ["Not measured yet."]
    lines = []
    for size in dict.fromkeys(row["size"] for row in rows):
        here = [row for row in rows if row["size"] == size]
        parts = []
        for word, said in (("helps", "it helps"), ("hurts", "it hurts"), ("undecided", "undecided")):
            found = [_part(row) for row in here if row["adjusted"] is not None and _shown(row) == word]
            parts += [f"{said}: {', '.join(found)}"] * bool(found)
        other = [_part(row) for row in here if row["adjusted"] is None]
        parts += [f"other questions in the two arms, so not tested: {', '.join(other)}"] * bool(other)
        lines.append(f"At {size}, {'; '.join(parts)}.")
    return lines


def _part(row: dict[str, Any]) -> str:
    unit = " bits per byte" if row["measure"] == "bits_per_byte" else ""
    title = "" if unit else f" {TITLES[row['measure']]}"
    return f"{NAMES[row['task']]}{title} {_signed(row['measure'], row['worth'])}{unit}"


def _shown(row: dict[str, Any]) -> str:
    if row["adjusted"] >= 0.05:
        return "undecided"
    return "helps" if row["worth"] > 0 else "hurts"


def _score(measure: str, value: float) -> str:
    return f"{value:.3f}" if measure == "bits_per_byte" else f"{100 * value:.1f}"


def _signed(measure: str, value: float) -> str:
    text = f"{value:+.3f}" if measure == "bits_per_byte" else f"{100 * value:+.1f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def filled(text: str, parts: dict[str, list[str]]) -> str:
    """A page with its generated parts replaced: what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises:
        ValueError: The page lacks the markers of a part.
    """
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"the page has no {begin} ... {end}")
        text = "\n".join([before + begin, *lines, end]) + after
    return text
