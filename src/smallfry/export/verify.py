"""An exported file asked what its model is asked: the same tokens of texts, the same greedy continuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HfTokenizer

from smallfry.engine.weights import Floats
from smallfry.errors import SmallfryError
from smallfry.export.onnx import MODEL_FILE
from smallfry.export.packages import require

Reference = Callable[[list[int], int], tuple[list[int], Floats | None]]
"""The model's own greedy continuation of token ids by so many tokens, end tokens like any other, and the logits
``(tokens, vocabulary)`` each was chosen from, or None."""

_PROBES = (
    "Hello world", " a  b   c ", "line one\nline two\n\n\ttab\r\nend ", "In 1984, 3.14159 and 2,000,000",
    "don't I'LL WE'VE", "naïve café Ångström", "Привет, мир! 你好世界 こんにちは", "emoji 😀👩\u200d👧🇨🇭 ok",
    "f(x)[0] = {a: 'b'}; // ...!?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verification:
    """How far an exported file does what its model does.

    Args:
        tokens: Continuation tokens compared.
        equal: Those that are equal and have only equal ones before them.
        first_difference: Where the first differing one is, and what it is; None where all are equal.
        logit_difference: Greatest difference of a logit after the same tokens; None where the model gave none.
        texts: Texts whose tokens were compared.
        texts_equal: Those whose tokens are equal.
        first_text: The first text whose tokens differ, or None.
    """

    tokens: int
    equal: int
    first_difference: str | None
    logit_difference: float | None
    texts: int = 0
    texts_equal: int = 0
    first_text: str | None = None

    @property
    def same(self) -> bool:
        """Whether every token compared is equal, of continuations and of texts."""
        return self.equal == self.tokens and self.texts_equal == self.texts


def verify_gguf(model: Path, gguf: Path, prompts: Sequence[str], new_tokens: int, reference: Reference) -> Verification:
    """Ask llama.cpp what the model is asked.

    Args:
        model: The model directory, for its tokenizer.
        gguf: The file made of it.
        prompts: Texts to continue; special tokens in them count as such. Their tokens are compared too, beside those
            of a few texts with digits, white space and other scripts.
        new_tokens: Tokens to continue each by.
        reference: The model's own continuation.

    Raises:
        SmallfryError: When the file cannot be loaded or the package `llama-cpp-python` is missing.
    """
    llama_cpp = require("llama_cpp", "llama-cpp-python")
    hf = _tokenizer(model)
    texts = [*prompts, *_PROBES]
    expected = [hf.encode(text, add_special_tokens=False).ids for text in texts]
    context = max(map(len, expected[: len(prompts)]), default=0) + new_tokens + 1
    try:
        llama = llama_cpp.Llama(
            str(gguf), n_ctx=context, n_batch=context, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        raise SmallfryError(f"{gguf}: llama.cpp cannot load it ({error}); export the model again") from None
    try:
        found = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in texts]

        def logits(ids: list[int], past: int) -> Floats:
            if past == 0:
                llama.reset()
            llama.eval(ids[past:])
            return np.array(llama.scores[len(ids) - 1], dtype=np.float32)

        result = _continuations(expected[: len(prompts)], new_tokens, logits, reference)
    finally:
        llama.close()
    differing = [text for text, a, b in zip(texts, expected, found, strict=True) if a != b]
    return Verification(*result, len(texts), len(texts) - len(differing), next(iter(differing), None))


def verify_onnx(model: Path, onnx: Path, prompts: Sequence[str], new_tokens: int, reference: Reference) -> Verification:
    """Ask ONNX Runtime what the model is asked.

    Args:
        model: The model directory, for its tokenizer.
        onnx: The file made of it, or the directory.
        prompts: Texts to continue; special tokens in them count as such.
        new_tokens: Tokens to continue each by.
        reference: The model's own continuation.

    Raises:
        SmallfryError: When the file cannot be loaded or the package `onnxruntime` is missing.
    """
    runtime = require("onnxruntime", "onnxruntime")
    hf = _tokenizer(model)
    file = onnx / MODEL_FILE if onnx.is_dir() else onnx
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no class of their own
        raise SmallfryError(
            f"{file}: ONNX Runtime cannot load it ({str(error)[:200]}); export the model again"
        ) from None
    held: dict[str, Floats] = {}

    def logits(ids: list[int], past: int) -> Floats:
        nonlocal held
        held = held if past else empty_past(session)
        found, *present = session.run(None, {"input_ids": np.array([ids[past:]], dtype=np.int64)} | held)
        held = dict(zip(held, present, strict=True))
        return np.asarray(found[0, -1], dtype=np.float32)

    expected = [hf.encode(text, add_special_tokens=False).ids for text in prompts]
    return Verification(*_continuations(expected, new_tokens, logits, reference))


def empty_past(session: Any, batch: int = 1) -> dict[str, Floats]:
    """The past of a text's first tokens for a session of ONNX Runtime: none, in the shapes that it asks for."""
    inputs = [i for i in session.get_inputs() if i.name.startswith("past_key_values.")]
    return {i.name: np.zeros((batch, i.shape[1], 0, i.shape[3]), dtype=np.float32) for i in inputs}


def _tokenizer(model: Path) -> HfTokenizer:
    path = model / "tokenizer.json"
    try:
        return HfTokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception on malformed files
        raise SmallfryError(f"{path}: cannot read the tokenizer ({error}); make the model again") from None


def _continuations(
    prompts: list[list[int]], new_tokens: int, logits: Callable[[list[int], int], Floats], reference: Reference
) -> tuple[int, int, str | None, float | None]:
    """Compare greedy continuations until each first differs.

    Args:
        prompts: Token ids.
        new_tokens: Tokens to continue each by.
        logits: Of the token after ids, the first so many of which it has read already.
        reference: The model's own.

    Returns:
        The first four numbers of a `Verification`.
    """
    tokens, equal = 0, 0
    first: str | None = None
    greatest: float | None = None
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise SmallfryError(f"prompt {number + 1} has no tokens; expected a text")
        wanted, theirs = reference(list(prompt), new_tokens)
        tokens += len(wanted)
        ids, past = list(prompt), 0
        for at, token in enumerate(wanted):
            mine = logits(ids, past)
            if theirs is not None:
                greatest = max(greatest or 0.0, float(np.abs(mine - theirs[at]).max()))
            found = int(mine.argmax())
            if found != token:
                first = first or f"prompt {number + 1}, token {at + 1}: {found}, expected {token}"
                break
            equal += 1
            ids, past = [*ids, token], len(ids)
    return tokens, equal, first, greatest
