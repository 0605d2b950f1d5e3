"""The report as one self-contained HTML page: no script, no request, everything from the data escaped."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..record import Assessment, Row
from . import words
from .charts import axis_ranges, marks, score_by_size
from .curves import learning_curves
from .format import (
    METRIC_NAMES,
    MISSING,
    bytes_text,
    count_text,
    difference_text,
    interval_text,
    is_share,
    milliseconds_text,
    one_line,
    p_text,
    params_text,
    score_text,
    seconds_text,
    target_text,
)
from .markup import Child, Markup, h, join, pairs, table, verbatim
from .style import CHART, PAGE, TOKENS
from .svg import NARROW, WIDE, Chart, Drawing, Scale

# No script and no request of any kind, whatever a model's output says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MAX_EXAMPLES = 40


def render_html(assessment: Assessment) -> str:
    """The whole page.

    Args:
        assessment: The record.

    Returns:
        An HTML document that needs nothing beside it.
    """
    sections = (
        _candidates,
        _figure,
        _prediction,
        _curves,
        _pilot,
        _errors,
        _samples,
        _data,
        _use,
        _method,
    )
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=POLICY),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", f"{one_line(assessment.job.name, 60)}: {words.headline(assessment)}"),
        Markup(f"<style>{TOKENS}{CHART}{PAGE}</style>"),
    )
    main = h("main", _header(assessment), *(section(assessment) for section in sections), _footer(assessment))
    return f'<!doctype html>\n<html lang="en">{head}<body>{main}</body></html>\n'


def _section(title: str, *children: Child, id_: str | None = None) -> Markup:
    return h("section", h("h2", title), *children, id_=id_)


def _header(a: Assessment) -> Markup:
    eyebrow = f"smallfry assessment of {one_line(a.job.name, 80)}, a {a.job.kind} job"
    advice = h("p.advice", h("b", "Advice"), one_line(a.advice)) if a.advice.strip() else None
    lead = words.lead(a)
    count = len(a.job.warnings)
    warned = "" if not count else "one thing" if count == 1 else f"{count} things"
    return h(
        "header",
        h("p.eyebrow", eyebrow),
        h("h1", words.headline(a)),
        h("p.lead", lead) if lead else None,
        advice,
        h("p.soft", f"The data check warns of {warned}: see ", h("a", "The data", href="#data"), ".")
        if warned
        else None,
        _facts(a),
    )


def _facts(a: Assessment) -> Markup | None:
    row = words.chosen(a)
    if row is None:
        return None
    metric = a.job.metric
    entries: list[tuple[str, str, str]] = [
        (METRIC_NAMES[metric], score_text(metric, row.score), f"95% interval {interval_text(metric, row.ci)}"),
        ("size on disk", bytes_text(row.bytes), words.params_words(row)),
        ("one answer", milliseconds_text(row.latency_ms), "median, one at a time"),
        ("training", seconds_text(row.train_seconds), f"each of {len(row.seeds)} seeds" if len(row.seeds) > 1 else ""),
    ]
    if row.versus is not None:
        difference = difference_text(metric, row.versus.difference)
        top = words.best(a, "baseline")
        label = "against the best baseline" if top and top.name == row.versus.other else "paired difference"
        entries.append((label, difference, f"{one_line(row.versus.other, 40)}, {p_text(row.versus.p)}"))
    cells = [
        h("div", h("dt", f"{one_line(row.name, 24)}: {label}" if i == 0 else label), h("dd", value, h("small", sub)))
        for i, (label, value, sub) in enumerate(entries)
        if value != MISSING
    ]
    return h("dl.facts", *cells)


_COLUMNS = ("Candidate", "Score", "95% interval", "Verdict", "Size", "Training", "One answer")


def _candidates(a: Assessment) -> Markup:
    if not a.rows:
        return _section("Candidates", h("p.soft", "No candidate was measured."))
    strip = _strip_renderer(a)
    others = {row.versus.other for row in a.rows if row.versus}
    last = f"Against {one_line(others.copy().pop(), 40)}" if len(others) == 1 else "Paired difference"
    judged = any(row.verdict for row in a.rows)
    columns = tuple(c for c in (*_COLUMNS, last) if (others or c != last) and (judged or c != "Verdict"))
    body: list[Child] = []
    for title, rows in words.grouped(a):
        body.append(h("tr.group", h("th", title, colspan=str(len(columns)), role="rowheader"), role="row"))
        body += [_candidate(a, row, strip, columns, len(others) > 1) for row in rows]
    headers = [h("th", title, scope="col", role="columnheader") for title in columns]
    grid = h(
        "table.stack",
        h("thead", h("tr", *headers, role="row"), role="rowgroup"),
        h("tbody", *body, role="rowgroup"),
        role="table",
    )
    goal = "No target was set, so no candidate has a verdict."
    if a.job.target is not None:
        side = ("lower", "at or above") if a.job.higher_is_better else ("upper", "at or below")
        goal = (
            f"Workable: the {side[0]} end of the 95% interval is {side[1]} the target of "
            f"{target_text(a.job.metric, a.job.target)}. Not workable: the whole interval misses it. "
            "Undecided: the interval holds the target."
        )
    lower = "" if a.job.higher_is_better else " A lower score is better."
    return _section("Candidates", h("p.soft", goal + lower), h("div.scroll", grid), _more_numbers(a))


def _candidate(
    a: Assessment, row: Row, strip: Callable[[Row], Markup], columns: tuple[str, ...], name_other: bool
) -> Markup:
    metric, judged = a.job.metric, "Verdict" in columns
    decide = row.examples_to_decide if row.verdict == "undecided" else None
    wait = h("span.sub", f"about {count_text(decide)} more test examples would decide") if decide else None
    size = bytes_text(row.bytes) if row.bytes is not None else MISSING
    parts = h("span.sub", words.params_words(row)) if row.params is not None else None
    cells: list[tuple[str, Child, str]] = [
        ("td.num", join([score_text(metric, row.score), h("span.sub", words.seeds_word(row))]), ""),
        ("td.num", join([strip(row), h("span.sub", interval_text(metric, row.ci))]), ""),
        *([("td", join([h(f"span.badge.{row.verdict or 'none'}", words.verdict_word(row)), wait]), "")] * judged),
        ("td.num", join([size, parts]), size if parts is None else ""),
        ("td.num", seconds_text(row.train_seconds), seconds_text(row.train_seconds)),
        ("td.num", milliseconds_text(row.latency_ms), milliseconds_text(row.latency_ms)),
        ("td.span", _versus(a, row, name_other), MISSING if row.versus is None else ""),
    ]
    name = h("th", one_line(row.name, 60), h("span.sub", one_line(row.note)) if row.note else None, scope="row")
    shown = [
        h(kind + (".blank" if value == MISSING else ""), h("div", content), data_label=title, role="cell")
        for (kind, content, value), title in zip(cells, columns[1:], strict=False)
    ]
    return h("tr.chosen" if row is words.chosen(a) else "tr", name, *shown, role="row")


def _versus(a: Assessment, row: Row, name_other: bool) -> Markup:
    if row.versus is None:
        return join([MISSING])
    tone = {1: "b.better", -1: "b.worse", 0: "span"}[words.favours(a, row)]
    metric = a.job.metric
    facts = [f"against {one_line(row.versus.other, 40)}"] if name_other else []
    if row.versus.ci is not None:
        facts.append(" to ".join(difference_text(metric, v, unit=False) for v in row.versus.ci))
    differ = f", {count_text(row.versus.n_discordant)} differ" if row.versus.n_discordant is not None else ""
    facts += [p_text(row.versus.p) + differ] if row.versus.p is not None else []
    subs = [h("span.sub.nowrap" if i else "span.sub", fact) for i, fact in enumerate(facts)]
    return join([h(tone, difference_text(metric, row.versus.difference)), *subs])


def _strip_renderer(a: Assessment) -> Callable[[Row], Markup]:
    """A drawer of small interval strips that share one scale, so that a column of them can be compared by eye."""
    shown = marks(a)
    lo, hi = axis_ranges(a, shown)[1] if shown else (0.0, 1.0)
    scale = Scale(lo, hi, 7.0, 125.0)

    def strip(row: Row) -> Markup:
        if not math.isfinite(row.score):
            return join([])
        name = f"strip{a.rows.index(row)}"
        text = f"{one_line(row.name)}: {score_text(a.job.metric, row.score)}, {interval_text(a.job.metric, row.ci)}"
        drawing = Drawing(132, 22, name, text, "interval on the scale of the figure below")
        drawing.root.set("class", "sf-chart strip")
        drawing.line(2, 11, 130, 11, "sf-grid")
        if a.job.target is not None:
            drawing.line(scale.clamp(a.job.target), 1, scale.clamp(a.job.target), 21, "sf-target")
        low, high = (scale.clamp(v) if math.isfinite(v) else scale.clamp(row.score) for v in row.ci)
        drawing.line(low, 11, high, 11, f"sf-bar sf-{row.type}")
        at = scale.clamp(row.score)
        if lo <= row.score <= hi:
            drawing.add("circle", f"sf-point sf-{row.type}", cx=at, cy=11.0, r=4.5)
        else:  # beyond the scale: an arrow pointing outwards
            out = -6.0 if row.score < lo else 6.0
            corners = f"{at - out / 2:g},6 {at - out / 2:g},16 {at + out:g},11"
            drawing.add("polygon", f"sf-point sf-{row.type}", points=corners)
        return Markup(drawing.render())

    return strip


def _more_numbers(a: Assessment) -> Markup | None:
    """Each seed's score and every further metric, folded away."""
    names = sorted({name for row in a.rows for name in row.metrics})
    if not names and not any(len(row.seeds) > 1 for row in a.rows):
        return None
    rows: list[list[Child]] = []
    for _, group in words.grouped(a):
        for row in group:
            seeds = ", ".join(f"{score_text(a.job.metric, s.score)} (seed {s.seed})" for s in row.seeds)
            values = [f"{row.metrics[n]:.4g}" if n in row.metrics else MISSING for n in names]
            rows.append([one_line(row.name, 60), count_text(row.n) if row.n else MISSING, seeds or MISSING, *values])
    head = ["Candidate", "Test items", "Each seed", *(n.replace("_", " ") for n in names)]
    return h("details", h("summary", "Each seed and further metrics"), h("div.scroll", table(head, rows)))


