"""Synthetic two-view training pairs: two random homographies of one photograph, with photometric changes.

Pixel (i, j) of an array has its centre at (i, j) here (OpenCV's convention), because only cv2 and array indices meet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[Any]  # (H, W, 3) uint8, BGR; OpenCV's stubs promise no dtype
Matrix = NDArray[np.float64]
SUFFIXES = {".jpg", ".jpeg", ".png"}
MIN_SIDE = 160  # pixels; smaller photographs hold too little texture


@dataclass(frozen=True)
class Views:
    """A batch of B view pairs of size S x S."""

    images: Tensor  # (2B, 3, S, S) float32 in [0, 1], RGB: all A, then all B
    b_from_a: Tensor  # (B, 3, 3) homography, pixels of A to pixels of B
    valid: Tensor  # (2B, S, S) bool: the pixel lies inside the photograph
    corners: Tensor  # (2B, S, S) float32 log corner strength, the detector's prior
    clean: Tensor  # (2B, 3, S, S) as `images`, before blur, compression and photometric changes

    def swapped(self) -> "Views":
        """The same with B for A."""
        b = len(self.b_from_a)
        images, valid, corners, clean = (x.roll(b, 0) for x in (self.images, self.valid, self.corners, self.clean))
        return Views(images, torch.linalg.inv(self.b_from_a), valid, corners, clean)


def find_photographs(folders: list[Path]) -> list[Path]:
    """Every photograph under `folders`, sorted, so that a seed means the same run everywhere."""
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


class Photographs:
    """Decoded photographs, kept in memory."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._decoded: dict[int, Image | None] = {}

    def draw(self, rng: np.random.Generator) -> Image:
        while True:
            index = int(rng.integers(len(self._paths)))
            if index not in self._decoded:
                image = cv2.imread(str(self._paths[index]))
                self._decoded[index] = image if image is not None and min(image.shape[:2]) >= MIN_SIDE else None
            image = self._decoded[index]
            if image is not None:
                return image


def _homography(
    size: int, scale: float, centre: tuple[float, float], rotation: float, stretch: float, shear: float, tilt: NDArray
) -> Matrix:
    """View pixels -> photograph pixels."""
    c = (size - 1) / 2
    cos, sin = np.cos(rotation), np.sin(rotation)
    to_centre = np.array([[1, 0, -c], [0, 1, -c], [0, 0, 1.0]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [tilt[0], tilt[1], 1.0]])
    affine = np.array([[scale * stretch, shear * scale, 0], [0, scale / stretch, 0], [0, 0, 1.0]])
    rotate = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    to_photo = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1.0]])
    return to_photo @ rotate @ affine @ perspective @ to_centre


def _warp(photo: Image, photo_from_view: Matrix, size: int) -> Image:
    minification = float(abs(np.linalg.det(photo_from_view[:2, :2])) ** 0.5)
    if minification > 1.35:  # bilinear sampling would alias: shrink the photograph by area averaging first
        height, width = photo.shape[:2]
        photo = cv2.resize(photo, None, fx=1 / minification, fy=1 / minification, interpolation=cv2.INTER_AREA)
        sx, sy = photo.shape[1] / width, photo.shape[0] / height
        # pixel centres: x' + 0.5 = sx (x + 0.5)
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1.0]])
        photo_from_view = shrink @ photo_from_view
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(photo, photo_from_view, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _motion_blur(image: Image, rng: np.random.Generator) -> Image:
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), rng.uniform(0, 180), 1)
    turned = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(image, -1, np.asarray(turned / max(float(turned.sum()), 1e-6), np.float32))


def _defocus(image: Image, rng: np.random.Generator) -> Image:
    """A lens out of focus: a disc of light a point, or a Gaussian of the same width, sigma 0.4 to 5 pixels."""
    sigma = float(np.exp(rng.uniform(-0.9, 1.6)))
    if rng.random() < 0.5:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    radius = 2 * sigma  # a disc of radius r has the variance r^2 / 4 along each axis
    reach = int(np.ceil(radius))
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(xs, ys), 0, 1)
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT_101)


def _corner_strength(image: Image) -> NDArray[np.float32]:
    strength = cv2.cornerMinEigenVal(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 3)
    return np.log(strength / (np.percentile(strength, 90) + 1e-6) + 1e-3).astype(np.float32)


def _inside(photo_from_view: Matrix, size: int, width: int, height: int) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[:size, :size]
    u, v, w = np.tensordot(photo_from_view, np.stack((xs, ys, np.ones_like(xs))).astype(np.float64), axes=1)
    safe = np.where(w > 0, w, 1.0)
    return (w > 0) & (u / safe > 1) & (u / safe < width - 2) & (v / safe > 1) & (v / safe < height - 2)


def _tilt(rng: np.random.Generator) -> Matrix:
    """A foreshortening by up to e along any direction, as walls seen aslant have it; area is kept."""
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0.1, 0.5))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    return turn @ np.diag((stretch, 1 / stretch, 1.0)) @ turn.T


