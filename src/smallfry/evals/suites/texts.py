"""How language models spell: our own tokenizers and those of Hugging Face directories, behind one face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from smallfry.errors import SmallfryError
from smallfry.tokenizer import ASSISTANT, BOS, END, USER, Tokenizer


class Texts(Protocol):
    """From texts to token ids and back."""

    lead: str  # what the chat template puts before an answer
    end: int  # the token that ends a text; -1 where there is none

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without a beginning-of-sequence token."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for many."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""

    def written(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text that ``ids`` add behind ``prompt``."""

    def start(self) -> list[int]:
        """What stands before every text: the beginning-of-sequence token."""

    def chat(self, text: str) -> list[int]:
        """Token ids of a conversation in which the user said ``text`` and it is the model's turn."""


class OwnTexts:
    """A smallfry tokenizer.

    Args:
        tokenizer: The model's.
    """

    lead, end = " ", END

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts; what they have in common at the beginning is cut into tokens once."""
        return self.tokenizer.encode_all(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(ids)

    def written(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text of ``ids``: our tokens are bytes and do not change with what stands before them."""
        return self.tokenizer.decode(ids)

    def start(self) -> list[int]:
        """``<|bos|>``."""
        return [BOS]

    def chat(self, text: str) -> list[int]:
        """``<|user|> text<|assistant|>``."""
        return [USER, *self.tokenizer.encode(" " + text), ASSISTANT]


class HfTexts:
    """The tokenizer of a Hugging Face directory, through transformers, without code of the model's own.

    Args:
        path: The directory.

    Raises:
        SmallfryError: transformers is missing or cannot read it.
    """

    lead = ""

    def __init__(self, path: Path) -> None:
        try:
            import transformers
        except ModuleNotFoundError:
            raise SmallfryError(
                f"{path}: a model that smallfry did not make needs transformers; pip install 'smallfry[hub]'"
            ) from None
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError) as error:
            first = (str(error).splitlines() or [repr(error)])[0]
            raise SmallfryError(f"{path}: transformers cannot load its tokenizer ({first})") from None
        self._path = path
        self.end = -1 if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens, all at once."""
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def written(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text behind the prompt: some tokenizers drop the first space of what they decode."""
        head, whole = self.decode(list(prompt)), self.decode([*prompt, *ids])
        return whole[len(head) :] if whole.startswith(head) else self.decode(list(ids))

    def start(self) -> list[int]:
        """The beginning-of-sequence token, or the end-of-sequence token where the tokenizer has no other."""
        found = self.tokenizer.bos_token_id
        found = self.end if found is None else int(found)
        if found < 0:
            raise SmallfryError(f"{self._path}: the tokenizer has neither a bos nor an eos token to start texts with")
        return [found]

    def chat(self, text: str) -> list[int]:
        """By the tokenizer's chat template, or the text and a line break where it has none."""
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": text}]
            return list(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
        return [*self.start(), *self.encode(text + "\n")]
