"""DeDoDe networks as ONNX files.

Inputs and outputs, float32 unless said; A and B are the images of a pair, coordinates x, y in [-1, 1] (outer edges of
the image), images RGB and ImageNet-normalised:

    dense detector  image (B, 3, H, W) -> logits (B, 1, H, W)
    detector        image (B, 3, H, W) -> keypoints (B, K, 2), scores (B, K)
    descriptor      image (B, 3, H, W), keypoints (B, K, 2) -> descriptors (B, K, D), unit length
    matcher         keypoints_A (B, N, 2), description_A (B, N, D), keypoints_B, description_B
                    -> matches_A (B * N, 2), matches_B (B * N, 2), batch_ids (B * N,), indices (B * N, 2) int64,
                       scores (B * N,)
    end to end      images (2B, 3, H, W), A and B in turn -> as the matcher

The names are those of the earlier ONNX port of DeDoDe, with indices and scores added at the end. Every keypoint of A
has a row, and a score of 0 where it has no match: the rows with a score are the matches.
"""

import copy
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from exports.half_precision import fold_batch_norms
from exports.keypoints import Detect, Logits
from exports.networks import DeDoDe, Describe, Matcher
from exports.weights import Networks

OPSET = 20
_LARGEST_WEIGHT = 1 << 24  # of a 1x1 convolution
MATCHES = ["matches_A", "matches_B", "batch_ids", "indices", "scores"]


@dataclass(frozen=True)
class Shapes:
    """What is fixed and what is free in a file."""

    size: tuple[int, int] = (256, 256)  # (height, width), pixels; the traced example where sizes are dynamic
    batch: int = 1  # images, or pairs end to end
    dynamic_size: bool = False
    dynamic_batch: bool = False
    num_keypoints: int = 1024
    multiple: int = 1  # of which free sides are multiples, pixels, as well as of the networks' divisors

    def validate(self, divisor: int) -> None:
        """Raises ValueError that names the accepted values."""
        height, width = self.size
        if height % divisor or width % divisor or min(self.size) < divisor:
            raise ValueError(f"--img-size {height} {width}: accepted are multiples of {divisor} for this model")
        if not 1 <= self.num_keypoints <= height * width:
            raise ValueError(f"--num-keypoints {self.num_keypoints}: accepted are 1 to {height * width} at this size")
        if self.batch < 1:
            raise ValueError(f"--batch {self.batch}: accepted are 1 and more")

    def image_axes(self, sides: int) -> dict[int, Any]:
        """What is free of images whose sides are multiples of `sides`."""
        axes: dict[int, Any] = dict(self.batch_axis())
        if self.dynamic_size:
            axes |= {2: sides * torch.export.Dim("rows"), 3: sides * torch.export.Dim("columns")}
        return axes

    def sides(self, *networks: DeDoDe) -> int:
        """What the sides of the networks' images are multiples of, pixels."""
        if not self.dynamic_size:
            return math.gcd(*self.size)
        return math.lcm(self.multiple, *(network.config.divisor for network in networks))

    def batch_axis(self) -> dict[int, str]:
        return {0: "batch"} if self.dynamic_batch else {}

    def image(self, per_item: int = 1) -> Tensor:
        # a batch of one is taken for a constant by the exporter: trace two where it is free
        batch = max(self.batch, 2) if self.dynamic_batch else self.batch
        return torch.zeros(batch * per_item, 3, *self.size)


