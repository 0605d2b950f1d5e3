"""Outputs that are labels plus spans of the input, found from ``input`` and ``output`` alone.

Intent-and-slot lists (``PlayMusic | artist = westbam ; service = google music``), JSON objects whose string leaves are
copied from the input, and tag sequences (one tag per input word) are all the same thing seen from the model's side: a
few closed symbols (the *head*) and one tag per unit of the input. A `FrameCodec` learns from the training rows how a
job writes such outputs and converts both ways, so that a model can label the input's own words instead of spelling
them again, while the user's format goes in and comes out.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any, Literal

from smallfry.job import Example

OUTSIDE = "O"
# A unit is the smallest piece of the input that can carry a tag: letters, a digit run, or one other character.
_UNIT = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_WORD = re.compile(r"\S+")
_MIN_ROUND_TRIP = 0.97  # share of training rows the codec must reproduce exactly to be worth offering
_MIN_OPEN_ROWS = 0.2  # share of rows with at least one copied value; below that there is nothing to copy
_MAX_CLOSED = 64  # distinct values up to which a path that is not copied counts as a closed set

Style = Literal["list", "json", "tags"]
Leaf = tuple[str, str]  # (path, value); for JSON the value is its JSON text


@dataclass(frozen=True, slots=True)
class Frame:
    """One output taken apart.

    Args:
        head: Closed symbols ``path=value`` in canonical order.
        units: Character offsets ``(start, end)`` of the input's units.
        tags: One tag a unit: ``O``, ``B-path``, ``I-path`` (or the job's own tags in a tag-sequence job).
    """

    head: tuple[str, ...]
    units: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class ListStyle:
    """Separators of a ``head | key = value ; key = value`` output."""

    field: str
    pair: str
    assign: str

    def flatten(self, output: str) -> list[Leaf] | None:
        """Leaves in written order: fields without an assignment are closed, keyed by their position."""
        leaves: list[Leaf] = []
        for index, part in enumerate(output.split(self.field)):
            if self.assign not in part:
                leaves.append((f"#{index}", part))
                continue
            for pair in part.split(self.pair):
                key, assign, value = pair.partition(self.assign)
                if not assign or not key.strip():
                    return None
                leaves.append((key, value))
        return leaves

    def unflatten(self, leaves: Sequence[Leaf]) -> str:
        """The inverse of `flatten`: pairs go together into one field, after the fields that precede them."""
        pairs = self.pair.join(f"{key}{self.assign}{value}" for key, value in leaves if not key.startswith("#"))
        fields = {int(key[1:]): value for key, value in leaves if key.startswith("#")}
        parts: list[str] = []
        for index in range(len(fields) + 1):
            if index in fields:
                parts.append(fields[index])
            elif pairs:
                parts.append(pairs)
                pairs = ""
        if pairs:
            parts.append(pairs)
        parts += [fields[index] for index in sorted(fields) if index > len(fields)]
        return self.field.join(parts)


@dataclass(frozen=True)
class JsonStyle:
    """How a job dumps its JSON objects."""

    separators: tuple[str, str]
    ensure_ascii: bool

    def flatten(self, output: str) -> list[Leaf] | None:
        """Leaves as ``(dotted path, JSON text)``; a list of scalars repeats its path with ``[]``."""
        try:
            value = json.loads(output)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        leaves: list[Leaf] = []
        return leaves if self._walk(value, "", leaves) else None

    def _walk(self, value: Any, path: str, leaves: list[Leaf]) -> bool:
        if isinstance(value, dict) and value:
            if any("." in key or key.endswith("[]") for key in value):
                return False
            return all(self._walk(child, f"{path}.{key}" if path else key, leaves) for key, child in value.items())
        if isinstance(value, list) and value:
            if any(isinstance(child, dict | list) for child in value):
                return False
            leaves += [(path + "[]", json.dumps(child, ensure_ascii=False)) for child in value]
            return True
        leaves.append((path, json.dumps(value, ensure_ascii=False)))
        return True

    def unflatten(self, leaves: Sequence[Leaf]) -> str:
        """The inverse of `flatten`, for leaves in key order."""
        root: dict[str, Any] = {}
        for path, text in leaves:
            repeated = path.endswith("[]")
            *parents, key = path.removesuffix("[]").split(".")
            node = root
            for parent in parents:
                child = node.setdefault(parent, {})
                if not isinstance(child, dict):  # an empty container was predicted beside its own members
                    child = node[parent] = {}
                node = child
            if repeated:
                items = node.setdefault(key, [])
                if isinstance(items, list):
                    items.append(json.loads(text))
            else:
                node[key] = json.loads(text)
        return json.dumps(root, separators=self.separators, ensure_ascii=self.ensure_ascii)


def _styles(outputs: Sequence[str]) -> Iterable[ListStyle | JsonStyle]:
    """Candidate styles, most specific first, that the first rows do not rule out."""
    sample = outputs[:200]
    if sum(o.lstrip().startswith("{") for o in sample) > 0.9 * len(sample):
        for separators in ((", ", ": "), (",", ":")):
            for ensure_ascii in (False, True):
                yield JsonStyle(separators, ensure_ascii)
        return
    for assign in (" = ", "=", ": ", ":"):
        if sum(assign in o for o in sample) < 0.3 * len(sample):
            continue
        for field in (" | ", "|", "\n"):
            for pair in (" ; ", "; ", ";", ", ", ","):
                yield ListStyle(field, pair, assign)


def _occurrences(text: str, value: str, starts: dict[int, int], ends: dict[int, int]) -> list[tuple[int, int]]:
    """Unit-aligned places of ``value`` in ``text`` as ``(first unit, last unit + 1)``."""
    found = []
    at = text.find(value) if value else -1
    while at >= 0:
        first, last = starts.get(at), ends.get(at + len(value))
        if first is not None and last is not None:
            found.append((first, last + 1))
        at = text.find(value, at + 1)
    return found


def tag_runs(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Spans that BIO tags mark: ``(path, first unit, last unit + 1)``; an ``I-`` without its ``B-`` marks nothing."""
    runs: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("B-"):
            runs.append((tag[2:], i, i + 1))
        elif runs and runs[-1][2] == i and tag == f"I-{runs[-1][0]}":
            path, first, _ = runs[-1]
            runs[-1] = (path, first, i + 1)
    return runs


class FrameCodec:
    """Converts between a job's outputs and frames; built by `FrameCodec.learn`, stored by `to_dict`."""

    def __init__(
        self, style: Style, layout: ListStyle | JsonStyle | None, open_paths: Sequence[str],
        orders: Mapping[str, Sequence[str]], numeric: Sequence[str], text_order: bool, symbols: Sequence[str],
        tags: Sequence[str],
    ) -> None:  # fmt: skip
        self.style: Style = style
        self.layout = layout
        self.open_paths = frozenset(open_paths)
        # Order of paths by first head symbol, as different functions write their arguments in different orders; the
        # order under "" is over all rows.
        self.orders = {first: list(order) for first, order in orders.items()}
        self.numeric = frozenset(numeric)
        self.text_order = text_order
        self.symbols = list(symbols)  # every head symbol seen in training, in canonical order of their paths
        self.tag_names = list(tags)  # every tag, "O" first in span jobs
        self._ranks = {first: {path: i for i, path in enumerate(order)} for first, order in self.orders.items()}

    # ---- learning ---------------------------------------------------------------------------------------------------

    @staticmethod
    def learn(examples: Sequence[Example]) -> FrameCodec | None:
        """Find out whether, and how, a job's outputs are labels plus spans of the input.

        Args:
            examples: Training rows.

        Returns:
            The codec, or None when fewer than 97% of the rows can be taken apart and put together again.
        """
        rows = [e for e in examples if e.output]
        if len(rows) < 20:
            return None
        tagging = _learn_tags(rows)
        if tagging is not None:
            return tagging
        best: tuple[float, FrameCodec] | None = None
        sample = rows[:: max(1, len(rows) // 1000)]  # most layouts can be ruled out on few rows
        for layout in _styles([e.output for e in rows]):
            if _learn_spans(sample, layout) is None or (codec := _learn_spans(rows, layout)) is None:
                continue
            share = codec.coverage(rows[:2000])
            if share >= _MIN_ROUND_TRIP and (best is None or share > best[0]):
                best = (share, codec)
        return best[1] if best else None

    def coverage(self, examples: Sequence[Example]) -> float:
        """Share of rows whose output survives `parse` and `render` unchanged."""
        kept = 0
        for example in examples:
            frame = self.parse(example)
            kept += frame is not None and self.render(example.input, frame.head, frame.tags) == example.output
        return kept / max(1, len(examples))

    # ---- the two directions -----------------------------------------------------------------------------------------

    def units(self, text: str) -> list[tuple[int, int]]:
        """Character offsets of the pieces of ``text`` that carry one tag each."""
        return [m.span() for m in (_WORD if self.style == "tags" else _UNIT).finditer(text)]

    def parse(self, example: Example) -> Frame | None:
        """Take one row's output apart; None where it is not labels plus spans of this input."""
        units = self.units(example.input)
        if self.style == "tags":
            tags = example.output.split()
            return Frame((), tuple(units), tuple(tags)) if len(tags) == len(units) else None
        assert self.layout is not None
        leaves = self.layout.flatten(example.output)
        if leaves is None:
            return None
        starts = {start: i for i, (start, _) in enumerate(units)}
        ends = {end: i for i, (_, end) in enumerate(units)}
        tags = [OUTSIDE] * len(units)
        head: list[str] = []
        cursor = 0
        for path, value in leaves:
            if path not in self.open_paths:
                head.append(f"{path}={value}")
                continue
            text = self._surface(value)
            places = [] if text is None else _occurrences(example.input, text, starts, ends)
            free = [(a, b) for a, b in places if all(t == OUTSIDE for t in tags[a:b])]
            if not free:
                return None
            first, last = next(((a, b) for a, b in free if a >= cursor), free[0])
            tags[first] = f"B-{path}"
            tags[first + 1 : last] = [f"I-{path}"] * (last - first - 1)
            cursor = last if self.text_order else 0
        return Frame(tuple(head), tuple(units), tuple(tags))

    def render(self, text: str, head: Sequence[str], tags: Sequence[str]) -> str:
        """Write an output in the job's own format.

        Args:
            text: The input the tags belong to.
            head: Closed symbols.
            tags: One tag per unit of ``text``.
        """
        if self.style == "tags":
            return " ".join(tags)
        assert self.layout is not None
        leaves: list[tuple[str, str]] = [(symbol.split("=", 1)[0], symbol.split("=", 1)[1]) for symbol in head]
        units = self.units(text)
        for path, first, last in tag_runs(tags):
            leaves.append((path, self._value(path, text[units[first][0] : units[last - 1][1]])))
        if not self.text_order:
            rank = self._ranks.get(head[0] if head else "", self._ranks[""])
            leaves.sort(key=lambda leaf: rank.get(leaf[0], len(rank)))
        return self.layout.unflatten(leaves)

    def _surface(self, value: str) -> str | None:
        """The characters of the input that a leaf's value would be copied from."""
        if not isinstance(self.layout, JsonStyle):
            return value
        decoded = json.loads(value)
        if isinstance(decoded, str):
            return decoded
        return value if isinstance(decoded, int | float) and not isinstance(decoded, bool) else None

    def _value(self, path: str, span: str) -> str:
        """The inverse of `_surface`."""
        if not isinstance(self.layout, JsonStyle):
            return span
        if path in self.numeric:
            try:
                json.loads(span)
                return span
            except ValueError:
                pass
        return json.dumps(span, ensure_ascii=False)

    # ---- storage ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``smallfry.json``."""
        layout: dict[str, Any] | None = None
        if isinstance(self.layout, ListStyle):
            layout = {"field": self.layout.field, "pair": self.layout.pair, "assign": self.layout.assign}
        elif isinstance(self.layout, JsonStyle):
            layout = {"separators": list(self.layout.separators), "ensure_ascii": self.layout.ensure_ascii}
        return {
            "style": self.style, "layout": layout, "open_paths": sorted(self.open_paths), "orders": self.orders,
            "numeric": sorted(self.numeric), "text_order": self.text_order, "symbols": self.symbols,
            "tags": self.tag_names,
        }  # fmt: skip

    @staticmethod
    def from_dict(data: dict[str, Any]) -> FrameCodec:
        """Rebuild a codec from `to_dict`."""
        layout: ListStyle | JsonStyle | None = None
        if data["style"] == "list":
            layout = ListStyle(**data["layout"])
        elif data["style"] == "json":
            first, second = data["layout"]["separators"]
            layout = JsonStyle((first, second), data["layout"]["ensure_ascii"])
        return FrameCodec(
            data["style"], layout, data["open_paths"], data["orders"], data["numeric"], data["text_order"],
            data["symbols"], data["tags"],
        )  # fmt: skip


def _learn_tags(rows: Sequence[Example]) -> FrameCodec | None:
    """A codec when every output has exactly one word for each word of its input, from a small set."""
    names: Counter[str] = Counter()
    longer = 0
    for row in rows:
        tags = row.output.split()
        if len(tags) != len(row.input.split()) or " ".join(tags) != row.output:
            return None
        names.update(tags)
        longer += len(tags) > 1
    if longer < 0.5 * len(rows) or len(names) > 200 or len(names) < 2:
        return None
    # Character jobs ("reverse") can have one word in and one word out; a closed tag set must also repeat.
    if sum(names.values()) < 20 * len(names):
        return None
    return FrameCodec("tags", None, [], {"": []}, [], True, [], sorted(names))


def _learn_spans(rows: Sequence[Example], layout: ListStyle | JsonStyle) -> FrameCodec | None:
    """A codec for one layout, or None when too few rows fit it."""
    parsed = [(row, leaves) for row in rows if (leaves := layout.flatten(row.output))]
    if len(parsed) < _MIN_ROUND_TRIP * len(rows):
        return None
    probe = FrameCodec("list" if isinstance(layout, ListStyle) else "json", layout, [], {"": []}, [], True, [], [])
    total: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    values: dict[str, Counter[str]] = defaultdict(Counter)
    numeric: Counter[str] = Counter()
    for row, leaves in parsed:
        units = probe.units(row.input)
        starts = {start: i for i, (start, _) in enumerate(units)}
        ends = {end: i for i, (_, end) in enumerate(units)}
        for path, value in leaves:
            total[path] += 1
            values[path][value] += 1
            surface = probe._surface(value)
            if surface is not None and not path.startswith("#"):
                copied[path] += bool(_occurrences(row.input, surface, starts, ends))
                numeric[path] += isinstance(layout, JsonStyle) and not value.startswith('"')
    constant = {p for p in total if len(values[p]) == 1 and total[p] == len(parsed)}  # nothing to choose or to copy
    open_paths = [p for p in total if copied[p] >= 0.9 * total[p] and p not in constant]
    closed = [p for p in total if p not in open_paths]
    if not open_paths or any(len(values[p]) > max(_MAX_CLOSED, 0.02 * total[p]) for p in closed):
        return None
    with_open = sum(any(path in open_paths for path, _ in leaves) for _, leaves in parsed)
    if with_open < _MIN_OPEN_ROWS * len(rows):
        return None
    written = [[path for path, _ in leaves] for _, leaves in parsed]
    order = _path_order(written)
    by_first: dict[str, list[list[str]]] = defaultdict(list)
    for (_, leaves), paths in zip(parsed, written, strict=True):
        by_first[next((f"{p}={v}" for p, v in leaves if p not in open_paths), "")].append(paths)
    orders = {first: _path_order(paths) for first, paths in sorted(by_first.items())} | {"": order}
    symbols = [f"{p}={v}" for p in order if p not in open_paths for v in sorted(values[p])]
    tags = [OUTSIDE, *(f"{b}-{p}" for p in sorted(open_paths) for b in "BI")]
    numbers = [p for p in open_paths if numeric[p] > 0.5 * total[p]]
    style: Style = "list" if isinstance(layout, ListStyle) else "json"
    codecs = [
        FrameCodec(style, layout, open_paths, orders, numbers, text_order, symbols, tags)
        for text_order in ((True, False) if style == "list" else (False,))
    ]
    sample = [row for row, _ in parsed[:2000]]
    return max(codecs, key=lambda c: c.coverage(sample))


def _path_order(sequences: Sequence[Sequence[str]]) -> list[str]:
    """One order of paths that agrees with as many of the written orders as possible (by pairwise majority)."""
    before: Counter[tuple[str, str]] = Counter()
    first_seen: dict[str, int] = {}
    for sequence, count in Counter(tuple(dict.fromkeys(s)) for s in sequences).items():
        for i, a in enumerate(sequence):
            first_seen.setdefault(a, len(first_seen))
            for b in sequence[i + 1 :]:
                before[a, b] += count

    def compare(a: str, b: str) -> int:
        margin = before[b, a] - before[a, b]
        return margin if margin else first_seen[a] - first_seen[b]

    return sorted(first_seen, key=cmp_to_key(compare))
