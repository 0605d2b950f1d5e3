"""Model-written programs, run where they can do no harm: bubblewrap, and limits that the program cannot lift.

Inside there is no network, no file of this machine but the read-only system and the interpreter, no other process, a
private ``/tmp`` of a few megabytes, no environment. The program's own process starts with hard limits on memory,
processor time, file size, open files and processes; from outside, wall-clock time and the memory of all its processes
together are watched, and whatever breaks a limit is killed with everything it started.

A program passes when it runs to its end: the wrapper around it then reads a secret and writes it out, so that leaving
early with exit code 0 is no pass. That is no protection against a program which sets out to find the secret, as it
shares a process with the wrapper; it is one against programs that are wrong.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smallfry.errors import SmallfryError

Ending = Literal["passed", "failed", "timeout", "memory", "output"]

_NOBODY = 65534
_POLL = 0.02
_GONE = 2.0  # seconds to wait for the last process of a killed sandbox
_SHOWN = 2000  # characters of an error that are kept

# Runs inside. Limits come first and cannot be raised again; the secret is read when the program is done.
_WRAPPER = """
import os, resource, sys
def limit(kind, value):
    resource.setrlimit(kind, (value, value))
memory, seconds, file_size, processes = map(int, sys.argv[1:5])
limit(resource.RLIMIT_AS, memory); limit(resource.RLIMIT_CPU, seconds); limit(resource.RLIMIT_FSIZE, file_size)
limit(resource.RLIMIT_NPROC, processes); limit(resource.RLIMIT_NOFILE, 32); limit(resource.RLIMIT_CORE, 0)
def main(size):
    kept, out = os.dup(0), os.dup(1)
    os.close(0)
    program = b""
    while len(program) < size:
        program += os.read(kept, size - len(program))
    exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    os.write(out, os.read(kept, 64))
    os._exit(0)
