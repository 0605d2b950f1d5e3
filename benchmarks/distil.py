"""Does a student of 1m learn more from teachers than alone? Writes docs/results/distil.md from what was measured.

    python benchmarks/distil.py --data DIR                       every unit that is not there yet, then write
    python benchmarks/distil.py --data DIR --minutes 60          begin no unit after an hour; the next call goes on
    python benchmarks/distil.py --data DIR --jobs clinc150       one job
    python benchmarks/distil.py --data DIR --only s0             units whose name this pattern finds
    python benchmarks/distil.py --write                          only write: from finished units, or from the record

DIR holds ``NAME.jsonl.gz`` files with ``input``, ``output`` and ``split``. A unit is one training, stored with its
answers to the validation rows and, once its arm was chosen, to the test rows: settings are chosen on validation rows
with seed 0, the test rows are asked for the chosen arm and for the same model alone. Student and model alone have the
same tokenizer, form, recipe, seed and number of steps; `long` is the model alone with as many steps as the teachers and
the student had together.

Of a job called ``NAME, 10 labelled`` only ten rows of each label keep it, and teachers and the model alone learn from
those; the other inputs are what a student may be taught on beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from distil_page import page
from invent import spliced

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SIZE = "1m"
SEEDS = (0, 1, 2)
TEACHERS: dict[str, tuple[tuple[str, int], ...]] = {
    "": (), "1m": (("1m", 10),), "3 x 1m": (("1m", 10), ("1m", 11), ("1m", 12)), "5m": (("5m", 10),),
}  # fmt: skip
"""Size and seed of each."""


@dataclass(frozen=True)
class Arm:
    """How a student learns.

    Args:
        teachers: A key of `TEACHERS`; empty for a model alone.
        share: Of the loss that is the teachers'.
        temperature: Of the distributions.
        extra: Further inputs for each training row, labelled by the teachers: those whose labels were taken away, new
            ones of a built-in job's generator, else spliced from training inputs (`invent`). Inputs of
            the validation rows would serve too, but then those rows could not say which arm is best.
        steps: Times the recipe's steps.
    """

    teachers: str = ""
    share: float = 0.0
    temperature: float = 1.0
    extra: float = 0.0
    steps: float = 1.0

    @property
    def label(self) -> str:
        """Its name in tables and files."""
        if not self.teachers:
            return "alone" if self.steps == 1.0 else f"alone, {self.steps:g} x the steps"
        parts = [f"from {self.teachers}, share {self.share:g}, T {self.temperature:g}"]
        parts = parts if self.share else [f"labels of {self.teachers}"]
        parts += [f"{self.extra:g} x further inputs"] * bool(self.extra)
        parts += [f"{self.steps:g} x the steps"] * (self.steps != 1.0)
        return ", ".join(parts)


ALONE = Arm()
WHOLE = (Arm("3 x 1m", 0.9, 2.0), Arm("3 x 1m", 0.9, 2.0, extra=1.0))
FEW = (
    Arm("3 x 1m", 0.9, 2.0), Arm("3 x 1m", 0.9, 2.0, extra=10.0), Arm("3 x 1m", 0.9, 2.0, extra=10.0, steps=5.0),
)  # fmt: skip
"""What is chosen among, on validation rows with seed 0: where all rows have labels, and where few have."""
CONTROLS = (Arm("1m", extra=10.0, steps=5.0), Arm("5m", 0.9, 2.0, extra=10.0, steps=5.0))
"""What the chosen arm is held against besides: nothing but one teacher's labels, and one larger teacher. Nothing
chooses them; both are asked the test rows."""


@dataclass(frozen=True)
class Task:
    """A job and how the models spell it: as `smallfry assess` chose for 1m (docs/results/narrow.md).

    Args:
        job: A built-in job's name or a file's.
        form: Output form.
        vocab: Tokens.
        where: Rows that are kept.
        labelled: Rows of each label that keep it; 0 is all. The others have inputs only.
    """

    job: str
    form: str
    vocab: int
    lowercase: bool = True
    where: dict[str, str] = field(default_factory=dict)
    labelled: int = 0

    @property
    def name(self) -> str:
        """As it is called in tables."""
        return f"{self.job}, {self.labelled} labelled" if self.labelled else self.job

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is chosen among."""
        return FEW if self.labelled else WHOLE

    @property
    def controls(self) -> tuple[Arm, ...]:
        """What is measured beside the chosen arm."""
        return CONTROLS if self.labelled else ()


