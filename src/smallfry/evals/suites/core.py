"""The 22 tasks of DCLM's CORE (Li et al. 2024): shots, delimiters and both versions of their baselines.

Version 1 of the baselines is that of 2024, which nanochat uses; version 2 is in force since September 2025.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class CoreTask(NamedTuple):
    """One task.

    Args:
        label: Its name.
        file: The file of its rows.
        type: How it is asked.
        shots: Examples before each question.
        delimiter: What stands between a question and its answer.
        v1: Baseline in per cent, version 1.
        v2: Version 2.
    """

    label: str
    file: str
    type: Literal["multiple_choice", "schema", "language_modeling"]
    shots: int
    delimiter: str
    v1: float
    v2: float


CORE: tuple[CoreTask, ...] = (
    CoreTask("hellaswag_zeroshot", "hellaswag.jsonl", "multiple_choice", 0, " ", 25.0, 25.0),
    CoreTask("jeopardy", "jeopardy_all.jsonl", "language_modeling", 10, "\nAnswer: ", 0.0, 0.0),
    CoreTask("bigbench_qa_wikidata", "bigbench_qa_wikidata.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("arc_easy", "arc_easy.jsonl", "multiple_choice", 10, "\nAnswer: ", 25.0, 25.0),
    CoreTask("arc_challenge", "arc_challenge.jsonl", "multiple_choice", 10, "\nAnswer: ", 25.0, 25.0),
    CoreTask("copa", "copa.jsonl", "multiple_choice", 0, " ", 50.0, 50.0),
    CoreTask("commonsense_qa", "commonsense_qa.jsonl", "multiple_choice", 10, " ", 20.0, 40.3),
    CoreTask("piqa", "piqa.jsonl", "multiple_choice", 10, "\nAnswer: ", 50.0, 50.0),
    CoreTask("openbook_qa", "openbook_qa.jsonl", "multiple_choice", 0, " ", 25.0, 25.0),
    CoreTask("lambada_openai", "lambada_openai.jsonl", "language_modeling", 0, " ", 0.0, 0.0),
    CoreTask("hellaswag", "hellaswag.jsonl", "multiple_choice", 10, " ", 25.0, 25.0),
    CoreTask("winograd", "winograd_wsc.jsonl", "schema", 0, " ", 50.0, 50.0),
    CoreTask("winogrande", "winogrande.jsonl", "schema", 0, " ", 50.0, 50.0),
    CoreTask("bigbench_dyck_languages", "bigbench_dyck_languages.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("agi_eval_lsat_ar", "agi_eval_lsat_ar.jsonl", "multiple_choice", 3, " ", 20.0, 25.0),
    CoreTask("bigbench_cs_algorithms", "bigbench_cs_algorithms.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("bigbench_operators", "bigbench_operators.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("bigbench_repeat_copy_logic", "bigbench_repeat_copy_logic.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("squad", "squad.jsonl", "language_modeling", 10, " ", 0.0, 0.0),
    CoreTask("coqa", "coqa.jsonl", "language_modeling", 0, " ", 0.0, 0.0),
    CoreTask("boolq", "boolq.jsonl", "multiple_choice", 10, "\nAnswer: ", 62.0, 62.0),
    CoreTask(
        "bigbench_language_identification",
        "bigbench_language_identification.jsonl",
        "multiple_choice",
        10,
        " ",
        9.1,
        25.0,
    ),
)
