"""From outcomes to rows, verdicts and advice: pure functions over what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from smallfry.assessment.work import PILOT_VALID_ROWS, Outcome, RungTask, score_answers
from smallfry.baselines.calibration import evenly
from smallfry.evals import statistics
from smallfry.evals.metrics import METRICS, Scores, by_group, corpus_statistic
from smallfry.evals.paired import paired_over_seeds, paired_statistic
from smallfry.forms import MAX_PROMPT_TOKENS
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.predict import Point, predict_rungs
from smallfry.record import (
    Assessment,
    CurvePoint,
    ErrorExample,
    PredictedPoint,
    Prediction,
    Row,
    RowType,
    Sample,
    SeedScore,
    Versus,
)
from smallfry.sizes import RUNGS, parse_size

if TYPE_CHECKING:
    from smallfry.assessment.state import State

FEWEST_ITEMS = 8  # from which resampling gives an interval of a corpus score
SHOWN_ERRORS = 40
SHOWN_SAMPLES = 8
CHEAPER = 4.0  # times faster to train that count as far cheaper


# ---- choosing on validation rows ------------------------------------------------------------------------------------


def pilot_scores(job: Job, outcome: Outcome) -> Scores:
    """Scores of a pilot on the validation rows it answered."""
    part = replace(job, valid=tuple(evenly(job.valid, PILOT_VALID_ROWS)))
    result: Scores = score_answers(part, outcome.valid, "valid")
    return result


_FORMS = ("inline", "units", "text")  # the likely best first, as `forms.available_forms` has them


def best_pilot(job: Job, pilots: Sequence[tuple[RungTask, Outcome]]) -> RungTask:
    """The setting to go on with.

    Labels are compared by their cross-entropy, which ranks short trainings better than accuracy does; other outputs by
    score, and where scores are equal, by the smaller vocabulary and then by form: which pilot ended first, which
    depends on what else the machine does, must not decide.
    """
    if job.kind == "classify":
        losses = [(np.inf if o.valid_loss is None else o.valid_loss, task.key) for task, o in pilots]
        return pilots[losses.index(min(losses))][0]
    sign = 1.0 if METRICS[job.metric].higher_is_better else -1.0

    def rank(pilot: tuple[RungTask, Outcome]) -> tuple[float, int, int, str]:
        task, outcome = pilot
        return -sign * pilot_scores(job, outcome).score, task.vocab_size, _FORMS.index(task.form), task.key

    return min(pilots, key=rank)[0]


def valid_score(job: Job, outcomes: Mapping[int, Outcome]) -> float:
    """Median validation score over seeds, with the sign turned so that more is better."""
    sign = 1.0 if METRICS[job.metric].higher_is_better else -1.0
    return sign * median(float(score_answers(job, o.valid, "valid").score) for o in outcomes.values())


def best_rung(job: Job, rungs: Mapping[str, Mapping[int, Outcome]]) -> str:
    """The rung with the best median validation score; where scores tie, the one with more seeds, then the smaller."""
    return max(sorted(rungs, key=parse_size), key=lambda r: (valid_score(job, rungs[r]), len(rungs[r])))


def best_pair(job: Job, state: State) -> tuple[str, str] | None:
    """The rung and the baseline to combine: each the best on validation rows; None where nothing is worth combining.

    A baseline with less than half the rung's score has nothing to add. Among rungs within a point of the best, the one
    with the most seeds stands for the ladder.
    """
    names = [n for n in sorted(state.baselines) if "-" not in n and n not in ("majority", "nearest")]
    if not names or not state.rungs:
        return None
    top = max(valid_score(job, o) for o in state.rungs.values())
    near = [r for r in sorted(state.rungs, key=parse_size) if valid_score(job, state.rungs[r]) >= top - 0.01]
    rung = max(near, key=lambda r: (len(state.rungs[r]), valid_score(job, state.rungs[r])))
    baseline = max(names, key=lambda n: valid_score(job, {0: state.baselines[n][0]}))
    hopeless = METRICS[job.metric].higher_is_better and valid_score(job, {0: state.baselines[baseline][0]}) < top / 2
    return None if hopeless else (rung, baseline)


def shipped(job: Job, state: State, record: Assessment) -> tuple[str, int] | None:
    """Rung and seed of the model to ship.

    The rung is the smallest workable one, else the best on validation rows; the seed is the best on validation rows,
    the smaller number where seeds tie.
    """
    if not state.rungs:
        return None
    rung = record.smallest or best_rung(job, state.rungs)
    return rung, max(sorted(state.rungs[rung]), key=lambda seed: valid_score(job, {0: state.rungs[rung][seed]}))


# ---- rows -----------------------------------------------------------------------------------------------------------


def outcome_text(job: Job, outcome: Outcome, split: str) -> str:
    """One phrase on a finished task for the watcher."""
    answers = outcome.test if split == "test" else outcome.valid
    if split == "valid" and len(answers) < len(job.valid):
        job = replace(job, valid=tuple(evenly(job.valid, PILOT_VALID_ROWS)))
    score = score_answers(job, answers, "test" if split == "test" else "valid").score
    unit = METRICS[job.metric].title if hasattr(METRICS[job.metric], "title") else job.metric
    return f"{unit} {score:.3f} on {split}, {outcome.seconds:.0f} s"


def make_row(
    job: Job, name: str, kind: RowType, outcomes: Mapping[int, Outcome], target: float | None, codec: FrameCodec | None
) -> Row:
    """One candidate's row: median over seeds, the joint interval, the verdict."""
    scores = {seed: score_answers(job, o.test, "test", codec) for seed, o in sorted(outcomes.items())}
    values = [float(s.score) for s in scores.values()]
    middle = float(median(values))
    typical = min(scores.values(), key=lambda s: abs(s.score - middle))
    if kind == "baseline":  # fitted the same way every time: there is no seed to vary
        low, high = typical.interval()
    elif METRICS[job.metric].proportion:
        middle, low, high = statistics.seeds_interval(values, typical.effective)
    else:  # the interval of one seed, moved to the middle of all
        low, high = (middle + (end - float(typical.score)) for end in typical.interval())
        low, high = statistics.join_seed_spread(middle, low, high, values)
    first = next(iter(outcomes.values()))
    row = Row(name, kind, middle, (low, high), first.params, first.bytes, typical.n, note=first.note)
    if kind != "baseline":
        row.seeds = [SeedScore(seed, float(s.score)) for seed, s in scores.items()]
    row.metrics = {
        key: float(median(s.extra[key] for s in scores.values() if key in s.extra)) for key in sorted(typical.extra)
    }
    row.train_seconds = float(np.mean([o.seconds for o in outcomes.values()]))
    latencies = [o.latency_ms for o in outcomes.values() if o.latency_ms is not None]
    row.latency_ms = float(median(latencies)) if latencies else None
    row.curves = {
        str(seed): [CurvePoint(**{k: v for k, v in p.items() if k != "more"}) for p in o.curve]
        for seed, o in sorted(outcomes.items()) if o.curve
    }  # fmt: skip
    if target is not None:
        row.verdict = statistics.verdict(low, high, target, METRICS[job.metric].higher_is_better)
        if not METRICS[job.metric].proportion and typical.effective < FEWEST_ITEMS:
            row.verdict = "undecided"
            row.note = row.note or f"{typical.n} test items are too few for an interval; {FEWEST_ITEMS} or more decide"
        if row.verdict == "undecided" and METRICS[job.metric].proportion:
            seeded = values if kind != "baseline" else ()
            known = round(typical.effective)  # further examples are taken to be of other inputs
            total = statistics.examples_to_decide(middle, known, target, per_seed_scores=seeded)
            if total is not None and total > known:
                row.examples_to_decide = total - known
            elif total is None and seeded and not row.note:
                row.note = "no number of test rows would decide: the seeds differ too much; use more --seeds"
    return row


