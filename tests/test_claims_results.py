"""Claims held against invented measurements: reading them, the page, what is still to be run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from smallfry.claims import cells, judge, load, running
from smallfry.claims.criteria import Found, parse
from smallfry.claims.figure import draw, marks
from smallfry.claims.judging import Judgement, judge_claim
from smallfry.claims.page import render
from smallfry.claims.references import read_reference
from smallfry.claims.results import Results
from smallfry.cli import main
from smallfry.errors import SmallfryError

CLAIMS = load()

# ---- measurements ---------------------------------------------------------------------------------------------------


def task(name: str, accuracy: float, ci: tuple[float, float], n: int = 400) -> dict[str, Any]:
    return {"name": name, "n": n, "total": n, "accuracy": accuracy, "ci": list(ci)}


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def row(name: str, kind: str, score: float, ci: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "score": score, "ci": list(ci), "train_seconds": 12.0, **more}


def record(name: str, rows: list[dict[str, Any]], target: float = 0.9, **more: Any) -> dict[str, Any]:
    job = {"name": name, "kind": "classify", "metric": "accuracy", "target": target, "n_test": 500,
           "hashes": {"test": "abc"}}  # fmt: skip
    return {"command": "smallfry assess x", "job": job, "rows": rows, **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Invented results of every sort."""
    folder = tmp_path / "docs" / "results"
    arc, mmlu = task("arc_challenge", 0.27, (0.23, 0.31)), task("mmlu", 0.12, (0.1, 0.16))
    guess = {"score": 0.01, "ci": [-0.01, 0.03], "tasks": [task("arc_challenge", 0.24, (0.2, 0.28))]}
    write(folder / "own/chat-5m/chatcore.json", {
        "suite": "chatcore", "model": "chat-5m", "score": 0.0, "ci": [-0.02, 0.02], "tasks": [arc, mmlu],
        "beside": [], "measures": [], "controls": {"guessing": guess}, "command": "smallfry eval --limit 400",
    })  # fmt: skip
    write(folder / "own/stories-5m/stories.json", {
        "suite": "stories", "model": "stories-5m", "score": 0.8, "ci": [0.78, 0.82], "params": 5_100_000,
        "tasks": [task("continuation", 0.7, (0.66, 0.74)), task("names", 0.9, (0.88, 0.92)),
                  task("objects", 0.9, (0.88, 0.92))],
        "measures": [
            {"name": "hero mentioned", "value": 0.95, "ci": [0.9, 0.99], "n": 60, "what": "w", "reference": 1.0},
            {"name": "repetition", "value": 0.005, "ci": [0.001, 0.01], "n": 60, "what": "w; lower is better"},
        ],
        "controls": {"guessing": {"score": 0.25, "ci": [0.22, 0.28], "tasks": []},
                     "n-gram": {"score": 0.6, "ci": [0.58, 0.62], "tasks": []}},
    })  # fmt: skip
    baselines = [row("majority", "baseline", 0.5, (0.4, 0.6)), row("svm", "baseline", 0.92, (0.9, 0.94))]
    write(folder / "narrow/sms_spam.json", record("sms_spam", [*baselines, row("1m", "lm", 0.5, (0.4, 0.6))]))
    sample = {"input": "a | b <script>alert(1)</script>", "output": "*ham*\nspam", "expected": "`x`"}
    error = {"input": "win | now", "got": "ham", "expected": "spam"}
    rows = [row("1m", "lm", 0.95, (0.93, 0.97))]
    write(folder / "use_cases/sms_spam-1m/assessment.json",
          record("sms_spam", rows, samples=[sample] * 5, errors=[error] * 5))  # fmt: skip
    effect = {"lever": "vocabulary", "size": "5m", "measure": "accuracy", "n": 900, "adjusted": 0.01, "seeds": 3}
    write(folder / "levers.json", {"complete": {"5m": ["vocabulary"]}, "comparisons": [
        {**effect, "lever": "domain", "task": "clinc150", "worth": 0.4, "ci": [0.3, 0.5]},  # the others are to come
        {**effect, "task": "stories", "worth": 0.4, "ci": [0.3, 0.5], "adjusted": None},  # was asked other questions
        {**effect, "task": "clinc150", "worth": 0.03, "ci": [0.02, 0.04]},
        {**effect, "task": "commands", "worth": 0.02, "ci": [-0.01, 0.05], "adjusted": 0.3},
        {**effect, "task": "stories", "measure": "bits_per_byte", "worth": 0.05, "ci": [0.03, 0.07]},
    ]})  # fmt: skip
    write(folder / "kills.json", {"result": {"equal": True}})
    return folder


