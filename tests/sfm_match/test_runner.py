"""The interface of the earlier port, and its refusals."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import TINY

from exports.command import END_TO_END, export_onnx
from exports.keypoints import Detect
from exports.networks import Describe, Matcher
from exports.onnx_export import EndToEnd, PairMatcher, Shapes, export_end_to_end, export_matcher
from exports.registry import FAMILY
from exports.weights import load_networks, random_networks
from sfm_match.errors import NothingDone, UsageError
from sfm_match.images.files import decode
from sfm_match.models.prepared import checkpoints
from sfm_match.runner import DeDoDeRunner

SHAPES = Shapes((96, 128), num_keypoints=300)


@pytest.fixture(scope="module", params=["tiny", pytest.param("nano", marks=pytest.mark.slow)])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Detector, descriptor, matcher and end to end, of one seeded nano, or of a tiny network in its place.

    Random descriptors are all alike and no probability is large: the threshold of the matchers is low here.
    """
    out = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            patch.setitem(FAMILY, "dedode-nano", TINY)
        parts = ("detector", "descriptor")
        made = [file.path for file in export_onnx("dedode-nano", out, SHAPES, parts=parts, random_weights=True)]
        matcher = Matcher(threshold=1e-7)
        export_matcher(matcher, 64, out / "matcher.onnx")
        export_end_to_end(random_networks(FAMILY["dedode-nano"]), matcher, out / "all.onnx", SHAPES)
    return [*made, out / "matcher.onnx", out / "all.onnx"]


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 144, 3), np.uint8)
    return np.stack([image[:, :128], image[:, 16:]])  # moved by the network's stride: descriptors move along


def test_a_script_for_the_earlier_port_runs(files: list[Path], pair: np.ndarray) -> None:
    detector_path, descriptor_path, matcher_path, end2end_path = map(str, files)
    images = DeDoDeRunner.preprocess(pair)
    assert images.shape == (2, 3, 96, 128)
    assert images.dtype == np.float32
    results = []
    for runner in (
        DeDoDeRunner(detector_path, descriptor_path, matcher_path, None, providers=["CPUExecutionProvider"]),
        DeDoDeRunner(end2end_path=end2end_path),
    ):
        matches_A, matches_B, batch_ids = runner.run(images)  # noqa: N806 - the port's names
        assert matches_A.shape == matches_B.shape == (len(batch_ids), 2)
        a = DeDoDeRunner.postprocess(matches_A, 960, 1280)
        b = DeDoDeRunner.postprocess(matches_B, 960, 1280)
        assert a.min() > 0
        assert (a.max(axis=0) < (1280, 960)).all()
        results.append({tuple(row) for row in np.concatenate((a, b), axis=1).round(2).tolist()})
    assert len(results[0]) > 30
    assert results[0] == results[1]
    same, again, _ = runner.run(images[[0, 0]])
    assert len(same) > 200
    # beside the edge, sampling is clamped: neighbours there have equal descriptors, and either is right
    assert (same == again).all(axis=1).mean() > 0.95
    np.testing.assert_allclose(same, again, atol=0.05)


def test_preprocess_is_the_ports(pair: np.ndarray) -> None:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((pair / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(DeDoDeRunner.preprocess(pair), expected, atol=1e-5)


def test_batches_of_pairs(files: list[Path], pair: np.ndarray) -> None:
    images = DeDoDeRunner.preprocess(np.concatenate((pair, pair[::-1])))
    found = DeDoDeRunner(*map(str, files[:3])).match(images)
    assert set(found.batch_ids.tolist()) == {0, 1}
    first = found.indices[found.batch_ids == 0]
    second = found.indices[found.batch_ids == 1][:, ::-1]
    forward, backward = ({tuple(row) for row in rows.tolist()} for rows in (first, second))
    assert len(forward & backward) > 0.98 * len(forward | backward)  # ties are broken by the first
    assert (found.scores > 0).all()


def test_refusals(files: list[Path], pair: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be joined with detector_path"):
        DeDoDeRunner(detector_path=files[0], end2end_path=files[3])
    with pytest.raises(UsageError, match="or all of"):
        DeDoDeRunner(detector_path=files[0])
    with pytest.raises(NothingDone, match="no such file"):
        DeDoDeRunner(end2end_path=tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match=r"accepted are \(2B, 3, H, W\)"):
        DeDoDeRunner(end2end_path=files[3]).run(DeDoDeRunner.preprocess(pair)[:1])


@pytest.mark.parametrize(
    ("change", "message"), [({"passed": False}, "failed its parity check"), ({"sha256": "0"}, "not the file")]
)
def test_a_file_that_is_not_what_torch_computes_is_refused(
    change: dict, message: str, files: list[Path], tmp_path: Path
) -> None:
    copy = tmp_path / files[0].name
    copy.write_bytes(files[0].read_bytes())
    record = json.loads(files[0].with_suffix(".parity.json").read_text())
    assert record["passed"]
    assert record["keypoint_overlap"] > 0.99
    assert record["not_finite"] == 0
    copy.with_suffix(".parity.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(NothingDone, match=message):
        DeDoDeRunner(copy, files[1], files[2])


@pytest.mark.slow
@pytest.mark.scenes
def test_end_to_end_equals_three_files_and_torch_on_photographs(scenes: Path, tmp_path: Path) -> None:
    frames = sorted((scenes / "fox" / "images").iterdir())[:2]
    height, width = 640, 352
    small = [cv2.resize(decode(frame), (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    images = DeDoDeRunner.preprocess(np.stack(small).astype(np.uint8))
    shapes, weights = Shapes((height, width), num_keypoints=1024), checkpoints("dedode-nano", None)
    detector, descriptor, matcher = (f.path for f in export_onnx("dedode-nano", tmp_path, shapes, weights=weights))
    (whole,) = (f.path for f in export_onnx("dedode-nano", tmp_path, shapes, parts=END_TO_END, weights=weights))

    member = FAMILY["dedode-nano"]
    networks = load_networks(member, weights)
    matching = PairMatcher(Matcher(threshold=member.match_threshold))
    with torch.no_grad():
        module = EndToEnd(Detect(networks.detector, 1024), Describe(networks.descriptor), matching).eval()
        a, b, _, _, scores = (part.numpy() for part in module(torch.from_numpy(images)))
    expected = {tuple(row) for row in np.concatenate((a, b), axis=1)[scores > 0].round(4).tolist()}
    assert len(expected) > 300
    for runner in (DeDoDeRunner(detector, descriptor, matcher), DeDoDeRunner(end2end_path=whole)):
        matches_a, matches_b, _ = runner.run(images)
        found = {tuple(row) for row in np.concatenate((matches_a, matches_b), axis=1).round(4).tolist()}
        assert len(found & expected) > 0.995 * len(found | expected)  # rounding moves the last keypoint in rank
