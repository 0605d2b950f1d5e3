"""What was done to a corpus, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smallfry.corpus.cleaning import STEPS
from smallfry.corpus.readers import SECTION
from smallfry.corpus.shards import Corpus
from smallfry.corpus.sources import listed
from smallfry.corpus.split import counted, unit
from smallfry.evals.suites.items import RUN, WHOLE


def report(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """What cleaning left out of a corpus and what is in it: lines of a name and a sentence, for people."""
    total: Counter[str] = Counter()
    read: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for source in corpus.index["sources"]:
        total.update(source.get("counts", {}))
        read.update(source.get("read", {}))
        skipped.update(source.get("skipped", {}))
        if source.get("revision"):
            yield "hub", f"{source['name']} at commit {source['revision']}"
    if skipped:
        yield "skipped files", f"{skipped.total():,} of kinds that are not read: {listed(skipped)}"
    cuts = f", {read['cuts']:,} cuts in texts longer than {SECTION:,} characters" if read["cuts"] else ""
    yield "documents", f"{total['documents']:,} read{cuts}"
    for name in ("replaced characters", "broken rows", "rows without text"):
        if read[name]:
            yield name, f"{read[name]:,}"
    for name, what in STEPS.items():
        if total[name]:
            yield name, f"{total[name]:,} left out: {what}"
    if (met := corpus.index.get("contamination")) is not None:
        yield from _items(met, "contaminated" in corpus.index["settings"]["steps"])
    yield "held out", _held_out(corpus.index, total)
    rate = corpus.text_bytes / max(1, corpus.tokens)
    size = f"{corpus.text_bytes / 1e6:,.2f} MB, {corpus.tokens:,} tokens ({rate:.2f} bytes each)"
    yield "kept", f"{total['kept']:,} documents, {size}"


def _items(met: Sequence[Mapping[str, Any]], left_out: bool) -> Iterator[tuple[str, str]]:
    """Which of the suites' items the corpus has, and which nobody can tell."""
    found, short = Counter[str](), Counter[str]()
    for row in met:
        found[row["task"]] += row["found"]
        short[row.get("suite", row["task"])] += row["short"]
    fate = "that were left out" if left_out else "that are learned"
    whole = sum(row.get("whole", 0) for row in met)
    also = f"; {whole:,} that have {WHOLE} to {RUN - 1} words are looked for whole" if whole else ""
    most = _listed([f"{task} {n:,}" for task, n in found.most_common(5) if n])
    items = f"{found.total():,} of {sum(row['n'] for row in met):,}"
    yield "suites' items", f"{items} share {RUN} words in a row with documents {fate}{most}{also}"
    if short.total():
        least = WHOLE if any("whole" in row for row in met) else RUN
        suites = _listed([f"{suite} {n:,}" for suite, n in short.most_common(8) if n])
        yield "not looked for", f"{short.total():,} items of fewer than {least} words{suites}"


def _held_out(index: Mapping[str, Any], total: Counter[str]) -> str:
    rows = total["held out"]
    documents = total["held-out documents"] or rows
    what = unit(index)
    how = "the lowest draw" if index.get("held_out_draw") is not None else f"{index['held_out_share']:.3g} of all"
    how = f"({how}, by a hash of their text)"
    if what != "documents" and rows:
        return f"{counted(documents, what)} {how}: a score on them is somewhat too good"
    parts = f" in {rows:,} sections" if documents < rows else ""
    return f"{counted(documents, 'documents')}{parts} {how}"


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
