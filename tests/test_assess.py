"""A whole assessment on a small job, as a user runs it."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import Value
from pathlib import Path
from threading import Event

import pytest

import smallfry
from smallfry.assessment import AssessSettings, assess, pool
from smallfry.assessment.lock import DirectoryLock
from smallfry.assessment.pool import Result
from smallfry.assessment.run import _Run
from smallfry.assessment.state import Silent
from smallfry.assessment.work import BaselineTask, Outcome, RungTask
from smallfry.cli import main, parse_duration
from smallfry.errors import CandidateError, SmallfryError
from smallfry.job import Job
from smallfry.machine import CoreShare
from smallfry.record import Assessment

ROOT = Path(__file__).parents[1]
WORDS = ["lamp", "heater", "radio", "door", "window", "fan"]
PLACES = ["kitchen", "attic", "garage", "bath", "hall", "office", "cellar", "porch"]


def rows(n: int = 260, seed: int = 0) -> list[dict[str, str]]:
    """A slot job small enough for a test."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        thing, place, on = rng.choice(WORDS), rng.choice(PLACES), rng.random() < 0.5
        text = f"{rng.choice(['please ', '', 'now '])}{'start' if on else 'stop'} the {thing} in the {place}"
        made.append({"input": text, "output": f"{'Start' if on else 'Stop'} | thing = {thing} ; place = {place}"})
    return made


def write_job(path: Path, n: int = 140) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows(n)), encoding="utf-8")
    return path


def cli(*args: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smallfry", *args], capture_output=True, text=True, timeout=timeout, cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"}, check=False,
    )  # fmt: skip


