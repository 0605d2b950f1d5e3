"""Benchmark suites: the prompts of the field, branches scored as if alone, controls where they must be."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallfry.architecture import runs_here
from smallfry.checkpoint import save_model
from smallfry.cli import main
from smallfry.engine.decoding import Sampling, pick
from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.evals.suites import prompts, sources, transformer
from smallfry.evals.suites.jobs import evaluate
from smallfry.evals.suites.measure import compare, majority, measure_suite, measure_task
from smallfry.evals.suites.models import HfScorer, load_language_model, untrained
from smallfry.evals.suites.prompts import Task, ask
from smallfry.evals.suites.scoring import Branch, Group, GuessingModel, Writing, in_threads, write
from smallfry.evals.suites.text import bits_per_byte, windows
from smallfry.evals.suites.texts import OwnTexts
from smallfry.evals.suites.transformer import TransformerScorer
from smallfry.forms import build_form
from smallfry.job import Job
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.sizes import Shape
from smallfry.tokenizer import BOS, END, PAD, Tokenizer

DATA = Path(__file__).parents[2] / "shared" / "data" / "evals"
TOKENIZER = Tokenizer.train([" the small dog saw a big cat and the answer is yes"] * 40, 300)


def model(context: int = 512, seed: int = 0) -> TransformerScorer:
    torch.set_num_threads(1)
    net = Transformer(Shape(TOKENIZER.vocab_size, 32, 2, 2, 1, 16, 64))
    net.init_weights(torch.Generator().manual_seed(seed))
    return TransformerScorer("tiny", net.eval(), OwnTexts(TOKENIZER), context)


MC = Task("mc", "multiple_choice", tuple({"query": f"Q{i}?", "choices": ["a b", "c"], "gold": i % 2} for i in range(6)),
          2, "\nAnswer: ", {"v1": 0.5, "v2": 0.5})  # fmt: skip
SCHEMA = Task(
    "schema", "schema", ({"context_options": ["the dog", "a cat"], "continuation": "ran off", "gold": 1},) * 3
)
LM = Task("lm", "language_modeling", ({"context": "one two ", "continuation": "three"},) * 3, 1)


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_prompts_are_written_as_the_field_writes_them() -> None:
    shots = "Q1?\nAnswer: c\n\nQ2?\nAnswer: a b\n\n"
    asked = prompts.render(MC, MC.rows[0], [MC.rows[1], MC.rows[2]])
    assert asked == [f"{shots}Q0?\nAnswer: a b", f"{shots}Q0?\nAnswer: c"]
    assert prompts.render(SCHEMA, SCHEMA.rows[0], []) == ["the dog ran off", "a cat ran off"]
    asked = prompts.render(LM, LM.rows[0], [LM.rows[1]])
    assert asked == ["one two three\n\none two", "one two three\n\none two three"]


def test_examples_are_seeded_by_the_question_and_never_hold_it() -> None:
    for index in range(6):
        drawn = prompts.examples_for(MC, index)
        assert len(drawn) == 2 and MC.rows[index] not in drawn and drawn == prompts.examples_for(MC, index)


def test_whole_examples_are_left_out_where_the_context_is_short() -> None:
    assert ask(MC, 0, model()).shots == 2
    whole = len(
        model().texts.start() + model().texts.encode(prompts.render(MC, MC.rows[0], prompts.examples_for(MC, 0))[0])
    )
    short = ask(MC, 0, model(context=whole - 1))
    assert short.shots == 1 and short.cut == 0
    tiny = ask(MC, 0, model(context=6))
    assert tiny.shots == 0 and tiny.cut > 0
    assert all(len(tiny.group.prefix) + len(b.ids) <= 6 for b in tiny.group.branches)


def test_schemas_score_the_common_end_and_choices_what_follows_the_common_beginning() -> None:
    group = ask(SCHEMA, 0, model()).group
    for branch in group.branches:
        assert TOKENIZER.decode(branch.ids[branch.scored_from :]).strip() == "ran off"
    group = ask(MC, 0, model()).group
    ends = [TOKENIZER.decode(b.ids[b.scored_from :]).strip() for b in group.branches]
    assert ends == ["a b", "c"] and group.prefix[0] == BOS


# ---- scoring --------------------------------------------------------------------------------------------------------


def test_branches_in_one_row_score_as_each_would_alone() -> None:
    lm = model()
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(20):
        prefix = (BOS, *rng.integers(10, 290, int(rng.integers(0, 12))).tolist())
        lengths = rng.integers(1, 7, int(rng.integers(1, 5)))
        branches = [tuple(rng.integers(10, 290, n).tolist()) for n in lengths]
        groups.append(Group(prefix, tuple(Branch(b, int(rng.integers(0, len(b)))) for b in branches)))
    for group, scored in zip(groups, lm.score(groups), strict=True):
        for branch, found in zip(group.branches, scored, strict=True):
            ids = [*group.prefix, *branch.ids]
            with torch.inference_mode():
                logits = lm.model.logits(lm.model(torch.tensor([ids])))[0]
            first = len(group.prefix) + branch.scored_from
            rows, targets = logits[first - 1 : -1], torch.tensor(ids[first:])
            expected = torch.log_softmax(rows, -1).gather(1, targets[:, None]).sum()
            assert found.logprob == pytest.approx(float(expected), abs=1e-4)
            assert found.tokens == len(targets) and found.greedy == bool((rows.argmax(-1) == targets).all())


def test_transformers_scores_alike(tmp_path: Path) -> None:
    lm = model()
    save_model(tmp_path, lm.model, TOKENIZER, {"name": "tiny"})
    (tmp_path / "smallfry.json").unlink()
    other = HfScorer(tmp_path)
    assert other.texts.encode("the small dog") == lm.texts.encode("the small dog")
    groups = [Group((BOS, 20, 30), (Branch((40, 50)), Branch((60,)))), Group((BOS,), (Branch((70, 80, 90), 1),))]
    for mine, theirs in zip(lm.score(groups), other.score(groups), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=1e-3) and (a.tokens, a.greedy) == (b.tokens, b.greedy)
    assert untrained(other).score(groups) != other.score(groups)


def hf_models() -> dict[str, Any]:
    """Small models of every architecture that runs here, with what each may do its own way."""
    import transformers as hf

    size: dict[str, Any] = {
        "vocab_size": TOKENIZER.vocab_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256, "head_dim": 8,
        "bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 500.0}
    return {
        "llama": hf.LlamaForCausalLM(hf.LlamaConfig(**size, rope_parameters=rope, rms_norm_eps=1e-3)),
        "tied": hf.LlamaForCausalLM(hf.LlamaConfig(**size, tie_word_embeddings=True)),
        "qwen2": hf.Qwen2ForCausalLM(hf.Qwen2Config(**size)),
        "qwen3": hf.Qwen3ForCausalLM(hf.Qwen3Config(**size)),
    }


@pytest.mark.parametrize("kind", ["llama", "tied", "qwen2", "qwen3"])
def test_models_of_others_run_on_our_transformer(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(3)
    net = hf_models()[kind].eval()
    for name, parameter in net.named_parameters():  # fresh gains of 1 and biases of 0 would hide a mistake
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, float("norm" in name), 0.3)
    save_model(tmp_path, model().model, TOKENIZER, {})
    (tmp_path / "smallfry.json").unlink()
    (tmp_path / "model.safetensors").unlink()
    net.save_pretrained(tmp_path, max_shard_size="20KB" if kind != "tied" else "1GB")  # one file, or several
    lm = load_language_model(tmp_path)
    assert isinstance(lm, TransformerScorer) and lm.context == 256
    ids = torch.randint(0, TOKENIZER.vocab_size, (2, 200))
    with torch.inference_mode():
        ours, theirs = lm.model.logits(lm.model(ids)), net(ids).logits
    assert torch.allclose(ours, theirs, atol=2e-4), float((ours - theirs).abs().max())
    fresh = untrained(lm)
    assert isinstance(fresh, TransformerScorer) and fresh.model.variant == lm.model.variant


def test_what_our_transformer_does_not_compute_is_left_to_transformers() -> None:
    assert runs_here({"model_type": "llama"})
    for odd in (
        {"model_type": "gpt2"}, {"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}},
        {"model_type": "llama", "attention_bias": True}, {"model_type": "qwen2", "use_sliding_window": True},
        {"model_type": "qwen3", "hidden_act": "gelu"}, {"model_type": "llama", "quantization_config": {"bits": 4}},
    ):  # fmt: skip
        assert not runs_here(odd), odd


@given(
    st.lists(st.text(alphabet="ab é1 \n\t.'\r\u00a0\u2028", max_size=30), min_size=1, max_size=4), st.text(max_size=30)
)
def test_texts_that_begin_alike_are_cut_into_the_same_tokens(ends: list[str], start: str) -> None:
    texts = [f"{start} the dog\nsaw a big cat {end}" for end in ends]
    assert TOKENIZER.encode_all(texts) == [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode_all(ends) == [TOKENIZER.encode(text) for text in ends]


def test_threads_keep_the_order_and_begin_no_more_than_is_asked_for() -> None:
    begun = []

    def work(n: int) -> int:
        begun.append(n)
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(in_threads(work, range(20), 3)) == [n * n for n in range(20)]
    begun.clear()
    results = in_threads(work, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()
    assert len(begun) < 20
    two, one = model(), model()
    two.workers, one.workers = 2, 1
    assert np.array_equal(measure_task(two, MC).right, measure_task(one, MC).right)
    written = write(two, ["the dog", "a cat saw", "the"], Writing(8))
    assert written == write(one, ["the dog", "a cat saw", "the"], Writing(8))


def test_sampled_answers_depend_on_the_seed_and_not_on_their_company() -> None:
    lm = model()
    prompts = ["the small dog", "a big cat", "the answer"]
    drawn = write(lm, prompts, Writing(12, sampling=Sampling(temperature=1.0, seed=1)))
    assert drawn == write(lm, prompts, Writing(12, sampling=Sampling(temperature=1.0, seed=1)))
    assert drawn != write(lm, prompts, Writing(12, sampling=Sampling(temperature=1.0, seed=2)))
    assert drawn[:1] == write(lm, prompts[:1], Writing(12, sampling=Sampling(temperature=1.0, seed=1)))
    assert write(lm, prompts, Writing(12, sampling=Sampling(temperature=1e-4))) == write(lm, prompts, Writing(12))
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    draws = np.random.default_rng(0)
    counts = np.bincount([pick(logits, Sampling(1.0, 0.75), draws) for _ in range(4000)], minlength=4) / 4000
    assert counts[2:].sum() == 0 and counts[0] == pytest.approx(0.625, abs=0.03)


def test_every_token_of_a_text_is_scored_once_and_bits_are_per_byte() -> None:
    ids = list(range(10, 110))
    parts = windows(ids, [BOS], 16)
    assert [t for g in parts for t in g.branches[0].ids] == ids
    assert all(len(g.prefix) + len(g.branches[0].ids) <= 16 for g in parts)
    text, other = "the small dog saw a big cat. " * 400, "another text of cats and dogs"
    found = bits_per_byte(model(), [text, other])
    assert found.documents == 2 and found.ci is not None and found.ci[0] < found.score < found.ci[1]
    assert found.n_bytes == len(text) + len(other)
    assert bits_per_byte(model(), [other]).ci is None


def test_what_is_written_keeps_its_first_spaces_and_fits_a_short_context(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model(context=32)
    texts = write(lm, ["def f(x):\n"] * 2, Writing(200))  # more than half of the context is never asked for
    assert len(texts) == 2
    code = TOKENIZER.encode("    return x")
    engine = SimpleNamespace(generate=lambda prompts, *_: [SimpleNamespace(ids=code)] * len(prompts))
    monkeypatch.setattr(transformer, "Engine", lambda *_: engine)
    assert write(lm, ["def f(x):\n"], Writing(20)) == ["    return x"]


# ---- results --------------------------------------------------------------------------------------------------------


def test_guessing_scores_its_floor_and_a_hopeless_task_is_stopped() -> None:
    rows = tuple({"query": f"Q{i}", "choices": ["a", "b", "c", "d"], "gold": i % 4} for i in range(2000))
    guessed = measure_task(GuessingModel(model()), Task("four", "multiple_choice", rows, floors={"v1": 0.25}))
    low, high = guessed.interval(0.999)
    assert low < 0.25 < high and abs(guessed.centered("v1")) < 0.05
    free = tuple({"context": f"c {i}", "continuation": "zzz"} for i in range(2000))
    hopeless = measure_task(GuessingModel(model()), Task("free", "language_modeling", free, floors={"v1": 0.0}))
    assert hopeless.stopped and hopeless.n < 2000 and hopeless.accuracy == 0


def test_majority_and_comparison() -> None:
    result = measure_suite("s", model(), [MC, SCHEMA])
    assert [t.name for t in result.tasks] == ["mc", "schema"]
    assert majority(MC).accuracy == 0.5 and majority(SCHEMA).accuracy == 1.0
    same = compare(result, result)
    assert all(c.paired.difference == 0 and c.adjusted == 1.0 for c in same)
    low, high = result.interval()
    assert low < result.score() < high


# ---- data and command line ------------------------------------------------------------------------------------------


def folder(tmp_path: Path) -> Path:
    pairs = [
        {"sentence_good": f"the dog {i} runs", "sentence_bad": f"the dog {i} run", "UID": f"p{i % 2}"} for i in range(8)
    ]
    with gzip.open(tmp_path / "blimp.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(p) + "\n" for p in pairs)
    return tmp_path


def test_blimp_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_model(tmp_path / name, model(seed=seed).model, TOKENIZER, {"name": name})
    data = str(folder(tmp_path))
    args = [
        "smallfry",
        "eval",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--suite",
        "blimp",
        "--data-dir",
        data,
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", args)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["suite"] == "blimp" and len(found["tasks"]) == 2 and set(found["controls"]) == {
        "guessing", "majority", "untrained",
    }  # fmt: skip
    assert found["controls"]["majority"]["score"] == 0.5
    assert {c["name"] for c in found["comparison"]} == {"p0", "p1"}


def test_missing_data_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    with pytest.raises(SmallfryError, match="holds no benchmark data"):
        sources.Data.find(tmp_path)
    (tmp_path / "blimp.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(SmallfryError, match="cannot be read"):
        sources.blimp_tasks(sources.Data.find(tmp_path))
    with pytest.raises(SmallfryError, match="no such file"):
        sources.lambada_tasks(sources.Data.find(tmp_path))


def test_a_model_that_is_not_there_is_said_before_any_data_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources.Data, "find", lambda *_: pytest.fail("looked for data"))
    monkeypatch.setattr(sys, "argv", ["smallfry", "eval", str(tmp_path / "none"), "--suite", "blimp"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "no such directory; expected a directory with" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.exists(), reason="needs the benchmark data beside the checkout")
def test_core_has_the_field_s_tasks_and_a_guesser_scores_nothing() -> None:
    tasks, missing = sources.core_tasks(sources.Data(DATA))
    assert len(tasks) + len(missing) == 22 and "coqa" in missing
    by_name = {t.name: t for t in tasks}
    assert by_name["hellaswag"].shots == 10 and len(by_name["hellaswag"].rows) == 10_042
    assert by_name["commonsense_qa"].floors == pytest.approx({"v1": 0.2, "v2": 0.403})
    expected = {"v1": 0.0, "v2": 0.0}
    for task in tasks:  # what uniform guessing must give, from the numbers of choices alone
        chance = float(np.mean([1 / n for n in task.choices])) if task.type != "language_modeling" else 0.0
        for version, floor in (task.floors or {}).items():
            expected[version] += (chance - floor) / (1 - floor) / 22
    assert expected["v1"] == pytest.approx(-0.001, abs=0.003) and expected["v2"] == pytest.approx(-0.026, abs=0.003)


@pytest.mark.skipif(not DATA.exists() or not os.environ.get("CI"), reason="needs the benchmark data, and time")
def test_blimp_is_sixty_seven_paradigms() -> None:
    tasks = sources.blimp_tasks(sources.Data(DATA))
    assert len(tasks) == 67 and all(len(t.rows) == 1000 for t in tasks)


def test_a_job_is_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"input": f"the {c} thing {i % 9}", "output": c} for i in range(120) for c in ("red", "blue", "green")]
    path = tmp_path / "colours.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    job = Job.load(path)
    form = build_form(job, "units", 300, True, None)
    for name, seed in (("a", 1), ("b", 2)):
        net = Transformer(Shape(form.tokenizer.vocab_size, 32, 2, 2, 1, 16, 64))
        net.init_weights(torch.Generator().manual_seed(seed))
        ModelPredictor(name, TorchModel(net.eval()), form, 4).save(
            tmp_path / name, net, {"job": {"hashes": job.hashes()}}
        )
    models = [str(tmp_path / name) for name in ("a", "b")]
    monkeypatch.setattr(sys, "argv", ["smallfry", "eval", *models, "--suite", str(path), "--limit", "20", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["suite"] == "colours" and found["n"] == 20
    assert {"macro_f1", "ece", "accuracy_at_0.5"} <= set(found["metrics"])
    assert {c["name"] for c in found["controls"]} == {"untrained", "majority", "guessing"}
    assert not found["warnings"]
    low, high = found["comparison"]["ci"]
    assert low <= found["score"] - found["other"]["score"] <= high
    save_model(tmp_path / "plain", model().model, TOKENIZER, {"name": "plain"})
    (tmp_path / "plain" / "smallfry.json").unlink()
    elsewhere = evaluate(Job.load(path, seed=1), [tmp_path / "a"], None, False)
    assert "may have been trained on some of them" in elsewhere["warnings"][0]
    with pytest.raises(SmallfryError, match="has no job"):
        evaluate(job, [tmp_path / "plain"], None, False)


def test_an_interval_of_bits_is_over_documents() -> None:
    from smallfry.evals.statistics import bootstrap_statistic
    from smallfry.evals.suites.text import bits_rate

    golden = load_language_model(Path(__file__).parent / "golden" / "model")
    texts = [
        f"{i} {word} " * 200 for i, word in enumerate(("red", "green", "blue", "black", "white", "grey", "pink", "x"))
    ]
    found = bits_per_byte(golden, texts)  # of several windows each, which are alike
    assert found.ci == bootstrap_statistic(found.sums, bits_rate) and len(found.sums) == 8
    one = bits_per_byte(golden, ["".join(texts)])
    assert one.ci is not None and one.ci[1] - one.ci[0] < found.ci[1] - found.ci[0]  # of windows, for want of documents


@pytest.mark.parametrize("broken", [b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 40, b"\x1f\x8b\x08\0"])
def test_damaged_gzip_is_told_in_a_line(tmp_path: Path, broken: bytes) -> None:
    from smallfry.evals.suites.contamination import training_texts
    from smallfry.evals.suites.sources import read_rows
    from smallfry.evals.suites.text import read_documents

    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(broken)
    for read in (read_rows, read_documents, lambda p: list(training_texts(p))):
        with pytest.raises(SmallfryError) as told:
            read(path)
        assert "\n" not in str(told.value)
