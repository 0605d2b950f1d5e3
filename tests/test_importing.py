"""Models of others: llama2.c's against its forward pass and encoding written anew, Hugging Face's against theirs."""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as HfTokenizer

from smallfry import checkpoint, importing, llama2c
from smallfry.checkpoint import load_weights, save_model
from smallfry.engine.weights import read_weights
from smallfry.errors import SmallfryError
from smallfry.importing import import_model
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parents[2] / "shared" / "data" / "weights"
STORIES = pytest.mark.skipif(not (WEIGHTS / "stories260K.bin").exists(), reason="stories260K.bin is not in ../shared")
OPENING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. "
)
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


# ---- llama2.c: what it computes, written anew -----------------------------------------------------------------------


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


def rounded(weights: dict[str, np.ndarray], group: int) -> dict[str, np.ndarray]:
    """The weights that version 2 stands for."""
    found = dict(weights)
    for name, value in weights.items():
        if "norm" not in name:
            parts = [quantise(m, group) for m in (value if value.ndim == 3 else value[None])]
            found[name] = np.stack([q.astype("<f4") * s[:, None] for q, s in parts]).reshape(value.shape)
    return found


def forward(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Logits ``(T, V)`` in float64, token by token, neighbouring pairs turned by their position as run.c does."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    size, share = WIDTH // HEADS, HEADS // KV_HEADS

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return gain * (x / math.sqrt(float(x @ x) / len(x) + 1e-5))

    def turn(x: np.ndarray, position: int) -> np.ndarray:
        out = x.copy()
        for i in range(0, len(x), 2):
            angle = position * 10_000.0 ** (-(i % size) / size)
            out[i] = x[i] * math.cos(angle) - x[i + 1] * math.sin(angle)
            out[i + 1] = x[i] * math.sin(angle) + x[i + 1] * math.cos(angle)
        return out

    keys: list[list[np.ndarray]] = [[] for _ in range(LAYERS)]
    values: list[list[np.ndarray]] = [[] for _ in range(LAYERS)]
    logits = []
    for position, token in enumerate(ids):
        x = w["embed"][token]
        for i in range(LAYERS):
            h = norm(x, w["att_norm"][i])
            q = turn(w["wq"][i] @ h, position)
            keys[i].append(turn(w["wk"][i] @ h, position))
            values[i].append(w["wv"][i] @ h)
            mixed = np.zeros(WIDTH)
            for head in range(HEADS):
                mine, theirs = slice(head * size, (head + 1) * size), head // share * size
                scores = np.array([q[mine] @ k[theirs : theirs + size] for k in keys[i]]) / math.sqrt(size)
                scores = np.exp(scores - scores.max())
                for share_of, v in zip(scores / scores.sum(), values[i], strict=True):
                    mixed[mine] += share_of * v[theirs : theirs + size]
            x = x + w["wo"][i] @ mixed
            h = norm(x, w["ffn_norm"][i])
            gate = w["w1"][i] @ h
            x = x + w["w2"][i] @ (gate / (1 + np.exp(-gate)) * (w["w3"][i] @ h))
        logits.append(w.get("head", w["embed"]) @ norm(x, w["norm"]))
    return np.stack(logits)


def encode(tokens: list[tuple[str, float]], text: str) -> list[int]:
    """What run.c's encode makes of a text, without begin and end: the slow way, looking at every pair each time."""
    ids = {token: index for index, (token, _) in enumerate(tokens)}
    found = [ids[" "]] if text else []
    for character in text:
        found += [ids[character]] if character in ids else [byte + 3 for byte in character.encode()]
    while True:
        best, at = -1e10, -1
        for i, (left, right) in enumerate(pairwise(found)):
            made = ids.get(tokens[left][0] + tokens[right][0])
            if made is not None and tokens[made][1] > best:
                best, at = tokens[made][1], i
        if at < 0:
            return found
        found[at : at + 2] = [ids[tokens[found[at]][0] + tokens[found[at + 1]][0]]]


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


def logits_of(path: Path, ids: list[int]) -> np.ndarray:
    model = load_weights(path, torch.float32).eval()
    with torch.inference_mode():
        return model.logits(model(torch.tensor([ids])))[0].double().numpy()


# ---- llama2.c: weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_checkpoint_gives_llama2c_s_logits(tmp_path: Path, version: int, tied: bool) -> None:
    found = import_model(write(tmp_path / "in", version, tied), tmp_path / "out")
    weights = make_weights(tied)
    ids = [1, *np.random.default_rng(1).integers(3, VOCAB, POSITIONS - 1).tolist()]
    expected = forward(weights if version < 2 else rounded(weights, 16), ids)
    np.testing.assert_allclose(logits_of(tmp_path / "out", ids), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 1
    assert found["imported_from"]["format"] == f"llama2.c version {version}"  # type: ignore[index]
    assert found["parameters"] == sum(value.size for value in weights.values())
    assert (found["context"], found["vocab_size"], found["dtype"]) == (POSITIONS, VOCAB, "float32")
    assert bool(found["notes"]) == (version == 2)  # int8 is told of


def test_the_engine_s_weights_are_the_same(tmp_path: Path) -> None:
    import_model(write(tmp_path / "in", tied=False), tmp_path / "out")
    mine = read_weights(tmp_path / "out")
    theirs = load_file(tmp_path / "out" / "model.safetensors")
    assert (mine.kind, mine.specials, mine.max_positions) == ("fp32", (1, 2, -1), POSITIONS)
    assert mine.tensors.keys() == theirs.keys()
    assert all(np.array_equal(mine.tensors[name], theirs[name].numpy()) for name in theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_runs_it(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    import_model(write(tmp_path / "in", tied=tied), tmp_path / "out")
    ids = [1, 300, 280, 270, 5, 290]
    with torch.inference_mode():
        theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)(
            torch.tensor([ids])
        ).logits[0]
    np.testing.assert_allclose(theirs.numpy(), forward(make_weights(tied), ids), rtol=1e-4, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "the end: and here"
    assert tokenizer(text)["input_ids"] == [1, *encode(TOKENS, text)]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_rows_of_a_head_go_to_their_halves() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert llama2c.half_split(rows, 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# ---- llama2.c: tokenizers -------------------------------------------------------------------------------------------


def texts(tokens: list[tuple[str, float]], count: int) -> list[str]:
    """Texts that make merges meet: of few characters, of whole tokens, of characters that are no token."""
    rng = random.Random(5)
    pieces = [text for text, _ in tokens[259:]]
    found = [
        "",
        " ",
        "   ",
        "\n",
        "a",
        "Zoë's 3 kites — 東京 🙂",
        "<0x41>",
        "a\tb",
        "the end. " * 40,
        "aaaaaaaaaaaaaaaaa",
    ]
    for i in range(count):
        kind = (rng.sample(pieces, 2), rng.sample(pieces, 12), [*pieces, "ü", "☃", " ", "  ", "Q"])[i % 3]
        found.append("".join(rng.choices(kind, k=rng.randrange(1, 16))))
    return [text for text in found if not any(special in text for special in llama2c.SPECIALS)]


def compare(path: Path, tokens: list[tuple[str, float]], count: int) -> None:
    hf = HfTokenizer.from_file(str(path))
    for text in texts(tokens, count):
        expected = encode(tokens, text)
        assert hf.encode(text, add_special_tokens=False).ids == expected, text
        assert hf.encode(text).ids == [1, *expected]
        assert hf.decode([1, *expected]) == text, text  # the space that was put before it is gone


def test_encoding_is_llama2c_s(tmp_path: Path) -> None:
    import_model(write(tmp_path / "in"), tmp_path / "out")
    compare(tmp_path / "out" / "tokenizer.json", TOKENS, 3000)


def test_scores_decide_not_ids(tmp_path: Path) -> None:
    turned = [*TOKENS[:259], *((text, -score) for text, score in TOKENS[259:])]
    path = write(tmp_path / "in")
    (path.parent / "tokenizer.bin").write_bytes(tokenizer_bytes(turned))
    import_model(path, tmp_path / "out")
    compare(tmp_path / "out" / "tokenizer.json", turned, 1500)
    assert encode(turned, "the aaab here") != encode(TOKENS, "the aaab here")


def test_scores_too_low_to_merge(tmp_path: Path) -> None:
    low = [(text, -2e10 if text == "the" else score) for text, score in TOKENS]
    path = write(tmp_path / "in")
    (path.parent / "tokenizer.bin").write_bytes(tokenizer_bytes(low))
    import_model(path, tmp_path / "out")
    compare(tmp_path / "out" / "tokenizer.json", low, 600)


def test_equal_scores_are_told_of(tmp_path: Path) -> None:
    same = [(text, -3.0 if text in ("aa", "ab") else score) for text, score in TOKENS]
    path = write(tmp_path / "in")
    (path.parent / "tokenizer.bin").write_bytes(tokenizer_bytes(same))
    (note,) = import_model(path, tmp_path / "out")["notes"]  # type: ignore[misc]
    assert "3 tokens share scores" in note  # PIECES[3] has that score too


def test_the_tokenizer_that_fits_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "in")
    right, other = path.parent / "tok77.bin", path.parent / "tokenizer.bin"
    right.write_bytes(other.read_bytes())
    other.write_bytes(tokenizer_bytes(TOKENS[:-1]))
    files = import_model(path, tmp_path / "out")["imported_from"]["files"]  # type: ignore[index]
    assert set(files) == {"model.bin", "tok77.bin"}
    other.write_bytes(tokenizer_bytes([*TOKENS[:-1], ("ö", -99.0)]))
    with pytest.raises(SmallfryError, match=r"several of these fit.*--tokenizer"):
        import_model(path, tmp_path / "out2")
    files = import_model(path, tmp_path / "out2", tokenizer=other)["imported_from"]["files"]  # type: ignore[index]
    assert set(files) == {"model.bin", "tokenizer.bin"}


@STORIES
def test_stories260k_tells_the_documented_story(tmp_path: Path) -> None:
    found = import_model(WEIGHTS / "stories260K.bin", tmp_path / "out")
    assert (found["parameters"], found["begins_with"], found["ends_with"]) == (260_032, [1], [2, 1])
    model = load_weights(tmp_path / "out", torch.float32).eval()
    ids = [1]
    with torch.inference_mode():
        while len(ids) < 257:
            ids.append(int(model.logits(model(torch.tensor([ids]))[0, -1]).argmax()))
    text = HfTokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).decode(ids)
    assert text.startswith(OPENING)
    # Of the whole sample in llama2.c's doc/stories260K.md (256 tokens, what run.c -t 0 prints).
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "30b2ffb07967932a88bfdf5e23b517a6f4cfcf7231db9e537360d3c12a4e4d10"
    )


@STORIES
def test_stories260k_s_encoding(tmp_path: Path) -> None:
    import_model(WEIGHTS / "stories260K.bin", tmp_path / "out", tokenizer=WEIGHTS / "tok512.bin", name="tiny")
    assert json.loads((tmp_path / "out" / "smallfry.json").read_text())["name"] == "tiny"
    tokens = llama2c.read_tokens(WEIGHTS / "tok512.bin", 512)
    compare(tmp_path / "out" / "tokenizer.json", tokens, 3000)


# ---- Hugging Face ---------------------------------------------------------------------------------------------------

BYTE_LEVEL = Tokenizer.train([" a small dog", " a big cat"] * 20, 280)


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


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_a_hugging_face_directory_gives_transformers_logits(tmp_path: Path, kind: str, tied: bool) -> None:
    theirs = hf_directory(tmp_path / "in", kind, tied, shard="60KB")
    assert len(list((tmp_path / "in").glob("model-*-of-*.safetensors"))) > 2
    found = import_model(tmp_path / "in", tmp_path / "out", name="other")
    ids = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs(ids).logits[0].double().numpy()
    np.testing.assert_allclose(logits_of(tmp_path / "out", ids[0].tolist()), expected, rtol=1e-3, atol=1e-3)
    assert sum(t.size for t in read_weights(tmp_path / "out").tensors.values()) == found["parameters"]
    assert found["parameters"] == theirs.num_parameters()
    assert (found["context"], found["ends_with"], found["begins_with"]) == (96, [3, 4], [])
    assert str(found["architecture"]).startswith(kind.lower())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_keep_their_values_and_bf16_its_bytes(tmp_path: Path, dtype: str) -> None:
    theirs = hf_directory(tmp_path / "in", "Qwen3", True, dtype).state_dict()
    found = import_model(tmp_path / "in", tmp_path / "out")
    kept = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in kept.values()} == {torch.bfloat16 if dtype == "bfloat16" else torch.float32}
    assert str(found["dtype"]) == json.loads((tmp_path / "out" / "config.json").read_text())["dtype"]
    assert "lm_head.weight" not in kept
    assert all(torch.equal(t.float(), theirs[name].float()) for name, t in kept.items())


def test_the_directory_says_where_it_is_from(tmp_path: Path) -> None:
    hf_directory(tmp_path / "in")
    found = import_model(tmp_path / "in", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "smallfry.json").read_text())
    weights = hashlib.sha256((tmp_path / "in" / "model.safetensors").read_bytes()).hexdigest()
    written = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert importing.FORMAT == checkpoint.FORMAT == card["format"]
    assert (card["name"], card["form"], card["weights_sha256"]) == ("in", None, written)
    assert card["imported_from"] == {"format": "Hugging Face llama", "files": {"model.safetensors": weights}}
    assert "completes" in str(found["use"])
    assert not any(str(tmp_path) in p.read_text() for p in (tmp_path / "out").glob("*.json"))
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (0, [3, 4])
    spelling = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (spelling["eos_token"], spelling["chat_template"]) == ("<|end|>", "{{ messages }}")
    assert "auto_map" not in spelling
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "in" / "tokenizer.json").read_bytes()


