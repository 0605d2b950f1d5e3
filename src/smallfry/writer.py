"""A language model that continues texts and answers in a conversation, token by token, without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HfTokenizer

from smallfry.engine.decoding import Backend, Sampling, Session, pick
from smallfry.engine.loading import EngineName, load_backend
from smallfry.engine.weights import Kind
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.tokenizer import ASSISTANT, BOS, END, USER


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added.

    Args:
        text: New text; empty while a character is incomplete.
        token: The token written.
        logprob: Its log-probability in nats, before temperature and filters.
    """

    text: str
    token: int
    logprob: float


class Writer:
    """A model with its tokenizer.

    Args:
        name: For people.
        backend: The model.
        tokenizer: Its ``tokenizer.json``.
        ends: Tokens that end a text.
        own: The tokenizer is smallfry's: texts begin with ``<|bos|>``, turns with ``<|user|>`` and ``<|assistant|>``.
        template: A chat template of another's model, or empty.
        chats: It was trained to converse.
        notice: What the user should know of how it was loaded.
    """

    def __init__(
        self, name: str, backend: Backend, tokenizer: HfTokenizer, ends: Sequence[int], own: bool = True,
        template: str = "", chats: bool = False, notice: str = "",
    ) -> None:  # fmt: skip
        self.name, self.backend, self.tokenizer, self.ends = name, backend, tokenizer, frozenset(ends)
        self.own, self.template, self.chats, self.notice = own, template, chats, notice
        self._read: list[int] = []  # what the session holds
        self._session: Session | None = None
        self._room = 0

    @staticmethod
    def load(path: Path, precision: Kind | None = None, engine: EngineName = "auto") -> Writer:
        """Read a model directory: smallfry's, imported, or Hugging Face's own.

        Raises:
            SmallfryError: A file is missing or broken.
        """
        if not path.is_dir():
            raise SmallfryError(f"{path}: no such directory; expected a model directory (config.json, its weights)")
        card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
        config = read_json(path / "config.json")
        own = bool(card) and "imported_from" not in card
        settings = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").exists() else {}
        template = settings.get("chat_template") if isinstance(settings, dict) and not own else None
        try:
            tokenizer = HfTokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more precise
            raise SmallfryError(
                f"{path / 'tokenizer.json'}: not a tokenizer ({error}); make or import it again"
            ) from None
        eos = config.get("eos_token_id")
        ends = [END, BOS] if own else [i for i in (eos if isinstance(eos, list) else [eos]) if isinstance(i, int)]
        loaded = load_backend(path, precision, engine)
        if tokenizer.get_vocab_size() > loaded.backend.shape.vocab_size:
            raise SmallfryError(f"{path / 'tokenizer.json'}: has more tokens than the model has rows; they do not fit")
        return Writer(
            str(card.get("name") or path.name), loaded.backend, tokenizer, ends, own,
            template if isinstance(template, str) else "", bool(card.get("chat")) or bool(template), loaded.notice,
        )  # fmt: skip

    def __call__(self, text: str) -> str:
        """The likeliest continuation of a text."""
        return self.write(self.prompt_ids(text))

    # ---- spelling ---------------------------------------------------------------------------------------------------

    def prompt_ids(self, text: str) -> list[int]:
        """A text to be continued, with what stands before every text."""
        if self.own:
            return [BOS, *self.tokenizer.encode(text, add_special_tokens=False).ids]
        ids = list(self.tokenizer.encode(text).ids)
        if not ids:
            raise SmallfryError(f"{self.name}: an empty text, and no token that begins texts; give it a word")
        return ids

    def chat_ids(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """A conversation in which it is the model's turn.

        Args:
            turns: (role, text) with the roles system, user and assistant.
        """
        if self.own:
            ids: list[int] = []
            for role, text in turns:
                words = self.tokenizer.encode(" " + text, add_special_tokens=False).ids
                ids += [ASSISTANT, *words, END] if role == "assistant" else [USER, *words]
            return [*ids, ASSISTANT]
        if not self.template:
            return self.prompt_ids("\n".join(text for _, text in turns) + "\n")
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError:
            raise SmallfryError(f"{self.name}: its chat template needs jinja2; pip install jinja2") from None
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            render = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.template)
            said = render.render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")
        except TemplateError as error:
            raise SmallfryError(f"{self.name}: its chat template fails ({error})") from None
        return list(self.tokenizer.encode(said).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    # ---- writing ----------------------------------------------------------------------------------------------------

    def stream(
        self, prompt: Sequence[int], max_new: int = 256, sampling: Sampling | None = None, stops: Sequence[str] = ()
    ) -> Iterator[Piece]:
        """Write on behind a prompt.

        What a prompt has in common with the one before is not read again.

        Args:
            prompt: Token ids.
            max_new: Most tokens.
            sampling: How they are drawn; None takes the likeliest.
            stops: Texts at which the writing ends; they are left out.

        Yields:
            A piece a token; the end token is told only where it frees text that may have begun a stop.
        """
        draws = sampling.draws(0) if sampling else None
        logits = self._feed(prompt, len(prompt) + max_new)
        written: list[int] = []
        text = ""
        head, told = self.decode(prompt[-4:]), 0
        for _ in range(max_new):
            token = pick(logits, sampling, draws, written) if sampling and draws else int(logits.argmax())
            top = float(logits.max())
            logprob = float(logits[token]) - top - float(np.log(np.exp(logits.astype(np.float64) - top).sum()))
            if token in self.ends:
                if told < len(text):
                    yield Piece(text[told:], token, logprob)
                return
            written.append(token)
            text = self.decode([*prompt[-4:], *written])
            text = text[len(head) :] if text.startswith(head) else self.decode(written)
            stop = min((at for s in stops if s and (at := text.find(s)) >= 0), default=-1)
            if stop >= 0:
                yield Piece(text[told:stop], token, logprob)
                return
            whole = told if text.endswith("\ufffd") else max(told, len(text) - _begun(text, stops))
            if len(written) == max_new:
                whole = len(text)
            yield Piece(text[told:whole], token, logprob)
            told = max(told, whole)
            if len(written) < max_new:
                logits = self._feed([*prompt, *written], 0)

    def write(
        self, prompt: Sequence[int], max_new: int = 256, sampling: Sampling | None = None, stops: Sequence[str] = ()
    ) -> str:
        """The text that `stream` writes."""
        return "".join(piece.text for piece in self.stream(prompt, max_new, sampling, stops))

    def _feed(self, ids: Sequence[int], room: int) -> np.ndarray:
        """Logits after ``ids``, of which what was read before is kept."""
        same = 0
        if self._session is not None and room <= self._room:
            for a, b in zip(self._read, ids, strict=False):
                if a != b:
                    break
                same += 1
            same = min(same, len(ids) - 1)
        if self._session is None or room > self._room:
            self._room = max(room, 512)
            self._session = self.backend.session(1, self._room)
        self._session.rewind(0, same)
        logits = self._session.feed([ids[same:]])[0]
        self._read = list(ids)
        return np.asarray(logits)


def _begun(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of a text that may be the beginning of a stop."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
