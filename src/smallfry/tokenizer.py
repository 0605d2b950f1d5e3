"""Byte-level BPE of any size from plain bytes to 65,536, in the form that transformers and llama.cpp read.

Pre-tokenisation follows the published Qwen2 pattern (single digits, words with their leading space), so that
llama.cpp's ``qwen2`` pre-tokenizer cuts text alike. *Units* are strings of a job's outputs that become one token each
(a class label, an action of SCAN, an SQL keyword): they stand in the vocabulary but no merge leads to them, so any
program can write them out while none produces them when it reads an input.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from smallfry.errors import SmallfryError

BOS, USER, ASSISTANT, END, PAD, MASK, TEXT = range(7)
SPECIALS = ("<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<|mask|>", "<|text|>")
MIN_VOCAB = len(SPECIALS) + 256
MAX_VOCAB = 65_536
_LONG_WORD = 128
_LINE_START = re.compile(r"(?<=\n)(?=\S)")
_MOST_LINES = 50_000  # lines whose tokens are remembered

# Qwen2's split pattern: contractions, words with one leading non-letter, SINGLE digits, punctuation runs, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% set ns = namespace(role='', system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] + '\\n\\n' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ('\\n' if ns.role == 'assistant' else '<|assistant|> ') + message['content'] }}{% set ns.role = 'assistant' %}"
    "{% else %}{{ '\\n' if ns.role == 'user' else ('<|end|>' if ns.role else '') + '<|user|> ' }}"
    "{{ ns.system + message['content'] }}{% set ns.role = 'user' %}{% set ns.system = '' %}{% endif %}{% endfor %}"
    "{% if ns.system %}{{ '\\n' if ns.role == 'user' else ('<|end|>' if ns.role else '') + '<|user|> ' }}"
    "{{ ns.system[:-2] }}{% set ns.role = 'user' %}{% endif %}"
    "{% if ns.role == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The turns that `smallfry.conversation.own_ids` spells, for programs that read ``tokenizer_config.json``."""


