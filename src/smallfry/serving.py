"""An OpenAI-compatible HTTP interface over finished models, on this machine only unless told otherwise.

``GET /v1/models``, ``POST /v1/completions`` and ``POST /v1/chat/completions``, both with ``stream``. A model that was
trained for a job answers the last message (or the prompt) under its constraints, with its confidence beside the text.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from smallfry.characters import whole_text
from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.predictor import ModelPredictor
from smallfry.writer import Writer

_MOST_BODY = 1 << 20  # bytes of a request
_MOST_NEW = 4096  # tokens of an answer
_BESIDE = ("usage", "confidence", "truncated")  # of the last piece, told beside the choice
_WAIT = 30.0  # seconds that a client may be silent


class Served:
    """One model behind the interface; it answers one request at a time.

    Args:
        model: What answers.
    """

    def __init__(self, model: Writer | ModelPredictor) -> None:
        self.model, self.lock = model, threading.Lock()

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.model.name

    def answer(self, turns: Sequence[tuple[str, str]], chat: bool, how: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Pieces of an answer: ``text``, and at the end ``finish_reason`` (and a job's ``confidence``).

        Of a conversation that is longer than the model's context the last piece tells in ``truncated`` what was not
        read: oldest ``exchanges``, and ``characters`` of a text that alone was too long.

        Args:
            turns: (role, text); of a completion the prompt alone.
            chat: Turns are a conversation.
            how: The request's settings.
        """
        if isinstance(self.model, ModelPredictor):
            said = self.model.predict([turns[-1][1]])[0]
            reason = "stop" if said.whole else "length"
            yield {"text": said.output, "finish_reason": reason, "confidence": said.confidence}
            return
        most = int(_number(how, ("max_completion_tokens", "max_tokens"), 256, 1, _MOST_NEW))
        stops = how.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
            raise SmallfryError("stop: expected a text or a list of texts")
        prompt, lost = self.model.prompt_ids(turns[-1][1]) if not chat else [], {}
        if not chat:
            if len(prompt) >= self.model.context:
                raise SmallfryError(f"prompt: {len(prompt):,} tokens; {self.name} reads at most {self.model.context:,}")
            most = min(most, self.model.context - len(prompt))
        if chat:
            fitted = self.model.fit(turns, most)
            prompt, most = list(fitted.ids), fitted.room
            lost = {"exchanges": fitted.dropped, "characters": fitted.cut} if fitted.dropped or fitted.cut else {}
        count, began = 0, not chat
        for piece in self.model.stream(prompt, most, _sampling(how), stops, self.model.tool if chat else None):
            count += piece.token not in self.model.ends
            text = piece.text if began else piece.text.lstrip()  # a space stands between the role's token and the words
            began = began or bool(text)
            if text:
                yield {"text": text, "finish_reason": None}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}
        last: dict[str, Any] = {"text": "", "finish_reason": "stop" if self.model.ended else "length", "usage": usage}
        yield {**last, "truncated": lost} if lost else last


def _number(how: Mapping[str, Any], names: Sequence[str], usual: float, low: float, high: float) -> float:
    for name in names:
        found = how.get(name)
        if found is None:
            continue
        if not isinstance(found, int | float) or isinstance(found, bool) or not low <= found <= high:
            raise SmallfryError(f"{name}: expected a number from {low:g} to {high:g}, got {found!r:.40}")
        return float(found)
    return usual


def _sampling(how: Mapping[str, Any]) -> Sampling | None:
    temperature = _number(how, ["temperature"], 1.0, 0.0, 10.0)
    repetition = _number(how, ["repetition_penalty"], 1.0, 1.0, 10.0)
    if temperature == 0.0:  # the likeliest, after the penalty
        return None if repetition == 1.0 else Sampling(1.0, top_k=1, repetition=repetition)
    seed = int(_number(how, ["seed"], time.time_ns() % 2**31, 0, 2**53))
    return Sampling(
        temperature, _number(how, ["top_p"], 1.0, 0.0, 1.0), seed,
        top_k=int(_number(how, ["top_k"], 0, 0, 2**31)), min_p=_number(how, ["min_p"], 0.0, 0.0, 1.0),
        repetition=repetition,
    )  # fmt: skip


def _turns(body: Mapping[str, Any], chat: bool) -> list[tuple[str, str]]:
    if not chat:
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise SmallfryError("prompt: expected a text")
        return [("user", whole_text(prompt))]
    messages = body.get("messages")
    found = []
    for message in messages if isinstance(messages, list) else []:
        role, text = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if isinstance(text, list):  # the newer form: parts, of which texts are joined
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if role not in ("system", "user", "assistant") or not isinstance(text, str):
            raise SmallfryError("messages: expected objects with role (system, user, assistant) and content (a text)")
        found.append((role, whole_text(text)))
    if not found:
        raise SmallfryError("messages: expected at least one")
    return found


