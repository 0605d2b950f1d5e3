"""`smallfry chat`: talk with a model line by line, at a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import typer

from smallfry import shipped
from smallfry.cli_common import Json, console, errors, print_json
from smallfry.cli_models import (
    DrawSeed,
    EngineOption,
    MaxNew,
    MinP,
    Precision,
    Repetition,
    Temperature,
    TopK,
    TopP,
    has_form,
    sampling_of,
    tell,
)  # fmt: skip
from smallfry.conversation import HOTTEST, Conversation, Exchange
from smallfry.errors import SmallfryError
from smallfry.shipped import model_directory

if TYPE_CHECKING:
    from smallfry.engine.decoding import Sampling
    from smallfry.predictor import ModelPredictor
    from smallfry.writer import Writer

Answer = Callable[[Conversation, str], Exchange | None]  # None: nothing was written
Draw = Callable[[Conversation], "Sampling | None"]


def chat(
    model: Annotated[Path | None, typer.Argument(
        help="A model directory or that of an assessment; without one the model that comes with smallfry"
    )] = None,
    precision: Precision = None, engine: EngineOption = "auto", max_new: MaxNew = 256,
    temperature: Temperature = 0.7, top_k: TopK = 0, top_p: TopP = 0.95, min_p: MinP = 0.0,
    repetition: Repetition = 1.0, seed: DrawSeed = 0,
    system: Annotated[str, typer.Option(help="What stands before the conversation")] = "", as_json: Json = False,
) -> None:  # fmt: skip
    """Talk with a model line by line; one that was trained for a job answers, one that was not trained to talk goes on.

    A history longer than the model's context loses its oldest exchanges. Ctrl-C stops an answer, Ctrl-D ends; /help
    lists what else can be done: /temperature, /seed, /system, /undo, /reset.
    """
    path = model_directory(model) if model is not None else shipped.path()
    if temperature > HOTTEST or seed < 0:
        raise SmallfryError(f"--temperature and --seed: expected 0 to {HOTTEST:g} and a whole number from 0")
    talk = Conversation("answer", temperature, seed, system)
    loaded: ModelPredictor | Writer
    if has_form(path):
        from smallfry.predictor import ModelPredictor

        loaded = predictor = ModelPredictor.load(path, cast(Any, precision), cast(Any, engine))
        answer = _job(predictor)
    else:
        from smallfry.writer import Writer

        loaded = writer = Writer.load(path, cast(Any, precision), cast(Any, engine))
        talk.kind = "chat" if writer.chats else "continue"

        def draw(talk: Conversation) -> Sampling | None:
            found = sampling_of(talk.temperature, top_k, top_p, min_p, repetition, talk.seed)
            return replace(found, rows=(talk.drawn,)) if found else None  # every answer has draws of its own

        answer = _conversation(writer, max_new, draw) if writer.chats else _continuation(writer, max_new, draw)
    if system and talk.kind != "chat":
        raise SmallfryError(f"--system: {loaded.name} was not trained to converse and takes none; leave it out")
    tell(loaded.notice)
    if talk.kind == "continue":
        errors.print(f"{loaded.name} was not trained to talk: it continues what you write", style="dim", markup=False)
    _talk(talk, answer, loaded.name)
    if as_json:
        print_json({"model": loaded.name, "kind": talk.kind, **talk.to_dict()})


def _talk(talk: Conversation, answer: Answer, name: str) -> None:
    """Lines until there are no more."""
    at_terminal = sys.stdin.isatty()
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a pipe, or a terminal of another encoding, may give what is no text
    if at_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() then edits lines and remembers them)
        errors.print(f"{name}: /help lists what can be done, Ctrl-D ends", style="dim", markup=False, highlight=False)
    try:
        while not talk.ended and (line := _ask(at_terminal)) is not None:
            if line.startswith("/") and not line.startswith("//"):
                errors.print(talk.command(line), markup=False, highlight=False, soft_wrap=True)
            elif line:
                exchange = answer(talk, line[1:] if line.startswith("//") else line)
                talk.drawn += 1
                if exchange is not None:
                    talk.exchanges.append(exchange)
    except KeyboardInterrupt:  # at the prompt
        errors.print()


def _ask(at_terminal: bool) -> str | None:
    try:
        return input("> " if at_terminal else "").strip()
    except EOFError:
        if at_terminal:
            errors.print()
        return None


# ---- answers ---------------------------------------------------------------------------------------------------------


def _job(predictor: ModelPredictor) -> Answer:
    """Each line for itself, with confidence."""

    def answer(talk: Conversation, line: str) -> Exchange | None:
        try:
            found = predictor.predict([line])[0]
        except KeyboardInterrupt:  # nothing of it is kept for the next
            errors.print("stopped", style="dim")
            return None
        _show(f"{found.output}  ({found.sureness})\n")
        return Exchange(line, found.output, confidence=found.confidence)

    return answer


def _conversation(writer: Writer, max_new: int, draw: Draw) -> Answer:
    """The history, cut to the context, and a new message."""

    def answer(talk: Conversation, line: str) -> Exchange | None:
        fitted = writer.fit(talk.turns(line), max_new)
        tell(fitted.notice)
        return _write(writer, line, fitted.ids, fitted.room, draw(talk))

    return answer


def _continuation(writer: Writer, max_new: int, draw: Draw) -> Answer:
    """What follows a line, which is not a conversation's."""

    def answer(talk: Conversation, line: str) -> Exchange | None:
        ids = writer.prompt_ids(line)
        room = min(max_new, writer.context // 2)
        if len(ids) > writer.context - room:
            first = 1 if writer.own else 0  # what begins every text stays
            tell(
                f"too long for the model's context: its first {len(ids) - writer.context + room:,} tokens are not read"
            )
            ids = ids[:first] + ids[len(ids) - (writer.context - room - first) :]
        return _write(writer, line, ids, room, draw(talk))

    return answer


def _write(writer: Writer, line: str, ids: Any, room: int, sampling: Sampling | None) -> Exchange | None:
    """Show an answer as it is written; Ctrl-C stops it, and what is there stays."""
    written = ""
    with _Stopping() as stopping:
        for piece in writer.stream(ids, room, sampling, (), writer.tool):
            new = piece.text
            if writer.chats and not written:
                new = new.lstrip()  # between the role's token and the first word stands a space
            written += new
            _show(new)
            if stopping.asked:
                break
    _show("\n")
    if stopping.asked:
        errors.print("stopped", style="dim")
    if not written.strip():
        errors.print("(nothing)", style="dim", markup=False)
        if stopping.asked:
            return None
    return Exchange(line, written.rstrip() if writer.chats else written, stopping.asked)


class _Stopping:
    """Ctrl-C as a wish that is looked at between two tokens: an exception would tear what the model holds in memory.

    A second one before the first is heard interrupts as usual.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # only the main thread may
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _show(text: str) -> None:
    """Text of a model on stdout, at once."""
    console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
