"""Walks through docs/guide-train.md at full size, as a learner does, and notes how long each part takes.

    python benchmarks/guide.py [--work runs/guide] [--write]

Reading and thinking are not counted. ``--write`` keeps docs/results/guide.json and the line of times in the guide.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from smallfry.machine import machine, own_cores, versions

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide-train.md"
RESULT = ROOT / "docs" / "results" / "guide.json"
BEGIN, END = "<!-- times:begin -->\n", "<!-- times:end -->"
SAID = (
    "Hello!\nMy name is Priya.\nTell me a story about a girl and a kite.\nWho is in it?\nWhat is my name?\n"
    "What does a cow say?\nWhat is 3 + 4?\nWhat is new in the world?\n"
)


def parts() -> list[tuple[str, list[tuple[str, str]]]]:
    """Title and blocks of each section."""
    sections = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [
        (text.partition("\n")[0], re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)) for text in sections
    ]  # fmt: skip


def walk(work: Path) -> list[dict[str, Any]]:
    """Run everything; seconds and what was printed, part by part."""
    found, python = [], ""
    for title, blocks in parts():
        began, said = time.perf_counter(), []
        for kind, code in blocks:
            if kind == "python":  # the blocks of the page are one program
                python += code
                said.append(run([sys.executable, "-c", python], work))
                continue
            for line in code.splitlines():
                print(f"$ {line}", flush=True)
                said.append(f"$ {line}\n" + run([sys.executable, "-m", *shlex.split(line)], work))
        seconds = time.perf_counter() - began
        found.append({"part": title, "seconds": seconds, "printed": said})
        print(f"{title}: {seconds:.0f} s", flush=True)
    return found


def run(command: list[str], work: Path) -> str:
    """What a command prints."""
    done = subprocess.run(
        command, cwd=work, capture_output=True, text=True, input=SAID, encoding="utf-8",
        env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"failed: {shlex.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp())
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found = walk(work)
    minutes = sum(part["seconds"] for part in found) / 60
    print(f"{minutes:.1f} minutes")
    if not asked.write:
        return
    record = {
        "command": "python benchmarks/guide.py --write", "minutes": minutes, "parts": found, "cores": own_cores(),
        "machine": machine(), "versions": versions(),
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = GUIDE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    times = ", ".join(f"{part['part'].partition('.')[0]}: {part['seconds']:.0f} s" for part in found)
    line = (
        f"The whole page took {minutes:.1f} minutes of computing on {own_cores()} cores, by part {times} "
        "([record](results/guide.json)).\n"
    )
    GUIDE.write_text(before + BEGIN + line + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
