"""Tiny models and data for the tests of tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from smallfry.checkpoint import save_model
from smallfry.machine import compute_dtype
from smallfry.model import Transformer
from smallfry.sizes import Shape, shape_for
from smallfry.tokenizer import Tokenizer
from smallfry.train import Recipe, train
from smallfry.tuning.chatdata import ChatData
from smallfry.tuning.problems import conversations

COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("ball", "cap", "door", "boat", "cup", "hat", "kite", "lamp")
TEXT = [f" what colour is the {t}? the {t} is {c}." for c in COLOURS for t in THINGS] * 3
TOKENIZER = Tokenizer.train(TEXT, 320)


def shape(vocab_size: int = TOKENIZER.vocab_size, tied: bool = True) -> Shape:
    return Shape(vocab_size, 32, 2, 2, 1, 16, 64, tie_embeddings=tied)


def network(seed: int = 0, vocab_size: int = TOKENIZER.vocab_size, tied: bool = True) -> Transformer:
    model = Transformer(shape(vocab_size, tied))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model.eval()


def save(path: Path, tokenizer: Tokenizer = TOKENIZER, card: dict[str, Any] | None = None, positions: int = 64) -> Path:
    """A model directory of random weights."""
    save_model(
        path, network(vocab_size=tokenizer.vocab_size), tokenizer, {"name": path.name, "form": None, **(card or {})},
        positions,
    )  # fmt: skip
    return path


def exchanges(count: int, turns: int = 1) -> list[dict[str, Any]]:
    """Conversations about the colours of things, each different."""
    rows = []
    for i in range(count):
        messages = []
        for j in range(turns):
            thing, colour = THINGS[(i + j) % 8], COLOURS[(i // 8 + j) % 5]
            messages.append({"role": "user", "content": f"what colour is the {thing}? {i}"})
            messages.append({"role": "assistant", "content": f"the {thing} is {colour}."})
        rows.append({"messages": messages})
    return rows


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pieces(ids: Sequence[int], tokenizer: Tokenizer = TOKENIZER) -> list[str]:
    """Tokens as they stand in the vocabulary."""
    return [str(tokenizer.hf.id_to_token(i)) for i in ids]


# ---- reinforcing ----------------------------------------------------------------------------------------------------

FEW = {"train": 300, "valid": 30, "test": 60}
"""Built-in problems of each part."""

REINFORCED: dict[str, Any] = {
    "steps": 6, "questions": 6, "samples": 6, "levels": (1,), "max_new": 32, "every": 3, "shown": 10, "limit": 20,
    "tries": 4, "lr_scale": 0.1,
}  # fmt: skip


def solver(path: Path, steps: int) -> Path:
    """A small chat model that saw worked solutions for some steps."""
    talks = conversations("train", 0, 600, [1])
    tokenizer = Tokenizer.train([" " + turn.content for talk in talks for turn in talk], 400)
    model = Transformer(shape_for("120k", tokenizer.vocab_size), 0.0)
    model.init_weights(torch.Generator().manual_seed(0))
    model.to(dtype=compute_dtype(torch.device("cpu")))
    data = ChatData(talks, tokenizer, 128, 2048, 0)
    recipe = Recipe(epochs=max(1, steps) / len(data.epoch(0)), lr=0.02, muon_lr=0.06, weight_decay=0.0, dropout=0.0)
    if steps:
        train(model, data, recipe, save_seconds=1e9)
    save_model(path, model, tokenizer, {"name": path.name, "form": None, "chat": True}, max_positions=256)
    return path
