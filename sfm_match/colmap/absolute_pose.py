"""The pose of one image in a model, from keypoints that show points of the model: pycolmap's absolute pose, judged.

A pose is a claim. It is made where the image sees as many points as one of the model must (`plausibility.MIN_POINTS`),
where chance would not give a pose as good (`matching.acceptance`), and where the camera that was found can be one.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.cameras import DEFAULT_FOCAL_FACTOR
from sfm_match.colmap.plausibility import (
    FOCAL_FACTORS,
    MAX_DISTORTION,
    MAX_FOCAL_DEVIATION,
    MIN_POINTS,
    corner_displacement,
)
from sfm_match.images.files import Header
from sfm_match.matching.acceptance import SIGNIFICANT, point_chance, significance
from sfm_match.options.stages import ImportOptions

if TYPE_CHECKING:
    import pycolmap

Floats = NDArray[np.float64]
MAX_ERROR = 4.0  # pixels of the network, of an inlier
_LOSS_SCALE = 1.0  # pixels of the network, of the Cauchy loss in the refinement
_SEED = 0  # the same correspondences give the same pose


class CameraFrom(StrEnum):
    """Where the intrinsics of a query's camera are from."""

    GIVEN = "given"  # by the user
    MODEL = "model"  # a camera of the model
    EXIF = "EXIF"  # the focal length, then refined
    GUESS = "estimated"  # all is

    @property
    def known(self) -> bool:
        """Whether they are kept as they are."""
        return self in (CameraFrom.GIVEN, CameraFrom.MODEL)


@dataclass(frozen=True)
class QueryCamera:
    """The camera of a query before its pose is looked for."""

    camera: "pycolmap.Camera"
    source: CameraFrom
    exif_focal: float | None  # pixels


@dataclass(frozen=True)
class Correspondences:
    """C pairs of a keypoint and a point of the model that it may show. A keypoint may have several."""

    keypoints: NDArray[np.int64]  # (C,) places among those of the query
    xy: Floats  # (C, 2) raw pixels of the query, the centre of the top-left one at (0.5, 0.5)
    xyz: Floats  # (C, 3) in the world of the model
    scores: NDArray[np.floating]  # (C,) of the matches

    def count(self, rows: NDArray[np.bool_] | slice = slice(None)) -> int:
        """Number of keypoints among some of them."""
        return len(np.unique(self.keypoints[rows]))


@dataclass(frozen=True)
class Pose:
    """A pose that is claimed."""

    cam_from_world: "pycolmap.Rigid3d"
    camera: "pycolmap.Camera"
    inliers: NDArray[np.bool_]  # (C,)
    error: float  # mean reprojection error of the inliers, raw pixels