def test_ends_by_the_tokenizer_where_the_configuration_has_none(tmp_path: Path) -> None:
    hf_directory(tmp_path / "in")
    edit(tmp_path / "in" / "config.json", eos_token_id=None)
    (tmp_path / "in" / "generation_config.json").unlink()
    assert import_model(tmp_path / "in", tmp_path / "out")["ends_with"] == [BYTE_LEVEL.vocab["<|end|>"]]


# ---- what bad input gets --------------------------------------------------------------------------------------------


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(source: Path, out: Path, match: str, **more: Any) -> None:
    with pytest.raises(SmallfryError, match=match) as caught:
        import_model(source, out, **more)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*.part"))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_cut_off_checkpoints_are_refused(tmp_path: Path, version: int) -> None:
    path = write(tmp_path / "in", version)
    whole = path.read_bytes()
    for size in (0, 1, 27, 28, 100, 255, 256, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, tmp_path / "out", r"llama2\.c")
    path.write_bytes(whole + b"\0")
    refused(path, tmp_path / "out", "where its header says")


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, -1, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("version", [0, 2])
def test_absurd_headers_are_refused(tmp_path: Path, version: int, field: int, value: int) -> None:
    path = write(tmp_path / "in", version)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 4 * field + (8 if version else 0), value)
    path.write_bytes(raw)
    refused(path, tmp_path / "out", r"llama2\.c")


