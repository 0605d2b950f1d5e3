"""From raw text to a language model: corpus, plan, training, held-out measurement, model directory.

The output directory holds ``corpus/`` (shards), ``run/`` (the training's saves), ``pretrain.json`` (settings and plan)
and the model's files. Every stage goes on where it was stopped. Of several processes that train together, one prints
and writes; the others only train.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from smallfry.checkpoint import save_model
from smallfry.corpus import (
    Corpus,
    CorpusData,
    CorpusSettings,
    Reading,
    corpus_in,
    is_corpus,
    open_corpus,
    parse_sources,
    parse_steps,
    prepare,
)
from smallfry.corpus.hub import HubName
from smallfry.corpus.measure import HeldOut, held_out, measure, sample
from smallfry.corpus.report import report
from smallfry.errors import SmallfryError
from smallfry.evals.suites.text import bits_per_byte
from smallfry.evals.suites.texts import OwnTexts
from smallfry.evals.suites.transformer import TransformerScorer
from smallfry.machine import compute_dtype, keep_freed_memory, machine, versions
from smallfry.model import Transformer
from smallfry.pretraining.plan import Line, Plan, choose_vocab, make_plan
from smallfry.pretraining.record import Pretrained, PretrainSettings, Silent, Watcher
from smallfry.sizes import shape_for
from smallfry.train import Point, Progress, Trained, loss_of, train
from smallfry.training.optim import Optimizer
from smallfry.training.parallel import World
from smallfry.training.rundir import RunDirectory, terminate_as_interrupt

FORMAT = "smallfry-pretrain/1"
RECORD = "pretrain.json"
_SPEED_SECONDS = 3.0  # of training steps, to see how fast it is
_TOGETHER = 0.9  # of what processes do side by side is left when they share a step (docs/results/two_cores.md)
_TRAINING_SHARE = 0.9  # of the minutes; the rest is for measuring


def pretrain(
    *corpora: str | Path, out: str | Path | None = None, resume: bool = False, force: bool = False, workers: int = 0,
    watcher: Watcher | None = None, world: World | None = None, **settings: Any,
) -> Pretrained:  # fmt: skip
    """Train a language model on raw text.

    Args:
        corpora: What to train on; see `PretrainSettings`. Not needed when a run is resumed.
        out: Directory to write; ``runs/<corpus>-<size>`` by default.
        resume: Go on with the run in ``out``, in whatever stage it was stopped; its settings are those it was begun
            with.
        force: Replace an earlier run in ``out``. A corpus there is kept where it is the one that is asked for.
        workers: Processes that clean and tokenise; 0 is one a core where the text is long enough for that.
        watcher: Told how it goes.
        world: The processes that train together.
        settings: Fields of `PretrainSettings`: ``size``, ``vocab``, ``tokens``, ``seq_len``, ``seed``, ``valid``,
            ``minutes``, ``column``, ``separator``, ``skip``, ``data_dir``, ``tokenizer``.

    Returns:
        What was trained and how well it knows the held-out text.

    Raises:
        SmallfryError: A corpus cannot be read, the directory holds another run, or the run was interrupted.
    """
    return _stages(_Pretraining.go, corpora, out, resume, force, workers, watcher, world or World(), settings)


def prepare_pretraining(
    *corpora: str | Path, out: str | Path | None = None, resume: bool = False, force: bool = False, workers: int = 0,
    watcher: Watcher | None = None, **settings: Any,
) -> Plan | Pretrained:  # fmt: skip
    """Make the corpus and decide every setting, and stop before training: `pretrain` with ``resume`` goes on.

    Args and errors are those of `pretrain`.

    Returns:
        The plan, or the result where ``resume`` finds a finished run.
    """
    return _stages(_Pretraining.ready, corpora, out, resume, force, workers, watcher, World(), settings)


T = TypeVar("T")


def _stages(
    stages: Callable[[_Pretraining, int], T], corpora: tuple[str | Path, ...], out: str | Path | None, resume: bool,
    force: bool, workers: int, watcher: Watcher | None, world: World, settings: dict[str, Any],
) -> T | Pretrained:  # fmt: skip
    """Stages of a run, alone in its directory; what they end with, or the result of a finished run."""
    asked = PretrainSettings(tuple(map(str, corpora)), **settings)
    directory = directory_of(asked.corpora, asked.size) if out is None else Path(out)
    run = _Pretraining(directory, world, (watcher or Silent()) if world.main else Silent())
    with run.directory.exclusive(), terminate_as_interrupt():
        try:
            if (finished := run.begin(asked, set(settings), resume, force)) is not None:
                if stages is _Pretraining.go:
                    run.watcher.say(f"{directory}: is finished")
                return finished
            return stages(run, workers)
        except KeyboardInterrupt:
            raise run.interrupted() from None
        except SmallfryError:
            run.withdraw()
            raise


def directory_of(corpora: Sequence[str], size: str) -> Path:
    """Where a run goes that was given no ``--out``.

    Raises:
        SmallfryError: It was given no corpus either.
    """
    if not corpora:
        raise SmallfryError("no corpus; name a text file or folder, or an earlier run with --resume --out DIR")
    return Path("runs") / f"{_stem(corpora[0])}-{size}"


def _stem(corpus: str) -> str:
    if corpus.startswith("hf:"):
        corpus = HubName.parse(corpus).repo
    name = Path(corpus.partition(":")[0].partition("@")[0]).name
    return name.partition(".")[0] or "text"


class _Pretraining:
    """One run and its directory."""

    def __init__(self, out: Path, world: World, watcher: Watcher) -> None:
        self.out, self.world, self.watcher = out, world, watcher
        self.settings = PretrainSettings(())
        self.plan: Plan | None = None
        self.corpus: Corpus | None = None
        self.corpus_sha256: str | None = None  # of what the plan was made for
        self.stage = "corpus"
        self.force = False
        self.directory = RunDirectory(out, world, RECORD, FORMAT, "pretraining", ("corpus",))

    # ---- the directory ----------------------------------------------------------------------------------------------

    def begin(self, asked: PretrainSettings, given: set[str], resume: bool, force: bool) -> Pretrained | None:
        """Settings from the user or from the run that is resumed; the result where that is finished already.

        Args:
            asked: By the user.
            given: The names of the settings that the user gave.
            resume: Go on with what is there.
            force: Replace what is there.
        """
        found = self.directory.open(resume, force, bool(asked.corpora), "name a corpus to begin a run")
        if found is not None:
            return self._take_up(found, asked, given)
        asked.check()
        if corpus_in(Path(asked.corpora[0])) is None:
            parse_sources(asked.corpora)  # what is not there shows before an earlier run is put away
        self.settings, self.force = asked, force
        self.directory.clear()
        self._record()
        return None

    def _take_up(self, found: dict[str, Any], asked: PretrainSettings, given: set[str]) -> Pretrained | None:
        try:
            stored = PretrainSettings(**{**found["settings"], "corpora": tuple(found["settings"]["corpora"])})
            plan = Plan.from_dict(found["plan"]) if found.get("plan") else None
            self.corpus_sha256 = found.get("corpus_sha256")
            done = Pretrained.from_dict(found["result"]) if found.get("result") else None
        except (KeyError, TypeError, ValueError) as error:
            raise SmallfryError(f"{self.out / RECORD}: damaged ({error!r}); use --force to start again") from None
        names = (*sorted(given), *(("corpora",) if asked.corpora else ()))
        self.directory.same({name: getattr(asked, name) for name in names}, asdict(stored))
        self.settings, self.plan = stored, plan
        return done

    def _record(self, result: Pretrained | None = None) -> None:
        self.directory.write({
            "settings": asdict(self.settings), "plan": self.plan and self.plan.to_dict(),
            "corpus_sha256": self.corpus_sha256, "result": result and result.to_dict(),
        }, begun=self.plan is not None)  # fmt: skip

    def withdraw(self) -> None:
        """Leave nothing behind of a run that could not even begin."""
        self.directory.withdraw(self.plan is not None or is_corpus(self.out / "corpus"))

    def interrupted(self) -> SmallfryError:
        """What is told after Ctrl-C."""
        kept = {
            "corpus": "finished shards are kept", "training": "the training is saved",
            "measuring": "the training is saved up to its last minute",
        }[self.stage]  # fmt: skip
        return SmallfryError(f"interrupted: {kept}; go on with: smallfry pretrain --resume --out {self.out}")

    # ---- the stages -------------------------------------------------------------------------------------------------

    def ready(self, workers: int) -> Plan:
        """Corpus and plan."""
        keep_freed_memory()
        self.corpus = corpus = self._corpus(workers)
        self.watcher.cleaned(list(report(corpus)))
        if self.plan is None:
            self.plan, self.corpus_sha256 = self._decide(corpus), corpus.sha256
            self._record()
        elif self.corpus_sha256 not in (None, corpus.sha256):
            raise SmallfryError(
                f"{corpus.path}: is another corpus than the run was begun with; put that back, or use --force to start "
                "again"
            )
        self.watcher.decided(self.plan.lines)
        return self.plan

    def go(self, workers: int) -> Pretrained:
        """Corpus, plan, training, measurement, model directory."""
        plan = self.ready(workers)
        corpus = self.corpus
        assert corpus is not None
        documents = held_out(corpus)
        if not documents.texts:
            self.watcher.say("no document is held out: nothing is measured (see --valid)")
        trained = self._train(corpus, plan, documents)
        self.stage = "measuring"
        return self._finish(corpus, plan, documents, trained)

    def _corpus(self, workers: int) -> Corpus:
        """Make the corpus, or open it; the other processes wait until it is made."""
        asked = self.settings
        given = corpus_in(Path(asked.corpora[0]))
        if given is not None:
            if len(asked.corpora) > 1:
                raise SmallfryError(f"{given}: a corpus directory cannot be mixed with others; give it alone")
            corpus = open_corpus(given)
            if asked.vocab not in (None, corpus.tokenizer.vocab_size):
                raise SmallfryError(f"{given}: its vocabulary is {corpus.tokenizer.vocab_size:,}, not {asked.vocab:,}")
            return corpus
        if self.world.main:
            vocab = asked.vocab or choose_vocab(asked.size)[0]
            if asked.tokenizer is None:
                shape_for(asked.size, vocab)  # refuse what cannot be trained before hours of reading
            settings = CorpusSettings(
                asked.corpora, vocab, Reading(asked.column, asked.separator), parse_steps(asked.skip), asked.valid,
                Path(asked.tokenizer) if asked.tokenizer else None, Path(asked.data_dir) if asked.data_dir else None,
            )  # fmt: skip
            prepare(
                self.out / "corpus", settings, say=self.watcher.say, watch=self.watcher.made, workers=workers,
                force=self.force,
            )  # fmt: skip
        self.world.barrier()
        return open_corpus(self.out / "corpus")

    def _decide(self, corpus: Corpus) -> Plan:
        asked = self.settings
        size = corpus.tokenizer.vocab_size
        if asked.vocab is not None:
            why = "as asked" if size == asked.vocab else f"{asked.vocab:,} were asked for, the text gives no more"
        elif asked.tokenizer is not None or corpus_in(Path(asked.corpora[0])) is not None:
            why = "of the tokenizer that was given"
        else:
            chosen, why = choose_vocab(asked.size)
            why = why if size == chosen else f"the text gives no more ({chosen:,} would fit the size)"

        def plan(limit: tuple[int, str] | None = None) -> Plan:
            return make_plan(asked.size, size, why, corpus.tokens, asked.seq_len, asked.tokens, asked.seed, limit)

        found = plan()
        if asked.minutes is not None:
            speed = self._speed(corpus, found)
            fits = int(speed * 60 * asked.minutes * _TRAINING_SHARE)
            found = plan((fits, f"what {asked.minutes:g} minutes allow at {speed:,.0f} tokens/s, measured here"))
        return replace(found, lines=(*found.lines, *self._mixture(corpus, found)))

    def _mixture(self, corpus: Corpus, plan: Plan) -> Iterator[Line]:
        """What a mixture takes from each source."""
        weights = corpus.weights
        if weights is None:
            return
        passes = self._data(corpus, plan).passes(plan.steps)
        for source, weight, turns in zip(corpus.index["sources"], weights, passes, strict=True):
            share = f"{weight / sum(weights):.1%} of the tokens"
            yield Line("mixture", share, f"{source['name']}: weight {weight:g}, {turns:.3g} passes")

    def _model(self, plan: Plan) -> Transformer:
        model = Transformer(plan.shape, plan.recipe.dropout)
        model.init_weights(torch.Generator().manual_seed(plan.recipe.seed))
        return model.to(self.world.device, compute_dtype(self.world.device))

    def _data(self, corpus: Corpus, plan: Plan) -> CorpusData:
        return CorpusData(corpus, plan.seq_len, plan.recipe.batch_tokens, plan.stretch, plan.recipe.seed)

    def _speed(self, corpus: Corpus, plan: Plan) -> float:
        """Tokens a second of real steps on a model that is thrown away."""
        model, data, recipe = self._model(plan), self._data(corpus, plan), plan.recipe
        optimizer = Optimizer(model, recipe.lr, recipe.muon_lr, recipe.weight_decay, 0.99)
        begun, steps, number = 0.0, 0, 0
        while not begun or time.perf_counter() - begun < _SPEED_SECONDS:
            if number == 2:  # the first steps compile kernels and fill caches
                begun, steps = time.perf_counter(), 0
            loss, _ = loss_of(model, data.batch(number))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step(0.1)
            number, steps = number + 1, steps + 1
        speed = self.world.sum(steps * plan.batch_tokens / (time.perf_counter() - begun))
        return speed if self.world.size == 1 else _TOGETHER * speed

    def _train(self, corpus: Corpus, plan: Plan, documents: HeldOut) -> Trained:
        self.stage = "training"
        model = self._model(plan)
        shown = sample(documents)
        last: list[Progress] = []

        def watch(progress: Progress) -> None:
            last[:] = [replace(progress, done=progress.step / plan.steps)]
            self.watcher.step(last[0])

        def look(model: Transformer) -> tuple[float, float | None]:
            found = bits_per_byte(self._scorer(corpus, plan, model), shown)
            if last:
                self.watcher.measured(last[0], found.score)
            return float(found.sums[:, 0].sum() / found.tokens), found.score

        trained = train(
            model, self._data(corpus, plan), plan.recipe, run_dir=self.out / "run", resume=True,
            measure=look if shown else None, watch=watch, say=self.watcher.say, world=self.world,
        )  # fmt: skip
        if not trained.finished:
            raise self.interrupted()
        return trained

    def _scorer(self, corpus: Corpus, plan: Plan, model: Transformer) -> TransformerScorer:
        return TransformerScorer(self.out.name, model, OwnTexts(corpus.tokenizer), plan.seq_len)

    def _finish(self, corpus: Corpus, plan: Plan, documents: HeldOut, trained: Trained) -> Pretrained:
        found = None
        if documents.texts:
            found = measure(self._scorer(corpus, plan, trained.model), documents, corpus)
        done = Pretrained(
            str(self.out), self.settings.size, plan.shape.params, plan.shape.vocab_size, trained.steps, trained.tokens,
            trained.tokens / max(1, corpus.tokens), trained.seconds, found, self._facts(corpus),
            [_point(point, plan) for point in trained.curve], trained.notes + (found.caveats() if found else []),
        )  # fmt: skip
        if self.world.main:
            self._write(corpus, plan, trained.model, done)
        return done

    def _facts(self, corpus: Corpus) -> dict[str, Any]:
        index = corpus.index
        return {
            "path": str(corpus.path), "sha256": corpus.sha256, "tokens": corpus.tokens, "documents": corpus.documents,
            "text_bytes": corpus.text_bytes, "held_out_share": index["held_out_share"],
            "held_out_sha256": index["held_out_sha256"], "tokenizer_sha256": index["tokenizer_sha256"],
            "sources": index["sources"], "contamination": index["contamination"],
        }  # fmt: skip

    def _write(self, corpus: Corpus, plan: Plan, model: Transformer, done: Pretrained) -> None:
        """The model directory; the record last, which makes the run a finished one."""
        plain = done.to_dict()
        save_model(self.out, model, corpus.tokenizer, {
            "name": self.out.name, "form": None, "recipe": plan.recipe.to_dict(), "seed": plan.recipe.seed,
            "pretraining": {
                **{k: v for k, v in plain.items() if k not in ("out", "commands")},
                "settings": asdict(self.settings), "lines": [asdict(line) for line in plan.lines],
                "machine": machine(), "versions": versions(),
            },
        }, max_positions=plan.seq_len)  # fmt: skip
        self._record(done)


def _point(point: Point, plan: Plan) -> dict[str, Any]:
    return {
        "step": point.step, "tokens": point.step * plan.batch_tokens, "seconds": point.seconds,
        "train_loss": point.train_loss, "valid_loss": point.valid_loss, "bits_per_byte": point.valid_score,
    }  # fmt: skip
