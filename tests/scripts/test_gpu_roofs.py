"""The roofs that speeds are held against: operations as torch counts them, bytes as layers must move them."""

import pytest
import torch
from gpu.roofs import Layer, Roof, matching_roof, network_roof
from torch.utils.flop_counter import FlopCounterMode

from exports.keypoints import Logits
from exports.networks import DeDoDe, Describe
from exports.registry import FAMILY


@pytest.mark.parametrize("model", ["dedode-nano", "dedode-l-b"])
def test_operations_are_those_that_torch_counts(model: str) -> None:
    member = FAMILY[model]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        image = torch.zeros(1, 3, 192, 256)
        Logits(DeDoDe(member.detector)).eval()(image)
        Describe(DeDoDe(member.descriptor)).eval()(image, torch.zeros(1, 100, 2))
    assert network_roof(model, 192, 256, 100).flop == counter.get_total_flops()


def test_attention_is_counted_as_one_kernel() -> None:
    roof = network_roof("dedode-l-g", 112, 112, 10)
    tokens, width, depth = 1 + 8 * 8, 1024, 24
    attention = [layer for layer in roof.layers if layer.name == "scaled_dot_product_attention"]
    assert len(attention) == depth
    assert attention[0].flop == 4 * tokens**2 * width  # q k^T and the product with v
    assert attention[0].bytes == 2 * 4 * tokens * width  # q, k, v and the result: never the matrix


def test_bytes_of_a_convolution_are_input_weights_and_output() -> None:
    first = network_roof("dedode-l-b", 64, 64, 10).layers[0]
    assert first.name == "conv2d"
    assert first.bytes == 2 * (3 * 64 * 64 + 64 * 3 * 9 + 64 + 64 * 64 * 64)
    assert network_roof("dedode-l-b", 64, 64, 10, half=False).layers[0].bytes == 2 * first.bytes


def test_the_layerwise_roof_takes_the_longer_of_work_and_traffic() -> None:
    roof = Roof((Layer("a", 4e12, 1e9), Layer("b", 1e12, 6e9)))
    assert roof.by_layers(1.0, 1.0) == pytest.approx(1 / (4 + 6))
    assert roof.by_product(1.0) == pytest.approx(1 / 5)


def test_matching_moves_its_matrix_three_times() -> None:
    roof = matching_roof(4096, 256)
    assert roof.flop == 2 * 4096**2 * 256
    assert roof.bytes == 3 * 4 * 4096**2 + 2 * 2 * 4096 * 256
    assert roof.by_layers(700, 2900) < roof.by_product(700)
