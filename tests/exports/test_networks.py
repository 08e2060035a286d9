"""The family against kornia's DeDoDe: same weights in, same numbers out."""

import pytest
import torch
from torch import nn

from exports.config import DESCRIPTOR_B, DESCRIPTOR_NANO, DETECTOR_L, DETECTOR_NANO, NetworkConfig
from exports.networks import DeDoDe, DualSoftmax, Matcher, sample_descriptors

kornia = pytest.importorskip("kornia.feature.dedode.dedode_models")


def randomise(network: nn.Module) -> None:
    """Statistics that are not the identity, so that a missing batch norm shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize(
    ("config", "oracle"), [(DETECTOR_L, "dedode_detector_L"), (DESCRIPTOR_B, "dedode_descriptor_B")]
)
@pytest.mark.parametrize("size", [(64, 64), (40, 96)])
@torch.no_grad()
def test_equals_kornia(config: NetworkConfig, oracle: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    reference = getattr(kornia, oracle)().eval()
    randomise(reference)
    network = DeDoDe(config).eval()
    network.load_state_dict(reference.state_dict(), strict=True)
    image = torch.randn(2, 3, *size)
    torch.testing.assert_close(network(image), reference(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("config", "shape"), [(DETECTOR_NANO, (2, 1, 64, 96)), (DESCRIPTOR_NANO, (2, 64, 16, 24))])
@torch.no_grad()
def test_nano_shapes(config: NetworkConfig, shape: tuple[int, ...]) -> None:
    assert DeDoDe(config).eval()(torch.zeros(2, 3, 64, 96)).shape == shape


def test_nano_is_small() -> None:
    count = sum(p.numel() for config in (DETECTOR_NANO, DESCRIPTOR_NANO) for p in DeDoDe(config).parameters())
    assert count < 1_000_000  # 4 MB of float32


def test_sampling_reads_the_centre_of_a_cell() -> None:
    dense = torch.randn(1, 8, 4, 6)
    x, y = 2, 1
    at = torch.tensor([[[(x + 0.5) / 6 * 2 - 1, (y + 0.5) / 4 * 2 - 1]]])
    expected = nn.functional.normalize(dense[0, :, y, x], dim=0)
    torch.testing.assert_close(sample_descriptors(dense, at)[0, 0], expected)


def test_dual_softmax_is_the_product_of_two() -> None:
    torch.manual_seed(0)
    a, b = (nn.functional.normalize(torch.randn(2, n, 16), dim=-1) for n in (30, 40))
    similarity = 20 * a @ b.transpose(1, 2)
    torch.testing.assert_close(DualSoftmax()(a, b), similarity.softmax(1) * similarity.softmax(2))


def test_matcher_returns_mutual_maxima() -> None:
    torch.manual_seed(0)
    a = nn.functional.normalize(torch.randn(1, 30, 16), dim=-1)
    order = torch.randperm(30)
    matches, scores = Matcher(threshold=0.1)(a, a[:, order])
    assert len(matches) == 30
    assert (order[matches[:, 2]] == matches[:, 1]).all()
    assert (scores > 0.1).all()
