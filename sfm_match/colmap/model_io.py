"""A COLMAP model as plain arrays, for the strategies of pairs that start from one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.model_check import DamagedModel, load
from sfm_match.errors import UsageError
from sfm_match.store.shard import sha256_of

if TYPE_CHECKING:
    import pycolmap

_FILES = ("rigs", "frames", "cameras", "images", "points3D")


def read_poses(folder: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 3) projection centres and (N, 3) viewing directions, NaN where the model has no pose of an image.

    Raises:
        UsageError: no COLMAP model is there.
    """
    centres, directions = np.full((len(names), 3), np.nan), np.full((len(names), 3), np.nan)
    index = {name: i for i, name in enumerate(names)}
    for image in read_model(folder).images.values():
        if image.has_pose and image.name in index:
            centres[index[image.name]] = image.projection_center()
            directions[index[image.name]] = image.viewing_direction()
    return centres, directions


def read_observations(folder: Path, names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(O,) places in `names` and (O,) points of the model's observations.

    Raises:
        UsageError: no COLMAP model is there.
    """
    index = {name: i for i, name in enumerate(names)}
    model = read_model(folder)
    place = {number: index[image.name] for number, image in model.images.items() if image.name in index}
    seen = [
        (place[element.image_id], number)
        for number, point in model.points3D.items()
        for element in point.track.elements
        if element.image_id in place
    ]
    images, points = np.array(seen, np.int64).reshape(-1, 2).T
    return images, points


def digests(folder: Path) -> dict[str, str]:
    """Of a model's files: what was made from it depends on them."""
    files = (folder / f"{name}.{suffix}" for name in _FILES for suffix in ("bin", "txt"))
    return {path.name: sha256_of(path) for path in files if path.is_file()}


def read_model(folder: Path, option: str = "--reference-model") -> "pycolmap.Reconstruction":
    """A COLMAP model in binary or text form.

    Raises:
        UsageError: no model is there; it names the option that did.
    """
    try:
        return load(folder)
    except DamagedModel as error:
        raise UsageError(f"{option} {error}") from error