def rung_row(
    job: Job, rung: str, outcomes: Mapping[int, Outcome], target: float | None, codec: FrameCodec | None
) -> Row:
    """The row of a rung."""
    row = make_row(job, rung, "lm", outcomes, target, codec)
    first = outcomes[min(outcomes)]
    notes = [row.note] if row.note else []
    if first.skipped:
        notes.append(f"{first.skipped} training rows could not be written in this output form and were left out")
    if first.recipe.get("epochs", 1.0) < 1.0:
        notes.append(f"trained on {first.recipe['epochs']:.0%} of the training rows: there are too many to read whole")
    if first.shortened:
        notes.append(
            f"{first.shortened} inputs are longer than {MAX_PROMPT_TOKENS:,} tokens: their middle was not read"
        )
    row.note = "; ".join(notes)
    return row


def versus(job: Job, mine: Mapping[int, Outcome], other: Outcome, name: str) -> Versus:
    """Paired comparison of a candidate, all its seeds, with another candidate on the same test items."""
    scores = [score_answers(job, mine[seed].test, "test") for seed in sorted(mine)]
    theirs = score_answers(job, other.test, "test")
    if METRICS[job.metric].proportion:
        paired = paired_over_seeds([s.per_item > 0.5 for s in scores], theirs.per_item > 0.5, worth=theirs.effective)
        discordant: int | None = paired.a_only + paired.b_only
    else:
        mine_sums = [by_group(s.sums, s.groups) for s in scores]
        paired = paired_statistic(mine_sums, by_group(theirs.sums, theirs.groups), corpus_statistic(job.metric))
        discordant = None
    return Versus(name, paired.difference, (paired.low, paired.high), paired.p_value, discordant)


