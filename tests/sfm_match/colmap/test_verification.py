"""Pairs of a database are accepted or not, with the reason on record."""

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.colmap import verification
from sfm_match.colmap.queries import MOST_IMAGES
from sfm_match.colmap.two_view import TwoView, estimate_two_view
from sfm_match.colmap.verification import (
    How,
    NamedMatches,
    is_verified,
    judging_of,
    verdicts,
    verification_work,
    verify_pairs,
)
from sfm_match.matching.acceptance import Verdict
from sfm_match.store.matches import Matches


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[NamedMatches]]:
    """Six views of 200 points. Pairs of the last view are matched by chance: weakly with two views, strongly with
    two, with ten matches with the fifth.
    """
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 6
    options.num_points3D = 200
    path = tmp_path_factory.mktemp("made") / "database.db"
    opened = pycolmap.Database.open(str(path))
    pycolmap.synthesize_dataset(options, opened)
    opened.clear_two_view_geometries()
    images = sorted(opened.read_all_images(), key=lambda image: image.image_id)
    rng = np.random.default_rng(0)
    matches = []
    for j, second in enumerate(images):
        for i, first in enumerate(images[:j]):
            found = opened.read_matches(first.image_id, second.image_id)
            scores = np.full(len(found), 0.9, np.float16)
            if j == 5:
                found = np.stack((found[:, 0], rng.permutation(found[:, 1])), axis=1).astype(np.uint32)[:100]
                found = found[: 10 if i == 4 else 100]
                scores = np.full(len(found), 0.3 if i < 2 else 0.8, np.float16)
            # names in an order of their own: ids are COLMAP's
            reverse = (i + j) % 2 == 1
            names = (second.name, first.name) if reverse else (first.name, second.name)
            matches.append((*names, Matches(found[:, ::-1] if reverse else found, scores)))
    opened.clear_matches()
    opened.close()
    return path, matches


@pytest.fixture
def database(made: tuple[Path, list[NamedMatches]], tmp_path: Path) -> tuple[Path, list[NamedMatches]]:
    """A copy, to change."""
    path, matches = made
    return Path(shutil.copy(path, tmp_path)), matches


@dataclass
class Told:
    """By `verify_pairs`."""

    pairs: int = 0
    work: float = 0.0

    def __call__(self, count: int, work: float | None = None, /) -> None:
        assert work is not None
        self.pairs += count
        self.work += work


def judge(path: Path, matches: Iterable[NamedMatches], *, accept_all: bool = False) -> int:
    """Returns how many pairs were told of."""
    progress = Told()
    verify_pairs(path, matches, judging_of(path, How(accept_all=accept_all)), progress)
    return progress.pairs


def rows_of(path: Path, table: str) -> dict[int, int]:
    """Of each pair."""
    connection = sqlite3.connect(path)
    found = dict(connection.execute(f"SELECT pair_id, rows FROM {table}"))
    connection.close()
    return found


