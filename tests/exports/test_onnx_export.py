"""Exported files run under ONNX Runtime at other sizes than the traced one, and equal torch.

Those of a tiny network stand in for nano's, which take minutes and are marked slow.
"""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from tiny import TINY, TWO_SCALES

from exports.command import export_onnx
from exports.half_precision import halved
from exports.keypoints import Detect
from exports.networks import DeDoDe, Describe, Matcher
from exports.onnx_export import (
    EndToEnd,
    PairMatcher,
    Shapes,
    export_dense_detector,
    export_descriptor,
    export_detector,
    export_end_to_end,
    export_matcher,
)
from exports.registry import FAMILY, ModelSpec
from exports.weights import Networks, random_networks
from sfm_match.models import BUILT_IN

SIZES = [(2, 3, 64, 96), (6, 3, 112, 48)]
FREE = Shapes((96, 128), dynamic_size=True, dynamic_batch=True, num_keypoints=200)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(
    scope="module", params=[TINY, pytest.param(FAMILY["dedode-nano"], marks=pytest.mark.slow)], ids=["tiny", "nano"]
)
def networks(request: pytest.FixtureRequest) -> Networks:
    return random_networks(request.param)


@pytest.fixture(scope="module")
def detector_file(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    export_detector(networks.detector, path, FREE)
    return path


@pytest.fixture(scope="module")
def descriptor_file(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "descriptor.onnx"
    export_descriptor(networks.descriptor, path, FREE)
    return path


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(
    "member",
    [dataclasses.replace(TINY, detector=TWO_SCALES), pytest.param(FAMILY["dedode-nano"], marks=pytest.mark.slow)],
    ids=["tiny", "nano"],
)
def test_dense_detector(member: ModelSpec, tmp_path: Path) -> None:
    network = random_networks(member).detector
    export_dense_detector(network, tmp_path / "a.onnx")
    run = session(tmp_path / "a.onnx")
    for size in SIZES:
        image = torch.randn(size)
        (logits,) = run.run(["logits"], {"image": image.numpy()})
        np.testing.assert_allclose(logits, network(image).numpy(), atol=1e-4)


@torch.no_grad()
def test_detector(networks: Networks, detector_file: Path) -> None:
    run = session(detector_file)
    for size in SIZES:
        image = torch.randn(size)
        keypoints, scores = run.run(["keypoints", "scores"], {"image": image.numpy()})
        expected, expected_scores = Detect(networks.detector, 200)(image)
        np.testing.assert_allclose(scores, expected_scores.numpy(), rtol=1e-4)
        same = (np.abs(keypoints - expected.numpy()).max(axis=-1) < 1e-6).mean()
        assert same > 0.98  # neighbours in rank may change places by rounding


@torch.no_grad()
def test_detector_of_more_keypoints_than_one_topk_takes(networks: Networks, tmp_path: Path) -> None:
    export_detector(networks.detector, tmp_path / "a.onnx", Shapes((96, 128), num_keypoints=8000))
    image = torch.randn(1, 3, 96, 128)
    keypoints, scores = session(tmp_path / "a.onnx").run(None, {"image": image.numpy()})
    assert keypoints.shape == (1, 8000, 2)
    assert len(np.unique(keypoints[0], axis=0)) == 8000
    assert (np.diff(scores[0]) <= 0).all()
    np.testing.assert_allclose(scores, Detect(networks.detector, 8000)(image)[1].numpy(), rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_descriptor(half: bool, networks: Networks, descriptor_file: Path, tmp_path: Path) -> None:
    path = descriptor_file
    if half:
        path = tmp_path / "half.onnx"
        export_descriptor(halved(networks.descriptor), path, FREE)
    run = session(path)
    for size in SIZES:
        image, keypoints = torch.randn(size), torch.rand(size[0], 11, 2) * 2 - 1
        (descriptors,) = run.run(["descriptors"], {"image": image.numpy(), "keypoints": keypoints.numpy()})
        assert descriptors.dtype == np.float32
        expected = Describe(networks.descriptor)(image, keypoints).numpy()
        assert ((descriptors * expected).sum(-1) > (0.999 if half else 0.999999)).all()


@pytest.mark.slow
@torch.no_grad()
def test_end_to_end_equals_the_three_files_and_torch(
    request: pytest.FixtureRequest, networks: Networks, detector_file: Path, descriptor_file: Path, tmp_path: Path
) -> None:
    matcher = Matcher(threshold=1e-7)  # random descriptors are all alike: no probability is large
    fixed = Shapes((64, 96), batch=3, num_keypoints=200)  # free ones take four times as long
    export_end_to_end(networks, matcher, tmp_path / "all.onnx", fixed if request.node.callspec.id == "tiny" else FREE)
    export_matcher(matcher, 64, tmp_path / "matcher.onnx")
    torch.manual_seed(0)
    images = torch.randn(6, 3, 64, 96)
    images[1::2] = images[0::2].roll(16, dims=3)  # the network's stride: descriptors move along
    whole = session(tmp_path / "all.onnx").run(None, {"images": images.numpy()})
    detector, descriptor = session(detector_file), session(descriptor_file)
    keypoints, _ = detector.run(None, {"image": images.numpy()})
    (described,) = descriptor.run(None, {"image": images.numpy(), "keypoints": keypoints})
    parts = session(tmp_path / "matcher.onnx").run(
        None,
        {
            "keypoints_A": keypoints[0::2],
            "description_A": described[0::2],
            "keypoints_B": keypoints[1::2],
            "description_B": described[1::2],
        },
    )
    module = EndToEnd(Detect(networks.detector, 200), Describe(networks.descriptor), PairMatcher(matcher))
    reference = [part.numpy() for part in module(images)]

    def matches(result: list[np.ndarray]) -> set[tuple[float, ...]]:
        a, b, pair, _, scores = result
        rows = np.concatenate((a, b, pair[:, None]), axis=1)[scores > 0]
        return {tuple(row) for row in rows.round(4).tolist()}

    expected = matches(reference)
    assert len(expected) > 30
    for found in (matches(whole), matches(parts)):  # but for ties of clamped neighbours at the edge
        assert len(found & expected) > 0.97 * len(found | expected)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (Shapes((100, 128)), "multiples of 16"),
        (Shapes((32, 32), num_keypoints=2000), "accepted are 1 to 1024"),
        (Shapes((32, 32), batch=0), "--batch 0: accepted are 1 and more"),
    ],
)
def test_refusals_name_what_is_accepted(shapes: Shapes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes.validate(16)


@torch.no_grad()
@pytest.mark.parametrize("name", ["detector", "descriptor"])
def test_packaged_files_say_what_torch_does_and_suit_a_cpu(name: str) -> None:
    path = BUILT_IN["dedode-nano"] / f"{name}.onnx"
    network = DeDoDe(getattr(FAMILY["dedode-nano"], name)).eval()
    safetensors.torch.load_model(network, str(path.with_suffix(".safetensors")))
    given = {"image": torch.randn(2, 3, 128, 192)}
    if name == "descriptor":
        given["keypoints"] = torch.rand(2, 50, 2) * 2 - 1
    module = Describe(network) if name == "descriptor" else network
    (found,) = session(path).run(None, {key: value.numpy() for key, value in given.items()})
    np.testing.assert_allclose(found, module(**given).numpy(), atol=1e-4)

    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert graph.doc_string == f"Sides of images are multiples of {network.config.alignment} pixels."
    assert all(set(node.input[1:]) <= constants for node in graph.node if node.op_type == "Conv")
    # what enlarges maps says by how much: ONNX Runtime keeps the layout of its convolutions
    computed = [node for node in graph.node if node.op_type == "Resize" and node.input[2] not in constants]
    assert len(computed) == len(network.config.smaller)


@pytest.mark.parametrize("name", ["detector", "descriptor"])
def test_packaged_files_name_no_path_of_the_machine_that_made_them(name: str) -> None:
    path = Path(__file__).parents[2] / "sfm_match" / "models" / "dedode_nano" / f"{name}.onnx"
    onnx.checker.check_model(onnx.load(path))
    content = path.read_bytes()
    assert b".py" not in content
    assert len(content) < 2_000_000


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    (tmp_path / "dedode-nano_matcher.onnx").write_text("mine")
    with pytest.raises(ValueError, match=r"dedode-nano_matcher.onnx is there; add --overwrite"):
        list(export_onnx("dedode-nano", tmp_path, Shapes((64, 64)), parts=("matcher",), random_weights=True))
    assert (tmp_path / "dedode-nano_matcher.onnx").read_text() == "mine"
