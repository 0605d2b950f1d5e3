"""From a model that solves some problems to one that solves more: draw answers, keep what was right, measure.

The output directory holds ``run/`` (the training's saves, and ``steps.jsonl`` with a line a step), ``reinforce.json``
(settings, hashes of the model and the problems, what was measured before, the result) and the model's files. Every
stage goes on where it was stopped.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smallfry.checkpoint import save_model
from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.machine import compute_dtype, keep_freed_memory, machine, versions
from smallfry.model import Transformer
from smallfry.pretraining.plan import Line
from smallfry.recipes import GENERATE
from smallfry.tokenizer import Tokenizer
from smallfry.train import Measured, Progress, Recipe, Trained, train
from smallfry.training.parallel import World
from smallfry.training.rundir import RunDirectory, terminate_as_interrupt
from smallfry.tuning.passes import Passes, compare, measure
from smallfry.tuning.problems import Problem, Problems, digest, read_problems, read_test
from smallfry.tuning.record import Silent, Watcher
from smallfry.tuning.reinforced import Reinforced, ReinforceSettings
from smallfry.tuning.rollouts import Answerer, Rollouts
from smallfry.tuning.start import Start, open_model

FORMAT = "smallfry-reinforce/1"
RECORD = "reinforce.json"
MICRO_TOKENS = 8192  # computed at once: a step of 256 long answers is more than memory should have to hold
_GSM8K_NEW = 256  # tokens of an answer there


def reinforce(
    model: str | Path, problems: Sequence[str], out: str | Path, resume: bool = False, force: bool = False,
    watcher: Watcher | None = None, world: World | None = None, **settings: Any,
) -> Reinforced:  # fmt: skip
    """Reinforce a chat model on problems that have one right number each.

    Args:
        model: A model directory whose model was tuned on worked solutions. Not needed when a run is resumed.
        problems: ``arithmetic``, or files as `read_problems` reads them. Not needed when a run is resumed.
        out: Directory to write.
        resume: Go on with the run in ``out``; its settings are those it was begun with.
        force: Replace an earlier run in ``out``.
        watcher: Told how it goes.
        world: The processes that train together. Each draws all answers; they share the training of them.
        settings: Fields of `ReinforceSettings`.

    Returns:
        What the model solved before and after.

    Raises:
        SmallfryError: The model or the problems cannot be read, the model solves nothing at all, the directory holds
            another run, or the run was interrupted.
    """
    asked = ReinforceSettings(str(model), tuple(problems), **settings)
    world = world or World()
    run = _Reinforcing(Path(out), world, (watcher or Silent()) if world.main else Silent())
    given = {*settings, *(("model",) if asked.model else ()), *(("problems",) if asked.problems else ())}
    with run.directory.exclusive(), terminate_as_interrupt():
        try:
            return run.begin(asked, given, resume, force) or run.go()
        except KeyboardInterrupt:
            raise run.interrupted() from None
        except SmallfryError:
            run.directory.withdraw(run.before is not None)
            raise


class _Reinforcing:
    """One run and its directory."""

    def __init__(self, out: Path, world: World, watcher: Watcher) -> None:
        self.out, self.world, self.watcher = out, world, watcher
        self.directory = RunDirectory(out, world, RECORD, FORMAT, "reinforcement")
        self.settings = ReinforceSettings()
        self.before: dict[str, Any] | None = None  # by name of the test set
        self.source: dict[str, Any] | None = None  # name and hash of the model it began with
        self.data: dict[str, Any] | None = None  # counts and hashes of the problems that `before` was measured on

    # ---- the directory ----------------------------------------------------------------------------------------------

    def begin(self, asked: ReinforceSettings, given: set[str], resume: bool, force: bool) -> Reinforced | None:
        """Settings from the user or from the run that is resumed; the result where that is finished already."""
        begins = bool(asked.model and asked.problems)
        found = self.directory.open(resume, force, begins, "name a model and problems to begin a run")
        if found is not None:
            return self._take_up(found, asked, given)
        asked.check()
        self.settings = asked
        self.directory.clear()
        self._record()
        return None

    def _take_up(self, found: dict[str, Any], asked: ReinforceSettings, given: set[str]) -> Reinforced | None:
        try:
            stored = ReinforceSettings.from_dict(found["settings"])
            self.before, self.source = found["before"], found["source"]
            self.data = dict(found["data"]) if found.get("data") else None
            done = Reinforced.from_dict(found["result"]) if found["result"] else None
            for name in self.before or {}:
                Passes.from_dict((self.before or {})[name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SmallfryError(f"{self.out / RECORD}: damaged ({error!r}); use --force to start again") from None
        self.directory.same({name: getattr(asked, name) for name in given}, asdict(stored))
        self.settings = stored
        if done is not None:
            self.watcher.say(f"{self.out}: is finished")
        return done

    def _record(self, result: Reinforced | None = None) -> None:
        self.directory.write({
            "settings": asdict(self.settings), "source": self.source, "data": self.data, "before": self.before,
            "result": result and result.to_dict(),
        }, begun=self.before is not None)  # fmt: skip

    def interrupted(self) -> SmallfryError:
        """What is told after Ctrl-C."""
        return SmallfryError(
            f"interrupted: the training is saved; go on with: smallfry tune --rl --resume --out {self.out}"
        )

    # ---- the stages -------------------------------------------------------------------------------------------------

    def go(self) -> Reinforced:
        """Problems, measurement, training, measurement, model directory."""
        keep_freed_memory()
        asked = self.settings
        start = self._load()
        gsm8k = read_test(Path(asked.gsm8k)) if asked.gsm8k is not None else []
        problems = self._fitting(read_problems(asked.problems, asked.seed, asked.levels, gsm8k), start)
        model, tokenizer = self._network(start), start.tokenizer
        self.watcher.read([(name, f"{value:,}") for name, value in problems.facts.items() if isinstance(value, int)])
        tests = {"test": sample(problems.test, asked.limit)}
        if gsm8k:
            tests["gsm8k"] = sample(gsm8k, asked.limit)
        data = {"problems": problems.facts, "gsm8k": digest(gsm8k) if gsm8k else None}
        self._unchanged(data, tests)
        recipe = recipe_of(asked, model)
        self.watcher.decided(lines_of(asked, recipe, problems))
        if self.before is None:
            self.before = {name: self._measure(model, tokenizer, test, name).to_dict() for name, test in tests.items()}
            if not any(found["any"] for found in self.before.values()):
                self.before = None
                raise SmallfryError(
                    f"{asked.model}: solves none of {len(tests['test']):,} problems in {asked.tries} tries each, so "
                    "there is nothing to reinforce; tune it on worked solutions first, or take easier --levels"
                )
            self.data = data
            self._record()
        trained, rollouts = self._train(model, start, problems, recipe)
        after = {name: self._measure(trained.model, tokenizer, test, name) for name, test in tests.items()}
        done = self._done(trained, rollouts, after, problems)
        if self.world.main:
            self._write(trained.model, start, recipe, done)
        return done

    def _load(self) -> Start:
        start = open_model(self.settings.model)
        if start.card.get("form") is not None:
            raise SmallfryError(
                f"{self.settings.model}: is a job's model; expected one that was tuned on worked solutions, such as "
                "smallfry tune MODEL arithmetic --out DIR makes"
            )
        if self.source is not None and self.source != start.tuned_from:
            raise SmallfryError(
                f"{self.settings.model}: has other weights than when the run was begun; use --force to start again"
            )
        self.source = start.tuned_from
        return start

    def _unchanged(self, data: dict[str, Any], tests: dict[str, list[Problem]]) -> None:
        """Refuse to go on with other problems than those that were measured before.

        The record of an earlier version says only how many were.
        """
        begun = self.data or data
        for key, test, source in (
            ("problems", "test", " ".join(self.settings.problems)), ("gsm8k", "gsm8k", self.settings.gsm8k)
        ):  # fmt: skip
            measured = (self.before or {}).get(test)
            other = measured is not None and measured["n"] != len(tests.get(test, ()))
            if other or begun.get(key) != data[key]:
                raise SmallfryError(
                    f"{source}: has other problems than when the run was begun; put them back, or use --force to start "
                    "again"
                )

    def _fitting(self, problems: Problems, start: Start) -> Problems:
        """Problems whose question leaves room for an answer in training; tests keep all."""
        room = start.positions - 2 * self.settings.max_new
        train = [p for p in problems.train if len(start.tokenizer.encode(p.question)) + 3 <= room]
        if not train:
            raise SmallfryError(f"{self.settings.model}: no question fits into {room} tokens; take a smaller --max-new")
        facts = {**problems.facts, "too_long": len(problems.train) - len(train)}
        return Problems(train, problems.valid, problems.test, facts)

    def _measure(self, model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], name: str) -> Passes:
        asked = self.settings
        training = model.training
        answerer = Answerer(model.eval(), tokenizer, _GSM8K_NEW if name == "gsm8k" else asked.max_new, asked.tool)
        found = measure(
            answerer, problems, asked.tries, Sampling(asked.temperature, seed=asked.seed, top_k=asked.top_k)
        )
        model.train(training)
        return found

    def _network(self, start: Start) -> Transformer:
        """The weights it begins with, where and in what they are computed."""
        network = Transformer(start.model.shape, 0.0, start.model.variant)
        network.load_state_dict(start.model.state_dict())
        return network.to(self.world.device, compute_dtype(self.world.device))

    def _train(self, model: Transformer, start: Start, problems: Problems, recipe: Recipe) -> tuple[Trained, Rollouts]:
        asked, tokenizer = self.settings, start.tokenizer
        reference = self._network(start).eval() if asked.kl else None
        run = self.out / "run"
        if self.world.main:
            run.mkdir(exist_ok=True)
        log = run / "steps.jsonl" if self.world.main else None
        every = min(asked.every, asked.steps)
        rollouts = Rollouts(model, tokenizer, problems.train, asked.drawing, every, log, reference)
        shown = sample(problems.valid, asked.shown)
        last: list[Progress] = []

        def watch(progress: Progress) -> None:
            last[:] = [progress]
            self.watcher.step(progress)

        def look(model: Transformer) -> Measured:
            found = self._measure(model, tokenizer, shown, "valid")
            recent = rollouts.recent(max(rollouts.steps, default=0) // every)
            if last:
                drawn = f"drawn {found.drawn:.1%}, any of {found.samples} {found.any:.1%}"
                reward = f"reward {recent.get('reward', 0.0):.2f}"
                self.watcher.measured(last[0], f"solves {found.greedy:.1%}, {drawn}; {reward}")
            return None, found.greedy, {**found.numbers, **{f"train_{k}": v for k, v in recent.items()}}

        trained = train(
            model, rollouts, recipe, run_dir=run, resume=True, measure=look, watch=watch, say=self.watcher.say,
            world=self.world, micro_tokens=MICRO_TOKENS,
        )  # fmt: skip
        if not trained.finished:
            raise self.interrupted()
        return trained, rollouts

    def _done(self, trained: Trained, rollouts: Rollouts, after: dict[str, Passes], problems: Problems) -> Reinforced:
        asked = self.settings
        before = {name: Passes.from_dict(found) for name, found in (self.before or {}).items()}
        tests: dict[str, dict[str, Any]] = {}
        for name, found in after.items():
            then = before[name]
            assert then is not None
            greedy, drawn = compare(then, found)
            tests[name] = {"before": then, "after": found, "greedy": greedy, "drawn": drawn}
        notes = list(trained.notes)
        if tests["test"]["drawn"].high < 0:
            notes.append("it solves less than before: take a smaller --lr-scale or fewer --steps")
        steps = list(rollouts.steps.values())
        answers = sum(s.draws for s in steps) * min(asked.questions, len(problems.train)) * asked.samples
        return Reinforced(
            str(self.out), self.source or {}, trained.model.shape.params, trained.steps, answers, trained.tokens,
            trained.seconds, sum(s.seconds for s in steps), tests, problems.facts,
            [asdict(point) for point in trained.curve], notes,
        )  # fmt: skip

    def _write(self, model: Transformer, start: Start, recipe: Recipe, done: Reinforced) -> None:
        """The model directory; the record last, which makes the run a finished one."""
        plain = {k: v for k, v in done.to_dict().items() if k not in ("out", "commands", "tests", "tuned_from")}
        tests = {name: {k: _brief(v) for k, v in found.items()} for name, found in done.to_dict()["tests"].items()}
        save_model(self.out, model, start.tokenizer, {
            "name": self.out.name, "form": None, "chat": True, "recipe": recipe.to_dict(), "seed": self.settings.seed,
            "tuned_from": done.tuned_from, "lineage": start.lineage(),
            "reinforced": {
                **plain, "tests": tests, "settings": asdict(self.settings), "machine": machine(),
                "versions": versions(),
            },
        }, max_positions=start.positions)  # fmt: skip
        self._record(done)


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    """A measurement without its single problems, for the card."""
    return {k: v for k, v in found.items() if k not in ("right", "shares")}


def sample(problems: Sequence[Problem], limit: int) -> list[Problem]:
    """At most so many problems, always the same ones: in the order of their hashes' draw."""
    order = list(problems)
    random.Random(42).shuffle(order)
    return order[:limit]