class KnownCameras:
    """The cameras of a model by what tells of a photograph which one took it.

    That is what joins images in `--camera-mode auto`: make, model, focal length in EXIF, and size. Without a make, the
    size alone tells, and only where several images share the one camera that has it: frames of a video.
    """

    def __init__(self, model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> None:
        self._cameras, cameras = model.cameras, dict[tuple[object, ...], list[int]]()
        for image in model.images.values():
            if image.has_pose and image.name in headers:
                cameras.setdefault(_signature(headers[image.name]), []).append(image.camera_id)
        self._known = {
            key: numbers[0]
            for key, numbers in cameras.items()
            if len(set(numbers)) == 1 and (key[0] or len(numbers) > 1)
        }

    def of(self, header: Header) -> "pycolmap.Camera | None":
        """The camera that took a photograph, if it took some of the model's."""
        number = self._known.get(_signature(header))
        return None if number is None else self._cameras[number]


def _signature(header: Header) -> tuple[object, ...]:
    return header.camera, round(header.focal or 0.0, 3), header.width, header.height


def query_camera(header: Header, known: KnownCameras, options: ImportOptions) -> QueryCamera:
    """The user's, else the model's, else one with the focal length of EXIF or none.

    Args:
        header: of the query.
        known: cameras of the model.
        options: camera model and parameters; checked (`cameras.check_camera_model`).
    """
    import pycolmap

    same = known.of(header) if options.intrinsics is None else None
    if same is not None:
        return QueryCamera(copy.deepcopy(same), CameraFrom.MODEL, header.focal)
    focal = header.focal or DEFAULT_FOCAL_FACTOR * max(header.width, header.height)
    camera = pycolmap.Camera.create_from_model_name(1, options.camera_model, focal, header.width, header.height)
    source = CameraFrom.GUESS if header.focal is None else CameraFrom.EXIF
    if options.intrinsics is not None:
        camera.params = list(options.intrinsics)
        source = CameraFrom.GIVEN
    return QueryCamera(camera, source, header.focal)


def find_pose(found: Correspondences, query: QueryCamera, scale: float) -> Pose | str:
    """The pose that the correspondences claim, or why there is none, in words.

    Args:
        found: what the query may see of the model.
        query: its camera; it stays as it is.
        scale: raw pixels per pixel of the network, the unit in which keypoints err.
    """
    import pycolmap

    tried = found.count()
    if tried < MIN_POINTS:
        return f"{tried} keypoints match points of the model, a pose needs {MIN_POINTS}"
    camera = copy.deepcopy(query.camera)  # refined in place
    estimated = pycolmap.estimate_and_refine_absolute_pose(found.xy, found.xyz, camera, *_options(query.source, scale))
    if estimated is None:
        return f"no pose fits the {tried} keypoints that match points of the model"
    cam_from_world = estimated["cam_from_world"]
    residuals = _residuals(found, camera, cam_from_world)
    inliers = residuals <= MAX_ERROR * scale
    agree = found.count(inliers)
    if agree < MIN_POINTS:
        return f"{agree} of {tried} keypoints that match points of the model agree on a pose, it needs {MIN_POINTS}"
    if _by_chance(found, residuals, camera, refined=not query.source.known) >= SIGNIFICANT:
        return f"a pose with {agree} of {tried} keypoints is no better than chance"
    return _odd(camera, query) or Pose(cam_from_world, camera, inliers, float(residuals[inliers].mean()))


def _options(
    source: CameraFrom, scale: float
) -> "tuple[pycolmap.AbsolutePoseEstimationOptions, pycolmap.AbsolutePoseRefinementOptions]":
    import pycolmap

    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = source is CameraFrom.GUESS
    estimation.ransac.max_error = MAX_ERROR * scale
    estimation.ransac.random_seed = _SEED
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.loss_function_scale = _LOSS_SCALE * scale
    refinement.refine_focal_length = refinement.refine_extra_params = not source.known
    return estimation, refinement


def _residuals(found: Correspondences, camera: "pycolmap.Camera", cam_from_world: "pycolmap.Rigid3d") -> Floats:
    """(C,) pixels; infinite behind the camera."""
    points = np.asarray(cam_from_world * found.xyz, np.float64)
    seen = np.asarray(camera.img_from_cam(points), np.float64).reshape(-1, 2)
    errors = np.linalg.norm(seen - found.xy, axis=1)
    return np.where((points[:, 2] > 0) & np.isfinite(errors), errors, np.inf)


def _by_chance(found: Correspondences, residuals: Floats, camera: "pycolmap.Camera", *, refined: bool) -> float:
    """Log10 of the number of poses as good that chance gives. A keypoint counts once, with its strongest match."""
    strongest = np.lexsort((-found.scores.astype(np.float64), found.keypoints))
    rows = strongest[np.unique(found.keypoints[strongest], return_index=True)[1]]
    chances = point_chance(residuals[rows], camera.width, camera.height)
    # three points have up to four poses, four points with an unknown focal length up to ten
    sample, solutions = (4, 10) if refined else (3, 4)
    return significance(chances, found.scores[rows], sample=sample, solutions=solutions)


def _odd(camera: "pycolmap.Camera", query: QueryCamera) -> str:
    """What is wrong with a camera that was refined; empty where nothing is."""
    if query.source.known or not len(camera.focal_length_idxs()):  # spherical cameras have no focal length
        return ""
    focal, long_side = camera.mean_focal_length(), max(camera.width, camera.height)
    cure = "--camera-params gives the right intrinsics"
    if query.exif_focal is not None:
        if abs(focal / query.exif_focal - 1) > MAX_FOCAL_DEVIATION:
            return f"a focal length of {focal:,.0f} px where EXIF says {query.exif_focal:,.0f} px; {cure}"
    elif not FOCAL_FACTORS[0] <= focal / long_side <= FOCAL_FACTORS[1]:
        return f"a focal length of {focal:,.0f} px for a long side of {long_side:,} px; {cure}"
    displacement, folds = corner_displacement(camera)
    if folds or displacement > MAX_DISTORTION:
        return f"distortion moves an image corner by {displacement:.0%} of its distance from the centre; {cure}"
    return ""
