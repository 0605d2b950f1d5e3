"""Noticing that a training has gone wrong: a loss that is no number, or one that rose and does not come back."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

WINDOW = 50  # losses that say what is ordinary
SPREADS = 6.0  # standard deviations above their mean that a loss must stand ...
RATIO = 1.5  # ... and times the best mean so far ...
RISE = 0.5  # ... and nats above it: a rise from 0.01 to 0.1 is large in proportion and heals by itself
PATIENCE = 20  # such losses in a row: a hard batch or a spike is over sooner


class TroubleError(Exception):
    """A training went wrong and must go back to an earlier save; the message says what happened.

    Never shown as it is: the training loop goes back, or turns it into a `CandidateError`.
    """


class LossGuard:
    """Watches the losses of a training, one a step, and says when they have exploded.

    A loss is out of bounds when it stands above all of: the mean of the last `WINDOW` ordinary losses by `SPREADS`
    standard deviations; the lowest such mean of the run `RATIO` times; that mean by `RISE` nats. Until there are as
    many losses, and at any time, it is out of bounds above twice ln V, where V is the vocabulary: a model that knows
    nothing has ln V. `PATIENCE` losses in a row that are out of bounds are an explosion. They stay out of the window,
    so that it does not get used to them.

    Each part has its reason. The spread alone would fire on small batches whose losses have a long tail; the ratio
    alone on batches that differ much; both on losses near 0, where every tail is long. A step whose loss is high once
    is a hard batch or a spike that the clipped gradient soon undoes, while a broken model stays broken. All this takes
    batches for granted that are in random order: fifty easy ones and then twenty hard ones look like an explosion.

    Where targets weigh both ways, as rewards do, the loss is no cross-entropy: it lies around 0, and an explosion may
    go either way, because what is pushed down can become as unlikely as it likes. So the size of the loss is watched.

    Args:
        vocab_size: Tokens the model chooses from.
    """

    def __init__(self, vocab_size: int) -> None:
        self.ceiling = 2.0 * math.log(vocab_size)
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.best = math.inf
        self.strikes = 0  # losses out of bounds since the last ordinary one

    @property
    def calm(self) -> bool:
        """Whether the last loss was an ordinary one, so that the weights are worth saving."""
        return self.strikes == 0

    def bound(self) -> float:
        """The loss above which the next one is out of bounds, in nats."""
        if len(self.recent) < WINDOW:
            return self.ceiling
        mean, spread = self._mean_and_spread()
        return min(self.ceiling, max(mean + SPREADS * spread, RATIO * self.best, self.best + RISE))

    def look(self, loss: float) -> None:
        """Take note of a step's loss.

        Args:
            loss: Weighted mean cross-entropy in nats; a number, below 0 only where weights are.

        Raises:
            TroubleError: When the run has exploded.
        """
        bound, size = self.bound(), abs(loss)
        if size > bound:
            self.strikes += 1
            if self.strikes >= PATIENCE:
                moved = f"rose to {loss:.3f} and stood above {bound:.3f}"
                if loss < 0:
                    moved = f"fell to {loss:.3f} and stood below {-bound:.3f}"
                raise TroubleError(f"the loss {moved} for {PATIENCE} steps")
            return
        self.strikes = 0
        self.recent.append(size)
        if len(self.recent) == WINDOW:
            self.best = min(self.best, self._mean_and_spread()[0])

    def _mean_and_spread(self) -> tuple[float, float]:
        count = len(self.recent)
        mean = sum(self.recent) / count
        return mean, math.sqrt(sum((loss - mean) ** 2 for loss in self.recent) / count)

    def state(self) -> dict[str, Any]:
        """Plain data for a save."""
        best = None if math.isinf(self.best) else self.best
        return {"recent": list(self.recent), "best": best, "strikes": self.strikes}

    def load_state(self, plain: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.recent = deque((float(loss) for loss in plain["recent"]), maxlen=WINDOW)
        self.best = math.inf if plain["best"] is None else float(plain["best"])
        self.strikes = int(plain["strikes"])