@functools.cache
def byte_chars() -> list[str]:
    """The printable stand-in of each byte in byte-level BPE vocabularies (GPT-2's table: visible Latin-1 stays)."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = [""] * 256
    for byte in keep:
        table[byte] = chr(byte)
    for index, byte in enumerate(b for b in range(256) if not table[b]):
        table[byte] = chr(256 + index)
    return table


def to_byte_chars(text: str) -> str:
    """``text`` as it is spelled in a byte-level vocabulary (a space becomes ``Ġ``)."""
    table = byte_chars()
    return "".join(table[b] for b in text.encode("utf-8", "replace"))


def from_byte_chars(spelled: str) -> str:
    """The inverse of `to_byte_chars`."""
    index = {char: byte for byte, char in enumerate(byte_chars())}
    return bytes(index[char] for char in spelled).decode("utf-8", "replace")


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


class Tokenizer:
    """A byte-level BPE tokenizer with a per-word cache and seeded BPE-dropout.

    Args:
        hf: The underlying ``tokenizers`` object, whose JSON form is ``tokenizer.json``.
        units: Output strings (with their leading space) that are one token each.
    """

    def __init__(self, hf: HfTokenizer, units: Sequence[str] = ()) -> None:
        self.hf = hf
        model = json.loads(hf.to_str())["model"]
        self.vocab: dict[str, int] = model["vocab"]
        self.vocab_size: int = hf.get_vocab_size(with_added_tokens=True)
        merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        self._ranks: dict[tuple[str, str], int] = {(a, b): i for i, (a, b) in enumerate(merges)}
        self._pre = _pre_tokenizer()
        self._words: dict[str, list[int]] = {}
        self._lines: dict[str, list[int]] = {}
        self.compiled: Any = None  # the grammar library's form of this tokenizer, made when first needed
        self.units: dict[str, int] = {unit: self.vocab[to_byte_chars(unit)] for unit in units}

    # ---- making one -------------------------------------------------------------------------------------------------

    @staticmethod
    def train(
        texts: Iterable[str], vocab_size: int, units: Sequence[str] = (), symbols: Sequence[str] = ()
    ) -> Tokenizer:
        """Train on ``texts``; the same texts in the same order give the same tokenizer.

        Args:
            texts: Training text (inputs with a leading space, and outputs that are written in pieces).
            vocab_size: Size of the BPE part, specials included: `MIN_VOCAB` (plain bytes) to 65,536.
            units: Output strings, with their leading space, to hold as single tokens.
            symbols: Further special tokens (slot tags, head symbols), added as ``<|name|>``.

        Raises:
            SmallfryError: When ``vocab_size`` is out of range.
        """
        if not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
            raise SmallfryError(
                f"vocabulary of {vocab_size}: expected {MIN_VOCAB} (plain bytes) to {MAX_VOCAB}; choose one between"
            )
        hf = HfTokenizer(models.BPE())
        hf.pre_tokenizer = _pre_tokenizer()
        hf.decoder = decoders.ByteLevel()
        alphabet = sorted(byte_chars())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False,
            max_token_length=16,
        )  # fmt: skip
        hf.train_from_iterator(texts if vocab_size > MIN_VOCAB else [], trainer)
        data = json.loads(hf.to_str())
        vocab: dict[str, int] = data["model"]["vocab"]
        for unit in units:
            vocab.setdefault(to_byte_chars(unit), len(vocab))
        hf = HfTokenizer.from_str(json.dumps(data))
        hf.add_special_tokens([AddedToken(f"<|{s}|>", normalized=False, special=True) for s in symbols])
        return Tokenizer(hf, units)

    @staticmethod
    def load(path: Path, units: Sequence[str] = ()) -> Tokenizer:
        """Read ``tokenizer.json``.

        Raises:
            SmallfryError: When the file is missing or not a byte-level BPE made here.
        """
        try:
            hf = HfTokenizer.from_str(path.read_text(encoding="utf-8"))
            return Tokenizer(hf, units)
        except FileNotFoundError:
            raise SmallfryError(
                f"{path}: no such file; a model directory holds tokenizer.json beside its weights"
            ) from None
        except Exception as error:  # the library raises bare Exception on malformed files
            raise SmallfryError(f"{path}: not a byte-level BPE tokenizer ({error}); make the model again") from None

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``."""
        path.write_text(self.hf.to_str(pretty=True) + "\n", encoding="utf-8")

    # ---- text to ids ------------------------------------------------------------------------------------------------

    def words(self, text: str) -> list[str]:
        """Pre-tokenised pieces of ``text`` in byte-level spelling; no merge crosses a piece."""
        return [piece for piece, _ in self._pre.pre_tokenize_str(text)]

    def word_ids(self, word: str) -> list[int]:
        """Ids of one pre-tokenised piece (cached)."""
        ids = self._words.get(word)
        if ids is None:
            if len(word) > _LONG_WORD:  # the library's merging does not slow down with the square of the length
                ids = self.hf.encode(from_byte_chars(word), add_special_tokens=False).ids
            else:
                ids = [self.vocab[p] for p in self._merge(word, None, 0.0)]
            if len(self._words) >= _MOST_LINES:
                self._words.clear()
            self._words[word] = ids
        return ids

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens written in it are treated as text."""
        return [i for word in self.words(text) for i in self.word_ids(word)]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that begin alike or have lines in common: each line is cut into tokens once.

        A piece never reaches over a line break into the next line's first letter, nor over the space before a word, so
        that a text may be cut there.
        """
        cut = _last_word(_common_start(min(texts), max(texts))) if len(texts) > 1 else 0
        head = self._encode_lines(texts[0][:cut]) if cut else []
        return [head + self._encode_lines(text[cut:]) for text in texts]

    def _encode_lines(self, text: str) -> list[int]:
        ids: list[int] = []
        for line in _LINE_START.split(text):
            known = self._lines.get(line)
            if known is None:
                known = self.encode(line)
                if len(self._lines) >= _MOST_LINES:
                    self._lines.clear()
                self._lines[line] = known
            ids += known
        return ids

    def encode_output(self, text: str) -> list[int]:
        """Ids of an output: the whole text, else each of its words, is one token where it is a unit."""
        whole = self.units.get(text)
        if whole is not None:
            return [whole]
        if not self.units:
            return self.encode(text)
        ids: list[int] = []
        pending = ""
        for word in split_words(text):
            unit = self.units.get(word)
            if unit is None:
                pending += word
                continue
            ids += self.encode(pending)
            pending = ""
            ids.append(unit)
        return ids + self.encode(pending)

    def sample_word_ids(self, word: str, rng: np.random.Generator, dropout: float) -> list[int]:
        """A random segmentation of one piece (BPE-dropout, Provilkov et al. 2020: each merge is skipped with p)."""
        if len(word) > _LONG_WORD:
            return self.word_ids(word)
        return [self.vocab[p] for p in self._merge(word, rng, dropout)]

    def _merge(self, word: str, rng: np.random.Generator | None, dropout: float) -> list[str]:
        parts = list(word)
        ranks = self._ranks
        while len(parts) > 1:
            best, at = len(ranks), -1
            skips = rng.random(len(parts) - 1) if rng is not None else None
            for i in range(len(parts) - 1):
                rank = ranks.get((parts[i], parts[i + 1]))
                if rank is not None and rank < best and (skips is None or skips[i] >= dropout):
                    best, at = rank, i
            if at < 0:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts

    # ---- ids to text ------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out, broken UTF-8 becomes the replacement character."""
        return str(self.hf.decode(list(ids), skip_special_tokens=True))

    def symbol(self, name: str) -> int:
        """Id of the special token ``<|name|>``."""
        found: int | None = self.hf.token_to_id(f"<|{name}|>")
        if found is None:
            raise SmallfryError(
                f"tokenizer has no token <|{name}|>; the model directory does not fit its smallfry.json"
            )
        return found

    def table_bytes(self) -> int:
        """Bytes of the vocabulary without its JSON: each token with a separator, and two ids of two bytes a merge."""
        return sum(len(token.encode()) + 1 for token in self.hf.get_vocab(with_added_tokens=True)) + 4 * len(
            self._ranks
        )

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """Bytes that each id stands for, ``(vocab_size,)`` int64; 0 for special tokens."""
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, index in self.vocab.items():
            if token not in SPECIALS:
                sizes[index] = len(token)  # one stand-in character a byte
        return sizes


def _common_start(a: str, b: str) -> str:
    """What two texts begin with; those of the least and the greatest of many are what all begin with."""
    for at, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return a[:at]
    return min(a, b, key=len)


def _last_word(text: str) -> int:
    """Where the last word begins that is begun by one space between two other characters; 0 where there is none."""
    at = text.rfind(" ", 1, len(text) - 1)
    while at > 0 and (text[at - 1].isspace() or text[at + 1].isspace()):
        at = text.rfind(" ", 1, at)
    return max(0, at)


def split_words(text: str) -> list[str]:
    """``" a bc"`` -> ``[" a", " bc"]``: words with the white space before them; joining gives the text back."""
    words: list[str] = []
    start = 0
    for i in range(1, len(text)):
        if text[i].isspace() and not text[i - 1].isspace():
            words.append(text[start:i])
            start = i
    if start < len(text):
        words.append(text[start:])
    return words
