"""`smallfry chat`: at a pipe, interrupted, with models that talk, go on with texts, or answer a job's inputs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer
from typer.testing import CliRunner

from smallfry import shipped
from smallfry.characters import visible
from smallfry.cli import app, main
from smallfry.cli_chat import _Stopping
from smallfry.engine.decoding import Sampling
from smallfry.engine.weights import Weights, read_weights, to_flat
from smallfry.errors import SmallfryError
from smallfry.writer import Writer
from tests.test_export_web import random_model

GOLDEN = Path(__file__).parent / "golden" / "model"


@pytest.fixture
def talker(tmp_path: Path) -> Path:
    """The golden model as one that was trained to converse."""
    path = shutil.copytree(GOLDEN, tmp_path / "talker")
    card = json.loads((path / "smallfry.json").read_text())
    (path / "smallfry.json").write_text(json.dumps({**card, "name": "talker", "chat": True}))
    return path


def say(*lines: str, model: Path | None, options: tuple[str, ...] = ()) -> tuple[dict[str, Any], str, str]:
    found = CliRunner().invoke(
        app, ["chat", *([str(model)] if model else []), *options, "--json"], input="\n".join(lines) + "\n"
    )
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout.splitlines()[-1])
    assert isinstance(said, dict)
    return said, found.stdout, found.stderr


def test_answers_are_those_of_the_history(talker: Path) -> None:
    said, out, _ = say(
        "Tell me a story.", "", "And then?", model=talker, options=("--temperature", "0", "--max-new", "12")
    )
    writer = Writer.load(talker)
    first = writer.write(writer.chat_ids([("user", "Tell me a story.")]), 12).strip()
    turns = [("user", "Tell me a story."), ("assistant", first), ("user", "And then?")]
    second = writer.write(writer.chat_ids(turns), 12).strip()
    assert [t["content"] for t in said["turns"]] == ["Tell me a story.", first, "And then?", second]
    assert said["model"] == "talker" and said["kind"] == "chat" and said["earlier"] == []
    assert out.splitlines()[0] == first


def test_commands_work_between_lines(talker: Path) -> None:
    said, out, told = say(
        "/system Be short.", "one", "two", "/undo", "/nothing", "/reset", "/seed 3", "//three", "/exit", "never said",
        model=talker, options=("--max-new", "5"),
    )  # fmt: skip
    assert [t["content"] for t in said["turns"] if t["role"] == "user"] == ["/three"]
    assert [t["content"] for t in said["earlier"][0] if t["role"] == "user"] == ["one"]
    assert said["system"] == "Be short." and "/nothing: no such command" in told and "/nothing" not in out


def test_the_same_seed_says_the_same_and_each_answer_draws_anew(talker: Path) -> None:
    hot = ("--temperature", "1.5", "--max-new", "12")
    first = say("a", "/reset", "a", "/seed 0", "/reset", "a", model=talker, options=hot)[0]
    answers = [c[1]["content"] for c in (*first["earlier"], first["turns"])]
    assert answers[0] == answers[2] != answers[1]
    assert say("a", model=talker, options=(*hot, "--seed", "1"))[0]["turns"][1]["content"] != answers[0]


def test_long_texts_are_decoded_piece_by_piece_as_whole(talker: Path) -> None:
    writer = Writer.load(talker)
    prompt = writer.prompt_ids("One day a dog")
    for seed in range(3):
        pieces = []
        for number, piece in enumerate(writer.stream(prompt, 300, Sampling(1.5, seed=seed))):
            pieces.append(piece)
            if number == 150:  # somebody else asks in between
                Writer.write(writer, writer.prompt_ids("A cat"), 3)
        ids = [piece.token for piece in pieces if piece.token not in writer.ends]
        text = writer.decode([*prompt, *ids]).removeprefix(writer.decode(prompt))
        assert "".join(piece.text for piece in pieces) == text and (len(ids) > 150 or writer.ended)


def test_long_histories_and_messages_are_cut(talker: Path) -> None:
    config = json.loads((talker / "config.json").read_text())
    (talker / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    said, _, told = say(*["The dog ran home."] * 8, "word " * 200, model=talker, options=("--max-new", "20"))
    assert len(said["turns"]) == 18 and told.count("not read") == 1 and "too long" in told


def test_a_model_that_was_not_trained_to_talk_goes_on(tmp_path: Path) -> None:
    said, _, told = say("Once upon a", model=GOLDEN, options=("--temperature", "0", "--max-new", "8"))
    writer = Writer.load(GOLDEN)
    assert said["turns"][1]["content"] == writer.write(writer.prompt_ids("Once upon a"), 8)
    assert "was not trained to talk" in told and said["kind"] == "continue"
    path = shutil.copytree(GOLDEN, tmp_path / "short")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    said, _, told = say("The dog ran home. " * 20, model=path, options=("--max-new", "8"))
    assert "tokens are not read" in told and said["turns"][1]["content"]
    with pytest.raises(SmallfryError, match="takes none"):
        say("x", model=GOLDEN, options=("--system", "Be kind."))


def test_a_jobs_model_answers_with_confidence(tmp_path: Path) -> None:
    from smallfry.forms import build_form
    from tests.test_engine import COLOURS

    form = build_form(COLOURS, "units", 300, True, None)
    path = random_model(tmp_path / "job", form.tokenizer.hf, {"name": "job", "form": form.to_dict(), "max_new": 9})
    said, out, told = say("the red thing", "/temperature 1", model=path)
    assert said["kind"] == "answer" and said["turns"][1]["content"] in COLOURS.labels
    assert 0 < said["turns"][1]["confidence"] <= 1 and "of no use here" in told
    assert out.startswith(f"{said['turns'][1]['content']}  (")


def test_a_calculator_finishes_what_the_model_asks_of_it() -> None:
    writer = Writer.load(GOLDEN)
    prompt = writer.prompt_ids("The dog")
    free = writer.write(prompt, 30)
    forced = iter([None, None, "42>>", *[None] * 100])
    asked: list[str] = []

    def tool(text: str) -> str | None:
        asked.append(text)
        return next(forced)

    found = "".join(p.text for p in writer.stream(prompt, 30, tool=tool))
    at = found.index("42>>")
    assert free.startswith(found[:at]) and asked[2] == found[:at]
    assert all(text[at : at + 4] == "42>>" for text in asked[3:]) and len(asked) > 5
    assert not any(text.endswith(("4", "42", "42>")) for text in asked[3:]), "it is not asked about its own words"


def test_nothing_that_moves_the_cursor_reaches_the_terminal() -> None:
    assert visible("a\x1b[2J\x07b\tc\n\x9b1m\rd\x7f é").replace("\ufffd", "?") == "a?[2J?b\tc\n?1m?d? é"


def test_a_hostile_card_does_not_drive_the_terminal(talker: Path) -> None:
    card = json.loads((talker / "smallfry.json").read_text())
    (talker / "smallfry.json").write_text(json.dumps({**card, "name": "\x1b]0;mine\x07talker"}))
    said, out, told = say("hello", model=talker, options=("--max-new", "4"))
    assert "\x1b" not in out + told and said["model"] == "\ufffd]0;mine\ufffdtalker"


def test_settings_out_of_range_are_told(talker: Path) -> None:
    for options in (("--temperature", "11"), ("--seed", "-1")):
        with pytest.raises(SmallfryError, match="--temperature and --seed"):
            say("x", model=talker, options=options)


# ---- interruptions ---------------------------------------------------------------------------------------------------


def test_a_second_wish_to_stop_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_reading_leaves_nothing_wrong_behind() -> None:
    writer = Writer.load(GOLDEN)
    prompt = writer.prompt_ids("Once upon a time there was a little dog")
    expected = writer.write(prompt, 20)
    other = writer.prompt_ids("Once upon a red house")
    session = writer._session
    assert session is not None
    feed = session.feed

    def broken(ids: Any) -> Any:
        feed(ids)
        raise KeyboardInterrupt

    session.feed = broken  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        writer.write(other, 5)
    session.feed = feed  # type: ignore[method-assign]
    assert writer.write(prompt, 20) == expected


def endless(path: Path) -> Path:
    """A model of random weights that never ends a text, in a context that takes long to fill."""
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    random_model(path, tokenizer, {"name": "endless", "chat": True}, positions=1_000_000)
    weights = read_weights(path)
    words = [i for token, i in tokenizer.get_vocab().items() if token.isascii() and token.isalpha()]
    table = weights.tensors["model.embed_tokens.weight"].copy()
    table[np.setdiff1d(np.arange(len(table)), words)] = 0.0  # the likeliest token, above 0, is a word's
    weights.tensors["model.embed_tokens.weight"] = table
    (path / "model.fry").write_bytes(to_flat(Weights(weights.shape, weights.variant, weights.tensors), "fp32"))
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": 1_000_000}))
    return path


def test_ctrl_c_stops_an_answer_and_keeps_it(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "smallfry", "chat", str(endless(tmp_path / "endless")), "--json", "--engine", "numpy",
        "--max-new", "400000", "--temperature", "0",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        shown = process.stdout.read(40)  # it writes
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(b"/temperature 0\n/undo\n/exit\n", timeout=60)
    said = json.loads((shown + out).decode().splitlines()[-1])
    assert process.returncode == 0 and b"stopped" in told and b"took back: hello" in told
    assert said["turns"] == []


def test_what_was_written_before_ctrl_c_is_in_the_history(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Writer.stream

    def interrupted(self: Writer, *args: Any, **more: Any) -> Any:
        for count, piece in enumerate(write(self, *args, **more)):
            if count == 3:
                signal.raise_signal(signal.SIGINT)
            yield piece

    options = ("--temperature", "0", "--max-new", "12")
    whole = say("Tell me a story.", model=talker, options=options)[0]["turns"][1]["content"]
    monkeypatch.setattr(Writer, "stream", interrupted)
    said, _, told = say("Tell me a story.", "Go on.", model=talker, options=options)
    answer = said["turns"][1]
    assert (
        answer["stopped"] and answer["content"] and whole.startswith(answer["content"]) and answer["content"] != whole
    )
    assert len(said["turns"]) == 4 and told.count("stopped") == 2


def test_ctrl_c_at_the_prompt_ends(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["hello"])

    def ask(_: str = "") -> str:
        try:
            return next(lines)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("builtins.input", ask)
    said, _, _ = say(model=talker, options=("--max-new", "3"))
    assert said["turns"][0]["content"] == "hello"


def test_bytes_that_are_no_text_are_read_as_marks(talker: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smallfry", "chat", str(talker), "--json", "--max-new", "3"],
        input=b"\xff\xfe hi\n", capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert "�� hi" in json.loads(done.stdout.decode().splitlines()[-1])["turns"][0]["content"]


# ---- the shipped model -----------------------------------------------------------------------------------------------


def test_without_a_model_the_shipped_one_talks(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(talker.parent / "__init__.py"))
    talker.rename(talker.parent / shipped.DEFAULT)
    assert say("hello", model=None, options=("--max-new", "3"))[0]["model"] == "talker"
    import smallfry

    assert smallfry.load("shipped:stories").name == "talker"
    found = CliRunner().invoke(app, ["run", "shipped:stories", "The dog", "--max-new", "3"])
    assert found.exit_code == 0 and found.stdout.startswith("The dog")


def test_a_shipped_model_that_is_not_there_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "__init__.py"))
    for words, message in (
        (["chat"], "made without it"),
        (["run", "shipped:opera", "x"], "take one of shipped:stories"),
    ):
        monkeypatch.setattr(sys, "argv", ["smallfry", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 2 and message in told and told.count("\n") == 1
