"""The one exception a user is meant to see."""

from __future__ import annotations


class SmallfryError(Exception):
    """Something the user can mend: one line that says what, where, what was expected and what to do.

    The command line prints the message after ``error:`` without a traceback and exits with code 2.
    """


class CandidateError(SmallfryError):
    """One candidate cannot be fitted; an assessment leaves it out and goes on with the others."""
