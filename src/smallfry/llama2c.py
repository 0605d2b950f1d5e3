"""Checkpoints and tokenizers of llama2.c (karpathy/llama2.c: export.py, tokenizer.py and run.c define them).

A checkpoint holds seven int32 (width, MLP width, layers, heads, key heads, vocabulary, positions) and then the weights:

    version 0   a vocabulary below zero says that the head is not tied; fp32, tables of rotary positions among them
    version 1   the magic number "ak42" and the version go before, 256 bytes in all with the flag of a tied head; fp32
    version 2   the same with a group size; matrices are int8, each matrix followed by an fp32 scale a group

A tokenizer file holds the length of its longest token and then score (fp32), length (int32) and bytes of each token, so
that only the checkpoint says how many there are. Ids 0, 1 and 2 are unknown, begin and end, 3 to 258 the single bytes.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as HfTokenizer

from smallfry.architecture import MOST_POSITIONS, Variant
from smallfry.errors import SmallfryError
from smallfry.sizes import Shape

Floats = NDArray[np.float32]
VARIANT = Variant(rope_theta=10_000.0, norm_eps=1e-5)
SPECIALS = ("<unk>", "<s>", "</s>")
BOS, EOS = 1, 2
_MAGIC = 0x616B3432
_HEADER, _LEGACY_HEADER = 256, 28
_FIRST_PIECE = len(SPECIALS) + 256
_LONGEST_TOKEN = 256  # bytes; those of Llama 2 have up to 48
_NO_MERGE = -1e10  # run.c starts its search for the best merge here
_SPACE = "▁"

_LAYER = "model.layers.{}."
_Q, _K = _LAYER + "self_attn.q_proj.weight", _LAYER + "self_attn.k_proj.weight"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        version: 0 to 2.
        shape: The model's.
        max_positions: Longest sequence it was made for.
        tensors: fp32 arrays under Hugging Face's names; queries and keys with each head's rows in half-split order.
    """

    version: int
    shape: Shape
    max_positions: int
    tensors: dict[str, Floats]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of any version.

    Raises:
        SmallfryError: When it cannot be read, is no checkpoint of llama2.c, or has more or fewer bytes than it says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER)
            version, shape, positions, group = _header(head, path)
            expected, size = _size(version, shape, positions, group), path.stat().st_size
            if size != expected:
                raise SmallfryError(
                    f"{path}: has {size:,} bytes where its header says {expected:,}; it is cut off or no checkpoint of "
                    "llama2.c: download or export it again"
                )
            raw = head + file.read()
    except OSError as error:
        raise SmallfryError(f"{path}: cannot read ({error.strerror}); expected a checkpoint of llama2.c") from None
    if len(raw) != expected:
        raise SmallfryError(f"{path}: changed while it was read; import it again")
    return Checkpoint(version, shape, positions, _tensors(raw, version, shape, positions, group, path))


