"""From a file, a hub data set or a built-in name to a checked :class:`~smallfry.job.Job`.

``readers`` turns a file into numbered rows, ``hub`` does so for a data set on the Hugging Face hub, ``rows`` turns rows
into texts, ``splitting`` decides what is train, valid and test, ``kinds`` infers how answers are judged, ``jobs`` puts
them together, and ``leakage`` finds test rows that also stand in train.
"""

from smallfry.loading.jobs import job_from_rows, load_job
from smallfry.loading.kinds import infer_kind
from smallfry.loading.splitting import normalise

__all__ = ["infer_kind", "job_from_rows", "load_job", "normalise"]
