"""The standard planar test: image 1 of a sequence against the others, with a known homography each.

Mean matching accuracy: the share of matches within t pixels of where the homography puts them, averaged over pairs
(Dusmanu et al., "D2-Net", CVPR 2019). `mma` is of the matches that a method's users get, adjusted where they are;
`nn_mma` of mutual nearest neighbours of the features as they are, the same rule for all. Repeatability: the share of
the keypoints seen by both images that have a keypoint of the other within t pixels, averaged over both directions
(Mikolajczyk & Schmid, IJCV 2005, with points for regions).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.images import read_image
from evaluation.methods import Described, Method, matched_points, mutual_nearest

Floats = NDArray[np.float64]
LIMITS = (1, 3, 5)  # pixels of the second image


@dataclass(frozen=True)
class Sequence:
    """Images `img1` to `img6` and `H1to2p` to `H1to6p`, which map pixels with integer centres."""

    folder: Path

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height)."""
        shapes = {p.name: read_image(p).shape for p in sorted(self.folder.glob("img*"))}
        return {name: (width, height) for name, (height, width, _) in shapes.items()}

    def homography(self, number: int) -> Floats:
        """Image 1 to image `number`, for pixels whose centres are at one half."""
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        return half @ np.loadtxt(self.folder / f"H1to{number}p") @ np.linalg.inv(half)


def apply(homography: Floats, points: NDArray[np.float32]) -> Floats:
    """(N, 2) -> (N, 2)."""
    projected = np.c_[points, np.ones(len(points))] @ homography.T
    return projected[:, :2] / projected[:, 2:]


def score_sequence(sequence: Sequence, method: Method) -> dict[str, float]:
    """Averages over the five pairs."""
    features, sizes = method.extract(sequence.folder), sequence.sizes()
    names = sorted(features)
    rows = [
        score_pair(
            features[names[0]],
            features[name],
            sequence.homography(int(Path(name).stem.removeprefix("img"))),
            (sizes[names[0]], sizes[name]),
            method,
        )
        for name in names[1:]
    ]
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def score_pair(
    a: Described, b: Described, b_from_a: Floats, sizes: tuple[tuple[int, int], tuple[int, int]], method: Method
) -> dict[str, float]:
    result: dict[str, float] = {"keypoints": len(a.keypoints)}
    nearest = mutual_nearest(method.similarity(a, b))
    as_detected = a.keypoints[nearest[:, 0]], b.keypoints[nearest[:, 1]]
    for name, (first, second) in (
        ("mma", matched_points(a, b, method.match(a, b))),
        ("nn_mma", as_detected),
    ):
        error = np.linalg.norm(apply(b_from_a, first) - second, axis=1)
        result[f"{name}_matches"] = len(first)
        for limit in LIMITS:
            result[f"{name}@{limit}"] = float((error <= limit).mean()) if len(error) else 0.0
    for limit in LIMITS:
        there = _repeated(a, b, b_from_a, sizes[1], limit)
        back = _repeated(b, a, np.asarray(np.linalg.inv(b_from_a), np.float64), sizes[0], limit)
        result[f"repeatability@{limit}"] = (there + back) / 2
    return result


def score_rotation(images: list[Path], method: Method, degrees: float) -> dict[str, float]:
    """Each image's middle against the same turned in the plane; averages over the images."""
    rows = []
    for path in images:
        image = read_image(path)
        height, width = image.shape[:2]
        side = int(min(height, width) / 2**0.5)  # of the square that holds nothing from outside at any angle
        with tempfile.TemporaryDirectory() as folder:
            middles = []
            for number, angle in ((1, 0.0), (2, degrees)):
                turn = np.vstack((cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1), [0, 0, 1]))
                crop = np.array([[1, 0, (side - width) / 2], [0, 1, (side - height) / 2], [0, 0, 1]])
                middles.append(crop @ turn)
                turned = cv2.warpPerspective(image, middles[-1], (side, side), flags=cv2.INTER_CUBIC)
                # not PNG: where pycolmap is loaded before OpenCV or Pillow, writing one ends in a double free in zlib
                cv2.imwrite(f"{folder}/img{number}.bmp", turned)
            np.savetxt(f"{folder}/H1to2p", middles[1] @ np.linalg.inv(middles[0]))
            rows.append(score_sequence(Sequence(Path(folder)), method))
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def _repeated(a: Described, b: Described, b_from_a: Floats, size: tuple[int, int], limit: float) -> float:
    landed = apply(b_from_a, a.keypoints)
    seen = landed[((landed >= 0) & (landed < size)).all(axis=1)].astype(np.float32)
    if not len(seen) or not len(b.keypoints):
        return 0.0
    nearest = [np.linalg.norm(b.keypoints - point, axis=1).min() for point in seen]
    return float((np.array(nearest) <= limit).mean())
