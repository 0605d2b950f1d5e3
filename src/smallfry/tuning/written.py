"""What teachers write: answers in place of a conversation's own, labels for inputs, and new examples.

Nothing that a teacher says is trusted: what is not of the expected form is dropped and counted, and so are questions
that it refuses. How it is asked, and that what it said is kept, is `smallfry.tuning.asking`'s.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from smallfry.baselines.calibration import evenly
from smallfry.errors import SmallfryError
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job, Kind
from smallfry.loading.splitting import normalise
from smallfry.tuning.asking import Asking, Kept, Reply, TextTeacher, unanswered
from smallfry.tuning.conversations import Conversation, Message
from smallfry.tuning.teachers import EndpointTeacher, JobTeacher

Say = Callable[[str], None]

_SHOWN = 16  # examples in a prompt that asks for an answer
_WRITTEN = 10  # examples asked for at once
_SHOWN_WRITTEN = 8  # examples in a prompt that asks for more of them
_MOST_LABELS = 400  # named in a prompt
_WRITE_TEMPERATURE = 0.8  # of an endpoint that makes examples up
_DRY = 5  # answers in a row that gave nothing new, until it is taken for dry
_SPARE_TOKENS, _FEWEST_TOKENS = 16, 32


# ---- conversations --------------------------------------------------------------------------------------------------


def rewrite(
    conversations: Sequence[Conversation], teacher: TextTeacher, max_new: int, say: Say, kept: Kept | None = None
) -> list[Conversation]:
    """Conversations whose assistant is the teacher, which sees what the user said and its own earlier answers.

    Args:
        conversations: The user's turns are taken from them; what the assistant said is not.
        teacher: Who answers.
        max_new: Most tokens of an answer.
        say: Told how many answers were empty, and how many questions got none.
        kept: Where answers are kept.

    Returns:
        In the same order; a conversation ends before a question without an answer, and one without any answer is left
        out.

    Raises:
        SmallfryError: The teacher fails, or answers nothing at all.
    """
    asking, replies = Asking(teacher, max_new, kept), list[Reply]()
    made: list[list[Message]] = [[] for _ in conversations]
    at = [0] * len(conversations)
    live = list(range(len(conversations)))
    while live:
        waiting = []
        for i in live:
            turns = conversations[i]
            while at[i] < len(turns) and turns[at[i]].role != "assistant":
                made[i].append(turns[at[i]])
                at[i] += 1
            if at[i] < len(turns) and made[i] and made[i][-1].role == "user":
                waiting.append(i)
        said = asking.ask([tuple(made[i]) for i in waiting])
        live = []
        for i, reply in zip(waiting, said, strict=True):
            at[i] += 1
            if reply.text.strip():
                made[i].append(Message("assistant", reply.text.strip()))
                live.append(i)
        replies += said
    found = [turns for turns in map(_answered, made) if turns]
    missing = unanswered(replies)
    if conversations and not found:
        why = f"; {missing}" if missing else ""
        raise SmallfryError(f"--teacher {teacher.name}: answered nothing to {len(conversations):,} conversations{why}")
    asking.finish()
    empty = sum(not reply.text.strip() and not reply.refused for reply in replies)
    if empty or missing or len(found) < len(conversations):
        left = f"{len(found):,} of {len(conversations):,} conversations left"
        say(f"{teacher.name}: {empty:,} answers were empty{f', {missing}' if missing else ''}; {left}")
    return found


def _answered(turns: Sequence[Message]) -> Conversation:
    """A conversation up to its last answer."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    return tuple(turns[: last + 1])


# ---- a job's examples -----------------------------------------------------------------------------------------------


