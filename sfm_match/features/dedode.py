"""Batches of images to features: detector, selection of keypoints, descriptor, on any engine.

On the CPU the selection is numpy's. On a GPU it is a network between the networks: the photograph goes up once, as
bytes, and only keypoints and descriptors come back.
"""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exports.graph_constants import MASKED, NEVER, VALID
from sfm_match.features import device_graphs as parts
from sfm_match.features.extractor import NOT_FINITE, ROTATIONS, Found, features_of, in_halves
from sfm_match.features.keypoint_selection import Selection, select_keypoints
from sfm_match.images.coordinates import ImageGeometry, normalised_from_network, rotated_by_quarters
from sfm_match.images.loader import Loaded, normalise
from sfm_match.job.concurrency import WorkerThreads, machine_memory
from sfm_match.job.cores import cores
from sfm_match.job.progress import Clock
from sfm_match.models import Model, Weights, find_model
from sfm_match.models.engines import runtime_for
from sfm_match.options.stages import AUTO, ExtractOptions
from sfm_match.runtime import EngineError, OutOfMemory, Runtime, choose, resolve_precision
from sfm_match.runtime.planning import Range, images_a_call, images_at_once, most_a_call, ranges
from sfm_match.store.features import Features


class _Networks(Protocol):
    """Detector and descriptor on an engine, and what chooses keypoints between them."""

    def features(self, batch: Loaded, clock: Clock) -> Found:
        """Of a batch that is not empty."""


def chosen_weights(options: ExtractOptions) -> Weights:
    return Weights.named(options.weights, options.weights_dir, options.random_weights)


def chosen_model(options: ExtractOptions) -> Model:
    """The model that the options name, with the weights and in the precision that they name."""
    half = resolve_precision(options.precision, choose(options.device).device) == "fp16"
    return find_model(options.model, chosen_weights(options), half=half)


def images_a_batch(model: Model, asked: str, buckets: Collection[tuple[int, int]], free: int | None) -> int:
    """How many images a GPU takes at once.

    Args:
        model: the networks.
        asked: `--batch`; a number is taken as far as engines take it.
        buckets: (width, height) of the padded images to come.
        free: bytes of the GPU's memory, None: unknown.
    """
    # an engine for several shapes is built for the widest and the tallest at once
    width, height = (max(sides, default=1) for sides in ([b[0] for b in buckets], [b[1] for b in buckets]))
    largest = model.spec.largest_tensor(width * height)
    if asked != AUTO:
        return min(int(asked), most_a_call(largest))
    return images_a_call(free, width * height, model.spec.activations, largest)


def _images_at_once(model: Model, buckets: Mapping[tuple[int, int], int]) -> int:
    """Images that a CPU works on side by side: one a core, as far as memory goes."""
    largest = max((width * height for width, height in buckets), default=1)
    return images_at_once(sum(buckets.values()), largest * model.spec.activations, cores(), machine_memory())


def inputs(model: Model, options: ExtractOptions) -> dict[str, object]:
    """Weights, precision, and what limits keypoints: as `extractor.ExtractorModule.inputs`."""
    found: dict[str, object] = {**model.inputs(), "precision": "fp16" if model.half else "fp32"}
    if not options.all_keypoints:
        spec = model.spec
        found |= {"pixels_per_keypoint": spec.pixels_per_keypoint, "least_contrast": spec.least_contrast}
    return found


