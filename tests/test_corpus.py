"""Reading and cleaning corpora: every kind of file, hostile bytes, mixtures, filters, duplicates."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry.corpus.cleaning import (
    STEPS,
    NearDuplicates,
    Signer,
    fault,
    fingerprint,
    parse_steps,
)
from smallfry.corpus.hub import HubName, hub_commit
from smallfry.corpus.readers import (
    SECTION,
    Reading,
    Section,
    cut,
    file_documents,
    hub_documents,
    is_one_document,
    kind_of,
)
from smallfry.corpus.sources import listed, parse_sources
from smallfry.errors import SmallfryError

STORY = (
    "Tom had a red ball. He liked to throw it up and catch it. One day the ball fell into the pond behind the house."
)


def read(path: Path, **reading: Any) -> tuple[list[str], Counter[str]]:
    tally: Counter[str] = Counter()
    return [section.text for section in file_documents(path, Reading(**reading), tally)], tally


# ---- text files -----------------------------------------------------------------------------------------------------


def test_text_is_cut_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\nstill one<|endoftext|>two<|endoftext|>\n<|endoftext|>three\n")
    assert read(path)[0] == ["one\n\nstill one", "two", "three"]
    path.write_text("one\n\nstill one\n\n\ntwo\n \n\t\n\nthree")
    assert read(path)[0] == ["one\n\nstill one", "two", "three"]
    assert read(path, separator="blank")[0] == ["one", "still one", "two", "three"]
    assert read(path, separator="file")[0] == ["one\n\nstill one\n\n\ntwo\n \n\t\n\nthree"]
    path.write_text("one\n---\ntwo\n---\nthree")
    assert read(path)[0] == ["one\n---\ntwo\n---\nthree"]
    assert read(path, separator=r"\n---\n")[0] == ["one", "two", "three"]
    with pytest.raises(SmallfryError, match="--separator"):
        read(path, separator="")


@pytest.mark.parametrize("separator", ["<|endoftext|>", "\n\n\n\n"])
def test_a_separator_is_found_wherever_a_chunk_ends(
    tmp_path: Path, separator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [f"document number {i} " + "x" * (i % 7) for i in range(60)]
    path = tmp_path / "a.txt"
    path.write_text(separator.join(documents))
    for size in (*range(64, 90), 1000):  # the first chunk, on which "auto" decides, holds one separator at least
        monkeypatch.setattr("smallfry.corpus.readers.CHUNK_BYTES", size)
        assert read(path)[0] == [d.strip() for d in documents], size


def test_bytes_that_are_no_text_are_replaced_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("caf\xe9 \u00e9 \ufffd".encode() + b" \xff\xfe bad \xc3")
    monkeypatch.setattr("smallfry.corpus.readers.CHUNK_BYTES", 3)  # characters are cut by chunks too
    documents, tally = read(path)
    assert documents == ["caf\xe9 \u00e9 \ufffd \ufffd\ufffd bad \ufffd"]
    assert tally["replaced characters"] >= 3


def test_line_ends_and_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\r\nthree\r")
    assert read(path)[0] == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("data", "match"),
    [("text".encode("utf-16"), "UTF-16"), (b"\x7fELF\0\0\0", "binary"), (b"\x1f\x8b\x08cut off", "gzip")],
)
def test_files_that_are_no_text_are_refused_in_one_line(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(SmallfryError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (40 << 20), 9))
    with pytest.raises(SmallfryError, match="unpacks"):
        read(path)


def test_a_long_text_is_cut_between_paragraphs_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "word " * 40 for i in range(600)]
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(p.strip() for p in paragraphs))
    documents, tally = read(path)
    assert max(map(len, documents)) <= SECTION and len(documents) > 5 and tally["cuts"] == len(documents) - 1
    assert "\n\n".join(documents) == path.read_text()
    rows = tmp_path / "book.jsonl"
    rows.write_text(json.dumps({"text": path.read_text()}) + "\n")
    assert "\n\n".join(read(rows)[0]) == path.read_text()


@given(st.text(alphabet="ab. \n", min_size=1, max_size=400), st.integers(5, 50))
def test_cutting_keeps_every_visible_character(text: str, most: int) -> None:
    rest, parts = text.strip(), []
    while rest:
        part, rest = cut(rest, most)
        assert 0 < len(part) <= most
        parts.append(part)
    assert "".join("".join(parts).split()) == "".join(text.split())


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_json_lines_plain_and_packed(tmp_path: Path) -> None:
    rows = [{"text": " one "}, {"text": ""}, {"text": None}, {"body": "x"}, {"text": 5}, {"text": "half \ud800 char"}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "a.jsonl.gz"):
        documents, tally = read(tmp_path / name)
        assert documents == ["one", "half \ufffd char"]
        assert tally == {"rows without text": 4, "replaced characters": 1}


def test_broken_rows_are_counted_until_the_file_is_broken_throughout(tmp_path: Path) -> None:
    good = [json.dumps({"text": f"document {i}"}) for i in range(500)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*good[:200], '{"text": "cut o', "[1, 2]", *good[200:]]))
    documents, tally = read(path)
    assert len(documents) == 500 and tally["broken rows"] == 2
    path.write_text("\n".join([*good[:50], *['{"text": "cut o'] * 20, *good[50:]]))
    with pytest.raises(SmallfryError, match="line 51: invalid JSON"):
        read(path)
    path.write_text("not json\n")
    with pytest.raises(SmallfryError, match="line 1: invalid JSON"):
        read(path)


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "x", "id": 1}\n')
    with pytest.raises(SmallfryError, match=r"no column 'text'; found: content, id; .*--column"):
        read(path)
    assert read(path, column="content")[0] == ["x"]


def test_a_runaway_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.readers.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("smallfry.corpus.readers.CHUNK_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "' + "x" * 5000 + '"}')
    with pytest.raises(SmallfryError, match="line 1: longer than"):
        read(path)


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz", "a.parquet"]))
def test_any_bytes_give_documents_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    try:
        documents, _ = read(path)
        assert all(text and text == text.strip() and text.encode() for text in documents)
    except SmallfryError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, " two "], "id": [1, 2, 3]}), path)
    documents, tally = read(path)
    assert documents == ["one", "two"] and tally["rows without text"] == 1
    with pytest.raises(SmallfryError, match=r"no column 'body'; found: text, id"):
        read(path, column="body")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SmallfryError, match="not readable as Parquet"):
        read(path)


def test_hub_data_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[Any, ...]] = []

    def load(name: str, config: str | None, split: str, streaming: bool, revision: str | None) -> Any:
        asked.append((name, config, split, streaming, revision))
        if name == "some/broken":
            raise ConnectionError("no route\nto host")
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(hub_documents("hf:some/set", Reading(), Counter())) == [Section("one"), Section("two")]
    assert list(hub_documents("hf:some/set:en@valid", Reading(), Counter())) == [Section("one"), Section("two")]
    list(hub_documents("hf:some/set#v1", Reading(), Counter()))
    list(hub_documents("hf:some/set#v1", Reading(), Counter(), "abc"))
    assert asked == [
        ("some/set", None, "train", True, None), ("some/set", "en", "valid", True, None),
        ("some/set", None, "train", True, "v1"), ("some/set", None, "train", True, "abc"),
    ]  # fmt: skip
    with pytest.raises(SmallfryError, match="could not be streamed \\(no route to host\\)"):
        list(hub_documents("hf:some/broken", Reading(), Counter()))
    with pytest.raises(SmallfryError, match="expected hf:owner/name"):
        list(hub_documents("hf:name", Reading(), Counter()))


def test_the_hub_is_asked_for_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def info(self: Any, repo_id: str, *, revision: str | None = None, timeout: float | None = None) -> Any:
        if repo_id == "some/broken":
            raise ConnectionError("no route\nto host")
        return SimpleNamespace(sha=None if repo_id == "some/none" else f"{repo_id} at {revision}")

    assert {"repo_id", "revision", "timeout"} <= set(inspect.signature(hub.HfApi.dataset_info).parameters)
    monkeypatch.setattr(hub.HfApi, "dataset_info", info)
    assert hub_commit("hf:some/set:en@valid") == "some/set at None"
    assert hub_commit("hf:some/set:en@valid#v1") == "some/set at v1"
    assert HubName.parse("hf:some/set:en@valid#refs/pr/1") == ("some/set", "en", "valid", "refs/pr/1")
    for wrong, match in (("hf:some/broken", r"\(no route to host\)"), ("hf:some/none", "names no commit")):
        with pytest.raises(SmallfryError, match=match) as caught:
            hub_commit(wrong)
        assert "\n" not in str(caught.value)


# ---- sources --------------------------------------------------------------------------------------------------------


def test_sources_and_weights(tmp_path: Path) -> None:
    (tmp_path / "d" / "deep").mkdir(parents=True)
    (tmp_path / "d" / ".hidden").mkdir()
    for name in ("d/b.txt", "d/a.jsonl.gz", "d/deep/c.md", "d/notes.pdf", "d/.hidden/x.txt", "odd:2.txt"):
        (tmp_path / name).write_text("x")
    (folder,) = parse_sources([f"{tmp_path}/d:2.5"])
    assert folder.weight == 2.5 and [f.name for f in folder.files] == ["a.jsonl.gz", "b.txt", "c.md"]
    assert parse_sources([f"{tmp_path}/odd:2.txt"])[0].weight is None  # a file of that very name
    hub, plain = parse_sources(["hf:some/set:en:3", "hf:some/set"])
    assert (hub.name, hub.weight, hub.files) == ("hf:some/set:en", 3.0, ()) and plain.weight is None
    for wrong, match in (
        (f"{tmp_path}/none.txt", "no such file"), (f"{tmp_path}/d/notes.pdf", "of no kind"),
        (f"{tmp_path}/d/.hidden/none", "no such file"), ("hf:some/set:0", "weight of 0"),
    ):  # fmt: skip
        with pytest.raises(SmallfryError, match=match):
            parse_sources([wrong])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SmallfryError, match="holds no text; expected"):
        parse_sources([f"{tmp_path}/empty"])


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "b.csv", "deep/c.CSV", "deep/d.txt.zst", "e.csv.gz", "LICENSE", ".hidden.csv", "f.parquet"):
        (tmp_path / name).write_text("x")
    (source,) = parse_sources([str(tmp_path)])
    assert source.skipped == {".csv": 2, ".csv.gz": 1, ".zst": 1, "no ending": 1} and len(source.files) == 2
    assert listed(source.skipped) == ".csv 2, .csv.gz 1, .zst 1, no ending 1"
    assert listed({f".{i}": 10 - i for i in range(10)}).endswith(".7 3, others 3")
    for name in ("a.txt", "f.parquet"):
        (tmp_path / name).unlink()
    with pytest.raises(SmallfryError, match=r"holds no text \(only .csv 2, .csv.gz 1, .zst 1, no ending 1\); expected"):
        parse_sources([str(tmp_path)])


def test_a_source_is_known_again_by_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 1000)
    before = parse_sources([str(path)])[0].identity()
    assert parse_sources([str(path)])[0].identity() == before
    path.write_text("x" * 999 + "y")
    assert parse_sources([str(path)])[0].identity() != before


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.txt", "text"), ("a.b.TXT.gz", "text"), ("a.ndjson", "jsonl"), ("a.parquet", "parquet"), ("a.parquet.gz", None),
     ("a.csv", None), ("a", None), (".gz", None)],
)  # fmt: skip
def test_kinds_of_files(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


# ---- cleaning -------------------------------------------------------------------------------------------------------

ALL = frozenset(STEPS)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("too short", "short"),
        ("12 + 34 = 46, 99 - 3 = 96, 12 * 12 = 144", "letters"),
        ("some more words " + "\ufffd\x07" * 3, "broken"),
        ("\n".join(["the same line", "another line"] * 4), "repeated-lines"),
        ("all work and no play " * 300, "repetitive"),
    ],
)
def test_each_filter_takes_what_it_says_and_can_be_switched_off(text: str, step: str) -> None:
    assert fault(text, ALL) == step
    assert fault(text, frozenset({step})) == step
    assert fault(text, parse_steps("all")) is None
    assert fault(text, parse_steps(step)) != step


def test_ordinary_texts_pass() -> None:
    for text in (
        STORY,
        "Ein kurzer Satz mit Umlauten: äöü.",
        "这是一个关于一只小狗的故事。它很喜欢在花园里玩耍。",
        "def f(x):\n\treturn x + 1\n",
    ):
        assert fault(text, ALL) is None


def test_steps_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_steps("") == ALL and parse_steps("short, letters") == ALL - {"short", "letters"}
    with pytest.raises(SmallfryError, match="--skip spelling: no such cleaning step; there are short"):
        parse_steps("spelling")


def test_the_guide_names_every_step() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", guide.split("## A corpus")[1].split("\n## ")[0], re.MULTILINE) == list(
        STEPS
    )


def test_fingerprints_come_from_the_text_alone() -> None:
    key, draw = fingerprint(STORY)
    assert fingerprint(STORY.replace(" ", "\n ")) == (key, draw) and fingerprint(STORY + "!")[0] != key
    draws = np.array([fingerprint(f"document {i}")[1] for i in range(4000)])
    assert draws.min() >= 0.0 and draws.max() < 1.0 and abs(float((draws < 0.1).mean()) - 0.1) < 0.02


def near(a: str, b: str) -> bool:
    signer, index = Signer(), NearDuplicates()
    index.add(signer(a))
    return index.near(signer(b))


def test_near_duplicates_are_found_and_strangers_are_not() -> None:
    long = " ".join(f"word{i % 97} thing{i % 53}" for i in range(200))
    assert near(STORY, STORY) and near(STORY, STORY.upper())
    assert near(long, long.replace("word7 ", "sword7 "))
    assert not near(long, " ".join(f"item{i % 97} place{i % 53}" for i in range(200)))
    assert not near(STORY, STORY.split(". ")[0] + ". Then they all went home and had some soup for dinner together.")
    assert near("hi", "Hi!") and not near("hi", "ho")


def test_the_share_of_near_duplicates_that_is_found_is_what_the_docs_say() -> None:
    rng = np.random.default_rng(0)
    signer, found = Signer(), 0
    for _ in range(100):
        words = [f"w{i}" for i in rng.integers(10_000, size=300)]
        other = list(words)
        other[rng.integers(300)] = "changed"
        other[rng.integers(300)] = "different"  # two words of 300: 10 of 296 runs, a similarity of 0.93
        index = NearDuplicates()
        index.add(signer(" ".join(words)))
        found += index.near(signer(" ".join(other)))
    assert found >= 97


def test_the_oldest_documents_are_forgotten() -> None:
    signer, index = Signer(), NearDuplicates(window=3)
    for i in range(5):
        index.add(signer(f"{i} {STORY} {i} " * 3 + f"ends with number {i} and some more words {i * i}"))
    assert index._index.keys.size() == 3 and len(index._signatures) == 3


def test_sections_are_known_to_be_of_one_document(tmp_path: Path) -> None:
    def begins(path: Path) -> list[bool]:
        return [section.begins for section in file_documents(path, Reading(), Counter())]

    long = "\n".join(f"line {i} of a long text" for i in range(40 * SECTION // 25))  # some 40 sections
    rows = tmp_path / "a.jsonl"
    rows.write_text(json.dumps({"text": long}) + "\n" + json.dumps({"text": "a short one"}) + "\n")
    found = begins(rows)
    assert found[0] and found[-1] and not any(found[1:-1]) and len(found) > 30
    text = tmp_path / "a.txt"
    text.write_text(" " * 3 * SECTION + long + "\n\n\na short one")
    assert begins(text) == found  # whether it is read whole or piece by piece
    assert not is_one_document(text, Reading()) and is_one_document(text, Reading(separator="file"))
    text.write_text(long)
    assert begins(text) == found[:-1] and is_one_document(text, Reading()) and not is_one_document(rows, Reading())


def test_what_smallfry_made_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "sub/a.txt"):
        (tmp_path / name).write_text(STORY)
    for made, mark in (("run", "pretrain.json"), ("run/corpus", "corpus.json"), ("job", "assessment.json")):
        (tmp_path / made).mkdir(exist_ok=True)
        (tmp_path / made / mark).write_text("{}")
        (tmp_path / made / "report.md").write_text(STORY)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.txt").write_text(STORY)
    (found,) = parse_sources([str(tmp_path)])
    assert [file.relative_to(tmp_path).as_posix() for file in found.files] == ["b.txt", "sub/a.txt"]


def test_a_year_behind_a_hub_name_is_its_config(tmp_path: Path) -> None:
    assert [(s.name, s.weight) for s in parse_sources(["hf:a/b:2023", "hf:a/b:2", "hf:a/b:2023:3", "hf:a/b"])] == [
        ("hf:a/b:2023", None), ("hf:a/b", 2.0), ("hf:a/b:2023", 3.0), ("hf:a/b", None),
    ]  # fmt: skip
    with pytest.raises(SmallfryError, match="cannot be a file's name"):
        parse_sources(["x" * 300])


def test_line_ends_of_other_systems_are_no_broken_characters(tmp_path: Path) -> None:
    lines = [f"short line {i}" for i in range(12)]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "\r\n".join(lines)}) + "\n" + json.dumps({"text": "\r".join(lines)}) + "\n")
    assert read(path)[0] == ["\n".join(lines)] * 2
    assert fault(read(path)[0][0], frozenset(STEPS)) is None


def test_a_first_row_without_text_is_not_a_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n{"text": "here"}\n')
    found, tally = read(path)
    assert found == ["here"] and tally["rows without text"] == 1


def test_parquet_text_that_is_no_utf8_is_replaced_and_counted(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array([b"caf\xe9 au lait", b"plain", None]).cast(pa.binary())
    bad = pa.StringArray.from_buffers(3, column.buffers()[1], column.buffers()[2], column.buffers()[0])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": bad}), path)
    found, tally = read(path)
    assert found == ["caf\ufffd au lait", "plain"]
    assert (tally["replaced characters"], tally["rows without text"]) == (1, 1)
