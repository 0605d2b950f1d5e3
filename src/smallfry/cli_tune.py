"""The command that tunes a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from smallfry.cli_common import Json, console, print_json
from smallfry.cli_train import parse_tokens
from smallfry.cli_view import TrainingView, plain_table
from smallfry.errors import SmallfryError

if TYPE_CHECKING:
    from smallfry.train import Progress
    from smallfry.tuning.record import Tuned
    from smallfry.tuning.reinforced import Reinforced


def tune(
    model: Annotated[str, typer.Argument(
        help="A model directory, shipped:NAME, or a size such as 1m for fresh weights (left out with --resume)"
    )] = "",
    data: Annotated[list[str] | None, typer.Argument(
        metavar="DATA...", help="Chat data (.jsonl, .parquet, hf:owner/name or a built-in set; A.jsonl:3 chat:1 mixes "
        "by weight), or one job (a file with input and output, or a built-in name)",
    )] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write (default: runs/MODEL-DATA)")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens to train on, such as 5m")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data (default: 3; a job has its own)")] = None,
    lr_scale: Annotated[float | None, typer.Option(
        help="Factor on the learning rates of pretraining (default: by measurement)"
    )] = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens a row (default: what the model was made for)")] = None,
    mix: Annotated[str | None, typer.Option(
        metavar="CORPUS:SHARE", help="Pretraining text to go on with, against forgetting: made/corpus:0.2"
    )] = None,
    form: Annotated[str | None, typer.Option(help="Of a job: text, units or inline")] = None,
    vocab: Annotated[int | None, typer.Option(help="Vocabulary of a job on fresh weights")] = None,
    input_column: Annotated[str | None, typer.Option(help="Of a job: what the model is given")] = None,
    output_column: Annotated[str | None, typer.Option(help="Of a job: what it must answer")] = None,
    teacher: Annotated[list[str] | None, typer.Option(
        help="A model to learn from, again for several: a directory, hf:owner/name, or http(s)://.../v1"
    )] = None,
    teacher_model: Annotated[str | None, typer.Option(
        help="The model's name at that address; a key goes into $SMALLFRY_TEACHER_KEY"
    )] = None,
    teacher_share: Annotated[float | None, typer.Option(help="Of the loss, the teacher's (default: 0.5)")] = None,
    temperature: Annotated[float | None, typer.Option(
        help="Softens a teacher's distributions (default: 2); with --rl, of the answers drawn (default: 1)"
    )] = None,
    unlabelled: Annotated[str | None, typer.Option(help="A file of inputs or questions for the teacher")] = None,
    write: Annotated[int | None, typer.Option(min=1, help="Examples of the job that the teacher makes up")] = None,
    max_new: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer of a teacher's or drawn")] = None,
    rl: Annotated[bool, typer.Option("--rl", help="Reinforce on problems with one right number each")] = False,
    steps: Annotated[int | None, typer.Option(help="--rl: steps (default: 100)")] = None,
    questions: Annotated[int | None, typer.Option(help="--rl: questions a step (default: 16)")] = None,
    samples: Annotated[int | None, typer.Option(help="--rl: answers drawn to each (default: 16)")] = None,
    levels: Annotated[str | None, typer.Option(help="--rl: of the built-in problems, such as 1,2,3")] = None,
    kl: Annotated[float | None, typer.Option(help="--rl: weight of the distance from MODEL (default: 0)")] = None,
    every: Annotated[int | None, typer.Option(help="--rl: steps between two measurements (default: 20)")] = None,
    tries: Annotated[int | None, typer.Option(help="--rl: the k of pass@k (default: 8)")] = None,
    gsm8k: Annotated[str | None, typer.Option(help="--rl: a file of GSM8K's test problems, measured too")] = None,
    limit: Annotated[int | None, typer.Option(
        help="Conversations of each source, rows of each split of a job; with --rl test problems (default: 200)"
    )] = None,
    seed: Annotated[int | None, typer.Option(help="Of order and of what is held out (default: 0)")] = None,
    processes: Annotated[int, typer.Option(
        min=0, help="Processes that train one model, on cores of their own; 0 is one a core"
    )] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in --out")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Teach a model to converse, or a job; from a teacher with --teacher, by reward with --rl."""
    both = {"lr_scale": lr_scale, "temperature": temperature, "max_new": max_new, "limit": limit, "seed": seed}
    supervised: dict[str, Any] = {
        "tokens": None if tokens is None else parse_tokens(tokens), "epochs": epochs, "seq_len": seq_len, "mix": mix,
        "form": form, "vocab": vocab, "input_column": input_column, "output_column": output_column,
        "teacher": tuple(teacher) if teacher else None, "teacher_model": teacher_model, "teacher_share": teacher_share,
        "unlabelled": unlabelled, "write": write,
    }  # fmt: skip
    rewarded: dict[str, Any] = {
        "steps": steps, "questions": questions, "samples": samples, "levels": _levels(levels), "kl": kl,
        "every": every, "tries": tries, "gsm8k": gsm8k,
    }  # fmt: skip
    for name, value in (supervised if rl else rewarded).items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise SmallfryError(f"{option}: {'has no use with --rl' if rl else 'belongs to --rl'}; leave it out")
    given = {name: v for name, v in (both | (rewarded if rl else supervised)).items() if v is not None}
    _run(rl, model, data or [], processes, {"out": out, "resume": resume, "force": force}, given, as_json)


