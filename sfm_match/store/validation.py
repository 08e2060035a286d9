"""What every reader of a shard relies on. A `ValueError` names what is not so; `open_shard` makes a line of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LARGEST = 10**6  # pixels of a side of an image
_BEYOND = 1.0  # pixels outside the image that a keypoint may be, after rounding
_ONE, _ROUNDED = 0x3C00, np.float16(1.01)  # a probability: the bits of 1, and what rounding may make of it
_STRINGS = "string"
_DEFLATED = 1032  # a byte stands for at most so many


def check_datasets(file: h5py.File, expected: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> None:
    """Whether all datasets are there, of these dtypes (or `string`) and shapes (None: any), and within the file."""
    for name, (dtype, shape) in expected.items():
        one = file[name]
        if not isinstance(one, h5py.Dataset):
            raise ValueError(f"{name} is not a dataset")
        found = _STRINGS if h5py.check_string_dtype(one.dtype) else str(one.dtype)
        same = one.shape is not None and len(one.shape) == len(shape)
        if found != dtype or not same or any(b not in (None, a) for a, b in zip(one.shape, shape, strict=True)):
            wanted = tuple("any" if size is None else size for size in shape)
            raise ValueError(f"{name} is {found} of shape {one.shape}, not {dtype} of shape {wanted}")
        stored = one.id.get_storage_size()
        if one.compression == "gzip":
            stored *= _DEFLATED
        elif one.scaleoffset is not None:
            stored *= 8 * one.dtype.itemsize  # a bit for a number, at least
        in_heap = found == _STRINGS and h5py.check_string_dtype(one.dtype).length is None
        if stored < one.size * (1 if in_heap else one.dtype.itemsize):
            raise ValueError(f"{name} of shape {one.shape} is longer than what is stored")


def check_offsets(offsets: NDArray[np.int64], length: int) -> None:
    """Whether they begin at 0, do not fall, and end at the length of what they divide."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != length or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets do not lead from 0 to {length:,}")


def check_names(names: Sequence[str]) -> None:
    """Whether no name is there twice."""
    if len(set(names)) != len(names):
        raise ValueError("a name is there twice")


def check_keypoints(name: str, keypoints: NDArray[np.floating], size: tuple[int, int] | None) -> None:
    """Whether (N, 2) keypoints are within their image, whose width and height are `size`; None: any image."""
    if not len(keypoints):
        return
    width, height = size or (LARGEST, LARGEST)
    right, bottom = keypoints[:, 0].max(), keypoints[:, 1].max()  # NaN, where one is not a number; quicker than by axis
    if not (keypoints.min() >= -_BEYOND and right <= width + _BEYOND and bottom <= height + _BEYOND):
        raise ValueError(f"keypoints of {name} are outside the image")


def check_finite(what: str, values: NDArray[np.floating]) -> None:
    """Whether all are numbers."""
    if not np.isfinite(values).all():
        raise ValueError(f"{what} are not finite")


def check_probabilities(scores: NDArray[np.float16]) -> None:
    """Whether all are from 0 to 1, but for rounding."""
    usual = scores.view(np.uint16).max(initial=0) <= _ONE  # of float16, numpy compares bits some ten times as fast
    if not usual and not ((scores >= 0) & (scores <= _ROUNDED)).all():
        raise ValueError("scores are not probabilities")


def check_pairs(pairs: NDArray[np.integer], images: Collection[Any]) -> None:
    """Whether (P, 2) rows are of these images, of two different ones, and no pair is there twice."""
    if ((pairs < 0) | (pairs >= len(images))).any() or (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("pairs are not of its images")
    if len(np.unique(np.sort(pairs, axis=1).astype(np.int64) @ (len(images), 1))) != len(pairs):
        raise ValueError("a pair is there twice")


def check_indices(indices: NDArray[np.integer], offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """Whether matched keypoints exist.

    Args:
        indices: (M, 2) of keypoints.
        offsets: (P + 1,) first match of each pair.
        counts: (P, 2) keypoints of the images of each pair.
    """
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        highest = np.maximum.reduceat(indices, offsets[filled], axis=0)
        if (highest >= counts[filled]).any():
            raise ValueError("matches are of keypoints that do not exist")
