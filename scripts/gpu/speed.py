"""How fast: the machine's own ceiling, networks, matching. Beside each rate its shares of two roofs (`gpu.roofs`)."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exports.graphs import Normalise
from exports.keypoints import Detect
from exports.networks import Describe
from gpu import networks
from gpu.networks import Counting, clear, memory_gb, rate, side_of, square, steady, unit
from gpu.plan import BASELINE, LeftOut, Work
from gpu.roofs import Roof, matching_roof, network_roof
from sfm_match.features import device_graphs as parts
from sfm_match.job.progress import Clock
from sfm_match.matching.matcher import DescriptorsOnly
from sfm_match.matching.on_device import GROUPS, MORE, BlockMatcher, packed
from sfm_match.runtime import Runtime
from sfm_match.runtime.planning import pairs_a_call
from sfm_match.runtime.torch import set_up_cudnn

_SIDE, _SIDE_SMALL = 8192, 512  # of the product; on a CPU, and with --quick, the small one
_BLOCK = 32  # images, as in `sfm_match.stages.match`
_BLOCK_QUICK = 2
_DIMENSION = 256  # of the published descriptors
_THRESHOLD, _TEMPERATURE = 0.01, 20.0


def ceiling(work: Work) -> None:
    """What the machine can: a product of matrices, and a copy within its memory."""
    work.case("machine", lambda: _ceiling(work))


def _ceiling(work: Work) -> Mapping[str, Any]:
    device, side = work.settings.device, _SIDE if work.cuda and not work.quick else _SIDE_SMALL
    found: dict[str, Any] = {"product_side": side}
    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16} if work.cuda else {"fp32": torch.float32}
    for name, kind in kinds.items():
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        products = rate(lambda a=a, b=b: a @ b, work)  # type: ignore[misc]
        found[f"product_tflops_{name}"] = round(products * 2 * side**3 / 1e12, 3)
    found["product_tflops"] = found["product_tflops_fp16" if work.cuda else "product_tflops_fp32"]
    source, target = (torch.empty(256 << 20 if side == _SIDE else 16 << 20, device=device) for _ in range(2))
    copies = rate(lambda: target.copy_(source), work)
    found["copy_gb_per_s"] = round(copies * 2 * source.numel() * 4 / 1e9, 2)
    return found


def speed(work: Work) -> None:
    """Images a second from bytes in the host's memory to features in the host's memory, all workers busy.

    The largest size first, on which the goals are set.
    """
    made: list[Counting] = []  # one for all sizes and batches, as in a job; made at the first case that is open

    def current() -> Counting:
        if not made:
            made.append(networks.usual(work))
        return made[0]

    for size in reversed(work.settings.sizes):
        for batch in work.settings.batches:
            run = partial(_published if work.engine == BASELINE else _streamed, work, size, batch)
            work.case(f"{size} px, batch {batch}", partial(_speed, work, size, batch, partial(run, current)))
            clear()


def shares(roof: Roof, work: Work, rate: float) -> dict[str, float]:
    """Of the two roofs, as a row has them; nothing where the machine's ceiling is not known."""
    known = work.ceiling
    if known.get("status") != "ok":
        return {}
    by_layers = roof.by_layers(known["product_tflops"], known["copy_gb_per_s"])
    return {
        "share_of_product": round(rate / roof.by_product(known["product_tflops"]), 4),
        "share_of_layers": round(rate / by_layers, 4),
        "roof_by_layers": round(by_layers, 2),
    }


def _speed(work: Work, size: int, batch: int, run: Callable[[], tuple[float, int]]) -> Mapping[str, Any]:
    side = side_of(work.model, size)
    roof = network_roof(work.model, side, side, work.settings.max_keypoints, half=work.cuda)
    calls, splits = run()
    images = calls * batch
    found: dict[str, Any] = {"size": side, "batch": batch, "images_per_s": round(images, 2)}
    found |= shares(roof, work, images)
    return found | {
        "gflop": round(roof.flop / 1e9, 1),
        "gb": round(roof.bytes / 1e9, 3),
        "memory_gb": memory_gb(),
        "splits": splits,
    }


def _streamed(work: Work, size: int, batch: int, current: Callable[[], Counting]) -> tuple[float, int]:
    """Batches a second, and how often memory was short.

    What comes first is not counted: each worker runs plainly, captures, and replays.
    """
    extractor = current()
    if batch > extractor.batch:
        raise LeftOut(f"a call takes at most {extractor.batch} of this size")
    batches = itertools.repeat(square(work.model, size, batch))
    warm_up = (5 if work.cuda else 1) * extractor.workers.count
    before = extractor.splits
    found = steady(extractor.each(batches, Clock()), warm_up, work.settings.seconds)
    return found, extractor.splits - before


