"""Shared fixtures: the photographs where they are, and a small rendered scene that is always there."""

import importlib
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import one_thread  # noqa: F401 - before a library starts its threads
import pytest
from fake_gpu import GPU, FakeCuda
from fake_tensorrt import fake_tensorrt
from filelock import FileLock
from hostile import small_job

import sfm_match
import sfm_match.commands.plan.job
from sfm_match.commands.scene import Rectangle, cameras, render, room
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Item, Loaded
from sfm_match.runtime import devices
from sfm_match.runtime.gpus import gpus
from sfm_match.stages.base import STAGES

if not gpus():  # read when triton is imported; there its kernels run on arrays of the host
    os.environ.setdefault("TRITON_INTERPRET", "1")

logging.getLogger("sfm_match").setLevel(logging.INFO)  # for caplog
for one in STAGES:  # or a module that is first imported under a patch would keep the patched constants
    one.load()

# HYPOTHESIS_PROFILE=thorough looks longer
hypothesis.settings.register_profile("quick", max_examples=25, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=200, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

FINISHED: dict[str, Any] = {"size": 320, "max_keypoints": 400}  # options that keep a whole job short
SMALL = ["--size", "320", "--max-keypoints", "400"]  # the same on the command line

Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Makes a folder once for all workers of a test run: `shared(name, make)` calls `make(folder)` or finds it made."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)

    def share(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed on the way
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return share


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of photographed scenes."""
    root = Path(os.environ.get("SFM_MATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "scenes").is_dir():
        pytest.skip(f"no photographs at {root}; set SFM_MATCH_DATA to their folder")
    return root / "scenes"


@pytest.fixture(scope="session")
def planes(shared: Shared) -> list[Rectangle]:
    """The demo's room, of which the textures take seconds."""
    folder = shared("room", lambda folder: (folder / "planes").write_bytes(pickle.dumps(room())))
    return list(pickle.loads((folder / "planes").read_bytes()))


@pytest.fixture(scope="session")
def views(planes: list[Rectangle], shared: Shared) -> np.ndarray:
    """(6, 720, 960, 3) uint8 RGB: six views of the demo's room, as they are rendered."""

    def make(folder: Path) -> None:
        np.save(folder / "views.npy", np.stack([render(view, planes) for view in cameras(16)[4:10]]))

    return np.asarray(np.load(shared("views", make) / "views.npy"))


@pytest.fixture(scope="session")
def rendered(views: np.ndarray, shared: Shared) -> Path:
    """The six views as photographs."""

    def make(folder: Path) -> None:
        for view, image in zip(cameras(16)[4:10], views, strict=True):
            cv2.imwrite(str(folder / view.name), image[..., ::-1])

    return shared("rendered", make)


@pytest.fixture(scope="session")
def finished(rendered: Path, shared: Shared) -> Path:
    """A whole job over the six views, not to be changed: tests that change one take `workspace`."""
    return shared("finished", lambda folder: sfm_match.run(rendered, folder, pairs="exhaustive", **FINISHED))


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished job, to change."""
    return Path(shutil.copytree(finished, tmp_path / "work"))


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine with a GPU, CUDA and TensorRT, over host memory (`fake_gpu`, `fake_tensorrt`)."""
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    cuda = FakeCuda()
    monkeypatch.setattr(devices, "gpus", lambda: (GPU,))
    devices.why_not.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(cuda))
    for name in ("sfm_match.runtime.cuda", "sfm_match.runtime.trt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.import_module("sfm_match.runtime.cuda"), "cudart", cuda)
    monkeypatch.setattr(importlib.import_module("sfm_match.runtime.trt"), "gpus", lambda: (GPU,))
    yield cuda
    devices.why_not.cache_clear()
    for name in ("sfm_match.runtime.cuda", "sfm_match.runtime.trt"):  # they hold the fake
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def small(views: np.ndarray, shared: Shared) -> Path:
    """`images` and `work`: a finished job of four small views, to be copied and broken."""
    return shared("small", partial(small_job.make, views=views))


@pytest.fixture(scope="session")
def batch(views: np.ndarray) -> Loaded:
    """Three views in one bucket: one padded, one with a mask, one with an orientation."""
    small = [cv2.resize(view, (320, 240)) for view in views[:3]]
    images = np.stack([cv2.copyMakeBorder(view, 0, 16, 0, 0, cv2.BORDER_REPLICATE) for view in small])
    geometries = [
        ImageGeometry((640, 480), 1, (320, 240), (320, 256)),
        ImageGeometry((320, 240), 1, (320, 240), (320, 256)),
    ]
    geometries.append(ImageGeometry((480, 640), 6, (320, 240), (320, 256)))
    mask = np.zeros((240, 320), np.uint8)
    mask[:, 100:] = 255
    items = [Item(f"{i}.png", geometry) for i, geometry in enumerate(geometries)]
    return Loaded(items, images, [None, mask, None], {}, set())
