"""Every suite for trained models and for the candidates that know nothing; writes docs/results/controls.md.

    python benchmarks/controls.py --data DIR --models stories-1m=runs/stories-1m,text-1m=runs/text-1m
    python benchmarks/controls.py --page                write the page again from the stored results

DIR holds ``evals/``, ``stories/`` and ``text/``. One JSON file a suite and model is kept in docs/results/controls; what
is there already is not measured again. Models come from benchmarks/language_models.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

RESULTS = Path(__file__).parents[1] / "docs" / "results"
STORE = RESULTS / "controls"
SUITES: dict[str, dict[str, Any]] = {
    "core": {"limit": 300}, "blimp": {"limit": 200}, "lambada": {"limit": 2000}, "chatcore": {"limit": 60},
    "humaneval": {}, "stories": {"limit": 300},
}  # fmt: skip
TEXTS = {"bpb wikitext-2": "text/wikitext2_raw.jsonl.gz", "bpb stories": "stories/tinystories_valid.jsonl.gz"}
EXPECTED = {"v1": -0.001, "v2": -0.026}  # CORE of uniform guessing, from the numbers of choices and the baselines
GUESSES = 4  # seeds of the guesser


def measure(suite: str, model: Path, data: Path, precision: str) -> dict[str, Any]:
    """One suite for one model, controls included."""
    from smallfry.evals.suites.command import EvalSettings, run_suite

    console = Console(quiet=True)
    start = time.perf_counter()
    settings: dict[str, Any] = dict(SUITES.get(suite, {}))
    name = suite
    if suite in TEXTS:
        name, settings["text"] = "bpb", held_out(data / TEXTS[suite])
    found = run_suite(
        EvalSettings(name, (model,), data_dir=data, precision=precision, **settings), console  # type: ignore[arg-type]
    )  # fmt: skip
    found.pop("written", None)
    return {**found, "suite": suite, "limit": settings.get("limit"), "seconds": time.perf_counter() - start}


def held_out(path: Path) -> Path:
    """The rows of a corpus that models are not trained on, as a file of their own."""
    import gzip
    import tempfile

    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = [row for row in rows if row["split"] in ("valid", "test")][:400]
    out = Path(tempfile.mkdtemp()) / "held_out.jsonl"
    out.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in chosen), encoding="utf-8")
    return out


def guesses(data: Path, like: Path) -> list[dict[str, float]]:
    """CORE of guessers with several seeds."""
    from smallfry.evals.suites import sources
    from smallfry.evals.suites.measure import measure_suite
    from smallfry.evals.suites.models import load_language_model
    from smallfry.evals.suites.scoring import GuessingModel

    tasks, _ = sources.core_tasks(sources.Data.find(data))
    model = load_language_model(like)
    found = []
    for seed in range(GUESSES):
        result = measure_suite("core", GuessingModel(model, seed), tasks, "v1", limit=300)
        found.append({v: result.score(v) * len(tasks) / 22 for v in EXPECTED})  # CoQA guessed scores nothing
    return found


def page() -> str:
    """docs/results/controls.md from what is stored."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(STORE.glob("*.json"))]
    by_suite: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["suite"] != "guesses":
            by_suite.setdefault(result["suite"], []).append(result)
    lines = [
        "# Every suite, beside candidates that know nothing", "",
        "Written by `python benchmarks/controls.py --data DIR --models NAME=DIR,...`. Controls stand below the first "
        "model of each suite: uniform guessing, the most frequent answer, and a model of the same shape that was never "
        "trained. Intervals are 95%. Tasks that could not leave their floor were broken off early. The stories "
        "and text models are trained by `benchmarks/language_models.py`, one seed each; the question here is what the "
        "suites can tell apart, not what such models could reach.", "",
    ]  # fmt: skip
    for suite in (*SUITES, *TEXTS):
        if suite in by_suite:
            lines += section(suite, by_suite[suite])
    guessed = [r for r in results if r["suite"] == "guesses"]
    if guessed:
        lines += guess_section(guessed[0]["scores"])
    return "\n".join(lines) + "\n"


