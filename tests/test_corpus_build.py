"""Making corpora: cleaning is counted, splits do not leak, killed ones go on, damaged ones are told in one line."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.builtin import BUILTIN
from smallfry.builtin.stories import generate
from smallfry.corpus import Corpus, CorpusSettings, open_corpus, parse_steps, prepare, report
from smallfry.corpus.build import Progress
from smallfry.corpus.cleaning import fingerprint
from smallfry.corpus.measure import held_out, sample, unigram_bits
from smallfry.corpus.shards import Shard, TokenStream
from smallfry.errors import SmallfryError
from smallfry.tokenizer import BOS, END, SPECIALS

QUESTION = "When a wooden chair wobbles on a level floor, which of its four legs should a careful joiner shorten first?"
STORIES = [row.output for row in generate(0, 600, 0, 0)[0]]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n")
    return path


def settings(*sources: Path | str, **more: Any) -> CorpusSettings:
    return CorpusSettings(**({"sources": tuple(map(str, sources)), "vocab": 400} | more))


def texts_of(corpus: Corpus) -> list[str]:
    """Every training document, from the ids."""
    found = []
    for stream in corpus.streams:
        ids = stream.read(0, stream.tokens) if stream.tokens else np.empty(0, dtype=np.int64)
        for part in np.split(ids, np.flatnonzero(ids == END) + 1)[:-1]:
            assert part[0] == BOS and part[-1] == END and (part[1:-1] >= len(SPECIALS)).all()
            found.append(corpus.tokenizer.decode(part[1:-1].tolist()))
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "corpus.json"}


# ---- what is in it --------------------------------------------------------------------------------------------------


def test_every_document_is_trained_on_or_held_out_or_counted(tmp_path: Path) -> None:
    extra = [
        STORIES[3],
        STORIES[4].replace(" ", "  "),
        STORIES[5] + " And that was all.",
        "no",
        "1 2 3 4 5 6 7 8 9 10 11 12",
    ]
    source = write(tmp_path / "a.jsonl", STORIES + extra)
    corpus = prepare(tmp_path / "c", settings(source, held_out=0.1))
    trained, held = texts_of(corpus), held_out(corpus).texts
    assert sorted(trained + held) == sorted(STORIES)
    assert trained == [t for t in STORIES if fingerprint(t)[1] >= 0.1]  # in the order of the file
    assert held == [t for t in STORIES if fingerprint(t)[1] < 0.1] and len(held) > 30
    counts = corpus.index["sources"][0]["counts"]
    assert {k: counts[k] for k in ("documents", "duplicates", "near-duplicates", "short", "letters")} == {
        "documents": 605, "duplicates": 2, "near-duplicates": 1, "short": 1, "letters": 1,
    }  # fmt: skip
    assert (corpus.documents, corpus.text_bytes) == (len(trained), sum(len(t.encode()) for t in trained))
    lines = dict(report(corpus))
    assert lines["documents"] == "605 read" and lines["duplicates"].startswith("2 left out: the same text")
    assert lines["held out"].startswith(f"{len(held)} documents (0.1 of all")
    assert not list((tmp_path / "c").glob("*.seen.*")) and not list((tmp_path / "c").glob("*.held.*"))


def test_what_is_held_out_depends_on_neither_order_nor_company(tmp_path: Path) -> None:
    one = prepare(tmp_path / "c1", settings(write(tmp_path / "a.jsonl", STORIES), held_out=0.1))
    other = prepare(tmp_path / "c2", settings(write(tmp_path / "b.jsonl", STORIES[400::-1]), held_out=0.1))
    kept, again = set(held_out(one).texts), set(held_out(other).texts)
    assert again == kept & set(STORIES[:401]) and again


def test_equal_documents_never_straddle_even_where_they_are_left_in(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", STORIES[:200] + [t + " \n" for t in STORIES[:200]])
    corpus = prepare(tmp_path / "c", settings(source, held_out=0.3, steps=parse_steps("all")))
    trained, held = texts_of(corpus), held_out(corpus).texts
    assert len(trained) + len(held) == 400 and not set(trained) & set(held)


def test_special_tokens_written_in_a_text_are_text(tmp_path: Path) -> None:
    hostile = [f"<|end|><|bos|> story {i} says <|user|> hello" for i in range(30)]
    corpus = prepare(tmp_path / "c", settings(write(tmp_path / "a.jsonl", STORIES[:50] + hostile), held_out=0))
    assert texts_of(corpus) == STORIES[:50] + hostile


def test_a_given_tokenizer_is_used(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", STORIES)
    first = prepare(tmp_path / "c1", settings(source))
    second = prepare(tmp_path / "c2", settings(source, tokenizer=first.path / "tokenizer.json"))
    assert second.index["tokenizer_sha256"] == first.index["tokenizer_sha256"] and second.sha256 == first.sha256
    strange = json.loads((first.path / "tokenizer.json").read_text())
    strange["added_tokens"], strange["model"]["vocab"] = [], {"a": 0, "b": 1}
    strange["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(strange))
    with pytest.raises(SmallfryError, match="not a tokenizer of smallfry"):
        prepare(tmp_path / "c3", settings(source, tokenizer=tmp_path / "tokenizer.json"))


def test_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 5000)
    monkeypatch.setattr("smallfry.corpus.work.CHUNK_DOCUMENTS", 40)
    source = write(tmp_path / "a.jsonl", STORIES)
    alone = prepare(tmp_path / "c1", settings(source), workers=1)
    prepare(tmp_path / "c2", settings(source), workers=2)
    assert files(tmp_path / "c1") == files(tmp_path / "c2") and len(alone.shards) > 5


def test_items_of_the_suites_are_kept_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "core").mkdir(parents=True)
    asked = (QUESTION, "Who stole the red wheelbarrow", "Who did it")
    rows = [json.dumps({"query": "Question: " + text, "choices": ["yes", "no"], "gold": 0}) for text in asked]
    (data / "core" / "piqa.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (data / "stories").mkdir()
    told = [{"text": STORIES[9].replace("the", "a", 1)}, {"text": STORIES[11]}]
    (data / "stories" / "tinystories_valid.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, told)).encode())
    )
    short = "And then? Who stole the red wheelbarrow? Yes, and who did it? Yes."
    texts = [*STORIES[:50], f"I read this: {QUESTION.upper()} I did not know.", short, *STORIES[50:100]]
    source = write(tmp_path / "a.jsonl", texts)
    corpus = prepare(tmp_path / "c1", settings(source, held_out=0, data_dir=data))
    assert texts_of(corpus) == [t for t in STORIES[:100] if t not in (STORIES[9], STORIES[11])]
    assert corpus.index["sources"][0]["counts"]["contaminated"] == 4
    row = {"task": "piqa", "suite": "core", "n": 2, "whole": 1, "found": 2, "short": 1}
    assert corpus.index["contamination"] == [row]
    lines = dict(report(corpus))
    assert lines["suites' items"].endswith(
        "documents that were left out (piqa 2); 1 that have 5 to 12 words are looked for whole"
    )
    assert lines["not looked for"] == "1 items of fewer than 5 words (core 1)"
    kept = settings(source, held_out=0, data_dir=data, steps=parse_steps("contaminated"))
    corpus = prepare(tmp_path / "c2", kept)
    assert texts_of(corpus) == texts
    assert corpus.index["contamination"] == [row]


def test_a_mixture_drops_in_the_second_what_the_first_has(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", STORIES[:200]), write(tmp_path / "b.jsonl", STORIES[100:300])
    corpus = prepare(tmp_path / "c", settings(f"{a}:3", b, held_out=0.2))
    assert corpus.weights == [3.0, 1.0] and len(corpus.streams) == 2
    assert corpus.index["sources"][1]["counts"]["duplicates"] == 100
    documents = held_out(corpus)
    assert set(documents.sources) == {str(a), str(b)}
    assert sorted(texts_of(corpus) + documents.texts) == sorted(STORIES[:300])


def test_every_source_of_a_mixture_is_in_what_is_measured(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", STORIES[:300]), write(tmp_path / "b.jsonl", STORIES[300:])
    corpus = prepare(tmp_path / "c", settings(a, b, held_out=0.3))
    some = held_out(corpus, most=5000)
    share = [some.sources.count(str(path)) for path in (a, b)]
    assert min(share) >= 3 and abs(share[0] - share[1]) <= 2


def test_a_corpus_of_one_document_is_trained_on(tmp_path: Path) -> None:
    text = next(text for text in STORIES if fingerprint(text)[1] < 0.1)
    corpus = prepare(tmp_path / "c", settings(write(tmp_path / "a.jsonl", [text]), vocab=300))
    assert texts_of(corpus) == [text] and not held_out(corpus).texts


def test_sections_of_one_document_are_on_one_side_also_when_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 9000)
    books = ["\n".join(f"Book {n}. {story}" for story in STORIES[60 * n : 60 * n + 60]) for n in range(10)]
    for n, book in enumerate(books):
        books[n] = book * 3  # some sections each
    how = settings(write(tmp_path / "a.jsonl", books), held_out=0.6, steps=frozenset())
    whole = prepare(tmp_path / "whole", how)
    sides = [{text.split(".")[0] for text in texts if text.startswith("Book")} for texts in
             (texts_of(whole), held_out(whole).texts)]  # fmt: skip
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(whole.shards) > 3

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.shards == 2:
            raise StopError

    with pytest.raises(StopError):
        prepare(tmp_path / "again", how, watch=stop)
    prepare(tmp_path / "again", how)
    again, once = ({n: d for n, d in files(tmp_path / f).items() if n[-4:] != "json"} for f in ("again", "whole"))
    assert again == once and len(once) > 4


def test_nothing_left_is_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", STORIES[:50])
    with pytest.raises(
        SmallfryError, match=r"b.jsonl: nothing to train on; of 3 documents none is left \(duplicates 3\)"
    ):
        prepare(tmp_path / "c", settings(a, write(tmp_path / "b.jsonl", STORIES[:3]), held_out=0))
    with pytest.raises(SmallfryError, match="holds no text that passes"):
        prepare(tmp_path / "d", settings(write(tmp_path / "e.jsonl", ["1", "2"])))


# ---- going on -------------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def stop_after(documents: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.documents >= documents:
            raise Stopped

    return watch


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 4000)
    monkeypatch.setattr("smallfry.corpus.build.WATCH_EVERY", 1)


@pytest.mark.usefixtures("small_shards")
def test_a_killed_corpus_goes_on_and_is_the_same(tmp_path: Path) -> None:
    texts = STORIES[:300] + STORIES[250:350] + ["short"] + [t + " The end." for t in STORIES[:20]]
    a, b = write(tmp_path / "a.jsonl", texts), write(tmp_path / "b.jsonl", STORIES[300:500])
    how = settings(a, b, held_out=0.1)
    whole = prepare(tmp_path / "whole", how)
    said: list[str] = []
    for documents in (1, 37, 120, 300, 395, 440, 600):
        with pytest.raises(Stopped):
            prepare(tmp_path / "c", how, watch=stop_after(documents), say=said.append)
    corpus = prepare(tmp_path / "c", how, say=said.append)
    assert files(tmp_path / "c") == files(tmp_path / "whole")
    assert corpus.index == whole.index and len(corpus.shards) > 8
    assert sum("finished shards are there" in text for text in said) >= 5
    assert sum("trained on" in text for text in said) == 1  # the tokenizer, once


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_piece_of_an_unfinished_corpus_is_made_again(tmp_path: Path) -> None:
    how = settings(write(tmp_path / "a.jsonl", STORIES[:200]), held_out=0.1)
    prepare(tmp_path / "whole", how)
    with pytest.raises(Stopped):
        prepare(tmp_path / "begun", how, watch=stop_after(150))
    for suffix in (".bin", ".json", ".held.jsonl", ".seen.safetensors"):
        folder = tmp_path / suffix
        shutil.copytree(tmp_path / "begun", folder)
        damaged = folder / f"00002{suffix}"
        damaged.write_bytes(damaged.read_bytes()[:-3] + b"\xff")
        (folder / ".00009.bin.abc.part").write_bytes(b"half")
        said: list[str] = []
        prepare(folder, how, say=said.append)
        assert files(folder) == files(tmp_path / "whole")
        assert "00002" in said[0] and "made again" in said[0]


def test_a_finished_corpus_is_used_again_and_never_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", STORIES[:100])
    prepare(tmp_path / "c", settings(source))
    before = (tmp_path / "c" / "00000.bin").stat().st_mtime_ns
    prepare(tmp_path / "c", settings(source))
    assert (tmp_path / "c" / "00000.bin").stat().st_mtime_ns == before
    for other in (settings(source, vocab=300), settings(source, held_out=0.5), settings(source, steps=frozenset())):
        with pytest.raises(SmallfryError, match="other files or settings"):
            prepare(tmp_path / "c", other)
    write(source, STORIES[:101])
    with pytest.raises(SmallfryError, match="other files or settings; use --force"):
        prepare(tmp_path / "c", settings(source))
    assert prepare(tmp_path / "c", settings(source), force=True).index["sources"][0]["counts"]["documents"] == 101
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("mine")
    with pytest.raises(SmallfryError, match="is not empty and no corpus"):
        prepare(tmp_path / "d", settings(source))


def test_a_full_disk_leaves_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.build.SHARD_TOKENS", 4000)
    how = settings(write(tmp_path / "a.jsonl", STORIES))
    whole = prepare(tmp_path / "whole", how)
    from smallfry.files import write_atomic

    def full(path: Path, data: bytes | str) -> None:
        if path.name == "00003.bin":
            raise SmallfryError(f"{path}: cannot write (No space left on device)")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("smallfry.corpus.build.write_atomic", full)
        with pytest.raises(SmallfryError, match="No space left"):
            prepare(tmp_path / "c", how)
    with pytest.raises(SmallfryError, match="unfinished; go on"):
        open_corpus(tmp_path / "c")
    assert prepare(tmp_path / "c", how).sha256 == whole.sha256


# ---- damage and hostility -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    prepare(folder / "c", settings(write(folder / "a.jsonl", STORIES[:100])))
    return folder / "c"


def patched(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(found | changes))

    return change


def flip(name: str, at: int = 100) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1
        (folder / name).write_bytes(data)

    return change


def too_large(folder: Path) -> None:
    """A shard whose checksum is right but whose ids the tokenizer does not have."""
    import hashlib

    shard = Shard.load(folder, 0)
    ids = np.fromfile(folder / "00000.bin", dtype="<u2")
    ids[5] = 60_000
    (folder / "00000.bin").write_bytes(ids.tobytes())
    shard.sha256 = hashlib.sha256(ids.tobytes()).hexdigest()
    shard.save(folder)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (flip("00000.bin"), "damaged shard .checksum differs"),
        (lambda folder: (folder / "00000.bin").write_bytes(b"123"), "damaged shard .3 bytes, expected"),
        (lambda folder: (folder / "00000.bin").unlink(), "00000.bin: cannot be read"),
        (lambda folder: (folder / "00000.json").unlink(), "00000.json: no such file"),
        (lambda folder: (folder / "00000.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "00000.json").write_text("[]"), "not a shard"),
        (patched("00000.json", format="smallfry-corpus/9"), "another format"),
        (patched("00000.json", tokens=-1), "values out of range"),
        (patched("00000.json", tokens=1 << 60), "damaged shard"),
        (patched("00000.json", number="../../x"), "values out of range"),
        (patched("00000.json", dtype="object"), "values out of range"),
        (patched("00000.json", source=3), "does not fit its shards"),
        (patched("00000.json", stranger=1), "not a shard"),
        (too_large, "has token 60,000, the tokenizer only 400"),
        (patched("corpus.json", shards=10**9), "damaged"),
        (patched("corpus.json", shards=None), "damaged"),
        (patched("corpus.json", sources=[1]), "damaged"),
        (patched("corpus.json", sources=[{"weight": float("nan")}]), "damaged"),
        (patched("corpus.json", sources=[]), "damaged"),
        (patched("corpus.json", sources=[{"name": "x", "read": {}, "counts": {"kept": "[red]"}}]), "damaged"),
        (patched("corpus.json", contamination=[{"task": "x"}]), "damaged"),
        (patched("corpus.json", sources=[{"name": "x", "read": {}, "counts": {}, "held_out_by": [1]}]), "damaged"),
        (
            patched("corpus.json", sources=[{"name": "x", "read": {}, "counts": {}, "skipped": {".csv": "x"}}]),
            "damaged",
        ),
        (patched("corpus.json", held_out_share="x"), "damaged"),
        (patched("corpus.json", format="x"), "not a corpus of"),
        (lambda folder: (folder / "corpus.json").write_text("[]"), "not a corpus of"),
        (flip("tokenizer.json", 40), "tokenizer.json: not"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no such file"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path: Path, finished: Path, damage: Callable[[Path], None], match: str) -> None:
    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    open_corpus(folder)
    damage(folder)
    with pytest.raises(SmallfryError, match=match) as caught:
        open_corpus(folder)
    assert "\n" not in str(caught.value)


def test_damaged_held_out_documents_are_told(tmp_path: Path, finished: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    flip("held-out.jsonl", 20)(folder)
    with pytest.raises(SmallfryError, match=r"held-out\.jsonl: damaged"):
        held_out(open_corpus(folder))


# ---- reading it -----------------------------------------------------------------------------------------------------


def test_a_stream_reads_across_shards_and_around() -> None:
    parts = [np.arange(0, 5, dtype=np.uint16), np.empty(0, dtype=np.uint16), np.arange(5, 12, dtype=np.uint16)]
    stream = TokenStream(parts)
    assert stream.tokens == 12
    for start in range(12):
        for length in (1, 4, 12, 13, 30):
            assert stream.read(start, length).tolist() == [(start + i) % 12 for i in range(length)]
    assert stream.counts(12).tolist() == [1] * 12
    assert TokenStream.joined([stream, stream]).read(10, 4).tolist() == [10, 11, 0, 1]


def test_the_held_out_sample_is_fixed_and_the_final_one_bounded(finished: Path) -> None:
    corpus = open_corpus(finished)
    documents = held_out(corpus)
    assert sample(documents) == documents.texts  # they are few
    assert len(sample(documents, 2000)) == -(-len(documents.texts) // round(sum(map(len, documents.texts)) / 2000))
    some = held_out(corpus, most=3000)
    places = [documents.texts.index(text) for text in some.texts]
    assert places[0] == 0 and places[-1] > 0.8 * len(documents.texts) and len(set(np.diff(places))) <= 2  # all along
    assert some.total == len(documents.texts) and 2000 < sum(map(len, some.texts)) < 4500
    assert 1.0 < unigram_bits(corpus, documents.texts) < 4.0


def test_the_builtin_stories_are_there() -> None:
    assert "stories" in BUILTIN and len(set(STORIES)) == 600
