"""From a table's rows to texts: finding the columns, converting values, keeping what ``where`` asks for."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smallfry.errors import SmallfryError
from smallfry.job import SplitName
from smallfry.loading.readers import MAX_LINE_BYTES, Table

REFERENCE_SEPARATOR = "|||"
# What other data sets call these columns; only ever proposed, never used unasked.
_USUAL = {
    "input": ("text", "sentence", "question", "prompt", "query", "utterance", "instruction", "source", "message"),
    "output": ("label", "target", "answer", "completion", "response", "category", "intent", "class", "text"),
}


class Row(NamedTuple):
    """One row as text: ``others`` are further accepted outputs, ``number`` its place in the source."""

    input: str
    output: str
    others: tuple[str, ...]
    split: SplitName | None
    number: int


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; an empty ``input`` says that the job has no input."""

    input: str = "input"
    output: str = "output"
    references: str | None = None
    split: str = "split"

    def wanted(self, where: Mapping[str, str]) -> set[str]:
        """Every column that has to be read."""
        return {name for name in (self.input, self.output, self.references, self.split, *where) if name}


@dataclass
class _Converter:
    """Values to texts, counting what had to be converted."""

    table: Table
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def text(self, value: Any, column: str, number: int) -> str:
        """The value as text; null and NaN become the empty text."""
        if type(value) is not str:
            if value is None or (isinstance(value, float) and math.isnan(value)):
                return ""
            value = self._converted(value, column, number)
        if not value.isascii():
            self._check(value, column, number)
        elif len(value) > MAX_LINE_BYTES:
            raise self._too_long(column, number)
        return str(value)

    def _converted(self, value: Any, column: str, number: int) -> str:
        if getattr(value, "shape", None) == ():  # a number or text of numpy's own types
            value = value.item()
            if isinstance(value, str):
                return value
        if isinstance(value, list | tuple | dict | set | bytes | bytearray) or hasattr(value, "shape"):
            raise SmallfryError(
                f"{self.table.at(number)}: column {column!r} holds a {type(value).__name__}, expected text; "
                "serialise it yourself, for example with json.dumps"
            )
        text = str(value).lower() if isinstance(value, bool) else str(value)
        what = "booleans" if isinstance(value, bool) else "numbers" if isinstance(value, int | float) else "values"
        self.counts[column, what] += 1
        self.first.setdefault((column, what), f"{self.table.unit} {number}: {text[:40]!r}")
        return text

    def _check(self, text: str, column: str, number: int) -> None:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise SmallfryError(
                f"{self.table.at(number)}: column {column!r} holds half a character (a lone surrogate, "
                f"\\u{ord(text[error.start]):04x}); write whole characters or remove it"
            ) from error
        if size > MAX_LINE_BYTES:
            raise self._too_long(column, number)

    def _too_long(self, column: str, number: int) -> SmallfryError:
        return SmallfryError(
            f"{self.table.at(number)}: column {column!r} is longer than {MAX_LINE_BYTES / 2**20:g} MB; shorten it"
        )

    def notes(self) -> list[str]:
        return [
            f"Column {column!r}: {count:,} {what} were read as text ({self.first[column, what]})."
            for (column, what), count in self.counts.items()
        ]


def missing_column(table: Table, column: str, role: str, option: str) -> SmallfryError:
    """The error for a column that is not there, with what is there and the likeliest meant."""
    found = [" ".join(str(name).split())[:40] for name in table.columns]
    shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    near = difflib.get_close_matches(column.lower(), [name.lower() for name in found], n=1)
    guess = next((name for name in found if near and name.lower() == near[0]), None)
    guess = guess or next((name for usual in _USUAL.get(role, ()) for name in found if name.lower() == usual), None)
    remedy = f"did you mean {option} {guess}?" if guess else f"name the column with {option}"
    if role == "input":
        remedy += " (or '' when the job has no input)"
    return SmallfryError(f"{table.label}: no column {column!r}; found: {shown}; {remedy}")


