"""Makes the model that comes with the package, from nothing: texts, pretraining, tuning, rounding, measuring.

    python benchmarks/shipped_model.py [--work runs/shipped] [--size 1m] [--tokens 24m] [--bits 8]

Everything is drawn from fixed seeds and every step is a command of smallfry's, so that the same machine makes the same
file. Finished steps in --work are kept and an interrupted one goes on. The model goes to src/smallfry/shipped/stories,
what was measured of it to docs/results/shipped.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from smallfry.builtin.conversations import make
from smallfry.builtin.stories import generate

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 1_500_000
HELD_OUT = 500  # stories and conversations
NAME = "smallfry-stories"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/shipped"))
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "smallfry" / "shipped" / "stories")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "shipped.json")
    parser.add_argument("--size", default="1m")
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--tokens", default="24m", help="of pretraining")
    parser.add_argument("--epochs", default="4", help="of tuning")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--stories", type=int, default=60_000)
    parser.add_argument("--talks", type=int, default=30_000)
    parser.add_argument("--limit", type=int, default=200, help="questions a task when it is measured")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which ends the step that runs too
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    texts(work, args.stories, args.talks)
    base, tuned = work / "base", work / "tuned"
    step(
        base, "pretrain", work / "corpus.jsonl", "--size", args.size, "--vocab", args.vocab, "--tokens", args.tokens,
        "--seq-len", args.seq_len, "--skip", "all", "--seed", 0,
    )  # fmt: skip
    step(tuned, "tune", base, "chat", "--epochs", args.epochs, "--seed", 0)
    smallfry("quantize", tuned, "--bits", args.bits, "--out", args.out, "--force")
    clean(args.out, work)
    found = {
        "command": "python benchmarks/shipped_model.py " + " ".join(
            f"--{name.replace('_', '-')} {getattr(args, name)}"
            for name in ("size", "vocab", "seq_len", "tokens", "epochs", "bits", "stories", "talks")
        ),
        "seconds": round(time.perf_counter() - begun, 1), **measured(args.out, tuned, work, args.limit),
    }  # fmt: skip
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(without(found, work), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    score = found["conversation"]["score"]
    print(f"{found['bytes']:,} bytes; bits per byte {found['bits_per_byte']}; conversation {score:.3f}")
    if found["bytes"] > MOST_BYTES:
        sys.exit(f"{found['bytes']:,} bytes are more than {MOST_BYTES:,}: take a smaller --size or --bits 4")
    if args.json:
        print(json.dumps(without(found, work), ensure_ascii=False))


def texts(work: Path, n_stories: int, n_talks: int) -> None:
    """The corpus, and held-out texts of combinations that it does not have."""
    if (work / "talks.held-out.jsonl").exists():
        return
    train, _, test = generate(0, n_stories, 1, HELD_OUT)
    write(work / "stories.held-out.jsonl", [row.output for row in test])
    talks = [as_text(talk) for talk in make(n_talks, 1, "train")]  # tuning sees those of seed 0
    write(work / "corpus.jsonl", [row.output for row in train] + talks)
    write(work / "talks.held-out.jsonl", [as_text(talk) for talk in make(HELD_OUT, 1, "test")])


def as_text(talk: list[dict[str, str]]) -> str:
    """A conversation as plain text, a line a turn."""
    return "\n".join(message["content"] for message in talk)


def write(path: Path, rows: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")


def step(out: Path, command: str, *words: Any) -> None:
    """A training step, unless it is finished; one that was interrupted goes on."""
    if (out / "model.safetensors").exists():
        print(f"{out}: is there already")
    elif out.exists():
        smallfry(command, "--out", out, "--resume")
    else:
        smallfry(command, *words, "--out", out)


def smallfry(*words: Any) -> str:
    """Run a command of smallfry's; its output is shown where it is not JSON."""
    told = [str(word) for word in words]
    print("smallfry", *told, flush=True)
    if "--json" not in told:
        subprocess.run([sys.executable, "-m", "smallfry", *told], check=True)
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "smallfry", *told], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return done.stdout.splitlines()[-1]


def clean(out: Path, work: Path) -> None:
    """Leave in the model directory what belongs into a package: a name of its own, no paths, no spaces in tables."""
    card = json.loads((out / "smallfry.json").read_text(encoding="utf-8"))
    card = {**without(card, work), "name": NAME}
    (out / "smallfry.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    (out / "tokenizer.json").write_text(
        json.dumps(table, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    for other in out.iterdir():
        if other.suffix not in (".json", ".fry"):
            shutil.rmtree(other) if other.is_dir() else other.unlink()


def without(value: Any, work: Path) -> Any:
    """Plain data without this machine's paths: what lies in the work folder is named from there, else by its name."""
    if isinstance(value, dict):
        return {key: without(child, work) for key, child in value.items()}
    if isinstance(value, list):
        return [without(child, work) for child in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    for folder in (str(work.resolve()), str(work), str(ROOT)):
        value = value.replace(folder + "/", "")
    return value.rsplit("/", 1)[-1] if value.startswith("/") else value


def measured(out: Path, tuned: Path, work: Path, limit: int) -> dict[str, Any]:
    """Held-out bits per byte before and after rounding, the suites, bytes, and time to the first answer."""
    bits: dict[str, dict[str, float]] = {}
    for text in ("stories", "talks"):
        for name, model in (("shipped", out), ("before rounding", tuned), ("before tuning", work / "base")):
            file = work / f"{text}.held-out.jsonl"
            found = json.loads(smallfry("eval", model, "--suite", "bpb", "--text", file, "--no-controls", "--json"))
            bits.setdefault(text, {})[name] = round(found["score"], 4)
    suites = {
        suite: json.loads(smallfry("eval", out, "--suite", suite, "--limit", limit, "--json"))
        for suite in ("conversation", "stories")
    }  # fmt: skip
    suites["stories"].pop("written", None)
    start = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "start.py"), str(out), "--json"], check=True, stdout=subprocess.PIPE,
        encoding="utf-8",
    )  # fmt: skip
    first = json.loads(start.stdout.splitlines()[-1])
    return {
        "bytes": sum(file.stat().st_size for file in out.iterdir()), "first_answer_ms": round(first["ms"], 1),
        "memory_mb": round(first["mb"], 1), "bits_per_byte": bits, **suites,
    }  # fmt: skip


if __name__ == "__main__":
    main()
