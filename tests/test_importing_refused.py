"""Importing: files that are cut off, broken or do not fit are refused in one line; nothing is overwritten unasked."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from smallfry.checkpoint import save_model
from smallfry.engine.weights import read_weights
from smallfry.errors import SmallfryError
from smallfry.importing import import_model
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import Tokenizer
from tests.foreign_models import BYTE_LEVEL, TOKENS, edit, hf_directory, tokenizer_bytes, write


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
    with pytest.raises(SmallfryError, match="is the model itself"):
        import_model(tmp_path / "other", tmp_path / "other", force=True)
    assert [p.name for p in strange.iterdir()] == ["letter"]
