"""What a workspace holds, read without a lock: each part for itself, so that a broken one leaves the others."""

import io
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfm_match.colmap.database_check import check_database
from sfm_match.colmap.queries import read_record
from sfm_match.errors import NothingDone, SfmMatchError
from sfm_match.images.files import Header
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.stage_record import read_stages
from sfm_match.job.workspace import Workspace
from sfm_match.reporting.matching import Drawn, Matching, read_drawn, read_matching
from sfm_match.reporting.models import Measured, measure
from sfm_match.reporting.thumbnails import Thumbnails, thumbnails
from sfm_match.results import Results
from sfm_match.store.columns import Column, Names
from sfm_match.store.model_record import changed, read_model_record
from sfm_match.store.regular import of_the_process, open_regular

if TYPE_CHECKING:
    import pycolmap

T = TypeVar("T")
# what reading a damaged file raises: ours, the disk's, SQLite's, pycolmap's (RuntimeError), and of wrong content
_DAMAGE = (
    SfmMatchError,
    OSError,
    sqlite3.Error,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
)


_OF_A_MODEL = {"registered", "points", "track_length", "reprojection_error", "odd"}  # keys that are shown


@dataclass
class Facts:
    """Of a workspace. What is not there yet is None or empty."""

    workspace: Path
    folder: Path | None = None  # of the photographs
    names: Names = field(default_factory=Names)  # of all images; other fields refer to their places
    headers: Mapping[str, Header] = field(default_factory=dict)  # of those that could be read
    failed: dict[str, str] = field(default_factory=dict)  # image -> why it has no features
    unregistered: dict[str, str] = field(default_factory=dict)  # image -> why it is in no model
    keypoints: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (N,), -1 where none are yet
    listed: int | None = None  # pairs of pairs.txt
    unmatched: int | None = None  # of them, without matches; not counted where there is a database
    matching: Matching | None = None
    drawn: Drawn | None = None
    measured: Measured | None = None
    summary: dict[str, Any] = field(default_factory=dict)  # sparse/sfm-match.json
    thumbnails: Thumbnails | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)  # as `stage_record` has them
    record: dict[str, Any] = field(default_factory=dict)  # stage -> its settings
    problems: list[str] = field(default_factory=list)  # what could not be read, a sentence each

    @property
    def models(self) -> list[dict[str, Any]]:
        """The numbers of each model, the largest first."""
        found = self.summary.get("models", [])
        return found if isinstance(found, list) else []

    @property
    def registered(self) -> int:
        """Images in any model."""
        return int((self.measured.per_image.model >= 0).sum()) if self.measured is not None else 0

    @property
    def with_features(self) -> int:
        """Images that have features."""
        return int((self.keypoints >= 0).sum())

    @property
    def next_stage(self) -> str | None:
        """The first stage without a result; None where all have one."""
        if not self.names or self.with_features + len(self.failed) < len(self.names):
            return "extract"
        if self.listed is None:
            return "pairs"
        if self.unmatched:
            return "match"
        if self.matching is None:
            return "import"
        return None if self.measured is not None and self.measured.scenes else "reconstruct"


