"""The founding document's sentences, held against measurements: what was claimed, what tests it, what was found.

``claims.toml`` holds the sentences with their criteria, ``measurements.toml`` what is measured and how; both were
written before the measurements they ask for. `judge` reads stored measurements, `page.render` writes the page.
"""

from .judging import Judgement, judge
from .model import Claim, Claims, load

__all__ = ["Claim", "Claims", "Judgement", "judge", "load"]
