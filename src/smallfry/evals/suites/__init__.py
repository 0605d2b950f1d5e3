"""Benchmark suites: the field's own items, prompts and scoring, with intervals and controls."""
