"""The HTTP interface, over loopback: OpenAI's shapes, a job's answers, requests that are wrong or not meant for it."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.forms import build_form
from smallfry.predictor import ModelPredictor
from smallfry.serving import Served, Server, _loopback, _means_here
from smallfry.writer import Writer
from tests.test_engine import COLOURS, untrained

MODEL = Path(__file__).parent / "golden" / "model"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    form = build_form(COLOURS, "units", 300, True, None)
    job = ModelPredictor("colours", TorchModel(untrained(form)), form, 4)
    found = Server([Writer.load(MODEL), job], port=0)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def ask(server: Server, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.address + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_completions_whole_and_streamed_are_what_the_model_writes(server: Server) -> None:
    status, said = ask(server, "/v1/models")
    name = json.loads(said)["data"][0]["id"]
    assert status == 200 and [m["id"] for m in json.loads(said)["data"]] == [name, "colours"]
    body = {"model": name, "prompt": "Once upon", "max_tokens": 30, "temperature": 0}
    writer = Writer.load(MODEL)
    expected = writer.write(writer.prompt_ids("Once upon"), 30)
    whole = json.loads(ask(server, "/v1/completions", body)[1])
    assert whole["choices"][0]["text"] == expected and whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 30
    lines = ask(server, "/v1/completions", {**body, "stream": True})[1].strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(e["choices"][0]["text"] for e in events) == expected and len(events) > 10
    stopped = json.loads(ask(server, "/v1/completions", {**body, "stop": expected[8:12]})[1])
    assert stopped["choices"][0]["text"] == expected[: expected.index(expected[8:12])]
    drawn = [ask(server, "/v1/completions", {**body, "temperature": 1, "seed": s})[1] for s in (1, 1, 2)]
    texts = [json.loads(d)["choices"][0]["text"] for d in drawn]
    assert texts[0] == texts[1] != texts[2]


def test_a_job_s_model_answers_in_a_conversation(server: Server) -> None:
    body = {"model": "colours", "messages": [{"role": "user", "content": "the red thing"}]}
    said = json.loads(ask(server, "/v1/chat/completions", body)[1])
    assert said["choices"][0]["message"]["content"] in COLOURS.labels and 0 < said["confidence"] <= 1
    streamed = ask(server, "/v1/chat/completions", {**body, "stream": True})[1]
    assert said["choices"][0]["message"]["content"] in streamed


def test_a_long_conversation_is_cut_as_in_chat_and_the_answer_says_so(server: Server) -> None:
    writer = Writer.load(MODEL)
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": "The dog ran home. " * 9} for i in range(81)]
    messages = [{"role": "system", "content": "Be kind."}, *messages]
    body = {"model": writer.name, "messages": messages, "max_tokens": 7, "temperature": 0}
    said = json.loads(ask(server, "/v1/chat/completions", body)[1])
    fitted = writer.fit([(m["role"], m["content"]) for m in messages], 7)
    assert fitted.dropped > 0 and fitted.turns[0] == ("system", "Be kind.")
    assert said["choices"][0]["message"]["content"] == writer.write(fitted.ids, 7)
    assert said["truncated"] == {"exchanges": fitted.dropped, "characters": 0}
    assert said["usage"]["prompt_tokens"] == len(fitted.ids) <= 2048 - 7
    streamed = ask(server, "/v1/chat/completions", {**body, "stream": True})[1]
    assert streamed.count('"truncated"') == 1
    short = json.loads(ask(server, "/v1/chat/completions", {**body, "messages": messages[-1:]})[1])
    assert "truncated" not in short
    longest = {**body, "messages": [{"role": "user", "content": "dog " * 5000}], "max_tokens": 2}
    assert json.loads(ask(server, "/v1/chat/completions", longest)[1])["truncated"]["characters"] > 5000


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/completions", b"{", 400, "expected JSON"), ("/v1/completions", [], 400, "JSON object"),
        ("/v1/completions", {"prompt": 3}, 400, "prompt"), ("/v1/chat/completions", {"messages": [3]}, 400, "messages"),
        ("/v1/completions", {"prompt": "a", "model": "gpt"}, 400, "not served"),
        ("/v1/completions", {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
        ("/v1/completions", {"prompt": "a", "temperature": 99, "stream": True}, 400, "temperature"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 10**9}, 400, "max_completion_tokens|max_tokens"),
        ("/v1/nothing", {}, 404, "not here"), ("/etc/passwd", None, 404, "not here"),
    ],
)  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(server: Server, path: str, body: Any, status: int, message: str) -> None:
    code, said = ask(server, path, body)
    assert code == status and any(m in json.loads(said)["error"]["message"] for m in message.split("|"))


@pytest.mark.parametrize(("body", "status", "says"), [
    ({"prompt": "a", "top_p": 0}, 200, ""), ({"prompt": "a", "stop": 5}, 400, "stop: expected a text"),
    ({"prompt": "a", "stop": True}, 400, "stop: expected a text"), ({"prompt": "\ud800"}, 200, ""),
    ({"prompt": "word " * 3000}, 400, "tokens; "),
    ({"prompt": "a", "temperature": 0, "repetition_penalty": 1.5}, 200, ""),
])  # fmt: skip
def test_every_request_gets_an_answer(server: Server, body: dict[str, Any], status: int, says: str) -> None:
    found, said = ask(server, "/v1/completions", {"max_tokens": 4, **body})
    assert found == status and says in said
    assert ask(server, "/v1/completions", {"prompt": "Once", "max_tokens": 3, "temperature": 0})[0] == 200


def test_what_a_library_throws_is_a_failure_of_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "stream", lambda *a, **k: [][0])
    status, said = ask(server, "/v1/completions", {"prompt": "a"})
    assert status == 500 and "IndexError" in json.loads(said)["error"]["message"]


def test_a_session_that_cannot_be_had_spoils_none_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer.load(MODEL)
    expected = writer.write(writer.prompt_ids("Once upon"), 8)
    with pytest.raises((SmallfryError, MemoryError, OverflowError, ValueError)):
        writer.write(writer.prompt_ids("Once upon"), 1 << 40)
    assert writer.write(writer.prompt_ids("Once upon"), 8) == expected
    long = writer.prompt_ids("word " * 150)
    assert isinstance(writer.write(long, 4), str)


def test_an_answer_in_a_conversation_begins_with_a_word(tmp_path: Path) -> None:
    path = shutil.copytree(MODEL, tmp_path / "talker")
    card = json.loads((path / "smallfry.json").read_text())
    (path / "smallfry.json").write_text(json.dumps({**card, "name": "talker", "chat": True}))
    served = Served(Writer.load(path))
    pieces = list(served.answer([("user", "hello")], True, {"temperature": 0, "max_tokens": 20}))
    text = "".join(piece["text"] for piece in pieces)
    assert text and text == text.lstrip() and pieces[-1]["finish_reason"] in ("length", "stop")


def test_other_sites_and_names_are_not_answered(server: Server) -> None:
    body = {"prompt": "a", "max_tokens": 1}
    assert ask(server, "/v1/completions", body, Origin="https://example.org")[0] == 403
    assert ask(server, "/v1/completions", body, Host="example.org")[0] == 403
    assert ask(server, "/v1/completions", body, Origin=server.address)[0] == 200


def test_an_address_that_is_taken_is_told_in_a_line(server: Server) -> None:
    with pytest.raises(SmallfryError, match="choose another --port"):
        Server([Writer.load(MODEL)], port=server.server_address[1])


def test_addresses_of_this_machine_are_known() -> None:
    assert all(map(_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost")))
    assert not any(map(_loopback, ("0.0.0.0", "10.0.0.1", "evil.example", "")))
    assert all(map(_means_here, ("127.0.0.1:80", "localhost:80", "[::1]:80", "[::1]", "127.0.0.1")))
    assert not any(map(_means_here, ("evil.example:80", "127.0.0.1.evil.example:80", "")))
