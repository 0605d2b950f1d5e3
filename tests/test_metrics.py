from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from smallfry.candidates import Prediction, measure_latency
from smallfry.evals import metrics as m
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job, Kind, Metric


def job(rows: list[Example], kind: Kind = "classify", metric: Metric = "accuracy") -> Job:
    return Job("toy", kind, tuple(rows), (), tuple(rows), metric)


def test_matching_forgives_whitespace_only() -> None:
    assert m.matches(" a  b\n", ["a b"])
    assert not m.matches("A b", ["a b"])
    assert m.matches("y", ["x", "y"])


def test_matching_compares_json_as_json() -> None:
    assert m.matches('{"b": [1, "x"], "a": true}', ['{"a":true,"b":[1.0,"x"]}'])
    assert not m.matches('{"a": 1}', ['{"a": true}'])
    assert not m.matches("1.0", ["1"])
    assert not m.matches('{"a": 1', ['{"a": 1}'])
    assert not m.matches('{"a": NaN}', ['{"a":  NaN }'.replace("  ", "")])
    assert not m.matches("[" * 5000, ["[]"])


def test_macro_f1_agrees_with_scikit_learn() -> None:
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    rng = np.random.default_rng(0)
    gold, predicted = rng.choice(list("abc"), 50), rng.choice(list("abcd"), 50)
    expected = f1_score(gold, predicted, average="macro", zero_division=0)
    assert m.macro_f1(list(gold), list(predicted)) == pytest.approx(expected)


def test_edit_distance_and_error_rate() -> None:
    assert m.edit_distance("kitten", "sitting") == 3
    assert m.edit_distance("", "abc") == 3
    edits, lengths = m.token_errors(["T R IH2", "EY1"], [["T R IH2 P"], ["AH0", "EY1"]])
    assert edits.tolist() == [1, 0]
    assert lengths.tolist() == [4, 1]


def test_edit_distance_is_that_of_the_table() -> None:
    def table(a: Sequence[str], b: Sequence[str]) -> int:
        rows = [list(range(len(b) + 1))]
        for i, x in enumerate(a, 1):
            rows.append([i])
            for j, y in enumerate(b, 1):
                rows[i].append(min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (x != y)))
        return rows[-1][-1]

    rng = np.random.default_rng(0)
    for _ in range(500):
        a, b = (["abcde"[i] for i in rng.integers(5, size=rng.integers(14))] for _ in "ab")
        assert m.edit_distance(a, b) == table(a, b) == m.edit_distance(b, a)


