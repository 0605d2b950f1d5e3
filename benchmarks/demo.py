"""Keep the record of `make demo` and write its table into the README, so that no figure there is typed by hand.

make demo && .venv/bin/python benchmarks/demo.py
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from rich.console import Console

from smallfry.record import Assessment
from smallfry.report.terminal import render_terminal

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results" / "demo"
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"


def table(record: Assessment) -> str:
    """The candidates and the advice as the terminal shows them."""
    stream = io.StringIO()
    Console(width=110, file=stream, force_terminal=False, color_system=None).print(render_terminal(record))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    return "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("candidate")) :]).strip()


def main() -> None:
    run = ROOT / "runs" / "demo"
    record = Assessment.load(run)
    KEPT.mkdir(parents=True, exist_ok=True)
    record.save(KEPT / "assessment.json")
    shutil.copyfile(run / "figures" / "score-by-size.svg", KEPT / "score-by-size.svg")
    took = f"{record.seconds / 60:.1f} minutes on {record.machine['cores']} cores"
    text = f"""```text
{table(record)}
```

`make demo`, {took}; the whole record is in [docs/results/demo](docs/results/demo/assessment.json). Its test
rows come from a generator seed that no setting was chosen on."""
    readme = ROOT / "README.md"
    page = readme.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
