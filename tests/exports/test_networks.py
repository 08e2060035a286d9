"""The family against kornia's DeDoDe: same weights in, same numbers out."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import kornia.feature as kornia
import kornia.feature.dedode.encoder as kornia_encoder
import kornia.feature.dedode.transformer as kornia_transformer
import pytest
import torch
from kornia.feature.dedode import dedode_models
from kornia.feature.dedode.transformer import dinov2 as vit
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from exports.architectures import (
    DESCRIPTOR_B,
    DESCRIPTOR_G,
    DESCRIPTOR_NANO,
    DETECTOR_L,
    DETECTOR_NANO,
    NetworkConfig,
)
from exports.dinov2 import DINOv2
from exports.keypoints import Detect, exact_topk
from exports.networks import DeDoDe, Describe, DualSoftmax, Matcher
from exports.registry import FAMILY
from exports.sampling import sample

SIZES = [(112, 112), (56, 168)]


def randomise(network: nn.Module) -> None:
    """Statistics that are not the identity, so that a missing batch norm shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def pair(config: NetworkConfig, oracle: Callable[[], nn.Module]) -> tuple[DeDoDe, nn.Module]:
    """Ours with the weights of kornia's."""
    torch.manual_seed(0)
    reference = oracle().eval()
    randomise(reference)
    network = DeDoDe(config).eval()
    network.load_state_dict(reference.state_dict(), strict=True)
    return network, reference


@pytest.fixture(scope="module")
def detector_l() -> tuple[DeDoDe, nn.Module]:
    return pair(DETECTOR_L, dedode_models.dedode_detector_L)


@pytest.fixture(scope="module")
def descriptor_b() -> tuple[DeDoDe, nn.Module]:
    return pair(DESCRIPTOR_B, dedode_models.dedode_descriptor_B)


