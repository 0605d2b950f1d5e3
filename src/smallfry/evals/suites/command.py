"""`smallfry eval`: load, measure, show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from smallfry.errors import SmallfryError
from smallfry.evals.metrics import METRICS
from smallfry.evals.suites import jobs, sources
from smallfry.evals.suites.chat import measure_chatcore, most_frequent
from smallfry.evals.suites.code import humaneval_rows, measure_humaneval
from smallfry.evals.suites.measure import SuiteResult, TaskResult, compare, majority, measure_suite
from smallfry.evals.suites.models import load_language_model, untrained
from smallfry.evals.suites.prompts import Task
from smallfry.evals.suites.scoring import GuessingModel, LanguageModel
from smallfry.evals.suites.text import bits_per_byte, read_documents
from smallfry.job import Job
from smallfry.machine import keep_freed_memory

SUITES = ("core", "chatcore", "blimp", "lambada", "humaneval", "bpb")


def run_suite(
    suite: str, paths: Sequence[Path], data_dir: Path | None, limit: int | None, text: Path | None, controls: bool,
    unsafe_code: bool, console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Measure one model, or two on the same items.

    Args:
        suite: One of `SUITES`.
        paths: One or two model directories.
        data_dir: Folder of the suites' data.
        limit: At most this many questions a task.
        text: What ``bpb`` reads.
        controls: Whether to measure the controls.
        unsafe_code: Whether model-written programs may run without the sandbox.
        console: Where tables go.

    Returns:
        What ``--json`` prints.

    Raises:
        SmallfryError: Its data or a model cannot be read.
    """
    keep_freed_memory()
    if suite == "bpb":
        return _bits(paths, text, console)
    if suite in ("chatcore", "humaneval"):
        return _code(suite, paths, data_dir, limit, controls, unsafe_code, console)
    tasks, missing = _tasks(suite, sources.data_folder(data_dir))
    centered = "v1" if suite == "core" else None
    models = [load_language_model(path) for path in paths]
    alone = len(models) == 1
    results = [_measured(suite, model, tasks, centered, missing, limit, console, alone) for model in models]
    if controls:
        results[0].controls = _controls(suite, models[0], tasks, centered, limit, console)
    for result in results:
        console.print(_table(result))
    return _together(results, console)


def _measured(
    suite: str, model: LanguageModel, tasks: Sequence[Task], centered: str | None, missing: Sequence[str],
    limit: int | None, console: Console, stop: bool,
) -> SuiteResult:  # fmt: skip
    with console.status(f"{suite}: {model.name}") as status:

        def watch(task: TaskResult) -> None:
            status.update(f"{suite}: {model.name}: {task.name} {task.accuracy:.3f}")

        return measure_suite(suite, model, tasks, centered, missing, limit, watch, stop)


def _tasks(suite: str, folder: Path) -> tuple[list[Task], list[str]]:
    if suite == "core":
        return sources.core_tasks(folder)
    return (sources.blimp_tasks(folder) if suite == "blimp" else sources.lambada_tasks(folder)), []


def _controls(
    suite: str, model: LanguageModel, tasks: Sequence[Task], centered: str | None, limit: int | None, console: Console
) -> dict[str, SuiteResult]:
    with console.status(f"{suite}: controls"):
        guesses = measure_suite(suite, GuessingModel(model), tasks, centered, limit=limit)
        fresh = measure_suite(suite, untrained(model), tasks, centered, limit=limit)
    common = SuiteResult(suite, "majority", [majority(task, limit) for task in tasks], centered)
    return {"guessing": guesses, "majority": common, "untrained": fresh}


