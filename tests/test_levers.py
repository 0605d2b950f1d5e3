"""The grid of levers: every arm runs, finished units are kept, and the statistics are right."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.builtin.stories import generate
from smallfry.errors import SmallfryError
from smallfry.frames import FrameCodec
from smallfry.job import Example
from smallfry.tokenizer import BOS, Tokenizer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from levers import material, measure, results, runner  # noqa: E402
from levers.arms import ARMS, LEVERS, Settings, Unit, units  # noqa: E402
from levers.batches import Planned, text_batches, text_ids  # noqa: E402

COLOURS = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_RESAMPLES", 1000)


def script() -> Any:
    spec = importlib.util.spec_from_file_location("levers_script", ROOT / "benchmarks" / "levers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder such as the real one, of a few made-up rows."""
    folder = tmp_path_factory.mktemp("levers")
    rows = [
        {"input": f"paint {n} of them {colour} please", "output": f"colour_{colour}", "oos": False, "split": split}
        for split, numbers in (("train", range(40)), ("valid", range(40, 45)), ("test", range(45, 60)))
        for n in numbers for colour in COLOURS
    ]  # fmt: skip
    write_rows(folder / "narrow" / "clinc150.jsonl.gz", rows)
    for name in material.OTHER_JOBS:
        write_rows(folder / "narrow" / f"{name}.jsonl.gz", [
            {"input": f"question {n} of {name}", "output": f"answer {n}", "split": "train"} for n in range(50)
        ])  # fmt: skip
    told, _, unseen = generate(0, 80, 0, 30)
    write_rows(
        folder / "stories" / "tinystories_train.jsonl.gz",
        [{"text": text, "collection": material.CLEAN[n % 2]} for n, text in enumerate(row.output for row in told)],
    )
    write_rows(folder / "stories" / "tinystories_valid.jsonl.gz", [{"text": row.output} for row in unseen])
    write_rows(folder / "stories" / "classic_children_books.jsonl.gz", [
        {"text": "\n\n".join(row.output for row in generate(1, 120, 0, 0)[0])}
    ])  # fmt: skip
    for name in material.GENERAL:
        texts = [f"The committee of {name} met on day {n}. It was said that prices rose." for n in range(80)]
        write_rows(folder / "text" / f"{name}.jsonl.gz", [{"text": text} for text in texts])
    return folder


@pytest.fixture
def settings(data: Path) -> Settings:
    return Settings(data, tokens=6000, limit=60)


# ---- what is run ----------------------------------------------------------------------------------------------------


def test_the_grid_has_every_arm_of_every_task_and_equal_tokens() -> None:
    grid = units()
    assert len(grid) == len({unit.key for unit in grid}) == 126
    budgets: dict[tuple[str, str], set[int]] = {}
    for unit in grid:
        if unit.arm != "tuning-alone":
            budgets.setdefault((unit.task, unit.size), set()).add(unit.tokens(Settings(Path())))
    assert all(len(tokens) == 1 for tokens in budgets.values())
    whole = Unit("stories", "1m", "full", 0).tokens(Settings(Path()))
    assert Unit("stories", "1m", "tuning-alone", 0).tokens(Settings(Path())) == round(0.1 * whole)
    with pytest.raises(SmallfryError, match="give --tokens"):
        Unit("stories", "2m", "full", 0).tokens(Settings(Path()))


def test_shares_hold_at_every_time_and_the_same_numbers_give_the_same_batches() -> None:
    ids = np.arange(100, 1100)

    def plan() -> Planned:
        sources = ((0.5, 64), (0.25, 64), (0.25, 32))
        return Planned([(share, text_batches(ids, size, 0, seq_len=16)) for share, size in sources], 4000)

    first, again = plan(), plan()
    assert 4000 <= sum(first.taken) < 4000 + 64
    assert np.allclose(np.array(first.taken) / sum(first.taken), [0.5, 0.25, 0.25], atol=0.02)
    half = sum(batch.num_tokens for batch in first.batches[: len(first.batches) // 2])
    assert half == pytest.approx(2000, abs=70)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first.epoch(0), again.epoch(0), strict=True))


