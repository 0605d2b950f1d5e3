"""ONE training loop: for jobs, for corpora, for tuning. Everything it draws comes from the seed and the position."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from smallfry.checkpoint import load_state, save_state
from smallfry.data import Batch, Noise
from smallfry.errors import CandidateError, SmallfryError
from smallfry.machine import keep_freed_memory
from smallfry.model import Transformer
from smallfry.optim import Optimizer, schedule

SAVE_SECONDS = 60.0
_HEAD_ROWS = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a model is trained, apart from its shape and its form.

    Args:
        epochs: Passes over the data.
        batch_tokens: Padded tokens a step.
        lr: AdamW's peak learning rate (embeddings and gains).
        muon_lr: Muon's peak learning rate (matrices).
        weight_decay: Decoupled weight decay.
        dropout: Dropout on residual updates and embeddings.
        noise: Input noise.
        prompt_loss: Loss weight of the prompt's own tokens.
        copy_loss: Loss weight of the input's words where an inline answer repeats them.
        label_smoothing: Probability mass spread over the vocabulary.
        ema: Horizon of the averaged weights as a share of the run's steps; 0 averages nothing.
        warmup: Share of the run in which the learning rate rises.
        seed: Seed of weights, order and noise.
    """

    epochs: float = 10.0
    batch_tokens: int = 2048
    lr: float = 3e-3
    muon_lr: float = 0.02
    weight_decay: float = 0.1
    dropout: float = 0.1
    noise: Noise = field(default_factory=Noise)
    prompt_loss: float = 0.0
    copy_loss: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.04
    warmup: float = 0.05
    schedule: str = "linear"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`."""
        return replace(Recipe(**{k: v for k, v in data.items() if k != "noise"}), noise=Noise(**data["noise"]))


class Data(Protocol):
    """What the loop trains on: epochs of batches, each a pure function of its number."""

    def epoch(self, epoch: int) -> list[Batch]:
        """All batches of one epoch in order."""


@dataclass(slots=True)
class Point:
    """One point of a training curve."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    valid_loss: float | None = None
    valid_score: float | None = None


@dataclass(slots=True)
class Progress:
    """What a running training tells its watcher after a step."""

    step: int
    done: float  # share of the run
    loss: float
    tokens_per_second: float
    seconds: float


@dataclass(slots=True)
class Trained:
    """A finished or interrupted training; the model holds the averaged weights."""

    model: Transformer
    curve: list[Point]
    seconds: float
    steps: int
    tokens: int
    finished: bool


def loss_of(model: Transformer, batch: Batch, label_smoothing: float = 0.0) -> tuple[torch.Tensor, float]:
    """Weighted mean cross-entropy of a batch, and the sum of the weights.

    The head is only applied where a target carries weight: of a classified sentence that is one position in twenty.
    """
    device = model.embed.weight.device
    hidden = model(torch.from_numpy(np.ascontiguousarray(batch.ids)).to(device))  # (B, T, C)
    places = np.flatnonzero(batch.weights)
    weights = batch.weights.ravel()[places]
    total = float(weights.sum())
    # Rounded up with weightless repeats: a CPU's matrix library compiles a kernel for each new number of rows.
    padding = -len(places) % _HEAD_ROWS
    places = np.concatenate([places, np.zeros(padding, dtype=places.dtype)])
    weights = np.concatenate([weights, np.zeros(padding, dtype=weights.dtype)])
    chosen = torch.from_numpy(places).to(device)
    logits = model.logits(hidden.flatten(0, 1)[chosen]).float()  # (N, V)
    targets = torch.from_numpy(batch.targets.ravel()[places]).to(device)
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return (losses * torch.from_numpy(weights).to(device)).sum() / max(total, 1e-9), total


@torch.no_grad()
def mean_loss(model: Transformer, batches: list[Batch]) -> float:
    """Weighted mean cross-entropy in nats over batches, without dropout."""
    was_training = model.training
    model.eval()
    total = weight = 0.0
    for batch in batches:
        loss, amount = loss_of(model, batch)
        total += float(loss) * amount
        weight += amount
    model.train(was_training)
    return total / max(weight, 1e-9)


def train(
    model: Transformer,
    data: Data,
    recipe: Recipe,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    measure: Callable[[Transformer], tuple[float, float | None]] | None = None,
    measure_every: float = 1.0,
    watch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train a model to the end of its recipe.

    Args:
        model: Freshly initialised, on its device, in its compute precision; it is trained in place.
        data: Epochs of batches.
        recipe: How.
        run_dir: Where to save the run's state every minute and when interrupted; None saves nothing.
        resume: Go on from the state in ``run_dir`` if there is one; the result is bit for bit that of a run that was
            never stopped.
        measure: Called with the averaged weights in the model; returns validation loss and score.
        measure_every: Epochs between two calls of ``measure``; there is one at the end in any case.
        watch: Called after every step.
        should_stop: Asked after every step; True saves and stops. By default Ctrl-C and SIGTERM do that.

    Returns:
        The trained model and its curve; ``finished`` is False after Ctrl-C or SIGTERM, with the state saved.

    Raises:
        SmallfryError: When the loss stops being a number.
    """
    keep_freed_memory()
    loop = _Loop(model, data, recipe, run_dir, measure, measure_every, watch, should_stop)
    if resume:
        loop.restore()
    with _stop_signals(loop):
        loop.run()
    loop.optimizer.use_average()
    model.eval()
    finished = not loop.stopped
    return Trained(model, loop.curve, loop.seconds(), loop.step, loop.tokens, finished)


class _Loop:
    """The state of one training."""

    def __init__(
        self, model: Transformer, data: Data, recipe: Recipe, run_dir: Path | None,
        measure: Callable[[Transformer], tuple[float, float | None]] | None, measure_every: float,
        watch: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None,
    ) -> None:  # fmt: skip
        self.should_stop = should_stop
        self.model, self.data, self.recipe, self.run_dir = model, data, recipe, run_dir
        self.measure, self.measure_every, self.watch = measure, measure_every, watch
        # The average must forget: a horizon of 500 steps in a run of 700 would still hold its bad beginning.
        steps = max(1.0, len(data.epoch(0)) * recipe.epochs)
        decay = max(0.0, 1.0 - 1.0 / max(1.0, recipe.ema * steps)) if recipe.ema else 0.0
        self.optimizer = Optimizer(model, recipe.lr, recipe.muon_lr, recipe.weight_decay, decay)
        self.epoch, self.index, self.step, self.tokens = 0, 0, 0, 0
        self.curve: list[Point] = []
        self.loss_sum, self.loss_count = 0.0, 0
        self.earlier = 0.0  # seconds spent before this process
        self.began = time.perf_counter()
        self.measuring = 0.0  # seconds spent measuring, which are not training
        self.saved = time.perf_counter()
        self.stopped = False

    def seconds(self) -> float:
        """Seconds of training so far, over all processes, measuring left out."""
        return self.earlier + time.perf_counter() - self.began - self.measuring

    def run(self) -> None:
        """Train until the recipe's epochs are done or a stop was asked for."""
        self.model.train()
        whole = math.ceil(self.recipe.epochs)
        while self.epoch < whole:
            batches = self.data.epoch(self.epoch)
            last = len(batches)
            if self.epoch == whole - 1:  # a recipe may end inside an epoch
                last = max(1, round(len(batches) * (self.recipe.epochs - self.epoch)))
            while self.index < last:
                self._step(batches[self.index], (self.epoch + self.index / len(batches)) / self.recipe.epochs)
                self.index += 1
                self.stopped = self.stopped or (self.should_stop is not None and self.should_stop())
                if self.stopped:
                    self.save()
                    return
                if self.run_dir is not None and time.perf_counter() - self.saved > SAVE_SECONDS:
                    self.save()
            self.epoch, self.index = self.epoch + 1, 0
            self._end_of_epoch(self.epoch >= whole)
            if self.stopped:
                self.save()
                return

    def _step(self, batch: Batch, progress: float) -> None:
        # A string seeds Python's generator by its SHA-512: the same masks at the same place in every process.
        self.model.drop.rng.seed(f"{self.recipe.seed}/{self.epoch}/{self.index}")
        if self.model.embed.weight.device.type != "cpu":
            torch.manual_seed(hash((self.recipe.seed, self.epoch, self.index)) % (1 << 63))
        loss, _ = loss_of(self.model, batch, self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        norm = self.optimizer.step(schedule(progress, self.recipe.warmup, self.recipe.schedule))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise CandidateError(
                f"training stopped at step {self.step}: the loss is {value} (gradient norm {norm}); "
                "lower the recipe's learning rates"
            )
        self.step += 1
        self.tokens += batch.num_tokens
        self.loss_sum += value
        self.loss_count += 1
        if self.watch is not None:
            seconds = self.seconds()
            self.watch(Progress(self.step, progress, value, self.tokens / max(seconds, 1e-9), seconds))

    def _end_of_epoch(self, final: bool) -> None:
        seconds = self.seconds()
        point = Point(self.step, float(self.epoch), seconds, self.loss_sum / max(1, self.loss_count))
        self.loss_sum, self.loss_count = 0.0, 0
        if self.measure is not None and (final or self.epoch % max(1, round(self.measure_every)) == 0):
            start = time.perf_counter()
            self.optimizer.use_average()
            self.model.eval()
            point.valid_loss, point.valid_score = self.measure(self.model)
            self.optimizer.use_masters()
            self.model.train()
            self.measuring += time.perf_counter() - start
        self.curve.append(point)

    def save(self) -> None:
        """Write the run's state, if it has a directory."""
        self.saved = time.perf_counter()
        if self.run_dir is None:
            return
        tensors, optimizer = self.optimizer.state()
        plain = {
            "step": self.step, "epoch": self.epoch, "index": self.index, "tokens": self.tokens,
            "loss_sum": self.loss_sum, "loss_count": self.loss_count, "seconds": self.seconds(),
            "curve": [asdict(p) for p in self.curve], "optimizer": optimizer, "recipe": self.recipe.to_dict(),
        }  # fmt: skip
        save_state(self.run_dir, tensors, plain)

    def restore(self) -> None:
        """Go back to the last save in the run's directory, if there is one."""
        if self.run_dir is None or (found := load_state(self.run_dir)) is None:
            return
        tensors, plain = found
        if plain["recipe"] != self.recipe.to_dict():
            raise SmallfryError(
                f"{self.run_dir}: holds a run with another recipe; resume with the same settings, or use --force"
            )
        self.optimizer.load_state(tensors, plain["optimizer"])
        self.step, self.epoch, self.index = plain["step"], plain["epoch"], plain["index"]
        self.tokens, self.earlier = plain["tokens"], plain["seconds"]
        self.loss_sum, self.loss_count = plain["loss_sum"], plain["loss_count"]
        self.curve = [Point(**p) for p in plain["curve"]]


@contextlib.contextmanager
def _stop_signals(loop: _Loop) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the loop to save and stop after the step it is in; a second Ctrl-C interrupts at once."""

    def ask(number: int, frame: object) -> None:
        if loop.stopped:
            raise KeyboardInterrupt
        loop.stopped = True

    if loop.run_dir is None or loop.should_stop is not None:
        yield
        return
    previous = {}
    with contextlib.suppress(ValueError):  # not the main thread: leave the signals alone
        previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
