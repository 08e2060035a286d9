"""Features of a unit of images, packed: one dataset for all images, offsets between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sfm_match.store.shard import UNCHECKED, check_bytes, open_shard, read_strings, read_text, write_shard
from sfm_match.store.validation import check_datasets, check_finite, check_keypoints, check_names, check_offsets

COMMAND = "extract"  # makes these files


@dataclass(frozen=True)
class Features:
    """Features of one image."""

    keypoints: NDArray[np.float32]  # (N, 2) x, y, raw pixels, centre of the top-left pixel at (0.5, 0.5)
    scores: NDArray[np.float32]  # (N,) detection probability, descending
    descriptors: NDArray[np.float16]  # (N, D) unit length; of several quarter turns, side by side


@dataclass(frozen=True)
class UnitIndex:
    """The head of a unit's file."""

    fingerprint: str
    counts: dict[str, int]  # keypoints of each image
    failed: dict[str, str]
    signatures: dict[str, str]
    retry: set[str]


@dataclass(frozen=True)
class UnitResult:
    """What one unit of extraction made: features of some images, reasons for the others."""

    features: dict[str, Features]
    failed: dict[str, str]
    signatures: dict[str, str]  # of every image's file, so that a file that changed is known
    retry: set[str] = field(default_factory=set)  # failed, but another try may cure it

    def index(self, fingerprint: str) -> UnitIndex:
        """The head of the file that `write_unit` makes of it."""
        counts = {name: len(features.keypoints) for name, features in self.features.items()}
        return UnitIndex(fingerprint, counts, self.failed, self.signatures, self.retry & self.failed.keys())


def unit_path(folder: Path, unit: int) -> Path:
    return folder / f"{unit:05d}.h5"


def write_unit(path: Path, result: UnitResult, fingerprint: str, dimension: int) -> None:
    """Writes a unit's file.

    Args:
        path: where.
        result: the images in their order; it may hold no features at all.
        fingerprint: of options and model.
        dimension: descriptor size, for a unit with no features.
    """
    every = list(result.features.values())
    counts = np.array([0, *(len(f.keypoints) for f in every)], np.int64)

    def packed(parts: Iterable[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate((empty, *parts)).astype(empty.dtype, copy=False)

    arrays: dict[str, NDArray[Any] | list[str]] = {
        "names": list(result.features),
        "offsets": counts.cumsum(),
        "keypoints": packed((f.keypoints for f in every), np.empty((0, 2), np.float32)),
        "scores": packed((f.scores for f in every), np.empty(0, np.float32)),
        "descriptors": packed((f.descriptors for f in every), np.empty((0, dimension), np.float16)),
        "signatures": [result.signatures[name] for name in (*result.features, *result.failed)],
        "failed_names": list(result.failed),
        "failed_retry": np.array([name in result.retry for name in result.failed], np.uint8),
        "failed_reasons": list(result.failed.values()),
    }
    write_shard(path, arrays, {"fingerprint": fingerprint, "convention": "COLMAP: first pixel's centre is 0.5, 0.5"})


def check_unit(path: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Reads and validates all of a unit's file; `sizes` as in `read_features`. Raises ShardError."""
    check_bytes(path, COMMAND)
    read_features(path, sizes=sizes)


def read_index(path: Path) -> UnitIndex:
    """Raises ShardError where the file is damaged."""
    with open_shard(path, COMMAND, unchecked=True) as file:
        return _validated(file)[0]


def read_features(
    path: Path,
    names: Sequence[str] | None = None,
    *,
    descriptors: bool = True,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Features]:
    """Features of some of a unit's images (all without `names`).

    Args:
        path: of the unit's file.
        names: of the images.
        descriptors: they can be left on the disk.
        sizes: width and height of images, pixels: their keypoints are within.

    Raises:
        ShardError: the file is damaged, or has no features of one of the images.
    """
    with open_shard(path, COMMAND, unchecked=True) as file:
        index, offsets = _validated(file)
        rows = {name: row for row, name in enumerate(index.counts)}
        # at once: each access through h5py takes as long as reading some images' keypoints
        every, scores, stored = file["keypoints"][()], file["scores"][()], file["descriptors"]
        unchecked_file, width = file.attrs["schema"] == UNCHECKED, stored.shape[1]
        features = {}
        for name in names if names is not None else rows:
            if name not in rows:
                raise ValueError(f"no features of {name} in it")
            part = slice(offsets[rows[name]], offsets[rows[name] + 1])
            described = stored[part] if descriptors else np.empty((0, width), np.float16)
            features[name] = one = Features(every[part].copy(), scores[part].copy(), described)
            check_keypoints(name, one.keypoints, (sizes or {}).get(name))
            check_finite(f"scores of {name}", one.scores)
            if unchecked_file:  # of others the checksums vouch for them; they are most of the file
                check_finite(f"descriptors of {name}", described)
        return features


def _validated(file: h5py.File) -> tuple[UnitIndex, NDArray[np.int64]]:
    """The head of a unit's file, and the (I + 1,) first keypoints of its images. Raises ValueError."""
    images, failures = len(file["names"]), len(file["failed_names"])
    total = len(file["keypoints"])
    strings = {"names": images, "failed_names": failures, "failed_reasons": failures, "signatures": images + failures}
    check_datasets(
        file,
        {
            **{name: ("string", (count,)) for name, count in strings.items()},
            "offsets": ("int64", (images + 1,)),
            "keypoints": ("float32", (total, 2)),
            "scores": ("float32", (total,)),
            "descriptors": ("float16", (total, None)),
            "failed_retry": ("uint8", (failures,)),
        },
    )
    names, failed = read_strings(file, "names"), read_strings(file, "failed_names")
    check_names([*names, *failed])
    offsets: NDArray[np.int64] = file["offsets"][()]
    check_offsets(offsets, total)
    index = UnitIndex(
        read_text(file, "fingerprint"),
        dict(zip(names, np.diff(offsets).tolist(), strict=True)),
        dict(zip(failed, read_strings(file, "failed_reasons"), strict=True)),
        dict(zip((*names, *failed), read_strings(file, "signatures"), strict=True)),
        {name for name, again in zip(failed, file["failed_retry"][()], strict=True) if again},
    )
    return index, offsets
