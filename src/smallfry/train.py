"""ONE training loop: for jobs, for corpora, for tuning. Everything it draws comes from the seed and the position."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from smallfry.data import Batch, Noise
from smallfry.errors import CandidateError, SmallfryError
from smallfry.machine import keep_freed_memory
from smallfry.model import Transformer
from smallfry.training.epochs import CountedData as CountedData
from smallfry.training.epochs import Data as Data
from smallfry.training.epochs import Epochs
from smallfry.training.guard import LossGuard, TroubleError
from smallfry.training.loss import loss_of as loss_of
from smallfry.training.loss import mean_loss as mean_loss
from smallfry.training.microbatch import MicroBatches, fitting_in_memory
from smallfry.training.optim import Optimizer, schedule
from smallfry.training.parallel import LARGE_PARAMS, World
from smallfry.training.runstate import DiskSaves, MemorySaves, RunState, Saves
from smallfry.training.sharedsaves import SharedSaves
from smallfry.training.signals import stop_signals

SAVE_SECONDS = 60.0
_SAVE_REST = 20.0  # times as long as a save took, until the next: saving takes at most 5% of the time
_ROLLBACKS = 2
_OTHER = {
    "recipe": ("another recipe", "settings"), "model": ("another model", "model"), "data": ("other data", "data")
}  # fmt: skip
_SANE_STEPS = 10  # ordinary steps after a save that show its weights to be good


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


@dataclass(slots=True)
class Point:
    """One point of a training curve."""

    step: int
    epoch: float
    seconds: float
    train_loss: float
    valid_loss: float | None = None
    valid_score: float | None = None
    more: dict[str, float] = field(default_factory=dict)  # whatever else was measured, by name


Measured = tuple[float | None, float | None] | tuple[float | None, float | None, dict[str, float]]
"""What a measurement gives: validation loss, score, and further numbers by name."""


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
    notes: list[str] = field(default_factory=list)  # what went wrong and was mended, one line each


def train(
    model: Transformer,
    data: Data,
    recipe: Recipe,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    measure: Callable[[Transformer], Measured] | None = None,
    measure_every: float = 1.0,
    watch: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    micro_tokens: int | None = None,
    save_seconds: float = SAVE_SECONDS,
    say: Callable[[str], None] | None = None,
    world: World | None = None,
    large_params: int = LARGE_PARAMS,
) -> Trained:
    """Train a model to the end of its recipe.

    A run that goes wrong mends itself where it can. When the loss or the gradient is no number, or the loss explodes
    (`guard.LossGuard`), it goes back to its last good save and on with half the learning rates, at most twice. When
    memory runs out, it computes batches in parts and goes on. Each such thing is said, saved, and a line of the notes.

    Args:
        model: Freshly initialised, on its device, in its compute precision; it is trained in place.
        data: Epochs of batches.
        recipe: How.
        run_dir: Where the run's last two saves are kept; None keeps them in memory, to go back to, if the model is
            small enough.
        resume: Go on from the last save in ``run_dir`` if there is one; without, saves in it are replaced. The result
            is bit for bit that of a run that was never stopped, provided that the run never had to go back: which save
            it then goes back to depends on the clock.
        measure: Called with the averaged weights in the model; returns validation loss and score, and more by name.
        measure_every: Epochs between two calls of ``measure``; there is one at the end in any case.
        watch: Called after every step.
        should_stop: Asked after every step; True saves and stops. By default Ctrl-C and SIGTERM do that.
        micro_tokens: Padded tokens computed at once, at most; larger batches are computed in parts, whose gradients
            are summed. None computes batches whole until memory runs out. Of this and a resumed run's, the smaller.
        save_seconds: Seconds between two saves, or twenty times as long as the last one took if that is more.
        say: Told in one line of what went wrong and was mended.
        world: The processes that train this model together (`parallel.start`); all call this with the same arguments.
            What any number of them saved, any number goes on from; losses then agree up to rounding, not to the bit.
        large_params: From this many parameters on, several processes hold the model in parts (`sharding.shard`)
            instead of a copy each.

    Returns:
        The trained model and its curve; ``finished`` is False after Ctrl-C or SIGTERM, with the state saved.

    Raises:
        CandidateError: When the loss stops being a number or explodes for the third time, or one row is too much for
            the memory.
        SmallfryError: When a save cannot be written, as on a full disk, or the saves in ``run_dir`` are damaged or
            another run's; what was saved before is intact.
    """
    world = world or World()
    large = model.shape.params >= large_params
    if not large:  # what a large model frees is worth more to others
        keep_freed_memory()
    if large and world.size > 1 and run_dir is None:
        raise SmallfryError(
            "a model in parts over several processes needs a run directory: its saves are how it is kept"
        )
    saves: Saves = SharedSaves(DiskSaves(run_dir), world) if run_dir is not None else MemorySaves()
    hooks = _Hooks(measure, measure_every, watch, should_stop, say or (lambda text: None))
    with fitting_in_memory():
        loop = _Loop(model, data, recipe, saves, hooks, micro_tokens, save_seconds, world, large)
        if run_dir is None or not resume or not loop.resume():
            loop.save()  # something to go back to, and a disk that is too small shows at once
        with stop_signals(loop.stop) if run_dir is not None and should_stop is None else contextlib.nullcontext():
            loop.run()
    loop.optimizer.use_average()
    model = loop.whole().eval()
    return Trained(model, loop.curve, loop.seconds(), loop.step, loop.tokens, not loop.stopped, loop.notes)


@dataclass(frozen=True, slots=True)
class _Hooks:
    """What the caller of `train` wants to be asked or told."""

    measure: Callable[[Transformer], Measured] | None
    measure_every: float
    watch: Callable[[Progress], None] | None
    should_stop: Callable[[], bool] | None
    say: Callable[[str], None]


class _Loop:
    """The state of one training."""

    def __init__(
        self, model: Transformer, data: Data, recipe: Recipe, saves: Saves, hooks: _Hooks, micro_tokens: int | None,
        save_seconds: float, world: World, large: bool,
    ) -> None:  # fmt: skip
        self.model, self.epochs, self.recipe, self.saves, self.hooks = model, Epochs(data), recipe, saves, hooks
        self.world, self.sharded = world, large and world.size > 1
        self.steps_per_epoch = self.epochs.first_steps()
        # The average must forget: a horizon of 500 steps in a run of 700 would still hold its bad beginning.
        steps = max(1.0, self.steps_per_epoch * recipe.epochs)
        decay = max(0.0, 1.0 - 1.0 / max(1.0, recipe.ema * steps)) if recipe.ema else 0.0
        rates = (recipe.lr, recipe.muon_lr, recipe.weight_decay, decay)
        if self.sharded:
            from smallfry.training.sharding import ShardedOptimizer, shard  # a second to import, for few

            self.optimizer: Optimizer = ShardedOptimizer(shard(model, world), world, *rates)
        else:
            self.optimizer = Optimizer(model, *rates)
        # Where the run stands: goes back with a save.
        self.epoch, self.index, self.step, self.tokens = 0, 0, 0, 0
        self.curve: list[Point] = []
        self.loss_sum, self.loss_count = 0.0, 0
        self.guard = LossGuard(model.shape.vocab_size)
        # What happened to it: stays.
        self.micro = MicroBatches(micro_tokens, self._note)
        self.rollbacks = 0
        self.notes: list[str] = []
        self.earlier = 0.0  # seconds spent before this process
        self.began = time.perf_counter()
        self.measuring = 0.0  # seconds spent measuring, which are not training
        self.save_seconds, self.save_due = save_seconds, 0.0
        self.stopped = False

    def seconds(self) -> float:
        """Seconds of training so far, over all processes, measuring left out."""
        return self.earlier + time.perf_counter() - self.began - self.measuring

    def stop(self) -> None:
        """Save and stop after the step that is being computed; asked for a second time, at once."""
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def run(self) -> None:
        """Train until the recipe's epochs are done or a stop was asked for."""
        self.model.train()
        with self.world.in_touch():
            while self.epoch < math.ceil(self.recipe.epochs) and not self.stopped:
                try:
                    self._run_epoch()
                except TroubleError as trouble:
                    self._go_back(str(trouble))
            if self.stopped:
                self.save()

    def whole(self) -> Transformer:
        """The model, put together where it is in parts."""
        if not self.sharded:
            return self.model
        from smallfry.training.sharding import whole

        return whole(self.model, self.world)

    # ---- an epoch, a step -------------------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        """Train from where the run stands to the end of the epoch, or until a stop was asked for."""
        whole = math.ceil(self.recipe.epochs)
        batches = self.epochs.batches(self.epoch)
        last = len(batches)
        if self.epoch == whole - 1:  # a recipe may end inside an epoch
            last = min(last, max(1, round(len(batches) * (self.recipe.epochs - self.epoch))))
        while self.index < last:
            self._step(batches[self.index], (self.epoch + self.index / len(batches)) / self.recipe.epochs)
            self.index += 1
            if self.hooks.should_stop is not None and self.hooks.should_stop():
                self.stopped = True
            # Clocks differ and a signal may reach one process only: all do what one of them is to do.
            due = self.world.main and time.perf_counter() >= self.save_due
            stop, save = self.world.sums(float(self.stopped), float(due))
            self.stopped = stop > 0
            if self.stopped:
                return
            if self.guard.calm and save > 0:
                self.save()
        self.epoch, self.index = self.epoch + 1, 0
        self._end_of_epoch(self.epoch >= whole)

    def _step(self, batch: Batch, progress: float) -> None:
        value = self._add_gradients(batch)
        if not math.isfinite(value):
            raise TroubleError(f"the loss is {value}")
        factor = schedule(progress, self.recipe.warmup, self.recipe.schedule) * 0.5**self.rollbacks
        if self.world.size > 1 and not self.sharded:
            self.world.add(self.optimizer.sums)
        norm = self.optimizer.step(factor)
        if not math.isfinite(norm):
            raise TroubleError(f"the gradient's norm is {norm}")
        self.step += 1
        self.tokens += batch.num_tokens
        self.loss_sum += value
        self.loss_count += 1
        self.guard.look(value)
        if self.hooks.watch is not None:
            seconds = self.seconds()
            self.hooks.watch(Progress(self.step, progress, value, self.tokens / max(seconds, 1e-9), seconds))

    def _add_gradients(self, batch: Batch) -> float:
        """Leave a batch's gradients with the optimizer and on the parameters; returns its weighted mean loss.

        Several processes each compute their share of the batch's rows, divided by the weight of the whole.
        """
        whole = max(batch.divisor, 1e-9)
        mine = self.world.share(batch)

        def compute(parts: list[Batch]) -> float:
            self._seed()
            value = 0.0
            for number, part in enumerate(parts):
                if number:
                    self.optimizer.accumulate()
                loss, weight = loss_of(self.model, part, self.recipe.label_smoothing)
                if part is not batch:  # a part's mean counts as much as its weight, whatever the parts are
                    loss = loss * (weight / whole)
                loss.backward()  # type: ignore[no-untyped-call]
                value += float(loss.detach())
            return value

        if not self.sharded:
            return self.world.sum(self.micro.run(compute, mine, self.optimizer.discard))
        with fitting_in_memory():  # no part is computed again: the other processes would wait for this one for ever
            return self.world.sum(compute(self.micro.parts(mine)))

    def _seed(self) -> None:
        """Make everything that a step draws a function of the seed and the position: no random state to save."""
        key = f"{self.recipe.seed}/{self.epoch}/{self.index}" + (f"/{self.world.rank}" if self.world.size > 1 else "")
        # A string seeds Python's generator by its SHA-512: the same masks at the same place in every process.
        self.model.drop.rng.seed(key)
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
        if self.model.embed.weight.device.type == "cpu":
            torch.default_generator.manual_seed(number)  # a hundredth of the time of seeding every device
        else:
            torch.manual_seed(number)

    def _end_of_epoch(self, final: bool) -> None:
        seconds = self.seconds()
        point = Point(self.step, float(self.epoch), seconds, self.loss_sum / max(1, self.loss_count))
        self.loss_sum, self.loss_count = 0.0, 0
        measure, every = self.hooks.measure, max(1, round(self.hooks.measure_every))
        if measure is not None and (final or self.epoch % every == 0):
            start = time.perf_counter()
            self.optimizer.use_average()
            self.model.eval()
            found = measure(self.whole())
            point.valid_loss, point.valid_score = found[:2]
            point.more = dict(found[2]) if len(found) == 3 else {}
            self.optimizer.use_masters()
            self.model.train()
            self.measuring += time.perf_counter() - start
        self.curve.append(point)

    # ---- saving and going back --------------------------------------------------------------------------------------

    def save(self) -> None:
        """Save the run, unless its weights may be broken: then the save before is the better one to go on from."""
        if not self.guard.calm:
            self.hooks.say(f"step {self.step:,}: the loss is out of bounds; not saved, the save before stands")
            return
        start = time.perf_counter()
        tensors, optimizer = self.optimizer.state()
        self.saves.save(tensors, {
            "step": self.step, "epoch": self.epoch, "index": self.index, "tokens": self.tokens,
            "loss_sum": self.loss_sum, "loss_count": self.loss_count, "seconds": self.seconds(),
            "curve": [asdict(p) for p in self.curve], "guard": self.guard.state(), "optimizer": optimizer,
            "micro_tokens": self.micro.tokens, "rollbacks": self.rollbacks, "notes": self.notes, **self._identity(),
        })  # fmt: skip
        end = time.perf_counter()
        self.save_due = end + max(self.save_seconds, _SAVE_REST * (end - start))

    def _identity(self) -> dict[str, Any]:
        """What must not change between a save and the run that goes on from it, as JSON gives it back."""
        shape = asdict(self.model.shape)
        return {"recipe": self.recipe.to_dict(), "model": shape, "data": {"steps_per_epoch": self.steps_per_epoch}}

    def resume(self) -> bool:
        """Go on from the last save, if there is one."""
        found = self.saves.load()
        if found is None:
            return False
        plain = found.plain
        for name, value in self._identity().items():
            if plain.get(name) != value:
                what, same = _OTHER[name]
                raise SmallfryError(f"{self.saves}: holds a run with {what}; resume with the same {same}, or --force")
        try:
            self._place(found)
            sizes = [tokens for tokens in (self.micro.tokens, plain["micro_tokens"]) if tokens is not None]
            self.micro.tokens = min(sizes, default=None)
            self.rollbacks, self.notes = int(plain["rollbacks"]), [str(note) for note in plain["notes"]]
            self.earlier = float(plain["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SmallfryError(
                f"{self.saves}: the save does not fit this program ({type(error).__name__}: {error}); use --force to "
                "start again"
            ) from None
        self.save_due = time.perf_counter() + self.save_seconds
        if found.note:
            self.hooks.say(found.note)
            self.save()  # which removes the damaged one: it must not count as one of the two that are kept
        return True

    def _place(self, found: RunState) -> None:
        plain = found.plain
        self.optimizer.load_state(found.tensors, plain["optimizer"])
        self.step, self.epoch, self.index = plain["step"], plain["epoch"], plain["index"]
        self.tokens = plain["tokens"]
        self.loss_sum, self.loss_count = plain["loss_sum"], plain["loss_count"]
        self.curve = [Point(**p) for p in plain["curve"]]
        self.guard.load_state(plain["guard"])

    def _go_back(self, why: str) -> None:
        """Return to the last save made before the trouble began, with half the learning rates from there on.

        Raises:
            CandidateError: When that was done too often, or there is no save.
        """
        self.optimizer.discard()
        why = f"step {self.step:,}: {why}"
        if self.rollbacks == _ROLLBACKS:
            raise CandidateError(
                f"training stopped at {why}, after going back {_ROLLBACKS} times with half the learning rates each; "
                "lower the recipe's learning rates"
            )
        found = self.saves.load(self.step - self.guard.strikes - _SANE_STEPS)
        if found is None:
            raise CandidateError(f"training stopped at {why}; lower the recipe's learning rates")
        self._place(found)
        self.rollbacks += 1
        self._note(
            f"{why}; went back to step {self.step:,} and on with {0.5**self.rollbacks:g} of the learning rates "
            f"({self.rollbacks} of at most {_ROLLBACKS} times)"
        )
        self.save()  # whoever resumes knows

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.hooks.say(text)