class OutputForm:
    """What outputs of a job look like, learned from its examples, for what a teacher writes.

    Args:
        examples: Rows of the job.
        kind: Of the job.
    """

    def __init__(self, examples: Sequence[Example], kind: Kind) -> None:
        outputs = [e.output for e in examples]
        self.labels = {normalise(o): o for o in sorted(set(outputs))} if kind == "classify" else {}
        self._codec = FrameCodec.learn(list(examples)) if kind == "transform" else None
        self._json = {type(v) for v in map(_parsed, outputs)} - {str, int, float}
        self._one_line = not any("\n" in o for o in outputs)
        self._longest = 2 * max(map(len, outputs), default=0)

    def read(self, text: str, answer: str) -> str | None:
        """The output in a teacher's answer to ``text``; None where it holds none of this form."""
        output = re.sub(r"^output:\s*", "", answer.strip(), flags=re.IGNORECASE)
        if self._one_line:
            output = output.split("\n", 1)[0].strip()
        if self.labels:
            return self.labels.get(normalise(output))
        if not output or len(output) > self._longest:
            return None
        if self._codec is not None:
            frame = self._codec.parse(Example(text, output))  # a value must stand in the input, or be a known one
            known = frame is not None and set(frame.head) <= set(self._codec.symbols)
            return output if known else None
        if self._json and type(None) not in self._json:  # every output is an object or a list
            return output if type(_parsed(output)) in self._json else None
        return output


