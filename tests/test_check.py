from __future__ import annotations

import io
import itertools
import json
import random
import time
from pathlib import Path

import pytest
from rich.console import Console

import smallfry.loading.leakage as leakage
from smallfry.check import DataCard, Lengths, card, render, warnings
from smallfry.job import Example, Job, Kind, Metric
from smallfry.loading import load_job
from smallfry.loading.leakage import near_matches, shingle

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "narrow"


def job_of(
    train: list[tuple[str, str]],
    test: list[tuple[str, str]],
    valid: list[tuple[str, str]] | None = None,
    kind: Kind = "classify",
    metric: Metric = "accuracy",
) -> Job:
    parts = [tuple(Example(*pair) for pair in part) for part in (train, valid or [("only here", "a")], test)]
    return Job("toy", kind, parts[0], parts[1], parts[2], metric, source="toy.jsonl", notes=("A note.",))


def text_of(found: DataCard, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(found))
    return console.export_text()


def jaccard(left: str, right: str) -> float:
    """The definition, on runs of five characters of the text between spaces."""
    a, b = ({f" {t} "[i : i + 5] for i in range(len(t) - 2)} for t in (left, right))
    return len(a & b) / len(a | b) if a | b else 0.0


def test_counts_of_doubles_and_conflicts() -> None:
    train = [("one", "a"), ("one", "a"), ("one", "b"), ("two", "b"), ("two", "b"), ("three", "b")]
    found = card(job_of(train, [("x", "b"), ("y", "a"), ("z", "b"), ("w", "c")])).splits["train"]
    assert (found.rows, found.duplicate_rows, found.duplicate_inputs, found.conflicting_inputs) == (6, 2, 3, 1)


def test_lengths_and_bytes() -> None:
    found = card(job_of([("é" * n, "a b") for n in range(1, 102)], [("x", "a b")], [("y", "a b")]))
    train = found.splits["train"]
    assert train.input_chars == Lengths(51.0, 96.0, 101)
    assert train.output_words == Lengths(2.0, 2.0, 2)
    assert train.bytes == 2 * sum(range(1, 102)) + 101 * 3
    assert found.bytes == train.bytes + 4 + 4


def test_majority_and_labels() -> None:
    train = [(f"q{i}", "yes" if i % 3 else "no") for i in range(30)]
    test = [(f"t{i}", "yes" if i < 7 else "no") for i in range(10)]
    found = card(job_of(train, test))
    assert (found.distinct_outputs, found.labels) == (2, {"yes": 20, "no": 10})
    assert (found.majority, found.majority_rate) == ("yes", 0.7)
    many = card(job_of([(f"q{i}", f"label{i % 30}") for i in range(300)], test))
    assert (many.distinct_outputs, len(many.labels)) == (30, 20)


def test_labels_only_in_test_and_labels_that_look_alike() -> None:
    train = [(f"q{i}", ("Yes", "yes ", "no")[i % 3]) for i in range(30)]
    test = [(f"t{i}", "maybe" if i < 4 else "no") for i in range(20)]
    found = card(job_of(train, test))
    assert found.only_in_test == {"maybe": 4}
    assert found.similar_labels == (("Yes", "yes "),)
    advice = " ".join(warnings(found))
    assert "1 of the labels in test never occur in train: 4 test rows (20.0%)" in advice
    assert "differ only in case, spaces or punctuation ('Yes', 'yes')" in advice


def test_exact_leaks_ignore_case_spaces_and_punctuation() -> None:
    train = [("What is the time?", "a"), ("play some jazz", "b"), ("3+4", "c")]
    test = [("what is  the TIME", "a"), ("3-4", "c"), ("an entirely different question", "b")]
    found = card(job_of(train, test, [("Play some jazz!", "b"), ("stop", "a")]))
    leak = found.leaks["test"]
    assert (leak.rows, leak.exact, leak.near, leak.compared, leak.kept_exact, leak.kept) == (3, 1, 0, 2, 2, 2)
    assert (found.leaks["valid"].exact, found.leaks["valid"].kept) == (1, 1)
    assert any("1 of 3 test rows (33.3%) are in train too" in line for line in warnings(found))


def test_leaks_of_a_job_without_inputs_are_judged_by_output() -> None:
    train = [("", f"a long enough story about number {i}") for i in range(5)]
    test = [("", "A long enough story, about number 3."), ("", "nothing of the kind was ever told")]
    found = card(job_of(train, test, [("", "zzz")], "generate", "bits_per_byte"))
    assert (found.leaks["test"].exact, found.leaks["test"].kept) == (1, 1)
    assert found.splits["train"].duplicate_inputs == 0
    assert (found.majority, found.labels, found.only_in_test) == (None, {}, {})


def test_near_leaks_equal_the_definition_on_random_texts() -> None:
    rng = random.Random(5)
    words = ["show", "me", "all", "flights", "from", "boston", "to", "denver", "on", "monday", "please", "a"]
    train = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(300)]
    held = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(150)]
    for _ in range(150):
        letters = list(rng.choice(train))
        for _ in range(rng.randint(0, 3)):
            letters[rng.randrange(len(letters))] = rng.choice("abcxyz ")
        held.append("".join(letters))
    expected = [max(jaccard(text, other) for other in train) >= 0.8 for text in held]
    assert 60 < sum(expected) < 240
    for text, near in zip(held, expected, strict=True):
        assert near_matches(train, [text]) == [(int(near), 1)], text
    assert near_matches(train, held, held[:10]) == [(sum(expected), 300), (sum(expected[:10]), 10)]


