"""`--to undistorted`, read as 3D Gaussian splatting reads it: by the description of COLMAP's binary files."""

import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pycolmap
import pytest
from distorted import MASKED, PARAMS, Distorted, pixel_centres, seen_by
from PIL import Image, ImageOps

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.formats import undistorted

PINHOLE = 1  # COLMAP's number of the camera model


def take(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def read_cameras(path: Path) -> dict[int, tuple[int, int, np.ndarray]]:
    """camera_id -> width, height, (fx, fy, cx, cy), of cameras.bin; only pinholes, as 3DGS wants them."""
    found = {}
    with path.open("rb") as file:
        for _ in range(*take(file, "Q")):
            number, model, width, height = take(file, "iiQQ")
            assert model == PINHOLE
            found[number] = width, height, np.array(take(file, "4d"))
    return found


def read_images(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, int, np.ndarray, np.ndarray]]:
    """name -> qvec, tvec, camera_id, xys, point3D_ids, of images.bin."""
    found = {}
    with path.open("rb") as file:
        for _ in range(*take(file, "Q")):
            _, *pose, camera = take(file, "i7di")
            name = b"".join(iter(lambda: file.read(1), b"\0")).decode()
            rows = [take(file, "ddq") for _ in range(*take(file, "Q"))]
            xys, points = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])
            found[name] = np.array(pose[:4]), np.array(pose[4:]), camera, xys, points
    return found


def read_points(path: Path) -> dict[int, np.ndarray]:
    """point3D_id -> x, y, z, of points3D.bin."""
    found = {}
    with path.open("rb") as file:
        for _ in range(*take(file, "Q")):
            number, *xyz, _, _, _, _ = take(file, "Q3d3Bd")
            found[number] = np.array(xyz)
            file.seek(8 * take(file, "Q")[0], 1)
    return found


def rotation(qvec: np.ndarray) -> np.ndarray:
    """As 3DGS' `qvec2rotmat`: of w, x, y, z."""
    w, x, y, z = qvec
    return np.array(
        [
            [1 - 2 * y * y - 2 * z * z, 2 * x * y - 2 * w * z, 2 * z * x + 2 * w * y],
            [2 * x * y + 2 * w * z, 1 - 2 * x * x - 2 * z * z, 2 * y * z - 2 * w * x],
            [2 * z * x - 2 * w * y, 2 * y * z + 2 * w * x, 1 - 2 * x * x - 2 * y * y],
        ]
    )


def largest_error(out: Path, model: pycolmap.Reconstruction) -> float:
    """Pixels of the photograph between COLMAP's projection of a point that an image sees, and what the reader of
    `out` makes of it: the pinhole's projection, then the distortion by OpenCV's formula."""
    cameras, points = read_cameras(out / "sparse/0/cameras.bin"), read_points(out / "sparse/0/points3D.bin")
    images, errors = read_images(out / "sparse/0/images.bin"), []
    assert len(points) == model.num_points3D() > 100
    assert len(images) == model.num_reg_images()
    for image in (model.images[number] for number in model.reg_image_ids()):
        qvec, tvec, camera, xys, ids = images[image.name]
        _, _, (fx, fy, cx, cy) = cameras[camera]
        seen = np.flatnonzero(ids >= 0)
        assert [p.point3D_id for p in image.points2D if p.has_point3D()] == ids[seen].tolist()
        places = np.array([points[number] for number in ids[seen]]) @ rotation(qvec).T + tvec
        projected = places[:, :2] / places[:, 2:] * (fx, fy) + (cx, cy)
        ours = distort(model.cameras[image.camera_id], (projected - (cx, cy)) / (fx, fy))
        colmaps = [image.project_point(model.points3D[number].xyz) for number in ids[seen]]
        errors.append(np.abs(ours - colmaps).max())
        # the keypoints are moved, too
        before = np.array([point.xy for point in image.points2D])
        errors.append(np.abs(distort(model.cameras[image.camera_id], (xys - (cx, cy)) / (fx, fy)) - before).max())
    return float(max(errors))


def distort(camera: pycolmap.Camera, rays: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of SIMPLE_RADIAL or RADIAL, by OpenCV's formula: rays are x, y at z = 1."""
    f, cx, cy, *k = camera.params
    k1, k2 = (*k, 0.0)[:2]
    squared = (rays**2).sum(axis=1, keepdims=True)
    return np.asarray(rays * (1 + k1 * squared + k2 * squared**2) * f + (cx, cy))


def test_points_are_where_colmap_says(undistorted_scene: Path, distorted: Distorted) -> None:
    assert largest_error(undistorted_scene, sfm_match.open(distorted.work).model) <= 0.01


@pytest.mark.slow
@pytest.mark.scenes
def test_points_of_photographs(fountain: Path, tmp_path: Path) -> None:
    sfm_match.convert(fountain, to="undistorted", out=tmp_path)
    assert largest_error(tmp_path, sfm_match.open(fountain).model) <= 0.01


def test_pixels_are_where_the_model_says(undistorted_scene: Path, distorted: Distorted) -> None:
    """The undistorted photograph is what a pinhole camera sees, to a fiftieth of a pixel in each corner of it, whether
    a reader turns images by their EXIF or not."""
    cameras = read_cameras(undistorted_scene / "sparse/0/cameras.bin")
    images = read_images(undistorted_scene / "sparse/0/images.bin")
    assert set(images) == set(distorted.pinhole)
    for name, pinhole in distorted.pinhole.items():
        width, height, (fx, fy, cx, cy) = cameras[images[name][2]]
        with Image.open(undistorted_scene / "images" / name) as image:
            assert image.size == (width, height)
            found = np.asarray(image.convert("L"), np.float64)
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(image))
        expected = seen_by(pinhole, (pixel_centres(width, height) - (cx, cy)) / (fx, fy))
        grey = cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY).astype(np.float64)
        for rows in (slice(20, 220), slice(-220, -20)):
            for columns in (slice(20, 220), slice(-220, -20)):
                a, b = found[rows, columns], grey[rows, columns]
                assert np.abs(shift_between(b, a)).max() < 0.02, name
                assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99, name


