"""What stands around the turns of a conversation, found by rendering a chat template with marks in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smallfry.errors import SmallfryError

OWN = {"before": "<|user|> ", "after": "<|assistant|>", "between": "<|end|><|user|> ", "trims": False, "plain": True}
"""smallfry's own turns (`smallfry.tokenizer.CHAT_TEMPLATE`); a special token that somebody types is text in them."""

_MARKS = ("\ue0f1one\ue0f2", "\ue0f1two\ue0f2", "\ue0f1three\ue0f2")


def turns_of(template: str, where: str) -> dict[str, Any] | None:
    """What goes before the user's first text, after any text of theirs, and between the model's text and the next.

    Args:
        template: Jinja, as in ``tokenizer_config.json``; it is rendered in a sandbox.
        where: The model, for messages.

    Returns:
        ``before``, ``after``, ``between`` (None where turns cannot simply follow each other) and ``trims``, whether
        texts lose the white space around them; None when the template has no such form.

    Raises:
        SmallfryError: When the package jinja2 is missing.
    """
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise SmallfryError(f"{where}: its chat template needs jinja2; pip install jinja2") from None
    one, two, three = _MARKS

    def render(texts: Sequence[str]) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        return compiled.render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")

    try:
        first, spaced, whole = render([one]), render([f" {one} "]), render([one, two, three])
    except Exception:  # a template is a program, and may fail in any way
        return None
    if first.count(one) != 1:
        return None
    before, after = first.split(one)
    trims = spaced == first
    if not trims and spaced != f"{before} {one} {after}":
        return None
    found: dict[str, Any] = {"before": before, "after": after, "between": None, "trims": trims}
    start, end = f"{before}{one}{after}", f"{three}{after}"
    if whole.startswith(start) and whole.endswith(end) and two in whole:
        gap, between = whole[len(start) : len(whole) - len(end)].split(two, 1)
        if not gap.strip() and not any(mark in between for mark in _MARKS):  # the model writes white space itself
            found["between"] = between
    return found