def read_facts(workspace: Workspace) -> Facts:
    """Everything of a workspace, which need not be finished or whole.

    Raises:
        NothingDone: there is no workspace.
    """
    if not workspace.folder.is_dir() or not (workspace.collection.exists() or workspace.record.exists()):
        raise NothingDone(f"{workspace.folder}: no such workspace; run `sfm-match run --images DIR` first")
    facts = Facts(workspace.folder, stages=read_stages(workspace))
    read = _Reader(facts.problems)
    results = read("images", lambda: Results(workspace.folder))
    if results is None:
        return facts
    facts.record = results.workspace.read_record()
    facts.folder, facts.headers = results.image_folder, results.images
    facts.failed = read("failed.csv", lambda: results.failed) or {}
    facts.unregistered = read("unregistered.csv", lambda: results.unregistered) or {}
    facts.names = _names(results.images, facts.failed)
    facts.keypoints = np.full(len(facts.names), -1, np.int64)
    give_memory_back()
    kept = workspace.thumbnails  # first: what takes most while it is read
    facts.thumbnails = read("photographs", lambda: thumbnails(results.image_folder, facts.headers, kept))
    give_memory_back()
    facts.listed = read("pairs.txt", lambda: _lines(workspace.pairs))
    _read_database(facts, workspace, read)
    if facts.matching is None:
        _read_unfinished(facts, results, read)
    if workspace.sparse.exists():
        facts.summary = read("sparse", lambda: read_summary(workspace)) or {}
        if facts.summary:
            facts.measured = read("sparse", lambda: _measured(facts, results))
    return facts


def _names(images: Column[Header], failed: Mapping[str, str]) -> Names:
    """Of all images: the collection's, where it has no others, or one list more."""
    others = sum(name not in images for name in failed)
    if len(images) + others == len(images.names) and all(name in images.names for name in failed):
        return images.names
    return Names(sorted({*images, *failed}))


class _Reader:
    """Reads a part; where it is damaged, notes the problem."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __call__(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except NothingDone:  # not there yet
            return None
        except _DAMAGE as error:
            if of_the_process(error):  # a page that says so would stay
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            self._problems.append(f"{what} cannot be read: {text}")
            return None


def _lines(path: Path) -> int | None:
    if not path.exists():
        return None
    with io.BufferedReader(open_regular(path)) as file:
        return sum(1 for _ in file)


def _read_database(facts: Facts, workspace: Workspace, read: _Reader) -> None:
    database = workspace.database
    if not database.exists():
        return
    matching = read(database.name, lambda: _believed(database, facts.names))
    give_memory_back()
    if matching is not None:
        facts.matching, facts.keypoints = matching, matching.keypoints
        headers, accepted = facts.headers, matching.accepted
        facts.drawn = read(database.name, lambda: read_drawn(database, facts.names, headers, accepted))


def _believed(database: Path, names: Names) -> Matching:
    """Raises SfmMatchError where the database is damaged, or sfm-match did not make it."""
    if read_record(database, "inputs") is None:
        raise SfmMatchError("it is damaged, or sfm-match did not make it")
    check_database(database)
    return read_matching(database, names)


def _read_unfinished(facts: Facts, results: Results, read: _Reader) -> None:
    """Counts of features and matches, of a job that has no database yet."""
    counts = read("features", lambda: results.feature_set.counts) or {}
    facts.keypoints = np.array([counts.get(name, -1) for name in facts.names], np.int64)
    if counts:
        facts.unmatched = read("matches", lambda: len(results.match_set.open_pairs))
    if facts.unmatched is None:
        facts.unmatched = facts.listed


def read_summary(workspace: Workspace) -> dict[str, Any]:
    """`sparse/sfm-match.json`. Raises what reading a damaged file raises."""
    stored = read_model_record(workspace.sparse)
    if not all(one.keys() >= _OF_A_MODEL for one in stored.get("models", [])):
        raise ValueError("sparse/sfm-match.json is not as it was written")
    return stored


def read_models(results: Results, summary: dict[str, Any]) -> "list[pycolmap.Reconstruction]":
    """The models of a workspace, if their files are as they were written.

    Raises:
        NothingDone: there is none.
        SfmMatchError: a file is not as it was written: of garbage, pycolmap may ask for all memory there is.
    """
    sparse = results.workspace.sparse
    for name in changed(sparse, summary.get("files", {})):
        raise SfmMatchError(f"{name} is not as it was written")
    return results.earned_models()


def _measured(facts: Facts, results: Results) -> Measured:
    metric = any(model.get("georeference") for model in facts.models)
    return measure(read_models(results, facts.summary), facts.names, facts.headers, metric=metric)
