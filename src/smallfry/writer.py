"""A language model that continues texts and answers in a conversation, token by token, without PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HfTokenizer

from smallfry.architecture import MAX_POSITIONS, positions_of
from smallfry.calculator import calculator
from smallfry.characters import visible
from smallfry.conversation import Fitted, fit, own_ids
from smallfry.engine.decoding import Backend, Sampling, Session, pick
from smallfry.engine.loading import EngineName, load_backend
from smallfry.engine.weights import Kind
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.tokenizer import BOS, END

Tool = Callable[[str], str | None]
_BEFORE, _DECODED = 4, 64  # tokens
"""From what was written so far to what is to be written next, or None."""


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
        context: Tokens it was made to read and write together.
    """

    def __init__(
        self, name: str, backend: Backend, tokenizer: HfTokenizer, ends: Sequence[int], own: bool = True,
        template: str = "", chats: bool = False, notice: str = "", context: int = MAX_POSITIONS,
    ) -> None:  # fmt: skip
        self.name, self.backend, self.tokenizer, self.ends = name, backend, tokenizer, frozenset(ends)
        self.own, self.template, self.chats, self.notice = own, template, chats, notice
        self.context = context
        self.tool: Tool | None = calculator if own and chats else None  # of answers in a conversation
        self._read: list[int] = []  # what the session holds
        self._session: Session | None = None
        self._room = 0
        self._last: object = None  # which stream the session is of
        self.ended = False  # whether what was written last ended by itself, or at a stop

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
        if not isinstance(card, dict) or not isinstance(config, dict):
            raise SmallfryError(f"{path}: smallfry.json or config.json is no object; make or import it again")
        ends = ends_of(path, card)
        loaded = load_backend(path, precision, engine)
        if tokenizer.get_vocab_size() > loaded.backend.shape.vocab_size:
            raise SmallfryError(f"{path / 'tokenizer.json'}: has more tokens than the model has rows; they do not fit")
        return Writer(
            visible(str(card.get("name") or path.name)), loaded.backend, tokenizer, ends, own,
            template if isinstance(template, str) else "", bool(card.get("chat")) or bool(template), loaded.notice,
            positions_of(config, path / "config.json"),
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
            return own_ids(turns, lambda text: self._plain.encode(text, add_special_tokens=False).ids)
        if not self.template:
            return self.prompt_ids("\n".join(text for _, text in turns) + "\n")
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError:
            raise SmallfryError(f"{self.name}: its chat template needs jinja2; pip install jinja2") from None
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            render = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.template)
            said = render.render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")
        except Exception as error:  # a template is a program: it may divide by nought
            raise SmallfryError(f"{self.name}: its chat template fails ({' '.join(str(error).split())})") from None
        return list(self.tokenizer.encode(said).ids)

    @functools.cached_property
    def _plain(self) -> HfTokenizer:
        """The tokenizer for what people say: an ``<|end|>`` in it is text and ends nothing."""
        found = HfTokenizer.from_str(self.tokenizer.to_str())
        found.encode_special_tokens = True
        return found

    def fit(self, turns: Sequence[tuple[str, str]], max_new: int = 256) -> Fitted:
        """A conversation cut to the context, as tokens, with room for an answer (`smallfry.conversation.fit`).

        Args:
            turns: (role, text), at least one; it is the model's turn.
            max_new: Tokens wanted for the answer.

        Raises:
            SmallfryError: The context holds no turn at all.
        """
        return fit(turns, self.chat_ids, self.context, max_new)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    # ---- writing ----------------------------------------------------------------------------------------------------

    def stream(
        self, prompt: Sequence[int], max_new: int = 256, sampling: Sampling | None = None, stops: Sequence[str] = (),
        tool: Tool | None = None,
    ) -> Iterator[Piece]:  # fmt: skip
        """Write on behind a prompt.

        What a prompt has in common with the one before is not read again.

        Args:
            prompt: Token ids.
            max_new: Most tokens.
            sampling: How they are drawn; None takes the likeliest.
            stops: Texts at which the writing ends; they are left out.
            tool: Shown what the model wrote, it may write on; its tokens count as the model's.

        Yields:
            A piece a token; the end token is told only where it frees text that may have begun a stop.
        """
        draws = sampling.draws(0) if sampling else None
        self.ended = False
        logits = self._feed(prompt, len(prompt) + max_new)
        mine = self._last = object()
        written: list[int] = []
        growing, told = _Growing(self.decode, prompt), 0
        text = ""
        forced: list[int] = []  # the tool's
        for _ in range(max_new):
            own = not forced
            if forced:
                token = forced.pop(0)
            else:
                token = pick(logits, sampling, draws, written) if sampling and draws else int(logits.argmax())
            top = float(logits.max())
            logprob = float(logits[token]) - top - float(np.log(np.exp(logits.astype(np.float64) - top).sum()))
            if token in self.ends:
                self.ended = True
                if told < len(text):
                    yield Piece(text[told:], token, logprob)
                return
            written.append(token)
            text = growing.add(token)
            stop = min((at for s in stops if s and (at := text.find(s)) >= 0), default=-1)
            if stop >= 0:
                self.ended = True
                yield Piece(text[told:stop], token, logprob)
                return
            whole = told if text.endswith("\ufffd") else max(told, len(text) - _begun(text, stops))
            if len(written) == max_new:
                whole = len(text)
            yield Piece(text[told:whole], token, logprob)
            told = max(told, whole)
            if tool is not None and own and (said := tool(text)):
                forced = list(self.tokenizer.encode(said, add_special_tokens=False).ids)
            if len(written) < max_new:
                logits = self._step(token) if self._last is mine else self._feed([*prompt, *written], 0)
                self._last = mine

    def write(
        self, prompt: Sequence[int], max_new: int = 256, sampling: Sampling | None = None, stops: Sequence[str] = ()
    ) -> str:
        """The text that `stream` writes."""
        return "".join(piece.text for piece in self.stream(prompt, max_new, sampling, stops))

    def _step(self, token: int) -> np.ndarray:
        """Logits after one more token."""
        assert self._session is not None
        logits = self._session.feed([[token]])[0]
        self._read.append(token)
        return np.asarray(logits)

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
            wider = max(room, 512)
            self._session, self._room = self.backend.session(1, wider), wider  # together: it may not be had
        self._read = self._read[:same]  # should the reading be interrupted, no more is relied on
        self._session.rewind(0, same)
        logits = self._session.feed([ids[same:]])[0]
        self._read = list(ids)
        return np.asarray(logits)


