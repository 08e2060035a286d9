"""A last bundle adjustment with a robust loss, in which wrong observations count little.

COLMAP's mappers keep observations up to 4 pixels from their point and weigh them by the square. A learned feature's
typical error is a tenth of that, and its wrong matches are often near misses on repeated structure, a few pixels off
and all to one side: few bend a whole model. Here the scale of the good ones is measured, and the Cauchy loss (Hartley &
Zisserman, "Multiple View Geometry", appendix 6.8) of that scale takes the others' pull away.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairs.retrieval import first_of_each

if TYPE_CHECKING:
    import pycolmap

# Relative change of the cost at which each round ends. There are two: the scale shrinks once the pull of the outliers
# is gone. With 1e-6 in both, the scenes with truth have the same poses (AUC@1 degree within 0.0003), three times later.
TOLERANCES = (1e-3, 1e-4)
# Of a model whose poses are found with few points, before and after the others are: its scale is near the truth both
# times. With (1e-4,) at the end AUC@1 degree is the same within 0.0001.
ONE_ROUND = (1e-3,)
# Both are of so many images. Where there are more, a bend of a long row of them costs a smaller part of the whole, and
# it straightens while the cost hardly falls: of a street block of 1,000 views, rotations were off by 0.21 degrees in
# the median where the last round ended at 1e-3, by 0.10 after 4 more steps, by 0.03 after 40.
_WHOLE = 100
# Iterations of a call, at least, where there are more images: the first steps of each are short, and leave bends there.
# One at a time, the same block was at 0.13 degrees after 780 s; in one call, at 0.03 after 460.
_GROWING = 10
# Observations of each of more images that their poses are found by. An iteration takes the longer the more images each
# point is seen in: of 300 frames of a slow arc, with 1.2 million observations, 8 s, and poses err by 0.010 degrees in
# the median; with so many, about 1 s and 0.005; with twice as many the same.
_DECIDING = 150
GPS_DEVIATION = 5.0  # metres, of a position under the open sky
Floats = NDArray[np.float64]

_NEAREST = 1e-9  # depth of a point that is in front of its camera
_IMAGES, _OBSERVATIONS = 25, 4096  # of which the scale is measured, or so
_LEAST_SCALE = 0.1  # pixels; nothing is known better than that
_MEDIAN_OF_RAYLEIGH = float(np.sqrt(2 * np.log(2)))  # for a deviation of 1 in x and in y
# Noise alone has its 90th percentile at 1.82 medians; photographs with near misses were seen at 3.3 to 3.6.
_HEAVY_TAIL = 2.5
# With a heavy tail, in deviations: on entry-P10 centres err by 11 mm; with 1.5 by 20; without the loss by 40.
_STRICT = 1.0
_EFFICIENT = 2.385  # deviations, without: 95 % as exact as least squares where there is nothing but noise
_ITERATIONS = 50
_AT_ONCE = 750_000  # observations times iterations of a call of the solver: a second or so
_LEAST_STEPS = 3  # of a call: where the first makes it worse, the next are shorter
_MAX_ERROR, _MIN_ANGLE = 4.0, 1.5  # pixels, degrees: what COLMAP's mappers keep


@dataclass(frozen=True)
class Spread:
    """How far observations are from their points."""

    deviation: float  # of the good ones, in x and in y, pixels
    tail: float  # 90th percentile over the median


def refine_robustly(
    model: "pycolmap.Reconstruction",
    *,
    refine_cameras: bool,
    threads: int = -1,
    priors: Sequence["pycolmap.PosePrior"] = (),
    constant_cameras: Collection[int] = (),
    tolerances: Sequence[float] = TOLERANCES,
) -> "pycolmap.Reconstruction":
    """Adjusts poses, points and, if asked, focal lengths and distortion; drops what COLMAP would drop.

    Args:
        model: as a mapper left it; it stays as it is.
        refine_cameras: whether intrinsics may change.
        threads: of the solver; -1: one per core.
        priors: positions of images, in metres, that hold the model, too, with a robust loss.
        constant_cameras: whose intrinsics stay in any case.
        tolerances: of each round: relative change of the cost at which it ends; of many images a smaller one.

    Returns:
        The adjusted model, or `model` itself where the solver found nothing usable.
    """
    import pycolmap

    refined = pycolmap.Reconstruction(model)
    later = _not_deciding(refined)
    for point in later:
        refined.delete_point3D(point)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = refine_cameras
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    registered = [image for image in refined.images.values() if image.has_pose]
    at_once = _iterations_at_once(refined, _GROWING if len(registered) > _WHOLE else 1)
    options.ceres.solver_options.max_num_iterations = at_once
    options.ceres.solver_options.num_threads = threads
    config = pycolmap.BundleAdjustmentConfig()
    for image in registered:
        config.add_image(image.image_id)
    for number in constant_cameras:
        if number in refined.cameras:
            config.set_constant_cam_intrinsics(number)
    if not priors:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    for tolerance in tolerances:
        found = spread(refined)
        if found is None:
            return model
        options.ceres.solver_options.function_tolerance = tolerance * min(1.0, _WHOLE / max(len(registered), 1))
        options.ceres.loss_function_scale = _scale(found)
        if not _solved(options, config, refined, priors, -(-_ITERATIONS // at_once)):
            return model
    if later and not _solved_by_poses(options, config, refined, [model.points3D[point] for point in later]):
        return model
    pycolmap.ObservationManager(refined).filter_all_points3D(_MAX_ERROR, _MIN_ANGLE)
    refined.update_point_3d_errors()
    return refined


def _not_deciding(model: "pycolmap.Reconstruction") -> list[int]:
    """Points that the poses of many images are found without; none where that saves little.

    The longest tracks decide, until each image has enough of them (as GLOMAP chooses; Pan et al., ECCV 2024). Those
    with two keypoints of one image come last: they are two points in one.
    """
    if model.num_reg_images() <= _WHOLE:
        return []
    tracks = {point: [seen.image_id for seen in one.track.elements] for point, one in model.points3D.items()}
    points, lengths = np.fromiter(tracks, np.int64, len(tracks)), np.array([*map(len, tracks.values())], np.int64)
    single = np.fromiter((len(set(one)) for one in tracks.values()), np.int64, len(tracks)) == lengths
    images = np.fromiter(itertools.chain.from_iterable(tracks.values()), np.int64, lengths.sum())
    track = np.repeat(np.arange(len(points)), lengths)
    order = np.lexsort((track, -lengths[track], ~single[track], images))
    decides = np.zeros(len(points), bool)
    decides[track[first_of_each(images, order, _DECIDING)]] = True
    return [] if 2 * lengths[decides].sum() > lengths.sum() else [int(point) for point in points[~decides]]


def _solved_by_poses(
    options: "pycolmap.BundleAdjustmentOptions",
    config: "pycolmap.BundleAdjustmentConfig",
    model: "pycolmap.Reconstruction",
    points: Sequence["pycolmap.Point3D"],
) -> bool:
    """Adds points, and adjusts all points of a model by its poses and cameras; whether that is usable."""
    for point in points:
        model.add_point3D(point.xyz, point.track, point.color)
    found = spread(model)
    if found is None:
        return False
    for frame in model.reg_frame_ids():
        config.set_constant_rig_from_world_pose(frame)
    for camera in model.cameras.values():
        config.set_constant_cam_intrinsics(camera.camera_id)
        config.set_constant_sensor_from_rig_pose(camera.sensor_id)
    options.ceres.loss_function_scale = _scale(found)
    solver = options.ceres.solver_options
    solver.function_tolerance = max(ONE_ROUND)
    # each point is on its own: nothing bends where calls are short, and there are many more of them than before
    solver.max_num_iterations = _iterations_at_once(model, _LEAST_STEPS)
    return _solved(options, config, model, (), -(-_ITERATIONS // solver.max_num_iterations))


def _iterations_at_once(model: "pycolmap.Reconstruction", least: int) -> int:
    """Of a call of the solver, so that signals wait for a second or so where `least` allows it."""
    observations: int = sum(image.num_points3D for image in model.images.values() if image.has_pose)
    return min(max(least, _AT_ONCE // max(observations, 1)), _ITERATIONS)


def _scale(found: Spread) -> float:
    """Of the loss, pixels."""
    return max(_LEAST_SCALE, (_STRICT if found.tail > _HEAVY_TAIL else _EFFICIENT) * found.deviation)


def _solved(
    options: "pycolmap.BundleAdjustmentOptions",
    config: "pycolmap.BundleAdjustmentConfig",
    model: "pycolmap.Reconstruction",
    priors: Sequence["pycolmap.PosePrior"],
    calls: int,
) -> bool:
    """Whether the solver, called as often as that at most, found something usable.

    Python does nothing during a call, not even act on a signal: each has few iterations, and the next goes on from it.
    """
    import pycolmap

    def created() -> "pycolmap.BundleAdjuster":
        # not pycolmap.bundle_adjustment, which is the same and logs whatever the log level
        if priors:
            return pycolmap.create_pose_prior_bundle_adjuster(options, _prior_options(), config, list(priors), model)
        return pycolmap.create_default_bundle_adjuster(options, config, model)

    adjuster = created()
    for call in range(calls):
        if call and priors:  # it moves the model to its own axes when it is made, and back when it has solved
            adjuster = created()
        found = adjuster.solve()
        if not found.is_solution_usable():
            return False
        if found.termination_type != pycolmap.BundleAdjustmentTerminationType.NO_CONVERGENCE:
            break
    return True


def _prior_options() -> "pycolmap.PosePriorBundleAdjustmentOptions":
    """A GPS position's deviation, with the Cauchy loss: a gross error of one counts little."""
    import pycolmap

    options = pycolmap.PosePriorBundleAdjustmentOptions()
    options.prior_position_fallback_stddev = GPS_DEVIATION
    options.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
    return options


