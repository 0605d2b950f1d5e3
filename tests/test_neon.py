"""The NEON kernels, compiled for 64-bit ARM and run by qemu: the golden tokens, and the bits of every other machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from smallfry.engine import native
from smallfry.engine.numpy_engine import NumpyModel
from smallfry.engine.weights import read_weights, write_flat

HERE = Path(__file__).parent
FRY = Path(native.__file__).parent / "fry"
MODEL = HERE / "golden" / "model"
ROW = json.loads((HERE / "golden" / "continuations.json").read_text())["continuations"][1]
CC, QEMU = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
pytestmark = pytest.mark.skipif(
    not CC or not QEMU, reason="needs apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert CC
    out = tmp_path_factory.mktemp("neon") / "logits"
    sources = sorted(str(path) for path in FRY.glob("*.c"))
    subprocess.run(
        [CC, "-static", "-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Werror", f"-I{FRY}", "-o", str(out),
         str(HERE / "logits.c"), *sources], check=True,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("kernels", ["neon", "neondot", "plain"])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_arm_gives_what_others_give(program: Path, tmp_path: Path, kernels: str, kind: str) -> None:
    assert QEMU
    weights = read_weights(MODEL)
    write_flat(tmp_path / "model.fry", weights, kind)  # type: ignore[arg-type]
    prompt, ids = ROW["prompt_ids"], ROW["ids"][:60]
    words = [str(i) for i in [*prompt, *ids]]
    subprocess.run(
        [QEMU, "-cpu", "max", str(program), kernels, str(tmp_path / "model.fry"), str(tmp_path / "out"), *words],
        check=True,
    )
    logits = np.fromfile(tmp_path / "out", dtype=np.float32).reshape(len(words), -1)
    expected = NumpyModel(weights, kind).session(1, len(words)).feed_all([*prompt, *ids])  # type: ignore[arg-type]
    if kind == "int8":
        assert (logits == expected).all()
    if kind == "fp32":
        assert np.abs(logits - expected).max() < 1e-4
        assert logits[len(prompt) - 1 : -1].argmax(1).tolist() == ids
    if kind == "bf16":
        assert np.abs(logits - expected).mean() < 0.02 * expected.std()