class _Growing:
    """The text of tokens that come one by one; only the latest of them are decoded again.

    They are decoded behind a few tokens before them: at the beginning of a text decoders drop a space.

    Args:
        decode: Tokens to text.
        prompt: What stands before.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._begin(prompt, "")

    def _begin(self, before: Sequence[int], fixed: str) -> None:
        self._before, self._fixed = list(before[-_BEFORE:]), fixed
        self._head = self._decode(self._before)
        self._new: list[int] = []

    def add(self, token: int) -> str:
        """The whole text with one more token."""
        self._new.append(token)
        piece = self._decode([*self._before, *self._new])
        text = self._fixed + (piece[len(self._head) :] if piece.startswith(self._head) else self._decode(self._new))
        if len(self._new) >= _DECODED and not text.endswith("\ufffd"):
            self._begin(self._new, text)
        return text


def ends_of(path: Path, card: dict[str, Any]) -> list[int]:
    """Tokens that end what a model writes: of imported ones those that the import found, else what their files name."""
    if card and "imported_from" not in card:
        return [END, BOS]
    named: list[Any] = list(card["ends_with"]) if isinstance(card.get("ends_with"), list) else []
    for file in () if named else ("generation_config.json", "config.json"):
        found = read_json(path / file) if (path / file).exists() else {}
        eos = found.get("eos_token_id") if isinstance(found, dict) else None
        named += eos if isinstance(eos, list) else [eos]
    return list(dict.fromkeys(i for i in named if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31))


def _begun(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of a text that may be the beginning of a stop."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
