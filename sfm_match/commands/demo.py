"""`demo`: renders a scene with known cameras, runs the main job on it, and measures the result against the truth."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sfm_match.api import StrPath, run
from sfm_match.colmap.similarity import align
from sfm_match.commands.scene import FOCAL, HEIGHT, WIDTH, View, cameras, render, room
from sfm_match.errors import NothingDone, UsageError, quoted
from sfm_match.images.collection import Collection
from sfm_match.job.cores import cores
from sfm_match.job.progress import StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.options.arguments import checked
from sfm_match.options.base import Bounds
from sfm_match.signals import removed_if_stopped
from sfm_match.stages.base import STAGES
from sfm_match.store.shard import write_text

MIN_VIEWS = 4
_VIEWS = Bounds(MIN_VIEWS, 10_000)


@dataclass(frozen=True)
class DemoResult:
    """The reconstruction against the truth, after a similarity alignment of the camera centres."""

    registered: int
    views: int
    rotation_median: float  # degrees
    rotation_worst: float  # degrees
    position_median: float  # millimetres, in a room of 6 m
    position_worst: float  # millimetres
    seconds: float

    def line(self) -> str:
        return (
            f"demo: {self.registered}/{self.views} registered, rotation error {self.rotation_median:.3f} degrees "
            f"median ({self.rotation_worst:.3f} worst), position error {self.position_median:.1f} mm median "
            f"({self.position_worst:.1f} worst) in a room of 6 m, {self.seconds:.0f} s in all"
        )


@checked
def demo(
    workspace: StrPath = "demo",
    views: int = 16,
    *,
    quiet: bool = True,
    on_report: Callable[[StageReport], None] = lambda _: None,
) -> DemoResult:
    """Renders `views` images into WORKSPACE/images and reconstructs them, with the intrinsics known.

    Raises:
        UsageError: too few views or too many, or the workspace holds other images.
        NothingDone: no reconstruction.
    """
    _VIEWS(views, "--views")
    started = time.monotonic()
    folder = Path(workspace) / "images"
    with Workspace(Path(workspace)) as place:
        if place.collection.exists() and Collection.load(place).folder != folder.resolve():
            raise UsageError(f"--workspace {workspace}: holds another job; choose another folder for the demo")
    truth = cameras(views)
    rendered = _render_all(truth, folder)
    on_report(StageReport("render", "views", rendered, views - rendered, seconds=time.monotonic() - started))
    run(
        folder,
        workspace,
        quiet=quiet,
        on_report=on_report,
        pairs="exhaustive",
        camera_mode="single",
        camera_model="PINHOLE",
        camera_params=f"{FOCAL},{FOCAL},{WIDTH / 2},{HEIGHT / 2}",
    )
    return _compare(Path(workspace) / "sparse" / "0", truth, started)


def _render_all(views: list[View], folder: Path) -> int:
    """Renders the views that are not there; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder.parent / "scene.json"
    scene = {"views": len(views), "width": WIDTH, "height": HEIGHT}
    if _read(marker) == scene:
        missing = [view for view in views if not (folder / view.name).exists()]
    else:
        if not marker.exists() and any(folder.iterdir()):
            raise UsageError(f"--workspace {quoted(folder.parent)}: {folder} holds other images; choose another folder")
        write_text(marker, json.dumps({}))  # first: an interrupted change must not look like the old scene
        missing = views
        for old in folder.glob("view*.jpg"):
            if old.stem.removeprefix("view").isdecimal():
                old.unlink()
    if missing:
        with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(cores()) as pool:
            loading.submit(lambda: [stage.load() for stage in STAGES])  # meanwhile: rendering waits for memory
            planes = room()
            for view, image in zip(missing, pool.map(lambda v: render(v, planes), missing), strict=True):
                partial = folder / f".{view.name}"
                with removed_if_stopped(partial):
                    try:
                        cv2.imwrite(str(partial), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                        partial.replace(folder / view.name)
                    finally:
                        partial.unlink(missing_ok=True)
        write_text(marker, json.dumps(scene))
    return len(missing)


def _read(marker: Path) -> object:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _compare(model: Path, truth: list[View], started: float) -> DemoResult:
    import pycolmap

    reconstruction = pycolmap.Reconstruction(str(model))
    by_name = {view.name: view for view in truth}
    images = [image for image in reconstruction.images.values() if image.has_pose]
    if len(images) < MIN_VIEWS - 1:
        raise NothingDone(f"demo: only {len(images)} of {len(truth)} views registered")
    found = np.array([image.projection_center() for image in images])
    real = np.array([by_name[image.name].centre for image in images])
    world_from_model = align(found, real)
    positions = np.linalg.norm(world_from_model.apply(found) - real, axis=1)
    rotations = []
    for image in images:
        estimated = image.cam_from_world().rotation.matrix() @ world_from_model.rotation.T
        between = estimated @ by_name[image.name].rotation.T
        rotations.append(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))))
    return DemoResult(
        len(images),
        len(truth),
        float(np.median(rotations)),
        float(np.max(rotations)),
        float(np.median(positions) * 1000),
        float(positions.max() * 1000),
        time.monotonic() - started,
    )
