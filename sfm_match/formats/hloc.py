"""hloc's files: `features.h5` and `matches.h5` with a group for each image and each pair, and `pairs.txt`.

Keypoints are (N, 2) with the centre of the top-left pixel at (0, 0), descriptors (D, N), `image_size` (W, H); a pair's
`matches0` tells for each keypoint of the first image its match in the second one, or -1. Sizes and keypoints are of the
image file before its EXIF orientation, as in COLMAP. Of images that were described in several rotations, the upright
description is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import UsageError
from sfm_match.results import Results
from sfm_match.store.matches import Matches
from sfm_match.store.shard import replacing, write_text

_MOST_INT16 = np.iinfo(np.int16).max


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    files = [out / name for name in ("features.h5", "matches.h5", "pairs.txt")]
    keys = pair_keys(results.pairs, "--to hloc")
    counts = results.feature_set.counts
    with _replaced(files[0]) as file:
        for name, features in results.iter_features():
            group = file.create_group(name)
            header = results.images[name]
            width = features.descriptors.shape[1] // results.feature_set.rotations
            group["keypoints"] = features.keypoints - np.float32(0.5)
            group["scores"] = features.scores
            if width:  # features that came from hloc may have none
                group["descriptors"] = features.descriptors[:, :width].T
            group["image_size"] = np.array((header.width, header.height))
    with _replaced(files[1]) as file:
        for first, second, matches in results.iter_matches():
            group = file.create_group(keys[first, second])
            group["matches0"], group["matching_scores0"] = _by_keypoint(matches, counts[first], counts[second])
    write_text(files[2], "".join(f"{first} {second}\n" for first, second in results.pairs))
    return files


@contextmanager
def _replaced(path: Path) -> Iterator[h5py.File]:
    """A file that is there whole or not at all."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def pair_keys(pairs: list[tuple[str, str]], option: str) -> dict[tuple[str, str], str]:
    """Pair -> hloc's name of its group, in either order, as `iter_matches` may give it. `option` is named in errors.

    Raises:
        UsageError: two pairs would have one name, or a name cannot be written to hloc's list of pairs.
    """
    seen: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        spaced = next((name for name in pair if any(c.isspace() for c in name)), None)
        if spaced is not None:
            raise UsageError(f"{option}: {spaced}: hloc's lists of pairs hold no names with spaces; rename the file")
        key = pair_key(*pair)
        if seen.setdefault(key, pair) != pair:
            raise UsageError(
                f"{option}: {' and '.join(pair)}, {' and '.join(seen[key])}: hloc gives both pairs the name {key}; "
                "rename the files"
            )
    return {(a, b): pair_key(a, b) for pair in pairs for a, b in (pair, pair[::-1])}


def pair_key(first: str, second: str, separator: str = "/") -> str:
    """As hloc's `names_to_pair`; in earlier files the separator is `_`."""
    return separator.join((first.replace("/", "-"), second.replace("/", "-")))


def _by_keypoint(matches: Matches, first: int, second: int) -> tuple[NDArray[np.integer], NDArray[np.float16]]:
    """(N,) place in the second image of each keypoint's match or -1, and (N,) scores, 0 without a match."""
    places: NDArray[np.integer] = np.full(first, -1, np.int16 if second <= _MOST_INT16 else np.int32)
    scores = np.zeros(first, np.float16)
    places[matches.indices[:, 0]] = matches.indices[:, 1]
    scores[matches.indices[:, 0]] = matches.scores
    return places, scores
