"""What only a GPU can show. Every engine that this machine has, against the CPU."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import sfm_match
from sfm_match.features.dedode import DeDoDeExtractor
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.on_device import BlockMatcher
from sfm_match.models import find_model
from sfm_match.options.devices import DEVICES
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import create_runtime
from sfm_match.runtime.devices import why_not
from sfm_match.runtime.gpus import gpus
from sfm_match.store.features import Features

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU with a driver")]
ENGINES = [device for device in DEVICES if device not in ("auto", "cpu")]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    reason = why_not(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return str(request.param)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_features_and_matches_are_those_of_the_cpu(engine: str, half: bool, batch: Loaded, tmp_path: Path) -> None:
    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    expected = DeDoDeExtractor(find_model("dedode-nano"), options, buckets).features(batch, Clock())
    runtime = create_runtime(engine, tmp_path)
    device = DeDoDeExtractor(find_model("dedode-nano", half=half), options, buckets, runtime)
    for _ in range(3):  # plain, captured, replayed
        found = device.features(batch, Clock())
    views = []
    for name, ours in found.items():
        theirs = expected[name]
        assert isinstance(ours, Features)
        assert isinstance(theirs, Features)
        apart = np.linalg.norm(theirs.keypoints[:, None] - ours.keypoints[None], axis=2)
        near = apart.min(axis=1) < 0.5
        assert near.mean() > (0.95 if half else 0.99)
        a, b = theirs.descriptors[near], ours.descriptors[apart.argmin(axis=1)[near]]
        assert (a.astype(np.float32) * b.astype(np.float32)).sum(axis=1).mean() > 0.99
        views.append(ours.descriptors)
    pairs = np.array(list(combinations(range(3), 2)), np.int32)
    matched = BlockMatcher(runtime, 0.1, 20.0, images=4, keypoints=300, dimension=64).match_images(views, pairs)
    for (i, j), on_gpu in zip(pairs, matched, strict=True):
        on_cpu = match_descriptors(views[i].astype(np.float32), views[j].astype(np.float32), 0.1)
        same = {tuple(row) for row in on_gpu.indices.tolist()} & {tuple(row) for row in on_cpu.indices.tolist()}
        assert len(same) >= 0.98 * max(len(on_gpu.indices), len(on_cpu.indices))


def test_a_job_and_its_caches(engine: str, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path / "weights"))
    for work in ("first", "second"):
        reports = sfm_match.run(
            rendered, tmp_path / work, device=engine, batch=2, size=320, max_keypoints=500, mapper="none"
        )
        assert reports[0].facts["total"] == 6
        built = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "weights").rglob("*.engine")}
        if work == "first":
            first = built
    assert built == first  # the second job builds nothing
    assert bool(built) == (engine in ("tensorrt", "ort-tensorrt"))
