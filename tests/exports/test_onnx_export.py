"""Exported files run under ONNX Runtime at other sizes than the traced one, and equal torch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from exports.config import DESCRIPTOR_NANO, DETECTOR_NANO
from exports.networks import DeDoDe, Describe, Matcher
from exports.onnx_export import export_descriptor, export_detector, export_matcher

SIZES = [(1, 3, 64, 96), (3, 3, 112, 48)]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@torch.no_grad()
def test_detector(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DeDoDe(DETECTOR_NANO).eval()
    export_detector(network, tmp_path / "detector.onnx")
    run = session(tmp_path / "detector.onnx")
    for size in SIZES:
        image = torch.randn(size)
        (logits,) = run.run(["logits"], {"image": image.numpy()})
        np.testing.assert_allclose(logits, network(image).numpy(), atol=1e-4)


@torch.no_grad()
def test_descriptor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DeDoDe(DESCRIPTOR_NANO).eval()
    export_descriptor(network, tmp_path / "descriptor.onnx")
    run = session(tmp_path / "descriptor.onnx")
    for size in SIZES:
        image, keypoints = torch.randn(size), torch.rand(size[0], 11, 2) * 2 - 1
        (descriptors,) = run.run(["descriptors"], {"image": image.numpy(), "keypoints": keypoints.numpy()})
        np.testing.assert_allclose(descriptors, Describe(network)(image, keypoints).numpy(), atol=1e-5)


@torch.no_grad()
def test_matcher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_matcher(Matcher(), 64, tmp_path / "matcher.onnx")
    run = session(tmp_path / "matcher.onnx")
    a, b = (torch.nn.functional.normalize(torch.randn(2, n, 64), dim=-1) for n in (50, 31))
    b[:, :20] = a[:, 10:30]
    matches, scores = run.run(None, {"descriptors0": a.numpy(), "descriptors1": b.numpy()})
    expected_matches, expected_scores = Matcher()(a, b)
    assert len(matches) >= 40
    np.testing.assert_array_equal(matches, expected_matches.numpy())
    np.testing.assert_allclose(scores, expected_scores.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["detector", "descriptor"])
def test_packaged_files_name_no_path_of_the_machine_that_made_them(name: str) -> None:
    path = Path(__file__).parents[2] / "sfm_match" / "models" / "dedode_nano" / f"{name}.onnx"
    onnx.checker.check_model(onnx.load(path))
    content = path.read_bytes()
    assert b".py" not in content
    assert len(content) < 2_000_000
