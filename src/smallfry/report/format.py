"""Numbers and foreign text as a reader wants to see them; every output form of the report uses these."""

from __future__ import annotations

import math
import re

from ..job import Metric
from ..record import Interval

MISSING = "—"
MINUS = "−"
METRIC_NAMES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "bleu": "BLEU",
    "bits_per_byte": "bits per byte",
}

# Characters that would change how the text around them is shown (terminal control, direction overrides), or that
# have no place in UTF-8 or XML.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


def clean(text: object) -> str:
    """Text from data or a model with every invisible or order-changing character written out as its code point.

    Args:
        text: Anything; converted with ``str``.

    Returns:
        Text that is safe to encode as UTF-8 and to show; tabs and newlines are kept.
    """
    plain = str(text).replace("\r\n", "\n")
    return _UNSEEN.sub(lambda m: f"\\u{ord(m.group()):04x}", plain)


def one_line(text: object, limit: int = 0) -> str:
    """`clean` text on one line, cut with an ellipsis beyond ``limit`` characters (0: no limit)."""
    flat = " ".join(clean(text).split())
    return flat if not limit or len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def is_share(metric: Metric) -> bool:
    """Whether scores of this metric are shares of the items, shown with a percent sign (BLEU goes without)."""
    return metric in ("accuracy", "exact_match")


def unit_of(metric: Metric) -> float:
    """What a score is multiplied by before it is shown: every metric but bits per byte is a fraction of 1."""
    return 1.0 if metric == "bits_per_byte" else 100.0


def score_text(metric: Metric, value: float | None) -> str:
    """A score with the digits its metric deserves: ``96.2%``, ``51.2``, ``1.234``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if metric == "bits_per_byte":
        return f"{value:.3f}"
    return f"{100 * value:.1f}{'%' if is_share(metric) else ''}"


def target_text(metric: Metric, value: float) -> str:
    """A target as the user wrote it, without padding zeros: ``95%``, ``1.1``."""
    return f"{unit_of(metric) * value:.6g}{'%' if is_share(metric) else ''}"


def interval_text(metric: Metric, ci: Interval | None) -> str:
    """An interval as ``95.1 to 97.0`` in the metric's unit, without the percent sign."""
    if ci is None or not all(math.isfinite(v) for v in ci):
        return MISSING
    return " to ".join(score_text(metric, v).rstrip("%") for v in ci)


def difference_text(metric: Metric, value: float | None, unit: bool = True) -> str:
    """A signed difference of two scores: ``+1.0 points``, ``−0.012``."""
    if value is None or not math.isfinite(value):
        return MISSING
    number = f"{unit_of(metric) * value:+.{3 if metric == 'bits_per_byte' else 1}f}".replace("-", MINUS)
    if not float(number.replace(MINUS, "-")):
        number = number[1:]
    return f"{number} points" if unit and metric != "bits_per_byte" else number


def count_text(value: int | None) -> str:
    """A count with thousands separators."""
    return MISSING if value is None else f"{value:,}"


def params_text(value: int | None) -> str:
    """A parameter count in the ladder's own style: ``0.25M``, ``1.0M``, ``124M``, ``7.0B``."""
    if value is None:
        return MISSING
    if value < 1_000:
        return str(value)
    if value < 95_000:
        return f"{value / 1e3:.0f}k"
    if value < 995_000_000:
        return f"{value / 1e6:.2f}M" if value < 995_000 else f"{value / 1e6:.{1 if value < 9_950_000 else 0}f}M"
    return f"{value / 1e9:.{1 if value < 9_950_000_000 else 0}f}B"


def bytes_text(value: float | None) -> str:
    """A size in decimal units, two or three digits: ``38 B``, ``512 kB``, ``2.0 MB``."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds_text(value: float | None) -> str:
    """A duration: ``0.4 s``, ``52 s``, ``3 min 8 s``, ``1 h 12 min``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 9.95:
        return f"{value:.1f} s" if value >= 0.05 or value == 0 else "under 0.1 s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 and whole < 600 else f"{round(value / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def milliseconds_text(value: float | None) -> str:
    """A latency given in milliseconds: ``0.08 ms``, ``3.1 ms``, ``1.2 s``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.{0 if value >= 9.95 else 1 if value >= 0.95 else 2}f} ms"


def p_text(value: float | None) -> str:
    """A p-value with its sign: ``p = 0.03``, ``p < 0.001``."""
    if value is None or not math.isfinite(value):
        return MISSING
    return "p < 0.001" if value < 0.001 else f"p = {value:.{3 if value < 0.01 else 2}f}"