def find(root: Path, text: str) -> list[Found]:
    return Results(root, CLAIMS).find(read_reference(text))


def test_a_task_comes_with_its_chance_and_controls(root: Path) -> None:
    (one,) = find(root, "chat-5m/chatcore/arc_challenge")
    assert one.ci == (0.23, 0.31) and one.n == 400 and not one.seen
    assert one.terms == {"chance": 0.25, "controls": 0.28}
    assert [f.score for f in find(root, "chat-5m/chatcore/*")] == [0.27, 0.12]
    assert find(root, "chat-5m/chatcore/gsm8k") == [] and find(root, "chat-1m/chatcore") == []


def test_a_suite_and_its_measures(root: Path) -> None:
    (one,) = find(root, "stories-5m/stories#repetition<=0.03")
    assert one.lower and one.verdict == "workable"
    (hero,) = find(root, "stories-5m/stories#hero mentioned>=0.8")
    assert hero.terms["reference"] == 1.0 and hero.verdict == "workable"
    (whole,) = find(root, "stories-5m/stories")
    assert whole.terms["chance"] == 0.25 and whole.n == 1200
    assert whole.terms["controls"] == 0.28 and "n-gram" in whole.controls  # which knows something, and is shown


def test_a_use_case_goes_before_an_older_record_and_takes_its_baselines(root: Path) -> None:
    (one,) = find(root, "job:sms_spam/1m")
    assert one.file == "use_cases/sms_spam-1m/assessment.json" and one.score == 0.95 and not one.seen
    assert one.baseline == "svm" and one.terms == {"majority": 0.5, "baseline": 0.92, "paired": pytest.approx(0.05)}
    assert one.target == 0.9 and one.verdict == "workable"
    (seconds,) = find(root, "job:sms_spam/1m@train_seconds")
    assert seconds.score == 12.0 and seconds.unit == "seconds"
    (other,) = find(root, "job:sms_spam/1m>=0.99")
    assert other.verdict == "not"
    assert find(root, "job:sms_spam/5m") == []


def test_a_paired_test_says_what_is_clearly_behind(root: Path) -> None:
    file = root / "use_cases/sms_spam-1m/assessment.json"
    stored = json.loads(file.read_text())
    model = next(row for row in stored["rows"] if row["name"] == "1m")
    behind = parse("some workable and paired >= 0")
    assert behind.holds(find(root, "job:sms_spam/1m"))  # without a paired test: its upper end against the baseline
    for ci, expected in (([-0.04, -0.001], False), ([-0.02, 0.01], True)):
        model["versus"] = {"other": "svm", "difference": -0.01, "ci": ci, "p": 0.1}
        file.write_text(json.dumps(stored))
        (one,) = find(root, "job:sms_spam/1m")
        assert one.terms["paired"] == ci[1] and behind.holds([one]) is expected
    model["versus"]["other"] = "nearest"  # says nothing of the best one
    file.write_text(json.dumps(stored))
    assert find(root, "job:sms_spam/1m")[0].terms["paired"] == pytest.approx(0.05)


def test_what_was_known_before_is_marked(root: Path) -> None:
    (root / "use_cases/sms_spam-1m/assessment.json").unlink()
    (one,) = find(root, "job:sms_spam/1m")
    assert one.seen and one.file == "narrow/sms_spam.json"


def test_levers_files_and_counted_parameters(root: Path) -> None:
    assert [f.score for f in find(root, "lever:vocabulary/5m")] == [0.03, 0.02, 0.05]
    assert [f.score for f in find(root, "lever:vocabulary/5m/commands")] == [0.02]
    judged = judge_claim(CLAIMS.by_id["lever-vocabulary"], Results(root, CLAIMS))
    assert judged.verdict == "supported"  # two of three
    assert judge_claim(CLAIMS.by_id["lever-domain"], Results(root, CLAIMS)).verdict == "not measured yet"
    assert find(root, "file:kills.json#result.equal")[0].score == 1.0
    assert find(root, "file:kills.json#result.other") == [] and find(root, "file:none.json#x") == []
    assert find(root, "params:nanochat/20/65536")[0].score == 560_988_160


