"""Reading what a job left: images, features, matches, verified pairs, models.

    results = sfm_match.open("workspace")
    for first, second in results.verified_pairs:
        keypoints = results.features(first).keypoints, results.features(second).keypoints
        matches = results.verified(first, second)

Nothing is written and no lock is taken: a job may run at the same time, and what it has not finished is not there yet.
"""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap import queries
from sfm_match.colmap.database_check import check_database
from sfm_match.colmap.model_check import load
from sfm_match.errors import NothingDone, UsageError, nearest, quoted
from sfm_match.images.collection import Collection
from sfm_match.images.files import Header
from sfm_match.images.reasons import read_failed, read_reasons
from sfm_match.job.log import LOGGER
from sfm_match.job.workspace import Workspace
from sfm_match.options.arguments import checked
from sfm_match.stages.listed_matches import NamedMatches, iter_matches, read_pairs_of
from sfm_match.stages.state import (
    FeatureSet,
    MatchSet,
    NamedFeatures,
    iter_features,
    recorded_features,
    recorded_matches,
    whole,
)
from sfm_match.store.columns import Column
from sfm_match.store.features import Features
from sfm_match.store.matches import Matches, read_head
from sfm_match.store.model_record import changed, read_model_record
from sfm_match.store.records import DamagedRecord

if TYPE_CHECKING:
    import pycolmap

_FILES = 4  # of matches that are kept in memory


