"""HumanEval: functions completed from their docstrings, run against their tests in the sandbox (Chen et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.constraints import cut_at
from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.statistics import interval_of
from smallfry.evals.suites import sandbox
from smallfry.evals.suites.measure import TaskResult
from smallfry.evals.suites.scoring import LanguageModel, Writing, too_long, write
from smallfry.evals.suites.sources import Data
from smallfry.machine import own_cores

MAX_NEW = 384  # tokens of a completion
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")  # where the function has ended


def humaneval_rows(data: Data) -> list[dict[str, Any]]:
    """The 164 problems."""
    return data.rows("humaneval.jsonl.gz")


def program(problem: Mapping[str, Any], completion: str) -> str:
    """What is run: the prompt, its completion, the tests and the call of them."""
    return f"{problem['prompt']}{cut_at(completion, STOPS)}\n{problem['test']}\ncheck({problem['entry_point']})\n"


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
    with ThreadPoolExecutor(own_cores()) as pool:  # each runs in a process of its own
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
    texts = write(model, [str(p["prompt"]) for p in asked], Writing(MAX_NEW, stops=STOPS))
    right = run_all([program(p, text) for p, text in zip(asked, texts, strict=True)], unsafe)
    prompts = [[*model.texts.start(), *ids] for ids in model.texts.encode_all([str(p["prompt"]) for p in asked])]
    cut = too_long(model, prompts, MAX_NEW)
    return TaskResult("humaneval", len(asked), len(problems), right, dict.fromkeys(("v1", "v2"), 0.0), cut=cut)


@dataclass(frozen=True, slots=True)
class PassAtK:
    """The probability that one of ``k`` samples is right, over problems.

    Args:
        k: How many may be tried.
        samples: How many were drawn for each problem.
        score: Mean over problems of `pass_at_k`.
        ci: 95% interval over problems.
        n: Problems.
    """

    k: int
    samples: int
    score: float
    ci: tuple[float, float] | None
    n: int


def check_samples(ks: Sequence[int], samples: int) -> None:
    """Refuse a ``k`` that so many samples cannot tell.

    Raises:
        SmallfryError: One is greater than the number of samples.
    """
    if max(ks) > samples:
        raise SmallfryError(f"pass@{max(ks)} of {samples} samples: give --samples {max(ks)} or a smaller --pass-at")


def measure_pass_at_k(
    model: LanguageModel, problems: Sequence[Mapping[str, Any]], ks: Sequence[int], samples: int, sampling: Sampling,
    limit: int | None = None, unsafe: bool = False,
) -> list[PassAtK]:  # fmt: skip
    """Draw completions of every problem, run them all, and give pass@k for each ``k``.

    Args:
        model: Whom to ask.
        problems: `humaneval_rows`.
        ks: Each at most ``samples``.
        samples: Completions a problem.
        sampling: How they are drawn (Chen et al. 2021 use temperature 0.8 and top-p 0.95 for large k).
        limit: At most this many problems.
        unsafe: Run programs without the sandbox.

    Raises:
        SmallfryError: There is no sandbox and ``unsafe`` is not given, or more is asked than is drawn.
    """
    if not unsafe:
        sandbox.require()
    check_samples(ks, samples)
    asked = problems[:limit] if limit else problems
    prompts = [str(p["prompt"]) for p in asked for _ in range(samples)]
    texts = write(model, prompts, Writing(MAX_NEW, sampling=sampling, stops=STOPS))
    several = [p for p in asked for _ in range(samples)]
    right = run_all([program(p, text) for p, text in zip(several, texts, strict=True)], unsafe)
    correct = right.reshape(len(asked), samples).sum(axis=1)
    found = []
    for k in ks:
        each = np.array([pass_at_k(samples, int(c), k) for c in correct])
        found.append(PassAtK(k, samples, float(each.mean()), interval_of(each), len(asked)))
    return found
