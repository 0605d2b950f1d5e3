"""`dates`: a reference day and a date as people write it, answered by the ISO date.

The input is "fri 2024-03-15 | next friday": the reference day with its weekday, a bar, the expression. Conventions:

- Numeric dates are day, month, year ("12/04/2021" is 12 April) unless the year stands first; two-digit years are 20yy.
- A date or feast without a year is its first occurrence on or after the reference day; so is a bare "the 15th".
- Weeks run from Monday to Sunday. "this friday" is in the week of the reference day, "next friday" in the week after,
  "last friday" in the week before. "friday", "coming friday" is the first one after the reference day, "past friday"
  the last one before it; neither is ever the reference day itself. "friday in two weeks" and "the friday after next"
  are in the week after the next.
- Months and years are added to the calendar month; a day that month does not have becomes its last day.

A day is held out by a hash of its ISO form: neither the reference day nor the answer of a test row occurs in train.
"""

from __future__ import annotations

import calendar
import datetime as dt
import random
from collections.abc import Callable

from smallfry.builtin._split import choose, collect, part_of
from smallfry.builtin._words import MONTHS, ONES, TENS, WEEKDAYS, number_words, words
from smallfry.job import Example, SplitName

Date = dt.date
FIRST_DAY, LAST_DAY = Date(2015, 1, 1), Date(2034, 12, 31)
_ORDINALS = dict(
    zip(
        ONES,
        words("zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"),
        strict=False,
    )
)
FEASTS = {
    "christmas day": (12, 25),
    "christmas eve": (12, 24),
    "new year's eve": (12, 31),
    "new year's day": (1, 1),
    "halloween": (10, 31),
    "valentine's day": (2, 14),
    "labour day": (5, 1),
    "boxing day": (12, 26),
}
_LEADS = ("", "", "", "", "on ", "by ", "due ", "until ", "from ", "for ")


