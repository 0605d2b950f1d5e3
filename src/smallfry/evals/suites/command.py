"""`smallfry eval`: load, measure, show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import METRICS
from smallfry.evals.paired import paired_statistic
from smallfry.evals.suites import contamination, conversation, jobs, sources, stories
from smallfry.evals.suites.chat import code_items, measure_chatcore, most_frequent
from smallfry.evals.suites.code import check_samples, humaneval_rows, measure_humaneval, measure_pass_at_k
from smallfry.evals.suites.items import RUN, WHOLE
from smallfry.evals.suites.judge import Judge, graded
from smallfry.evals.suites.measure import (
    Measure,
    SuiteResult,
    TaskResult,
    compare,
    majority,
    measure_suite,
)
from smallfry.evals.suites.models import Precision, load_language_model, untrained
from smallfry.evals.suites.ngram import NGramModel
from smallfry.evals.suites.scoring import GuessingModel, LanguageModel
from smallfry.evals.suites.show import paired_dict, show_comparison, show_result
from smallfry.evals.suites.text import FEWEST, bits_per_byte, bits_rate, read_documents
from smallfry.job import Job
from smallfry.machine import keep_freed_memory
from smallfry.shipped import model_directory

SUITES = ("core", "chatcore", "blimp", "lambada", "humaneval", "bpb", "stories", "conversation")


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """What is asked of `run_suite`.

    Args:
        suite: One of `SUITES`.
        paths: One or two model directories.
        data_dir: Folder of the suites' data.
        hub: Whether what the folder lacks comes from the Hugging Face hub.
        limit: At most this many questions a task.
        text: What ``bpb`` reads, or the stories of ``stories``.
        controls: Whether to measure the controls.
        unsafe_code: Whether model-written programs may run without the sandbox.
        precision: What is computed in.
        samples: Completions of each HumanEval problem that are drawn for ``pass_at``; 0 for the greedy one.
        pass_at: The ``k`` of pass@k.
        judge: Who grades stories.
        trained_on: Training texts to look for the suite's items in.
        ngram: Training texts that an n-gram model is made of, as one more control.
    """

    suite: str
    paths: tuple[Path, ...]
    data_dir: Path | None = None
    hub: bool = False
    limit: int | None = None
    text: Path | None = None
    controls: bool = True
    unsafe_code: bool = False
    precision: Precision = "fp32"
    samples: int = 0
    pass_at: tuple[int, ...] = (1, 10)
    judge: Judge | None = None
    trained_on: Path | None = None
    ngram: Path | None = None


def run_suite(settings: EvalSettings, console: Console) -> dict[str, Any]:
    """Measure one model, or two on the same items.

    Args:
        settings: What to measure.
        console: Where tables go.

    Returns:
        What ``--json`` prints.

    Raises:
        SmallfryError: Its data or a model cannot be read.
    """
    keep_freed_memory()
    _check(settings)
    if settings.suite == "bpb":
        return _bits(settings, console)
    asked = _suite(settings)
    results: list[SuiteResult] = []
    for path in settings.paths:
        model = load_language_model(path, settings.precision)
        with console.status(Text(f"{settings.suite}: {model.name}")) as status:

            def watch(task: TaskResult, model: LanguageModel = model) -> None:
                status.update(Text(f"{settings.suite}: {model.name}: {task.name} {task.accuracy:.3f}"))

            result = asked.measure(model, watch)
            if settings.controls and not results:
                known = [GuessingModel(model), untrained(model), *_counted(settings)]
                result.controls = {c.name: asked.measure(c, watch) for c in known} | asked.controls()
        result.notes = [*result.notes, *asked.notes]
        show_result(result, console)
        results.append(result)
    plain = results[0].to_dict() | asked.more
    if len(results) == 2:
        plain["other"] = results[1].to_dict()
        plain["comparison"] = show_comparison(results[0].model, results[1].model, compare(*results), console)
    return plain


def _check(settings: EvalSettings) -> None:
    """Refuse what the suite would not look at, and what would fail after hours or after asking the hub."""
    for path in settings.paths:
        model_directory(path)
    suite = settings.suite
    asking = tuple(name for name in SUITES if name != "bpb")
    for given, name, suites in (
        (settings.judge, "--judge", ("stories",)), (settings.samples, "--samples", ("humaneval",)),
        (settings.text, "--text", ("bpb", "stories")), (settings.limit, "--limit", asking),
        (settings.trained_on, "--trained-on", asking), (settings.ngram, "--ngram", asking),
    ):  # fmt: skip
        if given and suite not in suites:
            raise SmallfryError(f"{name}: --suite {suite} has no use for it; it belongs to {', '.join(suites)}")
    if settings.samples:
        check_samples(settings.pass_at, settings.samples)
    if settings.judge is not None:
        settings.judge.grade("Once upon a time there was a dog.", "The dog was happy.")


def _counted(settings: EvalSettings) -> list[LanguageModel]:
    """The n-gram model of a training text, where that is given."""
    return [] if settings.ngram is None else [NGramModel.fit(read_documents(settings.ngram))]


# ---- suites ---------------------------------------------------------------------------------------------------------

Watch = Callable[[TaskResult], None]


@dataclass(slots=True)
class _Suite:
    """How one suite is asked: of any model, and of the controls that are not models."""

    measure: Callable[[LanguageModel, Watch], SuiteResult]
    controls: Callable[[], dict[str, SuiteResult]]
    notes: list[str]
    more: dict[str, Any]  # goes into what --json prints


def _suite(settings: EvalSettings) -> _Suite:
    if settings.suite == "stories":
        return _stories(settings)
    if settings.suite == "conversation":
        return _conversation(settings)
    data = sources.Data.find(settings.data_dir, settings.hub)
    if settings.suite in ("chatcore", "humaneval"):
        return _code(settings, data)
    suite, limit, alone = settings.suite, settings.limit, len(settings.paths) == 1
    missing: dict[str, str] = {}
    if suite == "core":
        tasks, missing = sources.core_tasks(data)
    else:
        tasks = sources.blimp_tasks(data) if suite == "blimp" else sources.lambada_tasks(data)
    centered = "v1" if suite == "core" else None

    def measure(model: LanguageModel, watch: Watch) -> SuiteResult:
        return measure_suite(suite, model, tasks, centered, list(missing), limit, watch, stop=alone)

    def controls() -> dict[str, SuiteResult]:
        return {"majority": SuiteResult(suite, "majority", [majority(task, limit) for task in tasks], centered)}

    reasons = [f"no data for {name}: {why}" for name, why in missing.items() if why]
    notes, more = _contaminated(settings, contamination.texts_of(tasks, limit))
    return _Suite(measure, controls, [*reasons, *notes], more)


def _code(settings: EvalSettings, data: sources.Data) -> _Suite:
    """The suites in which programs are run: HumanEval alone, or among the five of ChatCORE."""
    suite, limit, unsafe = settings.suite, settings.limit, settings.unsafe_code

    def measure(model: LanguageModel, watch: Watch) -> SuiteResult:
        if suite == "chatcore":
            return measure_chatcore(model, data, limit, unsafe, watch)
        problems = humaneval_rows(data)
        found = SuiteResult(suite, model.name, [measure_humaneval(model, problems, limit, unsafe)])
        if settings.samples:
            drawn = Sampling(temperature=0.8, top_p=0.95)
            for p in measure_pass_at_k(model, problems, settings.pass_at, settings.samples, drawn, limit, unsafe):
                what = f"of {p.samples} samples at temperature {drawn.temperature}, top-p {drawn.top_p}"
                found.measures.append(Measure(f"pass@{p.k}", p.score, p.ci, p.n, what))
        return found

    items = code_items(suite, data) if settings.trained_on else {}
    return _Suite(
        measure, lambda: {"majority": most_frequent(suite, data, limit)}, *_contaminated(settings, items)
    )  # fmt: skip


def _stories(settings: EvalSettings) -> _Suite:
    folder = sources.Data.find(settings.data_dir).folder if settings.text is None else None
    source, texts = stories.story_texts(settings.text, folder)
    asked = stories.build(source, texts, settings.limit)
    written: dict[str, list[str]] = {}

    def measure(model: LanguageModel, watch: Watch) -> SuiteResult:
        if isinstance(model, GuessingModel):  # it has nothing to write; the true stories stand in its place
            tasks = measure_suite("stories", model, asked.tasks, stop=False).tasks
            return SuiteResult("stories", model.name, tasks)
        found, written[model.name] = stories.measure_stories(model, asked)
        if settings.judge is not None and model.name != "untrained":
            grades, problem = graded(settings.judge, asked.prompts, written[model.name])
            found.measures += grades
            found.notes += [problem] if problem else []
        return found

    def controls() -> dict[str, SuiteResult]:
        known = {"majority": stories.story_majority(asked), "overlap": stories.story_overlap(asked)}
        return {name: SuiteResult("stories", name, tasks) for name, tasks in known.items()}

    notes, more = _contaminated(settings, contamination.texts_of(asked.tasks))
    note = f"{len(asked.texts):,} stories of {asked.source}; temperature {stories.HOW.temperature}"
    return _Suite(measure, controls, [note, *notes], more | {"source": asked.source, "written": written})


def _conversation(settings: EvalSettings) -> _Suite:
    questions = conversation.asked(settings.limit)

    def measure(model: LanguageModel, watch: Watch) -> SuiteResult:
        return conversation.measure_conversation(model, questions, watch)

    notes, more = _contaminated(settings, conversation.texts_of(questions))
    return _Suite(measure, lambda: {"majority": conversation.most_frequent(questions)}, notes, more)


def _contaminated(settings: EvalSettings, items: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, Any]]:
    """Items that stand in the training text, in words and as data; nothing where that text is not known."""
    if settings.trained_on is None:
        return [], {}
    found = contamination.overlaps(items, contamination.training_texts(settings.trained_on))
    total, hits, short = sum(o.n for o in found), sum(o.found for o in found), sum(o.short for o in found)
    worst = ", ".join(f"{o.task} {o.found} of {o.n}" for o in sorted(found, key=lambda o: -o.found)[:5] if o.found)
    note = f"contamination: {hits:,} of {total:,} items share {RUN} words in a row with {settings.trained_on}"
    whole = sum(o.whole for o in found)
    note += f", or of {WHOLE} to {RUN - 1} words ({whole:,}) stand in it" if whole else ""
    note += f" ({worst})" if worst else ""
    note += f"; {short:,} further items are too short to tell" if short else ""
    return [note], {"contamination": [o.to_dict() for o in found]}


# ---- jobs and plain text --------------------------------------------------------------------------------------------


def run_job(job: Job, paths: Sequence[Path], limit: int | None, controls: bool, console: Console) -> dict[str, Any]:
    """Measure one model, or two on the same rows, on a job.

    Args:
        job: The job; its test rows are asked.
        paths: One or two model directories that `smallfry assess` made.
        limit: At most this many test rows.
        controls: Whether to measure the controls.
        console: Where the table goes.

    Returns:
        What ``--json`` prints.
    """
    keep_freed_memory()
    found = jobs.evaluate(job, paths, limit, controls)
    table = Table(title=Text(f"{job.name}: {METRICS[job.metric].title}"), title_justify="left")
    table.add_column("candidate")
    for name in ("score", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in (found, *([found["other"]] if "other" in found else []), *found["controls"]):
        low, high = row["ci"]
        table.add_row(Text(str(row["name"])), f"{row['score']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['n']:,}")
    console.print(table)
    for warning in found["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    for name, value in sorted(found["metrics"].items()):
        console.print(f"{name} {value:.3f}", style="dim", highlight=False)
    if "comparison" in found:
        _show_difference(found["comparison"], console)
    return found


def _show_difference(c: dict[str, Any], console: Console) -> None:
    low, high = c["ci"]
    console.print(f"first minus second: {c['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p {c['p']:.2g}")


def _bits(settings: EvalSettings, console: Console) -> dict[str, Any]:
    if settings.text is None:
        raise SmallfryError("--suite bpb: give the text with --text FILE (UTF-8 text, or .jsonl with a column text)")
    documents = read_documents(settings.text)
    found, rows = [], []
    for path in settings.paths:
        model = load_language_model(path, settings.precision)
        found.append(bits_per_byte(model, documents))
        bits = found[-1]
        controls: dict[str, Any] = {"guessing": {"score": 8.0}}
        if settings.controls:
            fresh = bits_per_byte(untrained(model), documents)
            controls["untrained"] = {"score": fresh.score, "ci": fresh.ci}
        rows.append({
            "model": model.name, "score": bits.score, "ci": bits.ci, "documents": bits.documents,
            "bytes": bits.n_bytes, "tokens": bits.tokens, "controls": controls,
        })  # fmt: skip
        interval = f" [{bits.ci[0]:.4f}, {bits.ci[1]:.4f}]" if bits.ci else ""
        beside = "; guessing bytes 8" + (f", untrained {fresh.score:.4f}" if settings.controls else "")
        console.print(
            f"{model.name}: {bits.score:.4f} bits per byte{interval} on {bits.n_bytes:,} bytes{beside}",
            markup=False, highlight=False,
        )  # fmt: skip
    plain = {"suite": "bpb", **rows[0], "tasks": []}
    if len(found) == 2:
        plain["other"] = rows[1]
        if len(documents) >= FEWEST:
            comparison = paired_dict(paired_statistic([found[0].sums], found[1].sums, bits_rate, fixed=True))
            plain["comparison"] = comparison
            _show_difference(comparison, console)
        else:
            console.print(f"{len(documents)} documents are too few to compare two models; from {FEWEST} on they are")
    return plain
