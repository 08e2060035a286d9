"""How far verified matches are from epipolar lines: those of true cameras, or those of a model.

    python scripts/evaluate_epipolar.py DATABASE --cameras SCENE/gt_cameras
    python scripts/evaluate_epipolar.py DATABASE --model WORKSPACE/sparse/0

Of cameras without distortion. The matches of one kind of features judge the poses that another kind gave, and both the
truth. Prints, as JSON, the number of matches of pairs with 15 at least, and the median distance of those within three
pixels (symmetric: the distances to both lines, in the harmonic mean of squares; Sampson's first-order error).
"""

import argparse
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from evaluate_poses import Floats, Pose, read_camera, read_model

from sfm_match.colmap.reading import MOST_IMAGES

_LEAST, _FAR = 15, 3.0  # matches, pixels


def true_cameras(folder: Path, database: Path) -> dict[str, tuple[Floats, Pose]]:
    """Image -> K (3, 3) and pose, of .camera files; K as large as the database's images are."""
    query = "SELECT name, width FROM images JOIN cameras USING (camera_id)"
    with closing(sqlite3.connect(database)) as connection:
        widths = dict(connection.execute(query))
    found = {}
    for path in sorted(folder.glob("*.camera")):
        name, values = path.name.removesuffix(".camera"), np.array(path.read_text().split(), np.float64)
        if name in widths:
            scale = widths[name] / values[-2]  # the size of what the camera took is the file's end
            found[name] = np.diag((scale, scale, 1)) @ values[:9].reshape(3, 3), read_camera(path)
    return found


def model_cameras(folder: Path) -> dict[str, tuple[Floats, Pose]]:
    """Image -> K (3, 3) and pose, of a COLMAP model."""
    poses, model = read_model(folder)
    calibration = {image.name: image.camera.calibration_matrix() for image in model.images.values()}
    return {name: (calibration[name], pose) for name, pose in poses.items()}


def fundamental(a: tuple[Floats, Pose], b: tuple[Floats, Pose]) -> Floats:
    """(3, 3) F with y^T F x = 0 for pixels x of A and y of B."""
    (k_a, (rotation_a, centre_a)), (k_b, (rotation_b, centre_b)) = a, b
    x, y, z = rotation_b @ (centre_a - centre_b)
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation_b @ rotation_a.T
    return np.asarray(np.linalg.inv(k_b).T @ essential @ np.linalg.inv(k_a))


def sampson(f: Floats, a: Floats, b: Floats) -> Floats:
    """(M,) pixels, of matched points (M, 2) (Hartley & Zisserman, "Multiple View Geometry", 11.4.3)."""
    x, y = np.c_[a, np.ones(len(a))], np.c_[b, np.ones(len(b))]
    lines_b, lines_a = x @ f.T, y @ f
    length = np.sqrt((lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1))
    return np.asarray(np.abs((y * lines_b).sum(axis=1)) / length)


def distances(database: Path, cameras: dict[str, tuple[Floats, Pose]]) -> Floats:
    """Of all verified matches between images with a camera, pixels."""
    found = [np.empty(0)]
    with closing(sqlite3.connect(database)) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        points = {
            image: np.frombuffer(data, np.float32).reshape(-1, columns)[:, :2]
            for image, columns, data in connection.execute("SELECT image_id, cols, data FROM keypoints WHERE rows > 0")
        }
        query = "SELECT pair_id, data FROM two_view_geometries WHERE rows >= ?"
        for pair, data in connection.execute(query, (_LEAST,)):
            a, b = divmod(pair, MOST_IMAGES)
            if names[a] in cameras and names[b] in cameras:
                rows = np.frombuffer(data, np.uint32).reshape(-1, 2)
                f = fundamental(cameras[names[a]], cameras[names[b]])
                found.append(sampson(f, points[a][rows[:, 0]], points[b][rows[:, 1]]))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cameras", type=Path, help="folder of .camera files")
    which.add_argument("--model", type=Path, help="folder of a COLMAP model")
    options = parser.parse_args()
    cameras = true_cameras(options.cameras, options.database) if options.cameras else model_cameras(options.model)
    every = distances(options.database, cameras)
    near = every[every < _FAR]
    print(json.dumps({"matches": len(every), "median_px": round(float(np.median(near)), 4) if len(near) else None}))


if __name__ == "__main__":
    main()
