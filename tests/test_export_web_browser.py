"""Pages in a browser that has no network: what they show, how fast, and that model and title are text to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer as HfTokenizer

from smallfry.engine.native import NativeModel, libfry
from smallfry.engine.weights import read_weights
from smallfry.export.web import export_web
from smallfry.forms import build_form
from smallfry.job import Job
from smallfry.predictor import ModelPredictor
from smallfry.tokenizer import BOS
from tests.test_export_web import GOLDEN, random_model, rows
from tests.web.browser import PROGRAM, Browser, browser

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed"),
    pytest.mark.skipif(libfry() is None, reason="libfry was not built here: no C compiler"),
]
PROMPT = 'It was 3:45 in the café. "Zoë,'
HOSTILE = '<img src=x onerror="document.body.dataset.hacked = 1"><script>document.body.dataset.hacked = 2</script>'
LEAST_SPEED = 150  # tokens a second; a model of a quarter of a million parameters writes thousands


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile"), "--window-size=900,700") as found:
        yield found


def own_requests(page: Browser, file: Path) -> list[str]:
    """What was asked for beside the page itself and its worker, which is made of the page's own text."""
    return [url for url in page.requests() if url != file.resolve().as_uri() and not url.startswith("blob:")]


def text_of(page: Browser, name: str) -> str:
    return str(page.evaluate(f"document.getElementById({json.dumps(name)}).textContent"))


def test_a_text_is_continued_as_in_python(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    export_web(GOLDEN, file)
    page.events.clear()
    page.open(file)
    page.fill(text=PROMPT, temperature=0, most=120)
    for _ in range(2):  # the second time the browser has compiled the engine
        page.run()
    hf = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    session = NativeModel(read_weights(GOLDEN), "int8").session(1, 200)
    ids = [BOS, *hf.encode(PROMPT).ids]
    expected = session.generate(session.feed([ids]), 120, end=3)[0]
    assert text_of(page, "output") == hf.decode([*ids, *expected])
    assert float(page.evaluate("document.getElementById('speed').dataset.value")) >= LEAST_SPEED
    assert re.fullmatch(r"[\d,]+ tokens/s", text_of(page, "speed")) and " ms" in text_of(page, "first")
    assert own_requests(page, file) == [] and page.complaints() == []
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    for attempt in ("fetch('https://example.com/')", "fetch('data:,x')", "import('https://example.com/x.js')"):
        assert page.evaluate(f"{attempt}.then(() => 'reached', () => 'refused')") == "refused"
    assert (
        page.evaluate("(() => { try { return new Function('return 1')(); } catch { return 'refused'; } })()")
        == "refused"
    )
    image = "image.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='"
    loaded = "image.onload = () => done('reached'), image.onerror = () => done('refused')"
    assert page.evaluate(f"new Promise((done, _, image = new Image()) => ({loaded}, {image}))") == "refused"


def test_a_token_tells_what_else_was_likely(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    export_web(GOLDEN, file)
    page.open(file)
    page.fill(text="Once upon a time", temperature=0, most=30)
    page.run()
    spans = "document.querySelectorAll('#output .token')"
    assert page.evaluate("document.getElementById('card').hidden")
    page.evaluate(f"({spans})[3].scrollIntoView({{ block: 'center' }})")
    at = page.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])(({spans})[3].getBoundingClientRect())")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    page.wait("!document.getElementById('card').hidden")
    card = text_of(page, "card")
    assert "Probability" in card and page.evaluate("document.querySelectorAll('#card li').length") == 5
    assert page.evaluate("document.querySelectorAll('#card li.chosen').length") == 1
    shares = [float(share.strip("<>")) for share in re.findall(r"([<>]?[\d.]+)\u2009%", card)[1:]]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.5
    shade = page.evaluate(f"[...{spans}].slice(0, -1).map(span => +span.style.getPropertyValue('--s'))")
    assert len(set(shade)) > 5 and min(shade) >= 0 and max(shade) <= 1
    page.evaluate(f"({spans})[0].focus()")  # and by keyboard
    before = text_of(page, "card")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    assert page.wait(f"document.activeElement === ({spans})[1]") and text_of(page, "card") != before
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    page.wait("document.getElementById('card').hidden")
    assert page.evaluate(f"[...{spans}].filter(span => span.tabIndex === 0).length") == 1


