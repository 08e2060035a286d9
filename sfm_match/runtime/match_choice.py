"""Which matcher a GPU runs: `exports.graphs.MatchBlock`, or kernels of Triton that claim the same in less time.

The claim is tested where it is to be used: at the first call of a shape each candidate must find MatchBlock's matches,
of a made block and of the call's own, and the fastest that does so is kept for the shape. What fails is named and left;
a job never ends by it. Nothing here needs Triton.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.graph_constants import PADDING
from sfm_match.runtime.protocol import EngineError, OutOfMemory, engine_failure

REFERENCE = "torch"
LEAST_CAPABILITY = (8, 0)  # Triton 3.9 has no tensor cores before it: kernels compile for minutes, and run slowly
_LEAST_SCORE = 0.01  # a match, for the comparison; thresholds in use are above
_TOLERANCE = 1e-3  # of a score: float16 holds it no better
_DIFFERENT = 1e-3  # share of the matches that may differ: those that are equally good in two places, to rounding
_IMAGES = 4  # of the made block
_TEMPERATURE = 20.0  # of the made block; at 1 nothing matches
_RUNS = 3  # timed; the least counts, because another stream may run meanwhile

Found = tuple[Tensor, Tensor]  # places (P, N) int32, scores (P, N) float32
Shape = tuple[torch.Size, torch.dtype, int]


@dataclass(frozen=True)
class _Chosen:
    name: str
    module: nn.Module
    reason: str


class MatchChooser(nn.Module):
    """MatchBlock's interface over MatchBlock and candidates.

    One thread at a time may bring a new shape: `TorchSession` sees to it. The first call of a shape waits for the
    device; while a stream is captured nothing is chosen.
    """

    def __init__(self, reference: nn.Module, candidates: Mapping[str, nn.Module], *, force: bool = False) -> None:
        """
        Args:
            reference: `MatchBlock`.
            candidates: name, for the log -> a module of the same interface.
            force: the fastest candidate that runs is used, unseen whether it agrees or gains anything.
        """
        super().__init__()
        self.reference, self._candidates, self._force = reference, dict(candidates), force
        self._chosen: dict[Shape, _Chosen] = {}

    @property
    def note(self) -> str:
        """What was chosen for the calls of most pairs, and why; empty before the first."""
        if not self._chosen:
            return ""
        chosen = self._chosen[max(self._chosen, key=lambda shape: shape[2])]
        return f"matching by {chosen.name} ({chosen.reason})"

    def forward(self, descriptors: Tensor, pairs: Tensor, inverse_temperature: Tensor) -> Found:
        """As `MatchBlock`.

        Raises:
            torch.OutOfMemoryError, OutOfMemory: the device has no memory for this call.
            EngineError: with `force`, no candidate runs.
        """
        given = descriptors, pairs, inverse_temperature
        shape = descriptors.shape, descriptors.dtype, len(pairs)
        chosen = self._chosen.get(shape)
        if chosen is None:
            if _capturing(descriptors):
                return _run(self.reference, given)
            chosen = self._chosen[shape] = self._choose(given)
        if chosen.module is self.reference:
            return _run(self.reference, given)
        try:
            return _run(chosen.module, given)
        except Exception as error:  # Triton's share no base
            reason = _reason(chosen.name, error)
            if _capturing(descriptors):
                raise RuntimeError(reason) from error  # what cannot be captured is run plainly
            if self._force:
                raise EngineError(reason) from error
            self._chosen[shape] = _Chosen(REFERENCE, self.reference, reason)
            return _run(self.reference, given)

    def _choose(self, given: tuple[Tensor, Tensor, Tensor]) -> _Chosen:
        if self._force and len(self._candidates) == 1:
            ((name, module),) = self._candidates.items()
            return _Chosen(name, module, "as asked for")
        cases = () if self._force else (made(given[0], len(given[1])), given)
        expected = [_run(self.reference, case) for case in cases]
        seconds: dict[str, float] = {}
        reasons: list[str] = []
        for name, module in self._candidates.items():
            try:
                for case, theirs in zip(cases, expected, strict=True):
                    if (trouble := disagreement(_run(module, case), theirs)) is not None:
                        raise EngineError(trouble)
                seconds[name] = _seconds(module, given)
            except Exception as error:  # noqa: BLE001 - Triton's share no base
                reasons.append(_reason(name, error))
        if self._force:
            if not seconds:
                raise EngineError(f"fused matching: {'; '.join(reasons)}")
            name = min(seconds, key=seconds.__getitem__)
            return _Chosen(name, self._candidates[name], "as asked for")
        if not seconds:
            return _Chosen(REFERENCE, self.reference, "; ".join(reasons))
        seconds[REFERENCE] = _seconds(self.reference, given)
        times = ", ".join(f"{name} {1000 * seconds[name]:.2f} ms" for name in sorted(seconds, key=seconds.__getitem__))
        name = min(seconds, key=seconds.__getitem__)
        module = self.reference if name == REFERENCE else self._candidates[name]
        return _Chosen(name, module, "; ".join([f"a call: {times}", *reasons]))


def disagreement(ours: Found, theirs: Found) -> str | None:
    """How matches differ from the reference's, None where they are the same within rounding."""
    (places, scores), (expected_places, expected_scores) = ours, theirs
    if not bool(torch.isfinite(scores).all()):
        return "scores that are no numbers"
    matches = torch.maximum(scores, expected_scores) > _LEAST_SCORE
    same = (places == expected_places) & ((scores - expected_scores).abs() <= _TOLERANCE)
    wrong, all_ = int((matches & ~same).sum()), int(matches.sum())
    return f"{wrong:,} of {all_:,} matches differ" if wrong > _DIFFERENT * all_ else None


