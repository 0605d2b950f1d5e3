"""Text from outside: characters that UTF-8 cannot spell, and those that would drive a terminal."""

from __future__ import annotations

import re

# All but tab and line feed: they move the cursor, retitle the window, or end a line where there is none.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def whole_text(text: str) -> str:
    """The text with half characters (lone surrogates, which JSON can spell and UTF-8 cannot) as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def visible(text: str) -> str:
    """The text with control characters as U+FFFD: a model of bytes, a card or a server may write any of them."""
    return _CONTROLS.sub("\ufffd", text)