def _published(work: Work, size: int, batch: int, _: Callable[[], Counting]) -> tuple[float, int]:
    """Batches a second of the networks as their authors run them: eager, AMP, cuDNN on; the same start and end."""
    device = work.settings.device
    if work.cuda:
        set_up_cudnn()
    pair = networks.networks(work.model)
    normalise = Normalise().to(device)
    detect = Detect(pair.detector, work.settings.max_keypoints).eval().to(device)
    describe = Describe(pair.descriptor).eval().to(device)
    kind = torch.float16 if work.cuda else torch.bfloat16
    pixels = torch.from_numpy(square(work.model, size, batch).images)

    def run() -> Any:
        with torch.inference_mode(), torch.autocast(device, kind):
            image = normalise(pixels.to(device))
            keypoints, scores = detect(image)
            return keypoints.cpu(), scores.cpu(), describe(image, keypoints).cpu()

    return rate(run, work), 0


def matching_speed(work: Work) -> None:
    """Pairs a second by keypoints: whole tiles as a job has them, and the kernel alone."""
    for count in sorted(work.settings.keypoints, key=lambda count: (count != 4096, count)):  # the goal's first
        work.case(f"{count} keypoints", partial(_matching, work, count))
        clear()


def _matching(work: Work, count: int) -> Mapping[str, Any]:
    """Two blocks of images, every pair between them, two tiles in hand."""
    engine = networks.runtime(work.engine, work.settings)
    rng = np.random.default_rng(0)
    side = _BLOCK_QUICK if work.quick else _BLOCK
    pairs = np.array([(i, side + j) for i in range(side) for j in range(side)], np.int32)
    shared = rng.normal(size=(count, _DIMENSION))
    block = [unit(shared[rng.permutation(count)] + rng.normal(size=shared.shape)) for _ in range(2 * side)]
    matcher = BlockMatcher(engine, _THRESHOLD, _TEMPERATURE, images=2 * side, keypoints=count, dimension=_DIMENSION)
    first, *others = (tuple(f"{group} {i}" for i in range(side)) for group in range(GROUPS + 2))  # more than stay there
    tiles = engine.workers.each(
        zip(itertools.repeat(first), itertools.cycle(others)), partial(_tile, matcher, block, pairs)
    )
    whole = steady(tiles, 2 * engine.workers.count if work.cuda else 1, work.settings.seconds) * len(pairs)
    kernel = _kernel(work, engine, block, count)
    found: dict[str, Any] = {"keypoints": count, "pairs_per_s": round(whole, 1), "kernel_pairs_per_s": round(kernel, 1)}
    found |= shares(matching_roof(count, _DIMENSION), work, kernel)
    return found | {"memory_gb": memory_gb(), "note": matcher.note}


def _tile(
    matcher: BlockMatcher,
    block: list[NDArray[np.float16]],
    pairs: NDArray[np.int32],
    groups: tuple[tuple[str, ...], tuple[str, ...]],
) -> int:
    """A block as in a row of blocks: its first group is on the device from the one before, its second one is not."""

    def read(names: Sequence[str]) -> list[NDArray[np.float16]]:
        numbers = (tuple(map(int, name.split())) for name in names)
        return [block[i if group == 0 else len(block) // 2 + i] for group, i in numbers]

    return len(matcher.match(groups, DescriptorsOnly(read), pairs))


def _kernel(work: Work, engine: Runtime, block: list[NDArray[np.float16]], count: int) -> float:
    """Pairs a second of the network alone: everything is on the device, nothing comes back."""
    filled = packed(block, count)
    pairs = pairs_a_call(engine.free_memory(), count)
    if not work.cuda:
        pairs = min(pairs, len(block))
    session = engine.load(parts.match_block(len(block), count, _DIMENSION + MORE, pairs))
    places = np.arange(2 * pairs).reshape(-1, 2) % len(block)
    feeds = {
        "descriptors": engine.put("descriptors", filled),
        "pairs": engine.put("pairs", places.astype(np.int64)),
        "inverse_temperature": engine.put("inverse_temperature", np.array([_TEMPERATURE], np.float32)),
    }
    return rate(lambda: session.run(feeds), work) * pairs


def time_by_part(work: Work) -> None:
    """Milliseconds of each network of a batch, one after the other; then how busy the workers keep the GPU."""
    size, batch = work.settings.sizes[-1], sorted(work.settings.batches)[-2:][0]
    work.case(f"{size} px, batch {batch}", partial(_by_part, work, size, batch))
    clear()
    work.case(f"{size} px, batch {batch}, busy", partial(_busy, work, size, batch))


def _by_part(work: Work, size: int, batch: int) -> Mapping[str, Any]:
    from gpu.steps import Steps

    steps = Steps(work, networks.runtime(work.engine, work.settings), size, batch)
    return {"size": side_of(work.model, size), "batch": batch, **steps.milliseconds()}


def _busy(work: Work, size: int, batch: int) -> Mapping[str, Any]:
    from gpu.steps import busy_share

    extractor = networks.usual(work)
    stream = extractor.each(itertools.repeat(square(work.model, size, batch)), Clock())
    for _ in range((5 if work.cuda else 1) * extractor.workers.count):
        next(stream)
    try:
        return {"workers": extractor.workers.count, **busy_share(work, lambda: next(stream))}
    finally:
        stream.close()  # type: ignore[attr-defined]