@pytest.mark.parametrize("group", [0, -16, 3, 2**31 - 1])
def test_absurd_groups_and_versions_are_refused(tmp_path: Path, group: int) -> None:
    path = write(tmp_path / "in", 2)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 37, group)
    path.write_bytes(raw)
    refused(path, tmp_path / "out", r"llama2\.c|groups of")
    struct.pack_into("<i", raw, 4, 3)
    path.write_bytes(raw)
    refused(path, tmp_path / "out", "version 3; expected 0, 1 or 2")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<f", raw, 28 + 4 * 7, math.nan)
    path.write_bytes(raw)
    refused(path, tmp_path / "out", "embed_tokens.weight holds")


def test_tokenizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in")
    place = tmp_path / "t.bin"
    raw = tokenizer_bytes(TOKENS)
    first = TOKENS[:300]
    for bad, match in (
        (b"", "it holds only 0"),
        (raw[:-1], "is broken"),
        (raw[:7], "is broken"),
        (raw + b"x", "it holds more"),
        (bytes(1 << 20), "too many bytes"),
        (bytes(2000), "is broken"),
        (struct.pack("<ifi", 7, 0.0, 2**31 - 1) + raw[12:], "token 0 is broken"),
        (struct.pack("<ifi", 7, 0.0, -5) + raw[12:], "token 0 is broken"),
        (struct.pack("<if", 7, math.nan) + raw[8:], "token 0 is broken"),
        (raw.replace("ß".encode(), b"\xff\xff"), "not UTF-8"),
        (raw.replace(b"<0x41>", b"<0x61>"), "not the 256 bytes"),
        (tokenizer_bytes([*first, ("aa", -1.0), *TOKENS[301:]]), "are alike"),
        (tokenizer_bytes([(t if t != " " else "µ", s) for t, s in TOKENS]), "no token for the space"),
        (tokenizer_bytes(TOKENS[:-1]), "it holds only"),
    ):
        place.write_bytes(bad)
        refused(path, tmp_path / "out", match, tokenizer=place)
    refused(path, tmp_path / "out", "cannot read", tokenizer=tmp_path / "none.bin")
    (path.parent / "tokenizer.bin").unlink()
    refused(path, tmp_path / "out", r"no tok\*\.bin.*--tokenizer")


