"""Vectors in a file are those of an array."""

from pathlib import Path

import numpy as np
import pytest

from sfm_match.stages.image_summaries import VectorFile


@pytest.mark.parametrize("rows", [[], [4], [2, 3, 4], [3, 9, 5], [1, 1], [5, 4, 3], [0, 9]])
def test_any_rows(rows: list[int], tmp_path: Path) -> None:
    every = np.random.default_rng(0).normal(size=(10, 4, 8)).astype(np.float16)
    vectors = VectorFile(tmp_path, every.shape)
    for row, one in enumerate(every):
        vectors.write(row, one)
    for turn in range(4):
        np.testing.assert_array_equal(vectors[np.array(rows, np.int32), turn], every[rows, turn])
    assert not list(tmp_path.iterdir())
