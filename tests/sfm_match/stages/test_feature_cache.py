"""Descriptors in memory: read once while they are among the last used ones, never more than the limit."""

from pathlib import Path

import numpy as np
import pytest

from sfm_match.stages.feature_cache import KEPT, FeatureCache, kept_bytes
from sfm_match.store.features import Features, UnitResult, unit_path, write_unit
from sfm_match.store.shard import ShardError

COUNT, DIMENSION = 10, 8
SIZE = COUNT * DIMENSION * 2  # bytes of an image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two units of three images."""
    for unit in range(2):
        features = {
            f"{unit}{n}": Features(
                np.zeros((COUNT, 2), np.float32),
                np.zeros(COUNT, np.float32),
                np.full((COUNT, DIMENSION), 10 * unit + n, np.float16),
            )
            for n in range(3)
        }
        result = UnitResult(features, {}, dict.fromkeys(features, "1:1"))
        write_unit(unit_path(tmp_path, unit), result, "f", DIMENSION)
    return tmp_path


def test_read_once_and_in_the_order_asked_for(folder: Path) -> None:
    cache = FeatureCache(folder, {f"{unit}{n}": unit for unit in range(2) for n in range(3)})
    for names in (["12", "00"], ["00", "01", "12"], ["01"]):
        assert [int(found[0, 0]) for found in cache.descriptors(names)] == [int(name) for name in names]
    assert cache.read == 3


def test_the_longest_unused_go(folder: Path) -> None:
    cache = FeatureCache(folder, {f"{unit}{n}": unit for unit in range(2) for n in range(3)}, limit=2 * SIZE)
    cache.descriptors(["00", "01"])
    cache.descriptors(["00"])
    cache.descriptors(["10"])  # 01 goes
    assert cache.read == 3
    cache.descriptors(["00", "10"])
    assert cache.read == 3
    assert len(cache.descriptors(["00", "01", "02", "10"])) == 4  # more than the limit: given all the same
    assert cache.read == 5
    assert cache._bytes == sum(one.nbytes for one in cache._held.values()) <= 2 * SIZE


def test_no_more_images_than_asked_for_stay(folder: Path) -> None:
    cache = FeatureCache(folder, {f"{unit}{n}": unit for unit in range(2) for n in range(3)}, most=2)
    assert len(cache.descriptors(["00", "01", "02"])) == 3  # given all the same
    assert list(cache._held) == ["01", "02"]
    cache.descriptors(["02", "10"])
    assert (list(cache._held), cache.read, cache._bytes) == (["02", "10"], 4, 2 * SIZE)


def test_a_file_that_is_gone(folder: Path) -> None:
    unit_path(folder, 1).unlink()
    cache = FeatureCache(folder, {"00": 0, "10": 1})
    with pytest.raises(ShardError, match="00001"):
        cache.descriptors(["00", "10"])


def test_memory_is_shared_by_workers() -> None:
    assert kept_bytes(on_device=False, workers=1) == KEPT
    assert kept_bytes(on_device=True, workers=10**9) == KEPT
    assert kept_bytes(on_device=True, workers=1) >= KEPT