def create(model: Model, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> "DeDoDeExtractor":
    """As `extractor.ExtractorModule.create`."""
    return DeDoDeExtractor(model, options, buckets)


class DeDoDeExtractor:
    """Features of batches, whatever the engine: half-precision failures are redone, and memory that is short is met."""

    def __init__(
        self,
        model: Model,
        options: ExtractOptions,
        buckets: Mapping[tuple[int, int], int],
        runtime: Runtime | None = None,
    ) -> None:
        """
        Args:
            model: as `chosen_model` gives it.
            options: how to extract.
            buckets: (width, height) of the padded images to come -> how many.
            runtime: the engine; default: that of the options.
        """
        self.model, self._options, self._buckets = model, options, buckets
        self._note = ""
        if runtime is None:
            whole = options.tile is None  # of tiles one after another, on all cores: memory is what is short
            at_once = _images_at_once(model, buckets) if whole else 1
            runtime, choice = runtime_for(options.device, at_once, keeps_memory=whole)
            self._note = choice.note
        self._runtime = runtime
        self.batch = self._batch()
        self.served = ranges(buckets, self.batch)
        self._networks = self._make(model, self.served)
        self._full: dict[tuple[int, int], _Networks] = {}  # in float32 by bucket, made when half precision fails
        self.redone = 0  # images
        self._redoing = threading.Lock()

    def _batch(self) -> int:
        if not self._runtime.on_device:
            return 1 if self._options.batch == AUTO else int(self._options.batch)  # more gains nothing
        return images_a_batch(self.model, self._options.batch, self._buckets, self._runtime.free_memory())

    def _make(self, model: Model, served: Sequence[Range]) -> _Networks:
        capacity = parts.capacity_for(self._options.max_keypoints)
        how = selection(model, self._options)
        # rotations, tiles, and more keypoints than a selection holds: chosen on the host
        on_host = self._options.turns or self._options.tile is not None or capacity is None
        if self._runtime.on_device and not on_host and capacity is not None:
            return _OnDevice(self._runtime, model, how, capacity, served)
        return _OnHost(self._runtime, model, how, ROTATIONS if self._options.turns else 1, served)

    @property
    def workers(self) -> WorkerThreads:
        """The engine's."""
        return self._runtime.workers

    @property
    def width(self) -> int:
        """Of a row of descriptors."""
        return (ROTATIONS if self._options.turns else 1) * self.model.spec.dimension

    @property
    def engine(self) -> str:
        """What runs, for the report."""
        return f"{self._runtime.provider}{', fp16' if self.model.half else ''}{self._note}"

    def most_keypoints(self, size: tuple[int, int]) -> int:
        """As `extractor.Extractor.most_keypoints`."""
        return selection(self.model, self._options).most(size)

    def features(self, batch: Loaded, clock: Clock) -> Found:
        """Features of each image of a batch, or the reason why it has none."""
        return in_halves(batch, lambda part: self._once(part, clock))

    def _once(self, batch: Loaded, clock: Clock) -> Found:
        found = self._networks.features(batch, clock)
        failed = [row for row, item in enumerate(batch.items) if found[item.name] == NOT_FINITE]
        if failed and self.model.half:
            found |= self._in_float32(batch.rows(failed), clock)
        return found

    def _in_float32(self, batch: Loaded, clock: Clock) -> Found:
        """What half precision could not do. An engine that fails at it, too, costs these images and not the job."""
        height, width = batch.images.shape[1:3]
        with self._redoing:  # one worker at a time: it is rare
            try:
                if (width, height) not in self._full:
                    model = find_model(self.model.name, chosen_weights(self._options))
                    self._full[width, height] = self._make(model, ranges({(width, height): 1}, self.batch))
                found = self._full[width, height].features(batch, clock)
            except EngineError as error:
                if isinstance(error, OutOfMemory) and len(batch.items) > 1:
                    raise
                return {item.name: f"{NOT_FINITE}, and float32 failed: {error}" for item in batch.items}
            self.redone += len(batch.items)
        return found

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        """Features of batches, in their order; on a GPU one batch is copied while another is computed."""
        return self.workers.each(batches, lambda batch: self.features(batch, clock), lambda: clock.on("network"))


def selection(model: Model, options: ExtractOptions) -> Selection:
    """How the model's keypoints are chosen."""
    # a published network without refinement gives the published keypoints, which may be neighbours
    radius = 0 if model.spec.published and not options.subpixel else model.spec.nms_radius
    return Selection(
        options.max_keypoints,
        options.detection_threshold,
        options.border,
        radius,
        options.subpixel,
        model.spec.published,
        0 if options.all_keypoints else model.spec.pixels_per_keypoint,
        0.0 if options.all_keypoints else model.spec.least_contrast,
        logits=options.tile is not None,
    )


class _OnHost:
    """The engine runs the networks, numpy chooses the keypoints."""

    def __init__(self, runtime: Runtime, model: Model, how: Selection, rotations: int, served: Sequence[Range]) -> None:
        self._runtime, self._how, self._rotations = runtime, how, rotations
        if rotations > 1:
            served = [turned for r in served for turned in (r, _sideways(r))]
        self._detector = runtime.load(parts.detector(model, served))
        most = how.max_keypoints
        self._descriptor = runtime.load(parts.descriptor(model, served, (1, most, most)))

    def features(self, batch: Loaded, clock: Clock) -> Found:
        with clock.on("network"):
            images = np.stack([normalise(image) for image in batch.images])
            logits = self._logits(images)
        with clock.on("keypoints"):
            finite = [bool(np.isfinite(one).all()) for one in logits]
            chosen = [
                select_keypoints(one, item.geometry.network_size, self._how, mask) if good else None
                for one, item, mask, good in zip(logits, batch.items, batch.masks, finite, strict=True)
            ]
        bucket = batch.items[0].geometry.bucket
        most = max((len(c[0]) for c in chosen if c is not None), default=0)
        places = np.zeros((len(chosen), max(most, 1), 2), np.float32)
        for row, choice in zip(places, chosen, strict=True):
            if choice is not None:
                row[: len(choice[0])] = normalised_from_network(choice[0], bucket)
        with clock.on("network"):
            described = self._described(images, places)
        return {
            item.name: NOT_FINITE if choice is None else _checked(item.geometry, *choice, descriptors[: len(choice[0])])
            for item, choice, descriptors in zip(batch.items, chosen, described, strict=True)
        }

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, H, W). The mean over rotations: keypoints do not depend on how the picture lies."""
        total = np.zeros((len(images), *images.shape[2:]), np.float32)
        for rotation in range(self._rotations):
            image = self._runtime.put("image", _turned(images, rotation))
            found = self._runtime.get(self._detector.run({"image": image})["logits"])
            total += _turned(found, -rotation)[:, 0]
        return np.divide(total, self._rotations, dtype=np.float32)

    def _described(self, images: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, N, rotations * D), side by side."""
        found = []
        for rotation in range(self._rotations):
            feeds = {
                "image": self._runtime.put("image", _turned(images, rotation)),
                "keypoints": self._runtime.put("keypoints", rotated_by_quarters(places, rotation)),
            }
            found.append(self._runtime.get(self._descriptor.run(feeds)["descriptors"]))
        return np.concatenate(found, axis=2)


