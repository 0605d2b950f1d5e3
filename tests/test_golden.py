"""The golden model: every engine writes the same 200 tokens in fp32, and every engine of libfry the same in int8."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.engine import native
from smallfry.engine.decoding import Engine
from smallfry.engine.loading import load_backend
from smallfry.engine.native import NativeModel, kernel_sets, libfry
from smallfry.engine.numpy_engine import NumpyModel
from smallfry.engine.weights import read_weights
from smallfry.errors import SmallfryError

HOME = Path(__file__).parent / "golden"
MODEL = HOME / "model"
CONTINUATIONS: list[dict[str, Any]] = json.loads((HOME / "continuations.json").read_text())["continuations"]
needs_library = pytest.mark.skipif(libfry() is None, reason="libfry was not built here: no C compiler")
Continue = Callable[[list[int], int], list[int]]


def expected(continue_: Continue) -> None:
    for row in CONTINUATIONS:
        assert continue_(row["prompt_ids"], len(row["ids"])) == row["ids"], row["prompt"]


def by_session(backend: Any) -> Continue:
    def continue_(prompt: list[int], n: int) -> list[int]:
        session = backend.session(1, len(prompt) + n)
        found, fed = [], list(prompt)
        for _ in range(n):
            token = int(np.argmax(session.feed([fed])[0]))
            found.append(token)
            fed = [token]
        return found

    return continue_


def test_it_is_small_and_long_enough() -> None:
    assert sum(f.stat().st_size for f in MODEL.iterdir()) < 1_000_000
    assert len(CONTINUATIONS) >= 4 and all(len(row["ids"]) == 200 for row in CONTINUATIONS)


@needs_library
@pytest.mark.parametrize("kernels", kernel_sets())
def test_every_kernel_set_in_fp32(kernels: str) -> None:
    model = NativeModel(read_weights(MODEL), "fp32", kernels)
    expected(by_session(model))

    def whole(prompt: list[int], n: int) -> list[int]:
        session = model.session(1, len(prompt) + n)
        return session.generate(session.feed([prompt]), n)[0]

    expected(whole)


def test_numpy_in_fp32() -> None:
    expected(by_session(NumpyModel(read_weights(MODEL), "fp32")))


def test_torch_in_fp32() -> None:
    import torch

    from smallfry.checkpoint import load_weights
    from smallfry.engine.torch_engine import TorchModel

    expected(by_session(TorchModel(load_weights(MODEL, torch.float32).eval())))


def test_transformers_in_fp32() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(MODEL), dtype=torch.float32).eval()

    def continue_(prompt: list[int], n: int) -> list[int]:
        with torch.inference_mode():
            out = model.generate(
                torch.tensor([prompt]), max_new_tokens=n, min_new_tokens=n, do_sample=False, eos_token_id=None,
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            )  # fmt: skip
        return [int(t) for t in out[0, len(prompt) :]]

    expected(continue_)


@pytest.mark.parametrize("to", ["gguf", "onnx"])
def test_exported(to: str, tmp_path: Path) -> None:
    from smallfry.export import verify

    pytest.importorskip("llama_cpp" if to == "gguf" else "onnxruntime", reason="its runtime is not installed")
    pytest.importorskip(to)
    continue_ = by_session(load_backend(MODEL, "fp32").backend)  # the tests above hold it to torch's tokens

    def reference(prompt: list[int], n: int) -> tuple[list[int], None]:
        return continue_(prompt, n), None

    ids = ["<|bos|>" + row["prompt"] for row in CONTINUATIONS]
    if to == "gguf":
        from smallfry.export.gguf import export_gguf

        export_gguf(MODEL, tmp_path / "m.gguf", "f32")
        found = verify.verify_gguf(MODEL, tmp_path / "m.gguf", ids, 200, reference)
    else:
        from smallfry.export.onnx import export_onnx

        export_onnx(MODEL, tmp_path / "m.onnx")
        found = verify.verify_onnx(MODEL, tmp_path / "m.onnx", ids, 200, reference)
    assert found.same and found.tokens == 200 * len(ids), found


@needs_library
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_whole_numbers_give_the_same_bits_on_every_kernel_set(kind: str) -> None:
    weights = read_weights(MODEL)
    ids = [*CONTINUATIONS[0]["prompt_ids"], *CONTINUATIONS[0]["ids"]]
    logits = [NativeModel(weights, kind, k).session(1, 300).feed_all(ids) for k in kernel_sets()]  # type: ignore[arg-type]
    assert all((found == logits[0]).all() for found in logits)
    one_by_one = NativeModel(weights, kind).session(1, 300)  # type: ignore[arg-type]
    assert (np.stack([one_by_one.feed([[t]])[0] for t in ids]) == logits[0]).all()


@needs_library
def test_the_best_engine_is_taken_and_company_changes_nothing() -> None:
    loaded = load_backend(MODEL)
    assert loaded.engine == "c" and not loaded.notice
    prompts = [row["prompt_ids"] for row in CONTINUATIONS]
    engine = Engine(loaded.backend, end=-1)
    together = engine.generate(prompts, [None] * len(prompts), 40)
    alone = [engine.generate([p], [None], 40)[0] for p in prompts]
    assert together == alone


def test_without_libfry_numpy_answers_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "libfry", lambda: None)
    loaded = load_backend(MODEL, "fp32")
    assert loaded.engine == "numpy" and "C compiler" in loaded.notice
    row = CONTINUATIONS[1]
    assert by_session(loaded.backend)(row["prompt_ids"], 30) == row["ids"][:30]
    with pytest.raises(SmallfryError, match="--engine numpy"):
        load_backend(MODEL, engine="c")