def test_judged_on_invented_measurements(root: Path) -> None:
    verdicts = {j.claim.id: j for j in judge(CLAIMS, Results(root, CLAIMS))}
    assert verdicts["5m-arc"].verdict == "refuted"  # 23 to 31 against an estimate of 10 to 15
    assert verdicts["5m-mmlu"].verdict == "undecided"  # 10 to 16 against 15 to 20
    assert verdicts["5m-core"].verdict == "not measured yet"
    assert verdicts["tinystories-coherent"].verdict == "supported"
    assert verdicts["5m-preverbal"].verdict == "refuted"
    assert verdicts["1m-practical"].verdict == "refuted"  # some: one job is enough, though others are missing
    assert verdicts["1m-nothing-practical"].verdict == "refuted"  # as 1m-practical
    assert verdicts["bottom-narrow"].verdict == "supported"
    assert verdicts["d20-core"].verdict == "not testable here"


def test_nothing_stored_decides_nothing_that_must_be_measured(tmp_path: Path) -> None:
    for judged in judge(CLAIMS, Results(tmp_path, CLAIMS)):
        counted = all(r.source == "params" for r in judged.claim.readings)
        if not counted:
            assert judged.verdict == "not measured yet", judged.claim.id


def test_damaged_results_are_refused(root: Path) -> None:
    (root / "own/chat-5m/chatcore.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(SmallfryError, match="expected a JSON object"):
        find(root, "chat-5m/chatcore")
    with pytest.raises(SmallfryError, match="no such folder"):
        Results(root / "none", CLAIMS)


@pytest.mark.parametrize("text", ["", "core", "job:x", "lever:x", "file:x", "other:x/y", "a/b/c/d"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(SmallfryError, match="not the name of a measurement"):
        read_reference(text)


# ---- the page -------------------------------------------------------------------------------------------------------


def page(root: Path) -> str:
    results = Results(root, CLAIMS)
    plan = running.show_plan(running.plan(CLAIMS, results))
    return render(CLAIMS, judge(CLAIMS, results), results, "results", plan)


def test_the_page_is_stable_and_names_every_claim(root: Path) -> None:
    text = page(root)
    assert text == page(root) and text.endswith("\n")
    for claim in CLAIMS.claims:
        assert f"`{claim.id}`" in text, claim.id
        assert f"| {claim.line} |" in text, claim.id
    assert "(below guessing, 25%)" in text and "**✘ refuted**: it is higher" in text
    assert "[chat-5m, chatcore: arc\\_challenge](results/own/chat-5m/chatcore.json) 27.0% [23.0, 31.0]" in text


def test_a_repetition_shows_its_measurements_again_in_short(root: Path) -> None:
    judged = judge_claim(CLAIMS.by_id["5m-domain-text"], Results(root, CLAIMS))
    here, beside = cells.evidence(judged, "r")
    assert here.startswith("as `tinystories-coherent`<br>[stories-5m, stories: continuation]") and beside == ""
    assert here.count("<br>") == 6 and here.endswith("‡ as there") and "70.0% [66.0, 74.0]: workable" in here


def test_links_lead_to_stored_files(root: Path) -> None:
    addresses = set(re.findall(r"\]\((results/[^)]+\.json)\)", page(root)))
    assert len(addresses) >= 5
    for address in addresses:
        assert (root.parent / address).is_file(), address


def test_tables_are_whole_and_answers_escaped(root: Path) -> None:
    text = page(root)
    assert "<script>" not in text and "a \\| b &lt;script&gt;" in text and "\\*ham\\* spam" in text
    width = 0
    for line in text.split("\n"):
        if line.startswith("|"):
            columns = len(re.findall(r"(?<!\\)\|", line))
            assert width in (0, columns), line
            width = columns
        else:
            width = 0
    assert text.count("a \\| b") == text.count("win \\| now") == 2  # the first two of either sort, not more
    assert "| win \\| now | ham | spam | wrong |" in text


def test_the_short_answer_shows_what_is_measured_and_says_what_is_not(root: Path) -> None:
    above = page(root).split("## Verdicts")[0]
    assert "[97.0%" not in above and "(not measured yet) and (not measured yet) on CORE" in above
    assert "in [70.0% [66.0, 74.0]](results/own/stories-5m/stories.json) and the right name in [90.0%" in above
    assert "{" not in above


def test_another_version_of_a_score_is_shown_without_deciding(root: Path) -> None:
    write(root / "own/general-5m/core.json", {
        "suite": "core", "model": "general-5m", "score": 0.02, "ci": [0.0, 0.04], "tasks": [], "controls": {},
        "versions": {"v1": {"score": 0.02, "ci": [0.0, 0.04]}, "v2": {"score": -0.01, "ci": [-0.02, 0.01]}},
    })  # fmt: skip
    judged = judge_claim(CLAIMS.by_id["5m-core"], Results(root, CLAIMS))
    assert judged.verdict == "refuted" and [f.ci for f in judged.beside] == [(-0.02, 0.01)]
    assert "core: v2](r/own/general-5m/core.json) −1.0% [−2.0, 1.0]" in cells.evidence(judged, "r")[0]


def test_the_list_of_criteria_shows_outcomes_and_what_was_changed(root: Path) -> None:
    decides = page(root).split("## What decides")[1].split("## Still to measure")[0].splitlines()
    row_of = {line.split("`")[1]: line for line in decides if line.startswith("| `")}
    judged = {j.claim.id: j for j in judge(CLAIMS, Results(root, CLAIMS))}
    early = [i for i in row_of if judged[i].missing and judged[i].verdict in ("supported", "refuted")]
    assert early  # decided by some of its measurements, while others are still to be made
    for name, line in row_of.items():
        assert line.endswith(f"| {judged[name].why} |" if judged[name].verdict != "not measured yet" else "|  |"), name
    changed = [c.id for c in CLAIMS.claims if c.changed]
    assert "insight-only" in changed and all(
        f"`{name}`" in page(root).split("## How to read it")[1] for name in changed
    )
    assert all("First" in row_of[name] for name in changed)


def test_a_repetition_shows_first_what_decided() -> None:
    claim = CLAIMS.by_id["5m-practical"]
    found = tuple(Found(f"job {i}", "f", s, (s - 0.01, s + 0.01), target=0.9, terms={"paired": 0.1})
                  for i, s in enumerate([0.5, 0.6, 0.7, 0.6, 0.5, 0.95]))  # fmt: skip
    here, _ = cells.evidence(Judgement(claim, "refuted", "", found), "r")
    assert here.split("<br>")[1].startswith("[job 5]") and "and 1 more" in here


def test_quotation_marks_are_taken_off_whole_sentences_only() -> None:
    said = {cells.sentence(c) for c in CLAIMS.claims}
    assert any(s.startswith('"kindergartener" level') for s in said) and not any(s.count('"') % 2 for s in said)


def test_other_seeds_stand_beside_the_one_that_is_judged(root: Path) -> None:
    def stored(name: str, score: float) -> None:
        write(root / f"own/{name}/stories.json", {
            "suite": "stories", "model": name, "score": score, "ci": [score - 0.01, score + 0.01],
            "tasks": [], "measures": [], "controls": {},
        })  # fmt: skip

    stored("stories-0.25m", 0.58)
    before = page(root)
    assert "from other seeds" not in before and "MODELS/stories-0.25m-s1 " in before  # in the plan
    stored("stories-0.25m-s1", 0.601)
    after = page(root)
    shown = next(line for line in after.splitlines() if "stories-0.25m-s1](" in line)
    assert "stories-0.25m](" in shown and "2.1 points" in shown
    judged = [j for j in judge(CLAIMS, Results(root, CLAIMS)) if any("-s1/" in f.file for f in j.found)]
    assert not judged  # no criterion reads another seed


def test_a_repeated_sentence_is_counted_once(root: Path) -> None:
    judged = judge(CLAIMS, Results(root, CLAIMS))
    own = [j for j in judged if not j.claim.same_as]
    together = next(line for line in page(root).split("\n") if line.startswith("| together"))
    assert sum(int(n) for n in re.findall(r"\d+", together)) == len(own) < len(judged)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.27, "share", "27.0"), (0.0029, "share", "0.29"), (-0.00001, "share", "0.00"), (0.031, "difference", "+3.1"),
     (0.996, "bits", "0.996"), (560_988_160, "count", "560,988,160"), (52, "seconds", "52 s"),
     (float("nan"), "share", "—")],
)  # fmt: skip
def test_numbers(value: float, unit: str, text: str) -> None:
    assert cells.number(value, unit) == text


