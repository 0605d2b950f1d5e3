"""A model as a folder of C sources that one line compiles, without any library."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.engine.weights import KINDS, Kind, read_weights, to_flat
from smallfry.errors import SmallfryError
from smallfry.export.web.tables import begins_of, read_tables
from smallfry.files import check_replaceable, read_json
from smallfry.forms import MAX_PROMPT_TOKENS, Form
from smallfry.tokenizer import ASSISTANT, BOS, END, SPLIT, USER, Tokenizer, byte_chars
from smallfry.writer import ends_of

_HERE = Path(__file__).parent / "c"
_FRY = Path(__file__).parents[1] / "engine" / "fry"
_EMBEDDED = 8 << 20  # bytes of weights that go into the program; compilers are slow with more
COMPILE = "cc -std=c11 -O3 -ffp-contract=off -o model *.c"


def export_c(model: Path, out: Path, kind: Kind = "int8", force: bool = False) -> None:
    """Write a folder with libfry's sources, a model, its tokenizer and a program that answers.

    Args:
        model: The directory: a language model, an imported one, or a job's whose answers are labels or free text.
        out: The folder to make.
        kind: How matrices are stored and computed with.
        force: Replace an existing folder.

    Raises:
        SmallfryError: The model cannot be read, its tokenizer or form cannot be said in C, or ``out`` is there already.
    """
    if kind not in KINDS:
        raise SmallfryError(f"precision {kind}: expected one of {', '.join(KINDS)}")
    if out.exists() and not force:
        raise SmallfryError(f"{out}: is there already; choose another --out, or add --force to replace it")
    weights = read_weights(model)
    card = read_json(model / "smallfry.json") if (model / "smallfry.json").exists() else {"imported_from": {}}
    form = card.get("form") or {}
    if form and form.get("name") == "inline":
        raise SmallfryError(f"{model}: answers in the inline form, which the C program does not know; export --to web")
    check_replaceable(out, model, "model_data.h", "folder of an exported model", force=True)
    flat = to_flat(weights, kind)
    tables = read_tables(model / "tokenizer.json", weights.shape.vocab_size)
    _supported(model, tables)
    facts = _facts(model, card, form, tables)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            folder = Path(scratch) / "folder"
            folder.mkdir()
            for source in (*_FRY.glob("*.[ch]"), *_HERE.glob("*.[ch]"), _HERE / "LICENSE"):
                if source.name != "set_wasm.c":
                    shutil.copyfile(source, folder / source.name)
            (folder / "tokenizer_data.c").write_text(_tokenizer_source(tables, bool(form.get("lowercase"))))
            (folder / "model_data.h").write_text(_header())
            (folder / "model_data.c").write_text(_model_source(facts, flat if len(flat) <= _EMBEDDED else b""))
            if len(flat) > _EMBEDDED:
                (folder / "model.fry").write_bytes(flat)
            (folder / "README.md").write_text(_readme(model, kind, flat, form))
            if out.exists():
                shutil.rmtree(out)
            folder.rename(out)
    except OSError as error:
        raise SmallfryError(
            f"{out}: cannot write ({error.strerror}); free some space or choose another --out"
        ) from None


def _supported(model: Path, tables: dict[str, Any]) -> None:
    pre = json.dumps(read_json(model / "tokenizer.json").get("pre_tokenizer"))
    if tables["kind"] == "bytes":
        fits = json.dumps(SPLIT)[1:-1] in pre and not tables["normal"]
    else:
        normal = [step for step in tables["normal"] if step[0] != "form"]
        fits = normal == tables["normal"] and not tables["steps"]
        fits = fits and all(s[1:] in (["▁"], [" ", "▁"]) for s in normal) and tables["space"] == "▁"
    if not fits or tables["whole"]:
        raise SmallfryError(
            f"{model / 'tokenizer.json'}: cuts text in a way that the C tokenizer does not know; "
            "export to web, gguf or onnx"
        )


def _facts(model: Path, card: dict[str, Any], form: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    foreign = "imported_from" in card
    ends = ends_of(model, card)
    labels: list[list[int]] = []
    if form and "labels" in form.get("grammar", {}):
        tokenizer = Tokenizer.load(model / "tokenizer.json", form["units"])
        spelled = Form.from_dict(form, tokenizer)
        labels = [[*tokenizer.encode_output(" " + label), END] for label in spelled.grammar["labels"]]
    begins = begins_of(model / "tokenizer.json") if foreign else [USER] if form else [BOS]
    return {
        "job": int(bool(form)), "lowercase": int(bool(form.get("lowercase"))), "max_new": int(card.get("max_new", 200)),
        "begins": begins, "behinds": [ASSISTANT] if form else [], "ends": ends, "labels": labels,
    }  # fmt: skip


# ---- sources --------------------------------------------------------------------------------------------------------


def _numbers(values: Iterable[Any], per_line: int = 24) -> str:
    words = [str(int(v)) for v in values]
    return ",\n".join(",".join(words[i : i + per_line]) for i in range(0, len(words), per_line)) or "0"


def _array(kind: str, name: str, values: Sequence[Any] | np.ndarray) -> str:
    return f"const {kind} {name}[] = {{\n{_numbers(values)}}};\n"


def _header() -> str:
    return f"""/* The model of this folder. */
