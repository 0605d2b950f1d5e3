"""The founding document measured from nothing: trains every model, asks every suite and job, writes every page.

    python benchmarks/assessment.py --data DIR [--out runs/assessment]     about a day on two cores, by estimate
    python benchmarks/assessment.py --data DIR --out DIR --quick           next to no training: does every part work?

The same command goes on where it was stopped.

DIR holds ``stories/``, ``text/``, ``chat/``, ``narrow/``, ``evals/`` and ``weights/``. ``OUT/docs`` gets
``assessment.md``, ``levers.md``, ``stories.md``, ``stories-by-size.md`` and, under ``results/``, the records they are
made of: what stands in docs/ of this repository, measured again. Nothing stored there is used. ``OUT/models`` are the
models, ``OUT/levers`` and ``OUT/use_cases`` hold unfinished work.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smallfry.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
QUICK_ROWS = {"evals": 100, "": 1000}  # of every split of a file, evenly, by folder
# Jobs of public files: the built-in ones make as many rows as ever.
QUICK_JOBS = ("[!j]*", "job:names_gender/1m", "job:s[ms]*/0.25m")


@dataclass(frozen=True)
class Step:
    """One part of the whole.

    Args:
        command: What is run, in the repository.
        makes: A file that says it is done; empty where the command itself goes on or is quick.
        says: Whether that file is what its last line says, kept with the command.
    """

    command: tuple[str, ...]
    makes: str = ""
    says: bool = False


def steps(data: Path, whole: Path, out: Path, quick: bool) -> Iterator[Step]:
    """What is done, in order; ``whole`` is all of the data where ``data`` is a part."""
    docs, models, levers = out / "docs", out / "models", out / "levers"

    def script(name: str, *arguments: object) -> tuple[str, ...]:
        return (sys.executable, f"benchmarks/{name}.py", *map(str, arguments))

    def claims(*arguments: object) -> Step:
        return Step((sys.executable, "-m", "smallfry", "claims", *map(str, arguments)))

    flags = ("--quick",) if quick else ()
    small = ("--tokens", 20_000, "--limit", 40, "--sizes", "1m", "--seeds", 2) if quick else ()
    yield Step(script("own_models", "--data", data, "--models", models, "--docs", docs, *flags))
    yield Step(script("curves", "--docs", docs))
    yield Step(script("samples", "--models", models, "--docs", docs, "--write"), "stories.md")
    kills = ("-m", "tests.kills", "--kills", "5" if quick else "100")
    yield Step((sys.executable, *kills), "results/kills.json", says=True)
    yield Step(script("levers", "--data", whole, "--out", levers, "--docs", docs, "--write", *small))
    folders = ("--models", models, "--data-dir", data, "--work", out / "use_cases", "--out", docs / "results")
    for only in QUICK_JOBS if quick else ("*",):
        yield claims("--run", *folders, "--only", only)
    yield claims("--from", docs / "results")


def run(step: Step, out: Path) -> None:
    """Run a step unless it is done.

    Raises:
        SystemExit: It failed.
    """
    made = out / "docs" / step.makes
    shown = shlex.join(("python" if word == sys.executable else word) for word in step.command)
    if step.makes and made.exists():
        return
    print(f"\n$ {shown}", flush=True)
    done = subprocess.run(step.command, cwd=ROOT, stdout=subprocess.PIPE if step.says else None, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"stopped with exit code {done.returncode}: {shown}\nmend what it says above; the same command goes on"
        )
    if step.says:
        result = json.loads(done.stdout.splitlines()[-1])
        kept = {"command": shown.replace(str(out), "OUT"), "result": result}
        write_atomic(made, json.dumps(kept, indent=1) + "\n")


def less(data: Path, out: Path) -> Path:
    """A copy of the data with some rows of every split."""
    if not out.exists():
        part = out.with_name(out.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        for path in sorted(data.rglob("*")):
            if path.is_dir():
                continue
            to = part / path.relative_to(data)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.name.endswith(".jsonl.gz"):
                most = QUICK_ROWS.get(path.relative_to(data).parts[0], QUICK_ROWS[""])
                with gzip.open(path, "rt", encoding="utf-8") as file:
                    rows = [(str(json.loads(row).get("split")), row) for row in file]
                totals, seen = Counter(split for split, _ in rows), Counter[str]()
                with gzip.open(to, "wt", encoding="utf-8") as kept:
                    for split, row in rows:  # evenly: many files are sorted by label
                        number, total = seen[split], totals[split]
                        seen[split] += 1
                        if number * most // total < (number + 1) * most // total:
                            kept.write(row)
            else:
                shutil.copy(path, to)
        part.replace(out)
    return out


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/assessment"))
    parser.add_argument("--quick", action="store_true", help="only see that every part works")
    asked = parser.parse_args(words)
    data, out = asked.data.resolve(), asked.out.resolve()
    whole = data
    for name in ("stories", "text", "chat", "narrow", "evals", "weights"):
        if not (data / name).is_dir():
            sys.exit(f"--data {asked.data}: has no folder {name}; expected the public data that docs/results name")
    if out in (ROOT, ROOT / "docs"):
        sys.exit(f"--out {asked.out}: would write over this repository's own results; name a new folder")
    mark = out / "quick"
    if out.exists() and mark.exists() != asked.quick:
        sys.exit(f"--out {asked.out}: was begun {'with' if mark.exists() else 'without'} --quick; name another folder")
    (out / "docs" / "results").mkdir(parents=True, exist_ok=True)
    if asked.quick:
        mark.touch()
        data = less(whole, out / "data")
    began = time.monotonic()
    for step in steps(data, whole, out, asked.quick):
        run(step, out)
    print(f"\n{out / 'docs' / 'assessment.md'}: written, {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
