"""GGUF files beside the models they are made of: llama.cpp reads the same tokens and computes the same logits."""

from __future__ import annotations

import atexit
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HfTokenizer

from smallfry.architecture import Variant
from smallfry.checkpoint import load_weights, save_model
from smallfry.engine.weights import read_weights, write_flat
from smallfry.errors import SmallfryError
from smallfry.export.gguf import export_gguf, gguf_name
from smallfry.export.verify import verify_gguf
from smallfry.export.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import MIN_VOCAB, SPLIT, Tokenizer

gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install 'smallfry[export]')")
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)

TEXTS = ["the cat sat on the mat, and 12 more cats\n", "Ein Café in Köln öffnet um 7:30\n", "turn on the light  please"]
TOKENIZER = Tokenizer.train(TEXTS * 4, 340, units=[" light_on", " weather"], symbols=["slot"])
MIXED = [
    "the cats 2024 and 3.14159", "naïve Café Ångström ñ", "emoji 😀 👩\u200d👧 🇨🇭", "one\ntwo\n\n\n three\r\n\tfour  ",
    "  a   b    c     ", "don't I'LL we've", "Привет 你好 こんにちは ١٢٣", "f(x)[0]={'a':1};//...", "e\u0301",
    "<|user|> turn on<|assistant|> light_on<|end|>", "<|slot|>weather weather<|pad|><|bos|>", "a <|user| > b",
    "\u00a0x\u3000y\u200bz",
]  # fmt: skip
ROWS = TOKENIZER.vocab_size + 5
SHAPES = {
    "ours": (Shape(ROWS, 64, 2, 2, 2, 32, 96), Variant()),
    "grouped": (Shape(ROWS, 96, 3, 4, 2, 64, 160), Variant()),
    "narrow heads": (Shape(ROWS, 32, 2, 2, 1, 16, 48), Variant(rope_theta=500.0)),
    "wide heads": (Shape(ROWS, 64, 2, 1, 1, 128, 80), Variant(norm_eps=1e-3)),
    "untied": (Shape(ROWS, 64, 2, 2, 2, 32, 96, tie_embeddings=False), Variant()),
    "llama": (Shape(ROWS, 64, 2, 4, 2, 16, 96, tie_embeddings=False, qk_norm=False), Variant()),
    "llama, heads narrower than the model": (Shape(ROWS, 64, 2, 2, 2, 16, 96, qk_norm=False), Variant()),
    "qwen2": (Shape(ROWS, 64, 2, 2, 1, 32, 96, qk_norm=False), Variant(qkv_bias=True)),
}
ARCH = {"llama": "llama", "llama, heads narrower than the model": "llama", "qwen2": "qwen2"}


def make(path: Path, name: str, tokenizer: Tokenizer = TOKENIZER) -> Path:
    """A model directory with weights that make the logits differ, as those of a trained model do."""
    shape, variant = SHAPES[name]
    model = Transformer(shape, variant=variant)
    generator = torch.Generator().manual_seed(len(name))
    model.init_weights(generator)
    with torch.no_grad():
        (model.embed if shape.tie_embeddings else model.head).weight.mul_(8)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    save_model(path, model, tokenizer, {})
    return path


def random_ids(count: int, rows: int = ROWS, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, rows, count)]


def torch_logits(path: Path, ids: list[int]) -> np.ndarray:
    model = load_weights(path, torch.float32).eval()
    with torch.inference_mode():
        return model.logits(model(torch.tensor([ids])))[0].numpy()


def torch_greedy(path: Path) -> Any:
    model = load_weights(path, torch.float32).eval()

    def reference(ids: list[int], count: int) -> tuple[list[int], np.ndarray]:
        new: list[int] = []
        rows = []
        with torch.inference_mode():
            for _ in range(count):
                rows.append(model.logits(model(torch.tensor([ids + new]))[0, -1]).numpy())
                new.append(int(rows[-1].argmax()))
        return new, np.array(rows)

    return reference