def fill(
    record: Assessment, job: Job, state: State, target: float | None, codec: FrameCodec | None, rungs: Sequence[str]
) -> None:
    """Put rows, verdicts, prediction, advice, errors and samples into the record."""
    rows: list[Row] = []
    sizes = {next(iter(o.values())).bytes: rung for rung, o in state.rungs.items()}
    for key, (outcome, _) in sorted(state.baselines.items()):  # not in the order in which they happened to finish
        name, cut, size = key.partition("-")
        row = make_row(job, outcome.name, "baseline", {0: outcome}, target, codec)
        rows.append(row)
        if cut:
            row.name = f"{name} cut to {sizes.get(int(size), size)}"
            row.note = row.note or "the linear SVM with as many features as fit into the bytes of that rung"
    base = {o.name: o for k, (o, _) in sorted(state.baselines.items()) if "-" not in k}
    best = max(base, key=lambda n: valid_score(job, {0: base[n]})) if base else None
    for rung in sorted(state.rungs, key=parse_size):
        row = rung_row(job, rung, state.rungs[rung], target, codec)
        if best is not None:
            row.versus = versus(job, state.rungs[rung], base[best], best)
        rows.append(row)
    if state.combined and state.combined_of is not None:
        rung, baseline = state.combined_of
        row = make_row(job, f"{rung} + {base_name(state, baseline)}", "combined", state.combined, target, codec)
        if best is not None:
            row.versus = versus(job, state.combined, base[best], best)
        rows.append(row)
    record.rows = rows
    lms = [r for r in rows if r.type == "lm"]
    record.smallest = next((r.name for r in lms if r.verdict == "workable"), None)
    record.prediction = extrapolate(job, state, rungs)
    if (ship := shipped(job, state, record)) is not None:
        record.shipped, record.shipped_seed = ship
    record.advice = advise(record, best)
    examples(record, job, state)


def base_name(state: State, key: str) -> str:
    """A baseline's name in tables."""
    return state.baselines[key][0].name


def extrapolate(job: Job, state: State, rungs: Sequence[str]) -> Prediction | None:
    """What the rungs that were not trained would score, fitted on those that were."""
    if not METRICS[job.metric].proportion:
        return None
    points = []
    for by_seed in state.rungs.values():
        for seed, outcome in by_seed.items():
            scores = score_answers(job, outcome.test, "test")
            points.append(Point(outcome.params, scores.n - round(float(scores.per_item.sum())), scores.n, seed))
    done = set(state.rungs)
    targets = [(r, parse_size(r)) for r in RUNGS if r not in done and parse_size(r) <= 2 * max(map(parse_size, rungs))]
    if not targets:
        return None
    found = predict_rungs(points, targets)
    shown = [PredictedPoint(p.name, p.params, p.score, (p.lo, p.hi)) for p in found.rungs]
    return Prediction(shown, found.reason)


# ---- words ----------------------------------------------------------------------------------------------------------


def advise(record: Assessment, best_baseline: str | None) -> str:
    """One sentence: what to use, and why."""
    lms = [r for r in record.rows if r.type == "lm"]
    baseline = next((r for r in record.rows if r.name == best_baseline and r.type == "baseline"), None)
    combined = next((r for r in record.rows if r.type == "combined"), None)
    chosen = next((r for r in lms if r.name == record.smallest), None)
    if chosen is not None:
        if baseline is not None and baseline.verdict == "workable":
            return _workable_beside_baseline(chosen, baseline, record.job.higher_is_better)
        return (
            f"Use the {chosen.name} model: {_score(chosen)} clears the target of {record.job.target:g} in "
            f"{_size(chosen.bytes)}{_beyond(chosen)}{_below(lms, chosen)}."
        )
    able = [r for r in record.rows if r.type == "baseline" and r.verdict == "workable"]
    if able:
        one = baseline if baseline in able else min(able, key=lambda r: r.bytes or 0)
        return f"Use {one.name}: {_score(one)} clears the target and no language model tried does."
    if combined is not None and combined.verdict == "workable":
        return f"Use the combination {combined.name}: {_score(combined)} clears the target; neither part does alone."
    if not lms:
        out = next((text for text in record.job.warnings if " was left out: " in text), "")
        return f"No language model was trained: {out}." if out else "No language model was trained."
    top = next(r for r in lms if r.name == record.shipped)
    return _nothing_workable(record, top, baseline, combined)


