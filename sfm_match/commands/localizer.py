"""From a query to its pose: features as the workspace has them, images of the model to match with, matches, pose."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pairs.retrieval import ranked
from pairs.vlad import Codebook
from sfm_match.colmap.absolute_pose import Correspondences, KnownCameras, Pose, QueryCamera, find_pose, query_camera
from sfm_match.colmap.cameras import check_camera_model
from sfm_match.errors import NothingDone, UsageError
from sfm_match.features.extractor import extractor_of
from sfm_match.features.tiles import buckets_of, create_extractor, geometry_of
from sfm_match.images.files import Header, ImageError
from sfm_match.images.loader import Item, decode_for
from sfm_match.job.progress import Clock
from sfm_match.matching.matcher import Descriptors, Matcher, create_matcher
from sfm_match.models import recorded_match_defaults
from sfm_match.options.base import about
from sfm_match.options.localize import ALL_UP_TO, NUM_IMAGES, LocalizeOptions
from sfm_match.options.stages import ExtractOptions, MatchOptions
from sfm_match.refine.memory import photographs_kept
from sfm_match.refine.patch_alignment import Seen, align_photographs, see
from sfm_match.results import Results
from sfm_match.stages.extract import feature_inputs
from sfm_match.stages.extract_units import batches_of, loader_for
from sfm_match.stages.feature_cache import FeatureCache, kept_bytes
from sfm_match.stages.image_summaries import learned_codebook, vector_of, vectors_of
from sfm_match.stages.match import match_inputs, match_settings
from sfm_match.stages.match_blocks import BLOCK
from sfm_match.stages.state import FeatureSet
from sfm_match.store.columns import Names
from sfm_match.store.features import Features

if TYPE_CHECKING:
    import pycolmap

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T")
_SEEN = 64  # photographs of the model in memory at most
_KEPT = 1024  # images of the model, whose points are in memory: 100 MB
_FARTHEST = 0.01  # of the long side: adjustment moves no keypoint by more


@dataclass(frozen=True)
class Query:
    """A photograph whose pose is asked for."""

    path: Path  # absolute: no image of a workspace has such a name
    header: Header

    @property
    def key(self) -> str:
        """Its name beside those of the workspace."""
        return str(self.path)


@dataclass(frozen=True)
class Answer:
    """What was found of a query."""

    camera: QueryCamera
    keypoints: int  # of the query
    correspondences: int  # keypoints that match a point of the model
    inliers: int  # of them
    images: tuple[str, ...]  # of the model, whose matches agree with the pose; those with most first
    pose: Pose | str  # or why there is none


@dataclass(frozen=True)
class _Matched:
    """R matches of a query with keypoints of the model that carry a point, and what they say together."""

    candidates: list[str]  # images of the model
    places: Rows  # (R,) of the image among the candidates
    there: Floats  # (R, 2) raw pixels of that image
    of: Rows  # (R,) rows of `found`
    found: Correspondences

    def with_most(self, inliers: NDArray[np.bool_]) -> tuple[str, ...]:
        """The candidates that inliers come from, those with most first."""
        votes = np.bincount(self.places[inliers[self.of]], minlength=len(self.candidates))
        return tuple(self.candidates[place] for place in np.argsort(-votes, kind="stable") if votes[place])


class Localizer:
    """Poses of queries in the largest model of a workspace, in which nothing is written."""

    def __init__(self, results: Results, options: LocalizeOptions) -> None:
        """
        Args:
            results: of a job.
            options: how to localize.

        Raises:
            NothingDone: there is no model, or one of other features than those that are there.
            UsageError: options that are not accepted, or features that cannot be made as those of the workspace.
        """
        if (options.camera_model, options.camera_params) != (LocalizeOptions.camera_model, None):
            check_camera_model(options.cameras())
        self._options, self._results, self._features = options, results, results.feature_set
        self._model = results.model
        self._extracting = _recorded_extraction(self._features, options)
        self._matcher = _recorded_matcher(results, options, self._extracting.max_keypoints)
        limit = kept_bytes(on_device=self._matcher.on_device, workers=1)
        self._stored = FeatureCache(self._features.folder, self._features.units, results.images, limit)
        self._points = _ModelPoints(self._model, self._features, self._stored)
        self._cameras = KnownCameras(self._model, results.images)
        geometries = (results.images[name].geometry(self._extracting.size, 1) for name in self._points.names)
        self._see = lru_cache(photographs_kept(geometries, _SEEN))(self._seen)

    def each(self, queries: Sequence[Query]) -> Iterator[tuple[Query, Answer | str]]:
        """What was found of each query, or why it has no features. They come by their sizes, as they are batched.

        Raises:
            EngineError: the engine refuses a network, or has no memory for one image.
            ShardError: a file of the workspace cannot be read.
        """
        if not queries:
            return
        options = self._extracting
        model = extractor_of(options.model).chosen_model(options)
        items = [Item(query.key, geometry_of(query.header, options, model.divisor)) for query in queries]
        extractor = create_extractor(
            model, options, buckets_of((item.geometry for item in items), options, model.divisor)
        )
        asked = {query.key: query for query in queries}
        loaded = loader_for(Path(), None, options, batches_of(items, extractor.batch), extractor.batch)
        for batch, found in extractor.each(loaded, Clock()):
            for key, features in {**batch.failed, **found}.items():
                yield asked[key], features if isinstance(features, str) else self._localize(asked[key], features)

    def _localize(self, query: Query, features: Features) -> Answer:
        camera = query_camera(query.header, self._cameras, self._options.cameras())
        scale = float(np.mean(1 / query.header.geometry(self._extracting.size, 1).raw_scale))
        matched = self._matched(query, features, self._candidates(features))
        pose = find_pose(matched.found, camera, scale)
        if isinstance(pose, Pose) and self._options.adjust_keypoints:
            matched = self._adjusted(query, matched, pose.inliers)
            pose = find_pose(matched.found, camera, scale)
        inliers = pose.inliers if isinstance(pose, Pose) else np.zeros(len(matched.found.keypoints), bool)
        counts = len(features.keypoints), matched.found.count(), matched.found.count(inliers)
        return Answer(camera, *counts, matched.with_most(inliers), pose)

    def _candidates(self, features: Features) -> list[str]:
        """Images of the model to match with."""
        names, asked = self._points.names, self._options.num_images
        count = asked or (len(names) if len(names) <= ALL_UP_TO else NUM_IMAGES)
        if count >= len(names):
            return names
        codebook, vectors = self._summaries
        vectors[-1] = vector_of(features, self._features.rotations, codebook)
        query, database = np.array([len(names)], np.int32), np.arange(len(names), dtype=np.int32)
        return [names[place] for _, found, _ in ranked(vectors, count, query, database) for place in found[0]]

    @cached_property
    def _summaries(self) -> tuple[Codebook, NDArray[np.float16]]:
        """Words, and (N + 1, T, V) vectors of the model's images; the last row is for a query."""
        codebook = learned_codebook(self._features, self._points.names)
        vectors = vectors_of(self._features, Names(self._points.names), codebook)
        return codebook, np.concatenate((vectors, np.zeros_like(vectors[:1])))

    def _matched(self, query: Query, features: Features, candidates: list[str]) -> _Matched:
        images = _WithQuery(query, features, self._stored)
        # of each candidate: its place, the query's keypoints, points, the candidate's pixels, scores
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))]
        for start in range(0, len(candidates), BLOCK):
            group = tuple(candidates[start : start + BLOCK])
            pairs = np.array([(0, place) for place in range(1, len(group) + 1)], np.int32)
            found = self._matcher.match(((query.key,), group), images, pairs)
            for place, (name, matches) in enumerate(zip(group, found, strict=True), start):
                points, xy = self._points.of(name)
                mine, theirs = matches.indices.astype(np.int64).T
                rows = points[theirs] >= 0
                theirs = theirs[rows]
                parts.append(
                    (np.full(len(theirs), place), mine[rows], points[theirs], xy[theirs], matches.scores[rows])
                )
        places, keypoints, points, there, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        # a keypoint and its point count once, however many images join them
        joined, of = np.unique(np.stack((keypoints, points)), axis=1, return_inverse=True)
        best = np.zeros(joined.shape[1])
        np.maximum.at(best, of.ravel(), scores)
        xyz = np.array([self._model.points3D[point].xyz for point in joined[1].tolist()], np.float64).reshape(-1, 3)
        xy = features.keypoints[joined[0]].astype(np.float64)
        return _Matched(candidates, places, there, of.ravel(), Correspondences(joined[0], xy, xyz, best))

    def _adjusted(self, query: Query, matched: _Matched, inliers: NDArray[np.bool_]) -> _Matched:
        """The query's keypoints, moved to where the patches around them fit those of the model's images: their mean."""
        mine = self._see(query.path, query.header)
        xy = matched.found.xy
        moves, counts = np.zeros_like(xy), np.zeros(len(xy))
        for place, name in enumerate(matched.candidates) if mine is not None else ():
            rows = np.flatnonzero((matched.places == place) & inliers[matched.of])
            other = self._see(self._results.image_folder / name, self._results.images[name]) if len(rows) else None
            if other is None or mine is None:
                continue
            of = matched.of[rows]
            first, second = matched.there[rows].astype(np.float32), xy[of].astype(np.float32)
            aligned = align_photographs(other, mine, first, second)
            np.add.at(moves, of[aligned.fits], aligned.offsets[aligned.fits] / mine.scale)
            np.add.at(counts, of[aligned.fits], 1)
        moved = xy + moves / np.maximum(counts, 1)[:, None]
        return dataclasses.replace(matched, found=dataclasses.replace(matched.found, xy=moved))

    def _seen(self, path: Path, header: Header) -> Seen | None:
        """None where it cannot be read any more."""
        geometry = header.geometry(self._extracting.size, 1)
        try:
            return see(decode_for(geometry, path, reduce=self._extracting.reduced_decode), geometry)
        except ImageError:
            return None


