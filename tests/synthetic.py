"""Models of pycolmap's synthetic scenes, and photographs' headers that fit them."""

import numpy as np
import pycolmap

from sfm_match.images.files import Header

FOCAL = 1280.0  # pixels, pycolmap's default


def scene(images: int = 10, points: int = 300, **settings: object) -> pycolmap.Reconstruction:
    """Cameras around points, all of which all of them see."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, images
    options.num_points3D = points
    for name, value in settings.items():
        setattr(options, name, value)
    return pycolmap.synthesize_dataset(options)


def images_of(model: pycolmap.Reconstruction) -> list[pycolmap.Image]:
    return sorted(model.images.values(), key=lambda image: image.name)


def located(model: pycolmap.Reconstruction, metres: np.ndarray, focal: float | None = FOCAL) -> dict[str, Header]:
    """Headers with GPS: (N, 3) metres east, north and up of a place, by name."""
    places = pycolmap.GPSTransform().enu_to_ellipsoid(metres, 55.7, 13.2, 40.0)
    names = [image.name for image in images_of(model)]
    return {name: Header(1024, 768, focal=focal, location=tuple(p)) for name, p in zip(names, places, strict=True)}


def centres(model: pycolmap.Reconstruction) -> np.ndarray:
    return np.array([image.projection_center() for image in images_of(model)])


def move(model: pycolmap.Reconstruction, places: np.ndarray) -> None:
    """The cameras to (N, 3) places, by name; they look where they looked."""
    for image, place in zip(images_of(model), places, strict=True):
        turn = image.cam_from_world().rotation
        assert image.frame is not None
        image.frame.rig_from_world = pycolmap.Rigid3d(turn, -(turn.matrix() @ place))


def noisy(metres: np.ndarray, deviation: float) -> np.ndarray:
    return metres + np.random.default_rng(0).normal(0, deviation, metres.shape)
