"""Milliseconds and megabytes from `import smallfry` to the first answer, in fresh processes.

    python benchmarks/start.py MODEL [--rounds 9] [--json]

MODEL is a model directory. The clock starts before the import, the interpreter's own start is told apart; memory is the
process's peak (Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

ASK = """
import sys, time
start = time.perf_counter()
import smallfry
answer = smallfry.load(sys.argv[1])
text = next(iter(answer.stream(answer.prompt_ids("the"), 1))).text if hasattr(answer, "stream") else answer("the")
spent = time.perf_counter() - start
import json, pathlib
peak = int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"ms": spent * 1e3, "mb": peak, "torch": "torch" in sys.modules}))
"""


def ask(model: str) -> dict[str, float]:
    """One fresh process."""
    done = subprocess.run([sys.executable, "-c", ASK, model], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ask(args.model)  # files come into memory, modules are compiled
    found = [ask(args.model) for _ in range(args.rounds)]
    ms, mb = (statistics.median(f[key] for f in found) for key in ("ms", "mb"))
    print(
        f"{ms:.0f} ms and {mb:.0f} MB to the first answer (medians of {args.rounds}; torch loaded: {found[0]['torch']})"
    )
    if args.json:
        command = f"python benchmarks/start.py MODEL --rounds {args.rounds} --json"
        name = args.model.rstrip("/").rsplit("/", 1)[-1]
        print(json.dumps({"command": command, "model": name, "ms": ms, "mb": mb, "all": found}))


if __name__ == "__main__":
    main()