def _run(
    rl: bool, model: str, data: Sequence[str], processes: int, where: dict[str, Any], given: dict[str, Any],
    as_json: bool,
) -> None:  # fmt: skip
    import torch

    from smallfry.machine import own_cores, threads_used
    from smallfry.training.parallel import launch, start
    from smallfry.tuning import Tuned, reinforce
    from smallfry.tuning import tune as run_tuning

    if rl and where["out"] is None:
        raise SmallfryError("--rl: where to? name the directory to write: --out DIR")
    wanted = processes or own_cores()
    if wanted > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(launch(wanted, sys.argv[1:]))
    world = start()
    world.quiet()
    threads = own_cores() if world.size == 1 else torch.get_num_threads()
    with TuningView(console) as view, threads_used(threads):
        where |= {"watcher": view, "world": world}
        done = reinforce(model, data, **where, **given) if rl else run_tuning(model, *data, **where, **given)
    world.close()
    if not world.main:
        return
    if isinstance(done, Tuned):
        show(done)
    else:
        show_reinforced(done)
    if as_json:
        print_json(done.to_dict())


def _levels(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SmallfryError(f"--levels {text}: expected numbers such as 1,2,3") from None


def show_reinforced(done: Reinforced) -> None:
    """What the model solved before and after."""
    from smallfry.progress import duration

    console.print(
        f"\ndrew {done.answers:,} answers ({done.answers_per_second:,.0f} a second) in {done.steps:,} steps, "
        f"{duration(done.seconds)}", highlight=False,
    )  # fmt: skip
    table = Table("", "before", "after", "change (95% interval)", box=None, padding=(0, 2, 0, 0))
    for row in done.rows():
        table.add_row(*map(escape, row))
    console.print(table)
    _end(done.out, done.params, done.notes, done.to_dict()["commands"])


def show(done: Tuned) -> None:
    """The result, and what can be done with it."""
    from smallfry.progress import duration
    from smallfry.tuning.record import use

    speed = done.tokens / max(done.seconds, 1e-9)
    console.print(
        f"\ntrained {done.tokens:,} tokens in {duration(done.seconds)} ({speed:,.0f} tokens/s)", highlight=False
    )
    what = "held-out answers" if done.job is None else "validation rows"
    for when, found in (("before", done.before), ("after", done.after)):
        if found is not None:
            interval = f" (95% interval {found.ci[0]:.3f} to {found.ci[1]:.3f})" if found.ci else ""
            console.print(Text(
                f"{what} {when}: {found.loss:.3f} nats a token{interval}, perplexity {found.perplexity:,.2f}",
                style="bold" if when == "after" else "",
            ))  # fmt: skip
    if done.after is not None:
        fell = ""
        if done.before is not None and done.better is not None:
            low, high = done.better
            fell = f"; fell by {done.before.loss - done.after.loss:.3f} (95% interval {low:.3f} to {high:.3f})"
        console.print(f"  on {done.after.n:,} of them, {done.after.tokens:,} tokens{fell}", highlight=False)
    if done.job is not None:
        job = done.job
        console.print(Text(
            f"{job['name']}: {job['metric'].replace('_', ' ')} {job['score']:.3f} (95% interval {job['ci'][0]:.3f} to "
            f"{job['ci'][1]:.3f}) on {job['n']:,} test rows", style="bold",
        ))  # fmt: skip
    _end(done.out, done.params, done.notes, use(done))


def _end(out: str, params: int, notes: Sequence[str], commands: Sequence[str]) -> None:
    """What went wrong and was mended, where the model is, and what can be done with it."""
    for note in notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    console.print(f"model   {out}   ({params:,} parameters)", markup=False, highlight=False, soft_wrap=True)
    for command in commands:
        console.print(f"try it  {command}", markup=False, highlight=False, soft_wrap=True)


class TuningView(TrainingView):
    """Draws a tuning."""

    def read(self, lines: Sequence[tuple[str, str]]) -> None:
        """What the data is."""
        self._hide()
        table = plain_table("Data")
        for name, text in lines:
            table.add_row(escape(name), escape(text))
        self.console.print(table)

    def measured(self, progress: Progress, found: str) -> None:
        """What was measured on the way."""
        self._told(progress, found)
