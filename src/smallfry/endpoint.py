"""A model behind an OpenAI-compatible address: one request, one answer, and what goes wrong in one line."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from smallfry.errors import SmallfryError

_LONGEST = 1 << 20  # bytes of an answer that are read
_PIECE = 1 << 16
_LONGEST_WAIT = 60.0  # seconds that a busy endpoint may ask us to wait
_WAITS = (1.0, 4.0)  # seconds between tries


class UnansweredError(SmallfryError):
    """One conversation got no answer; another may get one.

    Args:
        message: For the user.
        reason: What the endpoint did, without its address.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_address(source: str) -> bool:
    """Whether a source is the address of an endpoint rather than a file.

    Raises:
        SmallfryError: It is one, and malformed.
    """
    if not source.lower().startswith(("http://", "https://")):
        return False
    try:
        return bool(urlsplit(source).netloc)
    except ValueError as error:
        raise SmallfryError(f"{source}: is no address ({error}); expected one such as http://127.0.0.1/v1") from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    Args:
        url: Its address up to and with ``/v1``.
        model: The name of the model there.
        key: The environment variable that holds the key, if there is one; the key itself is never printed or stored.
        option: What the user gave it with, for errors.
        timeout: Seconds to wait for one answer, from the request to its last byte.
        patience: Factor on the seconds between tries where the endpoint is busy.
    """

    url: str
    model: str
    key: str = ""
    option: str = "--endpoint"
    timeout: float = 120.0
    patience: float = 1.0

    @property
    def shown(self) -> str:
        """The address without user, password and query, for people and records."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else self.url

    def complete(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int | None = None, temperature: float = 0.0
    ) -> str:
        """The answer to a conversation; empty where the endpoint answers with no text, as one does that only thought.

        An endpoint that is busy (429), broken for the moment (5xx), silent or cut off is asked three times. Redirects
        are not followed: a key is for the address that was named.

        Args:
            messages: ``role`` and ``content`` of each turn.
            max_tokens: Most tokens of the answer; None leaves it to the endpoint.
            temperature: 0 takes the likeliest.

        Raises:
            UnansweredError: It refuses this conversation, breaks off, or answers with something else than a chat
                completion.
            SmallfryError: It cannot be reached, or does not accept the key (401, 403).
        """
        if not is_address(self.url):
            raise SmallfryError(f"{self.option} {self.url}: expected an address such as http://127.0.0.1:8000/v1")
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), "temperature": temperature}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        for wait in (*_WAITS, None):
            try:
                return _content(self._sent(body))
            except urllib.error.HTTPError as error:
                error.close()
                if wait is None or (error.code != 429 and error.code < 500):
                    if error.code not in (401, 403):
                        raise self._unanswered(f"answered {error.code} {error.reason}") from None
                    hint = f"; a key goes into {self.key}" if self.key else ""
                    raise SmallfryError(self._told(f"answered {error.code} {error.reason}{hint}")) from None
                wait = _asked_to_wait(error, wait)
            except (OSError, http.client.HTTPException) as error:
                if wait is None or not _passing(error):
                    text = f"no usable answer ({_reason(error)}); is it running?"
                    if isinstance(error, urllib.error.URLError):  # no connection, or none that took the question
                        raise SmallfryError(self._told(text)) from None
                    raise self._unanswered(text) from None
            except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
                raise self._unanswered(f"no usable answer ({error}); expected a chat completion") from None
            time.sleep(wait * self.patience)
        raise AssertionError("unreachable")

    def _sent(self, body: Mapping[str, Any]) -> bytes:
        """The endpoint's reply, read to its end within the timeout."""
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        address = self.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode("utf-8"), headers)
        deadline = time.monotonic() + self.timeout
        with _OPENER.open(request, timeout=self.timeout) as reply:
            found = bytearray()
            while piece := reply.read1(_PIECE):  # what has arrived: a reply in drops must not outlast the timeout
                found += piece
                if len(found) > _LONGEST:
                    raise ValueError(f"more than {_LONGEST:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {self.timeout:g} s")
            if reply.length:  # bytes that were promised and did not come
                raise http.client.IncompleteRead(bytes(found), reply.length)
        return bytes(found)

    def _key(self) -> str:
        """The key without white space around it, such as a file's line end.

        Raises:
            SmallfryError: It has characters that no header can carry.
        """
        key = os.environ.get(self.key, "").strip() if self.key else ""
        if not (key.isascii() and key.isprintable()):
            raise SmallfryError(f"{self.key}: holds characters that are of no key; set it to the key alone")
        return key

    def _unanswered(self, text: str) -> UnansweredError:
        return UnansweredError(self._told(text), self._line(text))

    def _told(self, text: str) -> str:
        return f"{self.option} {self.shown}: {self._line(text)}"

    def _line(self, text: str) -> str:
        """One line, in which the key does not stand even where the endpoint repeats it."""
        key = self._key()
        line = " ".join(text.split())[:300]
        return line.replace(key, "***") if key else line


def _content(reply: bytes) -> str:
    """The text of a chat completion; null, where a model refused or ran out of tokens while it thought, is none."""
    content = json.loads(reply)["choices"][0]["message"]["content"]
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError("the message holds no text")
    return content


def _asked_to_wait(error: urllib.error.HTTPError, otherwise: float) -> float:
    """Seconds that the endpoint asks for, within reason."""
    asked = str(error.headers.get("Retry-After", "")) if error.headers is not None else ""
    return min(float(asked), _LONGEST_WAIT) if asked.isascii() and asked.isdigit() else otherwise


def _passing(error: BaseException) -> bool:
    """Whether another try may help: not where nobody listens or the name or certificate is wrong."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return not isinstance(cause, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError | str)


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key is for the address that was named, not for where that one sends us."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)