def test_an_unmeasured_claim_shows_no_number() -> None:
    here, beside = cells.evidence(Judgement(CLAIMS.by_id["5m-core"], "not measured yet", "", missing=("a/b",)), "r")
    assert here == "not measured yet: `a/b`" and beside == ""


def test_the_figure_is_whole_and_shows_what_is_stored(root: Path) -> None:
    results = Results(root, CLAIMS)
    assert [m.score for m in marks(CLAIMS, results, "stories")] == [pytest.approx((0.8 - 0.25) / 0.75)]
    assert marks(CLAIMS, results, "stories")[0].params == 5_100_000
    svg = draw(CLAIMS, results)
    assert ET.fromstring(svg).tag.endswith("svg") and not re.search(r"\bnan\b", svg)
    assert "prefers-color-scheme:dark" in svg and "Story choices" in svg and "published: " in svg
    assert svg == draw(CLAIMS, Results(root, CLAIMS))


# ---- running and the command ----------------------------------------------------------------------------------------


def test_the_plan_holds_what_is_missing_and_nothing_stored(root: Path) -> None:
    steps = running.plan(CLAIMS, Results(root, CLAIMS))
    keys = [s.key for s in steps]
    assert "general-5m/core" in keys and "job:reverse/5m" in keys and "stories-0.25m/stories" in keys
    assert not {"chat-5m/chatcore", "stories-5m/stories", "job:sms_spam/1m"} & set(keys)
    assert [s.minutes for s in steps] == sorted(s.minutes for s in steps)
    for claim in CLAIMS.claims:  # whatever a claim waits for can be made, but levers, which have a script of their own
        for reference in claim.readings:
            if not Results(root, CLAIMS).find(reference) and reference.source in ("suite", "job"):
                stored = f"own/{reference.name}/{reference.part}.json"
                made = {f"{reference.name}/{reference.part}", f"job:{reference.name}/{reference.part}"} & set(keys)
                assert made or (root / stored).exists() or reference.part == "0.25m", reference.text


