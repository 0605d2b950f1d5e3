"""Ctrl-C and SIGTERM as a request that can wait until the work in hand is saved."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on Ctrl-C and SIGTERM instead of dying; elsewhere than in the main thread, leave them alone."""

    def ask(number: int, frame: object) -> None:
        stop()

    previous = {}
    with contextlib.suppress(ValueError):
        previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
