"""Dual-softmax matching, exact and blocked.

With cos the cosines of unit descriptors and t the inverse temperature, E = exp(t (cos - 1)), r and c its row and column
sums: P = E^2 / (r c^T) is the product of the two softmaxes (DeDoDe's matcher). A match is a mutual maximum of P above
the threshold. P > threshold needs E > threshold * r, so that only few candidates are kept from each block of rows, and
the full matrix is never in memory.
"""

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.compiled import fastest
from sfm_match.matching.compiled_sweep import Sweep, sweep
from sfm_match.runtime import GRAPHS
from sfm_match.store.matches import Matches

if TYPE_CHECKING:
    from sfm_match.runtime.ort import OrtSession

ROWS = 256  # of a block: 256 x 4096 float32 stay in the cache

STRONGEST = 512  # keypoints of each image that decide between rotations
CLEAR = 10.0  # sum of their probabilities; below, none of the rotations stands out
_EMPTY = Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float16))


def match_rotated(
    descriptors0: NDArray[np.float32],
    descriptors1: NDArray[np.float32],
    rotations: int,
    threshold: float,
    inverse_temperature: float = 20.0,
) -> Matches:
    """Matches of images that were described in several rotations: the rotation of the second that fits the first best.

    Args:
        descriptors0: (N, rotations * D) float32, side by side, unit length each; strongest keypoints first.
        descriptors1: (M, rotations * D) float32, as above.
        rotations: 1, or 4.
        threshold, inverse_temperature: as in `match_descriptors`.

    Returns:
        As `match_descriptors`.
    """
    if rotations == 1:
        return match_descriptors(descriptors0, descriptors1, threshold, inverse_temperature)
    upright = descriptors0[:, : descriptors0.shape[1] // rotations]
    turned = np.split(descriptors1, rotations, axis=1)

    def likelihood(matches: Matches) -> float:
        return float(matches.scores.sum(dtype=np.float32))

    few = np.array(
        [
            likelihood(match_descriptors(upright[:STRONGEST], d[:STRONGEST], threshold, inverse_temperature))
            for d in turned
        ]
    )
    # where the strongest do not decide, all keypoints do
    near = np.arange(rotations) if few.max() < CLEAR else np.flatnonzero(few > 0.5 * few.max())
    found = [match_descriptors(upright, turned[rotation], threshold, inverse_temperature) for rotation in near]
    return max(found, key=likelihood)


def match_descriptors(
    descriptors0: NDArray[np.float32],
    descriptors1: NDArray[np.float32],
    threshold: float,
    inverse_temperature: float = 20.0,
) -> Matches:
    """Matches of one image pair.

    Args:
        descriptors0: (N, D) float32, unit length.
        descriptors1: (M, D) float32, unit length.
        threshold: least probability, above 0 and below 1.
        inverse_temperature: at most 40, so that exp does not underflow.

    Returns:
        Indices into both, ordered by the first, and probabilities.
    """
    if not len(descriptors0) or not len(descriptors1):
        return _EMPTY
    # half of the threshold: rounding must not lose what the exact test below keeps
    given = descriptors0, descriptors1, inverse_temperature, 0.5 * threshold
    compiled = fastest()
    row_sums, column_sums, rows, columns, e = _sweep(*given) if compiled is None else sweep(compiled, *given)
    p = (e / row_sums[rows]) * (e / column_sums[columns])
    likely = p > threshold
    rows, columns, p = rows[likely], columns[likely], p[likely]
    best_of_row = np.zeros(len(descriptors0), np.float32)
    best_of_column = np.zeros(len(descriptors1), np.float32)
    np.maximum.at(best_of_row, rows, p)
    np.maximum.at(best_of_column, columns, p)
    mutual = (p == best_of_row[rows]) & (p == best_of_column[columns])
    indices = np.stack((rows[mutual], columns[mutual]), axis=1).astype(np.uint32)
    return Matches(indices, p[mutual].astype(np.float16))


def _sweep(
    descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32], inverse_temperature: float, least: float
) -> Sweep:
    """As `compiled_sweep.sweep`, where nothing was compiled or the processor has no wide vectors."""
    # without the shift by t of the formula: it cancels in P, and exp(40) is far from float32's end
    right = np.ascontiguousarray(descriptors1.T) * np.float32(inverse_temperature)
    row_sums = np.empty(len(descriptors0), np.float32)
    column_sums = np.zeros(len(descriptors1), np.float32)
    down, across = np.ones(ROWS, np.float32), np.ones(len(descriptors1), np.float32)
    found_rows, found_columns, found_e = [], [], []
    for start in range(0, len(descriptors0), ROWS):
        e = _product(descriptors0[start : start + ROWS], right)
        cv2.exp(e, e)  # as exact as np.exp, and four times as fast
        sums = e @ across
        row_sums[start : start + ROWS] = sums
        column_sums += down[: len(e)] @ e
        flat = _true_places(e > least * sums[:, None])
        rows, columns = np.divmod(flat, e.shape[1])
        found_rows.append((rows + start).astype(np.int32))
        found_columns.append(columns.astype(np.int32))
        found_e.append(e.ravel()[flat])
    return row_sums, column_sums, np.concatenate(found_rows), np.concatenate(found_columns), np.concatenate(found_e)


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) times (D, M), in the calling thread.

    ONNX Runtime is at the processor's peak here. OpenBLAS, numpy's, is half as fast where it does not know the
    processor's wide vectors (an EPYC of 2024: 8.8 and 17.5 ms for 4096 x 64 x 4096).
    """
    return np.asarray(_session().run({"a": a, "b": b})["product"], np.float32)


@cache
def _session() -> "OrtSession":
    from sfm_match.runtime.ort import OrtSession

    return OrtSession(GRAPHS / "product.onnx", threads=1)


def _true_places(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places in the flat mask, of which few are true: eight at a time."""
    flat = mask.ravel()
    if len(flat) % 8:
        return np.flatnonzero(flat)
    eights = np.flatnonzero(flat.view(np.uint64) != 0)
    which, place = np.nonzero(flat.reshape(-1, 8)[eights])
    return np.asarray(eights[which] * 8 + place, np.int64)
