"""Files with wrong bytes in them."""

from pathlib import Path

import numpy as np

from sfm_match.images.files import ImageError, decode, read_header


def read_damaged(path: Path, rng: np.random.Generator, times: int, within: int | None = None) -> None:
    """Reads an image with four wrong bytes, again and again: nothing but ImageError may be raised.

    Args:
        path: of an image, which is left damaged.
        rng: where, and what.
        times: how often.
        within: the first bytes, of which some are hit; None: any.
    """
    whole = path.read_bytes()
    for _ in range(times):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), within or len(whole)), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_header(path)
            decode(path)
        except ImageError:
            continue
