"""Damaged models are refused before pycolmap asks for all the memory there is."""

import struct
from pathlib import Path

import pycolmap
import pytest

from sfm_match.colmap.model_check import DamagedModel, check_structure, load

FILES = ("cameras", "images", "points3D", "rigs", "frames")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two rigs of three cameras."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 3, 2, 30
    pycolmap.synthesize_dataset(options).write(str(tmp_path))
    return tmp_path


def test_a_whole_model_is_read(model: Path) -> None:
    assert load(model).num_reg_images() == 12
    text = model / "text"
    text.mkdir()
    load(model).write_text(str(text))
    assert load(text).num_points3D() == 30


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [0, 1, 1 << 40, (1 << 64) - 1])
def test_counts_that_lie(model: Path, name: str, count: int) -> None:
    path = model / f"{name}.bin"
    path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
    with pytest.raises(DamagedModel, match=f"{name}.bin is damaged"):
        check_structure(model)


@pytest.mark.parametrize("name", FILES)
def test_files_that_end_early_or_are_text(model: Path, name: str) -> None:
    path = model / f"{name}.bin"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"\0", b"# no model\n" * 40):
        path.write_bytes(content)
        with pytest.raises(DamagedModel, match=f"{name}.bin is damaged"):
            load(model)


def test_what_only_pycolmap_sees_is_a_line_too(model: Path) -> None:
    path = model / "points3D.bin"
    content = bytearray(path.read_bytes())
    content[8 + 8 + 24 + 3 + 8 + 8] ^= 0x40  # the first point's first image
    path.write_bytes(content)
    with pytest.raises(DamagedModel, match="no COLMAP model to be read there") as raised:
        load(model)
    assert "\n" not in str(raised.value)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(DamagedModel, match=r"cameras, images, points3D; \.bin or \.txt"):
        load(tmp_path)
