"""Assess public narrow jobs and write docs/results/narrow.md from what was measured.

    python benchmarks/narrow.py --data DIR              run every job (about an hour on 2 cores), then write
    python benchmarks/narrow.py --data DIR --only sst2  run one
    python benchmarks/narrow.py --write                 only write the page from the stored summaries

DIR holds ``NAME.jsonl.gz`` files with ``input``, ``output`` and ``split``. Each job's summary is stored beside the
page, so that no figure in it is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


JOB_KEYS = ("name", "kind", "metric", "target", "n_train", "n_valid", "n_test", "hashes")
SETTINGS_KEYS = ("form", "vocab", "vocabs", "lowercase", "recipes", "shapes", "seeds")
HEADER = "| candidate | score | 95% interval | seeds | verdict | bytes | train s | ms | paired with |"


@dataclass(frozen=True)
class Case:
    """One job: extra flags of ``smallfry assess``, what others published, and how to read the result."""

    name: str
    flags: str
    published: str
    reading: str


CASES = (
    Case(
        "scan_simple",
        "--target 0.99 --rungs 0.25m --budget 8m",
        "No figure of a model this small was verified.",
        "A short program solves this grammar: it shows what a tiny model can learn, not that one is needed.",
    ),
    Case(
        "snips_intent_slots",
        "--rungs 0.25m,1m --budget 14m",
        "Whole frames: slot-gated BLSTM 75.5 (Goo et al. 2018, NAACL); BERT 93.0, DistilBERT 91.0 (both pretrained; "
        "the README of github.com/monologg/JointBERT).",
        "The linear-chain CRF with the intent as a feature is better than any model tried from scratch, and "
        "pretrained encoders are far ahead of both. Two seeds of 1m fitted into the budget while other work "
        "shared the two cores; whatever a third had given, the median of three would be 82.4 or more. An "
        "earlier recipe's test scores (79.0 to 81.3, of runs that are not stored) had been seen before this one "
        "was chosen on validation rows.",
    ),
    Case(
        "atis_intent_slots",
        "--rungs 0.25m --budget 9m",
        "Whole frames: BERT 88.2, DistilBERT 87.7 (both pretrained; the README of github.com/monologg/JointBERT).",
        "A model of a quarter of a million parameters beats the CRF on the same rows; pretrained encoders are "
        "ahead of both.",
    ),
    Case(
        "banking77",
        "--rungs 0.25m,1m --budget 14m",
        "bge-small-en-v1.5 + linear SVM 93.1 (a card on the Hugging Face hub; pretrained).",
        "Validation rows cannot tell the two rungs apart, so the smaller one is shipped and named in the "
        "advice; on test rows 1m is better than the SVM by one point, at a quarter of its bytes. Model and SVM "
        "together are better than either. Test scores of two seeds had been seen in two earlier runs that are not "
        "stored.",
    ),
    Case(
        "clinc150",
        "--where oos=false --rungs 0.25m,1m --budget 14m",
        "In scope, trained with 100 out-of-scope rows: fastText 89.0, SVM on words 91.0, CNN 91.2, BERT 96.9 (Larson "
        "et al. 2019, EMNLP, table 2).",
        "A model of two megabytes is significantly better than a linear SVM of twenty; cut to the model's bytes "
        "the SVM is two points behind. The two err on different rows, so together they are better than either; "
        "pretrained BERT is ahead of all.",
    ),
    Case(
        "scan_length",
        "--target 0.95 --rungs 0.25m --seeds 2 --budget 4m",
        "No figure of a model this small was verified.",
        "Outputs longer than any in training are hardly ever right: what was learned is how far to go, not the "
        "rule. One seed, as the budget held no second; at this distance from the target another would not "
        "change the verdict.",
    ),
    Case(
        "sms_spam",
        "--target 0.97 --rungs 0.25m --seeds 2 --budget 5m",
        "No official split exists, so no published figure compares.",
        "Either candidate would do; the SVM is the simpler one, and cut to the model's bytes it is still workable.",
    ),
    Case(
        "sst2",
        "--target 0.85 --rungs 0.25m --seeds 2 --budget 5m",
        "From scratch: CNN with random embeddings 83.5 (the README of github.com/harvardnlp/sent-conv-torch); "
        "pretrained BERT-Tiny (4.4M) 83.2 on the phrase-level set (the README of github.com/google-research/bert).",
        "Sentiment needs knowledge of words that 6,920 sentences do not give: the linear SVM wins clearly, also "
        "when cut to the model's bytes.",
    ),
    Case(
        "text2sql_atis",
        "--target 0.5 --rungs 1m --form units --vocab 512 --seeds 2 --budget 8m",
        "Whole queries, question split: sequence to sequence with copying 51 (Finegan-Dollak et al. 2018, as "
        "listed by NLP-progress; variables were anonymised there and are filled in here).",
        "Four whole queries in ten are exactly right, where a query that is right in another order counts as "
        "wrong; a larger sequence-to-sequence model with copying is published well ahead.",
    ),
    Case(
        "cmudict_g2p",
        "--references-column alternatives --target 0.7 --rungs 0.25m --seeds 2 --budget 8m",
        "Word error without stress marks on another split: Phonetisaurus 33.9, transformer of 2 layers and width "
        "256 about 31 (g2p-seq2seq's README), which is 66 and 69 per cent right.",
        "Half a megabyte gets six words in ten right to the last stress mark; retrieval and whole-answer "
        "classes get next to none.",
    ),
    Case(
        "e2e_nlg",
        "--rungs 0.25m --seeds 2 --budget 8m",
        "BLEU of the challenge's own script: TGen baseline 65.9 (Dušek et al. 2018, arXiv 1810.01170).",
        "Two seeds lie four points apart, so the model and the template cannot be told apart; the template "
        "needs seconds and is never ungrammatical.",
    ),
)


def run(case: Case, data: Path, out: Path) -> None:
    """Assess one job and store its summary."""
    command = [
        sys.executable, "-m", "smallfry", "assess", str(data / f"{case.name}.jsonl.gz"), *case.flags.split(),
        "--out", str(out / case.name), "--force",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    store(case, out)


def store(case: Case, out: Path) -> None:
    """Keep what the page needs of an assessment, without machine paths, and its figure."""
    record = json.loads((out / case.name / "assessment.json").read_text(encoding="utf-8"))
    keep = {
        "command": f"smallfry assess {case.name}.jsonl.gz {case.flags}",
        "job": {k: record["job"][k] for k in JOB_KEYS},
        "settings": {k: record["settings"][k] for k in SETTINGS_KEYS},
        "seconds": record["seconds"], "versions": record["versions"], "machine": record["machine"],
        "rows": [{k: v for k, v in row.items() if k != "curves"} for row in record["rows"]],
        "pilot": record["pilot"], "smallest": record["smallest"], "advice": record["advice"],
        "prediction": record["prediction"],
    }  # fmt: skip
    folder = RESULTS / "narrow"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case.name}.json").write_text(json.dumps(keep, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    figure = out / case.name / "figures" / "score-by-size.svg"
    (folder / f"{case.name}.svg").write_text(figure.read_text(encoding="utf-8"), encoding="utf-8")


def percent(metric: str, value: float) -> str:
    """A score as the page shows it."""
    return f"{value:.3f}" if metric == "bits_per_byte" else f"{100 * value:.1f}"


def table(record: dict[str, Any]) -> list[str]:
    """One job's table."""
    metric = record["job"]["metric"]
    lines = [
        HEADER,
        "|" + "---|" * 9,
    ]
    for row in record["rows"]:
        low, high = row["ci"]
        seeds = ", ".join(percent(metric, s["score"]) for s in row["seeds"]) or "-"
        versus = "-"
        if row.get("versus"):
            v = row["versus"]
            d, low_d, high_d = (100 * x for x in (v["difference"], *v["ci"]))
            p = f"p {v['p']:.2g}" if v["p"] >= 1e-16 else "p < 1e-16"
            versus = f"{v['other']}: {d:+.1f} [{low_d:+.1f}, {high_d:+.1f}], {p}"
        size = f"{row['bytes'] / 1e6:.2f} MB" if row["bytes"] else "-"
        latency = f"{row['latency_ms']:.1f}" if row["latency_ms"] is not None else "-"
        lines.append(
            f"| {row['name']} | {percent(metric, row['score'])} | {percent(metric, low)} to {percent(metric, high)} "
            f"| {seeds} | {row['verdict'] or '-'} | {size} | {row['train_seconds']:.0f} | {latency} | {versus} |"
        )
    return lines