def _parsed(text: str) -> object:
    """The JSON object or list in a text, or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def label(
    job: Job, teacher: TextTeacher, inputs: Sequence[str], *, kept: Kept | None = None, say: Say | None = None
) -> list[Example]:
    """Examples of a job whose outputs are a teacher's.

    A model of the job answers in its own form. Any other teacher is shown examples of the job's training rows, and the
    labels there are; what it answers must be one of them, or of the form that training outputs have.

    Args:
        job: The job.
        teacher: Who answers.
        inputs: To be answered.
        kept: Where answers are kept.
        say: Told how many answers were dropped.

    Returns:
        In the order of the inputs, without those whose answer is not of the job's form.

    Raises:
        SmallfryError: The teacher fails, or answers no input at all.
    """
    form, asking = OutputForm(job.train, job.kind), Asking(teacher, _room(job.train), kept)
    if isinstance(teacher, JobTeacher):
        replies = [Reply(output) for output in teacher.outputs(inputs)]
    else:
        head = _instruction(job)
        replies = asking.ask([(Message("user", f"{head}\n\nInput: {text}\nOutput:"),) for text in inputs])
    answers = [(text, reply.text) for text, reply in zip(inputs, replies, strict=True) if not reply.refused]
    missing = unanswered(replies)
    if missing and not answers:
        raise SmallfryError(f"--teacher {teacher.name}: labelled nothing; {missing}")
    asking.finish()
    read = [(text, form.read(text, answer)) for text, answer in answers]
    found = [Example(text, output) for text, output in read if output is not None]
    if say is not None and len(found) < len(inputs):
        other = f"{len(answers) - len(found):,} of {len(inputs):,} answers were not of the job's form"
        say(f"{teacher.name}: {other}{f'; {missing}' if missing else ''}")
    return found


def _room(examples: Sequence[Example]) -> int:
    """Tokens to allow an output whose tokenizer is not known: a token a byte is the most that one needs."""
    longest = max((len(e.output.encode("utf-8", "replace")) for e in examples), default=0)
    return max(_FEWEST_TOKENS, longest + _SPARE_TOKENS)


def _instruction(job: Job) -> str:
    """What a teacher is shown before an input; the same for all, so that an endpoint may keep what it read."""
    shown = "\n\n".join(f"Input: {e.input}\nOutput: {e.output}" for e in evenly(job.train, _SHOWN))
    closed = ""
    if job.kind == "classify" and len(job.labels) <= _MOST_LABELS:
        closed = f" The output is one of: {', '.join(job.labels)}."
    return f"Give the output for the last input, in the form of these examples, and nothing else.{closed}\n\n{shown}"


def write_examples(
    teacher: TextTeacher, examples: Sequence[Example], count: int, seed: int, *, kind: Kind = "transform",
    against: Sequence[str] = (), kept: Kept | None = None, say: Say | None = None,
) -> list[Example]:  # fmt: skip
    """New examples of the kind that a teacher is shown.

    Each prompt shows a few examples drawn anew and asks for ten lines of JSON with ``input`` and ``output``. Lines that
    are anything else, outputs that are not of the examples' form, and inputs that are known are dropped and counted.

    Args:
        teacher: Who writes.
        examples: The training rows.
        count: How many to make; fewer where the teacher has no more.
        seed: Of the examples shown.
        kind: Of the job.
        against: Inputs that must not come back: those of the validation and test rows.
        kept: Where answers are kept.
        say: Told how many were dropped and why.

    Returns:
        New examples, all inputs different (case, spaces and punctuation aside) from each other and all known ones.

    Raises:
        SmallfryError: The teacher fails, or there is nothing to show it.
    """
    if not examples:
        raise SmallfryError(f"--teacher {teacher.name}: no examples to show it; a job needs at least one training row")
    if isinstance(teacher, EndpointTeacher) and not teacher.temperature:
        teacher = replace(teacher, temperature=_WRITE_TEMPERATURE)
    form, rng = OutputForm(examples, kind), np.random.default_rng([seed, len(examples)])
    asking = Asking(teacher, _WRITTEN * (_room(examples) + _room_inputs(examples)), kept)
    known = {normalise(e.input) for e in examples} | {normalise(text) for text in against}
    found: list[Example] = []
    dropped: Counter[str] = Counter()
    dry = 0
    times: Counter[str] = Counter()  # few examples make the same prompt again and again
    while len(found) < count and dry < _DRY:
        shown = [examples[int(i)] for i in rng.choice(len(examples), min(_SHOWN_WRITTEN, len(examples)), replace=False)]
        prompt = _more(shown)
        (reply,) = asking.ask([(Message("user", prompt),)], times[prompt])
        times[prompt] += 1
        if reply.refused:
            dropped["prompts without an answer"] += 1
            continue
        new = _parse_written(reply.text, form, known, dropped)
        found += new
        dry = 0 if new else dry + 1
    asking.finish()
    if say is not None:
        why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(dropped.items())) or "none"
        say(f"{teacher.name}: wrote {min(len(found), count):,} of {count:,} examples; dropped: {why}")
    return found[:count]


def _room_inputs(examples: Sequence[Example]) -> int:
    return 2 * int(np.median([len(e.input.encode("utf-8", "replace")) for e in examples])) + _SPARE_TOKENS


def _more(shown: Sequence[Example]) -> str:
    """The prompt that asks for more examples."""
    lines = "\n".join(json.dumps({"input": e.input, "output": e.output}, ensure_ascii=False) for e in shown)
    return (
        f"These are examples of a task, one JSON object a line:\n{lines}\n\nWrite {_WRITTEN} new ones in the same "
        "form, one JSON object a line and nothing else. Make their inputs different from these and from each other; "
        "their outputs must be right."
    )


def _parse_written(answer: str, form: OutputForm, known: set[str], dropped: Counter[str]) -> list[Example]:
    """The examples in an answer that are whole, of the form, and new; ``known`` grows by them."""
    found = []
    for line in answer.splitlines():
        row = _parsed(line.strip())
        if not line.strip():
            continue
        if (
            not isinstance(row, dict)
            or set(row) != {"input", "output"}
            or not all(type(v) is str for v in row.values())
        ):
            dropped["lines that are no example"] += 1
            continue
        text = row["input"].strip()
        output = form.read(text, row["output"])
        if output is None:
            dropped["outputs of another form"] += 1
        elif not normalise(text) or normalise(text) in known:
            dropped["known inputs"] += 1
        else:
            known.add(normalise(text))
            found.append(Example(text, output))
    return found
