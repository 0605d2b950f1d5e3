"""From a job to a verdict: plan, pilot, climb, compare, write down."""

from smallfry.assessment.run import assess
from smallfry.assessment.state import AssessSettings

__all__ = ["AssessSettings", "assess"]
