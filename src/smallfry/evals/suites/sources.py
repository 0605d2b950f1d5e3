"""Where a suite's rows come from: a folder of ``.jsonl.gz`` files, named by the user or by ``SMALLFRY_DATA``."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.evals.suites.prompts import Task, shuffled

VARIABLE = "SMALLFRY_DATA"
BASELINES = ("v1", "v2")  # DCLM's of 2024, which nanochat uses, and those in force since September 2025


def data_folder(given: Path | None) -> Path:
    """The folder that holds ``core/``, ``blimp.jsonl.gz`` and so on.

    Args:
        given: What the user named, or None for the environment's.

    Raises:
        SmallfryError: There is no such folder.
    """
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        raise SmallfryError(
            f"no benchmark data: give the folder with --data-dir or {VARIABLE}; it holds blimp.jsonl.gz, "
            "core_config.json and core/*.jsonl.gz"
        )
    for folder in (named, named / "evals"):
        if (folder / "core").is_dir() or (folder / "blimp.jsonl.gz").exists():
            return folder
    raise SmallfryError(f"{named}: holds no benchmark data; expected blimp.jsonl.gz or core/*.jsonl.gz")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``.jsonl.gz`` file.

    Raises:
        SmallfryError: It is missing or a line is no JSON object.
    """
    rows = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise SmallfryError(f"{path} line {number}: expected a JSON object")
                rows.append(row)
    except FileNotFoundError:
        raise SmallfryError(f"{path}: no such file; the suite needs it") from None
    except (OSError, EOFError, ValueError) as error:
        raise SmallfryError(f"{path}: cannot be read ({error}); get the file again") from None
    return rows


def core_tasks(folder: Path) -> tuple[list[Task], list[str]]:
    """The tasks of DCLM's CORE that have data, and the names of those that have none.

    Shots, delimiters and both versions of the baselines come from ``core_config.json``.
    """
    tasks, missing = [], []
    for spec in _config(folder):
        path = folder / "core" / (Path(spec["dataset_uri"]).name + ".gz")
        if not path.exists():
            missing.append(str(spec["label"]))
            continue
        floors = {version: float(spec[f"random_baseline_{version}"]) / 100 for version in BASELINES}
        tasks.append(
            Task(str(spec["label"]), spec["icl_task_type"], shuffled(read_rows(path)), int(spec["num_fewshot"]),
                 str(spec["continuation_delimiter"]), floors)
        )  # fmt: skip
    if not tasks:
        raise SmallfryError(f"{folder / 'core'}: none of the suite's files is there")
    return tasks, missing


def _config(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "core_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        return [spec for spec in found if spec["in_core"]]
    except FileNotFoundError:
        raise SmallfryError(f"{path}: no such file; it lists the suite's tasks, shots and baselines") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SmallfryError(f"{path}: not the suite's list of tasks ({error!r})") from None


def blimp_tasks(folder: Path) -> list[Task]:
    """The 67 paradigms of BLiMP; the right sentence comes first in every other pair, so that no position is a hint."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(folder / "blimp.jsonl.gz"):
        mine = pairs.setdefault(str(row["UID"]), [])
        both = [row["sentence_good"], row["sentence_bad"]]
        gold = len(mine) % 2
        mine.append({"choices": both[::-1] if gold else both, "gold": gold})
    half = dict.fromkeys(BASELINES, 0.5)
    return [Task(name, "pair", tuple(rows), floors=half) for name, rows in sorted(pairs.items())]


def lambada_tasks(folder: Path) -> list[Task]:
    """The last word of a passage (Paperno et al. 2016, OpenAI's version)."""
    rows = read_rows(folder / "core" / "lambada_openai.jsonl.gz")
    return [Task("lambada_openai", "language_modeling", tuple(rows), floors=dict.fromkeys(BASELINES, 0.0))]
