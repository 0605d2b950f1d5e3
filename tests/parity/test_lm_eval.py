"""The same model directory, asked the same items by lm-eval and by smallfry (`make test-parity`).

``SMALLFRY_PARITY_MODEL`` names a directory to ask; by default one with random weights is made. ``SMALLFRY_PARITY_OUT``
names a file that the page docs/results/parity.md is written to.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smallfry.checkpoint import save_model
from smallfry.evals.suites import sources
from smallfry.evals.suites.models import HfScorer, load_language_model
from smallfry.evals.suites.prompts import Task, ask, shuffled
from smallfry.evals.suites.scoring import LanguageModel, Scored
from smallfry.model import Transformer
from smallfry.sizes import shape_for
from smallfry.tokenizer import Tokenizer

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'smallfry[harness]'")
DATA = Path(__file__).parents[3] / "shared" / "data" / "evals"
pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="needs the benchmark data beside the checkout"),
    pytest.mark.filterwarnings("ignore"),
]
LEAST = 0.995
NOISE = 1e-3  # nats by which the order of a sum's terms may move a log-probability in fp32
CORE = ("arc_easy", "arc_challenge", "piqa", "openbookqa", "winogrande")
FILES = {"openbookqa": "openbook_qa"}
found: list[Row] = []


@dataclass
class Row:
    """One line of the page."""

    task: str
    n: int
    alike: int  # items whose choices begin (in winogrande: whose contexts end) with the same token
    logprob: float  # largest difference of a log-probability less that of the first choice, nats
    same_sum: float
    same_bytes: float
    same_tokens: float
    ours: float
    theirs: float


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory: what smallfry adds to it is taken away, so that both read the same files."""
    path = tmp_path_factory.mktemp("parity")
    if given := os.environ.get("SMALLFRY_PARITY_MODEL"):
        for file in Path(given).iterdir():
            if file.is_file() and file.name != "smallfry.json":
                (path / file.name).write_bytes(file.read_bytes())
        return path
    texts = [str(row["query"]) for row in sources.read_rows(DATA / "core" / "hellaswag.jsonl.gz")[:2000]]
    tokenizer = Tokenizer.train(texts, 1024)
    model = Transformer(shape_for("1m", tokenizer.vocab_size))
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.embed.weight.mul_(5)  # otherwise every logit is nearly the same
    save_model(path, model, tokenizer, {})
    (path / "smallfry.json").unlink()
    return path


@pytest.fixture(scope="session")
def models(directory: Path) -> tuple[LanguageModel, Any]:
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(str(directory), dtype="float32", batch_size=32, device="cpu", add_bos_token=True)
    return load_language_model(directory), theirs


@pytest.fixture(scope="session", autouse=True)
def page(directory: Path) -> Iterator[None]:
    yield
    if found and (out := os.environ.get("SMALLFRY_PARITY_OUT")):
        Path(out).write_text(render(found), encoding="utf-8")


def render(rows: list[Row]) -> str:
    """docs/results/parity.md."""
    import transformers

    lines = [
        "# The same items in lm-eval and in smallfry", "",
        "Written by `SMALLFRY_PARITY_MODEL=DIR SMALLFRY_PARITY_OUT=docs/results/parity.md make test-parity` with "
        f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}; "
        "both in fp32, no examples, a bos token first.", "",
        "Same choice: by the sum of log-probabilities (lm-eval's `acc`), and, where the choices begin with different "
        "tokens, by the sum over bytes (`acc_norm`) and by the mean over tokens (DCLM, nanochat and `smallfry eval`). "
        "Where choices begin alike, lm-eval scores those tokens too and DCLM does not: the sum moves for all choices "
        "by the same amount, a mean is not, so the two means are two rules there and are not compared. In winogrande "
        "DCLM and nanochat score what the texts end with, which is more than the continuation where two names end with "
        "the same token: those items are two rules too. For lambada the "
        "choice is whether greedy decoding writes the word. The largest difference is that of a log-probability less "
        "the first choice's, in nats. The last two columns are accuracies by the sum. Of blimp the first 100 pairs of "
        f"each paradigm are asked. Every choice that differs by the sum is between two answers that are less than "
        f"{NOISE:g} nats apart in both programs: the test fails otherwise.", "",
        "| task | items | alike | largest difference | same by sum | by bytes | by tokens | smallfry | lm-eval |",
        "|" + "---|" * 9,
    ]  # fmt: skip
    lines += [
        f"| {r.task} | {r.n:,} | {r.alike:,} | {r.logprob:.1e} | {r.same_sum:.2%} | {r.same_bytes:.2%} "
        f"| {r.same_tokens:.2%} | {r.ours:.4f} | {r.theirs:.4f} |"
        for r in rows
    ]
    lines += ["", "```json", json.dumps([asdict(r) for r in rows]), "```", ""]
    return "\n".join(lines)


