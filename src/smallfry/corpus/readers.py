"""Documents out of text files, JSON Lines, Parquet files and the hub, one after another: no corpus is held in memory.

Hostile bytes do not stop a corpus: what is no UTF-8 becomes the replacement character and is counted, a broken row is
left out and counted, and only a file that is broken throughout is an error.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from smallfry.characters import whole_text
from smallfry.corpus.hub import hub_rows
from smallfry.errors import SmallfryError
from smallfry.loading.readers import (
    CHUNK_BYTES,
    MAX_GZIP_RATIO,
    MAX_LINE_BYTES,
    PARQUET_ROWS,
    RATIO_FREE_BYTES,
    refuse_parquet_bomb,
)

SECTION = 20_000
"""Characters a document has at most: a longer one is cut at a paragraph, a line or a sentence into several."""
END_OF_TEXT = "<|endoftext|>"
KINDS: dict[str, Literal["text", "jsonl", "parquet"]] = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
ACCEPTED = ".txt, .md, .jsonl (each also with .gz), .parquet, a folder of these, or hf:owner/name"

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_BLANKS = re.compile(r"\n(?:[ \t]*\n){2,}")
_MANY_BROKEN, _BROKEN_SHARE = 10, 0.01
_REPLACEMENT = "\ufffd"


class Section(NamedTuple):
    """A document, or a part of a long one.

    Args:
        text: What it says.
        begins: Whether a document begins here; else it goes on with the one before.
    """

    text: str
    begins: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    r"""How files are cut into documents.

    Args:
        column: The column of JSON Lines, Parquet and hub rows that holds the text.
        separator: What stands between two documents of a text file: ``auto`` (``<|endoftext|>`` where the file has it,
            else two or more blank lines, else nothing), ``blank`` (any run of blank lines), ``file`` (a file is one
            document), or a text of one's own, in which ``\n`` and ``\t`` are a line break and a tab.
    """

    column: str = "text"
    separator: str = "auto"


def kind_of(path: Path) -> Literal["text", "jsonl", "parquet"] | None:
    """What a file's name promises, or None where it is nothing that can be read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = KINDS.get((suffixes[:-1] if packed else suffixes)[-1:][0]) if suffixes[packed:] else None
    return None if packed and kind == "parquet" else kind


def file_documents(path: Path, reading: Reading, tally: Counter[str]) -> Iterator[Section]:
    """The documents of one file, stripped, empty ones left out, long ones cut.

    Args:
        path: A file whose `kind_of` is known.
        reading: How it is cut.
        tally: Counts ``replaced characters``, ``broken rows``, ``rows without text`` and ``cuts`` in long documents.

    Raises:
        SmallfryError: It cannot be read, lacks the column, or is broken throughout.
    """
    kind = kind_of(path)
    if kind == "text":
        yield from _text_sections(path, reading.separator, tally)
        return
    if kind == "jsonl":
        pieces = _column(str(path), "line", _json_rows(path, tally), reading.column, tally)
    else:
        pieces = _column(str(path), "row", _parquet_rows(path, reading.column, tally), reading.column, tally)
    for text in pieces:
        yield from _sections(text, tally)


def hub_documents(source: str, reading: Reading, tally: Counter[str], revision: str | None = None) -> Iterator[Section]:
    """The documents of a data set of the Hugging Face hub, streamed.

    Args:
        source: ``hf:owner/name``, with ``:config``, ``@split`` (default: train) and ``#revision`` where needed.
        reading: Names the column.
        tally: As in `file_documents`.
        revision: The commit that is read; None is the one that ``source`` names, or the latest.

    Raises:
        SmallfryError: ``datasets`` is missing, the data set cannot be had, or it lacks the column.
    """
    for text in _column(source, "row", hub_rows(source, revision), reading.column, tally):
        yield from _sections(text, tally)


# ---- documents ------------------------------------------------------------------------------------------------------


