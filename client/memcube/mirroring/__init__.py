"""Following a namespace of one registry into another: `memcube mirror`.

mirror   one round     journal  what was copied before     report   what became of each version
"""

from memcube.mirroring.mirror import Mirror, run_round
from memcube.mirroring.report import Fate, Report, Row

__all__ = ["Fate", "Mirror", "Report", "Row", "run_round"]
