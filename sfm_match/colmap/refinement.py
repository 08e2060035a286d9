"""A last bundle adjustment in which wrong observations weigh little.

COLMAP's mappers keep observations up to 4 pixels from their point and weigh them by the square. A learned feature's
typical error is a tenth of that, and its wrong matches are often near misses on repeated structure, a few pixels off
and all to one side: few bend a whole model. Here the scale of the good ones is measured, and the Cauchy loss (Hartley &
Zisserman, "Multiple View Geometry", appendix 6.8) of that scale takes the others' pull away.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pycolmap

ROUNDS = 2  # the scale shrinks once the pull of the outliers is gone
_IMAGES = 100  # of which the scale is measured
_LEAST_SCALE = 0.1  # pixels; nothing is known better than that
_MEDIAN_OF_RAYLEIGH = float(np.sqrt(2 * np.log(2)))  # for a deviation of 1 in x and in y
_TOLERANCE = 1e-6  # relative change of the cost at which a round ends
_ITERATIONS = 50


def refine_robustly(model: "pycolmap.Reconstruction", *, refine_cameras: bool) -> float:
    """Adjusts poses, points and, if asked, focal lengths and distortion, in place.

    Args:
        model: as a mapper left it.
        refine_cameras: whether intrinsics may change.

    Returns:
        The deviation of the good observations in x and in y, pixels of the images.
    """
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = refine_cameras
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.solver_options.function_tolerance = _TOLERANCE
    options.ceres.solver_options.max_num_iterations = _ITERATIONS
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    for _ in range(ROUNDS):
        options.ceres.loss_function_scale = max(_LEAST_SCALE, deviation(model))
        # not pycolmap.bundle_adjustment, which is the same and logs whatever the log level
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
    return deviation(model)


def deviation(model: "pycolmap.Reconstruction") -> float:
    """Robust deviation of the observations from their points, pixels, by the median of the distances."""
    registered = [image for image in model.images.values() if image.has_pose]
    distances = []
    for image in registered[:: max(1, len(registered) // _IMAGES)]:
        for point in image.points2D:
            if point.has_point3D():
                projected = image.project_point(model.points3D[point.point3D_id].xyz)
                if projected is not None:
                    distances.append(float(np.linalg.norm(projected - point.xy)))
    return float(np.median(distances)) / _MEDIAN_OF_RAYLEIGH if distances else 0.0
