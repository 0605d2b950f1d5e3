"""Teaching a model to converse or a job: supervised (`tune`), from teachers, and by reward (`reinforce`)."""

from smallfry.tuning.record import Tuned, TuneSettings
from smallfry.tuning.reinforce import reinforce
from smallfry.tuning.reinforced import Reinforced, ReinforceSettings
from smallfry.tuning.run import tune

__all__ = ["ReinforceSettings", "Reinforced", "TuneSettings", "Tuned", "reinforce", "tune"]