def _clearly_better(versus: Versus | None, higher_is_better: bool) -> bool:
    """Whether the whole interval of a paired difference lies on the better side of zero."""
    if versus is None or versus.ci is None:
        return False
    return versus.ci[0] > 0 if higher_is_better else versus.ci[1] < 0


def _workable_beside_baseline(chosen: Row, baseline: Row, higher_is_better: bool) -> str:
    if _clearly_better(chosen.versus, higher_is_better):
        return (
            f"Use the {chosen.name} model: {_score(chosen)}, significantly better than {baseline.name} "
            f"({_score(baseline)}), which would do as well if simplicity counts more."
        )
    return (
        f"Use {baseline.name}: {_score(baseline)} also clears the target, trains in "
        f"{_seconds(baseline.train_seconds)} against {_seconds(chosen.train_seconds)}, and the {chosen.name} model "
        f"({_score(chosen)}, {_size(chosen.bytes)} against {_size(baseline.bytes)}) is not significantly better."
    )


def _nothing_workable(record: Assessment, top: Row, baseline: Row | None, combined: Row | None) -> str:
    target = record.job.target
    lead = f"Nothing tried reaches the target of {target:g} for sure" if target is not None else "No target was given"
    parts = []
    if baseline is not None and top.versus is not None and top.versus.ci is not None:
        low, high = top.versus.ci
        if (low > 0) == record.job.higher_is_better and low * high > 0:
            parts.append(f"the {top.name} model ({_score(top)}) is significantly better than {baseline.name}")
        elif low * high > 0:
            parts.append(
                f"{baseline.name} ({_score(baseline)}) is significantly better than the {top.name} model "
                f"({_score(top)}){_cheaper(baseline, top)}: use it"
            )
        else:
            parts.append(
                f"{baseline.name} ({_score(baseline)}) and the {top.name} model ({_score(top)}) cannot be told apart: "
                f"use {'the model if size matters' if (top.bytes or 0) < (baseline.bytes or 0) else baseline.name}"
            )
    else:
        parts.append(f"the best is the {top.name} model ({_score(top)})")
    if combined is not None and combined.versus and _clearly_better(combined.versus, record.job.higher_is_better):
        parts.append(f"both combined are better than {combined.versus.other} ({_score(combined)})")
    undecided = [r for r in record.rows if r.type == "lm" and r.verdict == "undecided" and r.examples_to_decide]
    if undecided:
        parts.append(f"about {undecided[0].examples_to_decide:,} more test examples would decide {undecided[0].name}")
    return f"{lead}; {'; '.join(parts)}."


def _score(row: Row) -> str:
    return f"{row.score:.3f} [{row.ci[0]:.3f}, {row.ci[1]:.3f}]"


def _size(size: int | None) -> str:
    if size is None:
        return "unknown size"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _seconds(seconds: float | None) -> str:
    return "unknown time" if seconds is None else f"{seconds:.0f} s"


def _cheaper(baseline: Row, model: Row) -> str:
    """That a baseline is far cheaper to train, where it is."""
    fast, slow = baseline.train_seconds, model.train_seconds
    return " and far cheaper to train" if fast is not None and slow is not None and CHEAPER * fast < slow else ""


def _below(lms: Sequence[Row], chosen: Row) -> str:
    """That a smaller rung is not ruled out, where it is not."""
    open_ = [r.name for r in lms if r.verdict == "undecided" and (r.params or 0) < (chosen.params or 0)]
    return f"; {' and '.join(open_)}, which is smaller, is undecided" if open_ else ""


def _beyond(row: Row) -> str:
    if row.versus is None:
        return ""
    return f", {row.versus.difference:+.3f} beside the best baseline ({row.versus.other})"


def examples(record: Assessment, job: Job, state: State) -> None:
    """Errors and samples of the model that is shipped."""
    found = shipped(job, state, record)
    if found is None or job.metric == "bits_per_byte":
        return
    best = state.rungs[found[0]][found[1]]
    scores = score_answers(job, best.test, "test")
    if not METRICS[job.metric].proportion:
        record.samples = [
            Sample(e.input, str(a[0]), e.output) for e, a in list(zip(job.test, best.test, strict=True))[:SHOWN_SAMPLES]
        ]
        return
    for row, answer, right in zip(job.test, best.test, scores.per_item, strict=True):
        if right < 0.5 and len(record.errors) < SHOWN_ERRORS:
            record.errors.append(ErrorExample(row.input, row.output, str(answer[0]), float(answer[1])))
        elif right > 0.5 and len(record.samples) < SHOWN_SAMPLES:
            record.samples.append(Sample(row.input, str(answer[0]), row.output))
