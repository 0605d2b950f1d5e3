"""Data with what teachers say of it, made when a batch is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smallfry.data import Batch, Soft
from smallfry.errors import SmallfryError
from smallfry.training.epochs import CountedData, Data, MadeBatches
from smallfry.tuning.teachers import LogitTeacher, soft_targets

TOP_K = 32
CHOICES = 0.5
"""Weight above which a target is the model's own choice: the words of a job's prompt weigh less (`recipes`)."""


def distilled(
    data: Data, teachers: Sequence[LogitTeacher], share: float, temperature: float, top_k: int = TOP_K, *,
    least: float = 0.0,
) -> Data:  # fmt: skip
    """The same batches, each with the teachers' distributions beside its targets.

    A batch stays a pure function of its number. The teachers cost a forward pass of theirs at every step.

    Args:
        data: What the student learns from.
        teachers: Models with the student's tokenizer; of several, the mean of their distributions is taught.
        share: Of the loss that is the teachers', 0 to 1.
        temperature: Softens the distributions, above 0; 1 leaves them as they are.
        top_k: Likeliest tokens kept at each place.
        least: Places whose targets weigh no more than this are not taught: what a label costs is little where the
            words of the prompt, which weigh less, are not asked about.

    Raises:
        SmallfryError: A setting is out of range, or the teachers have different vocabularies.
    """
    if not 0.0 <= share <= 1.0 or temperature <= 0.0 or top_k < 1:
        raise SmallfryError(
            f"distillation: share {share:g}, temperature {temperature:g}, top {top_k}; expected a share from 0 to 1, a "
            "temperature above 0 and at least 1 token"
        )
    if not teachers or len({teacher.vocab_size for teacher in teachers}) != 1:
        sizes = ", ".join(f"{t.name} {t.vocab_size:,}" for t in teachers) or "none"
        raise SmallfryError(f"distillation: expected teachers of one vocabulary, got {sizes}")
    lesson = _Lesson(list(teachers), share, temperature, top_k, least)
    return _Counted(data, lesson) if isinstance(data, CountedData) else _Distilled(data, lesson)


class _Lesson:
    """Teachers and settings."""

    def __init__(
        self, teachers: list[LogitTeacher], share: float, temperature: float, top_k: int, least: float
    ) -> None:  # fmt: skip
        self.teachers, self.share, self.temperature, self.least = teachers, share, temperature, least
        self.top_k = min(top_k, teachers[0].vocab_size)

    def soft(self, batch: Batch) -> Soft:
        return soft_targets(self.teachers, batch, self.share, self.temperature, self.top_k, self.least)


class _Distilled:
    def __init__(self, data: Data, lesson: _Lesson) -> None:
        self.data, self.lesson = data, lesson

    def epoch(self, epoch: int) -> Sequence[Batch]:
        batches = self.data.epoch(epoch)

        def make(at: int) -> Batch:
            batch = batches[at]
            return replace(batch, soft=self.lesson.soft(batch))

        return MadeBatches(len(batches), make)


class _Counted(_Distilled):
    data: CountedData

    def steps_per_epoch(self, epoch: int) -> int:
        return self.data.steps_per_epoch(epoch)
