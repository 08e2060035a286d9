"""Features do not depend on batches, orientation tags or threads; masks hide."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import sfm_match
from sfm_match.errors import NothingDone
from sfm_match.job.progress import Progress
from sfm_match.store.features import Features, read_features

SMALL: dict[str, Any] = {"size": 384, "max_keypoints": 400}


def extracted(images: Path, work: Path, **options) -> dict[str, Features]:
    sfm_match.extract(images, work, **{**SMALL, **options})
    return read_features(work / "features" / "00000.h5")


@pytest.fixture(scope="module")
def view(rendered: Path) -> Image.Image:
    return Image.open(sorted(rendered.iterdir())[2]).convert("RGB").resize((480, 360))


def test_batches_and_threads_change_nothing(rendered: Path, tmp_path: Path) -> None:
    one = extracted(rendered, tmp_path / "1", batch="1", workers=1)
    five = extracted(rendered, tmp_path / "5", batch="5", workers=4)
    assert one.keys() == five.keys()
    for name in one:
        np.testing.assert_allclose(one[name].keypoints, five[name].keypoints, atol=1e-3)
        np.testing.assert_allclose(one[name].descriptors, five[name].descriptors, atol=2e-3)


def test_what_is_stored(rendered: Path, tmp_path: Path) -> None:
    for features in extracted(rendered, tmp_path).values():
        assert features.keypoints.dtype == features.scores.dtype == np.float32
        assert 100 < len(features.keypoints) <= 400
        assert (np.diff(features.scores) <= 0).all()
        assert (features.keypoints > 0).all()
        assert (features.keypoints < (960, 720)).all()
        np.testing.assert_allclose(np.linalg.norm(features.descriptors.astype(np.float32), axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_tag_moves_the_keypoints_with_the_sensor(
    orientation: int, view: Image.Image, tmp_path: Path
) -> None:
    """The same upright picture, stored turned with a tag, gives the same features at the turned places."""
    to_raw = {
        2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda x, y: (480 - x, y)),
        3: (Image.Transpose.ROTATE_180, lambda x, y: (480 - x, 360 - y)),
        4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda x, y: (x, 360 - y)),
        5: (Image.Transpose.TRANSPOSE, lambda x, y: (y, x)),
        6: (Image.Transpose.ROTATE_90, lambda x, y: (y, 480 - x)),
        7: (Image.Transpose.TRANSVERSE, lambda x, y: (360 - y, 480 - x)),
        8: (Image.Transpose.ROTATE_270, lambda x, y: (360 - y, x)),
    }
    transpose, place = to_raw[orientation]
    (tmp_path / "images").mkdir()
    view.save(tmp_path / "images" / "upright.png")
    turned = view.transpose(transpose)
    exif = turned.getexif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "images" / "turned.png", exif=exif)
    features = extracted(tmp_path / "images", tmp_path / "work", size=480)
    x, y = features["upright.png"].keypoints.T
    np.testing.assert_allclose(features["turned.png"].keypoints, np.stack(place(x, y), axis=1), atol=0.01)
    np.testing.assert_allclose(features["turned.png"].descriptors, features["upright.png"].descriptors, atol=2e-3)


def test_masks(view: Image.Image, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        view.save(images / name)
    half = np.zeros((360, 480), np.uint8)
    half[:, :240] = 255
    cv2.imwrite(str(masks / "a.png.png"), half)
    cv2.imwrite(str(masks / "c.png.png"), half[:, ::4])
    report = sfm_match.extract(images, tmp_path / "work", masks=masks, **SMALL)
    features = read_features(tmp_path / "work" / "features" / "00000.h5")
    assert features["a.png"].keypoints[:, 0].max() < 241
    assert features["b.png"].keypoints[:, 0].max() > 400
    assert report.failed == 1
    assert "c.png,mask c.png.png: 120 x 360 pixels" in (tmp_path / "work" / "failed.csv").read_text()


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(NothingDone, match=r"no readable image among 1 \(a.jpg: not an image"):
        sfm_match.extract(tmp_path, tmp_path / "work")


@pytest.mark.parametrize("options", [{"batch": 2}, {"devices": "cpu,cpu"}])
def test_time_left_goes_by_pixels(
    view: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Also where an image cannot be decoded, and where workers say what is done."""
    images = tmp_path / "images"
    images.mkdir()
    for number, width in enumerate((384, 192, 96, 384)):
        view.resize((width, width * 3 // 4)).save(images / f"{number}.png")
    broken = images / "3.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    told: list[tuple[int, float | None]] = []
    whole: list[float] = []
    closed = Progress.close

    def close(shown: Progress) -> None:
        whole.append(shown._work)
        closed(shown)

    monkeypatch.setattr(Progress, "advance", lambda _, count, work=None: told.append((count, work)))
    monkeypatch.setattr(Progress, "close", close)
    sfm_match.extract(images, tmp_path / "work", **SMALL, **options)
    assert sum(count for count, _ in told) == 4
    assert sum(work or 0 for _, work in told) == pytest.approx(whole[0])
    small, large = (min(work for _, work in told if work), max(work for _, work in told if work))
    assert large > 4 * small
