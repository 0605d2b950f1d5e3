"""Drawing charts as SVG text: scales, ticks, elements, and labels that never overlap.

Hand-written because the report is one file in its own style, in light and dark, at two widths: plotting packages bring
tens of megabytes and their own look, and the small SVG ones know neither intervals nor label collisions.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .format import clean, one_line

WIDE, NARROW = 1000.0, 340.0
_MARGIN = 14.0
FONT_SIZE = 12.5  # user units; a chart is drawn once for wide and once for narrow screens, never scaled much


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle in user units, ``y`` growing downwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box, gap: float = 0.0) -> bool:
        """Whether the two share area, or come closer than ``gap``."""
        return (
            self.x0 < other.x1 + gap
            and other.x0 < self.x1 + gap
            and self.y0 < other.y1 + gap
            and other.y0 < self.y1 + gap
        )

    def within(self, area: Box) -> bool:
        """Whether the whole box lies inside ``area``."""
        return self.x0 >= area.x0 and self.x1 <= area.x1 and self.y0 >= area.y0 and self.y1 <= area.y1


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic map from data values ``lo..hi`` to user units ``start..end``."""

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of ``value``; values outside ``lo..hi`` are mapped beyond the ends."""
        lo, hi, at = (math.log(v) for v in (self.lo, self.hi, value)) if self.log else (self.lo, self.hi, value)
        return self.start + (at - lo) / (hi - lo) * (self.end - self.start)

    def clamp(self, value: float) -> float:
        """The position of ``value``, moved to the nearer end when it lies outside."""
        return self(min(max(value, self.lo), self.hi))

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values within ``lo..hi``."""
        return _log_ticks(self.lo, self.hi, count) if self.log else _linear_ticks(self.lo, self.hi, count)


def _linear_ticks(lo: float, hi: float, count: int) -> list[float]:
    raw = (hi - lo) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(lo / step - 1e-9)
    return [i * step for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def _log_ticks(lo: float, hi: float, count: int) -> list[float]:
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**d for d in decades for m in multiples if lo <= m * 10.0**d <= hi]
        if len(found) <= count:
            return found
    every = math.ceil(len(found) / count)
    return found[::every]


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """An upper estimate of a text's width in user units, for a wide sans-serif face at ``size``."""
    total = 0.0
    for char in text:
        if char in "iljtfI.,:;|!'()[] ":
            total += 0.40
        elif char in "mwMW@%—":
            total += 0.98
        elif ord(char) >= 0x1100:
            total += 1.10
        else:
            total += 0.74 if char.isupper() else 0.65
    return total * size


@dataclass(frozen=True, slots=True)
class Label:
    """A text to be placed near the point ``(x, y)``, clear of it by ``clear`` units."""

    text: str
    x: float
    y: float
    clear: float = 8.0
    style: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A label with the box it was given; ``leader`` says that it lies far enough to need a line to its point."""

    label: Label
    box: Box
    leader: bool


# Unit directions in order of preference: right, left, above, below, then the diagonals.
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.7, -0.7), (-0.7, -0.7), (0.7, 0.7), (-0.7, 0.7))
_LEADER = 12.0  # distance from which a line joins the label to its point
_RADII = (0.0, 5.0, 12.0, 20.0, 30.0, 42.0, 56.0, 72.0, 92.0, 116.0, 144.0)


def _crossings(label: Label, box: Box, others: list[Box]) -> int:
    """How many of the other labels the line from the point to its label would cross."""
    tx, ty = min(max(label.x, box.x0), box.x1), min(max(label.y, box.y0), box.y1)
    steps = [(label.x + (tx - label.x) * i / 12, label.y + (ty - label.y) * i / 12) for i in range(13)]
    return sum(any(o.x0 <= x <= o.x1 and o.y0 <= y <= o.y1 for x, y in steps) for o in others)


def place_labels(
    labels: Sequence[Label],
    hard: Iterable[Box],
    soft: Iterable[tuple[Box, float]],
    area: Box,
    size: float = FONT_SIZE,
) -> list[Placed]:
    """Give each label the nearest free place, first come first served.

    Args:
        labels: What to place, the most important first.
        hard: Boxes no label may touch (points, interval bars, fixed texts).
        soft: Boxes a label should avoid (lines), each with its cost in units of distance.
        area: Where labels may lie.
        size: Font size in user units.

    Returns:
        The labels that found a place, in the given order; no two boxes overlap, none overlaps a hard box. A label
        without any free place is left out: its point keeps its tooltip and its row in the table.
    """
    taken, avoid = list(hard), list(soft)
    placed: list[Placed] = []
    for label in labels:
        width, height = text_width(label.text, size), size * 1.15
        top: tuple[float, Box, float] | None = None
        for radius in _RADII:
            if top is not None and radius > top[0]:
                break
            for rank, (dx, dy) in enumerate(_DIRECTIONS):
                reach = label.clear + radius
                # The box's nearest edge or corner touches the point at distance `reach` in this direction.
                cx = label.x + dx * reach + (width / 2 if dx > 0 else -width / 2 if dx < 0 else 0)
                cy = label.y + dy * reach + (height / 2 if dy > 0.5 else -height / 2 if dy < -0.5 else 0)
                box = Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                if not box.within(area) or any(box.overlaps(other, 1.0) for other in taken):
                    continue
                cost = radius + 0.5 * rank + sum(price for other, price in avoid if box.overlaps(other, 1.0))
                if radius >= _LEADER:
                    cost += 25.0 * _crossings(label, box, [other.box for other in placed])
                if top is None or cost < top[0]:
                    top = (cost, box, radius)
        if top is not None:
            taken.append(top[1])
            placed.append(Placed(label, top[1], top[2] >= _LEADER))
    return placed


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished figure: its SVG text, where its labels lie, and the boxes they had to keep clear of."""

    svg: str
    labels: list[Placed]
    hard: list[Box]