class _Handler(BaseHTTPRequestHandler):
    server_version, protocol_version, timeout = "smallfry", "HTTP/1.1", _WAIT
    server: Server

    def do_GET(self) -> None:
        """Models, and whether the server is there."""
        if not self._expected():
            return
        if self.path == "/v1/models":
            models = [{"id": m.name, "object": "model", "owned_by": "smallfry"} for m in self.server.models.values()]
            self._say(HTTPStatus.OK, {"object": "list", "data": models})
        elif self.path == "/health":
            self._say(HTTPStatus.OK, {"status": "ok"})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"{self.path[:80]}: not here; see /v1/models, /v1/chat/completions")

    def do_POST(self) -> None:
        """Completions."""
        chat = self.path == "/v1/chat/completions"
        if not chat and self.path != "/v1/completions":
            self._refuse(HTTPStatus.NOT_FOUND, f"{self.path[:80]}: not here; see /v1/completions")
            return
        if not self._expected():
            return
        try:
            body = self._body()
            served = self.server.model(body.get("model"))
            turns = _turns(body, chat)
            with served.lock:
                self._answer(served, served.answer(turns, chat, body), chat, bool(body.get("stream")))
        except SmallfryError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the client went away
        except Exception as error:  # a request must not end without an answer, whatever it holds
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the server failed ({type(error).__name__})")

    def _expected(self) -> bool:
        if self.server.expects(self.headers.get("Host", ""), self.headers.get("Origin")):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "requests of other sites' pages are not answered")
        return False

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if (
            not (length.isascii() and length.isdigit())
            or int(length) > _MOST_BODY
            or "Transfer-Encoding" in self.headers
        ):
            self.close_connection = True
            raise SmallfryError(f"Content-Length: expected at most {_MOST_BODY} bytes of JSON")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise SmallfryError("the request: expected JSON") from None
        if not isinstance(body, dict):
            raise SmallfryError("the request: expected a JSON object")
        return body

    def _answer(self, served: Served, pieces: Iterator[dict[str, Any]], chat: bool, stream: bool) -> None:
        kind = "chat.completion" if chat else "text_completion"
        head = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}
        if not stream:
            parts = list(pieces)
            text, last = "".join(p["text"] for p in parts), parts[-1]
            more: dict[str, Any] = {key: last[key] for key in _BESIDE if key in last}
            self._say(HTTPStatus.OK, {
                **head, "object": kind, "choices": [_choice(text, last["finish_reason"], chat, "message")], **more,
            })  # fmt: skip
            return
        first = next(pieces)  # what is wrong with the request shows before the answer begins
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for piece in itertools.chain([first], self._told(pieces)):
            choice = _choice(piece["text"], piece["finish_reason"], chat, "delta")
            extra: dict[str, Any] = {key: piece[key] for key in _BESIDE if key in piece}
            event: dict[str, Any] = {**head, "object": kind + (".chunk" if chat else ""), "choices": [choice], **extra}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _told(self, pieces: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The pieces; what goes wrong behind the head of an answer is told in an event, for no second head may come."""
        try:
            yield from pieces
        except SmallfryError as error:
            refused = {"error": {"message": str(error), "type": "server_error", "code": None}}
            self.wfile.write(b"data: " + json.dumps(refused).encode() + b"\n\n")

    def _say(self, status: HTTPStatus, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True
        self._say(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests hold people's texts: nothing is logged."""


def _choice(text: str, reason: str | None, chat: bool, field: str) -> dict[str, Any]:
    said: dict[str, Any] = {field: {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": 0, **said, "finish_reason": reason, "logprobs": None}


def _loopback(host: str) -> bool:
    """Whether an address or a name is that of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _means_here(authority: str) -> bool:
    """Whether ``host:port`` of a header names this machine."""
    bare = re.sub(r":\d*$", "", authority) if not authority.endswith("]") else authority
    return _loopback(bare.removeprefix("[").removesuffix("]"))


class Server(ThreadingHTTPServer):
    """Models at an address.

    Args:
        models: What answers; the first where a request names none.
        host: Where it listens; this machine alone by default.
        port: 0 takes a free one.

    Raises:
        SmallfryError: The address is taken, or two models have one name.
    """

    daemon_threads = True

    def __init__(self, models: Sequence[Writer | ModelPredictor], host: str = "127.0.0.1", port: int = 8080) -> None:
        self.models = {model.name: Served(model) for model in models}
        if len(self.models) != len(models):
            raise SmallfryError("two models have one name; serve one of them, or import it again with --name")
        self.local = _loopback(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise SmallfryError(f"{host}:{port}: cannot listen ({error.strerror}); choose another --port") from None

    @property
    def address(self) -> str:
        """The base address of requests."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}"

    def expects(self, host: str, origin: str | None) -> bool:
        """Whether a request means this server: a page of another site must not use what listens on this machine."""
        return not self.local or (_means_here(host) and (origin is None or _means_here(origin.split("//")[-1])))

    def model(self, name: object) -> Served:
        """The model of a request.

        Raises:
            SmallfryError: There is none of that name.
        """
        if name is None:
            return next(iter(self.models.values()))
        found = self.models.get(str(name))
        if found is None:
            raise SmallfryError(f"model {name!s:.80}: not served; there are {', '.join(self.models)}")
        return found
