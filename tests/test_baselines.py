from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smallfry.candidates import SCORE_FLOOR, Prediction, Predictor
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import score_likelihood, score_predictions
from smallfry.job import Example, Job

pytest.importorskip("sklearn_crfsuite")
from smallfry import baselines as bl
from smallfry.baselines.calibration import Platt, fit_scale, log_softmax
from smallfry.baselines.template import Assigned, delexicalise, parse_bracketed, parse_json, structure

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "narrow"

VERBS = {"on": ("turn on", "switch on", "light up"), "off": ("turn off", "kill", "shut"), "dim": ("dim", "lower")}
THINGS = ("the lamp", "the big lamp", "the fan", "my heater", "the kitchen light", "all lights", "the tv", "the stove")
TAILS = ("", " please", " now", " at once", " for me", " right now")


def commands() -> list[Example]:
    grid = itertools.product(VERBS.items(), THINGS, TAILS)
    rows = [Example(f"{verb} {thing}{tail}", label) for (label, verbs), thing, tail in grid for verb in verbs]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def classify_job() -> Job:
    rows = commands()
    return Job("lights", "classify", tuple(rows[:240]), tuple(rows[240:300]), tuple(rows[300:]), "accuracy")


FIRST = ("abba", "the band", "queen", "cher", "blur", "air", "the who", "tom waits")
LAST = ("spotify", "my radio", "tape", "itunes", "the old deck")


def slot_rows(artists: Sequence[str], services: Sequence[str]) -> list[Example]:
    rows = []
    for artist, service in itertools.product(artists, services):
        rows.append(Example(f"play {artist} on {service}", f"Play | artist = {artist} ; service = {service}"))
        rows.append(Example(f"please play {artist}", f"Play | artist = {artist}"))
        rows.append(Example(f"remove {artist} from {service}", f"Drop | artist = {artist} ; service = {service}"))
    return rows


def slot_job() -> Job:
    train = slot_rows(FIRST, LAST)
    return Job(
        "music", "transform", tuple(train), tuple(train[::5]), tuple(slot_rows(("zorblax", "qi"), LAST)), "exact_match"
    )


def restaurant_job() -> Job:
    def row(name: str, food: str, kids: str | None) -> Example:
        source = f"name[{name}], food[{food}]" + (f", familyFriendly[{kids}]" if kids else "")
        tail = {None: "", "yes": " and welcomes children", "no": " for adults only"}[kids]
        return Example(source, f"{name} serves {food} food{tail}.")

    names = ("The Eagle", "Zizzi", "Alimentum", "The Mill")
    grid = list(itertools.product(names, ("French", "Thai"), ("yes", "no", None)))
    train = [row(*cell) for cell in grid]
    odd = Example("name[Zizzi], food[Thai]", "Zizzi: Thai plates every day, for all.")
    test = [row("Green Man", "Inca", kids) for kids in ("yes", "no", None)]
    return Job("food", "generate", (*train, odd), tuple(train[:6]), tuple(test), "bleu")


def words_job() -> Job:
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "épsilon"]
    rows = [Example("", " ".join(rng.choice(words, size=5))) for _ in range(120)]
    return Job("words", "generate", tuple(rows[:80]), tuple(rows[80:100]), tuple(rows[100:]), "bits_per_byte")


def accuracy(job: Job, predictor: Predictor) -> float:
    return score_predictions(job, predictor.predict([row.input for row in job.test])).score


JOBS = {"classify": classify_job, "slots": slot_job, "fields": restaurant_job, "text": words_job}


def test_standard_baselines_fit_the_kind() -> None:
    names = {kind: [name for name, _ in bl.standard_baselines(make())] for kind, make in JOBS.items()}
    assert names == {
        "classify": ["majority", "nearest", "svm"],
        "slots": ["majority", "nearest", "svm", "crf"],
        "fields": ["majority", "nearest", "template"],
        "text": ["ngram"],
    }


