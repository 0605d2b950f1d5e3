"""The commands that train on raw text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from smallfry.cli_common import Json, console, print_json
from smallfry.cli_view import TrainingView, plain_table
from smallfry.errors import SmallfryError

if TYPE_CHECKING:
    from smallfry.corpus.build import Progress as CorpusProgress
    from smallfry.pretraining.record import Pretrained
    from smallfry.train import Progress


def pretrain(
    corpora: Annotated[list[str] | None, typer.Argument(
        metavar="CORPUS...", help="Text, .jsonl, .parquet, a folder, hf:owner/name or a corpus made before; "
        "A.txt:3 B.jsonl:1 mixes by weight",
    )] = None,
    size: Annotated[str | None, typer.Option(help="A rung of the ladder or a size such as 750k (default: 1m)")] = None,
    vocab: Annotated[int | None, typer.Option(help="Vocabulary size (default: by the size)")] = None,
    tokens: Annotated[str | None, typer.Option(
        help="Tokens to train on, such as 20m (default: 20 a parameter, at most 4 passes)"
    )] = None,
    minutes: Annotated[float | None, typer.Option(help="Train for about so long at most")] = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens a row (default: 256)")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write (default: runs/CORPUS-SIZE)")] = None,
    valid: Annotated[float | None, typer.Option(
        help="Share of the documents held out (default: 0.01, more of a small corpus)"
    )] = None,
    column: Annotated[str | None, typer.Option(help="Column of the text in .jsonl, .parquet and hub rows")] = None,
    separator: Annotated[str | None, typer.Option(
        help="Between documents of text files: auto (<|endoftext|>, or two blank lines and more), blank (any blank "
        "lines), file (each is one), or a text"
    )] = None,
    skip: Annotated[str | None, typer.Option(
        help="Cleaning steps to leave out: short, letters, broken, repeated-lines, repetitive, contaminated, "
        "duplicates, near-duplicates, or all"
    )] = None,
    data_dir: Annotated[Path | None, typer.Option(
        help="Folder of the suites' data: documents that hold their items are left out"
    )] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json to use instead of training one")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and order (default: 0)")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that tokenise; 0 is one a core")] = 0,
    processes: Annotated[int | None, typer.Option(
        min=0, help="Processes that train one model, on cores of their own; 0 is one a core (default: by the run)"
    )] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run in --out")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train a language model on raw text: clean, hold out, tokenise, train, measure."""
    import torch

    from smallfry.machine import own_cores, threads_used
    from smallfry.pretraining import pretrain as run_pretraining
    from smallfry.training.parallel import launch, start

    settings: dict[str, Any] = {
        "size": size, "vocab": vocab, "tokens": None if tokens is None else parse_tokens(tokens), "minutes": minutes,
        "seq_len": seq_len, "valid": valid, "column": column, "separator": separator, "skip": skip,
        "data_dir": data_dir and str(data_dir), "tokenizer": tokenizer and str(tokenizer), "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    alone = "WORLD_SIZE" not in os.environ
    if alone and processes is None:
        processes, out = _choose_processes(corpora or [], out, resume, force, workers, given)
        resume, force = True, False  # with what is prepared
        if processes > 1:
            again = ["pretrain", "--resume", "--out", str(out), *(["--json"] if as_json else [])]
            raise typer.Exit(launch(processes, again))
    elif alone and (wanted := processes or own_cores()) > 1:
        raise typer.Exit(launch(wanted, sys.argv[1:]))
    world = start()
    world.quiet()
    threads = own_cores() if world.size == 1 else torch.get_num_threads()
    with PretrainingView(console) as view, threads_used(threads):
        done = run_pretraining(
            *(corpora or ()), out=out, resume=resume, force=force, workers=workers, watcher=view, world=world, **given
        )
    world.close()
    if not world.main:
        return
    show(done)
    if as_json:
        print_json(done.to_dict())


def _choose_processes(
    corpora: Sequence[str], out: Path | None, resume: bool, force: bool, workers: int, given: dict[str, Any]
) -> tuple[int, Path]:
    """Prepare a run with all cores, and say how many processes should train it; where it is, too."""
    from smallfry.machine import default_device, matmul_flops, own_cores, threads_used
    from smallfry.pretraining.plan import Plan, processes_for
    from smallfry.pretraining.run import directory_of, prepare_pretraining

    out = out or directory_of(corpora, given.get("size", "1m"))
    with PretrainingView(console, tables=False) as view, threads_used(own_cores()):
        plan = prepare_pretraining(
            *corpora, out=out, resume=resume, force=force, workers=workers, watcher=view, **given
        )  # fmt: skip
        if not isinstance(plan, Plan) or default_device().type != "cpu":
            return 1, out
        chosen, why = processes_for(plan, own_cores(), matmul_flops())
        view.say(f"processes: {chosen}; {why}")
    return chosen, out


def parse_tokens(text: str) -> int:
    """``20m`` -> 20,000,000; also ``200k``, ``1.5b`` and plain numbers.

    Raises:
        SmallfryError: It is none of these.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([kmb]?)", text.strip().lower().replace(",", ""), re.ASCII)
    number = round(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[found[2]]) if found else 0
    if number < 1:
        raise SmallfryError(f"--tokens {text}: expected a number of tokens such as 200k, 20m or 1.5b")
    return number


def show(done: Pretrained) -> None:
    """The result, and what can be done with it."""
    from smallfry.corpus.split import counted
    from smallfry.progress import duration

    speed = done.tokens / max(done.seconds, 1e-9)
    console.print(
        f"\ntrained {done.tokens:,} tokens in {duration(done.seconds)} ({speed:,.0f} tokens/s)", highlight=False
    )
    if (held := done.held_out) is not None:
        interval = f" (95% interval {held.ci[0]:.3f} to {held.ci[1]:.3f})" if held.ci else ""
        console.print(Text(f"held-out text: {held.bits_per_byte:.3f} bits per byte{interval}", style="bold"))
        few = f"{held.documents:,} of " if held.total > held.documents else ""
        console.print(
            f"  on {few}{counted(held.total, held.unit)}, {held.n_bytes:,} bytes\n"
            f"  for comparison: {held.unigram:.3f} by token frequencies alone, 8 by guessing bytes", highlight=False,
        )  # fmt: skip
        for name, bits in held.by_source.items():
            console.print(f"  {name}: {bits:.3f}", markup=False, highlight=False)
    for note in done.notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    console.print(f"model   {done.out}   ({done.params:,} parameters)", markup=False, highlight=False, soft_wrap=True)
    from smallfry.pretraining.record import use

    for command in use(done):
        console.print(f"try it  {command}", markup=False, highlight=False, soft_wrap=True)


class PretrainingView(TrainingView):
    """Draws a pretraining."""

    def made(self, progress: CorpusProgress) -> None:
        """How far the corpus is."""
        state = f"{progress.documents:,} documents, {progress.text_bytes / 1e6:,.1f} MB, {progress.tokens:,} tokens"
        self._draw("corpus", None, state)

    def cleaned(self, lines: Sequence[tuple[str, str]]) -> None:
        """What is in the corpus."""
        self._hide()
        if not self.tables:
            return
        table = plain_table("Corpus")
        for name, text in lines:
            table.add_row(escape(name), escape(text))
        self.console.print(table)

    def measured(self, progress: Progress, bits: float) -> None:
        """Bits per byte on the sample."""
        self._told(progress, f"held-out sample {bits:.3f} bits per byte")
