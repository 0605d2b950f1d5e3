"""What every candidate offers once it is fitted, whatever it is made of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

# Stands for log 0: an output a predictor cannot produce. Low enough that no real answer scores below it by chance,
# finite so that weighted sums of two predictors' scores stay numbers.
SCORE_FLOOR = -50.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer.

    Args:
        output: The answer itself.
        confidence: Probability in [0, 1] the candidate gives to its own answer.
        whole: Whether the answer has its end; one that was cut off at a length is no answer to be sure of.
    """

    output: str
    confidence: float
    whole: bool = True

    @property
    def sureness(self) -> str:
        """The confidence for people to read."""
        return f"{self.confidence:.2f}" if self.whole else "cut off"


class Predictor(Protocol):
    """A fitted candidate. Deterministic: the same inputs give the same answers."""

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    @property
    def params(self) -> int:
        """Stored numbers."""
        ...

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answer each input."""
        ...

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probability (nats) of each proposed output; `SCORE_FLOOR` for one that cannot be produced.

        Args:
            inputs: n inputs.
            outputs: For each input, the outputs to score.
        """
        ...

    def size_bytes(self) -> int:
        """What a file holding the candidate weighs, as it would be shipped."""
        ...


def measure_latency(predictor: Predictor, inputs: Sequence[str], repeats: int = 3) -> float:
    """Median milliseconds to answer one input at a time, after one answer to warm up.

    Args:
        predictor: A fitted candidate.
        inputs: Inputs to time; at least one.
        repeats: Passes over the inputs.

    Raises:
        ValueError: There is nothing to time.
    """
    if not inputs or repeats < 1:
        raise ValueError("latency needs at least one input and one repeat")
    predictor.predict(inputs[:1])
    seconds = []
    for _ in range(repeats):
        for text in inputs:
            start = time.perf_counter()
            predictor.predict([text])
            seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)
