"""The claims as they stand in the two TOML files, checked when they are loaded."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from ..errors import SmallfryError
from .criteria import Condition, parse
from .references import Reference, read_reference

Kind = Literal["estimate", "can", "cannot", "threshold", "lever", "published"]
KINDS: tuple[Kind, ...] = ("estimate", "can", "cannot", "threshold", "lever", "published")
HERE = Path(__file__).parent
PLACE = re.compile(r"\{([^{}]+)\}")  # where the short answer shows a measurement


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the founding document, or one cell of a table, and what decides on it.

    Args:
        id: Short name, unique.
        line: Its line in the founding document.
        section: The heading it stands under.
        quote: The whole line, word for word.
        cell: The cell of a table row it is about, word for word; empty for the whole line.
        kind: What sort of sentence it is.
        sizes: The sizes it is about.
        how: Why these measurements test the sentence.
        readings: What decides.
        beside: What is shown with it and does not decide.
        supports: Any of these supports it.
        refutes: Any of these refutes it.
        same_as: The claim that says the same and was given the measurements; empty where this one has its own.
        untestable: Why nothing here can test it; empty where something can.
        published: The published number, in words.
        source: Where that number stands.
        caution: Why the criterion, which is not moved, turned out to say less than the sentence; a repetition that has
            none takes that of the claim it repeats.
        own_caution: Whether the caution is its own, not that of the claim it repeats.
        changed: What the criterion was first, where it was changed after a part of its measurements was known.
    """

    id: str
    line: int
    section: str
    quote: str
    kind: Kind
    cell: str = ""
    sizes: tuple[str, ...] = ()
    how: str = ""
    readings: tuple[Reference, ...] = ()
    beside: tuple[Reference, ...] = ()
    supports: tuple[Condition, ...] = ()
    refutes: tuple[Condition, ...] = ()
    same_as: str = ""
    untestable: str = ""
    published: str = ""
    source: str = ""
    caution: str = ""
    own_caution: bool = True
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A line with a digit, a tick or a cross that claims nothing, and why: a heading, say."""

    line: int
    quote: str
    why: str


@dataclass(frozen=True, slots=True)
class Suite:
    """What must be known of a suite to run it and to read its results.

    Args:
        name: As ``smallfry eval --suite`` knows it.
        title: For the figure.
        chance: Score of guessing; of single tasks in ``tasks``.
        flags: Of ``smallfry eval``.
        minutes: About, by size, on one core.
    """

    name: str
    title: str
    chance: float | None = None
    lower: bool = False
    flags: str = ""
    minutes: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, float] = field(default_factory=dict)

    def chance_of(self, task: str) -> float | None:
        """What guessing scores at a task, or at the whole suite where none is named."""
        return self.tasks.get(task) if task else self.chance


@dataclass(frozen=True, slots=True)
class Model:
    """A model of our own.

    Args:
        name: Its directory's name.
        size: The rung.
        what: What it learnt from, in words.
        suites: Those it is asked.
        seeds: Other seeds that it was trained with too; its own is 0.
        again: Suites that the models of the other seeds are asked.
    """

    name: str
    size: str
    what: str
    suites: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    again: tuple[str, ...] = ()

    def of_seed(self, seed: int) -> Model:
        """The same model from another seed, which is asked less."""
        return Model(f"{self.name}-s{seed}", self.size, f"{self.what}; seed {seed}", self.again)


@dataclass(frozen=True, slots=True)
class UseCase:
    """A job measured for the founding document's lists of use cases.

    Args:
        name: The job's name.
        what: In words.
        source: A built-in name, or the file among the public data.
        flags: Of ``smallfry assess``, with the target.
        minutes: About, by rung, on two cores; the rungs to run.
    """

    name: str
    what: str
    source: str
    flags: str
    minutes: dict[str, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A published score, for the figure: not measured here."""

    name: str
    suite: str
    params: float
    score: float
    source: str


@dataclass(frozen=True)
class Claims:
    """Everything the two files say."""

    claims: tuple[Claim, ...]
    passages: tuple[Passage, ...]
    sections: tuple[tuple[int, str], ...]
    suites: dict[str, Suite]
    models: dict[str, Model]
    use_cases: dict[str, UseCase]
    points: tuple[Point, ...]
    seen: tuple[str, ...]
    short: tuple[str, ...]

    @cached_property
    def by_id(self) -> dict[str, Claim]:
        """Claims by their ids."""
        return {claim.id: claim for claim in self.claims}

    def was_seen(self, file: str) -> bool:
        """Whether a stored file was known when the criteria were written."""
        return any(fnmatch.fnmatch(file, pattern) for pattern in self.seen)