class PairMatcher(nn.Module):
    """The matcher with coordinates, as the earlier port returns them."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self, keypoints_a: Tensor, description_a: Tensor, keypoints_b: Tensor, description_b: Tensor
    ) -> tuple[Tensor, ...]:
        second, scores = self.matcher(description_a, description_b)  # (B, N)
        first = torch.arange(second.shape[1], device=second.device).expand_as(second)
        pair = torch.arange(second.shape[0], device=second.device)[:, None].expand_as(second)
        matched_b = keypoints_b.gather(1, second[..., None].expand(-1, -1, 2))  # (B, N, 2)
        indices = torch.stack((first, second), dim=-1)
        rows = (keypoints_a, matched_b, pair, indices, scores)
        return tuple(part.flatten(0, 1) for part in rows)


class EndToEnd(nn.Module):
    """Images of pairs, A and B in turn, to their matches."""

    def __init__(self, detector: Detect, descriptor: Describe, matcher: PairMatcher) -> None:
        super().__init__()
        self.detector, self.descriptor, self.matcher = detector, descriptor, matcher

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        keypoints, _ = self.detector(images)
        descriptors = self.descriptor(images, keypoints)
        result: tuple[Tensor, ...] = self.matcher(
            keypoints[0::2], descriptors[0::2], keypoints[1::2], descriptors[1::2]
        )
        return result


FREE = Shapes((128, 192), dynamic_size=True, dynamic_batch=True)


def export_dense_detector(network: DeDoDe, path: Path, shapes: Shapes = FREE) -> None:
    sides = shapes.sides(network)
    image, axes = {"image": shapes.image()}, {"image": shapes.image_axes(sides)}
    export_module(Logits(network), image, axes, ["logits"], path, sides=sides)


def export_detector(network: DeDoDe, path: Path, shapes: Shapes) -> None:
    sides, detect = shapes.sides(network), Detect(network, shapes.num_keypoints)
    image, axes = {"image": shapes.image()}, {"image": shapes.image_axes(sides)}
    export_module(detect, image, axes, ["keypoints", "scores"], path, sides=sides)


def export_descriptor(network: DeDoDe, path: Path, shapes: Shapes = FREE) -> None:
    sides, image = shapes.sides(network), shapes.image()
    inputs = {"image": image, "keypoints": torch.zeros(len(image), 7, 2)}
    dynamic = {"image": shapes.image_axes(sides), "keypoints": {**shapes.batch_axis(), 1: "keypoints"}}
    export_module(Describe(network), inputs, dynamic, ["descriptors"], path, sides=sides)


def export_matcher(matcher: Matcher, dimension: int, path: Path) -> None:
    """Always with free batch and keypoint counts."""
    inputs = {
        "keypoints_A": torch.zeros(2, 7, 2),
        "description_A": torch.zeros(2, 7, dimension),
        "keypoints_B": torch.zeros(2, 9, 2),
        "description_B": torch.zeros(2, 9, dimension),
    }
    dynamic = {name: {0: "batch", 1: f"keypoints_{name[-1]}"} for name in inputs}
    export_module(PairMatcher(matcher), inputs, dynamic, MATCHES, path, positional=True)


def export_end_to_end(networks: Networks, matcher: Matcher, path: Path, shapes: Shapes) -> None:
    module = EndToEnd(
        Detect(networks.detector, shapes.num_keypoints), Describe(networks.descriptor), PairMatcher(matcher)
    )
    sides = shapes.sides(networks.detector, networks.descriptor)
    dynamic: dict[str, Any] = {"images": shapes.image_axes(sides)}
    if shapes.dynamic_batch:  # A and B in turn: an even number
        dynamic["images"][0] = 2 * torch.export.Dim("pairs", min=1, max=512)
    export_module(module, {"images": shapes.image(per_item=2)}, dynamic, MATCHES, path, sides=sides)


def export_module(
    module: nn.Module,
    inputs: dict[str, Tensor],
    dynamic: dict[str, Any],
    outputs: list[str],
    path: Path,
    *,
    positional: bool = False,
    sides: int = 1,
) -> None:
    """Writes any module as one ONNX file, without the exporter's stack traces, and checks it.

    The family's convolutions take over the batch norms behind them, and its networks rely on what is said of images.

    Args:
        module: left as it is.
        inputs: examples, by name.
        dynamic: their free axes.
        outputs: names.
        path: to write.
        positional: the inputs' names are not those of the module's arguments.
        sides: what the sides of images are multiples of, pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    module = copy.deepcopy(module).eval()
    for network in module.modules():
        if isinstance(network, DeDoDe):
            network.sides = sides
            with torch.no_grad():
                fold_batch_norms(network)
    module = cast(Any, module).to(memory_format=torch.contiguous_format)  # torch's stubs lack it
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every torchvision operator that is not there
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own internals
        torch.onnx.export(
            module,
            tuple(inputs.values()) if positional else (),
            str(path),
            kwargs=None if positional else inputs,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(dynamic.values()) if positional else dynamic,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    if sides > 1:
        _fold_weights(model)
        _name_sides(model, sides)
    # the exporter leaves Python stack traces in the file: they are large, and name the machine's paths
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _fold_weights(model: onnx.ModelProto) -> None:
    """In place: parts of weights become constants, as engines ask for; the exporter leaves large ones as they are."""
    onnxscript.optimizer.fold_constants(model, input_size_limit=_LARGEST_WEIGHT, output_size_limit=_LARGEST_WEIGHT)
    onnxscript.optimizer.remove_unused_nodes(model)


def _name_sides(model: onnx.ModelProto, sides: int) -> None:
    """In place: free sides have their plain names, and the graph says what they are multiples of."""
    names = {f"{sides}*rows": "height", f"{sides}*columns": "width"}
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
                model.graph.doc_string = f"Sides of images are multiples of {sides} pixels."