@pytest.mark.parametrize("kind", JOBS)
def test_every_baseline_keeps_the_contract(kind: str) -> None:
    job = JOBS[kind]()
    inputs = [row.input for row in job.test[:4]]
    for name, fit in bl.standard_baselines(job):
        predictor = fit()
        answers = predictor.predict(inputs)
        assert predictor.name == name
        assert predictor.predict([]) == []
        assert predictor.score([], []) == []
        assert predictor.size_bytes() > 0
        assert predictor.params >= 0
        assert all(0 <= answer.confidence <= 1 for answer in answers)
        scores = predictor.score(inputs, [[answer.output, "never said before"] for answer in answers])
        assert np.isfinite(scores).all()
        assert name == "ngram" or all(own >= other for own, other in scores)
        again, copy = fit(), pickle.loads(pickle.dumps(predictor))  # noqa: S301
        for other in (again, copy):
            assert other.predict(inputs) == answers
            assert other.score(inputs, [["a"]] * len(inputs)) == predictor.score(inputs, [["a"]] * len(inputs))


def test_svm_learns_and_is_calibrated() -> None:
    job = classify_job()
    svm = bl.fit_svm(job)
    assert accuracy(job, svm) > 0.95 > 0.6 > accuracy(job, bl.fit_majority(job))
    tables = svm.score(["kill the fan"], [[*job.labels, "never"]])
    assert sum(math.exp(s) for s in tables[0][:-1]) == pytest.approx(1, abs=1e-6)
    assert tables[0][-1] == SCORE_FLOOR
    assert svm.predict(["kill the fan"])[0].output == "off"


def test_svm_cut_respects_bytes_and_uses_them() -> None:
    job = classify_job()
    whole = bl.fit_svm(job)
    for budget in (500, 1500, 4000):
        cut = bl.fit_svm_cut(job, budget)
        assert budget - 60 < cut.size_bytes() <= budget < whole.size_bytes()
    assert accuracy(job, cut) > 0.9
    with pytest.raises(SmallfryError, match="10 bytes do not hold one n-gram"):
        bl.fit_svm_cut(job, 10)


def test_svm_edge_cases() -> None:
    job = classify_job()
    two = replace(
        job, **{s: tuple(r for r in getattr(job, s) if r.output != "dim") for s in ("train", "valid", "test")}
    )
    assert accuracy(two, bl.fit_svm(two)) > 0.95
    one = replace(job, train=tuple(r for r in job.train if r.output == "on"))
    assert bl.fit_svm(one).predict(["x"]) == [Prediction("on", 1.0)]
    unheld = replace(job, train=job.train + job.valid, valid=())
    assert accuracy(unheld, bl.fit_svm(unheld)) > 0.95
    distinct = replace(job, kind="transform", train=(Example("a", "b"), Example("c", "d")))
    with pytest.raises(SmallfryError, match="no output occurs twice"):
        bl.fit_svm(distinct)


def test_nearest_copies_and_knows_when_it_is_unsure() -> None:
    job = classify_job()
    nearest = bl.fit_nearest(job)
    row = job.train[7]
    assert nearest.predict([row.input, row.input])[1].output == row.output
    _, cosine = nearest.neighbours([row.input, "qqq zzz"])
    assert cosine == pytest.approx([1, 0], abs=1e-5)
    doubled = replace(job, train=(Example("x y", "1"), Example("x y", "2"), Example("x y", "2")), valid=job.valid)
    assert bl.fit_nearest(doubled).predict(["x"])[0].output == "2"


