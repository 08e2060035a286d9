"""Scores of pairs by workers, here without a cluster: `tests/integration/test_ray.py` has one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sfm_match
from pairs.exhaustive import exhaustive
from pairs.prune import scored
from sfm_match.stages import prune_units as module
from sfm_match.stages.image_summaries import keypoint_subsets
from sfm_match.store.columns import Names


class InProcess:
    """A pool of which nothing is asked: `done_units` does the work."""

    devices = ("cpu",)


@pytest.fixture(scope="module")
def extracted(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("extracted")
    sfm_match.extract(rendered, work, size=256, max_keypoints=200)
    return work


@pytest.mark.parametrize("least", [1, 5, 1000])
def test_scores_are_those_of_one_process(extracted: Path, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without features among them; units of a block, of some, of all."""
    monkeypatch.setattr(module, "_LEAST", least)
    features = sfm_match.open(extracted).feature_set
    names = Names(sorted([*features.counts, "no features.jpg"]))
    given: list[Any] = []

    def done(_devices: Any, work: Any, units: Any, *_: Any) -> Any:
        every = list(units)
        given.extend(every)
        return reversed(list(work("cpu", iter(every), None, None)))  # workers end as they can

    monkeypatch.setattr(module, "done_units", done)
    blocks = list(exhaustive(len(names), block=2))
    expected = list(scored(blocks, keypoint_subsets(extracted, features, names)))
    found = list(module.scored_by_workers(iter(blocks), features, names, extracted, InProcess()))  # type: ignore[arg-type]
    assert len(found) == len(expected) == len(blocks)
    for (block, scores), (other, others) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(block, other)
        np.testing.assert_array_equal(scores, others)
    assert max(scores.max() for _, scores in expected) > 0
    together = [len(unit.blocks) for unit in given]
    assert sum(together) == len(blocks)
    assert together == ([1] * len(blocks) if least == 1 else [len(blocks)] if least == 1000 else together)
