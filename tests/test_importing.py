"""Models of others: llama2.c's against its forward pass and encoding written anew, Hugging Face's against theirs."""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as HfTokenizer

from smallfry import checkpoint, importing, llama2c
from smallfry.checkpoint import load_weights
from smallfry.engine.weights import read_weights
from smallfry.errors import SmallfryError
from smallfry.importing import import_model
from tests.foreign_models import (
    BYTE_LEVEL,
    HEADS,
    KV_HEADS,
    LAYERS,
    POSITIONS,
    TOKENS,
    VOCAB,
    WIDTH,
    edit,
    hf_directory,
    make_weights,
    quantise,
    tokenizer_bytes,
    write,
)

WEIGHTS = Path(__file__).parents[2] / "shared" / "data" / "weights"
STORIES = pytest.mark.skipif(not (WEIGHTS / "stories260K.bin").exists(), reason="stories260K.bin is not in ../shared")
OPENING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. "
)


# ---- llama2.c: what it computes, written anew -----------------------------------------------------------------------


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


def test_importing_needs_no_torch() -> None:
    code = "import sys, smallfry.importing; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
