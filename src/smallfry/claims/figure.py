"""The page's figure: score above chance against parameters, one panel a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..report.format import params_text
from ..report.style import FIGURE
from ..report.svg import WIDE, Box, Drawing, Label, Scale, place_labels, text_width
from ..sizes import parse_size
from .criteria import Found, Interval
from .model import Claims
from .references import Reference
from .results import Results

PANELS = (
    ("blimp", ""), ("lambada", ""), ("stories", ""), ("core", ""), ("chatcore", ""), ("conversation", ""),
    ("chatcore", "arc_challenge"), ("chatcore", "mmlu"), ("chatcore", "gsm8k"),
)  # fmt: skip
_TASKS = {"arc_challenge": "ARC-Challenge", "mmlu": "MMLU", "gsm8k": "GSM8K"}
_LEFT_OUT = {("rl-5m", "conversation")}  # never tuned to converse: it would look as if rewards had cost that
OTHER = "other"
_COLUMNS, _PANEL, _GAP = 3, 250.0, 22.0
_FAMILIES = ("stories", "general", "chat", "rl")  # the order decides colour and shape
_TINTS = ("sf-r0", "sf-r5", "sf-r2", "sf-r3")
_SHAPES = ("square", "circle", "diamond", "down")
_ASIDE = {"stories": -4.0, "general": 4.0, "chat": -4.0, "rl": 4.0}  # models of one size stand side by side


@dataclass(frozen=True, slots=True)
class Mark:
    """A score in a panel.

    Args:
        name: Model.
        family: What the models of one line have in common; `OTHER` for another's model, empty for published scores.
        params: Parameters.
        score: 0 is guessing, 1 everything right.
        ci: Its interval, or None.
        tip: Tooltip.
    """

    name: str
    family: str
    params: float
    score: float
    ci: Interval | None
    tip: str


def above_chance(value: float, chance: float) -> float:
    """``(value - chance) / (1 - chance)``, as CORE centres its tasks (DCLM, Li et al. 2024)."""
    return (value - chance) / (1.0 - chance)


def marks(claims: Claims, results: Results, suite: str, task: str = "") -> list[Mark]:
    """What one panel shows, a suite or a task of it: our own models from the smallest up, then published ones."""
    found = []
    for model in claims.models.values():
        if suite not in model.suites or (model.name, suite) in _LEFT_OUT:
            continue
        family = model.name.split("-")[0] if "-" in model.name else OTHER
        for one in results.find(
            Reference(f"{model.name}/{suite}/{task}".rstrip("/"), "suite", model.name, suite, task)
        ):
            chance = _chance(one)
            if chance is None:
                continue
            low, high = (above_chance(end, chance) for end in one.ci)
            params = results.params(one.file) or parse_size(model.size)
            score = above_chance(one.score, chance)
            tip = f"{model.name}: {score:.3f} ({low:.3f} to {high:.3f}), {params_text(int(params))} parameters"
            found.append(Mark(model.name, family, float(params), score, (low, high), tip))
    for point in claims.points if not task else ():
        chance = claims.suites[suite].chance
        if point.suite == suite and chance is not None:
            score = above_chance(point.score, chance)
            found.append(
                Mark(point.name, "", point.params, score, None, f"{point.name}: {score:.3f}, published: {point.source}")
            )
    return found


def _chance(found: Found) -> float | None:
    """What guessing scores: by construction where that is known, else as it was measured."""
    if "chance" in found.terms:
        return found.terms["chance"]
    return found.controls["guessing"][0] if "guessing" in found.controls else None


def draw(claims: Claims, results: Results) -> str:
    """The figure.

    Args:
        claims: The claims, for models, suites and published scores.
        results: The measurements.

    Returns:
        SVG that stands alone, readable in light and dark.
    """
    panels = [
        (_TASKS.get(task, claims.suites[suite].title), found)
        for suite, task in PANELS if (found := marks(claims, results, suite, task))
    ]  # fmt: skip
    rows = max(1, -(-len(panels) // _COLUMNS))
    width, top = WIDE, 34.0
    height = top + rows * (_PANEL + _GAP)
    tips = "; ".join(f"{title}: {m.tip}" for title, found in panels for m in found)
    drawing = Drawing(width, height, "claims", "Score above chance against parameters", tips or "Nothing yet", FIGURE)
    _legend(drawing, {m.family for _, found in panels for m in found})
    if not panels:
        drawing.text("no suite has been measured yet", width / 2, height / 2, "sf-name", "middle")
    wide = (width - (_COLUMNS - 1) * _GAP) / _COLUMNS
    for index, (title, found) in enumerate(panels):
        row, column = divmod(index, _COLUMNS)
        left, upper = column * (wide + _GAP), top + row * (_PANEL + _GAP)
        _panel(drawing, title, found, Box(left, upper, left + wide, upper + _PANEL))
    return drawing.render() + "\n"


def _legend(drawing: Drawing, families: set[str]) -> None:
    x = 8.0
    words = {"rl": "reinforced", OTHER: "another's, measured here", "": "published, not measured here"}
    for family in (*_FAMILIES, OTHER, ""):
        if family in families:
            _point(drawing, family, x, 10.0, "")
            text = words.get(family, family)
            drawing.text(text, x + 12, 14.5)
            x += 40 + text_width(text)


def _point(drawing: Drawing, family: str, x: float, y: float, tip: str) -> None:
    if family not in _FAMILIES:
        drawing.marker("square" if family else "triangle", x, y, "sf-hollow sf-baseline", tip)
        return
    index = _FAMILIES.index(family)
    drawing.marker(_SHAPES[index], x, y, f"sf-point {_TINTS[index]}", tip)


def _panel(drawing: Drawing, title: str, found: Sequence[Mark], frame: Box) -> None:
    """One suite: axes, a line at guessing, intervals, points, and names of the published ones."""
    area = Box(frame.x0 + 40, frame.y0 + 26, frame.x1 - 6, frame.y1 - 40)
    ends = [v for m in found for v in (m.score, *(m.ci or ()))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.08 * max(high - low, 0.02)
    sizes = [m.params for m in found]
    x = Scale(min(2e5, min(sizes) / 1.5), max(1e7, max(sizes) * 1.8), area.x0, area.x1, log=True)
    y = Scale(low - pad, high + pad, area.y1, area.y0)
    drawing.text(title, frame.x0, frame.y0 + 14, "sf-name")
    for tick in y.ticks(5):
        drawing.line(area.x0, y(tick), area.x1, y(tick), "sf-grid")
        drawing.text(f"{round(tick, 6):g}".replace("-", "−"), area.x0 - 6, y(tick) + 4, anchor="end")
    drawing.line(area.x0, y(0.0), area.x1, y(0.0), "sf-target")
    for tick in x.ticks(4):
        drawing.line(x(tick), area.y1, x(tick), area.y1 + 5, "sf-axis")
        drawing.text(_size(tick), x(tick), area.y1 + 19, anchor="middle")
    drawing.line(area.x0, area.y1, area.x1, area.y1, "sf-axis")
    drawing.text("parameters (log scale)", area.x1, frame.y1 - 4, anchor="end")
    hard = []
    for family in _FAMILIES:
        line = sorted((m for m in found if m.family == family), key=lambda m: m.params)
        drawing.path([(x(m.params) + _ASIDE[family], y(m.score)) for m in line], "sf-trend")
    for mark in found:
        at, here = x(mark.params) + _ASIDE.get(mark.family, 0.0), y(mark.score)
        tint = _TINTS[_FAMILIES.index(mark.family)] if mark.family in _FAMILIES else "sf-baseline"
        if mark.ci is not None:
            drawing.line(at, y(mark.ci[0]), at, y(mark.ci[1]), f"sf-bar {tint}")
        _point(drawing, mark.family, at, here, mark.tip)
        hard.append(Box(at - 7, here - 7, at + 7, here + 7))
    labels = [Label(m.name, x(m.params), y(m.score), 9.0, "sf-baseline sf-tinted") for m in found if not m.family]
    drawing.labels(place_labels(labels, hard, [], area))


def _size(params: float) -> str:
    """``500k``, ``1M``, ``1B``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= unit:
            return f"{params / unit:g}{name}"
    return f"{params:g}"
