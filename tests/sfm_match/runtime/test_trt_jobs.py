"""The native TensorRT backend in extraction and matching, on a fake GPU; its networks against the real builder."""

import json
import os
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda

import sfm_match
from exports.graph_constants import CAPACITIES
from sfm_match.commands.engines import build_engines
from sfm_match.errors import UsageError
from sfm_match.features import device_graphs as parts
from sfm_match.features.dedode import DeDoDeExtractor, selection
from sfm_match.images.coordinates import plan_geometry
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.on_device import MORE, BlockMatcher
from sfm_match.models import BUILT_IN, Weights, find_model
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime.planning import MOST_PAIRS, ranges
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.store.features import Features
from sfm_match.store.matches import read_block

ROOT = Path(__file__).parents[3]


def test_memory_that_is_short_for_a_large_batch_serves_a_smaller_one(
    fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path
) -> None:
    """The working memory of an engine depends on the batch, not on the largest that it could take."""
    from sfm_match.runtime.trt import TrtRuntime

    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    expected = DeDoDeExtractor(find_model("dedode-nano"), options, buckets).features(batch, Clock())
    runtime = TrtRuntime(tmp_path)
    extractor = DeDoDeExtractor(find_model("dedode-nano"), options, buckets, runtime)
    fake_gpu.limit = 2 * 3 * 320 * 256 * 4  # two images in float32
    found = extractor.features(batch, Clock())
    assert list(found) == list(expected)
    assert all(isinstance(one, Features) for one in found.values())


def test_extraction_and_matching_equal_the_cpu_s(fake_gpu: FakeCuda, batch: Loaded, tmp_path: Path) -> None:
    """The whole of a batch through the backend: its sessions, buffers, graphs and engines."""
    from sfm_match.runtime.trt import TrtRuntime

    options, buckets = ExtractOptions(max_keypoints=300, device="cpu"), Counter({(320, 256): 3})
    model, runtime = find_model("dedode-nano"), TrtRuntime(tmp_path)
    host, device = DeDoDeExtractor(model, options, buckets), DeDoDeExtractor(model, options, buckets, runtime)
    expected = host.features(batch, Clock())
    for _ in range(4):  # plain while memory grows, plain, captured, replayed
        found = device.features(batch, Clock())
    assert fake_gpu.launches >= 4
    for name, ours in found.items():
        theirs = expected[name]
        assert isinstance(ours, Features)
        assert isinstance(theirs, Features)
        np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.02)
        np.testing.assert_allclose(ours.descriptors, theirs.descriptors, atol=5e-3)
    views = [found[item.name].descriptors for item in batch.items]  # type: ignore[union-attr]
    pairs = np.array(list(combinations(range(3), 2)), np.int32)
    matched = BlockMatcher(runtime, 0.1, 20.0, images=4, keypoints=300, dimension=64).match_images(views, pairs)
    for (i, j), on_gpu in zip(pairs, matched, strict=True):
        on_cpu = match_descriptors(views[i].astype(np.float32), views[j].astype(np.float32), 0.1)
        np.testing.assert_array_equal(on_gpu.indices, on_cpu.indices)