def spread(model: "pycolmap.Reconstruction") -> Spread | None:
    """Measured on a sample of the observations. None for a model without observations.

    A point of m observations has 2m numbers for its 3 coordinates and takes part of the noise up itself: residuals are
    scaled by sqrt(2m / (2m - 3)).
    """
    registered = [image for image in model.images.values() if image.has_pose]
    chosen = registered[:: max(1, len(registered) // _IMAGES)]
    step = max(1, sum(image.num_points3D for image in chosen) // _OBSERVATIONS)
    distances = np.concatenate([_distances(model, image, step) for image in chosen] or [np.empty(0)])
    if not len(distances):
        return None
    median, far = np.percentile(distances, (50, 90))
    return Spread(float(median) / _MEDIAN_OF_RAYLEIGH, float(far / max(median, 1e-9)))


def _distances(model: "pycolmap.Reconstruction", image: "pycolmap.Image", step: int) -> Floats:
    """Of each `step`th observation of an image in front of it from its point, scaled as in `spread`; pixels."""
    observed = image.get_observation_points2D()[::step]
    points = [model.points3D[one.point3D_id] for one in observed]
    if not points:
        return np.empty(0)
    seen = image.cam_from_world() * np.array([point.xyz for point in points])
    numbers = 2.0 * np.array([point.track.length() for point in points])
    front = seen[:, 2] > _NEAREST
    projected: Floats = np.asarray(model.cameras[image.camera_id].img_from_cam(seen[front]), np.float64)
    apart = np.linalg.norm(projected - np.array([one.xy for one in observed])[front], axis=1)
    scaled: Floats = apart * np.sqrt(numbers / (numbers - 3))[front]
    return scaled[np.isfinite(scaled)]
