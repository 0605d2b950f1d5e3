"""What the numbers say, in sentences: the same ones in the page, the Markdown file and the terminal."""

from __future__ import annotations

import math
import shlex
from pathlib import PurePath

from ..evals.statistics import difference_behind, minimum_detectable_difference
from ..record import Assessment, Row
from .format import (
    METRIC_NAMES,
    bytes_text,
    count_text,
    difference_text,
    interval_text,
    one_line,
    p_text,
    params_text,
    score_text,
    target_text,
)

TYPE_WORDS = {"lm": "trained from scratch", "baseline": "baseline", "combined": "combined", "pretrained": "pretrained"}
VERDICT_WORDS = {"workable": "workable", "not": "not workable", "undecided": "undecided"}
_GROUPS = (
    ("lm", "Language models trained from scratch"),
    ("combined", "Language model and baseline combined"),
    ("pretrained", "Pretrained models"),
    ("baseline", "Baselines"),
)
NO_TARGET = "no target"
HOW_CHOSEN = (
    "Settings and weights were chosen on the validation rows. Test rows give the scores and the verdicts; the smallest "
    "rung whose verdict is workable is shipped, else the best on validation rows, and verdicts decide how far the "
    "ladder is climbed and which rungs get more seeds. Each rung's interval stands for itself: of several rungs that "
    "are all a little below the target, one may cross it by chance more often than one in forty."
)
EXTRAPOLATED = "Read off a curve through the rungs above, not measured."


def verdict_word(row: Row) -> str:
    """The verdict in words; ``no target`` where there is none."""
    return VERDICT_WORDS[row.verdict] if row.verdict else NO_TARGET


def best(assessment: Assessment, *types: str) -> Row | None:
    """The row with the best score among the given types (all when none is given), or None."""
    rows = [r for r in assessment.rows if (not types or r.type in types) and math.isfinite(r.score)]
    if not rows:
        return None
    sign = 1 if assessment.job.higher_is_better else -1
    return max(rows, key=lambda r: sign * r.score)


def chosen(assessment: Assessment) -> Row | None:
    """The model the report is about: the one that is shipped."""
    found = [r for r in assessment.rows if r.name == (assessment.shipped or assessment.smallest) and r.type == "lm"]
    return found[0] if found else best(assessment, "lm") or best(assessment, "combined", "pretrained")


def params_words(row: Row) -> str:
    """The parameter count with its noun."""
    return "1 parameter" if row.params == 1 else f"{params_text(row.params)} parameters"


def size_words(row: Row) -> str:
    """Parameters and bytes as one phrase, leaving out what is unknown."""
    parts = [params_words(row)] if row.params is not None else []
    parts += [bytes_text(row.bytes)] if row.bytes is not None else []
    return " in ".join(parts)


def score_words(assessment: Assessment, row: Row) -> str:
    """A score with its interval: ``96.2% (95% interval 95.1 to 97.0)``."""
    metric = assessment.job.metric
    return f"{score_text(metric, row.score)} (95% interval {interval_text(metric, row.ci)})"


def headline(assessment: Assessment) -> str:
    """The verdict in one sentence."""
    job, row = assessment.job, chosen(assessment)
    if row is not None and row.name == assessment.smallest:
        size = size_words(row)
        below = [r for r in assessment.rows if r.type == "lm" and (r.params or 0) < (row.params or 0)]
        open_ = [one_line(r.name, 40) for r in below if r.verdict == "undecided"]
        but = f" ({' and '.join(open_)} undecided)" if open_ else ""
        return f"The smallest workable rung is {one_line(row.name, 40)}{but}" + (f": {size}." if size else ".")
    if row is None or not any(r.type == "lm" for r in assessment.rows):
        return "No rung was measured, so there is no verdict."
    name, score = one_line(row.name, 40), score_text(job.metric, row.score)
    if job.target is None:
        return f"No target was set, so there is no verdict; {name} scores best: {score} {METRIC_NAMES[job.metric]}."
    goal = f"the target of {target_text(job.metric, job.target)}"
    if any(r.verdict == "undecided" and r.type == "lm" for r in assessment.rows):
        return f"No rung is proven workable yet: {name} scores {score} and {goal} is still within reach."
    return f"No rung is workable: {name} scores best, {score}, and misses {goal}."


def lead(assessment: Assessment) -> str:
    """The sentences under the headline: the score behind it, and how it stands against the best baseline."""
    job, row = assessment.job, chosen(assessment)
    if row is None:
        return ""
    goal = f", against a target of {target_text(job.metric, job.target)}" if job.target is not None else ""
    on = f" on {count_text(job.n_test)} test examples" if job.n_test else ""
    measure = METRIC_NAMES[job.metric] + ("" if job.higher_is_better else " (lower is better)")
    score, interval = score_text(job.metric, row.score), interval_text(job.metric, row.ci)
    sentences = [f"{one_line(row.name, 40)} scores {score} {measure}{on} (95% interval {interval}){goal}."]
    if row.verdict == "undecided" and row.examples_to_decide:
        sentences.append(f"About {count_text(row.examples_to_decide)} more test examples would decide.")
    if row.versus is not None:
        sentences.append(versus_words(assessment, row))
    baseline = best(assessment, "baseline")
    if baseline is None:
        sentences.append("No baseline was measured.")
    elif row.versus is None or row.versus.other != baseline.name:
        sentences.append(
            f"The best baseline, {one_line(baseline.name, 40)}, scores {score_words(assessment, baseline)}."
        )
    others = [r for r in assessment.rows if r.verdict == "workable" and r.type != "lm"]
    if assessment.smallest is None and others:
        names = " and ".join(f"{one_line(r.name, 40)} ({score_text(job.metric, r.score)})" for r in others[:3])
        sentences.append(f"Workable without being a rung: {names}.")
    return " ".join(sentences)


