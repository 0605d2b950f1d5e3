"""Teachers: what a student learns from beside its data.

A teacher whose tokenizer agrees with the student's gives distributions over the next token (`LogitTeacher`). Any other
one, and every endpoint, gives texts (`TextTeacher`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from tokenizers import Tokenizer as HfTokenizer
from torch import Tensor

from smallfry.architecture import runs_here
from smallfry.characters import whole_text
from smallfry.checkpoint import load_weights
from smallfry.data import Batch, Soft
from smallfry.endpoint import Endpoint, is_address
from smallfry.engine.decoding import Engine
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.forms import Form
from smallfry.machine import compute_dtype, default_device
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.shipped import model_directory
from smallfry.tokenizer import END, PAD, Tokenizer
from smallfry.writer import Writer

if TYPE_CHECKING:
    from smallfry.tuning.conversations import Conversation

KEY = "SMALLFRY_TEACHER_KEY"
_PLACES = 256  # places whose whole distributions are held at once
_ROUND = 64
_LOGITS = 100_000_000  # positions x vocabulary at once where a library gives no states: 400 MB in fp32
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")  # no code, no pickle


# ---- distributions --------------------------------------------------------------------------------------------------


class Network(Protocol):
    """What a `LogitTeacher` computes with."""

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """What the head needs of N places, counted through the rows of ids ``(B, T)``: ``(N, ...)``."""

    def logits(self, states: Tensor) -> Tensor:
        """Logits of some of those states, ``(n, V)`` fp32."""


class OwnNetwork:
    """A `Transformer`; the head is applied to the places asked for only.

    Args:
        model: In evaluation mode, in the precision it is stored in.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model.eval()
        self.rows = model.shape.vocab_size

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """Hidden states, ``(N, C)``."""
        device = self.model.embed.weight.device
        known = np.where(ids < self.rows, ids, PAD)  # a student may have tokens that its teacher never heard of
        hidden = self.model(torch.from_numpy(known).to(device)).flatten(0, 1)
        return cast(Tensor, hidden[torch.from_numpy(places).to(device)])

    def logits(self, states: Tensor) -> Tensor:
        """Through the head."""
        return self.model.logits(states).float()


