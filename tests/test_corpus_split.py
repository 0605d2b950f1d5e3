"""Held out by document, hub data at one commit, and corpora of an earlier version."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smallfry.corpus import Corpus, CorpusData, open_corpus, prepare, report
from smallfry.corpus.build import Progress
from smallfry.corpus.measure import held_out, measure
from smallfry.corpus.shards import Shard
from smallfry.errors import SmallfryError
from smallfry.evals.statistics import bootstrap_statistic
from smallfry.evals.suites.text import BitsPerByte, bits_rate
from tests.test_corpus_build import STORIES, files, settings, texts_of, write


def book(number: int) -> str:
    """A text of some sections, each of whose lines names it."""
    tales = STORIES[40 * number : 40 * number + 40]
    return "\n".join(f"Book {number}, {part}.{at}. {tale}" for part in range(3) for at, tale in enumerate(tales))


def shelf(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(book(number))
    return folder


def books_in(texts: list[str]) -> set[str]:
    return {line.split(",")[0] for text in texts for line in text.split("\n")}


def sides(corpus: Corpus) -> tuple[set[str], set[str]]:
    """The books that are learned and those that are held out."""
    return books_in(texts_of(corpus)), books_in(held_out(corpus).texts)


# ---- books ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_book_of_a_shelf_is_on_one_side(tmp_path: Path, one_by_one: bool) -> None:
    folder = shelf(tmp_path / "shelf", 12)
    sources = sorted(folder.iterdir()) if one_by_one else [folder]
    corpus = prepare(tmp_path / "c", settings(*sources, steps=frozenset()))
    learned, held = sides(corpus)
    assert held and not learned & held and len(learned | held) == 12
    assert CorpusData(corpus, 16, 64, 1, 0).batch(3).weights.any()  # also where a source is held out as a whole
    documents = held_out(corpus)
    assert documents.total == len(held) == len(set(documents.owners)) < len(documents.texts) / 2
    lines = dict(report(corpus))
    assert lines["held out"].startswith(f"{len(held)} document") and "sections" in lines["held out"]
    assert {source["held_out_by"] for source in corpus.index["sources"]} == {"documents"}
    rows = [json.dumps({"text": book(number)}) for number in reversed(range(12))]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    again = prepare(tmp_path / "d", settings(tmp_path / "a.jsonl", steps=frozenset()))
    assert sides(again) == (learned, held)  # whatever the order, and however they are stored


def test_of_few_books_that_all_draw_high_one_is_held_out(tmp_path: Path) -> None:
    folder = shelf(tmp_path / "shelf", 12)
    first = prepare(tmp_path / "c", settings(folder, steps=frozenset()))
    draws = {row["draw"] for row in map(json.loads, (first.path / "held-out.jsonl").read_text().splitlines())}
    names = books_in(held_out(first).texts)
    for name in names:  # those that draw low enough
        (folder / f"{int(name.split()[1]):02}.txt").unlink()
    said: list[str] = []
    corpus = prepare(tmp_path / "d", settings(folder, steps=frozenset()), say=said.append)
    learned, held = sides(corpus)
    assert len(held) == 1 and len(learned) == 11 - len(names) and not held & names
    chosen = corpus.index["held_out_draw"]
    assert chosen > max(draws) and chosen >= corpus.index["held_out_share"] == 0.1
    assert any("no document draws below 0.1" in text for text in said)
    assert dict(report(corpus))["held out"].startswith("1 document in ")
    assert "the lowest draw" in dict(report(corpus))["held out"]


def test_of_a_single_book_sections_are_held_out_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n".join(book(number) for number in range(15)))
    corpus = prepare(tmp_path / "c", settings(tmp_path / "book.txt", held_out=0.2, steps=frozenset()))
    documents = held_out(corpus)
    assert 3 <= len(documents.texts) < len(texts_of(corpus)) and documents.total == len(documents.texts)
    told = dict(report(corpus))["held out"]
    assert told.startswith(f"{len(documents.texts)} sections of one text, not documents (0.2 of all")
    assert told.endswith("a score on them is somewhat too good")
    assert corpus.index["sources"][0]["held_out_by"] == "sections"
    assert documents.unit == "sections of one text, not documents"
    other = write(tmp_path / "a.jsonl", STORIES[:100])
    mixed = prepare(tmp_path / "d", settings(tmp_path / "book.txt", other, held_out=0.2, steps=frozenset()))
    assert [source["held_out_by"] for source in mixed.index["sources"]] == ["sections", "documents"]
    assert held_out(mixed).unit == "documents, and sections of texts that are learned too"


def test_books_are_on_one_side_also_when_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 5000)
    how = settings(shelf(tmp_path / "shelf", 6), held_out=0.5, steps=frozenset())
    whole = prepare(tmp_path / "whole", how)
    learned, held = sides(whole)
    assert learned and held and not learned & held and len(whole.shards) > 6

    class StopError(Exception):
        pass

    for shards in range(1, len(whole.shards)):

        def stop(progress: Progress, shards: int = shards) -> None:
            if progress.shards == shards:
                raise StopError

        with pytest.raises(StopError):
            prepare(tmp_path / "again", how, watch=stop)
    again = prepare(tmp_path / "again", how)
    assert again.index == whole.index
    same = [
        {name: data for name, data in files(tmp_path / f).items() if name[-4:] != "json"} for f in ("again", "whole")
    ]
    assert same[0] == same[1] and len(same[0]) > 6


def test_the_interval_is_over_books_not_over_their_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = prepare(tmp_path / "c", settings(shelf(tmp_path / "shelf", 15), held_out=0.7, steps=frozenset()))
    documents = held_out(corpus)
    assert documents.total >= 8 and len(documents.texts) > 2 * documents.total
    sums = np.array([[10.0 + 5 * owner, 20.0] for owner in documents.owners])  # a book's sections are alike
    found = BitsPerByte(float(bits_rate(sums.sum(axis=0, keepdims=True))[0]), None, len(sums), 1, 1, sums)
    monkeypatch.setattr("smallfry.corpus.measure.bits_per_byte", lambda model, texts: found)
    monkeypatch.setattr("smallfry.corpus.measure.unigram_bits", lambda corpus, texts: 3.0)
    model: Any = None
    done = measure(model, documents, corpus)
    books = np.array([sums[np.array(documents.owners) == owner].sum(axis=0) for owner in range(documents.total)])
    assert done.ci == bootstrap_statistic(books, bits_rate)
    by_section = bootstrap_statistic(sums, bits_rate)
    assert done.ci is not None and done.ci[1] - done.ci[0] > 1.4 * (by_section[1] - by_section[0])
    assert (done.documents, done.total, done.sections) == (documents.total, documents.total, len(sums))
    assert done.unit == "documents" and done.caveats() == []
    few = [at for at, owner in enumerate(documents.owners) if owner < 3]
    documents.texts, documents.sources, documents.owners = (
        [each[at] for at in few] for each in (documents.texts, documents.sources, documents.owners)
    )  # fmt: skip
    found = BitsPerByte(1.0, None, len(few), 1, 1, sums[few])
    done = measure(model, documents, corpus)
    assert done.ci is None and done.documents == 3 and "it takes 8 held-out documents, there are 3" in done.caveats()[0]


def test_a_weighted_source_keeps_something(tmp_path: Path) -> None:
    folder = shelf(tmp_path / "shelf", 2)
    corpus = prepare(
        tmp_path / "c", settings(f"{folder}/00.txt:2", f"{folder}/01.txt", held_out=0.3, steps=frozenset())
    )
    assert [source["held_out_by"] for source in corpus.index["sources"]] == ["sections", "sections"]
    assert all(stream.tokens for stream in corpus.streams)


# ---- what stands in the record --------------------------------------------------------------------------------------


def test_files_that_were_not_read_are_told_and_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "a.jsonl", STORIES[:50])
    for name in ("b.csv", "c.csv", "d.txt.zst"):
        (folder / name).write_text("x")
    corpus = prepare(tmp_path / "c", settings(folder))
    assert corpus.index["sources"][0]["skipped"] == {".csv": 2, ".zst": 1}
    assert dict(report(corpus))["skipped files"] == "3 of kinds that are not read: .csv 2, .zst 1"
    (folder / "e.csv").write_text("x")
    assert prepare(tmp_path / "c", settings(folder)).index == corpus.index  # what is not read changes nothing


# ---- an earlier version ---------------------------------------------------------------------------------------------


def as_before(folder: Path) -> None:
    """Make a corpus look as version 1 of the rules wrote it."""
    path = folder / "corpus.json"
    index = json.loads(path.read_text())
    for name in ("rules", "short_items"):
        del index["settings"][name]
    index.pop("held_out_draw", None)
    for source in index["sources"]:
        source.pop("held_out_by", None)
        source.pop("skipped", None)
    for shard in folder.glob("*.held.jsonl"):
        shard.write_text("".join(without_draw(shard.read_text())))
    if index["finished"]:
        held = folder / "held-out.jsonl"
        held.write_text("".join(without_draw(held.read_text())))
        index["held_out_sha256"] = hashlib.sha256(held.read_bytes()).hexdigest()
    path.write_text(json.dumps(index))


def without_draw(text: str) -> Iterator[str]:
    for line in text.splitlines():
        row = json.loads(line)
        del row["draw"]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def test_a_corpus_of_an_earlier_version_is_used_as_it_is(tmp_path: Path) -> None:
    how = settings(write(tmp_path / "a.jsonl", [*STORIES[:100], book(3)]), held_out=0.3)
    new = prepare(tmp_path / "c", how)
    number = len(held_out(new).texts)
    as_before(tmp_path / "c")
    old = prepare(tmp_path / "c", how)
    assert "rules" not in old.index["settings"] and old.sha256 == new.sha256
    documents = held_out(old)
    assert documents.total == len(documents.texts) == number == len(set(documents.owners))
    assert documents.unit == "documents, and parts of long ones whose rest is learned"
    assert dict(report(old))["held out"].startswith(f"{number} documents, and parts of long ones")
    with pytest.raises(SmallfryError, match="other files or settings"):
        prepare(tmp_path / "c", settings(tmp_path / "a.jsonl", held_out=0.2))
    assert prepare(tmp_path / "c", how, force=True).index == new.index


def test_an_unfinished_corpus_of_an_earlier_version_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 4000)
    how = settings(write(tmp_path / "a.jsonl", STORIES[:200]), held_out=0.1)
    whole = prepare(tmp_path / "whole", how)
    shutil.copytree(tmp_path / "whole", tmp_path / "c")
    as_before(tmp_path / "c")
    index = json.loads((tmp_path / "c" / "corpus.json").read_text())
    (tmp_path / "c" / "corpus.json").write_text(json.dumps(index | {"finished": False}))
    with pytest.raises(SmallfryError, match=r"begun by an earlier version, .*; use --force") as caught:
        prepare(tmp_path / "c", how)
    assert "\n" not in str(caught.value) and Shard.load(tmp_path / "c", 0)
    assert prepare(tmp_path / "c", how, force=True).sha256 == whole.sha256


# ---- the hub --------------------------------------------------------------------------------------------------------


class Hub:
    """A hub with one data set, whose rows say at which commit they were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
        self.commits = {None: "a" * 40, "v1": "b" * 40}
        self.asked: list[str | None] = []
        self.read: list[str | None] = []
        monkeypatch.setattr(hub.HfApi, "dataset_info", lambda api, repo, **how: self._info(**how))
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **how: self._load(**how))

    def _info(self, revision: str | None, timeout: float) -> Any:
        self.asked.append(revision)
        return SimpleNamespace(sha=self.commits[revision])

    def _load(self, revision: str | None, **how: Any) -> Iterator[dict[str, str]]:
        self.read.append(revision)
        assert how == {"split": "train", "streaming": True}
        return iter([{"text": f"{str(revision)[:1]}: {story}"} for story in STORIES[:300]])


