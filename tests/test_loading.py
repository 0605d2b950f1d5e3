"""Loading files: every type gives the same job, bad input gets one line, values become text."""

from __future__ import annotations

import builtins
import gzip
import io
import json
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smallfry.loading.readers as readers
from smallfry.errors import SmallfryError
from smallfry.job import Example, Job
from smallfry.loading import job_from_rows, load_job
from tests.loading_rows import all_rows, refused, rows_of


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- every file type gives the same job


def as_csv(rows: Sequence[Mapping[str, Any]], separator: str) -> str:
    names = list(rows[0])
    return "".join(
        separator.join(str(v) for v in line) + "\n" for line in [names, *([r[n] for n in names] for r in rows)]
    )


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "A.JSONL"]
)
def test_every_file_type_gives_the_same_job(tmp_path: Path, name: str) -> None:
    rows = rows_of(90, "train", "é") + rows_of(15, "dev", "b") + rows_of(15, "test", "c")
    path = tmp_path / name
    if name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        text = as_csv(rows, ",") if ".csv" in name else as_csv(rows, "\t") if ".tsv" in name else lines
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    job = load_job(path)
    assert (job.kind, job.metric, job.name.lower(), job.source) == ("classify", "accuracy", "a", str(path))
    assert (len(job.train), len(job.valid), len(job.test)) == (90, 15, 15)
    assert job.hashes() == load_job(write_jsonl(tmp_path / "same.jsonl", rows)).hashes()
    assert job.train[0] == Example("é word0 please", "red")


def test_job_load_and_from_rows_agree_with_the_functions(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows_of(40))
    assert Job.load(path, seed=3).hashes() == load_job(path, seed=3).hashes()
    assert Job.from_rows(rows_of(40), seed=3).hashes() == load_job(path, seed=3).hashes()
    assert job_from_rows(iter(rows_of(40)), name="mine").name == "mine"


def test_byte_order_mark_windows_newlines_blank_lines_and_no_last_newline(tmp_path: Path) -> None:
    plain = load_job(write_jsonl(tmp_path / "a.jsonl", rows_of(30)))
    text = "\r\n".join(json.dumps(row) for row in rows_of(30)).replace("\r\n", "\r\n\r\n", 1)
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_job(tmp_path / "b.jsonl").hashes() == plain.hashes()
    table = as_csv(rows_of(30), ",").replace("\n", "\r\n")
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    assert load_job(tmp_path / "c.csv").hashes() == plain.hashes()


def test_lines_are_whole_across_read_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows_of(50, prefix="日本"))
    expected = load_job(path).hashes()
    monkeypatch.setattr(readers, "CHUNK_BYTES", 7)
    assert load_job(path).hashes() == expected


def test_csv_quotes_and_tsv_stray_quotes(tmp_path: Path) -> None:
    body = "".join(f"ask {i},red\n" for i in range(20)) + '"one, ""two""\nthree",green\n' + 'last,"green"\n'
    (tmp_path / "a.csv").write_text("input,output\n" + body)
    assert 'one, "two"\nthree' in {e.input for e in all_rows(load_job(tmp_path / "a.csv", kind="transform"))}
    body = "".join(f"ask {i}\tred\n" for i in range(20)) + '"Hey, he said\tgreen\n' + '"a ""b"" c"\tgreen\n'
    (tmp_path / "a.tsv").write_text("input\toutput\n" + body)
    inputs = {e.input for e in all_rows(load_job(tmp_path / "a.tsv", kind="transform"))}
    assert {'"Hey, he said', 'a "b" c'} <= inputs


def test_the_name_is_that_of_the_file_without_its_type(tmp_path: Path) -> None:
    path = tmp_path / "intents.v1.2.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows_of(30)).encode()))
    assert load_job(path).name == "intents.v1.2"


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows_of(30)).encode()
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(data))
    assert len(all_rows(load_job(tmp_path / "a.jsonl"))) == 30
    (tmp_path / "b.jsonl.gz").write_bytes(data)
    assert "not gzip" in refused(tmp_path / "b.jsonl.gz")


