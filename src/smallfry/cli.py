"""The command line: every command is a few lines over the public API."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from smallfry import cli_bench, cli_chat, cli_claims, cli_models, cli_train, cli_tune
from smallfry.cli_common import (
    InputColumn,
    JobArg,
    Json,
    KindOption,
    MetricOption,
    OutputColumn,
    References,
    Seed,
    Where,
    console,
    errors,
    load_job,
    print_json,
)  # fmt: skip
from smallfry.errors import SmallfryError
from smallfry.shipped import resolve

app = typer.Typer(
    help="What is the smallest language model that is workable for this job? Answered by measurement.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
)  # fmt: skip


def main() -> None:
    """Run the command line; a `SmallfryError` becomes one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show a character still shows the rest
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except SmallfryError as error:
        _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        errors.print("interrupted")
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "sklearn", "sklearn_crfsuite", "scipy", "llguidance"):
            _refuse(f"this command needs {error.name}; install it with: pip install 'smallfry[lab]'")
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own, whose class is click's or not, by its version
            raise
        _refuse(_told(error))


def _refuse(line: str) -> None:
    errors.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def _told(error: Any) -> str:
    """What is wrong with the words of a command, in one line, and where its options stand."""
    line = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    name = context.command_path if context is not None else "smallfry"
    return f"{line[:1].lower()}{line[1:]}; {name} --help lists what there is"


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises:
        SmallfryError: When it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise SmallfryError(f"--budget {text}: expected a time such as 90s, 10m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def ladder(
    vocab: Annotated[int, typer.Option(help="Vocabulary size")] = 1024,
    tokens: Annotated[int, typer.Option(help="Tokens to train on, for the time column")] = 6_000_000,
    as_json: Json = False,
) -> None:
    """The sizes: shape, parameters by part, FLOPs, bytes, time to train."""
    from dataclasses import asdict

    from smallfry.machine import matmul_flops
    from smallfry.reference_models import REFERENCES
    from smallfry.sizes import DEFAULT_FLOPS_PER_SECOND, render_ladder
    from smallfry.sizes import ladder as rungs

    try:
        speed = matmul_flops()
    except ModuleNotFoundError:  # the light install trains nothing
        speed = DEFAULT_FLOPS_PER_SECOND
    console.print(render_ladder(vocab, tokens, speed))
    if as_json:
        print_json({
            "vocab": vocab, "rungs": [asdict(r) for r in rungs(vocab)],
            "references": [{"name": r.name, "params": r.params} for r in REFERENCES],
        })  # fmt: skip


@app.command()
def jobs(as_json: Json = False) -> None:
    """The built-in jobs by name."""
    from smallfry.builtin import BUILTIN

    table = Table("job", "kind", "what it is", title="Built-in jobs (generated on the spot, nothing is downloaded)")
    for name, spec in BUILTIN.items():
        table.add_row(name, spec.kind, spec.description)
    console.print(table)
    if as_json:
        print_json({"jobs": [{"name": n, "kind": s.kind, "description": s.description} for n, s in BUILTIN.items()]})