def _ordinal_word(n: int) -> str:
    if n >= 20:
        return f"{TENS[n // 10]} {_ordinal_word(n % 10)}" if n % 10 else TENS[n // 10].removesuffix("y") + "ieth"
    return _ORDINALS.get(ONES[n], ONES[n] + "th")


def _ordinal(rng: random.Random, n: int) -> str:
    if rng.random() < 0.35:
        return _ordinal_word(n)
    return f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _number(rng: random.Random, n: int) -> str:
    return str(n) if rng.random() < 0.5 else number_words(n)


def _month_name(rng: random.Random, month: int) -> str:
    name = MONTHS[month - 1]
    return name[:3] if rng.random() < 0.35 else name


def add_months(day: Date, months: int) -> Date:
    """The same day some months on; where that month is too short, its last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return Date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def _week(day: Date, weeks: int, weekday: int) -> Date:
    return day + dt.timedelta(days=weekday - day.weekday() + 7 * weeks)


def _after(day: Date, weekday: int) -> Date:
    return day + dt.timedelta(days=(weekday - day.weekday() - 1) % 7 + 1)


def _month_end(day: Date) -> Date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def _any_day(rng: random.Random) -> Date:
    return FIRST_DAY + dt.timedelta(days=rng.randrange((LAST_DAY - FIRST_DAY).days + 1))


def _day_month(rng: random.Random, day: Date) -> str:
    month = _month_name(rng, day.month)
    form = rng.randrange(5)
    if form == 0:
        return f"{day.day} {month}"
    if form == 1:
        return f"{month} {day.day}"
    if form == 2:
        return f"{month} {_ordinal(rng, day.day)}"
    if form == 3:
        return f"the {_ordinal(rng, day.day)} of {month}"
    return f"{_ordinal(rng, day.day)} of {month}"


def _absolute(rng: random.Random, ref: Date) -> tuple[str, Date]:
    day = _any_day(rng)
    text = f"{_day_month(rng, day)}{choose(rng, (' ', ' ', ', '))}{day.year}"
    if rng.random() < 0.15:
        text = f"{WEEKDAYS[day.weekday()][: _name_length(rng)]}, {text}"
    if rng.random() < 0.1:
        text = f"{day.day}-{MONTHS[day.month - 1][:3]}-{day.year}"
    return text, day


def _name_length(rng: random.Random) -> int:
    return 3 if rng.random() < 0.4 else 9


def _numeric(rng: random.Random, ref: Date) -> tuple[str, Date]:
    d = _any_day(rng)
    forms = (
        f"{d.day:02d}/{d.month:02d}/{d.year}",
        f"{d.day}/{d.month}/{d.year}",
        f"{d.day:02d}.{d.month:02d}.{d.year}",
        f"{d.day}.{d.month}.{d.year}",
        f"{d.year}/{d.month:02d}/{d.day:02d}",
        f"{d.year}{d.month:02d}{d.day:02d}",
        f"{d.day:02d}/{d.month:02d}/{d.year % 100:02d}",
        f"{d.day:02d}-{d.month:02d}-{d.year}",
    )
    return choose(rng, forms), d


def _next_occurrence(ref: Date, month: int, day: int) -> Date:
    this_year = Date(ref.year, month, day)
    return this_year if this_year >= ref else Date(ref.year + 1, month, day)


def _no_year(rng: random.Random, ref: Date) -> tuple[str, Date]:
    if rng.random() < 0.2:
        feast = choose(rng, tuple(FEASTS))
        return feast, _next_occurrence(ref, *FEASTS[feast])
    day = Date(2023, 1, 1) + dt.timedelta(days=rng.randrange(365))  # not a leap year: 29 february has no next year
    return _day_month(rng, day), _next_occurrence(ref, day.month, day.day)


def _day_number(rng: random.Random, ref: Date) -> tuple[str, Date]:
    number = rng.randrange(1, 29)
    text = f"the {_ordinal(rng, number)}"
    where, months = _pair(rng, (("", 0), ("", 0), (" of this month", 0), (" of next month", 1), (" of last month", -1)))
    if where:
        return text + where, add_months(ref.replace(day=1), months).replace(day=number)
    return text, add_months(ref.replace(day=1), 0 if number >= ref.day else 1).replace(day=number)


def _pair(rng: random.Random, pairs: tuple[tuple[str, int], ...]) -> tuple[str, int]:
    return pairs[int(rng.random() * len(pairs))]


def _weekday(rng: random.Random, ref: Date) -> tuple[str, Date]:
    weekday = rng.randrange(7)
    name = WEEKDAYS[weekday]
    kind = rng.randrange(6)
    if kind == 0:
        return f"{choose(rng, ('', 'coming ', 'this coming '))}{name}", _after(ref, weekday)
    if kind == 1:
        past = _after(ref, weekday) - dt.timedelta(days=7 if weekday != ref.weekday() else 14)
        return f"{choose(rng, ('past ', 'the past '))}{name}", past
    forms, weeks = (
        (("next {}", "{} next week", "{} of next week"), 1),
        (("last {}", "{} last week", "{} of last week"), -1),
        (("this {}", "{} this week", "{} of this week"), 0),
        (("{} in two weeks", "the {} after next", "{} the week after next"), 2),
    )[kind - 2]
    return choose(rng, forms).format(name), _week(ref, weeks, weekday)


def _shift(ref: Date, n: int, unit: str) -> Date:
    if unit in ("day", "week"):
        return ref + dt.timedelta(days=n * (7 if unit == "week" else 1))
    return add_months(ref, n * (12 if unit == "year" else 1))


def _offset(rng: random.Random, ref: Date) -> tuple[str, Date]:
    unit, most = _pair(
        rng, (("day", 30), ("day", 30), ("day", 30), ("week", 8), ("week", 8), ("month", 11), ("year", 5))
    )
    n = rng.randrange(1, most + 1)
    many = f"{_number(rng, n)} {unit}s" if n > 1 else choose(rng, (f"a {unit}", f"one {unit}", f"1 {unit}"))
    if rng.random() < 0.4:
        return f"{many} {choose(rng, ('ago', 'ago', 'before today', 'earlier'))}", _shift(ref, -n, unit)
    form = choose(rng, ("in {}", "in {}", "{} from now", "{} from today", "{} later"))
    return form.format(many), _shift(ref, n, unit)


def _fixed(rng: random.Random, ref: Date) -> tuple[str, Date]:
    text, days = _pair(
        rng,
        (
            ("today", 0),
            ("tomorrow", 1),
            ("yesterday", -1),
            ("the day after tomorrow", 2),
            ("day before yesterday", -2),
            ("the day before yesterday", -2),
            ("day after tomorrow", 2),
            ("a week from tomorrow", 8),
            ("a week from today", 7),
            ("two weeks from tomorrow", 15),
            ("tonight", 0),
            ("tomorrow morning", 1),
            ("yesterday evening", -1),
        ),
    )
    return text, ref + dt.timedelta(days=days)


def _edge(rng: random.Random, ref: Date) -> tuple[str, Date]:
    which, months = _pair(rng, (("the month", 0), ("this month", 0), ("next month", 1), ("last month", -1)))
    first = add_months(ref.replace(day=1), months)
    kind = rng.randrange(4)
    if kind == 0:
        return f"{choose(rng, ('the end', 'end', 'the last day'))} of {which}", _month_end(first)
    if kind == 1:
        return f"{choose(rng, ('the start', 'beginning', 'the first day'))} of {which}", first
    year, years = _pair(rng, (("the year", 0), ("this year", 0), ("next year", 1), ("last year", -1)))
    if kind == 2:
        return f"{choose(rng, ('the end', 'end', 'the last day'))} of {year}", Date(ref.year + years, 12, 31)
    return f"{choose(rng, ('the start', 'beginning', 'the first day'))} of {year}", Date(ref.year + years, 1, 1)


def _nth_weekday(rng: random.Random, ref: Date) -> tuple[str, Date]:
    weekday, nth = rng.randrange(7), rng.randrange(1, 6)
    which, months = _pair(rng, (("this month", 0), ("next month", 1)))
    first = add_months(ref.replace(day=1), months)
    day = _after(first - dt.timedelta(days=1), weekday) + dt.timedelta(days=7 * (nth - 1))
    if nth == 5:
        last = _month_end(first)
        return f"the last {WEEKDAYS[weekday]} of {which}", last - dt.timedelta(days=(last.weekday() - weekday) % 7)
    return f"the {_ordinal(rng, nth)} {WEEKDAYS[weekday]} of {which}", day


def _anchored(rng: random.Random, ref: Date) -> tuple[str, Date]:
    text, day = _absolute(rng, ref)
    n = rng.randrange(1, 11)
    unit = choose(rng, ("day", "day", "week"))
    many = (
        f"{_number(rng, n)} {unit}s"
        if n > 1
        else choose(rng, (f"a {unit}", f"one {unit}", "the day" if unit == "day" else "1 week"))
    )
    if rng.random() < 0.5:
        return f"{many} before {text}", _shift(day, -n, unit)
    return f"{many} after {text}", _shift(day, n, unit)


_Maker = Callable[[random.Random, Date], tuple[str, Date]]
CATEGORIES: tuple[tuple[_Maker, int], ...] = (
    (_absolute, 24),
    (_numeric, 12),
    (_no_year, 14),
    (_day_number, 8),
    (_weekday, 15),
    (_offset, 13),
    (_fixed, 4),
    (_edge, 4),
    (_nth_weekday, 2),
    (_anchored, 4),
)
_BARE = (_fixed, _offset, _anchored)  # these read badly after a preposition


def _row(rng: random.Random, part: SplitName) -> Example | None:
    ref = _any_day(rng)
    while part_of(ref.isoformat()) != part:
        ref = _any_day(rng)
    make = rng.choices([m for m, _ in CATEGORIES], [w for _, w in CATEGORIES])[0]
    # Redraw within the category, so that the mix is the same in every split; an answer such as "today" always fits.
    for _ in range(60):
        text, day = make(rng, ref)
        if part_of(day.isoformat()) == part:
            if make not in _BARE and "past" not in text:
                lead = choose(rng, _LEADS)
                text = (lead if lead != "on " or make is not _edge else "by ") + text
            return Example(f"{WEEKDAYS[ref.weekday()][:3]} {ref.isoformat()} | {text}", day.isoformat())
    return None


def generate(seed: int, n_train: int, n_valid: int, n_test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Make the rows of the `dates` job.

    Args:
        seed: Seed of everything random; the same seed gives the same rows.
        n_train: Training rows.
        n_valid: Validation rows.
        n_test: Test rows; their reference days and answers occur in no other split.

    Returns:
        Train, valid and test rows.

    Raises:
        SmallfryError: More rows were asked for than there are different ones.
    """
    return (
        collect("dates", seed, "train", n_train, lambda rng: _row(rng, "train")),
        collect("dates", seed, "valid", n_valid, lambda rng: _row(rng, "valid")),
        collect("dates", seed, "test", n_test, lambda rng: _row(rng, "test")),
    )