def test_what_is_not_there_is_said_before_anything_runs(root: Path, tmp_path: Path) -> None:
    steps = running.plan(CLAIMS, Results(root, CLAIMS), tmp_path / "models", tmp_path / "data")
    by = {s.key: s for s in steps}
    assert (
        "no finished model general-5m" in by["general-5m/core"].missing
        and "is not there" in by["job:clinc150/5m"].missing
    )
    assert not by["job:reverse/5m"].missing
    assert not steps[0].missing and steps[-1].missing


def fake(calls: list[list[str]]) -> Any:
    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if "assess" in command:
            out = Path(command[command.index("--out") + 1])
            row_ = row("1m", "lm", 0.99, (0.98, 1.0), curves={"0": [1]})
            write(out / "assessment.json", record("reverse", [row_], out=str(out)) | {"settings": {}})
        model = command[command.index("eval") + 1] if "eval" in command else ""
        last = json.dumps({"suite": "blimp", "model": model, "score": 0.6, "notes": [f"read {model}"]})
        return subprocess.CompletedProcess(command, 0, f"a table\n{last}\n")

    return run


def test_folders_are_named_by_what_they_hold_and_numbers_stay(tmp_path: Path) -> None:
    folders = {"MODELS": tmp_path / "m", "DATA": tmp_path / "data", "OUT": tmp_path / "out"}
    said = f"read {tmp_path}/data/a.gz, {tmp_path}/database"
    found = {"path": f"{tmp_path}/m/stories-1m", "said": said, "score": 0.95}
    assert running.placeless({"a": [found]}, folders) == {
        "a": [{"path": "MODELS/stories-1m", "said": f"read DATA/a.gz, {tmp_path}/database", "score": 0.95}]
    }