def section(suite: str, results: list[dict[str, Any]]) -> list[str]:
    limit = results[0]["limit"]
    title = f"## {suite}" + (f" (at most {limit:,} questions a task)" if limit else "")
    if suite in TEXTS:
        lines = [title, "", "| candidate | bits per byte | 95% interval |", "|---|---|---|"]
        for result in results:
            low, high = result["ci"]
            lines.append(f"| {result['name']} | {result['score']:.3f} | {low:.3f} to {high:.3f} |")
        fresh = results[0]["controls"]["untrained"]
        return [*lines, f"| untrained | {fresh['score']:.3f} | {fresh['ci'][0]:.3f} to {fresh['ci'][1]:.3f} |",
                "| guessing bytes | 8.000 | |", ""]  # fmt: skip
    versions = list(results[0]["versions"]) if suite == "core" else []
    names = [m["name"] for m in results[0]["measures"]]
    head = ["candidate", "score", "95% interval", *(f"score {v}" for v in versions[1:]), *names]
    tasks = [t["name"] for t in results[0]["tasks"]] if len(results[0]["tasks"]) <= 6 else []
    head += tasks if len(tasks) > 1 else []
    lines = [title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    controls = results[0]["controls"]
    for name, result in [*((r["name"], r) for r in results), *controls.items()]:
        low, high = result["ci"]
        cells = [name, f"{result['score']:.4f}", f"{low:.4f} to {high:.4f}"]
        cells += [f"{result['versions'][v]['score']:.4f}" for v in versions[1:]]
        measures = {m["name"]: m for m in result["measures"]}
        cells += [f"{measures[n]['value']:.3f}" if n in measures else "" for n in names]
        scores = {t["name"]: t["accuracy"] for t in result["tasks"]}
        cells += [f"{scores[t]:.3f}" for t in tasks] if len(tasks) > 1 else []
        lines.append("| " + " | ".join(cells) + " |")
    true = {m["name"]: m["reference"] for m in results[0]["measures"] if "reference" in m}
    if true:
        lines += ["", "The true stories have " + ", ".join(f"{k} {v:.3f}" for k, v in true.items()) + "."]
    return [*lines, "", *(core_tasks(results) if suite == "core" else [])]


def core_tasks(results: list[dict[str, Any]]) -> list[str]:
    """CORE task by task: accuracies, with a star where the task was broken off at its floor."""
    candidates = [*((r["name"], r) for r in results), *results[0]["controls"].items()]
    head = ["task", "n", *(name for name, _ in candidates)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for at, task in enumerate(results[0]["tasks"]):
        cells = [task["name"], f"{task['n']:,}"]
        for _, result in candidates:
            mine = result["tasks"][at]
            cells.append(f"{mine['accuracy']:.3f}" + ("*" if mine["stopped"] else ""))
        lines.append("| " + " | ".join(cells) + " |")
    missing = ", ".join(results[0]["missing"])
    stars = "\\* broken off. " if any("*" in line for line in lines) else ""
    return [*lines, "", f"{stars}No data for {missing}: the score is over {len(results[0]['tasks'])} of 22.", ""]


def guess_section(scores: list[dict[str, float]]) -> list[str]:
    lines = ["## What guessing scores in CORE", "", "| baselines | expected | mean of seeds | standard error | seeds |",
             "|---|---|---|---|---|"]  # fmt: skip
    for version, expected in EXPECTED.items():
        values = np.array([s[version] for s in scores])
        error = values.std(ddof=1) / np.sqrt(len(values))
        each = ", ".join(f"{v:+.4f}" for v in values)
        lines.append(f"| {version} | {expected:+.3f} | {values.mean():+.4f} | {error:.4f} | {each} |")
    return [*lines, "", "CoQA, for which there is no data here, counts as 0, which is what guessing scores there.", ""]


def jobs(args: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    for part in args.models.split(","):
        name, _, path = part.partition("=")
        for suite in args.suites.split(",") if args.suites else (*SUITES, *TEXTS):
            yield suite, name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", default="")
    parser.add_argument("--suites", default="")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    STORE.mkdir(parents=True, exist_ok=True)
    if args.models and not args.page:
        for suite, name, path in jobs(args):
            out = STORE / f"{suite.replace(' ', '-')}-{name}.json"
            if not out.exists():
                found = measure(suite, path, args.data, args.precision)
                out.write_text(json.dumps({**found, "name": name, "model": name}, indent=1) + "\n", encoding="utf-8")
                print(f"{suite} {name}: {found['score']:.4f} in {found['seconds']:.0f} s", file=sys.stderr, flush=True)
        out = STORE / "guesses.json"
        if not out.exists():
            scores = guesses(args.data, Path(args.models.split(",")[0].partition("=")[2]))
            out.write_text(json.dumps({"suite": "guesses", "scores": scores}, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "controls.md").write_text(page(), encoding="utf-8")
    if args.json:
        print(json.dumps({path.stem: json.loads(path.read_text())["suite"] for path in sorted(STORE.glob("*.json"))}))


if __name__ == "__main__":
    main()
