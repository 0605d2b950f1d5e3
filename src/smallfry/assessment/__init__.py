"""From a job to a verdict: plan, pilot, climb, compare, write down."""

from smallfry.assessment.run import AssessSettings, assess

__all__ = ["AssessSettings", "assess"]