def _table(result: SuiteResult) -> Table:
    over = f" over {len(result.tasks)} tasks" if len(result.tasks) > 1 else ""
    if result.missing:
        over += f" of {len(result.tasks) + len(result.missing)} (no data: {', '.join(result.missing)})"
    lines = [f"{result.suite}{over}: {_score(result, result.centered)}"]
    if result.centered:
        lines[0] += f" centred by {result.centered}"
        lines += [f"centred by {v}: {_score(result, v)}" for v in result.tasks[0].floors if v != result.centered]
    lines += [f"control {name}: {_score(control, result.centered)}" for name, control in result.controls.items()]
    table = Table(title=result.model, caption="\n".join(lines), caption_justify="left", title_justify="left")
    table.add_column("task", no_wrap=True)
    for name in ("n", "accuracy", "95% interval", "centred", "shots"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in (*result.tasks, *result.beside):
        low, high = task.interval()
        n = f"{task.n:,}" + (" of " + f"{task.total:,}, stopped at the floor" if task.stopped else "")
        centred = f"{task.centered(result.centered or 'v1'):+.3f}" if task.floors else ""
        cells = (n, f"{task.accuracy:.3f}", f"{low:.3f} to {high:.3f}", centred, f"{task.shots:.1f}")
        table.add_row(task.name, *cells)
    return table


def _score(result: SuiteResult, version: str | None) -> str:
    low, high = result.interval(version)
    return f"{result.score(version):.4f} [{low:.4f}, {high:.4f}]"


def _together(results: Sequence[SuiteResult], console: Console) -> dict[str, Any]:
    plain = results[0].to_dict()
    if len(results) == 2:
        plain["other"] = results[1].to_dict()
        plain["comparison"] = _comparison(results[0], results[1], console)
    return plain


def _comparison(a: SuiteResult, b: SuiteResult, console: Console) -> list[dict[str, Any]]:
    found = compare(a, b)
    table = Table(title=f"{a.model} minus {b.model}, the same items", title_justify="left")
    table.add_column("task", no_wrap=True)
    for name in ("n", "difference", "95% interval", "p (Holm)", "shows"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in found:
        shows = "-" if c.detectable is None else f"{c.detectable:.3f}"
        cells = (f"{c.paired.difference:+.3f}", f"{c.paired.low:+.3f} to {c.paired.high:+.3f}", f"{c.adjusted:.2g}")
        table.add_row(c.name, f"{c.n:,}", *cells, shows)
    console.print(table)
    return [
        {
            "name": c.name, "n": c.n, "difference": c.paired.difference, "ci": [c.paired.low, c.paired.high],
            "p": c.paired.p_value, "p_holm": c.adjusted, "detectable": c.detectable,
        }
        for c in found
    ]  # fmt: skip


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
    table = Table(title=f"{job.name}: {METRICS[job.metric].title}", title_justify="left")
    table.add_column("candidate")
    for name in ("score", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in (found, *([found["other"]] if "other" in found else []), *found["controls"]):
        low, high = row["ci"]
        table.add_row(str(row["name"]), f"{row['score']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['n']:,}")
    console.print(table)
    for warning in found["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    for name, value in sorted(found["metrics"].items()):
        console.print(f"{name} {value:.3f}", style="dim", highlight=False)
    if "comparison" in found:
        c = found["comparison"]
        low, high = c["ci"]
        console.print(f"first minus second: {c['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {c['p']:.2g}")
    return found


def _code(
    suite: str, paths: Sequence[Path], data_dir: Path | None, limit: int | None, controls: bool, unsafe: bool,
    console: Console,
) -> dict[str, Any]:  # fmt: skip
    """The suites in which programs are run: HumanEval alone, or among the five of ChatCORE."""
    folder = sources.data_folder(data_dir)

    def measured(model: LanguageModel) -> SuiteResult:
        with console.status(f"{suite}: {model.name}"):
            if suite == "chatcore":
                return measure_chatcore(model, folder, limit, unsafe)
            return SuiteResult(suite, model.name, [measure_humaneval(model, humaneval_rows(folder), limit, unsafe)])

    results: list[SuiteResult] = []
    for path in paths:
        model = load_language_model(path)
        result = measured(model)
        if controls and not results:
            known = [GuessingModel(model), untrained(model)]
            result.controls = {control.name: measured(control) for control in known}
            result.controls["majority"] = most_frequent(suite, folder, limit)
        results.append(result)
        console.print(_table(result))
    return _together(results, console)


def _bits(paths: Sequence[Path], text: Path | None, console: Console) -> dict[str, Any]:
    if text is None:
        raise SmallfryError("--suite bpb: give the text with --text FILE (UTF-8 text, or .jsonl with a column text)")
    documents = read_documents(text)
    rows = []
    for path in paths:
        model = load_language_model(path)
        found = bits_per_byte(model, documents)
        fresh = bits_per_byte(untrained(model), documents)
        rows.append({
            "model": model.name, "score": found.score, "ci": found.ci, "documents": found.documents,
            "bytes": found.n_bytes, "tokens": found.tokens,
            "controls": {"guessing": {"score": 8.0}, "untrained": {"score": fresh.score, "ci": fresh.ci}},
        })  # fmt: skip
        interval = f" [{found.ci[0]:.4f}, {found.ci[1]:.4f}]" if found.ci else ""
        console.print(
            f"{model.name}: {found.score:.4f} bits per byte{interval} on {found.n_bytes:,} bytes; "
            f"guessing bytes 8, untrained {fresh.score:.4f}",
            markup=False, highlight=False,
        )  # fmt: skip
    return {"suite": "bpb", **rows[0], "tasks": [], **({"other": rows[1]} if len(rows) > 1 else {})}
