"""The curves of our own trainings, from their stored records: bits per byte, and problems solved while reinforcing.

    python benchmarks/curves.py [--docs DIR]

Reads DOCS/results/own/<model>/training.json and writes pretraining.svg, reinforcing.svg and README.md beside them.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from smallfry.report.svg import Drawing, Scale

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720.0, 380.0, 60.0, 170.0, 34.0, 44.0
COLOURS = ("#3f6db5", "#c26a1f", "#3a8f4d", "#a03f7a", "#6a6a6a", "#8a7a1f")
TEXT = "text { font: 13px sans-serif; fill: #888 } path { fill: none; stroke-width: 2 } .grid { stroke: #8884 }"

KINDS = {"likeliest": "greedy", "one drawn": "pass@1", "any of 8": "pass@8", "reward": "train_reward"}

Curve = tuple[str, list[tuple[float, float]]]


def draw(own: Path, name: str, title: str, unit: tuple[str, str], curves: list[Curve], low: float, high: float) -> None:
    """Write one figure.

    Args:
        own: Folder of the models' records.
        name: Of the file.
        title: For readers that cannot see it.
        unit: What the axes count: across and up.
        curves: Each with its label.
        low: Bottom of the vertical axis.
        high: Top of it.
    """
    most = max(x for _, points in curves for x, _ in points)
    x = Scale(0.0, most, LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    style = TEXT + "".join(f" .c{i} {{ stroke: {colour} }}" for i, colour in enumerate(COLOURS))
    drawing = Drawing(WIDTH, HEIGHT, name, title, title)
    drawing.add("style").text = style
    for value in y.ticks(6):
        drawing.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")
        drawing.text(f"{value:g}", LEFT - 8, y(value) + 4, anchor="end")
    for value in x.ticks(5):
        drawing.text(f"{value:g}", x(value), HEIGHT - BOTTOM + 20, anchor="middle")
    drawing.text(unit[0], (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, anchor="middle")
    drawing.text(unit[1], 8, 18)
    for i, (label, points) in enumerate(curves):
        drawing.path([(x(a), y(min(high, max(low, b)))) for a, b in points], f"c{i}")
        at = TOP + 16 + 22 * i
        drawing.path([(WIDTH - RIGHT + 12, at - 4), (WIDTH - RIGHT + 40, at - 4)], f"c{i}")
        drawing.text(label, WIDTH - RIGHT + 46, at)
    (own / f"{name}.svg").write_text(drawing.render() + "\n", encoding="utf-8")


def records(own: Path) -> dict[str, dict[str, Any]]:
    """Every stored training by model."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(own.glob("*/training.json"))
    }  # fmt: skip


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """A line a model: how it was made."""
    lines = ["| model | parameters | tokens | held out | command |", "|---|---|---|---|---|"]
    for name, record in found.items():
        held = record.get("held_out") or {}
        bits = f"{held['bits_per_byte']:.3f} {_ends(held)} bits per byte" if "bits_per_byte" in held else ""
        after = record.get("after")
        if isinstance(after, dict) and "loss" in after:
            bits = f"{after['loss']:.3f} {_ends(after)} nats a token of answers"
        size = record.get("params") or record.get("parameters") or 0
        tokens = f"{record['tokens']:,}" if "tokens" in record else ""
        lines.append(f"| {name} | {size:,} | {tokens} | {bits} | `{record['command']}` |")
    return lines


def _ends(measure: dict[str, Any]) -> str:
    """A 95% interval."""
    low, high = measure["ci"]
    return f"[{low:.2f}, {high:.2f}]"


def solved(found: dict[str, dict[str, Any]]) -> list[str]:
    """A line a reinforcement: held-out problems solved before and after, the difference with its interval."""
    lines = [
        "| model | problems | likeliest answer | change | one drawn answer | change | any of 8 |",
        "|" + "---|" * 7,
    ]
    for name, record in found.items():
        test = record["tests"]["test"]
        cells = [name, str(test["before"]["n"])]
        for key in ("greedy", "drawn"):
            difference, low, high = (f"{100 * test[key][k]:+.1f}" for k in ("difference", "low", "high"))
            cells += [f"{_percent(test, key)}", f"{difference} [{low}, {high}]"]
        lines.append(f"| {' | '.join([*cells, _percent(test, 'any')])} |")
    return lines


def _elsewhere(found: dict[str, dict[str, Any]]) -> list[str]:
    """What other problems than those it was rewarded for say, where they were asked."""
    lines = [
        f"GSM8K, {test['before']['n']} test problems, {name}: likeliest answer {_percent(test, 'greedy')}, one drawn "
        f"{_percent(test, 'drawn')}, any of 8 {_percent(test, 'any')}."
        for name, record in found.items() if (test := record["tests"].get("gsm8k"))
    ]  # fmt: skip
    return [*lines, ""] if lines else []


def _percent(test: dict[str, Any], key: str) -> str:
    return " to ".join(f"{100 * test[when][key]:.1f}%" for when in ("before", "after"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the results")
    own = parser.parse_args().docs / "results" / "own"
    found = records(own)
    pretrained = [
        (name, [(p["tokens"] / 1e6, p["bits_per_byte"]) for p in record["curve"] if p.get("bits_per_byte")])
        for name, record in found.items() if "held_out" in record and not re.search(r"-s\d+$", name)
    ]  # fmt: skip
    draw(own, "pretraining", "Bits per byte of held-out text while training", ("million tokens", "bits per byte"),
         [(n, c) for n, c in pretrained if c], 0.5, 2.5)  # fmt: skip
    page = [
        "# Our own models", "",
        "Made by `python benchmarks/own_models.py --data DATA --models MODELS`, measured by `smallfry claims --run`.",
        "Each folder has the record of a training (settings, seed, curve, data hashes) and, where it was asked, what",
        "`smallfry eval` said of the model, each with its command; stories260K is imported. A name that ends in `-s1`",
        "or `-s2` is another seed of the same training. This page is written by `python benchmarks/curves.py`.",
        "", *table(found), "",
        "Brackets are 95% intervals. Nats a token compare only models of one vocabulary: general-1m and chat-1m have",
        "2,048 tokens, general-5m and chat-5m 4,096. general-1m and general-5m (seed 0) were trained when sections of",
        "long documents were still held out one by one, with their neighbours in training: their bits per byte are",
        "somewhat too good.", "",
        "![Bits per byte while training](pretraining.svg)", "",
        "The curves are of a part of the held-out text, the table of all of it.", "",
    ]  # fmt: skip
    reinforced = {name: record for name, record in found.items() if "tests" in record}
    if reinforced:
        name, record = next(iter(reinforced.items()))
        shown = [
            (label, [(float(p["step"]), 100 * p["more"][key]) for p in record["curve"]]) for label, key in KINDS.items()
        ]  # fmt: skip
        draw(own, "reinforcing", f"Solved problems while reinforcing {name}", ("steps", "per cent"), shown, 0.0, 100.0)
        page += [
            "Held-out problems before and after rewards; intervals are those of the problems that were drawn.", "",
            *solved(reinforced), "", *_elsewhere(reinforced),
            f"{name} while it was reinforced, from the 20th step on: validation problems solved, and the reward of its",
            "own answers.", "",
            f"![Solved problems while reinforcing {name}](reinforcing.svg)", "",
        ]  # fmt: skip
    (own / "README.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
