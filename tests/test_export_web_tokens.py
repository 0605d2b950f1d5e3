"""The tokenizer of a page gives what the library `tokenizers` gives, for every kind that a page may have."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from smallfry.export.web import export_web
from smallfry.export.web.patterns import to_javascript
from smallfry.llama2c import to_hf
from smallfry.tokenizer import SPLIT, Tokenizer
from tests.foreign_models import TOKENS
from tests.test_export_web import GOLDEN, TEXT, ask, needs_node, random_model

# Marks of Unicode 3.2 only: the library's normal forms know none of the newest.
LETTERS = [
    chr(c) for c in range(0x110000)
    if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co") and not 0x3400 <= c <= 0x3FFFF
    and not (unicodedata.category(chr(c))[0] == "M" and unicodedata.ucd_3_2_0.category(chr(c)) == "Cn")
]  # fmt: skip
PIECES = (
    " ", "  ", "\n", "\r\n", "\t", "\x0b\x0c", "\x1c\x1f", "\x85", "\xa0", "\u2003", "\u200b", "\ufeff", "\u2028",
    "'s", "'S", "'ſ", "'LL", "'ll", "'re", "'Ve", "'d", "n't", "1", "23", "4567", "½", "²", "Ⅻ", "٣",
    "the", " the", "The", "e\u0301", "é", "ﬁ", "Å", "ß", "İ", "Σ", "ΟΔΟΣ", "...", "?!", "--", "_", "__", "$", "€",
    "日本", "語", "한국", "ไทย", "हिन्दी", "👍🏽", "👩\u200d👧", "\x00", "\x7f", "\U0010ffff",
    "<s>", "</s>", "<|end|>", "<|user|>", "<|bos|>", "<unk>", "▁", "<0x0A>", "Ġ",
)  # fmt: skip


def random_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = TEXT.split(" ")
    texts = ["", " ", "a" * 700, "ab" * 400, "12" * 90, " " * 50, TEXT, TEXT.upper()]
    while len(texts) < count:
        parts = []
        for _ in range(rng.randint(1, 14)):
            kind = rng.random()
            if kind < 0.35:
                parts.append(rng.choice(words) + " " * rng.randint(0, 1))
            elif kind < 0.75:
                parts.append(rng.choice(PIECES))
            else:
                parts.append("".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 4))))
        texts.append("".join(parts))
    return texts


def trained(
    pre: pre_tokenizers.PreTokenizer, size: int = 600, normalizer: normalizers.Normalizer | None = None,
    whole: bool = False,
) -> HfTokenizer:  # fmt: skip
    hf = HfTokenizer(models.BPE(ignore_merges=whole))
    if normalizer is not None:
        hf.normalizer = normalizer
    hf.pre_tokenizer, hf.decoder = pre, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    hf.train_from_iterator([TEXT * 3], trainer)
    if whole:  # words that no merge makes
        data = json.loads(hf.to_str())
        for word in ("Ġmice", "cheese", "ĠÐŁÑĢÐ¸"):
            data["model"]["vocab"].setdefault(word, len(data["model"]["vocab"]))
        hf = HfTokenizer.from_str(json.dumps(data))
    hf.add_tokens([AddedToken("<|user|>", normalized=False), AddedToken("<|us", normalized=False)])
    return hf


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def spaced(scheme: str, cut: bool, pre: bool) -> HfTokenizer:
    """SentencePiece's spelling by a step of pre-tokenisation, or by normalisation as in `llama2c.to_hf`."""
    hf = to_hf(TOKENS, Path("tokens.bin"))
    if pre:
        data = json.loads(hf.to_str())
        data["normalizer"] = None
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
        hf = HfTokenizer.from_str(json.dumps(data))
    return hf


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL])
TOKENIZERS = {
    "smallfry": lambda: Tokenizer.train([TEXT * 3], 600, units=[" mice", " little mice"], symbols=["h:x"]).hf,
    "plain bytes": lambda: Tokenizer.train([], 263).hf,
    "golden": lambda: HfTokenizer.from_file(str(GOLDEN / "tokenizer.json")),
    "llama 3": lambda: trained(split(SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")), whole=True),
    "gpt 2": lambda: trained(BYTE_LEVEL),
    "smollm": lambda: trained(DIGITS),
    "runs of digits": lambda: trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(False), BYTE_LEVEL])),
    "qwen 2": lambda: trained(split(SPLIT), normalizer=normalizers.NFC()),
    "bytes without words": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "llama 2": lambda: spaced("", False, False),
    "metaspace first": lambda: spaced("first", False, True),
    "metaspace always": lambda: spaced("always", True, True),
    "metaspace never": lambda: spaced("never", True, True),
}  # fmt: skip


@needs_node
@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_tokens_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    hf = TOKENIZERS[name]()
    page = tmp_path / "page.html"
    export_web(random_model(tmp_path / "m", hf, {"name": name, "imported_from": {}}), page)
    texts = random_texts(2000, len(name))
    rng = random.Random(5)
    answers = [[rng.randrange(hf.get_vocab_size()) for _ in range(rng.randint(0, 30))] for _ in range(1000)]
    answers += [ids for text in texts[:500] if (ids := hf.encode(text, add_special_tokens=False).ids)]
    encoded, decoded = ask(page, {"encode": texts, "special": True}, {"decode": answers})
    for text, found in zip(texts, encoded, strict=True):
        assert found == hf.encode(text, add_special_tokens=False).ids, repr(text)
    for ids, said in zip(answers, decoded, strict=True):
        assert said == hf.decode(ids, skip_special_tokens=True), ids


@needs_node
def test_special_tokens_in_an_input_of_a_job_are_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train([TEXT * 3], 600, units=[" mice"])
    page = tmp_path / "page.html"
    export_web(random_model(tmp_path / "m", tokenizer.hf, {"name": "x"}), page)
    texts = random_texts(2000, 77)
    (found,) = ask(page, {"encode": texts})
    assert found == [tokenizer.encode(text) for text in texts]


def test_patterns_beyond_javascript_are_refused() -> None:
    assert to_javascript(r"(?i:'s)|\p{N}{1,3}|[^\r\n\p{L}-]?") == r"(?:'[sSſ])|\p{N}{1,3}|[^\r\n\p{L}\-]?"
    for pattern in (
        r"\w+",
        r"a++",
        r"(?>a)",
        r"[a&&b]",
        r"(?i)a",
        r"(a",
        r"a)",
        r"[a",
        r"(?<n>a)",
        r"\h",
        r"[[:alpha:]]",
        ".",
    ):
        with pytest.raises(ValueError):
            to_javascript(pattern)