@app.command()
def check(
    job: JobArg, input_column: InputColumn = "input", output_column: OutputColumn = "output",
    references_column: References = None, kind: KindOption = None, metric: MetricOption = None, where: Where = None,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """What the data looks like: sizes, duplicates, leakage, labels, lengths, new words."""
    from smallfry.check import card, render

    found = card(load_job(job, input_column, output_column, references_column, kind, metric, where, seed))
    console.print(render(found))
    if as_json:
        print_json(found.to_dict())


@app.command()
def assess(
    job: JobArg,
    target: Annotated[float | None, typer.Option(help="Score that makes a model workable (default: 0.95)")] = None,
    rungs: Annotated[str, typer.Option(help="Sizes to climb, smallest first")] = "0.25m,1m,5m",
    budget: Annotated[str, typer.Option(help="Time to spend, about: 90s, 10m, 1h")] = "15m",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds where the verdict hangs on them")] = 3,
    out: Annotated[Path | None, typer.Option(help="Directory to write (default: runs/JOB)")] = None,
    input_column: InputColumn = "input", output_column: OutputColumn = "output",
    references_column: References = None, kind: KindOption = None, metric: MetricOption = None, where: Where = None,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core")] = 0,
    form: Annotated[str | None, typer.Option(help="text, units or inline, instead of piloting")] = None,
    vocab: Annotated[int | None, typer.Option(help="Vocabulary size, instead of piloting")] = None,
    baselines: Annotated[str | None, typer.Option(help="Baselines to fit, instead of all that fit the job")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted assessment")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier assessment in --out")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Find the smallest workable model for a job, beside honest baselines."""
    from smallfry.assessment import AssessSettings
    from smallfry.assessment import assess as run_assessment
    from smallfry.progress import LiveWatcher, duration
    from smallfry.record import summary
    from smallfry.report import render_terminal
    from smallfry.report.words import use_commands

    if form is not None and form not in ("text", "units", "inline"):
        raise SmallfryError(f"--form {form}: expected text, units or inline")
    loaded = load_job(job, input_column, output_column, references_column, kind, metric, where, seed)
    for note in loaded.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    settings = AssessSettings(
        target=target, rungs=tuple(r.strip() for r in rungs.split(",") if r.strip()), budget=parse_duration(budget),
        seeds=seeds, seed=seed, out=out or Path("runs") / loaded.name, force=force, resume=resume, workers=workers,
        form=cast(Any, form), vocab=vocab, command=shlex.join(["smallfry", *sys.argv[1:]]),
        baselines=tuple(baselines.split(",")) if baselines else None,
    )  # fmt: skip
    with LiveWatcher(console, settings.budget) as watcher:
        record = run_assessment(loaded, settings, watcher)
    console.print(render_terminal(record))
    console.print(
        f"\nreport  {settings.out / 'report.html'}   ({duration(record.seconds)})", highlight=False, soft_wrap=True
    )
    for _, command in use_commands(record)[:1]:
        console.print(f"try it  {command}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json(summary(record))


@app.command(name="eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model directory: smallfry's or Hugging Face's")],
    other: Annotated[Path | None, typer.Argument(help="A second one, to compare on the same items")] = None,
    suite: Annotated[
        str, typer.Option(help="core, chatcore, blimp, lambada, humaneval, bpb, stories, conversation, or a job")
    ] = "blimp",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions a task at most")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the suites' data; else $SMALLFRY_DATA")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Take what the folder lacks from the Hugging Face hub")] = False,
    text: Annotated[Path | None, typer.Option(help="For bpb and stories: a text, or .jsonl with a column text")] = None,
    controls: Annotated[bool, typer.Option(help="Measure the candidates that know nothing too")] = True,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: about twice as fast where the CPU has it")] = "fp32",
    samples: Annotated[int, typer.Option(min=0, help="For humaneval: completions drawn for pass@k")] = 0,
    pass_at: Annotated[str, typer.Option(help="For humaneval: the k of pass@k")] = "1,10",
    judge: Annotated[str | None, typer.Option(help="For stories: an OpenAI-compatible address that grades")] = None,
    judge_model: Annotated[str, typer.Option(help="The judge's model; a key goes into $SMALLFRY_JUDGE_KEY")] = "",
    trained_on: Annotated[
        Path | None, typer.Option(help="Training text to look for the items in: a file or a folder")
    ] = None,
    ngram: Annotated[
        Path | None, typer.Option(help="Training text of an n-gram model that is asked too, as a control")
    ] = None,
    unsafe_code: Annotated[bool, typer.Option("--unsafe-code", help="Run model-written code unprotected")] = False,
    input_column: InputColumn = "input", output_column: OutputColumn = "output",
    references_column: References = None, kind: KindOption = None, metric: MetricOption = None, where: Where = None,
    seed: Seed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Benchmark suites with the field's own items and scoring, or a job, with intervals and controls."""
    from smallfry.evals.suites.command import SUITES, EvalSettings, run_job, run_suite
    from smallfry.evals.suites.judge import Judge

    models = tuple(resolve(m) for m in (model, other) if m is not None)
    if precision not in ("fp32", "bf16"):
        raise SmallfryError(f"--precision {precision}: expected fp32 or bf16")
    if suite in SUITES:
        settings = EvalSettings(
            suite, models, data_dir, hub, limit, text, controls, unsafe_code, cast(Any, precision), samples,
            _ints(pass_at, "--pass-at"), Judge(judge, judge_model) if judge else None, trained_on, ngram,
        )  # fmt: skip
        found = run_suite(settings, console)
    else:
        from smallfry.builtin import BUILTIN

        for given, name in (
            (judge, "--judge"), (samples, "--samples"), (trained_on, "--trained-on"), (text, "--text"),
            (ngram, "--ngram"),
        ):  # fmt: skip
            if given:
                raise SmallfryError(f"{name}: a job has no use for it; it belongs to the suites {', '.join(SUITES)}")

        if suite not in BUILTIN and not suite.startswith("hf:") and not Path(suite).exists():
            raise SmallfryError(
                f"--suite {suite}: no such suite, file or built-in job; suites: {', '.join(SUITES)}; "
                f"built-in jobs: {', '.join(BUILTIN)}"
            )
        job = load_job(suite, input_column, output_column, references_column, kind, metric, where, seed)
        found = run_job(job, models, limit, controls, console)
    if as_json:
        print_json(found)


def _ints(text: str, option: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise SmallfryError(f"{option} {text}: expected whole numbers from 1, such as 1,10")
    return found


app.command()(cli_train.pretrain)
app.command()(cli_tune.tune)
app.command()(cli_models.run)
app.command()(cli_chat.chat)
app.command()(cli_models.serve)
app.command()(cli_models.export)
app.command(name="import")(cli_models.import_)
app.command()(cli_models.quantize)
app.command()(cli_claims.claims)
app.add_typer(cli_bench.bench, name="bench")


if __name__ == "__main__":
    main()
