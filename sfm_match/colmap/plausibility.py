"""Whether a finished model can be true: what its images' EXIF and its own geometry say of it.

A mapper that starts from few or wrong matches may end with a small reprojection error and a wrong world: a focal length
four times too long with the distortion to make up for it, or images that a handful of points hold. `judge` lists what
speaks against a model and changes nothing; `keep_earned` takes out the images that the model does not hold.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pairs.spatial import east_north_up
from sfm_match.colmap.georeference import LEAST_LOCATED
from sfm_match.colmap.observations import observations
from sfm_match.colmap.queries import MOST_IMAGES
from sfm_match.colmap.similarity import fit_robustly
from sfm_match.images.files import Header

if TYPE_CHECKING:
    import pycolmap

_Found = tuple[dict[str, Any], list[str]]  # facts by their field of Plausibility, and sentences

MAX_FOCAL_DEVIATION = 0.15  # of EXIF's focal length
FOCAL_FACTORS = (0.3, 10.0)  # of the long side, without EXIF
MAX_DISTORTION = 0.5  # displacement of the corner over its distance from the principal point
_POLYNOMIAL = {"SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"}  # camera models: a pinhole, then a displacement
# GPS errs by about 5 m under the open sky and by 10 to 20 m between houses. In the median, a true model is nearer than
# 10 m, and a long one, which drifts, nearer than 5 % of its length.
MAX_GPS_RESIDUAL, MAX_GPS_DRIFT = 10.0, 0.05  # metres; of the diagonal of the extent
# Standard deviation of the positions across their main direction, metres. On a straight or small track, GPS's own
# errors are as wide as the track and fit no model: only images that are farther off than GPS errs count there.
MIN_GPS_SPREAD = 15.0
_FAR_GPS_RESIDUAL, _FAR_GPS_DRIFT = 25.0, 0.1  # metres; of the diagonal of the extent
MAX_FAR = 0.2  # of the images; fewer may be gross GPS errors
_GPS_FACTS = ("gps_residual_median_m", "gps_residual_max_m", "gps_far_images", "gps_extent_m")
LEAST_JUDGED = 6  # images; with fewer, one gross tag cannot be told from a wrong model
MIN_ANGLE = 1.5  # degrees; the mappers' own filter
_ROTATION_ANGLE = 0.5  # degrees between the two rays of a point, below which an image pair only rotates
_SAMPLE = 2000  # points whose angles are measured
_RAYS = 50  # of a point, at most
MIN_POINTS = 30  # of an image: COLMAP's abs_pose_min_num_inliers
MIN_SHARED_POINTS = 15  # of them, seen by three images or more
MIN_TRACK_LENGTH = 2.1  # mean; at or below, next to nothing but two-view points


@dataclass(frozen=True)
class Plausibility:
    """What is known of a model, and what of it is odd. None: nothing to measure it by."""

    images: int  # registered
    points: int
    track_length: float  # mean observations of a point
    points_in_three_images: float  # share of the points seen by three images or more
    focal_images: int  # registered images with a focal length in EXIF
    focal_deviation: float | None  # the worst, (model - EXIF) / EXIF
    distortion: float | None  # the worst displacement of an image corner over its distance from the principal point
    gps_images: int  # registered images with a GPS position
    gps_residual_median_m: float | None  # metres along the ground, after a robust similarity fit
    gps_residual_max_m: float | None  # metres; gross GPS errors included
    gps_far_images: int | None  # farther off than GPS errs, whether by a wrong tag or by a wrong pose
    gps_extent_m: tuple[float, float] | None  # metres east and north, of the images near their GPS
    triangulation_angle_deg: float | None  # median over the points of their largest angle between two rays
    rotation_pairs: float | None  # share of the image pairs with common points whose cameras stand in one place
    images_in_other_models: int
    odd: tuple[str, ...]  # a sentence per oddity; empty for a plausible model

    def gps_line(self) -> str | None:
        """How far from GPS, in words."""
        if self.gps_extent_m is None:
            return None
        return (
            f"{self.gps_residual_median_m:.1f} m from GPS in the median ({self.gps_residual_max_m:.0f} m at most), "
            f"over {self.gps_extent_m[0]:.0f} x {self.gps_extent_m[1]:.0f} m"
        )


def judge(
    model: "pycolmap.Reconstruction",
    headers: Mapping[str, Header],
    others: Sequence["pycolmap.Reconstruction"] = (),
    known_intrinsics: bool = False,
) -> Plausibility:
    """Measures a model against EXIF and against itself.

    Args:
        model: it stays as it is.
        headers: by image name; images without one are judged by geometry alone.
        others: the other models of the same database.
        known_intrinsics: the cameras were given by the user: their focal lengths and distortion are never odd.
    """
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    lengths = [point.track.length() for point in model.points3D.values()]
    facts: dict[str, Any] = {
        "images": len(images),
        "points": len(lengths),
        "track_length": round(float(np.mean(lengths or 0)), 3),
        "points_in_three_images": round(float(np.mean([length >= 3 for length in lengths] or 0)), 3),
    }
    odd: list[str] = []
    cameras = [_judge_focal(model, images, headers), _judge_distortion(model, images)]
    scene = [_judge_gps(images, headers), _judge_parallax(model), _judge_overlap(images, others)]
    for found, sentences in cameras:
        facts |= found
        odd += [] if known_intrinsics else sentences
    for found, sentences in scene:
        facts |= found
        odd += sentences
    return Plausibility(**facts, odd=tuple(odd))


def far_from_exif(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> bool:
    """Whether the focal lengths are, in the median over the images with one in EXIF."""
    ratios = [
        model.cameras[image.camera_id].mean_focal_length() / exif
        for image in model.images.values()
        if image.has_pose and (exif := headers[image.name].focal)
    ]
    return bool(ratios) and abs(float(np.median(ratios)) - 1) > MAX_FOCAL_DEVIATION


def far_from_gps(model: "pycolmap.Reconstruction", headers: Mapping[str, Header]) -> bool:
    """Whether camera centres do not fit their images' GPS; no, where too few have one."""
    return bool(_judge_gps([image for image in model.images.values() if image.has_pose], headers)[1])


