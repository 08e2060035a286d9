"""Whether a model is earned, and whether it is plausible.

A mapper minimises an error; a small one does not make a model true. Here it is asked what else is known: how many
points hold each image, EXIF's focal lengths, GPS, the range of distortions, the parallax.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pairs.spatial import east_north_up
from sfm_match.geometry import align
from sfm_match.images import Header

if TYPE_CHECKING:
    import pycolmap

LEAST_POINTS = 30  # of an image: COLMAP's least number of inliers of a pose (`abs_pose_min_num_inliers`)
# Of them, seen by two more images: what two images see says nothing of their distance to a third. Three such points
# fix a pose (P3P); wrong matches that fit a pose by chance seldom make five times as many.
LEAST_SHARED = 15
FAR_FOCAL = 1.15  # times EXIF's, or EXIF's times so much
_FOCAL_RANGE = (0.3, 10.0)  # long sides, without EXIF: 118 degrees across, and a telescope
_GPS_ERROR = 10.0  # metres, of consumer receivers between houses
_GPS_SHARE = 0.05  # of the diagonal of the ground covered, where that is more
_GPS_EXTENT = 30.0  # metres; below, GPS says nothing of a model's shape
_GPS_ROUNDS = 5
_DISTORTED = 0.3  # of the distance from the principal point, at an image's corner
_PARALLAX = 1.5  # degrees; COLMAP filters points with less
_SAMPLED_POINTS = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GpsFit:
    """Camera centres against EXIF's GPS, after a similarity fit."""

    images: int
    median: float  # metres along the ground
    largest: float  # metres along the ground
    extent: tuple[float, float]  # metres east and north that the images cover

    @property
    def odd(self) -> bool:
        """Whether the receiver's error does not explain the distance."""
        diagonal = math.hypot(*self.extent)
        return diagonal > _GPS_EXTENT and self.median > max(_GPS_ERROR, _GPS_SHARE * diagonal)

    def line(self) -> str:
        return (
            f"{self.median:.1f} m from GPS in the median ({self.largest:.0f} m at most), "
            f"over {self.extent[0]:.0f} x {self.extent[1]:.0f} m"
        )


@dataclass(frozen=True)
class Plausibility:
    """What is known of a model beside its own error."""

    focal: float  # pixels, median over the images
    exif_focal: float | None  # pixels, median over the images that have one
    gps: GpsFit | None
    parallax: float  # degrees, median over the points
    odd: list[str] = field(default_factory=list)  # what speaks against the model, a phrase each


def judge(
    model: "pycolmap.Reconstruction",
    headers: Mapping[str, Header],
    others: Sequence["pycolmap.Reconstruction"] = (),
    *,
    given: bool = False,
) -> Plausibility:
    """Looks for what speaks against a model.

    Args:
        model: with poses and points.
        headers: of its images.
        others: models of the same job.
        given: the user gave the intrinsics, which are not questioned.
    """
    images = [image for image in model.images.values() if image.has_pose]
    focal = float(np.median([model.cameras[image.camera_id].mean_focal_length() for image in images]))
    known = [f for image in images if (f := headers[image.name].focal) is not None]
    exif = float(np.median(known)) if known else None
    gps, parallax = gps_fit(model, headers), _parallax(model)
    odd = [] if given else [*_odd_focals(model, headers), *_odd_distortions(model)]
    if gps is not None and gps.odd:
        odd.append(f"cameras are {gps.line()}")
    if parallax < _PARALLAX:
        odd.append(f"the cameras hardly move: rays meet at {parallax:.1f} degrees in the median")
    names = {image.name for image in images}
    for other in others:
        shared = sorted(names & {image.name for image in other.images.values() if image.has_pose})
        if shared:
            odd.append(f"another model holds {len(shared)} of its images, too ({shared[0]})")
    return Plausibility(focal, exif, gps, parallax, odd)


