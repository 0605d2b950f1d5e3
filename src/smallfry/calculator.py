"""The calculator that finishes ``<<12/60=`` with ``0.2>>``, as in GSM8K's own solutions (Cobbe et al. 2021)."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

_CALL = re.compile(r"<<([^<>=]{1,60})=$")
_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_LARGEST = 1e15
_ARITHMETIC = re.compile(r"[-+*/(). \d]+", re.ASCII)  # Python's parser warns of things like 3and4


def calculate(expression: str) -> str | None:
    """The value of an arithmetic expression as the data set writes it, or None where it is none.

    Numbers, ``+ - * /``, parentheses and signs; nothing else is looked at, nothing is executed.
    """
    plain = expression.replace(",", "").replace("$", "").strip()
    if not _ARITHMETIC.fullmatch(plain):
        return None
    try:
        value = _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None
    return f"{value:.10g}" if abs(value) < _LARGEST else None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("not arithmetic")


def calculator(text: str) -> str | None:
    """What the calculator writes after a text: the value and ``>>`` where it ends in ``<<expression=``."""
    call = _CALL.search(text[-64:])
    value = calculate(call[1]) if call else None
    return None if value is None else f"{value}>>"
