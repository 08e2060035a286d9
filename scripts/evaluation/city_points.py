"""The city without pictures: keypoints where its true points are seen, for mappers alone.

Points lie on façades, vans and streets; a view has those that it sees, less some, and a little off. What a mapper takes
is measured so without the time of features and pairs; wrong matches of repeated windows are not among these.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from evaluation.city import FOCAL, HEIGHT, WIDTH, City, intrinsics
from sfm_match.commands.scene import View

Floats = NDArray[np.float64]
_DENSITY = 12.0  # points per square metre
_REACH = 35.0  # metres, up to which a point is seen
_SEEN, _NOISE = 0.6, 0.4  # share of the points that are found; pixels, in x and in y
_MOST = 2000  # keypoints of a view
_LEAST = 15  # matches of a pair
_SAMPLED = 16  # of so many points one tells which views share most
_OVERLAP, _NEIGHBOURS = 10, 10


def points_database(path: Path, views: Sequence[View], city: City, seed: int = 0) -> int:
    """A database of the views with matches of a sequence and of the ten views that share most; returns their pairs."""
    rng = np.random.default_rng(seed)
    points, planes = _points(city, rng)
    seen = [_seen(view, city, points, planes, rng) for view in views]
    with pycolmap.Database.open(str(path)) as opened, pycolmap.DatabaseTransaction(opened):
        params = [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]
        camera = pycolmap.Camera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=params)
        camera.has_prior_focal_length = True
        camera.camera_id = opened.write_camera(camera)
        rig = pycolmap.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        rig.rig_id = opened.write_rig(rig)
        for number, (view, (_, places)) in enumerate(zip(views, seen, strict=True), 1):
            image = pycolmap.Image(name=view.name, camera_id=camera.camera_id, image_id=number)
            opened.write_image(image, use_image_id=True)
            frame = pycolmap.Frame()
            frame.rig_id, frame.frame_id = rig.rig_id, number
            frame.add_data_id(image.data_id)
            opened.write_frame(frame, use_frame_id=True)
            opened.write_keypoints(number, places.astype(np.float32))
        count = 0
        for a, b in _pairs([ids for ids, _ in seen], len(points)):
            _, first, second = np.intersect1d(seen[a][0], seen[b][0], assume_unique=True, return_indices=True)
            if len(first) >= _LEAST:
                geometry = _geometry(views[a], views[b], np.stack((first, second), axis=1).astype(np.uint32))
                opened.write_two_view_geometry(a + 1, b + 1, geometry)
                count += 1
    return count


def _points(city: City, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """(N, 3), and the plane of each."""
    found, numbers = [], []
    for number, plane in enumerate(city.planes):
        count = int(_DENSITY * np.linalg.norm(plane.u) * np.linalg.norm(plane.v))
        s, t = rng.random((2, count, 1))
        found.append(plane.corner + s * plane.u + t * plane.v)
        numbers.append(np.full(count, number))
    return np.concatenate(found), np.concatenate(numbers)


def _seen(
    view: View, city: City, points: Floats, planes: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats]:
    """Points that a view finds, sorted, and (N, 2) where."""
    projection = intrinsics() @ view.rotation
    facing = ((view.centre - city.corners[:, 0]) * city.normals).sum(axis=1) > 0
    near = np.linalg.norm(points - view.centre, axis=1) < _REACH
    ids = np.flatnonzero(near & facing[planes])
    x, y, depth = ((points[ids] - view.centre) @ projection.T).T
    inside = (depth > 0.5) & (x > 0) & (x < WIDTH * depth) & (y > 0) & (y < HEIGHT * depth)
    ids = ids[inside]
    ids = np.sort(rng.permutation(ids)[: 3 * _MOST])
    x, y, depth = ((points[ids] - view.centre) @ projection.T).T
    places, closeness = np.stack((x / depth, y / depth, np.ones(len(ids)))), 1 / depth
    corners = (city.corners - view.centre) @ projection.T
    for number in np.flatnonzero(facing & (corners[:, :, 2] > 0.1).any(axis=1)).tolist():
        plane = city.planes[number]
        matrix = projection @ np.stack((plane.u, plane.v, plane.corner - view.centre), axis=1)
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        s, t, w = np.linalg.inv(matrix) @ places
        hides = (w > closeness * 1.001) & (s >= 0) & (s <= w) & (t >= 0) & (t <= w)
        ids, places, closeness = ids[~hides], places[:, ~hides], closeness[~hides]
    kept = np.sort(rng.permutation(len(ids))[: min(_MOST, int(_SEEN * len(ids)))])
    return ids[kept], places[:2, kept].T + rng.normal(0, _NOISE, (len(kept), 2))


def _pairs(seen: Sequence[NDArray[np.int64]], points: int) -> Iterator[tuple[int, int]]:
    """As the sequence and retrieval propose: each with the next, those 2^k later, and those that share most."""
    count = len(seen)
    steps = sorted({*range(1, _OVERLAP + 1), *(1 << k for k in range(_OVERLAP))})
    chosen = {(a, a + step) for a in range(count) for step in steps if a + step < count}
    sees = np.zeros((count, points // _SAMPLED + 1), np.float32)
    for number, ids in enumerate(seen):
        sees[number, ids[ids % _SAMPLED == 0] // _SAMPLED] = 1
    for a in range(count):
        shared = sees @ sees[a]
        shared[max(0, a - _OVERLAP) : a + _OVERLAP + 1] = 0
        chosen |= {(min(a, b), max(a, b)) for b in np.argsort(-shared)[:_NEIGHBOURS].tolist() if shared[b]}
    return iter(sorted(chosen))


def _geometry(first: View, second: View, matches: NDArray[np.uint32]) -> pycolmap.TwoViewGeometry:
    """With the true relative pose: verification is not what is measured."""
    turn = second.rotation @ first.rotation.T
    shift = second.rotation @ (first.centre - second.centre)
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    geometry.inlier_matches = matches
    geometry.cam2_from_cam1 = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), shift)
    x, y, z = shift / np.linalg.norm(shift)
    geometry.E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ turn
    return geometry
