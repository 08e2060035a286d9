"""The rows of `bench`: detector, descriptor and matcher on one engine each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exports.registry import FAMILY
from sfm_match.errors import UsageError
from sfm_match.models import Weights
from sfm_match.models.prepared import exported_file, sources
from sfm_match.runtime import EngineError, Part, Runtime, Session, Value

_MATCHED = ("keypoints", "description")  # of each image, as the matcher names them
MATCHES = ("matches_A", "matches_B", "batch_ids", "indices", "scores")


class Row(Protocol):
    """What `bench` measures. Features are whatever the engine makes of an image; they stay where they are."""

    @property
    def name(self) -> str:
        """Of the row in the table."""

    def put(self, image: NDArray[np.float32], place: int) -> Any:
        """(1, 3, H, W) ImageNet-normalised, to the device; `place` tells it from others that stay there."""

    def describe(self, image: Any, side: int) -> Any:
        """An image to its features. Those of side 0 and of side 1 (of a pair) are there together."""

    def match(self, first: Any, second: Any) -> NDArray[np.float32]:
        """Two images' features to (1, N) scores in the host's memory, so that all work is done."""


class EngineRow:
    """The three exported files on an engine of the pipeline, values kept on its device."""

    def __init__(
        self, runtime: Runtime, model: str, weights: Weights, keypoints: int, size: tuple[int, int], *, half: bool
    ) -> None:
        self._runtime = runtime
        shape, dimension = (1, 3, *size), FAMILY[model].dimension
        placed, described = (1, keypoints, 2), (1, keypoints, dimension)
        matched = {f"{name}_{side}": s for name, s in zip(_MATCHED, (placed, described), strict=True) for side in "AB"}

        def load(part: str, outputs: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> Session:
            path = exported_file(model, part, weights, keypoints, half=half and part != "matcher")
            profile = {name: (shape, shape, shape) for name, shape in shapes.items()}
            return runtime.load(Part(path, _no_module, outputs, half=half, profiles=[profile]))

        # two of each: the results of a session are good until it runs again
        self._detectors = [load("detector", ("keypoints", "scores"), {"image": shape}) for _ in range(2)]
        inputs = {"image": shape, "keypoints": placed}
        self._descriptors = [load("descriptor", ("descriptors",), inputs) for _ in range(2)]
        self._matcher = load("matcher", MATCHES, matched)
        self.name = f"{runtime.provider.removesuffix('ExecutionProvider')}{', fp16' if half else ''}"

    def put(self, image: NDArray[np.float32], place: int) -> Value:
        return self._runtime.put(f"image {place}", image)

    def describe(self, image: Value, side: int) -> tuple[Value, Value]:
        found = self._detectors[side].run({"image": image})
        described = self._descriptors[side].run({"image": image, "keypoints": found["keypoints"]})["descriptors"]
        self._runtime.get(found["scores"])  # a GPU's work is queued: the clock must not stop before it is done
        return found["keypoints"], described

    def match(self, first: tuple[Value, Value], second: tuple[Value, Value]) -> NDArray[np.float32]:
        feeds = {
            f"{name}_{side}": value
            for side, features in zip("AB", (first, second), strict=True)
            for name, value in zip(_MATCHED, features, strict=True)
        }
        return self._runtime.get(self._matcher.run(feeds)["scores"])


def _no_module() -> Any:
    raise EngineError("bench: exported files are not for torch")


class TorchRow:
    """The torch networks, eager; with `amp` under autocast (float16 on a GPU, bfloat16 on a CPU)."""

    def __init__(self, model: str, weights: Weights, keypoints: int, *, amp: bool) -> None:
        import torch

        from exports.keypoints import Detect
        from exports.networks import Describe, Matcher
        from exports.weights import load_networks, random_networks

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

    def put(self, image: NDArray[np.float32], place: int) -> Any:  # noqa: ARG002 - tensors are new each time
        return self._torch.from_numpy(image).to(self._device)

    def describe(self, image: Any, side: int) -> Any:  # noqa: ARG002 - as above
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
