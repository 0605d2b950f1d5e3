"""Model directories as language models for suites: our own, and any Hugging Face one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from smallfry.architecture import runs_here
from smallfry.checkpoint import load_weights
from smallfry.engine.constraints import WatchConstraint, cut_at
from smallfry.engine.decoding import pick
from smallfry.errors import SmallfryError
from smallfry.evals.suites.scoring import Group, LanguageModel, Scored, Writing
from smallfry.evals.suites.texts import HfTexts, OwnTexts, Texts
from smallfry.evals.suites.transformer import TransformerScorer
from smallfry.files import read_json
from smallfry.machine import default_device, default_workers
from smallfry.model import Transformer
from smallfry.shipped import model_directory
from smallfry.tokenizer import Tokenizer

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BATCH_TOKENS = 8192
_BATCH_LOGITS = 200_000_000  # positions x vocabulary: 800 MB in fp32


def load_language_model(path: Path, precision: Precision = "fp32") -> LanguageModel:
    """A model directory, ours or Hugging Face's.

    Plain Llama, Qwen2 and Qwen3 models run on our own transformer, which reads shared prefixes once; all others run
    through transformers.

    Args:
        path: The directory, or that of an assessment (its best model).
        precision: What is computed in; bf16 is about twice as fast where the machine has it, and rounds.

    Raises:
        SmallfryError: It is neither, or transformers is needed and missing.
    """
    directory = model_directory(path)
    config = read_json(directory / "config.json")
    ours = (directory / "smallfry.json").exists()
    if not ours and not runs_here(config):
        return HfScorer(directory, precision)
    model = load_weights(directory, DTYPES[precision]).eval().to(default_device())
    context = int(config.get("max_position_embeddings") or 2048)
    card = read_json(directory / "smallfry.json") if ours else {"imported_from": {}}
    if "imported_from" in card:  # another's tokenizer, whoever made the directory
        return TransformerScorer(str(path), model, HfTexts(directory), context)
    form = card.get("form") or {}
    tokenizer = Tokenizer.load(directory / "tokenizer.json", form.get("units", ()))
    return TransformerScorer(str(path), model, OwnTexts(tokenizer), context)


def untrained(like: LanguageModel) -> LanguageModel:
    """The control that has the shape and the tokens of a model but never saw a text."""
    if isinstance(like, TransformerScorer):
        model = Transformer(like.model.shape, variant=like.model.variant)
        model.init_weights(torch.Generator().manual_seed(0))
        weight = like.model.embed.weight
        return TransformerScorer("untrained", model.eval().to(weight.device, weight.dtype), like.texts, like.context)
    assert isinstance(like, HfScorer)
    return like.untrained()


class HfScorer:
    """A Hugging Face causal language model; weights from safetensors, no code of the model's own.

    Args:
        path: Its directory.
        precision: What is computed in.
    """

    def __init__(self, path: Path, precision: Precision = "fp32") -> None:
        self.texts: Texts = HfTexts(path)
        import transformers

        try:
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(path), trust_remote_code=False, use_safetensors=True, dtype=DTYPES[precision]
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise SmallfryError(f"{path}: transformers cannot load it ({str(error).splitlines()[0]})") from None
        self.model.train(False)
        self.name, self.workers = str(path), default_workers()
        # transformers renamed the argument: take the one that this version does not warn of.
        self._cache = "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"
        self.context = int(getattr(self.model.config, "max_position_embeddings", 2048))

    def untrained(self) -> HfScorer:
        """The same architecture with fresh weights."""
        other = object.__new__(HfScorer)
        torch.manual_seed(0)
        other._cache = self._cache
        other.texts, other.name, other.context, other.workers = self.texts, "untrained", self.context, self.workers
        other.model = type(self.model)(self.model.config).to(self.model.dtype)
        other.model.train(False)
        return other

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        """Continuations of token ids, one prompt at a time; what a tool writes is added and the model goes on."""
        max_new = min(how.max_new, self.context // 2)
        kept = [list(ids[-(self.context - max_new) :]) for ids in prompts]
        return [cut_at(self._write(ids, max_new, how, row), how.stops) for row, ids in enumerate(kept)]

    def _write(self, ids: list[int], max_new: int, how: Writing, row: int) -> str:
        written: list[int] = []
        watch = WatchConstraint(self.texts, how.tool, how.stops, self.texts.end)
        draws = how.sampling.draws(row) if how.sampling else None
        cache, fresh = None, ids
        while len(written) < max_new:
            out = self.model(torch.tensor([fresh]), use_cache=True, **{self._cache: cache})
            cache, logits = out.past_key_values, out.logits[0, -1].float()
            token = pick(logits.numpy(), how.sampling, draws) if how.sampling and draws else int(logits.argmax())
            fresh = [token]
            watch.advance(token)
            while (forced := watch.allowed()) is not None:
                fresh.append(int(forced[0]))
                watch.advance(fresh[-1])
                if fresh[-1] == self.texts.end:
                    break
            if self.texts.end in fresh:
                written += fresh[: fresh.index(self.texts.end)]
                break
            written += fresh
        return self.texts.written(ids, written)

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch as a sequence of its own, those of about the same length together."""
        flat = [(g, b) for g, group in enumerate(groups) for b in range(len(group.branches))]
        sequences = [[*groups[g].prefix, *groups[g].branches[b].ids] for g, b in flat]
        found: dict[tuple[int, int], Scored] = {}
        batch: list[int] = []
        most = _BATCH_LOGITS // self.workers // int(self.model.config.vocab_size)
        for i in sorted(range(len(flat)), key=lambda i: -len(sequences[i])):
            if batch and len(sequences[batch[0]]) * (len(batch) + 1) > min(_BATCH_TOKENS, most):
                self._score(groups, flat, sequences, batch, found)
                batch = []
            batch.append(i)
        if batch:
            self._score(groups, flat, sequences, batch, found)
        return [[found[g, b] for b in range(len(group.branches))] for g, group in enumerate(groups)]

    def _score(
        self, groups: Sequence[Group], flat: Sequence[tuple[int, int]], sequences: Sequence[list[int]],
        batch: Sequence[int], found: dict[tuple[int, int], Scored],
    ) -> None:  # fmt: skip
        ids = torch.zeros(len(batch), len(sequences[batch[0]]), dtype=torch.long)
        for r, i in enumerate(batch):
            ids[r, : len(sequences[i])] = torch.tensor(sequences[i])
        logits = self.model(ids).logits  # (B, T, V)
        for r, i in enumerate(batch):
            g, b = flat[i]
            first = len(groups[g].prefix) + groups[g].branches[b].scored_from
            targets = torch.tensor(sequences[i][first:])
            rows = logits[r, first - 1 : len(sequences[i]) - 1].float()  # (n, V)
            values = torch.log_softmax(rows, dim=-1).gather(1, targets[:, None])[:, 0]
            found[g, b] = Scored(float(values.sum()), len(targets), bool((rows.argmax(-1) == targets).all()))