class StopError(Exception):
    pass


def stop(progress: Progress) -> None:
    if progress.shards == 2:
        raise StopError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 4000)
    return Hub(monkeypatch)


def test_hub_data_is_read_at_the_commit_that_it_was_begun_with(tmp_path: Path, hub: Hub) -> None:
    how = settings("hf:some/set", steps=frozenset())
    whole = prepare(tmp_path / "whole", how)
    assert hub.asked == [None] and set(hub.read) == {"a" * 40}
    assert whole.index["settings"]["sources"][0]["revision"] == whole.index["sources"][0]["revision"] == "a" * 40
    assert dict(report(whole))["hub"] == f"hf:some/set at commit {'a' * 40}"
    with pytest.raises(StopError):
        prepare(tmp_path / "c", how, watch=stop)
    hub.commits[None] = "c" * 40  # somebody adds rows
    assert prepare(tmp_path / "c", how).index == whole.index and files(tmp_path / "c") == files(tmp_path / "whole")
    asked = len(hub.asked)
    open_corpus(tmp_path / "c")
    prepare(tmp_path / "c", how)  # finished: nobody is asked
    prepare(tmp_path / "c", how, force=True)  # the one that is there is the one that is wanted
    assert len(hub.asked) == asked == 2 and set(hub.read) == {"a" * 40}
    assert prepare(tmp_path / "new", how).index["sources"][0]["revision"] == "c" * 40