def test_a_pass_over_text_reads_every_token_and_predicts_the_next() -> None:
    tokenizer = Tokenizer.train(["one two three"] * 5, 270)
    ids = text_ids(["one two three", "three two one"] * 9, tokenizer, 10**6)
    assert (ids == BOS).sum() == 18
    batches = list(itertools.islice(text_batches(ids, 32, 0, seq_len=8), -(-len(ids) // 32)))
    read = np.concatenate([batch.ids.ravel() for batch in batches])
    assert set(np.bincount(ids, minlength=270).nonzero()[0]) == set(np.unique(read)) and len(read) >= len(ids)
    for batch in batches:
        assert np.array_equal(batch.ids[:, 1:], batch.targets[:, :-1])
        assert np.array_equal(batch.weights == 0, batch.targets == BOS)
    assert len(text_ids(["one two three"] * 9, tokenizer, 12)) < len(text_ids(["one two three"] * 9, tokenizer, 99))


# ---- what is spoiled ------------------------------------------------------------------------------------------------


def test_a_third_of_a_jobs_rows_is_spoiled_and_stays_sayable() -> None:
    from smallfry import Job

    rows = Job.load("commands").train[:600]
    codec = FrameCodec.learn(rows)
    assert codec is not None
    spoiled = material.spoil_rows(rows, codec, 3)
    changed = [b for a, b in zip(rows, spoiled, strict=True) if a != b]
    assert len(changed) == pytest.approx(200, abs=3)
    assert all(codec.parse(row) is not None for row in changed)
    known = set(rows)
    wrong = [b for a, b in zip(rows, spoiled, strict=True) if a.input == b.input and a.output != b.output]
    assert len(wrong) == pytest.approx(150, abs=5)
    assert sum(row in known for row in changed) == pytest.approx(50, abs=5)
    assert material.spoil_rows(rows, codec, 3) == spoiled != material.spoil_rows(rows, codec, 4)


def test_labels_are_spoiled_by_other_rows_labels() -> None:
    rows = [Example(f"row {n}", COLOURS[n % 3]) for n in range(300)]
    spoiled = material.spoil_rows(rows, None, 0)
    wrong = [b for b in spoiled if b.input != "" and b.output != COLOURS[int(b.input.split()[1]) % 3]]
    assert len(wrong) == 75 and {row.output for row in wrong} <= set(COLOURS)


def test_a_third_of_the_documents_is_spoiled_in_three_ways() -> None:
    texts = [f"{word} " * 40 for word in "abcdefghijklmnopqrstuvwxyz"[:24]]
    spoiled = material.spoil_texts(texts, 1)
    changed = [b for a, b in zip(texts, spoiled, strict=True) if a != b]
    assert 6 <= len(changed) <= 8  # a copy or a half may be of the same document
    again, glued = (sum(test(t) for t in changed) for test in (texts.__contains__, lambda t: len(set(t)) == 3))
    assert 1 <= again <= 3 and glued >= 2


def test_the_small_set_is_part_of_the_large_one(settings: Settings) -> None:
    clean, large = material.choose_rows(material.load_task("clinc150", settings), settings, 0)
    assert len(large.train) == 2 * len(clean.train) and set(clean.train) <= set(large.train)
    other, _ = material.choose_rows(material.load_task("clinc150", settings), settings, 1)
    assert set(other.train) != set(clean.train)
    texts, held_out = material.clean_stories(settings)
    assert not set(texts) & set(held_out.texts)
    small = material.choose_texts(texts, settings, 0, spoiled=False)
    assert len(material.choose_texts(texts, settings, 0, spoiled=True)) == 2 * len(small)


def test_held_out_passages_of_books_are_not_learned(settings: Settings) -> None:
    learned, held_out = material.books(settings)
    assert not set(learned) & set(held_out.texts)
    assert all(len(text) >= material.PASSAGE for text in learned[:-1])


def test_passages_keep_every_word_in_order() -> None:
    text = 'He said. "No." Then\nhe left.\n\nA day later he came. She saw him.'
    found = material.passages(text, 15)
    assert " ".join(found).split() == text.split() and len(found) > 2


# ---- one unit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_of_a_classify_job_is_asked_the_same_rows(arm: Any, settings: Settings) -> None:
    found = measure.run_unit(Unit("clinc150", "0.25m", arm, 0), settings)
    assert len(found["measures"]["accuracy"]["right"]) == 45
    assert found["params"] == pytest.approx(250_000, rel=0.1)
    assert found["tokens"] == pytest.approx(600 if arm == "tuning-alone" else 6000, abs=4100)
    assert found["form"] == ("text" if arm == "task" else "units")
    assert found["rows"] == (120 if arm == "data" else 60)
    assert (found["vocab"] > 320) == (arm == "vocabulary")  # general text has more pieces than the few words of the job
    assert [len(sources) for sources in found["tokens_by_source"]] == {"domain": [3], "tuning": [1, 1]}.get(arm, [1])


@pytest.mark.parametrize("arm", ["full", "vocabulary", "task", "data"])
def test_arms_of_a_transform_job(arm: Any, data: Path) -> None:
    found = measure.run_unit(Unit("commands", "0.25m", arm, 0), Settings(data, tokens=5000, limit=400))
    assert found["form"] == ("text" if arm == "task" else "inline")
    assert len(found["measures"]["exact_match"]["right"]) == 400 and found["skipped"] == 0


@pytest.mark.parametrize("arm", ["full", "vocabulary", "domain", "task", "data"])
def test_arms_of_stories(arm: Any, settings: Settings) -> None:
    found = measure.run_unit(Unit("stories", "0.25m", arm, 0), settings)
    bits = found["measures"]["bits_per_byte"]
    assert bits["score"] == pytest.approx(sum(bits["nats"]) / sum(bits["bytes"]) / np.log(2), rel=1e-3)
    assert set(found["measures"]) == {"continuation", "names", "bits_per_byte"}
    assert (found["judged_on"] == "classic_children_books.jsonl.gz") == (arm == "task")


def test_a_unit_gives_the_same_numbers_again(settings: Settings) -> None:
    unit = Unit("clinc150", "0.25m", "domain", 1)
    first, again = (measure.run_unit(unit, settings) for _ in range(2))
    timed = {"train_seconds", "ask_seconds", "seconds", "wall_seconds"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in again.items() if k not in timed}


# ---- running them ---------------------------------------------------------------------------------------------------


def fake(unit: Unit, settings: Settings, score: float = 0.5, n: int = 40, items: str = "test rows") -> dict[str, Any]:
    """A finished unit whose answers are drawn."""
    rng = np.random.default_rng([unit.seed, ARMS.index(unit.arm)])
    hits = np.random.default_rng(9).random(n) * 0.6 + rng.random(n) * 0.4 < score  # items are hard or easy for all
    share = {"score": float(hits.mean()), "right": "".join("01"[int(h)] for h in hits)}
    nats = [10.0 * (1.5 - score) + float(x) for x in rng.random(n)]
    measures: dict[str, Any] = {name: share for name in results.MEASURES[unit.task]}
    if unit.task == "stories":
        measures["bits_per_byte"] = {"score": sum(nats) / n / 5 / np.log(2), "nats": nats, "bytes": [5] * n}
    return {
        "task": unit.task, "size": unit.size, "arm": unit.arm, "seed": unit.seed, "key": unit.key,
        "identity": unit.identity(settings), "tokens": unit.tokens(settings), "train_seconds": 60.0, "seconds": 90.0,
        "judged_on": items, "measures": measures, "tokens_a_pass": 1080 if unit.arm == "vocabulary" else 1000,
    }  # fmt: skip


def test_units_are_run_once_and_the_cheapest_first(tmp_path: Path) -> None:
    settings, ran, said = Settings(Path()), [], []

    def work(unit: Unit, given: Settings) -> dict[str, Any]:
        ran.append(unit)
        return fake(unit, given)

    grid = units(tasks=("clinc150", "stories"), seeds=2)
    runner.run(grid[:3], settings, tmp_path, workers=0, say=said.append, work=work)
    assert {unit.key for unit in ran} == {unit.key for unit in grid[:3]} == {p.stem for p in tmp_path.glob("*.json")}
    finished = runner.run(grid, settings, tmp_path, workers=0, say=said.append, work=work)
    assert len(ran) == len(set(ran)) == len(grid) == len(finished)
    later = ran[3:]
    assert later[0].arm == "tuning-alone" and later[-1].size == "5m" and later[0].size == "1m"
    assert "0 units left" in said[-1]
    odd = Unit("clinc150", "2m", "full", 0)
    (tmp_path / f"{odd.key}.json").write_text(json.dumps(fake(odd, Settings(Path(), tokens=5))))
    assert set(runner.stored(tmp_path, settings)) == set(finished)  # a quick look at another size is no result
    (tmp_path / f"{odd.key}.json").unlink()
    other = Settings(Path(), tokens=5)
    assert runner.stored(tmp_path, other) == {} and len(runner.missing(grid, other, {})) == len(grid)


def test_a_limit_stops_between_units(tmp_path: Path) -> None:
    said: list[str] = []
    found = runner.run(units(), Settings(Path()), tmp_path, workers=0, minutes=0.01, say=said.append, work=fake)
    assert found == {} and said[-1].startswith("no time for ")


def test_a_failed_unit_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    def work(unit: Unit, settings: Settings) -> dict[str, Any]:
        if unit.arm == "task":
            raise SmallfryError("the disk is full")
        return fake(unit, settings)

    grid = units(tasks=("clinc150",), sizes=("1m",), seeds=1)
    with pytest.raises(SmallfryError, match=r"1 units failed.*clinc150-1m-task-s0: the disk is full"):
        runner.run(grid, Settings(Path()), tmp_path, workers=0, say=lambda text: None, work=work)
    assert len(list(tmp_path.glob("*.json"))) == len(grid) - 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "clinc150-1m-full-s0.json").write_text("{")
    with pytest.raises(SmallfryError, match=r"clinc150-1m-full-s0\.json: not a finished unit"):
        runner.stored(tmp_path, Settings(Path()))


def test_a_worker_process_runs_a_unit(tmp_path: Path, settings: Settings) -> None:
    settings, unit = replace(settings, tokens=2000), Unit("clinc150", "0.25m", "full", 0)
    found = runner.run([unit], settings, tmp_path, workers=1, say=lambda text: None)
    assert found[unit.key]["measures"] == measure.run_unit(unit, settings)["measures"]


# ---- statistics -----------------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator, ease: np.ndarray, gain: float) -> np.ndarray:
    right = (rng.random(len(ease)) < np.clip(ease + gain, 0, 1)).astype(np.float64)
    return np.stack([right, np.ones_like(right)], axis=1)


def test_the_difference_is_that_of_the_means_and_its_interval_covers_no_difference() -> None:
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(60):
        ease = rng.random(200)
        a, b = ([draw(rng, ease, 0.0) for _ in range(3)] for _ in range(2))
        found = results.difference(a, b, results._mean)
        expected = np.mean([x[:, 0].mean() - y[:, 0].mean() for x, y in zip(a, b, strict=True)])
        assert found.difference == pytest.approx(expected)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0) or abs(found.p_value - 0.05) < 0.02
        outside += found.p_value < 0.05
    assert outside <= 6


def test_a_real_difference_is_found_and_pairing_helps() -> None:
    rng = np.random.default_rng(1)
    ease = (rng.random(1000) < 0.6).astype(np.float64) * 0.9  # some items everybody gets, some nobody
    a, b = ([draw(rng, ease, gain) for _ in range(3)] for gain in (0.05, 0.0))
    paired = results.difference(a, b, results._mean)
    independent = results.apart([x[:, 0] for x in a], [x[:, 0] for x in b])
    assert paired.low > 0 and paired.p_value < 0.01
    assert paired.difference == pytest.approx(independent.difference)
    assert independent.high - independent.low > 1.2 * (paired.high - paired.low)


def grid_of(gains: dict[str, float], tokens: int | None = None) -> list[dict[str, Any]]:
    settings = Settings(Path(), tokens)
    return [
        fake(unit, settings, 0.5 - gains.get(unit.arm, 0.0), 300,
             "books" if (unit.task, unit.arm) == ("stories", "task") else "its own")
        for unit in units()
    ]  # fmt: skip


def test_what_helps_and_what_hurts_is_told_apart_in_the_table_and_in_words() -> None:
    record = results.summary(grid_of({"vocabulary": 0.2, "data": -0.2}))
    rows = record["comparisons"]
    # Two jobs with a measure each, stories with three, of which one has no fair comparison for lever 3.
    assert len(rows) == 2 * (len(LEVERS) * 5 - 1) and record["missing"] == 0
    assert not [r for r in rows if (r["lever"], r["measure"]) == ("task", "bits_per_byte")]
    assert {r["same_items"] for r in rows if (r["lever"], r["task"]) == ("task", "stories")} == {False}
    assert all(r["worth"] > 0 and r["adjusted"] < 0.01 for r in rows if r["lever"] == "vocabulary")
    assert all(r["worth"] < 0 and r["adjusted"] < 0.01 for r in rows if r["lever"] == "data")
    assert all(r["adjusted"] >= r["p"] for r in rows if r["same_items"])
    assert {r["adjusted"] for r in rows if not r["same_items"]} == {None}  # they decide nothing
    assert record["complete"] == {size: [lever.arm for lever in LEVERS] for size in ("1m", "5m")}
    parts = results.blocks(record)
    assert len(parts["table"]) == len(rows) + 2 and "126 trainings" in parts["cost"][0]
    assert parts["vocabulary"][-1].endswith("has 8 to 8% more tokens.")
    one, five = parts["vocabulary"][:2]
    assert one.startswith("At 1m, it helps: CLINC150 accuracy +") and one.count(" +") == 5 and "undecided" not in one
    assert five.startswith("At 5m, it helps: ") and " bits per byte." in five
    assert all(line.split(", ")[1].startswith("it hurts: ") and line.count(" -") == 5 for line in parts["data"])
    assert "so not tested: stories continuation choice" in parts["task"][0]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in parts["short"]}
    assert lines["1 restricted vocabulary"].endswith("| 10 of 10 | 0 |") and lines["4 small clean data"].endswith(
        "| 0 of 10 | 0 |"
    )
    assert lines["3 simple task"].count(" |  | ") == 1 and " of 4 |" in lines["3 simple task"]


