"""Corpora: read, cleaned, held out, tokenised into shards, and cut into batches."""

from __future__ import annotations

from smallfry.corpus.build import CorpusSettings, prepare
from smallfry.corpus.cleaning import STEPS, parse_steps
from smallfry.corpus.readers import Reading
from smallfry.corpus.report import report
from smallfry.corpus.rows import CorpusData
from smallfry.corpus.shards import Corpus, corpus_in, is_corpus, open_corpus
from smallfry.corpus.sources import parse_sources

__all__ = [
    "STEPS", "Corpus", "CorpusData", "CorpusSettings", "Reading", "corpus_in", "is_corpus", "open_corpus",
    "parse_sources", "parse_steps", "prepare", "report",
]  # fmt: skip