def _pair(photos: Photographs, size: int, rng: np.random.Generator, *, hard: bool) -> tuple:
    photo = photos.draw(rng)
    if rng.random() < 0.5:
        photo = np.ascontiguousarray(photo[:, ::-1])
    height, width = photo.shape[:2]
    side = min(width, height) * rng.uniform(0.5, 1.0)
    x, y = rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, height - side / 2)
    scale = side / size
    h_a = _homography(
        size, scale, (x, y), rng.normal(0, 0.1), np.exp(rng.normal(0, 0.05)), 0.0, rng.normal(0, 0.0003, 2)
    )
    shift = rng.normal(0, 0.1, 2) * side
    # an eighth of a turn each way, so that four quarter turns of a picture cover the circle
    rotation = rng.normal(0, 0.25) if rng.random() < (0.6 if hard else 0.9) else rng.uniform(-0.9, 0.9)
    h_b = _homography(
        size,
        scale * np.exp(rng.uniform(-0.8, 0.7) if hard else rng.uniform(-0.6, 0.5)),
        (x + shift[0], y + shift[1]),
        rotation,
        np.exp(rng.normal(0, 0.18)),
        rng.normal(0, 0.15),
        rng.normal(0, 0.0012, 2),
    )
    if hard and rng.random() < 0.35:
        c = (size - 1) / 2
        centre = np.array([[1, 0, c], [0, 1, c], [0, 0, 1.0]])
        h_b = h_b @ centre @ _tilt(rng) @ np.linalg.inv(centre)
    a, b = _warp(photo, h_a, size), _warp(photo, h_b, size)
    clean = a, b
    corners = _corner_strength(a), _corner_strength(b)
    if rng.random() < (0.15 if hard else 0.25):
        b = _motion_blur(b, rng)
    elif rng.random() < (0.5 if hard else 0.4):
        b = _defocus(b, rng) if hard else cv2.GaussianBlur(b, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.3:
        a = cv2.GaussianBlur(a, (0, 0), rng.uniform(0.3, 0.8))
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        b = cast(Image, cv2.imdecode(cv2.imencode(".jpg", b, quality)[1], cv2.IMREAD_COLOR))
    inside = _inside(h_a, size, width, height), _inside(h_b, size, width, height)
    return (a, b), np.linalg.inv(h_b) @ h_a, inside, corners, clean


def _photometric(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, gain, offset, colour cast, grey, shading gradient, noise: each with its own probability an image."""
    n, _, size, _ = x.shape

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(n, channels, 1, 1, generator=generator) * (high - low) + low

    def chance(p: float) -> Tensor:
        return (torch.rand(n, 1, 1, 1, generator=generator) < p).float()

    on = chance(0.8)
    x = x.clamp(1e-4, 1) ** (uniform(-0.5, 0.5).exp() * on + (1 - on))
    on = chance(0.8)
    x = x * (uniform(0.5, 1.4) * on + (1 - on)) + uniform(-0.15, 0.15) * on
    on = chance(0.5)
    x = x * (uniform(0.85, 1.15, 3) * on + (1 - on))
    on = chance(0.15)
    x = x * (1 - on) + x.mean(1, keepdim=True) * on
    on, angle = chance(0.35), uniform(0, 2 * np.pi)
    ramp = torch.linspace(-1, 1, size)
    ramp = angle.cos() * ramp.view(1, 1, 1, size) + angle.sin() * ramp.view(1, 1, size, 1)
    x = x * (1 + uniform(0.1, 0.6) * ramp * on)
    on = chance(0.5)
    x = x + torch.randn(x.shape, generator=generator) * uniform(0.005, 0.04) * on
    return x.clamp(0, 1)


def make_batch(photos: Photographs, size: int, batch: int, seed: int, hard_from: int, step: int) -> Views:
    """The batch of a step. It depends on the seed and the step alone: a resumed run sees what it would have seen.

    From step `hard_from` on, views differ more: defocus, scale, rotation, walls seen aslant.
    """
    rng = np.random.default_rng((seed, step))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    views, homographies, inside, corners, clean = zip(
        *(_pair(photos, size, rng, hard=step >= hard_from) for _ in range(batch)), strict=True
    )
    return Views(
        _photometric(_stacked(views), generator),
        torch.from_numpy(np.stack(homographies)).float(),
        torch.from_numpy(np.stack([pair[side] for side in (0, 1) for pair in inside])),
        torch.from_numpy(np.stack([pair[side] for side in (0, 1) for pair in corners])),
        _stacked(clean),
    )


def _stacked(pairs: tuple[tuple[Image, Image], ...]) -> Tensor:
    """(2B, 3, S, S) RGB in [0, 1]: all A, then all B."""
    stacked = np.stack([pair[side] for side in (0, 1) for pair in pairs])[..., ::-1].transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stacked)).float() / 255
