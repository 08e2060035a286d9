"""Each image with those that follow it, one sequence a folder, in natural order (img2 before img10)."""

import re
from collections.abc import Iterator, Sequence
from posixpath import dirname

import numpy as np

from pairs import Block

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorts runs of digits by value: img2 < img10. Different names never get equal keys."""
    parts = _DIGITS.split(name)
    numbers = ((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)
    return tuple(numbers)


def sequences(names: Sequence[str]) -> list[list[int]]:
    """Indices of the names, folder by folder, each in natural order."""
    folders: dict[str, list[int]] = {}
    for image, name in enumerate(names):
        folders.setdefault(dirname(name), []).append(image)
    # a folder at a time: the keys take ten times as much memory as the names
    return [sorted(folders[folder], key=lambda image: natural_key(names[image])) for folder in sorted(folders)]


def sequential(names: Sequence[str], overlap: int = 10, quadratic_overlap: bool = False) -> Iterator[Block]:
    """Pairs along each sequence.

    Args:
        names: sorted names; a folder is one sequence.
        overlap: how many of the following images each is paired with.
        quadratic_overlap: also the images 2^k places later, k = 0 ... overlap - 1, as in COLMAP.

    Yields:
        One block an image.
    """
    for sequence in sequences(names):
        steps = set(range(1, min(overlap, len(sequence)) + 1))
        if quadratic_overlap:
            steps |= {1 << k for k in range(min(overlap, 30))}
        ordered = np.array(sorted(steps))
        indices = np.array(sequence, dtype=np.int32)
        for place in range(len(indices) - 1):
            later = indices[(place + ordered)[place + ordered < len(indices)]]
            here = np.full_like(later, indices[place])
            yield np.stack((np.minimum(here, later), np.maximum(here, later)), axis=1)