def shift_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(2,) x, y: how far b is moved against a, in pixels, by least squares over the gradients (Lucas and Kanade)."""
    down, right = np.gradient(a)
    found: np.ndarray = np.linalg.lstsq(-np.column_stack((right.ravel(), down.ravel())), (b - a).ravel(), rcond=None)[0]
    return found


def test_masks(undistorted_scene: Path, distorted: Distorted) -> None:
    ((width, height, (fx, fy, cx, cy)),) = read_cameras(undistorted_scene / "sparse/0/cameras.bin").values()
    camera = pycolmap.Camera(model="RADIAL", width=800, height=600, params=PARAMS)
    rays = (pixel_centres(width, height).reshape(-1, 2) - (cx, cy)) / (fx, fy)
    raw = distort(camera, rays).reshape(height, width, 2)
    inside = ((raw > 1) & (raw < (799, 599))).all(axis=2)
    clear = inside & (np.abs(raw[..., 0] - 200) > 1)  # not at the mask's edge, which is at 200 of 800 pixels
    for name in distorted.pinhole:
        mask = np.asarray(Image.open(undistorted_scene / "masks" / f"{name}.png"))
        assert mask.shape == (height, width)
        assert set(np.unique(mask)) <= {0, 255}
        visible = raw[..., 0] > 200 if name == MASKED else inside
        assert not (clear & ((mask == 255) != visible)).any()


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "SIMPLE_RADIAL_FISHEYE", "PINHOLE"])
def test_other_cameras(model: str) -> None:
    """Each pixel of a picture whose colours are its coordinates is where the pinhole camera says."""
    camera = pycolmap.Camera.create_from_model_name(1, model, 250.0, 240, 180)
    camera.params = [*camera.params[: 4 if model != "SIMPLE_RADIAL_FISHEYE" else 3], *(0.02,) * 8][: len(camera.params)]
    x, y = np.meshgrid(np.arange(240), np.arange(180))
    picture = np.stack((x, y, np.zeros_like(x)), axis=-1).astype(np.uint8)
    found = undistorted._warped(picture, camera)
    pinhole = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    assert found.shape == (pinhole.height, pinhole.width, 3)
    u, v = np.meshgrid(np.arange(pinhole.width) + 0.5, np.arange(pinhole.height) + 0.5)
    rays = pinhole.cam_from_img(np.column_stack((u.ravel(), v.ravel())))
    raw = camera.img_from_cam(np.column_stack((rays, np.ones(len(rays))))).reshape(*u.shape, 2) - 0.5
    inside = ((raw >= 0) & (raw <= (239, 179))).all(axis=2)
    assert inside.mean() > 0.9
    assert np.abs(found[..., :2] - raw)[inside].max() <= 0.6  # rounding to whole colours


def test_a_pinhole_keeps_its_files(workspace: Path, rendered: Path, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction(str(workspace / "sparse" / "0"))
    for number, camera in list(model.cameras.items()):
        params = [camera.params[0], camera.params[0], *camera.params[1:3]]
        model.cameras[number] = pycolmap.Camera(
            model="PINHOLE", width=camera.width, height=camera.height, params=params, camera_id=number
        )
    model.write(str(workspace / "sparse" / "0"))
    sfm_match.convert(workspace, to="undistorted", out=tmp_path / "scene")
    assert not (tmp_path / "scene" / "masks").exists()
    for path in rendered.glob("*.jpg"):
        assert (tmp_path / "scene" / "images" / path.name).read_bytes() == path.read_bytes()


def test_what_is_there_is_kept(undistorted_scene: Path, distorted: Distorted, workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images is there already; remove it, or choose another folder"):
        sfm_match.convert(distorted.work, to="undistorted", out=undistorted_scene)
    folder = sfm_match.open(distorted.work).image_folder
    with pytest.raises(UsageError, match="inside the folder of photographs"):
        sfm_match.convert(distorted.work, to="undistorted", out=folder / "scene")
    (folder / "scene").rmdir()
    photos = Path(shutil.copytree(sfm_match.open(workspace).image_folder, tmp_path / "photos"))
    text = (workspace / "images.json").read_text().replace(str(sfm_match.open(workspace).image_folder), str(photos))
    (workspace / "images.json").write_text(text)
    gone = next(photos.iterdir())
    gone.unlink()
    with pytest.raises(NothingDone, match=f"{gone.name}: cannot be opened"):
        sfm_match.convert(workspace, to="undistorted", out=tmp_path / "scene")
    Image.new("RGB", (64, 64)).save(gone)
    with pytest.raises(UsageError, match=r"64 x 64 pixels now, 960 x 720 in the model; run `sfm-match run` again"):
        sfm_match.convert(workspace, to="undistorted", out=tmp_path / "scene")
    assert not list((tmp_path / "scene").iterdir())


def test_a_camera_that_sees_all_around() -> None:
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_frames_per_rig=2, num_points3D=10))
    for number in list(model.cameras):
        model.cameras[number] = pycolmap.Camera(
            model="EQUIRECTANGULAR", width=800, height=400, params=[800, 400], camera_id=number
        )
    with pytest.raises(UsageError, match="EQUIRECTANGULAR, of which no pinhole is made"):
        undistorted._undistorted(model)
