"""PyTorch as a backend: what training and GPUs have at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from smallfry.engine.decoding import Floats, batches_of
from smallfry.model import Cache, Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import PAD

_BATCH_TOKENS = 8192  # padded tokens read at once


class TorchModel:
    """A `Transformer` in evaluation mode as a backend.

    Args:
        model: The model, on any device.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return self.model.shape

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights in their precision."""
        return self.model.embed.weight.element_size() * self.shape.params

    def session(self, rows: int, length: int) -> TorchSession:
        """Keys and values for ``rows`` sequences of up to ``length`` tokens."""
        return TorchSession(self.model, rows, length)

    @torch.inference_mode()
    def answer_logits(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Floats]:
        """Logits after the tokens ``text[start:]`` of each text."""
        found: dict[int, Floats] = {}
        lengths = [len(text) for text in texts]
        for group in batches_of(lengths, _BATCH_TOKENS):
            ids = torch.full((len(group), max(lengths[i] for i in group)), PAD, dtype=torch.long)
            for r, i in enumerate(group):
                ids[r, : lengths[i]] = torch.tensor(texts[i])
            hidden = self.model(ids.to(self.model.embed.weight.device))
            for r, i in enumerate(group):
                logits = self.model.logits(hidden[r, starts[i] : lengths[i]])
                found[i] = logits.float().cpu().numpy()
        return [found[i] for i in range(len(texts))]


class TorchSession:
    """Sequences that a `Transformer` reads; padding is computed and ignored.

    Args:
        model: The model.
        rows: How many sequences.
        length: Most tokens of each.
    """

    def __init__(self, model: Transformer, rows: int, length: int) -> None:
        weight = model.embed.weight
        self._model, self._device, self._length = model, weight.device, length
        self._cache = Cache(model.shape, rows, length, weight.dtype, weight.device)
        self._used = [0] * rows

    @torch.inference_mode()
    def feed(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read each row's next tokens; logits after the last of each, ``(rows, V)``."""
        longest = max(map(len, tokens))
        if longest == 0:
            return np.zeros((len(tokens), self._model.shape.vocab_size), dtype=np.float32)
        ids = torch.full((len(tokens), longest), PAD, dtype=torch.long)
        positions = torch.zeros((len(tokens), longest), dtype=torch.long)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            positions[i] = torch.arange(self._used[i], self._used[i] + longest).clamp_(max=self._length - 1)
            self._used[i] += len(row)
        last = torch.tensor([max(len(row) - 1, 0) for row in tokens])
        # Padding is written beyond each row's end, where nothing looks before the next real token overwrites it.
        hidden = self._model(ids.to(self._device), self._cache, positions.to(self._device))
        logits: Floats = self._model.logits(hidden[torch.arange(len(tokens)), last]).float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was."""
        self._cache.keep(torch.tensor(list(rows), device=self._device))
        self._used = [self._used[i] for i in rows]

    def rewind(self, row: int, length: int) -> None:
        """Forget everything behind a row's first ``length`` tokens."""
        self._used[row] = min(self._used[row], length)
