"""Files as numbered rows: JSON Lines, CSV, TSV and Parquet, plain or gzipped, with limits on what is held in memory."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from smallfry.errors import SmallfryError

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is refused while it is being read, so one runaway line cannot fill the memory."""
PARQUET_ROWS = 256  # at a time: one long text that a dictionary repeats takes as much memory as so many
MAX_TOTAL_BYTES = 4 * 2**30
"""All of a file's text, after decompression."""
MAX_GZIP_RATIO = 400
"""Text compresses 3 to 50 times; deflate can reach 1,032 times, which only a decompression bomb does."""
RATIO_FREE_BYTES = 16 * 2**20
"""The ratio is judged only beyond this much text: a small file of one repeated row is no bomb."""
CHUNK_BYTES = 2**20

ACCEPTED = ".jsonl, .json (one object a line), .csv, .tsv, each also with .gz, and .parquet"


@dataclass
class Table:
    """Rows of a source as they are read, and how to name a place in it.

    Args:
        label: The source as the user wrote it, for messages.
        rows: Pairs of a 1-based number and a mapping from column to value.
        unit: What the numbers count: ``line`` of a text file or ``row``.
        columns: Every column met so far, in order; a JSON Lines reader adds to it as it goes.
        notes: Sentences for ``Job.notes``.
    """

    label: str
    rows: Iterator[tuple[int, dict[str, Any]]]
    unit: str = "row"
    columns: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def at(self, number: int) -> str:
        """Where row ``number`` is, as the beginning of an error message."""
        return f"{self.label}, {self.unit} {number}"


def file_format(path: Path) -> str:
    """The format a file name promises: ``jsonl``, ``csv``, ``tsv`` or ``parquet``.

    Raises:
        SmallfryError: The extension is none of those that can be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if packed else suffixes)[-1:]
    formats = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
    if not packed:
        formats[".parquet"] = "parquet"
    found = formats.get(suffix[0]) if suffix else None
    if found is None:
        ending = "".join(path.suffixes[-2:] if packed else path.suffixes[-1:])
        what = f"unknown file type {ending!r}" if ending else "the file name has no extension"
        raise SmallfryError(f"{path}: {what}; accepted are {ACCEPTED}: convert or rename the file")
    return found


def open_table(path: Path, wanted: Collection[str]) -> Table:
    """A file as a :class:`Table`; rows are read lazily, in bounded pieces.

    Args:
        path: The file; its name says its format.
        wanted: Columns that are needed, so that a wide Parquet file is not read whole.

    Raises:
        SmallfryError: A directory, an unreadable or empty file, an unknown extension; while iterating also invalid
            UTF-8, JSON or CSV, a line over ``MAX_LINE_BYTES``, a truncated or hostile gzip stream.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:4]
        example = f", for example {path / inside[0]}" if inside else ""
        raise SmallfryError(f"{path}: is a directory, expected a file; name one file{example}")
    kind = file_format(path)
    if kind == "parquet":
        return _parquet(path, wanted)
    table = Table(str(path), iter(()), unit="line")
    read: dict[str, Callable[[Path, Table], Iterator[tuple[int, dict[str, Any]]]]]
    read = {"jsonl": _json_rows, "csv": _csv_rows, "tsv": _tsv_rows}
    table.rows = read[kind](path, table)
    return table


def _unreadable(path: Path, error: OSError) -> SmallfryError:
    if isinstance(error, PermissionError):
        return SmallfryError(f"{path}: no permission to read it; make it readable (chmod +r) or copy it elsewhere")
    return SmallfryError(f"{path}: cannot be read ({error.strerror or error}); check the file and the disk")


def file_bytes(path: Path) -> Iterator[bytes]:
    """The file's bytes after decompression; gzip is known by its first bytes, whatever the name says."""
    try:
        with path.open("rb") as raw:
            start = raw.peek(2)[:2]
            packed = start == b"\x1f\x8b"
            if path.suffix.lower() == ".gz" and start and not packed:
                raise SmallfryError(f"{path}: is not gzip although its name ends in .gz; drop the .gz or compress it")
            yield from _limited(path, raw, packed=packed)
    except OSError as error:
        raise _unreadable(path, error) from error


def _limited(path: Path, raw: IO[bytes], *, packed: bool) -> Iterator[bytes]:
    stream: IO[bytes] = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw  # type: ignore[assignment]
    total = 0
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except EOFError as error:
            raise SmallfryError(f"{path}: the gzip stream is cut off after {total:,} bytes; copy it again") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise SmallfryError(f"{path}: damaged gzip after {total:,} bytes ({error}); copy it again") from error
        if not chunk:
            return
        total += len(chunk)
        if packed and total > RATIO_FREE_BYTES and total > MAX_GZIP_RATIO * raw.tell():
            raise SmallfryError(
                f"{path}: unpacks to more than {MAX_GZIP_RATIO} times its size, which text does not; "
                "if it is meant so, unpack it and give the plain file"
            )
        if total > MAX_TOTAL_BYTES:
            raise SmallfryError(
                f"{path}: holds more than {MAX_TOTAL_BYTES / 2**30:g} GB of text; give a part of it (head -n 1000000)"
            )
        yield chunk