def _sections(text: str, tally: Counter[str], begins: bool = True) -> Iterator[Section]:
    """The sections of a document, or of a part of it in which it does not begin."""
    whole = whole_text(text)
    if whole is not text:
        tally["replaced characters"] += whole.count(_REPLACEMENT) - text.count(_REPLACEMENT)
    rest = whole.replace("\r\n", "\n").replace("\r", "\n").strip()
    while rest:
        section, rest = cut(rest)
        if rest:
            tally["cuts"] += 1
        yield Section(section, begins)
        begins = False


def cut(text: str, most: int = SECTION) -> tuple[str, str]:
    """A section of at most ``most`` characters and the rest, both stripped; cut in the section's second half."""
    if len(text) <= most:
        return text, ""
    for mark, keep in (("\n\n", 0), ("\n", 0), (". ", 1), (" ", 0)):
        at = text.rfind(mark, most // 2, most)
        if at > 0:
            return text[: at + keep].rstrip(), text[at + keep :].lstrip()
    return text[:most], text[most:].lstrip()


def _column(label: str, unit: str, rows: Iterable[tuple[int, Any]], column: str, tally: Counter[str]) -> Iterator[str]:
    """One column of rows; the first row must have it, later ones may lack it."""
    first = True
    for number, row in rows:
        value = row.get(column)
        if first and column not in row:
            columns = ", ".join(map(str, list(row)[:12]))
            raise SmallfryError(
                f"{label}, {unit} {number}: no column {column!r}; found: {columns}; name the column with --column"
            )
        first = False
        if isinstance(value, str) and value and not value.isspace():
            yield value
        else:
            tally["rows without text"] += 1


# ---- bytes ----------------------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes after decompression; gzip is known by its first bytes, whatever the name says."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw  # type: ignore[assignment]
            total = 0
            while chunk := stream.read(CHUNK_BYTES):
                if not total:
                    _check_start(path, chunk)
                total += len(chunk)
                if packed and total > RATIO_FREE_BYTES and total > MAX_GZIP_RATIO * raw.tell():
                    raise SmallfryError(
                        f"{path}: unpacks to more than {MAX_GZIP_RATIO} times its size, which text does not; "
                        "if it is meant so, unpack it and give the plain file"
                    )
                yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SmallfryError(f"{path}: damaged gzip ({error}); copy it again") from None
    except OSError as error:
        raise SmallfryError(f"{path}: cannot be read ({error.strerror or error}); check file and disk") from None


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SmallfryError(f"{path}: is UTF-16, expected UTF-8; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if b"\0" in start[:8192]:
        raise SmallfryError(f"{path}: is a binary file, expected UTF-8 text; accepted are {ACCEPTED}")


def _text_sections(path: Path, separator: str, tally: Counter[str]) -> Iterator[Section]:
    """A text file's documents in sections; of one that does not end soon, they come before its end is read."""
    pattern: re.Pattern[str] | None = None
    buffer = ""
    begins = True  # whether a document begins where the buffer does
    for number, piece in enumerate(_decoded(path, tally)):
        if not number:
            pattern = separator_pattern(separator, piece)
        buffer += piece
        start = 0
        # A match that ends where the buffer does may go on in the next piece.
        while pattern and (found := pattern.search(buffer, start)) and found.end() < len(buffer):
            yield from _sections(buffer[start : found.start()], tally, begins)
            start, begins = found.end(), True
        buffer = buffer[start:]
        while len(buffer) > 2 * SECTION:
            part, buffer = cut(buffer)
            tally["cuts"] += 1
            yield from _sections(part, tally, begins)
            begins = begins and not part.strip()
    for text in pattern.split(buffer) if pattern else (buffer,):
        yield from _sections(text, tally, begins)
        begins = True


def is_one_document(path: Path, reading: Reading) -> bool:
    """Whether a text file is one document from end to end; its first megabyte tells."""
    if kind_of(path) != "text":
        return False
    with contextlib.closing(_decoded(path, Counter())) as pieces:
        return separator_pattern(reading.separator, next(pieces, "")) is None


def separator_pattern(separator: str, start: str) -> re.Pattern[str] | None:
    """What cuts a text file into documents; None where it is one.

    Args:
        separator: As in `Reading`.
        start: The file's first megabyte, on which ``auto`` decides.

    Raises:
        SmallfryError: The separator is empty.
    """
    if separator == "auto":
        if END_OF_TEXT in start:
            return re.compile(re.escape(END_OF_TEXT))
        return _BLANKS if _BLANKS.search(start) else None
    if separator == "blank":
        return _BLANK
    if separator == "file":
        return None
    literal = separator.replace("\\n", "\n").replace("\\t", "\t")
    if not literal:
        raise SmallfryError("--separator: is empty; give a text, or auto, blank or file")
    return re.compile(re.escape(literal))


def _decoded(path: Path, tally: Counter[str]) -> Generator[str]:
    """Text with every line end as a line feed; bytes that are no UTF-8 become U+FFFD and are counted."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    for number, chunk in enumerate(_chunks(path)):
        data = chunk.removeprefix(codecs.BOM_UTF8) if not number else chunk
        text = decoder.decode(data)
        if _REPLACEMENT in text:
            tally["replaced characters"] += max(0, text.count(_REPLACEMENT) - data.count(b"\xef\xbf\xbd"))
        if text:
            yield text
    if end := decoder.decode(b"", final=True):
        tally["replaced characters"] += end.count(_REPLACEMENT)
        yield end


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number, rest = 0, b""
    for chunk in _chunks(path):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, line
        if len(rest) > MAX_LINE_BYTES:
            raise SmallfryError(
                f"{path}, line {number + 1}: longer than {MAX_LINE_BYTES / 2**20:g} MB; expected one document a line: "
                "put line breaks between the rows"
            )
    if rest:
        yield number + 1, rest


def _json_rows(path: Path, tally: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = broken = 0
    first = ""
    for number, line in _lines(path):
        text = line.decode("utf-8", "replace").removeprefix("\ufeff")
        if not text or text.isspace():
            continue
        try:
            row = json.loads(text)
            problem = "" if isinstance(row, dict) else f"a JSON {type(row).__name__}, expected an object"
        except (ValueError, RecursionError) as error:
            problem = f"invalid JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else "invalid JSON"
        if problem:
            broken += 1
            tally["broken rows"] += 1
            first = first or f"{path}, line {number}: {problem}"
            if broken >= _MANY_BROKEN and broken > _BROKEN_SHARE * (rows + broken):
                raise _broken(first, broken, rows + broken)
            continue
        if _REPLACEMENT in text:
            tally["replaced characters"] += max(0, text.count(_REPLACEMENT) - line.count(b"\xef\xbf\xbd"))
        rows += 1
        yield number, row
    if first and not rows:
        raise _broken(first, broken, broken)


def _broken(first: str, broken: int, rows: int) -> SmallfryError:
    return SmallfryError(
        f'{first}; so are {broken:,} of the first {rows:,} rows: expected one object a line like {{"text": "..."}}'
    )


def _parquet_rows(path: Path, column: str, tally: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SmallfryError(f"{path}: reading Parquet needs pyarrow; run: pip install 'smallfry[lab]'") from None
    number = 0
    try:
        file = pq.ParquetFile(path)
        refuse_parquet_bomb(path, file.metadata)
        names: list[str] = file.schema_arrow.names
        # At least one column, so that a wrong name is told by the row that lacks it.
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[column] if column in names else None):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:  # bytes that are no UTF-8 in a column of text
                rows = [{column: text} for text in _replaced(batch.column(column), tally)]
            for row in rows:
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise SmallfryError(f"{path}, row {number + 1}: not readable as Parquet ({reason}); copy it again") from None


def _replaced(column: Any, tally: Counter[str]) -> Iterator[str | None]:
    """The texts of an Arrow column whose bytes are not all UTF-8."""
    import pyarrow as pa

    for data in column.cast(pa.large_binary() if column.type == pa.large_string() else pa.binary()).to_pylist():
        text = None if data is None else data.decode("utf-8", "replace")
        if text is not None and _REPLACEMENT in text:
            tally["replaced characters"] += max(0, text.count(_REPLACEMENT) - data.count(b"\xef\xbf\xbd"))
        yield text