def test_shingles_are_distinct_and_rarest_first() -> None:
    texts = ["abcdef", "abcdxx", "abcdef abcdef", "", "ab"]
    found = shingle(texts)
    sizes = [len(found.of(i)) for i in range(len(texts))]
    assert sizes == [len({f" {t} "[i : i + 5] for i in range(len(t) - 2)}) for t in texts]
    frequency = {i: sum(i in found.of(k) for k in range(len(texts))) for i in range(found.count)}
    assert all(frequency[a] <= frequency[b] for a, b in itertools.pairwise(range(found.count)))
    assert set(found.of(0)) <= set(found.of(2))


def test_long_texts_are_compared_by_words() -> None:
    rng = random.Random(1)
    texts = [" ".join(f"w{rng.randrange(500)}" for _ in range(200)) for _ in range(30)]
    words = texts[3].split()
    words[100] = "other"
    half = " ".join(texts[4].split()[:100] + texts[5].split()[:100])
    assert near_matches(texts, [" ".join(words), half]) == [(1, 2)]


def test_no_text_at_all_is_no_near_match() -> None:
    assert near_matches([], ["some text here"], []) == [(0, 1), (0, 0)]
    assert near_matches(["a"], ["b", ""]) == [(0, 2)]


def test_a_very_large_split_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train = [(f"please tell me everything about topic {i:05d} today", "a") for i in range(200)]
    test = [(f"please tell me everything about topic {i:05d} todays", "a") for i in range(100)]
    whole = card(job_of(train, test)).leaks["test"]
    assert (whole.near, whole.compared, whole.kept) == (100, 100, 0)
    monkeypatch.setattr(leakage, "MAX_WORK", 50_000)
    part = card(job_of(train, test)).leaks["test"]
    assert 10 < part.compared < 90
    assert (part.near, part.kept) == (part.compared, 0)


def test_new_words_of_test_outputs() -> None:
    train = [("fly to boston", "city = boston"), ("go by train", "by = rail")]
    test = [("fly to denver", "city = denver"), ("go by plane", "by = air"), ("to boston by train", "by = train")]
    found = card(job_of(train, test, kind="transform", metric="exact_match")).new_words
    assert (found.distinct, found.not_in_outputs, found.not_in_train, found.copyable) == (5, 3, 2, 1)
    assert found.rows == pytest.approx(2 / 3)
    assert found.share == pytest.approx(2 / 5)


def test_to_dict_is_json_and_keeps_every_number() -> None:
    found = card(job_of([("one", "a"), ("two", "b")], [("three", "a")]))
    again = json.loads(json.dumps(found.to_dict()))
    assert again["splits"]["train"]["rows"] == 2
    assert again["leaks"]["test"]["kept"] == 1
    assert again["new_words"]["share"] == 0.0
    assert again["majority_rate"] == 1.0
    assert again["notes"] == ["A note."]


def test_render_shows_the_numbers_and_takes_labels_literally() -> None:
    found = card(job_of([("one", "[bold]a[/bold]"), ("two", "b\nb")] * 11, [("[red]x[/red]", "b\nb")]))
    shown = text_of(found)
    for text in (
        "toy",
        "classify",
        "A note.",
        "[bold]a[/bold]",
        "b b",
        "Rows that train has too",
        "! Only 1 test rows",
    ):
        assert text in shown
    assert text_of(card(job_of([("", "abc")], [("", "abd")], kind="generate", metric="bits_per_byte")))


def test_a_clean_job_has_no_warnings() -> None:
    rng = random.Random(0)
    names = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(900)]
    rows = [(name, ("red", "green")[i % 2]) for i, name in enumerate(names)]
    assert warnings(card(job_of(rows[:600], rows[600:], rows[:1]))) == []


def test_advice_for_skew_conflicts_copies_and_doubles() -> None:
    skewed = card(
        job_of([(f"q{i}", "no" if i % 10 else "yes") for i in range(100)], [(f"t{i}", "no") for i in range(9)])
    )
    assert any("Always answering 'no' scores 100.0%" in line for line in warnings(skewed))
    pairs = [("same", f"out {i}") for i in range(10)] + [("twice", "x")] * 10
    messy = card(job_of(pairs, [(f"call {n}", n) for n in ("anna", "bert")], kind="transform", metric="exact_match"))
    advice = " ".join(warnings(messy))
    assert "1 train inputs have more than one output" in advice
    assert "9 train rows are exact duplicates" in advice
    assert "100% of the test outputs need a word that train never shows (2 of 2" in advice


def real(name: str) -> Job:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("shared/data/narrow is not beside this checkout")
    return load_job(path)


def test_clinc150_has_the_published_overlaps_and_is_quick() -> None:
    job = real("clinc150")
    start = time.process_time()
    found = card(job)
    seconds = time.process_time() - start
    assert (found.leaks["valid"].exact, found.leaks["test"].exact) == (16, 19)
    assert (found.distinct_outputs, found.only_in_test) == (151, {})
    assert found.new_words.not_in_outputs == 0
    assert seconds < 3


def test_cmudict_is_quick() -> None:
    job = real("cmudict_g2p")
    start = time.process_time()
    found = card(job)
    assert time.process_time() - start < 15
    assert (found.leaks["valid"].exact, found.leaks["test"].exact) == (82, 72)


def test_sms_spam_majority_is_the_published_one() -> None:
    found = card(real("sms_spam"))
    assert found.majority == "ham"
    assert found.majority_rate == pytest.approx(0.8493, abs=5e-5)
    assert any("Always answering 'ham' scores 84.9%" in line for line in warnings(found))