def recipe_of(asked: ReinforceSettings, model: Transformer) -> Recipe:
    """How a reinforcement steps: pretraining's rates for the size times ``lr_scale``, falling to 0, without decay."""
    scale = (model.shape.params / 1e6) ** -0.25
    return Recipe(
        epochs=asked.steps / min(asked.every, asked.steps), batch_tokens=MICRO_TOKENS,
        lr=GENERATE.lr * scale * asked.lr_scale, muon_lr=GENERATE.muon_lr * scale**0.5 * asked.lr_scale,
        weight_decay=0.0, dropout=0.0, ema=0.0, seed=asked.seed,
    )  # fmt: skip


def lines_of(asked: ReinforceSettings, recipe: Recipe, problems: Problems) -> list[Line]:
    """Every setting with its reason."""
    answers = asked.questions * asked.samples
    return [
        Line("answers a step", f"{asked.questions} x {asked.samples}", "questions x answers to each, drawn anew"),
        Line("steps", f"{asked.steps:,}", f"{asked.steps * answers:,} answers in all"),
        Line("learning rates", f"{recipe.lr:.2g}, {recipe.muon_lr:.2g}",
             f"{asked.lr_scale:g} of what pretraining takes at this size, falling to 0"),
        Line("draws", f"temperature {asked.temperature:g}, top-k {asked.top_k}", "what is learned from"),
        Line("reward", "1 for the right number", "behind ####; nothing for the form"),
        Line("calculator", "on" if asked.tool else "off", "what it writes is not learned"),
        Line("advantage", "reward - mean" + (", / spread" if asked.spread else ""), "over the answers to one question"),
        Line("measured", f"every {asked.every} steps",
             f"on {min(asked.shown, len(problems.valid))} validation problems"),
    ]  # fmt: skip