def test_a_grid_that_is_not_finished_says_so() -> None:
    some = [r for r in grid_of({}) if r["size"] == "1m" and r["task"] == "clinc150" and r["seed"] < 2]
    some = [r for r in some if r["arm"] != "task"]
    record = results.summary(some)
    assert record["missing"] == 126 - len(some) and {r["seeds"] for r in record["comparisons"]} == {2}
    assert results.blocks(record)["task"] == ["Not measured yet."]
    assert record["complete"] == {"1m": [], "5m": []}


def test_only_what_stands_between_markers_is_replaced() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert results.filled(page, {"x": ["new", "lines"]}) == "a\n<!-- x -->\nnew\nlines\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="has no <!-- y -->"):
        results.filled(page, {"y": []})


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_page_is_what_the_record_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["levers.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        script().main()
    assert ended.value.code == 0, capsys.readouterr().out


def test_the_command_lists_writes_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script()
    page = tmp_path / "levers.md"
    page.write_text((ROOT / "docs" / "levers.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(module, "DOCS", tmp_path)

    def call(*words: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["levers.py", "--out", str(tmp_path / "out"), *words])
        try:
            module.main()
        except SystemExit as ended:
            return ended.code
        return 0

    assert call("--list", "--only", "clinc150-1m-full") == 0
    assert "clinc150-1m-full-s2" in (listed := capsys.readouterr().out) and "3 units left" in listed
    assert call("--write") == "levers: --write: no unit is finished; run some first"
    assert call() == "levers: --data DIR is needed to run; --list, --write and --check do without"
    (tmp_path / "out").mkdir()
    for result in grid_of({"domain": 0.2}):
        (tmp_path / "out" / f"{result['key']}.json").write_text(json.dumps(result))
    assert call("--write", "--json") == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["comparisons"]) == 58
    assert str(call("--write", "--tokens", "5")).startswith("levers: --write: a quick look is no result; leave")
    elsewhere = tmp_path / "elsewhere"
    quick = [result for result in grid_of({"domain": 0.2}, tokens=5) if result["size"] == "1m"]
    for result in quick:
        (tmp_path / "out" / f"{result['key']}.json").write_text(json.dumps(result))
    assert call("--write", "--tokens", "5", "--docs", str(elsewhere)) == 0
    assert "| 1m | stories | bits per byte | 2 one domain |" in (elsewhere / "levers.md").read_text(encoding="utf-8")
    assert (elsewhere / "results" / "levers.json").is_file()
    assert "| 5m | stories | bits per byte | 2 one domain |" in page.read_text(encoding="utf-8")
    assert call("--check") == 0
    page.write_text(page.read_text(encoding="utf-8").replace("| 2 one domain |", "| 2 one thing |", 1))
    assert call("--check") == 1
