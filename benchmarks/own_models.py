"""The project's own models: trained here from committed recipes.

    python benchmarks/own_models.py --data DIR --models DIR [--docs DIR] [--only TEXT] [--minutes N] [--list] [--quick]

DATA holds ``stories/``, ``text/``, ``chat/``, ``evals/`` and ``weights/``. Every command is printed, and what it says
is kept with it in ``DOCS/results/own/<model>/training.json`` (settings, seeds, curve, corpus). What is done is not done
again; a training that was stopped goes on. ``--minutes`` begins nothing new after that time. The model directories
themselves are not committed. ``smallfry claims --run`` measures the models.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smallfry.claims import model as claims
from smallfry.claims.running import placeless
from smallfry.evals.suites.chat import LETTERS, letters_prompt

DOCS = Path(__file__).resolve().parents[1] / "docs"
STORIES = "DATA/stories/tinystories_train.jsonl.gz"
GENERAL = (
    "text/openwebtext_1000", "text/c4_wiki_demo", "text/wikitext2_raw", "text/classic_books", "text/us_presidents",
    "text/tinyshakespeare", "stories/classic_children_books", "stories/tinystories_train",
)  # fmt: skip
TALK = (
    "MODELS/corpora/talk.jsonl:1 MODELS/corpora/choices.jsonl:1 MODELS/corpora/sums.jsonl:1 chat:3 arithmetic:2"
)  # fmt: skip
PRETRAINED = {
    "stories-0.25m": (STORIES, "--vocab 512 --tokens 16m"),
    "stories-1m": (STORIES, "--vocab 2048 --tokens 24m"),
    "stories-5m": (STORIES, "--vocab 4096 --tokens 28m"),
    "general-1m": ("MODELS/corpora/general.jsonl", "--vocab 2048 --tokens 30m"),
    "general-5m": ("MODELS/corpora/general.jsonl", "--vocab 4096 --tokens 36m"),
}
# Enough to see that every part works; what is reinforced must solve something now and then.
QUICK = {"tokens": "100k", "steps": "2", "limit": "60"}
QUICK_SUMS = "400k"
QUICK_RL = "--levels 1 --questions 4 --every 1"


@dataclass(frozen=True)
class Unit:
    """One training.

    Args:
        model: Whose it is.
        arguments: Of ``smallfry``; DATA and MODELS stand for folders.
        needs: A model that must be there.
    """

    model: str
    arguments: str
    needs: str = ""

    def quick(self) -> Unit:
        """The same with next to no training."""
        found = self.arguments
        for name, value in (QUICK | ({"tokens": QUICK_SUMS} if self.model == "sums-5m" else {})).items():
            found = re.sub(rf"--{name} \S+", f"--{name} {value}", found)
        found += f" {QUICK_RL}" if "--rl" in found else ""
        return replace(self, arguments=found)

    def command(self, data: Path, models: Path) -> list[str]:
        """What is run."""
        folders = {"DATA": str(data), "MODELS": str(models)}
        return [
            sys.executable,
            "-m",
            "smallfry",
            *(_placed(word, folders) for word in self.arguments.split()),
            "--json",
        ]


def _placed(word: str, folders: dict[str, str]) -> str:
    for name, folder in folders.items():
        if word == name or word.startswith(name + "/"):
            return folder + word[len(name) :]
    return word


def pretraining(name: str, seed: int = 0) -> Unit:
    """A model from raw text; of another seed than 0, the same settings with other weights and another order."""
    source, flags = PRETRAINED[name]
    out, chosen = (f"{name}-s{seed}", f" --seed {seed}") if seed else (name, "")
    size = name.split("-")[1]
    rest = f"--seq-len 512 --data-dir DATA --out MODELS/{out}{chosen}"
    return Unit(out, f"pretrain {source} --size {size} {flags} {rest}")


def trainings() -> Iterator[Unit]:
    """Every model, in the order in which they need each other."""
    yield from (pretraining(name) for name in PRETRAINED)
    for size in ("1m", "5m"):  # with some of the text, or they forget how to write
        yield Unit(
            f"chat-{size}", f"tune MODELS/general-{size} {TALK} --mix MODELS/general-{size}/corpus:0.3 "
            f"--tokens 7m --out MODELS/chat-{size}", f"general-{size}",
        )  # fmt: skip
    # Taught so little that it solves a third: what it always solves, and never, teaches nothing. The chat model, which
    # saw five times as many worked sums, solves 98% before any reward.
    yield Unit("sums-5m", "tune MODELS/general-5m arithmetic --tokens 300k --out MODELS/sums-5m", "general-5m")
    yield Unit(
        "rl-5m",
        "tune MODELS/sums-5m arithmetic --rl --steps 60 --limit 300 --gsm8k DATA/evals/gsm8k.jsonl.gz "
        "--out MODELS/rl-5m", "sums-5m",
    )  # fmt: skip
    for seed in (1, 2):  # the same again, from the same model: other questions in another order, other answers drawn
        out = f"rl-5m-s{seed}"
        yield Unit(
            out, f"tune MODELS/sums-5m arithmetic --rl --steps 60 --limit 300 --seed {seed} "
            f"--out MODELS/{out}", "sums-5m",
        )  # fmt: skip
    yield Unit("stories260K", "import DATA/weights/stories260K.bin --out MODELS/stories260K")
    for name, known in claims.load().models.items():
        yield from (pretraining(name, seed) for seed in known.seeds)


def corpora(data: Path, models: Path) -> None:
    """What is trained on, as files of our own: training rows only, so that the others stay held out."""
    for name, rows in (("general", general), ("talk", talk), ("choices", choices), ("sums", sums)):
        out = models / "corpora" / f"{name}.jsonl"
        if out.exists():
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            for row in rows(data):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        part.replace(out)


def read(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """The training rows of a file."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row.get("split", "train") == "train":
                yield row


