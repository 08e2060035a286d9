"""dedode-nano, COLMAP's SIFT and OpenCV's ORB behind one interface: images to features, features to matches."""

import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

import sfm_match
from evaluation.images import read_image
from sfm_match.features.extractor import ROTATIONS
from sfm_match.images.collection import Collection
from sfm_match.images.files import decode, read_header
from sfm_match.job.workspace import Workspace
from sfm_match.matching.dual_softmax import match_rotated
from sfm_match.models import match_defaults
from sfm_match.refine.patch_alignment import Seen, align_photographs, see
from sfm_match.stages.base import Job
from sfm_match.stages.state import iter_features

Indices = NDArray[np.int64]  # (M, 2)


@dataclass(frozen=True)
class Described:
    """Features of an image."""

    keypoints: NDArray[np.float32]  # (N, 2) x, y pixels, the centre of the top-left one at (0.5, 0.5)
    descriptors: NDArray[Any]  # (N, D)
    seen: Seen | None = None  # the photograph, where matched points are to be adjusted


class Method(Protocol):
    """A kind of features, with the matcher that its users use."""

    name: str

    def extract(self, folder: Path) -> dict[str, Described]:
        """Features of every image of a folder."""

    def match(self, a: Described, b: Described) -> Indices:
        """As its users match."""

    def similarity(self, a: Described, b: Described) -> NDArray[np.float32]:
        """(N, M), larger is nearer: for mutual nearest neighbours, the same rule for all."""


@dataclass
class Nano:
    """sfm-match as it stands, or with other weights."""

    size: int
    keypoints: int
    options: dict[str, Any] = field(default_factory=dict)  # of `sfm_match.extract`
    name: str = "dedode-nano"
    adjust: bool = True  # matched points, as `infer` and `import` do

    def extract(self, folder: Path) -> dict[str, Described]:
        with tempfile.TemporaryDirectory() as place:
            chosen = {"size": self.size, "max_keypoints": self.keypoints, **self.options}
            sfm_match.extract(folder, place, **chosen)
            with Workspace(Path(place)) as workspace:
                found = Job(workspace, Collection.load(workspace)).features
                return {
                    name: Described(
                        features.keypoints,
                        features.descriptors.astype(np.float32),
                        self._seen(folder / name) if self.adjust else None,
                    )
                    for name, features in iter_features(found)
                }

    def _seen(self, path: Path) -> Seen:
        return see(decode(path), read_header(path).geometry(self.size, 1))

    def match(self, a: Described, b: Described) -> Indices:
        threshold = match_defaults(self.options.get("model", "dedode-nano")).threshold
        turns = ROTATIONS if self.options.get("turns") else 1
        return match_rotated(a.descriptors, b.descriptors, turns, threshold).indices.astype(np.int64)

    def similarity(self, a: Described, b: Described) -> NDArray[np.float32]:
        return cosines(a, b)


@dataclass
class Sift:
    """COLMAP's, with COLMAP's defaults but for the sizes; matched with its ratio test and cross-check."""

    size: int
    keypoints: int
    name: str = "COLMAP SIFT"

    def options(self) -> pycolmap.FeatureExtractionOptions:
        options = pycolmap.FeatureExtractionOptions()
        options.max_image_size, options.sift.max_num_features = self.size, self.keypoints
        return options

    def extract(self, folder: Path) -> dict[str, Described]:
        # deprecated for FeatureExtractor, which wants an object a keypoint
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            extractor = pycolmap.Sift(self.options(), pycolmap.Device.cpu)
        found = {}
        for path in _images(folder):
            image = read_image(path, cv2.IMREAD_GRAYSCALE)
            small, scale = _shrink(image, self.size)
            keypoints, descriptors = extractor.extract(small)
            unit = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
            places = np.ascontiguousarray(keypoints[:, :2] / np.float32(scale))
            found[path.name] = Described(places, unit.astype(np.float32))
        return found

    def match(self, a: Described, b: Described) -> Indices:
        angles = np.arccos(np.clip(self.similarity(a, b), -1, 1))

        def one_way(angles: NDArray[np.float32]) -> NDArray[np.int64]:
            two = np.argpartition(angles, 1, axis=1)[:, :2]
            values = np.take_along_axis(angles, two, axis=1)
            best = values.argmin(axis=1)
            rows = np.arange(len(angles))
            first, second = values[rows, best], values[rows, 1 - best]
            return np.where((first <= 0.7) & (first < 0.8 * second), two[rows, best], -1)

        forward, back = one_way(angles), one_way(np.ascontiguousarray(angles.T))
        rows = np.flatnonzero(forward >= 0)
        rows = rows[back[forward[rows]] == rows]
        return np.stack((rows, forward[rows]), axis=1)

    def similarity(self, a: Described, b: Described) -> NDArray[np.float32]:
        return cosines(a, b)


@dataclass
class Orb:
    """OpenCV's, mutual nearest neighbours by Hamming distance."""

    size: int
    keypoints: int
    name: str = "OpenCV ORB"

    def extract(self, folder: Path) -> dict[str, Described]:
        extractor = cv2.ORB.create(self.keypoints)
        found = {}
        for path in _images(folder):
            small, scale = _shrink(read_image(path, cv2.IMREAD_GRAYSCALE), self.size)
            keypoints, descriptors = extractor.detectAndCompute(small, None)
            places = np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2)
            bits = np.empty((0, 32), np.uint8) if descriptors is None else descriptors
            found[path.name] = Described((places + 0.5) / np.float32(scale), bits)
        return found

    def match(self, a: Described, b: Described) -> Indices:
        found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(a.descriptors, b.descriptors)
        return np.array([(m.queryIdx, m.trainIdx) for m in found], np.int64).reshape(-1, 2)

    def similarity(self, a: Described, b: Described) -> NDArray[np.float32]:
        first, second = (np.unpackbits(d.descriptors, axis=1).astype(np.float32) * 2 - 1 for d in (a, b))
        return np.asarray(first @ second.T, np.float32)


def matched_points(a: Described, b: Described, matches: Indices) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the matches say that the same point is, in both images: (M, 2) each."""
    first, second = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
    if a.seen is not None and b.seen is not None:
        second = second + align_photographs(a.seen, b.seen, first, second).offsets / b.seen.scale
    return first, second


def cosines(a: Described, b: Described) -> NDArray[np.float32]:
    """(N, M) of unit descriptors."""
    return np.asarray(a.descriptors @ b.descriptors.T, np.float32)


def mutual_nearest(similarity: NDArray[np.float32]) -> Indices:
    """(M, 2) pairs that are each other's best."""
    forward, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.flatnonzero(back[forward] == np.arange(len(forward)))
    return np.stack((rows, forward[rows]), axis=1)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"))


def _shrink(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], float]:
    """The long side to `size` at most, by area; and by how much."""
    scale = min(1.0, size / max(image.shape))
    if scale == 1.0:
        return image, 1.0
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale
