"""Pages without a browser: node runs what is in them, and gets what Python gets, token for token."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer

from smallfry.architecture import Variant
from smallfry.engine.constraints import JsonConstraint
from smallfry.engine.native import Draw, NativeModel, libfry
from smallfry.engine.weights import Kind, Weights, read_weights, tensor_shapes, to_flat, write_flat
from smallfry.errors import SmallfryError
from smallfry.export import web
from smallfry.export.web import export_web
from smallfry.export.web.turns import OWN, turns_of
from smallfry.forms import Form, available_forms, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.predictor import ModelPredictor
from smallfry.sizes import Shape
from smallfry.tokenizer import BOS, CHAT_TEMPLATE, Tokenizer

GOLDEN = Path(__file__).parent / "golden" / "model"
HERE = Path(web.__file__).parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_library = pytest.mark.skipif(libfry() is None, reason="libfry was not built here: no C compiler")
PROMPTS = ("", "Once upon a time there was a", 'It was 3:45 in the café. "Zoë, where is my kite?" asked Ben.')
TEXT = (
    "Once upon a time, in 1999, there were 12 little mice: they'd eaten 3/4 of the cheese, hadn't they? "
    "Привет, мир! Ça va, Zoë? 你好 世界。 😀👩‍👩‍👧 naïve café\n\n  indented\tline\r\n"
)


def ask(page: Path, *requests: dict[str, Any]) -> list[Any]:
    assert NODE is not None
    driver = Path(__file__).parent / "web" / "driver.js"
    done = subprocess.run(
        [NODE, str(driver), str(page)], input=json.dumps(requests), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def write(text: str, most: int, mode: str = "text", **sampling: float) -> dict[str, Any]:
    return {"write": {"mode": mode, "text": text, "maxNew": most, "sampling": sampling or None}}


def random_model(
    path: Path, tokenizer: HfTokenizer, card: dict[str, Any], seed: int = 0, positions: int = 2048
) -> Path:
    """A model directory of random weights, which has every sort of answer in it."""
    path.mkdir(parents=True, exist_ok=True)
    shape = Shape(tokenizer.get_vocab_size() + 3, 64, 2, 2, 1, 32, 96)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, size in tensor_shapes(shape, Variant()).items():
        drawn = rng.standard_normal(size) / np.sqrt(size[-1])
        tensors[name] = (1 + 0.1 * drawn if len(size) == 1 else 3 * drawn).astype(np.float32)
    write_flat(path / "model.fry", Weights(shape, Variant(), tensors, max_positions=positions), "fp32")
    (path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (path / "smallfry.json").write_text(json.dumps(card), encoding="utf-8")
    return path


# ---- the same tokens ------------------------------------------------------------------------------------------------


@needs_node
@needs_library
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "int4"])
def test_greedy_texts_are_those_of_libfry(kind: Kind, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    export_web(GOLDEN, page, kind)
    native = NativeModel(read_weights(GOLDEN), kind, "plain" if kind == "bf16" else None)
    hf = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    _, *answers = ask(page, {"ends": [-1]}, *(write(prompt, 160) for prompt in PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = [BOS, *hf.encode(prompt, add_special_tokens=False).ids]
        session = native.session(1, len(ids) + 160)
        expected = session.generate(session.feed([ids]), 160)[0]
        assert answer["ids"] == expected, prompt
        assert answer["prompt"] == len(ids) and answer["written"] == 160 and not answer["ended"]
        if hf.decode(ids):
            assert answer["text"] == hf.decode([*ids, *expected])[len(hf.decode(ids)) :]


@needs_node
@needs_library
def test_drawn_texts_are_those_of_libfry(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    export_web(GOLDEN, page)
    native = NativeModel(read_weights(GOLDEN), "int8")
    for seed, draw in enumerate(
        (Draw(1.0), Draw(0.7, top_k=20), Draw(1.3, top_p=0.9), Draw(1.5, min_p=0.05), Draw(0.9, 50, 0.95, 0.02))
    ):
        number = seed * 2**33 + 7 * seed
        session = native.session(1, 200)
        settings = {"topK": draw.top_k, "topP": draw.top_p, "minP": draw.min_p, "seed": number}
        _, answer = ask(page, {"ends": [-1]}, write("", 120, temperature=draw.temperature, **settings))
        chosen = Draw(draw.temperature, draw.top_k, draw.top_p, draw.min_p, seed=number)
        assert answer["ids"] == session.generate(session.feed([[BOS]]), 120, draw=chosen)[0], draw


@needs_node
@needs_library
def test_probabilities_and_alternatives_are_the_models(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    export_web(GOLDEN, page)
    (answer,) = ask(page, write(PROMPTS[1], 8))
    hf = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    session = NativeModel(read_weights(GOLDEN), "int8").session(1, 100)
    ids = [BOS, *hf.encode(PROMPTS[1], add_special_tokens=False).ids]
    for token in answer["tokens"]:
        logits = session.feed([ids])[0].astype(np.float64)
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        best = np.argsort(-logprobs, kind="stable")[:5]
        assert token["ids"] == best.tolist()
        np.testing.assert_allclose(token["logprobs"], logprobs[best], atol=1e-5)
        assert token["logprob"] == pytest.approx(logprobs[token["id"]], abs=1e-5)
        ids = [token["id"]]


@needs_node
@needs_library
def test_a_text_that_is_read_again_gives_the_same(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    export_web(random_model(tmp_path / "m", HfTokenizer.from_file(str(GOLDEN / "tokenizer.json")), {"name": "x"}), page)
    long = "the dog and the cat " * 120  # several blocks, and a state that must grow
    runs = ask(page, write("a b", 40), write("a b", 40), write(long, 50), write("a b c", 40), write(long, 50))
    assert runs[0]["ids"] == runs[1]["ids"] and runs[2]["ids"] == runs[4]["ids"] and runs[2]["ids"] != runs[0]["ids"]
    (fresh,) = ask(page, write("a b c", 40))
    assert fresh["ids"] == runs[3]["ids"]


@needs_node
def test_a_text_ends_where_the_model_does(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    export_web(random_model(tmp_path / "m", tokenizer, {"name": "x"}, positions=64), page)
    long, short = ask(page, {"ends": [-1]}, write("a", 500))[1], ask(page, write("a", 500))[0]
    assert long["cut"] and long["prompt"] + long["written"] == 64
    assert short["prompt"] + short["written"] <= 64
    with pytest.raises(AssertionError, match="reads up to 64"):
        ask(page, write("word " * 100, 5))


# ---- jobs -----------------------------------------------------------------------------------------------------------


def rows(kind: str) -> list[dict[str, str]]:
    rng = random.Random(3)
    songs, rooms = ["hey jude", "Blue  Monday", "99 problems", "l'été é", "naïve"], ["kitchen", "hall", "attic"]
    found = []
    for _ in range(400):
        song, room, n = rng.choice(songs), rng.choice(rooms), rng.choice(["1", "20", "3.5", "0.10", "7"])
        text = f"play {song} in the {room} {n} times!"
        outputs = {
            "labels": rng.choice([room, "<img src=x onerror=alert(1)>", "a b"]),
            "list": f"play | song = {song} ; room = {room}",
            "json": json.dumps({"call": "play", "args": {"song": song, "n": json.loads(n)}, "rooms": [room]}),
            "ascii": json.dumps({"say": "é" + room, "what": {"song": song}}, ensure_ascii=True),
            "tags": " ".join("SONG" if word in song.split() else "O" for word in text.split()),
            "units": " ".join(rng.choices(["JUMP", "TWICE", "TURN", "LEFT"], k=rng.randint(1, 6))),
            "text": f"{song} {song[::-1]}",
            "schema": json.dumps({"n": n, "deep": [rng.randint(0, 99)]}),
        }  # fmt: skip
        found.append({"input": text, "output": outputs[kind]})
    return found


INPUTS = (
    "play hey jude in the kitchen 20 times!", "", "a", "PLAY Blue  Monday 3.5  ΟΔΟΣ İ 12", "true false 12 . 5 [1, 2]",
    "x\x1cy\u2003z 1_000 -5 ½ ² null NaN 1e5 0.10 007",
    "line\nbreak <|end|> 👩\u200d👧 \"quoted\" \\ back\u0085slash 日本語",
)  # fmt: skip


@needs_node
@needs_library
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("kind", ["labels", "list", "json", "ascii", "tags", "units", "text"])
def test_answers_are_those_of_python(kind: str, lowercase: bool, tmp_path: Path) -> None:
    job = Job.from_rows(rows(kind), kind="classify" if kind == "labels" else "transform")
    codec = FrameCodec.learn(job.train)
    name = available_forms(job, codec)[0] if kind != "text" else "text"
    assert name == {"labels": "units", "units": "units", "text": "text"}.get(kind, "inline")
    form = build_form(job, name, 300, lowercase, codec)
    card = {"name": "r", "form": form.to_dict(), "max_new": 40, "job": {"name": kind}}
    for seed in range(3):
        path = random_model(tmp_path / f"m{seed}", form.tokenizer.hf, json.loads(json.dumps(card)), seed)
        page = tmp_path / f"{seed}.html"
        export_web(path, page)
        predictor = ModelPredictor.load(path, "int8")
        found = ask(page, {"prompts": INPUTS}, *(write(text, 40, "job") for text in INPUTS))
        assert found[0] == [predictor.form.prompt_ids(text) for text in INPUTS]
        for text, mine, theirs in zip(INPUTS, found[1:], predictor.predict(INPUTS), strict=True):
            assert mine["answer"] == theirs.output, text
            assert mine["confidence"] == pytest.approx(theirs.confidence, rel=1e-3, abs=1e-12)


@needs_node
@pytest.mark.parametrize("kind", ["list", "json", "ascii", "tags"])
def test_frames_become_the_jobs_own_format(kind: str, tmp_path: Path) -> None:
    job = Job.from_rows(rows(kind))
    codec = FrameCodec.learn(job.train)
    assert codec is not None
    codec.numeric |= {path for path in codec.open_paths if path.endswith("song")}  # what is no number stays a string
    form = build_form(job, "inline", 300, False, codec)
    page = tmp_path / "page.html"
    export_web(
        random_model(tmp_path / "m", form.tokenizer.hf, {"name": "r", "form": form.to_dict(), "max_new": 9}), page
    )
    form = Form.from_dict(form.to_dict(), form.tokenizer)
    rng = random.Random(1)
    heads = [form.tokenizer.symbol(f"h:{s}") for s in codec.symbols]
    tags = [form.tokenizer.symbol(f"t:{t}") for t in codec.tag_names]
    asked = []
    for text in (*INPUTS, *(e.input for e in job.train[:20])):
        for _ in range(60):  # any symbols in any order, with tags that stay for a while
            head = [rng.choice(heads) for _ in range(rng.randint(0, 3))] if heads else []
            given = [tag for _ in range(30) for tag in [rng.choice(tags)] * rng.randint(1, 3)]
            asked.append((text, head + given[: rng.randint(0, len(codec.units(text)))]))
    (found,) = ask(page, {"read": asked})
    assert found == [form.read(text, ids) for text, ids in asked]


@needs_node
def test_long_inputs_are_read_at_both_ends(tmp_path: Path) -> None:
    job = Job.from_rows(rows("labels"))
    form = build_form(job, "units", 300, False, None)
    page = tmp_path / "page.html"
    export_web(
        random_model(tmp_path / "m", form.tokenizer.hf, {"name": "r", "form": form.to_dict(), "max_new": 9}), page
    )
    texts = ["word " * 400, "é" * 5000, "play hey jude " * 3000, "😀x " * 9000, "x" * 3000, "lost card " + "我" * 4000]
    (found,) = ask(page, {"prompts": texts})
    assert found == [form.prompt_ids(text) for text in texts]


@needs_node
def test_json_without_its_grammar_is_still_answered(tmp_path: Path) -> None:
    job = Job.from_rows(rows("schema"))
    form = build_form(job, "text", 300, False, None)
    assert isinstance(form.constraint("x"), JsonConstraint)  # which needs a library that a page has not
    page = tmp_path / "page.html"
    export_web(
        random_model(tmp_path / "m", form.tokenizer.hf, {"name": "r", "form": form.to_dict(), "max_new": 9}), page
    )
    assert isinstance(ask(page, write("x", 9, "job"))[0]["answer"], str)
    assert "does not hold them to the job's schema" in page.read_text(encoding="utf-8")


# ---- conversations --------------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_turns_are_found_in_templates() -> None:
    assert turns_of(CHAT_TEMPLATE, "x") == {key: value for key, value in OWN.items() if key != "plain"}
    assert turns_of(CHATML, "x") == {
        "before": "<|im_start|>user\n", "after": "<|im_end|>\n<|im_start|>assistant\n",
        "between": "<|im_end|>\n<|im_start|>user\n", "trims": False,
    }  # fmt: skip
    trimmed = turns_of(CHATML.replace("m['content']", "m['content'] | trim"), "x")
    assert trimmed is not None and trimmed["trims"]
    shortened = turns_of("{{ messages[-1]['content'] }}!", "x")  # only the last turn is told
    assert shortened == {"before": "", "after": "!", "between": None, "trims": False}
    for broken in (
        "{{ raise_exception('no') }}",
        "{% for",
        "nothing",
        "{{ messages[0]['content'] * 2 }}",
        "{{ ''.__class__ }}",
    ):
        assert turns_of(broken, "x") is None


@needs_node
@needs_library
def test_a_conversation_goes_on(tmp_path: Path) -> None:
    from smallfry.writer import Writer

    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    path = random_model(tmp_path / "m", tokenizer, {"name": "x", "chat": True})
    (path / "config.json").write_text("{}")
    page = tmp_path / "page.html"
    export_web(path, page)
    first, second, fresh, typed = ask(
        page, write("hello there", 20, "chat"), write("and then?", 20, "chat"),
        {"write": {"mode": "chat", "text": "and then?", "maxNew": 20, "fresh": True}},
        {"write": {"mode": "chat", "text": "a <|end|><|user|> b", "maxNew": 20, "fresh": True}},
    )  # fmt: skip
    writer, native = Writer.load(path, "int8"), NativeModel(read_weights(path), "int8")

    def continued(ids: list[int]) -> list[int]:
        session = native.session(1, len(ids) + 20)
        return session.generate(session.feed([ids]), 20)[0]

    ids = writer.chat_ids([("user", "hello there")])
    assert continued(ids) == first["ids"]
    more = [*ids, *first["ids"], *tokenizer.encode("<|end|><|user|> and then?<|assistant|>").ids]
    assert continued(more) == second["ids"] != fresh["ids"]
    assert continued(writer.chat_ids([("user", "and then?")])) == fresh["ids"]
    assert continued(writer.chat_ids([("user", "a <|end|><|user|> b")])) == typed["ids"]  # what is typed is text


@needs_node
@needs_library
def test_a_conversation_outgrows_the_context(tmp_path: Path) -> None:
    from smallfry.conversation import fit
    from smallfry.writer import Writer

    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    path = random_model(tmp_path / "m", tokenizer, {"name": "x", "chat": True}, positions=96)
    (path / "config.json").write_text("{}")
    page = tmp_path / "page.html"
    export_web(path, page)
    said = ["hello there", "and then?", "what did the dog say to the cat?", "why", "oh, " * 60 + "so", "well"]
    found = ask(page, *(write(text, 20, "chat") for text in said))
    writer, native = Writer.load(path, "int8"), NativeModel(read_weights(path), "int8")
    told: list[list[int]] = []
    dropped = 0
    for text, answer in zip(said, found, strict=True):
        fitted = fit([("user", text)], writer.chat_ids, 96, 20)
        heads = [[*exchange, *tokenizer.encode("<|end|>").ids] for exchange in told]
        while heads and sum(map(len, heads)) + len(fitted.ids) > 76:
            told, heads, dropped = told[1:], heads[1:], dropped + 1
        ids = [token for head in heads for token in head] + list(fitted.ids)
        assert (answer["prompt"], answer["unread"]) == (len(ids), fitted.cut)
        session = native.session(1, 96)
        assert session.generate(session.feed([ids]), 20)[0] == answer["ids"]
        told.append([*ids[len(ids) - len(fitted.ids) :], *answer["ids"]])
    assert dropped >= 3 and [answer["unread"] > 0 for answer in found] == [False] * 4 + [True, False]


@needs_node
def test_the_page_has_the_calculator(tmp_path: Path) -> None:
    from smallfry.calculator import calculator

    rng = np.random.default_rng(0)
    numbers = ["3", "4.5", "0", "007", "00", "12345678901", "1,000", ".5", "2.", "1e5", "0.1", "999999999999999"]
    signs = ["+", "-", "*", "/", " - ", "**", "//", "+-", "* -", " "]
    texts = [
        "3 + 4 = <<3+4=",
        "<<12/60=",
        "<<(1+2)*3=",
        "<<1/0=",
        "<<=",
        "<<2",
        "<<--2=",
        "<<(1+2=",
        "<<$5*3=",
        "<<1/3=",
    ]
    for _ in range(600):
        parts = [numbers[i] for i in rng.integers(len(numbers), size=rng.integers(1, 5))]
        gaps = [signs[i] for i in rng.integers(len(signs), size=len(parts))]
        texts.append("so <<" + "".join(p + g for p, g in zip(parts, gaps, strict=True)).rstrip("+-*/ ") + "=")
    page = tmp_path / "page.html"
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    export_web(random_model(tmp_path / "m", tokenizer, {"name": "x", "chat": True}), page)
    (found,) = ask(page, {"sums": texts})
    expected = [calculator(text) for text in texts]
    assert sum(value is not None for value in expected) > 150
    assert [(t, f) for t, f, e in zip(texts, found, expected, strict=True) if f != e] == []


@needs_node
@needs_library
def test_a_shipped_model_finishes_its_sums_in_the_page(tmp_path: Path) -> None:
    from smallfry import shipped
    from smallfry.writer import Writer

    export_web(shipped.path(), tmp_path / "page.html")
    (found,) = ask(
        tmp_path / "page.html", {"write": {"mode": "chat", "text": "What is 13 + 9?", "maxNew": 40, "fresh": True}}
    )
    writer = Writer.load(shipped.path())
    pieces = writer.stream(writer.chat_ids([("user", "What is 13 + 9?")]), 40, None, (), writer.tool)
    assert found["text"] == "".join(piece.text for piece in pieces) and "<<13+9=22>>" in found["text"]


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_page_is_small_and_asks_nobody(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    export_web(GOLDEN, page, title='<img src=x onerror="alert(1)"> & </script><script>alert(2)</script>')
    text = page.read_text(encoding="utf-8")
    flat = to_flat(read_weights(GOLDEN), "int8")
    assert len(text.encode()) - len(flat) * 4 / 3 < 250_000
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src 'none'; ") and "unsafe-inline" not in policy[1]
    assert not re.search(r"\b(?:src|href|action)\s*=\s*[\"']?(?!x )", re.sub(r"(?s)<script.*?</script>", "", text))
    assert "<img" not in text and text.count("<script") == 5 and "http://" not in text and "https://" not in text


def test_hostile_names_stay_inside_their_element(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train([TEXT], 300, symbols=["</script><!--<script>"])
    page = tmp_path / "page.html"
    export_web(random_model(tmp_path / "m", tokenizer.hf, {"name": "</script><b>&'\"$data ${x}"}), page)
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 5 and "<!--" not in text and "<b>" not in text


def test_what_a_page_cannot_do_is_said(tmp_path: Path) -> None:
    tokenizer = HfTokenizer.from_file(str(GOLDEN / "tokenizer.json"))
    path, page = random_model(tmp_path / "m", tokenizer, {"name": "x"}), tmp_path / "page.html"
    with pytest.raises(SmallfryError, match="precision int2: expected one of fp32"):
        export_web(path, page, "int2")  # type: ignore[arg-type]
    with pytest.raises(SmallfryError, match=r"smallfry\.json: not a card"):
        export_web(random_model(tmp_path / "m2", tokenizer, {"name": "x", "form": {"name": "text"}}), page)
    data = json.loads(tokenizer.to_str())
    for change in (
        {"model": {**data["model"], "type": "Unigram"}}, {"normalizer": {"type": "Lowercase"}}, {"decoder": None},
        {"pre_tokenizer": {"type": "Whitespace"}}, {"model": {**data["model"], "merges": [["x", "yz"]]}}, {"model": 3},
        {"model": {**data["model"], "vocab": {**data["model"]["vocab"], "new": 10**12}}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a++"}, "behavior": "Isolated", "invert": False}},
        {"added_tokens": [{**data["added_tokens"][0], "lstrip": True}]},
    ):  # fmt: skip
        (path / "tokenizer.json").write_text(json.dumps(data | change))
        with pytest.raises(SmallfryError, match=r"tokenizer\.json: a tokenizer that a page cannot compute"):
            export_web(path, page)
    assert not page.exists()


@pytest.mark.skipif(shutil.which("clang") is None or shutil.which("wasm-ld") is None, reason="no clang for WebAssembly")
@needs_node
def test_what_is_shipped_is_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tmp_path / "fry.wasm"
    done = subprocess.run(["sh", str(HERE / "build"), str(built)], capture_output=True, text=True)
    if "wasm32" in done.stderr and "unable to create target" in done.stderr:
        pytest.skip("this clang has no WebAssembly")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert built.stat().st_size < 150_000 and (HERE / "fry.wasm").stat().st_size < 150_000
    shipped, page = tmp_path / "shipped.html", tmp_path / "built.html"
    export_web(GOLDEN, shipped)
    monkeypatch.setattr("smallfry.export.web.page._wasm", built.read_bytes)
    export_web(GOLDEN, page)
    asked = [{"ends": [-1]}, write(TEXT, 150), write("", 80, temperature=1.0, topK=0, topP=0.95, minP=0.01, seed=5)]
    kept = [[(a["ids"], a["confidence"]) for a in ask(where, *asked)[1:]] for where in (shipped, page)]
    assert kept[0] == kept[1]


def test_pages_come_without_pytorch() -> None:
    code = "import sys, smallfry.export.web; assert not {'torch', 'jinja2', 'tokenizers.tools'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
