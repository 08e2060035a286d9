"""Scores a reconstruction against known cameras (Strecha et al., CVPR 2008, `.camera` files).

    python scripts/evaluate_poses.py WORKSPACE/sparse/0 SCENE/gt_cameras

For every pair of true cameras: the angle between the estimated and the true relative rotation, the angle between the
directions of relative translation, and the larger of the two; a pair with an unregistered image counts as 180 degrees.
AUC@t is the area under the recall curve up to t degrees, over t. Camera centres are compared after a similarity
alignment.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from sfm_match.colmap.similarity import align

Floats = NDArray[np.float64]
Pose = tuple[Floats, Floats]  # rotation camera_from_world (3, 3), centre in world (3,)
UNREGISTERED = 180.0  # degrees


def read_camera(path: Path) -> Pose:
    """K (3 rows), three zeros, R camera-to-world (3 rows), centre, image size.

    The files give six digits; the nearest rotation is taken, which changes no angle by more than 1e-4 degrees.
    """
    values = np.array(path.read_text().split(), np.float64)
    u, _, vt = np.linalg.svd(values[12:21].reshape(3, 3).T)
    return u @ np.diag((1, 1, np.linalg.det(u @ vt))) @ vt, values[21:24]


def read_model(path: Path) -> tuple[dict[str, Pose], pycolmap.Reconstruction]:
    model = pycolmap.Reconstruction(str(path))
    poses = {
        image.name: (image.cam_from_world().rotation.matrix(), image.projection_center())
        for image in model.images.values()
        if image.has_pose
    }
    return poses, model


def rotation_angle(a: Floats, b: Floats) -> float:
    """Degrees between two rotations.

    From the chord |A - B| = sqrt(8) sin(angle / 2): the arc cosine of the trace would make hundredths of a degree of an
    error in the seventh digit.
    """
    return float(np.degrees(2 * np.arcsin(min(1.0, float(np.linalg.norm(a - b)) / 8**0.5))))


def direction_angle(a: Floats, b: Floats) -> float:
    """Degrees between two directions."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def pair_errors(estimated: dict[str, Pose], truth: dict[str, Pose]) -> Floats:
    """Degrees, one a pair of true cameras."""
    errors = []
    for first, second in combinations(sorted(truth), 2):
        if first not in estimated or second not in estimated:
            errors.append(UNREGISTERED)
            continue
        relative = []
        for poses in (estimated, truth):
            (r0, c0), (r1, c1) = poses[first], poses[second]
            relative.append((r1 @ r0.T, r1 @ (c0 - c1)))
        (rotation, shift), (true_rotation, true_shift) = relative
        errors.append(max(rotation_angle(rotation, true_rotation), direction_angle(shift, true_shift)))
    return np.array(errors)


def area_under_curve(errors: Floats, limit: float) -> float:
    """Of recall over error up to `limit`, over `limit`, by trapezoids: the field's pose AUC (Sarlin et al.,
    "SuperGlue", CVPR 2020), so that figures compare.
    """
    x = np.concatenate(([0.0], np.sort(errors)))
    recall = np.arange(len(x)) / len(errors)
    below = int(np.searchsorted(x, limit))
    return float(np.trapezoid(np.append(recall[:below], recall[below - 1]), np.append(x[:below], limit)) / limit)


def centre_rmse(estimated: dict[str, Pose], truth: dict[str, Pose]) -> float:
    """In the truth's unit, after alignment; nan with fewer than three cameras."""
    names = sorted(truth.keys() & estimated.keys())
    found, real = (np.array([poses[name][1] for name in names]) for poses in (estimated, truth))
    if len(names) < 3:
        return float("nan")
    moved = align(found, real).apply(found)
    return float(np.sqrt(((moved - real) ** 2).sum(axis=1).mean()))


def evaluate(model_path: Path, cameras: Path) -> dict[str, float]:
    truth = {path.name.removesuffix(".camera"): read_camera(path) for path in sorted(cameras.glob("*.camera"))}
    if not truth:
        raise SystemExit(f"{cameras}: no .camera file in it")
    estimated, model = read_model(model_path)
    errors = pair_errors(estimated, truth)
    return {
        "registered": len(truth.keys() & estimated.keys()),
        "images": len(truth),
        **{f"auc@{limit}": round(area_under_curve(errors, limit), 4) for limit in (0.5, 1, 5)},
        "centre_rmse_mm": round(1000 * centre_rmse(estimated, truth), 2),
        "points": model.num_points3D(),
        "reprojection_error_px": round(model.compute_mean_reprojection_error(), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a COLMAP model")
    parser.add_argument("cameras", type=Path, help="folder of .camera files; distances there are metres")
    options = parser.parse_args()
    print(json.dumps(evaluate(options.model, options.cameras)))


if __name__ == "__main__":
    main()
