"""The nearest by cosine, exactly, in blocks; queries and databases; turns."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairs import retrieval as module
from pairs.loops import loop_detection
from pairs.retrieval import ranked, retrieval


def unit_vectors(*shape: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def flat(blocks) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for block in blocks for i, j in block}


@given(
    count=st.integers(2, 40),
    num_images=st.integers(1, 45),
    cells=st.sampled_from([1, 50, 10_000]),
    rows=st.sampled_from([1, 7, 4096]),
)
def test_the_nearest_of_each_image(count: int, num_images: int, cells: int, rows: int) -> None:
    vectors = unit_vectors(count, 1, 12)
    cosines = vectors[:, 0] @ vectors[:, 0].T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, : min(num_images, count - 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", cells)  # blocks of one query up to all
        patch.setattr(module, "_ROWS", rows)
        found = flat(retrieval(vectors, num_images))
        every = np.arange(count, dtype=np.int32)
        asked = flat(retrieval(vectors, num_images, every, every))  # not as the images of one list
    assert found == asked == {(min(i, j), max(i, j)) for i, row in enumerate(nearest) for j in row.tolist()}


@pytest.mark.parametrize("rows", [2, 4096])
def test_of_equals_the_first_image_counts(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    monkeypatch.setattr(module, "_CELLS", 1)
    vectors = np.repeat(unit_vectors(1, 1, 12), 7, axis=0)
    told = [one for here, images, _ in ranked(vectors, 3) for one in zip(here.tolist(), images.tolist(), strict=True)]
    assert dict(told) == {q: [i for i in range(7) if i != q][:3] for q in range(7)}


def test_scores_come_with_the_best_first() -> None:
    vectors = unit_vectors(30, 1, 12)
    for here, there, scores in ranked(vectors, 5):
        assert (np.diff(scores, axis=1) <= 0).all()
        expected = np.einsum("qv,qkv->qk", vectors[here, 0], vectors[there, 0])
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_only_queries_with_the_database() -> None:
    vectors = unit_vectors(20, 1, 12)
    queries, database = np.arange(5, dtype=np.int32), np.arange(3, 20, dtype=np.int32)
    found = flat(retrieval(vectors, 4, queries, database))
    assert all((i in queries and j in database) or (j in queries and i in database) for i, j in found)
    assert {i for pair in found for i in pair} >= set(queries.tolist())


def test_an_image_without_features_takes_no_part() -> None:
    vectors = unit_vectors(8, 1, 12)
    vectors[3] = 0
    assert flat(retrieval(vectors, 20)) == {p for p in combinations(range(8), 2) if 3 not in p}
    assert flat(retrieval(np.zeros((4, 1, 12), np.float32), 2)) == set()


def test_the_turn_that_fits_counts() -> None:
    """Image 2 shows what image 0 shows, turned by a quarter; 1 is like 0 a little, but upright."""
    first, other = unit_vectors(2, 12)
    vectors = np.repeat(unit_vectors(3, 1, 12, seed=1), 4, axis=1)
    vectors[0, 0], vectors[2, 3], vectors[1, 0] = first, first, other
    assert (0, 2) in flat(retrieval(vectors, 1, queries=np.array([0], np.int32)))


def test_loops_are_looked_for_now_and_then_and_far_away() -> None:
    names = [f"{i:03d}.jpg" for i in range(40)]
    vectors = unit_vectors(40, 1, 12)
    vectors[31] = vectors[20]  # the way comes back at 31 to where it was at 20
    vectors[22] = vectors[20]  # a neighbour is no loop
    found = flat(loop_detection(names, vectors, overlap=3, loop_detection_period=10, loop_detection_num_images=1))
    assert (20, 31) in found
    assert (20, 22) not in found
    assert len(found) == 4
    assert all({i, j} & {0, 10, 20, 30} and j - i > 3 for i, j in found)


def test_neighbours_are_of_one_folder() -> None:
    names = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]
    found = flat(
        loop_detection(names, unit_vectors(4, 1, 12), overlap=5, loop_detection_period=1, loop_detection_num_images=9)
    )
    assert found == {(0, 2), (0, 3), (1, 2), (1, 3)}
