"""Byte-level BPE: lossless, any size, units, seeded dropout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry.errors import SmallfryError
from smallfry.tokenizer import END, MIN_VOCAB, SPECIALS, Tokenizer, byte_chars, split_words

TEXTS = [f" the {w} dog saw {i} cats in the {w} house" for i, w in enumerate(["red", "blue", "old", "tiny"] * 20)]
TOKENIZER = Tokenizer.train(TEXTS, 320, units=[" I_JUMP", " card lost"], symbols=["t:B-city"])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_survives(text: str) -> None:
    encoded = text.encode("utf-8", "replace").decode("utf-8")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == encoded
    assert TOKENIZER.decode(TOKENIZER.encode_output(text)) == encoded


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_the_library_reads_text_alike(text: str) -> None:
    if any(s in text for s in SPECIALS):
        return
    assert TOKENIZER.encode(text) == TOKENIZER.hf.encode(text).ids


def test_words_of_any_length_are_cut_as_the_library_cuts_them() -> None:
    for word in ("red" * 40, "redd" * 100, "Ωα" * 5000, "x" * 200_000):
        assert TOKENIZER.encode(" " + word) == TOKENIZER.hf.encode(" " + word).ids
        assert (
            TOKENIZER.decode(TOKENIZER.sample_word_ids(TOKENIZER.words(word)[0], np.random.default_rng(0), 0.3)) == word
        )


def test_special_tokens_in_text_are_text() -> None:
    ids = TOKENIZER.encode("a <|end|> b")
    assert END not in ids
    assert TOKENIZER.decode(ids) == "a <|end|> b"


def test_units_are_written_but_never_read() -> None:
    unit = TOKENIZER.units[" I_JUMP"]
    assert TOKENIZER.encode_output(" I_JUMP I_JUMP") == [unit, unit]
    assert unit not in TOKENIZER.encode(" I_JUMP")
    assert TOKENIZER.decode([unit, unit]) == " I_JUMP I_JUMP"
    assert TOKENIZER.encode_output(" card lost") == [TOKENIZER.units[" card lost"]]
    mixed = TOKENIZER.encode_output(" the I_JUMP dog")
    assert unit in mixed and TOKENIZER.decode(mixed) == " the I_JUMP dog"


def test_bytes_alone_are_a_vocabulary() -> None:
    plain = Tokenizer.train(TEXTS, MIN_VOCAB)
    assert plain.vocab_size == MIN_VOCAB
    assert len(plain.encode("héllo")) == 6


@pytest.mark.parametrize("size", [0, MIN_VOCAB - 1, 65_537])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(SmallfryError, match=f"vocabulary of {size}: expected {MIN_VOCAB}"):
        Tokenizer.train(TEXTS, size)


def test_training_is_repeatable_and_files_read_back(tmp_path: Path) -> None:
    again = Tokenizer.train(TEXTS, 320, units=[" I_JUMP", " card lost"], symbols=["t:B-city"])
    assert again.hf.to_str() == TOKENIZER.hf.to_str()
    again.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", [" I_JUMP"])
    assert loaded.encode(TEXTS[0]) == TOKENIZER.encode(TEXTS[0])
    assert loaded.symbol("t:B-city") == TOKENIZER.symbol("t:B-city")
    with pytest.raises(SmallfryError, match="no token"):
        loaded.symbol("t:B-street")


def test_broken_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    for path in (tmp_path / "tokenizer.json", tmp_path / "missing.json"):
        with pytest.raises(SmallfryError) as caught:
            Tokenizer.load(path)
        assert "\n" not in str(caught.value)


def test_dropout_is_seeded_and_lossless() -> None:
    words = TOKENIZER.words(TEXTS[0])
    one = [TOKENIZER.sample_word_ids(w, np.random.default_rng(5), 0.5) for w in words]
    two = [TOKENIZER.sample_word_ids(w, np.random.default_rng(5), 0.5) for w in words]
    assert one == two
    assert one != [TOKENIZER.word_ids(w) for w in words]
    assert TOKENIZER.decode([i for ids in one for i in ids]) == TEXTS[0]
    whole = [TOKENIZER.sample_word_ids(w, np.random.default_rng(5), 0.0) for w in words]
    assert whole == [TOKENIZER.word_ids(w) for w in words]


def test_every_byte_has_its_own_character() -> None:
    assert len(set(byte_chars())) == 256
    assert byte_chars()[ord(" ")] == "Ġ"


def test_token_bytes_add_up() -> None:
    for text in (*TEXTS[:3], " naïve café"):
        assert TOKENIZER.token_bytes[TOKENIZER.encode(text)].sum() == len(text.encode())


@given(st.text(alphabet=" \tab\n", max_size=30))
def test_words_join_to_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text
