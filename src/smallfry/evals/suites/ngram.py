"""The n-gram model as a control of suites: what counting the training text alone would answer."""

from __future__ import annotations

from collections.abc import Sequence

from smallfry.baselines.ngram import NGram, fit_texts
from smallfry.errors import SmallfryError
from smallfry.evals.suites.scoring import Group, Scored, Writing
from smallfry.evals.suites.texts import Texts

_CONTEXT = 4096  # bytes; the model looks at the last few
_CHECKED = 50  # one text in so many chooses the order
_AT_ONCE = 2000  # branches counted together


class ByteTexts:
    """Texts as their bytes."""

    lead: str = " "
    end: int = -1

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8", "replace"))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes of each."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes."""
        return bytes(ids).decode("utf-8", "replace")

    def written(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text that bytes add."""
        return self.decode(ids)

    def start(self) -> list[int]:
        """Nothing: the model knows where a text begins."""
        return []

    def chat(self, text: str) -> list[int]:
        """What was said, and a line for the answer."""
        return self.encode(text + "\n")


class NGramModel:
    """Interpolated Kneser-Ney over bytes as a `LanguageModel`.

    Args:
        model: Counted.
    """

    name = "ngram"

    def __init__(self, model: NGram) -> None:
        self.model, self.context, self.workers = model, _CONTEXT, 1
        self.texts: Texts = ByteTexts()

    @staticmethod
    def fit(texts: Sequence[str]) -> NGramModel:
        """Count texts; every fiftieth chooses the order first and is counted then.

        Raises:
            SmallfryError: There is too little text.
        """
        checks = texts[::_CHECKED]
        rest = [text for i, text in enumerate(texts) if i % _CHECKED]
        if not any(rest):
            raise SmallfryError(f"--ngram: {len(texts)} documents are too few to count; give the training text")
        return NGramModel(fit_texts(rest, checks, texts))

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch of every group; nothing counts as greedy: that needs whole distributions."""
        whole = [bytes([*g.prefix, *b.ids]) for g in groups for b in g.branches]
        first = [len(g.prefix) + b.scored_from for g in groups for b in g.branches]
        found: list[Scored] = []
        for at in range(0, len(whole), _AT_ONCE):
            each = self.model.byte_log_probabilities(whole[at : at + _AT_ONCE])
            for values, start in zip(each, first[at : at + _AT_ONCE], strict=True):
                found.append(Scored(float(values[start:].sum()), len(values) - start, False))
        scored = iter(found)
        return [[next(scored) for _ in group.branches] for group in groups]

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        """Texts drawn behind the prompts, byte by byte."""
        temperature = how.sampling.temperature if how.sampling else 0.0
        texts = []
        for row, prompt in enumerate(prompts):
            seed = [how.sampling.seed if how.sampling else 0, row]
            said = self.model.sample(seed, 4 * how.max_new, temperature, bytes(prompt))
            ends = [place for stop in how.stops if (place := said.find(stop)) >= 0]
            texts.append(said[: min(ends, default=len(said))])
        return texts
