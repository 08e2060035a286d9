"""Matching as a network finds what numpy finds, with images of different numbers of keypoints."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.matcher import DescriptorsOnly
from sfm_match.matching.on_device import BlockMatcher
from sfm_match.runtime import OutOfMemory, Runtime
from sfm_match.runtime.ort import OrtRuntime
from sfm_match.runtime.torch import TorchRuntime

ENGINES: dict[str, Callable[[Path], Runtime]] = {
    "onnxruntime": lambda cache: OrtRuntime("cpu", cache, on_device=True),
    "torch": lambda _: TorchRuntime("cpu"),
}


def block(counts: list[int], dimension: int = 64) -> list[np.ndarray]:
    """Views of the same 200 descriptors, with noise, in different orders and numbers."""
    rng = np.random.default_rng(0)
    world = rng.normal(size=(200, dimension))
    views = []
    for count in counts:
        seen = world[rng.permutation(200)[:count]] + rng.normal(0, 0.3, (count, dimension))
        views.append((seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float16))
    return views


@pytest.mark.parametrize("engine", ENGINES)
def test_as_numpy(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.matching.on_device.pairs_a_call", lambda *_: 4)  # ten pairs take three calls
    counts = [200, 150, 1, 80, 199]
    views = block(counts)
    pairs = np.array(list(combinations(range(5), 2)), np.int32)
    done: list[int] = []
    matcher = BlockMatcher(
        ENGINES[engine](tmp_path), 0.1, 20.0, images=6, keypoints=256, dimension=64, advance=done.append
    )
    found = matcher.match_images(views, pairs)
    assert sum(done) == len(pairs)
    for (i, j), ours in zip(pairs, found, strict=True):
        theirs = match_descriptors(views[i].astype(np.float32), views[j].astype(np.float32), 0.1)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_allclose(ours.scores.astype(np.float32), theirs.scores.astype(np.float32), atol=2e-3)
    assert min(len(m.indices) for m, (i, j) in zip(found, pairs, strict=True) if 2 not in (i, j)) > 10


def test_padding_never_matches(tmp_path: Path) -> None:
    """An image with few keypoints against one with many, at the strictest and the loosest."""
    views = block([3, 200])
    for temperature in (1.0, 20.0, 40.0):
        matcher = BlockMatcher(
            OrtRuntime("cpu", tmp_path, on_device=True), 1e-6, temperature, images=2, keypoints=512, dimension=64
        )
        (found,) = matcher.match_images(views, np.array([[0, 1]], np.int32))
        few, many = (view.astype(np.float32) for view in views)
        theirs = match_descriptors(few, many, 1e-6, temperature)
        np.testing.assert_array_equal(found.indices, theirs.indices)
        np.testing.assert_allclose(found.scores.astype(np.float32), theirs.scores.astype(np.float32), atol=2e-3)


def test_memory_that_is_short_halves_the_call(tmp_path: Path) -> None:
    views, pairs = block([50] * 4), np.array(list(combinations(range(4), 2)), np.int32)
    matcher = BlockMatcher(OrtRuntime("cpu", tmp_path, on_device=True), 0.1, 20.0, images=4, keypoints=64, dimension=64)
    inner = matcher._session

    class Small:
        def run(self, feeds):
            if feeds["pairs"].shape()[0] > 2:
                raise OutOfMemory("full")
            return inner.run(feeds)

    matcher._session = Small()
    assert len(matcher.match_images(views, pairs)) == 6
    assert matcher._pairs == 2


def test_groups_stay_on_the_device(tmp_path: Path) -> None:
    """Descriptors are read and sent once while their group is among the last ones used, and never taken for others'."""
    views = {f"{group}{n}": view for group in range(6) for n, view in enumerate(block([40, 30, 20]))}
    rng = np.random.default_rng(1)
    views = {name: view[rng.permutation(len(view))] for name, view in views.items()}
    groups = [tuple(f"{group}{n}" for n in range(3)) for group in range(6)]
    read: list[str] = []

    def reading(names):
        read.extend(names)
        return [views[name] for name in names]

    runtime = OrtRuntime("cpu", tmp_path, on_device=True)
    matcher = BlockMatcher(runtime, 0.1, 20.0, images=8, keypoints=64, dimension=64)
    for first, second in ((0, 1), (0, 2), (1, 2), (0, 0), (0, 3), (4, 3), (5, 3), (0, 3)):
        mine, other = groups[first], groups[second] if second != first else ()
        names = [*mine, *other]
        pairs = np.array([(0, len(names) - 1), (len(names) - 2, 1)], np.int32)
        for (i, j), ours in zip(pairs, matcher.match([mine, other], DescriptorsOnly(reading), pairs), strict=True):
            a, b = (views[names[n]].astype(np.float32) for n in (i, j))
            theirs = match_descriptors(a, b, 0.1)
            np.testing.assert_array_equal(ours.indices, theirs.indices)
    # group 0 is sent twice: 4, 3 and 5 came between
    assert [read.count(f"{group}0") for group in range(6)] == [1, 1, 1, 1, 1, 1]
    matcher.match([groups[1], groups[2]], DescriptorsOnly(reading), pairs)
    assert [read.count(f"{group}0") for group in range(6)] == [1, 2, 2, 1, 1, 1]
