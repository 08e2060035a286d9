"""DeDoDe networks as ONNX files with dynamic batch and size.

Inputs and outputs (float32 unless said):

    detector    image (B, 3, H, W)                     -> logits (B, 1, H, W)
    descriptor  image (B, 3, H, W), keypoints (B, N, 2) -> descriptors (B, N, D), unit length
    matcher     descriptors0 (B, N, D), descriptors1 (B, M, D) -> matches (K, 3) int64, scores (K,)

`image` is RGB, ImageNet-normalised; `keypoints` are x, y in [-1, 1] (outer edges of the image).
"""

import copy
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from exports.networks import DeDoDe, Describe, Matcher

OPSET = 20
_SAMPLE = (2, 3, 96, 128)  # shape of the tracing example; every size is dynamic


def export_detector(network: DeDoDe, path: Path) -> None:
    """Writes image -> logits."""
    dynamic = {"image": {0: "batch", 2: "height", 3: "width"}}
    _export(network, {"image": torch.zeros(_SAMPLE)}, dynamic, ["logits"], path)


def export_descriptor(network: DeDoDe, path: Path) -> None:
    """Writes image, keypoints -> descriptors."""
    inputs = {"image": torch.zeros(_SAMPLE), "keypoints": torch.zeros(_SAMPLE[0], 7, 2)}
    dynamic = {"image": {0: "batch", 2: "height", 3: "width"}, "keypoints": {0: "batch", 1: "keypoints"}}
    _export(Describe(network), inputs, dynamic, ["descriptors"], path)


def export_matcher(matcher: Matcher, dimension: int, path: Path) -> None:
    """Writes descriptors of image pairs -> matches."""
    inputs = {"descriptors0": torch.zeros(2, 7, dimension), "descriptors1": torch.zeros(2, 9, dimension)}
    dynamic = {"descriptors0": {0: "batch", 1: "keypoints0"}, "descriptors1": {0: "batch", 1: "keypoints1"}}
    _export(matcher, inputs, dynamic, ["matches", "scores"], path)


def _export(
    module: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, str]], outputs: list[str], path: Path
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    module = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        torch.onnx.export(
            module,
            (),
            str(path),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    # the exporter leaves Python stack traces in the file: they are large, and name the machine's paths
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)