def config(task: Task, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The task in the harness's own terms, as its task of that name is written."""
    kinds: dict[str, dict[str, Any]] = {
        "multiple_choice": {
            "output_type": "multiple_choice", "doc_to_text": lambda d: d["query"] + task.delimiter.rstrip(" "),
            "doc_to_choice": lambda d: list(d["choices"]), "doc_to_target": lambda d: int(d["gold"]),
        },
        "schema": {
            "output_type": "multiple_choice", "doc_to_text": lambda d: int(d["gold"]),
            "doc_to_choice": lambda d: list(d["context_options"]), "doc_to_target": lambda d: d["continuation"],
        },
        "pair": {
            "output_type": "multiple_choice", "doc_to_text": "", "doc_to_choice": lambda d: list(d["choices"]),
            "doc_to_target": lambda d: int(d["gold"]),
        },
        "language_modeling": {
            "output_type": "loglikelihood", "doc_to_text": lambda d: d["context"].strip(),
            "doc_to_target": lambda d: task.delimiter + d["continuation"],
        },
    }  # fmt: skip
    import datasets

    data = {"test": datasets.Dataset.from_list(rows)}
    return {
        "task": f"parity_{task.name}", "custom_dataset": lambda **_: data, "test_split": "test", "num_fewshot": 0,
        "target_delimiter": "" if task.type == "pair" else " ", "metric_list": [{"metric": "acc"}],
        **kinds[task.type],
    }  # fmt: skip


def asked_by_lm_eval(theirs: Any, task: Task) -> list[list[tuple[float, bool]]]:
    keep = {"query", "choices", "gold", "context_options", "continuation", "context"}
    rows = [{k: v for k, v in row.items() if k in keep} for row in task.rows]
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    result = lm_eval.simple_evaluate(theirs, tasks=[config(task, rows)], bootstrap_iters=0, log_samples=True)
    samples = sorted(result["samples"][f"parity_{task.name}"], key=lambda s: int(s["doc_id"]))
    assert len(samples) == len(rows)
    return [[(float(r[0][0]), bool(r[0][1])) for r in s["resps"]] for s in samples]


def asked_by_smallfry(ours: LanguageModel, task: Task) -> list[list[Scored]]:
    return ours.score([ask(task, index, ours).group for index in range(len(task.rows))])


def tasks() -> dict[str, Callable[[], list[Task]]]:
    def core(name: str) -> list[Task]:
        known = {t.name: t for t in sources.core_tasks(sources.Data(DATA))[0]}
        task = known[FILES.get(name, name)]
        return [Task(name, task.type, task.rows, 0, task.delimiter)]

    return {
        **{name: (lambda n=name: core(n)) for name in CORE},  # type: ignore[misc]
        "lambada": lambda: [
            Task("lambada", "language_modeling", shuffled(sources.lambada_tasks(sources.Data(DATA))[0].rows))
        ],
        "blimp": lambda: [Task(t.name, t.type, t.rows[:100]) for t in sources.blimp_tasks(sources.Data(DATA))],
    }


@pytest.mark.parametrize("name", [*CORE, "lambada", "blimp"])
def test_the_same_choices(models: tuple[LanguageModel, Any], name: str) -> None:
    ours, theirs = models
    differences: list[float] = []
    same: dict[str, list[bool]] = {"sum": [], "bytes": [], "tokens": []}
    right: dict[str, list[bool]] = {"ours": [], "theirs": []}
    alike = 0
    for task in tasks()[name]():
        asked = zip(task.rows, asked_by_smallfry(ours, task), asked_by_lm_eval(theirs, task), strict=True)
        for row, mine, other in asked:
            a, b = np.array([m.logprob for m in mine]), np.array([o[0] for o in other])
            if task.type == "language_modeling":
                differences.append(abs(a[0] - b[0]))
                for rule in same.values():
                    rule.append(mine[0].greedy == other[0][1])
                right["ours"].append(mine[0].greedy)
                right["theirs"].append(other[0][1])
                continue
            if task.type == "schema":
                shared = len(ours.texts.encode(task.delimiter + row["continuation"]))
                if any(m.tokens != shared for m in mine):
                    alike += 1
                    continue
            differences.append(float(np.abs((a - a[0]) - (b - b[0])).max()))
            same["sum"].append(int(a.argmax()) == int(b.argmax()))
            if not same["sum"][-1]:  # two choices that neither program tells apart
                margin = max(a.max() - a[b.argmax()], b.max() - b[a.argmax()])
                assert margin < NOISE, (name, row, margin)
            right["ours"].append(int(a.argmax()) == int(row["gold"]))
            right["theirs"].append(int(b.argmax()) == int(row["gold"]))
            ends = row.get("choices")
            if ends is None:  # a schema: one continuation, of one length
                continue
            tokens = [ours.texts.encode(task.delimiter[-1:] + end if task.type != "pair" else end) for end in ends]
            if [len(t) for t in tokens] != [m.tokens for m in mine]:
                alike += 1
                continue
            for rule_name, length in (("bytes", [len(end.encode()) for end in ends]), ("tokens", map(len, tokens))):
                each = np.maximum(1, np.array(list(length)))
                same[rule_name].append(int((a / each).argmax()) == int((b / each).argmax()))
    shares = {rule: float(np.mean(values)) if values else 1.0 for rule, values in same.items()}
    found.append(
        Row(name, len(right["ours"]), alike, max(differences), shares["sum"], shares["bytes"], shares["tokens"],
            float(np.mean(right["ours"])), float(np.mean(right["theirs"])))
    )  # fmt: skip
    assert min(shares.values()) >= LEAST, found[-1]
    assert max(differences) < 0.01, found[-1]


def test_transformers_itself_gives_the_same(directory: Path, models: tuple[LanguageModel, Any]) -> None:
    """Our transformer and theirs, on the longest questions there are: ten examples before each."""
    task = next(t for t in sources.core_tasks(sources.Data(DATA))[0] if t.name == "arc_easy")
    groups = [ask(task, index, models[0]).group for index in range(40)]
    for mine, theirs in zip(models[0].score(groups), HfScorer(directory).score(groups), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=5e-3) and a.tokens == b.tokens


def test_the_adapter_gives_what_lm_eval_gives(directory: Path, models: tuple[LanguageModel, Any]) -> None:
    from smallfry.evals.harness import SmallfryLM

    adapter, theirs = SmallfryLM(str(directory)), models[1]
    for task in (tasks()["piqa"]()[0], tasks()["lambada"]()[0], tasks()["winogrande"]()[0]):
        part = Task(task.name, task.type, task.rows[:60], 0, task.delimiter)
        for a, b in zip(asked_by_lm_eval(adapter, part), asked_by_lm_eval(theirs, part), strict=True):
            for mine, other in zip(a, b, strict=True):
                assert mine[0] == pytest.approx(other[0], abs=5e-3) and mine[1] == other[1]
    rows = [{"query": f"Once upon a time there were {n} dogs and", "gold": "x"} for n in range(8)]
    import datasets

    written = {
        "task": "written", "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": lambda d: d["query"],
        "doc_to_target": lambda d: d["gold"], "generation_kwargs": {"until": ["."], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip

    def answers(model: Any) -> list[str]:
        result = lm_eval.simple_evaluate(model, tasks=[written], bootstrap_iters=0, log_samples=True)
        samples = sorted(result["samples"]["written"], key=lambda s: int(s["doc_id"]))
        return [s["resps"][0][0].strip() for s in samples]

    assert answers(adapter) == answers(theirs)


def test_the_documented_command_line(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"q": f"Question {n}?", "choices": ["yes", "no"], "gold": n % 2}) + "\n" for n in range(6))
    )
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path / 'rows.jsonl'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\nmetric_list:\n  - metric: acc\n'
    )
    command = [sys.executable, "-m", "smallfry.evals.harness", "--model_args", f"path={directory}", "--tasks", "own",
               "--include_path", str(tmp_path), "--limit", "4"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "|own" in done.stdout and "acc" in done.stdout
