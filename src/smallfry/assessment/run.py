"""One assessment from start to end: check, baselines, pilot, climb, combine, compare, write down."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from smallfry import check
from smallfry.assessment import conclude, plan
from smallfry.assessment.climb import Climber
from smallfry.assessment.combine import CombineTask, run_combined
from smallfry.assessment.lock import DirectoryLock
from smallfry.assessment.pool import Pool, Result, StoppedError
from smallfry.assessment.state import AssessSettings, Silent, State, Watcher
from smallfry.assessment.work import BaselineTask, Outcome, RungTask, score_answers
from smallfry.baselines import standard_baselines
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import METRICS
from smallfry.files import read_json, write_atomic
from smallfry.forms import FormName, available_forms
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.machine import default_workers, keep_freed_memory, limit_threads, machine, versions
from smallfry.recipes import holds, larger_vocab
from smallfry.record import Assessment, JobRecord, PilotRecord, PlanStep
from smallfry.report import write_report
from smallfry.sizes import parse_size, shape_for
from smallfry.tokenizer import MIN_VOCAB

DEFAULT_TARGET = {"accuracy": 0.95, "exact_match": 0.95, "bleu": None, "bits_per_byte": None}
PILOT_VOCABS = (MIN_VOCAB, 512, 2048)
SPARE_TOKENS = 1024  # room for units and symbols beside a piloted vocabulary
PILOT_SHARE = 0.3
SECONDS_EXPONENT = 0.77  # of parameters: time of a training step, measured on the rungs from 0.25m to 5m
RESERVE = 0.06  # of the budget, kept for combining and writing


def assess(job: Job, settings: AssessSettings, watcher: Watcher | None = None) -> Assessment:
    """Find the smallest workable rung for a job, beside baselines.

    Args:
        job: The job.
        settings: Target, rungs, budget and the rest.
        watcher: Told of plan and progress.

    Returns:
        The record, which also stands in ``settings.out / "assessment.json"`` with the report and the best model.

    Raises:
        SmallfryError: When the output directory exists, a rung cannot hold the vocabulary, or the run was interrupted.
    """
    run = _Run(job, settings, watcher or Silent())
    with _terminate_as_interrupt():
        try:
            return run.go()
        except BrokenProcessPool:
            raise SmallfryError(
                "a worker process died: out of memory, or a script calls assess outside `if __name__ == '__main__':`; "
                f"what is finished stays in {settings.out}, --resume goes on"
            ) from None
        except OSError as error:
            raise SmallfryError(
                f"{error.filename or settings.out}: cannot write ({error.strerror or error}); free some space; "
                f"what is finished stays in {settings.out}, --resume goes on"
            ) from None
        except (KeyboardInterrupt, StoppedError):
            run.interrupted()
            raise SmallfryError(
                f"interrupted: finished trainings and the state of running ones are in {settings.out}; "
                "run the same command with --resume to go on"
            ) from None
        finally:
            run.close()


class _Run:
    def __init__(self, job: Job, settings: AssessSettings, watcher: Watcher) -> None:
        self.job, self.settings, self.watcher = job, settings, watcher
        self.began = time.perf_counter()
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.out = settings.out
        self.marker = settings.out / "work" / "job.json"
        self.earlier = 0.0  # seconds spent before an interruption
        self.state = State()
        self.pool: Pool | None = None
        self.target = settings.target if settings.target is not None else DEFAULT_TARGET[job.metric]
        if self.target is not None and job.metric != "bits_per_byte" and not 0 < self.target <= 1:
            raise SmallfryError(f"--target {self.target:g}: expected a share above 0 and up to 1, such as 0.95 for 95%")
        self.higher = METRICS[job.metric].higher_is_better
        self.rungs = sorted(set(settings.rungs), key=parse_size)
        if not self.rungs or settings.seeds < 1:
            raise SmallfryError("nothing to train; give at least one rung (--rungs 0.25m,1m) and one seed (--seeds 1)")
        if len({parse_size(r) for r in self.rungs}) < len(self.rungs):
            raise SmallfryError(f"--rungs {','.join(self.rungs)}: names one size twice; name each once")
        for rung in self.rungs:
            shape_for(rung, 2048 if parse_size(rung) >= 250_000 else MIN_VOCAB)
        self.codec: FrameCodec | None = None
        self.plan: list[PlanStep] = []
        self._pilots_out = 0
        self.names: list[str] = []
        self.lock: DirectoryLock | None = None

    # ---- the whole ------------------------------------------------------------------------------------------------

    def go(self) -> Assessment:
        limit_threads()
        keep_freed_memory()
        self.codec = FrameCodec.learn(self.job.train) if self.job.kind == "transform" else None
        if self.settings.form == "inline" and self.codec is None:
            raise SmallfryError("--form inline: these outputs are not labels plus spans of the input; use text")
        self.names = self._baseline_names()
        self._open()
        self.lock = DirectoryLock(self.out / "work")
        card = check.card(self.job)
        workers = self.settings.workers or default_workers()
        watch, say = self.watcher.progress, self.watcher.say
        self.pool = Pool(self.job, self.codec, self.out, self.settings.resume, workers, watch, say)
        self._make_plan(workers)
        self.watcher.plan(self.plan)
        self._pilot()
        self._climb()
        self._cut_baselines()
        self._combine()
        record = self._record(card)
        self._write(record)
        return record

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.began

    def interrupted(self) -> None:
        """Let workers save, and note the time spent, which counts when the run goes on."""
        if self.pool is not None:
            self.pool.stop()
        self._note_time()

    def _note_time(self) -> None:
        """The time spent so far counts against the budget when the run goes on, however it ends."""
        if self.marker.exists():
            write_atomic(self.marker, json.dumps({**read_json(self.marker), "seconds": self.earlier + self.seconds()}))

    def close(self) -> None:
        """End the workers."""
        if self.pool is not None:
            self.pool.close()
        if self.lock is not None:
            self.lock.release()

    def _open(self) -> None:
        """Make the output directory; never write over another run."""
        out, s = self.out, self.settings
        marker = self.marker
        identity = {"hashes": self.job.hashes(), "kind": self.job.kind, "metric": self.job.metric, "version": 1}
        try:
            if out.exists() and not out.is_dir():
                raise SmallfryError(f"{out}: is a file; choose another directory with --out")
            if out.exists() and any(out.iterdir()):
                if s.resume:
                    found = read_json(marker) if marker.exists() else {}
                    self.earlier = float(found.get("seconds", 0.0))
                    if any(found.get(key) != value for key, value in identity.items()):
                        raise SmallfryError(
                            f"{out}: holds no run of this job to resume; leave out --resume or choose --out"
                        )
                elif s.force:
                    if not marker.exists():
                        raise SmallfryError(
                            f"{out}: was not made by assess, so --force leaves it alone; choose another --out"
                        )
                    DirectoryLock(out / "work").release()  # refuses while another assessment writes there
                    shutil.rmtree(out)
                else:
                    raise SmallfryError(
                        f"{out}: exists and is not empty; choose another --out, --resume it, or replace it with --force"
                    )
            marker.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SmallfryError(f"{out}: cannot write there ({error.strerror}); choose another --out") from None
        write_atomic(marker, json.dumps({**identity, "seconds": self.earlier}))

    # ---- plan -----------------------------------------------------------------------------------------------------

    def _make_plan(self, workers: int) -> None:
        form = self.settings.form or available_forms(self.job, self.codec)[0]
        tokens, speed = plan.measure_speed(self.job, form, self.codec, self.rungs[0])
        self._first_rung_seconds = tokens / speed
        pilots = self._expected_pilots()
        names = self.names
        steps = [PlanStep(f"baselines: {', '.join(names)}", plan.baseline_seconds(self.job, names) / workers)]
        if pilots:
            seconds = pilots * PILOT_SHARE * self._first_rung_seconds / workers
            steps.append(PlanStep(f"pilot: {pilots} forms and vocabularies on {self.rungs[0]}", seconds))
        steps += [PlanStep(f"train {rung}, one seed", self._estimate(rung)) for rung in self.rungs]
        more = (self.settings.seeds - 1) * self._estimate(self.rungs[-1]) / workers
        steps.append(PlanStep(f"up to {self.settings.seeds - 1} more seeds where the verdict hangs on them", more))
        self.plan = steps

    def _expected_pilots(self) -> int:
        forms, vocabs = len(self._pilot_forms()), 0 if self.settings.vocab else len(PILOT_VOCABS)
        return 0 if forms == 1 and not vocabs else forms + max(0, vocabs - 1)

    def _estimate(self, rung: str) -> float:
        """Seconds of one training of a rung, from what the smallest one took (or was measured to take)."""
        first = self._first_rung_seconds
        done = self.state.rungs.get(self.rungs[0], {})
        if done:
            first = max(o.seconds for o in done.values())
        ratio = parse_size(rung) / parse_size(self.rungs[0])
        largest = [o for by_seed in self.state.rungs.values() for o in by_seed.values()]
        if largest:  # the largest rung measured so far is the best guide to a larger one
            o = max(largest, key=lambda o: o.params)
            return o.seconds * float((parse_size(rung) / o.params) ** SECONDS_EXPONENT)
        return first * float(ratio**SECONDS_EXPONENT)

    def _seconds_left(self) -> float:
        return self.settings.budget * (1.0 - RESERVE) - self.earlier - self.seconds()

    # ---- pilot and baselines --------------------------------------------------------------------------------------

    def _baseline_names(self) -> list[str]:
        names = [name for name, _ in standard_baselines(self.job)]
        if self.settings.baselines is None:
            return names
        unknown = sorted(set(self.settings.baselines) - set(names))
        if unknown:
            raise SmallfryError(f"no baseline {unknown[0]!r} for this job; there are: {', '.join(names)}")
        return [n for n in names if n in self.settings.baselines]

    def _pilot_forms(self) -> list[FormName]:
        return [self.settings.form] if self.settings.form else available_forms(self.job, self.codec)

    def _pilot(self) -> None:
        """Choose form and vocabulary on the smallest rung; baselines are fitted on the cores that this leaves free."""
        forms = self._pilot_forms()
        first = self.settings.vocab or PILOT_VOCABS[1]
        spare = len(self.job.labels) if self.job.kind == "classify" else SPARE_TOKENS
        others = [v for v in PILOT_VOCABS if v != first and holds(self.rungs[0], v + spare)]
        if self.settings.vocab:
            others = []
        if len(forms) == 1 and self.settings.vocab:
            self.state.chosen = RungTask(self.rungs[0], self.settings.seed, forms[0], first, self._folds(forms[0]))
        else:
            for form in forms:
                self._submit_pilot(form, first, self._folds(form))
            if self._folds(forms[0]) and plan.has_case(self.job):
                self._submit_pilot(forms[0], first, False)
            if len(forms) == 1:  # nothing to wait for
                for vocab in others:
                    self._submit_pilot(forms[0], vocab, self._folds(forms[0]))
        for name in self.names:
            self._submit(BaselineTask(name), 0.0)
        if self.state.chosen is None:
            self._drain_pilots()
            if len(forms) > 1:
                best = self._best_pilot()
                for vocab in others:
                    self._submit_pilot(best.form, vocab, best.lowercase)
                self._drain_pilots()
            self.state.chosen = self._best_pilot()

    def _folds(self, form: FormName) -> bool:
        """Whether inputs are lower-cased in a form unless a pilot shows that case tells something."""
        return self.job.kind == "classify" or form == "inline"

    def _drain_pilots(self) -> None:
        while self._pilots_out:
            self._take()

    def _submit_pilot(self, form: FormName, vocab: int, lowercase: bool) -> None:
        task = RungTask(self.rungs[0], self.settings.seed, form, vocab, lowercase, PILOT_SHARE, pilot=True)
        self._submit(task, PILOT_SHARE * self._first_rung_seconds)
        self._pilots_out += 1

    def _best_pilot(self) -> RungTask:
        """What `conclude.best_pilot` chooses among those that could be trained."""
        if not self.state.pilots:
            raise SmallfryError(f"no training of {self.rungs[0]} succeeded: {next(iter(self.state.failures.values()))}")
        return conclude.best_pilot(self.job, self.state.pilots)

    # ---- climbing -------------------------------------------------------------------------------------------------

    def _climb(self) -> None:
        assert self.pool is not None and self.state.chosen is not None
        s = self.settings
        seeds = list(range(s.seed, s.seed + s.seeds))
        climber = Climber(
            self.rungs, seeds, self.higher, self._estimate, self._seconds_left, self.pool.workers, self._finished
        )
        while True:
            while self.pool.running < self.pool.workers and (step := climber.next()) is not None:
                self._submit(self._rung_task(*step), self._estimate(step[0]))
            if not self.pool.running:
                return
            result = self._take()
            if isinstance(result.task, RungTask) and result.outcome.failed:
                climber.fail(result.task.rung)
            elif isinstance(result.task, RungTask):
                rung, seed = result.task.rung, result.task.seed
                valid = float(score_answers(self.job, result.outcome.valid, "valid").score)
                row = conclude.rung_row(self.job, rung, self.state.rungs[rung], self.target, self.codec)
                climber.record(rung, seed, valid, row.verdict)

    def _rung_task(self, rung: str, seed: int) -> RungTask:
        chosen = self.state.chosen
        assert chosen is not None
        return RungTask(rung, seed, chosen.form, self._vocab(rung), chosen.lowercase)

    def _finished(self, rung: str, seed: int) -> bool:
        """Whether a resumed run finds the outcome of a training."""
        path = self.out / "work" / self._rung_task(rung, seed).key / "outcome.json"
        return self.settings.resume and Outcome.load(path) is not None

    def _vocab(self, rung: str) -> int:
        """The piloted vocabulary, or a larger one where the largest piloted one won and the rung can hold more."""
        assert self.state.chosen is not None
        piloted = self.state.chosen.vocab_size
        if self.settings.vocab or piloted < PILOT_VOCABS[-1]:
            return piloted
        return larger_vocab(rung, piloted)

    # ---- the rest -------------------------------------------------------------------------------------------------

    def _cut_baselines(self) -> None:
        """The linear SVM again, cut to the bytes of each rung that was trained: an even comparison."""
        if self.job.kind != "classify" or "svm" not in self.state.baselines:
            return
        full = self.state.baselines["svm"][0].bytes
        for by_seed in self.state.rungs.values():
            size = by_seed[min(by_seed)].bytes
            if size < full:
                self._submit(BaselineTask("svm", size), 0.0)
        self._drain_all()

    def _combine(self) -> None:
        """The best rung and the best baseline together, one combination a seed, weighed on validation rows."""
        assert self.pool is not None
        pair = conclude.best_pair(self.job, self.state)
        if pair is None or self.job.metric == "bits_per_byte":
            return
        rung, baseline = pair
        self.state.combined_of = pair
        predictor = self.state.baselines[baseline][1]
        futures: dict[int, Future[Outcome]] = {}
        for seed, outcome in self.state.rungs[rung].items():
            assert outcome.model_dir is not None
            task = CombineTask(rung, baseline, self.out / outcome.model_dir)
            self.watcher.started(f"combined-s{seed}", 10.0)
            futures[seed] = self.pool.call(run_combined, self.job, task, predictor, self.codec)
        for seed, future in futures.items():
            both = future.result()
            both.seconds += self.state.rungs[rung][seed].seconds + self.state.baselines[baseline][0].seconds
            self.state.combined[seed] = both
            self.watcher.finished(f"combined-s{seed}", "")

    def _submit(self, task: RungTask | BaselineTask, seconds: float) -> None:
        assert self.pool is not None
        self.pool.submit(task)
        self.watcher.started(task.key, seconds)

    def _drain_all(self) -> None:
        assert self.pool is not None
        while self.pool.running:
            self._take()

    def _take(self) -> Result:
        """Wait for a task and file its outcome."""
        assert self.pool is not None
        result = self.pool.next()
        self._note_time()
        task, outcome = result.task, result.outcome
        if outcome.failed:
            self._file_failure(task, outcome)
            return result
        if isinstance(task, BaselineTask):
            assert result.predictor is not None
            name = task.name if task.max_bytes is None else f"{task.name}-{task.max_bytes}"
            self.state.baselines[name] = (outcome, result.predictor)
        elif task.pilot:
            self.state.pilots.append((task, outcome))
            self._pilots_out -= 1
        else:
            self.state.rungs.setdefault(task.rung, {})[task.seed] = outcome
        split = "test" if outcome.test else "valid"
        self.watcher.finished(task.key, conclude.outcome_text(self.job, outcome, split))
        return result

    def _file_failure(self, task: RungTask | BaselineTask, outcome: Outcome) -> None:
        """A candidate that cannot be fitted is left out, and the record says why; the others go on."""
        self.state.failures[task.key] = outcome.failed
        if isinstance(task, RungTask) and task.pilot:
            self._pilots_out -= 1
        self.watcher.finished(task.key, f"left out: {outcome.failed}")

    # ---- writing --------------------------------------------------------------------------------------------------

    def _record(self, card: check.DataCard) -> Assessment:
        job, s = self.job, self.settings
        record = Assessment(
            JobRecord(
                job.name, job.kind, job.metric, self.higher, self.target, len(job.train), len(job.valid), len(job.test),
                job.source, job.hashes(), list(job.notes), card.to_dict(),
                [*check.warnings(card), *(f"{k} was left out: {v}" for k, v in sorted(self.state.failures.items()))],
            ),
            command=s.command, started=self.started, out=str(self.out), plan=self.plan,
            versions=versions(), machine=machine(),
        )  # fmt: skip
        chosen = self.state.chosen
        assert chosen is not None
        record.settings = {
            "rungs": self.rungs, "budget_seconds": s.budget, "seeds": s.seeds, "first_seed": s.seed,
            "form": chosen.form, "vocab": chosen.vocab_size,
            "vocabs": {r: self._vocab(r) for r in self.state.rungs}, "lowercase": chosen.lowercase,
            "workers": self.pool.workers if self.pool else 0,
            "recipes": {r: next(iter(o.values())).recipe for r, o in self.state.rungs.items()},
            "shapes": {r: next(iter(o.values())).shape for r, o in self.state.rungs.items()},
        }  # fmt: skip
        record.pilot = [self._pilot_record(t, o) for t, o in self.state.pilots]
        conclude.fill(record, job, self.state, self.target, self.codec, self.rungs)
        record.seconds = self.earlier + self.seconds()
        return record

    def _pilot_record(self, task: RungTask, outcome: Outcome) -> PilotRecord:
        part = conclude.pilot_scores(self.job, outcome)
        return PilotRecord(
            task.form, task.vocab_size, task.lowercase, task.rung, part.score, part.interval(), outcome.valid_loss,
            outcome.seconds, task == self.state.chosen,
        )  # fmt: skip

    def _write(self, record: Assessment) -> None:
        if record.shipped is not None and record.shipped_seed is not None:
            self._ship(record, self.state.rungs[record.shipped][record.shipped_seed])
        record.seconds = self.earlier + self.seconds()
        record.save(self.out / "assessment.json")
        write_report(record, self.out)

    def _ship(self, record: Assessment, outcome: Outcome) -> None:
        """Copy the model to ``best``, with its own score on its card; an older one stays until then."""
        assert outcome.model_dir is not None
        target, part = self.out / "best", self.out / "best.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.out / outcome.model_dir, part)
        scores = score_answers(self.job, outcome.test, "test")
        low, high = scores.interval()
        card = read_json(part / "smallfry.json")
        card["score"] = {"metric": self.job.metric, "score": scores.score, "ci": [low, high], "n": scores.n}
        write_atomic(part / "smallfry.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        record.model_dir = "best"


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM to the main process is a Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous: Any = None
    with contextlib.suppress(ValueError):  # not the main thread
        previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
