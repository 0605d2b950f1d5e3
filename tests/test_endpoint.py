"""An OpenAI-compatible endpoint, played by a server on the loopback: answers, refusals, and what is never told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from smallfry.endpoint import Endpoint, UnansweredError, is_address
from smallfry.errors import SmallfryError
from smallfry.tuning import tune
from smallfry.tuning.asking import Kept, Reply
from smallfry.tuning.conversations import Message
from smallfry.tuning.teachers import EndpointTeacher, load_teacher
from smallfry.tuning.written import rewrite
from tests.tuning_models import exchanges, save, write_rows

KEY = "SMALLFRY_TEST_KEY"
Asked = dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    """Does what the server's ``play`` says with each request."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
        server.play(self, body)

    def say(self, text: str, code: int = 200, headers: dict[str, str] | None = None, reason: str | None = None) -> None:
        data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.reply(data, code, headers, reason)

    def reply(
        self, data: bytes, code: int = 200, headers: dict[str, str] | None = None, reason: str | None = None
    ) -> None:
        self.send_response(code, reason)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Server:
    """A server that plays what it is told to."""

    def __init__(self, http: HTTPServer) -> None:
        self.http: Any = http
        http.seen = []  # type: ignore[attr-defined]
        self.plays(lambda handler, body: handler.say("yes"))

    def plays(self, play: Callable[[Handler, Asked], None]) -> None:
        self.http.play = play

    @property
    def seen(self) -> list[Asked]:
        return list(self.http.seen)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def endpoint(self, timeout: float = 5.0) -> Endpoint:
        return Endpoint(self.url, "big", KEY, "--teacher", timeout, patience=0.001)


@pytest.fixture
def server() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(http)
    http.shutdown()
    thread.join()
    http.server_close()


TURNS = [{"role": "user", "content": "well?"}]


def test_an_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "hush-hush")
    assert server.endpoint().complete(TURNS, 12) == "yes"
    asked = {"path": "/v1/chat/completions", "key": "Bearer hush-hush", "model": "big", "messages": TURNS}
    assert server.seen == [{**asked, "temperature": 0.0, "max_tokens": 12}]
    monkeypatch.delenv(KEY)
    assert server.endpoint().complete(TURNS, temperature=0.5) == "yes"
    assert server.seen[1] == {**asked, "key": None, "temperature": 0.5}


def test_the_key_is_never_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "hush-hush")
    server.plays(lambda h, body: h.say("no", 401, reason=f"bad {h.headers['Authorization']}"))
    with pytest.raises(SmallfryError) as caught:
        server.endpoint().complete(TURNS)
    assert "hush" not in str(caught.value) and "answered 401" in str(caught.value) and KEY in str(caught.value)
    assert "\n" not in str(caught.value) and "hush" not in repr(server.endpoint())
    secret = Endpoint("http://me:hush@127.0.0.1:9/v1?token=hush", "m", KEY, "--teacher")
    with pytest.raises(SmallfryError) as caught:
        secret.complete(TURNS)
    assert "hush" not in str(caught.value) and "127.0.0.1:9" in str(caught.value)


def test_a_key_out_of_a_file_of_another_system_is_taken_without_its_line_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "hush-hush\r\n")
    assert server.endpoint().complete(TURNS) == "yes" and server.seen[0]["key"] == "Bearer hush-hush"
    monkeypatch.setenv(KEY, "hush\nhush")
    with pytest.raises(SmallfryError, match=f"{KEY}: holds characters that are of no key") as caught:
        server.endpoint().complete(TURNS)
    assert "hush" not in str(caught.value)


def test_a_malformed_address_is_told() -> None:
    with pytest.raises(SmallfryError, match="is no address"):
        is_address("http://[::1/v1")


def test_no_text_is_an_empty_answer(server: Server) -> None:
    server.plays(lambda h, body: h.reply(b'{"choices": [{"message": {"content": null}}]}'))
    assert server.endpoint().complete(TURNS) == "" and len(server.seen) == 1


