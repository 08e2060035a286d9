"""A job that grows: what is between unchanged images is taken over, and the result is that of a job made at once."""

import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from conftest import FINISHED
from jobs import copied_job, sfm_match_process

import sfm_match
from sfm_match.colmap.growth import FROM
from sfm_match.colmap.queries import MOST_IMAGES, read_record
from sfm_match.job.progress import StageReport

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def four(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job over the last four views, with its images."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "images").mkdir()
    for path in sorted(rendered.iterdir())[2:]:
        shutil.copy2(path, folder / "images")
    sfm_match.run(folder / "images", folder / "work", pairs="exhaustive", **FINISHED)
    return folder


@pytest.fixture
def job(four: Path, tmp_path: Path) -> Path:
    """The same, a test's own."""
    return copied_job(four, tmp_path).parent


def grown(job: Path, rendered: Path) -> dict[str, StageReport]:
    for path in sorted(rendered.iterdir())[:2]:
        shutil.copy2(path, job / "images")
    return again(job)


def again(job: Path, **options: Any) -> dict[str, StageReport]:
    reports = sfm_match.run(job / "images", job / "work", pairs="exhaustive", **FINISHED, **options)
    return {report.stage: report for report in reports}


def query(database: Path, text: str) -> list[Row]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(text).fetchall()


def numbers(database: Path) -> dict[str, int]:
    return dict(query(database, "SELECT name, image_id FROM images"))


def verdicts(database: Path) -> dict[frozenset[str], Row]:
    """Pair of names -> all that was seen of it, and its fundamental matrix up to the order of the images."""
    name = {number: name for name, number in numbers(database).items()}
    text = (
        "SELECT pair_id, p.matches, strong, arrangement, significance, verdict, g.rows, config "
        "FROM sfm_match_pairs AS p LEFT JOIN two_view_geometries AS g USING (pair_id)"
    )
    return {
        frozenset(name[end] for end in divmod(pair, MOST_IMAGES)): tuple(rest) for pair, *rest in query(database, text)
    }


def keypoints(database: Path) -> dict[str, np.ndarray]:
    rows = query(database, "SELECT name, data FROM images JOIN keypoints USING (image_id)")
    return {name: np.frombuffer(data, np.float32).reshape(-1, 2) for name, data in rows}


def matched(database: Path) -> dict[str, list[int]]:
    """Keypoints of each image that are inliers of pairs that are aligned: all of 15 or more, of four images."""
    name, found = {number: name for name, number in numbers(database).items()}, defaultdict[str, list[int]](list)
    for pair, data in query(database, "SELECT pair_id, data FROM two_view_geometries WHERE rows >= 15"):
        for end, rows in zip(divmod(pair, MOST_IMAGES), np.frombuffer(data, np.uint32).reshape(-1, 2).T, strict=True):
            found[name[end]] += rows.tolist()
    return found


def test_new_images_alone_are_verified_aligned_and_registered(
    job: Path, rendered: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = job / "work" / "database.db"
    ids, points, seen = numbers(database), keypoints(database), verdicts(database)
    aligned = matched(database)
    starts: list[str] = []
    mapping = pycolmap.incremental_mapping

    def watched(*arguments: Any, **options: Any) -> Any:
        starts.append(options["input_path"])
        return mapping(*arguments, **options)

    monkeypatch.setattr(pycolmap, "incremental_mapping", watched)
    reports = grown(job, rendered)
    assert (reports["match"].done, reports["match"].cached) == (9, 6)
    assert (reports["import"].done, reports["import"].cached) == (9, 6)
    assert 0 < reports["import"].facts["adjusted"]["pairs"] <= 9
    assert reports["reconstruct"].facts["registered"] == 6
    assert len(starts) == 1
    assert starts[0]  # from the model of four
    after = verdicts(database)
    assert ids.items() <= numbers(database).items()
    assert seen.items() <= after.items()
    at_once = verdicts(finished / "database.db")
    assert after.keys() == at_once.keys()
    same = sum(after[pair][5] == at_once[pair][5] for pair in after)  # verdicts
    assert same == len(after) == 15
    moved = keypoints(database)
    for name, rows in aligned.items():
        np.testing.assert_array_equal(moved[name][rows], points[name][rows])
    ours, theirs = (pycolmap.Reconstruction(str(path / "sparse" / "0")) for path in (job / "work", finished))
    compared = pycolmap.compare_reconstructions(ours, theirs, alignment_error="proj_center")
    assert compared is not None
    assert max(error.rotation_error_deg for error in compared["errors"]) < 0.2
    assert all(report.done == 0 for report in again(job).values())


def test_an_edited_database_is_not_grown_from(job: Path, rendered: Path) -> None:
    with closing(sqlite3.connect(job / "work" / "database.db")) as connection, connection:
        connection.execute(
            "DELETE FROM two_view_geometries WHERE pair_id = (SELECT MIN(pair_id) FROM two_view_geometries)"
        )
    assert grown(job, rendered)["import"].done == 15


def test_a_changed_image_is_verified_anew(job: Path) -> None:
    path = sorted((job / "images").iterdir())[0]
    path.write_bytes(path.read_bytes() + b"\0")  # behind the end of the JPEG
    reports = again(job)
    assert (reports["import"].done, reports["import"].cached) == (3, 3)
    assert reports["reconstruct"].facts["registered"] == 4


def test_a_list_with_fewer_pairs_gives_another_model(job: Path) -> None:
    """Not one that goes on from the model of all."""
    lines = (job / "work" / "pairs.txt").read_text().splitlines(keepends=True)
    (job / "work" / "pairs.txt").write_text("".join(lines[:-1]))
    report = sfm_match.import_(job / "work")
    assert (report.done, report.cached) == (0, 5)
    assert read_record(job / "work" / "database.db", FROM) is None


def test_overwrite_builds_all_anew(job: Path, rendered: Path) -> None:
    grown(job, rendered)
    assert again(job, overwrite=True)["import"].done == 15


@pytest.mark.parametrize("where", ["take_over", "write_records", "optimize_all"])
def test_a_killed_growth_resumes(job: Path, rendered: Path, where: str) -> None:
    """Before the earlier pairs are there, in the middle of it, and while keypoints are adjusted."""
    module = {"take_over": "stages.import_", "write_records": "colmap.growth", "optimize_all": "refine.keypoints"}[
        where
    ]
    for path in sorted(rendered.iterdir())[:2]:
        shutil.copy2(path, job / "images")
    kill = f"""
import os, signal
import sfm_match.{module} as module
module.{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in {**FINISHED, "pairs": "exhaustive"}.items()]
    command = ("run", "--images", job / "images", "--workspace", job / "work", *arguments)
    assert sfm_match_process(*command, before=kill).returncode == -9
    reports = again(job)
    assert reports["import"].done + reports["import"].cached == 15
    assert reports["import"].cached == 6
    assert reports["reconstruct"].facts["registered"] == 6
