"""The record and everything that is rendered from it, on a synthetic assessment (no number here was measured)."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from smallfry.errors import SmallfryError
from smallfry.record import (
    FORMAT,
    Assessment,
    CurvePoint,
    ErrorExample,
    JobRecord,
    PilotRecord,
    PlanStep,
    PredictedPoint,
    Prediction,
    Row,
    Sample,
    SeedScore,
    Verdict,
    Versus,
    summary,
)
from smallfry.report import render_html, render_markdown, render_terminal, write_report
from smallfry.report.charts import score_by_size
from smallfry.report.curves import learning_curves
from smallfry.report.format import bytes_text, clean, difference_text, params_text, seconds_text
from smallfry.report.markdown import escape
from smallfry.report.style import FIGURE
from smallfry.report.svg import NARROW, WIDE, Box, Chart
from smallfry.report.words import headline, lead

HOSTILE = "</script></style><img src=x onerror=alert(1)>\"'|`**[x](http://evil.example)\x1b[31m\u202e\ud800 &amp; <b>"


def wilson(p: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(abs(p * (1 - p)) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def curve(rng: random.Random, final: float, seconds: float, steps: int) -> list[CurvePoint]:
    points = []
    for i in range(1, 15):
        share = i / 14
        loss = 0.35 + 4.2 * math.exp(-5 * share) + abs(1 - final) + rng.gauss(0, 0.02)
        score = final * (1 - math.exp(-6 * share)) + rng.gauss(0, 0.004)
        points.append(CurvePoint(round(steps * share), 14 * share, seconds * share, loss * 0.9, loss, score))
    return points


def rung(
    rng: random.Random, name: str, params: int, score: float, seconds: float, verdict: Verdict | None, n: int = 3080
) -> Row:
    seeds = [SeedScore(seed, score + d) for seed, d in zip((1, 2, 3), (-0.004, 0.001, 0.003), strict=True)]
    return Row(
        name=name,
        type="lm",
        params=params,
        bytes=params * 2 + 60_000,
        score=score,
        ci=wilson(score, n),
        n=n,
        seeds=seeds,
        verdict=verdict,
        train_seconds=seconds,
        latency_ms=0.4 + params / 2e6,
        metrics={"macro_f1": score - 0.012, "expected_calibration_error": 0.0084},
        curves={str(s.seed): curve(rng, s.score, seconds, 2400) for s in seeds},
        versus=Versus("linear SVM, words and characters", score - 0.914, (score - 0.9225, score - 0.9055), 0.52, 212),
    )


def baseline(name: str, score: float, size: int, params: int | None, seconds: float, n: int = 3080) -> Row:
    low, high = wilson(score, n)
    verdict: Verdict = "workable" if low >= 0.9 else "not" if high < 0.9 else "undecided"
    return Row(
        name=name,
        type="baseline",
        params=params,
        bytes=size,
        score=score,
        ci=wilson(score, n),
        n=n,
        verdict=verdict,
        train_seconds=seconds,
        latency_ms=0.9,
        metrics={"macro_f1": score - 0.01},
    )


def synthetic() -> Assessment:
    """A classification job with five rungs, five baselines, a combination, a pilot and an extrapolation."""
    rng = random.Random(7)
    rows = [
        baseline("majority", 0.013, 24, 1, 0.0),
        baseline("nearest neighbour", 0.842, 1_210_000, None, 0.3),
        baseline("TF-IDF logistic regression", 0.873, 2_900_000, 1_450_000, 2.1),
        baseline("linear SVM, words and characters", 0.914, 24_700_000, 6_170_000, 3.3),
        baseline("linear SVM, limited to 2 MB", 0.9095, 2_000_000, 500_000, 1.6),
        rung(rng, "0.25m", 254_208, 0.872, 21.0, "not"),
        rung(rng, "0.5m", 511_488, 0.8965, 34.0, "undecided"),
        rung(rng, "1m", 1_003_264, 0.9115, 58.0, "workable"),
        rung(rng, "2m", 2_112_000, 0.9155, 110.0, "workable"),
        rung(rng, "5m", 4_980_736, 0.9182, 262.0, "workable"),
    ]
    rows[6].examples_to_decide = 5400
    rows[6].versus = Versus("linear SVM, words and characters", -0.0175, (-0.026, -0.009), 0.00004, 300)
    rows[5].versus = Versus("linear SVM, words and characters", -0.042, (-0.051, -0.033), 1e-9, 410)
    rows[9].versus = Versus("linear SVM, words and characters", 0.0042, (-0.004, 0.0124), 0.31, 402)
    rows[9].note = "Seed 3 was resumed after an interruption."
    combined = dataclasses.replace(
        rung(rng, "1m + linear SVM", 7_170_000, 0.9301, 61.0, "workable"), type="combined", curves={}, bytes=26_700_000
    )
    combined.versus = Versus("linear SVM, words and characters", 0.0161, (0.009, 0.0235), 0.00002, 140)
    return Assessment(
        job=JobRecord(
            name="synthetic-banking",
            kind="classify",
            metric="accuracy",
            target=0.9,
            n_train=9002,
            n_valid=1001,
            n_test=3080,
            source="data/synthetic-banking.csv",
            hashes={"train": "3f" * 32, "valid": "a1" * 32, "test": "0c" * 32},
            notes=["No split column: 1,001 rows were drawn for validation with seed 0.", "Kind inferred: 77 outputs."],
            warnings=["6 test rows occur word for word among the training rows.", "2 labels have under 10 examples."],
            card={
                "duplicates": {"within_train": 14, "test_in_train": 6},
                "input_bytes": {"median": 47, "p95": 131, "longest": 433},
                "labels": 77,
                "majority_rate": 0.013,
                "rarest": ["card_swallowed", "virtual_card_not_working"],
                "languages": None,
            },
        ),
        rows=[*rows, combined],
        smallest="1m",
        advice="Use 1m when size matters (2.1 MB); where 27 MB is fine, 1m with the linear SVM is 1.9 points better.",
        prediction=Prediction(
            [
                PredictedPoint("10m", 10_100_000, 0.9205, (0.908, 0.931)),
                PredictedPoint("50m", 50_200_000, 0.9235, (0.897, 0.944)),
            ],
            "Power law with a floor, fitted to five rungs; the floor is poorly determined.",
        ),
        command="smallfry assess data/synthetic-banking.csv --target 0.9 --seeds 3 --out runs/banking",
        started="2026-01-02T03:04:05+00:00",
        seconds=1612.0,
        out="runs/banking",
        settings={
            "rungs": ["0.25m", "0.5m", "1m", "2m", "5m"],
            "vocab_size": 1024,
            "optimizer": {"matrices": "Muon, learning rate 0.02", "others": "AdamW, learning rate 0.002"},
            "ema": 0.998,
            "epochs": 14,
            "token_dropout": 0.2,
        },
        versions={"smallfry": "0.1.0", "python": "3.11.7", "torch": "2.9.1", "numpy": "2.3.4"},
        machine={"cpu": "a synthetic processor", "cores": 2, "bf16": True, "memory_gb": 15.6},
        plan=[PlanStep("pilot", 40.0), PlanStep("baselines", 12.0), PlanStep("rungs", 1500.0)],
        pilot=[
            PilotRecord("label as one token", 512, True, "0.25m", 0.861, wilson(0.861, 1001), 0.582, 8.1),
            PilotRecord("label as one token", 1024, True, "0.25m", 0.868, wilson(0.868, 1001), 0.561, 8.4, chosen=True),
            PilotRecord("label as text", 1024, False, "0.25m", 0.802, wilson(0.802, 1001), 0.905, 12.9),
        ],
        errors=[
            ErrorExample("why was I charged twice?", "transaction_charged_twice", "extra_charge_on_statement", 0.61),
            ErrorExample("it still has not come", "card_arrival", "pending_transfer", 0.34),
            ErrorExample("My top up, which I made by cheque on Monday, is not there", "balance_not_updated", "", None),
        ],
        samples=[Sample("how do I change my PIN", "change_pin", "change_pin"), Sample("  ", "card_arrival", "")],
        model_dir="best",
    )


def lower_is_better() -> Assessment:
    """An open-text job in bits per byte, without a target, an error list or an extrapolation."""
    rng = random.Random(3)
    rows = []
    for name, params, score, seconds in (
        ("0.25m", 250_000, 1.412, 40),
        ("1m", 10**6, 1.183, 130),
        ("5m", 5 * 10**6, 1.021, 900),
    ):
        row = rung(rng, name, params, score, seconds, None)
        row.ci, row.metrics = (score - 0.011, score + 0.011), {}
        row.seeds = [SeedScore(s.seed, s.score) for s in row.seeds]
        row.versus = Versus("5-gram", score - 1.602, (score - 1.62, score - 1.58), 0.0002, None)
        for points in row.curves.values():
            for point in points:
                point.valid_score = None if point.valid_loss is None else 1 + point.valid_loss
        rows.append(row)
    grams = baseline("5-gram", 1.602, 3_400_000, 900_000, 4.0)
    grams.verdict, grams.ci = None, (1.588, 1.616)
    plain = baseline("byte frequencies", 4.5, 512, 256, 0.1)
    plain.verdict, plain.ci = None, (4.48, 4.52)
    job = JobRecord("synthetic-stories", "generate", "bits_per_byte", higher_is_better=False, n_train=900, n_test=100)
    return Assessment(job=job, rows=[*rows, grams, plain], samples=[Sample("", "Once upon a time\nthere was a fox.")])


def hostile() -> Assessment:
    """Every text a user, a data set or a model can reach, set to markup, control codes and a lone surrogate."""
    a = synthetic()
    a.job = dataclasses.replace(
        a.job, name=HOSTILE, source=HOSTILE, notes=[HOSTILE], warnings=[HOSTILE], hashes={HOSTILE: HOSTILE}
    )
    a.job.card = {HOSTILE: {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}}
    for row in a.rows:
        row.note = HOSTILE
        row.metrics = {HOSTILE: 1.0}
        row.name += HOSTILE
        if row.versus:
            row.versus.other = HOSTILE
    a.smallest = a.rows[7].name
    a.advice = a.command = a.started = a.out = a.model_dir = HOSTILE
    a.settings = a.versions = a.machine = {HOSTILE: HOSTILE, "smallfry": HOSTILE}
    a.plan = [PlanStep(HOSTILE, 1.0)]
    a.pilot = [PilotRecord(HOSTILE, 300, rung=HOSTILE)]
    a.errors = [ErrorExample(HOSTILE, HOSTILE, HOSTILE + " more", 0.5)]
    a.samples = [Sample(HOSTILE, HOSTILE, HOSTILE)]
    a.prediction = Prediction([PredictedPoint(HOSTILE, 10**7, 0.92, (0.9, 0.94))], HOSTILE)
    return a


def bare() -> Assessment:
    """Nothing but the required fields."""
    return Assessment(JobRecord("bare", "transform", "exact_match"))


def broken_numbers() -> Assessment:
    """Numbers that are not finite wherever a measurement can fail."""
    a = synthetic()
    nan = math.nan
    a.rows[9].score, a.rows[9].ci, a.rows[9].latency_ms = nan, (nan, nan), math.inf
    a.rows[8].versus = Versus("x", nan, (nan, nan), nan)
    a.rows[8].seeds = [SeedScore(1, nan), SeedScore(2, 0.9)]
    a.rows[7].curves = {"1": [CurvePoint(0, valid_loss=nan), CurvePoint(1, valid_loss=math.inf, seconds=0.0)]}
    a.rows[6].ci = (nan, nan)
    a.rows[5].bytes = 0
    a.rows[0].bytes = None
    assert a.prediction is not None
    a.prediction.points[0].score = nan
    a.errors[0].confidence = nan
    a.pilot[0].loss = nan
    return a


CASES = {
    "synthetic": synthetic,
    "lower": lower_is_better,
    "hostile": hostile,
    "bare": bare,
    "broken": broken_numbers,
}


class Page(HTMLParser):
    """Collects what matters of a page and fails where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def charts(a: Assessment) -> Iterator[Chart]:
    for width in (WIDE, NARROW):
        for chart in (score_by_size(a, width), learning_curves(a, width)):
            if chart is not None:
                yield chart


