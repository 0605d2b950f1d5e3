"""The page itself: a model's parts put into their places, and a policy under which it can ask nobody anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import string
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from smallfry.engine.weights import KINDS, Kind, Weights, read_weights, to_flat
from smallfry.errors import SmallfryError
from smallfry.export.vocabulary import chat_template
from smallfry.export.web.tables import begins_of, read_tables
from smallfry.export.web.turns import OWN, turns_of
from smallfry.files import read_json, write_atomic
from smallfry.forms import MAX_PROMPT_TOKENS, Form
from smallfry.tokenizer import ASSISTANT, BOS, END, TEXT, USER, Tokenizer

_MOST_BYTES = 256 << 20  # of weights: a third more as text, which the browser holds once more while it unpacks
_MOST_HEAD = 512  # numbers of a head that libfry computes with
_LOOSE = "Its answers are JSON by habit: this page does not hold them to the job's schema, as smallfry run does."
_MOST_NEW = 256  # tokens of a text, unless the visitor asks for more or fewer


def export_web(model: Path, out: Path, kind: Kind = "int8", title: str | None = None) -> None:
    """Write a model directory as one HTML file that runs it in a browser, without a network.

    A job's answers are held to its labels or frames as in Python; a JSON schema is not, which the page says.

    Args:
        model: The directory: a job's model, a language model, or an imported one.
        out: The file; an older one is replaced.
        kind: How matrices are stored and computed with; int4 is computed with as int8.
        title: Heading of the page; by default the job's and the model's name.

    Raises:
        SmallfryError: When the model cannot be read, is larger than a page can hold, or has a tokenizer or form that a
            page cannot compute; or when the file cannot be written.
    """
    if kind not in KINDS:
        raise SmallfryError(f"precision {kind}: expected one of {', '.join(KINDS)}")
    weights = read_weights(model)
    if weights.shape.head_dim > _MOST_HEAD:
        raise SmallfryError(f"{model}: heads of {weights.shape.head_dim}; a page computes with up to {_MOST_HEAD}")
    flat = to_flat(weights, kind)
    if len(flat) > _MOST_BYTES:
        raise SmallfryError(
            f"{model}: {len(flat) >> 20} MB of {kind} weights, a page holds up to {_MOST_BYTES >> 20} MB; "
            "choose int8 or int4, or export to gguf"
        )
    card = read_json(model / "smallfry.json") if (model / "smallfry.json").exists() else {}
    try:
        data = _data(model, card, weights)
        name = title or _title(model, card)
        data["facts"] = _facts(card, weights, kind, len(flat), data)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise SmallfryError(f"{model / 'smallfry.json'}: not a card this smallfry reads ({error!r})") from None
    write_atomic(out, _page(name, data, flat))


# ---- what the page knows --------------------------------------------------------------------------------------------


def _data(model: Path, card: dict[str, Any], weights: Weights) -> dict[str, Any]:
    tokenizer = read_tables(model / "tokenizer.json", weights.shape.vocab_size)
    own = bool(card) and "imported_from" not in card
    data: dict[str, Any] = {
        "tokenizer": tokenizer, "special": tokenizer["special"], "vocab": weights.shape.vocab_size,
        "positions": weights.max_positions, "most": _MOST_NEW, "job": None, "turns": None, "note": "",
    }  # fmt: skip
    if card.get("form"):
        data["job"] = _job(model, card)
        data["most"] = int(card["max_new"])
        data["note"] = _LOOSE if "schema" in card["form"]["grammar"] else ""
        return data
    eos = read_json(model / "config.json").get("eos_token_id") if (model / "config.json").exists() else None
    ends = [END, BOS] if own else card.get("ends_with") or (eos if isinstance(eos, list) else [eos])
    data["ends"] = [i for i in ends if isinstance(i, int)]
    data["begins"] = [BOS] if own else begins_of(model / "tokenizer.json")
    turns = _turns(model, card, own)
    if turns is not None:
        data["turns"] = {**turns, "begins": [] if own else data["begins"]}
    data["most"] = max(1, min(_MOST_NEW, weights.max_positions // 2))
    return data


def _turns(model: Path, card: dict[str, Any], own: bool) -> dict[str, Any] | None:
    if own:
        return dict(OWN) if card.get("chat") else None
    template = chat_template(model)
    return turns_of(template, str(model)) if template else None


def _job(model: Path, card: dict[str, Any]) -> dict[str, Any]:
    """A form in terms of ids: what it reads, may write, and how answers are put into the job's own format."""
    form = Form.from_dict(card["form"], Tokenizer.load(model / "tokenizer.json", card["form"]["units"]))
    job: dict[str, Any] = {
        "lowercase": form.lowercase, "reads": MAX_PROMPT_TOKENS, "user": USER, "assistant": ASSISTANT, "end": END,
        "text": TEXT, "labels": None, "names": None, "frames": None,
    }  # fmt: skip
    if form.codec is not None:
        rules = form._inline_rules()
        frames = form.codec.to_dict()
        job |= {
            "frames": frames,
            "follows": {
                json.dumps(list(key), ensure_ascii=False, separators=(",", ":")): ids.tolist()
                for key, ids in rules["follows"].items()
            },
            "paths": rules["path_of"],
            "next": {
                first: {tag: ids.tolist() for tag, ids in table.items()} for first, table in rules["tags"].items()
            },
            "symbols": {form.tokenizer.symbol(f"h:{s}"): s for s in form.codec.symbols},
            "tags": {form.tokenizer.symbol(f"t:{t}"): t for t in form.codec.tag_names},
        }
    elif "labels" in form.grammar:
        labels = form.grammar["labels"]
        spelled = [form.tokenizer.encode_output(" " + label) for label in labels]
        job["labels"] = spelled
        if all(len(ids) == 1 for ids in spelled):
            job["names"] = {ids[0]: label for ids, label in zip(spelled, labels, strict=True)}
    return job