class _OnDevice:
    """Everything on the device, from bytes to descriptors."""

    def __init__(self, runtime: Runtime, model: Model, how: Selection, capacity: int, served: Sequence[Range]) -> None:
        self._runtime, self._how = runtime, how
        loaded = (runtime.load(part) for part in parts.on_device(model, how, capacity, served).each())
        self._normalise, self._detector, self._select, self._descriptor, self._stored = loaded

    def features(self, batch: Loaded, clock: Clock) -> Found:
        engine = self._runtime
        bucket = batch.images.shape[2], batch.images.shape[1]
        valid_mask = np.stack(
            [
                valid_mask_of(item.geometry, bucket, self._how.border, mask)
                for item, mask in zip(batch.items, batch.masks, strict=True)
            ]
        )
        least = np.log(self._how.threshold) if self._how.threshold > 0 else NEVER
        with clock.on("network"):
            image = self._normalise.run({"pixels": engine.put("pixels", batch.images)})["image"]
            selected = self._select.run(
                {
                    "logits": self._detector.run({"image": image})["logits"],
                    "ground": engine.put("ground", valid_mask),
                    "log_threshold": engine.put("log_threshold", np.array([least], np.float32)),
                    "least_contrast": engine.put("least_contrast", np.array([self._how.least_contrast], np.float32)),
                }
            )
            described = self._descriptor.run({"image": image, "keypoints": selected["keypoints"]})["descriptors"]
            stored = self._stored.run({"descriptors": described, "counts": selected["counts"]})
            descriptors, whole = engine.get(stored["stored"]), engine.get(stored["described"])
            points, scores, counts, finite = (engine.get(selected[name]) for name in parts.SELECTED[1:])
        found: Found = {}
        for row, item in enumerate(batch.items):
            count = min(int(counts[row]), self._how.most(item.geometry.network_size))
            chosen = points[row, :count], scores[row, :count], descriptors[row, :count]
            found[item.name] = features_of(item.geometry, *chosen) if finite[row] and whole[row] else NOT_FINITE
        return found


def valid_mask_of(
    geometry: ImageGeometry, bucket: tuple[int, int], border: int, mask: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """(H, W) of the padded image: where keypoints may be (`exports.graph_constants.OUTSIDE`, `MASKED`, `VALID`).

    Args:
        geometry: of the image.
        bucket: (width, height) with padding.
        border: network pixels.
        mask: (h, w) without padding, 0 where no keypoint is wanted.
    """
    width, height = geometry.network_size
    valid_mask = np.zeros(bucket[::-1], np.uint8)
    inside = valid_mask[:height, :width]
    inside[:] = MASKED
    inside[border : height - border, border : width - border] = VALID
    if mask is not None:
        inside[mask == 0] = MASKED
    return valid_mask


def _turned(maps: NDArray[np.float32], turns: int) -> NDArray[np.float32]:
    """(B, C, H, W), each map turned by quarters."""
    return np.ascontiguousarray(np.rot90(maps, turns, axes=(2, 3)))


def _sideways(r: Range) -> Range:
    """The range of the same images turned by a quarter."""
    least, usual, largest = ((b, w, h) for b, h, w in (r.least, r.usual, r.largest))
    return Range(least, usual, largest)


def _checked(
    geometry: ImageGeometry, points: NDArray[np.float32], scores: NDArray[np.float32], descriptors: NDArray[np.float32]
) -> Features | str:
    if not np.isfinite(descriptors).all():
        return NOT_FINITE
    return features_of(geometry, points, scores, descriptors.astype(np.float16))
