"""Units keep their images while the folder changes."""

import os
from pathlib import Path

import pytest
from PIL import Image

from sfm_match import collection as module
from sfm_match.collection import Collection, register
from sfm_match.errors import NothingDone
from sfm_match.workspace import Workspace


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(path)


@pytest.fixture
def place(tmp_path: Path):
    with Workspace(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "UNIT_SIZE", 2)
    for name in ("b.png", "c.png", "d.png"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def test_units_and_stability(place: Workspace, images: Path) -> None:
    assert register(place, images, None).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}
    written = place.collection.stat().st_mtime_ns
    assert register(place, images, None).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}
    assert place.collection.stat().st_mtime_ns == written  # nothing new, nothing written


def test_growth_appends_units(place: Workspace, images: Path) -> None:
    register(place, images, None)
    picture(images / "a.png")
    picture(images / "sub" / "e.png")
    units = register(place, images, None).units()
    assert units == {0: ["b.png", "c.png"], 1: ["d.png"], 2: ["a.png", "sub/e.png"]}


def test_a_changed_image_gets_a_new_unit_and_a_vanished_one_goes(place: Workspace, images: Path) -> None:
    register(place, images, None)
    os.utime(images / "c.png", (1, 1))
    (images / "d.png").unlink()
    collection = register(place, images, None)
    assert collection.units() == {0: ["b.png"], 2: ["c.png"]}
    picture(images / "d.png")
    assert register(place, images, None).unit_of("d.png") == 3  # unit 1 had another file of that name


def test_bad_headers_have_no_unit(place: Workspace, images: Path) -> None:
    (images / "bad.jpg").write_text("hello")
    collection = register(place, images, None)
    assert "bad.jpg" not in collection.usable
    assert "no known format" in str(collection.records["bad.jpg"].error)
    with pytest.raises(KeyError):
        collection.unit_of("bad.jpg")


def test_roundtrip(place: Workspace, images: Path) -> None:
    written = register(place, images, None)
    read = Collection.load(place)
    assert (read.folder, read.masks, read.records) == (written.folder, written.masks, written.records)


def test_nothing_registered(place: Workspace) -> None:
    with pytest.raises(NothingDone, match="run `sfm-match extract"):
        Collection.load(place)
