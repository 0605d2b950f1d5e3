"""Where a tuning meets its teachers: distributions beside batches, answers in place of those given, new examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from smallfry.characters import whole_text
from smallfry.errors import SmallfryError
from smallfry.forms import Form
from smallfry.job import Example, Job
from smallfry.loading.splitting import normalise
from smallfry.tokenizer import Tokenizer
from smallfry.training.epochs import Data
from smallfry.training.parallel import World
from smallfry.tuning.asking import Kept, TextTeacher
from smallfry.tuning.conversations import (
    COLUMNS,
    PAIRS,
    Conversation,
    Message,
    Read,
    digest,
    normal,
    read_turns,
    table_of,
)  # fmt: skip
from smallfry.tuning.record import TuneSettings
from smallfry.tuning.soft import CHOICES, LogitTeacher, distilled
from smallfry.tuning.teachers import Committee, JobTeacher, form_of, load_teacher
from smallfry.tuning.written import label, rewrite, write_examples

T = TypeVar("T")
_ASKING = ("input", "prompt", "question", "instruction", "text")


@dataclass(slots=True)
class Teaching:
    """The teachers of one run.

    Args:
        settings: Who they are and how they teach.
        kept: The directory where what they say is kept.
        world: Only the main process asks; the others read what it kept.
        say: Told how it goes.
        who: What `identity_of` says of each: answers are kept by it. Empty where that is not known, as in a run that
            an earlier version began: its answers are kept by the teachers' names.
        logit: Those whose distributions are taught; filled by `meet`.
        text: Those that write.
    """

    settings: TuneSettings
    kept: Path
    world: World
    say: Callable[[str], None]
    who: Sequence[Mapping[str, str]] = ()
    logit: list[LogitTeacher] = field(default_factory=list)
    text: list[TextTeacher] = field(default_factory=list)
    _hash_of: dict[str, str] = field(default_factory=dict)  # of the weights, by the teacher's name

    def meet(self, tokenizer: Tokenizer, job_form: bool) -> None:
        """Load the teachers, each by what its tokenizer allows.

        Args:
            tokenizer: The student's.
            job_form: The student learns a job.

        Raises:
            SmallfryError: One cannot be had.
        """
        self.logit, self.text = [], []
        for found in self._loaded(tokenizer, job_form):
            if isinstance(found, LogitTeacher):
                self.logit.append(found)
                self.say(f"{found.name}: teaches by its distributions, a share of {self.settings.teacher_share:g}")
            else:
                self.text.append(found)
                self.say(f"{found.name}: has another tokenizer, teaches by what it writes")

    def _loaded(self, tokenizer: Tokenizer | None, job_form: bool) -> Iterator[LogitTeacher | TextTeacher]:
        for number, source in enumerate(self.settings.teacher):
            found = load_teacher(source, tokenizer, self.settings.teacher_model, job_form)
            self._hash_of[found.name] = self.who[number].get("weights_sha256", "") if self.who else ""
            yield found

    def _store(self, name: str, teacher: TextTeacher) -> Kept:
        """Where a teacher's answers are kept; an endpoint's are kept by its name, which is its address and model."""
        return Kept(self.kept / f"{name}.jsonl", self._hash_of.get(teacher.name, ""))

    def wrap(self, data: Data) -> Data:
        """Batches with the teachers' distributions beside them."""
        if not self.logit:
            return data
        return distilled(data, self.logit, self.settings.teacher_share, self.settings.temperature, least=CHOICES)

    # ---- conversations ----------------------------------------------------------------------------------------------

    def answered(self, read: Read) -> Read:
        """What is learned from: conversations, answered anew by each teacher that writes, and further questions.

        Args:
            read: What was given; what is held out of it stays as it is.

        Raises:
            SmallfryError: A teacher fails, or is asked for what it cannot do.
        """
        asked = self.settings
        if asked.write:
            raise SmallfryError("--write: a teacher writes examples of a job; for conversations give --unlabelled FILE")
        if not self.text and not asked.unlabelled:
            return read
        if read.weights is not None:
            raise SmallfryError("a mixture by weight cannot be answered anew by a teacher; leave the weights out")
        train = list(read.train) if not self.text else []
        for number, teacher in enumerate(self.text):
            train += self._rewritten(read.train, teacher, f"answers-{number}")
        if asked.unlabelled:
            held = {_asked(conversation) for conversation in read.valid}
            questions = [each for each in read_questions(asked.unlabelled) if _asked(each) not in held]
            for number, teacher in enumerate(self.text or self._writers(False)):
                train += self._rewritten(questions, teacher, f"asked-{number}")
        return replace(
            read, train=train, source_of=[0] * len(train),
            counts={**read.counts, "conversations": len(train), "turns": sum(len(c) for c in train)},
            hashes={**read.hashes, "train": digest(train)},
        )  # fmt: skip

    def _rewritten(self, given: Sequence[Conversation], teacher: TextTeacher, name: str) -> list[Conversation]:
        def work() -> list[Conversation]:
            return rewrite(given, teacher, self.settings.max_new, self.say, self._store(name, teacher))

        return self._main_first(work)

    def _main_first(self, work: Callable[[], T]) -> T:
        """Something that asks teachers: the main process asks, and what it kept answers the others."""
        found = work() if self.world.main else None
        self.world.barrier()
        return work() if found is None else found

    def _writers(self, job_form: bool) -> list[TextTeacher]:
        """The teachers as ones that write, whatever their tokenizers are."""
        found: list[TextTeacher] = []
        for teacher in self._loaded(None, job_form):
            if isinstance(teacher, LogitTeacher):
                raise SmallfryError(f"--teacher {teacher.name}: gives distributions only and writes nothing")
            found.append(teacher)
        return found

    # ---- jobs -------------------------------------------------------------------------------------------------------

    def form(self, job: Job) -> Form | None:
        """The form of the first teacher that knows the job: a student that shares it learns from its distributions."""
        for source in self.settings.teacher:
            form = form_of(source)
            if form is None:
                continue
            unknown = (
                sorted(set(job.labels) - set(form.grammar.get("labels", job.labels))) if job.kind == "classify" else []
            )
            if unknown:
                raise SmallfryError(
                    f"--teacher {source}: never learned the label {unknown[0]!r}; give a model of the same job"
                )
            return form
        return None

    def examples(self, job: Job) -> list[Example]:
        """What teachers add to a job's training rows: labels for unlabelled inputs, and examples they write.

        Inputs of validation and test rows never come back.

        Args:
            job: The job.
        """
        asked = self.settings
        if self.text and not asked.unlabelled and not asked.write:
            raise SmallfryError(
                f"--teacher {self.text[0].name}: teaches a job by what it writes: give --unlabelled FILE (inputs that "
                "it labels) or --write N (examples that it makes up)"
            )
        writers = self._writers(True) if asked.unlabelled or asked.write else []
        found: list[Example] = []
        held = {normalise(row.input) for row in (*job.valid, *job.test)}
        if asked.unlabelled:
            inputs = read_inputs(asked.unlabelled, asked.input_column)
            fresh = [text for text in inputs if normalise(text) not in held]
            if len(fresh) < len(inputs):
                self.say(f"{asked.unlabelled}: {len(inputs) - len(fresh):,} inputs are held out in the job; left out")
            for number, teacher in enumerate(_together(writers, job)):
                found += self._labelled(job, teacher, fresh, number)
        if asked.write:
            against = [row.input for row in (*job.valid, *job.test)]
            for number, teacher in enumerate(writers):
                if isinstance(teacher, JobTeacher):
                    raise SmallfryError(
                        f"--write: {teacher.name} answers a job and cannot make up inputs; give --unlabelled FILE"
                    )
                found += self._written(job, teacher, against, number)
        return found

    def _labelled(self, job: Job, teacher: TextTeacher, inputs: Sequence[str], number: int) -> list[Example]:
        return self._main_first(lambda: label(
            job, teacher, inputs, kept=self._store(f"labels-{number}", teacher), say=self.say
        ))  # fmt: skip

    def _written(self, job: Job, teacher: TextTeacher, against: Sequence[str], number: int) -> list[Example]:
        return self._main_first(lambda: write_examples(
            teacher, job.train, self.settings.write, self.settings.seed, kind=job.kind, against=against,
            kept=self._store(f"written-{number}", teacher), say=self.say,
        ))  # fmt: skip