def _judge_focal(
    model: "pycolmap.Reconstruction", images: list["pycolmap.Image"], headers: Mapping[str, Header]
) -> _Found:
    against_exif: list[tuple[float, float, float]] = []  # deviation, pixels, pixels of EXIF
    without: list[tuple[float, int]] = []  # pixels, long side
    for image in images:
        camera, header = model.cameras[image.camera_id], headers.get(image.name)
        if not len(camera.focal_length_idxs()):  # spherical
            continue
        focal = camera.mean_focal_length()
        if header is not None and header.focal:
            against_exif.append((focal / header.focal - 1, focal, header.focal))
        elif not FOCAL_FACTORS[0] <= focal / max(camera.width, camera.height) <= FOCAL_FACTORS[1]:
            without.append((focal, max(camera.width, camera.height)))
    worst = max(against_exif, key=lambda one: abs(one[0]), default=None)
    deviating = sum(abs(one[0]) > MAX_FOCAL_DEVIATION for one in against_exif)
    sentences = []
    if worst is not None and deviating:
        sentences.append(
            f"focal length {worst[1]:,.0f} px where EXIF says {worst[2]:,.0f} px ({_images(deviating)} off)"
        )
    if without:
        sentences.append(
            f"focal length {without[0][0]:,.0f} px for a long side of {without[0][1]:,} px ({_images(len(without))})"
        )
    deviation = None if worst is None else round(worst[0], 4)
    return {"focal_images": len(against_exif), "focal_deviation": deviation}, sentences


def _judge_distortion(model: "pycolmap.Reconstruction", images: list["pycolmap.Image"]) -> _Found:
    used = [model.cameras[number] for number in sorted({image.camera_id for image in images})]
    cameras = [camera for camera in used if camera.model_name in _POLYNOMIAL]
    seen = [corner_displacement(camera) for camera in cameras]
    displacements, folded = [displacement for displacement, _ in seen], sum(folds for _, folds in seen)
    worst = max(displacements, default=None)
    sentences = []
    if worst is not None and worst > MAX_DISTORTION:
        sentences.append(f"distortion moves an image corner by {worst:.0%} of its distance from the centre")
    elif folded:
        sentences.append(f"distortion folds the image over before its corner ({folded} of {len(cameras)} cameras)")
    return {"distortion": None if worst is None else round(worst, 4)}, sentences


