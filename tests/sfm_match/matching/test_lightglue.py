"""LightGlue as a matcher. With weights that make it a dual softmax, it must find the dual softmax's matches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import sfm_match as command

import exports.lightglue
import sfm_match
from exports.lightglue import WIDTH, random_lightglue
from sfm_match.errors import UsageError
from sfm_match.images.coordinates import centred_upright
from sfm_match.images.files import Header
from sfm_match.matching import lightglue as module
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.lightglue import LightGlueMatcher, block_of
from sfm_match.matching.matcher import MatchSettings
from sfm_match.models.lightglue import prepared_lightglue
from sfm_match.options.stages import MatchOptions
from sfm_match.runtime import OutOfMemory, Runtime
from sfm_match.runtime.ort import OrtRuntime
from sfm_match.runtime.torch import TorchRuntime
from sfm_match.store.matches import Matches

DIMENSION, THRESHOLD = 64, 0.2  # nano's


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint without layers, of which exporting each takes seconds; it makes products of 20 times the cosine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports.lightglue, "LAYERS", 0)
        network = random_lightglue(DIMENSION)
        state = network.state_dict()
        for value in state.values():
            value.zero_()
        state["input_proj.weight"].fill_diagonal_(1)
        state["log_assignment.-1.final_proj.weight"].fill_diagonal_((20 * WIDTH**0.5) ** 0.5)
        state["log_assignment.-1.matchability.bias"].fill_(30)  # every keypoint has a match
        file = tmp_path_factory.mktemp("weights") / "dual.pth"
        torch.save(state, file)
        prepared_lightglue(file, file.parent, DIMENSION)
        yield file


class Images:
    """Three images of the same scene, with different numbers of keypoints."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        common = rng.normal(size=(60, DIMENSION))
        self.names = ("a", "b", "c")
        self.counts = (60, 45, 30)
        noisy = [common[:count] + 0.4 * rng.normal(size=(count, DIMENSION)) for count in self.counts]
        self._descriptors = [(d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float16) for d in noisy]
        self._keypoints = [rng.uniform(0, 480, (count, 2)).astype(np.float32) for count in self.counts]

    def descriptors(self, names: Sequence[str]) -> list[np.ndarray]:
        return [self._descriptors[self.names.index(name)] for name in names]

    def keypoints(self, names: Sequence[str]) -> list[np.ndarray]:
        return [self._keypoints[self.names.index(name)] for name in names]

    def headers(self, names: Sequence[str]) -> list[Header]:
        return [Header(640, 480, 6)] * len(names)


PAIRS = np.array([[0, 1], [0, 2], [1, 2]], np.int32)


def settings() -> MatchSettings:
    return MatchSettings(MatchOptions(), THRESHOLD, 20.0, 1, 60, DIMENSION, 32)


def expected() -> list[Matches]:
    images = Images()
    single = [one.astype(np.float32) for one in images.descriptors(images.names)]
    return [match_descriptors(single[i], single[j], THRESHOLD) for i, j in PAIRS]


def check(found: list[Matches], wanted: list[Matches]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert len(other.indices) > 10
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.scores.astype(float), other.scores.astype(float), atol=2e-3)


def on_device(kind: str, folder: Path) -> Runtime:
    return TorchRuntime("cpu") if kind == "torch" else OrtRuntime("cpu", folder, on_device=kind == "bound")


