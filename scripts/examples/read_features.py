"""Keypoints and descriptors of every image, read with h5py alone: docs/formats.md in code.

python scripts/examples/read_features.py workspace
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

SCHEMAS = 3, 4, 5  # of the files; another number may mean another layout


def read_features(workspace: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name, keypoints (N, 2) float32 and descriptors (N, D) float16 of each image.

    Keypoints are x, y in pixels of the image file, before its EXIF orientation; the centre of the top-left pixel is at
    (0.5, 0.5).
    """
    for path in sorted((workspace / "features").glob("*.h5")):
        with h5py.File(path, "r") as file:
            if file.attrs["schema"] not in SCHEMAS:
                raise ValueError(f"{path}: schema {file.attrs['schema']}, this script reads {SCHEMAS}")
            offsets = file["offsets"][()]
            for row, name in enumerate(file["names"].asstr()[()]):
                part = slice(offsets[row], offsets[row + 1])
                yield name, file["keypoints"][part], file["descriptors"][part]


def main(workspace: str) -> None:
    """Prints a line for each image."""
    for name, keypoints, descriptors in read_features(Path(workspace)):
        left, top = keypoints.min(axis=0)
        right, bottom = keypoints.max(axis=0)
        print(
            f"{name}: {len(keypoints)} keypoints, descriptors of {descriptors.shape[1]} values, "
            f"x from {left:.1f} to {right:.1f}, y from {top:.1f} to {bottom:.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
