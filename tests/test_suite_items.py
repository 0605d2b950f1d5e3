"""Benchmark items in training text: long ones by a run of words, short ones as a whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry.corpus.suites import items_of
from smallfry.errors import SmallfryError
from smallfry.evals.suites.items import RUN, WHOLE, Finder, Items, Words, among, runs_of
from tests.test_corpus import STORY

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_items_that_are_met_are_counted() -> None:
    items = Items.of({"quiz": [LONG, STORY, "too short to tell"]}, {"quiz": "school"})
    find = Finder(items.wanted)
    found = set(find(f"It begins: {LONG.upper()}, and so on."))
    row = {"task": "quiz", "suite": "school", "n": 2, "whole": 0, "found": 1, "short": 1}
    assert found and items.met(found) == [row] and items.met(set()) == [row | {"found": 0}]
    assert not find("something else entirely " * 8)


def test_short_items_are_met_as_a_whole() -> None:
    short = ["Who should Derek hug?", "Who should Derek hug after shocking Richard?", "who, should derek hug: after?"]
    items = Items.of({"blimp": [*short, LONG]}, {"blimp": "blimp"})
    find = Finder(items.wanted)
    row = {"task": "blimp", "suite": "blimp", "n": 3, "whole": 2, "found": 0, "short": 1}

    def met(text: str) -> int:
        (found,) = items.met(set(find(text)))
        assert found | {"found": 0} == row
        return int(found["found"])

    assert met(f"He asked: {short[1].upper()} And she said") == 2  # the third is how the second begins
    assert met("who should Derek hug after - shocking -") == 1 and met("Who should Derek hug") == 0
    assert met("should Derek hug after shocking Richard") == 0 and met(short[1]) == 2 and met(f"{LONG} {short[2]}") == 2
    assert Items.of({}, {}).wanted.runs.size == 0 and not Items.of({}, {}).wanted


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_what_is_found_is_what_is_there(letters: list[str]) -> None:
    text = " ".join(letters)
    of = {n: [" ".join((letters + list("abcd") * 20)[at : at + n]) for at in (0, 3, 11, 40)] for n in range(4, 16)}
    for n, each in of.items():
        items = Items.of({str(n): each}, {})
        (row,) = items.met(set(Finder(items.wanted)(text)))
        there = sum(any(run in f" {text} " for run in runs(item)) for item in each)
        assert row["found"] == (there if n >= WHOLE else 0)


def runs(item: str) -> list[str]:
    words = item.split()
    return [f" {' '.join(words[at : at + RUN])} " for at in range(max(1, len(words) - RUN + 1))]


def test_items_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    rows = [{"query": "Question: " + STORY, "choices": ["yes", "no"], "gold": 0}] * 2
    (folder / "piqa.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    items = items_of(tmp_path)
    assert [len(each) for each in items.tasks.values()] == [2] and not items.stories
    assert among(runs_of(Words()(STORY), RUN), items.wanted.runs).sum() == len(STORY.split()) - 12 and items.suites == {
        "piqa": "core"
    }
    with pytest.raises(SmallfryError, match="no benchmark data"):
        items_of(tmp_path / "nothing")
