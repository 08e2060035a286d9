"""Models in metres, with axes to the east, to the north and up, where photographs have GPS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sfm_match.colmap.similarity import Floats, Similarity, align, fit_robustly
from sfm_match.images.files import Header

if TYPE_CHECKING:
    import pycolmap

LEAST_LOCATED = 3  # images that a similarity needs
_KNOWN_ROLL = 3.0  # residuals; GPS positions less wide than that do not say how a model is turned about their line
_LEAST_ACROSS = 0.3  # of a unit vector: the cameras' mean upward direction across that line


@dataclass(frozen=True)
class Reference:
    """The origin of the axes: what a georeferenced model is relative to. WGS 84."""

    latitude: float  # degrees
    longitude: float  # degrees
    altitude: float  # metres


@dataclass(frozen=True)
class Georeference:
    """How a model was brought to its GPS positions."""

    reference: Reference
    images: int  # that the similarity was fitted to; gross errors of GPS are left out
    scale: float  # metres per unit of the model as the mapper left it
    upright_by_cameras: bool  # GPS positions are in line, and do not say where up is: the cameras' upward axes did


def reference_of(headers: Mapping[str, Header]) -> Reference | None:
    """The median position of the images with GPS; None without any. Without altitudes, 0 m."""
    places = np.array([header.location for header in headers.values() if header.location is not None], np.float64)
    if not len(places):
        return None
    heights = places[np.isfinite(places[:, 2]), 2]
    latitude, longitude = np.median(places[:, :2], axis=0).tolist()
    return Reference(latitude, longitude, float(np.median(heights)) if len(heights) else 0.0)


def positions(headers: Mapping[str, Header], reference: Reference) -> dict[str, Floats]:
    """Name -> (3,) metres east, north and up of the reference, of the images with GPS. Without altitude: at its."""
    import pycolmap

    located = {name: header.location for name, header in headers.items() if header.location is not None}
    if not located:
        return {}
    places = np.array(list(located.values()), np.float64)
    places[~np.isfinite(places[:, 2]), 2] = reference.altitude
    transform = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    metres = transform.ellipsoid_to_enu(places, reference.latitude, reference.longitude, reference.altitude)
    return dict(zip(located, np.asarray(metres, np.float64), strict=True))


def position_priors(
    model: "pycolmap.Reconstruction", headers: Mapping[str, Header], reference: Reference
) -> list["pycolmap.PosePrior"]:
    """Of the registered images with GPS, in metres east, north and up of a reference; no covariance."""
    import pycolmap

    priors = []
    places = positions(headers, reference)
    for image in model.images.values():
        if image.has_pose and image.name in places:
            prior = pycolmap.PosePrior()
            prior.corr_data_id, prior.position = image.data_id, places[image.name]
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            priors.append(prior)
    return priors


def georeference(
    model: "pycolmap.Reconstruction", headers: Mapping[str, Header], reference: Reference
) -> Georeference | None:
    """Brings a model to metres east, north and up of a reference, in place, by a robust similarity.

    Args:
        model: of which three registered images or more have GPS; else it stays as it is.
        headers: by image name.
        reference: one for all models of a job, so that they lie beside one another as their places do.

    Returns:
        How, or None where it stays as it is.
    """
    import pycolmap

    places = positions(headers, reference)
    located = [image for image in model.images.values() if image.has_pose and image.name in places]
    if len(located) < LEAST_LOCATED:
        return None
    source = np.array([image.projection_center() for image in located])
    target = np.array([places[image.name] for image in located])
    _, held = fit_robustly(source, target)
    try:
        found = align(source[held], target[held])
    except cv2.error:  # all in one place, or on a line
        return None
    upright, by_cameras = _upright(model, headers, found, source[held], target[held])
    rotation = pycolmap.Rotation3d(upright.rotation)
    model.transform(pycolmap.Sim3d(upright.scale, rotation, upright.translation))
    return Georeference(reference, int(held.sum()), upright.scale, by_cameras)


def _upright(
    model: "pycolmap.Reconstruction", headers: Mapping[str, Header], found: Similarity, source: Floats, target: Floats
) -> tuple[Similarity, bool]:
    """The similarity, turned about the line of the positions until the cameras' mean upward axis is, too.

    Only where the positions leave that angle open: on a street, GPS errs across it by as much as the track is wide, and
    in its heights by more.
    """
    residual = float(np.median(np.linalg.norm(found.apply(source) - target, axis=1)))
    middle = target.mean(axis=0)
    _, extent, axes = np.linalg.svd(target - middle, full_matrices=False)
    if extent[1] / np.sqrt(len(target)) >= _KNOWN_ROLL * residual:
        return found, False
    along = axes[0]
    up = found.rotation @ _mean_up(model, headers)
    here, wanted = (vector - along * (vector @ along) for vector in (up, np.array([0.0, 0.0, 1.0])))
    if min(np.linalg.norm(here), np.linalg.norm(wanted)) < _LEAST_ACROSS:
        return found, False
    angle = np.arctan2(np.cross(here, wanted) @ along, here @ wanted)
    turn = np.asarray(cv2.Rodrigues(along * angle)[0], np.float64)
    return Similarity(found.scale, turn @ found.rotation, middle + turn @ (found.translation - middle)), True


def _mean_up(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> Floats:
    """(3,) in the model, of the registered images as they are seen upright; at most of length 1."""
    ups = [
        image.cam_from_world().rotation.matrix().T @ -down(headers[image.name].orientation)
        for image in model.images.values()
        if image.has_pose
    ]
    return np.asarray(np.mean(ups, axis=0), np.float64)


_DOWN = {3: (0, -1, 0), 4: (0, -1, 0), 5: (1, 0, 0), 6: (1, 0, 0), 7: (-1, 0, 0), 8: (-1, 0, 0)}  # else (0, 1, 0)


def down(orientation: int) -> Floats:
    """(3,) in the axes of a camera, to the bottom of its upright image, by EXIF orientation: COLMAP's gravity."""
    return np.array(_DOWN.get(orientation, (0, 1, 0)), np.float64)