class Results:
    """What a workspace holds. Each part is found when it is first asked for, and once."""

    def __init__(self, workspace: str | Path) -> None:
        """
        Args:
            workspace: folder of a job.

        Raises:
            NothingDone: it is not there, or has no images yet.
            UsageError: another version of the program worked there.
        """
        folder = Path(workspace)
        if not folder.is_dir():
            raise NothingDone(f"{folder}: no such workspace; run `sfm-match run --images DIR` first")
        self.workspace = Workspace(folder)
        self.workspace.read_record()  # refuses another version's
        self._collection = Collection.load(self.workspace)
        self._matches_of = lru_cache(_FILES)(self._read_matches)

    @property
    def images(self) -> Column[Header]:
        """Name -> what the image's header says, of the images that could be read. Names are sorted."""
        return self._collection.usable

    @property
    def image_folder(self) -> Path:
        """Of the photographs: names of images are relative to it."""
        return self._collection.folder

    @property
    def mask_folder(self) -> Path | None:
        """Of the masks, where the job has some."""
        return self._collection.masks

    @cached_property
    def failed(self) -> dict[str, str]:
        """Name -> why an image has no features."""
        return read_failed(self.workspace)

    @cached_property
    def unregistered(self) -> dict[str, str]:
        """Name -> why an image is in no model."""
        return read_reasons(self.workspace, self.workspace.unregistered)

    @cached_property
    def feature_set(self) -> FeatureSet:
        """Which images have features, and in which files. Raises NothingDone where none were extracted."""
        return whole(recorded_features(self.workspace, self._collection))

    @cached_property
    def match_set(self) -> MatchSet:
        """Which pairs have matches, and in which files. Raises NothingDone where none were matched."""
        return whole(recorded_matches(self.workspace, self._collection, self.feature_set))

    @checked
    def features(self, name: str, *, descriptors: bool = True) -> Features:
        """Features of an image, as they were detected.

        Args:
            name: of the image.
            descriptors: without, they are not read, and are empty.

        Returns:
            keypoints (N, 2) float32 x, y in pixels of the image file, before its EXIF orientation, the centre of the
            top-left pixel at (0.5, 0.5); scores (N,) float32; descriptors (N, D) float16 of unit length.

        Raises:
            UsageError: there is no such image.
            NothingDone: it has no features; the message says why.
        """
        if name not in self.feature_set.counts:
            self._check(name)
            why = self.feature_set.failed.get(name, "not extracted yet; run `sfm-match extract`")
            raise NothingDone(f"{name}: no features ({why})")
        ((_, found),) = iter_features(self.feature_set, [name], descriptors=descriptors)
        return found

    def iter_features(self, *, descriptors: bool = True) -> Iterator[NamedFeatures]:
        """Name and features of every image that has some, each file read once."""
        return iter_features(self.feature_set, descriptors=descriptors)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of `pairs.txt` of which both images have features."""
        names = list(self.match_set.names)  # each of them once, however many pairs
        return [(names[i], names[j]) for i, j in self.match_set.pairs.every().tolist()]

    @checked
    def matches(self, first: str, second: str) -> Matches:
        """Matches of two images, before verification.

        Returns:
            indices (M, 2) uint32 of keypoints of `first` and of `second`; scores (M,) float16, probabilities.

        Raises:
            UsageError: there is no such image.
            NothingDone: the pair is not in the list, or not matched yet.
        """
        for name in (first, second):
            self._check(name)
        for a, b, turned in ((first, second, False), (second, first, True)):
            code = self._rank[a] * len(self._rank) + self._rank[b]
            at = np.searchsorted(self._codes, code)
            if at < len(self._codes) and self._codes[at] == code:
                file, row = self._places[at]
                found = self._matches_of(self._paths[file])[row]
                return Matches(found.indices[:, ::-1], found.scores) if turned else found
        raise NothingDone(f"{first}, {second}: no matches; the pair is not in pairs.txt, or not matched yet")

    def iter_matches(self) -> Iterator[NamedMatches]:
        """Both names and the matches of every pair of `pairs.txt` that is matched, each file read once."""
        return iter_matches(self.match_set, self.feature_set)

    @cached_property
    def verified_pairs(self) -> list[tuple[str, str]]:
        """Pairs that have a two-view geometry: accepted ones. Raises NothingDone where there is no database."""
        names = queries.image_names(self._database)
        return [(names[i], names[j]) for i, j in queries.verified_pairs(self._database, names).tolist()]

    @checked
    def verified(self, first: str, second: str) -> NDArray[np.uint32]:
        """(M, 2) keypoints of `first` and of `second`: the inliers of their two-view geometry.

        Raises:
            UsageError: there is no such image.
            NothingDone: there is no database.
        """
        for name in (first, second):
            self._check(name)
        return queries.inliers(self._database, first, second)

    @checked
    def adjusted_keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image as the mapper sees them, in the pixels of `features`: verified ones are moved.

        Raises:
            UsageError: there is no such image in the database.
            NothingDone: there is no database.
        """
        self._check(name)
        return queries.keypoints(self._database, name)

    @cached_property
    def models(self) -> "list[pycolmap.Reconstruction]":
        """The models of `sparse`, the one with the most images first; none where no model was earned.

        Raises:
            SfmMatchError: files are damaged. Of those that were changed to something that can be, a warning tells.
        """
        sparse = self.workspace.sparse
        folders = [path for path in sparse.glob("*") if path.name.isdecimal()]
        if folders:
            _tell_if_changed(sparse)
        return [load(path) for path in sorted(folders, key=lambda path: int(path.name))]

    @property
    def model(self) -> "pycolmap.Reconstruction":
        """The largest model. Raises NothingDone where there is none."""
        return self.earned_models()[0]

    def earned_models(self) -> "list[pycolmap.Reconstruction]":
        """`models`. Raises NothingDone where there is none."""
        if not self.models:
            raise NothingDone(f"{self.workspace.folder}: no model yet; run `sfm-match reconstruct` first")
        return self.models

    def _read_matches(self, path: Path) -> list[Matches]:
        return read_pairs_of(path, self.feature_set).matches

    def _check(self, name: str) -> None:
        if name not in self._collection.records:
            raise UsageError(f"{quoted(name)}: no such image{nearest(name, self._collection.records)}")

    @property
    def _database(self) -> Path:
        if queries.read_record(self.workspace.database, "inputs") is None:
            raise NothingDone(f"{self.workspace.folder}: no database yet; run `sfm-match import` first")
        check_database(self.workspace.database)
        return self.workspace.database

    @cached_property
    def _rank(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.match_set.names)}

    @cached_property
    def _paths(self) -> list[Path]:
        return self.match_set.paths

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(P,) codes of all pairs that are matched, ascending, and (P, 2) the file and the row of each."""
        codes, places = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)]
        for number, path in enumerate(self._paths):
            pairs = read_head(path).places(self._rank, self.feature_set.signatures)
            mine = np.where((pairs >= 0).all(axis=1), pairs @ (len(self._rank), 1), -1)
            codes.append(mine)
            places.append(np.column_stack((np.full(len(mine), number), np.arange(len(mine)))))
        every = np.concatenate(codes)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(places)[order]

    @property
    def _codes(self) -> NDArray[np.int64]:
        return self._index[0]

    @property
    def _places(self) -> NDArray[np.int64]:
        return self._index[1]


@checked
def open_workspace(workspace: str | Path = "workspace") -> Results:
    """`sfm_match.open`: what a job left, for reading. Raises NothingDone where there is no job."""
    return Results(workspace)


def _tell_if_changed(sparse: Path) -> None:
    """A line where models are not as `reconstruct` wrote them."""
    try:
        names = changed(sparse, read_model_record(sparse).get("files", {}))
    except DamagedRecord as error:
        LOGGER.warning("%s; the models are taken as they are", error.reason)
        return
    if names:
        LOGGER.warning("%s: not as `sfm-match reconstruct` wrote it; taken as it is", sparse / names[0])