def test_repeated_inputs_make_nothing_surer() -> None:
    once = [Example(f"question {i}", "yes") for i in range(40)]
    many = [row for row in once for _ in range(10)]
    answers = [Prediction("yes" if i % 4 else "no", 0.5) for i in range(40)]
    each = m.score_predictions(job(once), answers)
    all_ = m.score_predictions(job(many), [a for a in answers for _ in range(10)])
    assert (each.effective, all_.effective, all_.n) == (40.0, 40.0, 400)
    assert all_.interval() == pytest.approx(each.interval())
    texts = job([Example("", t) for t in ("abcd" * 3, "x", "y", "z") for _ in range(5)], "generate", "bits_per_byte")
    likelihoods = [-9.0 - i // 5 for i in range(20)]
    found = m.score_likelihood(texts, likelihoods)
    assert found.effective == 4.0 and len(m.by_group(found.sums, found.groups)) == 4
    assert m.score_predictions(job(once[:1] * 2), answers[:2]).effective == 1.0


def test_tag_spans_follow_conlleval() -> None:
    assert m.tag_spans(["B-a", "I-a", "O", "I-b", "B-b", "I-a"]) == {
        ("a", 0, 2), ("b", 3, 4), ("b", 4, 5), ("a", 5, 6)
    }  # fmt: skip
    assert m.tag_spans(["O", "O"]) == set()


def test_tokenize_13a_known_cases() -> None:
    assert m.tokenize_13a("Hello, world!") == ["Hello", ",", "world", "!"]
    assert m.tokenize_13a("It's 3.14, or 1,000-ish (see p.5).") == [
        "It's", "3.14", ",", "or", "1,000", "-", "ish", "(", "see", "p", ".", "5", ")", "."
    ]  # fmt: skip
    assert m.tokenize_13a("5-star &amp; cheap") == ["5", "-", "star", "&", "cheap"]


def test_bleu_by_hand() -> None:
    # 6 tokens; matches 5/6, 3/5, 2/4, 1/3; the closest of the reference lengths 6 and 9 is 6: no brevity penalty.
    answer, references = "the cat sat on the rug", ["the cat sat on the mat", "a b c d e f g h i"]
    expected = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert m.corpus_bleu([answer], [references]) == pytest.approx(expected)
    # Clipping: "the" counts twice at most. Brevity: 4 tokens against 6.
    stats = m.bleu_stats(["the the the the"], [["the cat is on the mat"]])[0]
    assert stats.tolist() == [2, 0, 0, 0, 4, 3, 2, 1, 4, 6]
    assert m.bleu_from_sums(stats) == 0
    short = m.corpus_bleu(["the cat sat on"], [["the cat sat on the mat"]])
    assert short == pytest.approx(math.exp(1 - 6 / 4))


def test_bleu_case_and_perfection() -> None:
    assert m.corpus_bleu(["A b c d e"], [["a b c d e"]]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert m.bleu_e2e(["A b c d e"], [["a b c d e"]]) == pytest.approx(1.0)
    assert m.corpus_bleu([""], [["a b"]]) == 0.0


def test_bleu_job_groups_references_of_one_input() -> None:
    rows = [Example("x", "a b c d e"), Example("x", "f g h i j"), Example("y", "k l m n o")]
    scores = m.score_predictions(
        job(rows, "generate", "bleu"),
        [Prediction("f g h i j", 1), Prediction("f g h i j", 1), Prediction("k l m n z", 1)],
    )
    assert scores.n == 2
    assert scores.score == pytest.approx((9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25)
    assert scores.per_item[0] == pytest.approx(1.0)
    low, high = scores.interval(resamples=200)
    assert low < scores.score < high == pytest.approx(1.0)


def test_uniform_bytes_cost_eight_bits() -> None:
    assert m.bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8)
    rows = [Example("", "é" * 50), Example("", "abc")]
    scores = m.score_likelihood(job(rows, "generate", "bits_per_byte"), [-100 * math.log(256), -3 * math.log(256)])
    assert scores.score == pytest.approx(8)
    assert scores.interval(resamples=50) == pytest.approx((8, 8))
    assert not scores.higher_is_better
    with pytest.raises(ValueError, match="1 log-likelihoods for 2"):
        m.score_likelihood(job(rows, "generate", "bits_per_byte"), [-1.0])


def test_classification_scores() -> None:
    rows = [Example("1", "a"), Example("2", "a"), Example("3", "b"), Example("4", "b")]
    answers = [Prediction("a", 0.9), Prediction("a", 0.8), Prediction("b", 0.7), Prediction("a", 0.1)]
    scores = m.score_predictions(job(rows), answers)
    assert (scores.score, scores.n, scores.per_item.tolist()) == (0.75, 4, [1, 1, 1, 0])
    assert scores.extra["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores.extra["accuracy_at_0.8"] == 1.0
    assert scores.extra["confidence_auroc"] == 1.0
    assert scores.interval() == pytest.approx((0.3006, 0.9544), abs=1e-4)
    with pytest.raises(ValueError, match="3 predictions for 4"):
        m.score_predictions(job(rows), answers[:3])


def test_slot_scores() -> None:
    rows = [
        Example(f"play {artist} on {service}", f"Play | artist = {artist} ; service = {service}")
        for artist in ("abba", "the band", "queen", "cher", "blur", "air")
        for service in ("spotify", "my radio", "tape", "itunes")
    ]
    codec = FrameCodec.learn(rows)
    assert codec is not None
    answers = [Prediction(row.output, 1.0) for row in rows]
    answers[0] = Prediction("Play | artist = abba", 1.0)
    scores = m.score_predictions(job(rows, "transform", "exact_match"), answers, codec=codec)
    assert scores.score == pytest.approx(23 / 24)
    assert scores.extra["slot_f1"] == pytest.approx(2 * 47 / (47 + 48))
    assert scores.extra["mean_edit_distance"] == pytest.approx(4 / 24)


def test_latency_is_measured_one_input_at_a_time() -> None:
    class Counting:
        name, params = "counting", 0

        def __init__(self) -> None:
            self.calls: list[int] = []

        def predict(self, inputs: Sequence[str]) -> list[Prediction]:
            self.calls.append(len(inputs))
            return [Prediction("", 1.0)] * len(inputs)

        def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
            return [[0.0] * len(o) for o in outputs]

        def size_bytes(self) -> int:
            return 0

    counting = Counting()
    assert measure_latency(counting, ["a", "b"], repeats=3) >= 0
    assert counting.calls == [1] * 7
    with pytest.raises(ValueError, match="at least one"):
        measure_latency(counting, [])