TASKS = {
    task.name: task
    for task in (
        Task("clinc150", "units", 4096, where={"oos": "false"}),
        Task("banking77", "units", 4096),
        Task("banking77", "units", 2048, labelled=10),
        Task("clinc150", "units", 2048, where={"oos": "false"}, labelled=10),
    )
}


@dataclass(frozen=True)
class Unit:
    """One training: a job, a size, a seed and an arm."""

    task: str
    size: str
    seed: int
    arm: Arm = Arm()

    @property
    def key(self) -> str:
        """File-system safe identity."""
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.task} {self.size} s{self.seed} {self.arm.label}".lower())


# ---- one unit -------------------------------------------------------------------------------------------------------


def load(task: Task, data: Path | None) -> tuple[Any, list[str]]:
    """The job, and inputs of its training rows that have no label."""
    from smallfry import Job
    from smallfry.builtin import names

    if task.job in names():
        return Job.load(task.job), []
    if data is None:
        raise SystemExit("--data DIR is needed to run")
    job = Job.load(data / f"{task.job}.jsonl.gz", where=task.where or None)
    if not task.labelled:
        return job, []
    rows = list(job.train)
    random.Random(0).shuffle(rows)
    seen: Counter[str] = Counter()
    kept, rest = [], []
    for row in rows:
        seen[row.output] += 1
        (kept if seen[row.output] <= task.labelled else rest).append(row)
    return replace(job, name=task.name, train=tuple(kept)), [row.input for row in rest]


def train_unit(unit: Unit, data: Path | None, out: Path) -> dict[str, Any]:
    """Train, save the model, and score the validation rows."""
    from smallfry.machine import limit_threads

    limit_threads()
    import torch

    from smallfry.assessment.work import answers_of, longest_answer, score_answers
    from smallfry.data import JobData, Noise
    from smallfry.engine.torch_engine import TorchModel
    from smallfry.forms import build_form
    from smallfry.frames import FrameCodec
    from smallfry.machine import compute_dtype, versions
    from smallfry.model import Transformer
    from smallfry.predictor import ModelPredictor
    from smallfry.recipes import recipe_for
    from smallfry.sizes import shape_for
    from smallfry.train import train
    from smallfry.tuning.soft import CHOICES, distilled

    task, arm = TASKS[unit.task], unit.arm
    job, unlabelled = load(task, data)
    codec = FrameCodec.learn(job.train) if job.kind == "transform" else None
    form = build_form(job, task.form, task.vocab, task.lowercase, codec)  # type: ignore[arg-type]
    shape = shape_for(unit.size, form.tokenizer.vocab_size)
    plain = JobData(job.train, form, Noise(), 0.0, 4096, unit.seed)
    recipe = recipe_for(job, task.form, plain.tokens_per_epoch(), shape.params, unit.seed)  # type: ignore[arg-type]
    directories = [out / "models" / Unit(unit.task, size, seed).key for size, seed in TEACHERS[arm.teachers]]
    rows = [*job.train, *(further(job, unlabelled, directories, arm.extra, unit.seed) if arm.extra else ())]

    def batches(of: Sequence[Any]) -> JobData:
        return JobData(
            of, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, unit.seed, recipe.copy_loss
        )  # fmt: skip

    steps = len(batches(job.train).epoch(0))
    lessons: Any = batches(rows)
    # As many steps whatever the rows are: those that were invented take the place of repetitions.
    recipe = replace(recipe, epochs=recipe.epochs * arm.steps * steps / len(lessons.epoch(0)))
    if arm.share:
        teachers = [teacher(directory, form) for directory in directories]
        lessons = distilled(lessons, teachers, arm.share, arm.temperature, least=CHOICES)
    model = Transformer(shape, recipe.dropout)
    model.init_weights(torch.Generator().manual_seed(unit.seed))
    model = model.to(compute_dtype(torch.device("cpu")))
    trained = train(model, lessons, recipe, say=print)
    predictor = ModelPredictor(unit.size, TorchModel(model), form, longest_answer(job, form))
    predictor.save(out / "models" / unit.key, model, {"recipe": recipe.to_dict(), "seed": unit.seed})
    answers = answers_of(predictor, job, job.valid)
    return {
        **asdict(unit), "label": arm.label, "params": shape.params, "steps": trained.steps, "tokens": trained.tokens,
        "seconds": round(trained.seconds, 1), "recipe": recipe.to_dict(), "rows": len(rows), "versions": versions(),
        "valid": float(score_answers(job, answers, "valid", codec).score), "n_valid": len(job.valid),
        "n_train": len(job.train), "hashes": job.hashes(),
    }  # fmt: skip


