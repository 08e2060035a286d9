"""Focal lengths in EXIF that contradict the matches: a model is tried without them.

A wrong focal length holds an image where its matches do not fit: it is lost, or bends the model.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfm_match.colmap.cameras import DEFAULT_FOCAL_FACTOR
from sfm_match.colmap.plausibility import MAX_FOCAL_DEVIATION
from sfm_match.images.files import Header

if TYPE_CHECKING:
    import pycolmap


def doubted(
    models: Sequence["pycolmap.Reconstruction"], cameras: Mapping[str, int], headers: Mapping[str, Header]
) -> frozenset[int]:
    """Cameras none of whose images has the focal length of its EXIF in a model: it is off, or no model has the image.

    Args:
        models: that were found.
        cameras: camera_id of each image that should be in one.
        headers: of the images.
    """
    deviations = deviations_of(models, headers) if cameras else {}
    found: dict[int, bool] = {}
    for name, camera in cameras.items():
        if headers[name].focal:
            far = abs(deviations.get(name, np.inf)) > MAX_FOCAL_DEVIATION
            found[camera] = found.get(camera, True) and far
    return frozenset(camera for camera, far in found.items() if far)


def deviations_of(models: Iterable["pycolmap.Reconstruction"], headers: Mapping[str, Header]) -> dict[str, float]:
    """(model - EXIF) / EXIF of the focal lengths of the images of some models, where EXIF has one."""
    return {
        image.name: model.cameras[image.camera_id].mean_focal_length() / exif - 1
        for model in models
        for image in model.images.values()
        if image.has_pose and (exif := headers[image.name].focal)
    }


def agreeing(
    models: Sequence["pycolmap.Reconstruction"],
    others: Sequence["pycolmap.Reconstruction"],
    headers: Mapping[str, Header],
    names: Iterable[str],
) -> frozenset[str]:
    """Which of some images have about the same focal length in both."""
    one, other = deviations_of(models, headers), deviations_of(others, headers)
    both = set(names) & one.keys() & other.keys()
    return frozenset(name for name in both if abs((1 + one[name]) / (1 + other[name]) - 1) <= MAX_FOCAL_DEVIATION)


def contradictions(
    models: Sequence["pycolmap.Reconstruction"], headers: Mapping[str, Header], left_out: Iterable[str]
) -> dict[str, str]:
    """Images whose EXIF was left out, and is wrong where their models are right: what both say."""
    names = sorted(left_out)
    deviations = deviations_of(models, headers) if names else {}
    told = {}
    for name in (name for name in names if name in deviations):
        exif = headers[name].focal or 0.0
        if abs(deviations[name]) > MAX_FOCAL_DEVIATION:
            told[name] = f"{exif:,.0f} px in EXIF, {exif * (1 + deviations[name]):,.0f} px by the matches"
    return told


def camera_of(database: Path) -> dict[str, int]:
    """Image -> camera_id."""
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT name, camera_id FROM images").fetchall())


def without_focals(database: Path, copy: Path, cameras: Iterable[int]) -> Path:
    """A copy of a database in which some cameras have COLMAP's guess in the place of EXIF's focal length."""
    import pycolmap

    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    opened = pycolmap.Database.open(str(copy))
    try:
        for number in sorted(cameras):
            camera = opened.read_camera(number)
            guess = DEFAULT_FOCAL_FACTOR * max(camera.width, camera.height)
            guessed = pycolmap.Camera.create_from_model_id(number, camera.model, guess, camera.width, camera.height)
            camera.params = list(guessed.params)
            camera.has_prior_focal_length = False
            opened.update_camera(camera)
    finally:
        opened.close()
    return copy


def headers_without(headers: Mapping[str, Header], names: Iterable[str]) -> dict[str, Header]:
    """Headers, of some images without the focal length."""
    left_out = set(names)
    return {name: replace(one, focal=None) if name in left_out else one for name, one in headers.items()}
