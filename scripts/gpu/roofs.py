"""How fast a network could run: by its products alone, and layer by layer.

The product ceiling counts floating-point operations alone. The layerwise roof also counts what each layer must read and
write when a convolution, its norm and its ReLU are one kernel and nothing else is fused: the time of a layer is the
longer of its operations at the speed of a large product and its bytes at the speed of a copy. Shapes come from a run on
torch's `meta` device, which computes nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exports.keypoints import Logits
from exports.networks import DeDoDe, Describe
from exports.registry import FAMILY

MATCHING_PASSES = 3  # over the float32 matrix of a pair: the product writes it, sums read it, maxima read it
_PRODUCTS = ("conv2d", "linear", "matmul", "mm", "bmm", "addmm", "scaled_dot_product_attention")
_MOVES = ("max_pool2d", "avg_pool2d", "upsample_bilinear2d", "upsample_bicubic2d", "grid_sampler")
_OPERANDS = ("add", "add_")  # in a fused kernel; a sum still reads its second operand


@dataclass(frozen=True)
class Layer:
    """One kernel."""

    name: str  # torch's operator
    flop: float
    bytes: float  # read and written


@dataclass(frozen=True)
class Roof:
    """All that one image, or one pair, asks of the machine."""

    layers: tuple[Layer, ...]

    @property
    def flop(self) -> float:
        return sum(layer.flop for layer in self.layers)

    @property
    def bytes(self) -> float:
        return sum(layer.bytes for layer in self.layers)

    def by_product(self, tflops: float) -> float:
        """Images or pairs a second if nothing but floating-point operations took time."""
        return tflops * 1e12 / self.flop

    def by_layers(self, tflops: float, gb_per_s: float) -> float:
        """Images or pairs a second layer by layer.

        Args:
            tflops: of a large product on this machine, 1e12 operations a second.
            gb_per_s: of a copy within its memory, read and written, 1e9 bytes a second.
        """
        seconds = sum(max(layer.flop / (tflops * 1e12), layer.bytes / (gb_per_s * 1e9)) for layer in self.layers)
        return 1 / seconds


@cache
def network_roof(model: str, height: int, width: int, keypoints: int, *, half: bool = True) -> Roof:
    """Of the detector and the descriptor of a model, for one image.

    Args:
        model: a name of `exports.registry.FAMILY`.
        height, width: of the padded image, pixels.
        keypoints: at which descriptors are sampled.
        half: two bytes an element, else four.
    """
    spec = FAMILY[model]
    with torch.device("meta"):
        image, places = torch.zeros(1, 3, height, width), torch.zeros(1, keypoints, 2)
        detector, descriptor = Logits(DeDoDe(spec.detector)), Describe(DeDoDe(spec.descriptor))
    return Roof(_layers(detector, (image,), half=half) + _layers(descriptor, (image, places), half=half))


def matching_roof(keypoints: int, dimension: int) -> Roof:
    """Of one pair: the product of half-precision descriptors, and three passes over its float32 matrix.

    Kernels that never store the matrix can be faster than this (two products, no pass).
    """
    flop = 2.0 * keypoints**2 * dimension
    matrix, descriptors = 4.0 * keypoints**2, 2.0 * 2 * keypoints * dimension
    passes = [Layer("pass", 0.0, matrix)] * (MATCHING_PASSES - 1)
    return Roof((Layer("product", flop, descriptors + matrix), *passes))


def _layers(module: nn.Module, inputs: Sequence[Tensor], *, half: bool) -> tuple[Layer, ...]:
    recorder = _Recorder(half)
    with torch.inference_mode(), torch.device("meta"), recorder:
        module.eval()(*inputs)
    return tuple(recorder.layers)


class _Recorder(TorchDispatchMode):
    """Notes the operators that are kernels of their own."""

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._size = 2 if half else 4  # bytes of an element, weights and activations alike

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        given = [value for value in tree_leaves((args, kwargs or {})) if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(found) if isinstance(value, Tensor)]
        if name in _PRODUCTS or name in _MOVES:
            moved = sum(value.numel() for value in (*given, *made))
            self.layers.append(Layer(name, _FLOP.get(name, _no_flop)(given, made), float(moved * self._size)))
        elif name in _OPERANDS and len(given) > 1:
            self.layers.append(Layer(name, 0.0, float(given[1].numel() * self._size)))
        return found


def _no_flop(_given: Sequence[Tensor], _made: Sequence[Tensor]) -> float:
    return 0.0


def _of_convolution(given: Sequence[Tensor], made: Sequence[Tensor]) -> float:
    return 2.0 * made[0].numel() * math.prod(given[1].shape[1:])  # (out, in / groups, h, w)


def _of_linear(given: Sequence[Tensor], made: Sequence[Tensor]) -> float:
    return 2.0 * made[0].numel() * given[0].shape[-1]


def _of_addmm(given: Sequence[Tensor], made: Sequence[Tensor]) -> float:
    return 2.0 * made[0].numel() * given[1].shape[-1]


def _of_attention(given: Sequence[Tensor], _made: Sequence[Tensor]) -> float:
    query, key, value = given[:3]  # (..., N, d), (..., M, d), (..., M, e)
    return 2.0 * math.prod(query.shape) * key.shape[-2] + 2.0 * query.shape[-2] * math.prod(value.shape)


_FLOP: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], float]] = {
    "conv2d": _of_convolution,
    "linear": _of_linear,
    "matmul": _of_linear,
    "mm": _of_linear,
    "bmm": _of_linear,
    "addmm": _of_addmm,
    "scaled_dot_product_attention": _of_attention,
}