def teacher(directory: Path, form: Any) -> Any:
    """A finished model as a teacher of distributions."""
    from smallfry.tuning.teachers import LogitTeacher, load_teacher

    found = load_teacher(str(directory), form.tokenizer, None, job_form=True)
    assert isinstance(found, LogitTeacher)
    return found


def further(
    job: Any, unlabelled: Sequence[str], directories: Sequence[Path], share: float, seed: int
) -> list[Any]:  # fmt: skip
    """New inputs with what the teachers answer; nothing of the validation or test rows is among them."""
    from smallfry.builtin import load_builtin, names
    from smallfry.job import Example
    from smallfry.loading.splitting import normalise
    from smallfry.tuning.teachers import Committee, JobTeacher

    count = round(share * len(job.train))
    if unlabelled:
        inputs = list(unlabelled[:count])
    elif job.name in names():
        made = load_builtin(job.name, n_train=len(job.train) + count).train
        assert made[: len(job.train)] == job.train
        inputs = [e.input for e in made[len(job.train) :]]
    else:
        inputs = spliced([e.input for e in job.train], count, seed)
    held_out = {normalise(e.input) for e in (*job.valid, *job.test)}
    inputs = [text for text in inputs if normalise(text) not in held_out]
    teachers = [JobTeacher(directory) for directory in directories]
    teacher = Committee(teachers, job.labels) if job.kind == "classify" else teachers[-1]
    return [Example(*row) for row in zip(inputs, teacher.outputs(inputs), strict=True)]


def test_unit(unit: Unit, data: Path | None, out: Path) -> dict[str, Any]:
    """Which test rows a trained model has right, as one string of 0 and 1."""
    from smallfry.machine import limit_threads

    limit_threads()
    from smallfry.assessment.work import answers_of, score_answers
    from smallfry.frames import FrameCodec
    from smallfry.predictor import ModelPredictor

    job, _ = load(TASKS[unit.task], data)
    codec = FrameCodec.learn(job.train) if job.kind == "transform" else None
    predictor = ModelPredictor.load(out / "models" / unit.key)
    scores = score_answers(job, answers_of(predictor, job, job.test), "test", codec)
    return {
        "test": float(scores.score), "n_test": scores.n, "right": "".join(str(int(x)) for x in scores.per_item)
    }  # fmt: skip


def beside(task: Task, data: Path | None, out: Path) -> dict[str, Any]:
    """What needs no student: an SVM on the labelled rows, and the three teachers' common answer, to the test rows."""
    from smallfry.assessment.work import score_answers
    from smallfry.baselines.linear import fit_svm
    from smallfry.tuning.teachers import Committee, JobTeacher

    job, _ = load(task, data)
    inputs = [e.input for e in job.test]
    svm = fit_svm(job)
    three = Committee([JobTeacher(out / "models" / Unit(task.name, *t).key) for t in TEACHERS["3 x 1m"]], job.labels)
    answers = {"svm": [p.output for p in svm.predict(inputs)], "three teachers together": three.outputs(inputs)}
    found = {}
    for name, given in answers.items():
        scores = score_answers(job, [[output, 1.0] for output in given], "test")
        right = "".join(str(int(x)) for x in scores.per_item)
        found[name] = {"label": name, "test": float(scores.score), "n_test": scores.n, "right": right}
    path = out / "units" / f"{Unit(task.name, SIZE, 0).key}-beside.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def work(unit: Unit, what: str, data: Path | None, out: Path) -> dict[str, Any]:
    """In a worker: train or test, and store the result."""
    path = out / "units" / f"{unit.key}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found |= train_unit(unit, data, out) if what == "train" else test_unit(unit, data, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return found