def _header(head: bytes, path: Path) -> tuple[int, Shape, int, int]:
    """Version, shape, positions and group size; every number is checked before anything is computed from it."""
    if len(head) < _LEGACY_HEADER:
        raise SmallfryError(
            f"{path}: has {len(head)} bytes; expected a checkpoint of llama2.c (a .bin of its export.py)"
        )
    version, group, tied = 0, 1, True
    numbers: Sequence[int] = struct.unpack_from("<7i", head)
    if struct.unpack_from("<I", head)[0] == _MAGIC:
        version = struct.unpack_from("<i", head, 4)[0]
        if version not in (1, 2) or len(head) < _HEADER:
            raise SmallfryError(f"{path}: a checkpoint of llama2.c of version {version}; expected 0, 1 or 2")
        numbers, tied = struct.unpack_from("<7i", head, 8), head[36] != 0
        group = struct.unpack_from("<i", head, 37)[0] if version == 2 else 1
    width, inner, layers, heads, kv_heads, vocab, positions = numbers
    if version == 0:
        vocab, tied = abs(vocab), vocab > 0
    sane = min(width, inner, layers, heads, kv_heads, vocab, positions, group) > 0
    if not sane or positions > MOST_POSITIONS or width % heads or heads % kv_heads or (width // heads) % 2:
        said = ", ".join(str(number) for number in numbers)
        raise SmallfryError(
            f"{path}: not a checkpoint of llama2.c (its header says {said}); expected width, MLP width, layers, heads, "
            "key heads, vocabulary and positions that fit each other"
        )
    head_dim = width // heads
    shape = Shape(vocab, width, layers, heads, kv_heads, head_dim, inner, tied, qk_norm=False)
    return version, shape, positions, group


def _order(version: int, shape: Shape, positions: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of a file, one for all layers where the name has a gap; "" is skipped."""
    s, width = shape, shape.hidden_size
    kv = s.num_kv_heads * s.head_dim
    embed = ("model.embed_tokens.weight", (s.vocab_size, width))
    attention_norm, mlp_norm = (_LAYER + f"{n}_layernorm.weight" for n in ("input", "post_attention"))
    attention: list[tuple[str, tuple[int, ...]]] = [
        (_Q, (width, width)), (_K, (kv, width)), (_LAYER + "self_attn.v_proj.weight", (kv, width)),
        (_LAYER + "self_attn.o_proj.weight", (width, width)),
    ]  # fmt: skip
    mlp: list[tuple[str, tuple[int, ...]]] = [
        (_LAYER + "mlp.gate_proj.weight", (s.intermediate_size, width)),
        (_LAYER + "mlp.down_proj.weight", (width, s.intermediate_size)),
        (_LAYER + "mlp.up_proj.weight", (s.intermediate_size, width)),
    ]
    last = ("model.norm.weight", (width,))
    if version == 0:
        yield from (embed, (attention_norm, (width,)), *attention, (mlp_norm, (width,)), *mlp, last)
        yield "", (2, positions, s.head_dim // 2)
    else:
        yield from ((attention_norm, (width,)), (mlp_norm, (width,)), last, embed, *attention, *mlp)
    if not s.tie_embeddings:
        yield "lm_head.weight", (s.vocab_size, width)


def _size(version: int, shape: Shape, positions: int, group: int) -> int:
    total = _HEADER if version else _LEGACY_HEADER
    for name, size in _order(version, shape, positions):
        one, count = math.prod(size), shape.num_layers if "{}" in name else 1
        total += count * (one + 4 * (one // group) if version == 2 and len(size) == 2 else 4 * one)
    return total


def _tensors(
    raw: bytes, version: int, shape: Shape, positions: int, group: int, path: Path
) -> dict[str, Floats]:  # fmt: skip
    found: dict[str, Floats] = {}
    at = _HEADER if version else _LEGACY_HEADER
    for name, size in _order(version, shape, positions):
        count = math.prod(size)
        quantised = version == 2 and len(size) == 2
        if quantised and count % group:
            raise SmallfryError(f"{path}: its groups of {group} do not divide a matrix of {size}; export it again")
        for layer in range(shape.num_layers if "{}" in name else 1):
            if quantised:
                values = np.frombuffer(raw, np.int8, count, at).reshape(-1, group).astype(np.float32)
                scales = np.frombuffer(raw, "<f4", count // group, at + count)
                tensor = (values * scales[:, None]).reshape(size)
                at += count + 4 * len(scales)
            else:
                tensor = np.frombuffer(raw, "<f4", count, at).reshape(size)
                at += 4 * count
            if name in (_Q, _K):
                tensor = half_split(tensor, shape.head_dim)
            if name:
                found[name.format(layer)] = np.ascontiguousarray(tensor, dtype=np.float32)
    return found


def half_split(matrix: Floats, head_dim: int) -> Floats:
    """Rows of query or key heads in Hugging Face's order.

    llama2.c turns rows 2i and 2i + 1 of a head by the i-th angle, Hugging Face rows i and i + head_dim / 2.

    Args:
        matrix: ``(heads * head_dim, inputs)``.
        head_dim: Rows of one head.
    """
    inputs = matrix.shape[1]
    return matrix.reshape(-1, head_dim // 2, 2, inputs).transpose(0, 2, 1, 3).reshape(-1, inputs)


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def read_tokens(path: Path, vocab_size: int) -> list[tuple[str, float]]:
    """Text and score of each token of a tokenizer file.

    Raises:
        SmallfryError: When it cannot be read or does not hold exactly that many tokens of llama2.c.
    """
    wrong = f"{path}: not a tokenizer of llama2.c with {vocab_size:,} tokens"
    advice = "give the one that belongs to the checkpoint with --tokenizer"
    try:
        if path.stat().st_size > 4 + vocab_size * (8 + _LONGEST_TOKEN):
            raise SmallfryError(f"{wrong} (too many bytes); {advice}")
        raw = path.read_bytes()
    except OSError as error:
        raise SmallfryError(f"{path}: cannot read ({error.strerror}); expected a tokenizer of llama2.c") from None
    tokens: list[tuple[str, float]] = []
    at = 4
    while at < len(raw) and len(tokens) < vocab_size:
        score, length = struct.unpack_from("<fi", raw, at) if at + 8 <= len(raw) else (0.0, 0)
        at += 8 + length
        if not 1 <= length <= _LONGEST_TOKEN or at > len(raw) or not math.isfinite(score):
            raise SmallfryError(f"{wrong} (token {len(tokens)} is broken); {advice}")
        try:
            tokens.append((raw[at - length : at].decode("utf-8"), score))
        except UnicodeDecodeError:
            raise SmallfryError(f"{wrong} (token {len(tokens)} is not UTF-8); {advice}") from None
    if len(tokens) < vocab_size or at < len(raw):
        held = f"only {len(tokens):,}" if len(tokens) < vocab_size else "more"
        raise SmallfryError(f"{wrong} (it holds {held}); {advice}")
    if [text for text, _ in tokens[len(SPECIALS) : _FIRST_PIECE]] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise SmallfryError(f"{wrong} (ids 3 to 258 are not the 256 bytes); {advice}")
    return tokens


def to_hf(tokens: Sequence[tuple[str, float]], where: Path) -> HfTokenizer:
    """The tokenizer as one of Hugging Face: BPE with byte fallback over SentencePiece's spelling.

    run.c puts a space before a text, starts from its characters (the bytes of those that are no token) and merges the
    pair whose result has the best score, the leftmost first, until nothing merges. Here every pair that makes a token
    is a merge, in the order of the scores, which is the same wherever scores differ. Decoding drops the first space.

    Args:
        tokens: Text and score of each id.
        where: The file, for messages.

    Raises:
        SmallfryError: When two tokens are alike or the space is none.
    """
    vocab: dict[str, int] = {}
    for index, (text, _) in enumerate(tokens):
        name = SPECIALS[index] if index < len(SPECIALS) else text.replace(" ", _SPACE)
        if vocab.setdefault(name, index) != index:
            raise SmallfryError(f"{where}: tokens {vocab[name]} and {index} are alike ({name!r}); they must differ")
    if vocab.get(_SPACE, 0) < _FIRST_PIECE:
        raise SmallfryError(f"{where}: has no token for the space, which goes before every text; expected one")
    model = models.BPE(
        vocab=vocab, merges=_merges(vocab, tokens), unk_token=SPECIALS[0], fuse_unk=True, byte_fallback=True
    )
    hf = HfTokenizer(model)
    hf.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    hf.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    begin = SPECIALS[BOS]
    hf.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, BOS)]
    )
    hf.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIALS])
    return hf


def shared_scores(tokens: Sequence[tuple[str, float]]) -> int:
    """How many tokens of more than one character have a score that another of them has too.

    Among these run.c merges the leftmost pair first and a tokenizer of Hugging Face that of the lower id.
    """
    scores = Counter(score for text, score in tokens[_FIRST_PIECE:] if len(text) > 1)
    return sum(count for count in scores.values() if count > 1)


def _merges(vocab: dict[str, int], tokens: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    pieces = [text for text, index in vocab.items() if index >= _FIRST_PIECE and tokens[index][1] > _NO_MERGE]
    pieces.sort(key=lambda text: (-tokens[vocab[text]][1], vocab[text]))
    return [
        (text[:at], text[at:])
        for text in pieces
        for at in range(len(text) - 1, 0, -1)
        if vocab.get(text[:at], 0) >= _FIRST_PIECE and vocab.get(text[at:], 0) >= _FIRST_PIECE
    ]
