"""The rows of `bench`: detector, descriptor and matcher on one engine each."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exports.config import FAMILY
from sfm_match.errors import UsageError
from sfm_match.models import Weights
from sfm_match.models.prepared import exported_file, sources
from sfm_match.runtime import driver_present
from sfm_match.runtime.ort import CPU, CUDA, OrtSession


class Row(Protocol):
    """What `bench` measures. Features are whatever the engine makes of an image; they stay where they are."""

    @property
    def name(self) -> str:
        """Of the row in the table."""

    def put(self, image: NDArray[np.float32]) -> Any:
        """(1, 3, H, W) ImageNet-normalised, to the device."""

    def describe(self, image: Any) -> Any:
        """An image to its features."""

    def match(self, first: Any, second: Any) -> NDArray[np.float32]:
        """Two images' features to (1, N) scores in the host's memory, so that all work is done."""


class OrtRow:
    """The three exported files under ONNX Runtime."""

    def __init__(self, model: str, weights: Weights, keypoints: int) -> None:
        providers = (CUDA, CPU) if driver_present() else (CPU,)
        self._detector, self._descriptor, self._matcher = (
            OrtSession(exported_file(model, part, weights, keypoints), providers)
            for part in ("detector", "descriptor", "matcher")
        )
        self.name = f"ONNX Runtime, {self._detector.provider.rsplit(' ', 1)[-1].removesuffix('ExecutionProvider')}"

    def put(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return image

    def describe(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        keypoints = self._detector.run({"image": image})["keypoints"]
        return keypoints, self._descriptor.run({"image": image, "keypoints": keypoints})["descriptors"]

    def match(
        self,
        first: tuple[NDArray[np.float32], NDArray[np.float32]],
        second: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        (keypoints_a, described_a), (keypoints_b, described_b) = first, second
        found = self._matcher.run(
            {
                "keypoints_A": keypoints_a,
                "description_A": described_a,
                "keypoints_B": keypoints_b,
                "description_B": described_b,
            }
        )
        scores: NDArray[np.float32] = found["scores"]
        return scores


class TorchRow:
    """The torch networks, eager; with `amp` under autocast (float16 on a GPU, bfloat16 on a CPU)."""

    def __init__(self, model: str, weights: Weights, keypoints: int, *, amp: bool) -> None:
        import torch

        from exports.family import load_networks, random_networks
        from exports.keypoints import Detect
        from exports.networks import Describe, Matcher

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._half = torch.float16 if self._device == "cuda" else torch.bfloat16
        self._amp = amp
        member = FAMILY[model]
        files: list[Path] = sources(name=model, weights=weights)[0]
        try:
            networks = random_networks(member) if weights.random else load_networks(member, files)
        except ValueError as error:  # weights that do not fit
            raise UsageError(str(error)) from error
        self._detect = Detect(networks.detector, keypoints).eval().to(self._device)
        self._describe = Describe(networks.descriptor).eval().to(self._device)
        self._match = Matcher(threshold=member.match_threshold).to(self._device)
        number = str(self._half).removeprefix("torch.")
        self.name = f"torch {'AMP ' + number if amp else 'float32'}, {self._device.upper()}"

    def put(self, image: NDArray[np.float32]) -> Any:
        return self._torch.from_numpy(image).to(self._device)

    def describe(self, image: Any) -> Any:
        with self._torch.no_grad(), self._torch.autocast(self._device, self._half, enabled=self._amp):
            keypoints, _ = self._detect(image)
            return self._finished(self._describe(image, keypoints))

    def match(self, first: Any, second: Any) -> NDArray[np.float32]:
        with self._torch.no_grad():
            scores: NDArray[np.float32] = self._match(first, second)[1].cpu().numpy()
        return scores

    def _finished(self, value: Any) -> Any:
        """A GPU's work is queued: the clock must not stop before it is done."""
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return value
