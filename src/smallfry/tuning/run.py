"""From a model and data to a tuned model: read, plan, measure, train, measure again, model directory.

The output directory holds ``run/`` (the training's saves, what teachers said), ``tune.json`` (settings, teachers, plan,
what was measured before the first step) and the model's files. Every stage goes on where it was stopped. Of several
processes that train together, one prints and writes; the others only train.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from smallfry.checkpoint import save_model
from smallfry.errors import SmallfryError
from smallfry.machine import compute_dtype, keep_freed_memory, machine, versions
from smallfry.model import Transformer
from smallfry.train import Point, Progress, Trained, train
from smallfry.training.epochs import Data
from smallfry.training.parallel import World
from smallfry.training.rundir import RunDirectory, terminate_as_interrupt
from smallfry.tuning.chat import ChatTuning, fall, summary
from smallfry.tuning.conversations import read_conversations
from smallfry.tuning.kinds import kind_of
from smallfry.tuning.record import Plan, Silent, Tuned, TuneSettings, Watcher
from smallfry.tuning.start import Start, fresh_model, is_size, open_model, with_dropout
from smallfry.tuning.teachers import identity_of, tokenizer_of
from smallfry.tuning.teaching import Teaching

FORMAT = "smallfry-tune/1"
RECORD = "tune.json"


def tune(
    model: str | Path = "", *data: str | Path, out: str | Path | None = None, resume: bool = False, force: bool = False,
    watcher: Watcher | None = None, world: World | None = None, **settings: Any,
) -> Tuned:  # fmt: skip
    """Teach a model to converse, or a job.

    Args:
        model: A model directory, ``shipped:NAME``, or a size such as ``1m`` for fresh weights. Not needed when a run is
            resumed.
        data: Chat data (``.jsonl``, ``.jsonl.gz``, ``.parquet`` with messages, ``hf:owner/name``, a built-in set), each
            with ``:WEIGHT`` behind it where wanted; or one job (a file with input and output, a built-in name). A name
            that is both is the job; ``chat:NAME`` is the set.
        out: Directory to write; ``runs/<model>-<data>`` by default.
        resume: Go on with the run in ``out``; its settings are those it was begun with.
        force: Replace an earlier run in ``out``.
        watcher: Told how it goes.
        world: The processes that train together.
        settings: Fields of `TuneSettings`: ``tokens``, ``epochs``, ``lr_scale``, ``seq_len``, ``seed``, ``mix``,
            ``form``, ``vocab``, ``teacher`` and the others.

    Returns:
        What was trained, and how well held-out answers are known before and after.

    Raises:
        SmallfryError: Model or data cannot be read or do not fit, the directory holds another run, or the run was
            interrupted.
    """
    asked = TuneSettings(str(model), tuple(map(str, data)), **_tuples(settings))
    if out is None:
        if not asked.model or not asked.data:
            raise SmallfryError("no model and data; name both, or an earlier run with --resume --out DIR")
        out = Path("runs") / f"{_stem(asked.model)}-{_stem(asked.data[0])}"
    world = world or World()
    run = _Tuning(Path(out), world, (watcher or Silent()) if world.main else Silent())
    with run.directory.exclusive(), terminate_as_interrupt():
        try:
            if (finished := run.begin(asked, set(settings), resume, force)) is not None:
                return finished
            return run.go()
        except KeyboardInterrupt:
            raise run.interrupted() from None
        except SmallfryError:
            if not run.answered:  # what a teacher said may have been paid: it is worth more than the run before
                run.directory.withdraw(run.began)
            raise


class Side(Protocol):
    """A model and what it is tuned on: conversations (`ChatTuning`) or a job (`JobTuning`)."""

    @property
    def kind(self) -> str:
        """``chat`` or ``job``."""

    @property
    def start(self) -> Start:
        """The model."""

    @property
    def plan(self) -> Plan:
        """How it is trained."""

    @property
    def measures(self) -> bool:
        """Whether anything is held out."""

    @property
    def measure_every(self) -> float:
        """Epochs of the loop between two measurements."""

    def lines(self) -> list[tuple[str, str]]:
        """What the data is and what was left out."""

    def facts(self) -> dict[str, Any]:
        """Names, counts and hashes of the data."""

    def training_data(self) -> Data:
        """What the loop reads."""

    def done(self, step: int, share: float) -> float:
        """Share of the run after a step that the loop's own count puts at ``share``."""

    def measure(self, model: Transformer) -> tuple[float, float | None]:
        """Loss, and score where there is one, on a sample of what is held out."""

    def told(self, loss: float, score: float | None) -> str:
        """A measurement as it is shown."""

    def answers(self, model: Transformer) -> np.ndarray | None:
        """Nats and tokens of every held-out answer, ``(n, 2)``; None where nothing is held out."""

    def result(self, model: Transformer) -> dict[str, Any] | None:
        """What a job's test rows say at the end."""

    def card(self) -> dict[str, Any]:
        """What the tuned model says of itself."""


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    teacher = settings.get("teacher")
    if teacher is None:
        return settings
    return settings | {"teacher": (str(teacher),) if isinstance(teacher, str | Path) else tuple(map(str, teacher))}


