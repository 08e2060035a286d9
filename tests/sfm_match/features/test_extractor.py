"""The device path (selection and matching as networks, values that stay on the device) gives what the CPU's gives.

It runs here without a GPU: under ONNX Runtime and torch on the CPU, with the same sessions, bindings and graphs.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from exports.registry import FAMILY
from sfm_match.features import dedode as extractor
from sfm_match.features.dedode import DeDoDeExtractor, chosen_model
from sfm_match.features.extractor import NOT_FINITE
from sfm_match.images.loader import Loaded
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.progress import Clock
from sfm_match.models import find_model
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import EngineError, OutOfMemory, Part, Runtime, Value
from sfm_match.runtime.ort import OrtRuntime
from sfm_match.runtime.torch import TorchRuntime
from sfm_match.store.features import Features

ENGINES: dict[str, Callable[[Path], Runtime]] = {
    "onnxruntime": lambda cache: OrtRuntime("cpu", cache, on_device=True),
    "torch": lambda _: TorchRuntime("cpu"),
}


def features(batch: Loaded, runtime: Runtime | None, **options) -> dict[str, Features]:
    chosen = ExtractOptions(**options)
    network = DeDoDeExtractor(chosen_model(chosen), chosen, Counter({(320, 256): len(batch.items)}), runtime)
    found = network.features(batch, Clock())
    assert all(isinstance(one, Features) for one in found.values()), found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subpixel": False, "border": 0},
        {"max_keypoints": 300, "detection_threshold": 1e-5},
        {"turns": True, "max_keypoints": 300},
        {"max_keypoints": 9000},
    ],
    ids=str,
)
def test_the_device_finds_what_the_cpu_finds(engine: str, options: dict, batch: Loaded, tmp_path: Path) -> None:
    expected, found = features(batch, None, **options), features(batch, ENGINES[engine](tmp_path), **options)
    for name, theirs in expected.items():
        ours = found[name]
        assert len(ours.keypoints) == len(theirs.keypoints)
        apart = np.linalg.norm(ours.keypoints[:, None] - theirs.keypoints[None], axis=2)
        same = apart.min(axis=1) < 0.02
        assert same.mean() > 0.995  # the last in rank may change places by rounding
        row = apart.argmin(axis=1)[same]
        np.testing.assert_allclose(ours.scores[same], theirs.scores[row], rtol=2e-3)
        a, b = ours.descriptors[same].astype(np.float32), theirs.descriptors[row].astype(np.float32)
        assert (a * b).sum(axis=1).min() > 0.999 * (4 if options.get("turns") else 1)


def test_half_precision_is_near_single(batch: Loaded, tmp_path: Path) -> None:
    single, chosen = features(batch, None), ExtractOptions()
    halved = find_model("dedode-nano", half=True)
    network = DeDoDeExtractor(halved, chosen, Counter({(320, 256): 3}), OrtRuntime("cpu", tmp_path, on_device=True))
    for name, ours in network.features(batch, Clock()).items():
        assert isinstance(ours, Features)
        apart = np.linalg.norm(ours.keypoints[:, None] - single[name].keypoints[None], axis=2)
        assert (apart.min(axis=1) < 0.5).mean() > 0.95
    assert "fp16" in network.engine


class _Breaking:
    """A runtime that fails as GPUs do."""

    on_device, provider = True, "breaking"

    def __init__(self, inner: Runtime, most: int, *, poison: bool, single: EngineError | None = None) -> None:
        self.workers = WorkerThreads(2)
        self.inner, self.most, self.poison = inner, most, poison
        self.single = single  # what networks in single precision raise
        self.loaded: list[Part] = []

    def load(self, part):
        session, runtime = self.inner.load(part), self
        self.loaded.append(part)

        class Session:
            def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
                if "image" in feeds and feeds["image"].shape()[0] > runtime.most:
                    raise OutOfMemory("full")
                if runtime.single is not None and "image" in feeds and not part.half:
                    raise runtime.single
                found = session.run(feeds)
                if runtime.poison and part.half and "logits" in found:
                    logits = runtime.get(found["logits"]).copy()
                    logits[1, 0, 7, 7] = np.nan
                    found["logits"] = runtime.put("logits", logits)
                return found

        return Session()

    def put(self, name, array):
        return self.inner.put(name, array)

    def get(self, value):
        return self.inner.get(value)

    def free_memory(self):
        return None


def test_a_batch_too_large_is_halved(batch: Loaded, tmp_path: Path) -> None:
    inner = OrtRuntime("cpu", tmp_path, on_device=True)
    found = features(batch, _Breaking(inner, 1, poison=False))
    assert list(found) == [item.name for item in batch.items]
    with pytest.raises(OutOfMemory):
        features(batch, _Breaking(inner, 0, poison=False))


def test_values_that_are_not_finite_are_redone_in_single_precision(batch: Loaded, tmp_path: Path) -> None:
    inner, chosen = OrtRuntime("cpu", tmp_path, on_device=True), ExtractOptions()
    runtime = _Breaking(inner, 9, poison=True)
    network = DeDoDeExtractor(find_model("dedode-nano", half=True), chosen, Counter({(320, 256): 3}), runtime)
    found = network.features(batch, Clock())
    assert network.redone == 1
    # engines of that shape alone, not of every shape of the job
    assert [len(part.profiles) for part in runtime.loaded[5:]] == [1] * 5
    single = features(batch, None)[batch.items[1].name]
    redone = found[batch.items[1].name]
    assert isinstance(redone, Features)
    # the same ones; alone and in a batch, scores differ by a rounding, and so may the order of equals
    apart = np.linalg.norm(redone.keypoints[:, None] - single.keypoints, axis=2)
    np.testing.assert_allclose(redone.scores, single.scores, rtol=0.01)
    assert apart.min(axis=1).max() < 0.02
    assert apart.min(axis=0).max() < 0.02


@pytest.mark.parametrize("error", [OutOfMemory("full"), EngineError("refused")], ids=["memory", "refused"])
def test_a_redo_that_fails_costs_its_image_alone(error: EngineError, batch: Loaded, tmp_path: Path) -> None:
    runtime = _Breaking(OrtRuntime("cpu", tmp_path, on_device=True), 9, poison=True, single=error)
    network = DeDoDeExtractor(find_model("dedode-nano", half=True), ExtractOptions(), Counter({(320, 256): 3}), runtime)
    found = network.features(batch, Clock())
    first, second, third = (found[item.name] for item in batch.items)
    assert second == f"{NOT_FINITE}, and float32 failed: {error}"
    assert isinstance(first, Features)
    assert isinstance(third, Features)
    assert network.redone == 0


def test_no_batch_has_tensors_that_engines_refuse(tmp_path: Path) -> None:
    runtime = OrtRuntime("cpu", tmp_path, on_device=True)
    buckets = Counter({(1024, 512): 1, (512, 1024): 1})  # one engine serves both, and is built for 1024 x 1024
    network = DeDoDeExtractor(find_model("dedode-nano"), ExtractOptions(batch="1024"), buckets, runtime)
    largest = FAMILY["dedode-nano"].largest_tensor(1024 * 1024)
    assert network.batch * largest < 2**31 <= (network.batch + 1) * largest
    assert network.served[0].largest == (network.batch, 1024, 1024)


def test_single_precision_that_is_not_finite_is_a_failure(batch: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = replace(batch, images=batch.images)
    monkeypatch.setattr(extractor, "normalise", lambda image: np.full((3, *image.shape[:2]), np.nan, np.float32))
    chosen = ExtractOptions(device="cpu")
    network = DeDoDeExtractor(chosen_model(chosen), chosen, Counter({(320, 256): 3}))
    assert set(network.features(poisoned, Clock()).values()) == {NOT_FINITE}


def test_lanes_keep_the_order(batch: Loaded, tmp_path: Path) -> None:
    chosen = ExtractOptions()
    network = DeDoDeExtractor(
        chosen_model(chosen),
        chosen,
        Counter({(320, 256): 3}),
        _Breaking(OrtRuntime("cpu", tmp_path, on_device=True), 9, poison=False),
    )
    singles = [
        replace(batch, items=[item], images=batch.images[i : i + 1], masks=[batch.masks[i]])
        for i, item in enumerate(batch.items)
    ] * 3
    clock = Clock()
    found = [next(iter(results)) for _, results in network.each(singles, clock)]
    assert found == [item.name for item in batch.items] * 3
    assert list(clock.spent) == ["network"]


def test_torch_runs_with_cudnn(batch: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cudnn.flags()` turns it off unless told otherwise, for the whole process."""
    seen: list[bool] = []

    def forward(_self: object, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.enabled)
        return pixels.float().permute(0, 3, 1, 2) / 255

    monkeypatch.setattr("exports.graphs.Normalise.forward", forward)
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32
    runtime = TorchRuntime("cpu")
    runtime.on_device = True
    features(batch, runtime)
    assert seen
    assert all(seen)
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32) == before
