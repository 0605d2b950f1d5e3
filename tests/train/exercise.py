"""Builds the training kernels with sanitizers and calls them with tensors of random sizes.

    python -m tests.train.exercise --rounds 200

Needs clang. Without optimisation: under sanitizers clang takes minutes to optimise what is written for 32 registers.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
FRY = HERE.parents[1] / "src" / "smallfry" / "engine" / "fry"
FLAGS = (
    "-std=c11", "-O0", "-g1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


def build(out: Path, clang: str = "clang") -> Path:
    """The program, in a directory.

    Raises:
        RuntimeError: When it cannot be compiled.
    """

    def compiled(source: Path) -> str:
        made = str(out / f"{source.stem}.o")
        _call([clang, *FLAGS, "-I", str(FRY), "-c", str(source), "-o", made])
        return made

    sources = [*sorted((FRY / "train").glob("*.c")), HERE / "exercise.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compiled, sources))
    _call([clang, *FLAGS, *made, "-o", str(out / "exercise")])
    return out / "exercise"


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[-3000:]}")


def _deep() -> None:
    """Room for frames of functions whose parts are all inlined and none of whose variables share a place."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 29 if hard == resource.RLIM_INFINITY else hard, hard))


def main() -> int:
    """Build, run, and say which kernel sets were exercised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="random sizes a kernel set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory))
        done = subprocess.run(
            [str(program), str(options.rounds)], capture_output=True, text=True, check=False, preexec_fn=_deep
        )
    sys.stdout.write("training kernels under sanitizers: " + (done.stdout or "\n"))
    sys.stderr.write(done.stderr[-3000:])
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