# --- bad input: one line that says what, where and what to do


def with_bad_line(path: Path, line: bytes, at: int = 25) -> Path:
    lines = [json.dumps(row).encode() for row in rows_of(40)]
    lines[at - 1] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"input": "a", "output": "b"', "invalid JSON"),
        (b'{"input": "a", "output": "\xff"}', "invalid UTF-8 (0xff at byte 27)"),
        (b'["a", "b"]', "a JSON list, expected one object"),
        (b'{"input": "a"}', "no output"),
        (b'{"input": "a", "output": null}', "no output"),
        (b'{"input": "a", "output": "  "}', "no output"),
        (b'{"input": "a", "output": NaN}', "no output"),
        (b'{"input": "a", "output": ["x"]}', "holds a list, expected text; serialise"),
        (b'{"input": "a", "output": {"x": 1}}', "holds a dict, expected text; serialise"),
        (b'{"input": ["a"], "output": "x"}', "column 'input' holds a list"),
        (b'{"input": "a\\ud800", "output": "x"}', "lone surrogate"),
        (b'{"input": "", "output": "red"}', "empty input, which only a generate job may have"),
        (b'{"input": null, "output": "red"}', "empty input"),
        (b'{"output": "red"}', "empty input"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"input": "a", "output": ' + b"1" * 5000 + b"}", "invalid JSON"),
        (b'{"input": "a", "output": "red", "split": "holdout"}', "unknown split 'holdout'; expected train, valid"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = with_bad_line(tmp_path / "a.jsonl", line)
    message = refused(path, kind="classify")
    assert message.startswith(f"{path}, line 25: ")
    assert says in message
    assert len(message) < 400 + len(str(path))


def test_empty_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert "is empty" in refused(tmp_path / name)
    (tmp_path / "b.jsonl").write_text("\n\n  \n")
    assert "is empty" in refused(tmp_path / "b.jsonl")
    (tmp_path / "b.csv").write_text("input,output\n")
    assert "0 rows, at least 20" in refused(tmp_path / "b.csv")


def test_too_few_rows(tmp_path: Path) -> None:
    message = refused(write_jsonl(tmp_path / "a.jsonl", rows_of(3)))
    assert "3 rows, at least 20 are needed" in message
    assert "200" in message


def test_missing_columns_name_what_is_there_and_the_likeliest(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": "b", "extra": 1}] * 30)
    message = refused(path)
    assert "no column 'output'; found: text, label, extra; did you mean --output-column label?" in message
    assert "did you mean --input-column text?" in refused(path, output_column="label")
    assert "did you mean --output-column label?" in refused(path, input_column="text", output_column="lable")
    (tmp_path / "a.csv").write_text("input;output\n" + "a;b\n" * 30)
    assert "found: input;output" in refused(tmp_path / "a.csv")
    good = write_jsonl(tmp_path / "b.jsonl", rows_of(30))
    assert "no column 'refs'; found: input, output" in refused(good, references_column="refs")


def test_a_wrong_column_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist([{"text": "a", "label": "b"}] * 30), tmp_path / "a.parquet")
    assert "found: text, label; did you mean --output-column label?" in refused(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    assert "not a readable Parquet file" in refused(tmp_path / "b.parquet")


def test_a_line_of_200_mb_is_refused_without_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as stream:
        stream.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows_of(400)))
        stream.write(b'{"input": "')
        stream.truncate(200 * 2**20)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"input": "') + gzip.compress(b"a" * 2**20, 1) * 200)
    for file, line in ((path, 401), (packed, 1)):
        tracemalloc.start()
        message = refused(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert message.startswith(f"{file}, line {line}: longer than 16 MB")
        assert peak < 100 * 2**20


def test_a_csv_field_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("input,output\n" + "a,b\n" * 30 + '"a,b\n' + "a,b\n" * 30)
    assert refused(tmp_path / "a.csv").startswith(f"{tmp_path / 'a.csv'}, line 32: invalid CSV")
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 50)
    assert "line 32: invalid CSV (field larger than field limit" in refused(tmp_path / "a.csv")


def test_gzip_that_is_cut_off_damaged_or_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows_of(5000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    assert "cut off" in refused(tmp_path / "cut.jsonl.gz")
    (tmp_path / "bad.jsonl.gz").write_bytes(data[:200] + b"\x00\xff\x13" * 20 + data[260:])
    assert "damaged gzip" in refused(tmp_path / "bad.jsonl.gz")
    row = json.dumps(rows_of(1)[0]).encode() + b"\n"
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"\n" * 2**20 + row * 5000) * 4)
    monkeypatch.setattr(readers, "RATIO_FREE_BYTES", 2**19)
    assert "unpacks to more than 400 times its size" in refused(tmp_path / "bomb.jsonl.gz")
    monkeypatch.setattr(readers, "RATIO_FREE_BYTES", 2**40)
    monkeypatch.setattr(readers, "MAX_TOTAL_BYTES", 2**20)
    assert "GB of text" in refused(tmp_path / "bomb.jsonl.gz")


