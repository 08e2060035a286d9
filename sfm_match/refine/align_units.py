"""Patches of verified matches aligned, a unit of pairs at a time: here, or by workers of a cluster.

What is found in a unit is a file in a folder beside the database.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfm_match.colmap.queries import open_for_reading
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.files import Header, ImageError
from sfm_match.images.loader import decode_for
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.job.progress import Advance, Clock
from sfm_match.refine.memory import pairs_at_once, photographs_kept
from sfm_match.refine.patch_alignment import Seen, align_photographs, see
from sfm_match.refine.track_optimization import Relations, join
from sfm_match.refine.verified_matches import Side, Source
from sfm_match.store.shard import ShardError, open_shard, read_text, write_shard

BLOCK = 32  # images: pairs between two blocks follow one another
_MOST_KEPT = 3 * BLOCK  # photographs in memory


@dataclass(frozen=True)
class AlignContext:
    """What whoever aligns units needs to know."""

    database: Path  # nobody writes to it meanwhile
    elsewhere: bool  # on machines that share the folder
    folder: Path  # of photographs
    headers: Mapping[str, Header]  # of the collection
    size: int
    reduced: bool

    def geometry(self, name: str) -> ImageGeometry:
        """Of an image at the network."""
        return self.headers[name].geometry(self.size, 1)


@dataclass(frozen=True)
class AlignUnit:
    """Pairs that are aligned together."""

    number: int
    pairs: NDArray[np.int32]  # (P, 2) images
    path: Path  # of the file with what is found
    fingerprint: str


@dataclass(frozen=True)
class AlignReceipt:
    """What was found."""

    number: int
    partly: Relations | None  # where not all photographs could be read; None: the file has all
    unreadable: frozenset[str]  # images, so far
    read_any: bool  # of the photographs, so far


def align_units(
    context: AlignContext, _device: str, units: Iterator[AlignUnit], _advance: Advance, _clock: Clock
) -> Iterator[AlignReceipt]:
    """The work of one worker (`executor.Work`)."""
    cv2.setNumThreads(1)  # the threads are here
    with closing(open_for_reading(context.database, still=context.elsewhere)) as connection:
        source, photographs = Source(connection), _Photographs(context)
        workers = WorkerThreads(pairs_at_once(photographs.geometries))
        waiting = ((unit, source.load(unit.pairs)) for unit in units)
        with threadpool_limits(1, "blas"):
            for (unit, _), (one, whole) in workers.each(waiting, lambda item: _align(item[1], photographs)):
                if whole:  # or another try may find what could not be read now
                    write_shard(unit.path, vars(one), {"fingerprint": unit.fingerprint})
                partly = None if whole else one
                yield AlignReceipt(unit.number, partly, frozenset(photographs.unreadable), photographs.read_any)


def is_aligned(unit: AlignUnit) -> bool:
    """Whether an earlier run has done it."""
    if not unit.path.exists():
        return False
    try:
        return _read(unit.path)[0] == unit.fingerprint
    except ShardError:
        return False


def aligned(path: Path) -> Relations:
    """What the file of a unit holds. Raises ShardError where it is damaged."""
    return _read(path)[1]


def _read(path: Path) -> tuple[str, Relations]:
    """The fingerprint of a unit, and what was found."""
    with open_shard(path, "import") as file:
        return read_text(file, "fingerprint"), Relations(*(file[field.name][()] for field in fields(Relations)))


class _Photographs:
    """As the network saw them, but grey."""

    def __init__(self, context: AlignContext) -> None:
        self._context = context
        self.unreadable: set[str] = set()
        self.read_any = False
        self.geometries = {header.geometry(context.size, 1) for header in context.headers.values()}  # mostly few
        self.read = lru_cache(photographs_kept(self.geometries, _MOST_KEPT))(self._read)

    def _read(self, name: str) -> Seen | None:
        """None where it cannot be read."""
        context, geometry = self._context, self._context.geometry(name)
        try:
            seen = see(decode_for(geometry, context.folder / name, reduce=context.reduced), geometry)
        except ImageError:
            self.unreadable.add(name)
            return None
        self.read_any = True
        return seen


def _align(pairs: list[tuple[Side, Side]], photographs: _Photographs) -> tuple[Relations, bool]:
    """What the patches of these pairs say, in pixels of the network; and whether all their photographs were read."""
    found, whole = [], True

    @lru_cache(2)  # pairs that follow one another mostly have an image in common
    def read(name: str) -> Seen | None:
        seen = photographs.read(name)
        return None if seen is None else seen.in_floats()

    for a, b in pairs:
        seen_a, seen_b = read(a.name), read(b.name)
        if seen_a is None or seen_b is None:
            whole = False
            continue
        aligned = align_photographs(seen_a, seen_b, a.points, b.points)
        fits = aligned.fits
        found.append(Relations(a.keypoints[fits], b.keypoints[fits], aligned.offsets[fits], aligned.affines[fits]))
    return join(found), whole
