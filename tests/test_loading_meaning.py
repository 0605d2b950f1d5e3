"""What loaded rows are taken for: their splits, and the kind and metric of their job."""

from __future__ import annotations

from pathlib import Path

import pytest

from smallfry.errors import SmallfryError
from smallfry.loading import job_from_rows, load_job, normalise
from smallfry.loading.splitting import group_key
from tests.loading_rows import all_rows, rows_of

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "narrow"


# --- splits


def test_normalise_ignores_case_spaces_and_punctuation_but_not_arithmetic() -> None:
    assert normalise("  What's the TIME?!") == normalise("what s the time") == "what s the time"
    assert normalise("3+4") != normalise("3-4")
    assert normalise("3.5 km") != normalise("3 5 km")
    assert normalise("call 555, now!") == normalise("Call 555 now")
    assert normalise("?!") == "?!"
    assert normalise(" ") == ""


def test_a_seeded_split_never_puts_an_input_on_both_sides() -> None:
    rows = rows_of(400) + [{**r, "input": r["input"].upper() + "!"} for r in rows_of(400)] + rows_of(100)
    job = job_from_rows(rows, seed=1)
    keys = [{group_key(e.input, e.output) for e in part} for part in (job.train, job.valid, job.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert len(all_rows(job)) == 900
    assert 80 <= len(job.valid) <= 90 and 80 <= len(job.test) <= 90
    assert any("cut with seed 1 into train" in note for note in job.notes)
    assert job_from_rows(rows, seed=1).hashes() == job.hashes()
    assert job_from_rows(rows, seed=2).hashes()["test"] != job.hashes()["test"]


def test_the_split_of_a_row_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = rows_of(300)
    forward, backward = job_from_rows(rows), job_from_rows(rows[::-1])
    assert set(forward.test) == set(backward.test)
    assert forward.test == backward.test[::-1]


def test_valid_is_cut_from_train_when_it_is_missing() -> None:
    job = job_from_rows(rows_of(300, "train") + rows_of(300, "train") + rows_of(50, "test", "other"))
    assert len(job.test) == 50
    assert 58 <= len(job.valid) <= 60
    assert not {e.input for e in job.valid} & {e.input for e in job.train}
    assert any("There is no valid split: 60 of 600 train rows" in note for note in job.notes)


def test_valid_rows_are_at_most_500_and_test_at_most_5000() -> None:
    job = job_from_rows(rows_of(60_000))
    assert (len(job.valid), len(job.test)) == (500, 5000)


def test_one_input_repeated_on_purpose_stays_in_train() -> None:
    rows = [{"input": "jump", "output": "red"}] * 10 + rows_of(18) * 5
    for seed in range(60):
        job = job_from_rows(rows, seed=seed, kind="classify")
        assert sum(e.input == "jump" for e in job.train) == 10
        assert (len(job.valid), len(job.test)) == (10, 10)


def test_split_names_and_their_aliases() -> None:
    for alias in ("valid", "dev", "val", "validation", "eval", "Dev "):
        job = job_from_rows(rows_of(30, "TRAIN") + rows_of(9, alias, "v") + rows_of(6, "test", "t"))
        assert (len(job.train), len(job.valid), len(job.test)) == (30, 9, 6)
        assert "The data's own split was used: train 30, valid 9, test 6." in job.notes
    job = job_from_rows(rows_of(60, "train") + rows_of(9, "dev", "v"))
    assert len(job.test) == 9
    assert "There is no test split: the valid rows serve as test." in job.notes
    with pytest.raises(SmallfryError, match="no train rows, the split column has only valid and test"):
        job_from_rows(rows_of(30, "dev") + rows_of(30, "test"))
    with pytest.raises(SmallfryError, match="row 31: no split although other rows have one"):
        job_from_rows(rows_of(30, "train") + rows_of(5))
    with pytest.raises(SmallfryError, match="too few distinct inputs"):
        job_from_rows([{"input": "a", "output": str(i)} for i in range(40)], kind="transform")


def test_empty_inputs_are_split_by_output() -> None:
    names = [{"input": "", "output": f"name{i % 200}"} for i in range(400)]
    job = job_from_rows(names)
    assert not {e.output for e in job.train} & {e.output for e in job.test}
    assert (
        job_from_rows([{"text": r["output"]} for r in names], input_column="", output_column="text").hashes()
        == job.hashes()
    )


def test_limit_draws_rows_of_each_split_in_their_order() -> None:
    rows = rows_of(300, "train") + rows_of(60, "dev", "v") + rows_of(10, "test", "t")
    job = job_from_rows(rows, limit=40)
    assert (len(job.train), len(job.valid), len(job.test)) == (40, 40, 10)
    order = [row["input"] for row in rows]
    places = [order.index(e.input) for e in job.train]
    assert places == sorted(places) and places != list(range(40))
    assert job_from_rows(rows, limit=40).hashes() == job.hashes()


# --- kinds


def test_classify_is_inferred_and_explained() -> None:
    job = job_from_rows(rows_of(200))
    assert (job.kind, job.metric) == ("classify", "accuracy")
    note = next(note for note in job.notes if "Inferred" in note)
    assert "because train has 3 distinct short outputs" in note
    assert "--kind transform" in note


def test_transform_is_inferred_for_outputs_that_vary_or_are_long() -> None:
    varied = [{"input": f"say w{i}", "output": f"W{i} said"} for i in range(100)]
    job = job_from_rows(varied)
    assert (job.kind, job.metric) == ("transform", "exact_match")
    long = [{"input": f"q{i}", "output": f"SELECT a , b FROM t{i % 3} WHERE c = 1"} for i in range(100)]
    assert job_from_rows(long).kind == "transform"


def test_generate_is_inferred_for_empty_inputs_and_for_several_long_outputs() -> None:
    names = job_from_rows([{"input": "", "output": f"name{i}"} for i in range(100)])
    assert (names.kind, names.metric) == ("generate", "bits_per_byte")
    told = [
        {"input": f"name[{i}]", "output": f"There is a place called number {i} told in way {k}", "split": split}
        for split, ids in (("train", range(60)), ("dev", range(60, 70)), ("test", range(70, 80)))
        for i in ids
        for k in range(3)
    ]
    job = job_from_rows(told)
    assert (job.kind, job.metric) == ("generate", "bleu")
    assert (len(job.train), len(job.valid), len(job.test)) == (180, 10, 10)
    assert job.test[0].accepted == tuple(f"There is a place called number 70 told in way {k}" for k in range(3))
    assert job.train[0].references == ()
    assert "The 30 test rows are 10 inputs with one or more references each." in job.notes


def test_kind_and_metric_can_be_overridden() -> None:
    job = job_from_rows(rows_of(100), kind="transform")
    assert (job.kind, job.metric) == ("transform", "exact_match")
    assert not any("Inferred" in note for note in job.notes)
    assert job_from_rows(rows_of(100), metric="exact_match").metric == "exact_match"
    assert job_from_rows(rows_of(100), kind="generate").metric == "bleu"


def test_labels_that_train_lacks_are_reported_and_many_are_a_warning() -> None:
    train, test = rows_of(300, "train"), rows_of(100, "test", "t")
    test[0]["output"] = "violet"
    job = job_from_rows(train + test)
    note = next(note for note in job.notes if "never occur in train" in note)
    assert note.startswith("1 of the labels in test") and "1 of 100 test rows, 1.0%; 'violet'" in note
    for row in test[:10]:
        row["output"] = "violet"
    job = job_from_rows(train + test, kind="classify")
    assert any(note.startswith("Warning: 1 of the labels in test") for note in job.notes)


@pytest.mark.parametrize("output", ["red", "one answer of seven words for all"])
def test_a_job_with_one_output_is_refused(output: str) -> None:
    with pytest.raises(SmallfryError, match=f"rows have the output '{output}', so there is nothing to learn"):
        job_from_rows([{**row, "output": output} for row in rows_of(60)])


# --- real data


@pytest.mark.parametrize(
    ("name", "kind", "metric"),
    [
        *((name, "classify", "accuracy") for name in ("banking77", "clinc150", "sms_spam", "sst2")),
        *(
            (name, "transform", "exact_match")
            for name in ("snips_intent_slots", "atis_intent_slots", "scan_simple", "text2sql_atis", "cmudict_g2p")
        ),
        ("e2e_nlg", "generate", "bleu"),
        ("names_makemore", "generate", "bits_per_byte"),
    ],
)
def test_kinds_of_real_data(name: str, kind: str, metric: str) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("shared/data/narrow is not beside this checkout")
    job = load_job(path, references_column="alternatives" if name == "cmudict_g2p" else None)
    assert (job.kind, job.metric) == (kind, metric)
    if name == "cmudict_g2p":
        assert next(e for e in job.train if e.input == "a").accepted == ("AH0", "EY1")


def test_clinc150_without_out_of_scope_rows() -> None:
    path = SHARED / "clinc150.jsonl.gz"
    if not path.exists():
        pytest.skip("shared/data/narrow is not beside this checkout")
    job = load_job(path, where={"oos": "false"})
    assert (len(job.train), len(job.valid), len(job.test)) == (15_000, 3_000, 4_500)
    assert len(job.labels) == 150
