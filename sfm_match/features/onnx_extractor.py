"""Any extractor that is one ONNX file: `--model FOLDER`, with the description of `sfm_match.models.described`.

The file detects and describes; what is limited here are the border, masks, the threshold and the number of keypoints.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import UsageError
from sfm_match.features.extractor import NOT_FINITE, Found, features_of, in_halves
from sfm_match.images.coordinates import network_from_output
from sfm_match.images.loader import Item, Loaded, levels, normalise
from sfm_match.job.progress import Clock
from sfm_match.models.described import FILE, NORMALISED, DescribedModel, ModelDescription, described_model
from sfm_match.models.engines import runtime_for
from sfm_match.options.base import flag
from sfm_match.options.stages import AUTO, ExtractOptions
from sfm_match.runtime import EngineError, Part, choose
from sfm_match.runtime.planning import ranges
from sfm_match.store.features import Features

_SETTLED = ("precision", "turns", "subpixel", "weights", "random_weights")  # by the file


def chosen_model(options: ExtractOptions) -> DescribedModel:
    """As `extractor.ExtractorModule.chosen_model`; `--model` is the folder."""
    for name in _SETTLED:
        if getattr(options, name) != getattr(ExtractOptions, name):
            raise UsageError(f"--model {options.model}: {flag(name)} must keep its default: the ONNX file settles it")
    if choose(options.device).device == "torch":
        raise UsageError(f"--model {options.model}: torch runs no ONNX file; give another --device, for example cpu")
    return described_model(Path(options.model))


def inputs(model: DescribedModel, _: ExtractOptions) -> dict[str, object]:
    """As `extractor.ExtractorModule.inputs`: the description and the digests of the files."""
    return model.inputs()


def create(model: DescribedModel, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> "OnnxExtractor":
    """As `extractor.ExtractorModule.create`."""
    return OnnxExtractor(model, options, buckets)


class OnnxExtractor:
    """An `extractor.Extractor`."""

    redone = 0

    def __init__(self, model: DescribedModel, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> None:
        """As `extractor.ExtractorModule.create`."""
        self._options, self._described = options, model.description
        self._where = model.path.with_name(FILE)
        self.width = model.description.dimension
        self.batch = 1 if options.batch == AUTO or model.single else int(options.batch)
        self._runtime, choice = runtime_for(options.device, keeps_memory=options.tile is None)
        self.engine = f"{self._runtime.provider}, {model.path.name}{choice.note}"
        self._levels = levels(*_each_channel(model.description))
        self._session = self._runtime.load(self._part(model, buckets))

    def _part(self, model: DescribedModel, buckets: Mapping[tuple[int, int], int]) -> Part:
        described = model.description
        outputs = (described.keypoints, described.scores, described.descriptors)
        served = ranges(buckets, self.batch)
        profiles = [{described.input: r.shapes(before=(described.depth,))} for r in served]
        return Part(model.path, partial(_no_module, model.path), outputs, profiles=profiles)

    def most_keypoints(self, size: tuple[int, int]) -> int:  # noqa: ARG002 - one limit for all sizes
        """As `extractor.Extractor.most_keypoints`."""
        return self._options.max_keypoints

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        """Features of batches, in their order."""
        once = partial(self._features, clock=clock)
        return self._runtime.workers.each(batches, lambda batch: in_halves(batch, once), lambda: clock.on("network"))

    def _features(self, batch: Loaded, clock: Clock) -> Found:
        described, engine = self._described, self._runtime
        with clock.on("network"):
            images = np.stack(
                [normalise(_in_channels(image, described.channels), self._levels) for image in batch.images]
            )
            result = self._session.run({described.input: engine.put(described.input, images)})
            names = (described.keypoints, described.scores, described.descriptors)
            points, scores, descriptors = (np.asarray(engine.get(result[name]), np.float32) for name in names)
        self._check_shapes(points, scores, descriptors)
        with clock.on("keypoints"):
            rows = zip(batch.items, batch.masks, points, scores, descriptors, strict=True)
            return {item.name: self._chosen(item, mask, *row) for item, mask, *row in rows}

    def _check_shapes(self, *found: NDArray[Any]) -> None:
        """Raises EngineError where the outputs are not what the description says."""
        points, scores, descriptors = (one.shape for one in found)
        expected = (*scores, 2), (*scores, self.width)
        if len(scores) != 2 or (points, descriptors) != expected:
            raise EngineError(
                f"{self._where}: keypoints {points}, scores {scores}, descriptors {descriptors}: "
                f"must be (B, K, 2), (B, K), (B, K, {self.width})"
            )

    def _chosen(
        self,
        item: Item,
        mask: NDArray[np.uint8] | None,
        output: NDArray[np.float32],
        scores: NDArray[np.float32],
        descriptors: NDArray[np.float32],
    ) -> Features | str:
        """The strongest rows of an image that lie where keypoints may be."""
        described, options, geometry = self._described, self._options, item.geometry
        normalised = described.coordinates == NORMALISED
        points = network_from_output(output, geometry.bucket, described.first_pixel, normalised=normalised)
        ends, edge = np.array(geometry.network_size, np.float32), options.border
        kept = scores > options.detection_threshold  # NaN fails every comparison
        kept &= ((points >= edge) & (points <= ends - edge)).all(axis=1)
        if mask is not None:
            places = np.nan_to_num(points).clip(0, ends - 1).astype(np.int64)
            kept &= mask[places[:, 1], places[:, 0]] > 0
        rows = np.flatnonzero(kept)
        rows = rows[np.argsort(-scores[rows], kind="stable")][: options.max_keypoints]
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(descriptors[rows], axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            return NOT_FINITE
        return features_of(geometry, points[rows], scores[rows], (descriptors[rows] / lengths).astype(np.float16))


def _each_channel(described: ModelDescription) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation, (C,) each."""
    mean, std = (np.array(values, np.float32) for values in (described.mean, described.std))
    return np.broadcast_to(mean, described.depth), np.broadcast_to(std, described.depth)


def _in_channels(image: NDArray[np.uint8], channels: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (H, W, 3) or (H, W), as the network wants it."""
    if channels == "gray":
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    return image[..., ::-1] if channels == "bgr" else image


def _no_module(path: Path) -> Any:
    raise EngineError(f"{path}: torch runs no ONNX file")
