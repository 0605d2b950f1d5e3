"""The training loop: repeatable to the bit, resumable at any moment, never a negative learning rate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallfry.data import Batch, JobData, Noise, bucket, padded_length
from smallfry.errors import SmallfryError
from smallfry.forms import Form, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job
from smallfry.model import Transformer
from smallfry.optim import Optimizer, schedule
from smallfry.recipes import larger_vocab, recipe_for
from smallfry.sizes import Shape
from smallfry.tokenizer import END, MASK, PAD
from smallfry.train import Progress, Recipe, train
from tests.test_frames import slot_rows

COLOURS = ("red", "green", "blue", "black")
ROWS = tuple(Example(f"the {c} thing number {i}", c) for i in range(40) for c in COLOURS)
JOB = Job("colours", "classify", ROWS, ROWS[:20], ROWS[:20], "accuracy")
NOISE = Noise(token_mask=0.1, bpe_dropout=0.1)
RECIPE = Recipe(epochs=3, batch_tokens=256, noise=NOISE, dropout=0.1, seed=7)


def make_form() -> Form:
    return build_form(JOB, "units", 300, True, None)


def fresh(form: Form, seed: int = 7) -> Transformer:
    torch.set_num_threads(1)
    shape = Shape(form.tokenizer.vocab_size, 32, 2, 1, 1, 32, 64)
    model = Transformer(shape, 0.1)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def fit(
    run_dir: Path | None = None, resume: bool = False, stop_at: int | None = None, recipe: Recipe = RECIPE
) -> object:
    form = make_form()

    def watch(progress: Progress) -> None:
        if progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    data = JobData(ROWS, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, recipe.seed)
    return train(fresh(form), data, recipe, run_dir=run_dir, resume=resume, watch=watch)


def weights(trained: object) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])  # type: ignore[attr-defined]


# ---- schedule -------------------------------------------------------------------------------------------------------


@given(st.floats(-10, 10), st.floats(0.001, 0.9), st.sampled_from(["linear", "cosine"]))
def test_the_learning_rate_factor_stays_between_zero_and_one(progress: float, warmup: float, kind: str) -> None:
    assert 0.0 <= schedule(progress, warmup, kind) <= 1.0


def test_the_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(p, 0.1) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(values))
    assert values[0] == 0.0 and top == 10 and values[top] == 1.0 and values[-1] == 0.0
    assert all(a <= b for a, b in pairwise(values[: top + 1]))
    assert all(a >= b for a, b in pairwise(values[top:]))


class Growing:
    """Data whose every epoch has more batches than the one before, as augmentation can make it."""

    def __init__(self, form: Form) -> None:
        self.inner = JobData(ROWS, form, Noise(), 0.0, 256, 0)

    def epoch(self, epoch: int) -> list[Batch]:
        """More and more of the same."""
        return self.inner.epoch(epoch) * (1 + epoch * 2)


def test_more_steps_than_planned_never_turn_the_learning_rate_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []
    step = Optimizer.step
    monkeypatch.setattr(Optimizer, "step", lambda self, factor: (factors.append(factor), step(self, factor))[1])
    form = make_form()
    trained = train(fresh(form), Growing(form), replace(RECIPE, epochs=3))
    assert trained.finished and len(factors) > 3 * len(Growing(form).epoch(0))
    assert min(factors) >= 0.0
    assert factors[-1] < 0.05


# ---- data -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(16, 400))
def test_every_row_is_in_exactly_one_batch(lengths: list[int], batch_tokens: int) -> None:
    groups = bucket(lengths, batch_tokens, np.random.default_rng(0))
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or padded_length(max(lengths[i] for i in group)) * len(group) <= batch_tokens


def test_nothing_is_lost_and_only_answers_carry_loss() -> None:
    form = make_form()
    data = JobData(ROWS, form, Noise(), 0.0, 256, 0)
    seen = []
    for batch in data.plain():
        for ids, targets, w, row in zip(batch.ids, batch.targets, batch.weights, batch.rows, strict=True):
            example = ROWS[int(row)]
            expected = [*form.prompt_ids(example.input), *(form.answer_ids(example.input, example.output) or [])]
            got = [int(ids[0]), *[int(t) for t in targets if t != PAD]]
            assert got == expected
            assert [int(t) for t, x in zip(targets, w, strict=True) if x > 0] == expected[-2:]
            assert expected[-1] == END
            seen.append(int(row))
    assert sorted(seen) == list(range(len(ROWS)))


def test_epochs_depend_on_seed_and_number_alone() -> None:
    form = make_form()
    one, two = (JobData(ROWS, form, NOISE, 0.0, 256, 3) for _ in range(2))
    two.epoch(0)
    for a, b in zip(one.epoch(5), two.epoch(5), strict=True):
        assert np.array_equal(a.ids, b.ids) and np.array_equal(a.rows, b.rows)
    assert any(
        a.ids.shape != b.ids.shape or not np.array_equal(a.ids, b.ids)
        for a, b in zip(one.epoch(5), one.epoch(6), strict=False)
    )


def test_masks_hide_inputs_but_never_targets_or_markers() -> None:
    form = make_form()
    plain = JobData(ROWS, form, Noise(), 0.0, 256, 0)
    hidden = 0
    for batch in JobData(ROWS, form, Noise(token_mask=0.5), 0.0, 256, 0).epoch(0):
        assert not (batch.targets == MASK).any()
        hidden += int((batch.ids == MASK).sum())
    words = sum(len(form.prompt_ids(e.input)) - 2 for e in ROWS)
    assert 0.4 * words < hidden < 0.6 * words
    assert len(plain) == len(ROWS)


def test_swapped_values_stay_right() -> None:
    rows = slot_rows()
    codec = FrameCodec.learn(rows)
    job = Job("slots", "transform", tuple(rows), tuple(rows[:10]), tuple(rows[:10]), "exact_match")
    form = build_form(job, "inline", 300, True, codec)
    data = JobData(rows, form, Noise(swap=1.0), 0.0, 512, 0)
    swapped = data._swapped(np.random.default_rng(0))
    changed = 0
    for row, example in zip(swapped, data.examples, strict=True):
        ids = form.ids(row.answer)
        text = form.tokenizer.decode(form.ids(row.prompt)).strip()
        output = form.read(text, ids)
        changed += output != example.output
        head, _, pairs = output.partition(" | ")
        assert head == example.output.split(" | ")[0]
        for pair in pairs.split(" ; "):
            assert pair.split(" = ")[1] in text
    assert changed > len(rows) / 2


# ---- the loop -------------------------------------------------------------------------------------------------------


def test_same_seed_same_result_to_the_bit() -> None:
    one, two = fit(), fit()
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(fit(recipe=replace(RECIPE, seed=8))))


@pytest.mark.parametrize("stop_at", [1, 4, 11])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, stop_at: int) -> None:
    whole = fit()
    part = fit(tmp_path, stop_at=stop_at)
    assert not part.finished and part.steps == stop_at  # type: ignore[attr-defined]
    rest = fit(tmp_path, resume=True)
    assert rest.finished and rest.steps == whole.steps  # type: ignore[attr-defined]
    assert torch.equal(weights(whole), weights(rest))
    losses = [[p.train_loss for p in t.curve] for t in (whole, rest)]  # type: ignore[attr-defined]
    assert losses[0] == losses[1]


KILLED = """
import sys
from pathlib import Path
import smallfry.train
smallfry.train.SAVE_SECONDS = 0.0
from tests.test_train import fit, RECIPE
from dataclasses import replace
fit(Path(sys.argv[1]), recipe=replace(RECIPE, epochs=40))
"""


def test_killed_without_warning_and_resumed_is_the_same_to_the_bit(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=40)
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, stderr=subprocess.PIPE)
    deadline = time.time() + 60
    while not (tmp_path / "state.json").exists() and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.1 * int.from_bytes(os.urandom(1)) / 255)  # any moment will do, in the middle of a save too
    process.kill()
    process.communicate()
    assert (tmp_path / "state.json").exists()
    resumed = fit(tmp_path, resume=True, recipe=recipe)
    assert torch.equal(weights(resumed), weights(fit(recipe=recipe)))


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    with pytest.raises(SmallfryError, match="another recipe"):
        fit(tmp_path, resume=True, recipe=replace(RECIPE, lr=0.1))


def test_a_damaged_save_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    file = next(tmp_path.glob("state-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(SmallfryError, match="checksum"):
        fit(tmp_path, resume=True)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    form = make_form()
    model = fresh(form)
    with torch.no_grad():
        model.norm.fill_(torch.nan)
    with pytest.raises(SmallfryError, match="loss is nan"):
        train(model, JobData(ROWS, form, Noise(), 0.0, 256, 0), RECIPE)


def test_a_full_disk_leaves_the_last_save_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, stop_at=3)
    before = (tmp_path / "state.json").read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smallfry.checkpoint.save_file", full)
    with pytest.raises(SmallfryError, match="No space left on device"):
        fit(tmp_path, resume=True, stop_at=9)
    monkeypatch.undo()
    assert (tmp_path / "state.json").read_bytes() == before
    assert torch.equal(weights(fit(tmp_path, resume=True)), weights(fit()))


def test_training_learns() -> None:
    trained = fit(recipe=replace(RECIPE, epochs=20, lr=0.01))
    curve = trained.curve  # type: ignore[attr-defined]
    assert curve[-1].train_loss < 0.3 * curve[0].train_loss


def test_half_an_epoch_is_half_an_epoch() -> None:
    form = make_form()
    batches = len(JobData(ROWS, form, NOISE, 0.0, 256, 7).epoch(0))
    trained = fit(recipe=replace(RECIPE, epochs=0.5))
    assert trained.steps == round(batches / 2)  # type: ignore[attr-defined]


def test_a_larger_rung_gets_a_larger_vocabulary_only_where_its_table_leaves_room() -> None:
    assert larger_vocab("0.25m", 2048) == 2048
    assert larger_vocab("1m", 2048) == 4096
    assert larger_vocab("1m", 8192) == 8192
    assert larger_vocab("0.1m", 2048) == 2048


def test_a_recipe_reads_small_data_often_and_huge_data_not_whole() -> None:
    epochs = [recipe_for(JOB, "units", tokens, 1_000_000, 0).epochs for tokens in (10**3, 500_000, 10**7, 10**9)]
    assert epochs[0] == 40 and epochs[1] == 10 and epochs[2] == 2 and 0 < epochs[3] < 0.1


def test_answering_at_length_between_two_steps_does_not_spoil_the_next() -> None:
    net = fresh(make_form()).eval()
    with torch.inference_mode():
        net(torch.zeros(1, 700, dtype=torch.long))  # longer than any table made so far
    net.train()
    net.logits(net(torch.zeros(2, 9, dtype=torch.long))).sum().backward()
    assert net.embed.weight.grad is not None
