"""Suites' rows from the Hugging Face hub, brought into the form of the local files, through ``datasets``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smallfry.errors import SmallfryError

Raw = Mapping[str, Any]
Made = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file's rows are on the hub.

    Args:
        name: ``owner/name``.
        splits: Splits to read, with what each is called in the local file.
        row: From a row of the hub to one of the file's, or several, or None.
        config: Its configuration; ``*`` stands for every one there is.
    """

    name: str
    splits: Mapping[str, str]
    row: Callable[[Raw], Made | list[Made] | None]
    config: str | None = None


def _lettered(row: Raw) -> Made:
    labels, texts = list(row["choices"]["label"]), list(row["choices"]["text"])
    return {"query": f"Question: {row['question']}", "choices": texts, "gold": labels.index(row["answerKey"])}


def _winogrande(row: Raw) -> Made:
    before, after = str(row["sentence"]).split("_", 1)
    options = [before + str(row[key]) for key in ("option1", "option2")]
    return {"context_options": options, "continuation": after.strip(), "gold": int(row["answer"]) - 1}


def _hellaswag(row: Raw) -> Made:
    """As the field's files have it: the activity, then what happens, wikiHow's bracketed titles taken out."""

    def clean(text: str) -> str:
        return re.sub(r" +", " ", re.sub(r"\[.*?\]", "", text.replace(" [title]", ". "))).strip()

    query = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b']}")
    return {"query": query, "choices": [clean(end) for end in row["endings"]], "gold": int(row["label"])}


def _copa(row: Raw) -> Made:
    joined = {"cause": "because", "effect": "therefore"}[str(row["question"])]
    choices = [str(row[key])[:1].lower() + str(row[key])[1:] for key in ("choice1", "choice2")]
    return {"query": f"{str(row['premise']).rstrip('.')}, {joined}", "choices": choices, "gold": int(row["label"])}


def _boolq(row: Raw) -> Made:
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}?"
    return {"query": query, "choices": ["no", "yes"], "gold": int(row["answer"])}


def _piqa(row: Raw) -> Made:
    return {"query": f"Question: {row['goal']}\n", "choices": [row["sol1"], row["sol2"]], "gold": int(row["label"])}


def _openbook(row: Raw) -> Made:
    return {**_lettered({**row, "question": row["question_stem"]}), "query": str(row["question_stem"])}


def _squad(row: Raw) -> Made | None:
    answers = list(row["answers"]["text"])
    context = f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer:"
    return {"context": context, "continuation": str(answers[0])} if answers else None


def _lambada(row: Raw) -> Made:
    head, _, last = str(row["text"]).rpartition(" ")
    return {"context": head, "continuation": last}


def _gsm8k(row: Raw) -> Made:
    final = str(row["answer"]).rpartition("####")[2].strip()
    return {"question": row["question"], "answer": row["answer"], "final": final}


_COQA = (
    "Below is a story followed by a series of related questions. Please answer the final question by referring to the "
    "story and the previous questions.\nStory: "
)


def _coqa(row: Raw) -> list[Made]:
    """Each question of a story, after the ones before it and their answers."""
    made: list[Made] = []
    before = ""
    for question, answer in zip(row["questions"], row["answers"]["input_text"], strict=True):
        known = f"\nPreceding questions:{before}" if before else ""
        context = f"{_COQA}{row['story']}{known}\n\nFinal question:\nQuestion: {question}\nAnswer:"
        made.append({"context": context, "continuation": str(answer)})
        before += f"\nQuestion: {question}\nAnswer: {answer}"
    return made


TEST = {"test": "test"}
VALID = {"validation": "test"}
SOURCES: dict[str, Source] = {
    "blimp.jsonl.gz": Source("nyu-mll/blimp", {"train": "test"}, dict, "*"),
    "humaneval.jsonl.gz": Source("openai/openai_humaneval", TEST, dict),
    "gsm8k.jsonl.gz": Source("openai/gsm8k", TEST, _gsm8k, "main"),
    "mmlu.jsonl.gz": Source("cais/mmlu", TEST, dict, "all"),
    "core/arc_easy.jsonl.gz": Source("allenai/ai2_arc", TEST, _lettered, "ARC-Easy"),
    "core/arc_challenge.jsonl.gz": Source("allenai/ai2_arc", TEST, _lettered, "ARC-Challenge"),
    "core/boolq.jsonl.gz": Source("google/boolq", VALID, _boolq),
    "core/coqa.jsonl.gz": Source("stanfordnlp/coqa", VALID, _coqa),
    "core/copa.jsonl.gz": Source("aps/super_glue", VALID, _copa, "copa"),
    "core/hellaswag.jsonl.gz": Source("Rowan/hellaswag", VALID, _hellaswag),
    "core/lambada_openai.jsonl.gz": Source("EleutherAI/lambada_openai", TEST, _lambada, "default"),
    "core/openbook_qa.jsonl.gz": Source("allenai/openbookqa", TEST, _openbook, "main"),
    "core/piqa.jsonl.gz": Source("baber/piqa", VALID, _piqa),
    "core/squad.jsonl.gz": Source("rajpurkar/squad", VALID, _squad),
    "core/winogrande.jsonl.gz": Source("allenai/winogrande", VALID, _winogrande, "winogrande_xl"),
}


class UnreachableError(SmallfryError):
    """There is no way to the hub: what else is asked of it will not be had either."""


def hub_rows(file: str) -> list[Made]:
    """The rows of a suite's file, from the hub.

    Args:
        file: Its path in the folder of benchmark data, such as ``core/piqa.jsonl.gz``.

    Raises:
        UnreachableError: There is no way to the hub, and no copy of the data here.
        SmallfryError: The hub is not known to have it, or ``datasets`` is missing.
    """
    source = SOURCES.get(file)
    if source is None:
        raise SmallfryError(f"{file}: not known to be on the hub in this form; use a folder of benchmark data")
    try:
        import datasets
    except ImportError:
        raise SmallfryError(f"{file}: hub data needs datasets; pip install 'smallfry[hub]'") from None
    client = logging.getLogger("huggingface_hub")  # it tells each of its tries, where one line at the end will do
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        whole = source.config == "*"
        configs = datasets.get_dataset_config_names(source.name) if whole else [source.config]
        found = []
        for config in configs:
            for split, ours in source.splits.items():
                for raw in datasets.load_dataset(source.name, config, split=split):
                    made = source.row(raw)
                    rows = made if isinstance(made, list) else [made] if made else []
                    found += [{**row, "split": ours} for row in rows]
        return found
    except Exception as error:  # the library raises its own, the hub client's, fsspec's and built-in exceptions
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        kind = UnreachableError if isinstance(error, ConnectionError | TimeoutError) else SmallfryError
        raise kind(f"hf:{source.name}: could not be loaded ({reason})") from None
    finally:
        client.setLevel(level)