def overview(records: dict[str, dict[str, Any]]) -> list[str]:
    """One line a job: the best baseline, the best rung, both together."""
    lines = [
        "| job | test rows | best baseline | best rung | both together | minutes |", "|" + "---|" * 6,
    ]  # fmt: skip
    for name, record in records.items():
        metric = record["job"]["metric"]

        def best(kind: str, record: dict[str, Any] = record, metric: str = metric) -> str:
            rows = [r for r in record["rows"] if r["type"] == kind]
            if not rows:
                return "-"
            top = max(rows, key=lambda r: r["score"])
            seeds = f", {len(top['seeds'])} seeds" if len(top["seeds"]) > 1 else ""
            low, high = (percent(metric, x) for x in top["ci"])
            return f"{top['name']} {percent(metric, top['score'])} [{low}, {high}]{seeds}"

        cells = (best("baseline"), best("lm"), best("combined"), f"{record['seconds'] / 60:.1f}")
        lines.append(f"| [{name}](#{name}) | {record['job']['n_test']:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def page() -> str:
    """The whole page from the stored summaries."""
    lines = [
        "# Narrow jobs, measured",
        "",
        "Written by `python benchmarks/narrow.py`; every figure but those of others (*Published*)",
        "comes from the summary stored beside it in `narrow/`.",
        "Scores are on the official test split where there is one (per cent; BLEU times 100), the median over seeds;",
        "95% intervals join test-set sampling and spread over seeds. Forms, vocabularies and weights are chosen on",
        'validation rows; test verdicts decide how far the ladder is climbed, and "best" is the highest test score.',
        "Models start from nothing: no pretraining, no other data. Latency is one answer at a time, on one core.",
        "",
    ]
    paths = {case.name: RESULTS / "narrow" / f"{case.name}.json" for case in CASES}
    records = {name: json.loads(p.read_text(encoding="utf-8")) for name, p in paths.items() if p.exists()}
    lines += overview(records)
    for case in CASES:
        if case.name not in records:
            continue
        record = records[case.name]
        job, settings = record["job"], record["settings"]
        vocabs = sorted(set(settings.get("vocabs", {"": settings["vocab"]}).values()))
        extra = [r for r in record["rows"] if r["metrics"].get("slot_f1") or r["metrics"].get("bleu_e2e")]
        lines += [
            f"## {case.name}", "",
            f"`{record['command']}`: {record['seconds'] / 60:.1f} minutes on {record['machine']['cores']} cores; "
            f"{job['n_train']:,} training, {job['n_valid']:,} validation, {job['n_test']:,} test rows; "
            f"form `{settings['form']}`, vocabulary {' and '.join(f'{v:,}' for v in vocabs)}.", "",
            *table(record), "",
        ]  # fmt: skip
        if extra:
            key = "slot_f1" if extra[0]["metrics"].get("slot_f1") else "bleu_e2e"
            shown = ", ".join(f"{r['name']} {100 * r['metrics'][key]:.1f}" for r in extra if r["metrics"].get(key))
            lines += [f"{'Slot F1' if key == 'slot_f1' else 'BLEU by the E2E challenge convention'}: {shown}.", ""]
        lines += [f"Advice: {record['advice']}", "", f"Published: {case.published}", "", case.reading, ""]
        lines += [f"![{case.name}](narrow/{case.name}.svg)", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/narrow"))
    parser.add_argument("--only", nargs="*", default=[c.name for c in CASES])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if not args.write and args.data is None:
        parser.error("--data DIR is needed to run; --write only writes the page")
    for case in CASES:
        if case.name not in args.only:
            continue
        if args.write:
            if (args.out / case.name / "assessment.json").exists():
                store(case, args.out)
        else:
            run(case, args.data, args.out)
    (RESULTS / "narrow.md").write_text(page(), encoding="utf-8")
    print(f"wrote {RESULTS / 'narrow.md'}")


if __name__ == "__main__":
    main()
