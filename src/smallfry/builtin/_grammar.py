"""A tiny phrase grammar shared by the built-in jobs.

A template is text in which `[a|b|c]` is a choice (an empty option is allowed, choices nest) and `{name}` is a slot.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to be filled by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Options, each a parsed template, with the source text of each."""

    options: tuple[tuple[Node, ...], ...]
    sources: tuple[str, ...]


Node = str | Slot | Choice


@lru_cache(maxsize=1 << 14)
def parse(template: str) -> tuple[Node, ...]:
    """Parse a template once.

    Raises:
        ValueError: A bracket or brace of the template has no partner.
    """
    nodes, end = _parse(template, 0, "")
    if end != len(template):
        raise ValueError(f"unbalanced template: {template!r}")
    return nodes


def _parse(text: str, start: int, stops: str) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    literal = start
    i = start
    while i < len(text) and text[i] not in stops:
        if text[i] == "[":
            nodes.append(text[literal:i])
            choice, i = _parse_choice(text, i)
            nodes.append(choice)
            literal = i
        elif text[i] == "{":
            nodes.append(text[literal:i])
            end = text.index("}", i)
            nodes.append(Slot(text[i + 1 : end]))
            i = literal = end + 1
        else:
            i += 1
    nodes.append(text[literal:i])
    return tuple(n for n in nodes if n != ""), i


def _parse_choice(text: str, start: int) -> tuple[Choice, int]:
    options: list[tuple[Node, ...]] = []
    sources: list[str] = []
    i = start
    while True:
        begin = i + 1
        nodes, i = _parse(text, begin, "|]")
        if i >= len(text):
            raise ValueError(f"unbalanced template: {text!r}")
        options.append(nodes)
        sources.append(text[begin:i])
        if text[i] == "]":
            return Choice(tuple(options), tuple(sources)), i + 1


@lru_cache(maxsize=1 << 14)
def slots_of(template: str) -> tuple[str, ...]:
    """Names of the slots outside choices, in order."""
    return tuple(n.name for n in parse(template) if isinstance(n, Slot))


def flatten(rng: random.Random, template: str, allow: Callable[[str], bool] | None = None) -> list[str | Slot]:
    """Take every choice; what is left is text and slots.

    Args:
        rng: Source of the choices.
        template: The template.
        allow: Given an option's source text, whether it may be taken; where no option may, all may.

    Returns:
        Texts and slots in order.
    """
    out: list[str | Slot] = []
    _flatten(rng, parse(template), allow, out)
    return out


def _flatten(
    rng: random.Random, nodes: tuple[Node, ...], allow: Callable[[str], bool] | None, out: list[str | Slot]
) -> None:
    for node in nodes:
        if isinstance(node, Choice):
            options = node.options
            if allow is not None:
                options = tuple(o for o, s in zip(node.options, node.sources, strict=True) if allow(s)) or options
            _flatten(rng, options[int(rng.random() * len(options))], allow, out)
        else:
            out.append(node)


def fill(
    rng: random.Random,
    template: str,
    lookup: Callable[[str], str],
    allow: Callable[[str], bool] | None = None,
) -> str:
    """Take every choice and fill every slot with `lookup(name)`."""
    return "".join(lookup(p.name) if isinstance(p, Slot) else p for p in flatten(rng, template, allow))
