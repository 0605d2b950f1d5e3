"""Models that others trained become model directories: Hugging Face's plain Qwen3, Qwen2 and Llama, and llama2.c's.

Weights are read from safetensors and llama2.c's plain numbers only, and every size is checked before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer

from smallfry import llama2c
from smallfry.architecture import Variant, architecture_of, hf_config, positions_of
from smallfry.engine.weights import FLAT_FILE, INDEX, from_bf16, tensor_shapes, weight_files
from smallfry.errors import SmallfryError
from smallfry.files import check_replaceable, write_atomic
from smallfry.sizes import Shape

FORMAT = "smallfry-model/1"  # that of smallfry.checkpoint, which would bring torch
COMPLETES = "smallfry run completes texts with it: it was trained for no job, so it has no form of answers"
_MOST_JSON = 64 << 20  # bytes; the tokenizer of a vocabulary of 256,000 has 33 MB
_TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token")
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_UNUSED = ("rotary_emb.inv_freq", "lm_head.weight")  # recomputed; and a copy of the table where heads are tied

Array = NDArray[Any]


@dataclass(slots=True)
class _Source:
    """A model as it was found, in the terms of Hugging Face."""

    kind: str
    files: dict[str, str]  # name of each file of weights -> SHA-256
    shape: Shape
    variant: Variant
    tensors: dict[str, Array]  # fp32, or bf16 as its 16 bits
    max_positions: int
    tokenizer: HfTokenizer
    tokenizer_json: str
    begins: list[int]  # what the tokenizer puts before a text
    tokenizer_config: dict[str, Any]
    bos: int | None
    eos: list[int]
    pad: int | None = None
    notes: list[str] = field(default_factory=list)


def import_model(
    source: Path, out: Path, tokenizer: Path | None = None, name: str = "", force: bool = False
) -> dict[str, object]:
    """Make a model directory of a model that others trained.

    Args:
        source: A Hugging Face directory of a plain Qwen3, Qwen2 or Llama model with ``tokenizer.json``, or a
            checkpoint of llama2.c (``.bin`` of version 0, 1 or 2).
        out: The directory to make.
        tokenizer: A ``tokenizer.json``, or for a checkpoint of llama2.c its tokenizer's ``.bin``; by default the one
            beside the weights.
        name: What the model is called; by default as its file or directory.
        force: Write into an existing directory, replacing the model in it.

    Returns:
        What was imported: ``name``, ``architecture``, ``parameters``, ``vocab_size``, ``context`` in positions,
        ``dtype`` of the weights written, ``begins_with`` (ids that go before every text), ``ends_with`` (ids that end
        one), ``imported_from`` (``format`` and ``files`` with their SHA-256), ``out``, ``use``, ``notes``.

    Raises:
        SmallfryError: When the source is broken, of another kind or does not fit its tokenizer, or when ``out`` exists.
    """
    _check_out(source, out, force)
    if source.is_dir():
        found = _hugging_face(source, tokenizer)
    elif source.is_file():
        found = _llama2c(source, tokenizer)
    else:
        raise SmallfryError(
            f"{source}: no such file or directory; expected a Hugging Face directory or llama2.c's .bin"
        )
    _check(found, source)
    card = {
        "format": FORMAT, "name": name or (source.resolve().name if source.is_dir() else source.stem),
        "imported_from": {"format": found.kind, "files": found.files}, "form": None, "begins_with": found.begins,
        "ends_with": found.eos, "notes": found.notes,
    }  # fmt: skip
    _write(out, found, card)
    return {
        "name": card["name"], "architecture": _describe(found),
        "parameters": sum(tensor.size for tensor in found.tensors.values()), "vocab_size": found.shape.vocab_size,
        "context": found.max_positions, "dtype": _dtype(found), "begins_with": found.begins, "ends_with": found.eos,
        "imported_from": card["imported_from"], "out": str(out), "use": COMPLETES, "notes": found.notes,
    }  # fmt: skip


def _check_out(source: Path, out: Path, force: bool) -> None:
    check_replaceable(out, source, "smallfry.json", "model directory", force)


def _check(found: _Source, source: Path) -> None:
    last = max(found.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= last < found.shape.vocab_size:
        raise SmallfryError(
            f"{source}: its tokenizer has ids up to {last}, the model has rows for {found.shape.vocab_size:,} tokens; "
            "they do not fit: give the model's own with --tokenizer"
        )
    for name, tensor in found.tensors.items():
        if not _finite(tensor):
            raise SmallfryError(f"{source}: weight {name} holds infinities or no numbers; download it again")


def _finite(tensor: Array) -> bool:
    if tensor.dtype == np.uint16:
        return bool(((tensor & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(tensor).all())


def _dtype(found: _Source) -> str:
    return "bfloat16" if found.tensors["model.norm.weight"].dtype == np.uint16 else "float32"


def _kind(shape: Shape, variant: Variant) -> str:
    return str(hf_config(shape, "float32", variant)["model_type"])


def _describe(found: _Source) -> str:
    s, kind = found.shape, _kind(found.shape, found.variant)
    head = "tied head" if s.tie_embeddings else "head of its own"
    heads = f"{s.num_heads} heads of {s.head_dim}"
    if s.num_kv_heads != s.num_heads:
        heads += f" ({s.num_kv_heads} for keys and values)"
    return f"{kind}: {s.num_layers} layers of width {s.hidden_size}, {heads}, MLP of {s.intermediate_size}, {head}"


# ---- llama2.c -------------------------------------------------------------------------------------------------------


def _llama2c(path: Path, tokenizer: Path | None) -> _Source:
    if path.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".safetensors", ".gguf"):
        raise SmallfryError(
            f"{path}: a {path.suffix} file cannot be imported; expected llama2.c's .bin or a Hugging Face directory"
        )
    found = llama2c.read_checkpoint(path)
    tokens, where = _llama2c_tokens(path, tokenizer, found.shape.vocab_size)
    text = llama2c.to_hf(tokens, where).to_str(pretty=True)
    hf, begins = _load_tokenizer(text, where)
    notes = []
    if found.version == 2:
        notes.append("weights are the checkpoint's int8 ones in fp32; runq.c rounds activations to int8 too")
    if shared := llama2c.shared_scores(tokens):
        notes.append(f"{shared} tokens share scores: where these meet, run.c may cut a text otherwise")
    return _Source(
        kind=f"llama2.c version {found.version}",
        files={path.name: _sha256(path), where.name: _sha256(where)},
        shape=found.shape,
        variant=llama2c.VARIANT,
        tensors=dict(found.tensors),
        max_positions=found.max_positions,
        tokenizer=hf,
        tokenizer_json=text,
        begins=begins,
        tokenizer_config=dict(zip(("unk_token", "bos_token", "eos_token"), llama2c.SPECIALS, strict=True)),
        bos=llama2c.BOS,
        eos=[llama2c.EOS, llama2c.BOS],  # run.c ends a text at the beginning of the next
        notes=notes,
    )


def _llama2c_tokens(path: Path, given: Path | None, vocab_size: int) -> tuple[list[tuple[str, float]], Path]:
    """The tokenizer that was given or lies beside a checkpoint and fits it."""
    if given is not None:
        return llama2c.read_tokens(given, vocab_size), given
    beside = [p for p in sorted(path.parent.glob("tok*.bin")) if p.is_file() and not p.samefile(path)]
    fitting: dict[str, tuple[list[tuple[str, float]], Path]] = {}
    for place in beside:
        with contextlib.suppress(SmallfryError):
            tokens = llama2c.read_tokens(place, vocab_size)
            fitting[_sha256(place)] = tokens, place
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    names = ", ".join(p.name for p in beside) or "no tok*.bin"
    wrong = "several of these fit" if fitting else f"none with {vocab_size:,} tokens"
    raise SmallfryError(
        f"{path}: which tokenizer? beside it: {names}; {wrong}: name the checkpoint's own with --tokenizer"
    )


# ---- Hugging Face ---------------------------------------------------------------------------------------------------


def _hugging_face(path: Path, tokenizer: Path | None) -> _Source:
    if (path / "smallfry.json").exists():
        raise SmallfryError(f"{path}: is a model directory of smallfry already; use it as it is")
    config = _read_json(path / "config.json", "of a Hugging Face model")
    try:
        shape, variant = architecture_of(config, path / "config.json")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise SmallfryError(f"{path / 'config.json'}: {error!s}; expected the config.json of a model") from None
    if config.get("max_position_embeddings") is None:
        raise SmallfryError(f"{path / 'config.json'}: max_position_embeddings is missing; expected a number of tokens")
    positions = positions_of(config, path / "config.json")
    tensors, files = _read_tensors(path, shape, variant)
    place = tokenizer or path / "tokenizer.json"
    text = _read_text(place, "the tokenizer of the model; give another with --tokenizer")
    hf, begins = _load_tokenizer(text, place)
    theirs, generation = (
        _read_json(path / file, "") if (path / file).exists() else {}
        for file in ("tokenizer_config.json", "generation_config.json")
    )
    bos, eos, pad = (_ids(key, (generation, config), theirs, hf, shape.vocab_size) for key in ("bos", "eos", "pad"))
    kept = {key: _content(theirs.get(key)) for key in _TOKEN_KEYS if _content(theirs.get(key))}
    if template := _chat_template(path, theirs):
        kept["chat_template"] = template
    return _Source(
        kind=f"Hugging Face {config['model_type']}", files=files, shape=shape, variant=variant, tensors=tensors,
        max_positions=positions, tokenizer=hf, tokenizer_json=text, begins=begins, tokenizer_config=kept,
        bos=next(iter(bos), None), eos=eos, pad=next(iter(pad), None),
        notes=[] if eos else ["no token ends a text by its configuration"],
    )  # fmt: skip


def _read_tensors(path: Path, shape: Shape, variant: Variant) -> tuple[dict[str, Array], dict[str, str]]:
    """The weights that a shape has, all bf16 or all fp32, and the SHA-256 of each file."""
    names = weight_files(path, lambda index: _read_json(index, "of weights in several files"))
    raw: dict[str, tuple[str, list[int], bytes]] = {}
    files = {}
    for name in names:
        found, files[name] = _read_safetensors(path / name)
        raw |= found
    if shape.num_layers > len(raw):  # before a name is made for each layer
        raise SmallfryError(f"{path}: {shape.num_layers} layers by config.json, {len(raw)} weights; they do not fit")
    expected = tensor_shapes(shape, variant)
    for name, size in expected.items():
        if name not in raw:
            raise SmallfryError(f"{path}: weight {name} is missing; the weights do not fit config.json")
        if tuple(raw[name][1]) != size:
            raise SmallfryError(f"{path}: weight {name} is {tuple(raw[name][1])}, expected {size} by config.json")
        if raw[name][0] not in _STORED:
            raise SmallfryError(f"{path}: weight {name} is {raw[name][0]}; expected F32, F16 or BF16")
    if other := next((n for n in raw if n not in expected and not n.endswith(_UNUSED)), None):
        raise SmallfryError(
            f"{path}: has a weight {other!r} that a plain {_kind(shape, variant)} does not; not imported"
        )
    whole = all(raw[name][0] == "BF16" for name in expected)
    return {name: _array(*raw.pop(name), keep_bf16=whole) for name in expected}, files


def _read_safetensors(path: Path) -> tuple[dict[str, tuple[str, list[int], bytes]], str]:
    from safetensors import SafetensorError, deserialize

    try:
        data = path.read_bytes()
        found = deserialize(data)  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise SmallfryError(f"{path}: cannot read the weights ({error}); download them again") from None
    digest = hashlib.sha256(data).hexdigest()
    return {name: (entry["dtype"], entry["shape"], entry["data"]) for name, entry in found}, digest


def _array(kind: str, size: Sequence[int], data: bytes, keep_bf16: bool) -> Array:
    found = np.frombuffer(data, _STORED[kind]).reshape(size)
    if kind == "BF16":
        return found if keep_bf16 else from_bf16(found)
    return found.astype(np.float32)


def _ids(
    key: str, configs: Sequence[dict[str, Any]], named: dict[str, Any], tokenizer: HfTokenizer, rows: int
) -> list[int]:  # fmt: skip
    """The ids of a special token by the first configuration that has any, else by the tokenizer's."""
    for config in configs:
        given = config.get(f"{key}_token_id")
        found = given if isinstance(given, list) else [given]
        if kept := [i for i in found if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < rows]:
            return kept
    text = _content(named.get(f"{key}_token"))
    index = tokenizer.token_to_id(text) if text else None
    return [] if index is None or index >= rows else [index]