def llama(path: Path) -> Any:
    from llama_cpp import GGML_TYPE_F32, Llama, _utils

    for file in (_utils.outnull_file, _utils.errnull_file):  # it leaves them open, which is a warning
        atexit.unregister(file.close)
        atexit.register(file.close)
    return Llama(
        str(path), n_ctx=64, n_batch=64, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32,
    )  # fmt: skip


def llama_logits(path: Path, ids: list[int]) -> np.ndarray:
    model = llama(path)
    model.eval(ids[:-3])
    for token in ids[-3:]:
        model.eval([token])
    found = np.array(model.scores[: len(ids)])
    model.close()
    return found


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


# ---- numbers --------------------------------------------------------------------------------------------------------


@needs_llama
@pytest.mark.parametrize("name", list(SHAPES))
def test_llama_cpp_computes_the_logits_of_the_model(name: str, tmp_path: Path) -> None:
    model = make(tmp_path / "m", name)
    assert export_gguf(model, tmp_path / "m.gguf", "f32") == []
    ids = random_ids(24)
    exact = torch_logits(model, ids)
    assert exact.std() > 0.5
    np.testing.assert_allclose(llama_logits(tmp_path / "m.gguf", ids), exact, atol=1e-3)
    found = fields(tmp_path / "m.gguf")
    assert found["general.architecture"] == ARCH.get(name, "qwen3")
    tied = SHAPES[name][0].tie_embeddings
    assert ("output.weight" in {t.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}) is not tied


