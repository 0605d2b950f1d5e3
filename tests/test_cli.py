"""Every command says what it promises, and every command in the documentation exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from smallfry.cli import app, main

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"```(?:sh|console|bash)\n(.*?)```", re.DOTALL)


def last_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> dict[str, object]:
    monkeypatch.setattr(sys, "argv", ["smallfry", *args, "--json"])
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_ladder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = last_json(capsys, monkeypatch, "ladder", "--vocab", "2048")
    assert isinstance(found["rungs"], list) and found["rungs"][0]["name"] == "0.25m"
    assert isinstance(found["references"], list) and len(found["references"]) >= 4


def test_jobs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = last_json(capsys, monkeypatch, "jobs")
    assert isinstance(found["jobs"], list)
    assert {j["name"] for j in found["jobs"]} >= {"commands", "dates", "intents", "reverse", "stories"}


def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = last_json(capsys, monkeypatch, "check", "reverse")
    assert {"splits", "leaks", "labels"} <= set(found)


def documented() -> list[str]:
    commands = []
    for path in DOCS:
        for block in FENCE.findall(path.read_text(encoding="utf-8")):
            for line in block.splitlines():
                line = line.removeprefix("$ ").split(" #")[0].strip()
                if line.startswith("smallfry "):
                    commands.append(line)
    return commands


@pytest.mark.parametrize(("words", "says"), [
    (["nosuch"], "no such command 'nosuch'; smallfry --help lists what there is"),
    (["run"], "missing argument"), (["run", "a", "b", "--nosuch"], "no such option: --nosuch"),
    (["eval", "shipped:stories", "--limit", "0"], "--limit"), (["run", "docs", "hi"], "docs: holds no model; expected"),
    (["run", "shipped:stories", "hi", "--engine", "gpu"], "engine gpu: expected one of auto, c, numpy"),
    (["claims", "--from", "nowhere"], "nowhere: no such folder of stored measurements"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # messages name the program as it was started
    monkeypatch.setattr(sys, "argv", ["smallfry", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(told) == 1 and told[0].startswith("error: ") and says in told[0]


def test_documentation_shows_commands() -> None:
    assert len(documented()) >= 4


@pytest.mark.parametrize("line", documented())
def test_documented_commands_parse(line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):  # a group of commands, such as bench
        name, *words = words
        command = command.commands[name]
    parsed = command.make_context(command.name, words, resilient_parsing=False)  # an unknown option raises
    assert parsed.command is command and not parsed.args


def test_the_light_install_does_not_need_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None; sys.modules['pyarrow'] = None\n"
        "import smallfry\n"
        "from smallfry import ladder, Job, card\n"
        "print(len(ladder(1024)), card(Job.load('reverse')).bytes > 0)\n"
        "from smallfry.cli import main\n"
        "sys.argv = ['smallfry', 'assess', 'reverse', '--out', '/nonexistent']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.startswith("9 True"), done.stderr
    assert done.returncode == 2 and "pip install 'smallfry[lab]'" in done.stderr and "Traceback" not in done.stderr
