"""The founding document's claims: complete, well formed, and judged as they say."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from smallfry.claims import load
from smallfry.claims.criteria import Found, parse
from smallfry.claims.judging import decide
from smallfry.claims.model import HERE, Claim
from smallfry.claims.references import read_reference
from smallfry.errors import SmallfryError

CLAIMS = load()
FOUNDING = Path(__file__).parents[2] / "shared" / "seed" / "000_abe117010652eded.txt"
SAYS = re.compile(r"\d|[✅❌⚠]")
# Every line of the founding document with a digit, a tick or a cross: its number and the beginning of its SHA-256.
LINES = """
    1:47d9de6656 13:41c21d147e 15:6febf965fc 16:57e2542138 17:4c47f662b8 18:a03e19f6a2 19:c17fca7f1f 20:e12650bee1
    21:4cfec4f977 26:b2a59bc4d6 29:b007a8acef 30:df24c32b0f 31:3222f60d7f 32:17bfc76934 33:c47e088697 36:1eec5c0844
    37:e0d69eac5e 38:8228fe7ae3 39:89dd29c2ff 40:260660ccf8 42:e70328f858 45:154bdc39a1 46:bcf822b839 47:bdd68c21ef
    48:966eb54ae3 49:ccb56edbdc 52:c31b93ea7c 53:bd8d0c6b8e 54:8103831e25 55:deb45b6f33 65:0f782c0c69 67:cfd561947a
    68:fde9aa0a70 73:bcdcce68b8 74:e685d2f693 75:470525baa6 77:c5a220be30 79:0bd10bcdea 83:630ddb9bca 85:c5bdfb4e7b
    88:200b7a4a34 91:369efdbfe7 92:f9fdd8de67 93:85bf7dbbd9 97:fa127621c9 99:01c4ffcad9 101:5fe49db243
    103:5a6aedd0c0 106:e2a5969c21 111:b5172b1478 116:9531f79ded 121:a912bb42f2 123:fdce02d06b 128:cf08a53028
    133:0ce7cc717f 138:74ff8ea24b 145:c97ef75fbc 147:e6c1779c43 149:ea42aaf61d 154:2629b59823 159:ac7eba8f40
    164:60c721ada5 166:0a48898ad7 178:4a23b6bf48 179:1d8940e365 180:d35436554d 181:1dcbcfd8d4 185:a8ab847a02
    193:4fa0c47b69 201:52f22d3897 213:2da46ec5fc 214:ca7014079a 215:895fa94403 216:d1e4808c57 217:1dbbf5cca0
    218:7cbf6bdfdd 219:da5e483483 223:3fa1e152e3 225:af2e91d94b 231:f98ba7f614 232:121dcf8051 233:5d7046ce72
    241:47ed0dc6f0 242:db7aea36a1 243:9085e87105 244:3f53754194 248:e2b9711fec 256:b4d8f9b580 266:beb2e82dfc
    274:eb6a981624 276:06ec6b68cf 282:65ea1242fe 284:5f27df6f0f 285:c15fbaccee 286:e1d4133338 287:fe79c01a6f
    288:ab2727c96e
