"""The learner's guide: all that it shows is run, at a smaller size."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from smallfry.builtin import BUILTIN
from smallfry.builtin.conversations import PROBE_TASKS
from smallfry.cli import main
from smallfry.files import read_json
from smallfry.tuning import problems
from tests.tuning_models import FEW, solver

GUIDE = Path(__file__).parents[1] / "docs" / "guide-train.md"
SMALLER = {
    "1m": "60k", "250k": "50k", "1024": "300", "10m": "8k", "5m": "4k", "512": "128", "60": "8",
}  # fmt: skip
QUICK = {
    "tune talks arithmetic": "--steps 1 --questions 2 --samples 4 --limit 60 --tries 4 --max-new 32 --every 1",
    "tune model chat": "--limit 60",
    "eval talks": "--limit 2",
}
SOLVER = "solver"
"""A model that solves some sums, in place of the guide's."""


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_everything_the_guide_shows_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from smallfry.job import Job

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("smallfry.machine.own_cores", lambda: 1)
    monkeypatch.setattr(problems, "_COUNTS", FEW)
    solver(tmp_path / SOLVER, 100)
    whole = Job.load("stories")
    few = Job("stories", "generate", whole.train[:300], whole.valid[:20], whole.test[:20], whole.metric)
    monkeypatch.setattr("smallfry.Job.load", staticmethod(lambda *a, **k: few))
    assert "stories" in BUILTIN
    shared: dict[str, Any] = {}
    seen = 0
    for kind, code in blocks():
        if kind == "python":
            exec(compile(code, str(GUIDE), "exec"), shared)
            continue
        for line in code.splitlines():
            run(line, monkeypatch, capsys)
            seen += 1
    assert seen >= 10 and (tmp_path / "talks.html").exists()
    assert read_json(tmp_path / "sums" / "smallfry.json")["reinforced"]["steps"] == 1


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = [SMALLER.get(word, word) for word in shlex.split(line)]
    for command, options in QUICK.items():
        if " ".join(words[1:]).startswith(command):
            words += options.split()
    if "--rl" in words:  # so small a model as the guide's is here solves nothing, and there is nothing to learn from
        words[words.index("talks")] = SOLVER
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello!\nWho are you?\n/temperature 0.3\n/reset\n"))
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    assert ended.value.code == 0, line + out.out + out.err
    if words[1] == "chat":
        assert out.out.strip(), out.err
    elif "conversation" in words:
        assert all(re.search(rf"^\W*{task} .* \d\.\d+ ", out.out, re.MULTILINE) for task in PROBE_TASKS), out.out
    elif "--rl" in words:
        assert re.search(r"^ *test: likeliest .*\d%", out.out, re.MULTILINE), out.out
