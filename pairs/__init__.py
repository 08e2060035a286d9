"""Which image pairs to match: one strategy a module.

Every strategy yields blocks of pairs, (K, 2) int32 indices into a sorted list of names with i < j, each pair once over
all blocks, and never holds the whole list in memory. This wing knows no storage, no network and no COLMAP.
"""

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.int32]  # (K, 2) indices i < j


class PairsError(ValueError):
    """The strategy cannot serve what it was given; the message says why and what to do."""
