import calendar
import datetime as dt
import functools
import json
import random
import re
from collections import Counter

import pytest

from smallfry.builtin import BUILTIN, load_builtin, names
from smallfry.builtin import _grammar as grammar
from smallfry.builtin._command_functions import FUNCTIONS
from smallfry.builtin._command_phrases import CLOSED
from smallfry.builtin._split import collect, part_of, pick
from smallfry.builtin.commands import _plan
from smallfry.builtin.stories import PLACES, PLOTS, consistency
from smallfry.errors import SmallfryError
from smallfry.job import Example, Job, sha256_rows

NAMES = ("commands", "dates", "intents", "reverse", "stories")


@functools.cache
def job(name: str) -> Job:
    return load_builtin(name)


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


# -- every job


def test_names_and_specs() -> None:
    assert names() == list(NAMES)
    assert {n: s.target for n, s in BUILTIN.items()} == {
        "commands": 0.95,
        "dates": 0.95,
        "intents": 0.9,
        "reverse": 0.95,
        "stories": None,
    }
    for spec in BUILTIN.values():
        assert "\n" not in spec.description


def test_unknown_name_lists_the_known_ones_with_the_closest() -> None:
    with pytest.raises(SmallfryError) as caught:
        load_builtin("comands")
    message = str(caught.value)
    assert "did you mean 'commands'?" in message
    assert all(n in message for n in NAMES)
    assert "\n" not in message