def focal_ratio(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> float | None:
    """Of the model's focal lengths and EXIF's, the median; None where EXIF tells none."""
    ratios = [
        model.cameras[image.camera_id].mean_focal_length() / exif
        for image in model.images.values()
        if image.has_pose and (exif := headers[image.name].focal) is not None
    ]
    return float(np.median(ratios)) if ratios else None


def is_far(ratio: float) -> bool:
    """Whether a model's focal length is far from EXIF's, for their ratio."""
    return not 1 / FAR_FOCAL <= ratio <= FAR_FOCAL


def _odd_focals(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> list[str]:
    """One phrase on the images whose focal length is far from EXIF's, one on those where it is out of range."""
    far: list[tuple[float, float, float]] = []  # how far, found, EXIF's
    strange: list[tuple[float, int]] = []
    for image in model.images.values():
        if not image.has_pose:
            continue
        camera, exif = model.cameras[image.camera_id], headers[image.name].focal
        found, side = camera.mean_focal_length(), max(camera.width, camera.height)
        if exif is not None:
            if is_far(found / exif):
                far.append((abs(math.log(found / exif)), found, exif))
        elif not _FOCAL_RANGE[0] <= found / side <= _FOCAL_RANGE[1]:
            strange.append((found, side))
    phrases = []
    if far:
        _, found, exif = max(far)
        phrases.append(f"focal length {found:,.0f} px where EXIF says {exif:,.0f} px ({len(far)} images)")
    if strange:
        found, side = max(strange)
        phrases.append(f"focal length {found:,.0f} px for images of {side:,} px ({len(strange)} images)")
    return phrases


def _odd_distortions(model: "pycolmap.Reconstruction") -> list[str]:
    used = Counter(image.camera_id for image in model.images.values() if image.has_pose)
    worst, count = 0.0, 0
    for number, images in used.items():
        camera = model.cameras[number]
        if "FISHEYE" in camera.model.name:  # where far from a pinhole is what it is for
            continue
        corners = np.array([(x, y) for x in (0, camera.width) for y in (0, camera.height)], np.float64)
        centre = np.array([camera.principal_point_x, camera.principal_point_y])
        rays: Any = camera.cam_from_img(corners)
        straight = np.linalg.norm(np.asarray(rays, np.float64).reshape(-1, 2), axis=1) * camera.mean_focal_length()
        seen = np.linalg.norm(corners - centre, axis=1)
        moved = np.nan_to_num(np.abs(straight - seen) / np.maximum(seen, 1.0), nan=np.inf).max()
        if moved > _DISTORTED:
            worst, count = max(worst, float(moved)), count + images
    if not count:
        return []
    shown = "without an inverse at the corners" if math.isinf(worst) else f"of {worst:.0%} at the corners"
    return [f"distortion {shown} ({count} images)"]


def gps_fit(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> GpsFit | None:
    """None where fewer than three images have a position, or all have the same. Gross outliers do not bend the fit."""
    located = [image for image in model.images.values() if image.has_pose and headers[image.name].location is not None]
    if len(located) < 3:
        return None
    stored = [headers[image.name].location or (math.nan, math.nan, None) for image in located]
    latitude, longitude = (np.array([one[axis] for one in stored], np.float64) for axis in (0, 1))
    altitude = np.array([math.nan if one[2] is None else one[2] for one in stored], np.float64)
    metres = east_north_up(latitude, longitude, altitude)
    extent = np.ptp(metres[:, :2], axis=0)
    if not extent.max() > 0:
        return None
    centres = np.array([image.projection_center() for image in located], np.float64)
    inside = np.ones(len(located), bool)
    for _ in range(_GPS_ROUNDS):
        fitted = align(centres[inside], metres[inside]).apply(centres)
        off = np.linalg.norm((fitted - metres)[:, :2], axis=1)
        near = off <= max(3 * float(np.median(off)), 1e-6)
        if near.sum() < 3 or (near == inside).all():
            break
        inside = near
    return GpsFit(len(located), float(np.median(off)), float(off.max()), (float(extent[0]), float(extent[1])))


def _parallax(model: "pycolmap.Reconstruction") -> float:
    """Degrees, median over points of the largest angle at which two images see one."""
    centres = {image.image_id: image.projection_center() for image in model.images.values() if image.has_pose}
    angles = []
    numbers = sorted(model.points3D)
    for number in numbers[:: max(1, len(numbers) // _SAMPLED_POINTS)]:
        point = model.points3D[number]
        rays = np.array([centres[element.image_id] for element in point.track.elements]) - point.xyz
        rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
        angles.append(math.degrees(math.acos(np.clip((rays @ rays.T).min(), -1, 1))))
    return float(np.median(angles)) if angles else 0.0


def keep_earned(
    model: "pycolmap.Reconstruction", least: int
) -> tuple["pycolmap.Reconstruction | None", dict[str, int]]:
    """A model without the images that its points do not hold; the weakest goes first, as others may fall with it.

    An image must see `LEAST_POINTS`, and in a model of three images or more `LEAST_SHARED` of them together with two
    others at least.

    Args:
        model: is changed.
        least: images of a model.

    Returns:
        The model, or None where fewer than `least` images are left; and those that went, with the points they saw.
    """
    dropped: dict[str, int] = {}
    while model.num_reg_images() >= least:
        seen, shared = _held_by(model)
        several = model.num_reg_images() > 2
        weak = {
            image: min(seen[image] / LEAST_POINTS, shared[image] / LEAST_SHARED if several else math.inf)
            for image in model.reg_image_ids()
        }
        weakest = min(weak, key=lambda image: (weak[image], image))
        if weak[weakest] >= 1:
            return model, dropped
        dropped[model.images[weakest].name] = seen[weakest]
        model.deregister_frame(model.images[weakest].frame_id)
    dropped |= {model.images[image].name: model.images[image].num_points3D for image in model.reg_image_ids()}
    return None, dropped


def _held_by(model: "pycolmap.Reconstruction") -> tuple[Counter[int], Counter[int]]:
    """Of each image, the points it sees, and those that two others see, too."""
    seen: Counter[int] = Counter()
    shared: Counter[int] = Counter()
    for point in model.points3D.values():
        images = {element.image_id for element in point.track.elements}
        seen.update(images)
        if len(images) > 2:
            shared.update(images)
    return seen, shared
