"""Classical candidates: what a job can be done with without a language model.

Each ``fit_...`` function takes a job and returns a fitted `smallfry.candidates.Predictor`. Choices between settings
are made on the valid rows only. Needs the extra ``lab``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from smallfry.errors import SmallfryError

if find_spec("sklearn") is None or find_spec("sklearn_crfsuite") is None:
    raise SmallfryError(
        "baselines need scikit-learn and sklearn-crfsuite, which are not installed: pip install 'smallfry[lab]'"
    )

from smallfry.baselines.combined import Combined, combined
from smallfry.baselines.crf import FrameCrf, fit_crf
from smallfry.baselines.linear import Constant, Linear, fit_svm, fit_svm_cut, output_classes
from smallfry.baselines.ngram import NGram, fit_ngram
from smallfry.baselines.simple import Majority, Nearest, fit_majority, fit_nearest
from smallfry.baselines.template import Templates, fit_template, structure
from smallfry.candidates import Predictor
from smallfry.frames import FrameCodec
from smallfry.job import Job

__all__ = [
    "Combined",
    "Constant",
    "FrameCrf",
    "Linear",
    "Majority",
    "NGram",
    "Nearest",
    "Templates",
    "combined",
    "fit_crf",
    "fit_majority",
    "fit_nearest",
    "fit_ngram",
    "fit_svm",
    "fit_svm_cut",
    "fit_template",
    "standard_baselines",
]


def standard_baselines(job: Job) -> list[tuple[str, Callable[[], Predictor]]]:
    """The baselines that apply to a job, cheapest first, each as a name and a function that fits it.

    Args:
        job: The job. Text scored by its likelihood gets an n-gram model; everything else a majority answer and a
            nearest neighbour, then a linear SVM where outputs repeat, templates where inputs are fields, and a CRF
            where outputs are labels plus spans of the input.
    """
    if job.metric == "bits_per_byte":
        return [("ngram", partial(fit_ngram, job))]
    found: list[tuple[str, Callable[[], Predictor]]] = [("majority", partial(fit_majority, job))]
    if any(row.input for row in job.train):
        found.append(("nearest", partial(fit_nearest, job)))
        if job.kind != "generate" and len(output_classes(job, job.train)) > 1:
            found.append(("svm", partial(fit_svm, job)))
    if job.kind == "generate" and structure([row.input for row in job.train]) is not None:
        found.append(("template", partial(fit_template, job)))
    if job.kind == "transform" and (codec := FrameCodec.learn(job.train)) is not None:
        found.append(("crf", partial(fit_crf, job, codec)))
    return found