def _check_start(path: Path, start: bytes) -> bytes:
    """Refuse what is no UTF-8 text; drop a byte order mark."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SmallfryError(f"{path}: is UTF-16, expected UTF-8; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if b"\0" in start[:8192]:
        raise SmallfryError(f"{path}: is a binary file, expected UTF-8 text; accepted are {ACCEPTED}")
    return start.removeprefix(b"\xef\xbb\xbf")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their end (LF or CRLF), never holding more than one line and one chunk."""
    number = 0
    rest = b""
    for index, piece in enumerate(file_bytes(path)):
        data = rest + (_check_start(path, piece) if index == 0 else piece)
        *lines, rest = data.split(b"\n")
        for line in lines:
            number += 1
            yield number, _decode(path, number, line)
        if len(rest) > MAX_LINE_BYTES:
            raise SmallfryError(
                f"{path}, line {number + 1}: longer than {MAX_LINE_BYTES / 2**20:g} MB; "
                "expected one example a line: shorten it or put line breaks between the rows"
            )
    if rest:
        yield number + 1, _decode(path, number + 1, rest)


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise SmallfryError(
            f"{path}, line {number}: invalid UTF-8 (0x{byte:02x} at byte {error.start + 1}); "
            "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)"
        ) from error


def _empty(path: Path) -> SmallfryError:
    return SmallfryError(f"{path}: is empty, expected one example a line; check how the file was written")


def _json_rows(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    seen = False
    for number, line in _lines(path):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if (not seen and line.lstrip().startswith("[")) or line.strip() in {"{", "["}:
                raise SmallfryError(
                    f"{path}, line {number}: JSON spread over several lines, expected one object a line; "
                    f"convert it: jq -c '.[]' {path.name} > {path.stem}.jsonl"
                ) from error
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise SmallfryError(
                f'{path}, line {number}: invalid JSON ({reason}); expected one object a line like {{"input": "...", '
                '"output": "..."}'
            ) from error
        if not isinstance(row, dict):
            raise SmallfryError(
                f"{path}, line {number}: a JSON {type(row).__name__}, expected one object a line "
                '({"input": "...", "output": "..."}); for one big array: jq -c \'.[]\''
            )
        seen = True
        table.columns.update(dict.fromkeys(row))
        yield number, row
    if not seen:
        raise _empty(path)


def _header(path: Path, names: list[str], table: Table) -> list[str]:
    names = [name.strip() for name in names]
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise SmallfryError(f"{path}, line 1: column {doubles[0]!r} appears twice; give every column its own name")
    table.columns.update(dict.fromkeys(names))
    return names


def _ragged(path: Path, number: int, found: int, expected: int, remedy: str) -> SmallfryError:
    return SmallfryError(f"{path}, line {number}: {found} fields, the header has {expected}; {remedy}")


def _csv_rows(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """RFC 4180; quoted fields may hold line breaks, so a row's number is that of its first line."""
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    names: list[str] = []
    while True:
        start = reader.line_num + 1
        # The limit is global to the csv module: raised for one row at a time, and put back.
        before = csv.field_size_limit(MAX_LINE_BYTES)
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise SmallfryError(
                f"{path}, line {start}: invalid CSV ({error}); close every quote and double the quotes inside a field"
            ) from error
        finally:
            csv.field_size_limit(before)
        if fields is None:
            break
        if not any(fields):
            continue
        if not names:
            names = _header(path, fields, table)
            continue
        if len(fields) != len(names):
            raise _ragged(path, start, len(fields), len(names), "quote fields that hold a comma")
        yield start, dict(zip(names, fields, strict=True))
    if not names:
        raise _empty(path)


def _tsv_rows(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """One row a line. A field is unquoted only when quotes enclose it properly: text with stray quotes is common."""
    names: list[str] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        fields = [_unquote(part) for part in line.split("\t")]
        if not names:
            names = _header(path, fields, table)
            continue
        if len(fields) != len(names):
            raise _ragged(path, number, len(fields), len(names), "write tabs and line breaks inside a field as spaces")
        yield number, dict(zip(names, fields, strict=True))
    if not names:
        raise _empty(path)


def _unquote(part: str) -> str:
    if len(part) < 2 or part[0] != '"' or part[-1] != '"':
        return part
    inner = part[1:-1]
    return part if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _parquet(path: Path, wanted: Collection[str]) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SmallfryError(f"{path}: reading Parquet needs pyarrow; run: pip install 'smallfry[lab]'") from error
    try:
        with path.open("rb") as stream:
            if not stream.read(1):
                raise _empty(path)
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise SmallfryError(f"{path}: is not a readable Parquet file ({_first_line(error)}); write it again") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    names: list[str] = file.schema_arrow.names
    table = Table(str(path), iter(()), columns=dict.fromkeys(names))

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            # At least one column, so that a wrong column name is told by the row that lacks it.
            chosen = [name for name in names if name in wanted] or names[:1]
            refuse_parquet_bomb(path, file.metadata)
            total = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=chosen):
                total += batch.nbytes
                if total > MAX_TOTAL_BYTES:
                    raise SmallfryError(f"{path}: holds more than {MAX_TOTAL_BYTES / 2**30:g} GB; give a part of it")
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise SmallfryError(
                f"{table.at(number + 1)}: damaged Parquet ({_first_line(error)}); copy it again"
            ) from error

    table.rows = rows()
    return table


def refuse_parquet_bomb(path: Path, metadata: Any) -> None:
    """Refuse a Parquet file whose pages unpack to far more than text does.

    Raises:
        SmallfryError: They do.
    """
    size = path.stat().st_size
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if unpacked > RATIO_FREE_BYTES and unpacked > MAX_GZIP_RATIO * size:
        raise SmallfryError(
            f"{path}: unpacks to more than {MAX_GZIP_RATIO} times its size, which text does not; write it again "
            "uncompressed if it is meant so"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