def _load_tokenizer(text: str, path: Path) -> tuple[HfTokenizer, list[int]]:
    """A tokenizer that has read a text without failing, and the ids that it puts before one."""
    try:
        if json.loads(text)["model"].get("continuing_subword_prefix"):  # merges cut at it, the library aborts on some
            raise ValueError("words cut with a continuing_subword_prefix")
        hf = HfTokenizer.from_str(text)
        bare, full = (hf.encode("a", add_special_tokens=special).ids for special in (False, True))
    except BaseException as error:  # the library raises bare Exception on malformed files, or panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = (str(error).splitlines() or [repr(error)])[0]
        raise SmallfryError(f"{path}: not a tokenizer that can be read ({first}); download it again") from None
    at = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), 0)
    return hf, full[:at] if bare else []


def _content(token: object) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _chat_template(path: Path, config: dict[str, Any]) -> str | None:
    beside = path / "chat_template.jinja"
    if beside.exists():
        return _read_text(beside, "a chat template")
    template = config.get("chat_template")
    return template if isinstance(template, str) else None


def _read_text(path: Path, expected: str) -> str:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise SmallfryError(f"{path}: has more than {_MOST_JSON >> 20} MB; expected {expected}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SmallfryError(f"{path}: no such file; expected {expected}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SmallfryError(f"{path}: cannot read ({error}); expected {expected}") from None


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(_read_text(path, f"{path.name} {expected}".strip()))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SmallfryError(f"{path}: not a JSON object; download it again")
    return found


# ---- the directory --------------------------------------------------------------------------------------------------


def _write(out: Path, found: _Source, card: dict[str, Any]) -> None:
    """Write a model directory whole or not at all; into one that is there, file by file, the weights last."""
    whole = out.resolve()
    part = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        digest = _write_safetensors(part / "model.safetensors", found.tensors)
        for name, data in _texts(found, {**card, "weights_sha256": digest}).items():
            write_atomic(part / name, data)
        if not out.exists():
            part.rename(out)
            return
        stale = (FLAT_FILE, INDEX, "chat_template.jinja", *(p.name for p in out.glob("model-*-of-*.safetensors")))
        for name in stale:  # they would be read before what is written here
            (out / name).unlink(missing_ok=True)
        for file in sorted(part.iterdir(), key=lambda p: p.suffix == ".safetensors"):
            file.replace(out / file.name)
    except OSError as error:
        raise SmallfryError(
            f"{out}: cannot write ({error.strerror}); free some space or choose another --out"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _texts(found: _Source, card: dict[str, Any]) -> dict[str, str]:
    specials = (found.bos, next(iter(found.eos), None), found.pad)
    config = hf_config(found.shape, _dtype(found), found.variant, found.max_positions, specials)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": found.max_positions, **found.tokenizer_config,
    }  # fmt: skip
    ends: int | list[int] | None = found.eos if len(found.eos) > 1 else specials[1]
    generation = {"bos_token_id": found.bos, "eos_token_id": ends, "pad_token_id": found.pad, "do_sample": False}
    plain = {
        "config.json": config, "tokenizer_config.json": tokenizer_config,
        "generation_config.json": {key: value for key, value in generation.items() if value is not None},
        "smallfry.json": card,
    }  # fmt: skip
    dumped = {name: json.dumps(data, indent=1) + "\n" for name, data in plain.items()}
    return dumped | {"tokenizer.json": found.tokenizer_json}


def _write_safetensors(path: Path, tensors: dict[str, Array]) -> str:
    """Write a safetensors file tensor by tensor (its library has bf16 for torch only) and return its SHA-256."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        kind = "BF16" if tensor.dtype == np.uint16 else "F32"
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text, *(t.tobytes() for t in tensors.values())):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
