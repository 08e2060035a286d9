"""How many photographs adjustment holds, and works on side by side: what counts where they are large."""

import math
from collections.abc import Iterable

from sfm_match.images.coordinates import ImageGeometry
from sfm_match.job.concurrency import machine_memory
from sfm_match.job.cores import cores
from sfm_match.runtime.planning import images_at_once

_ASSUMED = 8 << 30  # bytes of a machine that does not tell


def seen_bytes(geometry: ImageGeometry) -> int:
    """Of a photograph as `patch_alignment.see` returns it: grey, its half and its quarter."""
    return math.prod(geometry.network_size) * 21 // 16


def photographs_kept(geometries: Iterable[ImageGeometry], most: int) -> int:
    """Photographs of these geometries that stay in memory: an eighth of it at most, one at least."""
    fitting = (machine_memory() or _ASSUMED) // 8 // max(map(seen_bytes, geometries), default=1)
    return max(1, min(most, fitting))


def pairs_at_once(geometries: Iterable[ImageGeometry]) -> int:
    """Pairs of these photographs to align side by side: one a core, as far as a quarter of the memory goes.

    Each decodes a photograph (Pillow takes 4 bytes a pixel, we 3) and has up to three of them in float32.
    """
    sizes = (7 * math.prod(one.raw_size) + 3 * 4 * seen_bytes(one) for one in geometries)
    at_once = cores()
    return images_at_once(at_once, max(sizes, default=1), at_once, machine_memory())
