"""One peer in one process: builds and warms up once, then runs steps whenever a line on stdin asks, and waits.

The conversation is one JSON object a line. The first answer is ``{"ready": {...}}``, ``{"missing": NOTICE}`` or
``{"failed": REASON}``; ``{"steps": N}`` is answered by ``{"seconds": S, "cpu_seconds": C, "loss": L}``; the end of
stdin ends the process. What peers print goes to stderr.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peers import peak
from peers.common import Built, Spec

BATCHES = 4  # different batches of random tokens, read in turn
TUNING_SECONDS = 1.0


class Trainer:
    """Training steps of one peer on random tokens."""

    def __init__(self, spec: Spec, built: Built) -> None:
        self.spec, self.built, self.done = spec, built, 0
        self.rows = self.micro = max(spec.micro)  # tuning reads no more rows than it must
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            torch.randint(spec.vocab, (spec.rows, spec.seq_len + 1), generator=generator) for _ in range(BATCHES)
        ]

    def step(self) -> float:
        """One whole training step: forward, backward, optimizer; the batch in equal parts of `micro` rows."""
        batch = self.batches[self.done % BATCHES][: self.rows]
        parts = self.rows // self.micro
        total = 0.0
        for rows in torch.split(batch, self.micro):
            loss = self.built.loss(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
            (loss if parts == 1 else loss / parts).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) / parts
            if parts > 1 and self.built.after_part is not None:
                self.built.after_part()
        self.built.update()
        self.done += 1
        return total

    def run(self, steps: int) -> dict[str, float]:
        """Some steps, timed."""
        gc.collect()
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(steps):
            loss = self.step()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        if not math.isfinite(loss):
            raise ArithmeticError(f"loss {loss}")
        return {"seconds": seconds, "cpu_seconds": cpu, "loss": loss}

    def tune(self) -> tuple[float, dict[str, float]]:
        """Keep the fastest number of rows computed at once.

        Returns:
            Seconds of a whole step with it, and tokens a second of all that were tried.
        """
        found: dict[int, float] = {}
        for micro in self.spec.micro:
            self.micro = micro
            self.run(1)  # compiles, and fills caches
            taken: list[float] = []
            while len(taken) < 2 or (sum(taken) < TUNING_SECONDS and len(taken) < 10):
                taken.append(self.run(1)["seconds"])
                if taken[0] > 3 * TUNING_SECONDS:
                    break
            found[micro] = self.rows * self.spec.seq_len / min(taken)
        self.micro = max(found, key=lambda m: found[m])
        self.rows = self.spec.rows
        return self.run(1)["seconds"], {str(micro * self.spec.seq_len): speed for micro, speed in found.items()}

    def warm(self) -> dict[str, float]:
        """One step with the only number of rows there is: what a process started again needs."""
        found = self.run(1)
        self.rows = self.spec.rows
        return found


def held_bytes(process: int | str = "self") -> int:
    """Memory that only this process holds: libraries are shared by all."""
    resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def prepare(request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """What to say first, and what to answer every request with."""
    if "peak" in request:
        products = [tuple(p) for p in request["peak"]]
        return {}, lambda _: peak.measure(products)
    spec = Spec.from_dict(request["spec"])
    built = importlib.import_module(f"peers.{spec.peer}").build(spec)
    trainer = Trainer(spec, built)
    if request["again"]:
        trainer.warm()
        return {}, lambda order: trainer.run(int(order["steps"]))
    seconds, tried = trainer.tune()
    ready = {
        "params": built.params, "matmul_params": built.matmul_params, "versions": built.versions,
        "micro": trainer.micro, "step_seconds": seconds, "held_bytes": held_bytes(), "tried": tried,
    }  # fmt: skip
    return ready, lambda order: trainer.run(int(order["steps"]))


def work(request: dict[str, Any]) -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # peers print as they like
    cores = request["cores"] if "peak" in request else request["spec"]["cores"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cores))
    torch.set_num_threads(len(cores))
    torch.manual_seed(0)

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    try:
        ready, reply = prepare(request)
        answer({"ready": ready})
        for line in sys.stdin:
            answer(reply(json.loads(line)))
    except ModuleNotFoundError as error:
        unknown = str(error).startswith("No module named")
        answer({"missing": f"{error.name} is not installed" if unknown else str(error)})
    except Exception as error:
        answer({"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300]})
        with contextlib.suppress(ImportError):
            import traceback

            traceback.print_exc()
