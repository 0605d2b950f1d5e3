"""The report as Markdown, compact, for a repository or an issue."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

from ..record import Assessment, Row
from . import words
from .format import (
    METRIC_NAMES,
    MISSING,
    bytes_text,
    clean,
    count_text,
    difference_text,
    interval_text,
    milliseconds_text,
    one_line,
    p_text,
    params_text,
    score_text,
    seconds_text,
    target_text,
)

_MAX_EXAMPLES = 15
_MAX_CELL = 160


def escape(text: object, limit: int = 0) -> str:
    """Foreign text as one line of Markdown that shows it and nothing else.

    Args:
        text: Anything; converted with ``str``.
        limit: Longest length before an ellipsis; 0 for none.

    Returns:
        Text in which HTML is character references and Markdown's own signs are backslash-escaped.
    """
    flat = html.escape(one_line(text, limit), quote=False)
    flat = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", flat)
    # A list, a rule or a numbered item needs its sign at the start of a line.
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^([-+=])", r"\\\1", flat))


def render_markdown(assessment: Assessment, figures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report.

    Args:
        assessment: The record.
        figures: (alternative text, relative path) of the figures beside the file.

    Returns:
        Markdown with tables, as GitHub shows it.
    """
    a = assessment
    parts = [f"# {escape(words.headline(a))}", escape(words.lead(a))]
    parts += [f"**Advice:** {escape(a.advice)}"] if a.advice.strip() else []
    parts += [_candidates(a)]
    parts += [f"![{escape(text)}]({path})" for text, path in figures]
    parts += [_prediction(a), _pilot(a), _errors(a), _samples(a), _data(a), _use(a), _method(a)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fence(code: str) -> str:
    text = clean(code)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _candidates(a: Assessment) -> str:
    metric = a.job.metric
    if not a.rows:
        return "## Candidates\n\nNo candidate was measured."
    goal = "" if a.job.target is None else f", target {target_text(metric, a.job.target)}"
    lower = "" if a.job.higher_is_better else ", lower is better"
    head = [
        "candidate",
        "type",
        f"{METRIC_NAMES[metric]} (95% interval)",
        "seeds",
        "verdict",
        "parameters",
        "size",
        "training",
        "one answer",
        "paired difference",
    ]
    rows = [
        [
            f"**{escape(r.name, 60)}**" if r is words.chosen(a) else escape(r.name, 60),
            r.type,
            f"{score_text(metric, r.score)} ({interval_text(metric, r.ci)})",
            str(len(r.seeds) or MISSING),
            words.verdict_word(r),
            params_text(r.params),
            bytes_text(r.bytes),
            seconds_text(r.train_seconds),
            milliseconds_text(r.latency_ms),
            _versus(a, r),
        ]
        for _, group in words.grouped(a)
        for r in group
    ]
    notes = [f"- {escape(r.name, 60)}: {escape(r.note)}" for r in a.rows if r.note]
    notes += [
        f"- {escape(r.name, 60)}: about {count_text(r.examples_to_decide)} more test examples would decide."
        for r in a.rows
        if r.examples_to_decide and r.verdict == "undecided"
    ]
    where = f"{escape(a.job.name, 60)} ({a.job.kind}), {count_text(a.job.n_test)} test examples{goal}{lower}."
    return "\n\n".join(part for part in ("## Candidates", where, _table(head, rows), "\n".join(notes)) if part)


def _versus(a: Assessment, row: Row) -> str:
    if row.versus is None:
        return MISSING
    facts = [difference_text(a.job.metric, row.versus.difference), f"against {escape(row.versus.other, 40)}"]
    if row.versus.ci is not None:
        ends = " to ".join(difference_text(a.job.metric, v, unit=False) for v in row.versus.ci)
        facts.append(f"({ends})")
    return " ".join(facts) + ("" if row.versus.p is None else f", {escape(p_text(row.versus.p))}")


def _prediction(a: Assessment) -> str:
    if a.prediction is None or not a.prediction.points:
        return ""
    metric = a.job.metric
    rows = [
        [escape(p.name, 60), params_text(p.params), score_text(metric, p.score), interval_text(metric, p.ci)]
        for p in a.prediction.points
    ]
    text = f"**{words.EXTRAPOLATED}** {escape(a.prediction.note)}".rstrip()
    head = ["rung", "parameters", "predicted score", "95% prediction interval"]
    return f"## Rungs that were not trained\n\n{text}\n\n{_table(head, rows)}"


def _pilot(a: Assessment) -> str:
    if not a.pilot:
        return ""
    metric = a.job.metric
    rows = [
        [
            f"**{escape(p.form, 60)}** (chosen)" if p.chosen else escape(p.form, 60),
            count_text(p.vocab_size),
            "lower-cased" if p.lowercase else "kept",
            escape(p.rung, 20),
            score_text(metric, p.score) + (f" ({interval_text(metric, p.ci)})" if p.ci else ""),
            f"{p.loss:.3f}" if p.loss is not None and math.isfinite(p.loss) else MISSING,
            seconds_text(p.seconds),
        ]
        for p in a.pilot
    ]
    head = ["output form", "vocabulary", "case", "rung", "validation score", "loss (nats)", "time"]
    return f"## Pilot\n\n{_table(head, rows)}"


def _errors(a: Assessment) -> str:
    if not a.errors:
        return "## What it gets wrong\n\nNo wrong answer was recorded."
    rows = [
        [
            escape(e.input, _MAX_CELL) or "(empty)",
            escape(e.expected, _MAX_CELL) or "(empty)",
            escape(e.got, _MAX_CELL) or "(empty)",
            f"{100 * e.confidence:.0f}%" if e.confidence is not None and math.isfinite(e.confidence) else MISSING,
        ]
        for e in a.errors[:_MAX_EXAMPLES]
    ]
    more = (
        f"\n\n{_MAX_EXAMPLES} of {len(a.errors):,}; assessment.json has all." if len(a.errors) > _MAX_EXAMPLES else ""
    )
    return f"## What it gets wrong\n\n{_table(['input', 'expected', 'answered', 'confidence'], rows)}{more}"


def _samples(a: Assessment) -> str:
    if not a.samples:
        return ""
    rows = [
        [escape(text, _MAX_CELL) or "(empty)" for text in (s.input, s.output, s.expected)]
        for s in a.samples[:_MAX_EXAMPLES]
    ]
    return f"## What it answers\n\n{_table(['input', 'answer', 'expected'], rows)}"


def _data(a: Assessment) -> str:
    job = a.job
    counts = (
        f"{count_text(job.n_train)} training, {count_text(job.n_valid)} validation, {count_text(job.n_test)} test rows"
    )
    lines = [f"- {counts} from {escape(job.source) or 'an unnamed source'}"]
    lines += [f"- **Warning:** {escape(w)}" for w in job.warnings]
    lines += [f"- {escape(n)}" for n in job.notes]
    lines += _bullets(job.card)
    return "## The data\n\n" + "\n".join(lines)


def _bullets(data: dict[str, object], depth: int = 0) -> list[str]:
    lines = []
    for key, value in data.items():
        name = escape(str(key).replace("_", " "), 60)
        if isinstance(value, dict) and depth < 3:
            lines += [f"{'  ' * depth}- {name}:", *_bullets(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}- {name}: {escape(_flat(value), 300)}")
    return lines


def _flat(value: object) -> str:
    """A JSON value on one line, in words where JSON has signs."""
    if value is None or isinstance(value, bool):
        return MISSING if value is None else "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value)) or "none"
    return str(value)


def _use(a: Assessment) -> str:
    commands = [code for _, code in words.use_commands(a)]
    return "## Use the model\n\n" + ("\n\n".join(_fence(c) for c in commands) or "No model was saved.")


def _method(a: Assessment) -> str:
    seeds = sorted({s.seed for r in a.rows for s in r.seeds})
    facts: dict[str, object] = {"took": seconds_text(a.seconds)}
    facts |= {"started": a.started} if a.started else {}
    facts |= {"seeds": ", ".join(map(str, seeds))} if seeds else {}
    blocks = {"settings": a.settings, "versions": a.versions, "machine": a.machine, "SHA-256": a.job.hashes}
    facts |= {name: block for name, block in blocks.items() if block}
    command = [_fence(one_line(a.command))] if a.command.strip() else []
    detectable = [escape(words.detectable(a))] if words.detectable(a) else []
    return "\n\n".join(
        ["## How this was measured", words.HOW_CHOSEN, *detectable, *command, "\n".join(_bullets(facts))]
    )