def test_what_is_no_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\x7fELF\x02\x01\x00\x00" * 100)
    assert "binary file" in refused(tmp_path / "a.jsonl")
    (tmp_path / "u.csv").write_bytes("input,output\n".encode("utf-16"))
    assert "UTF-16" in refused(tmp_path / "u.csv")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert "unknown file type '.xlsx'; accepted are .jsonl" in refused(tmp_path / "a.xlsx")
    (tmp_path / "a.parquet.gz").write_bytes(b"PK")
    assert "unknown file type '.parquet.gz'" in refused(tmp_path / "a.parquet.gz")
    (tmp_path / "plain").write_bytes(b"a")
    assert "no extension" in refused(tmp_path / "plain")
    assert "is a directory" in refused(tmp_path)
    (tmp_path / "array.json").write_text(json.dumps(rows_of(30), indent=1))
    assert "jq -c '.[]' array.json" in refused(tmp_path / "array.json")
    good = write_jsonl(tmp_path / "good.jsonl", rows_of(30))

    def denied(*_: Any, **__: Any) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "no permission to read it" in refused(good)


def test_ragged_and_doubled_columns(tmp_path: Path) -> None:
    for name, sep in (("a.csv", ","), ("a.tsv", "\t")):
        path = tmp_path / name
        path.write_text(f"input{sep}output\n" + f"a{sep}b\n" * 3 + f"a{sep}b{sep}c\n")
        assert refused(path).startswith(f"{path}, line 5: 3 fields, the header has 2")
        path.write_text(f"input{sep}input\n" + f"a{sep}b\n" * 3)
        assert "column 'input' appears twice" in refused(path)
    (tmp_path / "a.csv").write_text('input,output\n"x\ny",b\nlonely\n')
    assert ", line 4: 1 fields" in refused(tmp_path / "a.csv")


def test_a_missing_file_is_told_with_the_likeliest(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "intents.jsonl", rows_of(30))
    assert f"did you mean {tmp_path / 'intents.jsonl'}?" in refused(tmp_path / "intent.jsonl")
    assert "no such file; check the path" in refused("no/such/place")
    assert "is no file name" in refused("input " * 1000)


def test_a_missing_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("pyarrow", "datasets")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'smallfry[lab]'" in refused(tmp_path / "a.parquet")
    assert "pip install 'smallfry[hub]'" in refused("hf:owner/name")


def test_bad_options(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows_of(30))
    assert "unknown kind 'sort'; expected classify" in refused(path, kind="sort")
    assert "unknown metric 'f1'" in refused(path, metric="f1")
    assert "limit is 0" in refused(path, limit=0)
    with pytest.raises(SmallfryError, match="row 1: a str, expected a mapping"):
        job_from_rows(["a"])  # type: ignore[list-item]


# --- values