def test_other_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path / "out", "no such file or directory")
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(b"\x80\x04.")
    refused(pickled, tmp_path / "out", r"\.pt file cannot be imported")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "out", r"config\.json: no such file")
    save_model(tmp_path / "ours", Transformer(Shape(300, 32, 1, 1, 1, 32, 32)), BYTE_LEVEL, {})
    refused(tmp_path / "ours", tmp_path / "out", "already")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"model_type": "gpt2"}, "plain qwen3, qwen2 or llama"),
        ({"num_hidden_layers": 10**12}, "do not fit"),
        ({"num_hidden_layers": 4}, "is missing"),
        ({"num_hidden_layers": 2}, "weight .model.layers.2"),
        ({"hidden_size": 10**15}, "expected"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"vocab_size": "many"}, "config.json"),
        ({"intermediate_size": math.inf}, "config.json"),
        ({"rope_parameters": "x"}, "config.json"),
        ({"rope_parameters": {"rope_theta": math.nan}}, "rope_theta"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"attention_bias": True}, "plain qwen3"),
        ({"tie_word_embeddings": True, "vocab_size": 301}, "expected"),
    ],
)  # fmt: skip
def test_configurations_that_do_not_fit_are_refused(tmp_path: Path, values: dict[str, object], match: str) -> None:
    hf_directory(tmp_path / "in")
    edit(tmp_path / "in" / "config.json", **values)
    refused(tmp_path / "in", tmp_path / "out", match)