def test_a_run_can_be_stopped_and_the_page_answers_meanwhile(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    endless = {"name": "x", "imported_from": {}, "ends_with": []}
    export_web(random_model(tmp_path / "m", tokenizer, endless, positions=1 << 15), file, "fp32")
    page.open(file)
    page.fill(text="a", temperature=1, most=30_000, seed=1)
    page.evaluate(
        "lags = []; last = performance.now(); "
        "timer = setInterval(() => { lags.push(performance.now() - last); last = performance.now(); }, 5); "
        "document.getElementById('run').click()"
    )
    page.wait("document.querySelectorAll('.token').length > 200")
    assert page.evaluate("document.body.dataset.state") == "writing" and page.evaluate("$('run').disabled")
    page.evaluate("document.getElementById('stop').click()")
    page.wait("document.body.dataset.state", lambda state: state == "ready")
    assert text_of(page, "status").startswith("Stopped.")
    assert 200 < page.evaluate("document.querySelectorAll('.token').length") < 30_000
    lags = page.evaluate("clearInterval(timer), lags")
    assert max(lags) < 1000 and sorted(lags)[len(lags) // 2] < 60, lags  # milliseconds; this machine may be busy


def test_where_there_is_no_worker_the_page_computes_itself(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    export_web(GOLDEN, file)
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.Worker")["identifier"]
    try:
        page.events.clear()
        page.open(file)
        page.fill(text="Once upon a time", temperature=0, most=60)
        page.run()
        assert page.evaluate("typeof Worker") == "undefined" and not any(u.startswith("blob:") for u in page.requests())
        alone = text_of(page, "output")
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    page.open(file)
    page.fill(text="Once upon a time", temperature=0, most=60)
    page.run()
    assert text_of(page, "output") == alone and len(alone) > 100


def test_what_is_wrong_with_a_page_is_said_on_it(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    export_web(GOLDEN, file)
    text = file.read_text(encoding="utf-8")
    weights = text.index('id="weights">') + 5000
    broken = tmp_path / "broken.html"
    for part, message in (
        (
            text[:weights] + ("A" if text[weights] != "A" else "B") + text[weights + 1 :],
            "the weights in this page are damaged",
        ),
        (text.replace('id="wasm">AGFzb', 'id="wasm">AGFzc'), "does not run WebAssembly"),
    ):
        broken.write_text(part, encoding="utf-8")
        page.open(broken)
        assert message in text_of(page, "status") and page.evaluate("$('run').disabled")
    page.open(file)
    page.fill(text="word " * 3000, temperature=0)
    page.run()
    assert "this model reads up to 2048" in text_of(page, "status")
    page.fill(text="word")
    page.run()
    assert text_of(page, "status").startswith("Done")


def test_hostile_titles_and_answers_are_text(page: Browser, tmp_path: Path) -> None:
    data = [{**row, "output": f"{HOSTILE} {i % 3}"} for i, row in enumerate(rows("labels"))]
    job = Job.from_rows(data, kind="classify")
    form = build_form(job, "units", 300, False, None)
    card = {"name": HOSTILE, "form": form.to_dict(), "max_new": 5}
    path, file = random_model(tmp_path / "m", form.tokenizer.hf, card), tmp_path / "page.html"
    export_web(path, file)
    page.events.clear()
    page.open(file)
    page.fill(text=HOSTILE)
    page.run()
    answer = ModelPredictor.load(path, "int8").predict([HOSTILE])[0].output
    assert answer in job.labels and text_of(page, "answer") == answer
    assert text_of(page, "title") == HOSTILE and page.evaluate("document.title") == HOSTILE
    ranked = page.evaluate("[...document.querySelectorAll('#ranking li')].map(item => item.firstChild.textContent)")
    assert ranked[0] == answer and sorted(ranked) == sorted(job.labels)
    page.evaluate("document.querySelector('#output .token').focus()")
    page.wait("!document.getElementById('card').hidden")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 3
    assert page.evaluate("document.body.dataset.hacked") is None
    assert own_requests(page, file) == [] and page.complaints() == []


def test_hostile_texts_are_text(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    export_web(random_model(tmp_path / "m", tokenizer, {"name": "x", "chat": True}), file)
    page.open(file)
    page.evaluate(f"names = names.map(() => {json.dumps(HOSTILE)})")
    page.evaluate(
        f"show = (old => event => old({{ ...event, text: {json.dumps(HOSTILE)} }}))(show)"
    )  # a model that writes nothing else
    page.fill(text=HOSTILE, temperature=0, most=3)
    page.run()
    page.evaluate("document.querySelector('#output .token').focus()")
    assert text_of(page, "output").count(HOSTILE) >= 2 and HOSTILE in text_of(page, "card").replace("\u00b7", " ")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.body.dataset.hacked") is None
    page.run()  # a field that was emptied sends nothing
    assert page.evaluate("document.querySelectorAll('.turn.user').length") == 1
    page.fill(text="more")
    page.run()
    assert page.evaluate("document.querySelectorAll('.turn.user').length") == 2


def test_it_fits_a_phone_and_every_field_has_a_label(page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    export_web(GOLDEN, file, title="W" * 90)
    page.call("Emulation.setDeviceMetricsOverride", width=340, height=700, deviceScaleFactor=2, mobile=True)
    try:
        page.open(file)
        page.evaluate("document.getElementById('settings').open = true")
        page.fill(text="x" * 300, temperature=0, most=80)
        page.run()
        page.evaluate("[...document.querySelectorAll('.token')].at(-2).focus()")
        assert page.evaluate("document.documentElement.scrollWidth") <= 340
        card = page.evaluate("(box => [box.left, box.right])(document.getElementById('card').getBoundingClientRect())")
        assert card[0] >= 0 and card[1] <= 340
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")
    assert page.evaluate("[...document.querySelectorAll('input, textarea')].filter(f => !f.labels.length).length") == 0
    assert page.evaluate("[...document.querySelectorAll('button')].filter(b => !b.textContent.trim()).length") == 0
    assert page.evaluate("[...document.querySelectorAll('[aria-live], [role=status]')].length") >= 2
