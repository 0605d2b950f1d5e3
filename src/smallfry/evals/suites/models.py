"""Model directories as language models for suites: our own, and any Hugging Face one through transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from smallfry.checkpoint import load_model
from smallfry.errors import SmallfryError
from smallfry.evals.suites.scoring import Group, LanguageModel, Scored, Tool, TransformerScorer
from smallfry.files import read_json
from smallfry.model import Transformer
from smallfry.tokenizer import Tokenizer

_BATCH_TOKENS = 8192
_BATCH_LOGITS = 200_000_000  # positions x vocabulary: 800 MB in fp32


def load_language_model(path: Path) -> LanguageModel:
    """A model directory, ours or Hugging Face's, in fp32.

    Args:
        path: The directory, or that of an assessment (its best model).

    Raises:
        SmallfryError: It is neither, or transformers is needed and missing.
    """
    directory = path / "best" if (path / "best" / "config.json").exists() else path
    if not (directory / "config.json").exists():
        raise SmallfryError(f"{path}: no model directory; expected config.json and model.safetensors")
    if not (directory / "smallfry.json").exists():
        return HfScorer(directory)
    model, card = load_model(directory, torch.float32)
    tokenizer = Tokenizer.load(directory / "tokenizer.json", card["form"]["units"] if "form" in card else ())
    context = int(read_json(directory / "config.json")["max_position_embeddings"])
    return TransformerScorer(str(path), model.eval(), tokenizer, context)


def untrained(like: LanguageModel) -> LanguageModel:
    """The control that has the shape and the tokens of a model but never saw a text."""
    if isinstance(like, TransformerScorer):
        model = Transformer(like.model.shape)
        model.init_weights(torch.Generator().manual_seed(0))
        return TransformerScorer("untrained", model.eval(), like.tokenizer, like.context)
    assert isinstance(like, HfScorer)
    return like.untrained()


class HfScorer:
    """A Hugging Face causal language model; weights from safetensors, no code of the model's own.

    Args:
        path: Its directory.
    """

    def __init__(self, path: Path) -> None:
        try:
            import transformers
        except ModuleNotFoundError:
            raise SmallfryError(
                f"{path}: a model that smallfry did not make needs transformers; pip install 'smallfry[hub]'"
            ) from None
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(path), trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise SmallfryError(f"{path}: transformers cannot load it ({str(error).splitlines()[0]})") from None
        self.model.train(False)
        self.name, self.lead = str(path), ""
        # transformers renamed the argument: take the one that this version does not warn of.
        self._cache = "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"
        self.context = int(getattr(self.model.config, "max_position_embeddings", 2048))

    def untrained(self) -> HfScorer:
        """The same architecture with fresh weights."""
        other = object.__new__(HfScorer)
        torch.manual_seed(0)
        other._cache = self._cache
        other.tokenizer, other.name, other.context, other.lead = self.tokenizer, "untrained", self.context, self.lead
        other.model = type(self.model)(self.model.config)
        other.model.train(False)
        return other

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def start(self) -> list[int]:
        """The beginning-of-sequence token, or the end-of-sequence token where the tokenizer has no other."""
        found = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if found is None else found
        if found is None:
            raise SmallfryError(f"{self.name}: the tokenizer has neither a bos nor an eos token to start texts with")
        return [int(found)]

    def generate(self, prompts: Sequence[str], max_new: int) -> list[str]:
        """Greedy continuations, one prompt at a time; a prompt that is too long loses its beginning."""
        return self.generate_ids([[*self.start(), *self.encode(p)] for p in prompts], max_new, None)

    def chat(self, text: str) -> list[int]:
        """By the tokenizer's chat template, or the text and a line break where it has none."""
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": text}]
            return list(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
        return [*self.start(), *self.encode(text + "\n")]

    @torch.inference_mode()
    def generate_ids(self, prompts: Sequence[Sequence[int]], max_new: int, tool: Tool | None) -> list[str]:
        """Greedy continuations of token ids; what a tool writes is added and the model goes on from there."""
        max_new = min(max_new, self.context // 2)
        return [self._write(list(ids[-(self.context - max_new) :]), max_new, tool) for ids in prompts]

    def _write(self, ids: list[int], max_new: int, tool: Tool | None) -> str:
        written: list[int] = []
        end = self.tokenizer.eos_token_id
        cache, fresh = None, ids
        while len(written) < max_new:
            out = self.model(torch.tensor([fresh]), use_cache=True, **{self._cache: cache})
            cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
            if token == end:
                break
            written.append(token)
            said = tool(self.tokenizer.decode(written)) if tool else None
            added = self.encode(said) if said else []
            written += added
            fresh = [token, *added]
        # Some tokenizers drop the first space of what they decode: take what is written behind the prompt.
        head, whole = (str(self.tokenizer.decode(t, skip_special_tokens=True)) for t in (ids, ids + written))
        return whole[len(head) :] if whole.startswith(head) else str(self.tokenizer.decode(written))

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch as a sequence of its own, those of about the same length together."""
        flat = [(g, b) for g, group in enumerate(groups) for b in range(len(group.branches))]
        sequences = [[*groups[g].prefix, *groups[g].branches[b].ids] for g, b in flat]
        found: dict[tuple[int, int], Scored] = {}
        batch: list[int] = []
        most = _BATCH_LOGITS // int(self.model.config.vocab_size)
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
