"""Everything that is rendered from an assessment record, on a synthetic assessment (no number here was measured)."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from smallfry.record import (
    Assessment,
    ErrorExample,
)
from smallfry.report import render_html, render_markdown, render_terminal, write_report
from smallfry.report.charts import score_by_size
from smallfry.report.curves import learning_curves
from smallfry.report.format import bytes_text, clean, difference_text, params_text, seconds_text
from smallfry.report.markdown import escape
from smallfry.report.style import FIGURE
from smallfry.report.svg import NARROW, WIDE, Box, Chart
from smallfry.report.words import headline, lead
from tests.synthetic import CASES, bare, hostile, lower_is_better, synthetic


class Page(HTMLParser):
    """Collects what matters of a page and fails where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def charts(a: Assessment) -> Iterator[Chart]:
    for width in (WIDE, NARROW):
        for chart in (score_by_size(a, width), learning_curves(a, width)):
            if chart is not None:
                yield chart


# The page


@pytest.mark.parametrize("case", CASES)
def test_page_is_whole_and_makes_no_request(case: str) -> None:
    html = render_html(CASES[case]())
    page = Page(html)
    html.encode("utf-8")
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "image",
        "use",
        "foreignobject",
    }
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in {"src", "srcset", "style"} for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html and "@import" not in html
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for rule in ("default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"):
        assert rule in policy.split("; ")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_page_shows_hostile_text_as_text() -> None:
    html = render_html(hostile())
    for raw in ("<img", "</script", "\x1b", "\u202e", "\ud800", "<b>"):
        assert raw not in html.replace("<b>Advice", "").replace("<b>1 warning", "").replace("<b>Read off", "")
    text = Page(html).text
    assert "</script></style><img src=x onerror=alert(1)>" in text
    assert "\\u001b[31m\\u202e\\ud800 &amp; <b>" in text


def test_page_tells_the_whole_assessment() -> None:
    a = synthetic()
    text = Page(render_html(a)).text
    for row in a.rows:
        assert row.name in text
    for expected in (
        "The smallest workable rung is 1m (0.5m undecided): 1.0M parameters in 2.1 MB.",
        a.advice,
        "Read off a curve through the rungs above, not measured.",
        "about 5,400 more test examples would decide",
        *a.job.warnings,
        *a.job.notes,
        *a.job.hashes.values(),
        a.command,
        "smallfry run runs/banking/best 'how do I change my PIN'",
        "extra_charge_on_statement",
        "Muon, learning rate 0.02",
        "a synthetic processor",
        "label as text",
        "p = 0.52, 212 differ",
    ):
        assert expected in text, expected


def test_page_marks_words_that_differ() -> None:
    a = synthetic()
    a.job.kind, a.job.metric = "transform", "exact_match"
    a.errors = [ErrorExample("x", "turn left twice then walk", "turn right twice then walk", 0.7)]
    html = render_html(a)
    assert "<mark>left</mark>" in html
    assert "<mark>right</mark>" in html


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": None}, "No target was set, so there is no verdict; 5m scores best: 91.8% accuracy."),
        ({"target": 0.99}, "No rung is workable: 5m scores best, 91.8%, and misses the target of 99%."),
    ],
)
def test_headline_without_a_workable_rung(change: dict[str, float | None], said: str) -> None:
    a = synthetic()
    a.smallest, a.job.target = None, change["target"]
    for row in a.rows:
        row.verdict = None if a.job.target is None else "not"
    assert headline(a) == said
    assert said in Page(render_html(a)).text
    a.rows[9].verdict = "undecided"
    if a.job.target is not None:
        a.rows[3].verdict = "workable"
        assert "Workable without being a rung: linear SVM, words and characters (91.4%)." in lead(a)
        assert headline(a).startswith("No rung is proven workable yet: 5m scores 91.8%")


def test_missing_parts_are_said_in_words() -> None:
    text = Page(render_html(bare())).text
    for said in (
        "No rung was measured, so there is no verdict.",
        "No candidate was measured.",
        "Nothing was extrapolated.",
        "No model was saved.",
        "The data check has no warnings.",
    ):
        assert said in text
    for case in ("lower", "bare", "broken"):
        html = render_html(CASES[case]())
        assert not re.search(r"\b(nan|None|inf)\b", Page(html).text)


def test_lower_is_better_turns_best_and_colours_round() -> None:
    a = lower_is_better()
    assert headline(a).endswith("5m scores best: 1.021 bits per byte.")
    assert "(lower is better)" in lead(a)
    assert "it is better than 5-gram (−0.581" in lead(a)
    html = render_html(a)
    assert '<b class="better">−0.581</b>' in html
    assert 'class="worse"' not in html
    assert html.index("5-gram") < html.index("byte frequencies")


# Figures


@pytest.mark.parametrize("case", CASES)
def test_figures_are_xml_without_references(case: str, tmp_path: Path) -> None:
    a = CASES[case]()
    write_report(a, tmp_path)
    paths = sorted(tmp_path.glob("figures/*.svg"))
    assert len(paths) == (0 if case == "bare" else 2)
    for path in paths:
        root = ET.fromstring(path.read_bytes())
        assert root.get("role") == "img"
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        styles = "".join(element.text or "" for element in root.iter() if element.tag.endswith("style"))
        assert styles and "url" not in styles and "@import" not in styles
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "title", "desc", "style", "rect", "line", "text", "circle", "polygon", "path"}
        for element in root.iter():
            assert not {name for name in element.attrib if "href" in name or name.startswith("on")}
            for name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "d", "points"):
                assert "nan" not in element.get(name, "")


