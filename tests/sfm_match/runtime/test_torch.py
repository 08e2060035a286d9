"""What torch does on CUDA that can be shown without it: when a shape is captured, and by whom."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from exports.half_precision import enlarge_activations
from exports.networks import Describe
from exports.registry import FAMILY
from exports.weights import random_networks
from sfm_match.features import device_graphs as parts
from sfm_match.runtime import OutOfMemory, Part
from sfm_match.runtime import torch as backend
from sfm_match.runtime.planning import Range
from sfm_match.runtime.torch import TorchRuntime, TorchSession


class Recorder:
    """Stands in for a CUDA graph. Two at once, or one beside a plain run, would spoil one another."""

    made: list[tuple[int, ...]]
    failures: int
    busy: threading.Lock
    overlaps: int

    def __init__(self, module: Any, given: tuple[Tensor, ...], _pool: Any) -> None:
        cls = type(self)
        cls.made.append(tuple(given[0].shape))
        if not cls.busy.acquire(blocking=False):
            cls.overlaps += 1
        time.sleep(0.005)
        cls.busy.release()
        if len(cls.made) <= cls.failures:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._module = module

    def __call__(self, *given: Tensor) -> Any:
        return self._module(*given)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> TorchSession:
    runtime = TorchRuntime("cpu")
    monkeypatch.setattr(runtime, "graph_pool", lambda: None)
    recorder = type("Graphs", (Recorder,), {"made": [], "failures": 0, "busy": threading.Lock(), "overlaps": 0})
    monkeypatch.setattr(backend, "_Graph", recorder)
    return runtime.load(parts.normalise([Range((1, 8, 8), (1, 8, 8), (2, 16, 16))]))


def pixels(batch: int, value: int = 0) -> tuple[Tensor]:
    return (torch.full((batch, 8, 8, 3), value, dtype=torch.uint8),)


def test_a_shape_is_captured_when_it_comes_again(session: TorchSession) -> None:
    for _ in range(4):
        session._replayed(pixels(1))
    assert backend._Graph.made == [(1, 8, 8, 3)]  # type: ignore[attr-defined]
    session._replayed(pixels(2))
    assert len(backend._Graph.made) == 1  # type: ignore[attr-defined]


def test_a_capture_is_tried_three_times(session: TorchSession) -> None:
    graphs: Any = backend._Graph
    graphs.failures = 2
    found = [session._replayed(pixels(1, value)) for value in range(6)]
    assert len(graphs.made) == 3
    for value, ours in enumerate(found):  # each is of its own input, captured or not
        torch.testing.assert_close(ours, session._module(*pixels(1, value)))
    graphs.made.clear()
    graphs.failures = 99
    for _ in range(9):
        session._replayed(pixels(2))
    assert len(graphs.made) == 3


def test_threads_capture_one_after_the_other(session: TorchSession) -> None:
    def work() -> None:
        for batch in range(1, 9):
            for _ in range(3):
                session._replayed(pixels(batch))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    graphs: Any = backend._Graph
    assert len(graphs.made) == 16  # each thread its own
    assert graphs.overlaps == 0


@pytest.mark.parametrize("text", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "CUDA out of memory. Tried"])
def test_memory_that_is_short_is_told_apart(text: str) -> None:
    with pytest.raises(OutOfMemory), TorchRuntime("cpu").working():
        raise RuntimeError(text)


@pytest.mark.parametrize("half", [False, True])
def test_halving_folds_batch_norms_first(half: bool) -> None:
    """Variances that half cannot hold, as batch norms of published networks may have, do not reach it."""
    networks = random_networks(FAMILY["dedode-nano"])
    image, keypoints = torch.randn(1, 3, 128, 128), torch.rand(1, 32, 2) * 2 - 1
    enlarge_activations(networks.descriptor, image)
    with torch.no_grad():
        expected = Describe(networks.descriptor)(image, keypoints).numpy()
    part = Part(Path("none.onnx"), lambda: Describe(networks.descriptor), ("descriptors",), half=half)
    runtime = TorchRuntime("cpu")
    session = runtime.load(part)
    found = session.run({"image": image, "keypoints": keypoints})["descriptors"].numpy()
    assert ((found * expected).sum(axis=-1) > (0.999 if half else 0.99999)).all()
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in networks.descriptor.modules()) == (not half)
