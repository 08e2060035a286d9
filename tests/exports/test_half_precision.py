"""Half precision in earnest: networks as large inside as published ones, in torch's half arithmetic on the CPU."""

import copy
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from tiny import TINY
from torch import nn

from exports.command import any_size
from exports.half_precision import (
    PUBLISHED_PEAK,
    InHalf,
    compare_in_half,
    enlarge_activations,
    fold_batch_norms,
    halve,
    halved,
    watched,
)
from exports.onnx_export import Shapes, export_descriptor
from exports.parity import check_parity, parity_path
from exports.registry import FAMILY, ModelSpec
from exports.weights import Networks, load_networks, random_networks
from sfm_match.errors import NothingDone
from sfm_match.models import BUILT_IN
from sfm_match.runtime import refuse_failed_export

Network = TypeVar("Network", bound=nn.Module)


def compared(networks: Networks, half: Networks, part: str, side: int) -> InHalf:
    return compare_in_half(networks, half, (part,), (side, side), torch.Generator().manual_seed(1))


def enlarged(member: ModelSpec, part: str, side: int) -> Networks:
    """One of a model's networks with random weights and large activations; the other stays as it is."""
    networks = random_networks(member)
    enlarge_activations(
        getattr(networks, part), torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    )
    return networks


@pytest.fixture(scope="module")
def nano() -> Networks:
    return random_networks(FAMILY["dedode-nano"])


@torch.no_grad()
@pytest.mark.parametrize("part", ["detector", "descriptor"])
def test_folded_is_the_same_in_float32(part: str, nano: Networks) -> None:
    network = getattr(nano, part)
    folded = copy.deepcopy(network)
    fold_batch_norms(folded)
    assert not [layer for layer in folded.modules() if isinstance(layer, nn.BatchNorm2d)]
    image = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(folded(image), network(image), atol=1e-4, rtol=1e-4)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_a_batch_norm_without_a_convolution_is_refused() -> None:
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval()
    with pytest.raises(ValueError, match="no convolution before the batch norms 1"):
        halve(module)


def test_watching_sees_what_relu_hides() -> None:
    convolution = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(convolution.weight, -60000.0)
    module = nn.Sequential(convolution, nn.ReLU()).half()
    with watched(module) as seen, torch.no_grad():
        found = module(torch.full((1, 1, 1, 1), 2.0).half())
    assert found.item() == 0
    assert seen.not_finite == 2  # the convolution's output, ReLU's input
    with torch.no_grad():
        convolution.weight.fill_(float("inf"))
    with watched(module) as seen:
        pass
    assert seen.not_finite == 1  # stored


@torch.no_grad()
def test_enlarged_is_the_same_in_float32(nano: Networks) -> None:
    network = copy.deepcopy(nano.detector)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    enlarge_activations(network, image)
    with watched(network) as seen:
        found = network(image)
    assert seen.largest == pytest.approx(PUBLISHED_PEAK, rel=1e-3)
    torch.testing.assert_close(found, nano.detector(image), atol=0.05, rtol=0)  # a batch norm adds 1e-5 to its variance


@pytest.mark.parametrize("part", ["detector", "descriptor"])
def test_variances_that_half_cannot_hold(part: str) -> None:
    """Halved as they are, networks of that size inside compute something else; folded first, they do not."""
    networks = enlarged(FAMILY["dedode-l-b"], part, 32)
    plain = compared(networks, dataclasses.replace(networks, **{part: naively(getattr(networks, part))}), part, 32)
    assert plain.not_finite > 0
    assert not plain.passed
    mended = compared(networks, dataclasses.replace(networks, **{part: halved(getattr(networks, part))}), part, 32)
    assert mended.not_finite == 0
    assert mended.passed, mended
    if part == "detector":
        assert mended.keypoint_overlap is not None
        assert mended.keypoint_overlap > 0.9
    else:
        assert mended.descriptor_cosine is not None
        assert mended.descriptor_cosine > 0.999


@pytest.mark.slow
def test_dinov2_with_massive_activations() -> None:
    """L-G: a residual stream of several hundred, whose squares half cannot hold."""
    networks = enlarged(FAMILY["dedode-l-g"], "descriptor", 112)
    found = compared(networks, dataclasses.replace(networks, descriptor=halved(networks.descriptor)), "descriptor", 112)
    assert found.largest_activation > 256
    assert found.passed, found
    assert found.descriptor_cosine is not None
    assert found.descriptor_cosine > 0.999


def naively(network: Network) -> Network:
    return copy.deepcopy(network).half()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_packaged_networks_keep_their_features_in_half(name: str) -> None:
    """In real half arithmetic, by the forward that the packaged files are made of."""
    networks = load_networks(FAMILY[name], sorted(BUILT_IN[name].glob("*.safetensors")))
    half = Networks(halved(networks.detector), halved(networks.descriptor))
    for part in ("detector", "descriptor"):
        found = compared(networks, half, part, 128)
        assert found.passed, found


@pytest.mark.parametrize(
    ("member", "shapes"),
    [
        pytest.param(TINY, Shapes((64, 96)), marks=pytest.mark.slow),
        pytest.param(FAMILY["dedode-nano"], any_size("dedode-nano"), marks=pytest.mark.slow),
    ],
    ids=["tiny", "nano"],
)
def test_the_gate_refuses_what_fails_in_half(member: ModelSpec, shapes: Shapes, tmp_path: Path) -> None:
    """ONNX Runtime computes in float32 on the CPU, and finds nothing wrong there."""
    networks, path = enlarged(member, "descriptor", 128), tmp_path / "a_fp16.onnx"
    half = Networks(networks.detector, halved(networks.descriptor))
    export_descriptor(half.descriptor, path, shapes)
    check = partial(check_parity, path, "descriptor", networks, shapes, weights="random", divisor=16)
    good = check(half=half)
    assert good.passed
    assert good.in_half is not None
    assert good.in_half.descriptor_cosine is not None
    assert good.in_half.descriptor_cosine > 0.999
    record = json.loads(parity_path(path).read_text())
    assert record["in_half"]["not_finite"] == 0
    refuse_failed_export(path)
    # records of earlier versions have no such entry
    parity_path(path).write_text(json.dumps({key: record[key] for key in record if key != "in_half"}))
    refuse_failed_export(path)
    bad = check(half=Networks(networks.detector, naively(networks.descriptor)))
    assert bad.in_half is not None
    assert bad.in_half.not_finite > 0
    assert bad.not_finite == 0
    assert not bad.passed
    with pytest.raises(NothingDone, match="failed its parity check"):
        refuse_failed_export(path)
