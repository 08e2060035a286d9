"""Large photographs: fewer of them in memory, and fewer pairs at once."""

import numpy as np
import pytest

from sfm_match.images.coordinates import plan_geometry
from sfm_match.refine import memory
from sfm_match.refine.patch_alignment import see

GB = 1 << 30


def test_seen_bytes() -> None:
    geometry = plan_geometry((640, 480), 6, 320, 1)
    seen = see(np.zeros((480, 640, 3), np.uint8), geometry)
    assert sum(level.nbytes for level in seen.levels) == memory.seen_bytes(geometry)


@pytest.mark.parametrize(
    ("raw", "size", "machine", "kept", "at_once"),
    [
        ((4000, 3000), 1024, 16 * GB, 96, 16),  # as ever
        ((12000, 8000), 8000, 16 * GB, 38, 3),
        ((12000, 8000), 8000, 4 * GB, 9, 1),
        ((12000, 8000), 12000, GB // 2, 1, 1),
        ((12000, 8000), 8000, None, 19, 4),
    ],
)
def test_by_the_memory(
    raw: tuple[int, int], size: int, machine: int | None, kept: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: machine)
    monkeypatch.setattr("sfm_match.refine.memory.cores", lambda: 16)
    geometries = [plan_geometry((640, 480), 1, size, 1), plan_geometry(raw, 1, size, 1)]
    assert memory.photographs_kept(geometries, 96) == kept
    assert memory.pairs_at_once(geometries) == at_once
    assert memory.photographs_kept([], 96) == 96
