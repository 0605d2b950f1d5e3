"""What a tuning begins with: a model directory's weights, tokenizer and history, or fresh weights of a size."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from smallfry.architecture import MAX_POSITIONS
from smallfry.characters import visible
from smallfry.checkpoint import load_weights
from smallfry.engine.weights import FLAT_FILE
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.model import Transformer
from smallfry.shipped import model_directory, resolve
from smallfry.sizes import RUNGS, parse_size, shape_for
from smallfry.tensorfiles import digest_of
from smallfry.tokenizer import SPECIALS, Tokenizer


@dataclass(slots=True)
class Start:
    """Weights with their tokenizer.

    Args:
        name: The model's, or the size.
        model: Weights in fp32, without dropout.
        tokenizer: smallfry's.
        positions: Longest sequence that it was made for, in tokens.
        card: Its ``smallfry.json``; empty for fresh weights.
        sha256: Of its weights; empty for fresh ones.
    """

    name: str
    model: Transformer
    tokenizer: Tokenizer
    positions: int
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def fresh(self) -> bool:
        """Whether nothing was learned yet."""
        return not self.sha256

    @property
    def tuned_from(self) -> dict[str, Any] | None:
        """Name and weights' hash, for a card."""
        return None if self.fresh else {"name": self.name, "weights_sha256": self.sha256}

    def lineage(self) -> list[dict[str, Any]]:
        """How the model came about, the first training first: what each learned from."""
        if self.fresh:
            return []
        told = self.card.get("lineage")
        history = [step for step in told if isinstance(step, dict)] if isinstance(told, list) else []
        return [*history, {"name": self.name, "weights_sha256": self.sha256, **_made_by(self.card)}]


def _made_by(card: dict[str, Any]) -> dict[str, Any]:
    pretrained, tuned = card.get("pretraining"), card.get("tuning")
    if isinstance(tuned, dict):
        taught = {"teachers": tuned["teachers"]} if "teachers" in tuned else {}
        return {"by": "tune", "data": tuned.get("data"), "tokens": tuned.get("tokens"), **taught}
    if isinstance(pretrained, dict):
        corpus = pretrained.get("corpus") or {}
        return {
            "by": "pretrain", "tokens": pretrained.get("tokens"), "bits_per_byte": pretrained.get("bits_per_byte"),
            "corpus_sha256": corpus.get("sha256"),
        }  # fmt: skip
    return {"by": "reinforce"} if "reinforced" in card else {"by": "train"}


def is_size(model: str) -> bool:
    """Whether a model is named by a size, not by a directory.

    Raises:
        SmallfryError: It is neither.
    """
    if resolve(model).is_dir():
        return False
    try:
        parse_size(model)
    except SmallfryError:
        path = Path(model)
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else f"sizes are {', '.join(RUNGS)} or such as 750k"
        raise SmallfryError(f"{model}: no such model directory and no size; {hint}") from None
    return True


def open_model(model: str) -> Start:
    """Read a model directory that is to be tuned.

    Raises:
        SmallfryError: It is missing or broken, or its tokenizer is not smallfry's.
    """
    path = model_directory(model)
    config = read_json(path / "config.json")
    card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
    if not isinstance(card, dict) or not isinstance(config, dict):
        raise SmallfryError(f"{path}: smallfry.json or config.json is no object; make the directory again")
    form = card.get("form")
    units = form.get("units", []) if isinstance(form, dict) else []
    try:
        tokenizer = Tokenizer.load(path / "tokenizer.json", units)
    except KeyError:
        raise SmallfryError(f"{path}: tokenizer.json lacks units that smallfry.json names; they do not fit") from None
    if "imported_from" in card or [tokenizer.hf.token_to_id(s) for s in SPECIALS] != list(range(len(SPECIALS))):
        raise SmallfryError(
            f"{path}: its tokenizer has no tokens that mark turns ({' '.join(SPECIALS[:4])}); only models that "
            "smallfry made can be tuned: let it be a --teacher of one instead"
        )
    weights = load_weights(path, torch.float32)
    stored = path / (FLAT_FILE if (path / FLAT_FILE).exists() else "model.safetensors")
    if tokenizer.vocab_size > weights.shape.vocab_size:
        raise SmallfryError(f"{path}: tokenizer.json has more tokens than the model has rows; they do not fit")
    positions = config.get("max_position_embeddings")
    return Start(
        visible(str(card.get("name") or path.name)), weights, tokenizer,
        positions if isinstance(positions, int) and positions > 0 else MAX_POSITIONS, card, digest_of(stored),
    )  # fmt: skip


def fresh_model(size: str, tokenizer: Tokenizer, seed: int, positions: int = 512) -> Start:
    """Fresh weights of a size.

    Raises:
        SmallfryError: The size cannot hold the tokenizer's vocabulary.
    """
    model = Transformer(shape_for(size, tokenizer.vocab_size))
    model.init_weights(torch.Generator().manual_seed(seed))
    return Start(size, model, tokenizer, positions)


def with_dropout(model: Transformer, dropout: float) -> Transformer:
    """The same weights in a model that drops features while it is trained."""
    found = Transformer(model.shape, dropout, model.variant).to(model.embed.weight.dtype)
    found.load_state_dict(model.state_dict())
    return found