def _title(model: Path, card: dict[str, Any]) -> str:
    name = str(card.get("name") or model.resolve().name)
    job = card.get("job") or {}
    return f"{job['name']}, {name}" if job.get("name") else name


def _facts(
    card: dict[str, Any], weights: Weights, kind: Kind, size: int, data: dict[str, Any]
) -> list[tuple[str, ...]]:  # fmt: skip
    shape = weights.shape
    facts: list[tuple[str, ...]] = [
        ("Parameters", f"{shape.params:,}"), ("Weights", f"{_bytes(size)} {kind}"),
        ("Vocabulary", f"{shape.vocab_size:,} tokens"),
    ]  # fmt: skip
    score = card.get("score")
    if data["job"] and isinstance(score, dict) and isinstance(score.get("score"), float):
        low, high = score["ci"]
        metric = str(score.get("metric", "score")).replace("_", " ")
        facts.append((f"Test, {metric}", f"{score['score']:.3f}", f"95% interval {low:.3f} to {high:.3f}"))
    else:
        facts.append(("Reads up to", f"{weights.max_positions:,} tokens"))
    return facts


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1_000_000 else f"{size / 1e3:.0f} kB"


# ---- the file ------------------------------------------------------------------------------------------------------


def _page(title: str, data: dict[str, Any], flat: bytes) -> str:
    style = _part("page.css").strip()
    parts = "".join(_part(name) for name in ("tokens.js", "answers.js", "sums.js", "decode.js"))
    engine = (
        f"'use strict';\nfunction ENGINE(host) {{\n{parts}const session = new Session(host);\n"
        "host.postMessage({ is: 'here' });\nreturn { session, Tokenizer, Answers, Model, write, calculated };\n}\n"
    )
    script = "'use strict';\n" + _part("page.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(engine)}' '{_hash(script)}' 'wasm-unsafe-eval'; "
        f"style-src '{_hash(style)}'; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    # Nothing in it may end the element that holds it.
    plain = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return string.Template(_part("page.html")).substitute(
        policy=policy, title=html.escape(title), style=style, engine=engine, script=script, data=plain,
        version=html.escape(metadata.version("smallfry")), wasm=_base64(_wasm()), weights=_base64(flat),
    )  # fmt: skip


def _hash(text: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(text.encode()).digest())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _wasm() -> bytes:
    try:
        return resources.files(__package__).joinpath("fry.wasm").read_bytes()
    except FileNotFoundError:
        raise SmallfryError("fry.wasm is missing from smallfry.export.web; build it with: make wasm") from None
