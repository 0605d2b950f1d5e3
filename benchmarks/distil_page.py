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
    keys = [(name, key) for name, e in done.items() for key in e if " against " in key]
    adjusted = dict(zip(keys, holm([done[name][key]["p"] for name, key in keys]), strict=True))

    def lead(name: str, key: str) -> str:
        found = done[name].get(key)
        return f"{points(found)}, p {p_text(adjusted[name, key])}" if found else ""

    lines = [
        "| job | arm | rows | steps | test, mean (seeds) | student's lead over it | its lead over alone |",
        "|" + "---|" * 7,
    ]  # fmt: skip
    for name, entry in done.items():
        for arm in ("student", *entry.get("controls", ()), "alone", "long"):
            if not entry[arm] or any("test" not in r for r in entry[arm]):
                continue
            first = entry[arm][0]
            what = "**student**: " * (arm == "student") + first["label"]
            cells = [name, what, f"{first['rows']:,}", f"{first['steps']:,}", percent([r["test"] for r in entry[arm]])]
            cells += [lead(name, f"student against {arm}"), lead(name, f"{arm} against alone")]
            lines.append(f"| {' | '.join(cells)} |")
        for who, found in entry.get("beside", {}).items():
            over = points(found["student"]) if found["student"] else ""
            rows = "" if who != "svm" else f"{entry['n_train']:,}"
            lines.append(f"| {name} | {who} | {rows} | | {100 * found['test']:.1f} | {over} | |")
    return lines


def findings(record: dict[str, Any]) -> list[str]:
    """What was found, a sentence a job that was asked its test rows."""
    found = []
    for name, e in record["jobs"].items():
        if "student against alone" not in e:
            continue
        mine, alone = (100 * sum(r["test"] for r in e[k]) / len(e[k]) for k in ("student", "alone"))
        text = f"- **{name}**: the student answers {mine:.1f}% of {e['n_test']:,} test rows, alone it answers "
        text += f"{alone:.1f}% ({points(e['student against alone'])})."
        for arm in e.get("controls", ()):
            if f"student against {arm}" in e:
                text += f" Against *{arm}* its lead is {points(e[f'student against {arm}'])}."
        for who, one in e.get("beside", {}).items():
            whose = "A linear SVM on the labelled rows" if who == "svm" else who.capitalize()
            text += f" {whose}: {100 * one['test']:.1f}%."
        found.append(text)
    return found


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
        *findings(record),
        "- With all labels there was nothing to gain on validation rows of banking77 (below); no test row was asked.",
        "",
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
        "one, and for controls that nothing was chosen by: a student of nothing but one teacher's labels, and one of",
        "a larger teacher. Differences are paired over rows and widened by the spread over seeds; they do not cover",
        "another choice of labelled rows or other teachers, of which there is one.", "",
        *verdict_lines(record), "",
    ]  # fmt: skip
    for name, entry in record["jobs"].items():
        lines += [f"## {name}", ""]
        if "n_train" in entry:
            rows = f"{entry['n_train']:,} training and {entry['n_valid']:,} validation rows."
            stopped = "" if "n_test" in entry else " Stopped after the arms of seed 0; the test rows were not asked."
            lines += [rows + stopped, ""]
        lines += ["| trained | seed | steps | seconds | valid | test |", "|" + "---|" * 6]
        for kind in ("teachers", "alone", "tried", "student", *entry.get("controls", ()), "long"):
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
