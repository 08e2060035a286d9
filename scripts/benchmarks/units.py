"""Units of features to write and to read, as large as real ones."""

import numpy as np

from sfm_match.store.features import Features, UnitResult

IMAGES = 64


def random_unit(keypoints: int, dimension: int) -> UnitResult:
    """64 images' features, of random numbers."""
    rng = np.random.default_rng(0)
    features = {
        f"{i:02d}.jpg": Features(
            rng.random((keypoints, 2), np.float32),
            rng.random(keypoints, np.float32),
            rng.random((keypoints, dimension), np.float32).astype(np.float16),
        )
        for i in range(IMAGES)
    }
    return UnitResult(features, {}, dict.fromkeys(features, "1:1"))
