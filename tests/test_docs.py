"""Guides: the commands in them run as they stand."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from smallfry.builtin.stories import generate
from smallfry.checkpoint import save_model
from smallfry.cli import main
from smallfry.serving import Server
from tests.test_suites import DATA, TOKENIZER, model

DOCS = Path(__file__).parents[1] / "docs"
GOLDEN = Path(__file__).parent / "golden" / "model"


def commands(guide: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("smallfry ")]


COMMANDS = commands("eval.md")


def test_the_guide_shows_every_suite() -> None:
    from smallfry.evals.suites.command import SUITES

    assert {suite for suite in SUITES if any(f"--suite {suite}" in c for c in COMMANDS)} == set(SUITES)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_guide_run(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "DATA" in command and not DATA.exists():
        pytest.skip("needs the benchmark data beside the checkout")
    if shutil.which("bwrap") is None and ("humaneval" in command or "chatcore" in command):
        pytest.skip("needs bubblewrap (apt-get install bubblewrap)")
    for name, seed in (("model", 0), ("other", 1)):
        save_model(tmp_path / name, model(seed=seed).model, TOKENIZER, {"name": name})
    (tmp_path / "text.txt").write_text("the small dog saw a big cat. " * 500)
    places = {"MODEL": "model", "OTHER": "other", "TEXT": "text.txt"}
    words = [
        str(tmp_path / places[w]) if w in places else str(DATA) if w == "DATA" else w for w in shlex.split(command)
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    assert ended.value.code == 0, out.out + out.err


def test_commands_of_shipping_run_and_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shown = commands("ship.md")
    foreign = shutil.copytree(GOLDEN, tmp_path / "foreign")
    (foreign / "smallfry.json").unlink()  # a Hugging Face directory like any other
    places = {"MODEL": str(GOLDEN), "SOURCE": str(foreign), "8080": "0"}
    assert len(shown) >= 11
    replies = serve_once(monkeypatch)
    for command in shown:
        words = [places.get(w, w) for w in shlex.split(command)]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        assert ended.value.code == 0, out.out + out.err
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).exists()
        elif words[1] == "run":
            assert "Once upon a time" in out.out
        else:
            assert "Hello" in out.out if words[1] == "chat" else out.out.startswith("http://127.0.0.1:")
    assert [reply["choices"][0]["message"]["role"] for reply in replies] == ["assistant"]


def serve_once(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let a server answer what the guide sends with curl, and end as Ctrl-C ends it; the list takes the replies."""
    sent = re.search(r"^curl http://127.0.0.1:8080(\S+) -d '(.*)'$", (DOCS / "ship.md").read_text(), re.MULTILINE)
    assert sent is not None
    replies: list[dict[str, Any]] = []
    forever = Server.serve_forever

    def once(server: Server, poll_interval: float = 0.5) -> None:
        thread = threading.Thread(target=forever, args=(server, 0.01))
        thread.start()
        try:
            with urllib.request.urlopen(f"{server.address}{sent[1]}", sent[2].encode(), 60) as reply:
                replies.append(json.loads(reply.read()))
        finally:
            server.shutdown()
            thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", once)
    return replies


def test_commands_of_training_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    stories, _, _ = generate(5, 400, 1, 1)
    (tmp_path / "text.txt").write_text("\n\n".join(s.input + s.output for s in stories), encoding="utf-8")
    shown = commands("train.md")
    assert len(shown) >= 5
    for command in shown:
        words = [{"TEXT": "text.txt", "MADE": "made"}.get(w, w) for w in shlex.split(command)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        assert ended.value.code == 0, out.out + out.err
    assert (tmp_path / "made" / "model.safetensors").exists()


def test_commands_of_tuning_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from smallfry import pretrain
    from smallfry.tuning import problems
    from tests.tuning_models import COLOURS, FEW, THINGS, exchanges, solver, write_rows

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(problems, "_COUNTS", FEW)
    monkeypatch.setattr("smallfry.machine.own_cores", lambda: 1)
    stories, _, _ = generate(5, 200, 1, 1)
    (tmp_path / "text.txt").write_text("\n\n\n".join(s.input + s.output for s in stories), encoding="utf-8")
    pretrain("text.txt", out="model", size="60k", vocab=300, tokens=4000, seq_len=128)
    write_rows(tmp_path / "chat.jsonl", exchanges(40))
    write_rows(tmp_path / "job.jsonl", [
        {"input": f"the {c} {t} {i}", "output": c} for c in COLOURS for t in THINGS for i in range(2)
    ])  # fmt: skip
    write_rows(tmp_path / "inputs.jsonl", [{"input": f"one {c} {t}"} for c in COLOURS for t in THINGS])
    solver(tmp_path / "taught", 100)
    places = {
        "INPUTS": "inputs.jsonl",
        "MODEL": "model",
        "CHAT": "chat.jsonl",
        "CHAT:3": "chat.jsonl:3",
        "JOB": "job.jsonl",
        "MODEL:0.2": "model:0.2",
    }
    quick = {
        "REINFORCED": "--levels 1 --steps 1 --questions 2 --samples 4 --limit 10 --tries 4 --max-new 32 --every 1",
        "TAUGHT": "--limit 40 --epochs 0.5",
    }  # fmt: skip
    shown = commands("tune.md")
    assert len(shown) >= 10
    for command in shown:
        words = [places.get(w, w.lower() if w.isupper() else w) for w in shlex.split(command)]
        if command.endswith("--out TAUGHT"):  # so short a training would solve nothing
            words[-1] = "taught-a-little"
        words += quick.get(command.split()[-1], "").split()
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        assert ended.value.code == 0, command + "\n" + out.out + out.err
        if "--out" in words:
            assert (tmp_path / words[words.index("--out") + 1] / "model.safetensors").exists()
