"""What each of the founding document's five levers is worth at 1m and 5m; writes docs/levers.md and its record.

    python benchmarks/levers.py --data DIR                     run the grid: 126 trainings, resumable, then print it
    python benchmarks/levers.py --data DIR --only 'stories-1m*' --minutes 30
    python benchmarks/levers.py --list                         what is left, with minutes
    python benchmarks/levers.py --write [--docs DIR]           write the record and the page from the finished units
    python benchmarks/levers.py --check                        is the page what the record says?

DIR holds ``narrow/``, ``stories/`` and ``text/``. A finished unit is a JSON file in --out and is not run again.
docs/levers.md says what each arm is and why. The code is in benchmarks/levers/.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import sys
from pathlib import Path
from typing import Any

from levers import results, runner
from levers.arms import SEEDS, SIZES, Settings, Unit, units
from smallfry.errors import SmallfryError
from smallfry.files import write_atomic
from smallfry.machine import machine, versions

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RECORD = Path("levers.md"), Path("results", "levers.json")


def read_record() -> dict[str, Any] | None:
    """The stored record, if there is one."""
    path = DOCS / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def page(record: dict[str, Any] | None) -> str:
    """docs/levers.md as the record would have it."""
    return results.filled((DOCS / PAGE).read_text(encoding="utf-8"), results.blocks(record))


def chosen(only: str | None, sizes: str, seeds: int) -> list[Unit]:
    """The units whose key fits a pattern."""
    found = units(sizes=tuple(sizes.split(",")), seeds=seeds)
    return [unit for unit in found if only is None or fnmatch.fnmatch(unit.key, f"*{only}*")]


def write(finished: dict[str, Any], settings: Settings, docs: Path) -> dict[str, Any]:
    """The record and the page."""
    if docs.resolve() == DOCS.resolve() and (settings.tokens is not None or settings.limit is not None):
        raise SmallfryError(
            "--write: a quick look is no result; leave --tokens and --limit out, or name another --docs"
        )
    if not finished:
        raise SmallfryError("--write: no unit is finished; run some first")
    record = {
        "command": "python benchmarks/levers.py --data DIR --write", **results.summary(list(finished.values())),
        "machine": machine(), "versions": versions(),
    }  # fmt: skip
    write_atomic(docs / RECORD, json.dumps(record, indent=1) + "\n")
    write_atomic(docs / PAGE, page(record))
    return record


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path)
    found.add_argument("--out", type=Path, default=Path("runs/levers"))
    found.add_argument("--only", metavar="PATTERN", help="part of a unit's key, such as clinc150-1m-* or -full-")
    found.add_argument("--sizes", default=",".join(SIZES))
    found.add_argument("--seeds", type=int, default=SEEDS)
    found.add_argument("--workers", type=int, default=2, help="processes, each on a core of its own")
    found.add_argument("--minutes", type=float, help="begin nothing that would not end by then")
    found.add_argument("--tokens", type=int, help="training tokens of every unit, for a quick look")
    found.add_argument("--limit", type=int, help="at most this many rows and questions, for a quick look")
    found.add_argument("--list", action="store_true", help="only say what is left")
    found.add_argument("--write", action="store_true")
    found.add_argument("--docs", type=Path, default=DOCS, help="for --write: folder of the page and of results/")
    found.add_argument("--check", action="store_true")
    found.add_argument("--json", action="store_true")
    return found


def main() -> None:
    args = parser().parse_args()
    if args.check:
        same = (DOCS / PAGE).read_text(encoding="utf-8") == page(read_record())
        print("docs/levers.md is what the record says" if same else "docs/levers.md differs; run with --write")
        sys.exit(0 if same else 1)
    settings = Settings(args.data or Path(), args.tokens, args.limit)
    wanted = chosen(args.only, args.sizes, args.seeds)
    # SIGTERM as Ctrl-C: workers are ended, finished units are kept.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        finished = runner.stored(args.out, settings)
        if args.list:
            for seconds, unit in runner.missing(wanted, settings, finished):
                print(f"{seconds / 60:5.1f} min  {unit.key}")
            print(runner.plan(runner.missing(wanted, settings, finished), args.workers))
            return
        if args.data is not None:
            finished = runner.run(
                wanted, settings, args.out, workers=args.workers, minutes=args.minutes,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )  # fmt: skip
        elif not args.write:
            raise SmallfryError("--data DIR is needed to run; --list, --write and --check do without")
        record = write(finished, settings, args.docs) if args.write else results.summary(list(finished.values()))
    except SmallfryError as error:
        sys.exit(f"levers: {error}")
    except KeyboardInterrupt:
        sys.exit(f"levers: stopped; finished units are kept in {args.out}")
    print("\n".join(results.blocks(record)["table"]))
    if args.json:
        print(json.dumps({"finished": len(finished), "comparisons": record["comparisons"]}))


if __name__ == "__main__":
    main()
