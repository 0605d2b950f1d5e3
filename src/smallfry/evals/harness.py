"""A smallfry model inside EleutherAI's ``lm-eval``, so that every task of that harness can be asked of it.

    python -m smallfry.evals.harness --model_args path=runs/demo/best --tasks arc_easy --limit 100

takes the harness's own command line and adds ``--model smallfry``. In Python, ``lm_eval.simple_evaluate(model=
SmallfryLM(path="runs/demo/best"), tasks=[...])``. Continuations of the same context are scored together, the context
read once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smallfry.engine.decoding import Sampling
from smallfry.errors import SmallfryError
from smallfry.evals.suites.models import DTYPES, load_language_model
from smallfry.evals.suites.scoring import Branch, Group, Writing, score_all
from smallfry.evals.suites.text import windows
from smallfry.machine import keep_freed_memory

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError:
    raise SmallfryError("smallfry.evals.harness needs lm-eval; pip install 'smallfry[harness]'") from None


@register_model("smallfry")
class SmallfryLM(LM):  # type: ignore[misc]
    """Any model directory that `smallfry eval` reads, as the harness's ``LM``.

    Args:
        path: The directory, or that of an assessment.
        precision: ``fp32`` or ``bf16``.
        add_bos_token: Whether contexts begin with the beginning-of-sequence token, as these models were trained.
        max_gen_toks: Tokens written where a task does not say how many.
        ignored: What else the harness passes to every model (batch size, device).

    Raises:
        SmallfryError: The directory holds no model.
    """

    def __init__(
        self, path: str, precision: str = "fp32", add_bos_token: bool = True, max_gen_toks: int = 256, **ignored: Any
    ) -> None:
        super().__init__()
        if precision not in DTYPES:
            raise SmallfryError(f"precision={precision}: expected one of {', '.join(DTYPES)}")
        keep_freed_memory()
        self.model = load_language_model(Path(path), precision)
        self._first = self.model.texts.start() if add_bos_token else []
        self._max_new = int(max_gen_toks)

    # ---- what the harness asks --------------------------------------------------------------------------------------

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would write it."""
        pairs = self._encode_pairs([request.args for request in requests])
        together: dict[tuple[int, ...], list[int]] = {}
        for i, (context, _) in enumerate(pairs):
            together.setdefault(context, []).append(i)
        groups = [Group(c, tuple(Branch(pairs[i][1]) for i in members)) for c, members in together.items()]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        for members, scored in zip(together.values(), score_all(self.model, groups), strict=True):
            for i, one in zip(members, scored, strict=True):
                found[i] = (one.logprob, one.greedy)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-probability of whole texts, each token scored once after at least half a context."""
        texts = [request.args[0] for request in requests]
        start = self.model.texts.start()
        parts = [windows(ids, start, self.model.context) for ids in self.model.texts.encode_all(texts)]
        scored = iter(score_all(self.model, [group for groups in parts for group in groups]))
        return [sum(next(scored)[0].logprob for _ in groups) for groups in parts]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What is written after each context, up to a stop text; requests with the same settings together."""
        found = [""] * len(requests)
        together: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            together.setdefault(repr(sorted(request.args[1].items(), key=str)), []).append(i)
        for members in together.values():
            how = self._writing(requests[members[0]].args[1])
            room = self.model.context - min(how.max_new, self.model.context // 2) - len(self._first)
            texts = self.model.texts.encode_all([requests[i].args[0] for i in members])
            prompts = [[*self._first, *ids[-room:]] or self.model.texts.start() for ids in texts]
            for i, text in zip(members, self.model.generate(prompts, how), strict=True):
                found[i] = text
        return found

    # ---- how --------------------------------------------------------------------------------------------------------

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Contexts and continuations in tokens, as the harness cuts them.

        Spaces that end a context go to the continuation; the whole is cut into tokens, and what is longer than the
        context's own tokens is the continuation.
        """
        contexts, wholes = [], []
        for context, continuation in pairs:
            contexts.append(context.rstrip())
            wholes.append(context + continuation)
        heads = dict(zip(contexts, self.model.texts.encode_all(contexts), strict=True))
        found = []
        for context, ids in zip(contexts, self.model.texts.encode_all(wholes), strict=True):
            head = min(len(heads[context]), len(ids) - 1)
            before, after = [*self._first, *heads[context][:head]] or self.model.texts.start(), ids[head:]
            room = max(1, self.model.context - len(after))
            found.append((tuple(before[-room:]), tuple(after[-(self.model.context - 1) :])))
        return found

    def _writing(self, settings: dict[str, Any]) -> Writing:
        """The harness's settings as ours."""
        until = settings.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        most = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or self._max_new)
        temperature = float(settings.get("temperature") or 0.0)
        drawn = bool(settings.get("do_sample", temperature > 0.0)) and temperature > 0.0
        sampling = Sampling(temperature, float(settings.get("top_p") or 1.0)) if drawn else None
        return Writing(most, sampling=sampling, stops=stops)


def main() -> None:
    """The harness's command line with ``--model smallfry`` where a model is to be run."""
    from lm_eval.__main__ import cli_evaluate

    named = any(word == "-M" or word.split("=")[0] == "--model" for word in sys.argv[1:])
    if not named and sys.argv[1:2] not in (["ls"], ["validate"]):
        sys.argv += ["--model", "smallfry"]
    cli_evaluate()


if __name__ == "__main__":
    main()