def load(claims: Path = HERE / "claims.toml", measurements: Path = HERE / "measurements.toml") -> Claims:
    """Read and check the claims.

    Args:
        claims: The sentences and their criteria.
        measurements: What is measured.

    Raises:
        SmallfryError: A claim is incomplete, or names a measurement or claim that is not there.
    """
    said, measured = _read(claims), _read(measurements)
    groups: dict[str, list[str]] = measured.get("groups", {})
    sections = tuple(
        (int(s["line"]), ": ".join(filter(None, (s.get("under", ""), s["title"])))) for s in said["section"]
    )
    read = [_claim(raw, sections, groups) for raw in said["claim"]]
    whole = Claims(
        tuple(read), tuple(Passage(**raw) for raw in said["passage"]), sections,
        {name: Suite(name, **raw) for name, raw in measured["suites"].items()},
        {name: _model(name, raw) for name, raw in measured["models"].items()},
        {name: UseCase(name, **raw) for name, raw in measured["use_cases"].items()},
        tuple(Point(**raw) for raw in measured["points"]), tuple(measured["seen"]), tuple(said["short"]),
    )  # fmt: skip
    _check(whole)
    return Claims(tuple(_borrowed(c, whole) for c in whole.claims), *(getattr(whole, f) for f in _REST))


_REST = ("passages", "sections", "suites", "models", "use_cases", "points", "seen", "short")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SmallfryError(f"{path}: cannot read ({error}); expected the TOML that smallfry ships") from None


def _claim(raw: dict[str, Any], sections: tuple[tuple[int, str], ...], groups: dict[str, list[str]]) -> Claim:
    known = set(Claim.__dataclass_fields__) - {"section", "own_caution"}  # these come from the rest
    if unknown := set(raw) - known:
        raise SmallfryError(f"claim {raw.get('id')}: unknown key {min(unknown)}; expected {', '.join(sorted(known))}")
    plain = dict(raw)
    for key in ("readings", "beside"):
        names = [n for name in raw.get(key, []) for n in (groups[name[6:]] if name.startswith("group:") else [name])]
        plain[key] = tuple(read_reference(name) for name in names)
    for key in ("supports", "refutes"):
        given = raw.get(key, [])
        plain[key] = tuple(parse(text) for text in ([given] if isinstance(given, str) else given))
    plain["sizes"] = tuple(raw.get("sizes", ()))
    plain["section"] = next((title for line, title in reversed(sections) if line <= raw["line"]), "")
    return Claim(**plain)


def _model(name: str, raw: dict[str, Any]) -> Model:
    lists = {key: tuple(raw.get(key, ())) for key in ("suites", "seeds", "again")}
    return Model(name, raw["size"], raw["what"], **lists)


def _check(all_: Claims) -> None:
    ids = [c.id for c in all_.claims]
    if len(set(ids)) < len(ids):
        raise SmallfryError(f"claims: the id {max(ids, key=ids.count)} is used twice; give each claim its own")
    for claim in all_.claims:
        ways = [bool(claim.readings), bool(claim.same_as), bool(claim.untestable)]
        if sum(ways) != 1:
            raise SmallfryError(f"claim {claim.id}: expected exactly one of readings, same_as and untestable")
        if claim.readings and not (claim.supports and claim.refutes and claim.how):
            raise SmallfryError(f"claim {claim.id}: readings need `how`, `supports` and `refutes`")
        if claim.kind not in KINDS:
            raise SmallfryError(f"claim {claim.id}: kind {claim.kind!r} is not one of {', '.join(KINDS)}")
        if claim.cell and claim.cell not in claim.quote:
            raise SmallfryError(f"claim {claim.id}: the cell {claim.cell!r} is not in its quote")
        if claim.same_as and not all_.by_id.get(claim.same_as, claim).readings:
            raise SmallfryError(f"claim {claim.id}: same_as {claim.same_as} is no claim with readings")
        for reference in (*claim.readings, *claim.beside):
            _check_reference(f"claim {claim.id}", reference, all_)
    for text in all_.short:
        for name in PLACE.findall(text):
            _check_reference("short", read_reference(name), all_)


def _check_reference(where: str, reference: Reference, all_: Claims) -> None:
    if reference.source == "suite":
        model = all_.models.get(reference.name)
        if model is None or reference.part not in model.suites or reference.part not in all_.suites:
            raise SmallfryError(f"{where}: {reference.text}: no such model and suite in measurements.toml")
    if reference.source == "job":
        case = all_.use_cases.get(reference.name)
        if case is None:
            raise SmallfryError(f"{where}: {reference.text}: no such job in measurements.toml")


def _borrowed(claim: Claim, all_: Claims) -> Claim:
    """The claim with the measurements, criteria and caution of the one that says the same."""
    if not claim.same_as:
        return claim
    own = {name: getattr(claim, name) for name in Claim.__dataclass_fields__}
    other = all_.by_id[claim.same_as]
    taken = {name: getattr(other, name) for name in ("readings", "beside", "supports", "refutes")}
    taken |= {"caution": claim.caution or other.caution, "own_caution": bool(claim.caution)}
    return Claim(**cast(dict[str, Any], own | taken))
