"""The assessment record: round trips, tolerant reading, refusals in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from smallfry.errors import SmallfryError
from smallfry.record import (
    FORMAT,
    Assessment,
    summary,
)
from tests.synthetic import CASES, broken_numbers, synthetic


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


@pytest.mark.parametrize("value", [10**400, -5])
def test_counts_out_of_range_are_refused(tmp_path: Path, value: int) -> None:
    path = tmp_path / "assessment.json"
    synthetic().save(path)
    data = json.loads(path.read_text())
    data["rows"][0]["bytes"] = value
    path.write_text(json.dumps(data))
    with pytest.raises(SmallfryError, match="expected a whole number from 0"):
        Assessment.load(path)