def test_broken_hugging_face_files_are_refused(tmp_path: Path) -> None:
    hf_directory(tmp_path / "in", shard="60KB")
    place, out = tmp_path / "in", tmp_path / "out"
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    for name, content, match in (
        ("config.json", "[1]", "not a JSON object"),
        ("config.json", "[" * 100_000, "not a JSON object"),
        ("tokenizer.json", "{}", "not a tokenizer that can be read"),
        ("tokenizer.json", json.dumps(tokenizer | {"model": {**tokenizer["model"], "continuing_subword_prefix": "▁"}}),
         "continuing_subword_prefix"),
        ("model.safetensors.index.json", '{"weight_map": 5}', "names no files"),
        ("model.safetensors.index.json", '{"weight_map": {"a": ".."}}', "names no files"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "x\\ny.bin"}}', "names no files"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../x.safetensors"}}', "in/x.safetensors: cannot read"),
        ("model.safetensors", "12345678" * 4, "cannot read the weights"),
    ):  # fmt: skip
        before = (place / name).read_text() if (place / name).exists() else None
        (place / name).write_text(content)
        refused(place, out, match)
        (place / name).unlink() if before is None else (place / name).write_text(before)
    larger = Tokenizer.train([], 263, units=[f" {i}" for i in range(40)])
    larger.save(tmp_path / "larger.json")
    refused(place, out, "ids up to 302, the model has rows for 300", tokenizer=tmp_path / "larger.json")
    (place / "tokenizer.json").unlink()
    refused(place, out, r"tokenizer\.json: no such file.*--tokenizer")
    for file in place.glob("*.safetensors*"):
        file.unlink()
    refused(place, out, "from safetensors only")


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    import_model(source, out)  # an empty directory is no loss
    (out / "notes.txt").write_text("mine")
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(SmallfryError, match=r"exists and is not empty.*--force"):
        import_model(source, out)
    hf_directory(tmp_path / "other")
    (out / "model.fry").write_bytes(b"older weights")
    import_model(tmp_path / "other", out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "model.safetensors").read_bytes() != before
    assert read_weights(out).shape.num_layers == 3  # not those of the flat file, which would go first
    assert not list(tmp_path.glob(".*.part"))
    strange = tmp_path / "home"
    strange.mkdir()
    (strange / "letter").write_text("dear")
    with pytest.raises(SmallfryError, match="leaves it alone"):
        import_model(source, strange, force=True)
    with pytest.raises(SmallfryError, match="is no directory"):
        import_model(source, strange / "letter", force=True)
    with pytest.raises(SmallfryError, match="directory to import from"):
        import_model(tmp_path / "other", tmp_path / "other", force=True)
    assert [p.name for p in strange.iterdir()] == ["letter"]


def test_importing_needs_no_torch() -> None:
    code = "import sys, smallfry.importing; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