def test_nearest_ways_of_searching_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    job = classify_job()
    inputs = [row.input for row in job.test] + ["qqq zzz"]
    rows, cosine = bl.fit_nearest(job).neighbours(inputs)
    monkeypatch.setattr("smallfry.baselines.simple._COSTLY", 1.0)
    dense_rows, dense_cosine = bl.fit_nearest(job).neighbours(inputs)
    assert dense_cosine == pytest.approx(cosine, abs=1e-5)
    assert np.mean(dense_rows == rows) > 0.9  # ties may fall either way by rounding
    monkeypatch.setattr("smallfry.baselines.simple._DENSE", 0)
    monkeypatch.setattr("smallfry.baselines.simple._RARE", 60)
    _, short = bl.fit_nearest(job).neighbours(inputs)
    assert np.mean(np.isclose(cosine, short, atol=1e-5)) > 0.95


def test_svm_is_unsure_of_outputs_it_cannot_say() -> None:
    rows = commands()
    odd = tuple(Example(row.input, f"{row.output} {i}") if i % 2 else row for i, row in enumerate(rows))
    job = Job("odd", "transform", odd[:240], odd[240:300], odd[300:], "exact_match")
    svm = bl.fit_svm(job)
    assert isinstance(svm, bl.Linear)
    assert svm.labels == ["dim", "off", "on"]
    assert "3 of the 123" in svm.note
    scores = score_predictions(job, svm.predict([row.input for row in job.test]))
    assert scores.extra["ece"] < 0.15
    assert math.fsum(map(math.exp, svm.score(["kill the fan"], [svm.labels])[0])) == pytest.approx(0.5, abs=0.05)


def test_crf_finds_values_it_has_never_seen() -> None:
    job = slot_job()
    crf = bl.fit_crf(job)
    assert accuracy(job, crf) == 1.0
    assert (
        crf.predict(["remove glimmertwins from betamax"])[0].output
        == "Drop | artist = glimmertwins ; service = betamax"
    )


def test_crf_scores_are_probabilities_of_frames() -> None:
    job = slot_job()
    crf = bl.fit_crf(job)
    text = "please play abba"
    answer = crf.predict([text])[0]
    proposed = [answer.output, "Drop | artist = abba", "Play | artist = play", "Play | artist = nobody", "junk"]
    scores = crf.score([text], [proposed])[0]
    assert math.exp(scores[0]) == pytest.approx(answer.confidence)
    assert scores[0] > max(scores[1:])
    assert scores[3:] == [SCORE_FLOOR] * 2
    assert math.fsum(map(math.exp, scores)) <= 1
    with pytest.raises(SmallfryError, match="not labels plus spans"):
        bl.fit_crf(classify_job())


def test_structures_parse() -> None:
    fields = {"name": "The Vaults", "eatType": "pub"}
    assert parse_bracketed("name[The Vaults], eatType[pub]") == fields
    assert Assigned(";", "=")("name = The Vaults ; eatType = pub") == fields
    assert structure(["name: The Vaults\neatType: pub"] * 3) == Assigned("\n", ":")
    assert structure(["name = a, b ; food = c"] * 3) == Assigned(";", "=")
    assert structure(["a plain sentence", "note: another"]) is None
    assert parse_json('{"name": "The Vaults", "eatType": "pub"}') == fields
    assert parse_json('{"a": {"b": 1}}') is None
    for parser in (parse_bracketed, Assigned(";", "="), parse_json):
        assert parser("a plain sentence, without fields") is None
        assert parser("") is None


def test_delexicalise_longest_first_and_whole_words() -> None:
    mark = "\x1a"
    fields = {"name": "The Mill", "near": "The Mill House", "food": "Mill"}
    template, placed = delexicalise("the mill is near The Mill House, a Mill not a Millstone.", fields)
    assert template == f"{mark}name{mark} is near {mark}near{mark}, a {mark}food{mark} not a Millstone."
    assert placed == {"name", "near", "food"}


def test_templates_fill_unseen_values_and_keep_closed_ones_apart() -> None:
    job = restaurant_job()
    templates = bl.fit_template(job)
    answers = [answer.output for answer in templates.predict([row.input for row in job.test])]
    assert answers == [row.output for row in job.test]
    # Never seen with this set of fields: says less rather than something the input does not say.
    assert templates.predict(["name[Bo], food[Thai], area[riverside]"])[0].output == "Bo serves Thai food."
    assert templates.predict(["area[riverside]"])[0].output == "riverside"
    with pytest.raises(SmallfryError, match="inputs are not fields"):
        bl.fit_template(classify_job())


