"""A ``tokenizer.json`` as the tables that a page reads: tokens, merges, and how text is cut before merging.

Two kinds can be said: byte-level BPE, and BPE over characters with byte fallback (SentencePiece's spelling).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HfTokenizer

from smallfry.errors import SmallfryError
from smallfry.export.web.patterns import literal, to_javascript
from smallfry.files import read_json
from smallfry.tokenizer import byte_chars

# GPT-2's pattern, which the step ByteLevel has in it.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def read_tables(path: Path, rows: int) -> dict[str, Any]:
    """The tables of a tokenizer.

    Args:
        path: A ``tokenizer.json``.
        rows: Rows of the model's embedding.

    Returns:
        Plain data: ``tokens`` by id, ``merges`` (pairs of ids, base64 of little-endian numbers of ``width`` bytes),
        ``steps`` that cut a text, ``normal`` forms of it, ``added`` and ``special`` ids, and how tokens are read back.

    Raises:
        SmallfryError: When it is missing, broken or of a kind that a page cannot compute.
    """
    data = read_json(path)
    try:
        return _read(data, rows)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise SmallfryError(
            f"{path}: a tokenizer that a page cannot compute ({error}); expected a byte-level BPE, or a BPE with byte "
            "fallback: export to gguf or onnx instead"
        ) from None


def begins_of(path: Path) -> list[int]:
    """Ids that a tokenizer puts before every text.

    Raises:
        SmallfryError: When it is missing or broken.
    """
    try:
        hf = HfTokenizer.from_file(str(path))
        bare, full = (hf.encode("a", add_special_tokens=special).ids for special in (False, True))
    except Exception as error:  # the library raises nothing more precise
        raise SmallfryError(f"{path}: not a tokenizer that can be read ({error}); make the model again") from None
    at = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), 0)
    return full[:at] if bare else []


def _read(data: dict[str, Any], rows: int) -> dict[str, Any]:
    bpe = data["model"]
    if bpe.get("type", "BPE") != "BPE" or "merges" not in bpe:
        raise ValueError(f"its kind is {bpe.get('type')}")
    if any(bpe.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        raise ValueError("its merges are marked or left to chance")
    added = _added(data.get("added_tokens") or [], data.get("normalizer"))
    vocab: dict[str, int] = bpe["vocab"]
    ids = vocab | added
    tokens = _by_id(ids, rows)
    pairs = [tuple(m.split(" ", 1) if isinstance(m, str) else m) for m in bpe["merges"]]
    if not all(a in vocab and b in vocab and a + b in vocab for a, b in pairs):
        raise ValueError("a merge is not of tokens")
    width = 2 if rows <= 1 << 16 else 4
    merges = np.array([(vocab[a], vocab[b]) for a, b in pairs], dtype=f"<u{width}")
    fallback = bool(bpe.get("byte_fallback"))
    missing = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else byte_chars()
    if not all(token in vocab for token in missing):
        raise ValueError("not every byte is a token")
    specials = [entry["id"] for entry in data.get("added_tokens") or [] if entry.get("special")]
    return {
        "kind": "pieces" if fallback else "bytes",
        "tokens": tokens,
        "width": width,
        "merges": base64.b64encode(merges.tobytes()).decode(),
        "normal": _normal(data.get("normalizer")),
        "steps": _steps(data.get("pre_tokenizer"), fallback),
        "added": sorted(added.values()),
        "special": specials,
        "whole": bool(bpe.get("ignore_merges")),
        **(_spelled(data["decoder"]) if fallback else _plain(data["decoder"])),
    }


def _by_id(ids: dict[str, int], rows: int) -> list[str | None]:
    if not ids or not 0 <= min(ids.values()) <= max(ids.values()) < rows:
        raise ValueError(f"its ids do not fit the model's {rows} rows")
    tokens: list[str | None] = [None] * (max(ids.values()) + 1)
    for token, index in ids.items():
        if tokens[index] is not None:
            raise ValueError(f"two tokens have the id {index}")
        token.encode()  # half a character is none
        tokens[index] = token
    return tokens


def _added(entries: list[dict[str, Any]], normalizer: dict[str, Any] | None) -> dict[str, int]:
    for entry in entries:
        moved = any(entry.get(key) for key in ("single_word", "lstrip", "rstrip"))
        if moved or not entry["content"] or (normalizer and entry.get("normalized")):
            raise ValueError(f"the token {entry['content']!r} takes its surroundings with it")
    return {str(entry["content"]): int(entry["id"]) for entry in entries}


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """A step, or those of a sequence."""
    if step is None:
        return []
    return [part for child in step[key] for part in _flat(child, key)] if step["type"] == "Sequence" else [step]


def _normal(normalizer: dict[str, Any] | None) -> list[list[str]]:
    found: list[list[str]] = []
    for step in _flat(normalizer, "normalizers"):
        if step["type"] == "Prepend":
            found.append(["prepend", step["prepend"]])
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            found.append(["replace", step["pattern"]["String"], step["content"]])
        elif step["type"] in _FORMS:
            found.append(["form", step["type"]])
        else:
            raise ValueError(f"it normalises by {step['type']}")
    return found


def _steps(pre: dict[str, Any] | None, fallback: bool) -> list[list[str]]:
    """How a text is cut: by a pattern, or before each stand-in of a space."""
    found: list[list[str]] = []
    parts = _flat(pre, "pretokenizers")
    if [step["type"] == "ByteLevel" for step in parts].count(True) != (not fallback):
        raise ValueError("its bytes are spelled otherwise")
    if not fallback and parts[-1]["type"] != "ByteLevel":
        raise ValueError("it cuts text after spelling bytes")
    for step in parts:
        kind = step["type"]
        if kind == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
            pattern = step["pattern"]
            cut = to_javascript(pattern["Regex"]) if "Regex" in pattern else literal(pattern["String"])
            found.append(["split", cut])
        elif kind == "ByteLevel" and not step.get("add_prefix_space", True):
            found += [["split", to_javascript(_WORDS)]] if step.get("use_regex", True) else []
        elif kind == "Digits":
            found.append(["split", r"\p{N}" if step.get("individual_digits") else r"\p{N}+"])
        elif kind == "Metaspace" and fallback:
            scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
            found.append(["spaces", step["replacement"], scheme, "split" if step.get("split", True) else "whole"])
        else:
            raise ValueError(f"it cuts text by {kind} in a way of its own")
    return found


def _plain(decoder: dict[str, Any]) -> dict[str, Any]:
    if decoder["type"] != "ByteLevel":
        raise ValueError(f"it reads tokens back by {decoder['type']}")
    return {}


def _spelled(decoder: dict[str, Any]) -> dict[str, Any]:
    """How pieces become text: the stand-in of a space, and spaces left out at the beginning."""
    found: dict[str, Any] = {"space": "", "strip": 0}
    order = ["Replace", "ByteFallback", "Fuse", "Strip"]
    steps = _flat(decoder, "decoders")
    if [step["type"] for step in steps] not in (order, order[:3]):
        raise ValueError(f"it reads tokens back by {decoder['type']}")
    replace = steps[0]
    strip: dict[str, Any] = steps[3] if len(steps) > 3 else {"content": " ", "start": 0, "stop": 0}
    if replace["content"] != " " or not replace["pattern"]["String"] or strip["content"] != " " or strip["stop"]:
        raise ValueError("it reads spaces back otherwise")
    return found | {"space": replace["pattern"]["String"], "strip": int(strip["start"])}
