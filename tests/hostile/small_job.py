"""A finished job of four small photographs, made once a process or given; and copies of it to damage."""

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from campaign import job
from campaign.isolated import Finished
from jobs import stored

VIEWS, WIDTH = 4, 160
MODELS = ("cameras", "images", "points3D", "frames", "rigs")
_lock = threading.Lock()
_place: list[Path] = []
_results: list[dict[str, Any]] = []


def use(folder: Path) -> None:
    """Takes the job that `make` made there."""
    _place[:] = [folder]
    _results.clear()


def make(folder: Path, views: np.ndarray | None = None) -> None:
    """Of `views`, (N, H, W, 3) uint8 RGB, or of some that are rendered."""
    if views is not None:
        (folder / "images").mkdir()
        for number, view in enumerate(views[:VIEWS], 4):
            small = cv2.resize(view[..., ::-1], (WIDTH, WIDTH * 3 // 4), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / "images" / f"view{number:02d}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 95])
    job.finished(folder, VIEWS, WIDTH)


def base() -> Path:
    """The folder with `images` and the workspace `work`, neither to be changed."""
    with _lock:
        if not _place:
            folder = Path(tempfile.mkdtemp(prefix="hostile-job"))
            make(folder)
            _place.append(folder)
        return _place[0]


def results(workspace: Path) -> dict[str, Any]:
    """What a job is made for: stores, lists and database as `jobs.stored` tells them, and the model's files."""
    models = {name: (workspace / "sparse" / "0" / f"{name}.bin").read_bytes() for name in MODELS}
    return {**stored(workspace), **models}


def photos(folder: Path, count: int = 3) -> Path:
    """Some good photographs, in a folder of their own."""
    target = folder / "photos"
    target.mkdir(exist_ok=True)
    for view in sorted((base() / "images").iterdir())[:count]:
        shutil.copy2(view, target)
    return target


def work(folder: Path, *without: str) -> Path:
    """A copy of the finished workspace, whose photographs are those of the base."""
    target = Path(shutil.copytree(base() / "work", folder / "work"))
    for name in without:
        place = target / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        for journal in target.glob("database.db-*"):
            journal.unlink()
    return target


def run(folder: Path, images: Path | None = None, *more: object) -> list[str]:
    """Arguments of the job over `images` (those of the base), in the workspace `work` of the folder."""
    return [str(one) for one in (*job.arguments(images or base() / "images", folder / "work", WIDTH), *more)]


def command(name: str, folder: Path, *more: object) -> list[str]:
    """Arguments of a command over the workspace `work` of the folder."""
    return [name, "--workspace", str(folder / "work"), *map(str, more)]


def same_or_said(folder: Path, ended: Finished) -> str:
    """The results equal the base's, or there was a line."""
    if ended.err[-1].strip() or ended.status:
        return ""
    with _lock:
        if not _results:
            _results.append(results(_place[0] / "work"))
    try:
        found = results(folder / "work")
    except Exception as error:  # noqa: BLE001 - whatever cannot be read is not the same
        return f"silent difference: {type(error).__name__}"
    different = sorted(key for key in {*found, *_results[0]} if found.get(key) != _results[0].get(key))
    return f"silent difference: {', '.join(different)}" if different else ""
