"""A ``tokenizer.json`` in the terms of llama.cpp: which of its tokenizers cuts text alike, and with which tables.

Two kinds can be said: byte-level BPE (llama.cpp's ``gpt2``, merges by rank) whose way of cutting text into words is one
llama.cpp knows by name, and BPE with byte fallback over SentencePiece's spelling (``llama``, merges by the score of
what they make). Units stay ordinary tokens: no merge leads to them, so llama.cpp, too, writes but never reads them.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.tokenizer import SPLIT

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""llama.cpp's types of tokens."""

_LOWEST = -1e9
_SPACE = "▁"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# How text is cut into words and whether whole words are looked up before merging: llama.cpp's name for it.
_PRE = {
    ("split", SPLIT, False): "qwen2",
    ("split", SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), True): "llama-bpe",
    ("words", "", False): "gpt-2",
    ("digits words", "", False): "smollm",
}


@dataclass(slots=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Args:
        model: ``gpt2`` or ``llama``.
        pre: llama.cpp's name for how text is cut into words.
        tokens: Text of each id.
        types: llama.cpp's type of each id.
        merges: Pairs with a space between, most urgent first; of ``gpt2``.
        scores: Of each id; of ``llama``.
        bos: Id of the token that begins a text, or None.
        eos: Id of the token that ends a text, or None.
        pad: Id of padding, or None.
        unknown: Id of the unknown token, or None.
        add_bos: Reading a text puts ``bos`` before it.
        add_eos: Reading a text puts ``eos`` after it.
        space_prefix: Reading a text puts a space before it; of ``llama``.
        chat_template: The template of a conversation, or None.
        notes: What llama.cpp may do otherwise, one line each.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unknown: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    space_prefix: bool = False
    chat_template: str | None = None
    notes: list[str] = field(default_factory=list)


def read_vocabulary(model: Path, rows: int, specials: tuple[int, int, int]) -> Vocabulary:
    """The tokenizer of a model directory.

    Args:
        model: The directory.
        rows: Rows of the embedding table; ids without a token become unused ones.
        specials: Ids of begin, end and padding by the model's configuration; -1 where it has none.

    Raises:
        SmallfryError: When ``tokenizer.json`` is missing, broken, or of a kind llama.cpp does not have.
    """
    path = model / "tokenizer.json"
    data = read_json(path)
    try:
        found = _read(data, path, rows)
        _add_specials(found, _config(model), specials, path)
        found.chat_template = chat_template(model)
        _add_behaviour(found, path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SmallfryError(f"{path}: not a tokenizer that can be read ({error!r}); make the model again") from None
    return found


def _read(data: dict[str, Any], path: Path, rows: int) -> Vocabulary:
    bpe = data["model"]
    plain = not any(bpe.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    if bpe.get("type", "BPE") != "BPE" or "merges" not in bpe or not plain:
        raise SmallfryError(
            f"{path}: a tokenizer of kind {bpe.get('type')!r}; expected a plain BPE, which is what llama.cpp reads"
        )
    added = data.get("added_tokens") or []
    ids: dict[str, int] = bpe["vocab"] | {str(entry["content"]): entry["id"] for entry in added}
    if not all(isinstance(index, int) and 0 <= index < rows for index in ids.values()):
        raise SmallfryError(f"{path}: has ids beyond the model's {rows} rows of embeddings; make the model again")
    if len(set(ids.values())) != len(ids):
        raise SmallfryError(f"{path}: two tokens have one id; make the model again")
    tokens, types = [""] * rows, [UNUSED] * rows
    for token, index in ids.items():
        tokens[index], types[index] = token, NORMAL
    for entry in added:
        types[entry["id"]] = CONTROL if entry.get("special") else USER_DEFINED
    pairs = [tuple(m.split(" ", 1) if isinstance(m, str) else m) for m in bpe["merges"]]
    if not all(len(pair) == 2 and pair[0] in ids and pair[1] in ids for pair in pairs):
        raise SmallfryError(f"{path}: a merge is not of two tokens of the vocabulary; make the model again")
    merges = cast("list[tuple[str, str]]", pairs)
    if bpe.get("byte_fallback"):
        found = _sentencepiece(data, path, ids, tokens, types, merges)
    else:
        found = _byte_level(data, path, tokens, types, merges)
    taken = set(ids)
    for index in range(rows):
        if not tokens[index]:  # a name of its own: llama.cpp wants no two tokens alike
            tokens[index] = next(name for n in range(rows + 1) if (name := f"[UNUSED{index + n}]") not in taken)
            taken.add(tokens[index])
    return found


# ---- byte-level BPE -------------------------------------------------------------------------------------------------


def _byte_level(
    data: dict[str, Any], path: Path, tokens: list[str], types: list[int], merges: list[tuple[str, str]]
) -> Vocabulary:
    pre = _PRE.get((*_cutting(data.get("pre_tokenizer") or {}), bool(data["model"].get("ignore_merges"))))
    normalizer = (data.get("normalizer") or {}).get("type")
    if pre is None or normalizer not in (None, "NFC"):
        raise SmallfryError(
            f"{path}: cuts text into words in a way that llama.cpp has no name for; expected that of "
            f"{', '.join(_PRE.values())} without further steps"
        )
    # llama.cpp wants a merge: plain bytes get one of texts that reading never makes.
    spaced = [f"{a} {b}" for a, b in merges] or ["<none> <none>"]
    if any(line.count(" ") != 1 for line in spaced):
        raise SmallfryError(f"{path}: a merge has a space in it; expected a byte-level BPE")
    notes = ["llama.cpp does not normalise text (NFC): composed and decomposed letters stay as they are"]
    return Vocabulary("gpt2", pre, tokens, types, merges=spaced, notes=notes if normalizer else [])


def _cutting(pre: dict[str, Any]) -> tuple[str, str]:
    """How a byte-level tokenizer cuts words: its steps, and the pattern where there is one."""
    steps = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return "unknown", ""
    if not before:
        return ("words" if last.get("use_regex", True) else "unknown"), ""
    if len(before) > 1:
        return "unknown", ""
    step = before[0]
    if step.get("type") == "Digits" and step.get("individual_digits") and last.get("use_regex", True):
        return "digits words", ""
    isolated = step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert")
    if isolated and not last.get("use_regex", True):
        return "split", str(step["pattern"].get("Regex"))
    return "unknown", ""


# ---- SentencePiece's spelling ---------------------------------------------------------------------------------------


def _sentencepiece(
    data: dict[str, Any], path: Path, ids: dict[str, int], tokens: list[str], types: list[int],
    merges: list[tuple[str, str]],
) -> Vocabulary:  # fmt: skip
    if sum(_BYTE_TOKEN.fullmatch(token) is not None for token in tokens) != 256:
        raise SmallfryError(f"{path}: has byte_fallback but not the 256 tokens <0x00> to <0xFF>; make the model again")
    for index, token in enumerate(tokens):
        if _BYTE_TOKEN.fullmatch(token):
            types[index] = BYTE
    unknown = ids.get(str(data["model"].get("unk_token")))
    if unknown is not None:
        types[unknown] = UNKNOWN
    scores = [_LOWEST] * len(tokens)
    for rank in range(len(merges) - 1, -1, -1):
        a, b = merges[rank]
        made = ids.get(a + b)
        if made is None:
            raise SmallfryError(f"{path}: a merge makes a token that is not there; make the model again")
        scores[made] = -float(rank)
    notes = []
    if not _scores_say_all(ids, types, scores, merges):
        notes.append("the tokenizer's merges are not those of its scores: llama.cpp may cut some words otherwise")
    return Vocabulary("llama", "default", tokens, types, scores=scores, unknown=unknown, notes=notes)


def _scores_say_all(ids: dict[str, int], types: list[int], scores: list[float], merges: list[tuple[str, str]]) -> bool:
    """Whether merging by scores is merging by ranks: every split of a token is a merge, and they follow each other."""
    made = [a + b for a, b in merges]
    if len(set(made)) != sum(1 for _ in itertools.groupby(made)):
        return False
    known = set(merges)
    pieces = {token for token, index in ids.items() if types[index] == NORMAL}
    return all(
        (token[:at], token[at:]) in known
        for token in pieces if scores[ids[token]] > _LOWEST
        for at in range(1, len(token)) if token[:at] in pieces and token[at:] in pieces
    )  # fmt: skip


# ---- special tokens and behaviour -----------------------------------------------------------------------------------


def _add_specials(found: Vocabulary, config: dict[str, Any], specials: tuple[int, int, int], path: Path) -> None:
    index = {token: i for i, token in enumerate(found.tokens)}
    ids: list[int | None] = []
    for given, key in zip(specials, ("bos_token", "eos_token", "pad_token"), strict=True):
        named = config.get(key)
        text = named.get("content") if isinstance(named, dict) else named
        ids.append(given if 0 <= given < len(index) else index.get(str(text)) if text else None)
    found.bos, found.eos, found.pad = ids
    # llama.cpp takes ids 11 (gpt2) or 1 and 2 (llama) where a file names none: any special one is better.
    found.bos = found.bos if found.bos is not None else found.eos
    found.eos = found.eos if found.eos is not None else found.bos
    if found.eos is None:
        found.notes.append(f"{path.name} names no token that ends a text: llama.cpp will take one of its own choice")


def chat_template(model: Path) -> str | None:
    """The template of a conversation in a model directory, or None.

    Raises:
        SmallfryError: When it cannot be read as text.
    """
    beside = model / "chat_template.jinja"
    try:
        template = beside.read_text(encoding="utf-8") if beside.exists() else _config(model).get("chat_template")
        if isinstance(template, list):
            named = {str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        if not isinstance(template, str):
            return None
        template.encode("utf-8")
    except (OSError, ValueError) as error:
        raise SmallfryError(f"{model}: the chat template cannot be read ({error}); make the model again") from None
    return template


def _config(model: Path) -> dict[str, Any]:
    path = model / "tokenizer_config.json"
    found = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def _add_behaviour(found: Vocabulary, path: Path) -> None:
    """What reading a text adds to it, seen by reading one."""
    from tokenizers import Tokenizer as HfTokenizer

    try:
        hf = HfTokenizer.from_file(str(path))
        bare, full = hf.encode("a", add_special_tokens=False), hf.encode("a").ids
    except Exception as error:  # the library raises bare Exception on malformed files
        raise ValueError(str(error)) from None
    found.add_bos = found.bos is not None and full[:1] == [found.bos] and bare.ids[:1] != [found.bos]
    found.add_eos = found.eos is not None and full[-1:] == [found.eos] and bare.ids[-1:] != [found.eos]
    found.space_prefix = bool(bare.tokens) and bare.tokens[0].startswith(_SPACE)
