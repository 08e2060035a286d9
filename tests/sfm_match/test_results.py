"""`sfm_match.open`: what a job left, against the files and the database."""

import json
from pathlib import Path

import numpy as np
import pytest

import sfm_match
from sfm_match.errors import NothingDone, UsageError
from sfm_match.results import Results
from sfm_match.store.features import read_features
from sfm_match.store.matches import read_block


@pytest.fixture(scope="module")
def work(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("results") / "work"
    sfm_match.run(rendered, work, pairs="sequential", overlap=3, size=512, max_keypoints=1024)
    return work


def test_what_a_job_left(work: Path, rendered: Path) -> None:
    results = sfm_match.open(work)
    names = sorted(path.name for path in rendered.iterdir())
    assert list(results.images) == names
    assert (results.failed, results.unregistered) == ({}, {})
    stored = {name: one for path in work.glob("features/*.h5") for name, one in read_features(path).items()}
    for name, found in results.iter_features():
        np.testing.assert_array_equal(found.keypoints, stored[name].keypoints)
        np.testing.assert_array_equal(results.features(name).descriptors, stored[name].descriptors)
        assert not results.features(name, descriptors=False).descriptors.size
        moves = np.linalg.norm(results.adjusted_keypoints(name) - found.keypoints, axis=1)
        assert moves.min() == 0 < np.median(moves[moves > 0]) < 2  # those that are verified, a little
    assert len(results.pairs) == 12
    assert set(results.verified_pairs) <= set(results.pairs)
    assert results.model.num_reg_images() == 6 == results.models[0].num_reg_images()


def test_matches_in_both_orders(work: Path) -> None:
    results = sfm_match.open(work)
    blocks = [read_block(path) for path in work.glob("matches/*.h5")]
    for block in blocks:
        names = list(block.images)
        for (i, j), matches in zip(block.pairs, block.matches, strict=True):
            there, back = results.matches(names[i], names[j]), results.matches(names[j], names[i])
            np.testing.assert_array_equal(there.indices, matches.indices)
            np.testing.assert_array_equal(back.indices, matches.indices[:, ::-1])
            np.testing.assert_array_equal(there.scores, back.scores)
    assert {(a, b) for a, b, _ in results.iter_matches()} == set(results.pairs)


def test_inliers_are_matches(work: Path) -> None:
    results = sfm_match.open(work)
    for first, second in results.verified_pairs:
        inliers = results.verified(first, second)
        assert len(inliers) >= 15
        assert set(map(tuple, inliers.tolist())) <= set(map(tuple, results.matches(first, second).indices.tolist()))
        np.testing.assert_array_equal(results.verified(second, first), inliers[:, ::-1])


def test_what_is_not_there(work: Path, tmp_path: Path) -> None:
    results = sfm_match.open(work)
    with pytest.raises(UsageError, match=r"view4.png: no such image \(did you mean 'view04.jpg'\?\)"):
        results.features("view4.png")
    first, *_, last = results.images
    with pytest.raises(NothingDone, match="no matches; the pair is not in"):
        results.matches(first, last)
    with pytest.raises(NothingDone, match="no such workspace"):
        sfm_match.open(tmp_path / "nowhere")


def test_a_job_that_has_only_begun(rendered: Path, tmp_path: Path) -> None:
    sfm_match.extract(rendered, tmp_path, size=320, max_keypoints=64)
    results = Results(tmp_path)
    assert results.features(next(iter(results.images))).keypoints.shape[1] == 2
    for ask in (lambda: results.pairs, lambda: results.verified_pairs, lambda: results.model):
        with pytest.raises(NothingDone, match="yet; run `sfm-match"):
            ask()


def test_a_workspace_of_another_version(rendered: Path, tmp_path: Path) -> None:
    sfm_match.extract(rendered, tmp_path, size=320, max_keypoints=64)
    record = json.loads((tmp_path / "sfm-match.json").read_text())
    (tmp_path / "sfm-match.json").write_text(json.dumps({**record, "schema": 0}))
    with pytest.raises(UsageError, match="made by another version of sfm-match"):
        sfm_match.open(tmp_path)
