"""The model that comes with the package: small, inside the wheel, without PyTorch, in the words it was trained on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from smallfry import shipped
from smallfry.builtin import stories
from smallfry.builtin.conversations import make

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "model"
MODEL = ROOT / "src" / "smallfry" / "shipped" / shipped.DEFAULT
MOST_BYTES = 1_500_000
ready = pytest.mark.skipif(
    not (MODEL / "config.json").exists(), reason="shipped/stories is not made yet: benchmarks/shipped_model.py makes it"
)


def test_names_are_paths_or_shipped_models(tmp_path: Path) -> None:
    assert shipped.resolve(tmp_path) == tmp_path and shipped.resolve("a/b") == Path("a/b")
    with pytest.raises(shipped.SmallfryError, match="no such model comes with smallfry"):
        shipped.resolve("shipped:../../etc")


@pytest.mark.slow
def test_a_wheel_holds_the_models_files(tmp_path: Path) -> None:
    """Built of the sources alone, without libfry, with the golden model where the shipped one is not made yet."""
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "src" / "smallfry", source / "src" / "smallfry", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source / name)
    there = source / "src" / "smallfry" / "shipped" / shipped.DEFAULT
    if not there.exists():
        shutil.copytree(GOLDEN, there)
        (there / "model.fry").write_bytes(b"weights")
        (there / "model.safetensors").unlink()
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=source, check=True, capture_output=True, timeout=120
    )
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = {Path(n).name: packed.read(n) for n in packed.namelist() if n.startswith("smallfry/shipped/stories/")}
    assert inside == {file.name: file.read_bytes() for file in there.iterdir()} and "model.fry" in inside


@ready
def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL.rglob("*")) < MOST_BYTES
    card = json.loads((MODEL / "smallfry.json").read_text())
    assert card["chat"] is True and not list(MODEL.glob("*.safetensors"))


@ready
def test_it_answers_at_once_without_torch_in_words_it_was_trained_on() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import json, time, smallfry\n"
        "start = time.process_time()\n"
        "model = smallfry.load('shipped:stories')\n"
        "said = []\n"
        "asked = ['Hello!', 'What color is the sky?', 'Tell me a story about Tom and a kite.', 'My name is Anna.']\n"
        "for text in asked:\n"
        "    fitted = model.fit([('user', text)], 200)\n"
        "    said.append(model.write(fitted.ids, fitted.room))\n"
        "    if len(said) == 1: first = time.process_time() - start\n"
        "print(json.dumps({'first': first, 'said': said}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["first"] < 1.0  # of one core's time: others may have it meanwhile
    words = [w.lower() for text in found["said"] for w in re.findall(r"[A-Za-z']+", text)]
    known = vocabulary()
    assert len(words) > 60 and sum(w in known for w in words) >= 0.97 * len(words), found["said"]
    assert "blue" in found["said"][1] and "kite" in found["said"][2] and "Anna" in found["said"][3]


def vocabulary() -> set[str]:
    """Words of what it was trained on: the stories and the conversations of the split train."""
    train, _, _ = stories.generate(0, 2000, 1, 1)
    texts = [row.output for row in train] + [m["content"] for c in make(2000, 0, "train") for m in c]
    return {w.lower() for text in texts for w in re.findall(r"[A-Za-z']+", text)}


@ready
def test_chat_starts_offline_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smallfry", "chat", "--json", "--temperature", "0"],
        input="Hello!\nWhat is the opposite of hot?\n",
        check=True, capture_output=True, text=True, timeout=60, encoding="utf-8",
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kind"] == "chat" and "cold" in found["turns"][3]["content"]
