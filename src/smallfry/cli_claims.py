"""``smallfry claims``: the founding document's sentences, held against measurements."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from smallfry.cli_common import Json, console, errors, print_json
from smallfry.errors import SmallfryError

if TYPE_CHECKING:
    from smallfry.claims.running import Step


def claims(
    results: Annotated[Path, typer.Option("--from", help="Folder of stored measurements")] = Path("docs/results"),
    to: Annotated[
        Path | None,
        typer.Option(help="Page to write (default: assessment.md, beside the folder if that is called results)"),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the page is out of date")] = False,
    run: Annotated[bool, typer.Option("--run", help="Measure what is missing first")] = False,
    show: Annotated[bool, typer.Option("--plan", help="Only show what --run would do, with estimated minutes")] = False,
    out: Annotated[Path | None, typer.Option(help="For --run: folder of the measurements, instead of --from")] = None,
    models: Annotated[Path | None, typer.Option(help="For --run: folder of our own models, one directory each")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the public data; else $SMALLFRY_DATA")] = None,
    work: Annotated[
        Path | None, typer.Option(help="For --run: folder of the assessments' runs (default: OUT/runs)")
    ] = None,
    only: Annotated[str, typer.Option(help="For --run: measurements to make, such as 'job:*/1m' or '*/blimp'")] = "*",
    as_json: Json = False,
) -> None:
    """Every sentence of the founding document that can be tested, beside what was measured, as a page."""
    from smallfry.claims import judge, load
    from smallfry.claims.figure import draw
    from smallfry.claims.page import FIGURE, render
    from smallfry.claims.results import Results
    from smallfry.claims.running import plan, show_plan
    from smallfry.files import write_atomic

    if run and check:
        raise SmallfryError("--check with --run: a check measures nothing; give one of them")
    folder = out if out is not None and (run or show) else results
    known = load()
    if run or show:
        _run(known, folder, models, data_dir, work or folder / "runs", only, run)
        if show and not run:
            return
    stored = Results(folder, known)
    page = to or (folder.parent if folder.name == "results" else folder) / "assessment.md"
    found = judge(known, stored)
    base = Path(os.path.relpath(folder, page.parent)).as_posix()
    text = render(known, found, stored, base, show_plan(plan(known, stored)))
    svg = draw(known, stored)
    changed = [path for path, new in ((page, text), (folder / FIGURE, svg)) if _text(path) != new]
    if not check:
        for path, new in ((page, text), (folder / FIGURE, svg)):
            write_atomic(path, new)
    own = Counter(j.verdict for j in found if not j.claim.same_as)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("verdict")
    table.add_column("claims", justify="right")
    for verdict, count in own.most_common():
        table.add_row(verdict, str(count))
    console.print(table)
    state = "out of date" if check and changed else "as the measurements give it" if check else "written"
    console.print(f"{page}: {state}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({
            "page": str(page), "changed": bool(changed), "verdicts": dict(own),
            "claims": [
                {"id": j.claim.id, "line": j.claim.line, "kind": j.claim.kind, "verdict": j.verdict, "why": j.why,
                 "same_as": j.claim.same_as or None, "missing": list(j.missing),
                 "measured": [{"what": f.label, "file": f.file, "score": f.score, "ci": list(f.ci)} for f in j.found]}
                for j in found
            ],
        })  # fmt: skip
    if check and changed:
        errors.print(
            f"error: {', '.join(map(str, changed))}: not what the stored measurements give; write it again with: "
            f"smallfry claims --from {folder}",
            style="red", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _run(
    known: Any, folder: Path, models: Path | None, data_dir: Path | None, work: Path, only: str, go: bool
) -> None:  # fmt: skip
    """Show the plan, and make its measurements."""
    from smallfry.claims.results import Results
    from smallfry.claims.running import plan, run, show_plan

    named = data_dir or (Path(os.environ["SMALLFRY_DATA"]) if os.environ.get("SMALLFRY_DATA") else None)
    data = named.parent if named is not None and named.name == "evals" else named
    if go and (data is None or models is None):
        raise SmallfryError("--run: name the folders with --models DIR and --data-dir DIR (or $SMALLFRY_DATA)")
    for given, name in ((models, "--models"), (data, "--data-dir")):
        if given is not None and not given.is_dir():
            raise SmallfryError(f"{name} {given}: no such folder; name one that is there")
    if go:
        folder.mkdir(parents=True, exist_ok=True)
    steps: list[Step] = [s for s in plan(known, Results(folder, known), models, data) if fnmatch.fnmatch(s.key, only)]
    for line in show_plan(steps):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    minutes = sum(s.minutes for s in steps if not s.missing)
    console.print(f"{len(steps)} measurements, about {minutes:,.0f} minutes", highlight=False)
    if not go or data is None or models is None:
        return

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for step in run(steps, folder, models, data, work, say):
        say(f"stored {folder / step.file}")
