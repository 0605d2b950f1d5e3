"""Where a suite's rows come from: a folder of ``.jsonl.gz`` files, or the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.evals.suites.core import CORE, CoreTask
from smallfry.evals.suites.hub import UnreachableError, hub_rows
from smallfry.evals.suites.prompts import Task, shuffled

VARIABLE = "SMALLFRY_DATA"
BASELINES = ("v1", "v2")  # DCLM's of 2024, which nanochat uses, and those in force since September 2025


@dataclass(frozen=True, slots=True)
class Data:
    """Where rows come from.

    Args:
        folder: Holds ``blimp.jsonl.gz``, ``core/*.jsonl.gz`` and so on; None for the hub alone.
        hub: Whether files that are not in the folder are taken from the Hugging Face hub.
    """

    folder: Path | None
    hub: bool = False

    @staticmethod
    def find(given: Path | None, hub: bool = False) -> Data:
        """The folder that the user named, else the environment's, else the hub.

        Raises:
            SmallfryError: The named folder holds no such data.
        """
        named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
        if named is None:
            return Data(None, True)
        for folder in (named / "evals", named):
            if any(folder.glob("*.jsonl.gz")) or (folder / "core").is_dir() or (folder / "stories").is_dir():
                return Data(folder, hub)
        raise SmallfryError(f"{named}: holds no benchmark data; expected blimp.jsonl.gz, core/*.jsonl.gz and the like")

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Rows of a file such as ``core/piqa.jsonl.gz``.

        Raises:
            SmallfryError: It is neither in the folder nor to be had from the hub.
        """
        if self.folder is not None and ((self.folder / file).exists() or not self.hub):
            return read_rows(self.folder / file)
        try:
            return hub_rows(file)
        except SmallfryError as error:
            where = f"{self.folder} has no {file}" if self.folder else "no --data-dir is named"
            raise type(error)(
                f"no benchmark data: {where}, and the Hugging Face hub gave none ({error}); name a folder of the data "
                f"with --data-dir or {VARIABLE}, or ask --suite stories or conversation, which need none"
            ) from None


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
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SmallfryError(f"{path}: cannot be read ({error}); get the file again") from None
    return rows


def core_tasks(data: Data) -> tuple[list[Task], dict[str, str]]:
    """The tasks of DCLM's CORE that have data, and of those that have none the names and the reason.

    Shots, delimiters and both versions of the baselines come from the folder's ``core_config.json``, or from the table
    in `smallfry.evals.suites.core`, which says the same.
    """
    tasks: list[Task] = []
    missing: dict[str, str] = {}
    for spec in _config(data.folder):
        file = f"core/{spec.file}.gz"
        if data.folder is not None and not data.hub and not (data.folder / file).exists():
            missing[spec.label] = ""
            continue
        try:
            rows = data.rows(file)
        except SmallfryError as error:
            if data.folder is not None and (data.folder / file).exists():
                raise  # there, and broken
            if isinstance(error, UnreachableError) and not tasks:
                raise  # twenty more tasks would wait as long for nothing
            missing[spec.label] = str(error)
            continue
        floors = dict(zip(BASELINES, (spec.v1 / 100, spec.v2 / 100), strict=True))
        tasks.append(Task(spec.label, spec.type, shuffled(rows), spec.shots, spec.delimiter, floors))
    if not tasks:
        raise SmallfryError(
            next(filter(None, missing.values()), f"{data.folder}: none of the suite's files is in core/")
        )
    return tasks, missing


def _config(folder: Path | None) -> list[CoreTask]:
    path = None if folder is None else folder / "core_config.json"
    if path is None or not path.exists():
        return list(CORE)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        return [
            CoreTask(
                str(spec["label"]), Path(spec["dataset_uri"]).name, spec["icl_task_type"], int(spec["num_fewshot"]),
                str(spec["continuation_delimiter"]), *(float(spec[f"random_baseline_{v}"]) for v in BASELINES),
            )
            for spec in found if spec["in_core"]
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SmallfryError(f"{path}: not the suite's list of tasks ({error!r})") from None


def blimp_tasks(data: Data) -> list[Task]:
    """The 67 paradigms of BLiMP; the right sentence comes first in every other pair, so that no position is a hint."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in data.rows("blimp.jsonl.gz"):
        mine = pairs.setdefault(str(row["UID"]), [])
        both = [row["sentence_good"], row["sentence_bad"]]
        gold = len(mine) % 2
        mine.append({"choices": both[::-1] if gold else both, "gold": gold})
    half = dict.fromkeys(BASELINES, 0.5)
    return [Task(name, "pair", tuple(rows), floors=half) for name, rows in sorted(pairs.items())]


def lambada_tasks(data: Data) -> list[Task]:
    """The last word of a passage (Paperno et al. 2016, OpenAI's version)."""
    rows = data.rows("core/lambada_openai.jsonl.gz")
    return [Task("lambada_openai", "language_modeling", tuple(rows), floors=dict.fromkeys(BASELINES, 0.0))]
