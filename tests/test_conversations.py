"""The built-in conversations: what is asked can be answered from what was said, and no split sees another's."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import combinations

import pytest

from smallfry.builtin._conversation_acts import NAMES, Talk
from smallfry.builtin._conversation_words import TOPICS
from smallfry.builtin._new_names import new_name
from smallfry.builtin._split import part_of
from smallfry.builtin._story_words import OBJECTS
from smallfry.builtin.conversations import BESIDE_TASKS, CONVERSATIONS, PROBE_TASKS, Messages, Probe, make, probes
from smallfry.builtin.stories import consistency
from smallfry.calculator import calculate
from smallfry.errors import SmallfryError
from smallfry.job import SplitName

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = <<(\d+[-+*/]\d+)=(\d+)>>(\d+)")


@pytest.fixture(scope="module")
def sets() -> dict[str, list[Messages]]:
    return {"train": make(3000, 0, "train"), "valid": make(200, 0, "valid"), "test": make(400, 0, "test")}


@pytest.fixture(scope="module")
def asked() -> list[Probe]:
    return probes(0, 60)


def pairs(conversations: list[Messages]) -> list[tuple[str, str]]:
    return [(c[i]["content"], c[i + 1]["content"]) for c in conversations for i in range(0, len(c), 2)]


def test_the_same_seed_gives_the_same_and_fewer_are_a_prefix() -> None:
    assert make(30, 7, "train") == make(60, 7, "train")[:30] != make(30, 8, "train")
    assert CONVERSATIONS["stories-chat"](5, 1, "test") == CONVERSATIONS["stories-chat"](5, 1, "test")
    with pytest.raises(SmallfryError, match="expected train, valid or test"):
        make(1, 0, "dev")


def test_turns_alternate_and_are_plain_words(sets: dict[str, list[Messages]]) -> None:
    for part in sets.values():
        for conversation in part:
            assert len(conversation) >= 2 and len(conversation) % 2 == 0
            for i, message in enumerate(conversation):
                assert set(message) == {"role", "content"} and message["role"] == ("user", "assistant")[i % 2]
                text = message["content"]
                assert text == text.strip() and text and text.isascii()
                assert not re.search(r"[\[\]{}|]|  | [,.?!]|,,|\.\.|\ba [aeio]\w", text), text


def test_no_conversation_is_twice_in_a_split_or_in_two(sets: dict[str, list[Messages]]) -> None:
    texts = {part: [json.dumps(c) for c in found] for part, found in sets.items()}
    assert all(len(set(found)) == len(found) for found in texts.values())
    assert all(not set(texts[a]) & set(texts[b]) for a, b in combinations(texts, 2))


def test_held_out_splits_have_combinations_that_train_has_not(sets: dict[str, list[Messages]]) -> None:
    def steps(part: SplitName) -> set[tuple[str, ...]]:
        found = set()
        for _, answer in pairs(sets[part]):
            for a, op, b, *_ in STEP.findall(answer):
                found.add((op, *(sorted((a, b)) if op in "+*" else (a, b))))
        return found

    def stories(part: SplitName) -> set[str]:
        return {answer for _, answer in pairs(sets[part]) if len(answer.split()) > 50}

    def facts(part: SplitName) -> set[str]:
        names = "|".join(["opposite of", "What color", "legs does", "comes after", "comes before"])
        return {q.rstrip(".?!").lower() for q, _ in pairs(sets[part]) if re.search(names, q)}

    def told(part: SplitName) -> set[tuple[str, ...]]:
        found = set()
        for seed in range(400):
            talk = Talk(random.Random(seed), part)
            kinds = random.Random(seed).sample(["name", "color"], 2)  # the order does not matter
            things = {kind: talk.tell(kind) for kind in kinds}
            if things[kinds[1]] is not None:
                found.add((str(things["name"]), str(things["color"])))
        return found

    for kind in (steps, stories, facts, told):
        train, valid, test = kind("train"), kind("valid"), kind("test")
        assert train and test and not train & test and not train & valid and not valid & test, kind.__name__
    assert len(steps("train")) > 100 and len(steps("test")) > 30


def test_stories_have_what_was_asked_for(sets: dict[str, list[Messages]]) -> None:
    kinds: Counter[str] = Counter()
    for question, answer in pairs(sets["train"]):
        if len(answer.split()) < 50:
            continue
        assert all(consistency(answer).values())
        words = set(re.findall(r"[A-Za-z]+", answer))
        wanted = set(re.findall(r"[A-Za-z]+", question.split("story", 1)[1]))
        named, things = wanted & set(NAMES), wanted & set(OBJECTS)
        assert named | things <= words
        place = re.search(r"(?:in|at|by|on) the ([a-z ]+?)(?:, please)?[.?]?$", question)
        assert place is None or place[1] in answer
        kinds[f"{len(named)} names {len(things)} things {'place' if place else ''}"] += 1
    assert len(kinds) >= 8 and min(kinds.values()) > 5


def test_steps_of_sums_are_right(sets: dict[str, list[Messages]]) -> None:
    sums = [(q, a) for q, a in pairs(sets["train"]) if "####" in a]
    assert len(sums) > 300
    for question, answer in sums:
        found = STEP.findall(answer)
        assert found and answer.splitlines()[-1] == f"#### {found[-1][-1]}" and len(answer.splitlines()) == 2
        for a, op, b, expression, value, again in found:
            assert expression == f"{a}{op}{b}" and calculate(expression) == value == again
        if len(found) == 2:
            assert found[1][0] == found[0][-1], "the second step goes on from the first"
        given = set(re.findall(r"\d+", question))
        assert {found[0][0], found[0][2]} <= given


def test_what_is_remembered_was_told(sets: dict[str, list[Messages]]) -> None:
    asked = 0
    for conversation in sets["train"]:
        for i in range(1, len(conversation), 2):
            found = re.match(
                r"Your (?:name is|\w+ is called|favourite \w+ is)(?: the)? (\w+)\.", conversation[i]["content"]
            )
            if found:
                asked += 1
                assert any(found[1] in m["content"] for m in conversation[: i - 1] if m["role"] == "user")
            if conversation[i]["content"].startswith("You have not told me"):
                kind = re.search(r"name|color|animal|food|friend|old|age|got|get|new", conversation[i - 1]["content"])
                assert kind or re.search(r"who am i|called|eat", conversation[i - 1]["content"].lower())
    assert asked > 200


def test_every_fact_is_asked_in_several_ways_in_training() -> None:
    for name, topic in TOPICS.items():
        assert len(topic.questions) >= 4 and len(topic.facts) >= 7
        assert all(right and about for about, right in topic.facts.items())
        if name == "opposite":
            assert all(topic.facts[right] == about for about, right in topic.facts.items())
    seen: dict[tuple[str, str], set[str]] = {}
    rng = random.Random(0)
    for _ in range(12_000):
        talk = Talk(rng, "train")
        topic_name, about, _ = talk.fact()
        seen.setdefault((topic_name, about), set()).add(talk.turns[0]["content"].lower().rstrip(".?!"))
    assert len(seen) == sum(len(topic.facts) for topic in TOPICS.values())
    assert min(map(len, seen.values())) >= 2


def test_it_says_what_it_is_and_what_it_does_not_know(sets: dict[str, list[Messages]]) -> None:
    said = pairs(sets["train"])
    about = [a for q, a in said if re.search(r"a human|a person|a real person", q)]
    assert about and all(a.startswith("No") for a in about)
    unknown = [a for q, a in said if re.search(r"capital of|president of|weather in", q)]
    assert len(unknown) > 10 and all(a.startswith("I do not know that") for a in unknown)


# ---- probes ----------------------------------------------------------------------------------------------------------


def test_probes_are_the_same_for_a_seed_and_have_every_task(asked: list[Probe]) -> None:
    assert Counter(p.task for p in asked) == dict.fromkeys((*PROBE_TASKS, *BESIDE_TASKS), 60)
    assert probes(0, 5) == [
        p for task in (*PROBE_TASKS, *BESIDE_TASKS) for p in [q for q in asked if q.task == task][:5]
    ]
    assert probes(1, 5) != probes(0, 5)


def test_right_answers_are_right_and_others_are_not(asked: list[Probe]) -> None:
    for probe in asked:
        assert probe.check(probe.answer) and probe.check(probe.answer.lower())
        assert not probe.check("") and not probe.check("I do not know that.")
    for task in (*PROBE_TASKS, *BESIDE_TASKS):
        mine = [p for p in asked if p.task == task]
        wrong = sum(p.check(q.answer) for p in mine for q in mine if q.turns[-1] == p.turns[-1] and q.right != p.right)
        assert wrong == 0, task


def test_naming_everything_is_no_answer(asked: list[Probe]) -> None:
    everyone = "You are " + " or ".join(NAMES) + "."
    assert not any(p.check(everyone) for p in asked if p.task.startswith("name"))
    assert not any(p.check(" ".join(OBJECTS)) for p in asked if p.task == "story_what")


def test_names_are_told_so_many_exchanges_before_and_not_again(asked: list[Probe]) -> None:
    for back in (1, 2, 3):
        for probe in (p for p in asked if p.task == f"name_{back}"):
            assert len(probe.turns) == 2 * back + 1
            there = [probe.right in t["content"] for t in probe.turns]
            assert there[0] and not any(there[2:])


def test_new_names_are_in_no_training(sets: dict[str, list[Messages]], asked: list[Probe]) -> None:
    new = [probe.right for probe in asked if probe.task == "new_name"]
    assert len(set(new)) > 40 and not set(new) & set(NAMES)
    said = {
        part: {w for c in found for m in c for w in re.findall(r"[A-Z]\w+", m["content"])}
        for part, found in sets.items()
    }
    assert not set(new) & said["train"] and not set(new) & said["valid"]
    met = said["train"] - set(NAMES)
    assert {"Deborah", "Betsy"} <= met and sum(len(name) > 3 for name in met) > 300  # many, or it would learn a list
    drawn = [new_name(random.Random(seed), "train") for seed in range(400)]
    assert len(set(drawn)) > 250 and all(re.fullmatch(r"[A-Z][a-z]+", name) for name in drawn)


def test_arithmetic_takes_the_final_number() -> None:
    probe = Probe("arithmetic", (), "7", frozenset(), "")
    assert probe.check("3 + 4 = <<3+4=7>>7\n#### 7") and probe.check("It is 7.") and probe.check("#### 7 8")
    assert not probe.check("#### 17") and not probe.check("7 or 8") and not probe.check("seven")


def test_probes_are_of_the_held_out_split(asked: list[Probe]) -> None:
    for probe in asked:
        if probe.task == "arithmetic":
            for a, op, b, *_ in STEP.findall(probe.answer):
                low, high = (min(int(a), int(b)), max(int(a), int(b))) if op in "+*" else (int(a), int(b))
                assert part_of(f"{low}{op}{high}") == "test"
