"""Builds libfry with sanitizers and feeds it files that may be anything: ``make fuzz`` and ``make fuzz-short``.

First libFuzzer (clang) mutates what reaches new code, then a program reads random malformed files (`tests.fuzz.files`).
Both stop at the first file that does harm; it is kept, and the same program runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.files import CHOICES, malformed, seeds

HERE = Path(__file__).parent
FRY = HERE.parents[1] / "src" / "smallfry" / "engine" / "fry"
NO_CLANG = "clang is not installed; libFuzzer is part of it: apt-get install clang"
_BASE = ("-std=c11", "-O1", "-g", "-ffp-contract=off", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
_BOTH = ("-fsanitize=address,undefined",)
# What no machine gives is refused (NULL) rather than a failure; a state of megabytes is real, one of gigabytes refused.
_SANITIZERS = {
    "ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=64:quarantine_size_mb=16:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
_LONGEST = 16_384  # bytes of an input that libFuzzer makes


class HarmError(Exception):
    """A file that did harm; the message says which and what."""


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# ---- building -------------------------------------------------------------------------------------------------------


def build_stream(out: Path, compiler: str, library: Path = FRY) -> Path:
    """The program that reads many inputs from its standard input, under both sanitizers.

    Args:
        out: Where it goes.
        compiler: gcc or clang.
        library: The sources of libfry.

    Raises:
        RuntimeError: When the compiler cannot.
    """
    flags = (*_BASE, *_BOTH, "-DSTREAM")
    return _build(out / f"stream-{Path(compiler).name}", compiler, flags, flags, _BOTH, library)


def build_fuzzer(out: Path, clang: str, short: bool) -> Path:
    """The program of libFuzzer.

    Args:
        out: Where it goes.
        clang: The compiler.
        short: Kernel sets are built under the address sanitizer only, which takes clang seconds instead of minutes.

    Raises:
        RuntimeError: When the compiler cannot.
    """
    rest = (*_BASE, *_BOTH, "-fsanitize=fuzzer-no-link")
    # Counting branches in the kernels is enough; tracing their comparisons takes half of the time.
    sets = (*_BASE, "-fsanitize=address") if short else (*_BASE, *_BOTH)
    sets = (*sets, "-fsanitize-coverage=inline-8bit-counters,pc-table")
    return _build(out / ("fuzz-short" if short else "fuzz"), clang, rest, sets, (*_BOTH, "-fsanitize=fuzzer"), FRY)


def _build(
    program: Path, compiler: str, flags: Sequence[str], sets: Sequence[str], link: Sequence[str], library: Path
) -> Path:  # fmt: skip
    """Compile what changed, as many files at once as there are processors."""
    headers = b"".join(path.read_bytes() for path in sorted(library.glob("*.h")))
    objects = program.with_name(program.name + ".objects")
    objects.mkdir(parents=True, exist_ok=True)

    def compiled(source: Path) -> Path:
        used = sets if source.name.startswith("set_") else flags
        key = hashlib.sha256(headers + source.read_bytes() + repr((compiler, used)).encode()).hexdigest()[:16]
        made = objects / f"{source.stem}-{key}.o"
        if not made.exists():
            part = made.with_suffix(".part")
            _call([compiler, *used, "-I", str(library), "-c", str(source), "-o", str(part)])
            part.replace(made)
        return made

    ours = sorted(library.glob("*.c"), key=lambda path: (path.name[:4] != "set_", path.name))  # the slowest first
    sources = [*ours, HERE / "fuzz.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compiled, sources))
    _call([compiler, *link, *map(str, made), "-o", str(program)])
    return program


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[-3000:]}")


# ---- running --------------------------------------------------------------------------------------------------------


def feed(program: Path, count: int, seed: int, crash: Path) -> tuple[int, int]:
    """Feed random malformed files to the program of `build_stream`.

    Args:
        program: The program.
        count: How many files.
        seed: The same seed gives the same files.
        crash: Where a file goes that does harm.

    Returns:
        Files fed, and those that opened as models.

    Raises:
        HarmError: When a sanitizer or the program itself objects.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [program, crash], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
            env=os.environ | _SANITIZERS,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            for case in malformed(count, seed):
                process.stdin.write(struct.pack("<I", len(case)) + case)
        except BrokenPipeError:
            pass
        process.stdin.close()  # nothing waits in it: it is not buffered
        said = process.stdout.read().split()
        code = process.wait()
        process.stdout.close()
        errors.seek(0)
        if code or len(said) != 2 or int(said[0]) != count:
            raise HarmError(f"{crash}: {_problem(errors.read().decode(errors='replace'))}")
        return int(said[0]), int(said[1])


