"""Teachers: what a student learns from beside its data.

A teacher whose tokenizer agrees with the student's gives distributions over the next token (`LogitTeacher`). Any other
one, and every endpoint, gives texts (`TextTeacher`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer as HfTokenizer

from smallfry.architecture import runs_here
from smallfry.characters import whole_text
from smallfry.checkpoint import load_weights
from smallfry.endpoint import Endpoint, UnansweredError, is_address
from smallfry.engine.decoding import Engine
from smallfry.engine.weights import FLAT_FILE, weight_files
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.forms import Form
from smallfry.machine import compute_dtype, default_device
from smallfry.predictor import ModelPredictor
from smallfry.shipped import model_directory
from smallfry.tensorfiles import digest_of
from smallfry.tokenizer import END, Tokenizer
from smallfry.tuning.asking import Reply, TextTeacher
from smallfry.tuning.soft import HfNetwork, LogitTeacher, OwnNetwork
from smallfry.writer import Writer

if TYPE_CHECKING:
    from smallfry.tuning.conversations import Conversation

KEY = "SMALLFRY_TEACHER_KEY"
_AT_ONCE = 32  # answers that the engine writes together
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")  # no code, no pickle


# ---- texts ----------------------------------------------------------------------------------------------------------


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

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        """The likeliest answers, many at a time."""
        for at in range(0, len(conversations), _AT_ONCE):
            turns = [[(m.role, m.content) for m in each] for each in conversations[at : at + _AT_ONCE]]
            prompts = [self._writer.chat_ids(each) for each in turns]
            answers = self._engine.generate(prompts, [None] * len(prompts), max_new)
            for place, found in enumerate(answers, at):
                yield place, Reply(self._writer.decode(_until(found.ids, self._writer.ends)).strip())


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

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        """The likeliest answers, one at a time."""
        from smallfry.evals.suites.scoring import Writing

        for place, conversation in enumerate(conversations):
            (text,) = self._scorer.generate([self._spelled(conversation)], Writing(max_new))
            yield place, Reply(text.strip())

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

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        """One request a conversation, a few at the same time.

        After a failure nothing more is asked, and what is on its way is still waited for: it may have to be paid.
        """
        left, failure = iter(enumerate(conversations)), None
        pool = ThreadPoolExecutor(max(1, self.parallel))
        asked: dict[Future[Reply], int] = {}
        try:
            while True:
                for place, conversation in islice(left, 0 if failure else max(1, self.parallel) - len(asked)):
                    asked[pool.submit(self._one, conversation, max_new)] = place
                if not asked:
                    break
                for done in wait(asked, return_when=FIRST_COMPLETED).done:
                    place = asked.pop(done)
                    try:
                        reply = done.result()
                    except SmallfryError as error:
                        failure = failure or error
                    else:
                        yield place, reply
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure

    def _one(self, conversation: Conversation, max_new: int) -> Reply:
        turns = [{"role": m.role, "content": m.content} for m in conversation]
        try:
            return Reply(whole_text(self.endpoint.complete(turns, max_new, self.temperature)).strip())
        except UnansweredError as error:
            return Reply("", error.reason)


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

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        """The outputs for the last turns; it knows no conversation."""
        yield from enumerate(map(Reply, self.outputs([each[-1].content for each in conversations])))


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
        return EndpointTeacher(_endpoint(source, model_name))
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


def _endpoint(source: str, model_name: str | None) -> Endpoint:
    if not model_name:
        raise SmallfryError(f"--teacher {Endpoint(source, '').shown}: which model there? name it: --teacher-model")
    return Endpoint(source, model_name, KEY, "--teacher")


def identity_of(source: str, model_name: str | None) -> dict[str, str]:
    """What tells a teacher from every other one, for records.

    Args:
        source: As `load_teacher` takes it.
        model_name: The model at the endpoint.

    Returns:
        ``name`` and ``weights_sha256`` of a directory, ``address`` and ``model`` of an endpoint.

    Raises:
        SmallfryError: There is no such teacher.
    """
    if is_address(source):
        endpoint = _endpoint(source, model_name)
        return {"address": endpoint.shown, "model": endpoint.model}
    path = teacher_directory(source)
    names = [FLAT_FILE] if (path / FLAT_FILE).exists() else weight_files(path)
    try:
        digests = [digest_of(path / name) for name in names]
    except OSError as error:
        raise SmallfryError(
            f"--teacher {source}: its weights cannot be read ({error.strerror}); make or download it again"
        ) from None
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return {"name": source, "weights_sha256": whole}


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
