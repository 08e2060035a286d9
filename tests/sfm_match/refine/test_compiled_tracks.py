"""What was compiled against numpy, with every kernel that this processor can run."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.compiled import kernels
from sfm_match.refine import track_optimization
from sfm_match.refine.all_tracks import Numbers, joined_tracks
from sfm_match.refine.track_optimization import Relations, optimize_tracks

pytestmark = pytest.mark.skipif(not kernels(), reason="nothing was compiled: no GCC or Clang at installation")


@given(
    st.sampled_from(sorted(kernels().values())),
    st.integers(1, 40),
    st.integers(0, 120),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_tracks_agree_as_with_numpy(kernel: int, count: int, links: int, held: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, count, (2, links))
    apart = first != second
    first, second = first[apart], second[apart]
    affines = (np.eye(2) + rng.normal(0, 0.1, (len(first), 2, 2))).astype(np.float32)
    offsets = rng.normal(0, 0.5, (len(first), 2)).astype(np.float32)
    relations = Relations(first, second, offsets, affines)
    numbers = Numbers(count, Path(tempfile.gettempdir()))
    track, stays = joined_tracks([relations], numbers), rng.random(count) < held
    found = {}
    for name, one in (("compiled", kernel), ("numpy", None)):
        with patch.object(track_optimization, "fastest", lambda one=one: one):
            found[name] = optimize_tracks(relations, track, stays)
    np.testing.assert_array_equal(found["compiled"][0], found["numpy"][0])
    # a step of about the size of the last ones may be one for one of them alone
    np.testing.assert_allclose(found["compiled"][1], found["numpy"][1], atol=0.005)
    assert not found["compiled"][1][stays[found["compiled"][0]]].any()
