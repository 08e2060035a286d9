"""Networks in half precision: how they are halved, and what they compute in real half arithmetic.

ONNX Runtime's CPU provider computes a half-precision file in float32, so that nothing there overflows. Torch has half
kernels for the CPU: they round every layer's output to half, as a GPU does, and add up in float32, as tensor cores do.
The order of the additions is another one on a GPU; ranges and rounding are the same.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from exports.keypoints import Logits, pixel_overlap, strongest
from exports.networks import DeDoDe, Describe, VGG19WithDINOv2
from exports.weights import Networks

M = TypeVar("M", bound=nn.Module)
# What half precision keeps of a faithful network, also with random weights; keypoints whose scores nearly tie move.
OVERLAP, COSINE = 0.75, 0.99
_SIDE = 224  # pixels at most: half convolutions are slow on a CPU, and the layers are the same at any size
_KEYPOINTS = 1024  # at most; and one in 16 pixels
# Half's largest value is 65504. The authors of DeDoDe run it under float16 autocast, with the batch norms in float32:
# before a batch norm any value below 65504 is one that a published network may have. A quarter of it leaves room for
# other images than those that the scale was measured on.
PUBLISHED_PEAK = 16384.0
# In a few channels of DINOv2's residual stream: "massive activations" are those above 100 and 1000 times the median
# (Sun et al., "Massive Activations in Large Language Models", COLM 2024, which finds them in DINOv2, too).
MASSIVE = 512.0


@dataclass(frozen=True)
class InHalf:
    """A halved network under torch on the CPU, in half precision, against the same in float32."""

    size: tuple[int, int]  # (height, width) tried, pixels
    not_finite: int  # values: parameters, statistics, inputs and outputs of layers, results
    largest_activation: float  # absolute, of any layer in half
    logit_difference: float | None  # of half and float32, largest absolute; natural logarithms
    logit_deviation: float | None  # of the float32 logits, standard deviation over the image
    keypoint_overlap: float | None  # share of the float32 network's keypoints that half finds, too
    descriptor_cosine: float | None  # least, over keypoints at random places
    passed: bool


@torch.no_grad()
def compare_in_half(
    networks: Networks, half: Networks, parts: Sequence[str], size: tuple[int, int], generator: torch.Generator
) -> InHalf:
    """Runs halved networks in half precision, and the float32 ones on the same noise.

    Args:
        networks: float32.
        half: the same, halved.
        parts: which of them: `detector`, `descriptor` or both.
        size: (height, width) of the exported file, pixels; larger than 224, it is reduced.
        generator: of the noise.
    """
    divisor = math.lcm(*(getattr(networks, part).config.divisor for part in parts))
    most = max(_SIDE // divisor, 1) * divisor
    height, width = (min(side, most) for side in size)
    image = torch.randn(1, 3, height, width, generator=generator)
    difference = deviation = overlap = cosine = None
    not_finite, largest = 0, 0.0
    for part in parts:
        # ten times as fast as with the channels first
        lean = copy.deepcopy(getattr(half, part)).to(memory_format=torch.channels_last)
        with watched(lean) as seen:
            if part == "detector":
                count = min(_KEYPOINTS, height * width // 16)
                logits, found = Logits(networks.detector)(image), Logits(lean)(image)
                difference, deviation = float((found - logits).abs().max()), float(logits.std())
                places, expected = (strongest(each, count)[0].numpy() for each in (found, logits))
                overlap = pixel_overlap(places, expected, (height, width))
            else:
                keypoints = torch.rand(1, 512, 2, generator=generator) * 2 - 1
                found = Describe(lean)(image, keypoints)
                cosine = float((found * Describe(networks.descriptor)(image, keypoints)).sum(dim=-1).min())
            seen.take(found)
        not_finite, largest = not_finite + seen.not_finite, max(largest, seen.largest)
    passed = not_finite == 0 and (overlap is None or overlap >= OVERLAP) and (cosine is None or cosine >= COSINE)
    return InHalf((height, width), not_finite, largest, difference, deviation, overlap, cosine, passed)


def halved(network: M) -> M:
    """A copy with half-precision weights. What follows it (softmax, top-k, coordinates, unit length) stays float32."""
    return halve(copy.deepcopy(network))


def halve(module: M) -> M:
    """In place: batch norms go into the convolutions before them, in float32, and then every weight becomes half.

    A batch norm's variance is that of a convolution's output, squared: beyond a standard deviation of 256 it is
    infinite in half, and the channel becomes a constant. What is folded has no variances.

    Raises:
        ValueError: a batch norm follows no convolution.
    """
    fold_batch_norms(module)
    return module.half()


def fold_batch_norms(module: nn.Module) -> None:
    """In place: a convolution and the batch norm behind it become one convolution, of the same result in float32.

    Args:
        module: in evaluation mode, float32.

    Raises:
        ValueError: a batch norm follows no convolution.
    """
    for parent in list(module.modules()):
        children = list(parent.named_children())
        for (before, convolution), (name, norm) in pairwise(children):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, name, nn.Identity())
    left = [name for name, each in module.named_modules() if isinstance(each, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"no convolution before the batch norms {', '.join(left)}: they cannot be folded")


@dataclass
class Seen:
    """What went through a network's layers."""

    not_finite: int = 0  # values
    largest: float = 0.0  # absolute, of the finite ones

    def take(self, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            finite = value.isfinite()
            self.not_finite += int((~finite).sum())
            self.largest = max(self.largest, float(value.abs().where(finite, 0).max()))


@contextmanager
def watched(module: nn.Module) -> Iterator[Seen]:
    """Looks at every layer's inputs and output, and once at all that is stored.

    Results alone do not show an overflow: ReLU turns minus infinity to 0, and an infinite variance makes a constant.
    """
    seen = Seen()
    for stored in (*module.parameters(), *module.buffers()):
        seen.not_finite += int((~stored.isfinite()).sum())

    def look(_layer: nn.Module, given: tuple[Any, ...], found: Any) -> None:
        for value in (*given, found):
            seen.take(value)

    layers = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def enlarge_activations(network: DeDoDe, image: Tensor, peak: float = PUBLISHED_PEAK) -> None:
    """In place: as large before its batch norms, and in DINOv2, as published networks may be.

    Random weights keep every value near 1, and no precision fails there. Each convolution before a batch norm is
    multiplied so that its largest output for `image` is `peak`, and the statistics with it: in float32 the network
    computes what it did. In DINOv2 two channels of the first block get a bias of `MASSIVE`.

    Args:
        network: with random weights, in evaluation mode, float32.
        image: (B, 3, H, W) float32.
        peak: absolute.
    """
    if network.config.encoder == "vgg19+dinov2":
        block: Any = cast(VGG19WithDINOv2, network.encoder).dinov2.blocks[0]
        bias = block.mlp.fc2.bias
        bias[:: len(bias) // 2] = MASSIVE / block.ls2.gamma[:: len(bias) // 2]
    pairs = [
        (first, second)
        for parent in network.modules()
        for first, second in pairwise(parent.children())
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
    ]
    peaks: dict[nn.Module, float] = {}

    def record(norm: nn.Module, given: tuple[Tensor]) -> None:
        peaks[norm] = max(peaks.get(norm, 0.0), float(given[0].abs().max()))

    hooks = [norm.register_forward_pre_hook(record) for _, norm in pairs]
    network(image)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        factor = peak / peaks[norm]
        convolution.weight *= factor
        if convolution.bias is not None:
            convolution.bias *= factor
        cast(Tensor, norm.running_mean).mul_(factor)
        cast(Tensor, norm.running_var).mul_(factor**2)
