"""What reinforcement adds to a supervised model: pass@1 and pass@8 before and after, by learning rate and seed.

    python benchmarks/rl.py --out DIR [--model DIR] [--size 0.25m] [--levels 1,2,3] [--supervised 300] [--steps 100]
                            [--lr-scales 0.01,0.02] [--seeds 1] [--limit 200] [--gsm8k FILE] [--json]

A model is taught worked solutions of the built-in problems for some steps (fresh weights of a size, or a model
directory that was pretrained), so that it solves a part of the test problems, whose numbers and half of whose names
training lacks. Then it is reinforced, once for each learning rate and seed. Finished runs in DIR are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smallfry.checkpoint import save_model
from smallfry.data import Batch
from smallfry.machine import compute_dtype, keep_freed_memory, limit_threads, machine, versions
from smallfry.model import Transformer
from smallfry.recipes import GENERATE
from smallfry.tokenizer import Tokenizer
from smallfry.train import Recipe, train
from smallfry.tuning.chatdata import ChatData
from smallfry.tuning.problems import conversations
from smallfry.tuning.reinforce import reinforce
from smallfry.tuning.start import Start, fresh_model, open_model

VOCAB, PROBLEMS, SEQ_LEN, BATCH_TOKENS = 512, 4000, 512, 4096
TUNING_SCALE = 0.3  # of pretraining's rates, for a model that was pretrained


class FirstSteps:
    """So many batches of some data, as one epoch."""

    def __init__(self, data: ChatData, steps: int) -> None:
        self.data, self.steps = data, steps

    def epoch(self, epoch: int) -> Sequence[Batch]:
        found: list[Batch] = []
        turn = 0
        while len(found) < self.steps:
            found += self.data.epoch(turn)
            turn += 1
        return found[: self.steps]


def supervise(out: Path, model: str | None, size: str, levels: Sequence[int], steps: int) -> Path:
    """A model that has seen worked solutions for some steps."""
    if (out / "smallfry.json").exists():
        return out
    talks = conversations("train", 0, PROBLEMS, levels)
    if model is None:
        tokenizer = Tokenizer.train([" " + turn.content for talk in talks for turn in talk], VOCAB)
        start: Start = fresh_model(size, tokenizer, 0)
    else:
        start = open_model(model)
    network: Transformer = start.model.to(compute_dtype(torch.device("cpu")))
    scale = (network.shape.params / 1e6) ** -0.25
    share = 1.0 if model is None else TUNING_SCALE
    recipe = Recipe(
        epochs=1.0, batch_tokens=BATCH_TOKENS, lr=GENERATE.lr * scale * share,
        muon_lr=GENERATE.muon_lr * scale**0.5 * share, weight_decay=0.1, dropout=0.0, ema=0.1,
    )  # fmt: skip
    data = ChatData(talks, start.tokenizer, SEQ_LEN, BATCH_TOKENS, 0)
    done = train(network, FirstSteps(data, steps), recipe, save_seconds=1e9)
    print(f"supervised: {done.steps} steps, {done.tokens:,} tokens, {done.seconds:.0f} s")
    card = {"name": out.name, "form": None, "chat": True, "tuned_from": start.tuned_from, "lineage": start.lineage()}
    save_model(out, done.model, start.tokenizer, card, max_positions=SEQ_LEN)
    return out


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [name.ljust(24)]
    for key in ("greedy", "drawn", "any"):
        cells += [f"{100 * found['before'][key]:5.1f}  {100 * found['after'][key]:5.1f}"]
    p = [found[key]["p_value"] for key in ("greedy", "drawn")]
    return " | ".join([*cells, f"{p[0]:.2g}, {p[1]:.2g}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--size", default="0.25m")
    parser.add_argument("--levels", default="1,2,3")
    parser.add_argument("--supervised", type=int, default=300)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr-scales", default="0.01,0.02")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--max-new", type=int, default=96)
    parser.add_argument("--gsm8k")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    limit_threads()
    keep_freed_memory()
    levels = tuple(map(int, args.levels.split(",")))
    start = supervise(args.out / "supervised", args.model, args.size, levels, args.supervised)
    print(
        f"{'run':24} | likeliest    | pass@1       | pass@8       | p of likeliest, of pass@1   (%, before and after)"
    )
    rows = []
    for scale in map(float, args.lr_scales.split(",")):
        for seed in range(args.seeds):
            out = args.out / f"lr-{scale:g}-steps-{args.steps}-seed-{seed}"
            done = reinforce(
                start, ["arithmetic"], out, resume=True, steps=args.steps, lr_scale=scale, seed=seed, levels=levels,
                limit=args.limit, max_new=args.max_new, gsm8k=args.gsm8k,
            ).to_dict()  # fmt: skip
            for name, found in done["tests"].items():
                print(row(f"{name} {scale:g} seed {seed}", found), flush=True)
            print(f"{'':24} | {done['answers_per_second']:,.0f} answers/s drawn, {done['seconds']:.0f} s in all")
            kept = {k: done[k] for k in ("steps", "answers", "seconds", "answers_per_second", "curve", "notes")}
            tests = {
                name: {k: {n: v for n, v in each.items() if n not in ("right", "shares")} for k, each in found.items()}
                for name, found in done["tests"].items()
            }
            rows.append({"lr_scale": scale, "seed": seed, "params": done["params"], **kept, "tests": tests})
    if args.json:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("json", "out")}
        print(json.dumps({"settings": settings, "machine": machine(), "versions": versions(), "rows": rows}))


if __name__ == "__main__":
    main()