def test_ngram_probabilities_sum_to_one() -> None:
    model = bl.fit_ngram(words_job())
    for history in (b"", b"a", b"alpha ", b"alpha beta", "é".encode(), b"\xff", b"zzz qqq alpha", b"never seen at all"):
        p = model.distribution(history)
        assert p.sum() == pytest.approx(1, abs=1e-5)
        assert (p > 0).all()


def test_ngram_likelihood_is_the_product_of_its_distributions() -> None:
    model = bl.fit_ngram(words_job())
    for text in ("beta épsilon", "", "unseen words"):
        data = text.encode()
        expected = sum(math.log(model.distribution(data[:i])[symbol]) for i, symbol in enumerate([*data, 256]))
        assert model.score([""], [[text]])[0][0] == pytest.approx(expected, rel=1e-5)


def test_ngram_kneser_ney_by_hand() -> None:
    # Order 2 on "ab", "ab", "ac" (# ends a text). Continuation counts of the lower level: a 1 (after the start),
    # b 1, c 1, # 2 (after b, c); no level has counts that allow the estimate of discounts, except the highest.
    rows = tuple(Example("", text) for text in ("ab", "ab", "ac"))
    model = bl.fit_ngram(Job("toy", "generate", rows, rows, rows, "bits_per_byte"), max_order=2)
    # Highest level: a|start 3, b|a 2, c|a 1, #|b 2, #|c 1: n1 = 2, n2 = 2, n3 = 1, n4 = 0.
    y = 2 / (2 + 2 * 2)
    d1, d2 = 1 - 2 * y * 2 / 2, 2 - 3 * y * 1 / 2
    # Lower level: n1 = 3, n2 = 1, n3 = 0.
    y = 3 / (3 + 2 * 1)
    e1, e2 = 1 - 2 * y * 1 / 3, 2.0 - 0.05
    rest = (3 * e1 + e2) / 5
    b = (1 - e1) / 5 + rest / 257
    assert model.order == 2
    assert model.distribution(b"a")[ord("b")] == pytest.approx((2 - d2) / 3 + (d1 + d2) / 3 * b, rel=1e-5)


def test_ngram_learns_more_than_bytes_and_samples_its_text() -> None:
    job = words_job()
    model = bl.fit_ngram(job)
    found = score_likelihood(job, [s[0] for s in model.score([""] * 20, [[row.output] for row in job.test])])
    assert found.score < 1.0
    assert bl.fit_ngram(job, max_order=1).order == 1
    assert model.sample(3) == model.sample(3) != model.sample(4)
    assert set(model.sample(3, temperature=0.3).split()) <= {"alpha", "beta", "gamma", "delta", "épsilon"}
    assert len(model.sample(3, max_bytes=7).encode()) == 7
    with pytest.raises(SmallfryError, match="every train output is empty"):
        bl.fit_ngram(replace(job, train=(Example("a", ""),)))


def test_ngram_order_is_not_chosen_on_the_text_it_counted() -> None:
    rng = np.random.default_rng(1)
    noise = "".join(rng.choice(list("abcdefgh"), size=3000))
    job = Job("noise", "generate", (Example("", noise),), (), (Example("", noise),), "bits_per_byte")
    assert bl.fit_ngram(job).order <= 2


class Half:
    """Right on the rows where ``knows`` holds and then sure of itself, else guessing the first label."""

    params = 1

    def __init__(self, name: str, rows: Sequence[Example], labels: Sequence[str], odd: bool) -> None:
        self.name = name
        self._truth = {row.input: row.output for i, row in enumerate(rows) if i % 2 == odd}
        self._labels = labels

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        return [Prediction(self._truth.get(x, self._labels[0]), 0.9 if x in self._truth else 0.3) for x in inputs]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        answers = self.predict(inputs)
        return [
            [math.log(a.confidence if o == a.output else 0.05) for o in proposed]
            for a, proposed in zip(answers, outputs, strict=True)
        ]

    def size_bytes(self) -> int:
        return 10


