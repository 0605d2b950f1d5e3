from __future__ import annotations

import math

import pytest

from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.suites.ngram import NGramModel
from smallfry.evals.suites.scoring import Branch, Group, Writing

TEXTS = ["the cat sat on the mat. the dog ran to the cat, über alles."] * 60


def test_branches_are_scored_byte_by_byte_as_the_distribution_says() -> None:
    model = NGramModel.fit(TEXTS)
    known, strange, half = b"at sat", b"xqzzzz", "é".encode()[:1]
    group = Group(
        tuple(b"the c"), (Branch(tuple(known)), Branch(tuple(strange)), Branch(tuple(half)), Branch(tuple(known), 3))
    )
    scored = model.score([group])[0]
    expected, history = [], b"the c"
    for byte in known:
        expected.append(math.log(model.model.distribution(history)[byte]))
        history += bytes([byte])
    assert scored[0].logprob == pytest.approx(sum(expected), rel=1e-6) and scored[0].tokens == 6
    assert scored[3].logprob == pytest.approx(sum(expected[3:]), rel=1e-6) and scored[3].tokens == 3
    assert scored[1].logprob < scored[0].logprob - 10
    assert scored[2].tokens == 1  # half a character is a byte like any other


def test_it_writes_on_behind_a_prompt_and_stops() -> None:
    model = NGramModel.fit(TEXTS)
    said = model.generate([list(b"the dog ")], Writing(10))[0]
    assert said.startswith("ran to the ") and len(said.encode()) <= 40
    assert model.generate([list(b"the dog ")], Writing(10, stops=(" to",)))[0] == "ran"
    drawn = Writing(10, sampling=Sampling(seed=3))
    assert model.generate([list(b"the "), list(b"the ")], drawn) == model.generate(
        [list(b"the "), list(b"the ")], drawn
    )


def test_too_little_text_is_refused() -> None:
    with pytest.raises(SmallfryError, match="1 documents are too few"):
        NGramModel.fit(["one"])