# The record


@pytest.mark.parametrize("case", ["synthetic", "lower", "hostile", "bare"])
def test_record_round_trips(case: str, tmp_path: Path) -> None:
    a = CASES[case]()
    a.save(tmp_path / "assessment.json")
    assert Assessment.load(tmp_path / "assessment.json") == a
    assert Assessment.load(tmp_path) == a  # a run directory is as good as the file
    assert json.loads((tmp_path / "assessment.json").read_text(encoding="utf-8"))["format"] == FORMAT
    assert [p.name for p in tmp_path.iterdir()] == ["assessment.json"]  # no draft is left behind


def test_record_with_failed_measurements_is_plain_json(tmp_path: Path) -> None:
    broken_numbers().save(tmp_path)
    text = (tmp_path / "assessment.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert math.isnan(Assessment.load(tmp_path).rows[9].score)


def test_record_ignores_keys_of_a_later_writer() -> None:
    data = synthetic().to_dict()
    data["later"] = 1
    data["rows"][0]["later"] = {"x": []}
    data["job"]["later"] = None
    assert Assessment.from_dict(data) == synthetic()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": "smallfry-assessment/1", "job": {"name": "x"', "not whole JSON"),
        ("\x00\x01", "not whole JSON"),
        ("[" * 100_000, "not whole JSON"),
        ("[1, 2]", "not an assessment"),
        ('{"model_type": "qwen3"}', "not an assessment"),
        ('{"format": "smallfry-assessment/2"}', "update smallfry"),
        ('{"format": "smallfry-assessment/1"}', "job is missing"),
        (
            '{"format": "smallfry-assessment/1", "job": {"name": "x", "kind": "guess", "metric": "bleu"}}',
            "expected 'classify'",
        ),
        ('{"format": "smallfry-assessment/1", "job": {"name": 3, "kind": "classify", "metric": "bleu"}}', "name is 3"),
        (
            '{"format": "smallfry-assessment/1", "job": {"name": "x", "kind": "classify", "metric": "bleu"}, '
            '"rows": [{"name": "a", "type": "lm", "score": 1, "ci": [1]}]}',
            "a list of 2 numbers",
        ),
    ],
)
def test_record_refuses_broken_files_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "assessment.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SmallfryError) as caught:
        Assessment.load(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "assessment.json" in str(caught.value)


def test_record_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(SmallfryError, match="does not exist"):
        Assessment.load(tmp_path / "nothing.json")


def test_summary_has_exactly_the_documented_keys() -> None:
    found = summary(synthetic())
    assert list(found) == ["job", "rows", "smallest", "advice", "prediction", "out"]
    assert list(found["job"]) == ["name", "kind", "metric", "target", "n_train", "n_test"]
    for row in found["rows"]:
        assert list(row) == (
            ["name", "type", "params", "bytes", "score", "ci", "seeds", "verdict", "train_seconds", "latency_ms"]
        )
    assert [r["seeds"] for r in found["rows"]] == [0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3]
    assert found["smallest"] == "1m"
    json.dumps(summary(broken_numbers()), allow_nan=False)


# The page


@pytest.mark.parametrize("case", CASES)
def test_page_is_whole_and_makes_no_request(case: str) -> None:
    html = render_html(CASES[case]())
    page = Page(html)
    html.encode("utf-8")
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "image",
        "use",
        "foreignobject",
    }
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in {"src", "srcset", "style"} for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html and "@import" not in html
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for rule in ("default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"):
        assert rule in policy.split("; ")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_page_shows_hostile_text_as_text() -> None:
    html = render_html(hostile())
    for raw in ("<img", "</script", "\x1b", "\u202e", "\ud800", "<b>"):
        assert raw not in html.replace("<b>Advice", "").replace("<b>1 warning", "").replace("<b>Extrapolated", "")
    text = Page(html).text
    assert "</script></style><img src=x onerror=alert(1)>" in text
    assert "\\u001b[31m\\u202e\\ud800 &amp; <b>" in text


