"""What an extractor is, and the table of extractors."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from exports.registry import FAMILY
from sfm_match.errors import UsageError
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.models import check_name
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import OutOfMemory, choose, resolve_precision
from sfm_match.runtime.devices import devices_of
from sfm_match.store.features import Features

ROTATIONS = 4  # by a quarter turn each, with --turns
NOT_FINITE = "the network gave values that are not finite"
NO_KEYPOINT = "no keypoint found"

Found = dict[str, Features | str]  # features of each image of a batch, or the reason why it has none


class FeatureModel(Protocol):
    """A model with its weights, ready to be loaded."""

    @property
    def divisor(self) -> int:
        """Sides of padded images are multiples of it, pixels."""


class Extractor(Protocol):
    """Features of batches of images."""

    @property
    def batch(self) -> int:
        """Images a call."""

    @property
    def width(self) -> int:
        """Of a row of descriptors: their dimension, times the rotations in which images are described."""

    @property
    def engine(self) -> str:
        """What runs, for the report."""

    @property
    def redone(self) -> int:
        """Images that half precision failed, and that were done again."""

    def most_keypoints(self, size: tuple[int, int]) -> int:
        """Keypoints of an image of this (width, height), network pixels without padding, at most."""

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        """Features of batches, in their order. Keypoints are in raw pixels, the strongest first.

        With `--tile`, scores of different images can be compared: they may be tiles of one photograph.

        Raises:
            EngineError: the engine failed, or has no memory for one image.
        """


class ExtractorModule(Protocol):
    """What the module of an extractor has."""

    def chosen_model(self, options: ExtractOptions) -> FeatureModel:
        """The model that the options name, checked.

        Raises:
            UsageError: no such model, or options that do not fit it.
            NothingDone: its files are missing or damaged.
        """

    def inputs(self, model: FeatureModel, options: ExtractOptions) -> dict[str, object]:
        """What features depend on beside the image and the options: weights, precision, ..., as plain JSON values."""

    def create(self, model: FeatureModel, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> Extractor:
        """
        Args:
            model: as `chosen_model` gives it.
            options: how to extract.
            buckets: (width, height) of the padded images to come -> how many.
        """


# A new extractor is a module, and a line here for each of its models; `exports.registry` says how models are used.
EXTRACTORS = dict.fromkeys(FAMILY, "sfm_match.features.dedode")
_OF_FOLDERS = "sfm_match.features.onnx_extractor"


def extractor_of(model: str) -> ExtractorModule:
    """The module that extracts with a model: a name, or a folder with an ONNX file and its description.

    Raises:
        UsageError: no model has this name, and no folder.
    """
    if model not in EXTRACTORS and Path(model).is_dir():
        return cast(ExtractorModule, importlib.import_module(_OF_FOLDERS))
    check_name(model, or_folder=True)
    return cast(ExtractorModule, importlib.import_module(EXTRACTORS[model]))


def in_halves(batch: Loaded, features: Callable[[Loaded], Found]) -> Found:
    """Features of a batch, which may be empty: of its halves where the device has no memory for the whole.

    Raises:
        OutOfMemory: it has no memory for one image.
    """
    if not batch.items:
        return {}
    try:
        return features(batch)
    except OutOfMemory:
        if len(batch.items) == 1:
            raise
        middle = len(batch.items) // 2
        parts = (range(middle), range(middle, len(batch.items)))
        first, second = (in_halves(batch.rows(rows), features) for rows in parts)
        return first | second


def features_of(
    geometry: ImageGeometry, points: NDArray[np.float32], scores: NDArray[np.float32], descriptors: NDArray[np.float16]
) -> Features | str:
    """Of an image, or the reason why it has none.

    Args:
        geometry: of the image.
        points: (N, 2) network pixels.
        scores: (N,) descending.
        descriptors: (N, D) unit length.
    """
    if not len(points):
        return NO_KEYPOINT
    # copies, not views: a batch's arrays hold as many rows as a selection can, and a unit waits for the disk
    return Features(geometry.raw_from_network(points), scores.copy(), descriptors.copy())


def devices_for(options: ExtractOptions) -> list[str]:
    """The devices of an extraction, one worker each.

    Raises:
        UsageError: one of them is not available, or would compute in another precision than the first.
    """
    devices = devices_of(options.device, options.devices)
    if len(devices) > 1:
        precisions = {name: resolve_precision(options.precision, choose(name).device) for name in devices}
        if len(set(precisions.values())) > 1:
            shown = ", ".join(f"{name} {precision}" for name, precision in precisions.items())
            raise UsageError(f"--devices {options.devices}: precisions differ ({shown}); add --precision fp32")
    return devices
