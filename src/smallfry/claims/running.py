"""Measuring what the claims still lack: suites of our own models, assessments of the use cases."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SmallfryError
from ..files import read_json, write_atomic
from .model import Claims, Model
from .results import OWN, USE_CASES, Results

MODELS, DATA, OUT = "MODELS", "DATA", "OUT"  # stand for the folders, in a plan that names none
_ROW_DROPS = ("curves",)
_SLACK = 3.0  # budgets over estimates: on a busy machine the seeds that are asked for must not be left out
_KEPT = ("format", "command", "job", "rows", "settings", "seconds", "versions", "machine", "pilot", "smallest",
         "advice", "prediction", "samples", "errors")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement to make.

    Args:
        key: ``MODEL/SUITE`` or ``job:NAME/RUNG``.
        file: Where it is stored, under the results.
        arguments: Of ``smallfry``, with `MODELS`, `DATA` and `OUT` for the folders.
        minutes: About how long it takes.
        missing: Why it cannot be made; empty where it can.
    """

    key: str
    file: str
    arguments: tuple[str, ...]
    minutes: float
    missing: str = ""

    @property
    def command(self) -> str:
        """As a shell would run it, without the machine's folders."""
        return shlex.join(("smallfry", *self.arguments))


def plan(claims: Claims, results: Results, models: Path | None = None, data: Path | None = None) -> list[Step]:
    """What the claims ask for and is not stored, the cheapest first.

    Args:
        claims: The claims.
        results: What is stored.
        models: Folder of the model directories; None leaves open whether they are there.
        data: Folder of the public data; likewise.
    """
    known = [m for model in claims.models.values() for m in (model, *(model.of_seed(s) for s in model.seeds))]
    steps = [suite_step(claims, model, suite) for model in known for suite in model.suites]
    asked = {(r.name, r.part): r for c in claims.claims for r in (*c.readings, *c.beside) if r.source == "job"}
    for (name, rung), reference in asked.items():
        if rung in claims.use_cases[name].minutes and not results.find(reference):
            steps.append(job_step(claims, name, rung))
    missing = [_reachable(step, models, data) for step in steps if results.load(step.file) is None]
    return sorted(missing, key=lambda s: (bool(s.missing), s.minutes))


def suite_step(claims: Claims, model: Model, suite: str) -> Step:
    """A suite asked of one of our own models."""
    known = claims.suites[suite]
    flags = shlex.split(known.flags.replace("{data}", DATA))
    arguments = ("eval", f"{MODELS}/{model.name}", "--suite", suite, *flags, "--data-dir", DATA, "--json")
    minutes = known.minutes.get(model.size, 1.0)
    return Step(f"{model.name}/{suite}", f"{OWN}/{model.name}/{suite}.json", arguments, minutes)


def job_step(claims: Claims, name: str, rung: str) -> Step:
    """A job assessed at one rung."""
    case = claims.use_cases[name]
    source = f"{DATA}/narrow/{case.source}" if "." in case.source else case.source
    # An interrupted assessment goes on where it stood; one that has not begun begins.
    flags, budget = shlex.split(case.flags), ("--budget", f"{_SLACK * case.minutes[rung]:g}m")
    out = f"{OUT}/{name}-{rung}"
    arguments = ("assess", source, "--rungs", rung, *flags, *budget, "--out", out, "--resume", "--json")
    return Step(f"job:{name}/{rung}", f"{USE_CASES}/{name}-{rung}/assessment.json", arguments, case.minutes[rung])


def _reachable(step: Step, models: Path | None, data: Path | None) -> Step:
    """The step, with the reason why it cannot be made where there is one."""
    why = ""
    for word in step.arguments:
        folder, _, rest = word.partition("/")
        if folder == MODELS and models is not None and not (models / rest / "model.safetensors").is_file():
            why = f"no finished model {rest}; benchmarks/own_models.py trains our own"
        if folder == DATA and rest and data is not None and not (data / rest).exists():
            why = f"{data / rest} is not there"
    return Step(step.key, step.file, step.arguments, step.minutes, why) if why else step