def _chart_pair(wide: Chart, narrow: Chart) -> Markup:
    return join([h("div.wide", Markup(wide.svg)), h("div.narrow", Markup(narrow.svg))])


def _figure(a: Assessment) -> Markup | None:
    wide, narrow = score_by_size(a, WIDE, "size-wide"), score_by_size(a, NARROW, "size-narrow")
    if wide is None or narrow is None:
        return None
    shown = marks(a)
    (small, _), (low, high) = axis_ranges(a, shown)
    caption = "Bars are 95% intervals."
    if any(not low <= m.score <= high for m in shown):
        caption += " A candidate far outside the scores shown stands at the edge as an arrow with its score."
    if any(not m.size or m.size < small for m in shown):
        caption += " What is far smaller than any rung stands at the left edge."
    return _section("Score against size", h("figure", _chart_pair(wide, narrow), h("figcaption", caption)))


def _prediction(a: Assessment) -> Markup:
    if a.prediction is None or not a.prediction.points:
        note = one_line(a.prediction.note) if a.prediction else ""
        return _section("Rungs that were not trained", h("p.soft", note or "Nothing was extrapolated."))
    metric = a.job.metric
    rows: list[list[Child]] = [
        [one_line(p.name, 60), params_text(p.params), score_text(metric, p.score), interval_text(metric, p.ci)]
        for p in a.prediction.points
    ]
    return _section(
        "Rungs that were not trained",
        h("p", h("b", words.EXTRAPOLATED), " ", one_line(a.prediction.note)),
        table(["Rung", "Parameters", "Predicted score", "95% prediction interval"], rows),
    )