@needs_llama
@pytest.mark.parametrize("kind", ["Qwen3", "Qwen2", "Llama"])
def test_models_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=ROWS, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, max_position_embeddings=128,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(3)
    net = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    net.save_pretrained(tmp_path / "m")
    TOKENIZER.save(tmp_path / "m" / "tokenizer.json")
    export_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")
    ids = random_ids(20)
    with torch.inference_mode():
        exact = net(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(llama_logits(tmp_path / "m.gguf", ids), exact, atol=2e-3)


def test_what_is_stored_and_how(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "narrow heads")  # inputs of 32 (a whole group) and of 48 (not)
    weights = read_weights(model)
    for kind, matrix, odd in (("f32", "F32", "F32"), ("f16", "F16", "F16"), ("q8_0", "Q8_0", "F16")):
        notes = export_gguf(model, tmp_path / "m.gguf", kind)  # type: ignore[arg-type]
        assert len(notes) == (kind == "q8_0") and all("2 of 15 matrices are stored as f16" in n for n in notes)
        tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
        assert set(tensors) == {gguf_name(name) for name in weights.tensors}
        for name, exact in weights.tensors.items():
            stored = tensors[gguf_name(name)]
            expected = "F32" if exact.ndim == 1 else odd if name.endswith("down_proj.weight") else matrix
            assert stored.tensor_type.name == expected, name
            dense = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(exact.shape)
            step = {"F32": 0.0, "F16": 2.0**-11, "Q8_0": 1 / 240}[expected] * np.abs(exact).max()
            np.testing.assert_allclose(dense, exact, rtol=0, atol=step)


@needs_llama
@pytest.mark.parametrize(("kind", "most"), [("f16", 0.02), ("q8_0", 0.3)])
def test_smaller_kinds_stay_near(kind: Any, most: float, tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    export_gguf(model, tmp_path / "m.gguf", kind)
    ids = random_ids(20)
    exact = torch_logits(model, ids)
    assert np.abs(llama_logits(tmp_path / "m.gguf", ids) - exact).max() < most * exact.std()


def test_a_flat_file_is_exported_alike(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    export_gguf(model, tmp_path / "a.gguf", "f32")
    write_flat(model / "model.fry", read_weights(model), "fp32")
    (model / "model.safetensors").unlink()
    (model / "config.json").unlink()
    export_gguf(model, tmp_path / "b.gguf", "f32")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_numbers_beyond_f16_stay_f32(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    net = load_weights(model)
    with torch.no_grad():
        net.blocks[0].down.weight[0, 0] = 1e6
    save_model(model, net, TOKENIZER, {})
    assert export_gguf(model, tmp_path / "m.gguf", "f16") == [
        "1 of 15 matrices are stored as f32: they hold numbers beyond f16"
    ]
    with torch.no_grad():
        net.blocks[0].down.weight[0, 0] = float("nan")
    save_model(model, net, TOKENIZER, {})
    with pytest.raises(SmallfryError, match=r"down_proj.weight holds NaN"):
        export_gguf(model, tmp_path / "m.gguf")


# ---- the tokenizer --------------------------------------------------------------------------------------------------


def test_the_tokenizer_goes_into_the_file(tmp_path: Path) -> None:
    hf = HfTokenizer.from_str(TOKENIZER.hf.to_str())
    hf.add_tokens([AddedToken("[tag]", normalized=False)])
    tokenizer = Tokenizer(hf, list(TOKENIZER.units))
    model = make(tmp_path / "m", "ours", tokenizer)
    export_gguf(model, tmp_path / "m.gguf")
    found = fields(tmp_path / "m.gguf")
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == len(set(tokens)) == ROWS
    of = dict(zip(tokens, types, strict=True))
    assert all(hf.id_to_token(i) == tokens[i] for i in range(tokenizer.vocab_size))
    assert [of[t] for t in ("<|user|>", "<|slot|>", "Ġlight_on", "Ġcat", "[tag]")] == [
        CONTROL, CONTROL, NORMAL, NORMAL, USER_DEFINED,
    ]  # fmt: skip
    assert types[tokenizer.vocab_size :] == [UNUSED] * (ROWS - tokenizer.vocab_size)
    merges = json.loads(hf.to_str())["model"]["merges"]
    assert found["tokenizer.ggml.merges"] == [" ".join(m) for m in merges]
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    ids = [found[f"tokenizer.ggml.{n}_token_id"] for n in ("bos", "eos", "padding")]
    assert ids == [0, 3, 4] and found["tokenizer.ggml.add_bos_token"] is False
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    assert found["tokenizer.chat_template"] == template and found["general.name"] == "m"


@needs_llama
@pytest.mark.parametrize("vocabulary", ["trained", "plain bytes"])
def test_llama_cpp_cuts_text_alike(vocabulary: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZER if vocabulary == "trained" else Tokenizer.train([], MIN_VOCAB)
    export_gguf(make(tmp_path / "m", "narrow heads", tokenizer), tmp_path / "m.gguf")
    model = llama(tmp_path / "m.gguf")
    for text in MIXED:
        ids = tokenizer.hf.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text.encode(), add_bos=False, special=True) == ids, text
        assert model.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text), text
        assert model.detokenize(tokenizer.encode(text)).decode() == text
    for unit, index in tokenizer.units.items():
        assert model.detokenize([index], prev_tokens=[5]).decode() == unit
    assert (model.token_bos(), model.token_eos()) == (0, 3)
    model.close()


def sentencepiece(path: Path, all_splits: bool = True) -> HfTokenizer:
    """A ``tokenizer.json`` as it is made of a SentencePiece model: pieces with scores, byte tokens, ▁ for spaces."""
    pieces = [
        " c", "at", " cat", "th", "the", " the", " s", " sat", "he", "on", " cats", "  ", "    ", "fé", " m", " mat",
        "ca",
    ]  # fmt: skip
    pieces = [piece.replace(" ", "▁") for piece in pieces]
    letters = sorted(set("".join(pieces)) | set("abcdefghijklmnopqrstuvwxyz.,'"))
    vocab: dict[str, int] = {}
    for token in ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces, *letters]:
        vocab[token] = len(vocab)
    merges = []
    for piece in pieces:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += splits if all_splits else splits[:1]
    hf = HfTokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    hf.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    hf.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    hf.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    hf.add_special_tokens(["<unk>", "<s>", "</s>"])
    hf.save(str(path))
    return hf


@needs_llama
def test_sentencepiece_is_written_as_such(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "llama")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    )
    (model / "tokenizer_config.json").unlink()
    hf = sentencepiece(model / "tokenizer.json")
    assert export_gguf(model, tmp_path / "m.gguf") == []
    found = fields(tmp_path / "m.gguf")
    types = found["tokenizer.ggml.token_type"]
    assert found["tokenizer.ggml.model"] == "llama" and len(found["tokenizer.ggml.scores"]) == ROWS
    assert types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE] and types[258:260] == [BYTE, NORMAL] and types[-1] == UNUSED
    assert found["tokenizer.ggml.add_bos_token"] is True and "tokenizer.ggml.padding_token_id" not in found
    net = llama(tmp_path / "m.gguf")
    for text in (
        "the cats sat on the mat.",
        "Café fé 12  3",
        " a\n  b     c",
        "你好 😀",
        "thethe'cat",
        "xcat acat",
        "x",
    ):
        assert net.tokenize(text.encode(), add_bos=False) == hf.encode(text, add_special_tokens=False).ids, text
        assert net.tokenize(text.encode(), add_bos=True) == hf.encode(text).ids
    net.close()
    sentencepiece(model / "tokenizer.json", all_splits=False)
    assert "may cut some words otherwise" in export_gguf(model, tmp_path / "m.gguf")[0]


