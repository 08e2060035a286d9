"""`dual_softmax.c`: one pass over the matrix of a dual softmax. Where it was not compiled, `dual_softmax` does the same
with numpy and ONNX Runtime, in two to five times as long.

With AVX2, what is added to the sums comes from components rounded to 1/32000, about as fine as the float16 of a file;
what is found does not. Probabilities above 0.1 of noisy copies of 64 and of 256 dimensions differ from float64's by
4e-5 of themselves, at most.
"""

import ctypes
import math

import numpy as np
from numpy.typing import NDArray

from sfm_match.compiled import function

# row sums, column sums; of the candidates: rows, columns, E
Sweep = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
_FAILED = ctypes.c_size_t(-1).value


class _Problem(ctypes.Structure):
    """As in the C file."""

    _fields_ = (
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("rows", ctypes.c_size_t),
        ("columns", ctypes.c_size_t),
        ("dimension", ctypes.c_size_t),
        ("scale", ctypes.c_float),
        ("least", ctypes.c_float),
        ("row_sums", ctypes.c_void_p),
        ("column_sums", ctypes.c_void_p),
        ("found_rows", ctypes.c_void_p),
        ("found_columns", ctypes.c_void_p),
        ("found_e", ctypes.c_void_p),
        ("capacity", ctypes.c_size_t),
    )


def sweep(
    kernel: int,
    descriptors0: NDArray[np.float32],
    descriptors1: NDArray[np.float32],
    inverse_temperature: float,
    least: float,
) -> Sweep:
    """With E = exp(t * descriptors0 @ descriptors1.T): its sums, and where it is more than `least` of its row's sum.

    Other threads run meanwhile.

    Args:
        kernel: a number of `sfm_match.compiled.kernels`.
        descriptors0: (N, D) float32, unit length; a component beyond 1.02 has no meaning.
        descriptors1: (M, D) float32, likewise.
        inverse_temperature: t, at most 40.
        least: above 0.

    Raises:
        MemoryError: there is no memory for a panel of rows and for `descriptors1` once more.
    """
    left, right = (np.ascontiguousarray(d, np.float32) for d in (descriptors0, descriptors1))
    # A row has fewer than 1 / least such places. Pages that are not written to are not there.
    capacity = len(left) * min(len(right), int(1 / least) + 1)
    row_sums, column_sums = np.empty(len(left), np.float32), np.empty(len(right), np.float32)
    rows, columns = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    e = np.empty(capacity, np.float32)
    arrays = (row_sums, column_sums, rows, columns, e)
    scale = inverse_temperature * math.log2(math.e)
    problem = _Problem(
        left.ctypes.data,
        right.ctypes.data,
        *(len(left), len(right), left.shape[1]),
        *(scale, least),
        *(array.ctypes.data for array in arrays),
        capacity,
    )
    found = function("dual_softmax_sweep", _Problem, ctypes.c_size_t)(kernel, ctypes.byref(problem))
    if found == _FAILED:
        raise MemoryError(f"{len(left)} x {len(right)} descriptors")
    return row_sums, column_sums, rows[:found], columns[:found], e[:found]