main(int(sys.argv[5]))
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    Args:
        seconds: Wall-clock time.
        memory: Bytes of address space a process, and of resident memory all together.
        disk: Bytes of the private ``/tmp``, and a quarter of that a file.
        processes: Processes and threads at once.
        output: Bytes it may print before it is ended.
    """

    seconds: float = 5.0
    memory: int = 512 << 20
    disk: int = 16 << 20
    processes: int = 16
    output: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended, after how many seconds, and the end of what it wrote to its error stream."""

    ending: Ending
    seconds: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran to its end."""
        return self.ending == "passed"


def require() -> None:
    """Refuse where programs cannot be contained.

    Raises:
        SmallfryError: bubblewrap is missing or may not make namespaces here.
    """
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        raise SmallfryError(
            "model-written programs run in bubblewrap only, which is missing; apt-get install bubblewrap, or run them "
            "unprotected with --unsafe-code"
        )
    probe = run("pass", Limits(seconds=20.0))
    if not probe.passed:
        raise SmallfryError(
            f"bubblewrap does not work here ({probe.error.strip()[:200] or probe.ending}); allow user namespaces, or "
            "run programs unprotected with --unsafe-code"
        )


def interpreter() -> tuple[Path, Path, bool]:
    """The Python to run programs with, the folder it needs, and whether an unprivileged user can reach it."""
    for candidate in (Path("/usr/bin/python3"), Path(sys.executable)):
        real = candidate.resolve()
        if real.exists() and _reachable(real):
            return real, Path("/usr") if real.is_relative_to("/usr") else real.parent.parent, True
    real = Path(sys.executable).resolve()
    return real, real.parent.parent, False


def _reachable(path: Path) -> bool:
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


def run(program: str, limits: Limits | None = None, unsafe: bool = False) -> Run:
    """Run one program to its end or to a limit.

    Args:
        program: Python source.
        limits: What it may use.
        unsafe: Without the sandbox: the limits hold, but the program sees this machine as its user does.
    """
    limits = limits or Limits()
    python, folder, reachable = interpreter()
    secret = secrets.token_hex(16)
    # Root is exempt from the limit on processes: give it up before the sandbox is made, where that is possible.
    drop = reachable and hasattr(os, "geteuid") and os.geteuid() == 0
    began = time.monotonic()
    user = _NOBODY if drop else None
    source = program.encode("utf-8", "surrogatepass")
    wrapped = _alone(python, limits, len(source))
    process = subprocess.Popen(
        wrapped if unsafe else [*_contained(folder, limits), *wrapped],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, cwd=tempfile.gettempdir(), env={"PATH": "/usr/bin:/bin"}, user=user, group=user,
        extra_groups=[] if drop else None,
    )  # fmt: skip
    ending, out, error = _watch(process, source + secret.encode(), limits, began)
    if ending is None:
        ending = "passed" if process.returncode == 0 and out.endswith(secret.encode()) else "failed"
    text = error.decode("utf-8", "replace")[-_SHOWN:]
    if ending == "failed" and "MemoryError" in text:
        ending = "memory"
    return Run(ending, time.monotonic() - began, text)


def _contained(folder: Path, limits: Limits) -> list[str]:
    """The sandbox around a command."""
    system = [p for p in ("/lib", "/lib64", "/bin", "/sbin") if Path(p).exists()]
    binds = ["--ro-bind", "/usr", "/usr"]
    for path in system:
        link = Path(path)
        binds += ["--symlink", str(link.readlink()), path] if link.is_symlink() else ["--ro-bind", path, path]
    if not folder.is_relative_to("/usr"):
        binds += ["--ro-bind", str(folder), str(folder)]
    return [
        "bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--clearenv",
        "--setenv", "PATH", "/usr/bin:/bin", "--hostname", "sandbox", *binds, "--proc", "/proc", "--dev", "/dev",
        "--remount-ro", "/dev",
        "--size", str(limits.disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp",
    ]  # fmt: skip


def _alone(python: Path, limits: Limits, size: int) -> list[str]:
    """The wrapper by itself, told how many bytes of its input are the program."""
    sizes = (limits.memory, int(limits.seconds) + 1, limits.disk // 4, limits.processes, size)
    return [str(python), "-I", "-S", "-c", _WRAPPER, *map(str, sizes)]


def _watch(
    process: subprocess.Popen[bytes], source: bytes, limits: Limits, began: float
) -> tuple[Ending | None, bytes, bytes]:
    """Feed the program, read what it prints up to the limit, and end it when it breaks one."""
    assert process.stdin and process.stdout and process.stderr
    out, error = bytearray(), bytearray()
    before = shared()
    ending: Ending | None = None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(source)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    streams = ((process.stdout, out), (process.stderr, error))
    for stream, _ in streams:
        os.set_blocking(stream.fileno(), False)
    while ending is None:
        done = process.poll() is not None
        for stream, kept in streams:
            kept += _read(stream.fileno())
        if len(out) + len(error) > limits.output:
            ending = "output"
        elif done:
            break
        elif time.monotonic() - began > limits.seconds:
            ending = "timeout"
        elif sum(descendants(process.pid).values()) + max(0, shared() - before) > limits.memory:
            ending = "memory"
        else:
            time.sleep(_POLL)
    if ending is not None:
        _end(process)
    for stream, kept in streams:
        while ending is None and (rest := _read(stream.fileno())):
            kept += rest
        stream.close()
    return ending, bytes(out), bytes(error)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the sandbox; its process namespace dies with it, whatever was started inside. Waits until it is gone."""
    family = descendants(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:  # without the sandbox a child may have left the group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()
    deadline = time.monotonic() + _GONE
    while time.monotonic() < deadline and any(map(_runs, family)):
        time.sleep(_POLL)


def _runs(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be noticed dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def shared() -> int:
    """Bytes of shared memory and memory files on this machine, which belong to no process alone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("Shmem:"):
                return int(line.split()[1]) << 10
    return 0


def descendants(root: int) -> dict[int, int]:
    """A process and everything it started that still runs, each with the bytes of memory it holds now."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)], sizes[int(entry.name)] = int(fields[1]), int(fields[21]) * page
    found = {}
    for pid, size in sizes.items():
        at = pid
        while at not in (root, 0) and at in parents:
            at = parents[at]
        if at == root:
            found[pid] = size
    return found
