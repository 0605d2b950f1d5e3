"""A tokenizer and a model that get further tokens: a job's units and symbols, beside those that are known.

No merge leads to a new token and no old id moves, so that text is cut as before; the new rows of the embedding begin as
the mean of the rows of the pieces that spell them, and what the model says of old tokens does not change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from smallfry.model import Transformer
from smallfry.tokenizer import Tokenizer, to_byte_chars


def extend_tokenizer(tokenizer: Tokenizer, units: Sequence[str], symbols: Sequence[str]) -> Tokenizer:
    """The same tokenizer with further units and symbols; those that it has already stay what they are.

    Args:
        tokenizer: The old one.
        units: Output strings, with their leading space, to hold as single tokens.
        symbols: Further special tokens, added as ``<|name|>``.

    Returns:
        A tokenizer whose ids below the old one's size mean the same.
    """
    data = json.loads(tokenizer.hf.to_str())
    vocab: dict[str, int] = data["model"]["vocab"]
    for added in data["added_tokens"]:  # symbols of an earlier job: outside the vocabulary they would be counted anew
        vocab.setdefault(added["content"], added["id"])
    size = tokenizer.vocab_size
    for unit in units:
        if vocab.setdefault(to_byte_chars(unit), size) == size:
            size += 1
    hf = HfTokenizer.from_str(json.dumps(data))
    wanted = [f"<|{s}|>" for s in symbols]
    hf.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in wanted if hf.token_to_id(s) is None])
    return Tokenizer(hf, [*dict.fromkeys([*tokenizer.units, *units])])


def extend_model(model: Transformer, old: Tokenizer, new: Tokenizer) -> Transformer:
    """The same network with a row for each of a larger tokenizer's tokens.

    Args:
        model: With rows for the old tokenizer; further rows of its table, which no token used, are taken first.
        old: Its tokenizer.
        new: What `extend_tokenizer` made of it.

    Returns:
        A network of ``max(rows, new.vocab_size)`` rows in the same precision; the given one is left as it is.
    """
    shape = replace(model.shape, vocab_size=max(model.shape.vocab_size, new.vocab_size))
    found = Transformer(shape, model.drop.p, model.variant).to(model.embed.weight.dtype)
    state = dict(model.state_dict())
    tables = ["embed.weight"] if shape.tie_embeddings else ["embed.weight", "head.weight"]
    for name in tables:
        state[name] = _grown(state[name], old, new, shape.vocab_size)
    found.load_state_dict(state)
    return found


def _grown(table: torch.Tensor, old: Tokenizer, new: Tokenizer, rows: int) -> torch.Tensor:
    """A table ``(rows, C)`` whose rows for new tokens are means of the rows of their pieces."""
    grown = torch.zeros(rows, table.shape[1], dtype=table.dtype)
    grown[: len(table)] = table
    for token, index in new.hf.get_vocab(with_added_tokens=True).items():
        if index >= old.vocab_size:
            pieces = old.encode(_words(token, new))
            grown[index] = table[pieces].float().mean(0).to(table.dtype)
    return grown


def _words(token: str, tokenizer: Tokenizer) -> str:
    """A token as text that says what it means: of a symbol, what stands behind ``h:`` or ``t:``."""
    if token in tokenizer.vocab:
        found = next((unit for unit in tokenizer.units if to_byte_chars(unit) == token), "")
        return found or " "
    name = token.removeprefix("<|").removesuffix("|>")
    return " " + (name.partition(":")[2] or name)
