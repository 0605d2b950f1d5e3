"""Jobs that come from no file: data sets of the hub and the built-in jobs."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

import smallfry.loading.jobs as jobs
from smallfry.loading import job_from_rows, load_job
from tests.loading_rows import refused, rows_of


class FakeFeature:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class FakeDataset:
    """What of ``datasets.Dataset`` is used."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
        self.rows, self.features = rows, features
        self.column_names = list(rows[0])

    def __getitem__(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows]

    def __iter__(self) -> Any:
        return iter([dict(row) for row in self.rows])

    def select_columns(self, names: list[str]) -> FakeDataset:
        return FakeDataset([{name: row[name] for name in names} for row in self.rows], self.features)


def fake_hub(monkeypatch: pytest.MonkeyPatch, found: Any) -> list[tuple[str, str | None]]:
    asked: list[tuple[str, str | None]] = []

    def load_dataset(name: str, config: str | None) -> Any:
        asked.append((name, config))
        if isinstance(found, Exception):
            raise found
        return found

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_hub_data_set_with_class_labels_and_hidden_test_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(n: int, prefix: str, label: int | None = None) -> FakeDataset:
        rows = [{"text": f"{prefix} {i}", "label": i % 2 if label is None else label, "image": b"x"} for i in range(n)]
        return FakeDataset(rows, {"label": FakeFeature(["neg", "pos"]), "text": object()})

    found = {
        "train": part(80, "a"),
        "validation": part(12, "b"),
        "test": part(9, "c", -1),
        "unsupervised": part(9, "d"),
    }
    asked = fake_hub(monkeypatch, found)
    job = load_job("hf:owner/reviews:small", input_column="text", output_column="label")
    assert asked == [("owner/reviews", "small")]
    assert (job.name, job.source, job.kind) == ("reviews", "hf:owner/reviews:small", "classify")
    assert job.labels == ("neg", "pos")
    assert len(job.test) == 12
    assert any("'test' was left out because its labels are hidden" in note for note in job.notes)
    assert any("left out: unsupervised" in note for note in job.notes)
    assert "did you mean --output-column label?" in refused("hf:owner/reviews")


def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, ConnectionError("no route\nto host"))
    assert "could not be loaded (no route to host)" in refused("hf:owner/name")
    assert "expected hf:owner/name" in refused("hf:")
    assert "expected hf:owner/name" in refused("hf:a/b/c")
    fake_hub(monkeypatch, {"extra": FakeDataset(rows_of(3), {})})
    assert "no usable split among extra" in refused("hf:owner/name")


def test_a_file_wins_over_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = job_from_rows(rows_of(100), name="toy")
    module = types.SimpleNamespace(BUILTIN={"toy": 0, "tiny": 0}, load_builtin=lambda name, seed: toy)
    monkeypatch.setattr(jobs.importlib, "import_module", lambda name: module)
    monkeypatch.chdir(tmp_path)
    assert load_job("toy").hashes() == toy.hashes()
    job = load_job("toy", name="other", kind="transform", limit=7)
    assert (job.name, job.kind, job.metric, len(job.train)) == ("other", "transform", "exact_match", 7)
    message = refused("toyy")
    assert "'toyy': neither a file nor a built-in job; did you mean toy? built-in: tiny, toy; files: .jsonl" in message
    assert "hf:owner/name" in message
    assert "--where needs a file" in refused("toy", where={"a": "b"})
    (tmp_path / "toy").mkdir()
    assert load_job("toy").hashes() == toy.hashes()
    (tmp_path / "tiny").write_text("a file of that name wins")
    assert "no extension" in refused("tiny")
