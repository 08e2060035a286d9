"""Matches of image pairs from exported files, with the interface of the earlier ONNX port of DeDoDe. No torch.

runner = DeDoDeRunner(detector_path=..., descriptor_path=..., matcher_path=...)    # or end2end_path=...
images = DeDoDeRunner.preprocess(np.stack([a, b]))                                 # (2, H, W, 3) uint8 RGB
matches_A, matches_B, batch_ids = runner.run(images)
matches_A = DeDoDeRunner.postprocess(matches_A, H_A, W_A)                          # pixels of the original
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import UsageError
from sfm_match.images.loader import normalise
from sfm_match.runtime import Provider, driver_present, refuse_failed_export


@dataclass(frozen=True)
class PairMatches:
    """Matches of a batch of pairs. Coordinates are x, y in [-1, 1], outer edges of the image."""

    matches_a: NDArray[np.float32]  # (M, 2)
    matches_b: NDArray[np.float32]  # (M, 2)
    batch_ids: NDArray[np.int64]  # (M,) which pair
    indices: NDArray[np.int64]  # (M, 2) keypoints of A and B
    scores: NDArray[np.float32]  # (M,) dual-softmax probability


class DeDoDeRunner:
    """Three exported files, or one end to end."""

    def __init__(
        self,
        detector_path: str | Path | None = None,
        descriptor_path: str | Path | None = None,
        matcher_path: str | Path | None = None,
        end2end_path: str | Path | None = None,
        providers: Sequence[Provider] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
    ) -> None:
        """
        Args:
            detector_path, descriptor_path, matcher_path: the three files, or
            end2end_path: the one.
            providers: of ONNX Runtime, the first that this machine has is used.

        Raises:
            UsageError: neither three files nor one.
            NothingDone: a file is missing, or failed its parity check when it was exported.
        """
        three = detector_path, descriptor_path, matcher_path
        if end2end_path is not None and any(path is not None for path in three):
            raise UsageError("end2end_path cannot be joined with detector_path, descriptor_path, matcher_path")
        if end2end_path is None and any(path is None for path in three):
            raise UsageError("accepted are end2end_path, or all of detector_path, descriptor_path, matcher_path")
        self.is_end2end = end2end_path is not None
        given = [Path(path) for path in (end2end_path, *three) if path is not None]
        for path in given:
            refuse_failed_export(path)
        from sfm_match.runtime.ort import CPU, OrtSession, preload

        # asking for CUDA without a driver prints errors and falls back
        served = providers if driver_present() else [CPU]
        if driver_present():
            preload()
        self._sessions = [OrtSession(path, served) for path in given]

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """(2B, 3, H, W) preprocessed, A and B in turn -> matches_A (M, 2), matches_B (M, 2) and batch_ids (M,)."""
        found = self.match(images)
        return found.matches_a, found.matches_b, found.batch_ids

    def match(self, images: NDArray[np.float32]) -> PairMatches:
        """As `run`, with indices and scores.

        Raises:
            UsageError: `images` is not (2B, 3, H, W).
        """
        if images.ndim != 4 or images.shape[1] != 3 or len(images) % 2 or not len(images):
            raise UsageError(
                f"images of shape {images.shape}: accepted are (2B, 3, H, W), the images of a pair in turn"
            )
        if self.is_end2end:
            found = self._sessions[0].run({"images": images})
        else:
            detector, descriptor, matcher = self._sessions
            # one image at a time, as files with a fixed batch of one want it
            placed = [detector.run({"image": image[None]})["keypoints"] for image in images]
            described = [
                descriptor.run({"image": image[None], "keypoints": keypoints})["descriptors"]
                for image, keypoints in zip(images, placed, strict=True)
            ]
            found = matcher.run(
                {
                    "keypoints_A": np.concatenate(placed[0::2]),
                    "description_A": np.concatenate(described[0::2]),
                    "keypoints_B": np.concatenate(placed[1::2]),
                    "description_B": np.concatenate(described[1::2]),
                }
            )
        matched = found["scores"] > 0  # every keypoint of A has a row
        names = ("matches_A", "matches_B", "batch_ids", "indices", "scores")
        return PairMatches(*(found[name][matched] for name in names))

    @staticmethod
    def preprocess(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, ImageNet-normalised."""
        return np.stack([normalise(image) for image in images])

    @staticmethod
    def postprocess(matches: NDArray[np.float32], H: int, W: int) -> NDArray[np.float32]:  # noqa: N803 - the port's names
        """(M, 2) in [-1, 1] -> pixels of an image of H x W, the centre of the top-left pixel at (0.5, 0.5)."""
        return ((matches + 1) / 2 * (W, H)).astype(np.float32)