def test_whether_another_question_may_be_answered_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "hush-hush")
    for code in (400, 402, 404, 422, 500):
        server.plays(lambda h, body, code=code: h.say("no", code, reason=f"of {h.headers['Authorization']}"))
        with pytest.raises(UnansweredError, match=f"--teacher {server.url}: answered {code} of") as caught:
            server.endpoint().complete(TURNS)
        assert caught.value.reason == f"answered {code} of Bearer ***"
    for code in (401, 403):
        server.plays(lambda h, body, code=code: h.say("no", code))
        with pytest.raises(SmallfryError, match=f"answered {code}") as failed:
            server.endpoint().complete(TURNS)
        assert not isinstance(failed.value, UnansweredError)


def test_redirects_are_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "hush-hush")
    server.plays(lambda h, body: h.say("no", 302, {"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(SmallfryError, match="answered 302"):
        server.endpoint().complete(TURNS)
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(server: Server, code: int) -> None:
    server.plays(lambda h, body: h.say("at last", 200 if len(server.seen) == 3 else code, {"Retry-After": "0"}))
    assert server.endpoint().complete(TURNS) == "at last"
    server.plays(lambda h, body: h.say("never", code))
    with pytest.raises(SmallfryError, match=f"answered {code}"):
        server.endpoint().complete(TURNS)
    assert len(server.seen) == 6


def test_a_connection_that_breaks_is_made_again(server: Server) -> None:
    def play(handler: Handler, body: Asked) -> None:
        if len(server.seen) == 1:  # promises more than it sends
            handler.reply(b"{", headers={"Content-Length": "100"})
            handler.close_connection = True
        else:
            handler.say("whole")

    server.plays(play)
    assert server.endpoint().complete(TURNS) == "whole" and len(server.seen) == 2


def test_waiting_has_an_end(server: Server) -> None:
    done = threading.Event()

    def silent(handler: Handler, body: Asked) -> None:
        done.wait(5)

    server.plays(silent)
    begun = time.monotonic()
    with pytest.raises(SmallfryError, match="no usable answer"):
        server.endpoint(timeout=0.1).complete(TURNS)
    assert len(server.seen) == 3

    def drops(handler: Handler, body: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not done.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    server.plays(drops)
    with pytest.raises(SmallfryError, match="not complete after"):
        server.endpoint(timeout=0.1).complete(TURNS)
    assert time.monotonic() - begun < 5
    done.set()


@pytest.mark.parametrize(
    "data",
    [
        b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": 7}}]}', b"", b"\xff",
        b"[" * 100_000, b'"' + b"x" * (1 << 20) + b'"',
    ],
)  # fmt: skip
def test_what_is_no_answer(server: Server, data: bytes) -> None:
    server.plays(lambda h, body: h.reply(data))
    with pytest.raises(SmallfryError, match="no usable answer") as caught:
        server.endpoint().complete(TURNS)
    assert len(str(caught.value)) < 400 and len(server.seen) == 1


def test_nobody_there() -> None:
    begun = time.monotonic()
    with pytest.raises(SmallfryError, match="is it running"):
        Endpoint("http://127.0.0.1:9/v1", "m").complete(TURNS)
    assert time.monotonic() - begun < 0.9  # no second try
    with pytest.raises(SmallfryError, match="expected an address"):
        Endpoint("file:///etc/passwd", "m").complete(TURNS)
    assert is_address("https://x/v1") and not is_address("hf:a/b") and not is_address("models/x")


def test_a_teacher_behind_an_endpoint(server: Server) -> None:
    with pytest.raises(SmallfryError, match="--teacher-model"):
        load_teacher(server.url, None, None)
    teacher = load_teacher(server.url, None, "big")
    assert isinstance(teacher, EndpointTeacher) and teacher.name == f"{server.url} big"
    server.plays(lambda h, body: h.say(f" {body['messages'][-1]['content']}! "))
    answers = dict(teacher.answer([(Message("system", "s"), Message("user", str(n))) for n in range(9)], 7))
    assert answers == {n: Reply(f"{n}!") for n in range(9)}  # asked side by side
    assert all(asked["max_tokens"] == 7 and asked["messages"][0]["role"] == "system" for asked in server.seen)
    assert list(teacher.answer([], 7)) == []


# ---- what goes wrong with a teacher's answers -----------------------------------------------------------------------


def question_of(asked: Asked) -> int:
    return int(asked["messages"][-1]["content"].split()[-1])


QUESTIONS = [(Message("user", f"question {n}"), Message("assistant", "")) for n in range(30)]


def rewritten(server: Server, kept: Path, said: list[str]) -> list[int]:
    """The questions that were answered."""
    found = rewrite(QUESTIONS, EndpointTeacher(server.endpoint()), 9, said.append, Kept(kept))
    return [int(each[0].content.split()[-1]) for each in found]


def test_one_bad_answer_costs_no_other_and_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    def play(handler: Handler, body: Asked) -> None:
        number = question_of(body)
        if number == 20:  # what a model gives that thought until its tokens were used up
            handler.reply(b'{"choices": [{"message": {"content": null}}]}')
        elif number == 7:
            handler.say("", 400)
        elif number == 9:
            handler.reply(b"<html>")
        else:
            handler.say("yes" if number != 3 else " ")

    server.plays(play)
    said, kept = list[str](), tmp_path / "answers.jsonl"
    assert rewritten(server, kept, said) == [n for n in range(30) if n not in (3, 7, 9, 20)]
    assert len(server.seen) == 30 == len(Kept(kept))
    assert f"{server.url} big: 2 answers were empty, 2 questions got no answer (" in said[0]
    assert said[0].endswith("; 26 of 30 conversations left")
    assert rewritten(server, kept, said) == [n for n in range(30) if n not in (3, 7, 9, 20)]
    assert len(server.seen) == 30 and said[1] == said[0]


def test_what_arrived_before_a_failure_is_kept(server: Server, tmp_path: Path) -> None:
    answered: list[int] = []

    def play(handler: Handler, body: Asked) -> None:
        if len(server.seen) == 12:
            handler.say("no", 401)
        else:
            time.sleep(0.02 * (len(server.seen) > 9))  # on its way while another fails
            answered.append(question_of(body))
            handler.say("yes")

    server.plays(play)
    kept = tmp_path / "answers.jsonl"
    with pytest.raises(
        SmallfryError, match=r"answered 401 .*; \d+ answers are kept: start again with --resume"
    ) as caught:
        rewritten(server, kept, [])
    assert "\n" not in str(caught.value) and f"; {len(answered)} answers" in str(caught.value)
    assert 11 <= len(answered) <= 15 and len(Kept(kept)) == len(answered)
    asked = len(server.seen)
    server.plays(lambda h, body: h.say("yes"))
    assert rewritten(server, kept, []) == list(range(30))
    assert sorted(answered + [question_of(body) for body in server.seen[asked:]]) == list(range(30))


def test_an_endpoint_that_answers_hardly_anything_is_left_in_peace(server: Server, tmp_path: Path) -> None:
    server.plays(lambda h, body: h.say("no", 402))
    kept = tmp_path / "answers.jsonl"
    with pytest.raises(SmallfryError, match=r"16 questions in a row got no answer \(answered 402 Payment Required\)$"):
        rewritten(server, kept, [])
    assert 16 <= len(server.seen) <= 20
    server.plays(lambda h, body: h.say("yes"))
    assert rewritten(server, kept, []) == list(range(30))
    nobody = EndpointTeacher(Endpoint("http://127.0.0.1:9/v1", "m", KEY, "--teacher"))
    with pytest.raises(SmallfryError, match=r"no usable answer .*is it running"):
        rewrite(QUESTIONS, nobody, 9, [].append, Kept(tmp_path / "none.jsonl"))


def test_a_run_that_fails_while_it_asks_goes_on_with_what_was_answered(server: Server, tmp_path: Path) -> None:
    model, data = save(tmp_path / "tiny"), write_rows(tmp_path / "chat.jsonl", exchanges(40))
    out = tmp_path / "run"
    tune(model, data, out=out, tokens=600)
    server.plays(lambda h, body: h.say("it is red.", 200 if len(server.seen) < 20 else 403))
    how: dict[str, Any] = {"teacher": server.url, "teacher_model": "big", "tokens": 600}
    with pytest.raises(SmallfryError, match=r"answered 403 .*answers are kept: start again with --resume"):
        tune(model, data, out=out, force=True, **how)
    asked = len(server.seen)
    server.plays(lambda h, body: h.say("it is red."))
    tune(out=out, resume=True)  # the run that was forced, not the one before it
    assert 19 <= len(Kept(out / "run" / "answers-0.jsonl")) == 32 and len(server.seen) - asked <= 32 - 19
    card = json.loads((out / "smallfry.json").read_text(encoding="utf-8"))
    assert card["tuning"]["teachers"] == [{"address": server.url, "model": "big"}]
