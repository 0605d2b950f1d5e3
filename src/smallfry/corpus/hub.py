"""Data sets of the Hugging Face hub, streamed from the one commit that a corpus was begun with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from smallfry.errors import SmallfryError

_PATIENCE = 60.0  # seconds that the hub has to say which commit a data set is at


class HubName(NamedTuple):
    """``hf:owner/name:config@split#revision`` in its parts.

    Args:
        repo: ``owner/name``.
        config: Of the data set, or None.
        split: ``train`` where none is named.
        revision: A commit, a branch or a tag; None is what the hub has now.
    """

    repo: str
    config: str | None
    split: str
    revision: str | None

    @staticmethod
    def parse(source: str) -> HubName:
        """A source as it is written on the command line.

        Raises:
            SmallfryError: It has no owner or no name.
        """
        rest, _, revision = source.removeprefix("hf:").partition("#")
        rest, _, split = rest.partition("@")
        repo, _, config = rest.partition(":")
        if repo.count("/") != 1 or not all(repo.split("/")):
            raise SmallfryError(
                f"{source}: expected hf:owner/name, hf:owner/name:config, hf:owner/name@split or hf:owner/name#revision"
            )
        return HubName(repo, config or None, split or "train", revision or None)


def hub_commit(source: str) -> str:
    """The commit that a data set is at now, or that the revision in its name stands for.

    Raises:
        SmallfryError: ``huggingface_hub`` is missing, or the hub does not tell.
    """
    name = HubName.parse(source)
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise _missing(source) from None
    try:
        sha = HfApi().dataset_info(name.repo, revision=name.revision, timeout=_PATIENCE).sha
    except Exception as error:  # the library raises its own and its HTTP client's exceptions
        raise SmallfryError(
            f"{source}: the hub did not say which commit it is at ({_reason(error)}); check the name, the revision "
            "(hf:owner/name#revision) and the network"
        ) from None
    if not sha:
        raise SmallfryError(f"{source}: the hub names no commit; give a revision (hf:owner/name#revision)")
    return sha


def hub_rows(source: str, revision: str | None) -> Iterator[tuple[int, Any]]:
    """Numbered rows, from 1 on.

    Args:
        source: As `HubName.parse` takes it.
        revision: The commit that is read; None is the one that ``source`` names, or the latest.

    Raises:
        SmallfryError: ``datasets`` is missing, or the data set cannot be had.
    """
    name = HubName.parse(source)
    try:
        import datasets
    except ImportError:
        raise _missing(source) from None
    try:
        found = datasets.load_dataset(
            name.repo, name.config, split=name.split, streaming=True, revision=revision or name.revision
        )
        yield from enumerate(found, 1)
    except Exception as error:  # the library raises its own, the hub client's, fsspec's and built-in exceptions
        raise SmallfryError(
            f"{source}: could not be streamed ({_reason(error)}); check the name, the config (hf:owner/name:config), "
            "the split (hf:owner/name@split), the revision (hf:owner/name#revision) and the network"
        ) from None


def _missing(source: str) -> SmallfryError:
    return SmallfryError(f"{source}: hub data needs datasets; run: pip install 'smallfry[hub]'")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