class _ModelPoints:
    """Which keypoints of the model's images carry which point. Keypoint i is that of the features, perhaps adjusted."""

    def __init__(self, model: "pycolmap.Reconstruction", features: FeatureSet, stored: FeatureCache) -> None:
        """Raises NothingDone where the model was made of other features."""
        self._images = {image.name: image for image in model.images.values() if image.has_pose}
        self._stored, self._size = stored, features.inputs["size"]
        self.names = sorted(self._images)
        for name in self.names:
            if self._images[name].num_points2D() != features.counts.get(name):
                raise _stale(name)
        self.of = lru_cache(_KEPT)(self._of)

    def _of(self, name: str) -> tuple[Rows, Floats]:
        """(N,) point of each keypoint, -1 without one; (N, 2) where the model has the keypoint, raw pixels.

        Raises:
            NothingDone: adjustment cannot have moved the keypoints of the features to there.
        """
        observed = self._images[name].points2D
        points = [one.point3D_id if one.has_point3D() else -1 for one in observed]
        xy = np.array([one.xy for one in observed], np.float64).reshape(-1, 2)
        moved = np.linalg.norm(xy - self._stored.keypoints([name])[0], axis=1)
        # the median is some tenths of a pixel of the network; of other keypoints, a good part of the image
        if len(moved) and np.median(moved) > max(self._stored.headers([name])[0].upright_size) * _FARTHEST:
            raise _stale(name)
        return np.array(points, np.int64), xy


