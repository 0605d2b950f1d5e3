"""Building HTML so that foreign text cannot become markup: every plain string is escaped, only `Markup` is not."""

from __future__ import annotations

import difflib
import html
import math
import re
from collections.abc import Iterable

from .format import MISSING, clean

_VOID = frozenset({"meta", "br"})
_MOST_COMPARED = 60_000  # pairs of words
_MAX_DEPTH, _MAX_ITEMS, _MAX_TEXT = 5, 60, 2000


class Markup(str):
    """Text that is HTML already; made only by `h`, `join` and the SVG renderer."""

    __slots__ = ()


Child = str | Markup | None


def h(tag: str, *children: Child, **attributes: str | None) -> Markup:
    """One element.

    Args:
        tag: Element name, with classes after dots: ``td.num``.
        children: Contents; plain strings are escaped, `Markup` is kept, None is left out.
        attributes: Attribute values, escaped; a trailing underscore of a name is dropped, others become hyphens; None
            leaves the attribute out.

    Returns:
        The element.
    """
    name, *classes = tag.split(".")
    pairs: dict[str, str | None] = {"class": " ".join(classes)} if classes else {}
    pairs.update({key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    head = "".join(f' {k}="{html.escape(clean(v))}"' for k, v in pairs.items() if v is not None)
    return Markup(f"<{name}{head}>") if name in _VOID else Markup(f"<{name}{head}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, plain strings escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(clean(c)) for c in children if c is not None))


def verbatim(text: str, other: str | None = None, style: str = "") -> Markup:
    """Text from data or a model, whitespace kept; words that ``other`` does not have in place are marked."""
    kind = f"span.text.{style}" if style else "span.text"
    if not text.strip():
        return h("span.empty", "(empty)" if not text else "(only white space)")
    shown = text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + f"… ({len(text):,} characters)"
    if other is None or not other.strip() or len(text) > _MAX_TEXT or len(other) > _MAX_TEXT:
        return h(kind, *_breakable(shown))
    mine, theirs = (re.findall(r"\s+|\w+|[^\w\s]", t) for t in (text, other))
    if len(mine) * len(theirs) > _MOST_COMPARED:  # an answer that goes round in circles takes the matcher seconds
        return h(kind, *_breakable(shown))
    matcher = difflib.SequenceMatcher(None, theirs, mine, autojunk=False)
    # Marking helps only where most of the text agrees: wholly different answers read better plain.
    if matcher.ratio() < 0.5:
        return h(kind, *_breakable(shown))
    parts: list[Child] = []
    for operation, _, _, start, stop in matcher.get_opcodes():
        piece = "".join(mine[start:stop])
        parts.append(piece if operation == "equal" or not piece else h("mark", piece))
    return h(kind, *parts)


def _breakable(text: str) -> list[Child]:
    """Let long labels break after an underscore, slash, dot or hyphen rather than anywhere."""
    parts = re.split(r"(?<=[_/.\-])(?=\w)", text)
    return [piece for part in parts for piece in (part, Markup("<wbr>"))][:-1]


def table(
    head: list[str], rows: Iterable[list[Child]], numeric: frozenset[int] = frozenset(), style: str = ""
) -> Markup:
    """A plain table that becomes stacked cards on narrow screens; the first cell of a row is its header.

    Args:
        head: Column titles.
        rows: Cells, as many as there are titles.
        numeric: Columns whose cells must not wrap.
        style: Further class of the table: ``long`` for columns of running text.

    Returns:
        The table.
    """
    body = []
    for row in rows:
        cells = [h("th", row[0], scope="row", role="rowheader")]
        for i, cell in enumerate(row[1:], start=1):
            kind = "td.num" if i in numeric else "td"
            cells.append(h(kind, h("div", cell), data_label=head[i], role="cell"))
        body.append(h("tr", *cells, role="row"))
    headers = [
        h("th.num" if i in numeric else "th", title, scope="col", role="columnheader") for i, title in enumerate(head)
    ]
    top = h("thead", h("tr", *headers, role="row"), role="rowgroup")
    return h(f"table.stack.{style}" if style else "table.stack", top, h("tbody", *body, role="rowgroup"), role="table")


def pairs(data: dict[str, object], depth: int = 0) -> Markup:
    """Free-form JSON values as a nested definition list."""
    items: list[Child] = []
    for key, value in list(data.items())[:_MAX_ITEMS]:
        items += [h("dt", str(key).replace("_", " ")), h("dd", _value(value, depth + 1))]
    if len(data) > _MAX_ITEMS:
        items += [h("dt", "…"), h("dd", f"{len(data) - _MAX_ITEMS:,} more in assessment.json")]
    return h("dl.pairs", *items)


def _value(value: object, depth: int) -> Markup:
    if value is None or value in ("", [], {}):
        return h("span.empty", MISSING if value is None else "none")
    if isinstance(value, bool):
        return join(["yes" if value else "no"])
    if isinstance(value, int):
        return join([f"{value:,}"])
    if isinstance(value, float):
        return join([f"{value:,.4g}" if math.isfinite(value) and abs(value) < 1000 else f"{value:,.0f}"])
    if depth >= _MAX_DEPTH:
        return join(["… (see assessment.json)"])
    if isinstance(value, dict):
        return pairs(value, depth)
    if isinstance(value, (list, tuple)):
        shown = list(value)[:_MAX_ITEMS]
        more = [f"… {len(value) - _MAX_ITEMS:,} more"] if len(value) > _MAX_ITEMS else []
        if any(isinstance(v, (dict, list, tuple)) for v in shown):
            return h("div", *(h("div", _value(v, depth + 1)) for v in shown), *more)
        return join([part for v in [*shown, *more] for part in (", ", _value(v, depth + 1))][1:])
    text = str(value)
    return join([text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"])