class Drawing:
    """An SVG document under construction, accessible by its title and description.

    Args:
        width: Width in user units, also its natural width in pixels.
        height: Height likewise.
        name: Prefix of the ids used, unique within a page.
        title: What a screen reader reads first.
        description: The figure in words.
        style: CSS for a drawing that stands alone; inside a page the page's own style rules.
    """

    def __init__(self, width: float, height: float, name: str, title: str, description: str, style: str = "") -> None:
        self.width, self.height = width, height
        self.root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {width:g} {height:g}",
                "class": "sf-chart",
                "role": "img",
                "aria-labelledby": f"{name}-title {name}-desc",
            },
        )
        ET.SubElement(self.root, "title", {"id": f"{name}-title"}).text = one_line(title)
        ET.SubElement(self.root, "desc", {"id": f"{name}-desc"}).text = one_line(description)
        if style:
            # Alone on a page a figure needs a margin of its own.
            outer = (width + 2 * _MARGIN, height + 2 * _MARGIN)
            self.root.set("viewBox", f"{-_MARGIN:g} {-_MARGIN:g} {outer[0]:g} {outer[1]:g}")
            self.root.set("width", f"{outer[0]:g}")
            self.root.set("height", f"{outer[1]:g}")
            ET.SubElement(self.root, "style").text = style
            self.add("rect", "sf-paper", x=-_MARGIN, y=-_MARGIN, width=outer[0], height=outer[1])

    def add(self, tag: str, style: str = "", tip: str = "", **attributes: float | str) -> ET.Element:
        """Append an element; numbers are rounded to hundredths, ``tip`` becomes its tooltip."""
        element = ET.SubElement(self.root, tag)
        if style:
            element.set("class", style)
        for key, value in attributes.items():
            element.set(key.replace("_", "-"), value if isinstance(value, str) else f"{round(value, 2):g}")
        if tip:
            ET.SubElement(element, "title").text = clean(tip)
        return element

    def text(self, text: str, x: float, y: float, style: str = "", anchor: str = "start") -> None:
        """Write ``text`` with its baseline at ``y``."""
        self.add("text", style, x=x, y=y, text_anchor=anchor).text = clean(text)

    def line(self, x0: float, y0: float, x1: float, y1: float, style: str) -> None:
        """Draw a straight line."""
        self.add("line", style, x1=x0, y1=y0, x2=x1, y2=y1)

    def path(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Draw a polyline; fewer than two points draw nothing."""
        if len(points) >= 2:
            steps = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
            self.add("path", style, d=steps)

    def marker(self, kind: str, x: float, y: float, style: str, tip: str = "") -> None:
        """Draw one point: ``circle``, ``square``, ``diamond``, ``triangle``, ``down``, ``up`` or ``left`` arrow."""
        if kind == "circle":
            self.add("circle", style, tip, cx=x, cy=y, r=5.0)
            return
        shapes: dict[str, tuple[tuple[float, float], ...]] = {
            "square": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
            "diamond": ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)),
            "triangle": ((0, -6), (6, 5), (-6, 5)),
            "down": ((-5, -4), (5, -4), (0, 5)),
            "up": ((-5, 4), (5, 4), (0, -5)),
        }
        corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shapes[kind])
        self.add("polygon", style, tip, points=corners)

    def labels(self, placed: Sequence[Placed], size: float = FONT_SIZE) -> None:
        """Write placed labels, with a thin line to the point of those that lie away from it."""
        for item in placed:
            box, label = item.box, item.label
            if item.leader:
                # To the nearest point of the box, stopping short of the marker.
                tx, ty = min(max(label.x, box.x0), box.x1), min(max(label.y, box.y0), box.y1)
                length = math.hypot(tx - label.x, ty - label.y) or 1.0
                short = min(label.clear * 0.8, length / 2) / length
                self.line(label.x + (tx - label.x) * short, label.y + (ty - label.y) * short, tx, ty, "sf-leader")
            middle = (box.x0 + box.x1) / 2
            if abs(middle - label.x) < 1:
                x, anchor = middle, "middle"
            elif middle > label.x:
                x, anchor = box.x0, "start"
            else:
                x, anchor = box.x1, "end"
            self.text(label.text, x, (box.y0 + box.y1) / 2 + size * 0.35, f"sf-label {label.style}".strip(), anchor)

    def render(self) -> str:
        """The document as text."""
        return ET.tostring(self.root, encoding="unicode")
