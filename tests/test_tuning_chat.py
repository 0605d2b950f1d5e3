"""Chat data: what is read, what is left out, what is held out; and the loss mask, token by token."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.corpus import CorpusData, CorpusSettings, open_corpus, prepare
from smallfry.data import Batch
from smallfry.errors import SmallfryError
from smallfry.tokenizer import ASSISTANT, CHAT_TEMPLATE, END, MIN_VOCAB, USER, Tokenizer
from smallfry.training.epochs import MadeBatches
from smallfry.tuning.chat import ChatTuning
from smallfry.tuning.chatdata import ChatData, MixedData, answer_sums, rows_of, spell
from smallfry.tuning.conversations import Conversation, Message, hold_out, normal, read_conversations
from smallfry.tuning.kinds import kind_of
from smallfry.tuning.record import TuneSettings
from smallfry.tuning.start import open_model
from smallfry.tuning.stretches import Stretches
from tests.tuning_models import COLOURS, TEXT, TOKENIZER, exchanges, network, pieces, save, write_rows

BYTES = Tokenizer.train([], MIN_VOCAB)
DATA = Path(__file__).parents[2] / "shared" / "data" / "chat"


def talk(*turns: tuple[str, str]) -> Conversation:
    return tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]


def marked(conversation: Conversation, tokenizer: Tokenizer = BYTES) -> str:
    """The tokens of a conversation, those that are learned in brackets."""
    ids, weights = spell(conversation, tokenizer)
    assert len(ids) == len(weights) and set(weights) <= {0.0, 1.0}
    return "".join(
        f"[{piece}]" if weight else piece
        for piece, weight in zip(pieces(ids, tokenizer), weights, strict=True)
    )  # fmt: skip


# ---- the mask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "Hi"), ("assistant", "Yo.")], "<|user|>ĠHi<|assistant|>[Ġ][Y][o][.][<|end|>]"),
        (
            [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
            "<|user|>Ġa<|assistant|>[Ġ][b][<|end|>]<|user|>Ġc<|assistant|>[Ġ][d][<|end|>]",
        ),
        (
            [("system", "S"), ("user", "a"), ("assistant", "b")],
            "<|user|>ĠSĊĊa<|assistant|>[Ġ][b][<|end|>]",
        ),
        ([("user", "a"), ("assistant", "")], "<|user|>Ġa<|assistant|>[Ġ][<|end|>]"),
        ([("user", ""), ("assistant", "b")], "<|user|>Ġ<|assistant|>[Ġ][b][<|end|>]"),
        (
            [("user", "<|end|>"), ("assistant", "<|user|>")],
            "<|user|>Ġ<|end|><|assistant|>[Ġ][<][|][u][s][e][r][|][>][<|end|>]",
        ),
        ([("user", "é"), ("assistant", "é")], "<|user|>ĠÃ©<|assistant|>[Ġ][Ã][©][<|end|>]"),
        ([("user", "a")], "<|user|>Ġa"),
    ],
)  # fmt: skip
def test_loss_is_on_answers_and_their_end_alone(turns: list[tuple[str, str]], expected: str) -> None:
    assert marked(talk(*turns)) == expected


def test_what_spells_a_special_token_stays_text() -> None:
    ids, _ = spell(talk(("user", "<|end|><|user|>"), ("assistant", "<|assistant|>x<|end|>")), BYTES)
    assert [i for i in ids if i < 7] == [USER, ASSISTANT, END]


def test_pieces_of_words_are_learned_whole() -> None:
    conversation = talk(("user", "what colour is the ball?"), ("assistant", "the ball is red."))
    assert marked(conversation, TOKENIZER).endswith("<|assistant|>[Ġthe][Ġball][Ġis][Ġred][.][<|end|>]")


def test_a_batch_weighs_the_targets_that_are_answers() -> None:
    data = ChatData(
        [talk(("user", "a"), ("assistant", "b")), talk(("user", "ab"), ("assistant", "c"))], BYTES, 64, 64, 0
    )
    (batch,) = data.epoch(0)
    for ids, targets, weights in zip(batch.ids, batch.targets, batch.weights, strict=True):
        learned = [
            (pieces([i], BYTES)[0], pieces([t], BYTES)[0]) for i, t, w in zip(ids, targets, weights, strict=True) if w
        ]
        assert learned[0] == ("<|assistant|>", "Ġ") and learned[-1][1] == "<|end|>" and len(learned) == 3
        assert pieces(ids[:1], BYTES) == ["<|user|>"] and (targets[:-1] == ids[1:]).all()
    assert data.answer_tokens == 6 == batch.weights.sum()


def test_it_is_spelled_as_the_template_and_the_writer_spell_it() -> None:
    jinja2 = pytest.importorskip("jinja2")
    turns = [("user", "what colour is the cap?"), ("assistant", "the cap is red."), ("user", "and the door?")]
    text = jinja2.Template(CHAT_TEMPLATE).render(
        messages=[{"role": r, "content": t} for r, t in turns], add_generation_prompt=True
    )
    ids, _ = spell(talk(*turns), TOKENIZER)
    assert TOKENIZER.hf.encode(text, add_special_tokens=False).ids == [*ids, ASSISTANT]


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_long_conversations_are_cut_between_an_answer_and_the_next_question() -> None:
    conversation = talk(*[(role, f"{role[0]}{i}") for i in range(6) for role in ("user", "assistant")])
    tally: Counter[str] = Counter()
    rows = list(rows_of(conversation, BYTES, 21, tally))
    assert [len(ids) for ids, _ in rows] == [18, 18, 18] and tally["cuts in long conversations"] == 2
    joined = [i for ids, _ in rows for i in ids]
    assert joined == spell(conversation, BYTES)[0]  # nothing is lost
    for ids, weights in rows:
        assert ids[0] == USER and ids[-1] == END and weights[-1] == 1.0


def test_every_row_of_a_conversation_begins_with_its_system_message() -> None:
    conversation = talk(("system", "Be kind."), *[(r, "xx") for _ in range(3) for r in ("user", "assistant")])
    rows = list(rows_of(conversation, BYTES, 24, Counter()))
    assert len(rows) == 3
    for ids, weights in rows:
        assert BYTES.decode(ids).startswith(" Be kind.\n\nxx") and sum(weights) == 4


def test_an_exchange_longer_than_a_row_is_left_out_and_counted() -> None:
    conversation = talk(("user", "a"), ("assistant", "b" * 50), ("user", "c"), ("assistant", "d"))
    tally: Counter[str] = Counter()
    rows = list(rows_of(conversation, BYTES, 20, tally))
    assert [BYTES.decode(ids) for ids, _ in rows] == [" c d"] and tally["exchanges longer than a row"] == 1


def conversations(count: int, turns: int = 1) -> list[Conversation]:
    return [
        talk(*[(m["role"], m["content"]) for m in row["messages"]]) for row in exchanges(count, turns)
    ]  # fmt: skip


def test_an_epoch_has_every_row_once_and_depends_on_seed_and_number_alone() -> None:
    data, again = (ChatData(conversations(60), TOKENIZER, 64, 256, 3) for _ in range(2))
    for epoch in (0, 4):
        batches = data.epoch(epoch)
        assert sorted(i for b in batches for i in b.rows) == list(range(60))
        assert all(b.num_tokens <= 256 for b in batches)
        assert all((a.ids == b.ids).all() for a, b in zip(batches, again.epoch(epoch), strict=True))
    assert [b.rows.tolist() for b in data.epoch(0)] != [b.rows.tolist() for b in data.epoch(1)]
    assert [b.rows.tolist() for b in data.epoch(0)[1:3]] == [b.rows.tolist() for b in data.epoch(0)][1:3]


def test_a_mixture_takes_its_shares_and_in_the_end_everything() -> None:
    given = conversations(90)
    source = [0] * 60 + [1] * 30
    data = ChatData(given, TOKENIZER, 64, 256, 0, source, [1.0, 3.0])
    seen: Counter[int] = Counter()
    for epoch in range(8):
        rows = [int(i) for batch in data.epoch(epoch) for i in batch.rows]
        share = sum(len(data.rows[i][0]) for i in rows if i >= 60) / sum(len(data.rows[i][0]) for i in rows)
        assert share == pytest.approx(0.75, abs=0.03)
        seen.update(rows)
    assert set(seen) == set(range(90)) and max(seen[i] for i in range(60)) - min(seen[i] for i in range(60)) <= 1


def test_stretches_give_the_same_batches_as_epochs() -> None:
    data = ChatData(conversations(40), TOKENIZER, 64, 200, 0)
    whole = [b.ids.tobytes() for epoch in range(4) for b in data.epoch(epoch)]
    cut = Stretches(ChatData(conversations(40), TOKENIZER, 64, 200, 0), 3)
    assert [b.ids.tobytes() for e in range(len(whole) // 3) for b in cut.epoch(e)] == whole[: len(whole) // 3 * 3]
    assert Stretches(data, 3).batch(len(whole) - 1).ids.tobytes() == whole[-1]  # as a resumed run asks


def test_text_is_strewn_among_the_conversations(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n\n".join(t.strip() * 4 + str(i) for i, t in enumerate(TEXT)))
    prepare(tmp_path / "corpus", CorpusSettings((str(text),), 300), workers=1)
    corpus = CorpusData(open_corpus(tmp_path / "corpus"), 32, 256, 1, 0)
    own = ChatData(conversations(40), TOKENIZER, 64, 256, 0)
    mixed = MixedData(own, corpus, 0.5, own.tokens_per_epoch())
    first, second = mixed.epoch(0), mixed.epoch(1)
    chat = [bool((b.ids[:, 0] == USER).all()) for b in first]
    tokens = [
        sum(b.num_tokens for b, is_chat in zip(first, chat, strict=True) if is_chat is of) for of in (True, False)
    ]
    assert 0.4 < tokens[1] / sum(tokens) < 0.6
    texts = [i for i, is_chat in enumerate(chat) if not is_chat]
    assert mixed.text_tokens == tokens[1] and len(texts) == mixed.extra and max(np.diff(texts)) <= 3
    assert first[texts[0]].ids.tobytes() == corpus.batch(0).ids.tobytes()
    assert second[texts[0]].ids.tobytes() == corpus.batch(mixed.extra).ids.tobytes()


def test_batches_are_not_made_only_to_be_counted(tmp_path: Path) -> None:
    asked: list[int] = []

    class Taught:  # a teacher's forward pass at every batch
        def epoch(self, epoch: int) -> Sequence[Batch]:
            own = ChatData(conversations(40), TOKENIZER, 64, 256, 0).epoch(epoch)
            return MadeBatches(len(own), lambda at: asked.append(at) or own[at])

    rows = write_rows(tmp_path / "chat.jsonl", exchanges(40))
    settings = TuneSettings(str(save(tmp_path / "tiny")), (str(rows),), tokens=600)
    made = ChatTuning(settings, open_model(settings.model), read_conversations([str(rows)]), lambda own: Taught(), None)
    assert made.plan.steps and not asked


def test_measured_answers_are_those_of_the_loss() -> None:
    from smallfry.train import mean_loss

    data, model = ChatData(conversations(20, 2), TOKENIZER, 40, 256, 0), network()
    sums = answer_sums(model, data.plain(), data.conversation_of)
    assert sums.shape == (20, 2) and sums[:, 1].sum() == data.answer_tokens
    assert sums[:, 0].sum() / sums[:, 1].sum() == pytest.approx(mean_loss(model, data.plain()), rel=1e-4)


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "user:a assistant:b"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "user:a assistant:b"),
        ({"prompt": "a", "response": "b"}, "user:a assistant:b"),
        ({"instruction": "a", "input": "c", "output": "b"}, "user:a\n\nc assistant:b"),
        ({"instruction": "a", "input": "", "output": "b"}, "user:a assistant:b"),
        ({"question": "a", "answer": "b", "system": "s"}, "system:s user:a assistant:b"),
        ({"messages": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}, "user:a assistant:b"),
        ({"messages": [
            {"role": "user", "content": "a"}, {"role": "tool_call", "content": "f(1)"},
            {"role": "tool", "content": "7"}, {"role": "assistant", "content": "b"},
        ]}, "user:a assistant:f(1) user:7 assistant:b"),
        ({"messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        ]}, 'user:a assistant:{"name": "f", "arguments": {"x": 1}}'),
        ({"messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": ""},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
            {"role": "user", "content": " "}, {"role": "assistant", "content": "d"},
        ]}, "user:a assistant:b user:c assistant:d"),
        ({"messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "\n"},
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
            {"role": "user", "content": ""}, {"role": "assistant", "content": "e"},
        ]}, "user:c assistant:d"),
        ({"messages": [
            {"role": "assistant", "content": "hello"}, {"role": "user", "content": "a"},
            {"role": "user", "content": "aa"}, {"role": "system", "content": "s"},
            {"role": "assistant", "content": "b"}, {"role": "assistant", "content": "bb"},
            {"role": "system", "content": "t"}, {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"},
        ]}, "user:a\naa assistant:b\nbb user:s\n\nt\n\nc assistant:d"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_conversation_is_read(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    other = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}
    read = read_conversations([str(write_rows(tmp_path / "a.jsonl", [row, other]))])
    found = [" ".join(f"{m.role}:{m.content}" for m in c) for c in (*read.train, *read.valid)]
    assert sorted(found) == sorted([expected, "user:q assistant:r"])


def test_a_system_message_between_is_not_learned() -> None:
    turns = [Message("user", "a"), Message("system", "s"), Message("assistant", "b")]
    assert normal(turns, Counter()) == (Message("user", "a"), Message("assistant", "b"))


def test_what_is_held_out_anywhere_is_learned_nowhere(tmp_path: Path) -> None:
    rows = exchanges(90)
    one = write_rows(tmp_path / "one.jsonl", rows)
    both = write_rows(tmp_path / "both.jsonl", exchanges(160))
    read = read_conversations([str(one), str(both)])
    assert not set(read.train) & set(read.valid) and read.counts["left out: held out elsewhere"] >= 1
    assert len(read.source_of) == len(read.train) and set(read.source_of) == {0, 1}
    split = [{**row, "split": "train"} for row in rows] + [{**row, "split": "test"} for row in rows[:20]]
    read = read_conversations([str(write_rows(tmp_path / "split.jsonl", split))])
    assert (len(read.train), len(read.valid)) == (70, 20) and not set(read.train) & set(read.valid)
    with pytest.raises(SmallfryError, match="all its rows are of split valid or test"):
        read_conversations([str(write_rows(tmp_path / "test.jsonl", [{**row, "split": "test"} for row in rows]))])


def test_bad_rows_are_left_out_counted_and_the_first_is_told(tmp_path: Path) -> None:
    rows: list[Any] = exchanges(40)
    rows[3] = {"messages": [{"role": "narrator", "content": "a"}]}
    rows[9] = {"messages": "text"}
    rows[11] = {"messages": [{"role": "user", "content": "a"}]}
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_conversations([str(path)])
    assert len(read.train) + len(read.valid) == 37
    assert read.counts["bad rows"] == 2 and read.counts["rows without an answer"] == 1
    assert read.counts["questions without an answer"] == 1
    assert f"{path}, line 4: turn 1 has the role 'narrator'" in read.notes[0] and "2 of 40" in read.notes[0]


def test_blank_questions_and_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[Any] = exchanges(40)
    rows[3] = {"instruction": "Say it", "output": ""}
    rows[7] = {"instruction": " ", "input": "", "output": "It."}
    rows[9] = {"messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say it"},
        {"role": "assistant", "content": " \n"}, {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "Well."},
    ]}  # fmt: skip
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_conversations([str(path)])
    found = [*read.train, *read.valid]
    assert len(found) == 38 and all(message.content.strip() for each in found for message in each)
    assert talk(("system", "Be kind."), ("user", "Well?"), ("assistant", "Well.")) in found
    assert read.counts["exchanges with a blank answer"] == 2 and read.counts["exchanges with a blank question"] == 1
    assert read.counts["rows without an answer"] == 2
    start = open_model(str(save(tmp_path / "tiny")))
    told = dict(ChatTuning(TuneSettings("tiny", (str(path),), tokens=600), start, read, None, None).lines())
    assert told["exchanges with a blank answer"] == "2" and told["exchanges with a blank question"] == "1"


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (
            [{"instruction": "Say it", "output": ""}] * 3,
            r"to learn from \(3 exchanges with a blank answer, 3 rows without an answer\); expected a col",
        ),
        (
            [{"text": "a"}] * 3,
            r"line 1: no conversation in columns text \(and 2 more of 3 rows\); expected a col",
        ),
        ([{"messages": [1]}], "line 1: turn 1 is a int, expected an object"),
        ([{"messages": [{"role": "user", "content": 3}]}], "turn 1 holds a int, expected text"),
        ([{"messages": [{"role": "user", "content": "a"}]}], "no conversation to learn from"),
    ],
)
def test_data_without_conversations_is_refused(tmp_path: Path, rows: list[Any], match: str) -> None:
    with pytest.raises(SmallfryError, match=match) as caught:
        read_conversations([str(write_rows(tmp_path / "a.jsonl", rows))])
    assert "\n" not in str(caught.value)


def test_sources_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SmallfryError, match=r"no such file and no built-in set of conversations; built-in: arithmetic"):
        read_conversations([str(tmp_path / "none.jsonl")])
    path = write_rows(tmp_path / "a.jsonl", exchanges(4))
    with pytest.raises(SmallfryError, match="a weight of 0"):
        read_conversations([f"{path}:0"])
    path.write_text('{"messages": [}\n')
    with pytest.raises(SmallfryError, match="line 1: invalid JSON"):
        read_conversations([str(path)])


def test_files_are_mixed_by_weight_and_read_packed(tmp_path: Path) -> None:
    rows = exchanges(60)
    first = write_rows(tmp_path / "a.jsonl", rows[:40])
    second = tmp_path / "b.jsonl.gz"
    second.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows[40:]).encode()))
    read = read_conversations([f"{first}:3", str(second)])
    assert read.weights == [3.0, 1.0] and Counter(read.source_of) == {0: 32, 1: 16} and len(read.valid) == 12
    assert read_conversations([str(first), str(second)]).weights is None


def test_a_limit_takes_the_first_conversations_of_each_source(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", exchanges(40))
    read = read_conversations([str(path)], limit=10)
    assert {c[0].content for c in (*read.train, *read.valid)} == {c[0].content for c in conversations(10)}
    made = read_conversations(["arithmetic"], limit=30)
    assert (len(made.train), len(made.valid)) == (30, 30) and "30 conversations made with seed 0" in made.notes[0]


@pytest.mark.parametrize("name", ["chat", "stories-chat", "arithmetic"])
def test_built_in_sets_are_read(name: str) -> None:
    read = read_conversations([name, f"chat:{name}"], seed=1, limit=20)
    assert read.train[:20] == read.train[20:] and len(read.valid) == 40
    assert not set(read.train) & set(read.valid)
    assert read_conversations([name], seed=2, limit=20).train != read.train[:20]


def test_parquet_is_read(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist([{**r, "other": 1} for r in exchanges(10)]), tmp_path / "a.parquet")
    assert len(read_conversations([str(tmp_path / "a.parquet")]).train) == 8


def test_a_split_column_decides_what_is_held_out(tmp_path: Path) -> None:
    rows = [{**row, "split": "validation" if i < 5 else "train"} for i, row in enumerate(exchanges(30))]
    read = read_conversations([str(write_rows(tmp_path / "a.jsonl", rows))])
    assert len(read.valid) == 5 and read.valid[0][0].content.endswith(" 0")


def test_equal_conversations_stay_together_and_the_cut_does_not_depend_on_the_order() -> None:
    given = conversations(50) + conversations(50)
    train, valid = hold_out(given, 0)
    assert not set(train) & set(valid) and len(valid) == 20
    assert set(hold_out(given[::-1], 0)[1]) == set(valid) != set(hold_out(given, 1)[1])
    assert len(hold_out(conversations(1000), 0)[1]) == 50
    assert hold_out(conversations(1), 0) == (conversations(1), [])


def test_the_real_chat_data_is_read() -> None:
    if not DATA.exists():
        pytest.skip("needs ../shared/data/chat beside the checkout")
    found = {}
    for path in sorted(DATA.glob("*.jsonl.gz")):
        read = read_conversations([str(path)])
        found[path.name.split("_")[0]] = len(read.train) + len(read.valid)
        assert "bad rows" not in read.counts
    assert found == {"dpo": 300, "glaive": 300, "self": 252}


# ---- jobs and conversations -----------------------------------------------------------------------------------------


def test_what_data_is_is_told(tmp_path: Path) -> None:
    chat = write_rows(tmp_path / "chat.jsonl", exchanges(3))
    job = write_rows(tmp_path / "job.jsonl", [{"input": f"the {c}", "output": c} for c in COLOURS])
    assert kind_of([str(chat)]) == ("chat", f"{chat}: conversations, by its columns messages")
    assert kind_of([str(job)]) == ("job", f"{job}: a job, by its columns input, output")
    assert kind_of([f"{chat}:2", str(chat)])[0] == "chat"
    assert kind_of(["intents"]) == ("job", "intents: a built-in job")
    assert kind_of(["arithmetic"])[0] == kind_of(["chat:arithmetic"])[0] == kind_of(["arithmetic:2"])[0] == "chat"
    with pytest.raises(SmallfryError, match="is a job, and only conversations can be mixed"):
        kind_of([str(chat), str(job)])