def test_page_tells_the_whole_assessment() -> None:
    a = synthetic()
    text = Page(render_html(a)).text
    for row in a.rows:
        assert row.name in text
    for expected in (
        "The smallest workable rung is 1m: 1.0M parameters in 2.1 MB.",
        a.advice,
        "Extrapolated from the rungs above, not measured.",
        "about 5,400 more test examples would decide",
        *a.job.warnings,
        *a.job.notes,
        *a.job.hashes.values(),
        a.command,
        "smallfry run runs/banking/best 'how do I change my PIN'",
        "extra_charge_on_statement",
        "Muon, learning rate 0.02",
        "a synthetic processor",
        "label as text",
    ):
        assert expected in text, expected


def test_page_marks_words_that_differ() -> None:
    a = synthetic()
    a.job.kind, a.job.metric = "transform", "exact_match"
    a.errors = [ErrorExample("x", "turn left twice then walk", "turn right twice then walk", 0.7)]
    html = render_html(a)
    assert "<mark>left</mark>" in html
    assert "<mark>right</mark>" in html


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": None}, "No target was set, so there is no verdict; 5m scores best: 91.8% accuracy."),
        ({"target": 0.99}, "No rung is workable: 5m scores best, 91.8%, and misses the target of 99%."),
    ],
)
def test_headline_without_a_workable_rung(change: dict[str, float | None], said: str) -> None:
    a = synthetic()
    a.smallest, a.job.target = None, change["target"]
    for row in a.rows:
        row.verdict = None if a.job.target is None else "not"
    assert headline(a) == said
    assert said in Page(render_html(a)).text
    a.rows[9].verdict = "undecided"
    if a.job.target is not None:
        a.rows[3].verdict = "workable"
        assert "Workable without being a rung: linear SVM, words and characters (91.4%)." in lead(a)
        assert headline(a).startswith("No rung is proven workable yet: 5m scores 91.8%")