@needs_llama
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_other_ways_of_cutting_words(pre: str, tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    data = json.loads((model / "tokenizer.json").read_text())
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if pre == "gpt-2":
        data["pre_tokenizer"] = words
    elif pre == "smollm":
        data["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, words],
        }
    else:
        data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
        data["model"]["ignore_merges"] = True
    (model / "tokenizer.json").write_text(json.dumps(data))
    hf = HfTokenizer.from_file(str(model / "tokenizer.json"))
    export_gguf(model, tmp_path / "m.gguf")
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == pre
    net = llama(tmp_path / "m.gguf")
    for text in MIXED:
        assert net.tokenize(text.encode(), add_bos=False, special=True) == hf.encode(text).ids, text
    net.close()


# ---- what cannot be written -----------------------------------------------------------------------------------------


def with_tokenizer(model: Path, change: Any) -> None:
    data = json.loads((model / "tokenizer.json").read_text())
    change(data)
    (model / "tokenizer.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["pre_tokenizer"].update(pretokenizers=[pre_tokenizers_json()]), "llama.cpp has no name for"),
        (lambda d: d.update(normalizer={"type": "Lowercase"}), "llama.cpp has no name for"),
        (lambda d: d.update(model={"type": "Unigram", "vocab": []}), "expected a plain BPE"),
        (lambda d: d["model"]["vocab"].update({"zz": ROWS}), f"beyond the model's {ROWS} rows"),
        (lambda d: d["model"]["vocab"].update({"zz": "1"}), "beyond the model's"),
        (lambda d: d["model"]["vocab"].update({"zz": 9}), "two tokens have one id"),
        (lambda d: d["model"]["merges"].append(["zz", "y"]), "a merge is not of two tokens"),
        (lambda d: d["model"].update(byte_fallback=True), "not the 256 tokens"),
        (lambda d: d.update(model=3), "not a tokenizer that can be read"),
        (lambda d: d.pop("model"), "not a tokenizer that can be read"),
        (lambda d: d["added_tokens"].append(7), "not a tokenizer that can be read"),
    ],
)  # fmt: skip
def test_tokenizers_that_cannot_be_said(change: Any, message: str, tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    with_tokenizer(model, change)
    with pytest.raises(SmallfryError, match=message) as caught:
        export_gguf(model, tmp_path / "m.gguf")
    assert "\n" not in str(caught.value) and not (tmp_path / "m.gguf").exists()


def pre_tokenizers_json() -> Any:
    return json.loads(pre_tokenizers.Whitespace().__getstate__())


def test_numbers_beyond_gguf(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    config = json.loads((model / "config.json").read_text())
    for key, value in (("max_position_embeddings", -1), ("max_position_embeddings", 2**40), ("rms_norm_eps", 1e300)):
        (model / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(SmallfryError, match=rf"config\.json: {key}"):
            export_gguf(model, tmp_path / "m.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_where_the_chat_template_comes_from(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    for given, expected in (
        ([{"name": "default", "template": "{{ 1 }}"}, {"name": "tools", "template": "{{ 2 }}"}, 3], "{{ 1 }}"),
        ({"not": "text"}, None), ("", None), ("{{ 4 }}", "{{ 4 }}"),
    ):  # fmt: skip
        (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
        export_gguf(model, tmp_path / "m.gguf")
        assert fields(tmp_path / "m.gguf").get("tokenizer.chat_template") == expected
    (model / "chat_template.jinja").write_text("{{ 5 }}")
    export_gguf(model, tmp_path / "m.gguf")
    assert fields(tmp_path / "m.gguf")["tokenizer.chat_template"] == "{{ 5 }}"
    (model / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SmallfryError, match="the chat template cannot be read"):
        export_gguf(model, tmp_path / "m.gguf")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tmp_path / "m", "ours")
    export_gguf(model, tmp_path / "out" / "m.gguf", "q8_0")
    old = (tmp_path / "out" / "m.gguf").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(SmallfryError, match=r"m.gguf: cannot write \(No space left on device\)"):
        export_gguf(model, tmp_path / "out" / "m.gguf", "f32")
    assert (tmp_path / "out" / "m.gguf").read_bytes() == old
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["m.gguf"]


def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tmp_path / "m", "ours")
    with pytest.raises(SmallfryError, match="expected one of f32, f16, q8_0"):
        export_gguf(model, tmp_path / "m.gguf", "q4_0")  # type: ignore[arg-type]
    with pytest.raises(SmallfryError, match="cannot write"):
        export_gguf(model, tmp_path / "m")
    (model / "tokenizer.json").unlink()
    with pytest.raises(SmallfryError, match=r"tokenizer.json: no such file"):
        export_gguf(model, tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SmallfryError, match=r"gguf is not installed; run: pip install 'smallfry\[export\]'"):
        export_gguf(model, tmp_path / "m.gguf")


# ---- verification ---------------------------------------------------------------------------------------------------


@needs_llama
def test_verification_sees_what_differs(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "grouped")
    export_gguf(model, tmp_path / "m.gguf", "f32")
    prompts = ["the cat", "<|user|> turn on<|assistant|>"]
    good = verify_gguf(model, tmp_path / "m.gguf", prompts, 12, torch_greedy(model))
    assert good.same and (good.tokens, good.equal, good.first_difference, good.first_text) == (24, 24, None, None)
    assert good.logit_difference is not None and good.logit_difference < 1e-3 and good.texts > 5

    other = make(tmp_path / "other", "grouped", Tokenizer.train(["quite another text of other words"] * 3, 300))
    bad = verify_gguf(other, tmp_path / "m.gguf", ["the other words"], 4, torch_greedy(model))
    assert not bad.same and bad.texts_equal < bad.texts and bad.first_text == "the other words"

    net = load_weights(model)
    with torch.no_grad():
        net.blocks[1].down.weight.mul_(-1)
    save_model(tmp_path / "changed", net, TOKENIZER, {})
    bad = verify_gguf(model, tmp_path / "m.gguf", prompts, 12, torch_greedy(tmp_path / "changed"))
    assert bad.equal < bad.tokens and bad.first_difference is not None and "expected" in bad.first_difference
    assert bad.logit_difference is not None and bad.logit_difference > 0.1

    (tmp_path / "broken.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:500])
    with pytest.raises(SmallfryError, match=r"llama.cpp cannot load it"):
        verify_gguf(model, tmp_path / "broken.gguf", prompts, 3, torch_greedy(model))
