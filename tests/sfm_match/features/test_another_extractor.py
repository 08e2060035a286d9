"""An extractor that is not DeDoDe: one module and a line in a table, and a whole job runs on it. SIFT stands for it."""

import dataclasses
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

import sfm_match
from exports.registry import FAMILY
from sfm_match.features.extractor import EXTRACTORS, Found
from sfm_match.images.loader import Loaded
from sfm_match.job.progress import Clock
from sfm_match.options.stages import ExtractOptions
from sfm_match.store.features import Features


@dataclass(frozen=True)
class Model:
    divisor: int = 1


class Sift:
    batch, width, engine, redone = 4, 128, "SIFT of OpenCV", 0

    def __init__(self, options: ExtractOptions) -> None:
        self._most = options.max_keypoints
        self._sift = cv2.SIFT.create(options.max_keypoints)

    def most_keypoints(self, size: tuple[int, int]) -> int:  # noqa: ARG002
        return self._most

    def each(self, batches: Iterable[Loaded], clock: Clock) -> Iterator[tuple[Loaded, Found]]:
        for batch in batches:
            found: Found = {}
            with clock.on("network"):
                for item, image in zip(batch.items, batch.images, strict=True):
                    points, descriptors = self._sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
                    order = np.argsort([-point.response for point in points])
                    places = np.array([points[i].pt for i in order], np.float32) + 0.5
                    root = np.sqrt(descriptors[order] / descriptors[order].sum(axis=1, keepdims=True))
                    scores = np.array([points[i].response for i in order], np.float32)
                    found[item.name] = Features(item.geometry.raw_from_network(places), scores, root.astype(np.float16))
            yield batch, found


def test_a_whole_job(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_sift_extractor")

    def create(_: Model, options: ExtractOptions, buckets: Mapping[tuple[int, int], int]) -> Sift:
        assert sum(buckets.values()) == 6
        return Sift(options)

    module.chosen_model = lambda _: Model()  # type: ignore[attr-defined]
    module.inputs = lambda *_: {"opencv": cv2.__version__}  # type: ignore[attr-defined]
    module.create = create  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(EXTRACTORS, "sift", module.__name__)
    nano = FAMILY["dedode-nano"]
    wide = dataclasses.replace(nano.descriptor, prototypes=128)
    monkeypatch.setitem(FAMILY, "sift", dataclasses.replace(nano, descriptor=wide, match_threshold=0.05))
    reports = sfm_match.run(rendered, tmp_path, model="sift", size=640, max_keypoints=2048, inverse_temperature=40)
    assert "SIFT of OpenCV" in reports[0].detail
    assert reports[-1].facts["registered"] == 6
    assert sfm_match.open(tmp_path).feature_set.inputs["opencv"] == cv2.__version__
