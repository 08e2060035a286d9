"""`export onnx`: a member of the family to its files, each with its parity record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exports.family import FAMILY, Member, Networks, load_networks, random_networks
from exports.networks import Matcher
from exports.onnx_export import (
    Shapes,
    export_descriptor,
    export_detector,
    export_end_to_end,
    export_matcher,
    halved,
)
from exports.parity import Parity, check_parity


@dataclass(frozen=True)
class Exported:
    """One file. The matcher and the end-to-end file are made of parts that have their own records or none."""

    path: Path
    parity: Parity | None


def export_onnx(
    model: str,
    out: Path,
    shapes: Shapes,
    *,
    half: bool = False,
    end_to_end: bool = False,
    weights: list[Path] | None = None,
    random_weights: bool = False,
) -> Iterator[Exported]:
    """Writes a model's files, one after the other.

    Args:
        model: a name of `FAMILY`.
        out: their folder.
        shapes: sizes and counts.
        half: half-precision weights; softmax, top-k, coordinates and unit length stay float32.
        end_to_end: one file from images to matches, in place of three.
        weights: checkpoints, told apart by their content.
        random_weights: seeded weights in place of checkpoints, for shape checks.

    Raises:
        ValueError: an unknown model, sizes or counts that it does not take, weights that do not fit.
    """
    if model not in FAMILY:
        raise ValueError(f"--model {model}: accepted are {', '.join(FAMILY)}")
    member = FAMILY[model]
    if random_weights == bool(weights):
        raise ValueError(f"export of {model}: give either --weights FILE (once a network) or --random-weights")
    shapes.validate(_divisor(member), resizable=member.descriptor.encoder != "vgg19+dinov2")
    networks = random_networks(member) if random_weights else load_networks(member, weights or [])
    source = "random, seed 0" if random_weights else ", ".join(path.name for path in weights or [])
    used = Networks(halved(networks.detector), halved(networks.descriptor)) if half else networks
    matcher = Matcher(threshold=member.match_threshold)
    where = "" if shapes.dynamic_size else f"_{shapes.size[0]}x{shapes.size[1]}"
    end = "_fp16.onnx" if half else ".onnx"

    def checked(path: Path, kind: str) -> Exported:
        divisor = _divisor(member)
        return Exported(path, check_parity(path, kind, networks, shapes, half=half, weights=source, divisor=divisor))

    if end_to_end:
        path = out / f"{model}_end2end{where}_{shapes.num_keypoints}{end}"
        export_end_to_end(used, matcher, path, shapes)
        yield Exported(path, None)
        return
    path = out / f"{model}_detector{where}_{shapes.num_keypoints}{end}"
    export_detector(used.detector, path, shapes)
    yield checked(path, "detector")
    path = out / f"{model}_descriptor{where}{end}"
    export_descriptor(used.descriptor, path, shapes)
    yield checked(path, "descriptor")
    path = out / f"{model}_matcher.onnx"
    export_matcher(matcher, member.descriptor.prototypes, path)
    yield Exported(path, None)


def _divisor(member: Member) -> int:
    """Of the sides of an image that both networks see."""
    return math.lcm(member.detector.divisor, member.descriptor.divisor)
