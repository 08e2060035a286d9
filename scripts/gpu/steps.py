"""An extraction taken apart, and how much of the time the GPU works."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpu import networks
from gpu.networks import side_of, square, wait
from gpu.plan import LeftOut, Work
from sfm_match.features import device_graphs as parts
from sfm_match.features.dedode import selection, valid_mask_of
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import Runtime
from sfm_match.runtime.planning import ranges


class Steps:
    """The networks of `sfm_match.features.dedode`, one after the other."""

    def __init__(self, work: Work, engine: Runtime, size: int, batch: int) -> None:
        self._work, self._engine, self._batch = work, engine, square(work.model, size, batch)
        model = networks.model(work.model, work.engine, half=work.cuda)
        how = selection(model, ExtractOptions(model=work.model, max_keypoints=work.settings.max_keypoints))
        capacity = parts.capacity_for(how.max_keypoints)
        if capacity is None:
            raise LeftOut("more keypoints than a selection on the device holds")
        buckets = {(side_of(work.model, one),) * 2: 1000 for one in work.settings.sizes}
        served = ranges(buckets, max(work.settings.batches))  # as `networks.usual`
        loaded = (engine.load(part) for part in parts.on_device(model, how, capacity, served).each())
        self._normalise, self._detector, self._select, self._descriptor, self._stored = loaded
        self._how = how

    def milliseconds(self) -> dict[str, Any]:
        """Of each step of a batch, the device waited for after each; `together` is without the waiting between."""
        for _ in range(3):  # plain, captured, replayed
            self._run({})
        runs = 10 if self._work.cuda else 1
        spent: dict[str, float] = {}
        for _ in range(runs):
            self._run(spent)
        start = time.perf_counter()
        for _ in range(runs):
            self._run(None)
        found = {f"ms_{name}": round(seconds / runs * 1e3, 3) for name, seconds in spent.items()}
        return found | {"ms_together": round((time.perf_counter() - start) / runs * 1e3, 3)}

    def _run(self, spent: dict[str, float] | None) -> None:
        engine, batch = self._engine, self._batch

        def timed(name: str, action: Callable[[], Any]) -> Any:
            if spent is None:
                return action()
            start = time.perf_counter()
            found = action()
            wait(self._work)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return found

        bucket = batch.images.shape[2], batch.images.shape[1]
        pairs = zip(batch.items, batch.masks, strict=True)
        valid_mask = np.stack([valid_mask_of(item.geometry, bucket, self._how.border, mask) for item, mask in pairs])
        small = {"log_threshold": np.array([-1e30], np.float32), "least_contrast": np.zeros(1, np.float32)}
        pixels = timed("put", lambda: engine.put("pixels", batch.images))
        feeds: dict[str, NDArray[Any]] = {**small, "ground": valid_mask}
        put = timed("put", lambda: {name: engine.put(name, one) for name, one in feeds.items()})
        image = timed("normalise", lambda: self._normalise.run({"pixels": pixels}))["image"]
        logits = timed("detector", lambda: self._detector.run({"image": image}))["logits"]
        chosen = timed("select", lambda: self._select.run({"logits": logits, **put}))
        placed = {"image": image, "keypoints": chosen["keypoints"]}
        described = timed("descriptor", lambda: self._descriptor.run(placed))["descriptors"]
        last = {"descriptors": described, "counts": chosen["counts"]}
        stored = timed("stored", lambda: self._stored.run(last))
        results = [*stored.values(), *(chosen[name] for name in parts.SELECTED[1:])]
        timed("get", lambda: [engine.get(value) for value in results])


def busy_share(work: Work, action: Callable[[], Any]) -> dict[str, Any]:
    """Share of the time in which a kernel or a copy runs on the GPU, by whichever engine; on the CPU, cores in use."""
    calls = 10 if work.cuda else 2
    if not work.cuda:
        start, before = time.perf_counter(), time.process_time()
        for _ in range(calls):
            action()
        return {"cores": round((time.process_time() - before) / (time.perf_counter() - start), 3)}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        start = time.perf_counter()
        for _ in range(calls):
            action()
        wait(work)
        elapsed = time.perf_counter() - start
    spans, kernels, copies = [], 0.0, 0.0
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            begin, end = event.time_range.start, event.time_range.end
            spans.append((begin, end))
            if event.name.startswith(("Memcpy", "Memset")):
                copies += end - begin
            else:
                kernels += end - begin
    if not spans:
        raise LeftOut("the profiler of torch saw no kernel (no CUPTI?)")
    return {
        "busy": round(union(spans) / 1e6 / elapsed, 4),
        "kernels_share": round(kernels / 1e6 / elapsed, 4),  # above `busy` where workers overlap
        "copies_share": round(copies / 1e6 / elapsed, 4),
        "events": len(spans),
    }


def union(spans: list[tuple[float, float]]) -> float:
    """Length that spans cover together."""
    covered, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, last))
        last = max(last, end)
    return covered