# ---- what is to be done ---------------------------------------------------------------------------------------------


class Plan:
    """What is there, and what is to come next.

    Args:
        out: Where units are stored.
        tasks: Names of jobs.
        only: Units whose key this pattern does not find are left out.
    """

    def __init__(self, out: Path, tasks: Sequence[str], only: str) -> None:
        self.out, self.tasks, self.only = out, tasks, only

    def result(self, unit: Unit) -> dict[str, Any]:
        """A unit's stored result; empty where there is none."""
        path = self.out / "units" / f"{unit.key}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def beside(self, task: str) -> dict[str, Any]:
        """What needs no student; empty where it is not there."""
        path = self.out / "units" / f"{Unit(task, SIZE, 0).key}-beside.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def chosen(self, task: str) -> Arm | None:
        """The arm that is best on the validation rows with seed 0; None until all were tried."""
        arms = TASKS[task].arms
        scores = [self.result(Unit(task, SIZE, 0, arm)).get("valid") for arm in arms]
        if any(score is None for score in scores):
            return None
        return max(zip(arms, scores, strict=True), key=lambda pair: float(pair[1]))[0]

    def long(self, task: str, arm: Arm) -> Arm:
        """The model alone with the steps of teachers and student together."""
        return replace(ALONE, steps=arm.steps + len(TEACHERS[arm.teachers]))

    def todo(self) -> list[tuple[Unit, str]]:
        """Everything that can be done now and is not done, in order."""
        found: list[tuple[Unit, str]] = []
        for task in self.tasks:
            wanted_by = (*TASKS[task].arms, *TASKS[task].controls)
            teachers = [Unit(task, *t) for arm in wanted_by for t in TEACHERS[arm.teachers]]
            ready = {unit.key for unit in teachers if self.result(unit)}
            found += [(unit, "train") for unit in dict.fromkeys(teachers)]
            found += [(Unit(task, SIZE, seed), "train") for seed in SEEDS]
            arms = [arm for arm in TASKS[task].arms if all(Unit(task, *t).key in ready for t in TEACHERS[arm.teachers])]
            found += [(Unit(task, SIZE, 0, arm), "train") for arm in arms]
            if (best := self.chosen(task)) is not None:
                for arm in (best, self.long(task, best), ALONE, *TASKS[task].controls):
                    units = [Unit(task, SIZE, seed, arm) for seed in SEEDS]
                    found += [(unit, "train") for unit in units]
                    found += [(unit, "test") for unit in units if self.result(unit)]
                found += [(Unit(task, *t), "test") for t in TEACHERS[best.teachers]]
        key = {"train": "valid", "test": "test"}
        wanted = [(u, w) for u, w in found if key[w] not in self.result(u) and re.search(self.only, u.key)]
        return list(dict.fromkeys(wanted))


def run(plan: Plan, data: Path | None, workers: int, minutes: float) -> None:
    """Units side by side, each as soon as what it needs is there."""
    end = time.monotonic() + 60 * minutes
    running: dict[Future[dict[str, Any]], tuple[Unit, str]] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        while True:
            for unit, what in plan.todo():
                if len(running) >= workers or time.monotonic() > end:
                    break
                if (unit, what) not in running.values():
                    running[pool.submit(work, unit, what, data, plan.out)] = (unit, what)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                unit, what = running.pop(future)
                found = future.result()
                score = found["valid" if what == "train" else "test"]
                print(f"{unit.key}: {what} {100 * score:.2f}, {found['seconds']:.0f} s", flush=True)


# ---- the page -------------------------------------------------------------------------------------------------------


