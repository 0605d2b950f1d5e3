"""Numbers, measurements and sentences as cells of Markdown tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..report.format import MINUS, MISSING, one_line, seconds_text
from ..report.markdown import escape
from .criteria import Found
from .judging import Judgement
from .model import Claim

SEEN, CAUTION = "†", "‡"
_FEW = 5  # measurements that a repetition shows again
_MARKS = re.compile(r"^(?:[-*>]|#+|\d+\.)\s+")
_SIGNS = {"supported": "✔ supported", "refuted": "✘ refuted", "undecided": "? undecided"}


def number(value: float, unit: str, by: float | None = None) -> str:
    """A value in its unit: shares in per cent, with two digits where they are small.

    Args:
        value: The value.
        unit: As in `Found`.
        by: The value whose size decides on the digits; the value itself by default.
    """
    if not math.isfinite(value):
        return MISSING
    if unit in ("share", "difference"):
        digits = 2 if abs(value if by is None else by) < 0.02 else 1
        text = f"{100 * value:{'+' if unit == 'difference' else ''}.{digits}f}"
        text = text[1:] if text[0] == "-" and not float(text) else text
    elif unit == "seconds":
        text = seconds_text(value)
    else:
        text = {"bits": f"{value:.3f}", "count": f"{value:,.0f}"}.get(unit, f"{value:.6g}")
    return text.replace("-", MINUS)


def with_unit(value: float, unit: str, by: float | None = None) -> str:
    """`number` with the sign of its unit."""
    return number(value, unit, by) + {"share": "%", "difference": " points"}.get(unit, "")


def interval(found: Found) -> str:
    """``27.0% [22.3, 33.3]``; the value alone where it has no interval."""
    low, high = found.ci
    if low == high:
        return with_unit(found.score, found.unit)
    most = max(abs(low), abs(high))
    first, last = (number(end, found.unit, most) for end in (low, high))
    return f"{with_unit(found.score, found.unit, most)} [{first}, {last}]"


def measured(found: Found, base: str) -> str:
    """One measurement: what, linked to its file, value, interval, target and verdict."""
    label = escape(found.label)
    linked = f"[{label}]({link(base, found.file)})" if found.file else label
    text = f"{linked} {interval(found)}"
    if found.n:
        text += f", n {found.n:,}"
    if found.seeds:
        text += f", {found.seeds} seed{'s' if found.seeds > 1 else ''}"
    if found.target is not None:
        aim = "at most " if found.lower else ""
        text += f"; target {aim}{with_unit(found.target, found.unit)}: {found.verdict}"
        if found.verdict == "undecided" and found.to_decide:
            text += f" (about {found.to_decide:,} more test rows would decide)"
    return text + (f" {SEEN}" if found.seen else "")


def _short(found: Found, base: str) -> str:
    """One measurement again, where the whole stands with another claim."""
    label = escape(found.label)
    linked = f"[{label}]({link(base, found.file)})" if found.file else label
    return f"{linked} {interval(found)}{f': {found.verdict}' if found.verdict else ''}"


def controls(found: Found) -> str:
    """What knows nothing, and the best baseline, beside one measurement."""
    parts = []
    if "chance" in found.terms and "guessing" not in found.controls and found.unit != "bits":
        parts.append(f"guessing gives {with_unit(found.terms['chance'], found.unit)}")
    for name, (score, ci) in found.controls.items():
        beside = Found("", "", score, ci or (score, score), unit=found.unit)
        parts.append(f"{escape(name)} {interval(beside)}")
    if found.baseline:
        parts.append(f"{escape(found.baseline)} {with_unit(found.terms['baseline'], found.unit)}")
    if "p" in found.terms:
        parts.append(f"p {found.terms['p']:.3f} after Holm" if found.terms["p"] >= 0.001 else "p < 0.001 after Holm")
    if "reference" in found.terms:
        parts.append(f"true texts {with_unit(found.terms['reference'], found.unit)}")
    return ", ".join(parts)


def verdict(judgement: Judgement) -> str:
    """The verdict with its sign, marked where something that decided it was known beforehand."""
    text = _SIGNS.get(judgement.verdict, judgement.verdict)
    return f"**{text}**{marks(judgement)}" if judgement.verdict in _SIGNS else text


def marks(judgement: Judgement) -> str:
    """The marks behind a verdict, each with a space before it."""
    return f" {SEEN}" * judgement.seen + f" {CAUTION}" * bool(judgement.claim.caution)


def sentence(claim: Claim) -> str:
    """The sentence without its list marks; of a cell, the cell and its row or the words before it."""
    plain = _MARKS.sub("", claim.quote).replace("**", "")
    plain = plain[1:-1] if re.fullmatch('"[^"]*"', plain) else plain
    if not claim.cell:
        return escape(plain)
    if claim.quote.startswith("|"):
        row = claim.quote.split("|")[1].strip()
        return escape(f"{row}: {claim.cell}".replace("**", ""))
    return f"{escape(plain.split(':')[0])}: “{escape(claim.cell)}”"


def evidence(judgement: Judgement, base: str) -> tuple[str, str]:
    """The two cells of a claim: what was measured, and what stands beside it."""
    claim = judgement.claim
    if claim.untestable:
        published = f" Published: {escape(claim.published)}." if claim.published else ""
        source = f" ({escape(claim.source)})" if claim.source else ""
        return f"{escape(one_line(claim.untestable))}.{published}{source}", ""
    if claim.same_as:
        decided = {"supported": claim.supports, "refuted": claim.refutes}.get(judgement.verdict, ())
        first = sorted(judgement.found, key=lambda one: not any(c.holds_of(one) for c in decided))
        short = [_short(one, base) for one in first[:_FEW]]
        more = [f"and {len(judgement.found) - _FEW} more"] if len(judgement.found) > _FEW else []
        return "<br>".join([f"as `{claim.same_as}`", *short, *more, *_doubt(judgement)]), ""
    lines = [measured(one, base) for one in judgement.found]
    lines += [f"not measured yet: `{text}`" for text in judgement.missing]
    lines += [f"beside: {measured(one, base)}" for one in judgement.beside]
    lines += _doubt(judgement)
    known = [(one.label, controls(one)) for one in judgement.found]
    several = len(known) > 1
    return "<br>".join(lines), "<br>".join(
        f"{escape(label)}: {text}" if several else text for label, text in known if text
    )


def _doubt(judgement: Judgement) -> list[str]:
    """What speaks against the verdict, where there is one; a repetition leaves to the other what the other says."""
    claim = judgement.claim
    if not claim.caution or judgement.verdict not in _SIGNS:
        return []
    return [f"{CAUTION} {escape(claim.caution)}" if claim.own_caution else f"{CAUTION} as there"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown already."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def link(base: str, file: str) -> str:
    """The address of a stored file, seen from the page."""
    path = f"{base}/{file}" if base not in ("", ".") else file
    return re.sub(r"[ ()<>|]", lambda m: f"%{ord(m.group()):02X}", path)