def made(descriptors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input like a call's with many matches: views of one world, with noise and from all to an eighth of the keypoints.

    Args:
        descriptors: (I, N, D + 2), for its shape, type and device.
        count: pairs.

    Returns:
        (4, N, D + 2) as `descriptors`, (count, 2) int64, (1,) float32.
    """
    keypoints, columns = descriptors.shape[1:]
    device = descriptors.device
    generator = torch.Generator(device).manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(keypoints, columns - 2, generator=generator, device=device)

    world, block = normal(), descriptors.new_zeros(_IMAGES, keypoints, columns)
    for place, image in enumerate(block):
        seen = max(1, keypoints >> place)
        order = torch.randperm(keypoints, generator=generator, device=device)
        image[:seen, :-2] = F.normalize(world[order] + 0.3 * normal(), dim=1)[:seen].to(block.dtype)
        image[seen:, -2] = PADDING
        image[:, -1] = 1
    number = torch.arange(count, device=device)
    pairs = torch.stack((number, number + 1 + number // _IMAGES), dim=1) % _IMAGES
    return block, pairs, torch.full((1,), _TEMPERATURE, device=device)


def fused_matchers(place: torch.device) -> tuple[dict[str, nn.Module], str]:
    """The kernels that this device may run, and where there are none, why."""
    try:
        import triton

        from sfm_match.runtime.fused_softmax import HALF_TILES, FusedMatchBlock

        interpreted = bool(triton.knobs.runtime.interpret)
    except ImportError:
        return {}, "Triton is not installed"
    except Exception as error:  # noqa: BLE001 - a Triton that does not fit this torch, or this machine
        return {}, _reason("Triton", error)
    if place.type == "cpu":
        if not interpreted:
            return {}, "no GPU, and Triton's interpreter is off"
        return {"Triton's interpreter": FusedMatchBlock(HALF_TILES[-1])}, ""
    if place.type != "cuda":
        return {}, f"no kernels for {place.type}"
    if torch.version.hip is None and torch.cuda.get_device_capability(place) < LEAST_CAPABILITY:
        return {}, "compute capability 8.0 is needed"
    return {f"Triton {tile.rows}x{tile.columns}": FusedMatchBlock(tile) for tile in HALF_TILES}, ""


def _run(module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> Found:
    places, scores = module(*given)
    return places, scores


def _reason(name: str, error: Exception) -> str:
    """What failed, in a line; memory that is short is no reason, it goes up."""
    if isinstance(error, (torch.OutOfMemoryError, OutOfMemory)):
        raise error
    text = " ".join(str(error).split())
    if isinstance(engine_failure(text), OutOfMemory):
        raise OutOfMemory(f"{name}: {text}") from error
    kind = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
    return f"{name}: {kind}{text[:200]}"


def _capturing(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _seconds(module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> float:
    """The least of a few calls after one that is not counted."""
    once: Callable[[nn.Module, tuple[Tensor, Tensor, Tensor]], float] = _on_gpu if given[0].is_cuda else _on_host
    once(module, given)
    return min(once(module, given) for _ in range(_RUNS))


def _on_gpu(module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    module(*given)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _on_host(module: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> float:
    start = time.perf_counter()
    module(*given)
    return time.perf_counter() - start
