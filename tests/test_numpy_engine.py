"""The numpy engine beside PyTorch in fp32 and beside libfry bit for bit, its sessions, and their input."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from smallfry import checkpoint
from smallfry.architecture import Variant
from smallfry.engine import numpy_attention, numpy_engine, numpy_matrix
from smallfry.engine.native import NativeModel, kernel_sets, libfry
from smallfry.engine.numpy_engine import NumpyModel
from smallfry.engine.weights import (
    Floats,
    Kind,
    Weights,
    read_flat,
    read_weights,
    tensor_shapes,
    to_flat,
    write_flat,
)
from smallfry.errors import SmallfryError
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import MIN_VOCAB, Tokenizer

GOLDEN = Path(__file__).parent / "golden" / "model"
SHAPES = {
    "ours": (Shape(301, 64, 2, 2, 2, 32, 96), Variant()),
    "grouped": (Shape(512, 96, 3, 4, 2, 64, 160), Variant()),
    "narrow heads": (Shape(299, 32, 2, 2, 1, 16, 48), Variant(rope_theta=500.0, norm_eps=1e-3)),
    "odd": (Shape(17, 24, 2, 6, 2, 8, 20), Variant()),
    "llama": (Shape(300, 64, 2, 2, 2, 32, 96, tie_embeddings=False, qk_norm=False), Variant()),
    "qwen2": (Shape(300, 64, 2, 2, 1, 32, 96, qk_norm=False), Variant(qkv_bias=True)),
}
ODD = {  # what nobody would train, so that every rest of a group, lane or head is there
    "wide heads": (Shape(700, 128, 2, 1, 1, 128, 208), Variant(norm_eps=1e-3)),
    "nothing fits": (Shape(33, 72, 3, 3, 1, 24, 100, tie_embeddings=False), Variant(qkv_bias=True)),
    "wider heads": (Shape(65, 40, 2, 5, 5, 48, 36), Variant(rope_theta=1e6)),
    "widest heads": (Shape(40, 33, 2, 2, 1, 322, 65), Variant()),
    "least": (Shape(3, 1, 2, 1, 1, 2, 1), Variant()),
}
GOLDEN = Path(__file__).parent / "golden" / "model"
needs_library = pytest.mark.skipif(libfry() is None, reason="libfry was not built here: no C compiler")
NARROW: tuple[Kind, ...] = ("bf16", "int8", "int4")
ALL: tuple[Kind, ...] = ("fp32", *NARROW)
WHOLE: tuple[Kind, ...] = ("int8", "int4")


def make(name: str) -> Weights:
    shape, variant = (SHAPES | ODD)[name]
    rng = np.random.default_rng(len(name))
    tensors: dict[str, Floats] = {}
    for key, size in tensor_shapes(shape, variant).items():
        drawn = rng.standard_normal(size)
        if len(size) == 2:
            drawn *= 0.5 if "embed" in key else 1.5 / math.sqrt(size[1])
        else:
            drawn = 0.2 * drawn + (not key.endswith("bias"))
        tensors[key] = drawn.astype(np.float32)
    return Weights(shape, variant, tensors)


def transformer(weights: Weights) -> Transformer:
    model = Transformer(weights.shape, variant=weights.variant)
    checkpoint.from_hf_state(model, {n: torch.from_numpy(t) for n, t in weights.tensors.items()}, "test")
    return model.eval()


def text(weights: Weights, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, weights.shape.vocab_size, count).tolist()


def close(found: Floats, expected: Floats, most: float = 1e-4) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= most, np.abs(found - expected).max()


def alike(found: Floats, expected: Floats, precision: Kind) -> None:
    """Whole numbers give the same bits in whatever company; fp32 sums differ by their order."""
    if precision == "fp32":
        close(found, expected)
    else:
        assert found.shape == expected.shape and (found.view(np.uint32) == expected.view(np.uint32)).all()


# ---- fp32 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SHAPES))
def test_logits_are_those_of_pytorch(name: str) -> None:
    weights = make(name)
    ids = text(weights, 300)
    model = transformer(weights)
    with torch.inference_mode():
        expected = model.logits(model(torch.tensor([ids])))[0].numpy()
    session = NumpyModel(weights).session(1, 300)
    close(session.feed_all(ids[:140]), expected[:140])  # more than a block of queries, less than a chunk
    close(session.feed_all(ids[140:150]), expected[140:150])
    close(session.feed([ids[150:]]), expected[-1:])


def test_a_model_directory_gives_what_its_model_gives(tmp_path: Path) -> None:
    model = transformer(make("llama"))
    checkpoint.save_model(tmp_path, model, Tokenizer.train([], MIN_VOCAB), {})
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    with torch.inference_mode():
        expected = model.logits(model(torch.tensor([ids])))[0].numpy()
    close(NumpyModel(read_weights(tmp_path)).session(1, 8).feed_all(ids), expected)


# ---- sessions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("precision", ALL)
def test_token_by_token_is_the_whole_prompt(name: str, precision: Kind) -> None:
    weights = make(name)
    model, ids = NumpyModel(weights, precision), text(weights, 40)
    whole = model.session(1, 40).feed_all(ids)
    session = model.session(1, 40)
    single = np.concatenate([session.feed([[token]]) for token in ids])
    if precision == "bf16":  # a sum in another order may round a share or an activation to its neighbour
        assert np.median(np.abs(single - whole)) < 0.02 * whole.std()
    else:
        alike(single, whole, precision)


def rows_of(weights: Weights, lengths: list[int]) -> list[list[int]]:
    return [text(weights, n, seed) for seed, n in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [[5, 0, 3, 4], [1, 1, 1, 1], [0, 130, 1, 300], [0, 1, 0, 1], [7, 7, 7, 7]])
@pytest.mark.parametrize("name", ["grouped", "odd"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rows_are_what_they_are_alone(name: str, lengths: list[int], precision: Kind) -> None:
    weights = make(name)
    model = NumpyModel(weights, precision)
    starts, rows = rows_of(weights, [2, 9, 1, 4]), rows_of(weights, lengths)
    session = model.session(4, 310)
    session.feed(starts)
    found = session.feed(rows)
    after = session.feed([[1]] * 4)
    for i, (start, row) in enumerate(zip(starts, rows, strict=True)):
        alone = model.session(1, 310)
        alone.feed([start])
        alike(found[[i]], alone.feed([row]), precision)
        assert found[i].any() == bool(row)
        alike(after[[i]], alone.feed([[1]]), precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_answers_are_scored_as_they_are_fed(precision: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make("llama")
    model, texts, starts = NumpyModel(weights, precision), rows_of(weights, [5, 1, 300, 0, 8]), [2, 0, 290, 0, 8]
    for together in (32, 2):
        monkeypatch.setattr(numpy_engine, "_TEXTS", together)
        found = model.answer_logits(texts, starts)
        assert [len(each) for each in found] == [3, 1, 10, 0, 0]
        for each, text_, start in zip(found, texts, starts, strict=True):
            if len(each):
                alike(each, model.session(1, 300).feed_all(text_)[start:], precision)
    assert model.answer_logits([], []) == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_chunks_cut_rows_anywhere(precision: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make("ours")
    model, rows = NumpyModel(weights, precision), rows_of(weights, [3, 17, 0, 1, 40, 2])
    expected = model.session(6, 40).feed(rows)
    for module, name, value in (
        (numpy_attention, "_CHUNK", 5), (numpy_attention, "_QUERIES", 4), (numpy_attention, "_SCORES", 1),
        (numpy_matrix, "_PRODUCTS", 1),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
        session = model.session(6, 41)
        alike(session.feed(rows), expected, precision)
        assert session.feed([[1]] * 6).shape == (6, 301)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_scoring_is_feeding(precision: Kind) -> None:
    weights = make("qwen2")
    model, ids = NumpyModel(weights, precision), text(weights, 20)
    session = model.session(2, 20)
    session.feed([ids[:5], [1, 2]])
    scored = session.feed_all(ids[5:])
    assert scored.shape == (15, 300)
    other = model.session(1, 20)
    other.feed([ids[:5]])
    for row, token in zip(scored, ids[5:], strict=True):
        alike(row[None], other.feed([[token]]), precision)
    assert session.feed_all([]).shape == (0, 300) and not session.feed([[], []]).any()
    alike(session.feed([[], [3]])[1:], model.session(1, 3).feed([[1, 2, 3]]), precision)


@pytest.mark.parametrize("kept", [[2, 0], [1], [0, 1, 2], [0, 1], [2, 2, 0, 1, 1], []])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_kept_rows_go_on_as_before(kept: list[int], precision: Kind) -> None:
    weights = make("grouped")
    model, rows = NumpyModel(weights, precision), rows_of(weights, [4, 11, 7])
    session = model.session(3, 30)
    session.feed(rows)
    session.keep(kept)
    assert session.rows == len(kept)
    found = session.feed([[i + 1, 5] for i in range(len(kept))])
    assert found.shape == (len(kept), 512)
    for i, row in enumerate(kept):
        alike(found[[i]], model.session(1, 30).feed([[*rows[row], i + 1, 5]]), precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rewound_rows_have_forgotten(precision: Kind) -> None:
    weights = make("ours")
    model, rows = NumpyModel(weights, precision), rows_of(weights, [6, 12])
    session = model.session(2, 14)
    session.feed(rows)
    session.rewind(1, 3)
    session.rewind(0, 0)
    found = session.feed([[1, 2], [3]])
    alike(found[:1], model.session(1, 14).feed([[1, 2]]), precision)
    alike(found[1:], model.session(1, 14).feed([[*rows[1][:3], 3]]), precision)


@pytest.mark.parametrize("precision", ALL)
def test_what_is_rewound_is_not_multiplied(precision: Kind) -> None:
    weights = make("ours")
    model = NumpyModel(weights, precision)
    session = model.session(2, 40)
    session.feed([[1, 2, 7, 8, 9], [3]])
    for cache in session._caches:
        cache.numbers[0, :, 2:5] = np.nan  # tokens that went beyond all numbers
        if cache.scales is not None:
            cache.scales[0, :, :, 2:5] = np.nan
    session.rewind(0, 2)
    close(session.feed([[5], [6] * 9])[:1], model.session(1, 40).feed([[1, 2, 5]]))


# ---- libfry ---------------------------------------------------------------------------------------------------------


def same_bits(weights: Weights, precision: Kind, ids: list[int], kernels: str | None = None) -> None:
    expected = NativeModel(weights, precision, kernels).session(1, len(ids)).feed_all(ids)
    model = NumpyModel(weights, precision)
    alike(model.session(1, len(ids)).feed_all(ids), expected, precision)
    session = model.session(1, len(ids))
    alike(np.concatenate([session.feed([[token]]) for token in ids]), expected, precision)


@needs_library
@pytest.mark.parametrize("name", [*SHAPES, *ODD])
@pytest.mark.parametrize("precision", WHOLE)
def test_whole_numbers_give_the_bits_of_libfry(name: str, precision: Kind) -> None:
    weights = make(name)
    same_bits(weights, precision, text(weights, 150))


@needs_library
@pytest.mark.parametrize("precision", WHOLE)
def test_a_trained_model_gives_the_bits_of_libfry(precision: Kind) -> None:
    weights = read_weights(GOLDEN)
    for kernels in kernel_sets():
        same_bits(weights, precision, text(weights, 150), kernels)


@needs_library
@pytest.mark.parametrize("name", ["ours", "odd", "nothing fits"])
@pytest.mark.parametrize(
    ("part", "by"),
    [
        ("embed", 1e-28),
        ("embed", 1e-33),
        ("embed", 0),
        ("v_proj", 1e-30),
        ("v_proj", 1e20),
        ("q_norm", 30),
        ("gate", 1e4),
    ],
)
def test_very_small_and_large_numbers_give_the_bits_of_libfry(name: str, part: str, by: float) -> None:
    weights = make(name)
    for key, tensor in weights.tensors.items():
        if part in key:
            tensor[::2] *= np.float32(by)
    same_bits(weights, "int8", text(weights, 60))


@needs_library
@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_floats_differ_from_libfry_by_the_order_of_sums(name: str, precision: Kind) -> None:
    weights = make(name)
    model, exact = NumpyModel(weights, precision), NativeModel(weights, precision)
    apart = []
    for seed in range(9):
        ids = text(weights, 5, seed)
        expected = exact.session(1, 5).feed_all(ids)
        apart.append(float(np.abs(model.session(1, 5).feed_all(ids) - expected).max() / expected.std()))
    assert np.median(apart) < 2e-5, apart


def test_wrong_input_is_refused_and_nothing_is_read() -> None:
    weights = make("odd")
    model = NumpyModel(weights)
    session = model.session(2, 5)
    session.feed([[1, 2], [3]])
    for tokens, message in (
        ([[1]], "one list a row"), ([[1], [17]], "expected 0 to 16"), ([[1], [-1]], "expected 0 to 16"),
        ([[1], [10**30]], "expected 0 to 16"), ([[1] * 4, [1]], "holds 5"),
    ):  # fmt: skip
        with pytest.raises(SmallfryError, match=message):
            session.feed(tokens)
    with pytest.raises(SmallfryError, match="holds 5"):
        session.feed_all([1] * 4)
    for row, length in ((0, 3), (0, -1), (2, 0), (-1, 0)):
        with pytest.raises(SmallfryError, match="row"):
            session.rewind(row, length)
    for kept in ([2], [0, -1]):
        with pytest.raises(SmallfryError, match="row"):
            session.keep(kept)
    expected = model.session(1, 5).feed([[1, 2, 4]])
    close(session.feed([[4], [4]])[:1], expected)
    for size in ((0, 1), (1, 0), (1, 10**18), (10**30, 1)):
        with pytest.raises(SmallfryError, match="expected"):
            model.session(*size)
    with pytest.raises(SmallfryError, match="precision"):
        NumpyModel(weights, "fp8")  # type: ignore[arg-type]


# ---- precisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SHAPES))
def test_narrow_numbers_stay_near(name: str) -> None:
    weights = make(name)
    ids = text(weights, 64)
    exact = NumpyModel(weights).session(1, 64).feed_all(ids)
    apart = []
    for precision in NARROW:
        found = NumpyModel(weights, precision).session(1, 64).feed_all(ids)
        apart.append(float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std()))
    assert 0.001 < apart[0] < 0.03 and apart[0] < apart[1] < 0.1 and apart[1] < apart[2] < 1.0, apart


@pytest.mark.parametrize("precision", ALL)
def test_a_flat_file_is_computed_as_it_is_stored(tmp_path: Path, precision: Kind) -> None:
    weights = make("odd")
    write_flat(tmp_path / "model.fry", weights, precision)
    stored, ids = read_flat(tmp_path / "model.fry"), text(weights, 9)
    found = NumpyModel(stored).session(1, 9).feed_all(ids)
    assert (found == NumpyModel(weights, precision).session(1, 9).feed_all(ids)).all()
    for name in SHAPES:
        assert NumpyModel(make(name), precision).stored_bytes == len(to_flat(make(name), precision))
    wide = NumpyModel(stored, "fp32").session(1, 9).feed_all(ids)
    assert (wide == found).all() == (precision == "fp32")
    if stored.quantised:  # what is stored counts, not what its numbers would be rounded to again
        stored.quantised["blocks.0.o"].scales[:] *= 2
        assert not (found == NumpyModel(stored).session(1, 9).feed_all(ids)).all()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (None, "no model.safetensors and no model.safetensors.index.json"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"weight_map": 5}', "names no files of weights"),
        ('{"weight_map": {}}', "names no files of weights"),
        ('{"weight_map": {"a": "../../secret.bin"}}', "names no files of weights"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "elsewhere.safetensors"),
    ],
)
def test_a_hostile_index_is_refused_in_one_line(tmp_path: Path, index: str | None, said: str) -> None:
    config = (GOLDEN / "config.json").read_text()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(config)
    shutil.copy(GOLDEN / "model.safetensors", tmp_path / "elsewhere.safetensors")
    if index is not None:
        (tmp_path / "in" / "model.safetensors.index.json").write_text(index)
    for read in (read_weights, lambda path: checkpoint.load_weights(path, torch.float32)):
        with pytest.raises(SmallfryError, match=said) as error:
            read(tmp_path / "in")
        assert "\n" not in str(error.value)
