"""The ladder's arithmetic, held against models that are really built (on torch's meta device, so without memory)."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from smallfry.errors import SmallfryError
from smallfry.reference_models import REFERENCES, gpt2, llama, nanochat_2025, nanochat_2026
from smallfry.sizes import (
    RUNGS,
    Shape,
    estimate_seconds,
    ladder,
    parse_size,
    render_ladder,
    shape_for,
    train_efficiency,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
nn = torch.nn

VOCABS = (256, 257, 315, 512, 777, 1000, 1024, 1777, 2048, 2500, 3009, 3010, 3166, 3333, 4000, 4096)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def build_qwen3(shape: Shape) -> nn.Module:
    config = transformers.Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        tie_word_embeddings=shape.tie_embeddings,
    )
    with torch.device("meta"):
        return transformers.Qwen3ForCausalLM(config)


@pytest.mark.parametrize("vocab_size", [315, 4096])
@pytest.mark.parametrize("size", RUNGS)
def test_params_equal_the_built_qwen3(size: str, vocab_size: int) -> None:
    shape = shape_for(size, vocab_size)
    model = build_qwen3(shape)
    assert shape.params == count(model)
    by_name = dict(model.named_parameters())
    for part, key in (("attention", "_proj.weight"), ("mlp", "mlp."), ("embedding", "embed_tokens"), ("norms", "norm")):
        names = [name for name in by_name if key in name and ("mlp." in name) == (part == "mlp")]
        assert shape.params_by_part[part] == sum(by_name[name].numel() for name in names), part


def test_params_equal_the_built_qwen3_untied_with_grouped_heads() -> None:
    shape = Shape(777, 96, 3, 6, 2, 32, 160, tie_embeddings=False)
    assert shape.params == count(build_qwen3(shape))
    without_gains = Shape(777, 96, 3, 6, 2, 32, 160, tie_embeddings=False, qk_norm=False)
    assert shape.params - without_gains.params == 3 * 2 * 32


@pytest.mark.parametrize("vocab_size", VOCABS)
@pytest.mark.parametrize("size", RUNGS)
def test_every_rung_holds_every_small_vocabulary(size: str, vocab_size: int) -> None:
    shape = shape_for(size, vocab_size)
    off = abs(shape.params / parse_size(size) - 1)
    # At 0.25m the step from width 32 to 64 leaves a narrow band of vocabularies with little choice.
    assert off <= (0.10 if size == "0.25m" and vocab_size > 2800 else 0.04)
    assert shape.vocab_size == vocab_size and shape.tie_embeddings and shape.qk_norm
    assert shape.hidden_size % 32 == 0 and shape.intermediate_size % 32 == 0
    assert shape.head_dim in (32, 64) and shape.num_heads * shape.head_dim == shape.hidden_size
    assert shape.num_kv_heads == shape.num_heads
    assert 2 * shape.hidden_size <= shape.intermediate_size <= 4 * shape.hidden_size


@pytest.mark.parametrize(("size", "vocab_size"), [("1m", 8192), ("5m", 32_768), ("20m", 65_536), ("50m", 50_257)])
def test_large_vocabularies_fit_where_the_size_allows(size: str, vocab_size: int) -> None:
    assert abs(shape_for(size, vocab_size).params / parse_size(size) - 1) <= 0.03


def test_shapes_are_sensible_at_a_vocabulary_of_1024() -> None:
    shapes = {rung.name: rung.shape for rung in ladder(1024)}
    bounds = {"0.25m": (2, 4, 64, 96), "1m": (4, 5, 128, 128), "2m": (4, 6, 160, 192), "5m": (6, 6, 256, 256)}
    bounds |= {"10m": (6, 8, 320, 384), "50m": (10, 12, 512, 640), "100m": (12, 14, 768, 768)}
    for name, (shallow, deep, narrow, wide) in bounds.items():
        assert shallow <= shapes[name].num_layers <= deep, name
        assert narrow <= shapes[name].hidden_size <= wide, name
    assert all(shape.head_dim == 64 for shape in shapes.values() if shape.hidden_size >= 192)
    assert all(shape.head_dim == 32 for shape in shapes.values() if shape.hidden_size < 128)


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_the_ladder_rises(vocab_size: int) -> None:
    rungs = ladder(vocab_size)
    assert tuple(rung.name for rung in rungs) == RUNGS
    for below, above in itertools.pairwise(rungs):
        assert below.params < above.params and below.flops < above.flops and below.bytes < above.bytes
        assert below.shape.hidden_size <= above.shape.hidden_size


@settings(deadline=None, max_examples=40)
@given(vocab_size=st.integers(256, 4096), first=st.integers(250, 8000), second=st.integers(250, 8000))
def test_a_larger_size_never_has_fewer_parameters(vocab_size: int, first: int, second: int) -> None:
    small, large = sorted((first, second))
    assert shape_for(f"{small}k", vocab_size).params <= shape_for(f"{large}k", vocab_size).params


def test_neighbouring_sizes_never_step_down() -> None:
    counts = [shape_for(f"{thousands}k", 1000).params for thousands in range(900, 1300, 5)]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("size", "vocab_size"), [("50k", 4096), ("0.25m", 8192), ("1m", 50_257), ("2m", 50_257), ("5m", 151_936)]
)
def test_a_table_that_does_not_fit_names_the_largest_that_does(size: str, vocab_size: int) -> None:
    with pytest.raises(SmallfryError) as error:
        shape_for(size, vocab_size)
    message = str(error.value)
    assert "\n" not in message and size in message and f"{vocab_size:,}" in message
    largest = int(message.split("the largest that fits is ")[1].split(":")[0].replace(",", ""))
    assert largest < vocab_size
    assert abs(shape_for(size, largest).params / parse_size(size) - 1) <= 0.10
    with pytest.raises(SmallfryError):
        shape_for(size, largest + 1)


@pytest.mark.parametrize("size", ["", "m", "1", "1g", "-1m", "nan", "infm", "1e3k", "1m5", "0m", "49k", "1.1b", "²m"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(SmallfryError, match=r"size .*(50k to 1b|use a rung)"):
        shape_for(size, 1024)


def test_sizes_are_read_in_either_case() -> None:
    assert [parse_size(size) for size in ("750k", "3.5m", " 1M ", ".5m", "0.1B")] == [
        750_000,
        3_500_000,
        1_000_000,
        500_000,
        100_000_000,
    ]


@pytest.mark.parametrize("vocab_size", [-1, 0, 1])
def test_a_vocabulary_of_nothing_is_refused(vocab_size: int) -> None:
    with pytest.raises(SmallfryError, match="expected at least 2"):
        shape_for("1m", vocab_size)


def test_a_shape_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="divide"):
        Shape(256, 96, 2, 3, 2, 32, 256)
    with pytest.raises(ValueError, match="at least 1"):
        Shape(256, 96, 0, 3, 3, 32, 256)


def test_flops_follow_the_matrix_products_counted_one_by_one() -> None:
    shape, seq_len = Shape(300, 64, 2, 2, 1, 32, 160), 128
    columns_times_rows = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 160) + 300 * 64
    assert shape.matmul_params == columns_times_rows
    # Scores and the weighted sum: one multiply-add a head dimension and visible position each, (T + 1) / 2 on average.
    attention = 2 * 2 * 2 * 2 * 32
    exact = [2 * columns_times_rows + attention * (position + 1) for position in range(seq_len)]
    assert [shape.inference_flops_per_token(position + 1) for position in range(seq_len)] == exact
    assert shape.flops_per_token(seq_len) == 6 * columns_times_rows + 3 * attention * seq_len // 2
    assert shape.flops_per_token(seq_len) == pytest.approx(3 * sum(exact) / seq_len, rel=0.005)
    untied = Shape(300, 64, 2, 2, 1, 32, 160, tie_embeddings=False)
    assert untied.flops_per_token(seq_len) == shape.flops_per_token(seq_len)


def test_bytes_equal_the_built_model() -> None:
    shape = shape_for("0.25m", 315)
    parameters = list(build_qwen3(shape).parameters())
    assert shape.bytes("fp32") == sum(4 * p.numel() for p in parameters)
    assert shape.bytes("bf16") == sum(2 * p.numel() for p in parameters)
    quantised = sum(p.numel() + 4 * p.shape[0] if p.dim() == 2 else 4 * p.numel() for p in parameters)
    assert shape.bytes("int8") == quantised
    assert shape.kv_cache_bytes(100) == 100 * shape.num_layers * 2 * shape.num_kv_heads * shape.head_dim * 2
    assert shape.kv_cache_bytes(100, "fp32") == 2 * shape.kv_cache_bytes(100)


class Nanochat2025(nn.Module):
    """The weights of nanochat's first commit; norms have no gains."""

    def __init__(self, depth: int, vocab_size: int) -> None:
        super().__init__()
        width = 64 * depth
        self.wte, self.head = nn.Embedding(vocab_size, width), nn.Linear(width, vocab_size, bias=False)
        shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
        self.blocks = nn.ModuleList(nn.Linear(*shape, bias=False) for _ in range(depth) for shape in shapes)


