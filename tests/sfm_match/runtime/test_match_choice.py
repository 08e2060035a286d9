"""The choice between MatchBlock and kernels that claim to be faster, with kernels that are not there. No Triton."""

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exports.graphs import MatchBlock
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.on_device import BlockMatcher, packed
from sfm_match.runtime import EngineError, OutOfMemory, match_choice
from sfm_match.runtime import torch as backend
from sfm_match.runtime.match_choice import MatchChooser, disagreement, fused_matchers, made
from sfm_match.runtime.torch import TorchRuntime

Found = tuple[Tensor, Tensor]


class Kernel(nn.Module):
    """Stands in for Triton's: MatchBlock, changed."""

    def __init__(self, seconds: float, change: Callable[[Tensor, Tensor], Found] = lambda p, s: (p, s)) -> None:
        super().__init__()
        self.seconds, self.change, self.calls, self.inner = seconds, change, 0, MatchBlock()

    def forward(self, descriptors: Tensor, pairs: Tensor, inverse_temperature: Tensor) -> Found:
        self.calls += 1
        return self.change(*self.inner(descriptors, pairs, inverse_temperature))


def failing(error: Exception) -> Kernel:
    def fail(_places: Tensor, _scores: Tensor) -> Found:
        raise error

    return Kernel(0.1, fail)


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are what a kernel says: a run counts, and its failure is one."""

    def seconds(module: Any, given: Any) -> float:
        module(*given)
        return float(module.seconds)

    monkeypatch.setattr(match_choice, "_seconds", seconds)


def views(counts: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    world = rng.normal(size=(max(counts), 24))
    found = []
    for count in counts:
        seen = world[rng.permutation(len(world))[:count]] + rng.normal(0, 0.3, (count, 24))
        found.append((seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float16))
    return found


def call(pairs: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(packed(views([20, 30]), 32)), torch.tensor([[0, 1]] * pairs), torch.tensor([20.0])


def run(chooser: MatchChooser, given: tuple[Tensor, Tensor, Tensor]) -> None:
    """What it finds is MatchBlock's."""
    places, scores = chooser(*given)
    expected_places, expected_scores = MatchBlock()(*given)
    assert torch.equal(places, expected_places)
    assert torch.equal(scores, expected_scores)


def test_the_fastest_that_agrees_is_kept_for_the_shape() -> None:
    reference, fast, faster = Kernel(1.0), Kernel(0.5), Kernel(0.25)
    chooser = MatchChooser(reference, {"fast": fast, "faster": faster})
    assert chooser.note == ""
    run(chooser, call())
    before = reference.calls, fast.calls, faster.calls
    for _ in range(3):
        run(chooser, call())
    assert (reference.calls, fast.calls, faster.calls) == (before[0], before[1], before[2] + 3)
    assert chooser.note == "matching by faster (a call: faster 250.00 ms, fast 500.00 ms, torch 1000.00 ms)"
    run(chooser, call(4))  # another shape is another choice
    assert fast.calls > before[1]


def test_one_that_is_slower_is_left() -> None:
    slow = Kernel(2.0)
    chooser = MatchChooser(Kernel(1.0), {"slow": slow})
    run(chooser, call())
    calls = slow.calls
    run(chooser, call())
    assert slow.calls == calls
    assert chooser.note == "matching by torch (a call: torch 1000.00 ms, slow 2000.00 ms)"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda places, scores: ((places + 1) % 32, scores), "matches differ"),
        (lambda places, scores: (places, torch.zeros_like(scores)), "matches differ"),
        (lambda places, scores: (places, scores + 0.01), "matches differ"),
        (lambda places, scores: (places, torch.where(scores > 0, scores, float("nan"))), "no numbers"),
    ],
)
def test_one_that_disagrees_is_left(change: Callable[[Tensor, Tensor], Found], text: str) -> None:
    chooser = MatchChooser(Kernel(1.0), {"wrong": Kernel(0.1, change), "good": Kernel(0.5)})
    run(chooser, call())
    run(chooser, call())
    assert chooser.note.startswith("matching by good")
    assert text in chooser.note
    alone = MatchChooser(Kernel(1.0), {"wrong": Kernel(0.1, change)})
    run(alone, call())
    run(alone, call())
    assert alone.note.startswith("matching by torch (wrong: ")
    assert text in alone.note


def test_one_that_finds_nothing_does_not_pass_because_there_is_nothing() -> None:
    """A first call without any match says nothing; the made block has many."""
    blind = Kernel(0.1, lambda places, scores: (places, torch.zeros_like(scores)))
    chooser = MatchChooser(Kernel(1.0), {"blind": blind})
    empty = torch.from_numpy(packed([np.empty((0, 24), np.float16)] * 2, 32))
    run(chooser, (empty, *call()[1:]))
    assert chooser.note.startswith("matching by torch (blind: ")


