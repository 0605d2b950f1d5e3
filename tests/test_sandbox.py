"""Programs that mean harm: each is contained, each ends in time, and the next one runs."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.suites import sandbox
from smallfry.evals.suites.code import measure_humaneval, measure_pass_at_k, pass_at_k, program
from smallfry.evals.suites.sandbox import Limits, descendants, run
from smallfry.evals.suites.scoring import GuessingModel, Writing
from tests.test_suites import model

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
SHORT = Limits(seconds=2.0, memory=256 << 20)
HUMANEVAL = Path(__file__).parents[2] / "shared" / "data" / "evals" / "humaneval.jsonl.gz"

# What each program tries; it must not pass, unless it is marked as one that may find its attempt without effect.
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "fork bomb that ignores errors": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "endless loop": "while True: pass",
    "endless sleep": "import time\ntime.sleep(3600)",
    "fifty gigabytes": "x = bytearray(50 << 30)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "memory in many processes": "import os\nfor _ in range(3): os.fork()\nx = bytearray(9**9 // 4)\nwhile 1: x[::4096]",
    "a full disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
    "many files": "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').write('x' * 5000); i += 1",
    "filling shared memory": "i = 0\nwhile True:\n    open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 22)); i += 1",
    "memory files": "import os\nk = []\nwhile 1:\n    k.append(os.memfd_create('x')); os.write(k[-1], bytes(1 << 22))",
    "a sandbox of its own": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'",
    "reading the passwords": "open('/etc/passwd').read()",
    "reading the home folder": "import os\nos.listdir('/root' if os.path.exists('/root') else '/home')",
    "reading this test": f"open({str(Path(__file__).resolve())!r}).read()",
    "network by name": "import urllib.request\nurllib.request.urlopen('http://localhost', timeout=1)",
    "network by socket": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass",
    "killing everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\nwhile True: pass",
    "a link out": "import os\nos.symlink('/etc', '/tmp/out')\nopen('/tmp/out/passwd').read()",
    "climbing out": "open('/tmp/../../../../etc/shadow').read()",
    "writing the system": "open('/usr/bin/smallfry-was-here', 'w')",
    "signals ignored": "from signal import *\nfor s in {*range(1, 32)} - {9, 19}: signal(s, SIG_IGN)\nwhile 1: pass",
    "a child that stays": "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(3600)\nraise SystemExit(1)",
    "output flood": "while True: print('x' * 10000)",
    "error flood": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "leaving early": "import os\nos._exit(0)",
    "leaving politely": "import sys\nsys.exit(0)",
    "raising its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "mounting": "import subprocess\nsubprocess.run(['mount', '-t', 'proc', 'proc', '/tmp'], check=True)",
    "the memory of others": "open('/proc/1/mem', 'rb').read(1)",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_programs_are_contained(what: str) -> None:
    before = {p.name for p in Path("/tmp").iterdir()}
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        reached: list[object] = []

        def listen() -> None:
            try:
                reached.append(server.accept())
            except OSError:
                return

        listener = threading.Thread(target=listen)
        listener.start()
        found = run(HOSTILE[what].replace("PORT", str(server.getsockname()[1])), SHORT)
        listener.join()
    assert not found.passed, found
    assert found.seconds < SHORT.seconds + 1.5
    assert not reached
    assert not Path("/usr/bin/smallfry-was-here").exists()
    new = {p.name for p in Path("/tmp").iterdir()} - before
    assert not {n for n in new if n in ("x", "out") or n.isdigit()}
    assert run("x = 1").passed  # and the evaluation goes on


def test_nothing_is_left_running() -> None:
    run("import os, time\nfor _ in range(5):\n    if os.fork() == 0: time.sleep(3600)\nwhile True: pass", SHORT)
    stray = [
        p for p in Path("/proc").iterdir()
        if p.name.isdigit() and b"RLIMIT_NPROC" in _command_line(p) and b"smallfry" not in _command_line(p)[:40]
    ]  # fmt: skip
    deadline = time.monotonic() + 20  # those of tests that run beside this one end by themselves
    while any(_command_line(p) for p in stray) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [p for p in stray if _command_line(p)]
    assert descendants(os.getpid())[os.getpid()] > 1 << 20


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_honest_programs_pass_and_wrong_ones_tell_why() -> None:
    assert run("print('x' * 100_000)\nassert sorted([2, 1]) == [1, 2]").passed
    assert run("import math, re, json, collections\nopen('/tmp/x', 'w').write('a')").passed
    found = run("assert 1 == 2, 'one is not two'")
    assert found.ending == "failed" and "one is not two" in found.error
    assert run("x = bytearray(50 << 30)").ending == "memory"
    assert run("while True: pass", Limits(seconds=0.5)).ending == "timeout"


def test_a_missing_sandbox_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.require()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(sandbox.SmallfryError, match=r"apt-get install bubblewrap.*--unsafe-code"):
        sandbox.require()


def test_without_the_sandbox_limits_still_hold() -> None:
    assert run("x = 1", unsafe=True).passed
    assert run("while True: pass", Limits(seconds=0.5), unsafe=True).ending == "timeout"
    assert not run("import sys\nsys.exit(0)", unsafe=True).passed


PROBLEM = {
    "prompt": "def double(x):\n", "entry_point": "double",
    "test": "def check(f):\n    assert f(2) == 4 and f(0) == 0\n",
}  # fmt: skip


class Writer(GuessingModel):
    """Writes one text whatever it is asked."""

    def __init__(self, text: str) -> None:
        super().__init__(model())
        self.text = text

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        return [self.text] * len(prompts)


@pytest.mark.parametrize(
    ("text", "right"), [("    return 2 * x\n\ndef other():\n    1/0", True), ("    return x", False), ("!?", False)]
)
def test_completions_are_cut_where_the_function_ends_and_run(text: str, right: bool) -> None:
    found = measure_humaneval(Writer(text), [PROBLEM] * 3)
    assert found.n == 3 and found.accuracy == float(right)


def test_pass_at_k_is_measured_from_samples() -> None:
    found = measure_pass_at_k(Writer("    return 2 * x"), [PROBLEM] * 2, (1, 2), 3, Sampling(0.8))
    assert [(p.k, p.samples, p.score, p.n) for p in found] == [(1, 3, 1.0, 2), (2, 3, 1.0, 2)]
    with pytest.raises(SmallfryError, match="give --samples 5"):
        measure_pass_at_k(Writer(""), [PROBLEM], (5,), 3, Sampling(0.8))


def test_pass_at_k_without_bias() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 10) == 1.0 and pass_at_k(10, 0, 5) == 0.0
    pairs = [(a, b) for a in range(6) for b in range(a)]
    assert pass_at_k(6, 2, 2) == pytest.approx(sum(b < 2 or a < 2 for a, b in pairs) / len(pairs))
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        pass_at_k(3, 1, 4)


@pytest.mark.slow
@pytest.mark.skipif(not HUMANEVAL.exists(), reason="needs the benchmark data beside the checkout")
def test_all_canonical_solutions_pass() -> None:
    with gzip.open(HUMANEVAL, "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    assert len(problems) == 164
    for p in problems:
        found = run(program(p, p["canonical_solution"]), Limits(seconds=20.0))
        assert found.passed, (p["task_id"], found)
