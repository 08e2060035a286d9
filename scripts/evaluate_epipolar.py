"""How far verified matches are from epipolar lines: those of true cameras, or those of a model.

    python scripts/evaluate_epipolar.py DATABASE --cameras SCENE/gt_cameras
    python scripts/evaluate_epipolar.py DATABASE --model WORKSPACE/sparse/0

The matches of one kind of features judge the poses that another kind gave, and both the truth. Prints, as JSON, the
number of matches of pairs with 15 at least, and the median distance of those within three pixels (Sampson's first-order
error; Hartley & Zisserman, "Multiple View Geometry", 11.4.3).
"""

import argparse
import copy
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
from evaluate_poses import Floats, Pose, read_camera, read_model

from sfm_match.colmap.queries import MOST_IMAGES

_LEAST, _FAR = 15, 3.0  # matches, pixels

Placed = tuple[pycolmap.Camera, Pose]


def true_cameras(folder: Path, database: Path) -> dict[str, Placed]:
    """Of .camera files; their intrinsics are made as large as the database's images are."""
    query = "SELECT name, width, height FROM images JOIN cameras USING (camera_id)"
    with closing(sqlite3.connect(database)) as connection:
        sizes = {name: (width, height) for name, width, height in connection.execute(query)}
    found = {}
    for path in sorted(folder.glob("*.camera")):
        name, values = path.name.removesuffix(".camera"), np.array(path.read_text().split(), np.float64)
        if name in sizes:
            width, height = sizes[name]
            scale = width / values[-2]  # the size of what the camera took is the file's end
            camera = pycolmap.Camera(
                model="PINHOLE", width=width, height=height, params=scale * values[[0, 4, 2, 5]].astype(float)
            )
            found[name] = camera, read_camera(path)
    return found


def model_cameras(folder: Path) -> dict[str, Placed]:
    """Of a COLMAP model."""
    poses, model = read_model(folder)
    cameras = {number: copy.copy(camera) for number, camera in model.cameras.items()}  # they go with the model
    return {
        image.name: (cameras[image.camera_id], poses[image.name])
        for image in model.images.values()
        if image.name in poses
    }


def sampson(essential: Floats, a: Floats, b: Floats) -> Floats:
    """(M,) distances of matched points (M, 2) from y^T E x = 0, in their unit."""
    x, y = np.c_[a, np.ones(len(a))], np.c_[b, np.ones(len(b))]
    lines_b, lines_a = x @ essential.T, y @ essential
    length = np.sqrt((lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1))
    return np.asarray(np.abs((y * lines_b).sum(axis=1)) / np.maximum(length, 1e-12))


def essential(a: Pose, b: Pose) -> Floats:
    """(3, 3) E with y^T E x = 0 for normalised points x of A and y of B."""
    (rotation_a, centre_a), (rotation_b, centre_b) = a, b
    x, y, z = rotation_b @ (centre_a - centre_b)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation_b @ rotation_a.T


def distances(database: Path, cameras: dict[str, Placed]) -> Iterator[tuple[str, str, Floats]]:
    """Two images that have cameras and 15 verified matches, and how far each of these is, pixels without distortion."""
    with closing(sqlite3.connect(database)) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rays = {}
        query = "SELECT image_id, cols, data FROM keypoints WHERE rows > 0"
        for image, columns, data in connection.execute(query):
            if names[image] in cameras:
                points = np.frombuffer(data, np.float32).reshape(-1, columns)[:, :2].astype(np.float64)
                rays[image] = np.asarray(cameras[names[image]][0].cam_from_img(points))
        query = "SELECT pair_id, data FROM two_view_geometries WHERE rows >= ?"
        for pair, data in connection.execute(query, (_LEAST,)):
            a, b = divmod(pair, MOST_IMAGES)
            if a in rays and b in rays:
                rows = np.frombuffer(data, np.uint32).reshape(-1, 2)
                (camera_a, pose_a), (camera_b, pose_b) = cameras[names[a]], cameras[names[b]]
                focal = (camera_a.mean_focal_length() + camera_b.mean_focal_length()) / 2
                found = sampson(essential(pose_a, pose_b), rays[a][rows[:, 0]], rays[b][rows[:, 1]])
                yield names[a], names[b], focal * found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cameras", type=Path, help="folder of .camera files")
    which.add_argument("--model", type=Path, help="folder of a COLMAP model")
    options = parser.parse_args()
    cameras = true_cameras(options.cameras, options.database) if options.cameras else model_cameras(options.model)
    every = np.concatenate([np.empty(0), *(found for _, _, found in distances(options.database, cameras))])
    near = every[every < _FAR]
    print(json.dumps({"matches": len(every), "median_px": round(float(np.median(near)), 4) if len(near) else None}))


if __name__ == "__main__":
    main()
