"""A job over photographs of a distorted camera: the demo's views as a wide lens would show them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from conftest import FINISHED
from PIL import Image

import sfm_match
from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH

SIZE = (800, 600)
PARAMS = (900.0, 400.0, 300.0, -0.25, 0.05)  # of RADIAL: f, cx, cy, k1, k2
UPSIDE_DOWN = "turned.jpg"  # stored so, with an EXIF orientation that says it
NAMES = ("left/a.jpg", "left/b 1.jpg", "right/a.png", "c.webp", UPSIDE_DOWN, "d.tif")
MASKED = NAMES[0]


@dataclass(frozen=True)
class Distorted:
    """The job, and the pinhole pictures that its photographs were made from."""

    work: Path
    pinhole: dict[str, np.ndarray]  # (720, 960, 3) RGB, stored as the photograph is


def seen_by(pinhole: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(h, w, 3): what a pinhole picture of the scene shows along rays, (h, w, 2) on the plane z = 1."""
    pixels = (rays * FOCAL + (WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5)).astype(np.float32)
    return np.asarray(cv2.remap(pinhole, pixels[..., 0], pixels[..., 1], cv2.INTER_CUBIC))


def pixel_centres(width: int, height: int) -> np.ndarray:
    """(height, width, 2) x, y, the first (0.5, 0.5)."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


def _photograph(pinhole: np.ndarray) -> np.ndarray:
    f, cx, cy, k1, k2 = PARAMS
    matrix = np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])
    flat = pixel_centres(*SIZE).reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
    rays = cv2.undistortPoints(flat, matrix, np.array([k1, k2, 0, 0]), criteria=stop)
    return seen_by(pinhole, rays.reshape(SIZE[1], SIZE[0], 2))


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 3 if path.name == UPSIDE_DOWN else 1
    if path.suffix == ".tif":
        Image.fromarray(pixels).save(path, exif=exif)
    else:
        Image.fromarray(pixels).save(path, exif=exif, quality=95)


def pinhole_pictures(views: np.ndarray) -> dict[str, np.ndarray]:
    """Of `views`, by the names of the photographs."""
    pictures = zip(NAMES, views, strict=True)
    return {name: np.ascontiguousarray(view[::-1, ::-1] if name == UPSIDE_DOWN else view) for name, view in pictures}


def make_job(folder: Path, views: np.ndarray) -> None:
    """`photos`, `masks` and the finished `work`."""
    for name, picture in pinhole_pictures(views).items():
        _save(_photograph(picture), folder / "photos" / name)
    mask = np.full((SIZE[1] // 2, SIZE[0] // 2), 255, np.uint8)  # half the photograph's size
    mask[:, :100] = 0
    _save(mask, folder / "masks" / f"{MASKED}.png")
    sfm_match.run(
        folder / "photos",
        folder / "work",
        pairs="exhaustive",
        masks=folder / "masks",
        camera_mode="single",
        camera_model="RADIAL",
        camera_params=",".join(map(str, PARAMS)),
        **FINISHED,
    )
