"""Data sets of the Hugging Face hub as rows, through the ``datasets`` library."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.loading.readers import Table
from smallfry.loading.splitting import SPLIT_OF_NAME


def hub_table(source: str, output_column: str, wanted: Collection[str]) -> Table:
    """A hub data set as a :class:`Table` with a ``split`` column made of its split names.

    Class labels become their names. A split whose labels are hidden (all -1) is left out, as are splits whose name
    says neither train, valid nor test; ``notes`` names both.

    Args:
        source: ``hf:owner/name`` or ``hf:owner/name:config``.
        output_column: The column that holds the answers.
        wanted: Columns that are needed.

    Raises:
        SmallfryError: The library is missing, the hub cannot be reached, or the data set or its config is unknown.
    """
    name, _, config = source.removeprefix("hf:").partition(":")
    if not name or name.count("/") > 1 or not all(name.split("/")):
        raise SmallfryError(f"{source}: expected hf:owner/name or hf:owner/name:config")
    try:
        import datasets
    except ImportError as error:
        raise SmallfryError(f"{source}: hub data needs datasets; run: pip install 'smallfry[hub]'") from error
    try:
        found = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library raises its own, the hub client's, fsspec's and built-in exceptions
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SmallfryError(
            f"{source}: could not be loaded ({reason}); check the name, the config "
            "(hf:owner/name:config) and the network"
        ) from error

    table = Table(source, iter(()))
    parts: dict[str, Any] = {}
    left_out = []
    for split, data in found.items():
        if SPLIT_OF_NAME.get(split.lower()) is None:
            left_out.append(split)
        elif _names(data, output_column) and set(data[output_column]) == {-1}:
            table.notes.append(f"The hub's split {split!r} was left out because its labels are hidden.")
        else:
            parts[split] = data
            table.columns.update(dict.fromkeys(data.column_names))
    if left_out:
        table.notes.append(f"Hub splits that are neither train, valid nor test were left out: {', '.join(left_out)}.")
    if not parts:
        raise SmallfryError(
            f"{source}: no usable split among {', '.join(found)}; expected train, validation or test with labels: "
            "export the split you mean to a .parquet file"
        )
    table.columns["split"] = None
    table.rows = _rows(parts, wanted)
    return table


def _names(data: Any, column: str) -> list[str]:
    """The label names of a ``ClassLabel`` column, empty for any other."""
    return list(getattr(data.features.get(column), "names", None) or ())


def _rows(parts: dict[str, Any], wanted: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for split, data in parts.items():
        # Only what is needed: images and sounds beside the text would be decoded row by row.
        chosen = [column for column in data.column_names if column in wanted] or data.column_names[:1]
        labels = {column: names for column in chosen if (names := _names(data, column))}
        for row in data.select_columns(chosen):
            number += 1
            for column, names in labels.items():
                value = row[column]
                row[column] = names[value] if isinstance(value, int) and 0 <= value < len(names) else None
            yield number, {**row, "split": split}
