"""HumanEval: functions completed from their docstrings, run against their tests in the sandbox (Chen et al. 2021)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.evals.suites import sandbox
from smallfry.evals.suites.measure import TaskResult
from smallfry.evals.suites.scoring import LanguageModel, write
from smallfry.evals.suites.sources import read_rows

MAX_NEW = 384  # tokens of a completion
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")  # where the function has ended


def humaneval_rows(folder: Path) -> list[dict[str, Any]]:
    """The 164 problems."""
    return read_rows(folder / "humaneval.jsonl.gz")


def completed(text: str) -> str:
    """A completion up to the end of the function it completes."""
    ends = [at for stop in STOPS if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def program(problem: Mapping[str, Any], completion: str) -> str:
    """What is run: the prompt, its completion, the tests and the call of them."""
    return f"{problem['prompt']}{completed(completion)}\n{problem['test']}\ncheck({problem['entry_point']})\n"


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that one of ``k`` samples is right, without bias, from ``n`` of which ``correct`` are.

    ``1 - C(n - c, k) / C(n, k)`` (Chen et al. 2021, section 2.1).

    Raises:
        ValueError: ``k`` is not between 1 and ``n``, or ``correct`` not between 0 and ``n``.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {correct} right among {n}: expected 1 <= k <= n and 0 <= correct <= n")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def run_all(programs: Sequence[str], unsafe: bool) -> NDArray[np.bool_]:
    """Run programs, one a core at a time; which of them came to their end, ``(n,)``."""
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:  # each runs in a process of its own
        ended = list(pool.map(lambda source: sandbox.run(source, unsafe=unsafe), programs))
    return np.array([run.passed for run in ended], dtype=bool)


def measure_humaneval(
    model: LanguageModel, problems: Sequence[Mapping[str, Any]], limit: int | None = None, unsafe: bool = False
) -> TaskResult:
    """Complete every problem greedily and run what comes out.

    Args:
        model: Whom to ask.
        problems: `humaneval_rows`.
        limit: At most this many.
        unsafe: Run programs without the sandbox.

    Raises:
        SmallfryError: There is no sandbox and ``unsafe`` is not given.
    """
    if not unsafe:
        sandbox.require()
    asked = problems[:limit] if limit else problems
    texts = write(model, [str(p["prompt"]) for p in asked], MAX_NEW)
    right = run_all([program(p, text) for p, text in zip(asked, texts, strict=True)], unsafe)
    return TaskResult("humaneval", len(asked), len(problems), right, dict.fromkeys(("v1", "v2"), 0.0))