def _curves(a: Assessment) -> Markup | None:
    wide, narrow = learning_curves(a, WIDE, "curves-wide"), learning_curves(a, NARROW, "curves-narrow")
    if wide is None or narrow is None:
        text = "No learning curve was recorded."
        return _section("Learning curves", h("p.soft", text)) if any(r.type == "lm" for r in a.rows) else None
    caption = "Measured on the validation rows; one line a seed, one colour a rung."
    return _section("Learning curves", h("figure", _chart_pair(wide, narrow), h("figcaption", caption)))


def _pilot(a: Assessment) -> Markup | None:
    if not a.pilot:
        return None
    metric = a.job.metric
    rows: list[list[Child]] = []
    for p in a.pilot:
        name = join([one_line(p.form, 60), h("span.sub", "chosen") if p.chosen else None])
        loss = f"{p.loss:.3f}" if p.loss is not None and math.isfinite(p.loss) else MISSING
        score = join([score_text(metric, p.score), h("span.sub", interval_text(metric, p.ci)) if p.ci else None])
        case = "lower-cased" if p.lowercase else "kept"
        rows.append([name, count_text(p.vocab_size), case, one_line(p.rung, 20), score, loss, seconds_text(p.seconds)])
    head = ["Output form", "Vocabulary", "Case", "Rung", "Validation score", "Loss (nats)", "Time"]
    text = "Output forms and vocabularies tried on the smallest rung, scored on the validation rows only."
    return _section("Pilot", h("p.soft", text), table(head, rows, frozenset({1, 5, 6})))