def fuzz(program: Path, seconds: int, seed: int, corpus: Path, crashes: Path, workers: int = 1) -> int:
    """Run libFuzzer.

    Args:
        program: What `build_fuzzer` made.
        seconds: How long.
        seed: Of its mutations.
        corpus: What reached new code, kept for the next time.
        crashes: Where a file goes that does harm.
        workers: Processes side by side, which learn from each other by the corpus.

    Returns:
        Files tried.

    Raises:
        HarmError: When a sanitizer or the program itself objects.
    """
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed_file in enumerate(seeds()):
        if CHOICES + len(seed_file) <= _LONGEST:
            (corpus / f"seed-{number}").write_bytes(bytes([number % 4]) + bytes(CHOICES - 1) + seed_file)
    files = [tempfile.TemporaryFile() for _ in range(workers)]  # noqa: SIM115
    running = [
        subprocess.Popen(
            [program, corpus, f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-seed={seed + worker}",
             # What a sanitizer holds back of freed memory once came to 2,098 MB, with 26 MB in use.
             "-timeout=60", "-rss_limit_mb=4096", "-malloc_limit_mb=2048", "-print_final_stats=1",
             f"-artifact_prefix={crashes}/"],
            stderr=file, stdout=file, env=os.environ | _SANITIZERS,
        )
        for worker, file in enumerate(files)
    ]  # fmt: skip
    codes = [process.wait() for process in running]
    tried = 0
    for code, file in zip(codes, files, strict=True):
        file.seek(0)
        said = file.read().decode(errors="replace")
        file.close()
        if code:
            raise HarmError(_problem(said))
        tried += next(int(line.split()[-1]) for line in said.splitlines() if line.startswith("stat::number_of_exec"))
    return tried


def _problem(said: str) -> str:
    """What matters of a sanitizer's words."""
    lines = [line for line in said.splitlines() if "failed to allocate" not in line and line.strip()]
    at = next((i for i, line in enumerate(lines) if "ERROR" in line or "runtime error" in line or "fuzz:" in line), 0)
    kept = lines[at : at + 20] + [line for line in lines[at + 20 :] if "Test unit written" in line]
    return "\n".join(kept) or "it ended without a word"


def run(folder: Path, seconds: int, count: int, seed: int, short: bool) -> None:
    """Build both programs and run them, as long and as often as asked.

    Raises:
        HarmError: At the first file that does harm.
    """
    clang = shutil.which("clang")
    if clang is None:
        raise SystemExit(NO_CLANG)
    workers = os.cpu_count() or 1
    begun = time.monotonic()
    fuzzer = build_fuzzer(folder, clang, short)
    stream = build_stream(folder, shutil.which("gcc") or clang)
    say(f"built in {time.monotonic() - begun:.0f} s")
    begun = time.monotonic()
    tried = fuzz(fuzzer, seconds, seed, folder / "corpus", folder / "crashes", workers)
    say(f"libFuzzer: {tried:,} files in {time.monotonic() - begun:.0f} s, none did harm")
    begun = time.monotonic()
    shares = [count // workers + (worker < count % workers) for worker in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        done = list(
            pool.map(
                lambda worker: feed(stream, shares[worker], seed + worker, folder / "crashes" / f"random-{worker}"),
                range(workers),
            )
        )
    opened = sum(one for _, one in done)
    say(
        f"random malformed files: {count:,} in {time.monotonic() - begun:.0f} s, of which {opened:,} opened; "
        "none did harm"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="of libFuzzer")
    parser.add_argument("--files", type=int, default=100_000, help="random malformed files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="kernel sets under the address sanitizer only")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="programs, corpus and files found")
    args = parser.parse_args()
    try:
        run(args.folder.resolve(), args.seconds, args.files, args.seed, args.short)
    except HarmError as harm:
        say(f"error: {harm}\nrun it again: {args.folder}/fuzz FILE")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