@pytest.mark.parametrize("case", ["synthetic", "lower", "hostile", "broken"])
def test_labels_do_not_overlap(case: str) -> None:
    for chart in charts(CASES[case]()):
        root = ET.fromstring(chart.svg)
        width, height = (float(v) for v in root.get("viewBox", "").split()[2:])
        for one, other in itertools.combinations(chart.labels, 2):
            assert not one.box.overlaps(other.box), (one.label.text, other.label.text)
        for placed in chart.labels:
            assert not any(placed.box.overlaps(box) for box in chart.hard), placed.label.text
            assert placed.box.within(Box(0, 0, width, height))


def test_every_candidate_is_named_in_the_figure() -> None:
    a = synthetic()
    names = [r.name for r in a.rows] + ["10m", "50m"]
    wide, narrow = score_by_size(a, WIDE), score_by_size(a, NARROW)
    assert wide is not None and narrow is not None
    shown = {placed.label.text for placed in wide.labels}
    assert {n for n in names if n != "majority"} | {"majority 1.3%"} == shown
    # On a narrow screen candidates that are not rungs carry a letter, explained below the axis.
    texts = [e.text for e in ET.fromstring(narrow.svg).iter() if e.tag.endswith("text")]
    for name in names:
        assert name in texts
    assert len(narrow.labels) == len(names)


def test_crowded_figure_drops_labels_rather_than_overlapping_them() -> None:
    a = synthetic()
    a.rows += [dataclasses.replace(a.rows[3], name=f"baseline number {i}", score=0.9 + i / 1e4) for i in range(60)]
    chart = score_by_size(a, NARROW)
    assert chart is not None
    assert 8 < len(chart.labels) < 75
    for one, other in itertools.combinations(chart.labels, 2):
        assert not one.box.overlaps(other.box)


def test_figures_carry_both_colour_schemes() -> None:
    chart = score_by_size(synthetic(), style=FIGURE)
    assert chart is not None
    assert "prefers-color-scheme:dark" in chart.svg
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", chart.svg))
    light, dark = FIGURE.split("prefers-color-scheme:dark")
    for name in used - {"--c"}:
        assert f"{name}:#" in light
        assert f"{name}:#" in dark


# Markdown, terminal, files


def test_markdown_escapes_and_keeps_its_tables() -> None:
    text = render_markdown(hostile(), [("Figure", "figures/x.svg")])
    text.encode("utf-8")
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.S | re.M)
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\[x\]", outside)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert escape("1. a|b `c` <i> *d*") == "1\\. a\\|b \\`c\\` &lt;i&gt; \\*d\\*"
    assert escape("1.5m") == "1.5m"


def test_markdown_tells_the_whole_assessment() -> None:
    a = synthetic()
    text = render_markdown(a)
    for row in a.rows:
        assert f"| {row.name} |" in text or f"| **{row.name}** |" in text
    assert text.startswith("# The smallest workable rung is 1m")
    assert "**Read off a curve through the rungs above, not measured.**" in text
    for case in ("lower", "bare", "broken"):
        assert not re.search(r"\b(nan|inf)\b", render_markdown(CASES[case]()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_fits_and_shows_no_control_codes(case: str, width: int) -> None:
    a = CASES[case]()
    stream = io.StringIO()
    Console(width=width, file=stream, force_terminal=False).print(render_terminal(a))
    text = stream.getvalue()
    assert "\x1b" not in text and "\u202e" not in text
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert headline(a)[:40] in flat
    if case == "synthetic":
        assert "Advice: Use 1m when size matters" in flat
        table = flat.split("Predicted")[0].split("candidate ")[1]
        assert ("p < 0.001" in table) == (width >= 100)
        assert ("58 s" in table) == (width >= 80)
        for row in a.rows:
            assert row.name.split()[0] in table


def test_report_replaces_files_and_leaves_no_drafts(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine", encoding="utf-8")
    write_report(lower_is_better(), tmp_path)
    write_report(synthetic(), tmp_path)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        "figures/learning-curves.svg",
        "figures/score-by-size.svg",
        "keep.txt",
        "report.html",
        "report.md",
    ]
    assert "synthetic-banking" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "![Score against size](figures/score-by-size.svg)" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_numbers_read_well() -> None:
    assert [params_text(n) for n in (1, 65_536, 254_208, 1_003_264, 9_960_000, 124_000_000, 7_000_000_000)] == [
        "1", "66k", "0.25M", "1.0M", "10M", "124M", "7.0B",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (24, 999, 1000, 568_416, 2_066_528, 999_999_999)] == [
        "24 B", "999 B", "1.0 kB", "568 kB", "2.1 MB", "1.0 GB",
    ]  # fmt: skip
    assert [seconds_text(s) for s in (0.0, 0.01, 4.04, 59.7, 188, 1500, 4320)] == [
        "0.0 s", "under 0.1 s", "4.0 s", "1 min", "3 min 8 s", "25 min", "1 h 12 min",
    ]  # fmt: skip
    assert difference_text("accuracy", -0.0004) == "0.0 points"
    assert difference_text("bits_per_byte", -0.0121) == "−0.012"
    assert clean("a\x00b\u202ec\r\n\td") == "a\\u0000b\\u202ec\n\td"


def test_bleu_is_a_fraction_shown_without_a_percent_sign() -> None:
    a = synthetic()
    a.job.metric, a.job.kind = "bleu", "generate"
    assert "1m scores 91.1 BLEU on 3,080 test examples (95% interval 90.1 to 92.1), against a target of 90." in lead(a)
    assert "91.1%" not in Page(render_html(a)).text
    assert difference_text("bleu", 0.0123) == "+1.2 points"
