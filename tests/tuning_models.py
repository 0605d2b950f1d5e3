"""Tiny models and data for the tests of tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from smallfry.checkpoint import save_model
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import Tokenizer

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