def _stale(name: str) -> NothingDone:
    return NothingDone(f"{name}: the model was made of other features than those that are there; run `sfm-match run`")


@dataclass(frozen=True)
class _WithQuery:
    """A query beside the images of the workspace, for a matcher (`matcher.ImageFeatures`)."""

    query: Query
    features: Features
    others: FeatureCache

    def descriptors(self, names: Sequence[str]) -> list[Descriptors]:
        return self._joined(names, self.features.descriptors, self.others.descriptors)

    def keypoints(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        return self._joined(names, self.features.keypoints, self.others.keypoints)

    def headers(self, names: Sequence[str]) -> list[Header]:
        return self._joined(names, self.query.header, self.others.headers)

    def _joined(self, names: Sequence[str], mine: T, ask: Callable[[Sequence[str]], list[T]]) -> list[T]:
        others = iter(ask([name for name in names if name != self.query.key]))
        return [mine if name == self.query.key else next(others) for name in names]


def _recorded_extraction(features: FeatureSet, options: LocalizeOptions) -> ExtractOptions:
    """The options of the workspace's features, on the device that was asked for. Masks are no business of queries.

    Raises:
        UsageError: the weights, the decoder or the program are not those that made the features.
    """
    recorded: Mapping[str, object] = features.inputs
    fingerprinted = {f.name for f in dataclasses.fields(ExtractOptions) if about(f).fingerprinted} - {"masks"}
    chosen = {name: recorded[name] for name in fingerprinted & recorded.keys()}
    chosen |= {name: getattr(options, name) for name in ("device", "batch", "workers", "weights", "weights_dir")}
    extracting = ExtractOptions.from_mapping(chosen)
    inputs = feature_inputs(extracting, extractor_of(extracting.model).chosen_model(extracting))
    _refuse_others("described as the workspace's images were", recorded, inputs)
    return extracting


def _recorded_matcher(results: Results, options: LocalizeOptions, keypoints: int) -> Matcher:
    """As the workspace's pairs were matched; a query has at most so many keypoints.

    Raises:
        NothingDone: they were not.
        UsageError: the device is not here.
        EngineError: the engine refuses the network, or has no memory for one pair.
    """
    recorded = results.workspace.read_record().get("match")
    if recorded is None:
        raise NothingDone(f"{results.workspace.folder}: no matches yet; run `sfm-match match` first")
    here = {"device": options.device, "match_workers": options.workers, "weights_dir": options.weights_dir}
    matching = MatchOptions.from_mapping({**recorded, **here, "matcher_weights": options.matcher_weights})
    inputs = match_inputs(matching, recorded_match_defaults(results.feature_set.inputs))
    _refuse_others("matched as the workspace's pairs were", recorded, inputs)
    most = max(keypoints, *results.feature_set.counts.values())
    settings = match_settings(matching, recorded, results.feature_set, most)
    return create_matcher(matching.matcher, settings, options.device, lambda _: None)


def _refuse_others(what: str, recorded: Mapping[str, object], inputs: Mapping[str, object]) -> None:
    """Raises UsageError where inputs differ from those on record, but for masks."""
    differ = sorted(key for key in {*inputs, *recorded} - {"masks"} if inputs.get(key) != recorded.get(key))
    if differ:
        shown = ", ".join(f"{key} was {recorded.get(key)}, now {inputs.get(key)}" for key in differ)
        raise UsageError(f"queries cannot be {what}: {shown}")