SMALL = ("--rungs", "0.12m", "--seeds", "2", "--vocab", "300", "--target", "0.5", "--budget", "20m")


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One assessment through the command line, shared by the tests that look at what it left."""
    folder = tmp_path_factory.mktemp("assess")
    out = folder / "out"
    done = cli("assess", str(write_job(folder / "rooms.jsonl")), *SMALL, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_last_line_is_one_json_object(assessed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = assessed
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary) == {"job", "rows", "smallest", "advice", "prediction", "out"}
    assert summary["job"]["name"] == "rooms" and summary["job"]["metric"] == "exact_match"
    names = {r["name"]: r for r in summary["rows"]}
    assert {"majority", "nearest", "0.12m"} <= set(names)
    assert names["0.12m"]["seeds"] == 2 and names["0.12m"]["type"] == "lm"
    for row in summary["rows"]:
        low, high = row["ci"]
        assert 0 <= low <= row["score"] <= high <= 1
    assert summary["out"] == str(out)


def test_the_record_tells_everything(assessed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = assessed
    record = Assessment.load(out)
    assert record.command.startswith("smallfry assess")
    assert len(record.job.hashes["test"]) == 64 and record.job.n_train > 100
    assert record.plan and record.machine["cores"] and record.versions["torch"]
    assert {p.form for p in record.pilot} == {"inline", "text"}
    assert [p.chosen for p in record.pilot].count(True) == 1
    row = next(r for r in record.rows if r.type == "lm")
    assert len(row.seeds) == 2 and set(row.curves) == {"0", "1"} and row.versus is not None
    assert row.train_seconds and row.latency_ms
    assert 0 < (row.bytes or 0) - 2 * (row.params or 0) < 20_000  # weights, and the vocabulary they need
    combined = next(r for r in record.rows if r.type == "combined")
    assert combined.n == row.n


def test_reports_and_the_best_model_stand_beside_it(assessed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = assessed
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    assert "rooms" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "best" / "model.safetensors").exists()
    assert json.loads((out / "best" / "smallfry.json").read_text())["score"]["metric"] == "exact_match"


def test_run_answers_from_it(assessed: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    out, _ = assessed
    file = tmp_path / "inputs.jsonl"
    file.write_text('{"input": "start the fan in the hall"}\n', encoding="utf-8")
    done = cli("run", str(out), "please stop the radio in the attic", "--input", str(file), "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])["answers"]
    assert len(answers) == 2
    assert all(a["output"].startswith(("Start", "Stop")) and 0 <= a["confidence"] <= 1 for a in answers)
    assert smallfry.load(out)("please stop the radio in the attic") == answers[0]["output"]


def test_an_existing_directory_is_not_touched(
    assessed: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, _ = assessed
    before = (out / "assessment.json").read_bytes()
    done = cli("assess", str(write_job(tmp_path / "rooms.jsonl")), *SMALL, "--out", str(out))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "exists and is not empty" in done.stderr
    assert (out / "assessment.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    done = cli("assess", str(tmp_path / "rooms.jsonl"), *SMALL, "--out", str(tmp_path / "mine"), "--force")
    assert done.returncode == 2 and "was not made by assess" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "irreplaceable"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_resumed_gives_the_scores_of_one_that_was_not(
    assessed: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, how: signal.Signals
) -> None:
    whole = Assessment.load(assessed[0])
    job = str(write_job(tmp_path / "rooms.jsonl"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "smallfry", "assess", job, *SMALL, "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 120
    work = out / "work" / "0.12m-s0-inline300l"
    while not work.exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)  # the pilots end, and the first training begins
    time.sleep(0.5)
    if how == signal.SIGTERM:  # a service manager stops a whole group, and a terminal sends Ctrl-C to one
        os.killpg(process.pid, how)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 2 and "--resume" in stderr, stderr
    else:  # out of memory: the workers are left alone, and what comes next waits for them to end
        os.kill(process.pid, how)
        process.wait(timeout=60)
        assert process.stderr is not None
        process.stderr.close()
    assert not (out / "assessment.json").exists()
    done = cli("assess", job, *SMALL, "--out", str(out), "--resume")
    assert done.returncode == 0, done.stderr
    again = Assessment.load(out)
    assert work.exists()
    for mine, theirs in zip(again.rows, whole.rows, strict=True):
        assert (mine.name, mine.score, mine.ci) == (theirs.name, theirs.score, theirs.ci)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["assess", "nowhere.jsonl"], "nowhere.jsonl"),
        (["assess", "reverse", "--budget", "soon"], "expected a time such as 90s"),
        (["assess", "reverse", "--rungs", "huge"], "huge"),
        (["assess", "reverse", "--form", "poem"], "expected text, units or inline"),
        (["assess", "reverse", "--kind", "guess"], "expected one of classify"),
        (["assess", "reverse", "--where", "lang"], "expected COLUMN=VALUE"),
        (["assess", "reverse", "--baselines", "gpt", "--out", "{tmp}/x"], "no baseline 'gpt'"),
        (["assess", "reverse", "--resume", "--out", "{tmp}/full"], "holds no run of this job"),
        (["assess", "reverse", "--rungs", "1m,1.0m", "--out", "{tmp}/x"], "names one size twice"),
        (["assess", "reverse", "--rungs", ",", "--out", "{tmp}/x"], "at least one rung"),
        (["assess", "reverse", "--target", "95", "--out", "{tmp}/x"], "such as 0.95"),
        (["run", "{tmp}"], "nothing to answer"),
        (["eval", "{tmp}", "--suite", "blmp"], "suites: core, chatcore, blimp"),
        (["run", "{tmp}", "hello"], "holds no model"),
        (["run", "{tmp}", "--input", "{tmp}/none.jsonl"], "cannot be read"),
        (["check", "{tmp}/empty.jsonl"], "empty"),
    ],
)
def test_mistakes_get_one_line(
    tmp_path: Path, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["smallfry", *[a.format(tmp=tmp_path) for a in args]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines


def test_python_offers_the_same(tmp_path: Path) -> None:
    job = Job.from_rows(rows(120), name="rooms")
    record = smallfry.assess(
        job, tmp_path / "out", target=0.99, rungs=("0.06m",), seeds=1, form="inline", vocab=300, workers=1,
        baselines=("majority",),
    )  # fmt: skip
    assert not record.pilot and record.settings["form"] == "inline"  # what is given is not piloted
    assert [r.type for r in record.rows][:2] == ["baseline", "lm"]
    assert record.smallest in (None, "0.06m") and record.advice
    with pytest.raises(SmallfryError, match="exists and is not empty"):
        assess(job, AssessSettings(out=tmp_path / "out"))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3m", "0", "3 days"])
def test_no_times(text: str) -> None:
    with pytest.raises(SmallfryError):
        parse_duration(text)


def labelled(n: int = 140) -> Job:
    """A classify job whose inputs have several words each."""
    rng = random.Random(1)
    made = [(f"{rng.choice(PLACES)} {thing} {i % 7} please", thing) for i in range(n) for thing in [rng.choice(WORDS)]]
    return Job.from_rows([{"input": i, "output": o} for i, o in made], name="things")


def told(n: int = 90) -> Job:
    """Open text without inputs: bits per byte."""
    rng = random.Random(2)
    texts = [f"The {rng.choice(WORDS)} in the {rng.choice(PLACES)} was number {i}. It was old." for i in range(n)]
    return Job.from_rows([{"input": "", "output": text} for text in texts], name="tales")


def described(n: int = 90) -> Job:
    """Data to text with several right answers: BLEU."""
    rng = random.Random(3)
    ways = ("There is one {} that stands in the {} over there.", "In the {1} over there you find one {0} today.")
    made = []
    for _ in range(n):
        thing, place = rng.choice(WORDS), rng.choice(PLACES)
        made += [{"input": f"thing[{thing}], place[{place}]", "output": way.format(thing, place)} for way in ways]
    return Job.from_rows(made, name="places")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "metric", "baseline"),
    [(labelled(), "accuracy", "svm"), (told(), "bits_per_byte", "ngram"), (described(), "bleu", "template")],
)
def test_every_kind_ends_in_a_report(job: Job, metric: str, baseline: str, tmp_path: Path) -> None:
    assert job.metric == metric
    record = smallfry.assess(job, tmp_path / "out", target=None, rungs=("0.05m",), seeds=2, vocab=300, workers=2)
    kinds = [r.type for r in record.rows]
    assert kinds.count("lm") == 1 and baseline in {r.name for r in record.rows}
    model = next(r for r in record.rows if r.type == "lm")
    assert len(model.seeds) == 2 and model.versus is not None and model.ci[0] <= model.score <= model.ci[1]
    assert (tmp_path / "out" / "report.html").exists() and record.shipped == "0.05m"
    if metric != "bits_per_byte":
        combined = next(r for r in record.rows if r.type == "combined")
        assert combined.latency_ms and (combined.train_seconds or 0) > (model.train_seconds or 0)
        assert smallfry.load(tmp_path / "out")(job.test[0].input)
    assert record.advice and record.job.warnings is not None


def test_a_disk_that_is_full_at_the_end_costs_nothing_that_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AssessSettings(
        rungs=("0.05m",), seeds=1, form="inline", vocab=300, workers=1, baselines=("majority",), out=tmp_path / "out"
    )

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "best.part"))

    job = Job.from_rows(rows(80), name="rooms")
    with monkeypatch.context() as patched, pytest.raises(SmallfryError, match=r"No space left on device.*--resume"):
        patched.setattr("shutil.copytree", full)
        assess(job, settings)
    record = assess(job, replace(settings, resume=True))
    assert record.rows and (tmp_path / "out" / "best" / "model.safetensors").exists()


def test_two_assessments_never_share_a_directory(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    lock = DirectoryLock(tmp_path / "work")
    with pytest.raises(SmallfryError, match="another assessment is writing there"):
        DirectoryLock(tmp_path / "work")
    lock.release()
    DirectoryLock(tmp_path / "work").release()


def test_only_a_candidate_s_own_failure_is_filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.from_rows(rows(80), name="rooms")
    task = RungTask("1m", 0, "inline", 300, True)

    def failing(error: SmallfryError) -> None:
        def run_rung(*args: object) -> None:
            raise error

        monkeypatch.setattr(pool, "run_rung", run_rung)

    busy, cores = Value("i", 0), CoreShare(0, 1)
    context = pool._Context(job, None, tmp_path, False, queue.Queue(), Event(), None, busy, cores)
    monkeypatch.setattr(pool, "_context", context)
    failing(CandidateError("the loss is nan"))
    assert pool._run(task).outcome.failed == "the loss is nan"
    fitted = BaselineTask("nearest")
    monkeypatch.setattr(pool, "run_baseline", lambda *a: [][0])  # a library's own error
    assert pool._run(fitted).outcome.failed.startswith("IndexError: ")
    failing(SmallfryError("no space left"))
    with pytest.raises(SmallfryError, match="no space left"):
        pool._run(task)


def test_an_outcome_of_another_version_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    Outcome("1m", 1, 2, 3.0).save(path)
    assert Outcome.load(path) is not None
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))
    assert Outcome.load(path) is None


def test_what_was_left_out_is_in_the_record(tmp_path: Path) -> None:
    run = _Run(Job.from_rows(rows(80), name="rooms"), AssessSettings(out=tmp_path / "out"), Silent())
    task = RungTask("1m", 0, "inline", 300, True)

    class OneResult:
        def next(self) -> Result:
            return Result(task, Outcome.failure("1m", "the loss is nan"))

    run.pool = OneResult()  # type: ignore[assignment]
    run._take()
    assert run.state.failures == {task.key: "the loss is nan"} and not run.state.rungs