"""


def digest(line: str) -> str:
    return hashlib.sha256(line.strip().encode()).hexdigest()[:10]


def stored_lines() -> dict[int, str]:
    return {int(number): found for number, found in (word.split(":") for word in LINES.split())}


# ---- the files ------------------------------------------------------------------------------------------------------


def test_every_line_with_a_digit_a_tick_or_a_cross_is_covered() -> None:
    quotes: dict[int, set[str]] = {}
    for said in (*CLAIMS.claims, *CLAIMS.passages):
        quotes.setdefault(said.line, set()).add(digest(said.quote))
    assert len(stored_lines()) > 90
    for line, found in stored_lines().items():
        assert quotes.get(line) == {found}, f"line {line} is not covered, or not quoted word for word"


def test_quotes_are_those_of_the_founding_document() -> None:
    if not FOUNDING.exists():
        pytest.skip("needs the founding document beside the checkout")
    lines = FOUNDING.read_text(encoding="utf-8").split("\n")
    assert stored_lines() == {i: digest(line) for i, line in enumerate(lines, 1) if SAYS.search(line)}
    for said in (*CLAIMS.claims, *CLAIMS.passages):
        assert lines[said.line - 1].strip() == said.quote
    for line, title in CLAIMS.sections:
        assert title.endswith(lines[line - 1].lstrip("# ").strip())


def test_every_cell_of_the_comparison_table_is_a_claim() -> None:
    for line in range(213, 220):
        row = [c for c in CLAIMS.claims if c.line == line]
        said = [cell.strip() for cell in row[0].quote.strip("|").split("|")]
        assert sorted(c.cell for c in row) == sorted(said[1:])


def test_every_claim_can_be_decided_or_says_why_not() -> None:
    for claim in CLAIMS.claims:
        assert claim.untestable or (claim.readings and claim.supports and claim.refutes), claim.id
        assert claim.section, claim.id
    assert {c.kind for c in CLAIMS.claims} == {"estimate", "can", "cannot", "threshold", "lever", "published"}


def test_every_estimate_names_the_range_that_its_sentence_names() -> None:
    for claim in CLAIMS.claims:
        if claim.kind == "estimate":
            said = re.search(r"~([\d.]+)-([\d.]+)%", claim.quote)
            assert said is not None
            ends = [float(said[i]) / 100 for i in (1, 2)]
            assert [float(x) for x in claim.supports[0].text.split()[1:]] == pytest.approx(ends), claim.id
            assert [float(x) for x in claim.refutes[0].text.split()[1:]] == pytest.approx(ends), claim.id


def broken(tmp_path: Path, old: str, new: str) -> Path:
    text = (HERE / "claims.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "claims.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "5m-core"', 'id = "1m-core"', "used twice"),
        ('readings = ["general-5m/core"]', 'readings = ["general-9m/core"]', "no such model"),
        ('same_as = "bottom-general"', 'same_as = "nothing"', "no claim with readings"),
        ('supports = "within 0.05 0.10"', 'supports = "near 0.05"', "criterion"),
        ('kind = "estimate"', 'kind = "guess"', "kind"),
        ('cell = "cannot code"', 'cell = "can code"', "is not in its quote"),
        ('how = "The benchmark itself', 'why = "The benchmark itself', "unknown key"),
        ('how = "The benchmark itself', 'own_caution = true\nhow = "The benchmark itself', "unknown key own_caution"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(SmallfryError, match=says) as error:
        load(broken(tmp_path, old, new))
    assert "\n" not in str(error.value)


# ---- criteria -------------------------------------------------------------------------------------------------------


def found(low: float, high: float, **more: Any) -> Found:
    return Found("x", "x.json", (low + high) / 2, (low, high), **more)


@pytest.mark.parametrize(
    ("text", "ci", "holds"),
    [
        ("within 0.05 0.10", (0.05, 0.10), True),
        ("within 0.05 0.10", (0.06, 0.11), False),
        ("outside 0.05 0.10", (0.11, 0.2), True),
        ("outside 0.05 0.10", (0.10, 0.2), False),
        ("outside 0.05 0.10", (-0.1, 0.04), True),
        ("low > chance", (0.26, 0.4), True),
        ("low > chance", (0.25, 0.4), False),
        ("low > chance + 0.05", (0.29, 0.4), False),
        ("high < chance - 0.05", (0.1, 0.19), True),
        ("within chance - 0.05 chance + 0.05", (0.21, 0.29), True),
        ("high < controls + 0.02", (0.2, 0.31), True),
        ("score >= 0.3", (0.2, 0.4), True),
        ("low > 0.1 and high < 0.3", (0.15, 0.25), True),
        ("low > 0.1 and high < 0.2", (0.15, 0.25), False),
        ("low > baseline", (0.9, 0.95), False),  # it has none: nothing is decided by it
        ("p < 0.05", (0.9, 0.95), False),
    ],
)
def test_conditions(text: str, ci: tuple[float, float], holds: bool) -> None:
    assert parse(text).holds([found(*ci, terms={"chance": 0.25, "controls": 0.3})]) is holds


@pytest.mark.parametrize("text", ["", "near 0.1", "low > nothing", "many low > 1", "low > 0.1 or high < 2", "within 1",
                                  "falling and low > 1"])  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(SmallfryError, match="criterion"):
        parse(text)


def test_quantifiers_count() -> None:
    good, bad = found(0.9, 0.95, target=0.8), found(0.1, 0.2, target=0.8)
    expected = {"every": "3", "most": "23", "few": "1", "some": "123"}
    for word, counts in expected.items():
        for count in range(4):
            here = [good] * count + [bad] * (3 - count)
            assert parse(f"{word} workable").holds(here) is (str(count) in counts), (word, count)
    assert parse("few workable").holds([good, bad])  # half is few
    assert not parse("most workable").holds([good, bad])


def test_only_some_can_hold_while_something_is_missing() -> None:
    good = [found(0.9, 0.95, target=0.8)]
    assert parse("some workable").holds(good, missing=3)
    for word in ("every", "most", "few"):
        assert not parse(f"{word} workable").holds(good, missing=3)
    assert not parse("every workable").holds([])


def test_less_can_be_better() -> None:
    assert found(0.01, 0.02, target=0.03, lower=True).verdict == "workable"
    assert found(0.04, 0.05, target=0.03, lower=True).verdict == "not"
    assert found(0.02, 0.05, target=0.03, lower=True).verdict == "undecided"


def test_falling_wants_each_interval_below_the_one_before() -> None:
    assert parse("falling").holds([found(1.0, 1.1), found(0.8, 0.9), found(0.6, 0.7)])
    assert not parse("falling").holds([found(1.0, 1.1), found(0.8, 1.0)])
    assert not parse("falling").holds([found(1.0, 1.1)])
    assert parse("rising").holds([found(1.0, 1.1), found(0.8, 0.9), found(0.95, 1.0)])
    assert not parse("rising").holds([found(1.0, 1.1), found(1.05, 1.2)])


def test_verdicts() -> None:
    claim = Claim(
        "c", 1, "s", "q", "estimate", supports=(parse("within 0.1 0.2"),), refutes=(parse("outside 0.1 0.2"),),
        readings=(read_reference("general-5m/core"),),
    )  # fmt: skip
    assert decide(claim, [found(0.12, 0.18)], [])[0] == "supported"
    assert decide(claim, [found(0.3, 0.4)], [])[0] == "refuted"
    assert decide(claim, [found(0.15, 0.25)], [])[0] == "undecided"
    assert decide(claim, [], ["general-5m/core"])[0] == "not measured yet"
    torn = Claim("c", 1, "s", "q", "can", supports=(parse("some low > 0"),), refutes=(parse("some high < 0"),))
    verdict, why = decide(torn, [found(0.1, 0.2), found(-0.2, -0.1)], [])
    assert verdict == "undecided" and "both" in why
    assert decide(torn, [found(0.1, 0.2)], ["other"])[0] == "supported"
