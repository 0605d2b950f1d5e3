"""What the commands share: consoles, options, and the last line of stdout."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from smallfry.characters import visible
from smallfry.errors import SmallfryError
from smallfry.job import Job, Kind, Metric


class _SafeConsole(Console):
    """A console on which no text from outside can do more than be read, wherever in a table it stands."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is shown, piece by piece; rich's own control codes are not text."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


console = _SafeConsole(emoji=False)
errors = _SafeConsole(stderr=True, emoji=False)

JobArg = Annotated[
    str, typer.Argument(help="A file (.jsonl, .jsonl.gz, .csv, .tsv, .parquet), hf:owner/name, or a built-in name")
]
InputColumn = Annotated[str, typer.Option(help="Column of what the model is given")]
OutputColumn = Annotated[str, typer.Option(help="Column of what it must answer")]
References = Annotated[str | None, typer.Option(help="Column of further accepted answers")]
KindOption = Annotated[str | None, typer.Option(help="classify, transform or generate; inferred by default")]
MetricOption = Annotated[str | None, typer.Option(help="accuracy, exact_match, bleu or bits_per_byte")]
Where = Annotated[list[str] | None, typer.Option(help="Keep rows whose column has this value: COLUMN=VALUE")]
Seed = Annotated[int, typer.Option(help="First seed, also of a split that the data lacks and of built-in jobs")]
Json = Annotated[bool, typer.Option("--json", help="Make the last line of stdout one JSON object")]


def load_job(
    source: str, input_column: str, output_column: str, references: str | None, kind: str | None, metric: str | None,
    where: list[str] | None, seed: int = 0,
) -> Job:  # fmt: skip
    """A job by the options of a command."""
    conditions: dict[str, str] = {}
    for condition in where or []:
        column, equals, value = condition.partition("=")
        if not equals:
            raise SmallfryError(f"--where {condition}: expected COLUMN=VALUE, for example --where lang=en")
        conditions[column] = value
    for given, known, name in (
        (kind, ("classify", "transform", "generate"), "--kind"),
        (metric, ("accuracy", "exact_match", "bleu", "bits_per_byte"), "--metric"),
    ):
        if given is not None and given not in known:
            raise SmallfryError(f"{name} {given}: expected one of {', '.join(known)}")
    return Job.load(
        source, input_column=input_column, output_column=output_column, references_column=references,
        kind=cast("Kind | None", kind), metric=cast("Metric | None", metric), where=conditions or None, seed=seed,
    )  # fmt: skip


def print_json(data: Any) -> None:
    """One line of JSON on stdout."""
    line = json.dumps(data, ensure_ascii=False)
    # Some programs end a line at some of these, terminals obey others; JSON lets them be written as escapes.
    line = re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", line)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def read_inputs(path: Path, column: str) -> list[str]:
    """A column of a file of JSON lines."""
    inputs = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other line separators inside strings
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise SmallfryError(
            f"{path}: cannot be read ({reason}); expected UTF-8 JSON lines with a column {column!r}"
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            inputs.append(str(json.loads(line)[column]))
        except (ValueError, KeyError, TypeError):
            raise SmallfryError(f"{path} line {number}: expected a JSON object with a column {column!r}") from None
    return inputs
