"""Tuning on conversations: what is read, how it is trained, and how well held-out answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.corpus import CorpusData, corpus_in, open_corpus
from smallfry.errors import SmallfryError
from smallfry.evals.statistics import bootstrap_statistic
from smallfry.model import Transformer
from smallfry.pretraining.plan import BATCHES, FEWEST_MEASURES, MOST_MEASURES, TOKENS_A_MEASURE, Line
from smallfry.recipes import GENERATE
from smallfry.train import Recipe
from smallfry.training.epochs import Data
from smallfry.tuning.chatdata import ChatData, MixedData, answer_sums
from smallfry.tuning.conversations import Read
from smallfry.tuning.record import Answers, Plan, TuneSettings
from smallfry.tuning.start import Start
from smallfry.tuning.stretches import Stretches

EPOCHS = 3.0
LR_SCALE = 0.3
"""Of the rates that pretraining takes: at 1m on the set `chat` 0.3 beat 0.1 and 1; all make text be forgotten."""
FEWEST_TOKENS, STEPS_A_PASS = 1024, 50
"""A step's tokens at least, and steps that a pass should have."""
SAMPLE = 200  # held-out conversations that are measured on the way
FEWEST = 8  # conversations for an interval
_MEASURE_TOKENS = 4096


def rates(params: int, scale: float, seed: int) -> Recipe:
    """The recipe of pretraining at a size, its learning rates times ``scale``."""
    size = (params / 1e6) ** -0.25
    batch = next(tokens for most, tokens in BATCHES if params <= most)
    return replace(
        GENERATE, batch_tokens=batch, lr=GENERATE.lr * size * scale, muon_lr=GENERATE.muon_lr * size**0.5 * scale,
        seed=seed,
    )  # fmt: skip


def batch_for(tokens: int, most: int) -> int:
    """Tokens a step: as many as pretraining takes, fewer where a pass would then be only a few steps.

    Args:
        tokens: Of a pass.
        most: What pretraining takes at the model's size.
    """
    batch = most
    while batch > FEWEST_TOKENS and tokens < STEPS_A_PASS * batch:
        batch //= 2
    return max(batch, FEWEST_TOKENS)


