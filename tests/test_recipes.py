"""The command lines of docs/recipes.md run, one after the other, on the demo's scene."""

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL
from jobs import sfm_match as command
from PIL import Image

import sfm_match
from sfm_match.commands import scene
from sfm_match.images.panoramas import FACES

RECIPES = Path(__file__).parents[1] / "docs" / "recipes.md"
_SIZED = ("run", "extract", "plan")  # commands that take `SMALL`
_RUN_ELSEWHERE = {
    "Several GPUs": "needs a GPU",
    "A Ray cluster": "tests/integration/test_ray.py",
    "Reading the model with pycolmap": "tests/test_examples.py",
    "Where a photograph was taken": "tests/sfm_match/commands/test_localize.py",
    "nerfstudio, Gaussian splatting": "tests/test_examples.py",
    "Features of another extractor, through hloc": "tests/test_examples.py",
    "Files for other programs": "tests/test_examples.py",
    "More photographs later": "tests/integration/test_growth.py",  # no command line
}


def section_of(heading: str) -> str:
    return RECIPES.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def command_lines(section: str) -> list[str]:
    joined = re.sub(r" *\\\n +", " ", section)
    return re.findall(r"^ {4,}sfm-match (.+)$", joined, flags=re.MULTILINE)


def copied(photos: Path, folder: str) -> None:
    shutil.copytree(photos, folder)


def video(photos: Path) -> None:
    paths = sorted(photos.iterdir())
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (scene.WIDTH, scene.HEIGHT))
    for path in paths:
        writer.write(np.asarray(cv2.imread(str(path)), np.uint8))
    writer.release()


def flight(photos: Path) -> None:
    """With GPS where the cameras are, a unit of the scene as 10 metres."""
    Path("flight").mkdir()
    places = {view.name: view.centre for view in scene.cameras(16)}
    for path in sorted(photos.iterdir()):
        east, north, up = 10 * places[path.name]
        exif = Image.Exif()
        latitude, longitude = 50 + north / 111_200, 8 + east / 71_700  # degrees
        exif.get_ifd(0x8825).update(
            {
                1: "N",
                2: (int(latitude), 0.0, latitude % 1 * 3600),
                3: "E",
                4: (int(longitude), 0.0, longitude % 1 * 3600),
            }
        )
        exif.get_ifd(0x8825).update({5: b"\0", 6: 100 + float(up)})
        with Image.open(path) as image:
            image.save(Path("flight") / path.name, exif=exif, quality=95)


def rig(photos: Path) -> None:
    """Each view, and the next one beside it, as if two cameras had taken them at once. The recipe gives the file."""
    paths = sorted(photos.iterdir())
    for number, (left, right) in enumerate(itertools.pairwise(paths)):
        for side, path in (("left", left), ("right", right)):
            Path("photos", side).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, Path("photos", side, f"{number:04d}.jpg"))
    (line,) = (line for line in section_of("Cameras on a rig").splitlines() if line.startswith("    [{"))
    Path("rig.json").write_text(json.dumps(json.loads(line)))


def known_poses(photos: Path) -> None:
    copied(photos, "photos")
    sfm_match.run("photos", "before", size=320, max_keypoints=400)
    shutil.copytree("before/sparse/0", "model")


def turntable(photos: Path) -> None:
    copied(photos, "turntable")
    Path("masks").mkdir()
    mask = np.full((72, 96), 255, np.uint8)
    mask[:8] = 0
    for path in photos.iterdir():
        Image.fromarray(mask).save(Path("masks") / f"{path.name}.png")


def scans(photos: Path) -> None:
    """Just larger than a tile, so that there are four tiles of next to nothing."""
    Path("scans").mkdir()
    for path in sorted(photos.iterdir())[:3]:
        pixels = cv2.resize(np.asarray(cv2.imread(str(path)), np.uint8), (2100, 1575), interpolation=cv2.INTER_AREA)
        cv2.imwrite(f"scans/{path.name}", pixels)


def job(photos: Path) -> None:
    copied(photos, "photos")
    (content,) = re.findall(r"```yaml\n(.*?)```", section_of("A job in YAML"), flags=re.DOTALL)
    Path("job.yaml").write_text(content)


def panoramas(_: Path) -> None:
    """Of three places, from the six faces as the demo's renderer sees them."""
    width, side = 1024, 512
    planes = scene.room()
    Path("panoramas").mkdir()
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    latitude = ((np.arange(width // 2) + 0.5) / (width // 2) - 0.5) * np.pi
    across, down = np.meshgrid(longitude, latitude)
    rays = np.stack((np.cos(down) * np.sin(across), np.sin(down), np.cos(down) * np.cos(across)), axis=-1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WIDTH", side), ("HEIGHT", side), ("FOCAL", side / 2)):
            patch.setattr(scene, name, value)
        for view in scene.cameras(20)[4:14:2]:
            image = np.zeros((width // 2, width, 3), np.uint8)
            for axes in FACES.values():
                turn = np.array(axes, np.float64)
                seen = scene.render(scene.View(view.name, turn @ view.rotation, view.centre), planes)
                x, y, z = np.moveaxis(rays @ turn.T, -1, 0)
                inside = (z > 0) & (np.abs(x) <= z) & (np.abs(y) <= z)
                depth = np.where(inside, z, 1)
                left, top = (((one / depth + 1) * side / 2 - 0.5).astype(np.float32) for one in (x, y))
                cut = cv2.remap(seen, left, top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                image[inside] = np.asarray(cut)[inside]
            cv2.imwrite(f"panoramas/{view.name}", image[..., ::-1])


PREPARED: dict[str, Callable[[Path], None]] = {
    "A video": video,
    "Drone pictures with GPS": flight,
    "Cameras on a rig": rig,
    "360-degree panoramas": panoramas,
    "Known poses": known_poses,
    "A turntable, with masks": turntable,
    "Known intrinsics": lambda photos: copied(photos, "photos"),
    "Scans and other large photographs": scans,
    "Photographs of a telephone": lambda photos: copied(photos, "phone"),
    "A mixed folder": lambda photos: copied(photos, "holiday"),
    "A second round": lambda photos: copied(photos, "photos"),
    "A job in YAML": job,
    "A cluster": lambda photos: copied(photos, "photos"),
}
TAKES_LONG = {"360-degree panoramas", "Scans and other large photographs"}


@pytest.mark.parametrize(
    "heading", [pytest.param(one, marks=pytest.mark.slow if one in TAKES_LONG else ()) for one in PREPARED]
)
def test_a_recipe_leaves_a_model(heading: str, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PREPARED[heading](rendered)
    intrinsics = f"{scene.FOCAL},{scene.FOCAL},{scene.WIDTH / 2},{scene.HEIGHT / 2}"
    for line in command_lines(section_of(heading)):
        fitting = line.replace("1379.74,1382.08,760.345,503.405", intrinsics)
        arguments = shlex.split(fitting, comments=True)
        small = SMALL if arguments[0] in _SIZED and "--size" not in arguments else ()
        said = command(*arguments, *small)
        assert said.returncode == 0, f"{line}: {said.stderr}"
    assert list(tmp_path.glob("**/sparse/0/images.bin"))


def test_each_recipe_is_run() -> None:
    headings = re.findall(r"^## (.+)$", RECIPES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(headings) == PREPARED.keys() | _RUN_ELSEWHERE.keys()
