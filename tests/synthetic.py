"""A synthetic assessment and its troubled relatives, for tests (no number here was measured)."""

from __future__ import annotations

import dataclasses
import math
import random

from smallfry.record import (
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
)

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
