"""A small job to break: some views of the demo's room, the options that make equal results of equal inputs."""

import shutil
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from campaign import isolated
from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH, View, cameras, render, room

OPTIONS = ["--max-keypoints", "300", "--mapper-threads", "1", "--seed", "0"]

# Units this small make several files of a few images, and several blocks of pairs.
UNITS = {
    "sfm_match.images.collection.UNIT_SIZE": 2,
    "sfm_match.stages.pair_blocks.UNIT_SIZE": 2,
    "sfm_match.stages.image_summaries.UNIT_SIZE": 2,
    "sfm_match.stages.match_blocks.BLOCK": 1,
    "sfm_match.refine.keypoints.UNIT": 4,
}


def small_units() -> None:
    """For `Conditions.before`."""
    import importlib

    for name, value in UNITS.items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, value)


SMALL_UNITS = isolated.Conditions(before=small_units)


@cache
def _pictures(count: int, width: int) -> list[tuple[View, np.ndarray]]:
    planes, views = room(), cameras(16)[4 : 4 + count]
    size = width, width * HEIGHT // WIDTH
    pictures = [np.asarray(render(view, planes))[..., ::-1] for view in views]
    return [
        (view, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        for view, picture in zip(views, pictures, strict=True)
    ]


def photographs(folder: Path, count: int, width: int) -> None:
    """Writes some neighbouring views of the room as JPEG; no EXIF."""
    folder.mkdir(parents=True, exist_ok=True)
    for view, picture in _pictures(count, width):
        cv2.imwrite(str(folder / view.name), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])


def arguments(images: Path, workspace: Path, width: int) -> list[object]:
    """Of the whole job, with the intrinsics known."""
    focal = FOCAL * width / WIDTH
    params = f"{focal},{focal},{width / 2},{width * HEIGHT / WIDTH / 2}"
    camera = ["--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", params]
    return ["run", "--images", images, "--workspace", workspace, "--size", width, *camera, *OPTIONS]


def finished(folder: Path, count: int, width: int, *more: object) -> Path:
    """Makes the photographs, where there are none, and the whole job in `folder`: images, work. Returns the latter."""
    if not (folder / "images").exists():
        photographs(folder / "images", count, width)
    made = isolated.run(
        [*arguments(folder / "images", folder / "work", width), *more], conditions=SMALL_UNITS, seconds=300
    )
    if made.status:
        raise RuntimeError(f"the job to break failed: {made.err}")
    return folder / "work"


def copied(workspace: Path, target: Path) -> Path:
    """A copy of a workspace, to break. The photographs are those of the original."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(workspace, target))