@pytest.mark.parametrize("kind", ["classify", "transform"])
def test_combined_beats_both_halves(kind: str) -> None:
    job = replace(classify_job(), kind=kind, metric="accuracy" if kind == "classify" else "exact_match")
    rows = job.valid + job.test
    one, other = (Half(name, rows, job.labels, odd) for name, odd in (("one", False), ("other", True)))
    both = bl.combined(job, one, other)
    assert accuracy(job, both) == 1.0 > max(accuracy(job, one), accuracy(job, other))
    assert (both.name, both.params, both.size_bytes()) == ("one + other", 2, 20)
    inputs = [row.input for row in job.test[:3]]
    assert [a.output for a in both.predict(inputs)] == [
        max(job.labels, key=lambda label: both.score([text], [[label]])[0][0]) for text in inputs
    ]


def test_combined_falls_back_to_the_better_one() -> None:
    job = classify_job()
    svm, majority = bl.fit_svm(job), bl.fit_majority(job)
    for a, b in ((svm, majority), (majority, svm)):
        assert accuracy(job, bl.combined(job, a, b)) >= accuracy(job, svm)
    with pytest.raises(SmallfryError, match="bits per byte"):
        bl.combined(words_job(), majority, majority)


def test_combined_frames_exchange_heads_and_tags() -> None:
    job = slot_job()

    class Fixed(Half):
        def __init__(self, output: str) -> None:
            super().__init__("fixed", (), ["x"], False)
            self._output = output

        def predict(self, inputs: Sequence[str]) -> list[Prediction]:
            return [Prediction(self._output, 0.5)] * len(inputs)

    text = "play abba on tape"
    a = Fixed("Play | artist = abba")
    b = Fixed("Drop | artist = abba ; service = tape")
    proposed, _, _ = bl.combined(job, a, b).proposals([text])
    assert "Play | artist = abba ; service = tape" in proposed[0]
    assert len(proposed[0]) == 4


def test_temperature_and_platt_recover_known_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4000, 5))
    p = np.exp(log_softmax(3 * logits))
    gold = (p.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    assert fit_scale(logits, gold) == pytest.approx(3, rel=0.05)
    x = rng.normal(0, 2, 5000)
    fitted = Platt.fit(x, rng.random(5000) < 1 / (1 + np.exp(-(1.5 * x - 0.5))))
    assert (fitted.slope, fitted.offset) == pytest.approx((1.5, -0.5), abs=0.1)
    assert Platt.fit([1.0, 1.0], [True, False])([0.3])[0] == pytest.approx(0.5)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the data folder beside the checkout")
def test_svm_on_real_intents() -> None:
    import gzip
    import json

    with gzip.open(SHARED / "atis_intent_slots.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    split = {
        s: tuple(Example(r["input"], r["intent"]) for r in raw if r["split"] == s) for s in ("train", "valid", "test")
    }
    job = Job("atis", "classify", split["train"][:1500], split["valid"][:200], split["test"], "accuracy")
    assert accuracy(job, bl.fit_svm(job)) > 0.9


def test_much_text_is_counted_in_part_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from smallfry.baselines import ngram

    rows = tuple(Example("", f"the {c} dog ran home number {i}") for i in range(60) for c in ("red", "blue"))
    job = Job("t", "generate", rows, rows[:10], rows[:10], "bits_per_byte")
    whole = ngram.fit_ngram(job)
    monkeypatch.setattr(ngram, "MOST_CHARS", 1000)
    part = ngram.fit_ngram(job)
    assert not whole.note and "every 4th training row" in part.note and part.params < whole.params