def test_running_stores_each_measurement_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    models, data, out = tmp_path / "models", tmp_path / "data", tmp_path / "out"
    (models / "general-1m").mkdir(parents=True)
    save_file(
        {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}, models / "general-1m/model.safetensors"
    )
    calls: list[list[str]] = []
    monkeypatch.setattr(running.subprocess, "run", fake(calls))
    out.mkdir()
    wanted = ("general-1m/blimp", "job:reverse/1m", "general-5m/core")
    for _ in range(2):
        steps = [s for s in running.plan(CLAIMS, Results(out, CLAIMS), models, data) if s.key in wanted]
        list(running.run(steps, out, models, data, tmp_path / "work", lambda text: None))
    assert len(calls) == 2  # the third has no model, and nothing is made twice
    stored = json.loads((out / "own/general-1m/blimp.json").read_text())
    assert stored["model"] == "general-1m" and stored["params"] == 17
    assert stored["notes"] == ["read MODELS/general-1m"]
    assert stored["command"].startswith("smallfry eval MODELS/general-1m --suite blimp")
    text = (out / "use_cases/reverse-1m/assessment.json").read_text()
    assert str(tmp_path) not in text and "curves" not in text
    assert Results(out, CLAIMS).find(read_reference("job:reverse/1m"))[0].score == 0.99


def test_a_failed_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = running.job_step(CLAIMS, "reverse", "1m")
    for code, text in ((2, ""), (0, "no json"), (0, "")):
        done = subprocess.CompletedProcess([], code, text)
        monkeypatch.setattr(running.subprocess, "run", lambda *a, done=done, **k: done)
        with pytest.raises(SmallfryError, match="smallfry assess reverse"):
            list(running.run([step], tmp_path, tmp_path, tmp_path, tmp_path, lambda text: None))
    assert not (tmp_path / step.file).exists()


def test_an_assessment_without_its_model_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = running.job_step(CLAIMS, "reverse", "1m")
    advice = "No language model was trained: 1m-s0 was left out: the loss rose."

    def diverged(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        out = Path(command[command.index("--out") + 1])
        write(
            out / "assessment.json", record("reverse", [row("svm", "baseline", 0.9, (0.8, 1.0))]) | {"advice": advice}
        )
        return subprocess.CompletedProcess(command, 0, "{}\n")

    monkeypatch.setattr(running.subprocess, "run", diverged)
    with pytest.raises(SmallfryError, match=r"nothing is stored\. No language model was trained: .* the loss rose"):
        list(running.run([step], tmp_path, tmp_path, tmp_path, tmp_path / "work", lambda text: None))
    assert not (tmp_path / step.file).exists()


def command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["smallfry", "claims", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_writes_checks_and_notices_a_change(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--from", root, "--check") == 1  # there is no page yet
    assert not (root.parent / "assessment.md").exists()
    assert command(monkeypatch, "--from", root, "--json") == 0
    last = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert len(last["claims"]) == len(CLAIMS.claims) and sum(last["verdicts"].values()) < len(CLAIMS.claims)
    text = (root.parent / "assessment.md").read_text(encoding="utf-8")
    assert "](results/claims/score-by-size.svg)" in text and (root / "claims/score-by-size.svg").is_file()
    assert command(monkeypatch, "--from", root, "--check") == 0
    (root.parent / "assessment.md").write_text(text.replace("27.0%", "72.0%"), encoding="utf-8")
    assert command(monkeypatch, "--from", root, "--check") == 1
    assert "smallfry claims --from" in capsys.readouterr().err


def test_the_command_shows_the_plan_and_refuses_to_run_blind(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SMALLFRY_DATA", raising=False)
    assert command(monkeypatch, "--from", root, "--plan", "--only", "job:*/1m") == 0
    shown = capsys.readouterr().out
    assert "smallfry assess reverse --rungs 1m" in shown and "minutes" in shown and "--suite" not in shown
    assert command(monkeypatch, "--from", root, "--run") == 2
    assert command(monkeypatch, "--from", root, "--run", "--check") == 2


def test_a_caution_stands_with_its_verdict_and_not_before_there_is_one(root: Path) -> None:
    doubted = [claim for claim in CLAIMS.claims if claim.caution]
    assert {claim.id for claim in doubted} >= {"5m-core", "1m-conversation", "pattern-language"}
    for claim in doubted:
        judged = judge_claim(claim, Results(root, CLAIMS))
        decided = Judgement(claim, "refuted", "")
        assert cells.verdict(decided).endswith(f" {cells.CAUTION}")
        assert cells.CAUTION in cells.evidence(decided, "")[0]
        if judged.verdict == "not measured yet":
            assert cells.CAUTION not in cells.verdict(judged) + cells.evidence(judged, "")[0]
    assert any(judge_claim(claim, Results(root, CLAIMS)).verdict == "not measured yet" for claim in doubted)
