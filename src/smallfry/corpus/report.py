"""What was done to a corpus, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from smallfry.corpus.cleaning import RUN, STEPS
from smallfry.corpus.readers import SECTION
from smallfry.corpus.shards import Corpus


def report(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """What cleaning left out of a corpus and what is in it: lines of a name and a sentence, for people."""
    total: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for source in corpus.index["sources"]:
        total.update(source.get("counts", {}))
        read.update(source.get("read", {}))
    cuts = f", {read['cuts']:,} cuts in texts longer than {SECTION:,} characters" if read["cuts"] else ""
    yield "documents", f"{total['documents']:,} read{cuts}"
    for name in ("replaced characters", "broken rows", "rows without text"):
        if read[name]:
            yield name, f"{read[name]:,}"
    for name, what in STEPS.items():
        if total[name]:
            yield name, f"{total[name]:,} left out: {what}"
    if (met := corpus.index.get("contamination")) is not None:
        most = sorted(met, key=lambda row: -int(row["found"]))[:5]
        worst = [f"{row['task']} {row['found']:,}" for row in most if row["found"]]
        fate = "that were left out" if "contaminated" in corpus.index["settings"]["steps"] else "that are learned"
        items = f"{sum(row['found'] for row in met):,} of {sum(row['n'] for row in met):,}"
        yield "suites' items", f"{items} share {RUN} words in a row with documents {fate}{_listed(worst)}"
    share = corpus.index["held_out_share"]
    yield "held out", f"{total['held out']:,} documents ({share:.3g} of all, by a hash of their text)"
    rate = corpus.text_bytes / max(1, corpus.tokens)
    size = f"{corpus.text_bytes / 1e6:,.2f} MB, {corpus.tokens:,} tokens ({rate:.2f} bytes each)"
    yield "kept", f"{total['kept']:,} documents, {size}"


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
