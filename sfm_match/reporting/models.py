"""What the models of a job hold: points and cameras to draw, errors of images, residuals over the image, GPS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairs.spatial import east_north_up
from sfm_match.colmap.georeference import LEAST_LOCATED, down
from sfm_match.colmap.observations import Observations, observations
from sfm_match.colmap.similarity import fit_robustly
from sfm_match.images.files import Header
from sfm_match.reporting.packing import OBSERVATIONS, POINTS, quantised, spread

if TYPE_CHECKING:
    import pycolmap

Floats = NDArray[np.float64]
GRID = (4, 16)  # columns of a residual field, at least and at most
_IN_A_CELL = 20  # observations, wished for
_FIELDS = 12  # cameras with a residual field, those with the most observations
_NEAREST = 1e-6  # depth of a point in front of a camera
_OPEN = 0.5  # half the width of a frustum over its depth, where there is no focal length


@dataclass
class PerImage:
    """Of each image, by its place in the list of names; NaN or -1 without a pose."""

    model: NDArray[np.int64]  # (N,)
    error: Floats  # (N,) mean reprojection error, pixels
    points: NDArray[np.int64]  # (N,) points of the model that the image sees
    gps: Floats  # (N,) distance from GPS along the ground after a robust similarity fit, metres

    @classmethod
    def of(cls, count: int) -> "PerImage":
        """Of images of which none has a pose."""
        nothing = np.full(count, np.nan)
        return cls(np.full(count, -1, np.int64), nothing, np.zeros(count, np.int64), nothing.copy())


@dataclass(frozen=True)
class Scene:
    """A model to draw. Points are 16 bits of the range from `low` to `high`, in units of the model."""

    count: int  # points of the model
    low: list[float]
    high: list[float]
    points: NDArray[np.uint16]  # (P, 3)
    colours: NDArray[np.uint8]  # (P, 3) RGB
    up: list[float]  # (3,) upwards
    images: list[int]  # (C,) places of the registered images
    centres: NDArray[np.float32]  # (C, 3)
    axes: NDArray[np.float32]  # (C, 3, 3) rows: to the right, down and forward, as the camera sees
    halves: NDArray[np.float32]  # (C, 2) half the width and the height of the image plane at depth 1


@dataclass(frozen=True)
class ResidualField:
    """Mean residual vectors of one camera over a grid, in raw pixels: observed minus projected."""

    camera: int
    model: str  # COLMAP's camera model
    size: tuple[int, int]  # (width, height)
    observations: int
    count: NDArray[np.int64]  # (rows, columns)
    mean: Floats  # (rows, columns, 2) x, y; 0 without observations


@dataclass(frozen=True)
class GpsPlan:
    """GPS positions and camera centres of a model after a robust similarity fit, metres east and north."""

    model: int
    images: list[int]
    gps: Floats  # (G, 2)
    fitted: Floats  # (G, 2)


@dataclass
class Measured:
    """Of all models."""

    per_image: PerImage
    scenes: list[Scene] = field(default_factory=list)
    fields: list[ResidualField] = field(default_factory=list)
    gps: list[GpsPlan] = field(default_factory=list)
    track_lengths: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    point_errors: Floats = field(default_factory=lambda: np.empty(0))
    every: int = 1  # one in how many observations was measured


def measure(
    models: "Sequence[pycolmap.Reconstruction]", names: Sequence[str], headers: Mapping[str, Header], *, metric: bool
) -> Measured:
    """Goes through the models once.

    Args:
        models: of a job, the largest first: of an image in several, the first one counts.
        names: of the images.
        headers: by name.
        metric: the models are georeferenced: z is up.
    """
    place = {name: i for i, name in enumerate(names)}
    total = sum(model.compute_num_observations() for model in models)
    found = Measured(PerImage.of(len(names)), every=max(1, -(-total // OBSERVATIONS)))
    points = sum(model.num_points3D() for model in models)
    residuals: dict[tuple[int, int], list[tuple[Floats, Floats]]] = {}
    for number, model in enumerate(models):
        images = [image for image in model.images.values() if image.has_pose and image.name in place]
        images.sort(key=lambda image: image.name)
        cloud = _cloud(model)
        found.track_lengths = np.concatenate((found.track_lengths, cloud.lengths))
        found.point_errors = np.concatenate((found.point_errors, cloud.errors))
        seen = observations(model)
        for image in images:
            at, apart = _residuals(model, image, seen[image.image_id], cloud, found.every)
            residuals.setdefault((number, image.camera_id), []).append((at, apart))
            _note(found.per_image, place[image.name], number, image.num_points3D, apart)
        most = POINTS * model.num_points3D() // max(points, POINTS)
        found.scenes.append(_scene(model, images, cloud, place, headers, most=most, metric=metric))
        plan = _gps(number, images, place, headers, found.per_image)
        found.gps += [plan] if plan is not None else []
    largest = sorted(residuals.items(), key=lambda one: -sum(len(at) for at, _ in one[1]))[:_FIELDS]
    found.fields = [_field(models[model].cameras[camera], parts) for (model, camera), parts in largest]
    return found


def scene_of(
    model: "pycolmap.Reconstruction", headers: Mapping[str, Header], *, metric: bool, most: int = POINTS
) -> Scene:
    """A model to draw, of which at most so many points. `images` are places among its own, by name."""
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    place = {image.name: i for i, image in enumerate(images)}
    return _scene(model, images, _cloud(model), place, headers, most=most, metric=metric)


@dataclass(frozen=True)
class _Cloud:
    """The points of a model, as arrays."""

    numbers: NDArray[np.int64]  # (P,) point3D_id, ascending
    xyz: Floats  # (P, 3)
    colours: NDArray[np.uint8]  # (P, 3)
    lengths: NDArray[np.int64]  # (P,) of tracks
    errors: Floats  # (P,) mean reprojection error, pixels


def _cloud(model: "pycolmap.Reconstruction") -> _Cloud:
    every = sorted(model.points3D.items())
    points = [point for _, point in every]
    return _Cloud(
        np.array([number for number, _ in every], np.int64),
        np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
        np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        np.array([point.track.length() for point in points], np.int64),
        np.array([point.error for point in points], np.float64),
    )


def _residuals(
    model: "pycolmap.Reconstruction", image: "pycolmap.Image", observed: Observations, cloud: _Cloud, every: int
) -> tuple[Floats, Floats]:
    """(M, 2) where points are observed in an image, and (M, 2) observed minus projected; raw pixels."""
    at = observed.xy[::every]
    rows = np.searchsorted(cloud.numbers, observed.points[::every])
    if not len(rows):
        return at, at
    seen = image.cam_from_world() * cloud.xyz[rows]
    front = seen[:, 2] > _NEAREST
    projected = np.asarray(model.cameras[image.camera_id].img_from_cam(seen[front]), np.float64).reshape(-1, 2)
    apart = at[front] - projected
    finite = np.isfinite(apart).all(axis=1)
    return at[front][finite], apart[finite]


def _note(per_image: PerImage, here: int, number: int, points: int, apart: Floats) -> None:
    if per_image.model[here] >= 0:  # in an earlier, larger model, too
        return
    per_image.model[here], per_image.points[here] = number, points
    if len(apart):
        per_image.error[here] = np.linalg.norm(apart, axis=1).mean()


def _scene(
    model: "pycolmap.Reconstruction",
    images: "list[pycolmap.Image]",
    cloud: _Cloud,
    place: Mapping[str, int],
    headers: Mapping[str, Header],
    *,
    most: int,
    metric: bool,
) -> Scene:
    shown = spread(len(cloud.xyz), most)
    xyz = cloud.xyz[shown]
    # gross outliers would leave the others few of the 16 bits
    low, high = np.percentile(xyz, (0.5, 99.5), axis=0) if len(xyz) else (np.zeros(3), np.ones(3))
    margin = high - low
    inside = ((xyz >= low - margin) & (xyz <= high + margin)).all(axis=1)
    xyz, shown = xyz[inside], shown[inside]
    low, high = (xyz.min(axis=0), xyz.max(axis=0)) if len(xyz) else (low, high)
    axes = np.array([image.cam_from_world().rotation.matrix() for image in images], np.float32).reshape(-1, 3, 3)
    ups = [turn.T @ -down(_orientation(headers, image.name)) for turn, image in zip(axes, images, strict=True)]
    up = np.array([0.0, 0.0, 1.0]) if metric or not ups else np.mean(ups, axis=0)
    halves = [_halves(model.cameras[image.camera_id]) for image in images]
    return Scene(
        len(cloud.xyz),
        low.tolist(),
        high.tolist(),
        quantised(xyz, low, high),
        cloud.colours[shown],
        np.asarray(up, np.float64).tolist(),
        [place[image.name] for image in images],
        np.array([image.projection_center() for image in images], np.float32).reshape(-1, 3),
        axes,
        np.array(halves, np.float32).reshape(-1, 2),
    )


def _orientation(headers: Mapping[str, Header], name: str) -> int:
    return headers[name].orientation if name in headers else 1


def _halves(camera: "pycolmap.Camera") -> tuple[float, float]:
    if not len(camera.focal_length_idxs()):  # spherical
        return _OPEN, _OPEN
    return camera.width / (2 * camera.focal_length_x), camera.height / (2 * camera.focal_length_y)


def _field(camera: "pycolmap.Camera", parts: Sequence[tuple[Floats, Floats]]) -> ResidualField:
    at, apart = (np.concatenate(one) for one in zip(*parts, strict=True))
    wished = (len(at) / _IN_A_CELL * camera.width / camera.height) ** 0.5
    columns = int(np.clip(wished, *GRID))
    rows = max(1, round(columns * camera.height / camera.width))
    place = at / (camera.width, camera.height) * (columns, rows)
    cell = np.clip(place.astype(np.int64), 0, (columns - 1, rows - 1))
    flat = cell[:, 1] * columns + cell[:, 0]
    count = np.bincount(flat, minlength=columns * rows)
    sums = np.stack([np.bincount(flat, one, minlength=columns * rows) for one in apart.T], axis=1)
    mean = (sums / np.maximum(count, 1)[:, None]).reshape(rows, columns, 2)
    size = camera.width, camera.height
    return ResidualField(camera.camera_id, camera.model_name, size, len(at), count.reshape(rows, columns), mean)


def _gps(
    number: int,
    images: "list[pycolmap.Image]",
    place: Mapping[str, int],
    headers: Mapping[str, Header],
    per_image: PerImage,
) -> GpsPlan | None:
    """None where fewer images have GPS than a similarity needs. As `plausibility.judge` measures it."""
    located = [image for image in images if image.name in headers and headers[image.name].location is not None]
    if len(located) < LEAST_LOCATED:
        return None
    places = np.array([headers[image.name].location for image in located], np.float64)  # an altitude of None: NaN
    measured = east_north_up(*places.T)
    fitted, _ = fit_robustly(np.array([image.projection_center() for image in located]), measured)
    here = [place[image.name] for image in located]
    apart = np.linalg.norm((fitted - measured)[:, :2], axis=1)
    for image, metres in zip(here, apart, strict=True):
        if per_image.model[image] == number:
            per_image.gps[image] = metres
    return GpsPlan(number, here, measured[:, :2], fitted[:, :2])