def _together(teachers: Sequence[TextTeacher], job: Job) -> list[TextTeacher]:
    """Several models of a job with labels as one, so that an input gets one label: what they say together."""
    models = [teacher for teacher in teachers if isinstance(teacher, JobTeacher)]
    if job.kind != "classify" or len(models) < 2:
        return list(teachers)
    return [Committee(models, job.labels), *(teacher for teacher in teachers if not isinstance(teacher, JobTeacher))]


def _asked(conversation: Conversation) -> tuple[str, ...]:
    """What a user says in a conversation, up to case, spaces and punctuation."""
    return tuple(normalise(turn.content) for turn in conversation if turn.role == "user")


def read_questions(source: str) -> list[Conversation]:
    """What a teacher is to answer: conversations whose answers, if there are any, do not matter.

    Args:
        source: A file with messages, or with one of the columns prompt, question, instruction, input and text.

    Raises:
        SmallfryError: It cannot be read, or holds no question.
    """
    table = table_of(source)
    found: list[Conversation] = []
    for number, row in table.rows:
        if any(column in row for column in COLUMNS) or any(a in row and b in row for a, b in PAIRS):
            turns = read_turns(table, number, row)
        else:
            text = next((whole_text(row[c]) for c in _ASKING if isinstance(row.get(c), str)), None)
            if text is None:
                columns = ", ".join(map(str, list(row)[:8]))
                raise SmallfryError(
                    f"{table.at(number)}: nothing to ask in {columns}; expected messages, or {', '.join(_ASKING)}"
                )
            turns = [Message("user", text.strip())]
        if turns and turns[-1].role == "user":
            turns.append(Message("assistant", ""))  # a place for the answer
        if conversation := normal(turns, Counter(), blank=True):
            found.append(conversation)
    if not found:
        raise SmallfryError(f"--unlabelled {source}: holds no question")
    return found


def read_inputs(source: str, column: str) -> list[str]:
    """Inputs of a job without outputs, each once.

    Args:
        source: A file of rows.
        column: The column that holds them.

    Raises:
        SmallfryError: It cannot be read or lacks the column.
    """
    if not source.startswith("hf:") and not Path(source).exists():
        raise SmallfryError(
            f"--unlabelled {source}: no such file; expected rows with a column {column!r} (or --input-column)"
        )
    table = table_of(source)
    found: dict[str, None] = {}
    for number, row in table.rows:
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            raise SmallfryError(f"{table.at(number)}: no text in column {column!r}; name the column: --input-column")
        found[whole_text(text)] = None
    if not found:
        raise SmallfryError(f"--unlabelled {source}: holds no input")
    return list(found)