def test_missing_parts_are_said_in_words() -> None:
    text = Page(render_html(bare())).text
    for said in (
        "No rung was measured, so there is no verdict.",
        "No candidate was measured.",
        "Nothing was extrapolated.",
        "No model was saved.",
        "The data check has no warnings.",
    ):
        assert said in text
    for case in ("lower", "bare", "broken"):
        html = render_html(CASES[case]())
        assert not re.search(r"\b(nan|None|inf)\b", Page(html).text)


def test_lower_is_better_turns_best_and_colours_round() -> None:
    a = lower_is_better()
    assert headline(a).endswith("5m scores best: 1.021 bits per byte.")
    assert "(lower is better)" in lead(a)
    assert "it is better than 5-gram (−0.581" in lead(a)
    html = render_html(a)
    assert '<b class="better">−0.581</b>' in html
    assert 'class="worse"' not in html
    assert html.index("5-gram") < html.index("byte frequencies")


# Figures


@pytest.mark.parametrize("case", CASES)
def test_figures_are_xml_without_references(case: str, tmp_path: Path) -> None:
    a = CASES[case]()
    write_report(a, tmp_path)
    paths = sorted(tmp_path.glob("figures/*.svg"))
    assert len(paths) == (0 if case == "bare" else 2)
    for path in paths:
        root = ET.fromstring(path.read_bytes())
        assert root.get("role") == "img"
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        styles = "".join(element.text or "" for element in root.iter() if element.tag.endswith("style"))
        assert styles and "url" not in styles and "@import" not in styles
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "title", "desc", "style", "rect", "line", "text", "circle", "polygon", "path"}
        for element in root.iter():
            assert not {name for name in element.attrib if "href" in name or name.startswith("on")}
            for name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "d", "points"):
                assert "nan" not in element.get(name, "")


