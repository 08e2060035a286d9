"""The parity gate: an exported file under ONNX Runtime against the float32 torch network it came from.

On the CPU that is float32 arithmetic whatever the weights are. So the network of a half-precision file also runs under
torch, in half (`exports.half_precision`).
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from exports.half_precision import COSINE, OVERLAP, InHalf, compare_in_half
from exports.keypoints import Detect, pixel_overlap
from exports.networks import Describe, Matcher
from exports.onnx_export import EndToEnd, PairMatcher, Shapes
from exports.weights import Networks

FLOAT_OVERLAP, FLOAT_COSINE = 0.99, 0.99999  # what a faithful file reaches, also with random weights
_SEED = 0


@dataclass(frozen=True)
class Parity:
    """What the comparison found; written beside the file as NAME.parity.json."""

    file: str
    sha256: str
    precision: str
    sizes: list[tuple[int, int]]  # (height, width) tried; of LightGlue (images, keypoints)
    keypoint_overlap: (
        float | None
    )  # share of torch's keypoints (end to end: and matches; LightGlue: matches); the worst
    descriptor_cosine: float | None  # least, over all keypoints
    not_finite: int  # values
    weights: str
    versions: dict[str, str]
    passed: bool
    in_half: InHalf | None = None  # of a half-precision file; records before 2026-11-25 have none


def parity_path(file: Path) -> Path:
    return file.with_suffix(".parity.json")


def check_parity(
    file: Path,
    kind: str,
    networks: Networks,
    shapes: Shapes,
    *,
    half: Networks | None,
    weights: str,
    divisor: int,
    match_threshold: float = 0.01,
) -> Parity:
    """Runs a detector or descriptor file at its size, and at another one where sizes are free, and writes the record.

    Args:
        file: the ONNX file.
        kind: `detector`, `dense detector`, `descriptor` or `end to end` (A and B the same image).
        networks: the float32 networks.
        shapes: as exported.
        half: the halved networks that the file was made from; None: it is float32.
        weights: where they came from, in words.
        divisor: of image sides, pixels.
        match_threshold: of the matcher in an end-to-end file.
    """
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    height, width = shapes.size
    step = math.lcm(divisor, shapes.multiple)
    sizes = [(height, width)] + ([(height + step, width + 2 * step)] if shapes.dynamic_size else [])
    generator = torch.Generator().manual_seed(_SEED)
    overlaps, cosines, not_finite = [], [], 0
    for size in sizes:
        image = torch.randn(shapes.batch, 3, *size, generator=generator)
        with torch.no_grad():
            keypoints = torch.rand(shapes.batch, 256, 2, generator=generator) * 2 - 1
            if kind == "detector":
                expected = Detect(networks.detector, shapes.num_keypoints)(image)[0].numpy()
                found, scores = session.run(None, {"image": image.numpy()})
                overlaps.append(pixel_overlap(found, expected, size))
            elif kind == "end to end":
                images = image.repeat_interleave(2, dim=0)
                found, *_, scores = session.run(None, {"images": images.numpy()})
                detect, describe = Detect(networks.detector, shapes.num_keypoints), Describe(networks.descriptor)
                whole = EndToEnd(detect, describe, PairMatcher(Matcher(threshold=match_threshold)))
                rows, *_, sure = (part.numpy() for part in whole(images))
                expected = rows.reshape(len(image), -1, 2)
                overlaps.append(pixel_overlap(found.reshape(expected.shape), expected, size))
                # a descriptor that overflows gives no match, and nothing that is not finite
                matched, wanted = (scores > 0).mean(), (sure > 0).mean()
                overlaps.append(float(1 - abs(matched - wanted)))
            elif kind == "dense detector":
                (scores,) = session.run(None, {"image": image.numpy()})
                logits = networks.detector(image)
                found, expected = (_strongest(x, shapes.num_keypoints) for x in (torch.from_numpy(scores), logits))
                overlaps.append(pixel_overlap(found, expected, size))
            else:
                expected = Describe(networks.descriptor)(image, keypoints).numpy()
                (found,) = session.run(None, {"image": image.numpy(), "keypoints": keypoints.numpy()})
                scores = found
                cosines.append(float((found * expected).sum(axis=-1).min()))
            not_finite += int((~np.isfinite(found)).sum() + (~np.isfinite(scores)).sum())
    overlap, cosine = min(overlaps, default=None), min(cosines, default=None)
    passed = (
        not_finite == 0
        and (overlap is None or overlap >= (OVERLAP if half else FLOAT_OVERLAP))
        and (cosine is None or cosine >= (COSINE if half else FLOAT_COSINE))
    )
    in_half = None
    if half is not None:
        parts = {"descriptor": ("descriptor",), "end to end": ("detector", "descriptor")}.get(kind, ("detector",))
        in_half = compare_in_half(networks, half, parts, shapes.size, generator)
        passed = passed and in_half.passed
    precision = "fp16" if half else "fp32"
    return written(file, precision, sizes, overlap, cosine, not_finite, weights, passed, in_half)


def written(
    file: Path,
    precision: str,
    sizes: list[tuple[int, int]],
    overlap: float | None,
    cosine: float | None,
    not_finite: int,
    weights: str,
    passed: bool,
    in_half: InHalf | None = None,
) -> Parity:
    """A record of a file, and beside it. Arguments are fields of `Parity`."""
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record = Parity(
        file.name, digest, precision, sizes, overlap, cosine, not_finite, weights, versions, passed, in_half
    )
    parity_path(file).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    return record


def _strongest(logits: torch.Tensor, count: int) -> NDArray[np.float32]:
    """(B, 1, H, W) -> (B, K, 2) pixels of the largest logits, in [-1, 1]."""
    height, width = logits.shape[-2:]
    rows, columns = np.divmod(logits.flatten(1).topk(count).indices.numpy(), width)
    pixels = np.stack((columns, rows), axis=-1) + 0.5
    return (pixels * (2 / width, 2 / height) - 1).astype(np.float32)
