"""The folder of C sources: it compiles by the line in its README, and writes what libfry writes from Python."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer as HfTokenizer

from smallfry.engine.numpy_engine import NumpyModel
from smallfry.engine.torch_engine import TorchModel
from smallfry.engine.weights import read_weights
from smallfry.errors import SmallfryError
from smallfry.export.c_folder import COMPILE, export_c
from smallfry.forms import build_form
from smallfry.frames import FrameCodec
from smallfry.importing import import_model
from smallfry.predictor import ModelPredictor
from smallfry.writer import Writer
from tests.test_engine import COLOURS, job_of, json_rows, untrained

HERE = Path(__file__).parent
MODEL = HERE / "golden" / "model"
ROWS = json.loads((HERE / "golden" / "continuations.json").read_text())["continuations"]
WEIGHTS = HERE.parents[1] / "shared" / "data" / "weights"
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


_compiled: dict[tuple[bytes, bytes, str], bytes] = {}
"""Objects by source, headers and line: the kernels are the same in every folder, and take ten seconds."""


def line_of(folder: Path, *flags: str) -> str:
    assert COMPILE in (folder / "README.md").read_text()
    return " ".join([COMPILE.replace("-O3", "-O1"), *flags])


def build(folder: Path) -> Path:
    """What the README's line builds, sooner: a file at a time, at -O1, none twice."""
    line = line_of(folder, "-Wall -Wextra -Werror")
    words = [word for word in shlex.split(line) if not word.endswith(".c")]
    at = words.index("-o")
    compiler, target, libraries = words[:at], words[at + 1], words[at + 2 :]
    objects, own = [], folder / "model_data.h"  # the model's own, which kernels do not include
    for source in sorted(folder.glob("*.c")):
        headers = [path for path in sorted(folder.glob("*.h")) if not source.match("set_*") or path != own]
        key = source.read_bytes(), b"".join(path.read_bytes() for path in headers), line
        made = source.with_suffix(".o")
        if key not in _compiled:
            subprocess.run([*compiler, *libraries, "-c", source.name, "-o", made.name], cwd=folder, check=True)
            _compiled[key] = made.read_bytes()
        made.write_bytes(_compiled[key])
        objects.append(made.name)
    subprocess.run([*compiler, *objects, "-o", target, *libraries], cwd=folder, check=True)
    return folder / "model"


