import numpy as np
import pytest

from pairs import PairsError
from pairs.vlad import WIDTH, Codebook, kmeans, sample_of


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_kmeans_finds_groups_that_stand_apart() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(5, 8)) * 50
    points = np.concatenate([place + rng.normal(size=(40, 8)) for place in places]).astype(np.float32)
    found = min((kmeans(points, 5, seed) for seed in range(5)), key=lambda c: _spread(points, c))
    nearest = np.linalg.norm(found[:, None] - places[None], axis=2).min(axis=0)
    assert nearest.max() < 1


def _spread(points: np.ndarray, centres: np.ndarray) -> float:
    return float(np.linalg.norm(points[:, None] - centres[None], axis=2).min(axis=1).sum())


def test_kmeans_repeats_and_takes_few_points() -> None:
    points = unit(np.random.default_rng(0).normal(size=(300, 8)))
    np.testing.assert_array_equal(kmeans(points, 10), kmeans(points, 10))
    assert len(kmeans(np.repeat(points[:3], 7, axis=0), 10)) == 3


def test_images_of_one_place_are_more_alike_than_others() -> None:
    """Two images share half of their descriptors, noisily; a third shares none."""
    rng = np.random.default_rng(0)
    things = unit(rng.normal(size=(3, 200, 32)))
    first = np.concatenate((things[0], things[1]))
    second = np.concatenate((unit(things[0] + 0.1 * rng.normal(size=(200, 32))), things[2]))
    third = unit(rng.normal(size=(400, 32)))
    book = Codebook.learned(np.concatenate((first, second, third)), words=8)
    a, b, c = (book.vlad(one) for one in (first, second, third))
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert a @ b > a @ c + 0.2


def test_wide_descriptors_are_narrowed() -> None:
    rng = np.random.default_rng(0)
    sample = unit(rng.normal(size=(500, 8)) @ rng.normal(size=(8, 256)))  # they lie in 8 axes of 256
    book = Codebook.learned(sample, words=4)
    assert book.dimension == 4 * WIDTH
    np.testing.assert_allclose(np.linalg.norm(sample @ book.axes, axis=1), 1, atol=1e-3)  # nothing is lost


def test_nothing_to_learn_from() -> None:
    assert not Codebook.learned(unit(np.ones((5, 4)))).vlad(np.empty((0, 4), np.float32)).any()
    with pytest.raises(PairsError, match="without keypoints"):
        Codebook.learned(np.empty((0, 4), np.float32))


def test_a_sample_has_some_of_every_image() -> None:
    parts = [np.full((9, 2), i, np.float32) for i in range(5)]
    found = sample_of(parts, 4)
    assert np.bincount(found[:, 0].astype(int)).tolist() == [4] * 5
