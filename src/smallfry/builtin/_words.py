"""Number words and the calendar's names, shared by the built-in jobs."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Split a list written as text at its spaces; an underscore stands for a space within a word."""
    return tuple(w.replace("_", " ") for w in text.split())


ONES = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
WEEKDAYS = words("monday tuesday wednesday thursday friday saturday sunday")
MONTHS = words("january february march april may june july august september october november december")


def number_words(n: int) -> str:
    """0 to 99 in words, without a hyphen."""
    if n < 20:
        return ONES[n]
    return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
