"""Models as others lay them out, for the tests of importing: llama2.c's files and Hugging Face's directories."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smallfry.tokenizer import Tokenizer

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS = 32, 40, 2, 4, 2, 24
PIECES = (
    "he", " t", " a", "in", "the", " the", "er", "an", "nd", "and", " and", "aa", "aaa", "aaaa", "ab", "aba", "abab",
    "bb", "  ", "    ", "\n\n", "éé", " é", "th", "re", "here", " there", "ing", "ining", "a b", "b a", ". ", ", ",
)  # fmt: skip
CHARACTERS = " abcdefghijklmnoprstuvwy.,\néß"
TOKENS = [
    ("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)),
    *((text, -float(rank)) for rank, text in enumerate((*PIECES, *CHARACTERS))),
]  # fmt: skip
VOCAB = len(TOKENS)
BYTE_LEVEL = Tokenizer.train([" a small dog", " a big cat"] * 20, 280)


def make_weights(tied: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under llama2.c's names; a matrix of each layer stands at its index."""
    rng = np.random.default_rng(seed)
    kv = WIDTH // HEADS * KV_HEADS

    def draw(*size: int) -> np.ndarray:
        scale = 0.5 / math.sqrt(size[-1]) if len(size) > 2 else 0.3
        return (rng.standard_normal(size) * scale + (1.0 if size[-2:] == (LAYERS, WIDTH) else 0.0)).astype("<f4")

    found = {
        "embed": draw(VOCAB, WIDTH), "att_norm": draw(LAYERS, WIDTH), "wq": 3 * draw(LAYERS, WIDTH, WIDTH),
        "wk": 3 * draw(LAYERS, kv, WIDTH), "wv": draw(LAYERS, kv, WIDTH), "wo": draw(LAYERS, WIDTH, WIDTH),
        "ffn_norm": draw(LAYERS, WIDTH), "w1": draw(LAYERS, INNER, WIDTH), "w2": draw(LAYERS, WIDTH, INNER),
        "w3": draw(LAYERS, INNER, WIDTH), "norm": 1 + draw(WIDTH), "head": draw(VOCAB, WIDTH),
    }  # fmt: skip
    return found if not tied else {k: v for k, v in found.items() if k != "head"}


def header(tied: bool, version: int, group: int = 16) -> bytes:
    vocab = VOCAB if tied or version else -VOCAB
    numbers = struct.pack("<7i", WIDTH, INNER, LAYERS, HEADS, KV_HEADS, vocab, POSITIONS)
    if version == 0:
        return numbers
    return (struct.pack("<Ii", 0x616B3432, version) + numbers + struct.pack("<Bi", tied, group)).ljust(256, b"\0")


def checkpoint_bytes(weights: dict[str, np.ndarray], version: int, group: int = 16) -> bytes:
    """A file as llama2.c's export.py lays it out."""
    tied = "head" not in weights
    w = {name: value.tobytes() for name, value in weights.items()}
    tail = b"" if tied else w["head"]
    if version == 0:
        order = ("embed", "att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "norm")
        tables = bytes(4 * POSITIONS * (WIDTH // HEADS))
        return header(tied, 0) + b"".join(w[n] for n in order) + tables + tail
    norms = w["att_norm"] + w["ffn_norm"] + w["norm"]
    order = ("embed", "wq", "wk", "wv", "wo", "w1", "w2", "w3")
    if version == 1:
        return header(tied, 1) + norms + b"".join(w[n] for n in order) + tail
    body = b""
    for name in (*order, *(() if tied else ("head",))):
        value = weights[name]
        for matrix in value if value.ndim == 3 else value[None]:
            quantised, scales = quantise(matrix, group)
            body += quantised.tobytes() + scales.tobytes()
    return header(tied, 2, group) + norms + body


def quantise(matrix: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    groups = matrix.reshape(-1, group)
    scales = (np.abs(groups).max(axis=1) / 127).astype("<f4")
    return np.rint(groups / scales[:, None]).astype(np.int8), scales


def tokenizer_bytes(tokens: list[tuple[str, float]]) -> bytes:
    longest = max(len(text.encode()) for text, _ in tokens)
    rows = b"".join(struct.pack("<fi", s, len(t.encode())) + t.encode() for t, s in tokens)
    return struct.pack("<i", longest) + rows


def write(folder: Path, version: int = 0, tied: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.bin").write_bytes(tokenizer_bytes(TOKENS))
    path = folder / "model.bin"
    path.write_bytes(checkpoint_bytes(make_weights(tied), version))
    return path


def hf_directory(
    path: Path, kind: str = "Llama", tied: bool = False, dtype: str = "float32", shard: str = "1GB"
) -> Any:
    """A random model saved by transformers, and the model itself."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=300, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=96, rms_norm_eps=1e-4, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=[3, 4], pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * 0.2 + (p.dim() == 1))
    model = model.to(getattr(torch, dtype)).eval()
    model.save_pretrained(path, max_shard_size=shard)
    BYTE_LEVEL.save(path / "tokenizer.json")
    named = {
        "bos_token": "<|bos|>",
        "eos_token": {"content": "<|end|>"},
        "chat_template": "{{ messages }}",
        "auto_map": 1,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(named))
    return model


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
