"""What our story models write, unedited: the same beginnings, the same seed, every answer kept.

    python benchmarks/samples.py --models DIR [--write] [--docs DIR]

The beginnings were fixed before any model was asked. Each model writes once for each, at temperature 0.7 with seed 0,
until it ends the story or 220 tokens are written. ``--write`` makes DOCS/results/own/samples.json and the two pages
DOCS/stories.md (all twenty of the 5M model) and DOCS/stories-by-size.md (all sizes, each beside the others).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from smallfry.engine.decoding import Sampling
from smallfry.writer import Writer

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORD = Path("results", "own", "samples.json")
COMMAND = "python benchmarks/samples.py --models MODELS --write"
MODELS = {"stories-0.25m": "0.25M", "stories-1m": "1M", "stories-5m": "5M"}
HOW = Sampling(temperature=0.7, seed=0)
MOST = 220
PROMPTS = (
    "Once upon a time there was a little girl named Mia. She had a red balloon.",
    "Ben found a shiny key under the old tree.",
    "One rainy morning, a small frog could not find his pond.",
    "Sara wanted to bake a cake for her grandma, but there was no sugar.",
    "The big dog was sad because nobody wanted to play with him.",
    "Tim and his sister built a tower of blocks. Then the cat came in.",
    "Every night the moon looked into Lily's window and",
    'A little bird fell out of its nest. "Help!" it said.',
    "Tom did not want to share his truck. His friend",
    "There was a boat with a hole in it. The sailor",
    "Anna was afraid of the dark, so her mom gave her",
    "In the garden lived a snail who wanted to be fast.",
    "Max heard a strange sound in the kitchen. He",
    "The king lost his crown, and all the children went to",
    "Lucy's shoe was stuck in the mud. She pulled and pulled, and",
    "A squirrel hid his nuts so well that in the winter",
    "Dad said they could have ice cream if",
    "At the zoo, Leo saw a monkey who was holding",
    "The teddy bear sat on the shelf all day. He wished that",
    "It was Emma's birthday, but the cake was gone.",
)


def written(folder: Path) -> dict[str, list[str]]:
    """What each model writes behind each beginning."""
    found: dict[str, list[str]] = {}
    for name in MODELS:
        model = Writer.load(folder / name)
        found[name] = [model.write(model.prompt_ids(prompt), MOST, HOW) for prompt in PROMPTS]
    return found


def quoted(prompt: str, text: str) -> str:
    """A story as a quotation: what was given in bold, what was written as it came."""
    lines = text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").split("\n")
    return "\n".join(f"> {line}".rstrip() for line in [f"**{prompt}**{lines[0]}", *lines[1:]])


def pages(record: dict[str, Any]) -> dict[str, str]:
    """Both pages by name."""
    head = (
        f"Written by our own models of children's stories ([how](results/own), `{record['command']}`): beginnings "
        f"fixed beforehand, one answer each at temperature 0.7 with seed 0, of up to {MOST} tokens, where some are cut "
        "off; nothing else is left out or changed. "
        "Bold is what was given. Names and things mostly stay; most plots do not hold together, and some sentences are "
        "no English. Nobody graded them: [the measurements](assessment.md) count names, endings and repetition only.\n"
    )
    texts = record["written"]
    all_of = [f"# Twenty stories of the 5M model\n\n{head}"]
    all_of += [quoted(p, t) + "\n" for p, t in zip(record["prompts"], texts["stories-5m"], strict=True)]
    beside = [f"# The same beginnings at every size\n\n{head}"]
    for i, prompt in enumerate(record["prompts"]):
        beside.append(f"## {prompt}\n")
        beside += [f"{size}:\n\n{quoted(prompt, texts[name][i])}\n" for name, size in MODELS.items()]
    return {"stories.md": "\n".join(all_of), "stories-by-size.md": "\n".join(beside)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages and, under results, the record")
    asked = parser.parse_args()
    record = {"command": COMMAND, "prompts": list(PROMPTS), "written": written(asked.models)}
    for name, text in pages(record).items():
        if asked.write:
            (asked.docs / name).write_text(text, encoding="utf-8")
        else:
            print(text)
    if asked.write:
        (asked.docs / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
