"""`--to nerfstudio`, read by what nerfstudio's page "Data conventions" says, with OpenCV's cameras."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from conftest import Shared
from distorted import Distorted
from PIL import Image, ImageOps

import sfm_match
from sfm_match.errors import UsageError
from sfm_match.formats import nerfstudio

OPENGL = np.diag((1.0, -1.0, -1.0))  # x right, y up, z back: y and z are COLMAP's, turned round


def read_ply(path: Path) -> np.ndarray:
    """(P, 3) points, of a binary file with float x, y, z and uchar red, green, blue."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    assert b"format binary_little_endian 1.0" in head
    names = [line.split()[1:] for line in head.decode().splitlines() if line.startswith("property")]
    layout = np.dtype([(name, {"float": "<f4", "uchar": "u1"}[kind]) for kind, name in names])
    rows = np.frombuffer(body, layout)
    return np.column_stack([rows[axis] for axis in "xyz"]).astype(np.float64)


def project(meta: dict[str, Any], frame: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels, the centre of the first (0.5, 0.5), of (N, 3) points of the file's world."""
    camera = {**meta, **frame}
    pose = np.array(camera["transform_matrix"])
    places = np.linalg.inv(pose) @ np.column_stack((points, np.ones(len(points)))).T
    return distorted_by(camera, places[:3].T @ OPENGL)


def distorted_by(camera: dict[str, Any], places: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of (N, 3) places before a camera, by OpenCV."""
    fisheye = camera["camera_model"] == "OPENCV_FISHEYE"
    matrix = np.array([[camera["fl_x"], 0, camera["cx"]], [0, camera["fl_y"], camera["cy"]], [0, 0, 1]])
    k = np.array([camera[name] for name in (("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2"))])
    still = np.zeros(3)
    function = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    arguments = (still, still, matrix, k)
    return np.asarray(function(places.reshape(-1, 1, 3), *arguments)[0]).reshape(-1, 2)


def largest_error(out: Path, model: pycolmap.Reconstruction) -> float:
    """Pixels between COLMAP's projection of a point that an image sees, and the reader's."""
    meta = json.loads((out / "transforms.json").read_text(encoding="utf-8"))
    points = read_ply(out / meta["ply_file_path"])
    frames = {frame["file_path"]: frame for frame in meta["frames"]}
    assert len(points) == model.num_points3D() > 100
    assert len(frames) == model.num_reg_images()
    transform, errors = np.array(meta["applied_transform"]), []
    ids = list(model.points3D)
    ours = np.array([model.points3D[number].xyz for number in ids]) @ transform[:, :3].T + transform[:, 3]
    nearest = {number: np.abs(points - one).sum(axis=1).argmin() for number, one in zip(ids, ours, strict=True)}
    assert len(set(nearest.values())) == len(points)
    for image in (model.images[number] for number in model.reg_image_ids()):
        seen = [point.point3D_id for point in image.points2D if point.has_point3D()]
        found = project(meta, frames[f"images/{image.name}"], points[[nearest[number] for number in seen]])
        errors.append(np.abs(found - [image.project_point(model.points3D[number].xyz) for number in seen]).max())
    return float(max(errors))


@pytest.fixture(scope="session")
def scene(distorted: Distorted, shared: Shared) -> Path:
    return shared("nerfstudio", lambda out: sfm_match.convert(distorted.work, to="nerfstudio", out=out))


def test_points_are_where_colmap_says(scene: Path, distorted: Distorted) -> None:
    assert largest_error(scene, sfm_match.open(distorted.work).model) <= 0.01


@pytest.mark.slow
@pytest.mark.scenes
def test_points_of_photographs(fountain: Path, tmp_path: Path) -> None:
    sfm_match.convert(fountain, to="nerfstudio", out=tmp_path)
    assert largest_error(tmp_path, sfm_match.open(fountain).model) <= 0.01


def test_one_camera_is_shared(scene: Path) -> None:
    meta = json.loads((scene / "transforms.json").read_text(encoding="utf-8"))
    assert {key: meta[key] for key in ("camera_model", "w", "h", "k1", "p1")} == {
        "camera_model": "OPENCV",
        "w": 800,
        "h": 600,
        "k1": -0.25,
        "p1": 0.0,
    }
    assert all({"fl_x", "camera_model"}.isdisjoint(frame) for frame in meta["frames"])


def test_photographs_and_masks(scene: Path, distorted: Distorted) -> None:
    """The same files; what EXIF would turn has its stored pixels, and nothing that turns them."""
    meta = json.loads((scene / "transforms.json").read_text(encoding="utf-8"))
    photos = sfm_match.open(distorted.work).image_folder
    for frame in meta["frames"]:
        path, name = scene / frame["file_path"], frame["file_path"].removeprefix("images/")
        with Image.open(path) as ours, Image.open(photos / name) as photograph:
            assert ours.size == (meta["w"], meta["h"])
            pixels = np.asarray(ours).astype(int)
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(ours)), pixels)
            assert np.abs(pixels - np.asarray(photograph)).mean() < 2  # of 256, what JPEG costs
            upright = photograph.getexif().get(0x0112, 1) == 1
        assert (path.read_bytes() == (photos / name).read_bytes()) == upright
        mask = np.asarray(Image.open(scene / frame["mask_path"]))
        assert mask.shape == (meta["h"], meta["w"])
        left = 0 if name == "left/a.jpg" else 255
        assert np.all(mask[:, :200] == left)
        assert np.all(mask[:, 200:] == 255)


@pytest.mark.parametrize("model", [name for models, _ in nerfstudio._CAMERAS.values() for name in models])
def test_each_camera_is_the_same_in_opencv(model: str) -> None:
    camera = pycolmap.Camera.create_from_model_name(1, model, 700.0, 800, 600)
    values = np.array(camera.params)
    values[list(camera.extra_params_idxs())] = (0.05, -0.02, 0.01, 0.003)[: len(camera.extra_params_idxs())]
    values[list(camera.focal_length_idxs())] += np.arange(len(camera.focal_length_idxs())) * 9.0
    camera.params = values.tolist()
    places = np.random.default_rng(0).uniform((-0.6, -0.5, 1), (0.6, 0.5, 2), (50, 3))
    found = distorted_by(nerfstudio._intrinsics(camera), places)
    np.testing.assert_allclose(found, np.asarray(camera.img_from_cam(places)), atol=1e-6)


def test_several_cameras() -> None:
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=2))
    meta = nerfstudio._transforms(model, masked=False)
    assert "fl_x" not in meta
    assert [frame["file_path"] for frame in meta["frames"]] == sorted(frame["file_path"] for frame in meta["frames"])
    assert all(frame["fl_x"] == 1280 and "mask_path" not in frame for frame in meta["frames"])
    number = next(iter(model.cameras))
    width, height = model.cameras[number].width, model.cameras[number].height
    for name, message in (("FISHEYE", "with and without fisheye"), ("FULL_OPENCV", "cannot express camera")):
        other = pycolmap.Camera.create_from_model_name(number, name, 900.0, width, height)
        model.cameras[number] = other
        with pytest.raises(UsageError, match=message):
            nerfstudio._transforms(model, masked=False)