def test_numbers_and_booleans_become_text_with_a_note() -> None:
    rows = [{"input": i, "output": i % 2 == 0} for i in range(100, 140)]
    job = job_from_rows(rows)
    assert set(job.labels) == {"true", "false"}
    assert {"100", "139"} <= {e.input for e in all_rows(job)}
    assert "Column 'input': 40 numbers were read as text (row 1: '100')." in job.notes
    assert "Column 'output': 40 booleans were read as text (row 1: 'true')." in job.notes


def test_numpy_scalars_are_values_and_arrays_are_not() -> None:
    rows = [{"input": np.str_(f"q{i}"), "output": np.int64(i % 2)} for i in range(40)]
    job = job_from_rows(rows)
    assert job.labels == ("0", "1")
    assert {type(e.input) for e in all_rows(job)} == {str}
    with pytest.raises(SmallfryError, match="row 1: column 'output' holds a ndarray"):
        job_from_rows([{"input": "a", "output": np.zeros(2)}] * 40)


def test_where_keeps_rows_compared_as_lower_case_text(tmp_path: Path) -> None:
    rows = [{**row, "oos": i % 4 == 0, "lang": "EN"} for i, row in enumerate(rows_of(80))]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    job = load_job(path, where={"oos": "False", "lang": "en"})
    assert len(all_rows(job)) == 60
    assert "Only rows with oos=False and lang=en were kept: 60 of 80." in job.notes
    assert "no column 'ooz'; found: input, output, oos, lang; did you mean --where oos?" in refused(
        path, where={"ooz": "1"}
    )
    message = refused(path, where={"oos": "maybe"})
    assert "--where oos=maybe keeps none of 80 rows; oos has 'false' (60), 'true' (20)" in message
    assert "20 rows after --where" not in message
    few = write_jsonl(tmp_path / "b.jsonl", [{**row, "k": i < 5} for i, row in enumerate(rows_of(80))])
    assert "5 rows after --where" in refused(few, where={"k": "true"})


@pytest.mark.parametrize("others", [["gold", "red", "gold", None], "gold|||red|||gold"])
def test_references_are_further_accepted_outputs(others: Any) -> None:
    rows = [{**row, "output": "red", "also": others} for row in rows_of(60)]
    rows[0] = {"input": "x", "output": "blue", "also": None}
    job = job_from_rows(rows, references_column="also", kind="transform")
    examples = {e.input: e for e in all_rows(job)}
    assert examples["x"].references == ()
    assert examples["ask word1 please"].references == ("red", "gold")
    assert examples["ask word1 please"].accepted == ("red", "gold")


def test_signs_and_marks_tell_texts_apart() -> None:
    from smallfry.loading.splitting import normalise

    for one, other in (("किला", "कुल"), ("good 👍", "good 👎"), ("C", "C++"), ("C#", "C++"), ("3+4", "3-4")):
        assert normalise(one) != normalise(other)
    for one, other in (("Hello, World!", "hello world"), ("a_b", "A b"), ("café!", "CAFÉ"), ("#tag", "tag")):
        assert normalise(one) == normalise(other)


def test_inputs_that_come_too_often_for_a_test_are_told() -> None:
    rows = [{"input": "the same", "output": "a"}] * 60 + [{"input": f"other {i}", "output": "b"} for i in range(60)]
    job = Job.from_rows(rows, name="often")
    assert any("60 rows repeat an input so often" in note for note in job.notes)
    assert "the same" not in {row.input for row in job.test}


def test_a_parquet_file_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr("smallfry.loading.readers.RATIO_FREE_BYTES", 1 << 20)
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"input": ["a" * (1 << 23)], "output": ["b"]}), path, compression="zstd")
    with pytest.raises(SmallfryError, match="unpacks to more than"):
        Job.load(path)
    monkeypatch.setattr("smallfry.loading.readers.MAX_TOTAL_BYTES", 1 << 22)
    pq.write_table(pa.table({"input": ["a" * 9000] * 2000, "output": ["b"] * 2000}), path)  # a dictionary of one
    with pytest.raises(SmallfryError, match="holds more than"):
        Job.load(path)