def collect(
    table: Table, columns: Columns, where: Mapping[str, str], splits: Mapping[str, SplitName]
) -> tuple[list[Row], list[str]]:
    """Read a table to its end.

    Args:
        table: The rows.
        columns: Which columns hold input, output, references and split.
        where: Keep only rows whose column equals the value, compared as lower-case text.
        splits: Which split a name in the split column means.

    Returns:
        The rows and one sentence for each thing that was converted or left out.

    Raises:
        SmallfryError: A missing column, a row without output, a value that is no text, an unknown split, or nothing
            left after ``where``.
    """
    tests = {column: str(value).lower() for column, value in where.items()}
    values: dict[str, Counter[str]] = {column: Counter() for column in tests}
    converter = _Converter(table)
    rows: list[Row] = []
    total = 0
    for number, raw in table.rows:
        total += 1
        if tests and not _keeps(raw, tests, values):
            continue
        if columns.output not in raw and not rows:
            raise missing_column(table, columns.output, "output", "--output-column")
        if columns.input and columns.input not in raw and not rows:
            raise missing_column(table, columns.input, "input", "--input-column")
        output = converter.text(raw.get(columns.output), columns.output, number)
        if not output or output.isspace():
            raise SmallfryError(
                f"{table.at(number)}: no output (column {columns.output!r} is missing, null or empty); "
                "give every row an answer or delete the row"
            )
        text = converter.text(raw.get(columns.input), columns.input, number) if columns.input else ""
        others = _references(raw, columns.references, converter, number, output)
        rows.append(Row(text, output, others, _split(raw, columns.split, table, number, splits), number))
    _check_columns(table, columns, tests, values, total, rows)
    notes = converter.notes()
    if tests:
        asked = " and ".join(f"{column}={value}" for column, value in where.items())
        notes.insert(0, f"Only rows with {asked} were kept: {len(rows):,} of {total:,}.")
    return rows, notes


def _keeps(raw: Mapping[str, Any], tests: Mapping[str, str], values: dict[str, Counter[str]]) -> bool:
    keep = True
    for column, wanted in tests.items():
        value = str(raw.get(column, "")).lower()
        # Only for the message: an id column must not be remembered whole.
        if value in values[column] or len(values[column]) < 1000:
            values[column][value] += 1
        keep = keep and column in raw and value == wanted
    return keep


def _check_columns(
    table: Table,
    columns: Columns,
    tests: Mapping[str, str],
    values: Mapping[str, Counter[str]],
    total: int,
    rows: list[Row],
) -> None:
    for column in tests:
        if total and column not in table.columns:
            raise missing_column(table, column, "where", "--where")
    if total and not rows:
        column, wanted = next(iter(tests.items()))
        common = ", ".join(f"{value[:40]!r} ({count:,})" for value, count in values[column].most_common(5))
        raise SmallfryError(
            f"{table.label}: --where {column}={wanted} keeps none of {total:,} rows; {column} has {common}"
        )
    if rows and columns.references and columns.references not in table.columns:
        raise missing_column(table, columns.references, "references", "--references-column")
    if rows and len({row.split is None for row in rows}) > 1:
        number = next(row.number for row in rows if row.split is None)
        raise SmallfryError(
            f"{table.at(number)}: no split although other rows have one; write train, valid or test in every row"
        )


def _references(
    raw: Mapping[str, Any], column: str | None, converter: _Converter, number: int, output: str
) -> tuple[str, ...]:
    """Further accepted outputs, without the preferred one and without doubles."""
    value = raw.get(column) if column else None
    if column is None or value is None:
        return ()
    parts: Iterable[Any] = value
    if isinstance(value, str):
        parts = value.split(REFERENCE_SEPARATOR)
    elif not isinstance(value, list | tuple):
        parts = [value]
    texts = (converter.text(part, column, number) for part in parts)
    return tuple(dict.fromkeys(text for text in texts if text.strip() and text != output))


def _split(
    raw: Mapping[str, Any], column: str, table: Table, number: int, splits: Mapping[str, SplitName]
) -> SplitName | None:
    value = raw.get(column)
    if value is None or value == "":
        return None
    split = splits.get(str(value).strip().lower())
    if split is None:
        raise SmallfryError(
            f"{table.at(number)}: unknown split {str(value)[:40]!r}; expected train, valid (dev, val, validation, "
            "eval) or test: correct it, or rename the column if it means something else"
        )
    return split