def test_a_named_revision_is_read_and_must_stay_the_same(tmp_path: Path, hub: Hub) -> None:
    how = settings("hf:some/set#v1:2", steps=frozenset())
    with pytest.raises(StopError):
        prepare(tmp_path / "c", how, watch=stop)
    assert set(hub.read) == {"b" * 40}
    hub.commits["v1"] = "d" * 40
    before = files(tmp_path / "c")
    with pytest.raises(SmallfryError, match=f"another commit than {'b' * 40}, with which .*; use --force") as caught:
        prepare(tmp_path / "c", how)
    assert "\n" not in str(caught.value) and files(tmp_path / "c") == before
    with pytest.raises(SmallfryError, match="other files or settings"):
        prepare(tmp_path / "c", settings("hf:some/set", steps=frozenset()))
    shutil.copytree(tmp_path / "c", tmp_path / "forced")
    assert prepare(tmp_path / "forced", how, force=True).index["sources"][0]["revision"] == "d" * 40
    hub.commits["v1"] = "b" * 40
    corpus = prepare(tmp_path / "c", how)
    assert corpus.index["sources"][0]["revision"] == "b" * 40 and corpus.weights == [2.0]


def test_hub_data_of_an_earlier_version_is_used_but_not_gone_on_with(tmp_path: Path, hub: Hub) -> None:
    how = settings("hf:some/set", steps=frozenset())
    prepare(tmp_path / "c", how)
    as_before(tmp_path / "c")
    path = tmp_path / "c" / "corpus.json"
    index = json.loads(path.read_text())
    del index["settings"]["sources"][0]["revision"], index["sources"][0]["revision"]
    path.write_text(json.dumps(index))
    asked = len(hub.asked)
    assert "revision" not in prepare(tmp_path / "c", how).index["sources"][0]
    path.write_text(json.dumps(index | {"finished": False}))
    with pytest.raises(SmallfryError, match="begun by an earlier version"):
        prepare(tmp_path / "c", how)
    assert len(hub.asked) == asked
    assert prepare(tmp_path / "c", how, force=True).index["sources"][0]["revision"] == "a" * 40
