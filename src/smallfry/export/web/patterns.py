"""Patterns by which tokenizers cut text, from their spelling (Oniguruma) to JavaScript's with the flag ``u``."""

from __future__ import annotations

import re

# What both take for white space differs: U+0085 there, U+FEFF here. So the characters are named.
SPACES = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TOKEN = re.compile(
    r"(?P<open>\((?:\?(?:i:|:|=|!|<=|<!))?)(?!\?)|(?P<close>\))|(?P<property>\\[pP]\{[A-Z][a-z]?\})"
    r"|(?P<kind>\\[sSd])|(?P<control>\\[rntfv])|(?P<escape>\\[^A-Za-z0-9])|(?P<start>\[\^?)|(?P<end>\])"
    r"|(?P<count>(?:[?*+]|\{\d+(?:,\d*)?\})\??(?![?*+]))|(?P<bar>[|^$])|(?P<other>[^\\\[\](){}?*+.|^$])"
)
_IN_CLASS = re.compile(
    r"(?P<property>\\[pP]\{[A-Z][a-z]?\})|(?P<kind>\\[sd])|(?P<control>\\[rntfv])|(?P<escape>\\[^A-Za-z0-9])"
    r"|(?P<end>\])|(?P<other>[^\\\[\]&])"
)
_KINDS = {r"\s": f"[{SPACES}]", r"\S": f"[^{SPACES}]", r"\d": r"\p{Nd}"}
_SYNTAX = frozenset("^$\\.*+?()[]{}|/")
_FOLDS = {"s": "\u017f", "k": "\u212a"}  # what folds to these letters beside their capitals


def to_javascript(pattern: str) -> str:
    """A pattern in JavaScript's spelling.

    Raises:
        ValueError: When it has something that JavaScript does not, or that is not known here.
    """
    out: list[str] = []
    folding: list[bool] = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None:
            raise ValueError(f"{pattern[at : at + 12]!r}")
        part, group = found.group(), found.lastgroup
        at = found.end()
        if group == "open":
            folding.append(part == "(?i:" or (bool(folding) and folding[-1]))
            out.append("(?:" if part in ("(", "(?i:") else part)
        elif group == "close":
            if not folding:
                raise ValueError("a bracket that nothing opens")
            folding.pop()
            out.append(part)
        elif group == "start":
            text, at = _class(pattern, at, part, bool(folding) and folding[-1])
            out.append(text)
        elif group == "end":
            raise ValueError("a class that nothing opens")
        elif group == "kind":
            out.append(_KINDS[part])
        elif group in ("escape", "other"):
            out.append(_letter(part[-1], bool(folding) and folding[-1]))
        else:
            out.append(part)
    if folding:
        raise ValueError("a bracket that nothing closes")
    return "".join(out)


def literal(text: str) -> str:
    """A pattern for exactly this text."""
    return "".join(_letter(char, False) for char in text)


def _letter(char: str, folds: bool) -> str:
    if folds and not char.isascii():
        raise ValueError(f"{char!r} in either case")
    if folds and char.isalpha():
        return f"[{char.lower()}{char.upper()}{_FOLDS.get(char.lower(), '')}]"
    return "\\" + char if char in _SYNTAX else char


def _class(pattern: str, at: int, start: str, folds: bool) -> tuple[str, int]:
    """A class of characters from behind its bracket on, and where it ends."""
    out = [start]
    while (found := _IN_CLASS.match(pattern, at)) is not None:
        part, group = found.group(), found.lastgroup
        at = found.end()
        if group == "end":
            return "".join(out) + "]", at
        if folds and group in ("escape", "other") and part[-1].isalpha():
            raise ValueError("a class of letters in either case")
        if group == "kind":
            out.append(SPACES if part == r"\s" else r"\p{Nd}")
        elif group == "escape" or (group == "other" and part in _SYNTAX):
            out.append("\\" + part[-1] if part[-1] in _SYNTAX or part[-1] == "-" else part[-1])
        elif part == "-" and (
            len(out) == 1 or out[-1][:2] in (r"\p", r"\P", SPACES[:2]) or pattern[at : at + 1] == "]"
        ):
            out.append("\\-")
        else:
            out.append(part)
    raise ValueError("a class that JavaScript reads otherwise")
