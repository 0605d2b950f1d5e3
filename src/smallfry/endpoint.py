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
        """The answer to a conversation.

        An endpoint that is busy (429), broken for the moment (5xx), silent or cut off is asked three times. Redirects
        are not followed: a key is for the address that was named.

        Args:
            messages: ``role`` and ``content`` of each turn.
            max_tokens: Most tokens of the answer; None leaves it to the endpoint.
            temperature: 0 takes the likeliest.

        Raises:
            SmallfryError: The endpoint cannot be reached, refuses, or does not answer with a chat completion.
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
                if wait is None or (error.code != 429 and error.code < 500):
                    hint = f"; a key goes into {self.key}" if self.key and error.code in (401, 403) else ""
                    raise self._error(f"answered {error.code} {error.reason}{hint}") from None
                wait = _asked_to_wait(error, wait)
            except (OSError, http.client.HTTPException) as error:
                if wait is None or not _passing(error):
                    raise self._error(f"no usable answer ({_reason(error)}); is it running?") from None
            except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
                raise self._error(f"no usable answer ({error}); expected a chat completion") from None
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

    def _error(self, text: str) -> SmallfryError:
        """One line, in which the key does not stand even where the endpoint repeats it."""
        key = self._key()
        line = " ".join(text.split())[:300]
        return SmallfryError(f"{self.option} {self.shown}: {line.replace(key, '***') if key else line}")


def _content(reply: bytes) -> str:
    """The text of a chat completion."""
    content = json.loads(reply)["choices"][0]["message"]["content"]
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