@pytest.mark.parametrize("case", ["synthetic", "lower", "hostile", "broken"])
def test_labels_do_not_overlap(case: str) -> None:
    for chart in charts(CASES[case]()):
        root = ET.fromstring(chart.svg)
        width, height = (float(v) for v in root.get("viewBox", "").split()[2:])
        for one, other in itertools.combinations(chart.labels, 2):
            assert not one.box.overlaps(other.box), (one.label.text, other.label.text)
        for placed in chart.labels:
            assert not any(placed.box.overlaps(box) for box in chart.hard), placed.label.text
            assert placed.box.within(Box(0, 0, width, height))


def test_every_candidate_is_named_in_the_figure() -> None:
    a = synthetic()
    names = [r.name for r in a.rows] + ["10m", "50m"]
    wide, narrow = score_by_size(a, WIDE), score_by_size(a, NARROW)
    assert wide is not None and narrow is not None
    shown = {placed.label.text for placed in wide.labels}
    assert {n for n in names if n != "majority"} | {"majority 1.3%"} == shown
    # On a narrow screen candidates that are not rungs carry a letter, explained below the axis.
    texts = [e.text for e in ET.fromstring(narrow.svg).iter() if e.tag.endswith("text")]
    for name in names:
        assert name in texts
    assert len(narrow.labels) == len(names)


