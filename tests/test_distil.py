"""Teachers of distributions: the loss and its gradient, what is made of a batch, what a student learns."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smallfry.checkpoint import save_model
from smallfry.data import Batch, JobData, Noise, Soft
from smallfry.errors import SmallfryError
from smallfry.forms import Form, build_form
from smallfry.job import Example, Job
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import SPECIALS, Tokenizer
from smallfry.train import Recipe, train
from smallfry.training.epochs import CountedData
from smallfry.training.loss import loss_of
from smallfry.training.microbatch import MicroBatches
from smallfry.training.parallel import World
from smallfry.tuning.soft import LogitTeacher, OwnNetwork, distilled, soft_targets
from smallfry.tuning.teachers import WriterTeacher, form_of, load_teacher, tokenizer_of, tokenizers_agree

WORDS = ("red", "blue", "green", "big", "small", "fast", "slow", "round", "old", "new")
LABELS = ("colour", "size", "speed", "other")
LABEL_OF = {
    "red": 0, "blue": 0, "green": 0, "big": 1, "small": 1, "fast": 2, "slow": 2, "round": 3, "old": 3, "new": 3,
}  # fmt: skip


def job(rows: int = 80, seed: int = 0) -> Job:
    """Three words; the first decides the label."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(WORDS[int(i)] for i in rng.integers(len(WORDS), size=3)) for _ in range(rows)]
    examples = tuple(Example(text, LABELS[LABEL_OF[text.split()[0]]]) for text in texts)
    return Job("words", "classify", examples, examples[:10], examples[:10], "accuracy")


def form() -> Form:
    return build_form(job(), "units", 290, True, None)


