"""Kills a training again and again and compares what becomes of it with one that was left alone.

    python -m tests.kills --kills 100

Trainings run in children forked from this process, which has torch loaded already, so a life costs no start. Half of
the kills (SIGKILL) come at any moment, half while a save is being written; after some, the newest save is damaged, as a
power cut would. The last line is one JSON object; the exit code is 1 if the weights differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from smallfry.data import JobData, Noise
from smallfry.forms import build_form
from smallfry.job import Example, Job
from smallfry.machine import compute_dtype, limit_threads
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.train import Recipe, train
from smallfry.training.optim import Optimizer

SAVE_SECONDS = 0.02
EPOCHS_A_KILL = 4.0
SHORTEST_LIFE = 0.15  # seconds, on average: to start, and to save once or twice
DAMAGE_EVERY = 4  # kills
COLOURS = ("red", "green", "blue", "black")
ROWS = tuple(Example(f"the {c} thing number {i}", c) for i in range(40) for c in COLOURS)
RECIPE = Recipe(batch_tokens=512, noise=Noise(token_mask=0.1, bpe_dropout=0.1), dropout=0.1, seed=7)


@dataclass(slots=True)
class Tally:
    """What happened."""

    kills: int = 0
    in_saves: int = 0  # kills while a save was being written
    damaged: int = 0  # saves damaged after a kill
    restarts: int = 0
    older: int = 0  # restarts that found a newer save cut short or damaged, and took the one before
    runs: int = 0
    equal: bool = True


class Runner:
    """Makes the same training, as often as asked for, in a child process."""

    def __init__(self) -> None:
        job = Job("colours", "classify", ROWS, ROWS[:20], ROWS[:20], "accuracy")
        self.form = build_form(job, "units", 300, True, None)
        self.data = JobData(ROWS, self.form, RECIPE.noise, 0.0, RECIPE.batch_tokens, RECIPE.seed)
        self.recipe = RECIPE
        Optimizer(self.model(), 0.0, 0.02, 0.0, 0.0)  # what is imported here, no child need import

    def model(self) -> Transformer:
        """The model as it begins."""
        model = Transformer(Shape(self.form.tokenizer.vocab_size, 64, 2, 1, 1, 64, 128), self.recipe.dropout)
        model.init_weights(torch.Generator().manual_seed(self.recipe.seed))
        return model.to(compute_dtype(torch.device("cpu")))

    def fit(self, path: Path) -> None:
        """Train to the end, from the last save in ``path`` if there is one; leaves ``final.json`` there."""
        model = self.model()
        with (path / "said.txt").open("a", encoding="utf-8") as said:

            def say(text: str) -> None:
                said.write(text + "\n")
                said.flush()

            found = train(
                model, self.data, self.recipe, run_dir=path / "run", resume=True, save_seconds=SAVE_SECONDS, say=say
            )
        digest = hashlib.sha256()
        for parameter in model.parameters():
            digest.update(parameter.detach().float().numpy().tobytes())
        part = path / "final.part"
        part.write_text(json.dumps({"sha256": digest.hexdigest(), "steps": found.steps}), encoding="utf-8")
        part.replace(path / "final.json")

    def start(self, path: Path) -> int:
        """Begin or resume the training in a child; returns its process id."""
        path.mkdir(parents=True, exist_ok=True)
        return fork(lambda: self.fit(path))

    def whole(self, path: Path) -> tuple[dict[str, object], float]:
        """The training without a kill: what it became, and seconds."""
        start = time.perf_counter()
        wait(self.start(path))
        return json.loads((path / "final.json").read_text(encoding="utf-8")), time.perf_counter() - start


def fork(work: Callable[[], None]) -> int:
    """Do something in a child that ends without running this process's clean-up; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def wait(pid: int) -> None:
    """Wait for a child that must succeed."""
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a training ended with status {status}")


def kill_once(pid: int, path: Path, life: float, draw: random.Random, tally: Tally) -> bool:
    """Let a child live for about ``life`` seconds and kill it; False when it was done before."""
    until = time.perf_counter() + draw.uniform(0.0, 2.0 * life)
    in_save = draw.random() < 0.5
    latest = until + 5.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"a training ended with status {status}")
            return False
        now = time.perf_counter()
        if now >= until and (not in_save or now > latest or any((path / "run").glob("*.part"))):
            break
        time.sleep(0.0002 if now >= until else min(0.01, until - now))
    if in_save:
        time.sleep(draw.uniform(0.0, 0.004))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if status != signal.SIGKILL:  # it was done at the very moment
        return False
    tally.kills += 1
    tally.in_saves += any((path / "run").glob("*.part"))
    return True


def damage(path: Path, draw: random.Random, tally: Tally) -> None:
    """Do to the newest of two saves what a power cut does: cut a file, or leave other bytes in it."""
    steps = sorted(int(file.stem.split("-")[1]) for file in (path / "run").glob("state-*.json"))
    if len(steps) < 2:
        return
    file = path / "run" / f"state-{steps[-1]}.{draw.choice(['json', 'safetensors'])}"
    content = bytearray(file.read_bytes())
    at = draw.randrange(len(content))
    if draw.random() < 0.5:
        content = content[:at]
    else:
        content[at] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    tally.damaged += 1


def torment(runner: Runner, path: Path, kills: int, life: float, draw: random.Random, tally: Tally) -> object:
    """One training to its end, killed until ``kills`` are dealt; returns what became of it."""
    tally.runs += 1
    while tally.kills < kills:
        pid = runner.start(path)
        if not kill_once(pid, path, life, draw, tally):
            break
        tally.restarts += 1
        if tally.kills % DAMAGE_EVERY == 0:
            damage(path, draw, tally)
    if not (path / "final.json").exists():
        wait(runner.start(path))
    said = (path / "said.txt").read_text(encoding="utf-8").splitlines()
    tally.older += sum("going on from step" in line for line in said)
    return json.loads((path / "final.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments, as far as the machine repeats itself")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    limit_threads()
    draw, tally, start = random.Random(args.seed), Tally(), time.perf_counter()
    runner = Runner()
    with tempfile.TemporaryDirectory() as folder:
        # All its lives together should be a little shorter than the run, however fast the machine is just now.
        runner.recipe = replace(RECIPE, epochs=EPOCHS_A_KILL * args.kills)
        expected, whole_seconds = runner.whole(Path(folder) / "whole")
        life = max(SHORTEST_LIFE, 0.9 * whole_seconds / args.kills)
        while not tally.runs or tally.kills < args.kills:
            found = torment(runner, Path(folder) / str(tally.runs), args.kills, life, draw, tally)
            tally.equal = tally.equal and found == expected
    result = {
        "kills": tally.kills, "in_saves": tally.in_saves, "damaged": tally.damaged, "restarts": tally.restarts,
        "older": tally.older, "runs": tally.runs, "steps": expected["steps"], "whole_seconds": round(whole_seconds, 1),
        "seconds": round(time.perf_counter() - start, 1), "equal": tally.equal,
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0 if tally.equal else 1)


if __name__ == "__main__":
    main()