def test_crowded_figure_drops_labels_rather_than_overlapping_them() -> None:
    a = synthetic()
    a.rows += [dataclasses.replace(a.rows[3], name=f"baseline number {i}", score=0.9 + i / 1e4) for i in range(60)]
    chart = score_by_size(a, NARROW)
    assert chart is not None
    assert 8 < len(chart.labels) < 75
    for one, other in itertools.combinations(chart.labels, 2):
        assert not one.box.overlaps(other.box)


def test_figures_carry_both_colour_schemes() -> None:
    chart = score_by_size(synthetic(), style=FIGURE)
    assert chart is not None
    assert "prefers-color-scheme:dark" in chart.svg
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", chart.svg))
    light, dark = FIGURE.split("prefers-color-scheme:dark")
    for name in used - {"--c"}:
        assert f"{name}:#" in light
        assert f"{name}:#" in dark


# Markdown, terminal, files


def test_markdown_escapes_and_keeps_its_tables() -> None:
    text = render_markdown(hostile(), [("Figure", "figures/x.svg")])
    text.encode("utf-8")
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.S | re.M)
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\[x\]", outside)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert escape("1. a|b `c` <i> *d*") == "1\\. a\\|b \\`c\\` &lt;i&gt; \\*d\\*"
    assert escape("1.5m") == "1.5m"


def test_markdown_tells_the_whole_assessment() -> None:
    a = synthetic()
    text = render_markdown(a)
    for row in a.rows:
        assert f"| {row.name} |" in text or f"| **{row.name}** |" in text
    assert text.startswith("# The smallest workable rung is 1m")
    assert "**Extrapolated from the rungs above, not measured.**" in text
    for case in ("lower", "bare", "broken"):
        assert not re.search(r"\b(nan|inf)\b", render_markdown(CASES[case]()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_fits_and_shows_no_control_codes(case: str, width: int) -> None:
    a = CASES[case]()
    stream = io.StringIO()
    Console(width=width, file=stream, force_terminal=False).print(render_terminal(a, "out/report.html"))
    text = stream.getvalue()
    assert "\x1b" not in text and "\u202e" not in text
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert headline(a)[:40] in flat
    if case == "synthetic":
        assert "Advice: Use 1m when size matters" in flat
        table = flat.split("Predicted")[0].split("candidate ")[1]
        assert ("p < 0.001" in table) == (width >= 100)
        assert ("58 s" in table) == (width >= 80)
        for row in a.rows:
            assert row.name.split()[0] in table


def test_report_replaces_files_and_leaves_no_drafts(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine", encoding="utf-8")
    write_report(lower_is_better(), tmp_path)
    write_report(synthetic(), tmp_path)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        "figures/learning-curves.svg",
        "figures/score-by-size.svg",
        "keep.txt",
        "report.html",
        "report.md",
    ]
    assert "synthetic-banking" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "![Score against size](figures/score-by-size.svg)" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_numbers_read_well() -> None:
    assert [params_text(n) for n in (1, 65_536, 254_208, 1_003_264, 9_960_000, 124_000_000, 7_000_000_000)] == [
        "1", "66k", "0.25M", "1.0M", "10M", "124M", "7.0B",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (24, 999, 1000, 568_416, 2_066_528, 999_999_999)] == [
        "24 B", "999 B", "1.0 kB", "568 kB", "2.1 MB", "1.0 GB",
    ]  # fmt: skip
    assert [seconds_text(s) for s in (0.0, 0.01, 4.04, 59.7, 188, 1500, 4320)] == [
        "0.0 s", "under 0.1 s", "4.0 s", "1 min", "3 min 8 s", "25 min", "1 h 12 min",
    ]  # fmt: skip
    assert difference_text("accuracy", -0.0004) == "0.0 points"
    assert difference_text("bits_per_byte", -0.0121) == "−0.012"
    assert clean("a\x00b\u202ec\r\n\td") == "a\\u0000b\\u202ec\n\td"
