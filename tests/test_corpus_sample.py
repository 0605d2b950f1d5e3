"""What the beginnings of files say of a corpus: a bounded sample, its documents, and which of them are held out."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.corpus.readers import Reading
from smallfry.corpus.sample import COUNTED, Document, Sample, take_sample
from smallfry.corpus.sources import parse_sources
from smallfry.corpus.split import Split, decide, held_out_share, unit
from tests.test_corpus import STORY

# ---- the sample -----------------------------------------------------------------------------------------------------


def test_the_sample_takes_from_every_file_and_small_files_leave_room(tmp_path: Path) -> None:
    for name, count in (("a", 400), ("b", 2), ("c", 400)):
        rows = [json.dumps({"text": f"{name} {i}: {STORY}"}) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    sources = parse_sources([str(tmp_path)])
    sample = take_sample(sources, Reading(), frozenset(), most=30 * len(STORY))
    first = Counter(each.text[0] for each in sample.texts)
    assert not sample.whole and first["b"] == 2 and first["a"] >= 12 and first["c"] >= 12
    assert len(sample.documents) == 802 and not sample.unfinished  # so few are counted to their end
    whole = take_sample(sources, Reading(), frozenset())
    assert whole.whole and len(whole.texts) == 802
    assert decide(whole, 1, False, None) == decide(sample, 1, False, None) == Split(0.1, (False,))
    assert [held_out_share(n) for n in (None, 12, 4010, 10**6)] == [0.01, 0.1, round(100 / 4010, 4), 0.01]


def test_the_sample_keeps_no_more_than_it_may_of_many_files(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(150))
    for i in range(600):
        (tmp_path / f"{i:03}.txt").write_text(f"{i:03} {text}")
    (tmp_path / "long.txt").write_text(f"long {text} " * 50)
    sources = parse_sources([str(tmp_path)])
    for most in (3, 10_000, 100_000):
        sample = take_sample(sources, Reading(), frozenset(), most=most)
        assert sum(len(each.text) for each in sample.texts) <= most and not sample.whole
        assert sample.unfinished == {0}
    taken = [int(each.text[:3]) for each in sample.texts if each.text[0] != "l"]
    assert len(taken) > 50 and max(np.diff(sorted(taken))) <= 12  # spread over all of them
    assert sum(len(each.text) for each in sample.texts) > 90_000
    whole = take_sample(sources, Reading(), frozenset(), most=10**6)
    assert whole.whole and len({each.document for each in whole.texts}) == 601


def test_the_sample_holds_little_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = (json.dumps({"text": f"{i} " + STORY * 20}) for i in range(8000))
    path.write_text("\n".join(rows))
    source = parse_sources([str(path)])
    tracemalloc.start()
    sample = take_sample(source, Reading(), frozenset(), most=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 17e6 and peak < 6e6
    assert len(sample.documents) == COUNTED and sample.unfinished == {0} and not sample.whole


# ---- the split ------------------------------------------------------------------------------------------------------


def drawn(*sources: list[float], sizes: dict[float, int] | None = None, **more: Any) -> Sample:
    """A sample of documents with these draws."""
    documents = [Document(n, draw, (sizes or {}).get(draw, 100), 5) for n, each in enumerate(sources) for draw in each]
    return Sample(documents=documents, **more)


@pytest.mark.parametrize(
    ("sources", "weighted", "asked", "expected"),
    [
        ([[0.05, 0.5, 0.9]], False, None, Split(0.1, (False,))),  # by documents
        ([[0.3, 0.5, 0.9]], False, None, Split(0.1, (False,), 0.3)),  # none draws low enough: the lowest
        ([[0.3, 0.5, 0.9]], False, 0.0, Split(0.0, (False,))),
        ([[0.5]], False, None, Split(0.1, (True,))),  # nothing else could be held out
        ([[0.05, 0.06]], False, None, Split(0.1, (True,))),  # nothing would be left
        ([[0.05], [0.5], [0.9]], False, None, Split(0.1, (False,) * 3)),  # files one by one are as a folder of them
        ([[0.3], [0.5], [0.9]], False, None, Split(0.1, (False,) * 3, 0.3)),
        ([[0.05], [0.5], [0.9]], True, None, Split(0.1, (True,) * 3)),  # something must be left of each
        ([[0.05], [0.5, 0.9, 0.3]], False, None, Split(0.1, (True, False))),
        ([[0.5, 0.5]], False, None, Split(0.1, (False,))),  # one text twice
    ],
)
def test_whole_documents_are_held_out_where_there_are_several(
    sources: list[list[float]], weighted: bool, asked: float | None, expected: Split
) -> None:
    found = decide(drawn(*sources), len(sources), weighted, asked)
    assert found == expected
    index: dict[str, Any] = {"sources": [{} for _ in sources]}
    found.write(index)
    assert Split.read(json.loads(json.dumps(index))) == found
    assert ("sections" in unit(index)) == any(found.by_section)


def test_the_one_that_is_taken_is_not_most_of_the_text() -> None:
    sizes = {0.2: 901, 0.5: 400, 0.9: 500}
    assert decide(drawn([0.2, 0.5, 0.9], sizes=sizes), 1, False, None).chosen == 0.5
    assert decide(drawn([0.2, 0.5, 0.9], sizes=sizes | {0.2: 900}), 1, False, None).chosen == 0.2
    many = drawn([0.2, 0.5, 0.9], unfinished={0})
    assert decide(many, 1, False, None) == Split(0.01, (False,))  # there are more than were met
