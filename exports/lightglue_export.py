"""LightGlue as an ONNX file, with its parity record.

    keypoints (I, N, 2), descriptors (I, N, D) float16, counts (I,) int64, pairs (P, 2) int64
        -> places (P, N) int32, scores (P, N)

as `exports.lightglue.LightGlueBlock` says, with free I, N and P.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor

from exports.command import Exported
from exports.lightglue import LightGlue, LightGlueBlock, load_lightglue
from exports.onnx_export import export_module
from exports.parity import FLOAT_OVERLAP, Parity, written

OUTPUTS = ("places", "scores")
_SIZES = ((3, 96), (2, 160))  # images and rows that are compared
_SCORE = 1e-4  # by which probabilities may differ


def export_lightglue(weights: Path, folder: Path) -> Exported:
    """Writes the file of a checkpoint, for any number of images, keypoints and pairs; its name says D.

    Raises:
        WeightsError: the checkpoint cannot be read, or is no LightGlue.
    """
    network = load_lightglue(weights)
    path = folder / f"lightglue_{network.dimension}.onnx"
    write_lightglue(network, path)
    return Exported(path, check_lightglue(path, network, weights.name))


def write_lightglue(network: LightGlue, path: Path) -> None:
    inputs = block(network.dimension, 3, 40)
    free = {
        "keypoints": {0: "images", 1: "rows"},
        "descriptors": {0: "images", 1: "rows"},
        "counts": {0: "images"},
        "pairs": {0: "pairs"},
    }
    export_module(LightGlueBlock(network), inputs, free, list(OUTPUTS), path)


def check_lightglue(file: Path, network: LightGlue, weights: str) -> Parity:
    """Runs a file at two sizes under ONNX Runtime beside the network under torch, and writes the record."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    overlaps, not_finite = [], 0
    for images, rows in _SIZES:
        given = block(network.dimension, images, rows)
        with torch.no_grad():
            places, scores = (part.numpy() for part in LightGlueBlock(network)(*given.values()))
        found, sure = session.run(list(OUTPUTS), {name: value.numpy() for name, value in given.items()})
        same = (places == found) & (np.abs(scores - sure) < _SCORE) & (scores > 0)
        overlaps.append(float(same.sum() / max((scores > 0).sum(), 1)))
        not_finite += int((~np.isfinite(sure)).sum())
    overlap = min(overlaps)
    passed = not_finite == 0 and overlap >= FLOAT_OVERLAP
    return written(file, "fp32", list(_SIZES), overlap, None, not_finite, weights, passed)


def block(dimension: int, images: int, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Images that show the same keypoints a little moved, with padding, and pairs of them."""
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.randn(1, rows, dimension, generator=generator)
    descriptors = descriptors + 0.1 * torch.randn(images, rows, dimension, generator=generator)
    keypoints = torch.rand(1, rows, 2, generator=generator) * 1.8 - 0.9
    keypoints = keypoints + 0.01 * torch.randn(images, rows, 2, generator=generator)
    return {
        "keypoints": keypoints,
        "descriptors": F.normalize(descriptors, dim=-1).half(),
        "counts": rows - torch.arange(images) * (rows // 8),
        "pairs": torch.tensor([[i, i + 1] for i in range(images - 1)] + [[images - 1, 0]]),
    }
