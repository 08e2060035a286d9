"""Units keep their images while the folder changes."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from sfm_match.errors import NothingDone, UsageError
from sfm_match.images import collection as module
from sfm_match.images.collection import Collection, refresh_collection
from sfm_match.images.sources import Source
from sfm_match.job.workspace import Workspace


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(path)


def register(place: Workspace, images: Path, masks: Path | None) -> Collection:
    collection = refresh_collection(place, images, masks)
    collection.save(place)
    return collection


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
    os.utime(images / "d.png", (2, 2))
    assert register(place, images, None).records["d.png"].unit == 3  # another file of that name


def test_what_comes_back_unchanged_keeps_its_unit(place: Workspace, images: Path) -> None:
    register(place, images, None)
    away = images / "d.png", images.parent / "d.png"
    away[0].rename(away[1])
    assert register(place, images, None).units() == {0: ["b.png", "c.png"]}
    away[1].rename(away[0])
    assert register(place, images, None).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}


def test_another_folder_is_refused_unless_it_is_the_same_one_moved(place: Workspace, images: Path) -> None:
    register(place, images, None)
    other = images.parent / "other"
    other.mkdir()
    for path in images.iterdir():  # same names, sizes and times
        (other / path.name).write_bytes(path.read_bytes())
        os.utime(other / path.name, ns=(path.stat().st_mtime_ns,) * 2)
    # the same folder in another place: nothing is lost
    assert refresh_collection(place, other, None).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}
    (images.parent / "link").symlink_to(images)
    assert refresh_collection(place, images.parent / "link", None).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}
    os.utime(other / "b.png", (1, 1))
    with pytest.raises(UsageError, match=r"holds the images of .*images; choose another --workspace"):
        refresh_collection(place, other, None)
    assert refresh_collection(place, other, None, overwrite=True).units() == {2: ["b.png", "c.png"], 3: ["d.png"]}


def test_a_bad_header_is_looked_at_again(place: Workspace, images: Path) -> None:
    (images / "a.png").write_bytes((images / "b.png").read_bytes())
    (images / "a.png").chmod(0)
    collection = register(place, images, None)
    if collection.records["a.png"].error is None:
        pytest.skip("this user reads everything")
    (images / "a.png").chmod(0o644)
    assert register(place, images, None).records["a.png"].unit == 2


def test_names_that_cannot_be_written_are_failures(place: Workspace, images: Path) -> None:
    (images / "b.png").rename(images / "line\nbreak.png")
    (images / "c.png").rename(images / "tab\t.png")
    os.rename(os.fsencode(images / "d.png"), os.fsencode(images) + b"/f\xfcr.png")  # noqa: PTH104 - bytes
    picture(images / "fine, 1 #ü\u00a0.png")
    collection = register(place, images, None)
    assert list(collection.usable) == ["fine, 1 #ü\u00a0.png"]
    assert sum("rename the file" in str(r.error) for r in collection.records.values()) == 3


def test_bad_headers_have_no_unit(place: Workspace, images: Path) -> None:
    (images / "bad.jpg").write_text("hello")
    collection = register(place, images, None)
    assert "bad.jpg" not in collection.usable
    assert "no known format" in str(collection.records["bad.jpg"].error)
    assert collection.records["bad.jpg"].unit is None


def test_roundtrip(place: Workspace, images: Path) -> None:
    written = register(place, images, None)
    read = Collection.load(place)
    assert (read.folder, read.masks, read.records) == (written.folder, written.masks, written.records)


def test_nothing_registered(place: Workspace) -> None:
    with pytest.raises(NothingDone, match="run `sfm-match extract"):
        Collection.load(place)


def test_another_schema_is_refused_and_overwritten_where_that_is_asked_for(place: Workspace, images: Path) -> None:
    register(place, images, None)
    stored = json.loads(place.collection.read_text())
    place.collection.write_text(json.dumps({**stored, "schema": 2}))
    with pytest.raises(UsageError, match=r"another version of sfm-match \(schema 2, this one reads 3\); choose"):
        refresh_collection(place, images, None)
    assert refresh_collection(place, images, None, overwrite=True).units() == {0: ["b.png", "c.png"], 1: ["d.png"]}


def test_a_position_comes_back(place: Workspace, images: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)})
    Image.new("RGB", (64, 48)).save(images / "c.png", "JPEG", exif=exif)  # Pillow writes no GPS into a PNG
    register(place, images, None)
    assert Collection.load(place).usable["c.png"].location == (48.0, 11.0, None)


def test_new_images_go_into_units_by_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upright and lying photographs in turn, small ones between: each unit has one shape, in the order of names."""
    monkeypatch.setattr("sfm_match.images.collection.UNIT_SIZE", 4)
    sizes = {"a": (96, 64), "b": (64, 96), "c": (48, 32)}
    for number in range(4):
        for kind, size in sizes.items():
            Image.new("RGB", size).save(tmp_path / f"{number}{kind}.png")
    turned = Image.new("RGB", (96, 64))
    exif = turned.getexif()
    exif[0x0112] = 6  # upright, as those of kind b
    turned.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "0b.png").unlink()
    units = Collection(Source(tmp_path, tmp_path), None, [], [], 7).updated(Source(tmp_path, tmp_path), None).units()
    assert units == {
        7: ["1b.png", "2b.png", "3b.png", "turned.jpg"],
        8: ["0c.png", "1c.png", "2c.png", "3c.png"],
        9: ["0a.png", "1a.png", "2a.png", "3a.png"],
    }


def test_masks_of_other_images_are_refused(place: Workspace, images: Path, tmp_path: Path) -> None:
    picture(tmp_path / "masks" / "z.png")
    with pytest.raises(
        UsageError, match=r"masks: not one mask in it has the name of an image \(looked for b\.png\.png"
    ):
        register(place, images, tmp_path / "masks")
    picture(tmp_path / "masks" / "c.png.png")
    assert len(register(place, images, tmp_path / "masks").usable) == 3
