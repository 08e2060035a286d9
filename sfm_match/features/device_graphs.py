"""The networks of a job as parts for any engine: each an ONNX file and the same module in torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from exports.graph_constants import CAPACITIES, MODES, select_file
from sfm_match.features.keypoint_selection import Selection
from sfm_match.models import Model
from sfm_match.runtime import GRAPHS, Part, Shape, Shapes
from sfm_match.runtime.planning import Range

SELECTED = ("keypoints", "points", "scores", "counts", "finite")


def _network(model: Model, part: str) -> Any:
    """A network of the model in torch, float32."""
    from exports.keypoints import Logits
    from exports.networks import Describe
    from exports.weights import load_networks, random_networks

    networks = load_networks(model.spec, list(model.weights)) if model.weights else random_networks(model.spec)
    return Logits(networks.detector) if part == "detector" else Describe(networks.descriptor)


def _graph(name: str, *arguments: Any) -> Any:
    """A module of `exports.graphs`."""
    from exports import graphs

    return getattr(graphs, name)(*arguments)


def detector(model: Model, ranges: Sequence[Range]) -> Part:
    """image (B, 3, H, W) float32 -> logits (B, 1, H, W) float32."""
    profiles = [{"image": r.shapes(before=(3,))} for r in ranges]
    return Part(model.detector, partial(_network, model, "detector"), ("logits",), half=model.half, profiles=profiles)


def descriptor(model: Model, ranges: Sequence[Range], keypoints: tuple[int, int, int]) -> Part:
    """image (B, 3, H, W), keypoints (B, K, 2) in [-1, 1] -> descriptors (B, K, D) float32, unit length.

    `keypoints` are the least, usual and largest K.
    """

    def placed(r: Range) -> tuple[Shape, Shape, Shape]:
        (a, b, c), (low, usual, high) = (r.least[0], r.usual[0], r.largest[0]), keypoints
        return (a, low, 2), (b, usual, 2), (c, high, 2)

    profiles = [{"image": r.shapes(before=(3,)), "keypoints": placed(r)} for r in ranges]
    make = partial(_network, model, "descriptor")
    return Part(model.descriptor, make, ("descriptors",), half=model.half, profiles=profiles)


def normalise(ranges: Sequence[Range]) -> Part:
    """pixels (B, H, W, 3) uint8 -> image (B, 3, H, W) float32."""
    profiles = [{"pixels": r.shapes(after=(3,))} for r in ranges]
    return Part(GRAPHS / "normalise.onnx", partial(_graph, "Normalise"), ("image",), profiles=profiles)


def capacity_for(max_keypoints: int) -> int | None:
    """Rows of the selection that holds so many keypoints, None where none does."""
    return next((capacity for capacity in CAPACITIES if capacity >= max_keypoints), None)


def select(how: Selection, capacity: int, ranges: Sequence[Range]) -> Part:
    """logits, ground (the valid mask, (B, H, W) uint8), log_threshold (1,), least_contrast (1,) -> `SELECTED`."""
    key = how.nms_radius, how.coverage, how.subpixel
    profiles = [{"logits": r.shapes(before=(1,)), "ground": r.shapes()} for r in ranges]
    return Part(
        GRAPHS / select_file(MODES[key], capacity),
        partial(_graph, "Select", *key, capacity),
        SELECTED,
        profiles=profiles,
    )


def stored(model: Model, ranges: Sequence[Range], keypoints: int) -> Part:
    """descriptors (B, K, D) float32, counts (B,) -> stored (B, K, D) float16, described (B,): 1 where all is finite."""
    profiles = [{"descriptors": r.rows(keypoints, model.spec.dimension), "counts": r.rows()} for r in ranges]
    make = partial(_graph, "StoredDescriptors")
    return Part(GRAPHS / "stored.onnx", make, ("stored", "described"), profiles=profiles)


@dataclass(frozen=True)
class DeviceParts:
    """Everything between a photograph's bytes and its features."""

    normalise: Part
    detector: Part
    select: Part
    descriptor: Part
    stored: Part

    def each(self) -> tuple[Part, ...]:
        return self.normalise, self.detector, self.select, self.descriptor, self.stored


def on_device(model: Model, how: Selection, capacity: int, ranges: Sequence[Range]) -> DeviceParts:
    """The parts of an extraction that stays on the device."""
    described = descriptor(model, ranges, (capacity,) * 3)
    selected, last = select(how, capacity, ranges), stored(model, ranges, capacity)
    return DeviceParts(normalise(ranges), detector(model, ranges), selected, described, last)


def match_block(images: int, keypoints: int, columns: int, pairs: int) -> Part:
    """descriptors (I, N, columns) float16, pairs (P, 2) int64, inverse_temperature (1,) -> places, scores (P, N)."""
    most = (images, keypoints, columns)
    profiles: list[Shapes] = [{"descriptors": ((1, 1, columns), most, most), "pairs": ((1, 2), (pairs, 2), (pairs, 2))}]
    make = partial(_graph, "MatchBlock")
    return Part(GRAPHS / "match.onnx", make, ("places", "scores"), exact=False, fused=True, profiles=profiles)


def join_groups(images: int, keypoints: int, columns: int) -> Part:
    """first, second (I, N, columns) float16 -> descriptors (2 I, N, columns): one block of two."""
    shape = (images, keypoints, columns)
    profiles: list[Shapes] = [dict.fromkeys(("first", "second"), (shape, shape, shape))]
    make = partial(_graph, "JoinGroups")
    return Part(GRAPHS / "join.onnx", make, ("descriptors",), profiles=profiles)