def test_no_training_rows_is_an_error() -> None:
    with pytest.raises(SmallfryError, match="n_train is 0"):
        load_builtin("reverse", n_train=0)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_rows_other_seed_other_rows(name: str) -> None:
    generate = BUILTIN[name].generate
    once, again, other = (generate(seed, 60, 40, 40) for seed in (0, 0, 1))
    assert [sha256_rows(rows) for rows in once] == [sha256_rows(rows) for rows in again]
    assert all(sha256_rows(a) != sha256_rows(b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_test_rows_do_not_depend_on_n_train_and_train_is_a_prefix(name: str) -> None:
    full = job(name)
    train, valid, test = BUILTIN[name].generate(0, 100, 50, 50)
    assert (tuple(train), tuple(valid), tuple(test)) == (full.train[:100], full.valid[:50], full.test[:50])
    assert (len(full.train), len(full.valid), len(full.test)) == (BUILTIN[name].n_train, 500, 2000)
    assert full.kind == BUILTIN[name].kind


@pytest.mark.parametrize("name", NAMES)
def test_no_held_out_text_occurs_in_train_even_of_another_seed(name: str) -> None:
    def texts(rows: tuple[Example, ...]) -> set[str]:
        return {normal(e.input or e.output) for e in rows}

    full = job(name)
    train = texts(full.train) | texts(tuple(BUILTIN[name].generate(1, 1000, 0, 0)[0]))
    assert not train & texts(full.test)
    assert not train & texts(full.valid)
    assert not texts(full.valid) & texts(full.test)
    assert len({e.input or e.output for e in full.train}) == len(full.train)


def test_asking_for_more_rows_than_exist_says_how_many_there_are() -> None:
    with pytest.raises(SmallfryError, match="only 3 different train rows"):
        collect("toy", 0, "train", 5, lambda rng: Example(str(rng.randrange(3)), "x"))


# -- the parts they share


def test_part_of_shares() -> None:
    counts = Counter(part_of(f"value {i}") for i in range(5000))
    assert counts["test"] / 5000 == pytest.approx(0.2, abs=0.02)
    assert counts["valid"] / 5000 == pytest.approx(0.1, abs=0.02)


def test_pick_keeps_the_splits_apart() -> None:
    options = tuple(f"word{i}" for i in range(60))
    rng = random.Random(0)
    drawn = {p: {pick(rng, options, p) for _ in range(500)} for p in ("train", "valid", "test")}
    assert {part_of(o) for o in drawn["train"]} == {"train"}
    assert {part_of(o) for o in drawn["test"]} == {"train", "test"}
    assert not (drawn["valid"] & drawn["test"]) - drawn["train"]


def test_grammar_choices_slots_and_nesting() -> None:
    seen = {grammar.fill(random.Random(i), "a[| b[c|{x}]]!", str.upper) for i in range(40)}
    assert seen == {"a!", "a bc!", "a bX!"}
    assert grammar.fill(random.Random(0), "[p|q]", str, allow=lambda option: option == "q") == "q"


@pytest.mark.parametrize("broken", ["[a|b", "a {b"])
def test_grammar_refuses_unbalanced_templates(broken: str) -> None:
    with pytest.raises(ValueError, match=r"unbalanced|not found"):
        grammar.parse(broken)


# -- commands


def arguments(rows: tuple[Example, ...]) -> list[tuple[str, str, str]]:
    out = []
    for e in rows:
        call = json.loads(e.output)
        out += [(call["call"], arg, value) for arg, value in call["args"].items()]
    return out


def test_commands_are_canonical_json_calls_with_keys_in_order() -> None:
    full = job("commands")
    for e in (*full.train, *full.valid, *full.test):
        call = json.loads(e.output)
        assert json.dumps(call) == e.output
        assert list(call) == ["call", "args"]
        order = [a for a in FUNCTIONS[call["call"]].args if a in call["args"]]
        assert list(call["args"]) == order
        assert call["args"]
    assert {json.loads(e.output)["call"] for e in full.test} == set(FUNCTIONS)


def test_commands_open_values_are_spans_at_one_place_and_closed_ones_members() -> None:
    full = job("commands")
    for e in (*full.train, *full.valid, *full.test):
        for arg, value in json.loads(e.output)["args"].items():
            if arg in CLOSED:
                assert any(value in values for values in CLOSED[arg].values()), e
                continue
            span = rf"(?<!\w){re.escape(value.lower())}(?!\w)"
            assert len(re.findall(span, e.input.lower())) == 1, e
            assert re.search(rf"(?<!\w){re.escape(value)}(?!\w)", e.input), e
            assert not re.match(r"(a|an|the|my) ", value.lower()), e


def test_commands_closed_phrases_mean_one_value() -> None:
    for arg, forms in CLOSED.items():
        meaning: dict[str, str] = {}
        for values in forms.values():
            for value, phrases in values.items():
                for phrase in phrases:
                    assert meaning.setdefault(phrase, value) == value, (arg, phrase)


def test_commands_have_many_ways_to_say_each_function() -> None:
    assert len(FUNCTIONS) >= 15
    for name, function in FUNCTIONS.items():
        assert len({*function.orders, *function.wishes}) >= 12, name


def test_commands_test_values_are_unseen() -> None:
    full = job("commands")
    seen = {value.lower() for _, arg, value in arguments(full.train) if arg not in CLOSED}
    for rows in (full.valid, full.test):
        values = [value.lower() for _, arg, value in arguments(rows) if arg not in CLOSED]
        assert sum(v not in seen for v in values) / len(values) > 0.95


def test_commands_combinations_of_test_are_unseen_and_every_template_is_in_train() -> None:
    rng = random.Random(0)
    train, test = ({_plan(rng, part).key for _ in range(4000)} for part in ("train", "test"))
    bare = {key for key in test if key.count("|") == 1}
    assert train & test <= bare
    assert len(test - bare) > 500
    templates = {(key.split("|")[0], key.split("|")[1]) for key in train}
    everything = {(name, core) for name, f in FUNCTIONS.items() for core in (*f.orders, *f.wishes)}
    assert len(templates) / len(everything) > 0.98


def test_commands_hold_corrections_whose_wrong_value_is_not_the_answer() -> None:
    corrections = 0
    for e in (*job("commands").train, *job("commands").test):
        spoken = e.input.lower()
        ends = {spoken.index(v.lower()) + len(v) for _, arg, v in arguments((e,)) if arg not in CLOSED}
        for found in re.finditer(r",? (?:no wait|scratch that|or rather|sorry,? i mean\b),? (?!make that)", spoken):
            corrections += 1
            assert found.start() not in ends, e
    assert corrections > 40


def test_commands_are_beyond_copying_the_nearest_neighbour() -> None:
    sklearn_text = pytest.importorskip("sklearn.feature_extraction.text")
    full = job("commands")
    vectors = sklearn_text.TfidfVectorizer(ngram_range=(1, 2))
    train = vectors.fit_transform([e.input for e in full.train])
    nearest = (vectors.transform([e.input for e in full.test]) @ train.T).toarray().argmax(axis=1)
    right = sum(full.train[i].output == e.output for i, e in zip(nearest, full.test, strict=True))
    assert right / len(full.test) < 0.05


# -- dates

DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WRITTEN = {word: n for n, word in enumerate(NUMBERS)}


def independent(ref: dt.date, text: str) -> dt.date | None:
    """A second reading of the categories that a few lines can decide; None for the others."""
    text = re.sub(r"^(on|by|due|until|from|for) ", "", text)
    simple = {"today": 0, "tomorrow": 1, "yesterday": -1, "the day after tomorrow": 2, "the day before yesterday": -2}
    if text in simple:
        return dt.date.fromordinal(ref.toordinal() + simple[text])
    if m := re.fullmatch(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", text):
        return dt.date(int(m[3]), int(m[2]), int(m[1]))
    if m := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d\d)", text):
        return dt.date(2000 + int(m[3]), int(m[2]), int(m[1]))
    if m := re.fullmatch(r"(\d{4})/?(\d\d)/?(\d\d)", text):
        return dt.date(int(m[1]), int(m[2]), int(m[3]))
    if m := re.fullmatch(r"(?:the )?(\d+)(?:st|nd|rd|th)? (?:of )?([a-z]{3,9}),? (\d{4})", text):
        return dt.datetime.strptime(f"{m[1]} {m[2][:3]} {m[3]}", "%d %b %Y").date()
    if m := re.fullmatch(
        r"(?:in )?(\d+|[a-z]+) (day|week)s?( ago| before today| earlier| from now| from today| later|)", text
    ):
        n = int(m[1]) if m[1].isdigit() else WRITTEN.get(m[1], 1 if m[1] == "a" else 0)
        days = n * (7 if m[2] == "week" else 1) * (-1 if m[3] in (" ago", " before today", " earlier") else 1)
        return dt.date.fromordinal(ref.toordinal() + days) if n else None
    if m := re.fullmatch(r"([a-z]{3,9}) (\d+)(?:st|nd|rd|th)?,? (\d{4})", text):
        return dt.datetime.strptime(f"{m[2]} {m[1][:3]} {m[3]}", "%d %b %Y").date()
    if m := re.fullmatch(r"(?:the )?(\d+)(?:st|nd|rd|th)? (?:of )?([a-z]{3,9})", text):
        month = [name.lower() for name in calendar.month_abbr].index(m[2][:3])
        return min(d for year in (ref.year, ref.year + 1) if (d := dt.date(year, month, int(m[1]))) >= ref)
    if m := re.fullmatch(r"(next|last|this) (\w+day)", text):
        year, week, _ = ref.isocalendar()
        monday = dt.date.fromisocalendar(year, week, 1)
        shift = {"next": 7, "last": -7, "this": 0}[m[1]] + DAYS.index(m[2])
        return dt.date.fromordinal(monday.toordinal() + shift)
    if m := re.fullmatch(r"(this coming |coming |past |the past |)(\w+day)", text):
        step = -1 if "past" in m[1] else 1
        day = dt.date.fromordinal(ref.toordinal() + step)
        while DAYS[day.weekday()] != m[2]:
            day = dt.date.fromordinal(day.toordinal() + step)
        return day
    if re.fullmatch(r"(the end|end|the last day) of (the|this) month", text):
        return ref.replace(day=calendar.monthrange(ref.year, ref.month)[1])
    if text == "christmas day":
        return dt.date(ref.year + (ref > dt.date(ref.year, 12, 25)), 12, 25)
    return None


def test_dates_agree_with_an_independent_computation() -> None:
    full = job("dates")
    checked: Counter[bool] = Counter()
    for e in (*full.train, *full.test):
        head, text = e.input.split(" | ")
        weekday, iso = head.split()
        ref = dt.date.fromisoformat(iso)
        assert weekday == DAYS[ref.weekday()][:3]
        answer = independent(ref, text)
        checked[answer is not None] += 1
        assert answer is None or answer.isoformat() == e.output, e
        assert dt.date.fromisoformat(e.output).isoformat() == e.output
    assert checked[True] / checked.total() > 0.45


def test_dates_conventions() -> None:
    from smallfry.builtin.dates import _weekday, add_months

    assert add_months(dt.date(2024, 1, 31), 1) == dt.date(2024, 2, 29)
    assert add_months(dt.date(2024, 3, 31), -13) == dt.date(2023, 2, 28)
    friday = dt.date(2024, 3, 15)
    answers = dict(_weekday(random.Random(i), friday) for i in range(600))
    assert answers["next friday"] == dt.date(2024, 3, 22)
    assert answers["this friday"] == friday
    assert answers["friday"] == dt.date(2024, 3, 22)
    assert answers["past friday"] == dt.date(2024, 3, 8)
    assert answers["last monday"] == dt.date(2024, 3, 4)
    assert answers["the monday after next"] == dt.date(2024, 3, 25)


def test_dates_of_test_are_unseen_as_reference_and_as_answer() -> None:
    full = job("dates")

    def days(rows: tuple[Example, ...]) -> set[str]:
        return {e.input[4:14] for e in rows} | {e.output for e in rows}

    assert not days(full.train) & days(full.test)
    assert not days(full.train) & days(full.valid)


# -- intents


def test_intents_labels_and_balance() -> None:
    full = job("intents")
    for rows in (full.train, full.valid, full.test):
        counts = Counter(e.output for e in rows)
        assert len(counts) == len(full.labels) >= 28
        assert max(counts.values()) / len(rows) < 0.1
    assert "out_of_scope" in full.labels


def test_intents_products_of_test_are_partly_unseen() -> None:
    from smallfry.builtin._intent_frames import PRODUCTS

    full = job("intents")
    seen = set(normal(" ".join(e.input for e in full.train)).split())
    held = [p for p in PRODUCTS if part_of(p) == "test"]
    assert len(held) >= 5
    assert not seen & set(held)
    assert set(normal(" ".join(e.input for e in full.test)).split()) & set(held)


# -- reverse


def test_reverse_is_reversed_over_all_lengths() -> None:
    full = job("reverse")
    for e in (*full.train, *full.test):
        assert e.output == "".join(reversed(e.input))
        assert re.fullmatch(r"[a-z0-9]{3,12}", e.input)
    assert {len(e.input) for e in full.test} == set(range(3, 13))


# -- stories


def test_stories_use_simple_words_and_keep_their_length() -> None:
    full = job("stories")
    words = [re.findall(r"[A-Za-z']+", e.output) for e in full.train]
    assert all(e.input == "" for e in full.train)
    assert all(60 <= len(w) <= 150 for w in words)
    assert 1000 <= len({w.lower() for story in words for w in story}) <= 2000
    assert len(PLOTS) >= 12


def test_stories_leave_no_slot_open_and_every_beat_is_a_choice() -> None:
    full = job("stories")
    assert not any(re.search(r"[{}\[\]|_]|  ", e.output) for e in (*full.train, *full.valid, *full.test))
    for plot in PLOTS.values():
        for beat in plot.beats:
            assert isinstance(beat, tuple)
            assert beat[0]


def test_stories_are_consistent_and_spoiled_ones_are_not() -> None:
    full = job("stories")
    for e in full.test[:300]:
        assert all(consistency(e.output).values()), e.output
    story = (
        'Tom had a red kite. He took it to the park. "Look!" said Tom. The wind took it away. '
        "Tom ran and ran. Then he saw the kite on a tree. He was happy and went home with the kite."
    )
    assert consistency(story) == {
        "names_kept": True,
        "object_kept": True,
        "pronoun_agrees": True,
        "complete": True,
    }
    half = story.rindex("Then")
    assert not consistency(story[:half] + story[half:].replace("he saw", "Mia saw"))["names_kept"]
    assert not consistency(story[:half] + story[half:].replace("kite", "drum"))["object_kept"]
    assert not consistency(story.replace("He took", "She took"))["pronoun_agrees"]
    assert not consistency(story[:-1])["complete"]


def test_stories_of_test_join_hero_and_place_as_no_training_story_does() -> None:
    full = job("stories")
    places = sorted(PLACES, key=len, reverse=True)

    def pairs(rows: tuple[Example, ...]) -> set[tuple[str, str]]:
        found = set()
        for e in rows:
            place = next((p for p in places if re.search(rf"\b(in|at|by|on|to) the {p}\b", e.output)), None)
            hero = re.match(r"\b(?:A|Once|There).*? (?:named|called|name) ([A-Z][a-z]+)\b", e.output)
            if place and hero:
                found.add((hero[1], place))
        return found

    train, test = pairs(full.train), pairs(full.test)
    assert len(test) > 100
    # "home" phrases and spots also name a few places, hence not exactly zero.
    assert len(test & train) / len(test) < 0.1