def test_engines_built_ahead_are_those_of_the_job(
    fake_gpu: FakeCuda, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt as trt

    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path / "weights"))
    options = ExtractOptions(size=320, max_keypoints=300)
    (served,) = build_engines(rendered, [], options)
    assert served.largest == (16, 256, 320)
    built = len(trt.configs)
    assert built == 5
    work = tmp_path / "work"
    sfm_match.extract(rendered, work, size=320, max_keypoints=300)
    assert len(trt.configs) == built
    sfm_match.pairs(work)
    sfm_match.match(work)
    assert len(trt.configs) == built + 2  # matching's two, which depend on no image's shape
    for shard in (*work.glob("features/*"), *work.glob("matches/*")):
        shard.unlink()
    sfm_match.extract(rendered, work, size=320, max_keypoints=300)
    sfm_match.match(work)
    assert len(trt.configs) == built + 2
    assert fake_gpu.streams > 0
    with pytest.raises(UsageError, match="--shapes 100x64: accepted are multiples of 64 for dedode-nano"):
        build_engines(None, [(100, 64)], options)
    with pytest.raises(UsageError, match="accepted are --images DIR, or --shapes"):
        build_engines(None, [], options)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_whole_job_on_the_gpu(
    precision: str, fake_gpu: FakeCuda, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes TensorRT where it is; matches are those of the CPU."""
    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path / "weights"))
    options: dict[str, Any] = {"size": 320, "max_keypoints": 300}
    sfm_match.run(rendered, tmp_path / "cpu", device="cpu", mapper="none", verify=False, **options)
    extracted, _, matched, _ = sfm_match.run(
        rendered, tmp_path / "gpu", precision=precision, batch=1, mapper="none", verify=False, **options
    )
    assert extracted.detail.startswith("TensorRT 11.4.0.106, Fake GPU" + (", fp16" if precision == "auto" else ""))
    assert "TensorRT 11.4.0.106" in matched.detail
    assert fake_gpu.launches > 0
    counts = [
        sum(len(m.indices) for path in (tmp_path / where / "matches").glob("*.h5") for m in read_block(path).matches)
        for where in ("cpu", "gpu")
    ]
    assert abs(counts[0] - counts[1]) <= (0.05 if precision == "auto" else 0.005) * counts[0]
    record = json.loads((tmp_path / "gpu" / "sfm-match.json").read_text())
    assert record["extract"]["precision"] == ("fp16" if precision == "auto" else "fp32")
    with pytest.raises(UsageError, match="precision was"):  # precisions never mix
        other = "fp32" if precision == "auto" else "fp16"
        sfm_match.extract(rendered, tmp_path / "gpu", precision=other, **options)


CHECK = Path(os.environ.get("SFM_MATCH_TRT_CHECK", ROOT.parent / "shared" / "gpu" / "trt_check.sh"))


@pytest.mark.slow
@pytest.mark.skipif(not CHECK.is_file(), reason="no builder check at SFM_MATCH_TRT_CHECK")
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", [*BUILT_IN, "dedode-l-b", "dedode-l-g"])
def test_tensorrt_builds_every_part_with_the_profiles_of_a_job(name: str, half: bool, tmp_path: Path) -> None:
    """Against TensorRT's own parser and builder, which need no GPU to say no."""
    weights = Weights(folder=tmp_path, random=True) if name.startswith("dedode-l") else None
    model = find_model(name, weights, half=half)
    divisor, batch = model.divisor, 8
    wide = plan_geometry((4000, 3000), 1, 1024, divisor).bucket
    small = [plan_geometry(size, 1, 1024, divisor).bucket for size in ((640, 480), (500, 700))]
    served = ranges({wide: 100, small[0]: 3, small[1]: 7}, batch)
    columns = model.spec.dimension + MORE
    every = [parts.match_block(2 * BLOCK, 4096, columns, MOST_PAIRS), parts.join_groups(BLOCK, 4096, columns)]
    for subpixel in (True, False):
        how = selection(model, ExtractOptions(subpixel=subpixel))
        for capacity in CAPACITIES:
            every += parts.on_device(model, how, capacity, served).each()
    checked: set[tuple[str, str]] = set()
    for part in every:
        for profile in part.profiles:
            shapes = json.dumps(profile)
            if (part.path.name, shapes) in checked:
                continue
            checked.add((part.path.name, shapes))
            command = ["bash", str(CHECK), str(part.path), shapes]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (part.path.name, profile, done.stdout, done.stderr)
    # matching's two; for both ranges normalise, detector, selections, descriptors; what is stored knows no shape
    assert len(checked) == 2 + 2 * (1 + 1 + 6 + 3) + 3
