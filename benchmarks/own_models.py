"""The project's own models: trained here from committed recipes, and measured.

    python benchmarks/own_models.py --data DIR --models DIR [--stage train|measure] [--only TEXT] [--minutes N] [--list]

DATA holds ``stories/``, ``text/``, ``chat/`` and ``evals/``. Every command is printed, and what it says is kept:
``docs/results/own/<model>/training.json`` (settings, seeds, curve, corpus) and ``<model>/<suite>.json`` (what
``smallfry eval --json`` prints), each with its command. What is done is not done again; a training that was stopped
goes on. ``--minutes`` begins nothing new after that time. The model directories themselves are not committed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallfry.evals.suites.chat import LETTERS, letters_prompt

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "own"
STORIES = "DATA/stories/tinystories_train.jsonl.gz"
HELD_OUT = "DATA/stories/tinystories_valid.jsonl.gz"
GENERAL = (
    "text/openwebtext_1000", "text/c4_wiki_demo", "text/wikitext2_raw", "text/classic_books", "text/us_presidents",
    "text/tinyshakespeare", "stories/classic_children_books", "stories/tinystories_train",
)  # fmt: skip
TALK = (
    "MODELS/corpora/talk.jsonl:1 MODELS/corpora/choices.jsonl:1 MODELS/corpora/sums.jsonl:1 chat:3 arithmetic:2"
)  # fmt: skip
ROWS = "--seq-len 512 --data-dir DATA"


@dataclass(frozen=True)
class Unit:
    """One command and where what it says is kept.

    Args:
        model: Whose it is.
        name: ``training`` or a suite.
        arguments: Of ``smallfry``; DATA and MODELS stand for folders.
        needs: Models that must be there.
    """

    model: str
    name: str
    arguments: str
    needs: tuple[str, ...] = ()

    @property
    def result(self) -> Path:
        """Where it is kept."""
        return RESULTS / self.model / f"{self.name}.json"

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


def trainings() -> Iterator[Unit]:
    """Every model, in the order in which they need each other."""
    for size, vocab, tokens in (("0.25m", 512, "16m"), ("1m", 2048, "24m"), ("5m", 4096, "28m")):
        yield Unit(
            f"stories-{size}", "training",
            f"pretrain {STORIES} --size {size} --vocab {vocab} --tokens {tokens} {ROWS} --out MODELS/stories-{size}",
        )  # fmt: skip
    for size, vocab, tokens in (("1m", 2048, "30m"), ("5m", 4096, "36m")):
        yield Unit(
            f"general-{size}", "training",
            f"pretrain MODELS/corpora/general.jsonl --size {size} --vocab {vocab} --tokens {tokens} {ROWS} "
            f"--out MODELS/general-{size}",
        )  # fmt: skip
    for size in ("1m", "5m"):  # with some of the text, or they forget how to write
        yield Unit(
            f"chat-{size}", "training", f"tune MODELS/general-{size} {TALK} --mix MODELS/general-{size}/corpus:0.3 "
            f"--tokens 7m --out MODELS/chat-{size}", (f"general-{size}",),
        )  # fmt: skip
    # Taught so little that it solves a third: what it always solves, and never, teaches nothing. The chat model, which
    # saw five times as many worked sums, solves 98% before any reward.
    yield Unit(
        "sums-5m", "training", "tune MODELS/general-5m arithmetic --tokens 300k --out MODELS/sums-5m", ("general-5m",)
    )
    yield Unit(
        "rl-5m", "training",
        "tune MODELS/sums-5m arithmetic --rl --steps 60 --limit 300 --gsm8k DATA/evals/gsm8k.jsonl.gz "
        "--out MODELS/rl-5m", ("sums-5m",),
    )  # fmt: skip
    for seed in (1, 2):  # the same again, from the same model: other questions in another order, other answers drawn
        out = f"rl-5m-s{seed}"
        yield Unit(
            out, "training", f"tune MODELS/sums-5m arithmetic --rl --steps 60 --limit 300 --seed {seed} "
            f"--out MODELS/{out}", ("sums-5m",),
        )  # fmt: skip


def measurements() -> Iterator[Unit]:
    """Every model and suite."""
    for size in ("0.25m", "1m", "5m"):
        model = f"stories-{size}"
        yield Unit(
            model, "stories", f"eval MODELS/{model} --suite stories --text {HELD_OUT} --limit 500 --ngram {STORIES}",
            (model,),
        )  # fmt: skip
    yield Unit("stories260K", "training", "import DATA/weights/stories260K.bin --out MODELS/stories260K")
    yield Unit(
        "stories260K", "stories", f"eval MODELS/stories260K --suite stories --text {HELD_OUT} --limit 500",
        ("stories260K",),
    )  # fmt: skip
    for model in ("stories-1m", "stories-5m", "general-1m", "general-5m"):
        yield Unit(model, "blimp", f"eval MODELS/{model} --suite blimp --data-dir DATA", (model,))
        yield Unit(model, "lambada", f"eval MODELS/{model} --suite lambada --data-dir DATA", (model,))
    for model in ("general-1m", "general-5m"):
        yield Unit(
            model, "stories", f"eval MODELS/{model} --suite stories --text {HELD_OUT} --limit 500", (model,)
        )  # fmt: skip
        yield Unit(model, "core", f"eval MODELS/{model} --suite core --limit 500 --data-dir DATA", (model,))
    for model in ("chat-1m", "chat-5m", "rl-5m"):
        yield Unit(model, "conversation", f"eval MODELS/{model} --suite conversation", (model,))
        yield Unit(model, "chatcore", f"eval MODELS/{model} --suite chatcore --limit 300 --data-dir DATA", (model,))


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
    if unit.name == "training" and (target / "run").exists():  # it knows what it was begun with
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


def placeless(value: Any, data: Path, models: Path) -> Any:
    """A result without this machine's paths."""
    if isinstance(value, dict):
        return {placeless(key, data, models): placeless(one, data, models) for key, one in value.items()}
    if isinstance(value, list):
        return [placeless(one, data, models) for one in value]
    if isinstance(value, str):
        return value.replace(str(models), "MODELS").replace(str(data), "DATA")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--stage", choices=("train", "measure", "all"), default="all")
    parser.add_argument("--only", default="", help="units whose model/name holds this text")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--list", action="store_true", help="say what is left and stop")
    asked = parser.parse_args()
    began = time.monotonic()
    units = [*(trainings() if asked.stage != "measure" else ()), *(measurements() if asked.stage != "train" else ())]
    for unit in units:
        if unit.result.exists() or asked.only not in f"{unit.model}/{unit.name}":
            continue
        missing = [name for name in unit.needs if not (asked.models / name / "config.json").exists()]
        if asked.list or missing:
            print(f"{unit.model}/{unit.name}" + (f": waits for {', '.join(missing)}" if missing else ""))
            continue
        if time.monotonic() - began > 60 * asked.minutes:
            sys.exit("the time is over; the same command goes on")
        corpora(asked.data, asked.models)
        found = run(unit, asked.data, asked.models)
        unit.result.parent.mkdir(parents=True, exist_ok=True)
        kept = {"command": f"smallfry {unit.arguments} --json", **placeless(found, asked.data, asked.models)}
        unit.result.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