def favours(assessment: Assessment, row: Row) -> int:
    """Whom the paired comparison favours: 1 the row, -1 the other, 0 undecided (the interval holds zero)."""
    if row.versus is None:
        return 0
    ci = row.versus.ci
    if ci is not None and all(math.isfinite(v) for v in ci):
        clear = ci[0] > 0 or ci[1] < 0
    else:
        clear = row.versus.p is not None and row.versus.p < 0.05
    if not clear or not math.isfinite(row.versus.difference):
        return 0
    return 1 if (row.versus.difference > 0) == assessment.job.higher_is_better else -1


def versus_words(assessment: Assessment, row: Row) -> str:
    """The paired comparison as a sentence, or an empty string where there is none."""
    if row.versus is None:
        return ""
    versus, metric = row.versus, assessment.job.metric
    word = {1: "better than", -1: "worse than", 0: "not clearly different from"}[favours(assessment, row)]
    facts = [difference_text(metric, versus.difference)]
    if versus.ci is not None:
        facts.append("95% interval " + " to ".join(difference_text(metric, v, unit=False) for v in versus.ci))
    if versus.p is not None:
        facts.append(p_text(versus.p))
    return f"On the same items it is {word} {one_line(versus.other, 40)} ({', '.join(facts)})."


def model_path(assessment: Assessment) -> str | None:
    """The chosen model's directory as a path to give on the command line, or None."""
    if assessment.model_dir is None:
        return None
    return str(PurePath(assessment.out or "") / assessment.model_dir)


def detectable(assessment: Assessment) -> str:
    """How small a difference the test set can show between the chosen model and what it is compared with, or ""."""
    row = chosen(assessment)
    if row is None or row.versus is None or not row.versus.n_discordant or not row.n:
        return ""
    of_rows = minimum_detectable_difference(row.n, row.versus.n_discordant / row.n)
    if of_rows is None:
        return ""
    interval = row.versus.ci if len(row.seeds) > 1 else None  # what seeds differ by comes to what rows do
    least = max(of_rows, difference_behind(*interval)) if interval else of_rows
    shown = difference_text(assessment.job.metric, least).lstrip("+")
    seeds = f" and {seeds_word(row)}" if interval else ""
    return (
        f"{count_text(row.n)} test examples{seeds} show a true difference of {shown} or more between "
        f"{one_line(row.name, 40)} and {one_line(row.versus.other, 40)} four times in five; smaller ones need more."
    )


def use_commands(assessment: Assessment) -> list[tuple[str, str]]:
    """How to use the chosen model: (what for, command) pairs; empty when there is no model."""
    path = model_path(assessment)
    if path is None:
        return []
    inputs = [s.input for s in assessment.samples] + [e.input for e in assessment.errors]
    text = next((clean for clean in map(one_line, inputs) if 0 < len(clean) <= 60), "your text")
    where, example = shlex.quote(one_line(path)), shlex.quote(text)
    return [
        ("Answer one input", f"smallfry run {where} {example}"),
        ("Answer a file", f"smallfry run {where} --input inputs.jsonl"),
        ("From Python", f"import smallfry\nmodel = smallfry.load({one_line(path)!r})\nprint(model({text!r}))"),
    ]


def seeds_word(row: Row) -> str:
    """How many seeds a row's score rests on."""
    return "" if not row.seeds else "1 seed" if len(row.seeds) == 1 else f"{len(row.seeds)} seeds"


def seed_spread(assessment: Assessment, row: Row) -> str:
    """Number of seeds with their lowest and highest score, or an empty string for fewer than two."""
    scores = [s.score for s in row.seeds if math.isfinite(s.score)]
    if len(scores) < 2:
        return seeds_word(row)
    return f"{len(row.seeds)} seeds, {interval_text(assessment.job.metric, (min(scores), max(scores)))}"


def grouped(a: Assessment) -> list[tuple[str, list[Row]]]:
    """Rows in the order every form of the report shows them: rungs by size, the others best first."""
    sign = -1 if a.job.higher_is_better else 1
    found = []
    for kind, title in _GROUPS:
        rows = [r for r in a.rows if r.type == kind]
        if kind == "lm":
            rows.sort(key=lambda r: r.params or 0)
        else:
            rows.sort(key=lambda r: sign * r.score if math.isfinite(r.score) else math.inf)
        if rows:
            found.append((title, rows))
    return found
