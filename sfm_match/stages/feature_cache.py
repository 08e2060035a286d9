"""Features of images for a matcher, from files: what was asked for last stays in memory."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.files import Header
from sfm_match.job.concurrency import machine_memory
from sfm_match.matching.matcher import Descriptors
from sfm_match.store.features import Features, read_features, unit_path

KEPT = 1 << 29  # bytes of descriptors in memory: 7 blocks of 32 images with 4096 x 256 float16
KEPT_IMAGES = 2048  # on a processor: more small ones would fill the memory, and are read again in no time
SHARE = 8  # with a GPU, this part of the machine's memory where that is more: reading would hold it up


def kept_bytes(*, on_device: bool, workers: int) -> int:
    """Bytes of descriptors that each of the workers keeps in memory."""
    memory = machine_memory()
    return KEPT if not on_device or memory is None else max(KEPT, memory // (SHARE * workers))


class FeatureCache:
    """Reads features. Descriptors of the images that were asked for last are kept. Several threads may ask."""

    def __init__(
        self,
        folder: Path,
        units: Mapping[str, int],
        headers: Mapping[str, Header] | None = None,
        limit: int = KEPT,
        most: int | None = None,
    ) -> None:
        """
        Args:
            folder: of features.
            units: image -> unit that holds its features.
            headers: of the images.
            limit: bytes of descriptors to keep.
            most: images whose descriptors are kept; None: any number.
        """
        self._folder, self._units, self._headers = folder, units, headers or {}
        self._limit, self._most = limit, most
        self._held: OrderedDict[str, Descriptors] = OrderedDict()  # the latest used last
        self._bytes = 0
        self._one_at_a_time = Lock()
        self.read = 0  # images whose descriptors came from files

    def descriptors(self, names: Sequence[str]) -> list[Descriptors]:
        """(N, D) of each image. Raises ShardError where a file cannot be read."""
        with self._one_at_a_time:  # HDF5 reads one at a time, too
            found = {name: self._held[name] for name in names if name in self._held}
            for name in found:
                self._held.move_to_end(name)
            for unit, missing in self._by_unit(name for name in names if name not in found).items():
                for name, features in self._read(unit, missing).items():
                    found[name] = self._held[name] = features.descriptors
                    self._bytes += features.descriptors.nbytes
                self.read += len(missing)
            while self._bytes > self._limit or len(self._held) > (self._most or len(self._held)):
                self._bytes -= self._held.popitem(last=False)[1].nbytes
            return [found[name] for name in names]

    def keypoints(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """(N, 2) of each image, raw pixels. Raises ShardError where a file cannot be read."""
        found = {}
        with self._one_at_a_time:
            for unit, mine in self._by_unit(names).items():
                for name, features in self._read(unit, mine, descriptors=False).items():
                    found[name] = features.keypoints
        return [found[name] for name in names]

    def _read(self, unit: int, names: Sequence[str], *, descriptors: bool = True) -> dict[str, Features]:
        known = {name: self._headers[name] for name in names if name in self._headers}
        sizes = {name: (header.width, header.height) for name, header in known.items()}
        return read_features(unit_path(self._folder, unit), names, descriptors=descriptors, sizes=sizes)

    def headers(self, names: Sequence[str]) -> list[Header]:
        """Of each image."""
        return [self._headers[name] for name in names]

    def _by_unit(self, names: Iterable[str]) -> dict[int, list[str]]:
        units: dict[int, list[str]] = {}
        for name in names:
            units.setdefault(self._units[name], []).append(name)
        return units