def _stem(source: str) -> str:
    name = Path(source.rpartition("hf:")[2].removeprefix("shipped:").removeprefix("chat:").partition(":")[0]).name
    return name.partition(".")[0] or "data"


class _Tuning:
    """One run and its directory."""

    def __init__(self, out: Path, world: World, watcher: Watcher) -> None:
        self.out, self.world, self.watcher = out, world, watcher
        self.directory = RunDirectory(out, world, RECORD, FORMAT, "tuning")
        self.settings = TuneSettings()
        self.plan: Plan | None = None
        self.facts: dict[str, Any] = {}  # of the data and the model, which must not change under a run
        self.teachers: list[dict[str, str]] | None = None  # who they are, once they were looked at
        self.unknown = False  # whether an earlier version began the run, which did not say who they are
        self.before: np.ndarray | None = None
        self.stage = "reading"

    # ---- the directory ----------------------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether there is something to go on with: a plan, or what a teacher said."""
        return self.plan is not None or self.answered

    @property
    def answered(self) -> bool:
        """Whether a teacher's answers are kept, or training's saves."""
        return (self.out / "run").exists()

    def begin(self, asked: TuneSettings, given: set[str], resume: bool, force: bool) -> Tuned | None:
        """Settings from the user or from the run that is resumed; the result where that is finished already."""
        if asked.model and Path(asked.model).exists() and Path(asked.model).resolve() == self.out.resolve():
            raise SmallfryError(f"{self.out}: is the model that is to be tuned; choose another --out")
        begins = bool(asked.model and asked.data)
        found = self.directory.open(resume, force, begins, "name a model and data to begin a run")
        if found is not None:
            done = self._take_up(found, asked, given)
            if done is not None:
                self.watcher.say(f"{self.out}: is finished")
            return done
        asked.check()
        self.settings = asked
        self.directory.clear()
        self._record()
        return None

    def _take_up(self, found: dict[str, Any], asked: TuneSettings, given: set[str]) -> Tuned | None:
        try:
            stored = TuneSettings.from_dict(found["settings"])
            self.plan = Plan.from_dict(found["plan"]) if found["plan"] else None
            self.facts = dict(found["facts"])
            self.unknown = "teachers" not in found
            self.teachers = [dict(each) for each in found["teachers"]] if found.get("teachers") else None
            self.before = np.array(found["before"], dtype=np.float64) if found["before"] else None
            done = Tuned.from_dict(found["result"]) if found["result"] else None
        except (KeyError, TypeError, ValueError) as error:
            raise SmallfryError(f"{self.out / RECORD}: damaged ({error!r}); use --force to start again") from None
        names = [*sorted(given), *(name for name in ("model", "data") if getattr(asked, name))]
        self.directory.same({name: getattr(asked, name) for name in names}, asdict(stored))
        self.settings = stored
        return done

    def _record(self, result: Tuned | None = None) -> None:
        who = {} if self.unknown else {"teachers": self.teachers}
        self.directory.write({
            "settings": asdict(self.settings), **who, "plan": self.plan and self.plan.to_dict(), "facts": self.facts,
            "before": None if self.before is None else self.before.tolist(), "result": result and result.to_dict(),
        }, begun=self.plan is not None)  # fmt: skip

    def interrupted(self) -> SmallfryError:
        """What is told after Ctrl-C."""
        kept = {
            "reading": "nothing was trained yet", "training": "the training is saved",
            "measuring": "the training is saved up to its last minute",
        }[self.stage]  # fmt: skip
        return SmallfryError(f"interrupted: {kept}; go on with: smallfry tune --resume --out {self.out}")

    # ---- the stages -------------------------------------------------------------------------------------------------

    def go(self) -> Tuned:
        """Read, plan, measure, train, measure, write."""
        keep_freed_memory()
        side = self._side()
        self._unchanged({"model": side.start.sha256, "data": side.facts()})
        self.watcher.read(side.lines())
        self.watcher.decided(side.plan.lines)
        network = with_dropout(side.start.model, side.plan.recipe.dropout)
        network = network.to(self.world.device, compute_dtype(self.world.device))
        if self.plan is None:
            self.plan = side.plan
            self.facts = {"model": side.start.sha256, "data": side.facts()}
            if not side.start.fresh:
                self.before = side.answers(network)
            self._record()
        if self.before is not None:
            self.watcher.say(f"before: {side.told(float(self.before[:, 0].sum() / self.before[:, 1].sum()), None)}")
        trained = self._train(side, network)
        self.stage = "measuring"
        return self._finish(side, trained)

    def _side(self) -> Side:
        """What is tuned on what."""
        asked = self.settings
        kind, why = kind_of(asked.data, asked.output_column)
        self.watcher.say(why)
        teaching = self._teaching() if asked.teacher else None
        if kind == "job":
            from smallfry.tuning.jobs import JobTuning, read_job

            return JobTuning(asked, read_job(asked), self.plan, teaching)
        start = self._start_for_chat()  # what is wrong with the model shows before the data is made or read
        if teaching is not None:
            teaching.meet(start.tokenizer, job_form=False)
        read = read_conversations(asked.data, asked.seed, asked.limit)
        for note in read.notes:
            self.watcher.say(note)
        if teaching is None:
            return ChatTuning(asked, start, read, None, self.plan)
        return ChatTuning(asked, start, teaching.answered(read), teaching.wrap, self.plan)

    def _teaching(self) -> Teaching:
        """The teachers; who they are is recorded before they are asked, and may not change from there on."""
        asked, begun = self.settings, self.teachers
        who = [] if self.unknown else [identity_of(source, asked.teacher_model) for source in asked.teacher]
        if begun is not None and who != begun:
            name = next((source for source, mine in zip(asked.teacher, who, strict=True) if mine not in begun), "")
            raise SmallfryError(
                f"{self.out}: the teacher {name} has other weights than when the run was begun; put it back, or use "
                "--force to start again"
            )
        if begun is None and not self.unknown:
            self.teachers = who
            self._record()
        return Teaching(asked, self.out / "run", self.world, self.watcher.say, who)

    def _start_for_chat(self) -> Start:
        asked = self.settings
        if not is_size(asked.model):
            return open_model(asked.model)
        if not asked.teacher:
            raise SmallfryError(
                f"{asked.model}: fresh weights know no words to converse in; pretrain a model first, or name a "
                "--teacher whose tokenizer they take"
            )
        return fresh_model(asked.model, tokenizer_of(asked.teacher[0]), asked.seed)

    def _unchanged(self, facts: dict[str, Any]) -> None:
        """Refuse to go on with another model or other data than the run was begun with."""
        for name, value in facts.items() if self.facts else ():
            if value != self.facts[name]:
                raise SmallfryError(
                    f"{self.out}: the {name} changed since the run was begun; put it back, or use --force to start "
                    "again"
                )

    def _train(self, side: Side, network: Transformer) -> Trained:
        self.stage = "training"
        last: list[Progress] = []

        def watch(progress: Progress) -> None:
            last[:] = [replace(progress, done=side.done(progress.step, progress.done))]
            self.watcher.step(last[0])

        def look(model: Transformer) -> tuple[float, float | None]:
            found = side.measure(model)
            if last:
                self.watcher.measured(last[0], side.told(*found))
            return found

        trained = train(
            network, side.training_data(), side.plan.recipe, run_dir=self.out / "run", resume=True,
            measure=look if side.measures else None, measure_every=side.measure_every, watch=watch,
            say=self.watcher.say, world=self.world,
        )  # fmt: skip
        if not trained.finished:
            raise self.interrupted()
        return trained

    def _finish(self, side: Side, trained: Trained) -> Tuned:
        after = side.answers(trained.model)
        start = side.start
        done = Tuned(
            str(self.out), side.kind, start.tuned_from, trained.model.shape.params, trained.model.shape.vocab_size,
            trained.steps, trained.tokens, trained.seconds, summary(self.before), summary(after),
            fall(self.before, after), side.result(trained.model), side.facts(),
            [_point(point) for point in trained.curve], trained.notes,
        )  # fmt: skip
        if self.world.main:
            self._write(side, trained.model, done)
        return done

    def _write(self, side: Side, model: Transformer, done: Tuned) -> None:
        """The model directory; the record last, which makes the run a finished one."""
        plain, asked = done.to_dict(), self.settings
        save_model(self.out, model, side.start.tokenizer, {
            "name": self.out.name, **side.card(), "recipe": side.plan.recipe.to_dict(), "seed": asked.seed,
            "tuned_from": done.tuned_from, "lineage": side.start.lineage(),
            "tuning": {
                **{k: v for k, v in plain.items() if k not in ("out", "commands", "tuned_from")},
                **({"teachers": self.teachers} if asked.teacher else {}),
                "settings": asdict(asked), "lines": [asdict(line) for line in side.plan.lines],
                "machine": machine(), "versions": versions(),
            },
        }, max_positions=max(side.start.positions, side.plan.seq_len))  # fmt: skip
        self._record(done)


def _point(point: Point) -> dict[str, Any]:
    return {
        "step": point.step, "seconds": point.seconds, "train_loss": point.train_loss, "valid_loss": point.valid_loss,
        "valid_score": point.valid_score,
    }  # fmt: skip