def show_plan(steps: Sequence[Step]) -> list[str]:
    """One line a step: estimated minutes and the command, or why it cannot be made."""
    return [
        f"{s.minutes:5.1f} min  {s.command}" + (f"   # not possible: {s.missing}" if s.missing else "") for s in steps
    ]


def run(
    steps: Sequence[Step], results: Path, models: Path, data: Path, work: Path, say: Callable[[str], None]
) -> Iterator[Step]:
    """Make the measurements, one after another; what is stored is not made again.

    Args:
        steps: Of `plan`.
        results: Where they are stored.
        models: Folder of the model directories.
        data: Folder of the public data.
        work: Folder of the assessments' runs.
        say: Told of every command.

    Yields:
        Every step that was made.

    Raises:
        SmallfryError: A command failed; what was measured before is stored.
    """
    folders = {MODELS: models.resolve(), DATA: data.resolve(), OUT: work.resolve()}
    for step in steps:
        if step.missing or (results / step.file).exists():
            continue
        say(f"{step.minutes:.1f} min: {step.command}")
        found = _measure([_placed(word, folders) for word in step.arguments], step)
        kept = placeless(_stored(step, found, folders), folders)
        write_atomic(results / step.file, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        yield step


def placeless(value: Any, folders: Mapping[str, Path]) -> Any:
    """Plain data in which texts name this machine's folders by what they hold.

    Args:
        value: Plain data.
        folders: Absolute paths by the names that stand for them.
    """
    if isinstance(value, dict):
        return {placeless(key, folders): placeless(one, folders) for key, one in value.items()}
    if isinstance(value, list):
        return [placeless(one, folders) for one in value]
    if isinstance(value, str):
        for name, folder in folders.items():
            value = re.sub(rf"{re.escape(str(folder))}(?=/|$|\W)", name, value)
    return value


def _placed(word: str, folders: dict[str, Path]) -> str:
    folder, slash, rest = word.partition("/")
    return str(folders[folder] / rest) if folder in folders and (slash or not rest) else word


def _measure(arguments: Sequence[str], step: Step) -> dict[str, Any]:
    """The JSON object on a command's last line; its tables and errors go to the terminal."""
    made = subprocess.run(
        [sys.executable, "-m", "smallfry", *arguments], stdout=subprocess.PIPE, text=True, env=os.environ, check=False
    )
    lines = made.stdout.strip().splitlines()
    if made.returncode or not lines:
        raise SmallfryError(
            f"{step.command}: ended with code {made.returncode}; mend what it says above and run the same command again"
        )
    try:
        found = json.loads(lines[-1])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SmallfryError(f"{step.command}: its last line is not a JSON object; run it alone to see what it prints")
    return found


def _stored(step: Step, found: dict[str, Any], folders: dict[str, Path]) -> dict[str, Any]:
    """What is kept: a suite's own JSON, an assessment's parts without curves; no path of this machine."""
    if step.arguments[0] == "assess":
        run_dir = _placed(step.arguments[step.arguments.index("--out") + 1], folders)
        record = read_json(Path(run_dir) / "assessment.json")
        rows = [{k: v for k, v in row.items() if k not in _ROW_DROPS} for row in record["rows"]]
        rung = step.arguments[step.arguments.index("--rungs") + 1]
        if not any(row["name"] == rung for row in rows):
            raise SmallfryError(f"{step.command}: no model of that size, so nothing is stored. {record['advice']}")
        job = record["job"] | {"source": Path(str(record["job"].get("source", ""))).name}
        return {k: record[k] for k in _KEPT if k in record} | {"command": step.command, "rows": rows, "job": job}
    name = Path(step.arguments[1]).name
    config = folders[MODELS] / name / "model.safetensors"
    return found | {"model": name, "command": step.command, "params": count_parameters(config)}


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file, read from its header alone."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        total = 0
        for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
            size = 1
            for length in file.get_slice(key).get_shape():
                size *= length
            total += size
        return total