@pytest.mark.parametrize("error", [ValueError("no\nsuch  layout"), RuntimeError("PTXAS error"), AssertionError()])
def test_a_compiler_s_exception_ends_no_job(error: Exception) -> None:
    chooser = MatchChooser(Kernel(1.0), {"broken": failing(error)})
    run(chooser, call())
    run(chooser, call())
    assert chooser.note == f"matching by torch (broken: {type(error).__name__}: {' '.join(str(error).split())})"


def test_one_that_fails_later_is_left_then() -> None:
    late = Kernel(0.1)
    chooser = MatchChooser(Kernel(1.0), {"late": late})
    run(chooser, call())
    late.change = failing(RuntimeError("illegal instruction")).change
    run(chooser, call())
    calls = late.calls
    run(chooser, call())
    assert late.calls == calls
    assert chooser.note == "matching by torch (late: RuntimeError: illegal instruction)"


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("Triton Error [CUDA]: out of memory")],
)
def test_memory_that_is_short_is_no_verdict(error: Exception) -> None:
    full = failing(error)
    chooser = MatchChooser(Kernel(1.0), {"full": full})
    with pytest.raises((torch.OutOfMemoryError, OutOfMemory)):
        chooser(*call())
    full.change = lambda places, scores: (places, scores)
    run(chooser, call())  # nothing was decided
    assert chooser.note.startswith("matching by full")
    full.change = failing(error).change
    with pytest.raises((torch.OutOfMemoryError, OutOfMemory)):
        chooser(*call())
    assert chooser.note.startswith("matching by full")


def test_shared_memory_that_is_short_is_a_verdict() -> None:
    text = "out of resource: shared memory, Required: 209920, Hardware limit: 101376"
    chooser = MatchChooser(Kernel(1.0), {"large": failing(ValueError(text)), "small": Kernel(0.5)})
    run(chooser, call())
    assert chooser.note.startswith("matching by small")
    assert "Required: 209920" in chooser.note


def test_by_force() -> None:
    wrong = Kernel(9.0, lambda places, scores: (places, scores + 1))
    chooser = MatchChooser(Kernel(1.0), {"wrong": wrong}, force=True)
    assert (chooser(*call())[1] >= 1).all()
    several = MatchChooser(Kernel(1.0), {"slow": Kernel(9.0), "quick": Kernel(3.0)}, force=True)
    run(several, call())
    assert several.note == "matching by quick (as asked for)"
    with pytest.raises(EngineError, match="broken: ValueError: no"):
        MatchChooser(Kernel(1.0), {"broken": failing(ValueError("no"))}, force=True)(*call())
    with pytest.raises(EngineError, match=r"a: ValueError: no; b: ValueError: nor"):
        MatchChooser(Kernel(1.0), {"a": failing(ValueError("no")), "b": failing(ValueError("nor"))}, force=True)(
            *call()
        )