#ifndef MODEL_DATA_H
#define MODEL_DATA_H

#include <stddef.h>
#include <stdint.h>

#define MODEL_INPUT_TOKENS {MAX_PROMPT_TOKENS} /* of a job's input; of a longer one both ends are read */

extern const size_t model_size; /* 0: the weights are in model.fry */
extern const uint8_t model_bytes[];
extern const int32_t model_job, model_lowercase, model_max_new;
extern const int32_t model_begin_count, model_begins[], model_behind_count, model_behinds[];
extern const int32_t model_end_count, model_ends[];
extern const int32_t model_label_count, model_label_starts[], model_labels[]; /* answers that may be given */

#endif
"""


def _model_source(facts: dict[str, Any], flat: bytes) -> str:
    starts = np.cumsum([0, *(len(label) for label in facts["labels"])])
    parts = ['/* The model\'s numbers. */\n#include "model_data.h"\n\n']
    parts += [f"const int32_t model_{name} = {facts[name]};\n" for name in ("job", "lowercase", "max_new")]
    for name in ("begin", "behind", "end"):
        values = facts[name + "s"]
        parts += [f"const int32_t model_{name}_count = {len(values)};\n", _array("int32_t", f"model_{name}s", values)]
    parts += [
        f"const int32_t model_label_count = {len(facts['labels'])};\n",
        _array("int32_t", "model_label_starts", starts),
        _array("int32_t", "model_labels", [i for label in facts["labels"] for i in label]),
        f"const size_t model_size = {len(flat)};\n", _array("uint8_t", "model_bytes", list(flat)),
    ]  # fmt: skip
    return "".join(parts)


def _ranges(wanted: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for c in wanted:
        if found and found[-1][1] == c - 1:
            found[-1] = (found[-1][0], c)
        else:
            found.append((c, c))
    return found


def _table(kind: str, name: str, count: str, rows: Sequence[Sequence[Any]]) -> str:
    body = ",\n".join("{" + ",".join(map(str, row)) + "}" for row in rows) or "{0}"
    return f"const int32_t {count} = {len(rows)};\nconst {kind} {name}[] = {{\n{body}}};\n"


def _tokenizer_source(tables: dict[str, Any], lowercase: bool) -> str:
    tokens: list[str | None] = tables["tokens"]
    pieces = tables["kind"] == "pieces"
    special = set(tables["special"])
    of_char = {char: byte for byte, char in enumerate(byte_chars())}
    bytes_of = [_bytes(token, pieces, of_char) if i not in special else b"" for i, token in enumerate(tokens)]
    index = {token: i for i, token in enumerate(tokens) if token is not None}
    of_byte = [index[f"<0x{b:02X}>"] if pieces else index[byte_chars()[b]] for b in range(256)]
    pairs = np.frombuffer(base64.b64decode(tables["merges"]), dtype=f"<u{tables['width']}").reshape(-1, 2)
    merges = {(int(a), int(b)): (rank, index[f"{tokens[a]}{tokens[b]}"]) for rank, (a, b) in enumerate(pairs)}
    single = [i for i, t in enumerate(tokens) if pieces and t is not None and len(t) == 1 and i not in special]
    single.sort(key=bytes_of.__getitem__)
    added = sorted(((str(tokens[i]), i) for i in tables["added"]), key=lambda each: -len(each[0].encode()))
    every = range(sys.maxunicode + 1)
    parts = [
        '/* Tables of a tokenizer. */\n#include "tokenizer.h"\n\n',
        f"const int32_t tokenizer_count = {len(tokens)};\n",
    ]
    parts += [
        _array("uint8_t", "tokenizer_bytes", list(b"".join(bytes_of)) or [0]),
        _array("uint32_t", "tokenizer_starts", np.cumsum([0, *map(len, bytes_of)])),
        _table("tokenizer_merge", "tokenizer_merges", "tokenizer_merge_count",
               [(*pair, *found) for pair, found in sorted(merges.items())]),
        _array("int32_t", "tokenizer_of_byte", of_byte),
        _table("tokenizer_added", "tokenizer_addeds", "tokenizer_added_count", [(_quoted(t), i) for t, i in added]),
        f"const int32_t tokenizer_pieces = {int(pieces)};\n",
        f"const int32_t tokenizer_leading_space = {int(['prepend', '▁'] in tables['normal'])};\n",
        f"const int32_t tokenizer_sorted_count = {len(single)};\n", _array("int32_t", "tokenizer_sorted", single),
    ]  # fmt: skip
    for name in ("letter", "number", "space"):
        wanted = [] if pieces else _ranges(c for c in every if _sort(c) == name)
        parts.append(_table("tokenizer_range", f"tokenizer_{name}s", f"tokenizer_{name}_count", wanted))
    lowered = [(c, chr(c).lower()) for c in every] if lowercase else []
    lower = [(c, ord(small)) for c, small in lowered if len(small) == 1 and small != chr(c)]
    parts.append(_table("tokenizer_range", "tokenizer_lowers", "tokenizer_lower_count", lower))
    return "".join(parts)


def _sort(c: int) -> str:
    """What the pattern that cuts text takes a character for."""
    char = chr(c)
    if char.isspace() and c not in range(0x1C, 0x20):  # Python's own addition to Unicode's white space
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(char)[0], "other")


def _bytes(token: str | None, pieces: bool, of_char: dict[str, int]) -> bytes:
    if token is None:
        return b""
    if not pieces:
        return bytes(of_char[c] for c in token) if all(c in of_char for c in token) else token.encode()
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\{b:03o}" for b in text.encode()) + '"'


def _readme(model: Path, kind: str, flat: bytes, form: dict[str, Any]) -> str:
    grammar = form.get("grammar", {})
    note = (
        "" if "schema" not in grammar else "\nThe JSON schema of its answers is not enforced here, unlike in Python.\n"
    )
    where = "in the program" if len(flat) <= _EMBEDDED else "in `model.fry`, which belongs beside it"
    return f"""# {model.name}

```sh
{COMPILE}
./model "text"
```

A C11 compiler is all it needs. The weights ({len(flat):,} bytes, {kind}) are {where}.
`./model "text" -n 100 -t 0.8 -p 0.95 -s 1` writes at most 100 tokens and draws them;
without `-t` it takes the likeliest.
{note}
`fry.h` is the library's interface, `main.c` the program, `tokenizer.c` the tokenizer.

The sources are under the MIT licence: see LICENSE. The weights are their maker's.
"""