def corner_displacement(camera: "pycolmap.Camera") -> tuple[float, bool]:
    """How far distortion moves an image corner, over its distance from the principal point; and whether it folds.

    The polynomial is followed along the diagonal, to where a pinhole camera would have the farthest corner. Other kinds
    of distortion are not looked at: 0.
    """
    if camera.model_name not in _POLYNOMIAL:
        return 0.0, False
    centre = np.array([camera.principal_point_x, camera.principal_point_y])
    focal = np.array([camera.focal_length_x, camera.focal_length_y])
    corner = np.where(centre > np.array([camera.width, camera.height]) / 2, 0, (camera.width, camera.height))
    steps = np.linspace(0, 1, 65)[:, None] * (corner - centre) / focal
    seen = camera.img_from_cam(np.hstack((steps, np.ones((len(steps), 1))))) - centre  # (65, 2) pixels
    displacement = float(np.linalg.norm(seen[-1] - (corner - centre)) / np.linalg.norm(corner - centre))
    return displacement, bool((np.diff(np.linalg.norm(seen, axis=1)) <= 0).any())


def _judge_gps(images: list["pycolmap.Image"], headers: Mapping[str, Header]) -> _Found:
    located = [image for image in images if image.name in headers and headers[image.name].location is not None]
    facts: dict[str, Any] = {"gps_images": len(located)}
    facts |= dict.fromkeys(_GPS_FACTS)
    if len(located) < LEAST_LOCATED:
        return facts, []
    places = np.array([headers[image.name].location for image in located], np.float64)  # an altitude of None: NaN
    measured = east_north_up(*places.T)
    fitted, held = fit_robustly(np.array([image.projection_center() for image in located]), measured)
    residuals = np.linalg.norm((fitted - measured)[:, :2], axis=1)
    ground = measured[held, :2]
    median, extent = float(np.median(residuals)), np.ptp(ground, axis=0)
    spread = np.linalg.svd(ground - ground.mean(axis=0), compute_uv=False)[-1] / np.sqrt(len(ground))
    facts["gps_residual_median_m"] = round(median, 2)
    facts["gps_residual_max_m"] = round(float(residuals.max()), 2)
    facts["gps_extent_m"] = (round(float(extent[0]), 1), round(float(extent[1]), 1))
    diagonal, over = float(np.linalg.norm(extent)), f"over {extent[0]:.0f} x {extent[1]:.0f} m"
    far = int((residuals > max(_FAR_GPS_RESIDUAL, _FAR_GPS_DRIFT * diagonal)).sum())
    facts["gps_far_images"] = far
    if len(located) < LEAST_JUDGED:
        return facts, []
    if spread >= MIN_GPS_SPREAD and median > max(MAX_GPS_RESIDUAL, MAX_GPS_DRIFT * diagonal):
        return facts, [f"camera centres {median:.0f} m from GPS after a similarity fit, {over}"]
    if far > MAX_FAR * len(located):
        most = f"{residuals.max():.0f} m"
        return facts, [f"{far} of {_images(len(located))} up to {most} from GPS where the others fit it, {over}"]
    return facts, []


