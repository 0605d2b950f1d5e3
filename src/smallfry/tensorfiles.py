"""safetensors files written in one pass: hashed on the way, on the disk when the call returns, one tensor in memory.

The format is 8 bytes of length, a JSON header, and the tensors' bytes end to end (huggingface/safetensors). The
library's own writer neither hashes nor waits for the disk, and older ones hold a copy of every tensor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> tuple[str, int]:
    """Write a safetensors file, not atomically: the caller gives a name of its own and renames.

    Args:
        path: The file.
        tensors: By name; each is copied off its device only when its turn comes.
        metadata: Goes into the header.

    Returns:
        The file's SHA-256 and its size in bytes.

    Raises:
        OSError: When it cannot be written; a part of it may be there.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in _pieces(tensors, metadata):
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def digest_of(path: Path) -> str:
    """SHA-256 of a file of any size, read piece by piece.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Bring renames in a directory onto the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no directories, some network disks do not sync them
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _pieces(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> Iterator[bytes | memoryview]:
    # Wide elements first, as the library orders them: every tensor then starts at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name in names:
        end = at + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [at, end]
        }  # fmt: skip
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data