def said(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True, cwd=program.parent)
    return done.stdout.removesuffix("\n")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("c") / "golden"
    export_c(MODEL, out, "int8")
    return build(out)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a job with labels, untrained."""
    out = tmp_path_factory.mktemp("job") / "colours"
    form = build_form(COLOURS, "units", 300, True, None)
    net = untrained(form)
    ModelPredictor("x", TorchModel(net), form, 4).save(out, net, {"job": {"name": "colours"}})
    return out


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    parts = [
        "the", " dog", "Don't", "I'LL", " 12345", "é", "ë", "日本語", "😀", "\n", "\r\n", "  ", "\t", " \n ", "...",
        "!?", "'", "_", "x1y", "½",
        "ß", "<|end|>", "<|bos|>", "\u00a0", "\u2028", "Ⅷ", "a\u0301", " '", "'s", "\x1f", "▁",
    ]  # fmt: skip
    return ["".join(rng.choices(parts, k=rng.randint(1, 14))).replace("\0", "") for _ in range(count)]


def long_texts() -> list[str]:
    """Inputs about and beyond what is read of them, and such that spell special tokens."""
    rng = random.Random(3)
    words = ["red ", "Ünder ", "blue-green", ", ", "12345 ", "  ", "日本語 ", "thing's ", "😀"]
    texts = ["".join(rng.choices(words, k=k)) for k in (100, 300, 500, 700, 2000, 9000)]
    wide = ["色" * k for k in (384, 385, 511, 512, 513, 1000, 13_000, 25_000)]
    mixed = ["x " * 400 + "色" * 800, "色" * 800 + " x" * 400, "x " + "y" * 30_000 + " z", "😀" * 384, "a" * 100_000]
    return [*texts, *wide, *mixed, "<|end|>red<|user|> <|assistant|>", "<|end|> " * 400, " "]


@needs_cc
def test_the_tokenizer_is_the_model_s(golden: Path) -> None:
    hf = HfTokenizer.from_file(str(MODEL / "tokenizer.json"))
    for text in texts(0, 300):
        ids = [int(i) for i in said(golden, "--tokens", text).split()]
        assert ids == hf.encode(text, add_special_tokens=False).ids, repr(text)


@needs_cc
def test_it_writes_the_tokens_of_every_other_engine(golden: Path) -> None:
    model = NumpyModel(read_weights(MODEL), "int8")
    for row in ROWS[:3]:
        session, fed, expected = model.session(1, 600), row["prompt_ids"], []
        for _ in range(60):
            token = int(session.feed([fed])[0].argmax())
            expected.append(token)
            fed = [token]
        ids = [int(i) for i in said(golden, row["prompt"], "-n", "60", "--ids").split()] if row["prompt"] else expected
        assert ids == expected
    writer = Writer.load(MODEL, "int8")
    assert said(golden, "Once upon", "-n", "40") == writer.write(writer.prompt_ids("Once upon"), 40)
    drawn = [said(golden, "Once upon", "-n", "40", "-t", "1", "-p", "0.9", "-s", seed) for seed in "112"]
    assert drawn[0] == drawn[1] != drawn[2]


def sanitized(folder: Path) -> Path:
    """The program with the plain kernels and sanitizers; kernels have sanitizers of their own, in tests/fuzz."""
    for path in folder.glob("set_*.c"):
        if path.name != "set_plain.c":
            path.unlink()
    source = (folder / "model.c").read_text()
    sets = source.index("static const fry_ops *const SETS[]"), source.index("static const fry_ops *set_at")
    plain = "static const fry_ops *const SETS[] = {&fry_ops_plain};\n"
    (folder / "model.c").write_text(source[: sets[0]] + plain + source[sets[1] :])
    try:
        line = line_of(folder, "-fsanitize=address,undefined -fno-sanitize-recover=all -g")
        subprocess.run(line, shell=True, cwd=folder, check=True)  # as the README says it
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no sanitizers (libasan, libubsan)")
    return folder / "model"


def code_of(program: Path, *arguments: str) -> int:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace")
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done.returncode


@needs_cc
def test_it_is_clean_under_sanitizers(tmp_path: Path) -> None:
    export_c(MODEL, tmp_path / "m", "int8")
    program = sanitized(tmp_path / "m")
    for text in ["", "a", "\xe9 \u2028'", "x" * 5000, *texts(2, 40)]:
        assert code_of(program, text, "-n", "5", "-t", "1") == (2 if len(text) == 5000 else 0)


@needs_cc
def test_a_job_is_clean_under_sanitizers(tmp_path: Path, colours: Path) -> None:
    export_c(colours, tmp_path / "c", "int8")
    program = sanitized(tmp_path / "c")
    for text in ["a red one", "\udce9 \udcff", *long_texts()]:
        assert code_of(program, "--tokens", text) == 0
    assert code_of(program, "red " * 300) == 0


@needs_cc
def test_fp32_writes_the_golden_tokens(tmp_path: Path) -> None:
    export_c(MODEL, tmp_path / "m", "fp32")
    program = build(tmp_path / "m")
    row = ROWS[1]
    assert [int(i) for i in said(program, row["prompt"], "-n", "200", "--ids").split()] == row["ids"]


@needs_cc
def test_a_job_s_answers_are_its_labels(tmp_path: Path, colours: Path) -> None:
    export_c(colours, tmp_path / "c", "fp32")
    program = build(tmp_path / "c")
    model = ModelPredictor.load(colours, "fp32")
    for text in ["the RED thing", "Ünder BLUE Ünder", "x", *(e.input for e in COLOURS.test[:5])]:
        assert said(program, text) == model(text)


@needs_cc
def test_a_job_reads_of_an_input_what_python_reads(tmp_path: Path, colours: Path) -> None:
    export_c(colours, tmp_path / "c", "int8")
    program = build(tmp_path / "c")
    form = ModelPredictor.load(colours, "int8").form
    cut = 0
    for text in long_texts():
        ids = [int(i) for i in said(program, "--tokens", text).split()]
        assert ids == form.prompt_ids(text), (len(text), text[:40])
        cut += form.shortens(text)
    assert cut > 10


@needs_cc
def test_an_imported_model_of_pieces(tmp_path: Path) -> None:
    if not WEIGHTS.exists():
        pytest.skip("needs the public stories260K beside the checkout")
    import_model(WEIGHTS / "stories260K.bin", tmp_path / "m")
    export_c(tmp_path / "m", tmp_path / "c", "fp32")
    program = build(tmp_path / "c")
    writer = Writer.load(tmp_path / "m")
    assert said(program, "Once upon", "-n", "60") == writer.write(writer.prompt_ids("Once upon"), 60)
    hf = HfTokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    for text in texts(1, 150):
        ids = [int(i) for i in said(program, "--tokens", text).split()]
        assert ids == hf.encode(text, add_special_tokens=False).ids, repr(text)


def test_what_c_cannot_do_is_refused_and_nothing_is_replaced(tmp_path: Path) -> None:
    rows = json_rows()
    form = build_form(job_of(rows), "inline", 300, True, FrameCodec.learn(rows))
    net = untrained(form)
    ModelPredictor("x", TorchModel(net), form, 4).save(tmp_path / "m", net, {})
    with pytest.raises(SmallfryError, match="inline form"):
        export_c(tmp_path / "m", tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    export_c(MODEL, tmp_path / "c", "int4")
    assert re.search(r"model_size = \d{5,}", (tmp_path / "c" / "model_data.c").read_text())
    with pytest.raises(SmallfryError, match="--force"):
        export_c(MODEL, tmp_path / "c")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(SmallfryError, match="so --force leaves it alone"):
        export_c(MODEL, tmp_path / "mine", "int4", True)
    own = shutil.copytree(MODEL, tmp_path / "own")
    with pytest.raises(SmallfryError, match="is the model itself"):
        export_c(own, own, "int4", True)
    export_c(own, tmp_path / "c", "int4", True)
    assert (own / "config.json").exists() and (tmp_path / "mine" / "thesis.txt").exists()
