"""What is written of images before any matches, beside what COLMAP's own import writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from sfm_match.colmap.cameras import plan_cameras
from sfm_match.colmap.database import write_images
from sfm_match.images.files import Header, read_header
from sfm_match.options.stages import ImportOptions

Prior = tuple[list[float], list[float], str]


def photograph(path: Path, orientation: int | None, latitude: float | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if latitude is not None:
        exif.get_ifd(0x8825).update(
            {1: "NS"[latitude < 0], 2: (abs(latitude), 30.0, 36.0), 3: "W", 4: (13.0, 6.0, 0.0)}
        )
        exif.get_ifd(0x8825).update({5: b"\0", 6: 37.5})
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, exif=exif)


def priors(database: Path) -> dict[str, Prior]:
    opened = pycolmap.Database.open(str(database))
    try:
        names = {image.data_id.id: image.name for image in opened.read_all_images()}
        return {
            names[one.corr_data_id.id]: (one.position.tolist(), one.gravity.tolist(), str(one.coordinate_system))
            for one in opened.read_all_pose_priors()
            if np.isfinite(one.position).all()
        }
    finally:
        opened.close()


def test_pose_priors_are_those_of_colmap(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, (orientation, latitude) in enumerate([(1, 55.0), (6, 55.25), (3, -12.0), (8, 1.0), (1, None)]):
        photograph(images / f"{number}.jpg", orientation, latitude)
    headers = {path.name: read_header(path) for path in sorted(images.iterdir())}
    keypoints = ((name, np.zeros((1, 2), np.float32)) for name in headers)
    cameras = plan_cameras(headers, ImportOptions())
    write_images(tmp_path / "ours.db", cameras, keypoints, headers)
    pycolmap.extract_features(str(tmp_path / "colmap.db"), str(images), device=pycolmap.Device.cpu)
    ours, theirs = priors(tmp_path / "ours.db"), priors(tmp_path / "colmap.db")
    assert sorted(theirs) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert ours == theirs


def test_keypoints_are_of_images(tmp_path: Path) -> None:
    headers = {"a.jpg": Header(64, 48)}
    with pytest.raises(KeyError, match=r"b\.jpg"):
        write_images(
            tmp_path / "a.db",
            plan_cameras(headers, ImportOptions()),
            [("b.jpg", np.zeros((1, 2), np.float32))],
            headers,
        )


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of file sizes stands in for a full disk")
@pytest.mark.parametrize("kilobytes", [180, 250])
def test_a_full_disk_is_an_error_and_no_end_of_the_process(kilobytes: int, tmp_path: Path) -> None:
    """pycolmap's transactions end it by SIGABRT."""
    script = f"""
import resource, sqlite3, sys
import numpy as np
from sfm_match.colmap.cameras import plan_cameras
from sfm_match.colmap.database import write_images
from sfm_match.images.files import Header
from sfm_match.options.stages import ImportOptions
from pathlib import Path
headers = {{f"{{number}}.jpg": Header(640, 480) for number in range(9)}}
keypoints = ((name, np.zeros((5000, 2), np.float32)) for name in headers)
resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes} * 1024,) * 2)
try:
    write_images(Path(sys.argv[1]), plan_cameras(headers, ImportOptions()), keypoints, headers)
except sqlite3.Error as error:
    print("told:", error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.db")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout.partition(":")[0]) == (0, "told"), ended.stderr
