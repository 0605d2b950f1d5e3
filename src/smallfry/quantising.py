"""Rounding a model's weights to int8 or int4 so that what the matrices give changes least."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smallfry.engine.weights import (
    FLAT_FILE,
    GROUP,
    Floats,
    Quantised,
    Weights,
    matrices,
    quantise,
    read_weights,
    rounded,
    to_flat,
)  # fmt: skip
from smallfry.errors import SmallfryError
from smallfry.files import check_replaceable, read_json, write_atomic

QuantKind = Literal["int8", "int4"]
_TOKENS = 8192  # tokens that calibrate: 32 inputs of a group are known well from far fewer
_LENGTH = 128
_SHRINKS = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7)  # shares of the largest weight that a scale may reach to
_DAMP = 0.01  # of the mean diagonal, added to it (Frantar et al. 2023)
_KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def quantise_model(
    path: Path, out: Path, kind: QuantKind, texts: Sequence[str] | None = None, force: bool = False
) -> dict[str, Any]:
    """Write a quantised copy of a model directory, with ``model.fry`` in place of its safetensors.

    Matrices are rounded column by column, and what a column loses is made up for by those behind it (GPTQ, Frantar et
    al. 2023); each group's scale is the best of a few. The embedding is rounded to the nearest.

    Args:
        path: The model.
        out: The directory to make.
        kind: ``int8`` or ``int4``.
        texts: What the model reads to show which inputs of its matrices matter; by default what it writes itself, and
            for a model with a job, whose inputs it cannot write, nothing.
        force: Replace an existing directory.

    Returns:
        ``bytes`` and ``bytes_before`` of the weights, ``error`` and ``error_plain``: squared error of the matrices'
        outputs as a share of their squares, calibrated and rounded to the nearest; ``calibrated_on``, ``out``.

    Raises:
        SmallfryError: A file is missing or broken, or ``out`` is there already.
    """
    if out.exists() and not force:
        raise SmallfryError(f"{out}: is there already; choose another --out, or add --force to replace it")
    check_replaceable(out, path, "smallfry.json", "model directory", force)
    weights = read_weights(path)
    if weights.quantised is not None:
        raise SmallfryError(f"{path}: is {weights.kind} already; quantise the model it was made of")
    card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
    sequences, source = _calibration(path, weights, texts, card)
    inputs = second_moments(weights, sequences) if sequences else {}
    errors = np.zeros(3)
    weights.quantised = {}
    for name, matrix in matrices(weights):
        if matrix.ndim == 2:
            best, found = calibrated(name, matrix, inputs.get(name), kind)
            weights.quantised[name] = best
            errors += found
    before, weights.kind = len(to_flat(weights, weights.kind)), kind
    flat = to_flat(weights, kind)
    made = {"kind": kind, "group": GROUP, "calibrated_on": source, "output_error": float(errors[0] / errors[2])}
    _write(out, path, flat, {**card, "quantised": made})
    return {
        "bytes": len(flat), "bytes_before": before, "error": float(errors[0] / errors[2]),
        "error_plain": float(errors[1] / errors[2]), "calibrated_on": source, "out": str(out), "kind": kind,
    }  # fmt: skip


def _write(out: Path, path: Path, flat: bytes, card: dict[str, Any]) -> None:
    """The whole directory beside its place first: nothing is lost where the disk is full."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        for name in _KEPT:
            if (path / name).exists():
                shutil.copyfile(path / name, part / name)
        write_atomic(part / FLAT_FILE, flat)
        write_atomic(part / "smallfry.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        raise SmallfryError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def compare(job: Any, before: Path, after: Path) -> dict[str, Any]:
    """Both models' scores on a job's test rows and the paired difference with its interval.

    Args:
        job: A `smallfry.Job`.
        before: The model.
        after: Its quantised copy.
    """
    from smallfry.evals.suites.jobs import difference, load_predictor, measure

    old, new = (measure(job, load_predictor(p), name) for p, name in ((before, "before"), (after, "after")))
    paired = difference(new, old)
    return {
        "metric": job.metric, "before": old.scores.score, "after": new.scores.score, "n": old.scores.n,
        "difference": paired.difference, "ci": [paired.low, paired.high], "p": paired.p_value,
    }  # fmt: skip


# ---- what the model reads --------------------------------------------------------------------------------------------


def _calibration(
    path: Path, weights: Weights, texts: Sequence[str] | None, card: dict[str, Any]
) -> tuple[list[list[int]], str]:
    if texts is None and card.get("form") is not None:
        return [], "nothing"
    if texts is not None and card.get("form") is not None:
        from smallfry.predictor import ModelPredictor

        model = ModelPredictor.load(path)
        some = [texts[i] for i in np.linspace(0, len(texts) - 1, min(len(texts), 512)).astype(int)]
        prompts = [model.form.prompt_ids(text) for text in some]
        answers = model.engine.generate(prompts, [model.form.constraint(text) for text in some], model.max_new)
        return _some([[*p, *a.ids] for p, a in zip(prompts, answers, strict=True)]), f"{len(some)} inputs of a job"
    from smallfry.engine.decoding import Sampling
    from smallfry.writer import Writer

    writer = Writer.load(path)
    if texts is not None:
        ids = [i for text in texts for i in writer.tokenizer.encode(text, add_special_tokens=False).ids]
        start = writer.prompt_ids("a")[:1] if writer.own else []
        return _some([[*start, *ids[i : i + _LENGTH]] for i in range(0, len(ids), _LENGTH)]), "a text"
    begin = max(weights.specials[0], 0)
    found = []
    for seed in range(_TOKENS // _LENGTH):
        written = [p.token for p in writer.stream([begin], _LENGTH - 1, Sampling(1.0, seed=seed))]
        found.append([begin, *written])
    return found, f"{len(found)} texts that the model wrote"


def _some(sequences: list[list[int]]) -> list[list[int]]:
    """As many as calibrate, evenly from all."""
    total = sum(map(len, sequences))
    return sequences[:: max(1, total // _TOKENS)]


def second_moments(weights: Weights, sequences: Sequence[Sequence[int]]) -> dict[str, Floats]:
    """Sums of x x^T of every block's matrices' inputs over sequences of tokens: ``(inputs, inputs)`` by libfry's name.

    The forward pass in fp32, whole sequences at a time.
    """
    s, t = weights.shape, weights.tensors
    moments: dict[str, Floats] = {}

    def see(name: str, x: Floats) -> None:
        moments[name] = moments.get(name, np.float32(0.0)) + x.T @ x

    def norm(x: Floats, gain: Floats) -> Floats:
        scaled: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(weights.variant.norm_eps)) * gain
        return scaled

    half = s.head_dim // 2
    turns = weights.variant.rope_theta ** (-np.arange(half) / half)
    for ids in sequences:
        x = t["model.embed_tokens.weight"][np.asarray(ids)]
        angles = np.outer(np.arange(len(ids)), turns)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

        def turned(h: Floats, cos: Floats = cos, sin: Floats = sin) -> Floats:
            low, high = h[..., :half], h[..., half:]
            return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)

        for i in range(s.num_layers):
            at, to = f"model.layers.{i}.", f"blocks.{i}."
            y = norm(x, t[at + "input_layernorm.weight"])
            see(to + "qkv", y)
            q, k, v = (_heads(y, t, f"{at}self_attn.{n}_proj", s.head_dim) for n in "qkv")  # (H, T, D)
            if s.qk_norm:
                q, k = norm(q, t[at + "self_attn.q_norm.weight"]), norm(k, t[at + "self_attn.k_norm.weight"])
            k, v = (np.repeat(h, s.num_heads // s.num_kv_heads, axis=0) for h in (turned(k), v))
            scores = turned(q) @ k.transpose(0, 2, 1) / np.float32(np.sqrt(s.head_dim))
            scores += np.triu(np.full(scores.shape[1:], -1e30, dtype=np.float32), 1)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
            see(to + "o", mixed)
            x = x + mixed @ t[at + "self_attn.o_proj.weight"].T
            y = norm(x, t[at + "post_attention_layernorm.weight"])
            see(to + "gate_up", y)
            gate = y @ t[at + "mlp.gate_proj.weight"].T
            inner = gate / (1.0 + np.exp(-np.clip(gate, -80, 80))) * (y @ t[at + "mlp.up_proj.weight"].T)
            see(to + "down", inner)
            x = x + inner @ t[at + "mlp.down_proj.weight"].T
    return moments


def _heads(y: Floats, tensors: dict[str, Floats], name: str, head_dim: int) -> Floats:
    out = y @ tensors[name + ".weight"].T + tensors.get(name + ".bias", np.float32(0.0))
    turned: Floats = out.reshape(len(y), -1, head_dim).transpose(1, 0, 2)
    return turned


# ---- rounding --------------------------------------------------------------------------------------------------------


def calibrated(
    name: str, matrix: Floats, moment: Floats | None, kind: QuantKind
) -> tuple[Quantised, tuple[float, float, float]]:
    """A matrix rounded so that its outputs change least.

    Args:
        name: libfry's; the embedding is rounded to the nearest, because its rows are looked up too.
        matrix: ``(outputs, inputs)``.
        moment: Sum of x x^T of its inputs, or None where nothing is known of them.
        kind: ``int8`` or ``int4``.

    Returns:
        The rounded matrix, and the squared errors of its outputs, of those of plain rounding, and their own squares.
    """
    plain = quantise(matrix, kind)
    inputs = matrix.shape[1]
    known = moment if moment is not None else np.eye(inputs, dtype=np.float32)
    if name in ("embed", "head") or moment is None:
        best = _scaled(matrix, np.diag(known).copy(), kind)
    else:
        best = _gptq(matrix, known, kind)
    own = _squares(matrix, known)
    errors = [_squares(matrix - found.dense(), known) for found in (best, plain)]
    if errors[0] > errors[1]:
        best, errors[0] = plain, errors[1]
    return best, (errors[0], errors[1], own)


def _squares(matrix: Floats, moment: Floats) -> float:
    return float(((matrix @ moment) * matrix).sum(dtype=np.float64))


def _best_scales(groups: Floats, importance: Floats, kind: QuantKind) -> Floats:
    """Of a few scales for groups ``(outputs, groups, 32)`` those with the least weighted error."""
    largest = np.abs(groups).max(axis=2)
    steps = 127 if kind == "int8" else 7
    best_error = np.full(largest.shape, np.inf)
    best = largest / steps
    for shrink in _SHRINKS if kind == "int4" else _SHRINKS[:1]:
        found = rounded(groups, largest * np.float32(shrink / steps), groups.shape[1] * GROUP, kind)
        values = found.values.reshape(groups.shape) * found.scales[:, :, None]
        error = ((groups - values) ** 2 * importance).sum(axis=2)
        better = error < best_error
        best = np.where(better, largest * np.float32(shrink / steps), best)
        best_error = np.where(better, error, best_error)
    return np.asarray(best, dtype=np.float32)


def _padded(matrix: Floats) -> Floats:
    rows, inputs = matrix.shape
    wide = np.zeros((rows, -(-inputs // GROUP) * GROUP), dtype=np.float32)
    wide[:, :inputs] = matrix
    return wide


def _scaled(matrix: Floats, importance: Floats, kind: QuantKind) -> Quantised:
    groups = _padded(matrix).reshape(len(matrix), -1, GROUP)
    weight = _padded(importance[None]).reshape(1, -1, GROUP)
    return rounded(groups, _best_scales(groups, weight, kind), matrix.shape[1], kind)


def _gptq(matrix: Floats, moment: Floats, kind: QuantKind) -> Quantised:
    rows, inputs = matrix.shape
    padded = -(-inputs // GROUP) * GROUP
    hessian = np.eye(padded)
    hessian[:inputs, :inputs] = moment
    hessian[:inputs, :inputs] += np.eye(inputs) * (_DAMP * np.mean(np.diag(moment)) + 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T.astype(np.float32)  # (padded, padded), upper
    work = _padded(matrix)
    values = np.zeros((rows, padded), dtype=np.int8)
    scales = np.zeros((rows, padded // GROUP), dtype=np.float32)
    weight = np.diag(hessian).astype(np.float32)
    for g in range(padded // GROUP):
        part = slice(g * GROUP, (g + 1) * GROUP)
        group = work[:, part].copy()
        scale = _best_scales(group[:, None], weight[None, None, part], kind)
        lost = np.zeros((rows, GROUP), dtype=np.float32)
        for j in range(GROUP):
            at = g * GROUP + j
            column = np.zeros((rows, 1, GROUP), dtype=np.float32)
            column[:, 0, 0] = group[:, j]
            found = rounded(column, scale, GROUP, kind)
            values[:, at], scales[:, g] = found.values[:, 0], found.scales[:, 0]
            lost[:, j] = (group[:, j] - found.values[:, 0] * found.scales[:, 0]) / factor[at, at]
            group[:, j:] -= lost[:, j : j + 1] * factor[at, at : part.stop]
        work[:, part.stop :] -= lost @ factor[part, part.stop :]
    return Quantised(values, scales, inputs)