class HfNetwork:
    """A Hugging Face causal language model of any architecture; whole logits, a few rows at a time.

    Args:
        model: What transformers loaded, in evaluation mode.
        context: Most tokens it can read.
        name: For the error.
    """

    def __init__(self, model: Any, context: int, name: str) -> None:
        self.model, self.context, self.name = model, context, name
        self.rows = int(model.config.vocab_size)

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """Logits already, ``(N, V)``.

        Raises:
            SmallfryError: The rows are longer than the model's context.
        """
        length = ids.shape[1]
        if length > self.context:
            raise SmallfryError(
                f"--teacher {self.name}: reads {self.context:,} tokens at most, got rows of {length:,}; lower --seq-len"
            )
        known = torch.from_numpy(np.where(ids < self.rows, ids, 0))
        count = max(1, _LOGITS // (length * self.rows))
        found = torch.zeros(len(places), self.rows)
        for at in range(0, len(ids), count):
            mine = np.flatnonzero((places >= at * length) & (places < (at + count) * length))
            if len(mine):  # rows without weight are not read
                logits = self.model(known[at : at + count]).logits.flatten(0, 1)
                found[torch.from_numpy(mine)] = logits[torch.from_numpy(places[mine] - at * length)].float()
        return found

    def logits(self, states: Tensor) -> Tensor:
        """They are logits."""
        return states


class LogitTeacher:
    """A model that says how likely each next token is.

    Args:
        name: For records.
        network: What computes it.
        vocab_size: Tokens of its tokenizer; further rows of its table are padding and say nothing.
    """

    def __init__(self, name: str, network: Network, vocab_size: int) -> None:
        self.name, self.network, self.vocab_size = name, network, vocab_size

    def soft(self, batch: Batch, share: float, temperature: float, top_k: int) -> Soft:
        """What it says of a batch; see `soft_targets`."""
        return soft_targets([self], batch, share, temperature, top_k)


@torch.inference_mode()
def soft_targets(
    teachers: Sequence[LogitTeacher], batch: Batch, share: float, temperature: float, top_k: int, least: float = 0.0,
) -> Soft:  # fmt: skip
    """The mean of the teachers' distributions after softening, its likeliest tokens kept (Hinton et al. 2015).

    Only places that carry more weight than ``least`` are asked about; the others hold zeros and are not taught. Where
    the target is a token that the teachers do not have (a label that only the student knows), the target itself is all
    that is taught.

    Args:
        teachers: Of one tokenizer.
        batch: What the student reads, ``(B, T)``.
        share: Of the student's loss.
        temperature: What logits are divided by.
        top_k: Tokens kept at each place.
        least: Weight of a place from which it is not taught.

    Returns:
        ``(B, T, K)`` ids and probabilities, K being at most the teachers' vocabulary.
    """
    vocab_size = teachers[0].vocab_size
    kept = min(top_k, vocab_size)
    places = np.flatnonzero(batch.weights > least)
    ids = np.zeros((batch.ids.size, kept), dtype=np.int32)
    probs = np.zeros((batch.ids.size, kept), dtype=np.float32)
    # Rounded up with repeats: a CPU's matrix library compiles, and keeps, a kernel for each new number of rows.
    asked = np.concatenate([places, np.zeros(-len(places) % _ROUND, dtype=places.dtype)])
    states = [teacher.network.states(np.ascontiguousarray(batch.ids), asked) for teacher in teachers]
    for at in range(0, len(places), _PLACES):
        part = slice(at, at + _PLACES)
        mean: Tensor | None = None
        for teacher, state in zip(teachers, states, strict=True):
            logits = teacher.network.logits(state[part])[:, :vocab_size]
            softened = torch.softmax(logits / temperature, dim=-1)  # (n, V)
            mean = softened if mean is None else mean.add_(softened)
        assert mean is not None
        top = (mean / len(teachers)).topk(kept, dim=-1)
        count = len(places[part])
        ids[places[part]] = top.indices[:count].cpu().numpy()
        probs[places[part]] = top.values[:count].cpu().numpy()
    targets = batch.targets.ravel()
    alien = places[targets[places] >= vocab_size]
    ids[alien], probs[alien] = 0, 0.0
    ids[alien, 0], probs[alien, 0] = targets[alien], 1.0
    shape = (*batch.ids.shape, kept)
    return Soft(ids.reshape(shape), probs.reshape(shape), share, temperature)


# ---- texts ----------------------------------------------------------------------------------------------------------


class TextTeacher(Protocol):
    """A model that answers in words."""

    @property
    def name(self) -> str:
        """For records."""

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> list[str]:
        """What it says next in each conversation, the last turn of which is the user's.

        Args:
            conversations: Turns so far.
            max_new: Most tokens of an answer.
        """


class WriterTeacher:
    """A model directory that the engine runs: ours with another tokenizer than the student's, or an imported one.

    Args:
        path: The directory.

    Raises:
        SmallfryError: It cannot be read, or was never taught to converse.
    """

    def __init__(self, path: Path) -> None:
        self._writer = Writer.load(path)
        if self._writer.own and not self._writer.chats:
            raise SmallfryError(
                f"--teacher {path}: continues texts but was not taught to answer; tune it on conversations first, or "
                "teach by distributions: a student with its tokenizer"
            )
        self.name = str(path)
        ends = self._writer.ends
        self._engine = Engine(self._writer.backend, END if self._writer.own else min(ends, default=-1))

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> list[str]:
        """The likeliest answers, many at a time."""
        prompts = [self._writer.chat_ids([(m.role, m.content) for m in each]) for each in conversations]
        answers = self._engine.generate(prompts, [None] * len(prompts), max_new)
        return [self._writer.decode(_until(a.ids, self._writer.ends)).strip() for a in answers]


class HfTeacher:
    """A Hugging Face directory that only transformers can run; nothing is fetched, no code of the model's own is run.

    Args:
        path: The directory.

    Raises:
        SmallfryError: transformers is missing or cannot load it.
    """

    def __init__(self, path: Path) -> None:
        from smallfry.evals.suites.models import HfScorer  # transformers takes seconds to import

        self._scorer = HfScorer(path)
        self.name = str(path)

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> list[str]:
        """The likeliest answers, one at a time."""
        from smallfry.evals.suites.scoring import Writing

        prompts = [self._spelled(each) for each in conversations]
        return [text.strip() for text in self._scorer.generate(prompts, Writing(max_new))]

    def _spelled(self, conversation: Conversation) -> list[int]:
        """By the chat template; without one, the turns as lines."""
        texts = self._scorer.texts
        tokenizer: Any = getattr(texts, "tokenizer")  # noqa: B009 - of HfTexts, not of the protocol
        if getattr(tokenizer, "chat_template", None):
            turns = [{"role": m.role, "content": m.content} for m in conversation]
            return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
        return [*texts.start(), *texts.encode("\n".join(m.content for m in conversation) + "\n")]


@dataclass(frozen=True, slots=True)
class EndpointTeacher:
    """A model behind an OpenAI-compatible address.

    Args:
        endpoint: The address and the model there.
        temperature: How freely it writes.
        parallel: Requests at the same time.
    """

    endpoint: Endpoint
    temperature: float = 0.0
    parallel: int = 4

    @property
    def name(self) -> str:
        """Address and model, without what may be secret."""
        return f"{self.endpoint.shown} {self.endpoint.model}"

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> list[str]:
        """One request a conversation, a few at the same time."""

        def one(conversation: Conversation) -> str:
            turns = [{"role": m.role, "content": m.content} for m in conversation]
            return whole_text(self.endpoint.complete(turns, max_new, self.temperature)).strip()

        with ThreadPoolExecutor(max(1, min(self.parallel, len(conversations)))) as pool:
            return list(pool.map(one, conversations))


class JobTeacher:
    """A model of a job, which answers inputs in the job's own form.

    Args:
        path: Its directory.
    """

    def __init__(self, path: Path) -> None:
        self.predictor = ModelPredictor.load(path)
        self.name = str(path)

    def outputs(self, inputs: Sequence[str]) -> list[str]:
        """The job's output for each input."""
        return [prediction.output for prediction in self.predictor.predict(inputs)]

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> list[str]:
        """The outputs for the last turns; it knows no conversation."""
        return self.outputs([each[-1].content for each in conversations])


class Committee(JobTeacher):
    """Models of one job with labels, which answer together: the label whose mean probability is highest.

    Args:
        members: The models.
        labels: The job's.
    """

    def __init__(self, members: Sequence[JobTeacher], labels: Sequence[str]) -> None:
        self.members, self.labels, self.predictor = members, list(labels), members[0].predictor
        self.name = " + ".join(member.name for member in members)

    def outputs(self, inputs: Sequence[str]) -> list[str]:
        """The label for each input."""
        options = [self.labels] * len(inputs)
        shares = np.mean([np.exp(member.predictor.score(inputs, options)) for member in self.members], axis=0)
        return [self.labels[at] for at in shares.argmax(axis=1)]  # shares (inputs, labels)


def _until(ids: Sequence[int], ends: frozenset[int]) -> list[int]:
    return list(ids[: next((at for at, i in enumerate(ids) if i in ends), len(ids))])


# ---- finding them ---------------------------------------------------------------------------------------------------


def load_teacher(
    source: str, tokenizer: Tokenizer | None, model_name: str | None, job_form: bool = False
) -> LogitTeacher | TextTeacher:
    """A teacher: a `LogitTeacher` where its tokenizer agrees with the student's, else a `TextTeacher`.

    Args:
        source: A model directory (ours, an assessment's, Hugging Face's), ``hf:owner/name``, or the address of an
            OpenAI-compatible endpoint up to and with ``/v1``.
        tokenizer: The student's; None where only texts are wanted.
        model_name: The model at the endpoint.
        job_form: The student learns a job: a job's model may teach by its outputs.

    Raises:
        SmallfryError: There is no such teacher, or it cannot teach this student.
    """
    if is_address(source):
        if not model_name:
            raise SmallfryError(f"--teacher {Endpoint(source, '').shown}: which model there? name it: --teacher-model")
        return EndpointTeacher(Endpoint(source, model_name, KEY, "--teacher"))
    path = teacher_directory(source)
    if tokenizer is not None and tokenizers_agree(tokenizer.hf, path):
        return _logit_teacher(source, path, tokenizer)
    card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
    if card.get("form"):
        if not job_form:
            raise SmallfryError(f"--teacher {source}: was trained for a job and cannot converse; give it a job's data")
        return JobTeacher(path)
    if runs_here(read_json(path / "config.json")) and (path / "tokenizer.json").exists():
        return WriterTeacher(path)
    return HfTeacher(path)


def teacher_directory(source: str) -> Path:
    """The directory of a teacher; ``hf:owner/name`` is fetched from the hub, nothing else is.

    Raises:
        SmallfryError: There is none.
    """
    if not source.startswith("hf:"):
        try:
            return model_directory(Path(source))
        except SmallfryError as error:
            raise SmallfryError(f"--teacher {error}; hf:owner/name or an address of an endpoint do too") from None
    name = source.removeprefix("hf:")
    if name.count("/") != 1 or not all(name.split("/")):
        raise SmallfryError(f"--teacher {source}: expected hf:owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise SmallfryError(f"--teacher {source}: needs huggingface_hub; pip install 'smallfry[hub]'") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # the library raises its own, the HTTP client's and built-in exceptions
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise SmallfryError(
            f"--teacher {source}: could not be fetched ({reason}); check the name and network"
        ) from None


def tokenizers_agree(student: HfTokenizer, teacher: Path) -> bool:
    """Whether a teacher's distributions speak of the student's tokens.

    They do where every id below both vocabularies' sizes stands for the same token and the merges are the same. One of
    the two may have further tokens behind.

    Args:
        student: The student's tokenizer.
        teacher: The teacher's directory.
    """
    try:
        theirs = HfTokenizer.from_file(str(teacher / "tokenizer.json"))
    except Exception:  # the library raises nothing more precise; whoever needs the file says what is wrong with it
        return False
    mine_of, their_of = (t.get_vocab(with_added_tokens=True) for t in (student, theirs))
    both = min(max(v.values(), default=-1) for v in (mine_of, their_of)) + 1
    shared = [{token: i for token, i in v.items() if i < both} for v in (mine_of, their_of)]
    return both > 0 and shared[0] == shared[1] and _merges(student) == _merges(theirs)


def _merges(tokenizer: HfTokenizer) -> list[tuple[str, ...]]:
    found = json.loads(tokenizer.to_str())["model"].get("merges") or []
    return [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in found]


def _logit_teacher(source: str, path: Path, tokenizer: Tokenizer) -> LogitTeacher:
    tokens = HfTokenizer.from_file(str(path / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    if tokenizer.vocab_size < tokens:
        raise SmallfryError(
            f"--teacher {source}: has {tokens:,} tokens, the student only the first {tokenizer.vocab_size:,}; give the "
            "student the teacher's tokenizer"
        )
    config = read_json(path / "config.json")
    if runs_here(config):
        model = load_weights(path).to(default_device())
        if model.embed.weight.dtype == torch.float16:  # no CPU multiplies it well
            model = model.float()
        return LogitTeacher(source, OwnNetwork(model), min(tokens, model.shape.vocab_size))
    from smallfry.evals.suites.models import HfScorer

    stored = str(config.get("dtype", config.get("torch_dtype")))
    halves = stored == "bfloat16" and compute_dtype(torch.device("cpu")) == torch.bfloat16
    scorer = HfScorer(path, "bf16" if halves else "fp32")
    network = HfNetwork(scorer.model, scorer.context, source)
    return LogitTeacher(source, network, min(tokens, network.rows))


def tokenizer_of(source: str) -> Tokenizer:
    """The tokenizer of a teacher, for a student that is made anew and is to learn from its distributions.

    Raises:
        SmallfryError: It has none that smallfry can train with.
    """
    path = teacher_directory(source) if not is_address(source) else None
    card = read_json(path / "smallfry.json") if path and (path / "smallfry.json").exists() else None
    if path is None or card is None or "imported_from" in card:
        shown = Endpoint(source, "").shown if path is None else source
        raise SmallfryError(
            f"--teacher {shown}: has no tokenizer of smallfry's to make a student with; name a model directory as the "
            "student instead of a size"
        )
    return Tokenizer.load(path / "tokenizer.json", (card.get("form") or {}).get("units", ()))


def form_of(source: str) -> Form | None:
    """How a job's model spells its job, for a student of the same job; None where the teacher is no job's model.

    Raises:
        SmallfryError: There is no such directory, or it is broken.
    """
    if is_address(source):
        return None
    path = teacher_directory(source)
    card = read_json(path / "smallfry.json") if (path / "smallfry.json").exists() else {}
    return ModelPredictor.load(path).form if card.get("form") else None