def right(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """Which test rows are right, ``(seeds, rows)``."""
    return np.array([[c == "1" for c in r["right"]] for r in results])


def compare(a: np.ndarray, b: np.ndarray, typical: float) -> dict[str, Any]:
    """One arm against another, seed by seed on the same rows: a bootstrap over rows, widened by the seeds' spread.

    A row counts once, with the mean over seeds, so that answering the same row three times is not taken for three rows.
    """
    from smallfry.evals.paired import over_seeds, paired_bootstrap

    each = (a.mean(axis=1) - b.mean(axis=1)).tolist()
    found = over_seeds(paired_bootstrap(a.mean(axis=0), b.mean(axis=0)), each, typical=typical)
    return {"difference": found.difference, "ci": [found.low, found.high], "p": found.p_value, "seeds": each}


def compare_arms(arms: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The student against every other arm, and every other against the model alone, where they are there."""
    others = [name for name in arms if name not in ("student", "alone")]
    pairs = [("student", name) for name in ("alone", *others)] + [(name, "alone") for name in others]
    pairs = [(x, y) for x, y in pairs if {x, y} <= set(arms)]
    spreads = [float(np.var(arms[x].mean(axis=1) - arms[y].mean(axis=1), ddof=1)) for x, y in pairs]
    typical = math.sqrt(float(np.mean(spreads))) if spreads else 0.0
    return {f"{x} against {y}": compare(arms[x], arms[y], typical) for x, y in pairs}


def brief(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page shows of units that are there."""
    keep = ("label", "size", "seed", "steps", "rows", "seconds", "valid", "test")
    return [{k: r[k] for k in keep if k in r} for r in results if r]


def summary(plan: Plan) -> dict[str, Any]:
    """Everything measured, by job."""
    from smallfry.machine import machine

    record: dict[str, Any] = {"size": SIZE, "seeds": list(SEEDS), "machine": machine(), "jobs": {}}
    for task in plan.tasks:
        alone = [plan.result(Unit(task, SIZE, seed)) for seed in SEEDS]
        tried = [plan.result(Unit(task, SIZE, 0, arm)) for arm in TASKS[task].arms]
        teachers = list(dict.fromkeys(Unit(task, *t) for each in TEACHERS.values() for t in each))
        entry: dict[str, Any] = {
            "alone": brief(alone), "tried": brief(tried), "teachers": brief(plan.result(u) for u in teachers),
        }  # fmt: skip
        if alone[0]:
            entry |= {k: alone[0][k] for k in ("n_train", "n_valid", "hashes", "versions", "params", "recipe")}
        if (best := plan.chosen(task)) is not None:
            entry["chosen"] = best.label
            arms = {"alone": ALONE, "student": best, "long": plan.long(task, best)}
            arms |= {arm.label: arm for arm in TASKS[task].controls}
            entry["controls"] = [arm.label for arm in TASKS[task].controls]
            tested = {}
            for name, arm in arms.items():
                found = [plan.result(Unit(task, SIZE, seed, arm)) for seed in SEEDS]
                entry[name] = brief(found)
                if all("right" in r for r in found):
                    tested[name], entry["n_test"] = right(found), found[0]["n_test"]
            entry |= compare_arms(tested)
            entry["beside"] = {}
            for name, one in plan.beside(task).items():
                entry["beside"][name] = {"test": one["test"], "student": None}
                if "student" in tested:
                    again = np.repeat(right([one]), len(SEEDS), 0)
                    entry["beside"][name]["student"] = compare(tested["student"], again, 0.0)
        if entry["alone"] or entry["teachers"]:
            record["jobs"][task] = entry
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/distil"))
    parser.add_argument("--jobs", nargs="*", default=list(TASKS), choices=list(TASKS), help="only these, and no page")
    parser.add_argument("--only", default="", help="units whose name this pattern finds, and no page")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no unit after so many minutes")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.write:
        plan = Plan(args.out, args.jobs, args.only)
        run(plan, args.data, args.workers, args.minutes)
        for name in args.jobs:
            if TASKS[name].labelled and plan.chosen(name) is not None and not plan.beside(name):
                beside(TASKS[name], args.data, args.out)
    if args.write and not args.out.is_dir():  # no unit is here, but what came of them is
        record = json.loads((RESULTS / "distil.json").read_text(encoding="utf-8"))
    else:
        record = summary(Plan(args.out, list(TASKS), ""))
    if args.write or (not args.only and len(args.jobs) == len(TASKS)):
        (RESULTS / "distil.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "distil.md").write_text(page(record), encoding="utf-8")
    print(page(record))
    if args.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
