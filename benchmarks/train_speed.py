"""Training tokens per second of one core: this project's step beside nanochat, transformers, litgpt and plain PyTorch.

    python benchmarks/train_speed.py --nanochat DIR --write     every shape and variant, to docs/results/train_speed.*
    python benchmarks/train_speed.py --shapes 1m --rounds 1 --only 'smallfry|PyTorch'        a quick look

Whole training steps (forward, backward, optimizer) on random tokens, no data loading, no gradient checkpointing. Every
row is a process of its own, pinned to one core with one thread, that builds its model once, warms up (compiling), takes
the fastest micro-batch of several, and then waits for its turns: one at a time, in interleaved rounds. The median of
the rounds counts. The core's matrix-product peak is measured between rounds by one more such process.

Three shapes take about two hours, half of it compiling where ``--cache DIR`` does not hold an earlier run's graphs.

What is missing is left out with a notice: ``--nanochat DIR`` is a checkout of github.com/karpathy/nanochat;
``--litgpt DIR`` a folder that holds litgpt and what it imports, where it is not installed (peers/lit.py says how).
Nothing else should run meanwhile; the table says what share of the core each row got.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import select
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from peers.common import Spec, shape_of  # noqa: E402  (after the number of threads)
from peers.peak import products_of  # noqa: E402
from peers.worker import held_bytes, work  # noqa: E402

RESULTS = Path(__file__).parents[1] / "docs" / "results"
OURS = "smallfry"


@dataclass(frozen=True, slots=True)
class Size:
    """A shape of the benchmark: its name, and what `Spec` takes."""

    name: str
    layers: int
    width: int
    vocab: int
    seq_len: int
    tokens: int  # a step
    micro: tuple[int, ...]  # tokens computed at once that are tried


SIZES = {
    "1m": Size("1m", 4, 128, 2048, 256, 4096, (4096, 2048, 1024)),
    "6m": Size("6m", 6, 256, 4096, 256, 8192, (8192, 4096, 2048)),
    "42m": Size("42m", 12, 512, 8192, 512, 16384, (4096, 2048)),
}


def candidates(size: Size, args: argparse.Namespace) -> list[Spec]:
    """Every row of a shape: this project's first, then each peer's variants."""
    rows = size.tokens // size.seq_len
    micro = [m // size.seq_len for m in (args.micro or size.micro) if m >= size.seq_len]
    fitting = tuple(m for m in micro if m <= rows and rows % m == 0)
    base = Spec(
        OURS, OURS, size.layers, size.width, size.vocab, size.seq_len, rows, micro=fitting or (rows,), cores=args.cores
    )
    found = [replace(base, peer="ours", precision="masters", attention="own")]
    plain = replace(base, peer="plain", name="PyTorch")
    llama, qwen = (replace(base, peer="hugging_face", name=f"transformers {kind}") for kind in ("Llama", "Qwen3"))
    nano = replace(base, peer="nano", name="nanochat", folder=args.nanochat)
    lit = replace(base, peer="lit", name="litgpt", folder=args.litgpt)
    for attention in ("sdpa", "eager"):
        found += [replace(peer, compiled=c, attention=attention) for peer in (plain, llama) for c in (False, True)]
        found.append(replace(plain, compiled=True, attention=attention, precision="masters"))
        found.append(replace(qwen, compiled=True, attention=attention))
    for compiled in (False, True):
        found += [replace(nano, compiled=compiled, precision=p) for p in ("fp32", "bf16")]
        found.append(replace(lit, compiled=compiled))
    found += [replace(llama, precision="fp32"), replace(lit, compiled=True, precision="fp32")]  # their defaults
    wanted = re.compile(args.only)
    order = list(dict.fromkeys(s.name for s in found))
    return sorted((s for s in found if wanted.search(f"{s.name}: {s.variant}")), key=lambda s: order.index(s.name))


# ---- processes -------------------------------------------------------------------------------------------------------


class Worker:
    """A running `peers.worker`.

    Args:
        request: What it measures.
        scratch: Where its stderr goes.
        environment: Added to this process's.
        seconds: Longest wait for an answer.
    """

    def __init__(self, request: dict[str, Any], scratch: Path, environment: dict[str, str], seconds: float) -> None:
        self.seconds = seconds
        self.log = scratch / "worker.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker", json.dumps(request)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment},
            )  # fmt: skip
        self.first = self._answer()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send one line, read one line."""
        stdin = self._pipe(self.process.stdin)
        with contextlib.suppress(OSError):  # it died: its silence says so
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Let it end, or end it."""
        with contextlib.suppress(OSError):
            self._pipe(self.process.stdin).close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict[str, Any]:
        stdout = self._pipe(self.process.stdout)
        if not select.select([stdout], [], [], self.seconds)[0]:
            self.process.kill()
            return {"failed": f"no answer in {self.seconds:.0f} s"}
        line = stdout.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            code = self.process.wait()
            why = f"signal {-code}, no result" if code < 0 else f"{code} {''.join(tail)[:200]}".strip()
            return {"failed": f"ended with {why}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@dataclass(slots=True)
class Entry:
    """One candidate over the rounds; `worker` is None between turns where memory does not hold all."""

    spec: Spec
    ready: dict[str, Any]
    worker: Worker | None
    rounds: int = 0
    speeds: list[float] = field(default_factory=list)  # tokens a second
    core_shares: list[float] = field(default_factory=list)
    loss: float = math.nan


class Field:
    """All candidates of one shape: started one after the other, kept as long as memory holds them."""

    def __init__(self, size: Size, args: argparse.Namespace, scratch: Path) -> None:
        self.size, self.args, self.scratch = size, args, scratch
        self.entries: list[Entry] = []
        self.left_out: list[dict[str, str]] = []
        self.peaks: list[dict[str, Any]] = []
        self.environment = environment(args, scratch)
        products = products_of(shape_of(size.layers, size.width, size.vocab), min(2048, size.tokens))
        self.peak = self._start({"peak": products, "cores": args.cores})

    def _start(self, request: dict[str, Any]) -> Worker:
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        return Worker(request, folder, self.environment, self.args.timeout)

    def fill(self) -> None:
        """Build and warm up every candidate."""
        for spec in candidates(self.size, self.args):
            worker = self._start({"spec": spec.to_dict(), "again": False})
            first = worker.first
            label = f"{self.size.name} {spec.name}: {spec.variant}"
            if "ready" not in first:
                worker.stop()
                self._leave_out(spec, first.get("missing") or first.get("failed", ""))
                continue
            entry = Entry(spec, first["ready"], worker)
            self.entries.append(entry)
            say(f"{label}: {spec.tokens / entry.ready['step_seconds']:,.0f} tokens/s to begin with, "
                f"{entry.ready['micro'] * spec.seq_len} tokens at once")  # fmt: skip
            held = sum(held_bytes(e.worker.process.pid) for e in self.entries if e.worker is not None)
            if held > self.args.memory * 1e9:
                worker.stop()
                entry.worker = None
        fastest = min((e.ready["step_seconds"] for e in self.entries if e.spec.peer != "ours"), default=math.inf)
        for entry in self.entries:
            slow = entry.spec.peer != "ours" and entry.ready["step_seconds"] * self.args.slow > fastest
            entry.rounds = min(self.args.rounds, self.args.slow_rounds) if slow else self.args.rounds

    def _leave_out(self, spec: Spec, why: str) -> None:
        self.left_out.append({"name": spec.name, "variant": spec.variant, "why": why})
        say(f"{self.size.name} {spec.name}: {spec.variant}: left out, {why}")

    def run(self) -> None:
        """All rounds, forwards and backwards in turn; the machine's peak before each and after the last."""
        for number in range(self.args.rounds):
            self._measure_peak()
            for entry in self.entries if number % 2 == 0 else self.entries[::-1]:
                if number < entry.rounds:
                    self._turn(entry)
            say(f"{self.size.name}: round {number + 1} of {self.args.rounds}")
        self._measure_peak()

    def _measure_peak(self) -> None:
        found = self.peak.ask({})
        if "bf16" not in found:
            raise SystemExit(f"the peak could not be measured: {found.get('failed')}")
        self.peaks.append(found)

    def _turn(self, entry: Entry) -> None:
        spec = entry.spec
        again = replace(spec, micro=(entry.ready["micro"],)).to_dict()
        worker = entry.worker or self._start({"spec": again, "again": True})
        steps = max(1, round(self.args.seconds / entry.ready["step_seconds"]))
        found = worker.ask({"steps": steps}) if "ready" in worker.first else worker.first
        if entry.worker is None:
            worker.stop()
        if "seconds" not in found:
            why = f"failed in a round: {found.get('failed') or found.get('missing') or 'no reason given'}"
            if spec.peer == "ours":
                raise SystemExit(f"{self.size.name} {spec.name}: {why}")
            self._leave_out(spec, why)
            worker.stop()
            entry.rounds, entry.worker, entry.speeds = 0, None, []
            return
        entry.speeds.append(steps * spec.tokens / found["seconds"])
        entry.core_shares.append(found["cpu_seconds"] / found["seconds"])
        entry.loss = found["loss"]

    def close(self) -> None:
        """End every process of this shape."""
        for worker in [self.peak, *(e.worker for e in self.entries)]:
            if worker is not None:
                worker.stop()