def model(vocab_size: int, seed: int = 0, width: int = 16) -> Transformer:
    shape = Shape(vocab_size, width, 2, 2, 1, 8, 2 * width)
    made = Transformer(shape)
    made.init_weights(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # far from uniform: what a teacher says must matter
        made.embed.weight.mul_(20)
    return made


def teacher(vocab_size: int, seed: int = 0, name: str = "t") -> LogitTeacher:
    return LogitTeacher(name, OwnNetwork(model(vocab_size, seed)), vocab_size)


def data(noise: Noise | None = None, batch_tokens: int = 96) -> JobData:
    return JobData(job().train, form(), noise or Noise(), 0.3, batch_tokens, 0)


# ---- the loss -------------------------------------------------------------------------------------------------------


def written_out(student: Transformer, batch: Batch) -> torch.Tensor:
    """The loss by its definition, place by place, in double precision."""
    assert batch.soft is not None
    soft, total = batch.soft, torch.zeros((), dtype=torch.float64)
    logits = student.logits(student(torch.from_numpy(batch.ids)))  # (B, T, V)
    for b, t in np.argwhere(batch.weights):
        hard = torch.log_softmax(logits[b, t], -1)[int(batch.targets[b, t])]
        scaled = torch.log_softmax(logits[b, t] / soft.temperature, -1)
        taught = sum(float(p) * scaled[int(i)] for i, p in zip(soft.ids[b, t], soft.probs[b, t], strict=True))
        place = (1 - soft.share) * hard + soft.share * soft.temperature**2 * taught
        total = total - float(batch.weights[b, t]) * place
    return total / batch.divisor


def gradients(student: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad.double() for name, p in student.named_parameters() if p.grad is not None}


def gathered(student: Transformer, batch: Batch, world: int, tokens: int | None) -> tuple[float, dict[str, Any]]:
    """Loss and gradients summed over the processes' shares and their parts, as the training loop sums them."""
    student.zero_grad()
    value = 0.0
    for rank in range(world):
        mine = World(rank, world).share(batch)
        for part in MicroBatches(tokens).parts(mine):
            loss, weight = loss_of(student, part)
            loss = loss * (weight / batch.divisor)
            loss.backward()
            value += float(loss.detach())
    return value, gradients(student)


@pytest.mark.parametrize(("share", "temperature"), [(0.9, 2.0), (0.5, 1.0), (1.0, 4.0), (0.0, 3.0)])
def test_the_gradient_is_that_of_the_definition(share: float, temperature: float) -> None:
    batch = data().epoch(0)[0]
    batch = replace(batch, soft=teacher(form().tokenizer.vocab_size, 1).soft(batch, share, temperature, 5))
    student = model(form().tokenizer.vocab_size, 2)
    exact = model(form().tokenizer.vocab_size, 2).double()
    expected = written_out(exact, batch)
    expected.backward()
    want = gradients(exact)
    for world, tokens in ((1, None), (1, 24), (2, None), (3, 12)):
        value, found = gathered(student, batch, world, tokens)
        assert value == pytest.approx(float(expected.detach()), rel=1e-5)
        assert found.keys() == want.keys()
        for name, gradient in want.items():
            assert torch.allclose(found[name], gradient, rtol=1e-4, atol=2e-6 * float(gradient.abs().max() + 1)), name


def test_a_total_that_is_given_divides_both_parts() -> None:
    batch = data().epoch(0)[0]
    student = model(form().tokenizer.vocab_size, 2)
    soft = teacher(form().tokenizer.vocab_size, 1).soft(batch, 0.7, 2.0, 8)
    plain, _ = loss_of(student, replace(batch, soft=soft))
    halved, total = loss_of(student, replace(batch, soft=soft, total=2 * batch.divisor))
    assert float(halved.detach()) == pytest.approx(float(plain.detach()) / 2, rel=1e-6) and total == 2 * batch.divisor


# ---- what teachers say of a batch -----------------------------------------------------------------------------------


def test_soft_targets_are_the_mean_of_the_softened_distributions() -> None:
    vocab_size = form().tokenizer.vocab_size
    teachers = [teacher(vocab_size, 1), teacher(vocab_size, 2)]
    batch = data(Noise(token_mask=0.4)).epoch(0)[0]
    soft = soft_targets(teachers, batch, 0.8, 2.0, 7)
    assert soft.ids.shape == soft.probs.shape == (*batch.ids.shape, 7)
    assert soft.ids.dtype == np.int32 and soft.probs.dtype == np.float32 and (soft.share, soft.temperature) == (0.8, 2)
    with torch.no_grad():
        each = [t.network.model for t in teachers if isinstance(t.network, OwnNetwork)]
        logits = [m.logits(m(torch.from_numpy(batch.ids))) for m in each]
        mean = sum(torch.softmax(x / 2.0, -1) for x in logits) / 2
    best = mean.topk(7, -1)
    weighted = batch.weights > 0
    assert weighted.any() and not weighted.all()
    assert np.allclose(soft.probs[weighted], best.values.numpy()[weighted], atol=1e-6)
    assert (soft.ids[weighted] == best.indices.numpy()[weighted]).mean() > 0.99  # ties aside
    assert not soft.probs[~weighted].any()


def test_a_target_that_the_teacher_has_no_token_for_is_taught_itself() -> None:
    vocab_size = form().tokenizer.vocab_size
    small = vocab_size - len(LABELS)  # the labels stand behind the other tokens
    batch = data().epoch(0)[0]
    soft = LogitTeacher("t", OwnNetwork(model(small, 1)), small).soft(batch, 0.5, 2.0, 6)
    alien = (batch.targets >= small) & (batch.weights > 0)
    assert alien.sum() == len(batch.ids)
    assert (soft.ids[alien][:, 0] == batch.targets[alien]).all() and (soft.probs[alien].sum(-1) == 1).all()
    rest = (batch.targets < small) & (batch.weights > 0)
    assert (soft.ids[rest] < small).all() and (soft.probs[rest][:, 0] < 1).all()


def test_rows_behind_the_tokenizer_say_nothing() -> None:
    vocab_size = form().tokenizer.vocab_size
    padded = LogitTeacher("t", OwnNetwork(model(vocab_size + 64, 1)), vocab_size)
    soft = padded.soft(data().epoch(0)[0], 1.0, 1.0, vocab_size + 999)
    assert soft.ids.shape[-1] == vocab_size and soft.ids.max() < vocab_size
    sums = soft.probs.sum(-1)[data().epoch(0)[0].weights > 0]
    assert np.allclose(sums, 1, atol=1e-5)


def test_rows_of_the_products_are_few_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, seen = teacher(form().tokenizer.vocab_size, 1), set[int]()
    logits = asked.network.logits

    def watch(states: torch.Tensor) -> torch.Tensor:
        seen.add(len(states))
        return logits(states)

    monkeypatch.setattr(asked.network, "logits", watch)
    for batch in data(batch_tokens=1500).epoch(0):
        asked.soft(batch, 0.5, 1.0, 4)
    assert seen and all(n % 64 == 0 for n in seen)  # each new number would cost a compiled kernel, and its memory


# ---- data -----------------------------------------------------------------------------------------------------------


class Counting(JobData):
    """A job's data that knows its steps, and counts the epochs that were made."""

    made = 0

    def epoch(self, epoch: int) -> list[Batch]:
        self.made += 1
        return super().epoch(epoch)

    def steps_per_epoch(self, epoch: int) -> int:
        return 5


class Watched(OwnNetwork):
    """Counts the rows it was asked about."""

    asked = 0

    def states(self, ids: np.ndarray, places: np.ndarray) -> torch.Tensor:
        self.asked += len(ids)
        return super().states(ids, places)


def watched(seed: int = 1) -> tuple[LogitTeacher, Watched]:
    network = Watched(model(form().tokenizer.vocab_size, seed))
    return LogitTeacher("t", network, form().tokenizer.vocab_size), network


def same(a: Soft | None, b: Soft | None) -> bool:
    assert a is not None and b is not None
    return bool((a.ids == b.ids).all() and (a.probs == b.probs).all())


def test_batches_are_taught_when_they_are_asked_for() -> None:
    asked, network = watched()
    plain = data(Noise(token_mask=0.2))
    lessons = distilled(plain, [asked], 0.9, 2.0)
    batches = lessons.epoch(1)
    assert network.asked == 0 and len(batches) == len(plain.epoch(1)) > 3
    first = batches[2]
    assert network.asked == len(first.ids)
    assert (first.ids == plain.epoch(1)[2].ids).all() and first.soft is not None
    again = distilled(plain, [watched()[0]], 0.9, 2.0).epoch(1)[2]  # another process, resuming
    assert same(first.soft, again.soft)
    assert [len(b.ids) for b in batches[1:3]] == [len(b.ids) for b in plain.epoch(1)[1:3]]
    assert not isinstance(lessons, CountedData)


def test_places_of_little_weight_can_be_left_to_their_targets() -> None:
    plain = data()
    asked, _ = watched()
    batch = distilled(plain, [asked], 0.9, 2.0, least=0.5).epoch(0)[0]
    assert batch.soft is not None
    taught = batch.soft.probs.any(axis=-1)
    assert (taught == (batch.weights > 0.5)).all() and taught.any() and (batch.weights > 0).sum() > taught.sum()
    student = model(form().tokenizer.vocab_size, 3)
    mixed, total = loss_of(student, batch)
    whole, _ = loss_of(student, distilled(plain, [asked], 0.9, 2.0).epoch(0)[0])
    bare, _ = loss_of(student, plain.epoch(0)[0])
    weights = np.where(taught, np.float32(0), batch.weights)
    rest, rest_total = loss_of(student, replace(plain.epoch(0)[0], weights=weights))
    only, only_total = loss_of(student, replace(batch, weights=batch.weights - weights))
    assert mixed.item() * total == pytest.approx(rest.item() * rest_total + only.item() * only_total, rel=1e-4)
    assert len({round(x.item(), 4) for x in (mixed, whole, bare)}) == 3


def test_counted_data_stays_counted() -> None:
    plain = Counting(job().train, form(), Noise(), 0.3, 96, 0)
    lessons = distilled(plain, [watched()[0]], 0.9, 2.0)
    assert isinstance(lessons, CountedData) and lessons.steps_per_epoch(0) == 5 and plain.made == 0


@pytest.mark.parametrize("change", [{"share": 1.1}, {"share": -0.1}, {"temperature": 0.0}, {"top_k": 0}])
def test_settings_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(SmallfryError, match="expected a share from 0 to 1"):
        distilled(data(), [watched()[0]], **{"share": 0.5, "temperature": 1.0, **change})
    with pytest.raises(SmallfryError, match="one vocabulary, got none"):
        distilled(data(), [], 0.5, 1.0)
    with pytest.raises(SmallfryError, match="one vocabulary, got t 300, t 301"):
        distilled(data(), [teacher(300), teacher(301)], 0.5, 1.0)


# ---- a student ------------------------------------------------------------------------------------------------------


class Knowing:
    """A teacher that knows the rule: at the end of a prompt the label of its first word, elsewhere nothing."""

    def __init__(self, form: Form) -> None:
        self.form, self.rows = form, form.tokenizer.vocab_size
        self.labels = [form.tokenizer.units[" " + label] for label in LABELS]
        self.first = {form.prompt_ids(word)[1]: LABEL_OF[word] for word in WORDS}

    def states(self, ids: np.ndarray, places: np.ndarray) -> torch.Tensor:
        wanted = np.zeros((len(places), self.rows), dtype=np.float32)
        for n, place in enumerate(places):
            row = ids[place // ids.shape[1]]
            wanted[n, self.labels[self.first[int(row[1])]]] = 20.0
        return torch.from_numpy(wanted)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return states


def accuracy(student: Transformer, spelled: Form, examples: Sequence[Example]) -> float:
    from smallfry.engine.torch_engine import TorchModel
    from smallfry.predictor import ModelPredictor

    answers = ModelPredictor("s", TorchModel(student), spelled, 3).predict([e.input for e in examples])
    return sum(a.output == e.output for a, e in zip(answers, examples, strict=True)) / len(examples)


def test_a_student_learns_what_its_teacher_knows_and_the_rows_do_not_say() -> None:
    spelled = form()
    rng = np.random.default_rng(5)
    wrong = [Example(e.input, LABELS[int(rng.integers(4))]) for e in job().train]  # labels that mean nothing
    lessons = JobData(wrong, spelled, Noise(), 0.0, 512, 0)
    knows = LogitTeacher("rule", Knowing(spelled), spelled.tokenizer.vocab_size)
    recipe = Recipe(epochs=40, lr=0.02, muon_lr=0.05, dropout=0.0, seed=0)
    scores = {}
    for share in (1.0, 0.0):
        student = Transformer(Shape(spelled.tokenizer.vocab_size, 32, 2, 2, 1, 16, 64))
        student.init_weights(torch.Generator().manual_seed(0))
        train(student, distilled(lessons, [knows], share, 2.0), recipe)
        scores[share] = accuracy(student, spelled, job(200, seed=9).train)
    assert scores[1.0] > 0.9 and scores[0.0] < 0.6


# ---- finding teachers -----------------------------------------------------------------------------------------------


def saved(path: Path, tokenizer: Tokenizer, rows: int | None = None, **card: Any) -> Path:
    save_model(path, model(rows or tokenizer.vocab_size, 3), tokenizer, {"name": "saved", "form": None, **card})
    return path


def test_a_teacher_with_the_students_tokens_gives_distributions(tmp_path: Path) -> None:
    spelled = form()
    path = saved(tmp_path / "t", spelled.tokenizer, spelled.tokenizer.vocab_size + 8)
    found = load_teacher(str(path), form().tokenizer, None)
    assert isinstance(found, LogitTeacher) and found.vocab_size == spelled.tokenizer.vocab_size
    soft = found.soft(data().epoch(0)[0], 0.5, 1.0, 4)
    assert soft.probs.max() > 0
    longer = Tokenizer(spelled.tokenizer.hf.__class__.from_str(spelled.tokenizer.hf.to_str()), [])
    longer.hf.add_special_tokens(["<|extra|>"])
    assert tokenizers_agree(longer.hf, path)  # a student may have more tokens


def test_a_student_with_fewer_tokens_is_refused(tmp_path: Path) -> None:
    whole = form().tokenizer
    larger = Tokenizer(whole.hf.__class__.from_str(whole.hf.to_str()), [])
    larger.hf.add_special_tokens(["<|extra|>"])
    path = saved(tmp_path / "t", Tokenizer(larger.hf))
    with pytest.raises(SmallfryError, match=f"has {whole.vocab_size + 1} tokens, the student only the first"):
        load_teacher(str(path), whole, None)


def test_tokenizers_with_other_merges_or_tokens_do_not_agree(tmp_path: Path) -> None:
    path = saved(tmp_path / "t", form().tokenizer)
    other = Tokenizer.train(["entirely other words entirely other words"], 290)
    assert not tokenizers_agree(other.hf, path)
    assert not tokenizers_agree(Tokenizer.train([], len(SPECIALS) + 256).hf, path)  # no merges, but the same bytes
    assert not tokenizers_agree(form().tokenizer.hf, tmp_path)
    with pytest.raises(SmallfryError, match="was not taught to answer"):
        load_teacher(str(path), other, None)


def test_tokenizers_and_forms_for_new_students(tmp_path: Path) -> None:
    spelled = form()
    path = saved(tmp_path / "t", spelled.tokenizer, form=spelled.to_dict(), max_new=4)
    assert tokenizer_of(str(path)).units == spelled.tokenizer.units
    found = form_of(str(path))
    assert found is not None and found.prompt_ids("red big") == spelled.prompt_ids("red big")
    assert form_of(str(saved(tmp_path / "u", spelled.tokenizer))) is None and form_of("http://x/v1") is None
    with pytest.raises(SmallfryError, match="no tokenizer of smallfry's"):
        tokenizer_of("http://x/v1")
    with pytest.raises(SmallfryError, match=r"--teacher .*nowhere: no such directory.*or shipped:stories"):
        load_teacher(str(tmp_path / "nowhere"), spelled.tokenizer, None)
    assert isinstance(load_teacher("shipped:stories", spelled.tokenizer, None), WriterTeacher)
    with pytest.raises(SmallfryError, match="--teacher shipped:other: no such model comes with smallfry"):
        load_teacher("shipped:other", spelled.tokenizer, None)
    with pytest.raises(SmallfryError, match="expected hf:owner/name"):
        load_teacher("hf:nobody", spelled.tokenizer, None)


# ---- invented inputs ------------------------------------------------------------------------------------------------


def test_spliced_inputs_are_new_and_made_of_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    spliced = importlib.import_module("invent").spliced
    inputs = [e.input for e in job().train]
    made = spliced(inputs, 50, 3)
    assert len(made) == len(set(made)) == 50 and not set(made) & set(inputs)
    assert made == spliced(inputs, 50, 3) != spliced(inputs, 50, 4)
    pairs = {pair for text in inputs for pair in zip(text.split(), text.split()[1:], strict=False)}
    assert all(pair in pairs for text in made for pair in zip(text.split(), text.split()[1:], strict=False))
    assert spliced(["one", "two"], 5, 0) == [] and spliced([], 5, 0) == []
