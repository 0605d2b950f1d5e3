"""ONNX graphs beside the models they are made of: the same logits at once, in pieces, and token by token."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smallfry.checkpoint import load_weights, save_model
from smallfry.engine.weights import read_weights, write_flat
from smallfry.errors import SmallfryError
from smallfry.export import onnx as exporter
from smallfry.export.onnx import export_onnx
from smallfry.export.verify import empty_past, verify_onnx
from tests.test_export_gguf import SHAPES, TOKENIZER, make, random_ids, torch_greedy, torch_logits

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'smallfry[export]')")
needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def in_pieces(model: Any, ids: np.ndarray, ends: list[int]) -> np.ndarray:
    """Logits of a batch read in pieces that end at some places, each upon the past of those before it."""
    past, found, start = empty_past(model, len(ids)), [], 0
    for end in ends:
        logits, *present = model.run(None, {"input_ids": ids[:, start:end]} | past)
        assert all(p.shape[:1] + p.shape[2:3] == (len(ids), end) for p in present)
        past = dict(zip(past, present, strict=True))
        found.append(logits)
        start = end
    return np.concatenate(found, axis=1)


@needs_runtime
@pytest.mark.parametrize("name", list(SHAPES))
def test_logits_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    model = make(tmp_path / "m", name)
    export_onnx(model, tmp_path / "m.onnx")
    runtime = session(tmp_path / "m.onnx")
    assert [o.name for o in runtime.get_outputs()][:3] == ["logits", "present.0.key", "present.0.value"]
    ids = np.array([random_ids(40, seed=seed) for seed in range(3)], dtype=np.int64)
    exact = np.array([torch_logits(model, row.tolist()) for row in ids])
    assert exact.std() > 0.5
    for ends in ([40], [1, 2, 3, *range(4, 41)], [7, 8, 25, 40]):
        np.testing.assert_allclose(in_pieces(runtime, ids, ends), exact, atol=2e-4)
    np.testing.assert_allclose(in_pieces(runtime, ids[:1, :1], [1]), exact[:1, :1], atol=2e-4)


@needs_runtime
@pytest.mark.parametrize("kind", ["Qwen3", "Qwen2", "Llama"])
def test_models_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=90, hidden_size=48, intermediate_size=72, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10, tie_word_embeddings=False, max_position_embeddings=128,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(3)
    net = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    net.save_pretrained(tmp_path / "m")
    export_onnx(tmp_path / "m", tmp_path / "m.onnx")
    ids = np.array([random_ids(20, 90)])
    with torch.inference_mode():
        exact = net(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(in_pieces(session(tmp_path / "m.onnx"), ids, [9, 10, 20]), exact, atol=1e-3)


@needs_runtime
def test_positions_go_beyond_those_trained(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "narrow heads")
    export_onnx(model, tmp_path / "m.onnx")
    ids = random_ids(2300)
    found = in_pieces(session(tmp_path / "m.onnx"), np.array([ids]), [2290, 2300])
    np.testing.assert_allclose(found[0, -1], torch_logits(model, ids)[-1], atol=2e-3)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "grouped")
    export_onnx(model, tmp_path / "deep" / "m.onnx")
    proto = onnx.load(tmp_path / "deep" / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 17)] and proto.ir_version <= 8
    assert {node.domain for node in proto.graph.node} == {""}
    texts = {p.key: p.value for p in proto.metadata_props}
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    assert texts == {
        "name": "m", "max_positions": "2048", "bos_token_id": "0", "eos_token_id": "3", "pad_token_id": "4",
        "chat_template": template,
    }  # fmt: skip
    size = (tmp_path / "deep" / "m.onnx").stat().st_size
    numbers = 4 * sum(t.size for t in read_weights(model).tensors.values())
    assert numbers < size < numbers + 60_000, "a tied table is held once, and no table of positions"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.onnx"]


@needs_runtime
def test_a_directory_holds_the_tokenizer_too(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "ours")
    export_onnx(model, tmp_path / "out")
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert names == {
        "onnx/model.onnx", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert verify_onnx(model, tmp_path / "out", ["the cat"], 5, torch_greedy(model)).same
    export_onnx(model, model)  # into the model's own directory, whose files stay
    assert (model / "onnx" / "model.onnx").exists() and load_weights(model).shape == SHAPES["ours"][0]


def test_a_flat_file_is_exported_alike(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "qwen2")
    export_onnx(model, tmp_path / "a.onnx")
    write_flat(model / "model.fry", read_weights(model), "fp32")
    (model / "model.safetensors").unlink()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    export_onnx(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    export_onnx(model, tmp_path / "b")
    made = json.loads((tmp_path / "b" / "config.json").read_text())
    assert made.pop("rms_norm_eps") == pytest.approx(config.pop("rms_norm_eps")) and made == config
    assert onnx.load(tmp_path / "b" / "onnx" / "model.onnx").graph.name == "smallfry"


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmallfryError, match=r"config.json: no such file"):
        export_onnx(tmp_path / "none", tmp_path / "m.onnx")
    model = make(tmp_path / "m", "ours")
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(SmallfryError, match=r"taken.onnx: cannot write"):
        export_onnx(model, tmp_path / "taken.onnx")
    monkeypatch.setattr(exporter, "_LARGEST_FILE", 100_000)
    with pytest.raises(SmallfryError, match="more than an ONNX file can hold"):
        export_onnx(model, tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SmallfryError, match=r"onnx is not installed; run: pip install 'smallfry\[export\]'"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@needs_runtime
def test_verification_sees_what_differs(tmp_path: Path) -> None:
    model = make(tmp_path / "m", "grouped")
    export_onnx(model, tmp_path / "m.onnx")
    prompts = ["the cat", "<|user|> turn on<|assistant|>"]
    good = verify_onnx(model, tmp_path / "m.onnx", prompts, 12, torch_greedy(model))
    assert good.same and (good.tokens, good.equal, good.texts) == (24, 24, 0)
    assert good.logit_difference is not None and good.logit_difference < 1e-3

    net = load_weights(model)
    with torch.no_grad():
        net.blocks[1].down.weight.mul_(-1)
    save_model(tmp_path / "changed", net, TOKENIZER, {})
    bad = verify_onnx(model, tmp_path / "m.onnx", prompts, 12, torch_greedy(tmp_path / "changed"))
    assert not bad.same and bad.equal < 24 and bad.first_difference is not None

    short = verify_onnx(model, tmp_path / "m.onnx", prompts, 12, lambda ids, n: (torch_greedy(model)(ids, 3)[0], None))
    assert (short.tokens, short.equal, short.logit_difference) == (6, 6, None)
    with pytest.raises(SmallfryError, match="prompt 1 has no tokens"):
        verify_onnx(model, tmp_path / "m.onnx", [""], 12, torch_greedy(model))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(SmallfryError, match="ONNX Runtime cannot load it"):
        verify_onnx(model, tmp_path / "broken.onnx", prompts, 3, torch_greedy(model))