@pytest.mark.parametrize("kind", ["host", "bound", "torch"])
def test_the_matches_of_a_block(kind: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair by pair on the CPU; on a device padded, two pairs a call, the last call filled up."""
    monkeypatch.setattr(module, "STEP", 16)
    monkeypatch.setattr(module, "pairs_a_call", lambda *_: 2)
    path = prepared_lightglue(weights, weights.parent, DIMENSION)
    told: list[int] = []
    matcher = LightGlueMatcher(on_device(kind, tmp_path), path, weights, settings(), told.append)
    check(matcher.match([("a", "b"), ("c",)], Images(), PAIRS), expected())
    assert told == ([1, 1, 1] if kind == "host" else [2, 1])
    assert matcher.engine.startswith("LightGlue, ")


def test_memory_that_is_short_means_fewer_pairs(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 16)
    monkeypatch.setattr(module, "pairs_a_call", lambda *_: 4)
    path = prepared_lightglue(weights, weights.parent, DIMENSION)
    matcher = LightGlueMatcher(on_device("bound", tmp_path), path, weights, settings())
    run, tried, fed = matcher._session.run, list[int](), dict[str, Any]()

    def short(feeds: Any) -> Any:
        fed.update(feeds)
        tried.append(len(feeds["pairs"].numpy()))
        if tried[-1] > 1:
            raise OutOfMemory("no memory")
        return run(feeds)

    monkeypatch.setattr(matcher._session, "run", short)
    check(matcher.match([("a", "b"), ("c",)], Images(), PAIRS), expected())
    assert tried == [4, 1, 1, 1]
    # the last pair's, upright and from the centre, then padding
    images = Images()
    (points,) = images.keypoints(["b"])
    np.testing.assert_array_equal(fed["keypoints"].numpy()[0, :45], centred_upright(points, (640, 480), 6))
    assert not fed["keypoints"].numpy()[0, 45:].any()


def test_a_block_is_padded() -> None:
    images = Images()
    block = block_of(images.keypoints(images.names), images.descriptors(images.names), 50)
    assert block["counts"].tolist() == [60, 45, 30]
    assert block["keypoints"].shape == (3, 60, 2)
    assert block["descriptors"].dtype == np.float16
    assert not block["descriptors"][2, 30:].any()


def test_a_job_with_lightglue(weights: Path, workspace: Path) -> None:
    """In place of the dual softmax, whose matches a finished job holds; its weights are part of the fingerprint."""
    before = {pair: sfm_match.open(workspace).matches(*pair) for pair in sfm_match.open(workspace).pairs}
    chosen = ("--matcher", "lightglue", "--matcher-weights", weights, "--weights-dir", weights.parent)
    options = ("match", "--workspace", workspace, "--match-threshold", THRESHOLD, *chosen)
    refused = command(*options)
    assert refused.returncode == 2
    assert "--matcher was dual-softmax, now lightglue" in refused.stderr
    done = command(*options, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "LightGlue, ONNX Runtime" in done.stdout
    results = sfm_match.open(workspace)
    found = {pair: results.matches(*pair) for pair in results.pairs}
    assert found.keys() == before.keys()
    same = [len(set(map(tuple, found[p].indices)) & set(map(tuple, before[p].indices))) for p in before]
    assert sum(same) > 0.995 * max(sum(len(m.indices) for m in every.values()) for every in (found, before)) > 500
    other = weights.with_name("other.pth")
    torch.save(torch.load(weights) | {"posenc.Wr.weight": torch.zeros(32, 2)}, other)
    refused = command(*(other if word is weights else word for word in options))
    assert refused.returncode == 2
    assert "--matcher-weights was" in refused.stderr


def test_published_weights_that_are_not_here_are_missed_at_once(rendered: Path, tmp_path: Path) -> None:
    job = ("run", "--images", rendered, "--workspace", tmp_path / "work", "--matcher", "lightglue")
    none = command(*job)
    assert none.returncode == 2
    assert "--matcher lightglue: none was published for this model" in none.stderr
    absent = command(*job, "--model", "dedode-l-b", "--random-weights", "--weights-dir", tmp_path)
    assert absent.returncode == 3
    assert "dedodeb_lightglue.pth: absent; run `sfm-match models download lightglue-dedode-b`" in absent.stderr
    assert not list((tmp_path / "work").glob("features/*"))
    turned = command(*job, "--turns")
    assert turned.returncode == 2
    assert "--matcher lightglue: not with --turns" in turned.stderr


def test_weights_for_other_descriptors(weights: Path) -> None:
    with pytest.raises(UsageError, match=r"dual\.pth: a LightGlue for descriptors of 64 values; these have 256"):
        prepared_lightglue(weights, weights.parent, 256)


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"w\.pth: not a LightGlue"):
        prepared_lightglue(tmp_path / "w.pth", tmp_path, 256)
