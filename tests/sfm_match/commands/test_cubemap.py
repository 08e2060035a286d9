"""From panoramas to a rig that `import` takes."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.colmap.cameras import all_given
from sfm_match.colmap.rigs import has_places, read_rigs
from sfm_match.errors import NothingDone, UsageError


@pytest.fixture
def panoramas(tmp_path: Path) -> Path:
    """Two panoramas of noise, and a photograph."""
    folder = tmp_path / "panoramas"
    (folder / "day").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (512, 256)), ("day/b.png", (512, 256)), ("c.jpg", (640, 480))):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8)).save(folder / name)
    return folder


def test_each_panorama_is_a_frame_of_a_rig(panoramas: Path, tmp_path: Path) -> None:
    found = sfm_match.cubemap(panoramas, tmp_path / "faces")
    assert (found.panoramas, list(found.failed)) == (["a.jpg", "day/b.png"], ["c.jpg"])
    names = sorted(path.relative_to(tmp_path / "faces").as_posix() for path in (tmp_path / "faces").rglob("*.jpg"))
    faces = ("back", "down", "front", "left", "right", "up")
    assert names == [f"162px/{face}/{name}" for face in faces for name in ("a.jpg", "day/b.jpg")]
    with Image.open(tmp_path / "faces" / names[0]) as face:
        assert face.size == (162, 162)
    (rig,) = read_rigs(found.rig_config, names)
    assert has_places([rig])
    assert len(rig.cameras) == 6


def test_the_database_has_frames_of_six_with_their_intrinsics(panoramas: Path, tmp_path: Path) -> None:
    found = sfm_match.cubemap(panoramas, tmp_path / "faces")
    options: dict[str, Any] = {"size": 320, "max_keypoints": 100, "mapper": "none", "pairs": "exhaustive"}
    sfm_match.run(tmp_path / "faces", tmp_path / "work", rig_config=found.rig_config, **options)
    database = pycolmap.Database.open(str(tmp_path / "work" / "database.db"))
    counts = database.num_rigs(), database.num_cameras(), database.num_frames(), database.num_images()
    cameras = [(camera.model_name, list(camera.params)) for camera in database.read_all_cameras()]
    database.close()
    assert counts == (1, 6, 2, 12)
    assert cameras == 6 * [("PINHOLE", [81.0, 81.0, 81.0, 81.0])]
    assert all_given(tmp_path / "work" / "database.db")


def test_faces_that_are_there_are_kept(panoramas: Path, tmp_path: Path) -> None:
    sfm_match.cubemap(panoramas, tmp_path / "faces")
    face = tmp_path / "faces" / "162px" / "up" / "a.jpg"
    inode = face.stat().st_ino
    sfm_match.cubemap(panoramas, tmp_path / "faces")
    assert face.stat().st_ino == inode
    os.utime(panoramas / "a.jpg", (1, 1))
    sfm_match.cubemap(panoramas, tmp_path / "faces")
    assert face.stat().st_ino != inode
    assert face.stat().st_mtime == 1


def test_panoramas_of_two_sizes_are_two_rigs(panoramas: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1024, 512)).save(panoramas / "d.jpg")
    found = sfm_match.cubemap(panoramas, tmp_path / "faces")
    prefixes = [rig["cameras"][0]["image_prefix"] for rig in json.loads(found.rig_config.read_text())]
    assert prefixes == ["162px/front/", "326px/front/"]


def test_refusals(panoramas: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside the folder of panoramas"):
        sfm_match.cubemap(panoramas, panoramas / "faces")
    for name in ("a.jpg", "day/b.png"):
        (panoramas / name).unlink()
    with pytest.raises(NothingDone, match=r"no panorama in it \(c\.jpg: 640 x 480 pixels; a panorama is twice as wide"):
        sfm_match.cubemap(panoramas, tmp_path / "faces")


def test_the_command_line_says_what_comes_next(panoramas: Path, tmp_path: Path) -> None:
    said = command("cubemap", "--images", panoramas, "--out", tmp_path / "faces")
    assert said.returncode == 1  # a file was left out
    assert "2 panoramas, 12 pictures; 1 files left out (c.jpg: 640 x 480 pixels" in said.stdout
    assert f"next: sfm-match run --images {tmp_path / 'faces'} --rig-config" in said.stdout


def test_rigs_of_other_pictures_are_kept(panoramas: Path, tmp_path: Path) -> None:
    out = tmp_path / "cubes"
    out.mkdir()
    for text in ("mine", '[{"cameras": [{"image_prefix": "left/"}]}]', "[" * 100_000):
        (out / "rig.json").write_text(text)
        with pytest.raises(UsageError, match=r"rig.json is of other pictures"):
            sfm_match.cubemap(panoramas, out)
        assert (out / "rig.json").read_text() == text