class ChatTuning:
    """Conversations and a model that is to learn them.

    Args:
        settings: What is asked.
        start: The model.
        read: The conversations.
        wrap: Puts teachers' distributions beside the batches, where there are teachers.
        plan: Of a run that goes on; None decides.
    """

    kind = "chat"

    def __init__(
        self, settings: TuneSettings, start: Start, read: Read, wrap: Callable[[Data], Data] | None, plan: Plan | None
    ) -> None:
        self.settings, self.start, self.read = settings, start, read
        self.scale = settings.lr_scale or (1.0 if start.fresh else LR_SCALE)
        recipe = rates(start.model.shape.params, self.scale, settings.seed)
        seq_len = settings.seq_len or start.positions
        self.own = ChatData(
            read.train, start.tokenizer, seq_len, recipe.batch_tokens, settings.seed, read.source_of, read.weights
        )
        if not self.own.rows:
            raise SmallfryError(
                f"{', '.join(read.names)}: no exchange fits into {seq_len} tokens; give a longer --seq-len"
            )
        recipe = replace(recipe, batch_tokens=batch_for(self.own.tokens, recipe.batch_tokens))
        self.own.batch_tokens = recipe.batch_tokens
        self.valid = ChatData(read.valid, start.tokenizer, seq_len, _MEASURE_TOKENS, 0)
        step = max(1, len(read.valid) // SAMPLE)
        self.sample = ChatData(read.valid[::step], start.tokenizer, seq_len, _MEASURE_TOKENS, 0)
        self.data: Data = wrap(self.own) if wrap else self.own
        self.mix_sha256: str | None = None
        self.mixed = self._mix(seq_len, recipe)
        self.plan = plan or self._decide(recipe, seq_len)

    def _mix(self, seq_len: int, recipe: Recipe) -> str:
        """Strew pretraining text among the conversations where that is asked for; returns its name."""
        if self.settings.mix is None:
            return ""
        name, share = self.settings.mixed()
        path = corpus_in(Path(name))
        if path is None:
            raise SmallfryError(f"--mix {name}: no corpus; give the directory corpus/ that `smallfry pretrain` made")
        corpus = open_corpus(path)
        if corpus.tokenizer.hf.to_str() != self.start.tokenizer.hf.to_str():
            raise SmallfryError(f"--mix {name}: made with another tokenizer than the model's; give the model's corpus")
        self.mix_sha256 = corpus.sha256
        text = CorpusData(corpus, seq_len, recipe.batch_tokens, 1, self.settings.seed)
        self.data = MixedData(self.data, text, share, self.own.tokens_per_epoch())
        return f"{name}: {corpus.tokens:,} tokens of text"

    def lines(self) -> list[tuple[str, str]]:
        """What the data is and what was left out."""
        read, own = self.read, self.own
        counts = {**read.counts, **own.tally}
        shown = [
            ("data", f"chat: {', '.join(read.names)}"),
            (
                "to learn from",
                f"{counts['conversations']:,} conversations with {own.answer_tokens:,} tokens of answers",
            ),
            ("held out", f"{counts['held out']:,} conversations"),
        ]
        for name, count in counts.items():
            if name not in ("conversations", "held out", "turns"):
                shown.append((name, f"{count:,}"))
        if self.own.tally["exchanges longer than a row"]:
            shown.append(("", f"left out: longer than {own.seq_len} tokens; --seq-len takes more"))
        return shown

    def facts(self) -> dict[str, Any]:
        """Names, counts and hashes of the data, for the card."""
        return {
            "sources": self.read.names, "weights": self.read.weights,
            "counts": {**self.read.counts, **dict(sorted(self.own.tally.items()))}, "hashes": self.read.hashes,
            "answer_tokens": self.own.answer_tokens, "mix": self.settings.mix, "mix_sha256": self.mix_sha256,
        }  # fmt: skip

    def _decide(self, recipe: Recipe, seq_len: int) -> Plan:
        asked = self.settings
        steps_per_pass, pass_tokens = len(self.data.epoch(0)), self.own.tokens_per_epoch()
        if isinstance(self.data, MixedData):
            pass_tokens += self.data.text_tokens
        if asked.tokens is not None:
            passes, why = asked.tokens / pass_tokens, "as asked, in whole steps"
        elif asked.epochs is not None:
            passes, why = asked.epochs, "as asked"
        else:
            passes, why = EPOCHS, "more passes over so few conversations teach them by heart"
        steps = max(1, round(passes * steps_per_pass))
        tokens = round(steps / steps_per_pass * pass_tokens)
        measures = min(steps, MOST_MEASURES, max(FEWEST_MEASURES, tokens // TOKENS_A_MEASURE))
        stretch = -(-steps // measures)
        recipe = replace(recipe, epochs=steps / stretch)
        lines = [
            Line("model", self.start.name, f"{self.start.model.shape.params:,} parameters"),
            Line("row", f"{seq_len} tokens at most", "as asked" if asked.seq_len else "what the model was made for"),
            Line(
                "batch",
                f"{recipe.batch_tokens:,} tokens",
                "conversations of about the same length; of few data, fewer tokens",
            ),
            Line("tokens", f"{tokens:,}", why),
            Line("passes", f"{steps / steps_per_pass:.3g}", f"over {pass_tokens:,} tokens, padding included"),
            Line("steps", f"{steps:,}", f"measured every {stretch:,}"),
            Line("loss", "answers only", "not what the user says, not the system message"),
            Line("AdamW rate", f"{recipe.lr:.4f}", f"{self.scale:g} of pretraining's at this size"),
            Line("Muon rate", f"{recipe.muon_lr:.4f}", "likewise"),
        ]
        if self.read.weights is not None:
            whole = sum(self.read.weights)
            for name, weight, turns in zip(self.read.names, self.read.weights, self.own.passes, strict=True):
                lines.append(
                    Line("mixture", f"{weight / whole:.1%} of the tokens", f"{name}: {turns:.3g} of it a pass")
                )
        if self.mixed:
            lines.append(Line("text", f"{self.settings.mixed()[1]:.0%} of the tokens", f"not to forget: {self.mixed}"))
        return Plan(recipe, seq_len, steps, stretch, tuple(lines))

    # ---- for the loop -----------------------------------------------------------------------------------------------

    def training_data(self) -> Data:
        """What the loop reads."""
        return Stretches(self.data, self.plan.stretch)

    @property
    def measure_every(self) -> float:
        """Epochs of the loop between two measurements."""
        return 1.0

    @property
    def measures(self) -> bool:
        """Whether any conversation is held out."""
        return bool(self.sample.rows)

    def done(self, step: int, share: float) -> float:
        """Share of the run after a step; the loop counts a last stretch that is cut short as a whole one."""
        return step / self.plan.steps

    def measure(self, model: Transformer) -> tuple[float, float | None]:
        """Nats a token on the sample of held-out answers."""
        return _loss(answer_sums(model, self.sample.plain(), self.sample.conversation_of)), None

    def told(self, loss: float, score: float | None) -> str:
        """A measurement as it is shown."""
        return f"held-out answers {loss:.3f} nats a token"

    def answers(self, model: Transformer) -> np.ndarray | None:
        """Nats and tokens of every held-out conversation's answers, ``(n, 2)``; None where nothing is held out."""
        return answer_sums(model, self.valid.plain(), self.valid.conversation_of) if self.valid.rows else None

    def result(self, model: Transformer) -> None:
        """Conversations have no test rows."""

    def card(self) -> dict[str, Any]:
        """What a model that was tuned on conversations says of itself."""
        return {"form": None, "chat": True}


def _loss(sums: np.ndarray) -> float:
    return float(sums[:, 0].sum() / max(1.0, sums[:, 1].sum()))


def _rate(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[:, 0] / np.maximum(1.0, sums[:, 1]))


def summary(sums: np.ndarray | None) -> Answers | None:
    """`Answers` of what `ChatTuning.answers` measured."""
    if sums is None:
        return None
    ci = bootstrap_statistic(sums, _rate) if len(sums) >= FEWEST else None
    return Answers(_loss(sums), ci, len(sums), int(sums[:, 1].sum()))


def fall(before: np.ndarray | None, after: np.ndarray | None) -> tuple[float, float] | None:
    """95% interval of how much the loss fell on the same conversations; None where it was not measured twice."""
    if before is None or after is None or len(before) < FEWEST:
        return None
    both = np.column_stack([before[:, 0] - after[:, 0], after[:, 1]])
    return bootstrap_statistic(both, _rate)
