"""Outputs taken apart and put together again."""

from __future__ import annotations

import json

import pytest

from smallfry.frames import FrameCodec
from smallfry.job import Example

CITIES = ["paris", "new york", "rome", "cape town", "oslo", "lima", "quito", "san juan"]


def slot_rows(n: int = 200) -> list[Example]:
    rows = []
    for i in range(n):
        a, b = CITIES[i % 8], CITIES[(i * 3 + 1) % 8]
        if i % 5 == 0:
            rows.append(Example(f"how is the weather in {a}", f"Weather | city = {a}"))
        elif a != b:
            rows.append(Example(f"fly from {a} to {b}", f"Flight | from = {a} ; to = {b}"))
    return rows


def json_rows(n: int = 200) -> list[Example]:
    rows = []
    for i in range(n):
        city, state, count = CITIES[i % 8], ("on", "off")[i % 2], str(10 + i % 30)
        text = f"{'kill' if state == 'off' else 'start'} the lamp in {city} for {count} minutes"
        call = {"call": "lamp", "args": {"state": state, "place": city, "minutes": int(count)}}
        rows.append(Example(text, json.dumps(call)))
    return rows


def test_lists_survive_the_round_trip_and_name_their_parts() -> None:
    codec = FrameCodec.learn(slot_rows())
    assert codec is not None and codec.style == "list"
    assert codec.open_paths == {"city", "from", "to"}
    assert codec.symbols == ["#0=Flight", "#0=Weather"]
    unseen = Example("fly from bad homburg to ulm", "Flight | from = bad homburg ; to = ulm")
    frame = codec.parse(unseen)
    assert frame is not None
    assert list(frame.tags) == ["O", "O", "B-from", "I-from", "O", "B-to"]
    assert codec.render(unseen.input, frame.head, frame.tags) == unseen.output


def test_json_leaves_are_copied_or_closed_by_path() -> None:
    rows = json_rows()
    codec = FrameCodec.learn(rows)
    assert codec is not None and codec.style == "json"
    assert codec.open_paths == {"args.place", "args.minutes"}
    assert set(codec.symbols) == {'call="lamp"', 'args.state="on"', 'args.state="off"'}
    assert codec.coverage(rows) == 1.0
    frame = codec.parse(rows[3])
    assert frame is not None
    answer = json.loads(codec.render(rows[3].input, frame.head, frame.tags))
    assert answer == json.loads(rows[3].output)
    assert isinstance(answer["args"]["minutes"], int)


def test_json_lists_of_spans_keep_their_order() -> None:
    items = ["milk", "eggs", "red tea", "rice", "salt"]
    rows = []
    for i in range(100):
        a, b = items[i % 5], items[(i + 1) % 5]
        rows.append(Example(f"buy {a} and {b}", json.dumps({"add": [a, b]})))
    codec = FrameCodec.learn(rows)
    assert codec is not None
    assert codec.coverage(rows) == 1.0


def test_tag_sequences_have_one_tag_a_word() -> None:
    rows = [Example(f"the dog{i} sees a cat", "DET NOUN VERB DET NOUN") for i in range(60)]
    codec = FrameCodec.learn(rows)
    assert codec is not None and codec.style == "tags"
    frame = codec.parse(rows[0])
    assert frame is not None and codec.render(rows[0].input, (), frame.tags) == rows[0].output


@pytest.mark.parametrize(
    "rows",
    [
        [Example(f"text number {i}", ("spam", "ham")[i % 2]) for i in range(100)],
        [Example("".join(chr(97 + (i * k) % 26) for k in range(8)), f"x{i}") for i in range(100)],
        [Example(f"jump {i}", "I_JUMP I_JUMP") for i in range(100)],
        slot_rows(10),
    ],
    ids=["labels", "characters", "actions", "too few rows"],
)
def test_other_outputs_have_no_codec(rows: list[Example]) -> None:
    assert FrameCodec.learn(rows) is None


@pytest.mark.parametrize("rows", [slot_rows(), json_rows()], ids=["list", "json"])
def test_a_stored_codec_renders_alike(rows: list[Example]) -> None:
    codec = FrameCodec.learn(rows)
    assert codec is not None
    again = FrameCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    for row in rows[:20]:
        frame = codec.parse(row)
        assert frame is not None and again.parse(row) == frame
        assert again.render(row.input, frame.head, frame.tags) == row.output


def test_nonsense_tags_still_render() -> None:
    codec = FrameCodec.learn(json_rows())
    assert codec is not None
    assert json.loads(codec.render("a b c", [], ["I-args.place", "B-args.minutes", "I-args.place"])) == {
        "args": {"minutes": "b"}
    }
