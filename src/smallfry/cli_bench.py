"""``smallfry bench``: this machine against its own limit."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from smallfry.cli_common import Json, console, print_json
from smallfry.errors import SmallfryError

bench = typer.Typer(help="This machine against its own limit.", no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    """This machine against its own limit."""  # with a callback `train` stays a command even while it is the only one


@bench.command()
def train(
    sizes: Annotated[str, typer.Option(help="Sizes to train, each for a while")] = "1m,5m",
    vocab: Annotated[int, typer.Option(help="Vocabulary size")] = 2048,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a step")] = 4096,
    micro_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens computed at once (default: a step's)")] = None,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens a row")] = 256,
    threads: Annotated[int, typer.Option(min=1, help="Threads")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each size is trained, about")] = 5.0,
    as_json: Json = False,
) -> None:
    """Tokens a second, model FLOP/s, their share of the machine's matrix products, memory, and what limits it."""
    from smallfry.bench import check_step, measure_peaks, measure_training
    from smallfry.sizes import shape_for
    from smallfry.training.parallel import start

    names = [name.strip() for name in sizes.split(",") if name.strip()]
    if not names:
        raise SmallfryError(f"--sizes {sizes}: expected rungs such as 1m,5m")
    shapes = [(name, shape_for(name, vocab)) for name in names]
    check_step(tokens, seq_len, micro_tokens)
    world = start()
    world.quiet()
    peaks = measure_peaks()
    world.barrier()
    bf16 = "no native bf16" if peaks.bf16 is None else f"{peaks.bf16 / 1e9:,.0f} GFLOP/s in bf16"
    console.print(f"one core multiplies matrices at {bf16}, {peaks.fp32 / 1e9:,.0f} GFLOP/s in fp32", highlight=False)
    rows = [
        measure_training(
            name,
            shape,
            tokens,
            seq_len,
            threads=threads,
            micro_tokens=micro_tokens,
            seconds=seconds,
            peaks=peaks,
            world=world,
        )
        for name, shape in shapes
    ]
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    columns = ("size", "params", "tokens/s", "GFLOP/s", "of bf16", "of fp32", "memory", "where the time goes")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in (0, len(columns) - 1) else "right")
    for row in rows:
        share = "-" if row.bf16_share is None else f"{row.bf16_share:.0%}"
        table.add_row(
            row.name, f"{row.params:,}", f"{row.tokens_per_second:,.0f}", f"{row.flops_per_second / 1e9:,.0f}", share,
            f"{row.fp32_share:.0%}", f"{row.memory_bytes / 2**20:,.0f} MB", row.limit,
        )  # fmt: skip
    world.close()
    console.print(table)
    first = rows[0]
    console.print(
        f"{_workers(world.size, first.threads)}, {first.precision}, kernels: {first.kernels}; "
        f"{first.tokens:,} tokens a step in rows of {seq_len}; FLOPs: 6 a weight and token, attention's beside",
        style="dim", highlight=False,
    )  # fmt: skip
    if as_json:
        print_json({"peaks": {"bf16": peaks.bf16, "fp32": peaks.fp32}, "rows": [row.to_dict() for row in rows]})


def _workers(processes: int, threads: int) -> str:
    one = "1 thread" if threads == processes else f"{threads // processes} threads"
    return one if processes == 1 else f"{processes} processes of {one}"
