"""Make the golden model: a trained model under 1 MB whose greedy continuations every engine must give token for token.

    python tests/golden/make.py                 train (about 15 minutes of one core), then write the continuations
    python tests/golden/make.py --keep-model    only the continuations, from the model that is there

It learns stories that the built-in job `stories` makes, so nothing of anybody else is in it. Documents are laid end to
end as <|bos|> story <|end|> and cut into rows. Weights are stored in bf16: fp32 holds each of them exactly, so engines
that compute in fp32 start from the same numbers. A stopped training goes on with the same command. Another machine's
training ends in other weights; the continuations belong to the weights beside them, whose SHA-256 they carry.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from smallfry.builtin.stories import consistency, generate
from smallfry.checkpoint import load_weights, save_model
from smallfry.data import Batch, Noise
from smallfry.files import read_json, write_atomic
from smallfry.machine import limit_threads
from smallfry.model import Transformer
from smallfry.recipes import GENERATE
from smallfry.sizes import shape_for
from smallfry.tokenizer import BOS, END, Tokenizer
from smallfry.train import Progress, Recipe, mean_loss, train

HERE = Path(__file__).parent
SIZE, VOCAB, SEED = "0.25m", 512, 1
SEQ_LEN, ROWS = 512, 8
NEW_TOKENS, KEPT, NEAR_TIE = 200, 6, 1e-3
LONG_PROMPT = (
    "Kira was a clever girl who lived near the sea. One morning, she went to the market with her uncle. Under the "
    'table, she saw a shiny ball. "Is this yours?" she asked. The man shook his head. "I do not know whose it is," he '
    "said. So Kira put the ball on a chair and waited. After lunch, a little boy came back. He was looking for "
    'something. "I lost my ball," said the boy, and he was sad. Kira took the ball from the chair and gave it to him. '
    '"Thank you!"'
)
PROMPTS = (
    "",
    "Once upon a time there was a",
    "Tom and his sister wanted to build a boat.",
    LONG_PROMPT,
    'It was 3:45 in the café. "Zoë, where is my kite?" asked Ben.',
    "The dog",
    "Mia lost her red hat in the garden. She looked",
    '"I am sorry," said',
    "One day, Sam found a key under the bridge. He did not know",
    "Lily liked to sing.",
    "The end of the story is that",
    "On a rainy Sunday, the old man",
)


@dataclass(frozen=True, slots=True)
class Rows:
    """One long sequence of tokens, cut into rows that start elsewhere in every epoch."""

    ids: np.ndarray

    def epoch(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([SEED, epoch])
        ids = np.roll(self.ids, -int(rng.integers(SEQ_LEN)))
        order = rng.permutation((len(ids) - 1) // SEQ_LEN)
        return [self._batch(ids, order[at : at + ROWS]) for at in range(0, len(order), ROWS)]

    @staticmethod
    def _batch(ids: np.ndarray, chosen: np.ndarray) -> Batch:
        rows = ids[chosen[:, None] * SEQ_LEN + np.arange(SEQ_LEN + 1)]  # (B, T + 1)
        return Batch(rows[:, :-1], rows[:, 1:], np.ones((len(rows), SEQ_LEN), dtype=np.float32), chosen)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def packed(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """``(tokens,)`` int64: every text between <|bos|> and <|end|>."""
    return np.array([t for text in texts for t in (BOS, *tokenizer.encode(text), END)], dtype=np.int64)


def make_model(out: Path, state: Path, stories: int, epochs: float) -> None:
    train_rows, valid_rows, _ = generate(SEED, stories, 300, 0)
    texts = [row.output for row in train_rows]
    tokenizer = Tokenizer.train(texts, VOCAB)
    shape = shape_for(SIZE, tokenizer.vocab_size)
    recipe = recipe_for(epochs, shape.params)
    model = Transformer(shape)
    model.init_weights(torch.Generator().manual_seed(SEED))
    model = model.to(torch.bfloat16)
    data = Rows(packed(tokenizer, texts))
    say(f"{len(texts):,} stories, {len(data.ids):,} tokens; {shape.params:,} parameters: {shape}")
    said = time.perf_counter()

    def watch(p: Progress) -> None:
        nonlocal said
        if time.perf_counter() - said > 30:
            said = time.perf_counter()
            say(f"{p.done:.3f} loss {p.loss:.4f} {p.tokens_per_second:,.0f} tokens/s {p.seconds:.0f} s")

    found = train(model, data, recipe, run_dir=state, resume=True, watch=watch)
    if not found.finished:
        say("stopped and saved; the same command goes on")
        raise SystemExit(1)
    valid = Rows(packed(tokenizer, [row.output for row in valid_rows])).epoch(0)
    loss = mean_loss(found.model.float(), valid)
    card = {
        "name": "golden",
        "corpus": {"builtin": "stories", "seed": SEED, "documents": len(texts), "tokens": len(data.ids)},
        "recipe": recipe.to_dict(), "tokens": found.tokens, "valid_loss": round(loss, 4),
    }  # fmt: skip
    save_model(out, model.to(torch.bfloat16), tokenizer, card)
    shutil.rmtree(state)
    say(f"{out}: {found.tokens:,} tokens in {found.seconds:.0f} s; validation loss {loss:.4f} nats a token")


def recipe_for(epochs: float, params: int) -> Recipe:
    scale = (params / 1e6) ** -0.25
    return replace(
        GENERATE, epochs=epochs, batch_tokens=ROWS * SEQ_LEN, lr=GENERATE.lr * scale,
        muon_lr=GENERATE.muon_lr * scale**0.5, noise=Noise(), seed=SEED,
    )  # fmt: skip


@torch.inference_mode()
def continuation(model: Transformer, prompt: list[int]) -> tuple[list[int], float]:
    """The most likely token, `NEW_TOKENS` times over, each computed from the whole text so far; no cache to be wrong.

    Returns:
        The tokens, and the smallest margin between the best and the second-best logit.
    """
    ids, margin = list(prompt), math.inf
    for _ in range(NEW_TOKENS):
        logits = model.logits(model(torch.tensor([ids]))[0, -1])
        (best, second), tokens = logits.topk(2)
        margin = min(margin, float(best - second))
        ids.append(int(tokens[0]))
    return ids[len(prompt) :], margin


def make_continuations(path: Path, out: Path) -> None:
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    model = load_weights(path, torch.float32).eval()
    kept, left_out = [], 0
    for prompt in PROMPTS:
        ids = [BOS, *tokenizer.encode(prompt)]
        tokens, margin = continuation(model, ids)
        text = tokenizer.decode(tokens)
        say(f"--- margin {margin:.5f}, {consistency(prompt + text)}\n{prompt} |{tokenizer.hf.decode(tokens, False)}")
        if margin < NEAR_TIE:
            left_out += 1
        elif len(kept) < KEPT:
            kept.append(
                {"prompt": prompt, "prompt_ids": ids, "ids": tokens, "text": text, "smallest_margin": round(margin, 6)}
            )
    chosen = (
        f"The first {KEPT} of the {len(PROMPTS)} prompts in make.py, in their order, whose smallest margin between the "
        f"best and the second-best logit is at least {NEAR_TIE:g}; {left_out} of the {len(PROMPTS)} are below that."
    )
    about = (
        f"Greedy continuations of {NEW_TOKENS} tokens by smallfry.model.Transformer in fp32, whole text anew for each "
        "token. Nothing stops them: <|end|> is a token like any other and another story begins after it."
    )
    sha256 = read_json(path / "smallfry.json")["weights_sha256"]
    found = {"about": about, "chosen": chosen, "weights_sha256": sha256, "continuations": kept}
    write_atomic(out, json.dumps(found, ensure_ascii=False) + "\n")
    say(f"{out}: {len(kept)} continuations, smallest margin {min(k['smallest_margin'] for k in kept):.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=40_000)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--state", type=Path, default=Path("runs/golden"), help="where a stopped training is kept")
    parser.add_argument("--keep-model", action="store_true")
    args = parser.parse_args()
    limit_threads()
    if not args.keep_model:
        make_model(HERE / "model", args.state, args.stories, args.epochs)
    make_continuations(HERE / "model", HERE / "continuations.json")


if __name__ == "__main__":
    main()
