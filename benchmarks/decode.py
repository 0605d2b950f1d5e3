"""Tokens per second of greedy decoding: libfry beside llama.cpp, ONNX Runtime, transformers and plain PyTorch.

Random weights of the ladder's own shapes; every engine reads the same numbers, in its own file. One pinned core, one
thread each; rounds are interleaved (every engine once, then again), and the median of the rounds counts.

    python benchmarks/decode.py --sizes 1m,5m,50m --rounds 5 --out docs/results/decode

needs: pip install 'smallfry[export]' onnxruntime transformers llama-cpp-python (rows of what is missing are left out)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  (after the number of threads)
import torch  # noqa: E402

from smallfry.checkpoint import save_model  # noqa: E402
from smallfry.engine.native import NativeModel, NativeSession  # noqa: E402
from smallfry.engine.weights import Kind, read_weights  # noqa: E402
from smallfry.machine import machine, versions  # noqa: E402
from smallfry.model import Transformer  # noqa: E402
from smallfry.sizes import shape_for  # noqa: E402
from smallfry.tokenizer import Tokenizer  # noqa: E402

PROMPT = [20, 31, 42, 53, 64, 75, 86, 97]
NEW = 128
VOCAB = 2048
Run = Callable[[int], float]  # batch -> tokens a second


def make_model(size: str, where: Path) -> Path:
    """A model directory with random weights, in fp32."""
    words = [" ".join(f"w{i}x{i * 7 % 1009} alpha{i % 97}" for i in range(4000))]
    tokenizer = Tokenizer.train(words, VOCAB)
    model = Transformer(shape_for(size, VOCAB))
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.embed.weight.mul_(8.0)  # logits that differ
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    save_model(where / size, model.eval(), tokenizer, {"name": size})
    return where / size


def timed(call: Callable[[], Any], tokens: int) -> float:
    start = time.perf_counter()
    call()
    return tokens / (time.perf_counter() - start)


# ---- engines: each gives a function that decodes NEW tokens after PROMPT in `batch` sequences ------------------------


def fry(path: Path, kind: Kind) -> Run:
    model = NativeModel(read_weights(path), kind)

    held: dict[int, NativeSession] = {}  # as llama.cpp's context below: made once, emptied before each run

    def run(batch: int) -> float:
        if batch not in held:
            held.clear()
            held[batch] = model.session(batch, len(PROMPT) + NEW)
        session = held[batch]

        def decode() -> None:
            for row in range(batch):
                session.rewind(row, 0)
            session.generate(session.feed([PROMPT] * batch), NEW)

        return timed(decode, batch * NEW)

    return run


def llama_cpp(path: Path, kind: str, scratch: Path) -> Run:
    import llama_cpp

    from smallfry.export.gguf import export_gguf

    file = scratch / f"{path.name}-{kind}.gguf"
    export_gguf(path, file, kind)  # type: ignore[arg-type]
    held: dict[int, Any] = {}

    def context(batch: int) -> Any:
        if batch not in held:
            held.clear()
            held[batch] = llama_cpp.Llama(
                str(file), n_ctx=256 if batch == 1 else batch * (len(PROMPT) + NEW), n_batch=512, n_threads=1,
                n_threads_batch=1, verbose=False, n_seq_max=batch, kv_unified=batch > 1,
            ) if batch == 1 else _Batched(llama_cpp, str(file), batch)  # fmt: skip
        return held[batch]

    def run(batch: int) -> float:
        llm = context(batch)
        if batch > 1:
            return timed(llm.decode, batch * NEW)

        def decode() -> None:
            llm.reset()
            llm.eval(PROMPT)
            for _ in range(NEW - 1):
                logits = llm._ctx.get_logits_ith(-1)
                token = int(np.ctypeslib.as_array(logits, shape=(llm.n_vocab(),)).argmax())
                llm.eval([token])

        return timed(decode, NEW)

    return run


class _Batched:
    """Many sequences in one llama.cpp context, through its C interface."""

    def __init__(self, lib: Any, file: str, batch: int) -> None:
        self.lib, self.batch = lib, batch
        settings = lib.llama_model_default_params()
        self.model = lib.llama_model_load_from_file(file.encode(), settings)
        how = lib.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch = batch * 192, 512, 512
        how.n_seq_max, how.n_threads, how.n_threads_batch = batch, 1, 1
        self.context = lib.llama_init_from_model(self.model, how)
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def decode(self) -> None:
        lib = self.lib
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        self._step([[t] * self.batch for t in PROMPT])
        for place in range(len(PROMPT), len(PROMPT) + NEW - 1):
            tokens = [
                int(np.ctypeslib.as_array(lib.llama_get_logits_ith(self.context, i), shape=(self.vocab,)).argmax())
                for i in self.last
            ]
            self._step([tokens], place)

    def _step(self, columns: list[list[int]], place: int = 0) -> None:
        lib = self.lib
        batch = lib.llama_batch_init(len(columns) * self.batch, 0, 1)
        n = 0
        for i, tokens in enumerate(columns):
            for seq, token in enumerate(tokens):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, place + i, 1
                batch.seq_id[n][0] = seq
                batch.logits[n] = i == len(columns) - 1
                n += 1
        batch.n_tokens = n
        self.last = range(n - self.batch, n)
        if lib.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        lib.llama_batch_free(batch)


def onnx(path: Path, scratch: Path) -> Run:
    import onnxruntime

    from smallfry.export.onnx import export_onnx

    file = scratch / f"{path.name}.onnx"
    export_onnx(path, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    pasts = [i for i in session.get_inputs() if i.name != "input_ids"]

    def run(batch: int) -> float:
        def decode() -> None:
            past = {i.name: np.zeros((batch, i.shape[1], 0, i.shape[3]), dtype=np.float32) for i in pasts}
            ids = np.array([PROMPT] * batch, dtype=np.int64)
            for _ in range(NEW):
                logits, *present = session.run(None, {"input_ids": ids, **past})
                past = {i.name: p for i, p in zip(pasts, present, strict=True)}
                ids = logits[:, -1].argmax(-1)[:, None].astype(np.int64)

        return timed(decode, batch * NEW)

    return run


def hugging_face(path: Path, dtype: torch.dtype) -> Run:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype).eval()

    def run(batch: int) -> float:
        ids = torch.tensor([PROMPT] * batch)

        def decode() -> None:
            with torch.inference_mode():
                model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
                    eos_token_id=None, pad_token_id=0,
                )  # fmt: skip

        return timed(decode, batch * NEW)

    return run


def eager(path: Path, dtype: torch.dtype) -> Run:
    from smallfry.checkpoint import load_weights
    from smallfry.engine.torch_engine import TorchModel

    model = TorchModel(load_weights(path, dtype).eval())

    def run(batch: int) -> float:
        def decode() -> None:
            session = model.session(batch, len(PROMPT) + NEW)
            logits = session.feed([PROMPT] * batch)
            for _ in range(NEW - 1):
                logits = session.feed([[t] for t in logits.argmax(axis=1).tolist()])

        return timed(decode, batch * NEW)

    return run


# ---- what the machine can do -----------------------------------------------------------------------------------------


def read_bandwidth(size: int) -> float:
    """Bytes a second that one core reads from a buffer of a size, over and over: the best of three of numpy's loops."""
    numbers = np.ones(size // 4, dtype=np.float32)
    best = 0.0
    for read in (lambda: numbers.dot(numbers), numbers.max, lambda: np.bitwise_or.reduce(numbers.view(np.uint64))):
        for _ in range(3):
            repeats = max(1, int(5e8 / size))
            start = time.perf_counter()
            for _ in range(repeats):
                read()
            best = max(best, repeats * numbers.nbytes / (time.perf_counter() - start))
    return best


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large product on one core."""
    a, b = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        best = max(best, 4 * 2 * 1024**3 / (time.perf_counter() - start))
    return best


# ---- the table -------------------------------------------------------------------------------------------------------

WIDTHS = {"fp32": "fp32", "bf16": "16-bit", "int8": "int8", "f32": "fp32", "f16": "16-bit", "q8_0": "int8"}


def engines(path: Path, scratch: Path) -> dict[str, tuple[str, Run]]:
    """Name -> (width of its weights, how it decodes)."""
    found: dict[str, tuple[str, Run]] = {}
    makers: dict[str, tuple[str, Callable[[], Run]]] = {
        "libfry fp32": ("fp32", lambda: fry(path, "fp32")), "libfry bf16": ("16-bit", lambda: fry(path, "bf16")),
        "libfry int8": ("int8", lambda: fry(path, "int8")),
        "llama.cpp f32": ("fp32", lambda: llama_cpp(path, "f32", scratch)),
        "llama.cpp f16": ("16-bit", lambda: llama_cpp(path, "f16", scratch)),
        "llama.cpp q8_0": ("int8", lambda: llama_cpp(path, "q8_0", scratch)),
        "ONNX Runtime fp32": ("fp32", lambda: onnx(path, scratch)),
        "transformers fp32": ("fp32", lambda: hugging_face(path, torch.float32)),
        "transformers bf16": ("16-bit", lambda: hugging_face(path, torch.bfloat16)),
        "PyTorch eager fp32": ("fp32", lambda: eager(path, torch.float32)),
        "PyTorch eager bf16": ("16-bit", lambda: eager(path, torch.bfloat16)),
    }  # fmt: skip
    for name, (width, make) in makers.items():
        try:
            found[name] = (width, make())
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error.name} is not installed", file=sys.stderr)
    return found


def measure(size: str, batches: list[int], rounds: int, scratch: Path) -> list[dict[str, Any]]:
    path = make_model(size, scratch)
    contenders = engines(path, scratch)
    rows = []
    for batch in batches:
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for round_ in range(rounds + 1):
            for name, (_, run) in contenders.items():
                gc.collect()
                speed = run(batch)
                if round_:  # the first warms up
                    speeds[name].append(speed)
        for name, (width, _) in contenders.items():
            rows.append({
                "size": size, "batch": batch, "engine": name, "width": width,
                "tokens_per_s": statistics.median(speeds[name]),
                "all": [round(s, 1) for s in speeds[name]],
            })  # fmt: skip
            print(f"{size:>4} batch {batch:>2} {name:<20} {rows[-1]['tokens_per_s']:>10,.0f} tokens/s", file=sys.stderr)
    weights = {kind: NativeModel(read_weights(path), kind).weight_bytes for kind in ("fp32", "bf16", "int8")}
    for row in rows:
        if row["engine"].startswith("libfry"):
            row["weight_bytes"] = weights[row["engine"].split()[1]]
            row["read_bandwidth"] = read_bandwidth(row["weight_bytes"])
            row["params_read"] = weights["bf16"] / 2
    return rows


ABOVE = (
    "Limits are measured by a loop that reads as many bytes, or by a product of torch's: above 100% libfry was faster "
    "than that."
)


def peers() -> dict[str, str]:
    """Versions of what is measured."""
    from importlib.metadata import PackageNotFoundError, version

    found = {name: versions()[name] for name in ("smallfry", "torch")}
    for name in ("llama-cpp-python", "onnxruntime"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def table(rows: list[dict[str, Any]], limits: dict[str, float]) -> str:
    lines = [
        "| size | batch | width | libfry tokens/s | best peer of that width | its tokens/s | ratio "
        "| best peer of any width | ratio | limit reached |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for own in (r for r in rows if r["engine"].startswith("libfry")):
        others = [
            r for r in rows
            if (r["size"], r["batch"]) == (own["size"], own["batch"]) and not r["engine"].startswith("libfry")
        ]  # fmt: skip
        best_any = max(others, key=lambda r: r["tokens_per_s"])
        same = [r for r in others if r["width"] == own["width"]]
        best = max(same, key=lambda r: r["tokens_per_s"]) if same else None
        speed = own["tokens_per_s"]
        if own["batch"] == 1:
            rate, most = own["weight_bytes"] * speed, own["read_bandwidth"]
            limit = f"weights: {rate / 1e9:.0f} GB/s; reading as many bytes: {most / 1e9:.0f} ({rate / most:.0%})"
        else:
            peak = limits["fp32" if own["width"] == "fp32" else "bf16"]
            rate = 2 * own["params_read"] * speed
            limit = f"{rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s ({rate / peak:.0%})"
        lines.append(
            f"| {own['size']} | {own['batch']} | {own['width']} | {speed:,.0f} | {best['engine'] if best else '-'} "
            f"| {best['tokens_per_s'] if best else 0:,.0f} | {speed / best['tokens_per_s'] if best else 0:.1f} "
            f"| {best_any['engine']} {best_any['tokens_per_s']:,.0f} | {speed / best_any['tokens_per_s']:.1f} "
            f"| {limit} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1m,5m,50m")
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})
    torch.set_num_threads(1)
    limits = {"fp32": matmul_peak(torch.float32), "bf16": matmul_peak(torch.bfloat16)}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in args.sizes.split(","):
            rows += measure(size, [int(b) for b in args.batches.split(",")], args.rounds, Path(scratch))
    shown = table(rows, limits)
    print(shown)
    command = shlex.join(["python", *sys.argv])
    record = {"command": command, "machine": machine(), "versions": peers(), "limits": limits, "rows": rows}
    if args.out:
        args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        every = "\n".join(f"| {r['size']} | {r['batch']} | {r['engine']} | {r['tokens_per_s']:,.0f} |" for r in rows)
        args.out.with_suffix(".md").write_text(
            f"# Decoding speed\n\n`{command}`\n\nGreedy, {NEW} tokens after {len(PROMPT)}, vocabulary {VOCAB}, random "
            f"weights, one core of {record['machine']['cpu']}, medians of {args.rounds} interleaved rounds. "
            f"{', '.join(f'{k} {v}' for k, v in record['versions'].items())}.\n{ABOVE}\n\n{shown}\n\n"
            f"## Every engine\n\n| size | batch | engine | tokens/s |\n|---|---|---|---|\n{every}\n"
        )
    if args.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