def test_while_a_stream_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is chosen, nothing is recorded, and what fails is an error that a capture may have."""
    kernel = Kernel(0.1)
    chooser = MatchChooser(Kernel(1.0), {"kernel": kernel})
    monkeypatch.setattr(match_choice, "_capturing", lambda _: True)
    run(chooser, call())
    assert kernel.calls == 0
    monkeypatch.setattr(match_choice, "_capturing", lambda _: False)
    run(chooser, call())
    monkeypatch.setattr(match_choice, "_capturing", lambda _: True)
    kernel.change = failing(ValueError("not now")).change
    with pytest.raises(RuntimeError, match="not now"):
        chooser(*call())
    kernel.change = lambda places, scores: (places, scores)
    run(chooser, call())
    assert chooser.note.startswith("matching by kernel")


def test_some_matches_may_differ_by_rounding() -> None:
    scores, places = torch.full((1, 2000), 0.5), torch.arange(2000)[None]
    assert disagreement((places, scores), (places, scores)) is None
    other = places.clone()
    other[0, :2] = 7
    assert disagreement((other, scores), (places, scores)) is None
    other[0, :3] = 7
    assert disagreement((other, scores), (places, scores)) == "3 of 2,000 matches differ"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_made_block_has_matches_and_padding(dtype: torch.dtype) -> None:
    given = made(torch.zeros(7, 96, 32, dtype=dtype), 10)
    assert given[0].shape == (4, 96, 32)
    assert given[0].dtype == dtype
    assert given[1].shape == (10, 2)
    assert (given[1][:, 0] != given[1][:, 1]).sum() >= 5
    _, scores = MatchBlock()(*given)
    assert int((scores > 0.1).sum()) > 100
    again = made(torch.zeros(7, 96, 32, dtype=dtype), 10)
    assert all(torch.equal(one, other) for one, other in zip(given, again, strict=True))


class FakeTriton(types.ModuleType):
    def __init__(self, interpreted: bool) -> None:
        super().__init__("triton")
        self.knobs = types.SimpleNamespace(runtime=types.SimpleNamespace(interpret=interpreted))


def fake_triton(monkeypatch: pytest.MonkeyPatch, *, interpreted: bool = False) -> None:
    kernels = types.ModuleType("sfm_match.runtime.fused_softmax")
    tiles = [types.SimpleNamespace(rows=128, columns=64), types.SimpleNamespace(rows=64, columns=32)]
    kernels.__dict__.update(HALF_TILES=tiles, FusedMatchBlock=lambda tile: tile)
    monkeypatch.setitem(sys.modules, "triton", FakeTriton(interpreted))
    monkeypatch.setitem(sys.modules, "sfm_match.runtime.fused_softmax", kernels)
    monkeypatch.setattr("sfm_match.runtime.fused_softmax", kernels, raising=False)


def test_where_there_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert fused_matchers(gpu) == ({}, "Triton is not installed")
    fake_triton(monkeypatch)
    assert fused_matchers(cpu) == ({}, "no GPU, and Triton's interpreter is off")
    assert fused_matchers(torch.device("mps")) == ({}, "no kernels for mps")
    asked: list[Any] = []
    capability = (7, 5)

    def told(place: Any) -> tuple[int, int]:
        asked.append(place)
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", told)
    assert fused_matchers(gpu) == ({}, "compute capability 8.0 is needed")
    capability = (8, 9)
    kernels, reason = fused_matchers(gpu)
    assert (list(kernels), reason) == (["Triton 128x64", "Triton 64x32"], "")
    assert asked == [gpu, gpu]
    fake_triton(monkeypatch, interpreted=True)
    assert list(fused_matchers(cpu)[0]) == ["Triton's interpreter"]


def test_a_triton_that_does_not_load_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        @property
        def knobs(self) -> Any:
            raise OSError("libtriton.so: undefined symbol")

    fake_triton(monkeypatch)
    monkeypatch.setitem(sys.modules, "triton", Broken("triton"))
    assert fused_matchers(torch.device("cuda")) == ({}, "Triton: OSError: libtriton.so: undefined symbol")


def candidates(*kernels: nn.Module) -> Callable[[Any], tuple[dict[str, nn.Module], str]]:
    return lambda _: ({f"kernel {number}": kernel for number, kernel in enumerate(kernels)}, "")


def test_a_runtime_uses_kernels_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(0.1)
    monkeypatch.setattr(backend, "fused_matchers", candidates(kernel))
    images = views([20, 30])
    first, second = (one.astype(np.float32) for one in images)
    expected = match_descriptors(first, second, 0.1)
    for fused, note in ((None, ""), (False, ""), (True, "matching by kernel 0 (as asked for)")):
        matcher = BlockMatcher(TorchRuntime("cpu", fused=fused), 0.1, 20.0, images=2, keypoints=32, dimension=24)
        (found,) = matcher.match_images(images, np.array([[0, 1]], np.int32))
        np.testing.assert_array_equal(found.indices, expected.indices)
        assert matcher.note == note
    assert kernel.calls == 1


def test_a_runtime_says_why_it_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "fused_matchers", lambda _: ({}, "Triton is not installed"))
    reference = nn.Identity()
    runtime = TorchRuntime("cpu", fused=True)
    with pytest.raises(EngineError, match="fused matching: Triton is not installed"):
        runtime.with_kernels(reference)
    runtime = TorchRuntime("cpu")
    runtime.device = "cuda"  # by default, on a GPU
    assert runtime.with_kernels(reference) == (reference, "matching by torch (Triton is not installed)")
    runtime = TorchRuntime("cpu", fused=False)
    runtime.device = "cuda"
    assert runtime.with_kernels(reference) == (reference, "")


def test_the_choice_is_made_before_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[str] = []

    class Recorder:
        def __init__(self, module: Any, _given: Any, _pool: Any) -> None:
            captured.append(module.note)
            self._module = module

        def __call__(self, *given: Tensor) -> Any:
            return self._module(*given)

    runtime = TorchRuntime("cpu", fused=True)
    monkeypatch.setattr(backend, "fused_matchers", candidates(Kernel(0.1)))
    monkeypatch.setattr(backend, "_Graph", Recorder)
    monkeypatch.setattr(runtime, "graph_pool", lambda: None)
    matcher = BlockMatcher(runtime, 0.1, 20.0, images=2, keypoints=32, dimension=24)
    session: Any = matcher._session
    for _ in range(4):
        session._replayed(call())
    assert captured == ["matching by kernel 0 (as asked for)"]
