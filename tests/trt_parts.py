"""What the tests of the TensorRT backend load and feed."""

import numpy as np

from sfm_match.features import device_graphs as parts
from sfm_match.models import find_model
from sfm_match.runtime import Part
from sfm_match.runtime.planning import Range

RANGE = [Range((1, 64, 64), (2, 64, 128), (4, 128, 128))]


def nano(part: str = "detector") -> Part:
    model = find_model("dedode-nano")
    return parts.detector(model, RANGE) if part == "detector" else parts.descriptor(model, RANGE, (1, 32, 64))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