class Nanochat2026(Nanochat2025):
    """July 2026: heads of 128, a value embedding and its gate on every other layer, scalars, smear, backout."""

    def __init__(self, depth: int, vocab_size: int) -> None:
        super().__init__((depth + 1) // 2 * 2, vocab_size)  # the width is rounded up to a multiple of 128
        width = self.wte.embedding_dim
        self.blocks = self.blocks[: 6 * depth]
        layers = [layer for layer in range(depth) if layer % 2 == (depth - 1) % 2]
        self.value_embeds = nn.ModuleList(nn.Embedding(vocab_size, width) for _ in layers)
        self.gates = nn.ModuleList(nn.Linear(12, width // 128, bias=False) for _ in layers)
        self.resid, self.x0 = nn.Parameter(torch.ones(depth)), nn.Parameter(torch.ones(depth))
        self.smear_gate = nn.Linear(24, 1, bias=False)
        self.smear, self.backout = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))


def test_nanochat_references_equal_built_models() -> None:
    with torch.device("meta"):
        for depth in (1, 2, 4, 6, 20):
            for vocab_size in (1024, 65_536):
                assert nanochat_2025(depth, vocab_size).params == count(Nanochat2025(depth, vocab_size))
                assert nanochat_2026(depth, vocab_size).params == count(Nanochat2026(depth, vocab_size))
        assert nanochat_2026(24).params == count(Nanochat2026(24, 32_768))


@pytest.mark.parametrize("name", ["GPT-2", "GPT-2 XL", "Llama-2-7B"])
def test_gpt2_and_llama_references_equal_built_models(name: str) -> None:
    configs = {
        "GPT-2": transformers.GPT2Config(),
        "GPT-2 XL": transformers.GPT2Config(n_embd=1600, n_layer=48, n_head=25),
        "Llama-2-7B": transformers.LlamaConfig(
            vocab_size=32_000,
            hidden_size=4096,
            num_hidden_layers=32,
            intermediate_size=11_008,
            tie_word_embeddings=False,
        ),
    }
    classes = {"GPT": transformers.GPT2LMHeadModel, "Lla": transformers.LlamaForCausalLM}
    with torch.device("meta"):
        model = classes[name[:3]](configs[name])
    assert {row.name: row.params for row in REFERENCES}[name] == count(model)


def test_references_equal_the_published_counts() -> None:
    published = {
        nanochat_2025(20): 560_988_160,
        nanochat_2025(4): 36_700_160,
        nanochat_2026(4): 36_700_242,
        nanochat_2026(24): 1_384_122_122,
        gpt2("GPT-2", 768, 12): 124_439_808,
        gpt2("GPT-2 XL", 1600, 48): 1_557_611_200,
        llama("Llama-2-7B", 4096, 32, 11_008): 6_738_415_616,
    }
    assert {row: row.params for row in published} == published
    assert nanochat_2025(2).tables == 2 * 65_536 * 128
    assert nanochat_2026(2).tables == 3 * 32_768 * 128
    assert gpt2("GPT-2", 768, 12).tables == (50_257 + 1024) * 768


def test_formulas_of_reference_parts_give_their_counts() -> None:
    # GPT-2 small with the letters of its formulas filled in: V vocabulary, T positions, C width, L layers.
    values = {"V": 50_257, "T": 1024, "C": 768, "L": 12}
    for part in gpt2("GPT-2", 768, 12).parts:
        text = "".join(f"*{values[c]}" if c in values else f"*{c}" if c == "(" else c for c in part.formula)
        terms = text.replace("(*", "(").replace("+ *", "+ ").removeprefix("*")
        assert eval(terms, {"__builtins__": {}}) == part.params, part


def test_time_scales_with_work_and_falls_with_speed() -> None:
    shape = shape_for("1m", 1024)
    base = estimate_seconds(shape, 10**7, 1e11)
    assert estimate_seconds(shape, 2 * 10**7, 1e11) == pytest.approx(2 * base)
    assert estimate_seconds(shape, 10**7, 2e11) == pytest.approx(base / 2)
    whole = estimate_seconds(shape, 10**7, 1e11, efficiency=[(1.0, 1.0)])
    assert whole == pytest.approx(10**7 * shape.flops_per_token(256) / 1e11)
    with pytest.raises(ValueError, match="positive"):
        estimate_seconds(shape, 10, 0.0)


def test_efficiency_passes_through_its_table_and_never_falls_with_size() -> None:
    table = ((1e6, 0.4), (1e7, 0.6))
    assert [train_efficiency(size, table) for size in (10**6, 10**7, 10**9)] == pytest.approx([0.4, 0.6, 0.6])
    assert train_efficiency(round(math.sqrt(1e13)), table) == pytest.approx(0.5, abs=1e-6)
    assert train_efficiency(10**5, table) == pytest.approx(0.2)
    assert train_efficiency(1, table) == 0.05
    shares = [train_efficiency(parse_size(name)) for name in RUNGS]
    assert shares == sorted(shares)
    for broken in ((), ((1e6, 0.5), (1e5, 0.6)), ((1e6, 1.5),)):
        with pytest.raises(ValueError, match="efficiency table"):
            train_efficiency(10**6, broken)


def test_a_vocabulary_too_large_for_small_rungs_leaves_the_others() -> None:
    rungs = ladder(65_536)
    assert rungs[-1].name == "100m" and rungs[0].name != "0.25m"
    with pytest.raises(SmallfryError, match="100m"):
        ladder(10_000_000)


@pytest.mark.parametrize("width", [80, 220])
def test_the_table_shows_every_rung_and_reference(width: int) -> None:
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(render_ladder(8192, tokens=10**6, flops_per_second=1e11))
    text = " ".join(capture.get().split())
    assert "…" not in text
    for rung in ladder(8192):
        assert f"{rung.params:,}" in text
    for row in REFERENCES:
        assert row.name in text and f"{row.params:,}" in text
    assert "Too small for this vocabulary: 0.25m" in text and "1,000,000 tokens on one core at 100 GFLOP/s" in text