def environment(args: argparse.Namespace, scratch: Path) -> dict[str, str]:
    """What every worker starts with, so that no row has a setting that another lacks."""
    found = {
        "TORCHINDUCTOR_CACHE_DIR": str(args.cache or scratch / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error",
        "OMP_NUM_THREADS": str(len(args.cores)), "MKL_NUM_THREADS": str(len(args.cores)),
    }  # fmt: skip
    if args.malloc == "keep":
        # What `smallfry.machine.keep_freed_memory` does for its own trainings: a sixth of a step otherwise goes on
        # fresh pages, for every peer alike.
        found |= {
            "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(64 << 20),
        }  # fmt: skip
    if args.isa:
        found["ONEDNN_MAX_CPU_ISA"] = args.isa
    return found


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


# ---- tables ----------------------------------------------------------------------------------------------------------


def measure(size: Size, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """One shape: its rows, peaks, and what was left out."""
    field_ = Field(size, args, scratch)
    try:
        field_.fill()
        field_.run()
    finally:
        field_.close()
    peaks = {kind: statistics.median(p[kind]["flops_per_second"] for p in field_.peaks) for kind in ("bf16", "fp32")}
    rows = [row_of(size, entry, peaks) for entry in field_.entries if entry.speeds]
    return {
        "shape": {"name": size.name, "layers": size.layers, "width": size.width, "vocab": size.vocab,
                  "seq_len": size.seq_len, "tokens_a_step": size.tokens},
        "peaks": {**peaks, "rounds": field_.peaks}, "rows": sorted(rows, key=lambda r: -r["tokens_per_s"]),
        "left_out": field_.left_out,
    }  # fmt: skip


def row_of(size: Size, entry: Entry, peaks: dict[str, float]) -> dict[str, Any]:
    """One candidate's numbers."""
    spec, ready = entry.spec, entry.ready
    # 6 a weight that multiplies; attention as Shape.flops_per_token has it.
    flops = 6 * ready["matmul_params"] + 6 * spec.layers * spec.width * spec.seq_len
    speed = statistics.median(entry.speeds)
    return {
        "shape": size.name, "name": spec.name, "variant": spec.variant, "params": ready["params"],
        "flops_per_token": flops, "micro_tokens": ready["micro"] * spec.seq_len, "cores": len(spec.cores),
        "tokens_per_s": speed, "flops_per_s": speed * flops,
        **{f"share_{kind}": speed * flops / peak for kind, peak in peaks.items()},
        "rounds": [round(s, 1) for s in entry.speeds], "core_share": min(entry.core_shares), "loss": entry.loss,
        "held_bytes": ready["held_bytes"], "tried": ready["tried"], "versions": ready["versions"],
    }  # fmt: skip


def summary(found: list[dict[str, Any]]) -> list[str]:
    """One line a shape: this project against the best row of any peer."""
    lines = [
        "| shape | smallfry tokens/s | of the bf16 peak | of the fp32 peak | best peer | its tokens/s | ratio "
        "| best peer by its own FLOP/s | ratio of FLOP/s | bf16 peak | fp32 peak |", "|" + "---|" * 11,
    ]  # fmt: skip
    for part in found:
        own = [r for r in part["rows"] if r["name"] == OURS]
        peers = [r for r in part["rows"] if r["name"] != OURS]
        if not own or not peers:
            continue
        ours, best = own[0], peers[0]
        dense = max(peers, key=lambda r: r["flops_per_s"])
        lines.append(
            f"| {part['shape']['name']} | {ours['tokens_per_s']:,.0f} | {ours['share_bf16']:.0%} "
            f"| {ours['share_fp32']:.0%} | {best['name']}: {best['variant']} | {best['tokens_per_s']:,.0f} "
            f"| {ours['tokens_per_s'] / best['tokens_per_s']:.2f} | {dense['name']}: {dense['variant']} "
            f"| {ours['flops_per_s'] / dense['flops_per_s']:.2f} | {part['peaks']['bf16'] / 1e9:,.0f} GFLOP/s "
            f"| {part['peaks']['fp32'] / 1e9:,.0f} GFLOP/s |"
        )
    return lines


def table(part: dict[str, Any]) -> list[str]:
    """Every row of a shape, the fastest first."""
    shape = part["shape"]
    ours = next((r["tokens_per_s"] for r in part["rows"] if r["name"] == OURS), math.nan)
    lines = [
        f"## {shape['name']}: {shape['layers']} layers, width {shape['width']}, vocabulary {shape['vocab']:,}, "
        f"{shape['seq_len']} tokens a row, {shape['tokens_a_step']:,} a step", "",
        "| who | how | parameters | MFLOP/token | tokens at once | tokens/s | GFLOP/s | of bf16 peak | of fp32 peak "
        "| smallfry is faster by | slowest to fastest round | rounds | share of the core |", "|" + "---|" * 13,
    ]  # fmt: skip
    for row in part["rows"]:
        ratio = "" if row["name"] == OURS or math.isnan(ours) else f"{ours / row['tokens_per_s']:.2f}"
        lines.append(
            f"| {row['name']} | {row['variant']} | {row['params']:,} | {row['flops_per_token'] / 1e6:.1f} "
            f"| {row['micro_tokens']:,} | {row['tokens_per_s']:,.0f} | {row['flops_per_s'] / 1e9:,.0f} "
            f"| {row['share_bf16']:.0%} | {row['share_fp32']:.0%} | {ratio} "
            f"| {min(row['rounds']):,.0f} to {max(row['rounds']):,.0f} | {len(row['rounds'])} "
            f"| {row['core_share']:.0%} |"
        )
    best = {kind: max(part["peaks"]["rounds"], key=lambda p: p[kind]["flops_per_second"])[kind]["product"]
            for kind in ("bf16", "fp32")}  # fmt: skip
    lines += [
        "", f"Peak measured between the rounds: bf16 {part['peaks']['bf16'] / 1e9:,.0f} GFLOP/s ({best['bf16']}), fp32 "
        f"{part['peaks']['fp32'] / 1e9:,.0f} GFLOP/s ({best['fp32']}).",
    ]  # fmt: skip
    least = min(row["core_share"] for row in part["rows"])
    if least < 0.9:
        lines += ["", f"In some of these rounds another program had the core: the lowest share that a row had of it in "
                  f"a round is {least:.0%}. Medians stand beside the slowest and the fastest round."]  # fmt: skip
    if part["left_out"]:
        lines += ["", *(f"- Left out: {x['name']}, {x['variant']}: {x['why']}." for x in part["left_out"])]
    return lines


def page(record: dict[str, Any]) -> str:
    """docs/results/train_speed.md."""
    machine, isa = record["machine"], record["isa"]
    rounds = record["rounds"]
    return "\n".join([
        "# Training speed", "", f"`{record['command']}`", "",
        f"{machine['cpu']}, {record['cores']} of {machine['cores']} cores, oneDNN instructions: {isa}. "
        + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + ".", "",
        f"Whole training steps on random tokens, medians of {rounds} interleaved rounds, every row in a process of its "
        "own, all pinned alike, each at the fastest of several micro-batches. FLOPs are "
        "each row's own: 6 a weight that multiplies, the head included, and 6 L d T for causal attention. smallfry "
        "runs its own optimizer (Muon, AdamW, averaged weights, clipping), nanochat its MuonAdamW, the others the "
        "fused AdamW of PyTorch without clipping. Freed memory is "
        f"{'kept by the C library' if record['malloc'] == 'keep' else 'given back'} in every row. Rows slower than "
        f"{record['slow']:.0%} of the fastest peer have {record['slow_rounds']} round.", "",
        *summary(record["shapes"]), "",
        *(line for part in record["shapes"] for line in [*table(part), ""]),
    ])  # fmt: skip


def shown_command() -> str:
    """The command without the folders of this machine."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    for at, word in enumerate(words[:-1]):
        if word in ("--nanochat", "--litgpt", "--cache"):
            words[at + 1] = "DIR"
    return shlex.join(["python", f"benchmarks/{words[0]}", *words[1:]])


def record_of(args: argparse.Namespace, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    from smallfry.machine import machine, versions

    used = {name: versions()[name] for name in ("python", "smallfry", "torch")}
    for part in found:
        for row in part["rows"]:
            used |= row["versions"]
    return {
        "command": shown_command(), "machine": machine(), "isa": args.isa or "all", "cores": len(args.cores),
        "versions": used, "rounds": args.rounds, "slow": args.slow, "slow_rounds": args.slow_rounds,
        "malloc": args.malloc, "load_average_at_end": os.getloadavg()[0], "shapes": found,
    }  # fmt: skip


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: tuple(int(n) for n in text.split(","))  # noqa: E731
    parser.add_argument("--shapes", default=",".join(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least one step")
    parser.add_argument("--tokens", type=numbers, help="tokens a step, one number a shape (4096,8192,16384)")
    parser.add_argument("--micro", type=numbers, help="tokens computed at once that every row tries")
    parser.add_argument("--only", default="", help="rows whose 'who: how' this pattern finds")
    parser.add_argument("--nanochat", help="checkout of nanochat")
    parser.add_argument("--litgpt", help="folder that holds litgpt")
    parser.add_argument("--isa", help="ONEDNN_MAX_CPU_ISA for every process, such as AVX512_CORE_BF16")
    parser.add_argument("--cores", type=numbers, default=(0,), help="cores that every row is pinned to")
    parser.add_argument("--malloc", choices=("keep", "default"), default="keep", help="what freed memory does")
    parser.add_argument("--slow", type=float, default=0.33, help="share of the fastest peer below which a row is slow")
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of slow rows")
    parser.add_argument("--memory", type=float, default=16.0, help="GB that waiting processes hold; others start anew")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds to wait for one answer")
    parser.add_argument("--cache", type=Path, help="folder that keeps compiled graphs; empty it after a killed run")
    parser.add_argument("--write", action="store_true", help="write docs/results/train_speed.md and .json")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the workers and removes the scratch folder
    names = args.shapes.split(",")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for at, name in enumerate(names):
            size = replace(SIZES[name], tokens=args.tokens[at]) if args.tokens else SIZES[name]
            found.append(measure(size, args, Path(scratch)))
            record = record_of(args, found)
            if args.write:  # after every shape: what is measured is not lost
                RESULTS.joinpath("train_speed.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                RESULTS.joinpath("train_speed.md").write_text(page(record), encoding="utf-8")
    print(page(record))
    if args.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
