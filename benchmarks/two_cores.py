"""Two cores against one: two threads of a process, or two processes that share every batch?

    python benchmarks/two_cores.py [--cores 0,1] [--rounds 5] [--write]

Every figure is one run of `smallfry bench train --json` on the cores named, in interleaved rounds; medians count.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from smallfry.machine import machine, versions

RESULTS = Path(__file__).parent.parent / "docs" / "results"
# size, vocabulary, tokens a step, tokens a row, tokens computed at once, seconds
SHAPES = (
    ("0.25m", 1024, 4096, 256, 2048, 2), ("1m", 2048, 4096, 256, 2048, 3), ("6m", 4096, 8192, 256, 2048, 5),
    ("42m", 8192, 8192, 512, 2048, 8),
)  # fmt: skip
WAYS = {"one core": (1, 1, 1), "two threads": (2, 2, 1), "two processes": (2, 1, 2)}  # cores, threads, processes


def measure(shape: tuple[str, int, int, int, int, int], way: str, cores: list[int]) -> dict[str, Any]:
    """One run's row of `smallfry bench train`."""
    size, vocab, tokens, seq_len, micro, seconds = shape
    count, threads, processes = WAYS[way]
    options = [
        "bench", "train", "--sizes", size, "--vocab", str(vocab), "--tokens", str(tokens), "--seq-len", str(seq_len),
        "--micro-tokens", str(micro), "--seconds", str(seconds), "--threads", str(threads), "--json",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "smallfry", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores[-count:]),
    )  # fmt: skip
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["rows"][0]
    return row


def page(record: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = [
        "# Two cores against one", "", f"`{record['command']}`", "",
        "Tokens a second of whole training steps, medians of interleaved rounds; in brackets the ratio to one core.",
        "",
        "| size | parameters | tokens a step | one core | two threads | two processes | rounds |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in record["rows"]:
        speeds = row["tokens_per_second"]
        cells = [f"{speeds['one core']:,.0f}"]
        cells += [f"{speeds[w]:,.0f} ({speeds[w] / speeds['one core']:.2f})" for w in ("two threads", "two processes")]
        lines.append(
            f"| {row['size']} | {row['params']:,} | {row['tokens']:,} | {' | '.join(cells)} | {row['rounds']} |"
        )
    cpu = record["machine"]["cpu"]
    lines += ["", f"{cpu}, kernels: {record['kernels']}, torch {record['versions'].get('torch')}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default=",".join(s[0] for s in SHAPES))
    parser.add_argument("--write", action="store_true", help="write docs/results/two_cores.*")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cores = [int(core) for core in options.cores.split(",")]
    rows, kernels = [], ""
    for shape in (s for s in SHAPES if s[0] in options.sizes.split(",")):
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in WAYS:
                found[way].append(measure(shape, way, cores))
                speed = found[way][-1]["tokens_per_second"]
                print(f"{shape[0]} round {number + 1}: {way} {speed:,.0f} tokens/s", flush=True)
        kernels = found["one core"][0]["kernels"]
        rows.append({
            "size": shape[0], "params": found["one core"][0]["params"], "tokens": shape[2], "seq_len": shape[3],
            "micro_tokens": shape[4], "rounds": options.rounds,
            "tokens_per_second": {w: statistics.median(r["tokens_per_second"] for r in f) for w, f in found.items()},
            "each": {w: [r["tokens_per_second"] for r in f] for w, f in found.items()},
        })  # fmt: skip
    record = {
        "command": f"python benchmarks/two_cores.py --rounds {options.rounds} --sizes {options.sizes}", "rows": rows,
        "kernels": kernels, "machine": machine(), "versions": versions(),
    }  # fmt: skip
    print(page(record))
    if options.write:
        (RESULTS / "two_cores.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "two_cores.md").write_text(page(record), encoding="utf-8")
    if options.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
