"""A headless Chromium, told what to do over a pipe (Chrome DevTools Protocol) with the standard library alone."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_PATIENCE = 60.0  # seconds that anything may take


class Browser:
    """One page in a browser.

    Args:
        send: End of a pipe that the browser reads.
        receive: End of a pipe that it writes.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._rest, self._last = send, receive, b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask the browser for something and wait for its answer; events that come before it are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") != self._last:
                self.events.append(answer)
            elif "error" in answer:
                raise AssertionError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._receive, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser does not answer")
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
            allowUnsafeEvalBlockedByCSP=False,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, done: Callable[[Any], bool] = bool) -> Any:
        """An expression's value as soon as it is what is waited for."""
        end = time.monotonic() + _PATIENCE
        while not done(value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} stays {value!r}")
            time.sleep(0.02)
        return value

    def open(self, page: Path) -> None:
        """Show a file and wait until its model is ready."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.body?.dataset.state", lambda state: state in ("ready", "error"))

    def fill(self, **fields: object) -> None:
        """Type into fields by their ids (``_`` for ``-``)."""
        for name, value in fields.items():
            at, text = json.dumps(name.replace("_", "-")), json.dumps(str(value))
            self.evaluate(
                f"(field => {{ field.value = {text}; field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})"
                f"(document.getElementById({at}))"
            )

    def run(self) -> None:
        """Press the button and wait until the answer is there."""
        self.evaluate("document.getElementById('run').click()")
        self.wait("document.body.dataset.state", lambda state: state in ("ready", "error"))

    def requests(self) -> list[str]:
        """Addresses that were asked for since the start."""
        self.evaluate("0")  # what was sent before is here now
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the browser logged, and exceptions nobody caught."""
        self.evaluate("0")
        return [
            json.dumps(e["params"]) for e in self.events
            if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]  # fmt: skip


@contextmanager
def browser(profile: Path, *options: str) -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards.

    Args:
        profile: A directory for it.
        options: Of the command line.
    """
    assert PROGRAM is not None
    to_browser, from_browser = os.pipe(), os.pipe()

    def connect() -> None:  # the browser reads descriptor 3 and writes 4
        read, write = os.dup(to_browser[0]), os.dup(from_browser[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    command = [
        PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--remote-debugging-pipe", *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=connect,
        pass_fds=(3, 4), env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        os.close(to_browser[1])
        os.close(from_browser[0])
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
