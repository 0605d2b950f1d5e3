"""Quantised copies of a model, the writer behind run and chat, and their commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from smallfry.cli import main
from smallfry.data import JobData, Noise
from smallfry.engine.native import libfry
from smallfry.engine.torch_engine import TorchModel
from smallfry.engine.weights import quantise, read_weights
from smallfry.errors import SmallfryError
from smallfry.forms import build_form
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.quantising import calibrated, compare, quantise_model
from smallfry.sizes import Shape
from smallfry.train import Recipe, train
from smallfry.writer import Writer
from tests.test_engine import COLOURS

MODEL = Path(__file__).parent / "golden" / "model"


def test_calibration_lowers_the_error_of_the_outputs() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((48, 70)).astype(np.float32)
    x = rng.standard_normal((500, 70)) @ rng.standard_normal((70, 70))  # correlated inputs
    moment = (x.T @ x).astype(np.float32)
    found, (error, plain, own) = calibrated("blocks.0.o", matrix, moment, "int4")
    assert error < 0.7 * plain < own
    direct = np.square(x @ (matrix - found.dense()).T).sum()
    assert np.isclose(direct, error, rtol=1e-2)
    assert quantise(matrix, "int4").dense().shape == found.dense().shape == matrix.shape


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantised_copy_is_smaller_and_answers(kind: str, tmp_path: Path) -> None:
    facts = quantise_model(MODEL, tmp_path / "q", kind)  # type: ignore[arg-type]
    assert facts["bytes"] < 0.6 * facts["bytes_before"] and facts["error"] <= facts["error_plain"]
    copy = read_weights(tmp_path / "q")
    assert copy.kind == kind and copy.quantised
    text = Writer.load(tmp_path / "q").write(Writer.load(MODEL).prompt_ids("Once"), 40)
    assert len(text) > 40
    for target in (tmp_path / "q", MODEL):
        with pytest.raises(SmallfryError, match="choose another --out"):
            quantise_model(MODEL, target, kind, force=target == MODEL)  # type: ignore[arg-type]
    with pytest.raises(SmallfryError, match=f"is {kind} already"):
        quantise_model(tmp_path / "q", tmp_path / "r", kind)  # type: ignore[arg-type]


def test_what_was_read_is_not_read_again_and_changes_nothing() -> None:
    writer = Writer.load(MODEL, "fp32")
    ids = writer.prompt_ids("The little dog")
    first = writer.write(ids, 30)
    assert writer.write(ids, 30) == first
    assert Writer.load(MODEL, "fp32").write(writer.prompt_ids("The little"), 12) == writer.write(
        writer.prompt_ids("The little"), 12
    )
    whole = writer.write(ids, 30)
    stop = whole[10:13]
    assert writer.write(ids, 30, stops=[stop]) == whole[: whole.index(stop)]
    assert writer.write(ids, 30, stops=[whole[-3:] + "!"]) == whole  # held back in vain
    writer.ends = frozenset([list(writer.stream(ids, 30))[20].token])
    assert writer.write(ids, 30) == writer.write(ids, 30, stops=[writer.write(ids, 30)[-3:] + "!"])


def test_force_replaces_models_only(tmp_path: Path) -> None:
    model = shutil.copytree(Path(__file__).parent / "golden" / "model", tmp_path / "outer" / "model")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    for out, says in (
        (mine, "is no model directory"),
        (tmp_path / "outer", "or holds it"),
        (model, "the model itself"),
    ):
        with pytest.raises(SmallfryError, match=says):
            quantise_model(model, out, "int8", None, True)
    assert (mine / "thesis.txt").read_text() == "mine" and (model / "config.json").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(SmallfryError, match="is no directory"):
        quantise_model(model, tmp_path / "file", "int8", None, True)
    for _ in range(2):
        quantise_model(model, tmp_path / "small", "int8", None, True)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_run_continues_a_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["smallfry", "run", str(MODEL), "Once upon", "--max-new", "20", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["answers"][0]["output"] == Writer.load(MODEL).write(Writer.load(MODEL).prompt_ids("Once upon"), 20)


def test_export_does_not_replace_and_names_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "m.gguf"
    taken.write_text("mine")
    for arguments, said in (
        (["--to", "gguf", "--out", str(taken)], "is there already"), (["--to", "pt", "--out", "x"], "expected one of"),
        (["--to", "onnx", "--dtype", "f16", "--out", "x"], "expected one of fp32"),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["smallfry", "export", str(MODEL), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and said in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_a_first_answer_needs_no_torch_and_little_memory(tmp_path: Path) -> None:
    code = (
        "import sys, smallfry, pathlib; text = smallfry.load(sys.argv[1])('Once upon'); "
        "print(len(text) > 20, sorted(m for m in ('torch', 'rich', 'sklearn') if m in sys.modules)); "
        "status = pathlib.Path('/proc/self/status'); "
        "print(int(status.read_text().split('VmHWM:')[1].split()[0]) // 1024 if status.exists() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(MODEL)], check=True, capture_output=True, text=True)
    long, loaded, peak = done.stdout.split()
    assert long == "True" and loaded == "[]"
    if libfry() is not None:
        assert int(peak) < 60  # megabytes


def test_what_rounding_costs_a_job_is_measured_with_its_interval(tmp_path: Path) -> None:
    form = build_form(COLOURS, "units", 300, True, None)
    model = Transformer(Shape(form.tokenizer.vocab_size, 32, 2, 1, 1, 32, 64))
    model.init_weights(torch.Generator().manual_seed(0))
    train(model, JobData(COLOURS.train, form, Noise(), 0.0, 256, 0), Recipe(epochs=25, batch_tokens=256, lr=0.01))
    ModelPredictor("tiny", TorchModel(model.eval()), form, 4).save(tmp_path / "m", model, {"job": {"name": "colours"}})
    facts = quantise_model(tmp_path / "m", tmp_path / "q", "int8", [e.input for e in COLOURS.train])
    assert "inputs of a job" in str(facts["calibrated_on"])
    found = compare(COLOURS, tmp_path / "m", tmp_path / "q")
    assert found["before"] > 0.9 and found["n"] == len(COLOURS.test)
    assert found["ci"][0] <= found["difference"] <= found["ci"][1]
    assert found["difference"] == pytest.approx(found["after"] - found["before"])