def pair_g(depth: int) -> tuple[DeDoDe, nn.Module]:
    """Ours with DINOv2 and the weights of kornia's; both with so many transformer blocks, 24 in the published one."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exports.networks.DINOv2", partial(DINOv2, depth=depth))
        network = DeDoDe(DESCRIPTOR_G).eval()
        dinov2: Any = network.encoder.dinov2
        with torch.no_grad():
            dinov2.pos_embed.normal_(0, 0.02)
            dinov2.cls_token.normal_(0, 0.02)
            for block in dinov2.blocks:
                block.ls1.gamma.fill_(0.1)
                block.ls2.gamma.fill_(0.1)
        weights = dinov2.state_dict()
        patch.setattr(kornia_encoder, "load_state_dict_from_url", lambda *_, **__: weights)
        patch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # slow, and overwritten
        block = partial(vit.Block, attn_class=vit.MemEffAttention)
        large = {"embed_dim": 1024, "num_heads": 16, "mlp_ratio": 4, "block_fn": block}
        patch.setattr(kornia_transformer, "vit_large", partial(vit.DinoVisionTransformer, depth=depth, **large))
        reference = dedode_models.dedode_descriptor_G().eval()
    randomise(reference)
    network.load_state_dict(reference.state_dict(), strict=True)
    return network, reference


@pytest.fixture(scope="module")
def descriptor_g() -> tuple[DeDoDe, nn.Module]:
    """Full size: 304 M parameters of DINOv2, random, and the same in both."""
    return pair_g(24)


@pytest.fixture(scope="module")
def shallow_g() -> tuple[DeDoDe, nn.Module]:
    return pair_g(2)


G = ["shallow_g", pytest.param("descriptor_g", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", ["detector_l", "descriptor_b", *G])
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_dense_maps_equal_kornia(name: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    network, reference = request.getfixturevalue(name)
    image = torch.randn(2, 3, *size)
    torch.testing.assert_close(network(image), reference(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_keypoints_equal_kornia(size: tuple[int, int], detector_l: tuple[DeDoDe, nn.Module]) -> None:
    network, reference = detector_l
    with torch.device("meta"):  # its own networks are not used
        oracle: Any = kornia.DeDoDe(detector_model="L", descriptor_model="B")
    oracle.detector = reference
    image = torch.randn(2, 3, *size)
    expected, expected_scores = oracle.detect(image, n=500, apply_imagenet_normalization=False)
    found, scores = Detect(network, 500)(image)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=0)
    for one, other in zip(found, expected, strict=True):
        places = [{(round(x, 5), round(y, 5)) for x, y in points.tolist()} for points in (one, other)]
        assert len(places[0]) == 500
        assert places[0] == places[1]


@pytest.mark.parametrize("name", ["descriptor_b", *G])
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_described_keypoints_equal_kornia(name: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    """Sampled before the last upsampling and 1x1 convolution, against kornia's samples of the dense map."""
    network, reference = request.getfixturevalue(name)
    height, width = size
    image = torch.randn(2, 3, height, width)
    pixels = torch.stack((torch.randint(width, (2, 300)), torch.randint(height, (2, 300))), -1)
    pixels[:, :4] = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    keypoints = (pixels + 0.5) * 2 / torch.tensor([width, height]) - 1
    dense = reference(image)
    expected = nn.functional.grid_sample(dense, keypoints[:, None], align_corners=False)[:, :, 0].mT
    found = Describe(network)(image, keypoints)
    torch.testing.assert_close(found, nn.functional.normalize(expected, dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", G)
def test_a_checkpoint_of_g_has_no_dinov2_in_it(name: str, request: pytest.FixtureRequest) -> None:
    network, _ = request.getfixturevalue(name)
    state = network.state_dict()
    assert not any("dinov2" in key for key in state)
    assert sum("dinov2" in name for name, _ in network.named_parameters()) > 14 * len(network.encoder.dinov2.blocks)
    kept = network.encoder.dinov2.cls_token.clone()
    network.load_state_dict(state, strict=True)
    torch.testing.assert_close(network.encoder.dinov2.cls_token, kept)
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({}, strict=True)


@pytest.mark.parametrize(("k", "limit"), [(10, 10), (10, 3), (1, 5), (50, 7)])
def test_topk_in_rounds_is_topk(k: int, limit: int) -> None:
    scores = torch.rand(3, 50)
    values, places = exact_topk(scores, k, limit)
    expected_values, expected_places = scores.topk(k, dim=1)
    torch.testing.assert_close(values, expected_values)
    torch.testing.assert_close(places, expected_places)


@pytest.mark.parametrize(("config", "shape"), [(DETECTOR_NANO, (2, 1, 64, 96)), (DESCRIPTOR_NANO, (2, 64, 16, 24))])
@torch.no_grad()
def test_nano_shapes(config: NetworkConfig, shape: tuple[int, ...]) -> None:
    assert DeDoDe(config).eval()(torch.zeros(2, 3, 64, 96)).shape == shape


@torch.no_grad()
def test_smaller_scales_are_added_with_their_weights() -> None:
    """The detector also looks at a half and at a quarter of the size."""
    alone = dataclasses.replace(DETECTOR_NANO, smaller=())
    one, three = DeDoDe(alone).eval(), DeDoDe(DETECTOR_NANO).eval()
    three.load_state_dict(one.state_dict())
    image = torch.randn(2, 3, 128, 192)
    expected = one(image)
    for scale, weight in ((2, 0.25), (4, 0.125)):
        smaller = nn.functional.interpolate(image, scale_factor=1 / scale, mode="area")
        seen = nn.functional.interpolate(one(smaller), size=(128, 192), mode="bilinear", align_corners=False)
        expected = expected + weight * seen
    torch.testing.assert_close(three(image), expected)
    assert DETECTOR_NANO.alignment == 64
    assert DETECTOR_NANO.divisor == alone.alignment == 16
    assert three(torch.randn(1, 3, 48, 112)).shape == (1, 1, 48, 112)  # any multiple of the divisor will do


def test_nano_is_small() -> None:
    count = sum(p.numel() for config in (DETECTOR_NANO, DESCRIPTOR_NANO) for p in DeDoDe(config).parameters())
    assert count < 1_000_000  # 4 MB of float32


@pytest.mark.parametrize("half", [False, True])
@torch.no_grad()
def test_nano_describes_what_its_dense_map_says_anywhere(half: bool) -> None:
    """In half precision, which GPUs compute, by another way of sampling."""
    torch.manual_seed(0)
    network = DeDoDe(DESCRIPTOR_NANO).eval()
    randomise(network)
    image, keypoints = torch.randn(2, 3, 64, 112), torch.rand(2, 300, 2) * 2.2 - 1.1
    expected = nn.functional.normalize(sample(network(image), keypoints), dim=-1)
    found = Describe(network.half() if half else network)(image, keypoints)
    torch.testing.assert_close(found, expected, atol=1e-2 if half else 1e-5, rtol=0)


def test_dual_softmax_is_the_product_of_two() -> None:
    torch.manual_seed(0)
    a, b = (nn.functional.normalize(torch.randn(2, n, 16), dim=-1) for n in (30, 40))
    similarity = 20 * a @ b.transpose(1, 2)
    torch.testing.assert_close(DualSoftmax()(a, b), similarity.softmax(1) * similarity.softmax(2))


def test_matcher_finds_the_mutual_maxima() -> None:
    torch.manual_seed(0)
    a, b = (nn.functional.normalize(torch.randn(3, n, 16), dim=-1) for n in (40, 30))
    b[:, :20] = nn.functional.normalize(a[:, 10:30] + 0.1 * torch.randn(3, 20, 16), dim=-1)
    p = DualSoftmax()(a, b)
    expected = (p == p.amax(2, keepdim=True)) & (p == p.amax(1, keepdim=True)) & (p > 0.1)
    place, scores = Matcher(threshold=0.1)(a, b)
    assert place.shape == scores.shape == (3, 40)
    found = torch.zeros_like(expected).scatter_(2, place[..., None], (scores > 0)[..., None])
    assert expected.sum() > 40
    assert torch.equal(found, expected)
    torch.testing.assert_close(scores[scores > 0], p[expected])


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return found


@pytest.mark.parametrize("name", ["dedode-nano", "dedode-l-b", "dedode-l-g"])
def test_the_largest_tensor_of_an_image_is_known(name: str) -> None:
    """Shapes alone: nothing is computed on the meta device."""
    spec, side = FAMILY[name], 1120 // FAMILY[name].alignment * FAMILY[name].alignment
    found = 0
    for config in (spec.detector, spec.descriptor):
        with torch.device("meta"), torch.inference_mode():
            network = DeDoDe(config).eval()
            image, keypoints = torch.empty(2, 3, side, side), torch.empty(2, 64, 2)
            with _Largest() as seen:
                network(image) if config.prototypes < 64 else Describe(network)(image, keypoints)
        largest = config.largest_tensor(side * side)
        assert seen.elements <= 2 * largest
        found = max(found, seen.elements)
        if config.encoder == "vgg19+dinov2":  # its attention is one operation here, and several in ONNX
            assert seen.elements >= dataclasses.replace(config, encoder="vgg19").largest_tensor(side * side)
        else:
            assert seen.elements >= largest  # and not far below
    assert spec.largest_tensor(side * side) >= found / 2