def general(data: Path) -> Iterator[dict[str, Any]]:
    """The general text there is."""
    for name in GENERAL:
        for row in read(data, name):
            yield {"text": row["text"], "from": name}


def talk(data: Path) -> Iterator[dict[str, Any]]:
    """Conversations that people and larger models wrote; of two answers the preferred one."""
    for row in read(data, "chat/dpo_en_demo"):
        yield {"messages": [*row["messages"], {"role": "assistant", "content": row["chosen"]}]}
    for name in ("chat/glaive_toolcall_en_demo", "chat/self_instruct_seed_tasks"):
        for row in read(data, name):
            yield {"messages": row["messages"]}


def choices(data: Path) -> Iterator[dict[str, Any]]:
    """Lettered questions as ChatCORE asks them, from the training rows of ARC and OpenBookQA."""
    for row in read(data, "evals/arc_openbookqa_train_test"):
        asked = letters_prompt(str(row["query"]).removeprefix("Question: "), row["choices"], " ")
        yield exchange(asked, LETTERS[int(row["gold"])])


def sums(data: Path) -> Iterator[dict[str, Any]]:
    """GSM8K's training problems with their worked solutions."""
    for row in read(data, "evals/gsm8k"):
        yield exchange(row["question"], row["answer"])


def exchange(question: str, answer: str) -> dict[str, Any]:
    """A conversation of one question."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def run(unit: Unit, data: Path, models: Path) -> dict[str, Any]:
    """Run a command, show what it shows, and give its last line."""
    command = unit.command(data, models)
    target = models / unit.model
    if (target / "run").exists():  # it knows what it was begun with
        again = [command[3], *(["--rl"] if "--rl" in command else []), "--resume", "--out", str(target), "--json"]
        command = [*command[:3], *again]
    print(f"\n$ smallfry {unit.arguments}", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ)
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        if last:
            print(last, flush=True)
        last = line.rstrip("\n")
    if process.wait():
        sys.exit(f"stopped with exit code {process.returncode}: smallfry {unit.arguments}")
    found: dict[str, Any] = json.loads(last)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder whose results/own gets the records")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--list", action="store_true", help="say what is left and stop")
    parser.add_argument("--quick", action="store_true", help="next to no training: only to see that every part works")
    asked = parser.parse_args()
    if asked.quick and asked.docs.resolve() == DOCS:
        sys.exit("--quick: a quick look is no result; name another folder with --docs")
    began = time.monotonic()
    folders = {"MODELS": asked.models.resolve(), "DATA": asked.data.resolve()}
    for unit in (unit.quick() if asked.quick else unit for unit in trainings()):
        record = asked.docs / "results" / "own" / unit.model / "training.json"
        there = {name for name in (unit.model, unit.needs) if (asked.models / name / "model.safetensors").exists()}
        if asked.only not in unit.model or (unit.model in there and record.exists()):
            continue
        missing = unit.needs if unit.needs and unit.needs not in there else ""
        if asked.list or missing:
            print(unit.model + (f": waits for {missing}" if missing else ""))
            continue
        if time.monotonic() - began > 60 * asked.minutes:
            sys.exit("the time is over; the same command goes on")
        corpora(folders["DATA"], folders["MODELS"])
        found = run(unit, folders["DATA"], folders["MODELS"])
        record.parent.mkdir(parents=True, exist_ok=True)
        kept = {"command": f"smallfry {unit.arguments} --json", **placeless(found, folders)}
        record.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