def _judge_parallax(model: "pycolmap.Reconstruction") -> _Found:
    """Angles between the rays of a sample of points."""
    centres = {number: image.projection_center() for number, image in model.images.items() if image.has_pose}
    numbers = sorted(model.points3D)
    alike: dict[int, list[tuple[list[int], NDArray[np.float64]]]] = defaultdict(list)  # by the length of their tracks
    for number in numbers[:: max(1, -(-len(numbers) // _SAMPLE))]:
        point = model.points3D[number]
        seen = sorted({element.image_id for element in point.track.elements})
        seen = seen[:: -(-len(seen) // _RAYS)]
        if len(seen) > 1:
            alike[len(seen)].append((seen, point.xyz))
    largest, pairs, angles = [], [], []
    for length, points in alike.items():
        seen_by = np.array([seen for seen, _ in points])  # (P, length)
        rays = np.array([[centres[image] for image in seen] for seen, _ in points])
        rays -= np.array([xyz for _, xyz in points])[:, None]
        rays /= np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
        first, second = np.triu_indices(length, 1)
        between = np.degrees(np.arccos(np.clip((rays[:, first] * rays[:, second]).sum(axis=2), -1, 1)))
        largest += between.max(axis=1).tolist()
        pairs.append((seen_by[:, first] * MOST_IMAGES + seen_by[:, second]).ravel())
        angles.append(between.ravel())
    if not largest:
        return {"triangulation_angle_deg": None, "rotation_pairs": None}, []
    _, pair = np.unique(np.concatenate(pairs), return_inverse=True)
    small = np.bincount(pair, np.concatenate(angles) < _ROTATION_ANGLE) / np.bincount(pair)
    angle, share = float(np.median(largest)), float(np.mean(small > 0.5))
    facts = {"triangulation_angle_deg": round(angle, 3), "rotation_pairs": round(share, 3)}
    if angle >= MIN_ANGLE and share <= 0.5:
        return facts, []
    return facts, [
        f"cameras hardly move: points are seen under {angle:.1f} degrees, "
        f"{share:.0%} of the image pairs show a rotation alone"
    ]


def _judge_overlap(images: list["pycolmap.Image"], others: Sequence["pycolmap.Reconstruction"]) -> _Found:
    elsewhere = {image.name for other in others for image in other.images.values() if image.has_pose}
    both = [image.name for image in images if image.name in elsewhere]
    sentences = [f"{_images(len(both))} also in another model, e.g. {both[0]}"] if both else []
    return {"images_in_other_models": len(both)}, sentences


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Kept:
    """A model without the images that it did not hold."""

    model: "pycolmap.Reconstruction | None"  # None: too little of it is held
    dropped: dict[str, int]  # image name -> its points when it was dropped


def unearned(model: "pycolmap.Reconstruction") -> dict[int, int]:
    """The frames that the model does not hold, weakest first, and their points. A frame is one image, or one of a rig.

    A frame must see `MIN_POINTS` points, as COLMAP asks of it at registration. In a model of three images or more,
    `MIN_SHARED_POINTS` of them must be seen by three: points of two images leave the scale between pairs open.
    """
    frames = {number: image.frame_id for number, image in model.images.items() if image.has_pose}
    points = dict.fromkeys(frames.values(), 0)
    shared = dict.fromkeys(frames.values(), 0)
    of_image = {number: np.unique(observed.points) for number, observed in observations(model).items()}
    every, images = np.unique(np.concatenate([*of_image.values(), np.empty(0, np.int64)]), return_counts=True)
    of_frame: dict[int, list[NDArray[np.int64]]] = {}
    for number, seen in of_image.items():
        of_frame.setdefault(frames[number], []).append(seen)
    for frame, parts in of_frame.items():
        seen = np.unique(np.concatenate(parts))
        points[frame] = len(seen)
        shared[frame] = int((images[np.searchsorted(every, seen)] >= 3).sum())
    least = MIN_SHARED_POINTS if len(frames) >= 3 else 0
    weak = [frame for frame in points if points[frame] < MIN_POINTS or shared[frame] < least]
    return {frame: points[frame] for frame in sorted(weak, key=lambda f: (points[f], shared[f], f))}


def keep_earned(model: "pycolmap.Reconstruction", least: int) -> Kept:
    """Takes out the weakest image until the model holds all of them. Cameras, poses and points stay as they are.

    Args:
        model: it stays as it is.
        least: images that are worth a model.

    Returns:
        The model (`model` itself, where it holds all its images), or None where fewer than `least` images remain or
        where more than two are held by two-view points alone; and the images taken out.
    """
    import pycolmap

    kept, dropped = model, dict[str, int]()
    while weak := unearned(kept):
        if not dropped:
            kept = pycolmap.Reconstruction(model)
        # What an image loses it never gains back: as long as others are left for sure, all weak ones go at once.
        many = kept.num_reg_frames() - len(weak) >= 3
        for frame in list(weak) if many else list(weak)[:1]:
            names = [image.name for image in kept.images.values() if image.frame_id == frame and image.has_pose]
            dropped |= dict.fromkeys(names, weak[frame])
            kept.deregister_frame(frame)
    registered = kept.num_reg_images()
    two_view = registered > 2 and kept.compute_mean_track_length() <= MIN_TRACK_LENGTH
    return Kept(None if registered < least or two_view else kept, dropped)
