"""docs/assessment.md: the founding document section by section, estimate beside measurement."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..report.markdown import escape
from . import cells
from .cells import link, table
from .judging import VERDICTS, Judgement
from .model import KINDS, PLACE, Claims
from .references import Reference, read_reference
from .results import OWN, USE_CASES, Results

FIGURE = "claims/score-by-size.svg"
_SHOWN = 2  # example answers a job, right and wrong
_LIST = ("line", "the sentence", "claim", "verdict", "measured (95% interval)", "beside it")
_INTRODUCTION = """\
# The founding document, measured

The project began with an assessment of whether models of 5M and 1M parameters are workable. It is made of estimates.
This page holds each of its sentences that says something testable against a measurement. `smallfry claims` writes it
from stored results; typed by hand are the sentences, their criteria, what speaks against a verdict, published numbers,
and the words, not the numbers, of the short answer.
"""

_HOW_TO_READ = """\
- The assessment itself is not in this repository; the sentences that can be tested are quoted here, with their lines.
- Every claim has criteria: what supports it and what refutes it ([the list](#what-decides)). They were written before
  the measurements they ask for, but where {seen} stands. Where neither is met it is *undecided*; where something is
  still to be run it is *not measured yet*, and [what would measure it](#still-to-measure) is listed.
- {seen} marks what rests on a measurement that was known when its criterion was written. The suites themselves had been
  asked of earlier models of the same sizes and texts (docs/results/controls.md), so their criteria were written knowing
  about where such models stand.
- {changed}
- {caution} marks verdicts whose criterion turned out to say less than its sentence. Such a criterion is not moved, so
  the verdict stands, and what speaks against it stands with it.
- The counts are no score: many claims say nearly the same and share their measurements.
- Intervals are 95%. Of k measurements for which `some` asks, each crosses its target by chance at most once in forty;
  a claim that rests on a single one of many deserves a second run.
- An interval of a suite covers the questions that were drawn, not the training: verdicts rest on one seed of each
  model ([others](#the-suites-in-full) where they were trained). Jobs join the seeds that are named beside them.
- Controls know nothing: *guessing* draws answers, *untrained* is the same shape before training, *majority* gives the
  most frequent answer. CORE and ChatCORE are centred, so that guessing is 0 and everything right is 100%. Two more are
  shown where they were asked, and do not decide: an *n-gram* model of the same text, and *overlap*, which takes the
  choice that shares most words with the story so far (so names and objects show who forgets, not who understands).
- A sentence that repeats another is judged with it (`as ...`) and is not counted again.
- The models are those of this repository, trained on two cores in hours. A sentence that says what no model of a size
  can do is refuted by one that does it; that these models fail does not show that others of their size, trained for
  longer on more, must.
- Suites: *CORE* and *ChatCORE* are nanochat's collections of public tasks for models before and after tuning for
  conversation; *BLiMP* asks which of two sentences is grammatical, *LAMBADA* for the last word of a passage, *Story
  choices* how a held-out story goes on, who and what was in it, *Conversation* for facts, names, memory and sums of the
  closed world that the chat models were tuned on. A task that cannot leave guessing any more is stopped early, so n
  differs from model to model. docs/eval.md has each in full.
- Jobs: *reverse*, *dates*, *intents* and *commands* come with smallfry, made by generators; the others are public
  sets. *svm* is a linear classifier on words and letters (*cut to 5m*: to the bytes of that model), *crf* a conditional
  random field, *nearest* the answer of the most similar training row. *seeds* differ in nothing else.
- p-values are after Holm's correction for many comparisons.
"""


def render(claims: Claims, judgements: Sequence[Judgement], results: Results, base: str, plan: Sequence[str]) -> str:
    """The page.

    Args:
        claims: The claims.
        judgements: One a claim, in their order.
        results: Where the numbers come from.
        base: Path of the results as seen from the page.
        plan: Commands that would measure what is missing.

    Returns:
        Markdown that ends with a newline.
    """
    parts = [
        _INTRODUCTION,
        "## In short",
        _short(claims, results, base),
        "## Verdicts",
        f"{cells.SEEN}, {cells.CAUTION} and other words are explained [below](#how-to-read-it). *can* and *cannot* say "
        "in which of its lists the founding document has a sentence: at a supported *cannot* these models fail.",
        _counts(judgements),
        *_overview(judgements),
    ]
    parts += [f"![Score above chance against parameters]({link(base, FIGURE)})", _FIGURE_WORDS]
    known = {"seen": cells.SEEN, "caution": cells.CAUTION, "changed": _changed(claims)}
    parts += ["## How to read it", _HOW_TO_READ.format(**known)]
    for title, inside in _by_section(claims, judgements):
        parts += [f"## {escape(title)}", *_section(inside, base)]
    parts += ["## The suites in full", _suites(claims, results, base), _seeds(claims, results, base)]
    parts += ["## The jobs in full", _jobs(claims, results, base), *_answers(claims, results, base)]
    parts += ["## What decides", _criteria(judgements)]
    parts += ["## Still to measure", *_missing(plan)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


_FIGURE_WORDS = (
    "Score above chance against parameters, one panel a suite and three tasks of ChatCORE: 0 is guessing, 1 all right; "
    "bars are 95% intervals. Hollow triangles are published scores of larger models, not measured here; the hollow "
    "square is stories260K of llama2.c. The reinforced model was never tuned to converse and is not shown there."
)


def _short(claims: Claims, results: Results, base: str) -> str:
    """The answer in a few lines: words from the claims' file, every number in them a measurement."""

    def shown(name: str) -> str:
        found = results.find(read_reference(name))
        return f"[{cells.interval(found[0])}]({link(base, found[0].file)})" if found else "(not measured yet)"

    return "\n".join(f"- {PLACE.sub(lambda place: shown(place[1]), text)}" for text in claims.short)


def _changed(claims: Claims) -> str:
    """Which criteria are not those that were written first."""
    ids = ", ".join(f"`{claim.id}`" for claim in claims.claims if claim.changed)
    return (
        f"Criteria that were changed once, when a part of their measurements was known: {ids}. What they said first "
        "stands in [the list](#what-decides)."
    )


def _counts(judgements: Sequence[Judgement]) -> str:
    """How many claims of each kind got which verdict; repetitions are left out."""
    own = [j for j in judgements if not j.claim.same_as]
    count = Counter((j.claim.kind, j.verdict) for j in own)
    rows = [[kind, *(str(count[kind, v] or "") for v in VERDICTS)] for kind in KINDS]
    rows.append(["together", *(str(sum(count[k, v] for k in KINDS)) for v in VERDICTS)])
    repeated = len(judgements) - len(own)
    return table(("kind of claim", *VERDICTS), rows) + f"\n\nA further {repeated} sentences repeat one of these."


def _overview(judgements: Sequence[Judgement]) -> list[str]:
    """The claims that were decided, and those that could not be, by verdict; repetitions are left out."""
    parts = []
    for verdict in ("refuted", "supported", "undecided"):
        lines = [
            f"- line {j.claim.line}, `{j.claim.id}`, {j.claim.kind}: {cells.sentence(j.claim)}{cells.marks(j)}"
            for j in judgements if j.verdict == verdict and not j.claim.same_as
        ]  # fmt: skip
        if lines:
            parts += [f"{verdict.capitalize()}:", "\n".join(lines)]
    return parts


def _by_section(claims: Claims, judgements: Sequence[Judgement]) -> list[tuple[str, list[Judgement]]]:
    """Judgements under the founding document's headings; a heading without any joins the next that has."""
    found = []
    for index, (line, title) in enumerate(claims.sections):
        end = claims.sections[index + 1][0] if index + 1 < len(claims.sections) else 10**9
        inside = [j for j in judgements if line <= j.claim.line < end]
        if inside:
            found.append((title, inside))
    return found


def _section(inside: Sequence[Judgement], base: str) -> list[str]:
    estimates = [j for j in inside if j.claim.kind == "estimate"]
    rows = [j for j in inside if j.claim.quote.startswith("|")]
    rest = [j for j in inside if j not in estimates]
    parts = []
    if estimates:
        parts.append(_estimates(estimates, base))
    if rows:
        parts.append(_comparison(rows))
    if rest:
        parts.append(_list(rest, base))
    return parts


def _estimates(judgements: Sequence[Judgement], base: str) -> str:
    """The founding document's lists of expected scores as a table, a measurement in each row."""
    rows = []
    for j in judgements:
        name = re.sub(r"\*\*", "", j.claim.quote.removeprefix("- ").split(":")[0])
        said = re.search(r"~[^ ]+", j.claim.quote)
        larger = re.search(r"vs ([^ ]+) for d20", j.claim.quote)
        estimate = said[0] if said else ""
        chance = next((f.terms["chance"] for f in j.found if "chance" in f.terms), None)
        top = re.fullmatch(r"~[\d.]+-([\d.]+)%", estimate)
        if top and chance and float(top[1]) / 100 < chance:
            estimate += f" (below guessing, {100 * chance:.0f}%)"
        here, known = cells.evidence(j, base)
        metric = f"{escape(name)} (`{j.claim.id}`)"
        rows.append(
            [str(j.claim.line), metric, larger[1] if larger else "", escape(estimate), here, known,
             cells.verdict(j) + _side(j)]
        )  # fmt: skip
    header = ("line", "metric", "d20, as quoted", "estimate", "measured (95% interval)", "controls", "verdict")
    return table(header, rows)


def _side(judgement: Judgement) -> str:
    """On which side of the estimate a refuting measurement lies."""
    if judgement.verdict != "refuted":
        return ""
    low = float(judgement.claim.supports[0].tests[0]["first"])
    return ": it is lower" if judgement.found[0].ci[1] < low else ": it is higher"


def _comparison(judgements: Sequence[Judgement]) -> str:
    """The founding document's table, its verdict under each cell."""
    lines: dict[str, dict[str, str]] = {}
    for j in judgements:
        sign = {"supported": "✔", "refuted": "✘", "undecided": "?", "not measured yet": "…"}.get(j.verdict, "–")
        lines.setdefault(j.claim.quote, {})[j.claim.cell] = sign
    rows = []
    for quote, signs in lines.items():
        said = [cell.strip() for cell in quote.strip("|").split("|")]
        rows.append([f"{escape(cell.replace('**', ''))} **{signs[cell]}**" if cell in signs else escape(
            cell.replace("**", "")) for cell in said])  # fmt: skip
    key = "\n\n✔ supported, ✘ refuted, ? undecided, … not measured yet, – not testable here; each cell in full:"
    return table(("Model size", "Parameters", "Use case", "Practical?", "Example"), rows) + key


def _list(judgements: Sequence[Judgement], base: str) -> str:
    rows = []
    for j in judgements:
        here, known = cells.evidence(j, base)
        rows.append([str(j.claim.line), cells.sentence(j.claim), f"`{j.claim.id}`", cells.verdict(j), here, known])
    return table(_LIST, rows)


def _suites(claims: Claims, results: Results, base: str) -> str:
    """Every suite of every model of our own."""
    rows = []
    for model in claims.models.values():
        for suite in model.suites:
            found = results.find(Reference(f"{model.name}/{suite}", "suite", model.name, suite))
            for one in found:
                record = results.load(one.file) or {}
                total = sum(int(task.get("total") or task["n"]) for task in record.get("tasks", []))
                of = f" of {total:,}" if total > one.n else ""
                rows.append(
                    [claims.suites[suite].title, f"[{model.name}]({link(base, one.file)})", model.what,
                     f"{one.n:,}{of}", cells.interval(one), cells.controls(one)]
                )  # fmt: skip
    if not rows:
        return "None is stored yet."
    rows.sort(key=lambda row: row[0])
    return table(("suite", "model", "trained on", "n", "score (95% interval)", "controls"), rows)


def _seeds(claims: Claims, results: Results, base: str) -> str:
    """What models that were trained again from other seeds score, beside the ones that the claims are about."""
    rows = []
    for model in claims.models.values():
        versions = (model, *(model.of_seed(seed) for seed in model.seeds))
        for suite in model.again:
            asked = [Reference(f"{m.name}/{suite}", "suite", m.name, suite) for m in versions]
            found = [(m, one) for m, reference in zip(versions, asked, strict=True) for one in results.find(reference)]
            if len(found) > 1:
                scores = [one.score for _, one in found]
                apart = f"{100 * (max(scores) - min(scores)):.1f} points"
                cell = "<br>".join(f"[{m.name}]({link(base, one.file)}): {cells.interval(one)}" for m, one in found)
                rows.append([claims.suites[suite].title, cell, apart])
    if not rows:
        return ""
    words = (
        "The same trainings from other seeds: other weights to begin with, and another order of the text. No verdict "
        "uses them; they show what an interval of one model leaves out."
    )
    return words + "\n\n" + table(("suite", "models and scores (95% interval)", "furthest apart"), rows)


def _jobs(claims: Claims, results: Results, base: str) -> str:
    """Every job of the use cases at every size that was measured."""
    rows = []
    for case in claims.use_cases.values():
        for rung in ("0.25m", "1m", "5m"):
            for one in results.find(Reference(f"job:{case.name}/{rung}", "job", case.name, rung)):
                target = "" if one.target is None else cells.with_unit(one.target, one.unit)
                rows.append(
                    [f"[{case.name}]({link(base, one.file)})", escape(case.what), rung, f"{one.n:,}",
                     cells.interval(one) + (f" {cells.SEEN}" if one.seen else ""), target, one.verdict,
                     cells.controls(one)]
                )  # fmt: skip
    if not rows:
        return "None is stored yet."
    header = ("job", "what", "size", "n", "score (95% interval)", "target", "verdict", "majority and best baseline")
    return table(header, rows)


def _answers(claims: Claims, results: Results, base: str) -> list[str]:
    """Of each stored use case the first test items that were answered right, and the first answered wrong."""
    rows = []
    for file, record in results.jobs:
        if not file.startswith(f"{USE_CASES}/"):
            continue
        where = f"[{escape(file.split('/')[1])}]({link(base, file)})"
        right = "" if record["job"]["metric"] == "bleu" else "right"  # of texts the first, good or bad
        shown = [(s, ("input", "output", "expected"), right) for s in (record.get("samples") or [])[:_SHOWN]]
        shown += [(e, ("input", "got", "expected"), "wrong") for e in (record.get("errors") or [])[:_SHOWN]]
        rows += [[where, *(_clip(item.get(key)) for key in keys), how] for item, keys, how in shown]
    parts = []
    if rows:
        parts.append(
            f"The first {_SHOWN} test items of each that were answered right and the first {_SHOWN} answered wrong (of "
            "texts the first, good or bad); the score above says how many of each sort there are:"
        )
        parts.append(table(("job and size", "input", "answer", "expected", ""), rows))
    samples = sorted(p for p in results.root.glob(f"{OWN}/*/samples*") if p.is_file())
    if samples:
        files = [p.relative_to(results.root).as_posix() for p in samples]
        parts.append("Texts of our own models: " + ", ".join(f"[{f}]({link(base, f)})" for f in files) + ".")
    return parts


def _clip(text: Any) -> str:
    return escape(text if isinstance(text, str) else "", 160)


def _criteria(judgements: Sequence[Judgement]) -> str:
    """What supports and refutes each claim that is not a repetition, and why it tests the sentence."""

    def conditions(texts: Sequence[str]) -> str:
        return " or ".join(f"`{text}`" for text in texts)

    rows = [
        [f"`{j.claim.id}`", str(j.claim.line), escape(" ".join(filter(None, (j.claim.how, j.claim.changed)))),
         conditions([c.text for c in j.claim.supports]), conditions([c.text for c in j.claim.refutes]),
         j.why if j.verdict != "not measured yet" else ""]
        for j in judgements if j.claim.readings and not j.claim.same_as
    ]  # fmt: skip
    words = (
        "`low` and `high` are the ends of the 95% interval, `p` is a p-value after Holm's correction. `every` (meant "
        "where no such word stands), `most` (more than half), `few` (one to half) and `some` say of how many "
        "measurements a condition must hold. `within` wants the whole interval in a range, `outside` wants it clear of "
        "it. `workable` wants the whole interval at the target or better, `not` none of it. `chance` is what guessing "
        "scores, `paired` the upper end of the difference from the best baseline on the same rows, `controls` that of "
        "the best candidate that knows nothing, `majority` the most frequent "
        "answer's score, `baseline` the best other baseline's. Where both a supporting and a refuting condition hold, "
        "the claim is undecided."
    )
    header = ("claim", "line", "why this tests it", "supported if", "refuted if", "outcome")
    return words + "\n\n" + table(header, rows)


def _missing(plan: Sequence[str]) -> list[str]:
    whole = (
        "`make assessment DATA=DIR` measures everything from nothing, into another folder, in about a day by estimate: "
        "it was walked through in small (`QUICK=1`)."
    )
    if not plan:
        return [f"Nothing: every measurement that the claims ask for is stored. {whole}"]
    return [
        f"{whole} `benchmarks/own_models.py` trains our own models and `benchmarks/levers.py` measures the levers. "
        "`smallfry claims --run --models MODELS --data-dir DATA` measures the rest, the cheapest first, with about so "
        "many minutes each on two free cores:",
        "```text\n" + "\n".join(plan) + "\n```",
    ]
