"""Items a second of `smallfry eval` and of lm-eval on the same model directory; writes docs/results/eval_speed.md.

    python benchmarks/eval_speed.py --data DIR                  1m, 5m and 50m, without examples and with ten
    python benchmarks/eval_speed.py --data DIR --sizes 1m --shots 0 --rounds 1

DIR holds ``core/arc_easy.jsonl.gz`` and ``core/hellaswag.jsonl.gz``; 1,000 items of each are asked (100 each where ten
examples stand before them). Every measurement is a process of its own that loads the model, is timed from the first
prompt to the last score, and prints accuracies; rounds of both programs alternate. lm-eval (``pip install
'smallfry[harness]'``) runs on all cores at its faster of two batch sizes, in fp32 and in bf16. Models have random
weights: the time does not depend on them. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TASKS = {"arc_easy": "\nAnswer: ", "hellaswag": " "}
ITEMS = {0: 1000, 10: 100}
BATCHES = (16, 64)  # rows that lm-eval pads together; ours are 2,048 tokens, which are about as many rows
VOCAB = 4096


def prepare(folder: Path, data: Path, sizes: list[str]) -> None:
    """Model directories and item files."""
    import torch

    from smallfry.checkpoint import save_model
    from smallfry.model import Transformer
    from smallfry.sizes import shape_for
    from smallfry.tokenizer import Tokenizer

    texts = []
    for name in TASKS:
        with gzip.open(data / "core" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        random.Random(1337).shuffle(rows)
        texts += [f"{row['query']} {' '.join(row['choices'])}" for row in rows]
        chosen = [{key: row[key] for key in ("query", "choices", "gold")} for row in rows[: max(ITEMS.values())]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chosen), encoding="utf-8")
    tokenizer = Tokenizer.train(texts, VOCAB)
    for size in sizes:
        model = Transformer(shape_for(size, tokenizer.vocab_size))
        model.init_weights(torch.Generator().manual_seed(0))
        save_model(folder / size, model, tokenizer, {})


def ours(folder: Path, size: str, precision: str, shots: int, batch: int) -> dict[str, Any]:
    """This project's time, in this process."""
    from smallfry.evals.suites.measure import measure_task
    from smallfry.evals.suites.models import load_language_model
    from smallfry.evals.suites.prompts import Task
    from smallfry.machine import keep_freed_memory

    keep_freed_memory()
    model = load_language_model(folder / size, precision)  # type: ignore[arg-type]
    start = time.perf_counter()
    accuracy = {}
    for name, delimiter in TASKS.items():
        rows = tuple(json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        accuracy[name] = measure_task(
            model, Task(name, "multiple_choice", rows, shots, delimiter), ITEMS[shots]
        ).accuracy
    return {"seconds": time.perf_counter() - start, "accuracy": accuracy}


def theirs(folder: Path, size: str, precision: str, shots: int, batch: int) -> dict[str, Any]:
    """lm-eval's time, in this process."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import lm_eval
    from datasets import Dataset
    from lm_eval.models.huggingface import HFLM

    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    model = HFLM(str(folder / size), dtype=dtype, batch_size=batch, device="cpu", add_bos_token=True)
    tasks = []
    for name, delimiter in TASKS.items():
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        data, end = {"test": Dataset.from_list(rows)}, delimiter.rstrip(" ")
        tasks.append({
            "task": name, "custom_dataset": lambda data=data, **_: data, "test_split": "test",
            "output_type": "multiple_choice", "doc_to_text": lambda d, end=end: d["query"] + end,
            "doc_to_choice": lambda d: list(d["choices"]), "doc_to_target": lambda d: int(d["gold"]),
            "target_delimiter": " ", "fewshot_delimiter": "\n\n", "metric_list": [{"metric": "acc"}],
        })  # fmt: skip
    start = time.perf_counter()
    found = lm_eval.simple_evaluate(
        model, tasks=tasks, num_fewshot=shots, limit=ITEMS[shots], bootstrap_iters=0, log_samples=False
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": {name: found["results"][name]["acc,none"] for name in TASKS}}


def run(folder: Path, who: str, size: str, precision: str, shots: int, batch: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", who, str(folder), size, precision, str(shots), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} {size} {precision}: failed\n{done.stderr[-2000:]}")
    return {"who": who, "size": size, "precision": precision, "shots": shots, "batch": batch,
            **json.loads(done.stdout.splitlines()[-1])}  # fmt: skip


def measure(folder: Path, size: str, shots: int, rounds: int, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Both programs, one round after the other; the first round also finds lm-eval's faster batch."""
    best: dict[str, int] = {}
    found = []
    for precision in ("fp32", "bf16"):
        tried = {batch: run(folder, "lm-eval", size, precision, shots, batch) for batch in batches}
        best[precision] = min(batches, key=lambda b: tried[b]["seconds"])
        found.append(tried[best[precision]])
    for number in range(rounds):
        for precision in ("fp32", "bf16"):
            found.append(run(folder, "smallfry", size, precision, shots, 0))
            if number:  # the first round of lm-eval was the search for its batch
                found.append(run(folder, "lm-eval", size, precision, shots, best[precision]))
        print(f"{size}, {shots} examples: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def page(found: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """docs/results/eval_speed.md."""
    lines = [
        "# Items a second: smallfry eval and lm-eval", "",
        "Written by `python benchmarks/eval_speed.py --data DIR`, with `--add` and other `--sizes`, `--shots` and "
        "`--rounds` a row: arc_easy and hellaswag on one model directory of "
        "random weights, 1,000 items of each (100 with ten examples before each), medians of the rounds, every run a "
        "process of its own, both programs on all cores; lm-eval at its faster of batches of 16 and 64 (50m: 16). "
        + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".", "",
        "| size | examples | lm-eval fp32 | lm-eval bf16 | smallfry fp32 | smallfry bf16 | fp32 / fp32 | bf16 / bf16 "
        "| bf16 / lm-eval fp32 | rounds |", "|" + "---|" * 10,
    ]  # fmt: skip
    keys = list(dict.fromkeys((r["size"], r["shots"]) for r in found))
    for size, shots in keys:
        rates = {}
        for who in ("lm-eval", "smallfry"):
            for precision in ("fp32", "bf16"):
                key = (who, size, precision, shots)
                mine = [r["seconds"] for r in found if (r["who"], r["size"], r["precision"], r["shots"]) == key]
                rates[who, precision] = 2 * ITEMS[shots] / statistics.median(mine)
        cells = [f"{rates[k]:,.1f}" for k in rates]
        ratios = [
            rates["smallfry", "fp32"] / rates["lm-eval", "fp32"], rates["smallfry", "bf16"] / rates["lm-eval", "bf16"],
            rates["smallfry", "bf16"] / rates["lm-eval", "fp32"],
        ]  # fmt: skip
        lines.append(
            f"| {size} | {shots} | " + " | ".join([*cells, *(f"{r:.1f}" for r in ratios)]) + f" | {len(mine)} |"
        )
    lines += ["", "Items a second. With ten examples the two programs draw different ones, of the same lengths.", ""]
    return "\n".join(lines)


def main() -> None:
    if "--child" in sys.argv:
        who, folder, size, precision, shots, batch = sys.argv[sys.argv.index("--child") + 1 :]
        call = ours if who == "smallfry" else theirs
        print(json.dumps(call(Path(folder), size, precision, int(shots), int(batch))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", default="1m,5m,50m")
    parser.add_argument("--shots", default="0,10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="batch sizes of lm-eval to try")
    parser.add_argument("--add", action="store_true", help="keep the stored rows of other sizes and examples")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    import lm_eval
    import torch
    import transformers

    versions = {"lm-eval": lm_eval.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    store = RESULTS / "eval_speed.json"
    found: list[dict[str, Any]] = json.loads(store.read_text()) if args.add and store.exists() else []
    sizes, shots = args.sizes.split(","), [int(s) for s in args.shots.split(",")]
    found = [r for r in found if (r["size"] not in sizes) or (r["shots"] not in shots)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, args.data, sizes)
        for size in sizes:
            for count in shots:
                found += measure(folder, size, count, args.rounds, tuple(int(b) for b in args.batches.split(",")))
                store.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                (RESULTS / "eval_speed.md").write_text(page(found, versions), encoding="utf-8")
    print(page(found, versions))
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
