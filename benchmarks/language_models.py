"""Train the small language models that docs/results/controls.md measures: on stories and on general English.

    python benchmarks/language_models.py --data DIR --corpus stories --size 1m --out runs/stories-1m

DIR is a folder with ``stories/`` and ``text/`` (JSON lines with a column text). Documents are laid end to end, each
after a beginning-of-sequence token, and cut into rows of ``--seq-len`` tokens; validation and test rows are left out.
An interrupted run goes on where it was with the same command.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from smallfry.checkpoint import save_model
from smallfry.data import Batch, Noise
from smallfry.machine import compute_dtype, limit_threads
from smallfry.model import Transformer
from smallfry.recipes import GENERATE
from smallfry.sizes import shape_for
from smallfry.tokenizer import BOS, PAD, Tokenizer
from smallfry.train import Progress, train

CORPORA = {
    "stories": ("stories/tinystories_train.jsonl.gz",),
    "text": (
        "text/c4_wiki_demo.jsonl.gz", "text/classic_books.jsonl.gz", "text/openwebtext_1000.jsonl.gz",
        "text/us_presidents.jsonl.gz", "text/wikitext2_raw.jsonl.gz", "stories/classic_children_books.jsonl.gz",
    ),
}  # fmt: skip


def documents(folder: Path, corpus: str) -> list[str]:
    """The training texts of a corpus."""
    found = []
    for name in CORPORA[corpus]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found += [row["text"] for row in rows if row.get("split", "train") == "train"]
    return found


@dataclass
class Packed:
    """One long sequence of tokens, cut into rows that start elsewhere in every epoch."""

    ids: np.ndarray
    seq_len: int
    rows: int
    seed: int

    def epoch(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.seed, epoch])
        shift = int(rng.integers(self.seq_len))
        ids = np.roll(self.ids, -shift)
        count = (len(ids) - 1) // self.seq_len
        order = rng.permutation(count)
        batches = []
        for at in range(0, count, self.rows):
            chosen = order[at : at + self.rows]
            places = chosen[:, None] * self.seq_len + np.arange(self.seq_len + 1)
            rows = ids[places].astype(np.int64)  # (B, T + 1)
            batches.append(Batch(rows[:, :-1], rows[:, 1:], (rows[:, 1:] != PAD).astype(np.float32), chosen))
        return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpus", choices=sorted(CORPORA), required=True)
    parser.add_argument("--size", default="1m")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    limit_threads()
    texts = documents(args.data, args.corpus)
    tokenizer = Tokenizer.train(texts, args.vocab)
    ids = np.array([t for text in texts for t in (BOS, *tokenizer.encode(text))], dtype=np.int32)
    shape = shape_for(args.size, tokenizer.vocab_size)
    scale = (shape.params / 1e6) ** -0.25
    recipe = replace(
        GENERATE, epochs=args.epochs, batch_tokens=args.rows * args.seq_len, lr=GENERATE.lr * scale,
        muon_lr=GENERATE.muon_lr * scale**0.5, noise=Noise(), seed=args.seed,
    )  # fmt: skip
    model = Transformer(shape)
    model.init_weights(torch.Generator().manual_seed(args.seed))
    model = model.to(compute_dtype(torch.device("cpu")))
    print(f"{args.corpus}: {len(texts):,} documents, {len(ids):,} tokens; {shape}", flush=True)
    said = time.perf_counter()

    def watch(p: Progress) -> None:
        nonlocal said
        if time.perf_counter() - said > 30:
            said = time.perf_counter()
            print(f"{p.done:.3f} loss {p.loss:.4f} {p.tokens_per_second:,.0f} tokens/s {p.seconds:.0f} s", flush=True)

    data = Packed(ids, args.seq_len, args.rows, args.seed)
    found = train(model, data, recipe, run_dir=args.out / "state", resume=True, watch=watch)
    if not found.finished:
        print("stopped and saved; the same command goes on")
        return
    corpus = {"name": args.corpus, "files": list(CORPORA[args.corpus]), "documents": len(texts), "tokens": len(ids)}
    card = {"corpus": corpus, "recipe": recipe.to_dict(), "seconds": found.seconds, "tokens": found.tokens}
    save_model(args.out, model, tokenizer, card)
    print(f"{args.out}: {found.tokens:,} tokens in {found.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
