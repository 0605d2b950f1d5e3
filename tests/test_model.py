"""The transformer and its directory against transformers' own Qwen3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smallfry.architecture import hf_config
from smallfry.checkpoint import load_model, save_model, save_tensors, to_hf_state
from smallfry.errors import SmallfryError
from smallfry.model import Cache, MaskPool, RmsNorm, Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train([" a small dog", " a big cat"] * 20, 280)
SHAPE = Shape(
    vocab_size=TOKENIZER.vocab_size, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    intermediate_size=96,
)  # fmt: skip


def make(dropout: float = 0.0) -> Transformer:
    model = Transformer(SHAPE, dropout)
    model.init_weights(torch.Generator().manual_seed(3))
    with torch.no_grad():  # gains of one would hide a gain in the wrong place
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.copy_(1.0 + 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    return model.eval()


def test_parameters_are_the_ladder_s() -> None:
    assert sum(p.numel() for p in make().parameters()) == SHAPE.params


def test_logits_equal_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = make()
    save_model(tmp_path, model, TOKENIZER, {"name": "x"})
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(0, SHAPE.vocab_size, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine = model.logits(model(ids))
        other = theirs(ids).logits
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_transformers_tokenizer_and_chat_template_give_our_prompt(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(tmp_path, make(), TOKENIZER, {"name": "x"})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = " a small 42 dogs"
    assert theirs(text)["input_ids"] == TOKENIZER.encode(text)
    shown = theirs.apply_chat_template(
        [{"role": "user", "content": "a dog"}], add_generation_prompt=True, tokenize=False
    )
    assert shown == "<|user|> a dog<|assistant|>"


def test_cached_steps_equal_one_pass_at_mixed_positions() -> None:
    model = make()
    ids = torch.randint(0, SHAPE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(ids)
        cache = Cache(SHAPE, 2, 16, torch.float32, torch.device("cpu"))
        # Row 0 reads 5 tokens and row 1 reads 3 (padded to 5): from then on they stand at different places.
        first = ids[:, :5].clone()
        first[1, 3:] = 4
        model(first, cache, torch.arange(5).expand(2, 5))
        places = torch.tensor([5, 3])
        for _ in range(6):
            step = ids[torch.arange(2), places][:, None]
            hidden = model(step, cache, places[:, None])
            torch.testing.assert_close(hidden[:, 0], whole[torch.arange(2), places], rtol=1e-4, atol=1e-4)
            places = places + 1


def test_the_future_is_hidden() -> None:
    model = make()
    ids = torch.randint(0, SHAPE.vocab_size, (1, 10), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 6:] = (other[0, 6:] + 1) % SHAPE.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, :6], model(other)[:, :6])
        assert not torch.allclose(model(ids)[:, 6:], model(other)[:, 6:])


def test_rms_norm_gradient() -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    gain = torch.randn(8, dtype=torch.float64, requires_grad=True)

    def reference(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (8,), gain, 1e-6)

    mine = RmsNorm.apply(x, gain, 1e-6)
    torch.testing.assert_close(mine, reference(x, gain), rtol=1e-6, atol=1e-6)
    weight = torch.randn(3, 5, 8, dtype=torch.float64)
    got = torch.autograd.grad((mine * weight).sum(), (x, gain))
    want = torch.autograd.grad((reference(x, gain) * weight).sum(), (x, gain))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_masks_keep_the_mean_and_follow_the_seed() -> None:
    drop = MaskPool(0.25)
    x = torch.ones(200, 300)
    drop.rng.seed("0/1/2")
    one = drop(x)
    drop.rng.seed("0/1/2")
    assert torch.equal(one, drop(x))
    assert not torch.equal(one, drop(x))
    assert abs(float(one.mean()) - 1.0) < 0.02
    assert abs(float((one == 0).float().mean()) - 0.25) < 0.01


def test_directories_read_back_to_the_bit(tmp_path: Path) -> None:
    model = make().to(torch.bfloat16)
    save_model(tmp_path, model, TOKENIZER, {"name": "x"})
    again, card = load_model(tmp_path)
    assert card["name"] == "x"
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_config_is_qwen3() -> None:
    config = hf_config(SHAPE, "bfloat16")
    assert config["model_type"] == "qwen3" and config["dtype"] == "bfloat16"
    assert set(to_hf_state(make())) >= {"model.layers.1.self_attn.q_norm.weight", "model.embed_tokens.weight"}


def break_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"\xff" * 100)


def drop_weight(path: Path) -> None:
    state = load_file(path / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, path / "model.safetensors")


def reshape_weight(path: Path) -> None:
    state = load_file(path / "model.safetensors")
    state["model.norm.weight"] = torch.ones(7)
    save_file(state, path / "model.safetensors")


def foreign_config(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))


def broken_config(path: Path) -> None:
    (path / "config.json").write_text("{")


def no_card(path: Path) -> None:
    (path / "smallfry.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_weights, "cannot read the weights"),
        (drop_weight, "model.norm.weight is missing"),
        (reshape_weight, r"model.norm.weight is \(7,\), expected \(64,\)"),
        (foreign_config, "expected a plain qwen3, qwen2 or llama model .* got 'gpt2'"),
        (broken_config, "not readable as JSON"),
        (no_card, "no such file"),
    ],
)
def test_damaged_directories_are_refused_in_one_line(tmp_path: Path, damage: object, message: str) -> None:
    save_model(tmp_path, make(), TOKENIZER, {"name": "x"})
    assert callable(damage)
    damage(tmp_path)
    with pytest.raises(SmallfryError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_a_save_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.0badcafe.part").write_bytes(b"half")
    (tmp_path / ".other.safetensors.0badcafe.part").write_bytes(b"another's")
    save_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(3)})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.safetensors.0badcafe.part", "model.safetensors"]
