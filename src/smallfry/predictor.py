"""A trained model as a candidate: text in, output and confidence out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallfry.candidates import SCORE_FLOOR, Prediction
from smallfry.characters import visible
from smallfry.engine.decoding import Backend, Engine
from smallfry.engine.loading import EngineName, load_backend
from smallfry.engine.weights import Kind
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.forms import Form
from smallfry.tokenizer import Tokenizer

if TYPE_CHECKING:
    from smallfry.model import Transformer


class ModelPredictor:
    """Asks a model in its job's form.

    Args:
        name: The rung.
        backend: The trained model.
        form: How prompts and answers are spelled.
        max_new: Most choices an answer may take.
        notice: What the user should know of how it was loaded.
    """

    def __init__(self, name: str, backend: Backend, form: Form, max_new: int, notice: str = "") -> None:
        self.name = name
        self.backend = backend
        self.form = form
        self.max_new = max_new
        self.notice = notice
        self.engine = Engine(backend)

    @property
    def params(self) -> int:
        """Parameters of the model."""
        return self.backend.shape.params

    def size_bytes(self) -> int:
        """Bytes as shipped: weights, vocabulary and form."""
        form = json.dumps({**self.form.to_dict(), "units": []}, ensure_ascii=False, separators=(",", ":"))
        return self.backend.stored_bytes + self.form.tokenizer.table_bytes() + len(form.encode())

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answer each input; the confidence is the probability of the whole answer under its constraint.

        An answer that is cut off at ``max_new`` has the confidence 0: what was asked for is longer, or not written.
        """
        prompts = [self.form.prompt_ids(text) for text in inputs]
        constraints = [self.form.constraint(text) for text in inputs]
        answers = self.engine.generate(prompts, constraints, self.max_new)
        return [
            Prediction(self.form.read(text, a.ids), min(1.0, math.exp(a.logprob)) if a.whole else 0.0, a.whole)
            for text, a in zip(inputs, answers, strict=True)
        ]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probability of each proposed output; `SCORE_FLOOR` or less where the form cannot express it."""
        if "labels" in self.form.grammar:
            return self._score_labels(inputs, outputs)
        flat = [(i, j) for i, row in enumerate(outputs) for j in range(len(row))]
        spelled = [self.form.answer_ids(inputs[i], outputs[i][j]) for i, j in flat]
        scores = [[SCORE_FLOOR] * len(row) for row in outputs]
        usable = [k for k, ids in enumerate(spelled) if ids is not None]
        prompts = {i: self.form.prompt_ids(inputs[i]) for i in {flat[k][0] for k in usable}}
        values = self.engine.score(
            [prompts[flat[k][0]] for k in usable],
            [ids for k in usable if (ids := spelled[k]) is not None],
            [self.form.constraint(inputs[flat[k][0]]) for k in usable],
        )
        for k, value in zip(usable, values, strict=True):
            i, j = flat[k]
            scores[i][j] = value if math.isfinite(value) else SCORE_FLOOR
        possible = {flat[k] for k, value in zip(usable, values, strict=True) if math.isfinite(value)}
        for i, row in enumerate(scores):  # a long text may lie below the floor: what is impossible must lie lower
            floor = min([SCORE_FLOOR, *(row[j] - 10.0 for j in range(len(row)) if (i, j) in possible)])
            scores[i] = [value if (i, j) in possible else floor for j, value in enumerate(row)]
        return scores

    def _score_labels(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """All labels are one token each: one look at the prompt scores them all."""
        tokenizer = self.form.tokenizer
        labels: list[str] = self.form.grammar["labels"]
        ids = [tokenizer.units[" " + label] for label in labels]
        table = self.engine.next_logprobs([self.form.prompt_ids(text) for text in inputs], ids)
        index = {label: i for i, label in enumerate(labels)}
        return [
            [float(row[index[o]]) if o in index else SCORE_FLOOR for o in wanted]
            for row, wanted in zip(table, outputs, strict=True)
        ]

    def __call__(self, text: str) -> str:
        """The answer to one input."""
        return self.predict([text])[0].output

    def save(self, path: Path, model: Transformer, card: dict[str, Any]) -> None:
        """Write a model directory of the trained network that `load` reads."""
        from smallfry.checkpoint import save_model

        save_model(path, model, self.form.tokenizer, {
            "name": self.name, "form": self.form.to_dict(), "max_new": self.max_new, **card,
        })  # fmt: skip

    @staticmethod
    def load(path: Path, precision: Kind | None = None, engine: EngineName = "auto") -> ModelPredictor:
        """Read a model directory; PyTorch is not needed.

        Args:
            path: The directory.
            precision: fp32, bf16, int8 or int4; as stored by default.
            engine: ``c``, ``numpy``, or the best there is.

        Raises:
            SmallfryError: When a file is missing, broken, or does not fit the others.
        """
        if not path.is_dir():
            raise SmallfryError(f"{path}: no such directory; expected a model directory (config.json, its weights)")
        card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
        if isinstance(card, dict) and card.get("form") is None:
            raise SmallfryError(
                f"{path}: has no job; expected a model that smallfry assess, or smallfry tune with a job, made"
            )
        loaded = load_backend(path, precision, engine)
        try:
            tokenizer = Tokenizer.load(path / "tokenizer.json", card["form"]["units"])
            form = Form.from_dict(card["form"], tokenizer)
            name, max_new = visible(str(card["name"])), int(card["max_new"])
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise SmallfryError(f"{path / 'smallfry.json'}: not a card this smallfry reads ({error!r})") from None
        if tokenizer.vocab_size > loaded.backend.shape.vocab_size:
            raise SmallfryError(f"{path / 'tokenizer.json'}: has more tokens than the model has rows; they do not fit")
        return ModelPredictor(name, loaded.backend, form, max_new, loaded.notice)
