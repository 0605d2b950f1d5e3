"""docs/results/distil.md, as the record of benchmarks/distil.py has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def percent(values: Sequence[float]) -> str:
    """Scores of seeds and their mean."""
    shown = ", ".join(f"{100 * v:.1f}" for v in values)
    return f"{100 * sum(values) / len(values):.1f} ({shown})" if len(values) > 1 else shown or "-"


def verdict_lines(record: dict[str, Any]) -> list[str]:
    """A line a job and arm: what it had, what it scores on test rows, and what that is beside the model alone."""
    from smallfry.evals.paired import holm

    done = {name: e for name, e in record["jobs"].items() if "student against alone" in e}
    keys = [(name, key) for name, e in done.items() for key in e if key.startswith("student against")]
    adjusted = dict(zip(keys, holm([done[name][key]["p"] for name, key in keys]), strict=True))
    lines = [
        "| job | test rows | arm | rows | steps | test, mean (seeds) | student's lead | p (Holm) |", "|" + "---|" * 8,
    ]  # fmt: skip
    for name, entry in done.items():
        for arm in ("student", "alone", "long"):
            if any("test" not in r for r in entry[arm]):
                continue
            first, lead = entry[arm][0], entry.get(f"student against {arm}")
            scores = percent([r["test"] for r in entry[arm]])
            cells = [name, f"{entry['n_test']:,}", first["label"], f"{first['rows']:,}", f"{first['steps']:,}", scores]
            cells += [points(lead), p_text(adjusted[name, f"student against {arm}"])] if lead else ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def p_text(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def points(found: dict[str, Any]) -> str:
    """A difference with its interval, in points."""
    low, high = found["ci"]
    return f"{100 * found['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    machine = record["machine"]
    lines = [
        "# A student and its teachers", "",
        f"Written by `python benchmarks/distil.py --data DIR`: {record['size']} models, {len(record['seeds'])} seeds, "
        f"{machine['cpu']}, bf16 where it has it. Scores are per cent of rows",
        "right. A student is the same model as the one alone: same tokenizer, form, recipe, seeds and, where its",
        "name says nothing else, number of steps; the model alone is also trained for as many steps as teachers",
        "and student had together. Teachers are trained on the same rows with other seeds. Of a job `NAME, 10",
        "labelled` ten training rows of each label keep their label: all that teachers and the models alone learn",
        "from; arms are still chosen on all validation rows, which have theirs. The further",
        "inputs are the other rows', without their labels, or, where every row has its label, new ones that are",
        "spliced from them. `share` is the part of the loss that is the teachers', `T` the temperature that",
        "softens what they say. Arms are chosen on validation rows with seed 0, test rows are asked for the chosen",
        "one only. Differences are paired over rows and widened by the spread over seeds; they do not cover another",
        "choice of labelled rows or other teachers, of which there is one.", "",
        *verdict_lines(record), "",
    ]  # fmt: skip
    for name, entry in record["jobs"].items():
        lines += [f"## {name}", ""]
        if "n_train" in entry:
            rows = f"{entry['n_train']:,} training and {entry['n_valid']:,} validation rows."
            stopped = "" if "n_test" in entry else " Stopped after the arms of seed 0; the test rows were not asked."
            lines += [rows + stopped, ""]
        lines += ["| trained | seed | steps | seconds | valid | test |", "|" + "---|" * 6]
        for kind in ("teachers", "alone", "tried", "student", "long"):
            for r in entry.get(kind, ()):
                who = f"teacher {r['size']}" if kind == "teachers" else r["label"]
                who = f"**{who}**" if r["label"] == entry.get("chosen") else who
                if kind == "student" and r["seed"] == 0:
                    continue  # among those tried
                test = f"{100 * r['test']:.2f}" if "test" in r else "-"
                lines.append(
                    f"| {who} | {r['seed']} | {r['steps']:,} | {r['seconds']:.0f} | {100 * r['valid']:.2f} | {test} |"
                )
        lines.append("")
    return "\n".join(lines)
