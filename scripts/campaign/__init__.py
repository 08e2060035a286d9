"""Campaigns against the command line: kills, flipped bits, hostile input. Each run is a process that may die.

The helpers of the tests (`jobs`, `one_thread`, `hostile`) are found from here on, too.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
for _place in (_ROOT, _ROOT / "tests"):
    if str(_place) not in sys.path:
        sys.path.append(str(_place))
