"""Odd names come through every list and the database as they are."""

import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import FINISHED
from PIL import Image

import sfm_match
from sfm_match.errors import UsageError

SMALL: dict[str, Any] = {"size": 320, "max_keypoints": 400}
ODD = [
    "a b.jpg",
    "a.jpg",
    " lead.jpg",
    "#top.jpg",
    "c, d; 'e' \"f\".jpg",
    "день/ночь/ä ö, ü/日本/x y z 01.jpg",
]


@pytest.fixture(scope="module")
def images(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd names")
    for view, name in zip(sorted(rendered.iterdir()), ODD, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(view, folder / name)
    return folder


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work, of odd names")
    sfm_match.run(images, work, **SMALL)
    return work


def lines(work: Path) -> set[frozenset[str]]:
    text = (work / "pairs.txt").read_text(encoding="utf-8")
    return {frozenset(line.split("\t")) for line in text.splitlines()}


def test_through_the_whole_job(finished: Path) -> None:
    every = {frozenset((a, b)) for a in ODD for b in ODD if a != b}
    assert lines(finished) == every
    connection = sqlite3.connect(finished / "database.db")
    assert {name for (name,) in connection.execute("SELECT name FROM images")} == set(ODD)
    connection.close()


@pytest.mark.parametrize("strategy", ["poses", "covisibility"])
def test_through_a_model(finished: Path, tmp_path: Path, strategy: str) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    model = work / "sparse" / "0"
    options: dict[str, Any] = {"rotation_threshold": 180.0} if strategy == "poses" else {}
    sfm_match.pairs(work, strategy=strategy, reference_model=model, overwrite=True, **options)
    assert {name for pair in lines(work) for name in pair} == set(ODD)


def test_through_lists(finished: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    chain = {frozenset(pair) for pair in pairwise(ODD)}
    text = "".join(f"{a}\t{b}\r\n" for a, b in pairwise(ODD))
    (tmp_path / "pairs, mine.txt").write_text(text, encoding="utf-8-sig", newline="")
    sfm_match.pairs(work, strategy="list", match_list_path=tmp_path / "pairs, mine.txt", overwrite=True)
    assert lines(work) == chain
    # what was written can be read as a list
    shutil.copy(work / "pairs.txt", tmp_path / "again.txt")
    sfm_match.pairs(work, strategy="list", match_list_path=tmp_path / "again.txt", overwrite=True)
    assert lines(work) == chain
    # second rounds keep names, too
    assert sfm_match.match(work).done == 0
    sfm_match.import_(work)
    sfm_match.pairs(work, strategy="transitive")
    added = (work / "pairs-added.txt").read_text(encoding="utf-8").splitlines()
    assert {frozenset(line.split("\t")) for line in added} == lines(work) - chain
    assert len(added) >= 3


def test_through_lists_of_names(finished: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    (tmp_path / "names.txt").write_text("\n".join([ODD[0], ODD[4] + "\tPINHOLE 1 1 1", ODD[5]]), encoding="utf-8")
    options: dict[str, Any] = {
        "strategy": "retrieval",
        "query_list": tmp_path / "names.txt",
        "db_list": tmp_path / "names.txt",
    }
    sfm_match.pairs(work, overwrite=True, **options)
    assert {name for pair in lines(work) for name in pair} == {ODD[0], ODD[4], ODD[5]}
    sfm_match.pairs(work, strategy="retrieval", db_prefix="день/", overwrite=True)
    assert lines(work) == {frozenset((name, ODD[5])) for name in ODD[:5]}


def test_spaces_alone_may_say_too_little(finished: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(finished, tmp_path / "work"))
    path = tmp_path / "spaces.txt"
    path.write_text(f"{ODD[0]} {ODD[5]}\n", encoding="utf-8")
    sfm_match.pairs(work, strategy="list", match_list_path=path, overwrite=True)
    assert lines(work) == {frozenset((ODD[0], ODD[5]))}
    path.write_text("a.jpg no such.jpg\n")
    with pytest.raises(UsageError, match=r"line 1: .* does not split into two known names; put a TAB"):
        sfm_match.pairs(work, strategy="list", match_list_path=path, overwrite=True)


def test_a_grown_collection_keeps_the_numbers_of_its_images_and_cameras(rendered: Path, tmp_path: Path) -> None:
    def numbers() -> dict[str, tuple[int, int]]:
        with closing(sqlite3.connect(work / "database.db")) as connection:
            rows = connection.execute("SELECT name, image_id, camera_id FROM images").fetchall()
            assert connection.execute("SELECT COUNT(*) FROM frames JOIN rigs USING (rig_id)").fetchone() == (len(rows),)
        return {name: (image, camera) for name, image, camera in rows}

    images, work = tmp_path / "photos", tmp_path / "work"
    images.mkdir()
    views = sorted(rendered.iterdir())
    for view in views[1:4]:
        shutil.copy(view, images)
    options: dict[str, Any] = {**FINISHED, "mapper": "none"}
    sfm_match.run(images, work, **options)
    before = numbers()
    assert before == {view.name: (number, 1) for number, view in enumerate(views[1:4], 1)}
    shutil.copy(views[0], images)
    with Image.open(views[4]) as opened:  # another size: a new job would part the cameras of all
        opened.resize((480, 360)).save(images / views[4].name)
    sfm_match.run(images, work, **options)
    assert numbers() == before | {views[0].name: (4, 1), views[4].name: (5, 2)}
    sfm_match.run(images, work, **options | {"camera_mode": "per-image"}, overwrite=True)
    assert numbers() == {view.name: (number, number) for number, view in enumerate(views[:5], 1)}