def contents(path: Path, table: str) -> set[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = set(connection.execute(f"SELECT * FROM {table}"))
    connection.close()
    return found


def test_chance_is_rejected_with_its_reason(database: tuple[Path, list[NamedMatches]]) -> None:
    path, matches = database
    judge(path, matches)
    counted = verdicts(path)
    assert counted.pop(Verdict.ACCEPTED) == 10
    assert counted.pop(Verdict.UNRELATED) == 2
    assert counted.pop(Verdict.FEW) == 1
    assert set(counted) <= {Verdict.CHANCE, Verdict.NO_GEOMETRY} and sum(counted.values()) == 2
    sizes = {tuple(sorted(names)): len(found.indices) for *names, found in matches}
    connection = sqlite3.connect(path)
    name = dict(connection.execute("SELECT image_id, name FROM images"))
    judged = connection.execute(
        "SELECT pair_id, matches, strong, significance, verdict FROM sfm_match_pairs"
    ).fetchall()
    connection.close()
    accepted = {pair for pair, *_, verdict in judged if verdict == Verdict.ACCEPTED}
    assert accepted == rows_of(path, "two_view_geometries").keys() == rows_of(path, "matches").keys()
    for pair, count, strong, significance, verdict in judged:
        ends = divmod(pair, MOST_IMAGES)
        assert count == sizes[tuple(sorted(name[end] for end in ends))]
        assert (verdict == Verdict.ACCEPTED) == (6 not in ends)
        assert verdict != Verdict.ACCEPTED or (significance < -100 and strong == count)
    assert rows_of(path, "matches") == {pair: count for pair, count, *_ in judged if pair in accepted}  # all are kept


def test_rejected_pairs_cost_no_ransac(
    database: tuple[Path, list[NamedMatches]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No geometry is tried on them, and COLMAP's verification of the database does not bring back what was rejected."""
    path, matches = database
    tried: list[int] = []

    def counted(*args: Any) -> TwoView | None:
        tried.append(1)
        return estimate_two_view(*args)

    monkeypatch.setattr(verification, "estimate_two_view", counted)
    assert judge(path, matches) == 15
    assert len(tried) == 12  # 10, and 2 strong ones
    accepted = rows_of(path, "two_view_geometries")
    pycolmap.geometric_verification(str(path))
    assert rows_of(path, "two_view_geometries") == accepted


def test_all_can_be_left_to_colmap(database: tuple[Path, list[NamedMatches]]) -> None:
    path, matches = database
    judge(path, matches, accept_all=True)
    assert verdicts(path) == {}
    assert len(rows_of(path, "matches")) == 15
    assert len(rows_of(path, "two_view_geometries")) >= 10


def test_matches_arrive_in_colmaps_order(database: tuple[Path, list[NamedMatches]]) -> None:
    path, matches = database
    judge(path, matches)
    opened = pycolmap.Database.open(str(path))
    ids = {image.name: image.image_id for image in opened.read_all_images()}
    read = 0
    for first, second, found in matches:
        if 6 not in (ids[first], ids[second]):
            np.testing.assert_array_equal(opened.read_matches(ids[first], ids[second]), found.indices)
            read += 1
    opened.close()
    assert read == 10


@pytest.mark.parametrize("accept_all", [False, True])
def test_resumes_where_it_was_killed(
    database: tuple[Path, list[NamedMatches]], accept_all: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, matches = database
    undisturbed = tmp_path / "undisturbed.db"
    undisturbed.write_bytes(path.read_bytes())
    judge(undisturbed, matches, accept_all=accept_all)

    def interrupted() -> Iterator[NamedMatches]:
        yield from matches[:11]
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "_AT_ONCE", 3)
    with pytest.raises(KeyboardInterrupt):
        judge(path, interrupted(), accept_all=accept_all)
    assert verdicts(path) == {}
    before = len(rows_of(path, "matches"))
    assert 0 < before < 11
    tried: list[int] = []

    def counted(*args: Any) -> TwoView | None:
        tried.append(1)
        return estimate_two_view(*args)

    monkeypatch.setattr(verification, "estimate_two_view", counted)
    assert judge(path, matches, accept_all=accept_all) == 15
    assert len(tried) <= 15 - before
    assert verdicts(path) == verdicts(undisturbed)
    for table in ("matches", "two_view_geometries"):
        assert contents(path, table) == contents(undisturbed, table)


def test_the_work_that_is_told_is_all_of_it(database: tuple[Path, list[NamedMatches]]) -> None:
    """Of a job that was stopped, too; nothing is left of one that was not."""
    path, matches = database
    judging, before, after = judging_of(path, How()), Told(), Told()
    work = verification_work(matches, judging)

    def stopped() -> Iterator[NamedMatches]:
        yield from matches[:5]
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        verify_pairs(path, stopped(), judging, before)
    assert verification_work(matches, judging) == work
    verify_pairs(path, matches, judging, after)
    assert after.pairs == len(matches)
    assert after.work == pytest.approx(work)
    assert is_verified(path)


def test_a_pair_with_few_right_matches_is_the_most_work(made: tuple[Path, list[NamedMatches]]) -> None:
    """A first look rejects those that have next to none; where all are right, few samples are enough."""
    path, matches = made
    first, second, _ = matches[0]

    def work(strong: int, weak: int) -> float:
        scores = np.repeat([0.9, 0.2], (strong, weak)).astype(np.float16)
        found = Matches(np.zeros((strong + weak, 2), np.uint32), scores)
        return verification_work([(first, second, found)], judging_of(path, How()))

    assert work(2, 98) == 1
    assert work(2, 98) < work(7, 93) < work(12, 88) > work(80, 20) > 5