def _errors(a: Assessment) -> Markup:
    row = words.chosen(a)
    name = one_line(row.name, 40) if row else "the model"
    if not a.errors:
        return _section("What it gets wrong", h("p.soft", f"No wrong answer of {name} was recorded."))
    diff = a.job.kind != "classify"
    rows: list[list[Child]] = [
        [
            verbatim(e.input),
            verbatim(e.expected, e.got if diff else None, "expected"),
            verbatim(e.got, e.expected if diff else None, "got"),
            f"{100 * e.confidence:.0f}%" if e.confidence is not None and math.isfinite(e.confidence) else MISSING,
        ]
        for e in a.errors[:_MAX_EXAMPLES]
    ]
    text = f"Test items that {name} answered wrongly, with the confidence it had in its answer."
    if diff:
        text += " Words that differ are marked."
    if len(a.errors) > _MAX_EXAMPLES:
        text += f" {_MAX_EXAMPLES} of {len(a.errors):,} are shown; assessment.json has all."
    grid = table(["Input", "Expected", "Answered", "Confidence"], rows, frozenset({3}), "long")
    return _section("What it gets wrong", h("p.soft", text), grid)


def _samples(a: Assessment) -> Markup | None:
    if not a.samples:
        return None
    head = ["Input", "Answer", "Expected"] if any(s.expected for s in a.samples) else ["Input", "Answer"]
    rows: list[list[Child]] = [
        [verbatim(text) for text in (s.input, s.output, s.expected)[: len(head)]] for s in a.samples[:_MAX_EXAMPLES]
    ]
    return _section("What it answers", table(head, rows, style="long"))


def _data(a: Assessment) -> Markup:
    job = a.job
    warnings = None
    if job.warnings:
        count = "1 warning" if len(job.warnings) == 1 else f"{len(job.warnings)} warnings"
        warnings = h("div.warn", h("b", count), h("ul", *(h("li", one_line(w)) for w in job.warnings)))
    basics: dict[str, object] = {
        "source": job.source or MISSING,
        "training rows": job.n_train,
        "validation rows": job.n_valid,
        "test rows": job.n_test,
    }
    notes = h("ul", *(h("li", one_line(n)) for n in job.notes)) if job.notes else None
    calm = None if job.warnings else h("p.soft", "The data check has no warnings.")
    card = pairs(job.card) if job.card else None
    return _section("The data", warnings, calm, pairs(basics), notes, card, id_="data")


def _use(a: Assessment) -> Markup:
    commands = words.use_commands(a)
    if not commands:
        return _section("Use the model", h("p.soft", "No model was saved."))
    return _section("Use the model", *(join([h("h3", what), h("pre", h("code", code))]) for what, code in commands))


def _method(a: Assessment) -> Markup:
    seeds = sorted({s.seed for r in a.rows for s in r.seeds})
    measured: dict[str, object] = {
        "metric": METRIC_NAMES[a.job.metric] + ("" if a.job.higher_is_better else ", lower is better"),
        "started": a.started or MISSING,
        "took": seconds_text(a.seconds),
        "seeds": ", ".join(map(str, seeds)) or MISSING,
    }
    unit = "points are percentage points; " if is_share(a.job.metric) else ""
    text = (
        f"{words.HOW_CHOSEN} Intervals are 95%; {unit}differences are paired: both candidates answered the same items, "
        "and those that differ are the ones only one of the two has right."
    )
    blocks = [("Settings", a.settings), ("Versions", a.versions), ("Machine", a.machine)]
    plan = {step.what: f"{seconds_text(step.seconds)} planned" for step in a.plan}
    blocks += [("Plan", plan)] if plan else []
    hashes = [
        h("p.soft", f"{one_line(split)} ", h("span.hash", one_line(value))) for split, value in a.job.hashes.items()
    ]
    return _section(
        "How this was measured",
        h("p", text),
        h("p", words.detectable(a)) if words.detectable(a) else None,
        h("pre", h("code", one_line(a.command))) if a.command.strip() else None,
        pairs(measured),
        h("div.columns", *(h("div", h("h3", title), pairs(data)) for title, data in blocks if data)),
        join([h("h3", "SHA-256 of the rows"), *hashes]) if hashes else None,
    )


def _footer(a: Assessment) -> Markup:
    version = a.versions.get("smallfry")
    by = f"smallfry {one_line(version)}" if version else "smallfry"
    return h("footer", f"Written by {by}. Every number here is in assessment.json ({a.format}).")
